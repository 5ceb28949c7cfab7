//! What must hold after every step, whatever the scenario does.

use portolan_switch::command::{Answer, Query};
use portolan_switch::datapath::Datapath;
use portolan_switch::fdb;
use portolan_switch::ids::{MacAddr, NetworkId, Time};

use crate::model::Model;

/// Starts every block of a payload that belongs to a network; the network's number follows.
const MARK: &[u8; 4] = b"PTLN";

/// Bytes of a block.
const BLOCK: usize = 16;

/// `len` bytes that name their network throughout, and differ from block to block.
pub fn tagged(network: NetworkId, len: usize) -> Vec<u8> {
    let blocks = 0..len.div_ceil(BLOCK) as u64;
    let mut bytes: Vec<u8> = blocks
        .flat_map(|number| [&MARK[..], &network.0.to_be_bytes(), &number.to_be_bytes()].concat())
        .collect();
    bytes.truncate(len);
    bytes
}

/// The network that `bytes` name, if not `network` alone.
pub fn foreign_tag(bytes: &[u8], network: NetworkId) -> Option<NetworkId> {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == MARK[0]) {
        rest = &rest[at..];
        if let Some(number) = rest.strip_prefix(MARK).and_then(|behind| behind.first_chunk()) {
            let tag = NetworkId(u32::from_be_bytes(*number));
            if tag != network {
                return Some(tag);
            }
        }
        rest = &rest[1..];
    }
    None
}

/// All drops the switch knows of: of networks that are there, and of ports that belong to none.
pub fn drops_of(datapath: &Datapath, network: NetworkId, now: Time) -> u64 {
    let Answer::Counters { ports, departed } = datapath.query(&Query::Counters(network), now)
    else {
        panic!("network {} has no counters", network.0);
    };
    let of_ports = ports.iter().flat_map(|port| port.drops.nonzero());
    of_ports.chain(departed.nonzero()).map(|(_, frames)| frames).sum()
}

/// The balance: no frame comes from nowhere or goes without a name, and every counter agrees with what was really handed
/// over. `gone` is what networks had dropped that have ended, `edge` what the IO edge dropped.
pub fn balance(datapath: &Datapath, model: &Model, gone: u64, edge: u64, now: Time) {
    let totals = datapath.totals();
    assert!(totals.balanced(), "frames out of nowhere, or lost without a name: {totals:?}");
    let mut dropped = gone + datapath.adrift().nonzero().map(|(_, frames)| frames).sum::<u64>();
    for network in model.networks.keys() {
        dropped += drops_of(datapath, *network, now);
        let Answer::Counters { ports, .. } = datapath.query(&Query::Counters(*network), now) else {
            unreachable!("asked before");
        };
        for port in ports {
            let seen = model.seen[&port.port];
            assert_eq!(model.network_of(port.port), Some(*network));
            assert_eq!(port.rx_frames, seen.rx, "rx of port {}", port.port.0);
            assert_eq!(port.tx_frames, seen.tx, "tx of port {}", port.port.0);
        }
    }
    assert_eq!(totals.dropped + edge, dropped, "drops by name and in all: {totals:?}");
}

/// The forwarding databases: bounded, and naming no port of another network.
pub fn stations(datapath: &Datapath, model: &Model, now: Time) {
    for network in model.networks.keys() {
        let (mut after, mut learned) = (None::<(u16, MacAddr)>, 0);
        loop {
            let query = Query::Fdb { network: *network, after, limit: 1024 };
            let Answer::Fdb(rows) = datapath.query(&query, now) else {
                panic!("network {} has no stations", network.0);
            };
            for row in &rows {
                assert_eq!(model.network_of(row.port), Some(*network), "{row:?}");
                assert!(after.is_none_or(|last| last < (row.vlan, row.mac)), "order: {row:?}");
                after = Some((row.vlan, row.mac));
                learned += usize::from(row.seen.is_some());
                let age = row.seen.map_or(0, |seen| now.since(seen).as_secs());
                assert!(age <= fdb::AGEING.as_secs(), "stays after its time: {row:?} at {now:?}");
            }
            if rows.is_empty() {
                break;
            }
        }
        assert!(learned <= fdb::CAPACITY, "{learned} stations");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_at_any_offset_and_ones_own_is_none() {
        let bytes = tagged(NetworkId(7), 100);
        assert_eq!(bytes.len(), 100);
        assert_eq!(foreign_tag(&bytes[3..], NetworkId(7)), None);
        assert_eq!(foreign_tag(&bytes[3..], NetworkId(8)), Some(NetworkId(7)));
    }
}
