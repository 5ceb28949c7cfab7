use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscPrefixInfoFlags, NdiscRepr,
    NdiscRouterFlags,
};

use super::*;
use crate::command::{Command, Egress, ServiceSpec};
use crate::testbed::{Bench, GATEWAY_MAC, GATEWAY_V6, icmpv6, mac, neighbor, receivers, v6};

const ALL_ROUTERS_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 2]);

fn advert() -> Advert {
    Advert {
        prefixes: vec!["fd00::/64".parse().unwrap()],
        autonomous: true,
        managed: true,
        other: true,
        leads_out: true,
        mtu: 1500,
        dns: vec![GATEWAY_V6],
        search: vec!["lan".into()],
        routes: vec![],
    }
}

fn bench(guard: bool, ports: u32) -> Bench {
    let mut bench = Bench::bare();
    let services = ServiceSpec { advert: Some(advert()), ..ServiceSpec::default() };
    bench.network_serving(0, guard, Egress::default(), services);
    (1..=ports).for_each(|port| bench.port(port, 0));
    bench
}

fn solicit_from(port: u32, src: Ipv6Addr) -> Vec<u8> {
    icmpv6(ALL_ROUTERS_MAC, mac(port), src, ALL_ROUTERS, 133, &[0; 4])
}

fn solicit(port: u32) -> Vec<u8> {
    solicit_from(port, mac(port).link_local())
}

/// Holds a frame to be the advertisement, checksum and all, and says whom it is sent to.
#[track_caller]
fn receiver_of(frame: &[u8]) -> (MacAddr, Ipv6Addr) {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(ethernet.src_addr().0, GATEWAY_MAC.0);
    let packet = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
    assert_eq!(packet.src_addr(), GATEWAY_MAC.link_local());
    assert_eq!(packet.hop_limit(), 255);
    let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
    let (src, dst) = (packet.src_addr(), packet.dst_addr());
    let parsed = Icmpv6Repr::parse(&src, &dst, &message, &ChecksumCapabilities::default());
    let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        flags,
        router_lifetime,
        lladdr,
        mtu,
        prefix_info,
        ..
    }) = parsed.unwrap()
    else {
        panic!("{message:?}");
    };
    assert_eq!(flags, NdiscRouterFlags::MANAGED | NdiscRouterFlags::OTHER);
    assert_eq!(router_lifetime.secs(), 9000);
    assert_eq!(lladdr.unwrap().as_bytes(), GATEWAY_MAC.0);
    assert_eq!(mtu, Some(1500));
    let prefix = prefix_info.unwrap();
    assert_eq!((prefix.prefix, prefix.prefix_len), ("fd00::".parse().unwrap(), 64));
    assert_eq!(prefix.flags, NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF);
    (MacAddr(ethernet.dst_addr().0), dst)
}

#[test]
fn a_solicitation_is_answered_to_whoever_asked() {
    for guard in [true, false] {
        let mut bench = bench(guard, 3);
        let out = bench.send(1, solicit(1));
        assert_eq!(receivers(&out), [2, 3, 1], "the question floods, the answer does not");
        assert_eq!(receiver_of(&out[2].1), (mac(1), mac(1).link_local()));
        assert_eq!(bench.drops(1), []);
    }
}

#[test]
fn a_solicitation_to_the_gateway_alone_is_answered() {
    let mut bench = bench(true, 2);
    for dst in [GATEWAY_V6, GATEWAY_MAC.link_local(), ALL_ROUTERS] {
        let ask = icmpv6(GATEWAY_MAC, mac(1), v6(1), dst, 133, &[0; 4]);
        let out = bench.send(1, ask);
        assert_eq!(receivers(&out), [1]);
        assert_eq!(receiver_of(&out[0].1), (mac(1), v6(1)));
    }
}

#[test]
fn who_has_no_address_yet_is_answered_as_all_nodes_are() {
    let mut bench = bench(true, 2);
    let out = bench.send(1, solicit_from(1, Ipv6Addr::UNSPECIFIED));
    assert_eq!(receivers(&out), [2, 1]);
    assert_eq!(receiver_of(&out[1].1), (ALL_NODES_MAC, ALL_NODES));
}

#[test]
fn a_network_without_advertisements_is_as_silent_as_before() {
    let mut bench = Bench::new(true, 2);
    assert_eq!(receivers(&bench.send(1, solicit(1))), [2]);
    assert_eq!(bench.drops(1), []);
    let ask = icmpv6(GATEWAY_MAC, mac(1), v6(1), GATEWAY_V6, 133, &[0; 4]);
    bench.refuses(1, ask, DropReason::GatewayUnserved);
    assert_eq!(bench.datapath.poll_timeout(), None);
}

#[test]
fn what_is_no_sound_solicitation_is_not_answered() {
    let mut bench = bench(false, 2);
    let whole = icmpv6(
        ALL_ROUTERS_MAC,
        mac(1),
        v6(1),
        ALL_ROUTERS,
        133,
        &[&[0; 4][..], &[1, 1], &mac(1).0].concat(),
    );
    let mut forwarded = whole.clone();
    forwarded[21] = 254;
    let mut unsummed = whole.clone();
    unsummed[57] ^= 1;
    for (frame, reason) in [(forwarded, DropReason::Malformed), (unsummed, DropReason::BadChecksum)]
    {
        let before = bench.counters(1).drops.get(reason);
        assert_eq!(receivers(&bench.send(1, frame)), [2], "{reason:?}");
        assert_eq!(bench.counters(1).drops.get(reason), before + 1);
    }
    // Cut off anywhere, its lengths right: 8 bytes are one without options, everything else is none.
    for len in 0..whole.len() - 54 {
        let mut cut = whole[..54 + len].to_vec();
        cut[19] = u8::try_from(len).unwrap();
        let out = bench.send(1, cut);
        assert_eq!(receivers(&out), [2], "{len}");
    }
    assert_eq!(receivers(&bench.send(1, whole)), [2, 1]);
    assert!(bench.datapath.poll_timeout().is_some());
}

