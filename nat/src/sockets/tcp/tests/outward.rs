use super::*;

#[test]
fn the_payload_of_a_batch_goes_out_in_one_call_and_is_acknowledged_once() {
    let mut bed = Bed::open();
    let data = bytes(3000);
    let parts: Vec<Seg> = data
        .chunks(1000)
        .enumerate()
        .map(|(n, part)| seg(ACK, bed.seq.wrapping_add(n as u32 * 1000), bed.ack).with(part))
        .collect();
    assert_eq!(bed.batch(&parts), [Ok(()); 3]);
    assert_eq!(bed.conn().got, data);
    assert_eq!(bed.conn().calls, 1);
    let ack = bed.only();
    assert_eq!(ack.short(), (ACK, bed.ack, bed.seq.wrapping_add(3000), 0));
    assert_eq!(u32::from(ack.window) << flow::SCALE, 64_000);
}

#[test]
fn numbers_wrap_around_in_the_middle_of_a_stream() {
    let mut bed = Bed::open();
    let data = bytes(1000);
    for part in data.chunks(100) {
        let part = bed.here(ACK).with(part);
        bed.say(part).unwrap();
        bed.seq = bed.seq.wrapping_add(100);
        assert_eq!(bed.only().ack, bed.seq);
    }
    assert!(bed.seq < ISN, "it did wrap");
    assert_eq!(bed.conn().got, data);
}

#[test]
fn what_overlaps_is_taken_once() {
    let mut bed = Bed::open();
    let start = bed.seq;
    let at = |from: u32, text: &[u8]| seg(ACK, start.wrapping_add(from), bed.ack).with(text);
    let batch = [at(0, b"abcd"), at(2, b"cdef"), at(0, b"abcdef"), at(1, b"bcdefgh")];
    bed.batch(&batch);
    assert_eq!(bed.conn().got, b"abcdefgh");
    let heard = bed.heard();
    assert!(heard.iter().all(|seg| seg.ack == start.wrapping_add(8)), "{heard:?}");
    assert_eq!(heard.len(), 2, "once for what is new, once for what came again");
}

#[test]
fn a_short_write_is_acknowledged_as_far_as_it_went_and_the_rest_asked_for() {
    let mut bed = Bed::open();
    bed.conn().sends.push_back(Ok(1200));
    bed.conn().room.bytes = 300;
    let data = bytes(3000);
    let start = bed.seq;
    let all = bed.here(ACK | PSH).with(&data);
    bed.say(all).unwrap();
    let ack = bed.asked_again();
    assert_eq!((ack.ack, ack.window), (start.wrapping_add(1200), 1), "one step of 256 bytes");
    bed.conn().room.bytes = 64_000;
    let again = seg(ACK, start, bed.ack).with(&data);
    bed.say(again).unwrap();
    assert_eq!(bed.conn().got, data[..1456], "no more than the window said");
    // The rest of what has come once is all that the window is open for, in steps of 256 bytes.
    assert_eq!(bed.only().window, 7);
    let rest = seg(ACK, start.wrapping_add(1456), bed.ack).with(&data[1456..]);
    bed.say(rest).unwrap();
    assert_eq!(bed.conn().got, data);
    assert_eq!(bed.only().window, 250);
}

#[test]
fn a_socket_that_takes_nothing_closes_the_window_and_opens_it_when_it_is_writable() {
    for failure in [Failure::WouldBlock, Failure::NoBuffers] {
        let mut bed = Bed::open();
        bed.conn().sends.push_back(Err(failure));
        bed.conn().room.bytes = 0;
        let all = bed.here(ACK).with(&bytes(3000));
        bed.say(all.clone()).unwrap();
        let ack = bed.only();
        assert_eq!((ack.ack, ack.window), (bed.seq, 0));
        // The inside asks whether there is a window, by a byte that is not taken.
        bed.batch(&[seg(ACK, bed.seq, bed.ack).with(b"a")]);
        assert_eq!(bed.only().window, 0);
        assert_eq!(bed.conn().got, b"");
        bed.conn().room.bytes = 1000;
        bed.writable();
        bed.silent();
        bed.conn().room.bytes = 2048;
        bed.writable();
        let update = bed.asked_again();
        assert_eq!((update.short(), update.window), ((ACK, bed.ack, bed.seq, 0), 8));
        bed.say(all).unwrap();
        assert_eq!(bed.conn().got, bytes(2048));
    }
}

#[test]
fn a_window_that_opens_in_a_turn_without_room_is_told_in_another() {
    let mut bed = Bed::open();
    bed.conn().sends.push_back(Err(Failure::WouldBlock));
    bed.conn().room.bytes = 0;
    let all = bed.here(ACK).with(&bytes(3000));
    bed.say(all).unwrap();
    assert_eq!(bed.only().window, 0);
    bed.conn().room.bytes = 64_000;
    bed.rooms.room = 0;
    bed.writable();
    bed.silent();
    bed.rooms.room = 1000;
    assert_eq!(bed.wait(), Duration::from_nanos(1));
    assert_eq!(bed.asked_again().window, 12, "what is missing, in steps of 256 bytes");
}

