//! What the switch says of itself.

use portolan_switch::command::{Answer, FdbRow, PortCounters, Query};
use portolan_switch::drops::{DropCounts, DropReason};
use portolan_switch::ids::{NetworkId, PortId};

use super::World;

impl World {
    /// The counters of a network's ports, and what ports had dropped that have left.
    pub fn counters(&self, network: NetworkId) -> (Vec<PortCounters>, DropCounts) {
        match self.datapath.query(&Query::Counters(network), self.now) {
            Answer::Counters { ports, departed } => (ports, departed),
            other => panic!("no counters: {other:?}"),
        }
    }

    /// What a port has dropped, by name.
    pub fn drops(&self, port: PortId) -> Vec<(DropReason, u64)> {
        let network = self.model.network_of(port).expect("attached");
        let (ports, _) = self.counters(network);
        let of_port = ports.into_iter().find(|counters| counters.port == port).expect("attached");
        of_port.drops.nonzero().collect()
    }

    /// What all ports of all networks have dropped, by port and name.
    pub fn all_drops(&self) -> Vec<(PortId, DropReason, u64)> {
        let ports = self.model.ports.keys();
        ports
            .flat_map(|port| self.drops(*port).into_iter().map(|(why, n)| (*port, why, n)))
            .collect()
    }

    /// All stations of a network.
    pub fn stations(&self, network: NetworkId) -> Vec<FdbRow> {
        let mut stations: Vec<FdbRow> = Vec::new();
        loop {
            let after = stations.last().map(|row| (row.vlan, row.mac));
            let query = Query::Fdb { network, after, limit: usize::MAX };
            match self.datapath.query(&query, self.now) {
                Answer::Fdb(rows) if rows.is_empty() => return stations,
                Answer::Fdb(rows) => stations.extend(rows),
                other => panic!("no stations: {other:?}"),
            }
        }
    }
}
