//! Any bytes from a guest, any answers of the host: nothing panics, the frames balance, and nobody else notices.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_nat::sockets::host::Failure;
use portolan_switch::command::{Command, Limits, PublicationId, Transport};
use portolan_switch::frame::{Checksum, Gso, GsoKind, Offload};
use portolan_switch::ids::PortId;
use portolan_tests::host::{Answer, Call, Closing, HOST4, HOST6, Peer, Rule, Talker};
use portolan_tests::packet::{ICMP, ICMPV6, Packet, TCP, UDP, fill_checksums, ip, make_partial};
use portolan_tests::scene::{mac, out4, out6, publication, v4, v6};
use portolan_tests::world::World;
use proptest::prelude::*;

use crate::outside::noise;

/// One thing that a guest sends.
#[derive(Clone, Debug)]
struct Shot {
    ipv6: bool,
    protocol: u8,
    to: u8,
    transport: Vec<u8>,
    /// Bytes that are changed afterwards, checksums and all.
    damage: Vec<(u16, u8)>,
    truncated: Option<u16>,
    whole: bool,
    partial: bool,
    gso: Option<u16>,
    wait: u16,
}

const PORTS: [u16; 6] = [0, 7, 53, 80, 5000, 5001];

prop_compose! {
    /// Transport headers that are mostly right.
    fn transport()(
        kind in prop::sample::select(vec![TCP, TCP, TCP, UDP, UDP, ICMP, ICMPV6, 0, 43, 44, 60, 132]),
        src in prop::sample::select(PORTS.to_vec()),
        dst in prop::sample::select(PORTS.to_vec()),
        numbers in prop::sample::select(vec![[0u32, 0], [1, 1], [u32::MAX, 7], [1000, 0x8000_0000]]),
        flags in prop_oneof![Just(2u8), Just(16), Just(24), Just(17), Just(4), any::<u8>()],
        offset in prop_oneof![4 => Just(5u8), 1 => 0u8..16],
        window in any::<u16>(),
        icmp in prop::sample::select(vec![[8u8, 0], [128, 0], [3, 3], [3, 4], [2, 0], [1, 4], [11, 0], [0, 0], [129, 0]]),
        len in prop_oneof![3 => Just(None), 1 => any::<u16>().prop_map(Some)],
        rest in prop::collection::vec(any::<u8>(), 0..200),
        large in prop_oneof![9 => Just(0usize), 1 => 1000usize..9000],
    ) -> (u8, Vec<u8>) {
        let rest = [rest, noise(1, large)].concat();
        let ports = [src.to_be_bytes(), dst.to_be_bytes()].concat();
        let bytes = match kind {
            TCP => [
                &ports[..], &numbers[0].to_be_bytes(), &numbers[1].to_be_bytes(),
                &[offset << 4, flags], &window.to_be_bytes(), &[0; 4], &rest,
            ].concat(),
            UDP => {
                let len = len.unwrap_or(8 + rest.len() as u16);
                [&ports[..], &len.to_be_bytes(), &[0, 0], &rest].concat()
            }
            ICMP | ICMPV6 => [&icmp[..], &[0, 0], &ports, &rest].concat(),
            _ => rest,
        };
        (kind, bytes)
    }
}

prop_compose! {
    fn shot()(
        ipv6 in any::<bool>(),
        (protocol, transport) in transport(),
        to in 0u8..6,
        damage in prop_oneof![
            3 => Just(Vec::new()),
            1 => prop::collection::vec((0u16..120, any::<u8>()), 1..4),
        ],
        truncated in prop_oneof![5 => Just(None), 1 => (0u16..100).prop_map(Some)],
        whole in any::<bool>(),
        partial in any::<bool>(),
        gso in prop_oneof![3 => Just(None), 1 => (1u16..1500).prop_map(Some)],
        wait in prop::sample::select(vec![0u16, 0, 0, 1, 50, 2000]),
    ) -> Shot {
        Shot { ipv6, protocol, to, transport, damage, truncated, whole, partial, gso, wait }
    }
}

prop_compose! {
    fn rule()(
        call in prop::sample::select(Call::ALL.to_vec()),
        failure in prop::sample::select(vec![
            Failure::WouldBlock, Failure::Refused, Failure::Reset, Failure::TimedOut,
            Failure::NetUnreachable, Failure::HostUnreachable, Failure::Forbidden, Failure::TooBig,
            Failure::TooManyFiles, Failure::NoBuffers, Failure::NoAddress, Failure::Unsupported,
            Failure::Other(22),
        ]),
        per_mille in prop::sample::select(vec![100u32, 500, 1000]),
    ) -> Rule {
        Rule { call, failure, per_mille, left: 50 }
    }
}

