//! `portolan run` and `portolan exec`: programs inside nodes.
//!
//! A running node is three processes. The *runner* stays in the host's namespaces: it starts the second with namespaces of
//! its own, maps the ids, has the daemon wire it, and afterwards passes signals in and the exit code out. The second is
//! PID 1 of the node (`init`): it sets the node up from inside and reaps. The third is the program. Each dies with the one
//! before it, so nothing is left whichever is killed.
//!
//! A program starts only when all of the node is there; what fails before that is told at once, and taken back.

pub mod capabilities;
mod detach;
mod exec;
mod init;
pub mod log;
mod node;
mod program;
mod signals;

use std::ffi::OsString;
use std::net::IpAddr;

use crate::api::client::Client;
use crate::api::types::EndpointCreate;

pub use exec::exec;

/// The predefined network that is the host's own.
const HOST_NETWORK: &str = "host";

/// What `portolan run` was asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunOptions {
    /// The node's name; made up where there is none.
    pub name: Option<String>,
    /// Its endpoints, in the order of their interfaces. A single one on `host` means the host's own network namespace, one
    /// on `none`, or none at all, a namespace with `lo` alone.
    pub networks: Vec<EndpointCreate>,
    /// Ports to publish, each as `-p` takes it.
    pub publish: Vec<String>,
    /// Its hostname; the short id unless said.
    pub hostname: Option<String>,
    /// Name servers instead of the gateway.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// More lines of /etc/hosts, as `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Capabilities beyond the default ones.
    pub cap_add: Vec<String>,
    /// Default capabilities to be taken away.
    pub cap_drop: Vec<String>,
    /// All capabilities.
    pub privileged: bool,
    /// Keep the user's own uid inside, rather than be root there.
    pub user_self: bool,
    /// Return once the program runs.
    pub detach: bool,
    /// Whether its end removes the node.
    pub remove: bool,
    /// Variables of the environment besides the caller's.
    pub env: Vec<(String, String)>,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

impl RunOptions {
    /// Whether the program gets a network namespace of its own, rather than the host's.
    fn has_own_network(&self) -> bool {
        !self.networks.iter().any(|endpoint| endpoint.network == HOST_NETWORK)
    }
}

/// Runs a program in a new node. Prints errors itself; returns the exit code of the process: the program's own, 128 and the
/// number of the signal that ended it, 125 for a failure of ours, 126 for a program that cannot run, 127 for none. Detached,
/// it prints the node's id and returns 0 once the program runs.
///
/// The process must have one thread.
pub fn run(client: &Client, options: RunOptions) -> i32 {
    program::close_inherited();
    let options = &options;
    if options.detach {
        detach::run(client, options)
    } else {
        node::run(client, options, &mut |_| Ok(()))
    }
}

fn complain(message: &str) {
    eprintln!("portolan: {message}");
}
