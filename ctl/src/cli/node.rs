//! Nodes: `ps`, `inspect`, `stop`, `rm`, `rename`.

use std::net::IpAddr;

use clap::Args;
use portolan::api::client::Failure;
use portolan::api::types::Rename as RenameRequest;
use portolan::api::types::{NodeDetail, NodeSummary};
use serde_json::json;

use super::output::{self, Format, Row};
use super::{DaemonChoice, for_each, segment, time};

/// Characters of a command that `ps` shows, as Docker does.
const COMMAND_WIDTH: usize = 20;

#[derive(Args, Debug)]
pub struct Ps {
    /// Show also nodes that have ended
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// table, json, or a template such as '{{.Names}}'
    #[arg(long, default_value = "table")]
    format: Format,
}

impl Ps {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let nodes: Vec<NodeSummary> = daemon.open()?.get(&format!("/v1/nodes?all={}", self.all))?;
        if self.quiet {
            nodes.iter().for_each(|n| output::line(&output::short(&n.id, self.no_trunc)));
            return Ok(0);
        }
        let headers = ["NODE ID", "NAME", "COMMAND", "CREATED", "STATUS", "PORTS", "NETWORKS"];
        let rows: Vec<Row> = nodes.iter().map(|node| self.row(node)).collect();
        output::list(&self.format, &headers, &rows)?;
        Ok(0)
    }

    fn row(&self, node: &NodeSummary) -> Row {
        let id = output::short(&node.id, self.no_trunc);
        let names: Vec<&str> = node.names.iter().map(|n| n.trim_start_matches('/')).collect();
        let names = names.join(",");
        let width = if self.no_trunc { usize::MAX } else { COMMAND_WIDTH };
        // A foreign namespace is attached without any.
        let command = match node.command.as_str() {
            "" => String::new(),
            command => format!("\"{}\"", output::cut(command, width)),
        };
        let networks: Vec<String> =
            node.networks.iter().map(|(name, addresses)| on_network(name, addresses)).collect();
        let networks = networks.join(", ");
        let created = time::ago(&node.created);
        let ports = node.ports.clone();
        let extra = json!({
            "ID": id, "Names": names, "Name": names, "Command": command, "CreatedAt": node.created,
            "RunningFor": created, "Networks": node.networks.keys().cloned().collect::<Vec<_>>().join(","),
        });
        Row::new(
            node,
            vec![id, names, command, created, node.status.clone(), ports, networks],
            extra,
        )
    }
}

fn on_network(name: &str, addresses: &[IpAddr]) -> String {
    let addresses: String = addresses.iter().map(|a| format!(" {a}")).collect();
    format!("{name}{addresses}")
}

/// `/v1/nodes/NAME`
pub fn path(name: &str) -> Result<String, Failure> {
    Ok(format!("/v1/nodes/{}", segment(name)?))
}

#[derive(Args, Debug)]
pub struct Inspect {
    /// Names or ids of nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// json, or a template such as '{{.State.Pid}}'
    #[arg(short, long)]
    format: Option<Format>,
}

impl Inspect {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let client = daemon.open()?;
        let mut found: Vec<NodeDetail> = Vec::new();
        let code = for_each(&self.nodes, |name| {
            found.push(client.get(&path(name)?)?);
            Ok(())
        });
        output::inspected(self.format.as_ref(), &found)?;
        Ok(code)
    }
}

#[derive(Args, Debug)]
pub struct Stop {
    /// Seconds to wait before it is killed
    #[arg(short = 't', long = "time", default_value_t = 10, value_name = "SECONDS")]
    seconds: u64,
    /// Names or ids of nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

impl Stop {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let client = daemon.open()?;
        Ok(for_each(&self.nodes, |name| {
            client.post::<_, ()>(&format!("{}/stop?t={}", path(name)?, self.seconds), &())?;
            output::line(name);
            Ok(())
        }))
    }
}

#[derive(Args, Debug)]
pub struct Remove {
    /// Kill it first if it runs
    #[arg(short, long)]
    force: bool,
    /// Names or ids of nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

impl Remove {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let client = daemon.open()?;
        Ok(for_each(&self.nodes, |name| {
            client.delete::<()>(&format!("{}?force={}", path(name)?, self.force))?;
            output::line(name);
            Ok(())
        }))
    }
}

#[derive(Args, Debug)]
pub struct Rename {
    /// Name or id of the node
    node: String,
    /// Its new name
    new: String,
}

impl Rename {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let request = RenameRequest { name: self.new };
        daemon.open()?.post::<_, ()>(&format!("{}/rename", path(&self.node)?), &request)?;
        Ok(0)
    }
}
