//! The frames that endpoints of the bench send, byte for byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep};

use super::{GATEWAY_MAC, mac, v4, v6};
use crate::ids::MacAddr;

/// A frame without meaning.
pub fn plain(dst: MacAddr, src: MacAddr) -> Vec<u8> {
    raw(dst, src, 0x88b5, &[1, 2, 3, 4])
}

/// A frame of any kind.
pub fn raw(dst: MacAddr, src: MacAddr, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.0[..], &src.0, &kind.to_be_bytes(), payload].concat()
}

/// The start of a packet to be; ends with `.udp(..)` and the like.
pub fn packet(
    dst_mac: MacAddr,
    src_mac: MacAddr,
    src: IpAddr,
    dst: IpAddr,
) -> PacketBuilderStep<IpHeaders> {
    let builder = PacketBuilder::ethernet2(src_mac.0, dst_mac.0);
    builder.ip(match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = Ipv4Header {
                source: src.octets(),
                destination: dst.octets(),
                time_to_live: 255,
                ..Ipv4Header::default()
            };
            IpHeaders::Ipv4(header, Default::default())
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = Ipv6Header {
                source: src.octets(),
                destination: dst.octets(),
                hop_limit: 255,
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        }
        _ => panic!("two families in one packet"),
    })
}

/// A UDP datagram from the endpoint at `port` to the gateway's hardware address.
pub fn datagram(port: u32, dst: IpAddr, to: u16, payload: &[u8]) -> Vec<u8> {
    let src = if dst.is_ipv4() { v4(port).into() } else { v6(port).into() };
    let mut frame = Vec::new();
    packet(GATEWAY_MAC, mac(port), src, dst).udp(4000, to).write(&mut frame, payload).unwrap();
    frame
}

/// An ARP message over Ethernet for IPv4.
pub fn arp(
    dst: MacAddr,
    src: MacAddr,
    operation: u16,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let body = [
        &[0, 1, 8, 0, 6, 4][..],
        &operation.to_be_bytes(),
        &sender.0.0,
        &sender.1.octets(),
        &target.0.0,
        &target.1.octets(),
    ];
    raw(dst, src, 0x0806, &body.concat())
}

/// An ICMPv6 message: type and all behind the checksum.
pub fn icmpv6(
    dst_mac: MacAddr,
    src_mac: MacAddr,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    kind: u8,
    body: &[u8],
) -> Vec<u8> {
    let (head, payload) = body.split_first_chunk::<4>().unwrap();
    let mut frame = Vec::new();
    packet(dst_mac, src_mac, src.into(), dst.into())
        .icmpv6_raw(kind, 0, *head)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// The body of a neighbor solicitation or advertisement, with a link-layer address option of kind `option`.
pub fn neighbor(flags: u8, target: Ipv6Addr, option: Option<(u8, MacAddr)>) -> Vec<u8> {
    let option = option.map(|(kind, mac)| [&[kind, 1][..], &mac.0].concat()).unwrap_or_default();
    [&[flags, 0, 0, 0][..], &target.octets(), &option].concat()
}

/// The group that hears solicitations for an address, and its hardware address.
pub fn solicited_node(address: Ipv6Addr) -> (MacAddr, Ipv6Addr) {
    let [.., a, b, c] = address.octets();
    let group = Ipv6Addr::from_bits(
        u128::from(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0))
            | u128::from(u32::from_be_bytes([0, a, b, c])),
    );
    (MacAddr([0x33, 0x33, 0xff, a, b, c]), group)
}

/// A DNS query for the IPv4 address of `name`.
pub fn dns_query(id: u16, name: &str) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}