/// What a guest would say that calls itself a router, with options of every kind, cut off at each byte: the length in its
/// header as it was, and as it then is.
fn false_advertisements() -> Vec<Vec<u8>> {
    let told = Advert { routes: vec!["fd00:1::/48".parse().unwrap()], ..advert() };
    let message = ra::advertisement(&told, mac(1).0);
    assert_eq!(message[0], 134);
    let whole = icmpv6(ALL_NODES_MAC, mac(1), mac(1).link_local(), ALL_NODES, 134, &message[4..]);
    let mut cuts: Vec<Vec<u8>> = (14..=whole.len()).map(|len| whole[..len].to_vec()).collect();
    for len in 0..whole.len() - 54 {
        let mut cut = whole[..54 + len].to_vec();
        cut[18..20].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        cuts.push(cut);
    }
    cuts
}

#[test]
fn nobody_hears_of_a_false_router_where_the_guard_is_on_whatever_is_left_of_its_advertisement() {
    let mut bench = bench(true, 2);
    let all = false_advertisements();
    for cut in all.iter().chain(all.iter().rev()) {
        assert_eq!(bench.send(1, cut.clone()), [], "{} bytes", cut.len());
    }
    let reasons: Vec<_> = bench.drops(1);
    let [(DropReason::Malformed, broken), (DropReason::GuardNd, told)] = reasons[..] else {
        panic!("{reasons:?}")
    };
    assert_eq!(usize::try_from(broken + told).unwrap(), 2 * all.len());
    assert_eq!(receivers(&bench.send(1, solicit(1))), [2, 1]);
}

#[test]
fn what_is_left_of_a_guests_advertisement_changes_nothing_of_ours() {
    let mut bench = bench(false, 2);
    let all = false_advertisements();
    for cut in all.iter().chain(all.iter().rev()) {
        assert!(bench.send(1, cut.clone()).iter().all(|(port, frame)| (port, frame) == (&2, cut)));
    }
    let out = bench.send(2, solicit(2));
    assert_eq!(receivers(&out), [1, 2]);
    assert_eq!(receiver_of(&out[1].1), (mac(2), mac(2).link_local()));
}

#[test]
fn a_port_that_asks_without_end_is_answered_at_a_limited_rate() {
    let mut bench = bench(true, 2);
    let answers = |bench: &mut Bench, port| {
        let asked = (0..30).map(|_| bench.send(port, solicit(port)));
        asked.filter(|out| out.len() == 2).count()
    };
    assert_eq!(answers(&mut bench, 1), 10);
    assert_eq!(bench.drops(1), [(DropReason::GatewayLimit, 20)]);
    assert_eq!(answers(&mut bench, 2), 10, "another port has a limit of its own");
    bench.pass(Duration::from_secs(2));
    assert_eq!(answers(&mut bench, 1), 2);
}

#[test]
fn everybody_is_told_seldom_and_only_while_somebody_listens() {
    let mut bench = bench(true, 3);
    assert_eq!(bench.datapath.poll_timeout(), None, "nobody has asked");
    bench.send(1, solicit(1));
    let told = bench.now + ra::INTERVAL;
    assert_eq!(bench.datapath.poll_timeout(), Some(told));
    bench.send(2, solicit(2));
    assert_eq!(bench.datapath.poll_timeout(), Some(told), "one timer for all");
    for round in 1..=3 {
        let out = bench.pass(ra::INTERVAL);
        assert_eq!(receivers(&out), [1, 2, 3], "{round}");
        assert_eq!(receiver_of(&out[0].1), (ALL_NODES_MAC, ALL_NODES));
    }
    for port in [1, 2] {
        bench.apply(Command::DetachPort(PortId(port)));
    }
    assert_eq!(receivers(&bench.pass(ra::INTERVAL)), [], "who listened is gone");
    assert_eq!(bench.datapath.poll_timeout(), None);
}

#[test]
fn who_looks_for_its_router_listens_though_it_has_not_asked() {
    let mut bench = bench(true, 2);
    let look_for =
        |target| icmpv6(GATEWAY_MAC, mac(1), v6(1), target, 135, &neighbor(0, target, None));
    bench.send(1, look_for(GATEWAY_V6));
    assert_eq!(bench.datapath.poll_timeout(), None, "that address it knows by itself");
    bench.send(1, look_for(GATEWAY_MAC.link_local()));
    let out = bench.pass(SOON);
    assert_eq!(receivers(&out), [1, 2]);
    assert_eq!(receiver_of(&out[0].1), (ALL_NODES_MAC, ALL_NODES));
    assert_eq!(bench.datapath.poll_timeout(), Some(bench.now + ra::INTERVAL));
}

#[test]
fn an_advertisement_that_finds_no_room_comes_soon_after() {
    let mut bench = bench(true, 1);
    bench.send(1, solicit(1));
    bench.arena = 100;
    assert_eq!(receivers(&bench.pass(ra::INTERVAL)), []);
    bench.arena = 1 << 16;
    assert_eq!(receivers(&bench.pass(SOON)), [1]);
}
