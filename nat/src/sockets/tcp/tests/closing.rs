use super::*;

impl Bed {
    /// The inside ends its stream.
    fn finishes(&mut self) {
        let fin = self.here(FIN_ACK);
        self.say(fin).unwrap();
        self.seq = self.seq.wrapping_add(1);
    }

    /// The outside's end reaches the inside, which acknowledges it.
    fn outside_ends(&mut self) {
        self.ends();
        assert_eq!(self.only().short(), (FIN_ACK, self.ack, self.seq, 0));
        self.ack = self.ack.wrapping_add(1);
        let ack = self.here(ACK);
        self.say(ack).unwrap();
        self.silent();
    }
}

#[test]
fn the_inside_closes_first_and_is_remembered_by_nobody_here() {
    let mut bed = Bed::open();
    bed.finishes();
    assert!(bed.conn().finished);
    assert_eq!(bed.only().short(), (ACK, bed.ack, bed.seq, 0));
    bed.arrives(b"rest");
    assert_eq!(bed.only().payload, b"rest");
    bed.ack = bed.ack.wrapping_add(4);
    bed.outside_ends();
    bed.is_over("closed");
    assert_eq!(bed.conn().discarded, 4);
}

#[test]
fn the_outside_closes_first_and_the_inside_may_go_on() {
    let mut bed = Bed::open();
    bed.outside_ends();
    let data = bed.here(ACK).with(b"rest");
    bed.say(data).unwrap();
    bed.seq = bed.seq.wrapping_add(4);
    assert_eq!(bed.only().ack, bed.seq);
    assert_eq!(bed.conn().got, b"rest");
    bed.pass(Duration::from_secs(3600));
    assert_eq!(bed.state(), Some(State::Open), "half closed is not closed");
    bed.finishes();
    assert_eq!(bed.only().short(), (ACK, bed.ack, bed.seq, 0));
    assert_eq!(bed.state(), Some(State::TimeWait));
    assert_eq!(bed.conn().gone, Some("closed"));
    assert_eq!(bed.wait(), Duration::from_secs(60));
    bed.is_over("closed");
    bed.silent();
}

#[test]
fn both_close_at_once() {
    let mut bed = Bed::open();
    bed.ends();
    let fin = bed.only();
    assert_eq!(fin.flags, FIN_ACK);
    // The inside has not seen ours yet.
    bed.finishes();
    assert_eq!(bed.only().short(), (ACK, bed.ack.wrapping_add(1), bed.seq, 0));
    assert_eq!(bed.state(), Some(State::Open));
    bed.ack = bed.ack.wrapping_add(1);
    let ack = bed.here(ACK);
    bed.say(ack).unwrap();
    assert_eq!(bed.state(), Some(State::TimeWait));
}

#[test]
fn a_fin_with_data_is_taken_with_it() {
    let mut bed = Bed::open();
    let last = bed.here(FIN_ACK | PSH).with(b"last");
    bed.say(last.clone()).unwrap();
    assert_eq!(bed.conn().got, b"last");
    assert!(bed.conn().finished);
    let end = bed.seq.wrapping_add(5);
    assert_eq!(bed.only().ack, end);
    // It comes again, since the acknowledgement was lost.
    bed.say(last).unwrap();
    assert_eq!(bed.only().ack, end);
    assert_eq!(bed.conn().got, b"last");
}

#[test]
fn a_fin_is_not_taken_before_the_data_that_precedes_it() {
    let mut bed = Bed::open();
    bed.conn().sends.push_back(Ok(2));
    let last = bed.here(FIN_ACK).with(b"last");
    bed.say(last.clone()).unwrap();
    assert!(!bed.conn().finished);
    assert_eq!(bed.asked_again().ack, bed.seq.wrapping_add(2));
    let early = seg(FIN_ACK, bed.seq.wrapping_add(4), bed.ack);
    assert_eq!(bed.say(early), Err(Lost::NoFlow));
    assert!(!bed.conn().finished);
    bed.heard();
    bed.say(last).unwrap();
    assert!(bed.conn().finished);
    assert_eq!(bed.conn().got, b"last");
    assert_eq!(bed.only().ack, bed.seq.wrapping_add(5));
}

