//! That an explanation is what would happen, and that nothing comes of asking.

use proptest::prelude::*;

use super::*;
use crate::command::{Command, Conduct, Egress, HostSpec, VlanPolicy};
use crate::ids::{MacAddr, NetworkId, NodeId, PortId};
use crate::testbed::{
    Bench, GATEWAY_MAC, GATEWAY_V4, arp, datagram, dns_query, mac, packet, plain, v4, v6,
};

/// Asks, and holds everything there is to what it was before.
#[track_caller]
fn ask(bench: &mut Bench, port: u32, frame: &[u8]) -> Explanation {
    let before = format!("{:?}", bench.datapath);
    let question = Question { port: PortId(port), frame: frame.to_vec() };
    let answer = bench.datapath.explain(&question, bench.now);
    assert_eq!(format!("{:?}", bench.datapath), before, "nothing comes of asking");
    match answer {
        Answer::Explained(explanation) => *explanation,
        other => panic!("{other:?}"),
    }
}

fn stages(explanation: &Explanation) -> Vec<&'static str> {
    explanation.steps.iter().map(|step| step.stage.name()).collect()
}

/// A step as people read it.
fn said(explanation: &Explanation, stage: Stage) -> String {
    let steps = explanation.steps.iter().filter(|step| step.stage == stage);
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Port(port) => format!("port {}", port.0),
    };
    steps.map(|step| step.detail.iter().map(piece).collect::<String>()).collect()
}

fn receivers(explanation: &Explanation) -> Vec<(u32, bool)> {
    explanation.receivers.iter().map(|to| (to.port.0, to.made)).collect()
}

#[test]
fn a_frame_to_a_station_is_followed_through_each_stage() {
    let mut bench = Bench::new(false, 3);
    bench.send(2, plain(MacAddr::BROADCAST, mac(2)));
    let frame = plain(mac(2), mac(1));
    let told = ask(&mut bench, 1, &frame);
    assert_eq!(stages(&told), ["admit", "guard", "learn", "lookup"]);
    assert_eq!(said(&told, Stage::LookUp), format!("{} lives behind port 2", mac(2)));
    assert_eq!(receivers(&told), [(2, false)]);
    assert_eq!((told.dropped, told.taken, &told.frames[0].bytes), (None, false, &frame));
    let told = ask(&mut bench, 3, &plain(mac(1), mac(2)));
    let moved = format!("{} lives behind port 3; until now it lived behind port 2", mac(2));
    assert_eq!(said(&told, Stage::Learn), moved);
    assert_eq!(receivers(&told), [(1, false), (2, false)]);
}

#[test]
fn a_frame_that_is_dropped_ends_in_the_stage_that_drops_it() {
    let mut bench = Bench::new(true, 2);
    for (frame, stage, reason) in [
        (vec![1; 13], "read", DropReason::Runt),
        (plain(mac(2), MacAddr::BROADCAST), "admit", DropReason::BadSource),
        (plain(mac(2), mac(9)), "guard", DropReason::GuardMac),
        (plain(mac(9), mac(1)), "lookup", DropReason::UnknownUnicast),
        (plain(GATEWAY_MAC, mac(1)), "gateway", DropReason::GatewayUnserved),
    ] {
        let told = ask(&mut bench, 1, &frame);
        assert_eq!(told.dropped, Some(reason));
        assert_eq!(stages(&told).last(), Some(&stage), "{reason:?}");
        assert_eq!(told.receivers, []);
    }
    assert_eq!(bench.drops(1), [], "none of it is counted");
}

#[test]
fn tags_are_told_as_each_port_would_see_them() {
    let mut bench = Bench::bare();
    bench.network(0, false);
    for (id, vlans) in (1..).zip([
        VlanPolicy::Access(10),
        VlanPolicy::Trunk { allowed: vec![10], native: None },
        VlanPolicy::Access(20),
    ]) {
        bench.port_that(id, Conduct { vlans, ..Conduct::default() });
    }
    let frame = plain(MacAddr::BROADCAST, mac(1));
    let told = ask(&mut bench, 1, &frame);
    assert_eq!(said(&told, Stage::Vlan), "of VLAN 10");
    assert_eq!(receivers(&told), [(2, false)]);
    assert_eq!(told.frames[0].bytes[12..16], [0x81, 0, 0, 10]);
    let told = ask(&mut bench, 2, &frame);
    assert_eq!(
        (told.dropped, stages(&told).last()),
        (Some(DropReason::VlanNotAllowed), Some(&"vlan"))
    );
}