#[test]
fn acknowledgements_count_though_the_window_was_drawn_back_before_where_they_stand() {
    for took in [0, 900] {
        let mut bed = Bed::open();
        bed.conn().sends.push_back(if took > 0 { Ok(took) } else { Err(Failure::WouldBlock) });
        bed.conn().room.bytes = took;
        let all = bed.here(ACK).with(&bytes(3000));
        bed.say(all).unwrap();
        bed.heard();
        bed.arrives(b"abc");
        assert_eq!(bed.only().payload, b"abc");
        // It has sent more than the window holds now: so much as it was told before.
        let ahead = seg(ACK, bed.seq.wrapping_add(5000), bed.ack.wrapping_add(3));
        bed.say(ahead).unwrap();
        assert_eq!(bed.conn().has, b"", "{took}: it was acknowledged");
        // Beyond all that it was ever told, nobody stands.
        bed.heard();
        bed.arrives(b"def");
        let beyond = seg(ACK, bed.seq.wrapping_add(65_000), bed.ack.wrapping_add(6));
        let _ = bed.say(beyond);
        assert_eq!(bed.conn().has, b"def");
    }
}

#[test]
fn a_window_asked_for_is_told_as_it_is_by_then() {
    let mut bed = Bed::open();
    bed.conn().sends.push_back(Err(Failure::WouldBlock));
    bed.conn().room.bytes = 0;
    let all = bed.here(ACK).with(&bytes(25_600));
    bed.say(all).unwrap();
    assert_eq!(bed.only().window, 0);
    bed.conn().room.bytes = 64_000;
    let probe = seg(ACK, bed.seq.wrapping_sub(1), bed.ack);
    bed.say(probe).unwrap();
    assert_eq!(bed.only().window, 100);
}

#[test]
fn nothing_new_is_let_come_while_something_is_missing() {
    let mut bed = Bed::open();
    bed.conn().sends.push_back(Ok(2560));
    let all = bed.here(ACK).with(&bytes(5120));
    bed.say(all).unwrap();
    let ack = bed.asked_again();
    assert_eq!((ack.ack, ack.window), (bed.seq.wrapping_add(2560), 2560 / 256));
    bed.seq = ack.ack;
    let rest = bed.here(ACK).with(&bytes(5120)[2560..]);
    bed.say(rest).unwrap();
    assert_eq!(bed.only().window, 250);
    assert_eq!(bed.conn().got, bytes(5120));
}

#[test]
fn the_end_of_the_window_never_moves_back_while_the_socket_takes_all() {
    let mut bed = Bed::open();
    bed.say(seg(ACK, bed.seq, bed.ack).with(&[0; 1000])).unwrap();
    let before = bed.only();
    let edge = before.ack.wrapping_add(u32::from(before.window) << flow::SCALE);
    bed.conn().room.bytes = 10_000;
    bed.say(seg(ACK, before.ack, bed.ack).with(&[0; 1000])).unwrap();
    let after = bed.only();
    let new_edge = after.ack.wrapping_add(u32::from(after.window) << flow::SCALE);
    assert!(edge.wrapping_sub(new_edge) < 256, "rounded down at most");
}

#[test]
fn the_window_grows_by_steps_worth_a_segment() {
    let mut bed = Bed::open();
    bed.conn().room.bytes = 0;
    // The window is used up.
    let full = bed.here(ACK).with(&bytes(64_000));
    bed.say(full).unwrap();
    assert_eq!(bed.only().window, 0);
    bed.seq = bed.seq.wrapping_add(64_000);
    for (room, window) in [(256, None), (1459, None), (1536, Some(6))] {
        bed.conn().room.bytes = room;
        bed.writable();
        assert_eq!(bed.heard().first().map(|seg| seg.window), window, "{room}");
    }
    // Of a small buffer, half of it is worth as much.
    bed.conn().room = SendRoom { bytes: 0, buffer: 1024 };
    let full = bed.here(ACK).with(&bytes(1536));
    bed.say(full).unwrap();
    assert_eq!(bed.only().window, 0);
    bed.conn().room.bytes = 511;
    bed.writable();
    bed.silent();
    bed.conn().room.bytes = 512;
    bed.writable();
    assert_eq!(bed.only().window, 2);
}

#[test]
fn without_scaling_windows_are_plain() {
    let mut bed = Bed::asked(&[]);
    bed.establish();
    bed.conn().room = SendRoom { bytes: 1 << 20, buffer: 1 << 20 };
    let data = bed.here(ACK).with(b"x");
    bed.say(data).unwrap();
    assert_eq!(bed.only().window, u16::MAX);
}

