//! What the simulator knows of the switch without asking it: who is attached where, and how much went in and out.

use std::collections::BTreeMap;

use portolan_switch::command::{Command, HostSpec, NetworkSpec, PortSpec};
use portolan_switch::ids::{NetworkId, NodeId, PortId};

/// Frames of one port since it was attached, a superframe counting as its segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Handed to the switch.
    pub rx: u64,
    /// Delivered to the station.
    pub tx: u64,
}

/// The present as the commands made it.
#[derive(Debug, Default)]
pub struct Model {
    /// The networks there are.
    pub networks: BTreeMap<NetworkId, NetworkSpec>,
    /// The ports that are attached.
    pub ports: BTreeMap<PortId, PortSpec>,
    /// Who has which names.
    pub hosts: BTreeMap<(NetworkId, NodeId), HostSpec>,
    /// Where each node looks names up.
    pub views: BTreeMap<NodeId, Vec<NetworkId>>,
    /// What went over each port.
    pub seen: BTreeMap<PortId, Seen>,
    staged: Vec<Command>,
}

impl Model {
    /// Follows a command, as the switch does: with effect from the commit on.
    pub fn apply(&mut self, command: Command) {
        if !matches!(command, Command::Commit(_)) {
            self.staged.push(command);
            return;
        }
        for command in std::mem::take(&mut self.staged) {
            match command {
                Command::CreateNetwork(spec) => {
                    self.networks.insert(spec.id, spec);
                }
                Command::RemoveNetwork(id) => {
                    self.networks.remove(&id);
                    self.hosts.retain(|(network, _), _| *network != id);
                }
                Command::AttachPort(spec) => {
                    self.seen.insert(spec.id, Seen::default());
                    self.ports.insert(spec.id, spec);
                }
                Command::DetachPort(id) => {
                    self.seen.remove(&id);
                    self.ports.remove(&id);
                }
                Command::SetHost(spec) => {
                    self.hosts.insert((spec.network, spec.node), spec);
                }
                Command::RemoveHost { network, node } => {
                    self.hosts.remove(&(network, node));
                }
                Command::SetView { node, networks } => {
                    self.views.insert(node, networks);
                }
                Command::RemoveView(node) => {
                    self.views.remove(&node);
                }
                Command::SetUpstreams(_) | Command::SetNameServers { .. } => {}
                Command::Commit(_) => unreachable!("a commit is not staged"),
                // What leads out is the host's model's to know.
                _ => {}
            }
        }
    }

    /// Where a port is attached.
    pub fn network_of(&self, port: PortId) -> Option<NetworkId> {
        self.ports.get(&port).map(|spec| spec.network)
    }
}
