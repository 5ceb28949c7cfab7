//! Limits on what is sent to many.

use super::*;

fn limited(broadcast: u32, multicast: u32, unknown: u32) -> Carriage {
    let storm = StormLimits {
        broadcast: Some(broadcast),
        multicast: Some(multicast),
        unknown: Some(unknown),
    };
    Carriage { storm, ..Carriage::default() }
}

/// How many of so many frames reached port 2.
fn passed(bench: &mut Bench, port: u32, frame: &[u8], count: usize) -> usize {
    let passed = |_: &usize| receivers(&bench.send(port, frame.to_vec())).contains(&2);
    (0..count).filter(passed).count()
}

#[test]
fn each_kind_is_limited_by_its_own_figure_and_on_its_own_port() {
    for guard in [false, true] {
        let mut bench = with(guard, limited(5, 6, 7), &plainly(3));
        assert_eq!(passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 20), 5);
        assert_eq!(passed(&mut bench, 1, &plain(MacAddr([3; 6]), mac(1)), 20), 6);
        let unknown = passed(&mut bench, 1, &plain(NOBODY, mac(1)), 20);
        let (passes, reason) = match guard {
            false => (7, (DropReason::StormUnknown, 13)),
            true => (0, (DropReason::UnknownUnicast, 20)),
        };
        assert_eq!(unknown, passes);
        let drops = [(DropReason::StormBroadcast, 15), (DropReason::StormMulticast, 14), reason];
        assert_eq!(bench.drops(1), drops);
        assert_eq!(passed(&mut bench, 3, &plain(BROADCAST, mac(3)), 20), 5, "has its own");
        bench.now = bench.now + Duration::from_secs(1);
        assert_eq!(passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 20), 5);
    }
}

#[test]
fn a_storm_is_told_of_once_and_known_stations_are_no_storm() {
    let mut bench = with(false, limited(5, 5, 5), &plainly(2));
    events(&mut bench);
    bench.send(2, plain(mac(1), mac(2)));
    assert_eq!(passed(&mut bench, 1, &plain(mac(2), mac(1)), 100), 100);
    assert_eq!(events(&mut bench), []);
    passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 100);
    passed(&mut bench, 1, &plain(NOBODY, mac(1)), 100);
    let told = [DropReason::StormBroadcast, DropReason::StormUnknown];
    let told = told.map(|reason| Event::Storm { network: NetworkId(0), port: PortId(1), reason });
    assert_eq!(events(&mut bench), told);
    bench.now = bench.now + Duration::from_secs(60);
    passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 100);
    assert_eq!(events(&mut bench), told[..1]);
}

#[test]
fn a_port_may_have_limits_of_its_own() {
    let own = StormLimits { broadcast: Some(50), ..StormLimits::default() };
    let conducts = [Conduct { storm: Some(own), ..Conduct::default() }, Conduct::default()];
    let mut bench = with(false, limited(5, 5, 5), &conducts);
    assert_eq!(passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 100), 50);
    assert_eq!(passed(&mut bench, 1, &plain(MacAddr([3; 6]), mac(1)), 100), 100);
}

#[test]
fn a_superframe_counts_as_its_segments() {
    let mut bench = with(false, limited(10, 10, 10), &plainly(2));
    let mut frame = Vec::new();
    let packet = crate::testbed::packet(BROADCAST, mac(1), v4(1).into(), v4(200).into());
    packet.udp(1, 2).write(&mut frame, &[0; 25 * 100]).unwrap();
    let gso = Gso { kind: GsoKind::UdpL4, size: 100, hdr_len: 42, ecn: false };
    let csum = Checksum::Partial { start: 34, offset: 6 };
    let sent = Sent { bytes: frame, offload: Offload { csum, gso: Some(gso) }, vlan: None };
    assert_eq!(receivers(&bench.send(1, sent.clone())), [2]);
    assert_eq!(bench.send(1, sent), []);
    assert_eq!(bench.drops(1), [(DropReason::StormBroadcast, 25)]);
    bench.now = bench.now + Duration::from_millis(1_600);
    assert_eq!(passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 9), 1, "what was owed is paid");
}

#[test]
fn who_storms_loses_its_own_questions_and_nobody_elses() {
    let mut bench = with(true, limited(5, 5, 5), &plainly(2));
    let ask = |port| {
        let target = (NOTHING, GATEWAY_V4);
        arp(BROADCAST, mac(port), 1, (mac(port), v4(port)), target)
    };
    let answers: usize =
        (0..50).map(|_| receivers(&bench.send(1, ask(1)))).filter(|to| to.contains(&1)).count();
    assert_eq!(answers, 5);
    assert_eq!(receivers(&bench.send(2, ask(2))), [1, 2]);
}

#[test]
fn a_hub_knows_no_stations_to_be_unknown() {
    let carriage = Carriage { mode: Mode::Hub, ..limited(5, 5, 5) };
    let mut bench = with(false, carriage, &plainly(2));
    assert_eq!(passed(&mut bench, 1, &plain(NOBODY, mac(1)), 100), 100);
    assert_eq!(passed(&mut bench, 1, &plain(BROADCAST, mac(1)), 100), 5);
}
