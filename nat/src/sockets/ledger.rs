//! Who has how many flows, and which gives way.

use crate::inside::{Lost, Owner};

use super::Limits;

/// How dear a flow is: where one must give way, a transitory one goes before any lasting one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    /// Half open, closing, or of one question: it would be over soon anyhow.
    Transitory,
    /// In use.
    Lasting,
}

/// The flows of one transport, by owner.
#[derive(Debug, Default)]
pub(super) struct Ledger {}

impl Ledger {
    /// Without flows.
    pub(super) fn new(_limits: Limits) -> Ledger {
        Ledger {}
    }

    /// Enters a flow. Where its owner, or all together, have as many as they may: which one gives way, already struck; it is
    /// the owner's own, or, where the owner has none, one of whoever has the most. [`Lost::FlowLimit`] where none can.
    pub(super) fn enter(
        &mut self,
        _owner: Owner,
        _flow: u32,
        _rank: Rank,
    ) -> Result<Option<u32>, Lost> {
        Ok(None)
    }

    /// It was used just now.
    pub(super) fn touch(&mut self, _flow: u32) {}

    /// It has become more or less dear.
    pub(super) fn rank(&mut self, _flow: u32, _rank: Rank) {}

    /// It is over.
    pub(super) fn strike(&mut self, _flow: u32) {}
}
