//! What happened, for whoever listens: as Docker words it, with the last few kept for latecomers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::api::types::{EventActor, EventMessage};
use crate::daemon::clock;

/// Events kept for `--since`.
const KEPT_MAX: usize = 256;

/// Events a listener may lag behind before it loses some.
const LAG_MAX: usize = 1024;

/// The stream of events.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<VecDeque<EventMessage>>,
    live: broadcast::Sender<EventMessage>,
}

impl Default for Events {
    fn default() -> Events {
        Events { kept: Mutex::default(), live: broadcast::Sender::new(LAG_MAX) }
    }
}

impl Events {
    /// Tells that `action` happened to a thing of that kind.
    pub fn tell(&self, kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) {
        let nanos = clock::unix_nanos();
        let attributes: BTreeMap<String, String> = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let event = EventMessage {
            kind: kind.into(),
            action: action.into(),
            actor: EventActor { id: id.into(), attributes },
            time: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            time_nano: i64::try_from(nanos).unwrap_or(i64::MAX),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // Nobody listening is no error.
        let _ = self.live.send(event);
    }

    /// The kept events since a second, and all that follow.
    pub fn listen(
        &self,
        since: Option<i64>,
    ) -> (Vec<EventMessage>, broadcast::Receiver<EventMessage>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let past = match since {
            Some(since) => kept.iter().filter(|event| event.time >= since).cloned().collect(),
            None => Vec::new(),
        };
        (past, self.live.subscribe())
    }
}