/// Whom a frame would not be sent to.
fn left_out(explanation: &Explanation) -> Vec<(u32, Option<DropReason>)> {
    explanation.left_out.iter().map(|out| (out.port.0, out.reason)).collect()
}

#[test]
fn whom_a_frame_to_everybody_does_not_reach_is_told_with_the_reason() {
    let isolated = Conduct { isolated: true, ..Conduct::default() };
    let apart = Conduct { vlans: VlanPolicy::Access(20), ..Conduct::default() };
    let mut bench = Bench::bare();
    bench.network(0, false);
    for (id, conduct) in (1..).zip([isolated.clone(), isolated, apart, Conduct::default()]) {
        bench.port_that(id, conduct);
    }
    let told = ask(&mut bench, 1, &plain(MacAddr::BROADCAST, mac(1)));
    assert_eq!(receivers(&told), [(4, false)]);
    let (isolated, vlan) = (DropReason::Isolated, DropReason::VlanNotAllowed);
    assert_eq!(left_out(&told), [(2, Some(isolated)), (3, Some(vlan))]);
    let told = ask(&mut bench, 4, &plain(MacAddr::BROADCAST, mac(4)));
    assert_eq!((receivers(&told).len(), left_out(&told)), (2, vec![(3, Some(vlan))]));
}

#[test]
fn who_it_was_for_is_told_of_a_frame_that_may_not_go_there() {
    let mut bench = Bench::bare();
    bench.network(0, true);
    let isolated = Conduct { isolated: true, ..Conduct::default() };
    bench.port_that(1, isolated.clone());
    bench.port_that(2, isolated);
    let told = ask(&mut bench, 1, &plain(mac(2), mac(1)));
    assert_eq!(told.dropped, Some(DropReason::Isolated));
    let said = said(&told, Stage::LookUp);
    assert!(said.ends_with(&format!("{} lives behind port 2.", mac(2))), "{said}");
}

#[test]
fn what_is_meant_for_the_gateway_of_a_vlan_is_told_to_be_unheard() {
    let mut bench = Bench::bare();
    bench.network(0, false);
    for id in [1, 2] {
        let vlans = VlanPolicy::Access(10);
        bench.port_that(id, Conduct { vlans, ..Conduct::default() });
    }
    let why = "the gateway is of no VLAN, and this is of VLAN 10";
    let told = ask(&mut bench, 1, &plain(GATEWAY_MAC, mac(1)));
    assert_eq!(told.dropped, Some(DropReason::VlanNotAllowed));
    assert!(said(&told, Stage::LookUp).ends_with(&format!(" {why}.")));
    let question =
        arp(MacAddr::BROADCAST, mac(1), 1, (mac(1), v4(1)), (MacAddr([0; 6]), GATEWAY_V4));
    let told = ask(&mut bench, 1, &question);
    assert_eq!(receivers(&told), [(2, false)]);
    assert_eq!(said(&told, Stage::Gateway), format!("hears nothing of it: {why}"));
    let other = ask(&mut bench, 1, &plain(MacAddr::BROADCAST, mac(1)));
    assert_eq!(said(&other, Stage::Gateway), "", "nothing of what is none of its business");
}

