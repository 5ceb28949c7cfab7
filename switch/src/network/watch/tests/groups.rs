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
