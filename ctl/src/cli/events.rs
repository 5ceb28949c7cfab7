//! `portolan events`: what happens, a line each, as Docker prints it.

use std::collections::BTreeMap;

use clap::Args;
use portolan::api::client::Failure;
use portolan::api::events::{Action, EventMessage, Subject};
use portolan::topology::Moment;

use super::DaemonChoice;
use super::endpoint::pair;
use super::output::{self, Format};
use super::time;

/// The keys of filters; `container` is Docker's word for a node.
const KEYS: [&str; 5] = ["type", "event", "node", "container", "network"];

#[derive(Args, Debug)]
pub struct Events {
    /// Show also what happened since: seconds since 1970, an RFC 3339 time, or how long ago, as 10m. The daemon keeps the last
    /// 256 events in its memory: they end with it, also where it is killed and started anew
    #[arg(long, value_name = "TIME", value_parser = time::since, allow_negative_numbers = true)]
    since: Option<i64>,
    /// End there: a time as above, also one to come
    #[arg(long, value_name = "TIME", value_parser = time::since, allow_negative_numbers = true)]
    until: Option<i64>,
    /// Show only what matches: type=container|network, event=ACTION, and by name or id node= (or container=) and network=.
    /// Several of one key are alternatives
    #[arg(short, long, value_name = "K=V", value_parser = filter)]
    filter: Vec<(String, String)>,
    /// json (an object a line), or a template such as '{{.Action}}'
    #[arg(long)]
    format: Option<Format>,
}

/// Reads `KEY=VALUE`; refuses what could never match, for its words are none of ours.
fn filter(text: &str) -> Result<(String, String), String> {
    let (key, value) = pair(text)?;
    let (what, there) = match key.as_str() {
        "type" => ("type", Subject::ALL.iter().map(|subject| subject.word()).collect()),
        "event" => ("event", Action::ALL.iter().map(|action| action.word()).collect()),
        word if KEYS.contains(&word) => return Ok((key, value)),
        _ => ("filter", KEYS.to_vec()),
    };
    let given = if what == "filter" { &key } else { &value };
    if there.contains(&given.as_str()) {
        return Ok((key, value));
    }
    Err(format!("there is no {what} {given:?}; there are {}", there.join(", ")))
}

impl Events {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let ends = [("since", self.since), ("until", self.until)];
        let asked = ends.iter().filter_map(|(key, at)| Some(format!("{key}={}", (*at)?)));
        let asked = asked.collect::<Vec<_>>().join("&");
        let mut wrong = None;
        daemon.open()?.events(&format!("/v1/events?{asked}"), &mut |event| {
            if !self.wants(&event) {
                return true;
            }
            wrong = self.show(&event).err();
            wrong.is_none()
        })?;
        match wrong {
            Some(failure) => Err(failure),
            None if self.until.is_some_and(|until| until < time::now()) => Ok(0),
            None => Err(Failure::new("the daemon has ended; there are no more events")),
        }
    }

    fn wants(&self, event: &EventMessage) -> bool {
        let mut met: BTreeMap<&str, bool> = BTreeMap::new();
        for (key, value) in &self.filter {
            let (key, hit) = match key.as_str() {
                "type" => ("type", event.kind == *value),
                "event" => ("event", event.action == *value),
                "network" => ("network", is_about_network(event, value)),
                _ => ("node", is_about_node(event, value)),
            };
            *met.entry(key).or_default() |= hit;
        }
        met.values().all(|hit| *hit)
    }

    fn show(&self, event: &EventMessage) -> Result<(), Failure> {
        match &self.format {
            None | Some(Format::Table | Format::Columns(_)) => {
                output::line(&output::clean(&line(event)))
            }
            Some(Format::Json) => {
                output::json_line(event);
            }
            Some(Format::Template(template)) => {
                let value = serde_json::to_value(event).unwrap_or_default();
                output::line(&template.fill(&value).map_err(output::refused)?);
            }
        }
        Ok(())
    }
}

fn attribute<'a>(event: &'a EventMessage, key: &str) -> Option<&'a str> {
    event.actor.attributes.get(key).map(String::as_str)
}

/// Whether what an event happened to is of that kind, and has this name or id.
fn is_of(event: &EventMessage, subject: Subject, wanted: &str) -> bool {
    event.kind == subject.word()
        && (attribute(event, "name") == Some(wanted) || is_id(&event.actor.id, wanted))
}

