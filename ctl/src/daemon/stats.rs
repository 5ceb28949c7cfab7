//! What went through endpoints, as their nodes see it: what the dataplane received the node has sent.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

use portolan_switch::command::{Answer, PortCounters, Query};
use portolan_switch::drops::{DropCounts, DropReason};
use portolan_switch::ids::{NetworkId, PortId};

use super::{Control, Daemon, internal};
use crate::api::types::StatsEntry;
use crate::namespace::netlink::ask_for_link;
use crate::topology::{Endpoint, Network, Node, Refusal};

/// Drops of what was on its way to the node; all others are of what it sent.
const TOWARDS_NODE: [DropReason; 4] =
    [DropReason::TxFull, DropReason::TxTooBig, DropReason::TxDown, DropReason::Filtered];

/// How long the kernel may take to tell of all links: it answers within the call, and somebody else reads the answer.
const LINKS_WAIT: Duration = Duration::from_millis(200);

/// Whose figures a port's are.
struct Place {
    network: String,
    node: String,
    interface: String,
    /// Frames that the node's kernel had no room for.
    backlog: Option<u64>,
}

impl Daemon {
    /// The figures of all endpoints of a network, in order of their nodes' names.
    pub async fn network_stats(&self, name: &str) -> Result<Vec<StatsEntry>, Refusal> {
        let (network, places) = {
            let control = self.control.lock().await;
            let network = control.topology.network(name)?;
            let members = control.topology.members(network.id);
            let places = members.filter_map(|(node, on)| place(node, on, network)).collect();
            (network.network_id(), places)
        };
        self.stats(&[network], places).await
    }

    /// The figures of all endpoints of a node, in order of their networks' names.
    pub async fn node_stats(&self, name: &str) -> Result<Vec<StatsEntry>, Refusal> {
        let (networks, places) = {
            let control = self.control.lock().await;
            let node = control.topology.node(name)?;
            endpoints_of(&control, node)
        };
        self.stats(&networks, places).await
    }

    async fn stats(
        &self,
        networks: &[NetworkId],
        mut places: BTreeMap<PortId, Place>,
    ) -> Result<Vec<StatsEntry>, Refusal> {
        self.learn_backlogs(&mut places).await;
        let mut entries = Vec::new();
        for network in networks {
            match self.plane.ask(Query::Counters(*network)).await {
                Some(Answer::Counters { ports, .. }) => {
                    let known = ports.iter().filter_map(|p| Some(entry(places.get(&p.port)?, p)));
                    entries.extend(known);
                }
                Some(_) => {}
                None => return Err(internal("the dataplane does not answer; look at daemon.log")),
            }
        }
        entries.sort_by(|a, b| (&a.network, &a.node).cmp(&(&b.network, &b.node)));
        Ok(entries)
    }
}

impl Daemon {
    /// Asks the links of these ports what their guests' kernels dropped. A link that does not tell in time has what it told last.
    async fn learn_backlogs(&self, places: &mut BTreeMap<PortId, Place>) {
        let mut asked = Vec::new();
        {
            let mut control = self.control.lock().await;
            for wire in control.wires.values_mut().filter(|wire| places.contains_key(&wire.port)) {
                // A TAP device has no backlog that it counts: what it is given, it takes.
                if wire.note.shape.is_none() {
                    continue;
                }
                wire.backlog.mark_unchanged();
                if ask_for_link(wire.netlink.as_fd(), wire.note.ifindex).is_ok() {
                    asked.push((wire.port, wire.backlog.clone()));
                }
            }
        }
        let all = async {
            for (_, told) in &mut asked {
                let _ = told.changed().await;
            }
        };
        let _ = tokio::time::timeout(LINKS_WAIT, all).await;
        for (port, told) in asked {
            if let Some(place) = places.get_mut(&port) {
                place.backlog = *told.borrow();
            }
        }
    }
}

fn place(node: &Node, endpoint: &Endpoint, network: &Network) -> Option<(PortId, Place)> {
    let place = Place {
        network: network.name.clone(),
        node: node.name.clone(),
        interface: endpoint.ifname.clone(),
        backlog: None,
    };
    Some((endpoint.port?, place))
}

fn endpoints_of(control: &Control, node: &Node) -> (Vec<NetworkId>, BTreeMap<PortId, Place>) {
    let on = |endpoint: &'_ Endpoint| control.topology.network_by_id(endpoint.network).cloned();
    let pairs = node.endpoints.iter().filter_map(|endpoint| Some((endpoint, on(endpoint)?)));
    let (mut networks, mut places) = (Vec::new(), BTreeMap::new());
    for (endpoint, network) in pairs {
        networks.push(network.network_id());
        places.extend(place(node, endpoint, &network));
    }
    (networks, places)
}

fn entry(place: &Place, counters: &PortCounters) -> StatsEntry {
    let (rx_dropped, tx_dropped) = by_direction(&counters.drops);
    let top = counters.drops.nonzero().max_by_key(|(_, frames)| *frames);
    StatsEntry {
        network: place.network.clone(),
        node: place.node.clone(),
        interface: place.interface.clone(),
        rx_bytes: counters.tx_bytes,
        rx_packets: counters.tx_frames,
        rx_dropped,
        tx_bytes: counters.rx_bytes,
        tx_packets: counters.rx_frames,
        tx_dropped,
        blocked: counters.blocked,
        top_drop: top.map_or_else(String::new, |(reason, _)| reason.name().to_owned()),
        guest_backlog: place.backlog,
    }
}

/// What was dropped on its way to the node, and what of the node's own.
fn by_direction(drops: &DropCounts) -> (u64, u64) {
    drops.nonzero().fold((0, 0), |(rx, tx): (u64, u64), (reason, frames)| {
        if TOWARDS_NODE.contains(&reason) {
            (rx.saturating_add(frames), tx)
        } else {
            (rx, tx.saturating_add(frames))
        }
    })
}

#[cfg(test)]
mod tests;
