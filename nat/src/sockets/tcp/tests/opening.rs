use super::*;

#[test]
fn nothing_is_said_until_the_host_has_connected() {
    let mut bed = Bed::asked(&OPTIONS);
    assert_eq!(bed.conn().to, Some(socket("192.0.2.1:80")));
    assert!(!bed.writable(), "not connected yet");
    bed.silent();
    let syn = bed.here(SYN).options(&OPTIONS);
    bed.say(syn).unwrap();
    bed.silent();
    assert_eq!(bed.host.conns.len(), 1, "a SYN that came again connects no second time");
    let answer = bed.connect();
    assert_eq!(answer.short(), (SYN_ACK, answer.seq, ISN.wrapping_add(1), 0));
    assert_eq!(answer.options, [2, 4, 0x05, 0xb4, 1, 3, 3, flow::SCALE]);
    assert_eq!(answer.window, 14 * 1460, "what the inside's wire holds");
}

#[test]
fn it_connects_to_where_the_packet_is_to_be_delivered() {
    let mut bed = Bed::new();
    let syn = bed.here(SYN);
    let packet = Packet { reach: Some("127.0.0.1".parse().unwrap()), ..bed.packet(&syn) };
    bed.step(|tcp, desk| tcp.outbound(&packet, desk)).unwrap();
    assert_eq!(bed.conn().to, Some(socket("127.0.0.1:80")));
}

#[test]
fn what_may_open_no_flow_is_refused() {
    let mut bed = Bed::new();
    let syn = bed.here(SYN);
    let packet = Packet { reach: None, ..bed.packet(&syn) };
    assert_eq!(bed.step(|tcp, desk| tcp.outbound(&packet, desk)), Err(Lost::NoFlow));
    assert_eq!(bed.only().short(), (RST_ACK, 0, ISN.wrapping_add(1), 0));
}

#[test]
fn a_window_scale_is_answered_only_where_one_was_offered() {
    let mut bed = Bed::asked(&[2, 4, 0x05, 0xb4]);
    assert_eq!(bed.connect().options, [2, 4, 0x05, 0xb4, 1, 1, 1, 1]);
    let mut bed = Bed::asked(&OPTIONS);
    assert_eq!(bed.connect().options[4..], [1, 3, 3, flow::SCALE]);
}

#[test]
fn ecn_is_refused() {
    let mut bed = Bed::new();
    let syn = bed.here(SYN | 0xc0);
    bed.say(syn).unwrap();
    assert_eq!(bed.connect().flags, SYN_ACK);
}

/// What the inside is told when the host's connection fails like that: the ICMP type and code, or a reset.
fn told(mut bed: Bed, failure: Failure, at_once: bool) -> Option<[u8; 2]> {
    let syn = bed.here(SYN).options(&OPTIONS);
    if at_once {
        bed.host.connects.push_back(failure);
        assert_eq!(bed.say(syn), Err(Lost::HostRefused));
    } else {
        bed.say(syn).unwrap();
        bed.conn().made = Some(Err(failure));
        bed.writable();
    }
    bed.is_over("closed");
    let made = std::mem::take(&mut bed.rooms.made);
    assert_eq!(made.len(), 1);
    if made[0].ip().protocol == protocol::TCP {
        assert_eq!(bed.read(&made[0]).short(), (RST_ACK, 0, ISN.wrapping_add(1), 0));
        return None;
    }
    let message = made[0].transport();
    let quoted = Ip::of(message, 8).expect("a packet is quoted");
    assert_eq!((quoted.src, quoted.dst), (bed.inside.ip(), bed.outside.ip()));
    let segment = quoted.transport(message);
    assert_eq!(segment[..2], bed.inside.port().to_be_bytes());
    assert_eq!(segment[2..4], bed.outside.port().to_be_bytes());
    assert_eq!(segment[4..8], ISN.to_be_bytes());
    Some([message[0], message[1]])
}

#[test]
fn the_inside_is_told_at_once_why_there_is_no_connection() {
    let cases = [
        (Failure::Refused, None, None),
        (Failure::Reset, None, None),
        (Failure::NetUnreachable, Some([3, 0]), Some([1, 0])),
        (Failure::Unsupported, Some([3, 0]), Some([1, 0])),
        (Failure::HostUnreachable, Some([3, 1]), Some([1, 3])),
        (Failure::TimedOut, Some([3, 1]), Some([1, 3])),
        (Failure::Forbidden, Some([3, 13]), Some([1, 1])),
        (Failure::TooManyFiles, Some([3, 1]), Some([1, 3])),
        (Failure::NoBuffers, Some([3, 1]), Some([1, 3])),
        (Failure::NoAddress, Some([3, 1]), Some([1, 3])),
        (Failure::Other(5), Some([3, 1]), Some([1, 3])),
    ];
    for (failure, four, six) in cases {
        for at_once in [true, false] {
            assert_eq!(told(Bed::new(), failure, at_once), four, "{failure:?}");
            assert_eq!(told(Bed::six(), failure, at_once), six, "{failure:?}");
        }
    }
}

