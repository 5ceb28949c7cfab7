//! `portolan publish`, `unpublish` and `port`: ports of the host that lead to nodes.

use clap::Args;
use portolan::api::client::Failure;
use portolan::api::types::{ClosedPorts, NodeDetail, PortRow, PublishRequest};
use portolan::topology::{HostPorts, PortWish, bracketed, read_ports, transport_word};
use serde_json::json;

use super::output::{self, Format, Row};
use super::{DaemonChoice, node};

/// The option of `run` and `attach` that publishes ports.
#[derive(Args, Debug)]
pub struct PublishArgs {
    /// Port of the host that leads to one of the node's, [[ADDRESS:]HOST:]PORT[/tcp|udp]: 8080:80,
    /// 127.0.0.1:8080:80, 127.0.0.1::80 (the kernel chooses), [::1]:8080:80, 8000-8009:80 (the first that is free),
    /// 7000-7009:7000-7009, each also with /udp
    #[arg(short, long, value_name = "SPEC")]
    publish: Vec<String>,
}

impl PublishArgs {
    /// What to publish.
    ///
    /// # Errors
    /// Wrong usage: all that are malformed, in one line.
    pub fn ports(self) -> Result<Vec<String>, Failure> {
        checked(self.publish)
    }
}

fn checked(specs: Vec<String>) -> Result<Vec<String>, Failure> {
    match read_ports(&specs) {
        Ok(_) => Ok(specs),
        Err(message) => Err(Failure { message, code: 2 }),
    }
}

#[derive(Args, Debug)]
pub struct Publish {
    /// Name or id of the node
    node: String,
    /// [[ADDRESS:]HOST:]PORT[/tcp|udp], no address means all, IPv4 and IPv6: 8080:80,
    /// 127.0.0.1:8080:80, 127.0.0.1::80 (the kernel chooses), [::1]:8080:80, 8000-8009:80 (the first that is free),
    /// 7000-7009:7000-7009, each also with /udp
    #[arg(required = true, value_name = "SPEC")]
    ports: Vec<String>,
}

impl Publish {
    pub fn publish(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        self.ask("publish", daemon)
    }

    pub fn unpublish(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        self.ask("unpublish", daemon)
    }

    fn ask(self, verb: &str, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let request = PublishRequest { ports: checked(self.ports)? };
        daemon.open()?.post::<_, ()>(&format!("{}/{verb}", node::path(&self.node)?), &request)?;
        Ok(0)
    }
}

#[derive(Args, Debug)]
pub struct Port {
    /// Name or id of the node
    node: String,
    /// Show only what leads to this port of the node
    #[arg(value_name = "PORT[/PROTO]")]
    port: Option<String>,
    /// table, json, or a template such as '{{.PublicPort}}'
    #[arg(long, default_value = "table")]
    format: Format,
}

impl Port {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let asked = self.port.as_deref().map(one_port).transpose()?;
        let path = format!("{}/port", node::path(&self.node)?);
        let client = daemon.open()?;
        let runs: Vec<PortRow> = client.get(&path)?;
        let detail: NodeDetail = client.get(&node::path(&self.node)?)?;
        let closed = &detail.network_settings.closed_ports;
        let all = runs.iter().flat_map(each);
        let mut rows: Vec<PortRow> = all
            .filter(|row| {
                asked
                    .as_ref()
                    .is_none_or(|(port, word)| row.private_port == *port && row.transport == *word)
            })
            .collect();
        if let (Some((port, word)), true) = (&asked, rows.is_empty()) {
            if let Some(one) = closed.iter().find(|one| leads_to(one, *port, word)) {
                let message = format!("port {port}/{word} of {} is closed: {}", self.node, one.why);
                return Err(Failure::new(message));
            }
            let message = format!(
                "no public port '{port}/{word}' published for {node}: `portolan port {node}` shows what is",
                node = self.node
            );
            return Err(Failure::new(message));
        }
        rows.sort_by_key(|row| (row.private_port, row.transport.clone(), row.ip, row.public_port));
        match self.format {
            Format::Table => rows.iter().for_each(|row| output::line(&shown(row, asked.is_some()))),
            format => output::list(&format, &[], &rows.iter().map(listed).collect::<Vec<_>>())?,
        }
        let told = closed.iter().filter(|_| asked.is_none());
        told.for_each(|one| output::note(&format!("{} is closed: {}", one.spec, one.why)));
        Ok(0)
    }
}