#[test]
fn a_fin_is_taken_where_no_window_is_left() {
    let mut bed = Bed::open();
    bed.conn().sends.push_back(Ok(3));
    bed.conn().room.bytes = 0;
    let data = bed.here(ACK).with(b"abcd");
    bed.say(data).unwrap();
    assert_eq!(bed.only().window, 0);
    bed.seq = bed.seq.wrapping_add(3);
    bed.finishes();
    assert!(bed.conn().finished);
    assert_eq!(bed.only().ack, bed.seq);
}

#[test]
fn data_behind_a_fin_is_not_taken() {
    let mut bed = Bed::open();
    let fin = bed.here(FIN_ACK);
    let behind = seg(ACK, bed.seq.wrapping_add(1), bed.ack).with(b"zombie");
    bed.batch(&[fin, behind]);
    assert_eq!(bed.conn().got, b"");
    assert!(bed.heard().iter().all(|seg| seg.ack == bed.seq.wrapping_add(1)));
}

#[test]
fn a_lost_fin_of_ours_is_sent_again() {
    let mut bed = Bed::open();
    bed.arrives(b"abc");
    bed.ends();
    let heard = bed.heard();
    assert_eq!(heard.iter().map(|seg| seg.flags).collect::<Vec<_>>(), [ACK | PSH, FIN_ACK]);
    bed.wait();
    let again = bed.heard();
    assert_eq!(
        again.iter().map(Seg::short).collect::<Vec<_>>(),
        heard.iter().map(Seg::short).collect::<Vec<_>>()
    );
    bed.ack = bed.ack.wrapping_add(3);
    let ack = bed.here(ACK);
    bed.say(ack).unwrap();
    bed.silent();
    bed.wait();
    assert_eq!(bed.only().short(), (FIN_ACK, bed.ack, bed.seq, 0));
}

#[test]
fn a_fin_waits_for_the_window_and_is_asked_for() {
    let mut bed = Bed::open();
    bed.say(seg(ACK, bed.seq, bed.ack).window(0)).unwrap();
    bed.ends();
    bed.silent();
    bed.wait();
    assert_eq!(bed.only().short(), (ACK, bed.ack.wrapping_sub(1), bed.seq, 0));
    bed.say(seg(ACK, bed.seq, bed.ack).window(1)).unwrap();
    assert_eq!(bed.only().flags, FIN_ACK);
}

#[test]
fn a_fin_that_comes_again_in_time_wait_is_acknowledged_and_starts_it_anew() {
    let mut bed = Bed::open();
    bed.outside_ends();
    bed.finishes();
    bed.heard();
    bed.pass(Duration::from_secs(50));
    let again = seg(FIN_ACK, bed.seq.wrapping_sub(1), bed.ack);
    bed.say(again).unwrap();
    assert_eq!(bed.only().short(), (ACK, bed.ack, bed.seq, 0));
    bed.pass(Duration::from_secs(59));
    assert_eq!(bed.state(), Some(State::TimeWait));
    bed.pass(Duration::from_secs(1));
    assert_eq!(bed.state(), None);
}

#[test]
fn a_reset_ends_time_wait_so_that_whoever_knows_nothing_of_the_old_connection_makes_a_new_one() {
    let mut bed = Bed::open();
    bed.outside_ends();
    bed.finishes();
    bed.heard();
    let anew = seg(SYN, bed.seq.wrapping_sub(1000), 0).options(&OPTIONS);
    let _ = bed.say(anew.clone());
    assert_eq!(bed.only().short(), (ACK, bed.ack, bed.seq, 0));
    let _ = bed.say(seg(RST, bed.seq.wrapping_sub(1), 0));
    assert_eq!(bed.state(), Some(State::TimeWait), "another number is a guess");
    bed.say(seg(RST, bed.seq, 0)).unwrap();
    bed.is_over("closed");
    bed.say(anew).unwrap();
    assert_eq!(bed.state(), Some(State::Connecting));
}

