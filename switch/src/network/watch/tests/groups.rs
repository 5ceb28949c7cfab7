//! Who has joined which group, by IGMP and MLD.

use super::*;

const G: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

fn checksum(bytes: &mut [u8], at: usize) {
    let sum = crate::checksum::finish(crate::checksum::sum(bytes));
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// A message of IGMP, version 2.
fn igmp(port: u32, dst: Ipv4Addr, kind: u8, group: Ipv4Addr) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], &group.octets()].concat();
    checksum(&mut message, 2);
    packet(port, dst, 2, &message)
}

fn packet(port: u32, dst: Ipv4Addr, protocol: u8, message: &[u8]) -> Vec<u8> {
    let len = 20 + message.len() as u8;
    let mut header = vec![0x45, 0, 0, len, 0, 0, 0, 0, 1, protocol, 0, 0];
    header.extend([v4(port).octets(), dst.octets()].concat());
    checksum(&mut header, 10);
    let [_, b, c, d] = dst.octets();
    raw(MacAddr([1, 0, 0x5e, b & 0x7f, c, d]), mac(port), 0x0800, &[&header, message].concat())
}

fn data(port: u32) -> Vec<u8> {
    packet(port, G, 17, &[0; 12])
}

fn join(port: u32) -> Vec<u8> {
    igmp(port, G, 0x16, G)
}

fn snooping() -> Carriage {
    Carriage { snooping: true, ..Carriage::default() }
}

#[test]
fn a_group_reaches_its_members_and_routers_alone() {
    for guard in [false, true] {
        let mut bench = with(guard, snooping(), &plainly(5));
        assert_eq!(receivers(&bench.send(1, data(1))), [2, 3, 4, 5]);
        assert_eq!(receivers(&bench.send(2, join(2))), [1, 3, 4, 5], "no router is known");
        assert_eq!(receivers(&bench.send(1, data(1))), [2]);
        assert_eq!(bench.send(2, data(2)), [], "its own member gets nothing back");
        let query = igmp(5, Ipv4Addr::new(224, 0, 0, 1), 0x11, Ipv4Addr::UNSPECIFIED);
        assert_eq!(receivers(&bench.send(5, query)), [1, 2, 3, 4]);
        assert_eq!(receivers(&bench.send(3, join(3))), [5]);
        assert_eq!(receivers(&bench.send(1, data(1))), [2, 3, 5]);
        bench.apply(Command::DetachPort(PortId(2)));
        let leave = igmp(3, Ipv4Addr::new(224, 0, 0, 2), 0x17, G);
        assert_eq!(receivers(&bench.send(3, leave)), [5]);
        assert_eq!(receivers(&bench.send(1, data(1))), [3, 4, 5]);
        assert!((1..=5).filter(|p| *p != 2).all(|port| bench.drops(port).is_empty()));
    }
}

#[test]
fn without_it_a_group_is_everybodys() {
    let mut bench = with(false, Carriage::default(), &plainly(3));
    bench.send(2, join(2));
    assert_eq!(receivers(&bench.send(1, data(1))), [2, 3]);
}

#[test]
fn a_spoofed_leave_is_the_liars_own() {
    let mut bench = with(false, snooping(), &plainly(3));
    bench.send(2, join(2));
    let mut leave = igmp(2, Ipv4Addr::new(224, 0, 0, 2), 0x17, G);
    leave[6..12].copy_from_slice(&mac(2).0);
    bench.send(3, leave);
    assert_eq!(receivers(&bench.send(1, data(1))), [2]);
}

#[test]
fn each_vlan_and_who_is_isolated_are_kept_apart() {
    let access = |vlan| Conduct { vlans: VlanPolicy::Access(vlan), ..Conduct::default() };
    let mut bench = with(false, snooping(), &[access(10), access(10), access(20), access(20)]);
    bench.send(2, join(2));
    assert_eq!(receivers(&bench.send(1, data(1))), [2]);
    assert_eq!(receivers(&bench.send(3, data(3))), [4], "nobody of VLAN 20 has joined");
    let isolated = Conduct { isolated: true, ..Conduct::default() };
    let conducts = [isolated.clone(), isolated, Conduct::default()];
    let mut bench = with(false, snooping(), &conducts);
    bench.send(2, join(2));
    assert_eq!(bench.send(1, data(1)), [], "the only member may not hear it");
    assert_eq!(receivers(&bench.send(3, data(3))), [2]);
}

/// A message of MLD, with the router alert.
fn mld(port: u32, to: (MacAddr, Ipv6Addr), kind: u8, body: &[u8]) -> Vec<u8> {
    let plain = icmpv6(to.0, mac(port), mac(port).link_local(), to.1, kind, body);
    let mut frame = [&plain[..54], &[58, 0, 5, 2, 0, 0, 1, 0], &plain[54..]].concat();
    (frame[19], frame[20], frame[21]) = (frame[19] + 8, 0, 1);
    frame
}

#[test]
fn a_question_to_one_member_alone_does_not_have_it_age() {
    let group = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
    let on_link = |last: u8| {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last.into());
        (MacAddr([0x33, 0x33, 0, 0, 0, last]), group)
    };
    let join = |port| {
        let record = [&[0, 0, 0, 1, 4, 0, 0, 0][..], &group.octets()].concat();
        mld(port, on_link(0x16), 143, &record)
    };
    let ask = |to, longest: u16| {
        let body = [&longest.to_be_bytes()[..], &[0; 18], &[2, 125, 0, 0]].concat();
        mld(3, to, 130, &body)
    };
    for asks in [false, true] {
        let mut bench = with(true, snooping(), &plainly(3));
        bench.send(2, join(2));
        for _ in 0..3 {
            assert_eq!(receivers(&bench.send(3, ask(on_link(1), 10_000))), [1, 2]);
            bench.send(3, join(3));
            if asks {
                let whispered = ask((mac(2), on_link(1).1), u16::MAX);
                assert_eq!(receivers(&bench.send(3, whispered)), [2]);
            }
            bench.now = bench.now + Duration::from_secs(100);
        }
        let to_group = MacAddr([0x33, 0x33, 0, 1, 0, 3]);
        let mut data = Vec::new();
        let builder = crate::testbed::packet(to_group, mac(1), v6(1).into(), group.into());
        builder.udp(1, 2).write(&mut data, &[]).unwrap();
        let expected: &[u32] = if asks { &[2, 3] } else { &[3] };
        assert_eq!(receivers(&bench.send(1, data)), expected);
    }
}
