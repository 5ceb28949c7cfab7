//! Portolan's dataplane with two wires on one guarded network, and no daemon: `pair IFNAME IFNAME [SLOTS SLOT_KIB]`, as root
//! in the namespace that holds both devices. When its standard input ends it prints what was dropped, and leaves.

use std::io::{self, Read};

use portolan_perf::plane::{Plane, open};
use portolan_perf::{guest_address, guest_mac};
use portolan_switch::command::{Command, Egress, NetworkSpec, PortSpec};
use portolan_switch::ids::{MacAddr, NetworkId, NodeId, PortId};
use portolan_switch::io::{Down, Port, RingShape, packet};

const NETWORK: NetworkId = NetworkId(0);

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [first, second, rest @ ..] = words.as_slice() else {
        return Err(io::Error::other("usage: pair IFNAME IFNAME [SLOTS SLOT_KIB]"));
    };
    let numbers: Vec<u32> = rest.iter().filter_map(|word| word.parse().ok()).collect();
    let shape = match numbers.as_slice() {
        [slots, kib] => {
            RingShape { slots: *slots, slot_bytes: kib * 1024, block_bytes: 65536.max(kib * 1024) }
        }
        _ => packet::SHAPE,
    };
    let plane = Plane::start()?;
    let network = NetworkSpec {
        id: NETWORK,
        zone: None,
        mac: MacAddr([2, 0x50, 0x4f, 0x52, 0x54, 0xff]),
        gateways: Vec::new(),
        mtu: 1500,
        guard: true,
        egress: Egress::default(),
        carriage: Default::default(),
        services: Default::default(),
    };
    plane.send(Down::Command(Command::CreateNetwork(network)));
    for i in 0..2 {
        let (id, node) = (PortId(i.into()), NodeId(i.into()));
        let (mac, addresses) = (guest_mac(i), vec![guest_address(i)]);
        let port =
            PortSpec { id, network: NETWORK, node, mac, addresses, conduct: Default::default() };
        plane.send(Down::Command(Command::AttachPort(port)));
    }
    plane.send(Down::Command(Command::Commit(1)));
    for (i, name) in (0..).zip([first, second]) {
        plane.send(Down::Open(PortId(i), Port::Packet(open(name, shape)?)));
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    for row in plane.counters(NETWORK) {
        let drops: Vec<String> =
            row.drops.nonzero().map(|(why, count)| format!("{} {count}", why.name())).collect();
        println!(
            "port {}: {} in, {} out, dropped [{}]",
            row.port.0,
            row.rx_frames,
            row.tx_frames,
            drops.join(", ")
        );
    }
    Ok(())
}
