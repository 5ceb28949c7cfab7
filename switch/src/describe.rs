//! What a frame is, in a line for people.
//!
//! Any bytes can be described. What is not understood is told by its number, and what is cut off is left out.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::frame::VlanTag;
use crate::headers::{Ip, Layout, bytes_at, ethertype, protocol, u16_at};
use crate::ids::MacAddr;

/// Below this the field is a length (IEEE 802.3).
const ETHERTYPE_MIN: u16 = 0x600;

const DNS_PORT: u16 = 53;

/// Labels of a name that are shown.
const LABELS_MAX: usize = 32;

/// Describes a frame, with the tag that lies beside it, if one does.
pub fn describe(frame: &[u8], beside: Option<VlanTag>) -> String {
    let Ok(layout) = Layout::of(frame, beside) else {
        return format!("{} bytes that are no Ethernet frame", frame.len());
    };
    let payload = match layout.ethertype {
        ethertype::ARP => arp(frame.get(layout.l3..).unwrap_or_default()),
        ethertype::IPV4 | ethertype::IPV6 => match layout.ip(frame) {
            Ok(Some(ip)) => packet(&ip, frame),
            _ => "malformed IP".into(),
        },
        length if length < ETHERTYPE_MIN => "IEEE 802.3".into(),
        0x8035 => "RARP".into(),
        0x88cc => "LLDP".into(),
        other => format!("EtherType 0x{other:04x}"),
    };
    let vlan = if layout.vlan == 0 { String::new() } else { format!(", VLAN {}", layout.vlan) };
    format!("{} > {}{vlan}, {payload}, {} bytes", layout.src, layout.dst, frame.len())
}

fn arp(message: &[u8]) -> String {
    let address = |at| bytes_at(message, at).map(Ipv4Addr::from);
    let all = (u16_at(message, 6), bytes_at(message, 8).map(MacAddr), address(14), address(24));
    let (Some(operation), Some(mac), Some(sender), Some(target)) = all else {
        return "malformed ARP".into();
    };
    match operation {
        1 if sender.is_unspecified() => format!("ARP who has {target} (probe)"),
        1 if sender == target => format!("ARP announcement of {sender}"),
        1 => format!("ARP who has {target}, tell {sender}"),
        2 => format!("ARP {sender} is at {mac}"),
        other => format!("ARP operation {other}"),
    }
}

fn packet(ip: &Ip, frame: &[u8]) -> String {
    let message = ip.transport(frame);
    let ends = || {
        let (from, to) = (u16_at(message, 0)?, u16_at(message, 2)?);
        ip.has_transport().then(|| (SocketAddr::new(ip.src, from), SocketAddr::new(ip.dst, to)))
    };
    let mut text = match (ip.protocol, ends()) {
        (protocol::TCP, Some((from, to))) => {
            format!("TCP {from} > {to} {}", flags(message.get(13).copied().unwrap_or(0)))
        }
        (protocol::UDP, Some((from, to))) => {
            let body = message.get(8..).unwrap_or_default();
            format!("UDP {from} > {to}{}", datagram(from.port(), to.port(), body))
        }
        (protocol::ICMP | protocol::ICMPV6, _) => {
            let kind = message.first().copied().unwrap_or(0);
            let name = icmp(ip.src.is_ipv6(), kind, message);
            format!("{name} {} > {}", ip.src, ip.dst)
        }
        (other, _) => format!("{} {} > {}", protocol_name(other, ip.src), ip.src, ip.dst),
    };
    if ip.is_fragment() {
        text.push_str(" (fragment)");
    }
    text
}

fn protocol_name(number: u8, source: IpAddr) -> String {
    let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
    match number {
        protocol::TCP => "TCP".into(),
        protocol::UDP => "UDP".into(),
        protocol::SCTP => "SCTP".into(),
        2 => "IGMP".into(),
        47 => "GRE".into(),
        50 => "ESP".into(),
        other => format!("{family} protocol {other}"),
    }
}

fn flags(bits: u8) -> String {
    let names = [(0x02, "SYN"), (0x10, "ACK"), (0x08, "PSH"), (0x01, "FIN"), (0x04, "RST")];
    let set: Vec<&str> =
        names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    format!("[{}]", set.join(" "))
}