/// Whether this is an id, or the start of it that tells it apart.
fn is_id(id: &str, wanted: &str) -> bool {
    wanted.len() >= 4 && id.starts_with(wanted)
}

fn is_about_network(event: &EventMessage, wanted: &str) -> bool {
    is_of(event, Subject::Network, wanted)
}

/// Whether an event is of the node, or the node has to do with it: also as one end of a loop or of a station's move.
fn is_about_node(event: &EventMessage, wanted: &str) -> bool {
    let at_end = |key| {
        let interface = attribute(event, key).and_then(|end| end.strip_prefix(wanted));
        interface.is_some_and(|rest| rest.starts_with('/'))
    };
    is_of(event, Subject::Node, wanted)
        || attribute(event, "node") == Some(wanted)
        || attribute(event, "container").is_some_and(|id| is_id(id, wanted))
        || at_end("from")
        || at_end("to")
}

fn line(event: &EventMessage) -> String {
    let attributes: Vec<String> =
        event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let when = Moment(event.time_nano);
    let (kind, action, id) = (&event.kind, &event.action, &event.actor.id);
    format!("{when} {kind} {action} {id} ({})", attributes.join(", "))
}

#[cfg(test)]
mod tests {
    use portolan::api::events::EventActor;

    use super::*;

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> EventMessage {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let actor = EventActor { id: id.into(), attributes: attributes.collect() };
        let (kind, action) = (kind.into(), action.into());
        EventMessage { kind, action, actor, time: 1, time_nano: 1_500_000_000 }
    }

    fn started() -> EventMessage {
        event("container", "start", "0123456789ab", &[("name", "db")])
    }

    fn events(filter: &[(&str, &str)]) -> Events {
        let filter = filter.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Events { since: None, until: None, filter, format: None }
    }

    #[test]
    fn an_event_reads_as_docker_prints_it() {
        assert_eq!(
            line(&started()),
            "1970-01-01T00:00:01.500000000Z container start 0123456789ab (name=db)"
        );
    }

    #[test]
    fn one_value_of_each_key_must_match() {
        let event = started();
        assert!(events(&[]).wants(&event));
        assert!(events(&[("event", "die"), ("event", "start"), ("node", "db")]).wants(&event));
        assert!(events(&[("container", "0123456")]).wants(&event));
        assert!(events(&[("container", "web"), ("node", "db")]).wants(&event));
        assert!(!events(&[("event", "start"), ("node", "web")]).wants(&event));
        assert!(!events(&[("type", "network")]).wants(&event));
    }

    #[test]
    fn what_happens_between_a_network_and_a_node_is_found_by_the_name_and_the_id_of_either() {
        let attributes = [("name", "app"), ("container", "0123456789ab"), ("node", "db")];
        let joined = event("network", "connect", "fedcba987654", &attributes);
        for (key, value) in [
            ("network", "app"),
            ("network", "fedc"),
            ("node", "db"),
            ("node", "0123"),
            ("container", "db"),
            ("container", "0123456789ab"),
        ] {
            assert!(events(&[(key, value)]).wants(&joined), "{key}={value}");
        }
        for (key, value) in [
            ("network", "db"),
            ("network", "0123"),
            ("node", "app"),
            ("node", "fedc"),
            ("node", "d"),
        ] {
            assert!(!events(&[(key, value)]).wants(&joined), "{key}={value}");
        }
        let circle =
            event("network", "loop", "fedcba987654", &[("from", "a/eth0"), ("to", "b/eth0")]);
        assert!(events(&[("node", "a")]).wants(&circle));
        assert!(events(&[("node", "b")]).wants(&circle));
        assert!(!events(&[("node", "eth0")]).wants(&circle));
    }

    #[test]
    fn a_filter_that_could_never_match_is_refused_with_the_words_that_there_are() {
        let said = |text: &str| filter(text).unwrap_err();
        assert_eq!(
            said("nodes=db"),
            r#"there is no filter "nodes"; there are type, event, node, container, network"#
        );
        assert_eq!(said("type=image"), r#"there is no type "image"; there are container, network"#);
        assert_eq!(
            said("event=leases"),
            "there is no event \"leases\"; there are connect, create, decline, destroy, die, disconnect, expire, lease, loop, \
             loop-end, publish, release, rename, start, station-move, stop, storm, unpublish"
        );
        for (key, value) in
            [("type", "network"), ("event", "lease"), ("node", "?"), ("network", "x")]
        {
            let read = (key.to_owned(), value.to_owned());
            assert_eq!(filter(&format!("{key}={value}")), Ok(read));
        }
    }
}