#[test]
fn a_superframe_is_one_long_segment() {
    let mut bed = Bed::six();
    bed.ask(&OPTIONS);
    bed.establish();
    let data = bytes(60_000);
    let all = bed.here(ACK).with(&data);
    bed.say(all).unwrap();
    assert_eq!(bed.conn().got, data);
    assert_eq!(bed.only().ack, bed.seq.wrapping_add(60_000));
}

#[test]
fn what_lies_outside_the_window_is_answered_and_not_taken() {
    let mut bed = Bed::open();
    let edge = bed.seq.wrapping_add(64_000);
    assert_eq!(bed.say(seg(ACK, edge, bed.ack).with(b"far")), Err(Lost::NoFlow));
    let (seq, ack) = (bed.ack, bed.seq);
    assert_eq!(bed.only().short(), (ACK, seq, ack, 0));
    // What reaches beyond the end is cut there.
    let long = seg(ACK, bed.seq, bed.ack).with(&bytes(64_400));
    bed.say(long).unwrap();
    assert_eq!(bed.conn().got.len(), 64_000);
}

#[test]
fn empty_segments_out_of_the_window_do_not_make_a_storm() {
    let mut bed = Bed::open();
    for _ in 0..10 {
        let old = seg(ACK, bed.seq.wrapping_sub(1000), bed.ack);
        let _ = bed.say(old);
    }
    assert_eq!(bed.heard().len(), 1);
}

