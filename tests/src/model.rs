//! What the simulator knows of the switch without asking it: who is attached where, and how much went in and out.

use std::collections::BTreeMap;

use portolan_switch::command::{Command, NetworkSpec, PortSpec};
use portolan_switch::ids::{NetworkId, PortId};

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
    /// What went over each.
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
                }
                Command::AttachPort(spec) => {
                    self.seen.insert(spec.id, Seen::default());
                    self.ports.insert(spec.id, spec);
                }
                Command::DetachPort(id) => {
                    self.seen.remove(&id);
                    self.ports.remove(&id);
                }
                _ => {}
            }
        }
    }

    /// Which networks the staged commands will end.
    pub fn ending(&self) -> impl Iterator<Item = NetworkId> + '_ {
        self.staged.iter().filter_map(|command| match command {
            Command::RemoveNetwork(id) => Some(*id),
            _ => None,
        })
    }

    /// Where a port is attached.
    pub fn network_of(&self, port: PortId) -> Option<NetworkId> {
        self.ports.get(&port).map(|spec| spec.network)
    }
}
