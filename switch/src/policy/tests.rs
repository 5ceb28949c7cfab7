//! What is reached, and what is refused by which name.

use proptest::prelude::*;

use super::*;
use crate::command::{Egress, NetworkSpec};
use crate::ids::NetworkId;
use crate::testbed::GATEWAY_MAC;

const SOURCE_V4: &str = "10.0.0.9";
const SOURCE_V6: &str = "fd00::9";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn gateway(egress: Egress) -> Gateway {
    Gateway::new(&NetworkSpec {
        id: NetworkId(0),
        zone: None,
        mac: GATEWAY_MAC,
        gateways: vec!["10.0.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()],
        mtu: 1500,
        guard: true,
        egress,
        carriage: Default::default(),
        services: Default::default(),
    })
}

/// The network in question, one with the same prefixes, and another one.
fn prefixes() -> Prefixes {
    let mut prefixes = Prefixes::default();
    for nets in [["10.0.0.1/24", "fd00::1/64"], ["10.0.0.1/24", "fd00::1/64"]] {
        prefixes.add(nets.into_iter().map(|net| net.parse().unwrap()));
    }
    prefixes.add(["10.7.0.1/16", "fd07::1/64"].into_iter().map(|net| net.parse().unwrap()));
    prefixes
}

fn ask(egress: Egress, src: &str, dst: &str) -> Result<IpAddr, DropReason> {
    let (gateway, prefixes) = (gateway(egress), prefixes());
    reach(&Origin { gateway: &gateway, prefixes: &prefixes }, ip(src), ip(dst))
}

/// As [`ask`] from a source of the destination's family.
fn to(egress: Egress, dst: &str) -> Result<IpAddr, DropReason> {
    ask(egress, if ip(dst).is_ipv4() { SOURCE_V4 } else { SOURCE_V6 }, dst)
}

/// Everything opened that can be.
const OPEN: Egress = Egress {
    internal: false,
    host_access: true,
    metadata: true,
    filtering: crate::command::Filtering::EndpointIndependent,
};

#[test]
fn what_must_not_be_reached_is_refused_by_name_whatever_is_opened() {
    let table = [
        (DropReason::ForbiddenUnspecified, &["0.0.0.0", "0.0.0.1", "0.255.255.255", "::"][..]),
        (DropReason::ForbiddenLoopback, &["127.0.0.1", "127.0.0.53", "127.255.255.255", "::1"]),
        (
            DropReason::ForbiddenLinkLocal,
            &["169.254.0.1", "169.254.169.253", "169.254.169.255", "169.254.255.255", "fe80::1"],
        ),
        (DropReason::ForbiddenLinkLocal, &["fe80::ffff:ffff:ffff:ffff", "febf::1"]),
        (
            DropReason::ForbiddenMulticast,
            &["224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "ff00::", "ff02::1"],
        ),
        (DropReason::ForbiddenMulticast, &["ff0e::1", "ffff::"]),
        (
            DropReason::ForbiddenMapped,
            &["::ffff:0.0.0.0", "::ffff:127.0.0.1", "::ffff:192.0.2.1", "::ffff:255.255.255.255"],
        ),
        (DropReason::ForbiddenMapped, &["::2", "::127.0.0.1", "::192.0.2.1"]),
        (DropReason::ForbiddenUnspecified, &["64:ff9b::0.0.0.0", "2002:0:0::1"]),
        (DropReason::ForbiddenLoopback, &["64:ff9b::127.0.0.1", "2002:7f00:1::", "2002:7fff::9"]),
        (DropReason::ForbiddenLinkLocal, &["64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1"]),
        (DropReason::ForbiddenMulticast, &["64:ff9b::224.0.0.1", "2002:ffff:ffff::"]),
        (DropReason::OtherNetwork, &["10.7.0.1", "10.7.255.255", "fd07::1", "fd07::ffff"]),
        (DropReason::OtherNetwork, &["64:ff9b::10.7.0.1", "2002:a07:1::1", "64:ff9b::10.0.0.9"]),
        (DropReason::ForbiddenLoopback, &["64:ff9b:1::127.0.0.1", "64:ff9b:1:2:3::127.0.0.1"]),
        (DropReason::ForbiddenLoopback, &["::ffff:0:127.0.0.1"]),
        (DropReason::NoRoute, &["10.0.0.200", "10.0.0.255", "fd00::200"]),
    ];
    for (reason, addresses) in table {
        for dst in addresses {
            assert_eq!(to(OPEN, dst), Err(reason), "{dst}");
            assert!(to(Egress::default(), dst).is_err(), "{dst}");
        }
    }
}

#[test]
fn what_lies_just_beside_is_reached() {
    for dst in [
        "1.0.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "223.255.255.255",
        "10.0.1.0",
        "10.6.255.255",
        "10.8.0.0",
        "192.168.0.1",
        "::1:0:0",
        "::ffff:0:192.0.2.1",
        "64:ff9b:1::192.0.2.1",
        "64:ff9b:2::127.0.0.1",
        "64:ff9b::192.0.2.1",
        "2002:c000:201::1",
        "2001:db8::1",
        "fd00:0:0:1::1",
        "fec0::1",
        "fe00::1",
    ] {
        assert_eq!(to(Egress::default(), dst), Ok(ip(dst)), "{dst}");
    }
}

#[test]
fn the_metadata_addresses_are_opened_by_themselves() {
    let opened = Egress { metadata: true, ..Egress::default() };
    for dst in ["169.254.169.254", "fd00:ec2::254"] {
        assert_eq!(to(Egress::default(), dst), Err(DropReason::ForbiddenMetadata), "{dst}");
        assert_eq!(to(opened, dst), Ok(ip(dst)));
        let internal = Egress { internal: true, ..opened };
        assert_eq!(to(internal, dst), Err(DropReason::InternalNetwork));
    }
    assert_eq!(to(opened, "169.254.169.253"), Err(DropReason::ForbiddenLinkLocal));
}

#[test]
fn the_gateways_addresses_are_the_hosts_loopback_only_where_that_is_opened() {
    let link_local = GATEWAY_MAC.link_local().to_string();
    for (dst, loopback) in [("10.0.0.1", "127.0.0.1"), ("fd00::1", "::1"), (&link_local, "::1")] {
        assert_eq!(to(Egress::default(), dst), Err(DropReason::GatewayUnserved));
        assert_eq!(to(OPEN, dst), Ok(ip(loopback)));
        assert_eq!(to(Egress { internal: true, ..OPEN }, dst), Err(DropReason::InternalNetwork));
    }
}

#[test]
fn nothing_leaves_an_internal_network() {
    for dst in ["192.0.2.1", "2001:db8::1", "127.0.0.1", "10.7.0.1", "10.0.0.200"] {
        assert_eq!(to(Egress { internal: true, ..OPEN }, dst), Err(DropReason::InternalNetwork));
    }
}

#[test]
fn a_source_that_holds_on_one_link_only_reaches_nobody() {
    for (src, dst) in [("fe80::9", "2001:db8::1"), ("169.254.7.7", "192.0.2.1")] {
        assert_eq!(ask(OPEN, src, dst), Err(DropReason::ForbiddenLinkLocal));
    }
    assert_eq!(ask(OPEN, "::ffff:10.0.0.9", "2001:db8::1"), Err(DropReason::ForbiddenMapped));
}

#[test]
fn a_prefix_counts_as_long_as_a_network_has_it() {
    let mut prefixes = prefixes();
    let net = || ["10.0.0.1/24".parse().unwrap()].into_iter();
    assert!(prefixes.contain(ip("10.0.0.200")));
    prefixes.remove(net());
    assert!(prefixes.contain(ip("10.0.0.200")));
    prefixes.remove(net());
    assert!(!prefixes.contain(ip("10.0.0.200")));
    assert!(prefixes.contain(ip("10.7.0.200")));
}

proptest! {
    #[test]
    fn prefixes_contain_what_one_of_them_contains(
        nets in prop::collection::vec((0..8u32, 20..=32u8), 0..6),
        address in 0..4096u32,
    ) {
        let nets: Vec<IpNet> = nets
            .into_iter()
            .map(|(at, len)| IpNet::new(Ipv4Addr::from_bits(at << 9).into(), len).unwrap())
            .collect();
        let mut prefixes = Prefixes::default();
        prefixes.add(nets.iter().copied());
        let address = IpAddr::V4(Ipv4Addr::from_bits(address));
        prop_assert_eq!(prefixes.contain(address), nets.iter().any(|net| net.contains(&address)));
        prefixes.remove(nets.iter().copied());
        prop_assert!(prefixes.nets.is_empty() && prefixes.lengths.is_empty());
    }

    #[test]
    fn no_ipv4_address_that_is_refused_is_reached_in_disguise(bits: u32) {
        let address = Ipv4Addr::from_bits(bits);
        let [a, b, c, d] = address.octets();
        let nat64 = Ipv6Addr::from_bits(NAT64 << 32 | u128::from(bits));
        let six_to_four =
            Ipv6Addr::new(0x2002, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), 0, 0, 0, 0, 1);
        for disguise in [nat64, six_to_four] {
            prop_assert_eq!(forbidden(disguise.into()), forbidden(address.into()));
        }
        let mapped = IpAddr::V6(address.to_ipv6_mapped());
        prop_assert_eq!(forbidden(mapped), Some(DropReason::ForbiddenMapped));
    }
}
