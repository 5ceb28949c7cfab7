//! Frames of the guests of one LAN, as a script makes them, and the kinds of scripts that differ in them alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_switch::ids::MacAddr;

use super::lan::{GATE6, PORTS, mac_of, play, v4_of, v6_of};
use super::{GATE4, GATEWAY, Script, lies_whole};
use crate::packet::{ICMPV6, TCP, ethernet, fill_checksums, ip, udp};

/// The gateway, on its link alone.
const LINK6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A tag that is likely to be one of those in use.
pub(super) fn tci(script: &mut Script<'_>) -> u16 {
    let byte = script.byte();
    match byte & 7 {
        0 => 0,
        1 => 5,
        2 => 10,
        3 => 20,
        4 => 30,
        5 => 0xe000 | 10,
        6 => 4095,
        _ => u16::from(byte) << 4,
    }
}

fn hardware(choice: u8, own: u32) -> MacAddr {
    match choice % 10 {
        0 | 1 => MacAddr::BROADCAST,
        2 => GATEWAY,
        3 => mac_of(own),
        4 => MacAddr([1, 0, 0x5e, 0, 0, choice]),
        5 => MacAddr([0x33, 0x33, 0, 0, 0, choice >> 4]),
        6 => MacAddr([1, 0x80, 0xc2, 0, 0, choice >> 4]),
        7 => mac_of(100 + own),
        _ => mac_of(u32::from(choice >> 4) % 6),
    }
}

fn internet4(choice: u8, own: u32) -> Ipv4Addr {
    match choice % 8 {
        0 => v4_of(own),
        1 => Ipv4Addr::BROADCAST,
        2 => Ipv4Addr::UNSPECIFIED,
        3 => Ipv4Addr::new(10, 0, 0, 1),
        4 => Ipv4Addr::new(224, 0, 0, choice >> 3),
        5 => Ipv4Addr::new(239, 1, 1, choice >> 5),
        6 => Ipv4Addr::new(10, 0, 0, 100 + (choice >> 4)),
        _ => v4_of(u32::from(choice >> 3) % PORTS),
    }
}

fn internet6(choice: u8, own: u32) -> Ipv6Addr {
    match choice % 8 {
        0 => v6_of(own),
        1 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1 + u16::from(choice >> 6)),
        2 => Ipv6Addr::UNSPECIFIED,
        3 => GATE6,
        4 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2),
        5 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(choice >> 3)),
        6 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, u16::from(choice >> 3)),
        _ => v6_of(u32::from(choice >> 3) % PORTS),
    }
}

/// Bytes of the script, as many as it says.
fn body<'s>(script: &mut Script<'s>) -> &'s [u8] {
    let len = usize::from(script.byte());
    script.bytes(if len < 250 { len } else { len * 8 })
}

/// A frame of any sort.
fn frame(script: &mut Script<'_>, port: u32) -> Vec<u8> {
    let (kind, to, from) = (script.byte(), script.byte(), script.byte());
    let source = if from & 1 == 0 { mac_of(port) } else { hardware(from >> 1, port) };
    let target = hardware(to, port);
    let mut frame = match kind % 9 {
        0 => ethernet(target, source, script.word(), body(script)),
        1 => {
            let mut message = vec![0, 1, 8, 0, 6, 4, 0, script.byte() & 3];
            message.extend(source.0);
            message.extend(internet4(script.byte(), port).octets());
            message.extend(target.0);
            message.extend(internet4(script.byte(), port).octets());
            ethernet(target, source, 0x0806, &message)
        }
        2 | 3 => return datagram(script, port, (source, target), kind),
        4 => {
            // Neighbors, routers, and members of groups.
            let types = [133, 134, 135, 136, 137, 130, 131, 132, 143, 128];
            let mut message = vec![types[usize::from(script.byte() % 10)], 0, 0, 0];
            let ends = (internet6(script.byte(), port), internet6(script.byte(), port));
            message.extend(body(script));
            ip((source, ends.0.into()), (target, ends.1.into()), ICMPV6, &message)
        }
        5 => {
            let types = [0x11, 0x16, 0x17, 0x22];
            let mut message = vec![types[usize::from(script.byte() & 3)], 0, 0, 0];
            let ends = (internet4(script.byte(), port), internet4(script.byte(), port));
            message.extend(body(script));
            let sum = !crate::packet::sum(&[&message]);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            ip((source, ends.0.into()), (target, ends.1.into()), 2, &message)
        }
        6 => ip((source, v4_of(port).into()), (target, GATE4), TCP, body(script)),
        7 => {
            let ends = (internet6(script.byte(), port), internet6(script.byte(), port));
            let protocol = script.byte();
            ip((source, ends.0.into()), (target, ends.1.into()), protocol, body(script))
        }
        _ => {
            let ends = (internet4(script.byte(), port), internet4(script.byte(), port));
            let protocol = script.byte();
            ip((source, ends.0.into()), (target, ends.1.into()), protocol, body(script))
        }
    };
    finish(&mut frame, script, kind);
    frame
}