#[test]
fn malformed_options_are_passed_over_up_to_where_they_contradict_themselves() {
    for (options, mss) in [
        (&[2, 0, 1, 1][..], 536),
        (&[2, 1, 1, 1], 536),
        (&[2, 9, 1, 1], 536),
        (&[3, 3, 200, 2], 536),
        (&[0, 2, 4, 5], 536),
        (&[9, 4, 0, 0, 2, 4, 1, 0], 256),
        (&[2, 4, 0, 0], 8),
        (&[2, 4, 0, 1], 8),
        (&[2, 4, 0xff, 0xff], 1460),
    ] {
        let mut bed = Bed::asked(options);
        bed.establish();
        assert_eq!(bed.tcp.flows[0].as_ref().unwrap().mss, mss, "{options:?}");
    }
}

#[test]
fn data_with_a_syn_is_not_taken() {
    let mut bed = Bed::new();
    let syn = bed.here(SYN | FIN).with(b"early");
    bed.say(syn).unwrap();
    assert_eq!(bed.connect().ack, ISN.wrapping_add(1));
    assert_eq!(bed.conn().got, b"");
}

#[test]
fn what_is_malformed_or_has_a_wrong_checksum_is_lost() {
    let mut bed = Bed::new();
    let syn = bed.here(SYN).options(&OPTIONS);
    let whole = bed.packet(&syn);
    let bytes = bed.rooms.packets[usize::from(whole.id.0)].clone();
    for len in 20..bytes.len() {
        let mut cut = bytes[..len].to_vec();
        Header::new(bed.inside.ip(), bed.outside.ip(), protocol::TCP).write(&mut cut);
        let packet = bed.raw(cut);
        let lost = bed.step(|tcp, desk| tcp.outbound(&packet, desk));
        assert_eq!(lost, Err(Lost::Malformed), "{len} bytes");
    }
    let mut wrong = bytes.clone();
    wrong[37] ^= 1;
    let packet = bed.raw(wrong.clone());
    assert_eq!(bed.step(|tcp, desk| tcp.outbound(&packet, desk)), Err(Lost::BadChecksum));
    for csum in [Checksum::Verified, Checksum::Partial { start: 20, offset: 16 }] {
        let packet = Packet { offload: Offload { csum, gso: None }, ..bed.raw(wrong.clone()) };
        assert_eq!(bed.step(|tcp, desk| tcp.outbound(&packet, desk)), Ok(()), "{csum:?}");
    }
    let mut short = bytes;
    short[32] = 0x40;
    let packet = bed.raw(short);
    assert_eq!(bed.step(|tcp, desk| tcp.outbound(&packet, desk)), Err(Lost::Malformed));
}

#[test]
fn port_0_is_malformed() {
    let mut bed = Bed::new();
    bed.outside.set_port(0);
    let syn = bed.here(SYN);
    assert_eq!(bed.say(syn), Err(Lost::Malformed));
    bed.silent();
}

#[test]
fn a_fragment_is_lost() {
    let mut bed = Bed::new();
    let syn = bed.here(SYN);
    let mut packet = bed.packet(&syn);
    packet.ip.fragment = Some(crate::packet::Fragment { offset: 0, more: true });
    assert_eq!(bed.step(|tcp, desk| tcp.outbound(&packet, desk)), Err(Lost::Fragment));
}

#[test]
fn a_syn_that_comes_again_after_the_answer_is_answered_again() {
    let mut bed = Bed::asked(&OPTIONS);
    let answer = bed.connect();
    let syn = bed.here(SYN).options(&OPTIONS);
    bed.say(syn).unwrap();
    assert_eq!(bed.only(), answer);
}

#[test]
fn an_answer_is_sent_again_5_times_and_then_the_outside_is_reset() {
    let mut bed = Bed::asked(&OPTIONS);
    let answer = bed.connect();
    for seconds in [1, 2, 4, 8, 16] {
        assert_eq!(bed.wait(), Duration::from_secs(seconds));
        assert_eq!(bed.only(), answer);
    }
    assert_eq!(bed.wait(), Duration::from_secs(32));
    assert_eq!(bed.only().flags, RST_ACK);
    bed.is_over("reset");
}