#[test]
fn what_the_gateway_would_answer_is_shown() {
    let mut bench = Bench::new(true, 2);
    bench.apply(Command::SetHost(HostSpec {
        network: NetworkId(0),
        node: NodeId(2),
        names: vec!["web".into()],
        addresses: vec![v4(2).into()],
    }));
    bench.apply(Command::SetView { node: NodeId(1), networks: vec![NetworkId(0)] });
    let question =
        arp(MacAddr::BROADCAST, mac(1), 1, (mac(1), v4(1)), (MacAddr([0; 6]), GATEWAY_V4));
    let told = ask(&mut bench, 1, &question);
    assert_eq!(receivers(&told), [(2, false), (1, true)]);
    let answer = &told.frames[told.receivers[1].frame].summary;
    assert!(answer.contains(&format!("ARP {GATEWAY_V4} is at {GATEWAY_MAC}")), "{answer}");
    let told = ask(&mut bench, 1, &datagram(1, GATEWAY_V4.into(), 53, &dns_query(7, "web.net0")));
    assert_eq!((receivers(&told), told.taken), (vec![(1, true)], true));
    let answer = &told.frames[told.receivers[0].frame].summary;
    assert!(answer.contains("DNS reply for web.net0.: answered, 1 records"), "{answer}");
}

#[test]
fn a_packet_that_leaves_is_judged_and_touches_no_socket() {
    let outside = std::net::IpAddr::from([192, 0, 2, 7]);
    let mut bench = Bench::leading_out(true, 2, Egress { host_access: true, ..Egress::default() });
    let out = datagram(1, outside, 9, b"x");
    let told = ask(&mut bench, 1, &out);
    assert_eq!(stages(&told), ["admit", "guard", "learn", "lookup", "gateway", "route", "out"]);
    assert_eq!(said(&told, Stage::Out), "by a UDP socket of the host, a new flow");
    assert!(told.taken && bench.outside.open.is_empty());
    bench.send(1, out.clone());
    let told = ask(&mut bench, 1, &out);
    assert_eq!(said(&told, Stage::Out), "by a UDP socket of the host, a flow that exists");
    let told = ask(&mut bench, 1, &datagram(1, GATEWAY_V4.into(), 9, b"x"));
    let loopback =
        format!("may go to 127.0.0.1, the host's loopback, which {GATEWAY_V4} stands for here");
    assert_eq!(said(&told, Stage::Route), loopback);
    let told = ask(&mut bench, 1, &datagram(1, v4(200).into(), 9, b"x"));
    assert_eq!((told.dropped, stages(&told).last()), (Some(DropReason::NoRoute), Some(&"route")));
    assert_eq!(receivers(&told), [(1, true)], "the sender would be told");
    let mut segment = Vec::new();
    let builder = packet(GATEWAY_MAC, mac(1), v4(1).into(), outside);
    builder.tcp(1000, 80, 1, 1000).write(&mut segment, b"x").unwrap();
    assert_eq!(ask(&mut bench, 1, &segment).dropped, Some(DropReason::NoFlow));
}

#[test]
fn what_a_captured_frame_left_to_a_device_is_no_fault_of_it() {
    let outside = std::net::IpAddr::from([192, 0, 2, 7]);
    let mut bench = Bench::leading_out(true, 1, Egress::default());
    let mut frame = datagram(1, outside, 9, b"x");
    let whole = ask(&mut bench, 1, &frame);
    let pseudo = Header::new(v4(1).into(), outside, 17).pseudo(9);
    frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
    assert_eq!(ask(&mut bench, 1, &frame).steps, whole.steps);
    frame[40] ^= 1;
    assert_eq!(ask(&mut bench, 1, &frame).dropped, Some(DropReason::BadChecksum));
    let mut superframe = Vec::new();
    let builder = packet(mac(1), mac(1), v4(1).into(), outside);
    builder.tcp(1000, 80, 1, 1000).write(&mut superframe, &[7; 4000]).unwrap();
    assert_eq!(ask(&mut bench, 1, &superframe).dropped, Some(DropReason::Oversize));
    let pseudo = Header::new(v4(1).into(), outside, 6).pseudo(4020);
    superframe[50..52].copy_from_slice(&pseudo.to_be_bytes());
    assert_eq!(ask(&mut bench, 1, &superframe).dropped, Some(DropReason::SamePort));
}