/// Reads `80` or `80/udp`.
fn one_port(text: &str) -> Result<(u16, &'static str), Failure> {
    let wrong = |message| Failure { message, code: 2 };
    let asked: PortWish = text.parse().map_err(wrong)?;
    if (asked.address, asked.host, asked.count) == (None, HostPorts::Any, 1) {
        Ok((asked.node_port, transport_word(asked.transport)))
    } else {
        Err(wrong(format!(
            "invalid port {text:?}: one port of the node is needed, such as 80 or 80/udp"
        )))
    }
}

/// Whether closed ports would lead to this one of the node.
fn leads_to(closed: &ClosedPorts, port: u16, word: &str) -> bool {
    closed.spec.parse().is_ok_and(|wish: PortWish| {
        wish.node_ports().contains(&port) && transport_word(wish.transport) == word
    })
}

/// The ports of a run, one by one.
fn each(run: &PortRow) -> impl Iterator<Item = PortRow> {
    (0..run.count).map(|offset| PortRow {
        private_port: run.private_port.saturating_add(offset),
        public_port: run.public_port.saturating_add(offset),
        count: 1,
        ..run.clone()
    })
}

/// As `docker port` has it.
fn shown(row: &PortRow, bare: bool) -> String {
    let host = format!("{}:{}", bracketed(row.ip), row.public_port);
    if bare { host } else { format!("{}/{} -> {host}", row.private_port, row.transport) }
}

fn listed(row: &PortRow) -> Row {
    let object = json!({
        "IP": row.ip, "PrivatePort": row.private_port, "PublicPort": row.public_port, "Type": row.transport,
    });
    Row { cells: Vec::new(), object, extra: json!({}) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ip: &str, count: u16) -> PortRow {
        let ip = ip.parse().unwrap();
        PortRow { ip, private_port: 80, public_port: 8080, count, transport: "tcp".into() }
    }

    #[test]
    fn ports_are_shown_as_docker_shows_them() {
        assert_eq!(shown(&run("0.0.0.0", 1), false), "80/tcp -> 0.0.0.0:8080");
        assert_eq!(shown(&run("::", 1), false), "80/tcp -> [::]:8080");
        assert_eq!(shown(&run("::", 1), true), "[::]:8080");
        let all: Vec<String> = each(&run("::1", 3)).map(|row| shown(&row, false)).collect();
        assert_eq!(all, ["80/tcp -> [::1]:8080", "81/tcp -> [::1]:8081", "82/tcp -> [::1]:8082"]);
    }

    #[test]
    fn one_port_is_of_tcp_unless_said() {
        assert_eq!(one_port("80").unwrap(), (80, "tcp"));
        assert_eq!(one_port("53/UDP").unwrap(), (53, "udp"));
        for wrong in ["x", "0", "+80", "80-81", "8080:80", "80/sctp"] {
            assert_eq!(one_port(wrong).unwrap_err().code, 2, "{wrong}");
        }
    }

    #[test]
    fn all_that_is_malformed_is_told_at_once() {
        let failure = checked(vec!["a".into(), "80".into(), "80/x".into()]).unwrap_err();
        assert_eq!(failure.code, 2);
        assert_eq!(
            failure.message,
            "invalid port \"a\": \"a\" is not a port of 1 to 65535; invalid port \"80/x\": \"x\" is neither tcp nor udp"
        );
    }
}