fn icmp(v6: bool, kind: u8, message: &[u8]) -> String {
    let family = if v6 { "ICMPv6" } else { "ICMP" };
    let target = || {
        let address = bytes_at(message, 8).map(std::net::Ipv6Addr::from);
        address.map(|address| format!(" {address}")).unwrap_or_default()
    };
    let name = match (v6, kind) {
        (false, 0) | (true, 129) => "echo reply".into(),
        (false, 8) | (true, 128) => "echo request".into(),
        (false, 3) | (true, 1) => "unreachable".into(),
        (false, 11) | (true, 3) => "time exceeded".into(),
        (true, 2) => "packet too big".into(),
        (true, 133) => "router solicitation".into(),
        (true, 134) => "router advertisement".into(),
        (true, 135) => format!("who has{}", target()),
        (true, 136) => format!("I have{}", target()),
        (_, other) => format!("type {other}"),
    };
    format!("{family} {name}")
}

/// What a datagram between two ports says.
fn datagram(from: u16, to: u16, body: &[u8]) -> String {
    match (from, to) {
        (_, DNS_PORT) => dns(body, false),
        (DNS_PORT, _) => dns(body, true),
        (67 | 68, 67 | 68) => ", DHCP".into(),
        (546 | 547, 546 | 547) => ", DHCPv6".into(),
        _ => String::new(),
    }
}

fn dns(message: &[u8], reply: bool) -> String {
    let Some(flags) = u16_at(message, 2) else { return String::new() };
    let name = name(message);
    if !reply {
        return format!(", DNS query for {name}");
    }
    let code = match flags & 15 {
        0 => "answered".to_owned(),
        2 => "server failure".to_owned(),
        3 => "no such name".to_owned(),
        5 => "refused".to_owned(),
        other => format!("code {other}"),
    };
    let answers = u16_at(message, 6).unwrap_or(0);
    format!(", DNS reply for {name}: {code}, {answers} records")
}

/// The first name that is asked for; a question's name is not compressed.
fn name(message: &[u8]) -> String {
    let mut name = String::new();
    let mut rest = message.get(12..).unwrap_or_default();
    for _ in 0..LABELS_MAX {
        let Some((&len, behind)) = rest.split_first() else { break };
        let Some((label, behind)) = behind.split_at_checked(usize::from(len)) else { break };
        if label.is_empty() {
            break;
        }
        for byte in label {
            match byte {
                b'!'..=b'~' => name.push(char::from(*byte)),
                other => _ = write!(name, "\\{other:03}"),
            }
        }
        name.push('.');
        rest = behind;
    }
    if name.is_empty() { ".".into() } else { name }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testbed::{arp, datagram, dns_query, mac, plain, v4};

    #[test]
    fn frames_are_told_by_what_they_carry() {
        let (a, b) = (mac(1), mac(2));
        let ask = arp(MacAddr::BROADCAST, a, 1, (a, v4(1)), (MacAddr([0; 6]), v4(2)));
        let head = format!("{a} > ff:ff:ff:ff:ff:ff, ");
        let expected = format!("{head}ARP who has {}, tell {}, 42 bytes", v4(2), v4(1));
        assert_eq!(describe(&ask, None), expected);
        let tag = Some(VlanTag { tpid: 0x8100, tci: 0xe00a });
        let told = describe(&plain(b, a), tag);
        assert_eq!(told, format!("{a} > {b}, VLAN 10, EtherType 0x88b5, 18 bytes"));
        let query = datagram(1, v4(9).into(), 53, &dns_query(7, "web.net0"));
        let told = describe(&query, None);
        assert!(told.contains(", DNS query for web.net0., "), "{told}");
        assert_eq!(describe(&[0; 5], None), "5 bytes that are no Ethernet frame");
    }

    proptest! {
        #[test]
        fn any_bytes_are_described_in_one_line(
            bytes in prop::collection::vec(any::<u8>(), 0..120),
            start in prop::sample::select(vec![
                vec![], vec![8, 0, 0x45], vec![8, 6], vec![0x86, 0xdd, 0x60],
            ]),
        ) {
            let frame = [&[2; 12][..], &start, &bytes].concat();
            for len in 0..frame.len() {
                let told = describe(&frame[..len], None);
                prop_assert!(!told.contains('\n') && told.len() < 2000);
            }
        }
    }
}