#[test]
fn another_syn_while_connecting_begins_anew() {
    let mut bed = Bed::asked(&OPTIONS);
    bed.say(seg(SYN, 77, 0).options(&OPTIONS)).unwrap();
    assert_eq!(bed.host.conns[&S].gone, Some("reset"));
    bed.host.conn(SocketId(2)).made = Some(Ok(()));
    bed.ready(SocketId(2), Ready { writable: true, ..Ready::default() });
    assert_eq!(bed.only().ack, 78);
}

#[test]
fn a_syn_to_an_open_connection_is_challenged_but_not_every_one() {
    let mut bed = Bed::open();
    for _ in 0..3 {
        let syn = seg(SYN, bed.seq.wrapping_add(5000), 0);
        bed.say(syn).unwrap_err();
    }
    let (seq, ack) = (bed.ack, bed.seq);
    assert_eq!(bed.only().short(), (ACK, seq, ack, 0));
    bed.pass(Duration::from_millis(500));
    let syn = seg(SYN, 5, 0);
    let _ = bed.say(syn);
    assert_eq!(bed.only().short(), (ACK, seq, ack, 0));
    assert_eq!(bed.state(), Some(State::Open));
}

#[test]
fn a_reset_while_connecting_ends_it() {
    let mut bed = Bed::asked(&OPTIONS);
    bed.say(seg(RST, ISN, 0)).unwrap();
    assert_eq!(bed.state(), Some(State::Connecting), "it lies before the window");
    bed.say(seg(RST, ISN.wrapping_add(1), 0)).unwrap();
    bed.silent();
    bed.is_over("reset");
}

#[test]
fn a_wrong_acknowledgement_of_the_answer_is_reset_and_changes_nothing() {
    let mut bed = Bed::asked(&OPTIONS);
    let answer = bed.connect();
    bed.say(seg(ACK, ISN.wrapping_add(1), answer.seq)).unwrap_err();
    assert_eq!(bed.only().short(), (RST, answer.seq, 0, 0));
    assert_eq!(bed.state(), Some(State::Answered));
}

#[test]
fn a_stray_segment_is_reset_as_it_asks_for() {
    let mut bed = Bed::new();
    assert_eq!(bed.say(seg(ACK, 1, 2).with(b"abc")), Err(Lost::NoFlow));
    assert_eq!(bed.only().short(), (RST, 2, 0, 0));
    assert_eq!(bed.say(seg(FIN | PSH, 1, 2).with(b"abc")), Err(Lost::NoFlow));
    assert_eq!(bed.only().short(), (RST_ACK, 0, 5, 0));
    assert_eq!(bed.say(seg(SYN_ACK, 1, 2)), Err(Lost::NoFlow));
    assert_eq!(bed.only().short(), (RST, 2, 0, 0));
    for flags in [RST, RST_ACK, RST | SYN] {
        assert_eq!(bed.say(seg(flags, 1, 2)), Err(Lost::NoFlow));
        bed.silent();
    }
}

#[test]
fn somebody_who_comes_in_is_led_to_the_node_and_data_waits_for_it() {
    let mut bed = Bed::new();
    let asked = bed.comes_in();
    let [syn] = &asked[..] else { panic!("one SYN: {asked:?}") };
    assert_eq!(syn.short(), (SYN, syn.seq, 0, 0));
    assert_eq!(syn.options, [2, 4, 0x05, 0xb4, 1, 3, 3, flow::SCALE, 1, 1, 4, 2]);
    assert!(!bed.arrives(b"hello"), "not yet");
    bed.silent();
    bed.ack = syn.seq.wrapping_add(1);
    let answer = bed.here(SYN_ACK).options(&OPTIONS);
    bed.say(answer).unwrap();
    let hello = bed.only();
    assert_eq!(hello.short(), (ACK | PSH, bed.ack, bed.seq.wrapping_add(1), 5));
    assert_eq!(hello.payload, b"hello");
    let row = bed.tcp.rows(0).next().unwrap().1;
    assert!(row.published && row.state == "established" && row.outside == Some(bed.outside));
}

#[test]
fn a_node_that_refuses_gives_the_client_a_reset() {
    let mut bed = Bed::new();
    let syn = bed.comes_in().remove(0);
    bed.say(seg(RST_ACK, 0, syn.seq)).unwrap();
    assert_eq!(bed.state(), Some(State::Asked), "that was not about our SYN");
    bed.say(seg(RST, 0, 0)).unwrap();
    assert_eq!(bed.state(), Some(State::Asked), "nor this");
    bed.say(seg(RST_ACK, 0, syn.seq.wrapping_add(1))).unwrap();
    bed.silent();
    bed.is_over("reset");
}