#[test]
fn a_new_connection_takes_the_place_of_one_in_time_wait() {
    let mut bed = Bed::open();
    bed.outside_ends();
    bed.finishes();
    bed.heard();
    let (end, ours) = (bed.seq, bed.ack);
    // An old SYN does not.
    let _ = bed.say(seg(SYN, end.wrapping_sub(1000), 0));
    assert_eq!(bed.only().short(), (ACK, ours, end, 0));
    bed.say(seg(SYN, end.wrapping_add(1), 0).options(&OPTIONS)).unwrap();
    assert_eq!(bed.state(), Some(State::Connecting));
    let two = SocketId(2);
    bed.host.conn(two).made = Some(Ok(()));
    bed.ready(two, Ready { writable: true, ..Ready::default() });
    let answer = bed.only();
    assert_eq!(answer.ack, end.wrapping_add(2));
    assert!(
        (1..1 << 30).contains(&answer.seq.wrapping_sub(ours)),
        "behind what the inside has seen"
    );
}

#[test]
fn a_client_takes_the_place_of_one_in_time_wait() {
    let mut bed = Bed::open();
    bed.outside_ends();
    bed.finishes();
    bed.heard();
    let ours = bed.ack;
    assert!(!bed.tcp.has(ZONE, bed.inside, bed.outside));
    let syn = bed.comes_in().remove(0);
    assert!((1..1 << 30).contains(&syn.seq.wrapping_sub(ours)));
}

#[test]
fn a_reset_of_the_inside_resets_the_outside() {
    let mut bed = Bed::open();
    let reset = bed.here(RST);
    bed.say(reset).unwrap();
    bed.silent();
    bed.is_over("reset");
}

#[test]
fn a_reset_behind_gathered_payload_counts() {
    let mut bed = Bed::open();
    let data = bed.here(ACK).with(b"abc");
    let reset = seg(RST, bed.seq.wrapping_add(3), bed.ack);
    assert_eq!(bed.batch(&[data, reset]), [Ok(()), Ok(())]);
    bed.is_over("reset");
}

#[test]
fn a_reset_elsewhere_in_the_window_is_challenged_and_outside_of_it_ignored() {
    let mut bed = Bed::open();
    let near = seg(RST, bed.seq.wrapping_add(1), 0);
    assert_eq!(bed.say(near), Err(Lost::NoFlow));
    assert_eq!(bed.only().short(), (ACK, bed.ack, bed.seq, 0));
    for far in [bed.seq.wrapping_sub(1), bed.seq.wrapping_add(64_000)] {
        assert_eq!(bed.say(seg(RST, far, 0)), Err(Lost::NoFlow));
        bed.silent();
    }
    assert_eq!(bed.state(), Some(State::Open));
}

#[test]
fn a_reset_behind_a_full_window_of_which_something_was_lost_is_challenged() {
    let mut bed = Bed::open();
    let end = bed.seq.wrapping_add(64_000);
    bed.say(seg(RST, end, bed.ack)).unwrap_err();
    assert_eq!(bed.only().short(), (ACK, bed.ack, bed.seq, 0));
    let reset = bed.here(RST);
    bed.say(reset).unwrap();
    bed.is_over("reset");
}

#[test]
fn an_outside_that_dies_resets_the_inside_behind_what_it_had_sent() {
    let mut bed = Bed::open();
    bed.conn().has.extend_from_slice(b"last words");
    bed.conn().died = Some(Failure::Reset);
    bed.ready(S, Ready { readable: true, error: true, writable: true });
    let heard = bed.heard();
    assert_eq!(heard[0].payload, b"last words");
    assert_eq!(heard.len(), 1);
    // They were lost: the host has acknowledged them, so that nobody else would say them again.
    assert_eq!(bed.wait(), Duration::from_millis(200));
    assert_eq!(bed.only().payload, b"last words");
    bed.ack = bed.ack.wrapping_add(10);
    let ack = bed.here(ACK);
    bed.say(ack).unwrap();
    assert_eq!(bed.only().short(), (RST_ACK, bed.ack, bed.seq, 0));
    bed.is_over("reset");
}

