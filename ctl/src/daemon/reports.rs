//! What the dataplane tells unasked, as events for whoever listens; loops and storms also as lines of the daemon's log.
//!
//! Guests make these happen, so both are bounded: so many events a second, the rest counted and told of as one line; and one
//! line of the log a minute for each network and kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_switch::command::{Event, LeaseChange};
use portolan_switch::ids::{NetworkId, PortId};

use super::{Control, Daemon, clock};
use crate::api::events::Action;
use crate::daemon::log::say;
use crate::topology::{Endpoint, Node};

/// Events told in a second: more than people read, and what a network that is made anew has of leases.
const EVENTS_PER_SECOND: u32 = 512;

/// Of these, moves of stations: where a loop has everybody move all the time, what is told of the loop must not be buried.
const MOVES_PER_SECOND: u32 = 4;

/// How long a kind of trouble on a network stays out of the log once it was told.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// What was told lately.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    second: i64,
    told: u32,
    moves: u32,
    left_out: u64,
    logged: BTreeMap<(NetworkId, &'static str), Instant>,
}

impl Reporter {
    /// Whether one more event is told in this second.
    fn admits(&mut self, event: &Event, second: i64) -> bool {
        if second != self.second {
            if self.left_out > 0 {
                say(format_args!("{} events of networks came too fast to be told", self.left_out));
            }
            (self.second, self.told, self.moves, self.left_out) = (second, 0, 0, 0);
        }
        let is_move = matches!(event, Event::StationMoved { .. });
        self.moves = self.moves.saturating_add(u32::from(is_move));
        let admitted = self.told < EVENTS_PER_SECOND && !(is_move && self.moves > MOVES_PER_SECOND);
        if admitted {
            self.told += 1;
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
        admitted
    }

    /// Whether this trouble was not in the log lately; it is from now on.
    fn logs(&mut self, network: NetworkId, kind: &'static str, now: Instant) -> bool {
        self.logged.retain(|_, then| now.saturating_duration_since(*then) < LOG_PAUSE);
        let new = !self.logged.contains_key(&(network, kind));
        if new {
            self.logged.insert((network, kind), now);
        }
        new
    }
}

/// What an event of the dataplane comes to.
struct Report {
    network: NetworkId,
    action: Action,
    /// The port whose node has to do with it.
    at: PortId,
    attributes: Vec<(&'static str, String)>,
    /// What the log says, too.
    warning: Option<String>,
}

impl Daemon {
    /// Tells of an event of the dataplane. Of a network that is gone nothing is told.
    pub(super) async fn report(&self, reporter: &mut Reporter, event: &Event) {
        if matches!(event, Event::Committed(_)) || !reporter.admits(event, clock::now().seconds()) {
            return;
        }
        let control = self.control.lock().await;
        let Some(report) = report_of(event, &|port| whose(&control, port)) else { return };
        let network = control.topology.networks().find(|n| n.network_id() == report.network);
        let Some(network) = network.cloned() else { return };
        let node = endpoint_at(&control, report.at).map(|(node, _)| Arc::clone(node));
        drop(control);
        let more: Vec<(&str, &str)> =
            report.attributes.iter().map(|(key, value)| (*key, value.as_str())).collect();
        self.events.tell_of_network(report.action, &network, node.as_deref(), &more);
        if let Some(warning) = report.warning
            && reporter.logs(report.network, report.action.word(), clock::instant())
        {
            say(format_args!("network {}: {warning}", network.name));
        }
    }
}

/// What is behind a port.
fn endpoint_at(control: &Control, port: PortId) -> Option<(&Arc<Node>, &Endpoint)> {
    control.topology.nodes().find_map(|node| {
        let endpoint = node.endpoints.iter().find(|endpoint| endpoint.port == Some(port))?;
        Some((node, endpoint))
    })
}

/// The node and the interface behind a port, by their names.
fn whose(control: &Control, port: PortId) -> (String, String) {
    endpoint_at(control, port)
        .map(|(node, endpoint)| (node.name.clone(), endpoint.ifname.clone()))
        .unwrap_or_default()
}

/// An interface for people: `NODE/eth0`.
fn shown((node, interface): &(String, String)) -> String {
    if node.is_empty() { "a port that is gone".into() } else { format!("{node}/{interface}") }
}

fn report_of(event: &Event, whose: &dyn Fn(PortId) -> (String, String)) -> Option<Report> {
    let interface = |port: PortId| ("interface", whose(port).1);
    let name = |port: PortId| shown(&whose(port));
    let report = match *event {
        Event::Committed(_) => return None,
        Event::Lease { network, change, port, mac, address } => {
            let action = match change {
                LeaseChange::Given => Action::Lease,
                LeaseChange::Released => Action::Release,
                LeaseChange::Expired => Action::Expire,
                LeaseChange::Declined => Action::Decline,
            };
            let attributes =
                vec![interface(port), ("mac", mac.to_string()), ("address", address.to_string())];
            Report { network, action, at: port, attributes, warning: None }
        }
        Event::StationMoved { network, mac, from, to } => {
            let attributes = vec![("mac", mac.to_string()), ("from", name(from)), ("to", name(to))];
            Report { network, action: Action::StationMove, at: to, attributes, warning: None }
        }
        Event::Storm { network, port, reason } => {
            let warning = format!(
                "{} sends more to many than it may; what is over its limit is dropped ({})",
                name(port),
                reason.name()
            );
            let attributes = vec![interface(port), ("reason", reason.name().into())];
            let action = Action::Storm;
            Report { network, action, at: port, attributes, warning: Some(warning) }
        }
        Event::Loop { network, from, to, blocked } => {
            let done = if blocked {
                format!("{} is blocked for a while", name(to))
            } else {
                "nothing is blocked".into()
            };
            let warning = format!(
                "there is a loop: what was sent to {} came back by {}; {done}",
                name(from),
                name(to)
            );
            let attributes =
                vec![("from", name(from)), ("to", name(to)), ("blocked", blocked.to_string())];
            Report { network, action: Action::Loop, at: to, attributes, warning: Some(warning) }
        }
        Event::LoopEnded { network, port } => {
            let attributes = vec![interface(port)];
            Report { network, action: Action::LoopEnd, at: port, attributes, warning: None }
        }
    };
    Some(report)
}

#[cfg(test)]
mod tests {
    use portolan_switch::drops::DropReason;