#[test]
fn a_keepalive_of_the_inside_is_answered() {
    let mut bed = Bed::open();
    for probe in [&b""[..], b"\0"] {
        let probe = seg(ACK, bed.seq.wrapping_sub(1), bed.ack).with(probe);
        bed.say(probe).unwrap();
        let (seq, ack) = (bed.ack, bed.seq);
        assert_eq!(bed.only().short(), (ACK, seq, ack, 0));
    }
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_challenged() {
    let mut bed = Bed::open();
    let ahead = seg(ACK, bed.seq, bed.ack.wrapping_add(1)).with(b"abc");
    assert_eq!(bed.say(ahead), Err(Lost::NoFlow));
    let (seq, ack) = (bed.ack, bed.seq);
    assert_eq!(bed.only().short(), (ACK, seq, ack, 0));
    assert_eq!(bed.conn().got, b"");
    let behind = seg(ACK, bed.seq, bed.ack.wrapping_sub(1 << 24)).with(b"abc");
    assert_eq!(bed.say(behind), Err(Lost::NoFlow));
    assert_eq!(bed.conn().got, b"");
}

#[test]
fn a_segment_without_the_ack_bit_is_dropped() {
    let mut bed = Bed::open();
    let none = bed.here(PSH).with(b"abc");
    assert_eq!(bed.say(none), Err(Lost::NoFlow));
    bed.silent();
}

#[test]
fn a_connection_that_dies_under_a_send_resets_the_inside() {
    for failure in [Failure::Reset, Failure::TimedOut, Failure::Other(99)] {
        let mut bed = Bed::open();
        bed.conn().sends.push_back(Err(failure));
        let data = bed.here(ACK).with(b"abc");
        bed.say(data).unwrap();
        let (seq, ack) = (bed.ack, bed.seq);
        assert_eq!(bed.only().short(), (RST_ACK, seq, ack, 0));
        bed.is_over("reset");
    }
}

#[test]
fn many_parts_of_one_batch_are_all_sent_in_order() {
    let mut bed = Bed::open();
    let data = bytes(300 * 7);
    let parts: Vec<Seg> = data
        .chunks(7)
        .enumerate()
        .map(|(n, part)| seg(ACK, bed.seq.wrapping_add(n as u32 * 7), bed.ack).with(part))
        .collect();
    bed.batch(&parts);
    assert_eq!(bed.conn().got, data);
    assert_eq!(bed.only().ack, bed.seq.wrapping_add(2100));
}

#[test]
fn flows_of_one_batch_do_not_mix() {
    let mut bed = Bed::open();
    let (seq, ack, port) = (bed.seq, bed.ack, bed.inside.port());
    bed.inside.set_port(port + 1);
    bed.seq = 5;
    bed.ask(&OPTIONS);
    let two = SocketId(2);
    bed.host.conn(two).made = Some(Ok(()));
    bed.ready(two, Ready { writable: true, ..Ready::default() });
    let answer = bed.only();
    bed.say(seg(ACK, 6, answer.seq.wrapping_add(1))).unwrap();
    for (n, text) in [b"a1", b"b1", b"a2", b"b2"].into_iter().enumerate() {
        let at = (n as u32 / 2) * 2;
        let segment = if n % 2 == 0 {
            bed.inside.set_port(port);
            seg(ACK, seq.wrapping_add(at), ack).with(text)
        } else {
            bed.inside.set_port(port + 1);
            seg(ACK, 6 + at, answer.seq.wrapping_add(1)).with(text)
        };
        let packet = bed.packet(&segment);
        bed.step(|tcp, desk| tcp.outbound(&packet, desk)).unwrap();
    }
    bed.step(|tcp, desk| tcp.flush(desk));
    assert_eq!(bed.host.conns[&S].got, b"a1a2");
    assert_eq!(bed.host.conns[&two].got, b"b1b2");
}

/// What the end of the window lies behind what is acknowledged.
fn window(ack: &Seg) -> u32 {
    u32::from(ack.window) << flow::SCALE
}

#[test]
fn no_more_may_be_on_its_way_than_the_wire_of_the_inside_holds_frames() {
    let mut bed = Bed::asked(&OPTIONS);
    bed.establish();
    bed.conn().room = SendRoom { bytes: 4 << 20, buffer: 4 << 20 };
    let flow = bed.tcp.flows[0].as_mut().unwrap();
    flow.frame = 0;
    flow.edge = flow.expected + 1460;
    let say = |bed: &mut Bed, len: usize| {
        let data = bed.here(ACK).with(&vec![0; len]);
        bed.say(data).unwrap();
        bed.seq = bed.seq.wrapping_add(len as u32);
        window(&bed.only())
    };
    assert_eq!(say(&mut bed, 1460), 14 * 1460 / 256 * 256);
    let mut last = 0;
    for _ in 0..40 {
        last = say(&mut bed, 14_600);
    }
    assert!((14 * 14_000..=14 * 14_600).contains(&last), "larger frames, as many of them: {last}");
}

#[test]
fn fewer_frames_may_be_on_their_way_after_a_loss_and_more_again_later() {
    let mut bed = Bed::open();
    bed.conn().room = SendRoom { bytes: 4 << 20, buffer: 4 << 20 };
    let start = bed.seq;
    let at = |n: u32| seg(ACK, start.wrapping_add(n * 1000), 0).with(&[0; 1000]);
    let ack = bed.ack;
    let at = |n: u32| Seg { ack, ..at(n) };
    let frames = |bed: &Bed| bed.tcp.flows[0].as_ref().unwrap().frames;
    let mut next = 0;
    for frames_left in [7, 3, 2, 2] {
        bed.batch(&[at(next + 1), at(next + 2), at(next + 3)]);
        bed.batch(&[at(next + 4), at(next + 5)]);
        assert_eq!(frames(&bed), frames_left, "one loss, though it is told five times");
        next += 6;
        bed.batch(&[at(next - 6)]);
    }
    for n in 0..32 {
        bed.batch(&[at(next + n)]);
    }
    assert_eq!(frames(&bed), 3);
    for n in 32..32 * 20 {
        bed.batch(&[at(next + n)]);
    }
    assert_eq!(frames(&bed), flow::FRAMES);
}

#[test]
fn a_short_connection_has_the_host_asked_once_what_room_there_is() {
    let mut bed = Bed::asked(&OPTIONS);
    let answer = bed.connect();
    (bed.seq, bed.ack) = (answer.ack, answer.seq.wrapping_add(1));
    let data = bed.here(ACK).with(b"?");
    bed.say(data).unwrap();
    bed.seq = bed.seq.wrapping_add(1);
    assert_eq!(bed.only().ack, bed.seq);
    let fin = bed.here(FIN_ACK);
    bed.say(fin).unwrap();
    assert_eq!((bed.conn().asked, bed.conn().finished), (1, true));

    let mut bed = Bed::new();
    let syn = bed.comes_in().remove(0);
    bed.ack = syn.seq.wrapping_add(1);
    let answer = bed.here(SYN_ACK).options(&OPTIONS);
    bed.say(answer).unwrap();
    let ack = bed.only();
    assert_eq!((ack.flags, ack.window), (ACK, syn.window >> flow::SCALE));
    assert_eq!(bed.conn().asked, 1);
}

#[test]
fn whoever_has_used_a_segment_of_the_window_has_the_host_asked_for_more() {
    let mut bed = Bed::asked(&OPTIONS);
    let answer = bed.connect();
    (bed.seq, bed.ack) = (answer.ack, answer.seq.wrapping_add(1));
    for (len, asked) in [(1, 1), (1459, 2), (1460, 3), (1, 3)] {
        let data = bed.here(ACK).with(&bytes(len));
        bed.say(data).unwrap();
        bed.seq = bed.seq.wrapping_add(len as u32);
        assert_eq!(bed.only().ack, bed.seq);
        assert_eq!(bed.conn().asked, asked, "behind {len} bytes");
    }
}