#[test]
fn an_outside_that_dies_behind_its_end_resets_the_inside_when_that_has_heard_the_end() {
    let mut bed = Bed::open();
    bed.conn().has.extend_from_slice(b"last words");
    bed.ends();
    assert_eq!(bed.heard().len(), 2);
    bed.conn().died = Some(Failure::Reset);
    bed.ready(S, Ready { error: true, ..Ready::default() });
    bed.silent();
    bed.wait();
    let again: Vec<(u8, usize)> = bed.heard().iter().map(|s| (s.flags, s.payload.len())).collect();
    assert_eq!(again, [(ACK | PSH, 10), (FIN_ACK, 0)], "all was lost");
    bed.ack = bed.ack.wrapping_add(10);
    let ack = bed.here(ACK);
    bed.say(ack).unwrap();
    bed.silent();
    bed.ack = bed.ack.wrapping_add(1);
    let ack = bed.here(ACK);
    bed.say(ack).unwrap();
    assert_eq!(bed.only().short(), (RST_ACK, bed.ack, bed.seq, 0));
    bed.is_over("reset");
}

#[test]
fn an_outside_that_dies_is_told_of_in_the_end_though_the_inside_says_nothing() {
    let mut bed = Bed::open();
    bed.conn().has.extend_from_slice(b"last words");
    bed.conn().died = Some(Failure::Reset);
    bed.ready(S, Ready { readable: true, error: true, writable: true });
    for _ in 0..15 {
        assert_eq!(bed.only().payload, b"last words");
        bed.wait();
    }
    bed.heard();
    bed.wait();
    assert_eq!(bed.only().flags, RST_ACK);
    bed.is_over("reset");
}

#[test]
fn an_outside_that_dies_after_its_end_resets_the_inside() {
    let mut bed = Bed::open();
    bed.outside_ends();
    bed.conn().died = Some(Failure::Reset);
    bed.ready(S, Ready { error: true, ..Ready::default() });
    assert_eq!(bed.only().short(), (RST_ACK, bed.ack, bed.seq, 0));
    bed.is_over("reset");
}

#[test]
fn an_outside_that_dies_while_the_answer_is_on_its_way_is_heard_out_before_the_reset() {
    let mut bed = Bed::asked(&OPTIONS);
    let answer = bed.connect();
    bed.conn().has.extend_from_slice(b"too many");
    bed.conn().died = Some(Failure::Reset);
    bed.ready(S, Ready { readable: true, error: true, writable: true });
    bed.silent();
    bed.seq = answer.ack;
    bed.ack = answer.seq.wrapping_add(1);
    let ack = bed.here(ACK);
    bed.say(ack).unwrap();
    assert_eq!(bed.only().payload, b"too many");
    bed.ack = bed.ack.wrapping_add(8);
    let ack = bed.here(ACK);
    bed.say(ack).unwrap();
    assert_eq!(bed.only().short(), (RST_ACK, bed.ack, bed.seq, 0));
    bed.is_over("reset");
}

#[test]
fn a_client_that_dies_before_the_node_answers_is_heard_out_before_the_reset() {
    let mut bed = Bed::new();
    let syn = bed.comes_in().remove(0);
    bed.conn().has.extend_from_slice(b"count 1");
    bed.conn().died = Some(Failure::Reset);
    bed.ready(S, Ready { readable: true, error: true, writable: true });
    bed.silent();
    bed.ack = syn.seq.wrapping_add(1);
    let answer = bed.here(SYN_ACK).options(&OPTIONS);
    bed.say(answer).unwrap();
    bed.seq = bed.seq.wrapping_add(1);
    assert_eq!(bed.only().payload, b"count 1");
    bed.ack = bed.ack.wrapping_add(7);
    let ack = bed.here(ACK);
    bed.say(ack).unwrap();
    assert_eq!(bed.only().short(), (RST_ACK, bed.ack, bed.seq, 0));
    bed.is_over("reset");
}

#[test]
fn an_error_that_was_none_changes_nothing() {
    let mut bed = Bed::open();
    bed.ready(S, Ready { error: true, ..Ready::default() });
    bed.silent();
    assert_eq!(bed.state(), Some(State::Open));
}

#[test]
fn a_silent_inside_is_asked_after_two_hours_and_given_up_in_the_end() {
    let mut bed = Bed::open();
    let probe = |bed: &Bed| (ACK, bed.ack.wrapping_sub(1), bed.seq, 0);
    assert_eq!(bed.wait(), Duration::from_secs(7200));
    assert_eq!(bed.only().short(), probe(&bed));
    let alive = bed.here(ACK);
    bed.say(alive).unwrap();
    assert_eq!(bed.wait(), Duration::from_secs(7200));
    for _ in 0..8 {
        assert_eq!(bed.only().short(), probe(&bed));
        assert_eq!(bed.wait(), Duration::from_secs(75));
    }
    assert_eq!(bed.only().short(), probe(&bed));
    assert_eq!(bed.wait(), Duration::from_secs(75));
    assert_eq!(bed.only().flags, RST_ACK);
    bed.is_over("reset");
}