    use super::*;

    fn named(port: PortId) -> (String, String) {
        match port.0 {
            1 => ("a".into(), "eth0".into()),
            2 => ("b".into(), "eth1".into()),
            _ => Default::default(),
        }
    }

    #[test]
    fn a_loop_names_both_ports_and_what_was_done() {
        let network = NetworkId(4);
        let event = Event::Loop { network, from: PortId(1), to: PortId(2), blocked: true };
        let report = report_of(&event, &named).unwrap();
        assert_eq!((report.action, report.at), (Action::Loop, PortId(2)));
        let expected = [("from", "a/eth0"), ("to", "b/eth1"), ("blocked", "true")];
        let found: Vec<(&str, &str)> =
            report.attributes.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(found, expected);
        assert_eq!(
            report.warning.as_deref(),
            Some(
                "there is a loop: what was sent to a/eth0 came back by b/eth1; b/eth1 is blocked for a while"
            )
        );
        let event = Event::Loop { network, from: PortId(9), to: PortId(2), blocked: false };
        let warning = report_of(&event, &named).unwrap().warning.unwrap();
        assert!(warning.contains("sent to a port that is gone came back"), "{warning}");
        assert!(warning.ends_with("nothing is blocked"), "{warning}");
    }

    #[test]
    fn a_storm_is_logged_once_a_minute_for_each_network() {
        let event = Event::Storm {
            network: NetworkId(4),
            port: PortId(1),
            reason: DropReason::StormBroadcast,
        };
        let report = report_of(&event, &named).unwrap();
        let reason = ("reason", "storm_broadcast".to_owned());
        assert_eq!(report.action, Action::Storm);
        assert_eq!(report.attributes, [("interface", "eth0".to_owned()), reason]);
        let (mut reporter, now) = (Reporter::default(), clock::instant());
        assert!(reporter.logs(NetworkId(4), "storm", now));
        assert!(!reporter.logs(NetworkId(4), "storm", now + Duration::from_secs(59)));
        assert!(reporter.logs(NetworkId(5), "storm", now));
        assert!(reporter.logs(NetworkId(4), "loop", now));
        assert!(reporter.logs(NetworkId(4), "storm", now + Duration::from_secs(60)));
    }

    #[test]
    fn events_beyond_the_limit_of_a_second_are_counted() {
        let ended = Event::LoopEnded { network: NetworkId(4), port: PortId(1) };
        let mut reporter = Reporter::default();
        let told = (0..1000).filter(|_| reporter.admits(&ended, 7)).count();
        assert_eq!((told, reporter.left_out), (512, 488));
        assert!(reporter.admits(&ended, 8));
        assert_eq!(reporter.left_out, 0);
    }

    #[test]
    fn stations_that_move_without_end_bury_nothing_else() {
        let moved = Event::StationMoved {
            network: NetworkId(4),
            mac: Default::default(),
            from: PortId(1),
            to: PortId(2),
        };
        let ended = Event::LoopEnded { network: NetworkId(4), port: PortId(1) };
        let mut reporter = Reporter::default();
        let told = (0..1000).filter(|_| reporter.admits(&moved, 7)).count();
        assert_eq!((told, reporter.left_out), (4, 996));
        assert!(reporter.admits(&ended, 7));
    }
}
