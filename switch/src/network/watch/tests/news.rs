//! Addresses that change their hardware: everybody who could know the former one is told the new.

use super::*;

fn attach(bench: &mut Bench, port: u32, hardware: u32, address: u32, conduct: Conduct) {
    bench.apply(Command::AttachPort(PortSpec {
        id: PortId(port),
        network: NetworkId(0),
        node: NodeId(port),
        mac: mac(hardware),
        addresses: vec![v4(address).into(), v6(address).into()],
        conduct,
    }));
}

#[test]
fn an_address_that_is_used_again_is_announced_once() {
    for guard in [false, true] {
        let mut bench = with(guard, Carriage::default(), &plainly(3));
        assert_eq!(bench.datapath.poll_timeout(), None, "new addresses are nobody's news");
        bench.apply(Command::DetachPort(PortId(3)));
        attach(&mut bench, 4, 9, 3, Conduct::default());
        assert_eq!(bench.datapath.poll_timeout(), Some(Time::ZERO));
        let announced = arp(BROADCAST, mac(9), 1, (mac(9), v4(3)), (NOTHING, v4(3)));
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let told = neighbor(0x20, v6(3), Some((2, mac(9))));
        let told = icmpv6(MacAddr([0x33, 0x33, 0, 0, 0, 1]), mac(9), v6(3), all, 136, &told);
        let out = bench.pass(Duration::ZERO);
        let expected = [(1, announced.clone()), (2, announced), (1, told.clone()), (2, told)];
        assert_eq!(out, expected);
        assert_eq!(bench.datapath.poll_timeout(), None);
        bench.apply(Command::DetachPort(PortId(4)));
        attach(&mut bench, 5, 9, 3, Conduct::default());
        assert_eq!(bench.datapath.poll_timeout(), None, "the same hardware address");
    }
}

#[test]
fn an_address_that_two_have_leads_to_the_last_and_back() {
    let mut bench = with(false, Carriage::default(), &plainly(2));
    attach(&mut bench, 3, 3, 1, Conduct::default());
    let out = bench.pass(Duration::ZERO);
    assert_eq!((receivers(&out), &out[0].1[6..12]), (vec![1, 2, 1, 2], &mac(3).0[..]));
    bench.apply(Command::DetachPort(PortId(3)));
    let out = bench.pass(Duration::ZERO);
    assert_eq!((receivers(&out), &out[0].1[6..12]), (vec![2, 2], &mac(1).0[..]));
}

#[test]
fn news_stay_in_their_vlan_and_off_wires() {
    let access = |vlan| Conduct { vlans: VlanPolicy::Access(vlan), ..Conduct::default() };
    let conducts = [access(10), access(20), access(10), access(20)];
    let mut bench = with(false, Carriage::default(), &conducts);
    bench.apply(Command::DetachPort(PortId(3)));
    attach(&mut bench, 5, 9, 3, access(20));
    assert_eq!(bench.datapath.poll_timeout(), None, "another place of the same name");
    attach(&mut bench, 6, 9, 3, access(10));
    assert_eq!(receivers(&bench.pass(Duration::ZERO)), [1, 1]);
    let wire = Carriage { mode: Mode::Wire, ..Carriage::default() };
    let mut bench = with(false, wire, &plainly(2));
    bench.apply(Command::DetachPort(PortId(2)));
    attach(&mut bench, 5, 9, 2, Conduct::default());
    assert_eq!(bench.datapath.poll_timeout(), None);
}

#[test]
fn much_news_takes_several_turns_and_none_is_lost() {
    let mut bench = with(false, Carriage::default(), &plainly(50));
    (2..=50).for_each(|port| bench.apply(Command::DetachPort(PortId(port))));
    (2..=50).for_each(|port| attach(&mut bench, 50 + port, 50 + port, port, Conduct::default()));
    bench.arena = 2000;
    let mut count = 0;
    while bench.datapath.poll_timeout().is_some() {
        count += receivers(&bench.pass(Duration::ZERO)).iter().filter(|to| **to == 1).count();
    }
    assert_eq!(count, 98);
}