#[test]
fn whoever_is_asked_late_has_as_long_to_answer_as_always() {
    let mut bed = Bed::open();
    // As if nothing had run for half a day.
    bed.now = bed.now + Duration::from_secs(12 * 3600);
    bed.step(|tcp, desk| tcp.handle_timeout(desk));
    assert_eq!(bed.only().flags, ACK);
    assert_eq!(bed.wait(), Duration::from_secs(75));
    assert_eq!(bed.only().flags, ACK);
}

#[test]
fn an_idle_connection_has_one_deadline_far_away() {
    let mut bed = Bed::open();
    bed.arrives(b"abc");
    bed.heard();
    bed.ack = bed.ack.wrapping_add(3);
    let ack = bed.here(ACK);
    bed.say(ack).unwrap();
    bed.pass(Duration::from_secs(2));
    assert!(bed.tcp.next_timeout().unwrap() > bed.now + Duration::from_secs(7000));
}

#[test]
fn what_came_in_by_a_publication_ends_with_it_and_nothing_else() {
    let mut bed = Bed::open();
    bed.outside.set_port(4000);
    let syn = bed.comes_in().remove(0);
    bed.tcp.end(Ending::Publication(PublicationId(6)));
    assert!(bed.tcp.next_timeout().unwrap() > bed.now);
    bed.tcp.end(Ending::Publication(PublicationId(5)));
    assert!(!bed.tcp.has(ZONE, bed.inside, bed.outside));
    assert_eq!(bed.tcp.next_timeout(), Some(Time::ZERO));
    bed.wait();
    assert_eq!(bed.only().short(), (RST, syn.seq.wrapping_add(1), 0, 0));
    assert_eq!(bed.tcp.len(), 1);
    assert_eq!(bed.conn().gone, None);
    assert_eq!(bed.host.conns[&SocketId(2)].gone, Some("reset"));
}

#[test]
fn what_an_address_had_ends_with_it() {
    let mut bed = Bed::open();
    bed.tcp.end(Ending::Address(Zone(1), bed.inside.ip()));
    bed.tcp.end(Ending::Address(ZONE, bed.outside.ip()));
    assert!(bed.tcp.has(ZONE, bed.inside, bed.outside));
    bed.tcp.end(Ending::Address(ZONE, bed.inside.ip()));
    // Somebody else has the address already.
    let syn = seg(SYN, 5, 0);
    bed.say(syn).unwrap();
    assert_eq!(bed.only().flags, RST_ACK);
    assert_eq!(bed.host.conns[&S].gone, Some("reset"));
    assert_eq!(bed.state(), Some(State::Connecting));
}

#[test]
fn what_a_node_had_finished_saying_is_delivered_though_the_node_goes() {
    let mut bed = Bed::open();
    let fin = bed.here(FIN | ACK);
    bed.say(fin).unwrap();
    bed.heard();
    bed.tcp.end(Ending::Address(ZONE, bed.inside.ip()));
    bed.wait();
    assert_eq!(bed.only().flags, RST_ACK);
    bed.is_over("closed");
}

#[test]
fn flows_are_small() {
    assert!(size_of::<Flow>() < 320, "{} bytes", size_of::<Flow>());
}

#[test]
fn a_failed_end_of_stream_resets_the_inside() {
    let mut bed = Bed::open();
    bed.conn().ended = true;
    bed.conn().died = Some(Failure::Reset);
    bed.readable();
    assert_eq!(bed.only().flags, RST_ACK);
    bed.is_over("reset");
}

#[test]
fn a_reset_that_finds_no_room_is_said_in_another_turn() {
    let mut bed = Bed::open();
    bed.rooms.room = 0;
    bed.conn().sends.push_back(Err(Failure::Reset));
    let data = bed.here(ACK).with(b"abc");
    bed.say(data).unwrap();
    for _ in 0..3 {
        assert_eq!(bed.wait(), Duration::from_nanos(1));
        bed.silent();
    }
    bed.rooms.room = 1;
    bed.wait();
    assert_eq!(bed.only().flags, RST_ACK);
    bed.is_over("reset");
}

