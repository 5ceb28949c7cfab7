//! `portolan run` and `exec`: programs in nodes.

use std::ffi::OsString;
use std::net::IpAddr;

use clap::Args;
use portolan::api::client::Failure;
use portolan::runner::{self, RunOptions};

use super::endpoint::{EndpointArgs, pair};
use super::port::PublishArgs;
use super::{DaemonChoice, address};

#[derive(Args, Debug)]
pub struct Run {
    /// Name of the node; made up unless given
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    endpoints: EndpointArgs,
    #[command(flatten)]
    publish: PublishArgs,
    /// Name server that the gateway asks for this node instead of the host's; names of nodes it answers itself
    #[arg(long, value_name = "ADDRESS", value_parser = address::either)]
    dns: Vec<IpAddr>,
    /// Domain to search for names without a dot
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// One more line of /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = host)]
    add_host: Vec<String>,
    /// Hostname; the short id unless given
    #[arg(long)]
    hostname: Option<String>,
    /// Capability to have besides Docker's default ones, or ALL
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Capability not to have, or ALL
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// Have all capabilities, inside the node
    #[arg(long)]
    privileged: bool,
    /// `self`: keep your own uid inside, instead of root
    #[arg(long, value_name = "USER", value_parser = ["self"])]
    user: Option<String>,
    /// Run in the background and print the node's id
    #[arg(short, long)]
    detach: bool,
    /// Remove the node when it ends
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    program: Program,
}

/// What `run` and `exec` run.
#[derive(Args, Debug)]
struct Program {
    /// Set a variable of the environment; without a value, yours
    #[arg(short, long, value_name = "K[=V]")]
    env: Vec<String>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Checks `NAME:ADDRESS`.
fn host(text: &str) -> Result<String, String> {
    let (name, address) =
        text.split_once(':').ok_or_else(|| format!("{text:?} is not NAME:ADDRESS"))?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    address::either(bare)?;
    if name.is_empty() {
        Err(format!("{text:?} has no name"))
    } else {
        Ok(format!("{name}:{bare}"))
    }
}

impl Run {
    /// Runs it; the program's own code.
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let publish = self.publish.ports()?;
        let client = daemon.open().map_err(ours)?;
        Ok(runner::run(
            &client,
            RunOptions {
                name: self.name,
                networks: self.endpoints.endpoints(),
                publish,
                dns: self.dns,
                dns_search: self.dns_search,
                extra_hosts: self.add_host,
                hostname: self.hostname,
                cap_add: self.cap_add,
                cap_drop: self.cap_drop,
                privileged: self.privileged,
                user_self: self.user.is_some(),
                detach: self.detach,
                remove: self.rm,
                env: environment(self.program.env),
                command: self.program.command,
            },
        ))
    }

    #[cfg(test)]
    pub fn given(self) -> (Vec<String>, Vec<String>) {
        (self.publish.ports().unwrap(), self.program.env)
    }

    #[cfg(test)]
    pub fn command(&self) -> Vec<&str> {
        self.program.command.iter().filter_map(|word| word.to_str()).collect()
    }
}

#[derive(Args, Debug)]
pub struct Exec {
    /// Name or id of the node
    node: String,
    #[command(flatten)]
    program: Program,
}

impl Exec {
    /// Runs it; the program's own code.
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let client = daemon.open().map_err(ours)?;
        Ok(runner::exec(&client, &self.node, environment(self.program.env), self.program.command))
    }

    #[cfg(test)]
    pub fn command(&self) -> Vec<&str> {
        self.program.command.iter().filter_map(|word| word.to_str()).collect()
    }
}

/// A failure before the program could start: code 125, as Docker has it.
fn ours(failure: Failure) -> Failure {
    Failure { code: 125, ..failure }
}

/// `K=V` as it stands; `K` with the caller's own value, if it has one.
fn environment(given: Vec<String>) -> Vec<(String, String)> {
    given
        .into_iter()
        .filter_map(|text| match pair(&text) {
            Ok(pair) => Some(pair),
            Err(_) => std::env::var(&text).ok().map(|value| (text, value)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_take_both_families() {
        assert_eq!(host("a:10.0.0.1").unwrap(), "a:10.0.0.1");
        assert_eq!(host("a:[fd00::1]").unwrap(), "a:fd00::1");
        assert!(host("a").is_err());
        assert!(host(":10.0.0.1").is_err());
        assert!(host("a:b").is_err());
    }
}