/// A datagram between ports where something listens.
fn datagram(
    script: &mut Script<'_>,
    port: u32,
    (source, target): (MacAddr, MacAddr),
    kind: u8,
) -> Vec<u8> {
    let ports = [53, 67, 68, 546, 547, 5353, 7, 40_000];
    let choice = script.byte();
    let ends = (ports[usize::from(choice & 7)], ports[usize::from(choice >> 3 & 7)]);
    let (here, there): (IpAddr, IpAddr) = if kind % 9 == 2 {
        (internet4(script.byte(), port).into(), internet4(script.byte(), port).into())
    } else {
        (internet6(script.byte(), port).into(), internet6(script.byte(), port).into())
    };
    let mut frame = udp((source, here, ends.0), (target, there, ends.1), body(script));
    finish(&mut frame, script, kind);
    frame
}

/// Tags among the bytes, damage, and an end that comes too soon.
fn finish(frame: &mut Vec<u8>, script: &mut Script<'_>, kind: u8) {
    if kind < 200 {
        return;
    }
    let how = script.byte();
    if how & 1 != 0 && frame.len() > 14 {
        let at = 14 + usize::from(script.byte()) % (frame.len() - 14);
        frame[at] ^= script.byte();
        if how & 2 != 0 && lies_whole(frame) {
            fill_checksums(frame);
        }
    }
    for tpid in [0x8100_u16, 0x88a8].into_iter().take(usize::from(how >> 2 & 3).min(2)) {
        let tag = [tpid.to_be_bytes(), tci(script).to_be_bytes()].concat();
        frame.splice(12..12, tag);
    }
    if how & 0x10 != 0 {
        frame.truncate(usize::from(script.byte()));
    }
}

/// Frames of any sort on a network that has everything switched on, or some of it.
pub fn lan(data: &[u8]) {
    play(data, frame);
}

/// Messages of DHCPv4 clients and of others that pose as servers, over the whole way.
pub fn dhcp4(data: &[u8]) {
    play(data, |script, port| {
        let (shape, kind) = (script.byte(), script.byte());
        let source = if shape & 1 == 0 { mac_of(port) } else { hardware(script.byte(), port) };
        let client = if shape & 2 == 0 { source } else { hardware(script.byte(), port) };
        let ciaddr = if shape & 4 == 0 { Ipv4Addr::UNSPECIFIED } else { internet4(kind, port) };
        let relay = if shape & 8 == 0 { Ipv4Addr::UNSPECIFIED } else { v4_of(port) };
        let mut message = vec![1 + (shape >> 4 & 1), 1, 6, shape >> 7];
        message.extend([kind, 2, 3, 4, 0, 0, if shape & 0x20 == 0 { 0x80 } else { 0 }, 0]);
        message.extend(ciaddr.octets());
        message.extend([0; 8]);
        message.extend(relay.octets());
        message.extend(client.0);
        message.resize(236, 0);
        message.extend([99, 130, 83, 99, 53, 1, kind & 15]);
        if kind & 0x10 != 0 {
            message.extend([50, 4]);
            message.extend(internet4(script.byte(), port).octets());
        }
        if kind & 0x20 != 0 {
            message.extend([54, 4, 10, 0, 0, 1]);
        }
        message.extend(body(script));
        if kind & 0x80 == 0 {
            message.push(255);
        }
        if shape & 0x40 != 0 {
            message.truncate(usize::from(script.word()) % (message.len() + 1));
        }
        let here = if ciaddr.is_unspecified() { ciaddr } else { v4_of(port) };
        let there = if kind & 0x40 == 0 { Ipv4Addr::BROADCAST } else { Ipv4Addr::new(10, 0, 0, 1) };
        let hardware = if kind & 0x40 == 0 { MacAddr::BROADCAST } else { GATEWAY };
        let ports = if shape & 0x10 == 0 { (68, 67) } else { (67, 68) };
        udp((source, here.into(), ports.0), (hardware, there.into(), ports.1), &message)
    });
}