#[test]
fn an_answer_that_finds_no_room_is_given_soon() {
    let mut bed = Bed::asked(&OPTIONS);
    bed.rooms.room = 0;
    bed.conn().made = Some(Ok(()));
    bed.writable();
    assert_eq!(bed.wait(), Duration::from_millis(1));
    bed.silent();
    bed.rooms.room = 1;
    assert_eq!(bed.wait(), Duration::from_millis(1));
    assert_eq!(bed.only().flags, SYN_ACK);
}

/// A connection that the outside has closed first, and then the inside.
fn closed_by_the_outside(bed: &mut Bed, port: u16) {
    bed.inside.set_port(port);
    (bed.seq, bed.ack) = (ISN, 0);
    let syn = bed.comes_in().remove(0);
    bed.ack = syn.seq.wrapping_add(1);
    let answer = bed.here(SYN_ACK);
    bed.say(answer).unwrap();
    bed.seq = bed.seq.wrapping_add(1);
    assert_eq!(bed.only().flags, ACK);
    let socket = SocketId(bed.host.conns.len() as u64);
    bed.host.conn(socket).ended = true;
    bed.ready(socket, Ready { readable: true, ..Ready::default() });
    assert_eq!(bed.only().flags, FIN_ACK);
    bed.ack = bed.ack.wrapping_add(1);
    bed.finishes();
    assert_eq!(bed.only().short(), (ACK, bed.ack, bed.seq, 0));
    assert_eq!(bed.host.conns[&socket].gone, Some("closed"));
}

#[test]
fn what_is_only_remembered_keeps_nobody_from_having_a_socket() {
    let mut bed = Bed::limited(Limits { flows: 3, owner_flows: 3 });
    bed.inside.set_port(80);
    bed.comes_in();
    for port in 81..101 {
        closed_by_the_outside(&mut bed, port);
    }
    assert_eq!(bed.host.conns[&SocketId(1)].gone, None, "half open, and never in the way");
    let inside: Vec<u16> =
        bed.tcp.flows.iter().flatten().map(|flow| flow.key.inside.port()).collect();
    assert_eq!(inside.len(), 4, "as many are remembered as may be in use: {inside:?}");
    for port in [80, 98, 99, 100] {
        assert!(inside.contains(&port), "the latest are: {inside:?}");
    }
    bed.pass(Duration::from_secs(120));
    assert_eq!(bed.tcp.len(), 0, "all end in time");
}

#[test]
fn what_is_half_closed_or_half_dead_gives_way_before_what_is_whole() {
    for how in ["outside", "inside", "dead"] {
        let mut bed = Bed::limited(Limits { flows: 2, owner_flows: 2 });
        bed.ask(&OPTIONS);
        bed.establish();
        let whole = (bed.inside, bed.outside);
        bed.outside.set_port(81);
        bed.seq = ISN;
        bed.ask(&OPTIONS);
        let socket = SocketId(2);
        bed.host.conn(socket).made = Some(Ok(()));
        bed.ready(socket, Ready { writable: true, ..Ready::default() });
        let answer = bed.only();
        (bed.seq, bed.ack) = (answer.ack, answer.seq.wrapping_add(1));
        let ack = bed.here(ACK);
        bed.say(ack).unwrap();
        match how {
            "inside" => bed.finishes(),
            "outside" => bed.host.conn(socket).ended = true,
            _ => {
                bed.host.conn(socket).has.push(1);
                bed.host.conn(socket).died = Some(Failure::Reset);
            }
        }
        bed.ready(socket, Ready { readable: true, error: true, ..Ready::default() });
        bed.heard();
        bed.outside.set_port(82);
        bed.say(seg(SYN, 5, 0)).unwrap();
        // What the inside had finished saying is still delivered.
        let end = if how == "inside" { "closed" } else { "reset" };
        assert_eq!(bed.host.conns[&socket].gone, Some(end), "{how}");
        assert!(bed.tcp.has(ZONE, whole.0, whole.1));
    }
}