impl Shot {
    fn packet(&self) -> Packet {
        let (src, all) = if self.ipv6 {
            (v6(1, 2), [out6(1), out6(2), out6(3), out6(4), HOST6, v6(1, 1)])
        } else {
            (v4(1, 2), [out4(1), out4(2), out4(3), out4(4), HOST4, v4(1, 1)])
        };
        let ends = ((mac(1, 2), src), (mac(1, 1), all[usize::from(self.to)]));
        let mut frame = ip(ends.0, ends.1, self.protocol, &self.transport);
        for (at, byte) in &self.damage {
            if let Some(place) = frame.get_mut(14 + usize::from(*at)) {
                *place = *byte;
            }
        }
        if self.whole {
            fill_checksums(&mut frame);
        }
        let headers = frame.len() - self.transport.len();
        let mut packet = Packet::from(frame);
        if self.partial && self.damage.is_empty() {
            make_partial(&mut packet);
        }
        let header_len = headers + if self.protocol == TCP { 20 } else { 8 };
        let fits = packet.bytes.len() > header_len && self.damage.is_empty();
        if let (Some(size), Checksum::Partial { .. }, true) = (self.gso, packet.offload.csum, fits)
        {
            let kind = match (self.protocol, self.ipv6) {
                (UDP, _) => GsoKind::UdpL4,
                (_, false) => GsoKind::TcpV4,
                (_, true) => GsoKind::TcpV6,
            };
            // As the reader of the virtio header lets through: a header of the usual length only.
            if self.protocol == UDP || self.transport[12] >> 4 == 5 {
                let hdr_len = header_len as u16;
                packet.offload.gso = Some(Gso { kind, size, hdr_len, ecn: false });
            }
        }
        if let Some(len) = self.truncated {
            packet.bytes.truncate(14 + usize::from(len));
            packet.offload = Offload::default();
        }
        packet
    }
}

fn scene(seed: u64) -> (World, PortId, PortId) {
    let mut world = World::new(seed);
    world.uplink(Limits { flows: 64, owner_flows: 32 });
    world.lan(1, true);
    let (bad, good) = (world.tap(1, 2, true), world.join(1, 3, false));
    let answers = [Answer::Accept, Answer::Refuse, Answer::HostUnreachable, Answer::Never];
    for (n, answer) in (1..).zip(answers) {
        for address in [out4(n), out6(u16::from(n))] {
            let peer = Peer { answer, say: noise(2, 5000), ..Peer::echo() };
            let peer = Peer { closing: Closing::WhenSaid, ..peer };
            for port in PORTS {
                world.host.peers.insert(SocketAddr::new(address, port), peer.clone());
                let talker = match n {
                    1 => Talker::Echo,
                    2 => Talker::Complains { from: None, kind: (3, 3) },
                    3 => Talker::Replies(vec![Vec::new(), noise(3, 9000), noise(4, 100)]),
                    _ => Talker::Complains { from: Some(out4(9)), kind: (255, 255) },
                };
                world.host.talkers.insert(SocketAddr::new(address, port), talker);
            }
        }
    }
    for (id, transport) in [(1, Transport::Tcp), (2, Transport::Udp)] {
        world.apply([Command::Publish(publication(id, (1, 2), transport, 5000))]);
        for address in [HOST4, HOST6] {
            let local = SocketAddr::new(address, 5000);
            world.open_door(PublicationId(id), local, transport == Transport::Udp);
        }
    }
    (world, bad, good)
}

proptest! {
    #[test]
    fn any_bytes_and_any_answers_keep_the_books_and_the_neighbor(
        seed: u64,
        shots in prop::collection::vec(shot(), 1..40),
        rules in prop::collection::vec(rule(), 0..4),
        shorts in 0u32..500,
    ) {
        let (mut world, bad, good) = scene(seed);
        world.host.faults.rules = rules;
        world.host.faults.short_sends = shorts;
        world.host.faults.short_peeks = shorts;
        for (n, shot) in shots.iter().enumerate() {
            world.send(bad, shot.packet());
            if n % 7 == 0 {
                let client = SocketAddr::new(out4(9), 40_000 + n as u16);
                let door = SocketAddr::new(HOST4, 5000);
                world.host.dial(door, client, Peer::source(noise(5, 300)));
                world.host.post(client, door, &noise(6, 3000), Some(1000));
            }
            world.run_for(Duration::from_millis(u64::from(shot.wait)));
            world.received(bad);
        }
        world.host.faults = Default::default();
        let to: (IpAddr, u16) = (out4(77), 80);
        world.host.peers.insert(to.into(), Peer::echo());
        let app = world.guest(good).connect(5000, to, noise(7, 3000), true);
        world.run_for(Duration::from_secs(3));
        prop_assert_eq!(&world.guest(good).talk(app).heard, &noise(7, 3000));
        // Nobody sits at the first host's wire any more: what it began ends.
        world.apply([Command::DetachPort(bad)]);
        world.unplug(bad);
        world.run_for(Duration::from_secs(400));
        prop_assert_eq!(world.flows().len(), 0);
        prop_assert_eq!(world.host.flow_sockets(), 0);
        world.check_all();
    }
}
