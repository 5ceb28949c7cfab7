//! Why a request was turned down.

use std::fmt;

/// What kind of refusal, as the API tells it by status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RefusalKind {
    /// The request makes no sense: 400.
    Invalid,
    /// What it speaks of does not exist: 404.
    NotFound,
    /// It contradicts what there is: 409.
    Conflict,
    /// The fault is ours: 500.
    Internal,
}

/// A request that was turned down; nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Of what kind; where there are several faults, the first kind in order of [`RefusalKind`].
    pub kind: RefusalKind,
    /// One line that names every fault, joined by `; `.
    pub message: String,
}

impl Refusal {
    /// One fault.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Refusal {
        Refusal { kind, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// The faults of one request, gathered so that the user sees all of them at once.
#[derive(Default)]
pub(super) struct Faults(Vec<Refusal>);

impl Faults {
    pub fn invalid(&mut self, message: impl Into<String>) {
        self.0.push(Refusal::new(RefusalKind::Invalid, message));
    }

    pub fn conflict(&mut self, message: impl Into<String>) {
        self.0.push(Refusal::new(RefusalKind::Conflict, message));
    }

    /// The value, or its refusal noted.
    pub fn note<T>(&mut self, result: Result<T, Refusal>) -> Option<T> {
        result.map_err(|refusal| self.0.push(refusal)).ok()
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Nothing, or everything that was noted as one refusal.
    pub fn settle(self) -> Result<(), Refusal> {
        let Some(kind) = self.0.iter().map(|fault| fault.kind).min() else { return Ok(()) };
        let lines: Vec<&str> = self.0.iter().map(|fault| fault.message.as_str()).collect();
        Err(Refusal::new(kind, lines.join("; ")))
    }
}
