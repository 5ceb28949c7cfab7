//! What can be asked of networks.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_switch::command::{Answer, FdbRow, FlowRow, GroupRow, Owner, Query};
use portolan_switch::drops::DropCounts;
use portolan_switch::ids::{MacAddr, NetworkId, PortId};

use super::plane::Opening;
use super::{Control, Daemon, clock, host, internal};
use crate::api::events::Action;
use crate::api::types::{
    DropEntry, FdbEntry, FlowEntry, GroupEntry, NameEntry, NetworkCreate, NetworkCreated,
    NetworkDetail,
};
use crate::topology::{Endpoint, Id, Network, NetworkFilter, Node, Refusal, Removed};

/// Rows of one page of the FDB.
const PAGE: usize = 512;

impl Daemon {
    /// All networks, in order of their names.
    pub async fn networks(&self) -> Vec<NetworkDetail> {
        let control = self.control.lock().await;
        let mut all: Vec<NetworkDetail> = control
            .topology
            .networks()
            .map(|network| control.topology.network_detail(network))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// One network, with which of its endpoints are blocked.
    pub async fn network(&self, name: &str) -> Result<NetworkDetail, Refusal> {
        let (mut detail, network, ids) = {
            let control = self.control.lock().await;
            let network = control.topology.network(name)?;
            let id = |(node, on): (&Arc<Node>, &Endpoint)| Some((on.port?, node.id.to_string()));
            let ids: BTreeMap<PortId, String> =
                control.topology.members(network.id).filter_map(id).collect();
            (control.topology.network_detail(network), network.network_id(), ids)
        };
        if let Some(Answer::Counters { ports, .. }) = self.plane.ask(Query::Counters(network)).await
        {
            for port in ports.iter().filter(|port| port.blocked) {
                let member = ids.get(&port.port).and_then(|id| detail.containers.get_mut(id));
                if let Some(member) = member {
                    member.blocked = true;
                }
            }
        }
        Ok(detail)
    }

    /// Makes a network.
    pub async fn create_network(&self, spec: &NetworkCreate) -> Result<NetworkCreated, Refusal> {
        let facts = host::facts();
        let mut control = self.control.lock().await;
        let mut new = control.topology.clone();
        let made = new.create_network(spec, &facts, clock::now(), &mut control.random)?;
        self.commit(&mut control, new, Opening::default()).await?;
        if let Ok(network) = control.topology.network(&made.id) {
            self.events.tell_of_network(Action::Create, network, None, &[]);
        }
        Ok(made)
    }

    /// Removes a network; with `force` the running nodes on it are disconnected first.
    pub async fn remove_network(self: &Arc<Self>, name: &str, force: bool) -> Result<(), Refusal> {
        let members: Vec<Id> = {
            let control = self.control.lock().await;
            let network = control.topology.network(name)?.id;
            let on_it = |node: &&Arc<_>| -> bool { on_network(node, network) };
            control.topology.nodes().filter(on_it).map(|node| node.id).collect()
        };
        if force {
            for node in members {
                self.disconnect(name, &node.to_string(), true).await?;
            }
        }
        let mut control = self.control.lock().await;
        let mut new = control.topology.clone();
        let gone = new.remove_network(name, false)?;
        self.commit(&mut control, new, Opening::default()).await?;
        self.events.tell_of_network(Action::Destroy, &gone.network, None, &[]);
        Ok(())
    }

    /// Removes the networks nobody is on that bear all these labels; the names of those.
    pub async fn prune_networks(&self, labels: &[String]) -> Result<Vec<String>, Refusal> {
        let mut control = self.control.lock().await;
        let mut new = control.topology.clone();
        let gone = new.prune(&NetworkFilter::labels(labels));
        self.commit(&mut control, new, Opening::default()).await?;
        for Removed { network, .. } in &gone {
            self.events.tell_of_network(Action::Destroy, network, None, &[]);
        }
        Ok(gone.into_iter().map(|removed| removed.network.name.clone()).collect())
    }

    /// The names of a network: those of its nodes, and those that came with leases.
    pub async fn names(&self, name: &str) -> Result<Vec<NameEntry>, Refusal> {
        let mut names = {
            let control = self.control.lock().await;
            let network = control.topology.network(name)?;
            control.topology.names(network)
        };
        names.extend(self.lent_names(name).await?);
        names.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
        Ok(names)
    }

    /// Who is sent which groups on a network, as far as they are snooped.
    pub async fn groups(&self, name: &str) -> Result<Vec<GroupEntry>, Refusal> {
        let (network, owners) = self.owners(name).await?;
        let now = portolan_switch::io::clock::now();
        let (mut entries, mut after) = (Vec::new(), None);
        loop {
            let rows = match self.plane.ask(Query::Groups { network, after, limit: PAGE }).await {
                Some(Answer::Groups(rows)) => rows,
                Some(_) => return Ok(entries),
                None => return Err(internal("the dataplane does not answer; look at daemon.log")),
            };
            after = rows.last().map(GroupRow::place);
            let last = rows.len() < PAGE;
            entries.extend(rows.into_iter().map(|row| GroupEntry {
                group: row.group,
                vlan: row.vlan,
                node: owners.get(&row.port).cloned().unwrap_or_default(),
                kind: row.kind.name().into(),
                age: now.since(row.seen).as_secs(),
            }));
            if last {
                return Ok(entries);
            }
        }
    }

    /// The stations of a network.
    pub async fn fdb(&self, name: &str) -> Result<Vec<FdbEntry>, Refusal> {
        let (network, owners) = self.owners(name).await?;
        let now = portolan_switch::io::clock::now();
        let mut entries = Vec::new();
        let mut after: Option<(u16, MacAddr)> = None;
        loop {
            let rows = match self.plane.ask(Query::Fdb { network, after, limit: PAGE }).await {
                Some(Answer::Fdb(rows)) => rows,
                Some(_) => return Ok(entries),
                None => return Err(internal("the dataplane does not answer; look at daemon.log")),
            };
            after = rows.last().map(|row| (row.vlan, row.mac));
            let last = rows.len() < PAGE;
            entries.extend(rows.into_iter().map(|row: FdbRow| FdbEntry {
                mac_address: row.mac,
                vlan: row.vlan,
                node: owners.get(&row.port).cloned().unwrap_or_default(),
                kind: if row.seen.is_some() { "dynamic" } else { "static" }.into(),
                age: row.seen.map(|seen| now.since(seen).as_secs()),
            }));
            if last {
                return Ok(entries);
            }
        }
    }

    /// What was dropped on a network, by port and reason.
    pub async fn drops(&self, name: &str) -> Result<Vec<DropEntry>, Refusal> {
        let (network, owners) = self.owners(name).await?;
        let (ports, departed) = match self.plane.ask(Query::Counters(network)).await {
            Some(Answer::Counters { ports, departed }) => (ports, departed),
            Some(_) => return Ok(Vec::new()),
            None => return Err(internal("the dataplane does not answer; look at daemon.log")),
        };
        let mut entries: Vec<DropEntry> = ports
            .iter()
            .flat_map(|port| rows(owners.get(&port.port).map_or("", String::as_str), &port.drops))
            .chain(rows("", &departed))
            .collect();
        entries.sort_by(|a, b| (&a.node, &a.reason).cmp(&(&b.node, &b.reason)));
        Ok(entries)
    }

    /// What goes in and out of a network by sockets of the host.
    pub async fn flows(&self, name: &str) -> Result<Vec<FlowEntry>, Refusal> {
        let (network, nodes) = {
            let control = self.control.lock().await;
            let network = control.topology.network(name)?.network_id();
            let name_of = |node: &Arc<Node>| (Owner(node.handle), node.name.clone());
            (network, control.topology.nodes().map(name_of).collect::<BTreeMap<_, _>>())
        };
        let now = portolan_switch::io::clock::now();
        let (mut entries, mut after) = (Vec::new(), None);
        loop {
            let page = Query::Flows { network: Some(network), after, limit: PAGE };
            let (rows, next) = match self.plane.ask(page).await {
                Some(Answer::Flows { rows, next }) => (rows, next),
                Some(_) => return Ok(entries),
                None => return Err(internal("the dataplane does not answer; look at daemon.log")),
            };
            entries.extend(rows.iter().map(|row| {
                let node = nodes.get(&row.owner).cloned().unwrap_or_default();
                flow_entry(row, node, now.since(row.used).as_secs())
            }));
            if next.is_none() {
                entries.sort_by(|a, b| (&a.node, &a.inside).cmp(&(&b.node, &b.inside)));
                return Ok(entries);
            }
            after = next;
        }
    }

    /// The dataplane's handle of a network, and which node is behind each of its ports.
    pub(super) async fn owners(
        &self,
        name: &str,
    ) -> Result<(NetworkId, BTreeMap<PortId, String>), Refusal> {
        let control = self.control.lock().await;
        let network: &Network = control.topology.network(name)?;
        Ok((network.network_id(), port_owners(&control, network.id)))
    }
}

fn flow_entry(row: &FlowRow, node: String, idle: u64) -> FlowEntry {
    let protocol = match row.protocol {
        1 | 58 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => other.to_string(),
    };
    FlowEntry {
        node,
        protocol,
        inside: row.inside.to_string(),
        outside: row.outside.map(|outside| outside.to_string()).unwrap_or_default(),
        published: row.published,
        state: row.state.to_owned(),
        idle,
    }
}

fn on_network(node: &Node, network: Id) -> bool {
    node.endpoint_on(network).is_some()
}

fn port_owners(control: &Control, network: Id) -> BTreeMap<PortId, String> {
    let owner = |node: &Arc<Node>| Some((node.endpoint_on(network)?.port?, node.name.clone()));
    control.topology.nodes().filter_map(owner).collect()
}

fn rows(node: &str, drops: &DropCounts) -> Vec<DropEntry> {
    let row = |(reason, frames): (portolan_switch::drops::DropReason, u64)| DropEntry {
        node: node.into(),
        reason: reason.name().into(),
        meaning: reason.meaning().into(),
        frames,
    };
    drops.nonzero().map(row).collect()
}
