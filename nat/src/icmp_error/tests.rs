use proptest::prelude::*;

use crate::checksum;
use crate::testbed::{Bed, ZONE, address, echo, packet, socket, udp, udp_bytes};

use super::*;

const ROUTER: &str = "192.0.2.1";
const ROUTER_V6: &str = "2001:db8::1";

fn small(v4: bool) -> Vec<u8> {
    if v4 {
        udp(socket("10.0.0.2:1000"), socket("198.51.100.9:53"), b"question")
    } else {
        udp(socket("[fd00::2]:1000"), socket("[2001:db8::9]:53"), b"question")
    }
}

fn from(v4: bool) -> IpAddr {
    address(if v4 { ROUTER } else { ROUTER_V6 })
}

fn about(bytes: &[u8], reason: Reason) -> Option<Error> {
    let ip = Ip::of(bytes, 0).unwrap();
    Error::about(&ip, bytes, from(ip.src.is_ipv4()), reason)
}

#[test]
fn each_reason_has_its_type_and_code_in_both_families() {
    let rows = [
        (Reason::Net, [3, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]),
        (Reason::Host, [3, 1, 0, 0, 0, 0, 0, 0], [1, 3, 0, 0, 0, 0, 0, 0]),
        (Reason::Protocol, [3, 2, 0, 0, 0, 0, 0, 0], [4, 1, 0, 0, 0, 0, 0, 6]),
        (Reason::Port, [3, 3, 0, 0, 0, 0, 0, 0], [1, 4, 0, 0, 0, 0, 0, 0]),
        (Reason::Prohibited, [3, 13, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]),
        (Reason::HopLimit, [11, 0, 0, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0]),
        (Reason::Reassembly, [11, 1, 0, 0, 0, 0, 0, 0], [3, 1, 0, 0, 0, 0, 0, 0]),
        (Reason::TooBig(1400), [3, 4, 0, 0, 0, 0, 5, 120], [2, 0, 0, 0, 0, 0, 5, 120]),
        (Reason::TooBig(0x1_0000), [3, 4, 0, 0, 0, 0, 255, 255], [2, 0, 0, 0, 0, 1, 0, 0]),
    ];
    for (reason, v4, v6) in rows {
        assert_eq!((reason.header(true), reason.header(false)), (v4, v6), "{reason:?}");
    }
    let reported = Reason::Reported { kind: (3, 10), mtu: 0 };
    assert_eq!(reported.header(true), [3, 10, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn an_error_quotes_the_packet_and_goes_to_its_sender() {
    for v4 in [true, false] {
        let (mut bed, bytes) = (Bed::new(), small(v4));
        let error = about(&bytes, Reason::Port).unwrap();
        assert_eq!(error.send(ZONE, &mut bed.rooms), Made::Sent);
        let made = bed.only();
        let ip = made.ip();
        let sender = Ip::of(&bytes, 0).unwrap().src;
        assert_eq!((ip.src, ip.dst, made.to), (from(v4), sender, sender));
        assert_eq!(made.transport()[..2], if v4 { [3, 3] } else { [1, 4] });
        assert_eq!(made.transport()[8..], bytes);
        let header = Header::new(ip.src, ip.dst, ip.protocol);
        let message = made.transport();
        assert_eq!(checksum::add(header.pseudo(message.len()), checksum::sum(message)), 0xffff);
    }
}

#[test]
fn no_error_is_larger_than_its_family_allows_or_the_way_takes() {
    for (v4, mtu, max) in [(true, 1500, 576), (false, 1500, 1280), (false, 1000, 1000)] {
        let (from, to) = if v4 {
            (socket("10.0.0.2:1"), socket("198.51.100.9:2"))
        } else {
            (socket("[fd00::2]:1"), socket("[2001:db8::9]:2"))
        };
        let bytes = udp(from, to, &[0; 1400]);
        let mut bed = Bed::new();
        bed.rooms.mtu = mtu;
        about(&bytes, Reason::Host).unwrap().send(ZONE, &mut bed.rooms);
        assert_eq!(bed.only().bytes.len(), max);
    }
}

#[test]
fn what_is_known_only_in_part_is_quoted_by_a_header_written_anew() {
    let mut bed = Bed::new();
    let header = Header::new(address("10.0.0.2"), address("198.51.100.9"), protocol::UDP);
    let transport = udp_bytes(1000, 33434, b"probe");
    let parts = [&transport[..8], &transport[8..]];
    let reason = Reason::Reported { kind: (11, 0), mtu: 0 };
    Error::quoting(&header, &parts, address(ROUTER), reason).unwrap().send(ZONE, &mut bed.rooms);
    let made = bed.only();
    assert_eq!(made.transport()[..8][..2], [11, 0]);
    let quoted = Ip::of(made.transport(), 8).unwrap();
    assert_eq!((quoted.src, quoted.dst), (header.src, header.dst));
    assert_eq!(quoted.transport(made.transport()), transport);
    assert_eq!(Error::quoting(&header, &parts, address(ROUTER_V6), reason), None);
}

#[test]
fn an_error_a_later_fragment_and_a_group_are_never_answered() {
    let answered = |bytes: &[u8]| about(bytes, Reason::Net).is_some();
    assert!(answered(&small(true)) && answered(&small(false)));
    assert!(answered(&echo("10.0.0.2", "198.51.100.9", 1, 1, b"")));
    assert!(answered(&echo("fd00::2", "2001:db8::9", 1, 1, b"")));
    let icmp = |from, to, proto, kind: &[u8]| {
        packet(Header::new(address(from), address(to), proto), kind, None)
    };
    for kind in [3, 4, 5, 11, 12, 200] {
        assert!(!answered(&icmp("10.0.0.2", "198.51.100.9", 1, &[kind, 0])), "{kind}");
    }
    for kind in [1, 2, 3, 4, 100, 137] {
        assert!(!answered(&icmp("fd00::2", "2001:db8::9", 58, &[kind, 0])), "{kind}");
    }
    assert!(!answered(&icmp("10.0.0.2", "198.51.100.9", 1, &[])));
    for (from, to) in [
        ("10.0.0.2", "255.255.255.255"),
        ("10.0.0.2", "224.0.0.251"),
        ("fd00::2", "ff02::fb"),
        ("0.0.0.0", "198.51.100.9"),
        ("224.0.0.1", "198.51.100.9"),
        ("255.255.255.255", "198.51.100.9"),
        ("127.0.0.1", "198.51.100.9"),
        ("::", "2001:db8::9"),
        ("ff02::1", "2001:db8::9"),
    ] {
        assert!(!answered(&icmp(from, to, protocol::UDP, &[0; 8])), "{from} {to}");
    }
    let mut later = small(true);
    later[6..8].copy_from_slice(&[0, 1]);
    assert!(!answered(&later));
    later[6..8].copy_from_slice(&[0x20, 0]);
    assert!(answered(&later));
}

proptest! {
    #[test]
    fn any_bytes_are_answered_soundly_or_not_at_all(
        mut bytes in prop::collection::vec(any::<u8>(), 1..2000),
        v4: bool,
        mtu in 0..2000usize,
        kind: (u8, u8),
        number: u32,
    ) {
        bytes[0] = if v4 { 0x45 } else { 0x60 };
        if let Some(ip) = Ip::of(&bytes, 0) {
            let mut bed = Bed::new();
            bed.rooms.mtu = mtu;
            let reason = Reason::Reported { kind, mtu: number };
            if let Some(error) = Error::about(&ip, &bytes, from(v4), reason) {
                error.send(ZONE, &mut bed.rooms);
                let made = bed.only();
                prop_assert!(made.bytes.len() <= mtu.clamp(48, 1280));
                prop_assert_eq!(&made.transport()[8..], &bytes[..made.transport().len() - 8]);
            }
        }
    }

    #[test]
    fn any_parts_make_a_sound_quote(
        a in prop::collection::vec(any::<u8>(), 0..1500),
        b in prop::collection::vec(any::<u8>(), 0..1500),
        v4: bool,
    ) {
        let header = Header::new(from(v4), from(v4), protocol::UDP);
        let error = Error::quoting(&header, &[&a, &b], from(v4), Reason::Port).unwrap();
        let all = [a, b].concat();
        let quoted = &error.quote[header.len()..];
        prop_assert_eq!(quoted, &all[..quoted.len()]);
    }
}
