//! `portolan attach` and `detach`: foreign namespaces as nodes.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use clap::Args;
use portolan::api::client::Failure;
use portolan::api::types::{NodeCreate, NodeKind};
use portolan::namespace::user;

use super::endpoint::EndpointArgs;
use super::port::PublishArgs;
use super::{DaemonChoice, for_each, node, output};

#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("namespace").required(true).args(["pid", "netns"])))]
pub struct Attach {
    /// A process inside the namespace, such as a container's first
    #[arg(long, value_name = "PID", value_parser = pid)]
    pid: Option<u32>,
    /// A network namespace bound to a path, such as /run/netns/NAME
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// Name of the node
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    endpoints: EndpointArgs,
    #[command(flatten)]
    publish: PublishArgs,
    /// Name of its first interface
    #[arg(long, value_name = "NAME")]
    ifname: Option<String>,
}

fn pid(text: &str) -> Result<u32, String> {
    let pid = text.parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| "the number of a process is needed, as ps shows it".to_owned())
}

impl Attach {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let inside = self.inside()?;
        let publish = self.publish.ports()?;
        let spec = NodeCreate {
            name: self.name,
            kind: NodeKind::Attach,
            networks: self.endpoints.endpoints(),
            publish,
            ifname: self.ifname,
            pid: self.pid,
            netns: self.netns,
            ..NodeCreate::default()
        };
        let (node, _, warnings) =
            daemon.open()?.create_node(&spec, std::os::fd::AsFd::as_fd(&inside))?;
        warnings.iter().for_each(|warning| output::note(warning));
        output::line(&node.id);
        Ok(0)
    }

    fn inside(&self) -> Result<OwnedFd, Failure> {
        match (self.pid, &self.netns) {
            (Some(pid), _) => user::open_pidfd(pid)
                .map_err(|e| Failure::new(format!("there is no process {pid} to attach: {e}"))),
            (None, Some(path)) => File::open(path).map(OwnedFd::from).map_err(|e| {
                Failure::new(format!("cannot open the namespace {}: {e}", path.display()))
            }),
            (None, None) => Err(Failure::new("give --pid or --netns")),
        }
    }
}

#[derive(Args, Debug)]
pub struct Detach {
    /// Names or ids of attached nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

impl Detach {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let client = daemon.open()?;
        Ok(for_each(&self.nodes, |name| {
            client.post::<_, ()>(&format!("{}/detach", node::path(name)?), &())?;
            output::line(name);
            Ok(())
        }))
    }
}
