//! `portolan events`: what happens, a line each, as Docker prints it.

use std::collections::BTreeMap;

use clap::Args;
use portolan::api::client::Failure;
use portolan::api::types::EventMessage;
use portolan::topology::Moment;

use super::DaemonChoice;
use super::endpoint::pair;
use super::output::{self, Format};
use super::time;

#[derive(Args, Debug)]
pub struct Events {
    /// Show also what happened since: seconds since 1970, an RFC 3339 time, or how long ago, as 10m
    #[arg(long, value_name = "TIME", value_parser = time::since, allow_negative_numbers = true)]
    since: Option<i64>,
    /// End there: a time as above, also one to come
    #[arg(long, value_name = "TIME", value_parser = time::since, allow_negative_numbers = true)]
    until: Option<i64>,
    /// Show only what matches: type=, event=, node=, network=
    #[arg(short, long, value_name = "K=V", value_parser = pair)]
    filter: Vec<(String, String)>,
    /// json (an object a line), or a template such as '{{.Action}}'
    #[arg(long)]
    format: Option<Format>,
}

impl Events {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let wanted = ["type", "event", "node", "container", "network"];
        if let Some((key, _)) = self.filter.iter().find(|(key, _)| !wanted.contains(&key.as_str()))
        {
            return Err(Failure::new(format!(
                "there is no filter {key:?}; use type, event, node or network"
            )));
        }
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
            let hit = match key.as_str() {
                "type" => event.kind == *value,
                "event" => event.action == *value,
                "network" => is_about(event, "network", value),
                _ => is_about(event, "container", value),
            };
            *met.entry(key.as_str()).or_default() |= hit;
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

/// Whether an event speaks of the thing of that kind with this name or id: as its actor, or in passing.
fn is_about(event: &EventMessage, kind: &str, wanted: &str) -> bool {
    let attribute = |key: &str| event.actor.attributes.get(key).is_some_and(|v| v == wanted);
    if event.kind == kind {
        return attribute("name") || (wanted.len() >= 4 && event.actor.id.starts_with(wanted));
    }
    let passing = event.actor.attributes.get(kind);
    attribute(kind) || passing.is_some_and(|id| wanted.len() >= 12 && id.starts_with(wanted))
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
    use portolan::api::types::EventActor;

    use super::*;

    fn started() -> EventMessage {
        EventMessage {
            kind: "container".into(),
            action: "start".into(),
            actor: EventActor {
                id: "0123456789ab".into(),
                attributes: BTreeMap::from([("name".into(), "db".into())]),
            },
            time: 1,
            time_nano: 1_500_000_000,
        }
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
        assert!(!events(&[("event", "start"), ("node", "web")]).wants(&event));
        assert!(!events(&[("type", "network")]).wants(&event));
    }
}
