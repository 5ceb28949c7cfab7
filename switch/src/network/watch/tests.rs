//! Storms, loops, groups and address resolution, on the whole walk.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use portolan_nat::offload::{Checksum, Gso, GsoKind, Offload};

use crate::command::{
    Carriage, Command, Conduct, Event, LoopAction, Mode, PortSpec, StormLimits, VlanPolicy,
};
use crate::drops::DropReason;
use crate::ids::{MacAddr, NetworkId, NodeId, PortId, Time};
use crate::loops::{ETHERTYPE, GROUP};
use crate::testbed::{
    Bench, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Sent, arp, icmpv6, mac, neighbor, plain, raw,
    receivers, solicited_node, v4, v6,
};

mod answers;
mod groups;
mod loops;
mod news;
mod storms;

const NOBODY: MacAddr = MacAddr([0x02, 9, 9, 9, 9, 9]);
const NOTHING: MacAddr = MacAddr([0; 6]);
const BROADCAST: MacAddr = MacAddr::BROADCAST;

fn with(guard: bool, carriage: Carriage, conducts: &[Conduct]) -> Bench {
    let mut bench = Bench::bare();
    bench.network_that(0, |spec| (spec.guard, spec.carriage) = (guard, carriage));
    (1..).zip(conducts).for_each(|(port, conduct)| bench.port_that(port, conduct.clone()));
    bench
}

fn plainly(ports: usize) -> Vec<Conduct> {
    vec![Conduct::default(); ports]
}

/// The events but commits and moves of stations.
fn events(bench: &mut Bench) -> Vec<Event> {
    let told = std::iter::from_fn(|| bench.datapath.poll_event());
    told.filter(|e| !matches!(e, Event::Committed(_) | Event::StationMoved { .. })).collect()
}

#[test]
fn a_hub_sends_everything_to_everybody() {
    let carriage =
        Carriage { mode: Mode::Hub, answers: true, snooping: true, ..Carriage::default() };
    let mut bench = with(false, carriage, &plainly(3));
    let ask = arp(BROADCAST, mac(1), 1, (mac(1), v4(1)), (NOTHING, v4(2)));
    assert_eq!(receivers(&bench.send(1, ask)), [2, 3]);
}
