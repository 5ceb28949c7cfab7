//! Resolution of addresses that is answered on behalf of endpoints.

use super::*;

fn answering() -> Carriage {
    Carriage { answers: true, ..Carriage::default() }
}

fn ask(port: u32, target: Ipv4Addr) -> Vec<u8> {
    arp(BROADCAST, mac(port), 1, (mac(port), v4(port)), (NOTHING, target))
}

fn solicit(port: u32, src: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let (group_mac, group) = solicited_node(target);
    let option = (!src.is_unspecified()).then_some((1, mac(port)));
    icmpv6(group_mac, mac(port), src, group, 135, &neighbor(0, target, option))
}

#[test]
fn a_question_for_an_endpoint_is_answered_as_it_would_and_goes_to_nobody() {
    for guard in [false, true] {
        let mut bench = with(guard, answering(), &plainly(3));
        let reply = arp(mac(1), mac(2), 2, (mac(2), v4(2)), (mac(1), v4(1)));
        assert_eq!(bench.send(1, ask(1, v4(2))), [(1, reply)]);
        let advert = neighbor(0x60, v6(2), Some((2, mac(2))));
        let advert = icmpv6(mac(1), mac(2), v6(2), v6(1), 136, &advert);
        assert_eq!(bench.send(1, solicit(1, v6(1), v6(2))), [(1, advert)]);
        assert!((1..=3).all(|port| bench.drops(port).is_empty()));
    }
}

#[test]
fn whoever_asks_whether_an_address_is_free_is_told() {
    let mut bench = with(false, answering(), &plainly(3));
    let probe =
        |target| arp(BROADCAST, mac(1), 1, (mac(1), Ipv4Addr::UNSPECIFIED), (NOTHING, target));
    let reply = arp(mac(1), mac(2), 2, (mac(2), v4(2)), (mac(1), Ipv4Addr::UNSPECIFIED));
    assert_eq!(bench.send(1, probe(v4(2))), [(1, reply)]);
    assert_eq!(receivers(&bench.send(1, probe(v4(1)))), [2, 3], "its own address");
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let advert = neighbor(0x20, v6(2), Some((2, mac(2))));
    let advert = icmpv6(MacAddr([0x33, 0x33, 0, 0, 0, 1]), mac(2), v6(2), all, 136, &advert);
    let nobody = Ipv6Addr::UNSPECIFIED;
    assert_eq!(bench.send(1, solicit(1, nobody, v6(2))), [(1, advert)]);
    assert_eq!(receivers(&bench.send(1, solicit(1, nobody, v6(1)))), [2, 3]);
}

#[test]
fn all_else_goes_to_everybody() {
    let mut bench = with(false, answering(), &plainly(3));
    let mut flooded = |frame: Vec<u8>| assert_eq!(receivers(&bench.send(1, frame)), [2, 3]);
    flooded(ask(1, v4(77)));
    flooded(solicit(1, v6(1), v6(77)));
    flooded(arp(BROADCAST, mac(1), 1, (mac(1), v4(1)), (NOTHING, v4(1))));
    flooded(arp(BROADCAST, mac(1), 2, (mac(1), v4(1)), (BROADCAST, v4(2))));
    let told = neighbor(0x20, v6(1), Some((2, mac(1))));
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    flooded(icmpv6(MacAddr([0x33, 0x33, 0, 0, 0, 1]), mac(1), v6(1), all, 136, &told));
    let mut broken = solicit(1, v6(1), v6(2));
    broken[56] ^= 1;
    flooded(broken);
    let mut bench = with(false, Carriage::default(), &plainly(3));
    assert_eq!(receivers(&bench.send(1, ask(1, v4(2)))), [2, 3], "unless it is wanted");
}

#[test]
fn the_gateway_tells_of_its_own_addresses_and_nobody_else_is_asked() {
    for guard in [true, false] {
        let mut bench = with(guard, answering(), &plainly(3));
        for asked in [ask(1, GATEWAY_V4), solicit(1, v6(1), GATEWAY_V6)] {
            let out = bench.send(1, asked);
            assert_eq!(receivers(&out), [1]);
            assert_eq!(out[0].1[6..12], GATEWAY_MAC.0);
        }
        assert_eq!(bench.drops(1), []);
        let access = Conduct { vlans: VlanPolicy::Access(10), ..Conduct::default() };
        let mut bench = with(guard, answering(), &[access.clone(), access]);
        assert_eq!(receivers(&bench.send(1, ask(1, GATEWAY_V4))), [2], "of a VLAN it is not");
    }
}

#[test]
fn nobody_is_told_of_whom_it_cannot_reach() {
    let access = |vlan| Conduct { vlans: VlanPolicy::Access(vlan), ..Conduct::default() };
    let trunk = VlanPolicy::Trunk { allowed: vec![10, 20], native: None };
    let trunk = Conduct { vlans: trunk, ..Conduct::default() };
    let isolated = Conduct { isolated: true, ..Conduct::default() };
    let conducts = [access(10), access(10), access(20), trunk, isolated.clone(), isolated];
    let mut bench = with(false, answering(), &conducts);
    assert_eq!(receivers(&bench.send(1, ask(1, v4(2)))), [1]);
    assert_eq!(receivers(&bench.send(1, ask(1, v4(3)))), [2, 4, 5, 6], "of another VLAN");
    let tagged = {
        let frame = ask(4, v4(3));
        [&frame[..12], &[0x81, 0, 0, 20], &frame[12..]].concat()
    };
    bench.send(4, tagged);
    let reply = arp(mac(4), mac(3), 2, (mac(3), v4(3)), (mac(4), v4(4)));
    let reply = [&reply[..12], &[0x81, 0, 0, 20], &reply[12..]].concat();
    let wires: Vec<_> = bench.wires.iter().map(|(port, bytes, _)| (*port, bytes.clone())).collect();
    assert_eq!(wires, [(4, reply)], "the answer has the tag of the question");
    assert_eq!(bench.send(5, ask(5, v4(6))), [], "isolated from each other");
}

#[test]
fn no_question_that_is_cut_off_upsets_it() {
    for frame in [ask(1, v4(2)), solicit(1, v6(1), v6(2))] {
        for len in 14..frame.len() {
            let mut bench = with(false, answering(), &plainly(3));
            assert_eq!(receivers(&bench.send(1, frame[..len].to_vec())), [2, 3], "{len}");
        }
    }
}