#[test]
fn a_port_of_no_network_has_nothing_to_explain() {
    let mut bench = Bench::new(true, 1);
    let question = Question { port: PortId(9), frame: plain(mac(1), mac(2)) };
    assert_eq!(bench.datapath.explain(&question, bench.now), Answer::NoNetwork);
    assert!(!ask(&mut bench, 1, &vec![0xff; FRAME_MAX + 9]).summary.is_empty());
}

proptest! {
    #[test]
    fn what_is_foretold_comes_true_and_asking_changes_nothing(
        guard: bool,
        frames in prop::collection::vec((1..4u32, 0..10u8, 1..4u32, any::<u8>(), any::<u8>()), 1..12),
    ) {
        let mut bench = Bench::leading_out(guard, 3, Egress::default());
        bench.host(2, "web");
        for (from, kind, to, at, byte) in frames {
            let mut frame = match kind {
                0 => plain(mac(to), mac(from)),
                1 => plain(MacAddr::BROADCAST, mac(from)),
                2 => arp(MacAddr::BROADCAST, mac(from), 1, (mac(from), v4(from)), (MacAddr([0; 6]), GATEWAY_V4)),
                3 => datagram(from, GATEWAY_V4.into(), 53, &dns_query(1, "web.net0")),
                4 => datagram(from, [192, 0, 2, to as u8].into(), 9, b"x"),
                5 => datagram(from, v6(to).into(), 9, b"x"),
                6 => datagram(from, [127, 0, 0, 1].into(), 9, b"x"),
                7 => datagram(from, GATEWAY_V4.into(), 9, b"x"),
                8 => plain(MacAddr([1, 0x80, 0xc2, 0, 0, to as u8]), mac(from)),
                _ => plain(mac(9), mac(8)),
            };
            // Sometimes as it is, sometimes with a byte that is wrong.
            if at < 64 && let Some(wrong) = frame.get_mut(usize::from(at)) {
                *wrong = byte;
            }
            let told = ask(&mut bench, from, &frame);
            let before = bench.counters(from).drops;
            bench.send(from, frame);
            let wires = bench.wires.iter().map(|(port, bytes, _)| (*port, bytes.clone()));
            let foretold = told.receivers.iter().map(|to| (to.port.0, told.frames[to.frame].bytes.clone()));
            prop_assert_eq!(foretold.collect::<Vec<_>>(), wires.collect::<Vec<_>>());
            let after = bench.counters(from).drops;
            let struck = DropReason::ALL.iter().find(|r| after.get(**r) > before.get(**r));
            // What the sockets think of a packet that they are handed is not foretold in full.
            let handed = stages(&told).contains(&"out") && told.dropped.is_none();
            prop_assert!(handed || told.dropped.as_ref() == struck, "{told:?} {struck:?}");
        }
    }
}

#[test]
fn a_flood_is_copied_once_for_all_whom_it_reaches_alike() {
    let mut bench = Bench::bare();
    bench.network(0, false);
    for port in 1..=200 {
        let vlans = match port % 2 {
            0 => VlanPolicy::Access(10),
            _ => VlanPolicy::Trunk { allowed: vec![10], native: None },
        };
        bench.port_that(port, Conduct { vlans, ..Conduct::default() });
    }
    let told = ask(&mut bench, 2, &plain(MacAddr::BROADCAST, mac(2)));
    assert_eq!(told.receivers.len(), 199);
    let lens: Vec<usize> = told.frames.iter().map(|frame| frame.bytes.len()).collect();
    let len = plain(MacAddr::BROADCAST, mac(2)).len();
    assert_eq!(lens, [len + 4, len], "with the tag and without");
    for to in told.receivers {
        assert_eq!(to.frame, usize::from(to.port.0.is_multiple_of(2)));
    }
}

#[test]
fn a_frame_that_nobody_is_there_to_get_is_taken_by_nobody() {
    let mut bench = Bench::new(false, 1);
    let told = ask(&mut bench, 1, &plain(MacAddr::BROADCAST, mac(1)));
    assert_eq!((told.dropped, told.taken, receivers(&told)), (None, false, vec![]));
}