#[test]
fn a_node_that_does_not_answer_is_asked_5_times_again() {
    let mut bed = Bed::new();
    let syn = bed.comes_in().remove(0);
    for seconds in [1, 2, 4, 8, 16] {
        assert_eq!(bed.wait(), Duration::from_secs(seconds));
        assert_eq!(bed.only(), syn);
    }
    assert_eq!(bed.wait(), Duration::from_secs(32));
    bed.is_over("reset");
}

#[test]
fn a_node_that_asks_the_client_at_the_same_time_gets_one_connection() {
    let mut bed = Bed::new();
    let syn = bed.comes_in().remove(0);
    let crossing = bed.here(SYN).options(&OPTIONS);
    bed.say(crossing).unwrap();
    let answer = bed.only();
    assert_eq!(answer.short(), (SYN_ACK, syn.seq, ISN.wrapping_add(1), 0));
    assert_eq!(bed.host.conns.len(), 1);
    bed.seq = ISN.wrapping_add(1);
    bed.ack = syn.seq.wrapping_add(1);
    // The node answers our SYN as well, which acknowledges.
    let ack = bed.here(ACK);
    bed.say(ack).unwrap();
    assert_eq!(bed.state(), Some(State::Open));
    bed.silent();
}

#[test]
fn a_crossing_syn_may_be_acknowledged_by_a_syn() {
    let mut bed = Bed::new();
    let syn = bed.comes_in().remove(0);
    bed.ask_crossing();
    let both = seg(SYN_ACK, ISN, syn.seq.wrapping_add(1)).options(&OPTIONS);
    bed.say(both).unwrap();
    assert_eq!(bed.state(), Some(State::Open));
}

impl Bed {
    fn ask_crossing(&mut self) {
        let crossing = self.here(SYN).options(&OPTIONS);
        self.say(crossing).unwrap();
        assert_eq!(self.only().flags, SYN_ACK);
    }
}

#[test]
fn a_client_is_reset_where_there_is_such_a_connection() {
    let mut bed = Bed::open();
    assert!(bed.tcp.has(ZONE, bed.inside, bed.outside));
    assert_eq!(bed.comes_in(), []);
    assert_eq!(bed.host.conns[&SocketId(2)].gone, Some("reset"));
    assert_eq!(bed.state(), Some(State::Open));
}

#[test]
fn numbers_of_one_pair_grow_and_those_of_another_are_elsewhere() {
    let mut bed = Bed::new();
    let first = bed.comes_in().remove(0);
    bed.say(seg(RST_ACK, 0, first.seq.wrapping_add(1))).unwrap();
    bed.pass(Duration::from_millis(4));
    let second = bed.comes_in().remove(0);
    assert_eq!(second.seq.wrapping_sub(first.seq), 1000);
    bed.outside.set_port(81);
    let other = bed.comes_in().remove(0);
    assert!(other.seq.wrapping_sub(second.seq) > 1 << 16);
}

#[test]
fn of_too_many_the_owner_loses_its_own_least_used_and_both_sides_are_told() {
    let mut bed = Bed::limited(Limits { flows: 2, owner_flows: 2 });
    bed.ask(&OPTIONS);
    bed.establish();
    let first = (bed.inside, bed.outside);
    for port in [81, 82] {
        bed.outside.set_port(port);
        let syn = seg(SYN, 5, 0);
        bed.say(syn).unwrap();
    }
    assert_eq!(bed.tcp.len(), 2);
    // One that is half open goes before one that is made.
    assert_eq!(bed.host.conns[&SocketId(2)].gone, Some("reset"));
    assert!(bed.tcp.has(ZONE, first.0, first.1));
    assert_eq!(bed.rooms.lost, [(ZONE, bed.inside.ip(), Lost::FlowLimit, 1)]);
    bed.outside.set_port(81);
    assert_eq!(bed.only().short(), (RST_ACK, 0, 6, 0));
}

#[test]
fn a_complaint_about_our_syn_ends_it_and_about_another_one_does_not() {
    let mut bed = Bed::new();
    let syn = bed.comes_in().remove(0);
    let ends = (bed.outside, bed.inside);
    let mut complain = |seq| {
        let what = Objection::Unreachable;
        bed.step(|tcp, desk| tcp.complaint(ZONE, ends, seq, what, desk))
    };
    assert_eq!(complain(syn.seq.wrapping_sub(1)), Err(Lost::NoFlow));
    assert_eq!(complain(syn.seq.wrapping_add(1)), Err(Lost::NoFlow));
    assert_eq!(complain(syn.seq), Ok(()));
    bed.is_over("reset");
}
