//! What happened, for whoever listens: as Docker words it, with the last few kept in memory for latecomers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::api::events::{Action, EventActor, EventMessage, Subject};
use crate::daemon::clock;
use crate::topology::{Id, Network, Node};

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
    /// Tells what happened to a node, and what there is `more` to say of it.
    pub fn tell_of_node(&self, action: Action, node: &Node, more: &[(&str, &str)]) {
        let attributes = [&[("name", node.name.as_str())], more].concat();
        self.tell(Subject::Node, action, node.id, &attributes);
    }

    /// Tells what happened to a network, which node has to do with it, and what there is `more` to say of it.
    pub fn tell_of_network(
        &self,
        action: Action,
        network: &Network,
        node: Option<&Node>,
        more: &[(&str, &str)],
    ) {
        let mut attributes = vec![("name", network.name.as_str()), ("type", network.form.driver())];
        let id = node.map(|node| node.id.to_string());
        if let (Some(node), Some(id)) = (node, &id) {
            attributes.extend([("container", id.as_str()), ("node", node.name.as_str())]);
        }
        attributes.extend(more);
        self.tell(Subject::Network, action, network.id, &attributes);
    }

    fn tell(&self, subject: Subject, action: Action, id: Id, attributes: &[(&str, &str)]) {
        let nanos = clock::unix_nanos();
        let attributes: BTreeMap<String, String> = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let event = EventMessage {
            kind: subject.word().into(),
            action: action.word().into(),
            actor: EventActor { id: id.to_string(), attributes },
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