/// The same of DHCPv6.
pub fn dhcp6(data: &[u8]) {
    let group = (MacAddr([0x33, 0x33, 0, 1, 0, 2]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));
    play(data, |script, port| {
        let (shape, kind) = (script.byte(), script.byte());
        let mut message = vec![kind & 15, 1, 2, shape];
        if shape & 1 == 0 {
            message.extend([0, 1, 0, 10, 0, 3, 0, 1]);
            message.extend(if shape & 2 == 0 { mac_of(port) } else { mac_of(9) }.0);
        }
        if shape & 4 != 0 {
            // An identity association, and an address that is wished for.
            message.extend([0, 3, 0, 40, 0, 0, 0, shape >> 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24]);
            message.extend(internet6(script.byte(), port).octets());
            message.extend([0; 8]);
        }
        message.extend(body(script));
        if shape & 8 != 0 {
            message.truncate(usize::from(script.word()) % (message.len() + 1));
        }
        let link = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, port as u16);
        let here = if shape & 0x10 == 0 { link } else { internet6(script.byte(), port) };
        let (hardware, there) = match shape >> 4 & 2 {
            0 => group,
            _ => (GATEWAY, if kind & 0x10 == 0 { LINK6 } else { GATE6 }),
        };
        let ports = if kind & 0x20 == 0 { (546, 547) } else { (547, 546) };
        udp((mac_of(port), here.into(), ports.0), (hardware, there.into(), ports.1), &message)
    });
}

/// ARP, neighbor discovery, router solicitations and advertisements, and reports of group members: each nearly sound.
pub fn ndp(data: &[u8]) {
    play(data, |script, port| {
        let (shape, to) = (script.byte(), script.byte());
        let target = hardware(to, port);
        let source = if shape & 1 == 0 { mac_of(port) } else { hardware(script.byte(), port) };
        if shape & 6 == 0 {
            let mut message = vec![0, 1, 8, 0, 6, 4];
            message.extend(u16::from(script.byte() & 3).to_be_bytes());
            message.extend(if shape & 8 == 0 { source.0 } else { hardware(script.byte(), port).0 });
            message.extend(internet4(script.byte(), port).octets());
            message.extend(hardware(script.byte(), port).0);
            message.extend(internet4(script.byte(), port).octets());
            message.extend(body(script));
            if shape & 0x80 != 0 {
                message.truncate(usize::from(script.byte()) & 31);
            }
            return ethernet(target, source, 0x0806, &message);
        }
        let types = [133, 134, 135, 136, 137, 130, 131, 143];
        let kind = types[usize::from(shape >> 3 & 7)];
        let ends = (internet6(script.byte(), port), internet6(script.byte(), port));
        let mut message = vec![kind, 0, 0, 0];
        message.extend(script.word().to_be_bytes());
        message.extend(script.word().to_be_bytes());
        if matches!(kind, 135..=137 | 130 | 131) {
            message.extend(internet6(script.byte(), port).octets());
        }
        if shape & 0x40 != 0 {
            message.extend([1 + (to >> 7), 1]);
            message.extend(source.0);
        }
        message.extend(body(script));
        ip((source, ends.0.into()), (target, ends.1.into()), ICMPV6, &message)
    });
}
