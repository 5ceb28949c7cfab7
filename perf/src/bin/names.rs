//! Portolan's dataplane with one wire on a network of many names, and no daemon: `names COUNT IFNAME`, as root in the namespace
//! that holds the device. It says `ready`; when its standard input ends it prints what was dropped, and leaves. `names COUNT`
//! prints the names as a file of hosts, for another server to hold.
//!
//! Host `i` is `h<i>`, in the domain `figures`, and has 10.98.0.0 and fd00:98::, each with 16 + `i` added. The wire is host 0's,
//! the gateway 10.98.255.254 and fd00:98::ffff.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_perf::guest_mac;
use portolan_perf::plane::{Plane, open};
use portolan_switch::command::{Command, Egress, HostSpec, NetworkSpec, PortSpec};
use portolan_switch::ids::{MacAddr, NetworkId, NodeId, PortId};
use portolan_switch::io::{Down, Port, RingShape, packet};

const NETWORK: NetworkId = NetworkId(0);

const DOMAIN: &str = "figures";

/// The ring that a wire has got after two overflows, as any gets that many questions at a time.
const SHAPE: RingShape = RingShape { slots: 256, ..packet::SHAPE };

fn addresses(host: u32) -> [IpAddr; 2] {
    let at = 16 + host;
    let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 98, 0, 0).to_bits() + at);
    let v6 = Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, 0, 0).to_bits() + u128::from(at);
    [v4.into(), Ipv6Addr::from_bits(v6).into()]
}

/// The commands that make the network and its names.
fn commands(count: u32) -> Vec<Command> {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 98, 255, 254), 16);
    let v6 = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, 0, 0xffff), 64);
    let mut commands = vec![
        Command::CreateNetwork(NetworkSpec {
            id: NETWORK,
            zone: Some(DOMAIN.to_owned()),
            mac: MacAddr([2, 0x50, 0x4f, 0x52, 0x54, 0xff]),
            gateways: vec![IpNet::V4(v4), IpNet::V6(v6)],
            mtu: 1500,
            guard: true,
            egress: Egress::default(),
            carriage: Default::default(),
            services: Default::default(),
        }),
        Command::AttachPort(PortSpec {
            id: PortId(0),
            network: NETWORK,
            node: NodeId(0),
            mac: guest_mac(0),
            addresses: addresses(0).into(),
            conduct: Default::default(),
        }),
        Command::SetView { node: NodeId(0), networks: vec![NETWORK] },
    ];
    commands.extend((0..count).map(|host| {
        Command::SetHost(HostSpec {
            network: NETWORK,
            node: NodeId(host),
            names: vec![format!("h{host}")],
            addresses: addresses(host).into(),
        })
    }));
    commands.push(Command::Commit(1));
    commands
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count = words.first().and_then(|word| word.parse().ok());
    let count: u32 = count.ok_or_else(|| io::Error::other("usage: names COUNT [IFNAME]"))?;
    let Some(device) = words.get(1) else {
        for host in 0..count {
            for address in addresses(host) {
                println!("{address} h{host}.{DOMAIN} h{host}");
            }
        }
        return Ok(());
    };
    let plane = Plane::start()?;
    for command in commands(count) {
        plane.send(Down::Command(command));
    }
    plane.send(Down::Open(PortId(0), Port::Packet(open(device, SHAPE)?)));
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    for (why, count) in plane.counters(NETWORK).iter().flat_map(|row| row.drops.nonzero()) {
        eprintln!("dropped: {} {count}", why.name());
    }
    Ok(())
}
