use super::*;

impl Bed {
    /// The inside acknowledges so many bytes more.
    fn acknowledges(&mut self, count: u32) {
        self.ack = self.ack.wrapping_add(count);
        let ack = self.here(ACK);
        self.say(ack).unwrap();
    }

    /// As [`Bed::open`], the inside's window being so many bytes.
    fn open_with_window(window: u16) -> Bed {
        let mut bed = Bed::asked(&[2, 4, 0x05, 0xb4]);
        let answer = bed.connect();
        bed.seq = answer.ack;
        bed.ack = answer.seq.wrapping_add(1);
        bed.say(seg(ACK, bed.seq, bed.ack).window(window)).unwrap();
        bed.silent();
        bed
    }

    /// The largest superframe's payload.
    fn superframe(&self) -> usize {
        (65_226 - 14 - 40) / 1460 * 1460
    }
}

#[test]
fn little_is_one_segment_and_is_discarded_when_acknowledged() {
    let mut bed = Bed::open();
    assert!(!bed.arrives(b"hello"));
    let hello = bed.only();
    assert_eq!(hello.short(), (ACK | PSH, bed.ack, bed.seq, 5));
    assert_eq!((&hello.payload[..], hello.gso), (&b"hello"[..], None));
    assert_eq!(bed.conn().discarded, 0);
    bed.acknowledges(2);
    assert_eq!(bed.conn().discarded, 2);
    assert!(!bed.arrives(b" you"));
    assert_eq!(bed.only().short(), (ACK | PSH, bed.ack.wrapping_add(3), bed.seq, 4));
    bed.acknowledges(7);
    assert_eq!(bed.conn().discarded, 9);
    assert_eq!(bed.conn().has, b"");
    bed.silent();
}

#[test]
fn much_goes_in_superframes_of_whole_segments() {
    let mut bed = Bed::open();
    let data = bytes(100_000);
    assert!(!bed.arrives(&data));
    let heard = bed.heard();
    let whole = bed.superframe();
    assert_eq!(heard[0].short(), (ACK, bed.ack, bed.seq, whole));
    let second = (ACK | PSH, bed.ack.wrapping_add(whole as u32), bed.seq, 100_000 - whole);
    assert_eq!(heard[1].short(), second);
    assert_eq!(heard.iter().map(|seg| seg.gso).collect::<Vec<_>>(), [Some(1460); 2]);
    let got = heard.into_iter().flat_map(|seg| seg.payload).collect::<Vec<_>>();
    assert_eq!(got, data);
}

#[test]
fn ipv6_superframes_fit_as_well() {
    let mut bed = Bed::six();
    bed.ask(&OPTIONS);
    bed.establish();
    bed.arrives(&bytes(100_000));
    let heard = bed.heard();
    // The network's own packets hold no more than 1440.
    assert_eq!((heard[0].payload.len(), heard[0].gso), (45 * 1440, Some(1440)));
}

#[test]
fn one_call_sends_a_few_superframes_and_says_that_there_are_more() {
    let mut bed = Bed::asked(&OPTIONS);
    let answer = bed.connect();
    bed.seq = answer.ack;
    bed.ack = answer.seq.wrapping_add(1);
    bed.say(seg(ACK, bed.seq, bed.ack).window(u16::MAX)).unwrap();
    assert!(bed.arrives(&bytes(400_000)));
    assert_eq!(bed.heard().len(), 4);
    assert!(!bed.ready(S, Ready::default()));
    assert_eq!(bed.heard().len(), 3);
}

#[test]
fn a_turn_without_room_is_tried_again_in_another() {
    let mut bed = Bed::open();
    bed.rooms.room = 1;
    assert!(bed.arrives(&bytes(100_000)));
    assert_eq!(bed.heard().len(), 1);
    bed.rooms.room = 0;
    bed.acknowledges(1460);
    assert_eq!(bed.tcp.next_timeout(), Some(bed.now + Duration::from_nanos(1)));
    bed.rooms.room = 10;
    bed.wait();
    assert_eq!(bed.heard().len(), 1);
}

#[test]
fn never_more_than_the_window_is_in_flight() {
    let mut bed = Bed::open_with_window(4000);
    bed.arrives(&bytes(10_000));
    assert_eq!(bed.only().short(), (ACK, bed.ack, bed.seq, 2920), "whole segments");
    bed.ack = bed.ack.wrapping_add(1460);
    bed.say(seg(ACK, bed.seq, bed.ack).window(4000)).unwrap();
    assert_eq!(bed.only().short(), (ACK, bed.ack.wrapping_add(1460), bed.seq, 1460));
    assert_eq!(bed.conn().discarded, 1460);
}

#[test]
fn a_window_of_half_the_largest_is_used_though_smaller_than_a_segment() {
    let mut bed = Bed::open_with_window(1000);
    bed.arrives(&bytes(10_000));
    assert_eq!(bed.only().payload.len(), 1000);
    bed.ack = bed.ack.wrapping_add(1000);
    bed.say(seg(ACK, bed.seq, bed.ack).window(499)).unwrap();
    bed.silent();
    bed.say(seg(ACK, bed.seq, bed.ack).window(500)).unwrap();
    assert_eq!(bed.only().payload.len(), 500);
}

#[test]
fn a_small_window_is_used_where_it_suffices() {
    let mut bed = Bed::open_with_window(10_000);
    bed.arrives(b"abc");
    bed.heard();
    bed.ack = bed.ack.wrapping_add(3);
    bed.say(seg(ACK, bed.seq, bed.ack).window(10)).unwrap();
    bed.arrives(b"tiny");
    assert_eq!(bed.only().payload, b"tiny");
}

#[test]
fn a_small_window_is_used_after_a_while() {
    let mut bed = Bed::open_with_window(10_000);
    bed.say(seg(ACK, bed.seq, bed.ack).window(10)).unwrap();
    bed.arrives(&bytes(100));
    bed.silent();
    assert_eq!(bed.wait(), Duration::from_millis(200));
    assert_eq!(bed.only().payload, bytes(10));
}

#[test]
fn a_closed_window_is_asked_about_for_ever_less_often_and_without_end() {
    let mut bed = Bed::open_with_window(0);
    bed.arrives(b"abc");
    bed.silent();
    let mut waits = Vec::new();
    for _ in 0..12 {
        waits.push(bed.wait().as_millis());
        let (seq, ack) = (bed.ack.wrapping_sub(1), bed.seq);
        assert_eq!(bed.only().short(), (ACK, seq, ack, 0));
    }
    let expected = [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 102_400, 120_000];
    assert_eq!(waits[..11], expected);
    for _ in 0..40 {
        bed.say(seg(ACK, bed.seq, bed.ack).window(0)).unwrap();
        assert_eq!(bed.wait(), Duration::from_secs(120), "whoever answers is not asked more often");
        bed.heard();
    }
    assert_eq!(bed.state(), Some(State::Open), "whoever answers is waited for");
    bed.say(seg(ACK, bed.seq, bed.ack).window(100)).unwrap();
    assert_eq!(bed.only().payload, b"abc");
}

#[test]
fn whoever_answers_that_its_window_is_closed_is_asked_ever_less_often_from_the_first_time_on() {
    // Closed before anything is sent, and with something in flight.
    for (before, sent) in [(0, 0), (10_000, 3)] {
        let mut bed = Bed::open_with_window(before);
        bed.arrives(b"abc");
        assert_eq!(bed.heard().len(), usize::from(sent > 0));
        let mut waits = Vec::new();
        for _ in 0..11 {
            bed.say(seg(ACK, bed.seq, bed.ack).window(0)).unwrap();
            waits.push(bed.wait().as_millis());
            assert_eq!(bed.only().short(), (ACK, bed.ack.wrapping_sub(1), bed.seq, 0));
        }
        let expected = [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 102_400, 120_000];
        assert_eq!(waits, expected);
        // Once it opens and closes anew, the waits begin anew.
        bed.say(seg(ACK, bed.seq, bed.ack).window(100)).unwrap();
        assert_eq!(bed.only().payload, b"abc");
        bed.ack = bed.ack.wrapping_add(3);
        bed.say(seg(ACK, bed.seq, bed.ack).window(0)).unwrap();
        bed.arrives(b"def");
        assert_eq!(bed.wait(), Duration::from_millis(200));
    }
}

#[test]
fn an_outside_that_dies_resets_an_inside_whose_window_is_closed_once_all_was_sent() {
    let mut bed = Bed::open_with_window(10_000);
    bed.arrives(b"abc");
    bed.heard();
    bed.ack = bed.ack.wrapping_add(3);
    bed.say(seg(ACK, bed.seq, bed.ack).window(0)).unwrap();
    bed.conn().died = Some(Failure::Reset);
    bed.ready(S, Ready { readable: true, error: true, writable: true });
    bed.wait();
    assert_eq!(bed.only().short(), (RST_ACK, bed.ack, bed.seq, 0));
    bed.is_over("reset");
}

#[test]
fn a_fast_retransmission_that_found_no_room_is_made_up_for_by_the_next_acknowledgement() {
    let mut bed = Bed::open();
    bed.arrives(&bytes(20_000));
    bed.heard();
    let same = bed.here(ACK);
    bed.batch(&[same.clone(), same.clone()]);
    bed.rooms.room = 0;
    bed.say(same.clone()).unwrap();
    bed.silent();
    bed.rooms.room = 1000;
    bed.say(same).unwrap();
    assert_eq!(bed.heard()[0].short(), (ACK, bed.ack, bed.seq, 1460));
}

#[test]
fn a_closed_window_that_nobody_speaks_of_ends_it() {
    let mut bed = Bed::open_with_window(0);
    bed.arrives(b"abc");
    for _ in 0..15 {
        bed.wait();
        assert_eq!(bed.only().flags, ACK);
    }
    bed.wait();
    assert_eq!(bed.only().flags, RST_ACK);
    bed.is_over("reset");
}

#[test]
fn a_closed_window_matters_not_where_there_is_nothing_to_send() {
    let mut bed = Bed::open_with_window(0);
    bed.readable();
    bed.pass(Duration::from_secs(300));
    bed.silent();
}

#[test]
fn three_repeated_acknowledgements_send_the_oldest_segment_again() {
    let mut bed = Bed::open();
    let data = bytes(20_000);
    bed.arrives(&data);
    let first = bed.only();
    bed.acknowledges(1460);
    bed.silent();
    for _ in 0..2 {
        bed.acknowledges(0);
        bed.silent();
    }
    bed.acknowledges(0);
    let again = bed.only();
    assert_eq!(again.short(), (ACK, first.seq.wrapping_add(1460), bed.seq, 1460));
    assert_eq!(again.payload, data[1460..2920]);
    for _ in 0..3 {
        bed.acknowledges(0);
        bed.silent();
    }
    bed.acknowledges(18_540);
    bed.silent();
    assert_eq!(bed.conn().discarded, 20_000);
}

#[test]
fn what_is_acknowledged_only_in_part_after_that_is_sent_again_from_there() {
    let mut bed = Bed::open();
    let data = bytes(20_000);
    bed.arrives(&data);
    bed.heard();
    for _ in 0..4 {
        bed.acknowledges(0);
    }
    bed.heard();
    bed.acknowledges(1460);
    let again = bed.heard();
    assert_eq!(again[0].seq, bed.ack);
    let count = again.iter().map(|seg| seg.payload.len()).sum::<usize>();
    assert!(
        (1460..=11_460).contains(&count),
        "{count}: half of what was in flight, and what was acknowledged"
    );
    let mut all = data[..1460].to_vec();
    all.extend(again.iter().flat_map(|seg| seg.payload.clone()));
    while all.len() < data.len() {
        let done = bed.conn().discarded;
        bed.acknowledges((all.len() - done) as u32);
        all.extend(bed.heard().iter().flat_map(|seg| seg.payload.clone()));
    }
    assert_eq!(all, data);
}

#[test]
fn a_repeated_acknowledgement_with_payload_or_another_window_tells_no_loss() {
    let mut bed = Bed::open();
    bed.arrives(&bytes(20_000));
    bed.heard();
    for n in 0..5 {
        let data = bed.here(ACK).with(b"x");
        bed.say(data).unwrap();
        bed.seq = bed.seq.wrapping_add(1);
        bed.say(seg(ACK, bed.seq, bed.ack).window(1001 + n)).unwrap();
    }
    assert!(bed.heard().iter().all(|seg| seg.payload.is_empty()));
}

#[test]
fn what_is_not_acknowledged_is_sent_again_ever_more_slowly_and_then_reset() {
    let mut bed = Bed::open();
    bed.arrives(b"abc");
    let first = bed.only();
    let mut waits = Vec::new();
    for _ in 0..15 {
        waits.push(bed.wait().as_millis());
        assert_eq!(bed.only(), first);
    }
    let expected = [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 102_400, 120_000];
    assert_eq!(waits[..11], expected);
    assert_eq!(waits[11..], [120_000; 4]);
    bed.wait();
    assert_eq!(bed.only().flags, RST_ACK);
    bed.is_over("reset");
}

#[test]
fn after_a_timeout_little_is_sent_at_first_and_then_more() {
    let mut bed = Bed::open();
    let data = bytes(60_000);
    bed.arrives(&data);
    bed.heard();
    bed.wait();
    assert_eq!(bed.only().payload, data[..4 * 1460]);
    bed.acknowledges(4 * 1460);
    assert_eq!(bed.only().payload, data[4 * 1460..12 * 1460]);
    bed.acknowledges(8 * 1460);
    assert_eq!(bed.only().payload, data[12 * 1460..28 * 1460]);
    // The rest had come the first time.
    bed.acknowledges(60_000 - 12 * 1460);
    bed.silent();
    assert_eq!(bed.conn().discarded, 60_000);
    bed.pass(Duration::from_secs(10));
    bed.silent();
}

#[test]
fn an_acknowledgement_of_what_was_sent_before_going_back_counts() {
    let mut bed = Bed::open();
    bed.arrives(&bytes(60_000));
    bed.heard();
    bed.wait();
    bed.heard();
    bed.acknowledges(60_000);
    bed.silent();
    assert!(!bed.arrives(b"more"));
    assert_eq!(bed.only().payload, b"more");
}

#[test]
fn the_wait_follows_the_round_trip() {
    let mut bed = Bed::open();
    for _ in 0..20 {
        bed.arrives(b"abc");
        bed.heard();
        bed.pass(Duration::from_millis(150));
        assert_eq!(bed.heard().len(), 0);
        bed.acknowledges(3);
    }
    bed.arrives(b"abc");
    let wait = bed.wait().as_millis();
    assert!((200..300).contains(&wait), "{wait} ms");
    let mut slow = Bed::asked(&OPTIONS);
    let answer = slow.connect();
    slow.pass(Duration::from_millis(800));
    slow.seq = answer.ack;
    slow.ack = answer.seq.wrapping_add(1);
    slow.acknowledges(0);
    slow.arrives(b"abc");
    assert_eq!(slow.wait().as_millis(), 800 * 3);
}

#[test]
fn bytes_that_were_sent_again_measure_nothing() {
    let mut bed = Bed::open();
    bed.arrives(b"abc");
    bed.pass(Duration::from_millis(250));
    bed.acknowledges(3);
    bed.heard();
    bed.arrives(b"def");
    assert_eq!(bed.wait(), Duration::from_millis(200));
}

#[test]
fn a_lost_frame_for_nobody_is_counted_and_does_not_spin() {
    let mut bed = Bed::open();
    bed.rooms.absent.push(bed.inside.ip());
    assert!(!bed.arrives(b"abc"));
    assert_eq!(bed.rooms.lost, [(ZONE, bed.inside.ip(), Lost::NoNeighbor, 1)]);
    assert!(bed.tcp.next_timeout().unwrap() >= bed.now + Duration::from_millis(200));
    bed.pass(Duration::from_secs(3600));
    bed.is_over("reset");
}

#[test]
fn a_packet_too_big_for_the_inside_lowers_the_segment_size() {
    let mut bed = Bed::open();
    let data = bytes(4000);
    bed.arrives(&data);
    let first = bed.only();
    let ends = (bed.outside, bed.inside);
    let complain = |bed: &mut Bed, seq, mtu| {
        let what = Objection::TooBig(mtu);
        bed.step(|tcp, desk| tcp.complaint(ZONE, ends, seq, what, desk))
    };
    assert_eq!(complain(&mut bed, first.seq.wrapping_sub(1), 1000), Err(Lost::NoFlow));
    assert_eq!(complain(&mut bed, first.seq.wrapping_add(4000), 1000), Err(Lost::NoFlow));
    complain(&mut bed, first.seq, 1500).unwrap();
    bed.silent();
    complain(&mut bed, first.seq, 1000).unwrap();
    let again = bed.heard();
    assert!(again.iter().all(|seg| seg.gso == Some(960)));
    assert_eq!(again.iter().flat_map(|seg| seg.payload.clone()).collect::<Vec<_>>(), data);
    // Not below what everybody must take.
    complain(&mut bed, first.seq, 0).unwrap();
    assert_eq!(bed.heard()[0].gso, Some(512));
}

#[test]
fn a_small_segment_size_makes_small_segments() {
    let mut bed = Bed::asked(&[2, 4, 0, 1]);
    bed.establish();
    bed.say(seg(ACK, bed.seq, bed.ack).window(u16::MAX)).unwrap();
    bed.arrives(&bytes(9000));
    let heard = bed.heard();
    assert_eq!((heard[0].payload.len(), heard[0].gso), (8192, Some(8)));
    assert_eq!(heard[1].payload.len(), 808);
}

#[test]
fn a_guest_that_shrinks_its_window_gets_no_more() {
    let mut bed = Bed::open_with_window(10_000);
    bed.arrives(&bytes(20_000));
    bed.heard();
    bed.say(seg(ACK, bed.seq, bed.ack).window(0)).unwrap();
    bed.wait();
    let (seq, ack) = (bed.ack.wrapping_sub(1), bed.seq);
    assert_eq!(bed.only().short(), (ACK, seq, ack, 0));
    bed.say(seg(ACK, bed.seq, bed.ack).window(3000)).unwrap();
    assert_eq!(bed.only().payload, bytes(20_000)[..2920]);
}

#[test]
fn both_directions_at_once_need_no_bare_acknowledgement() {
    let mut bed = Bed::open();
    bed.arrives(b"one");
    bed.heard();
    bed.host.conn(S).has.extend_from_slice(b"two");
    bed.tcp.flows[0].as_mut().unwrap().may_read = true;
    let data = bed.here(ACK).with(b"abc");
    bed.say(data).unwrap();
    let two = bed.only();
    assert_eq!((&two.payload[..], two.ack), (&b"two"[..], bed.seq.wrapping_add(3)));
}

#[test]
fn an_old_window_does_not_replace_a_newer_one() {
    let mut bed = Bed::open_with_window(5000);
    let old = seg(ACK, bed.seq, bed.ack).window(1);
    let data = seg(ACK, bed.seq, bed.ack).window(4000).with(b"abc");
    bed.say(data).unwrap();
    bed.seq = bed.seq.wrapping_add(3);
    let _ = bed.say(old);
    bed.heard();
    bed.arrives(&bytes(3000));
    assert_eq!(bed.heard().iter().map(|seg| seg.payload.len()).collect::<Vec<_>>(), [2920, 80]);
}

#[test]
fn payload_that_found_no_room_is_not_lost_but_an_acknowledgement_is_and_comes_later() {
    let mut bed = Bed::open();
    bed.rooms.room = 0;
    assert!(bed.arrives(b"abc"));
    assert_eq!(bed.rooms.lost, []);
    bed.rooms.room = 10;
    assert!(!bed.ready(S, Ready::default()));
    assert_eq!(bed.only().payload, b"abc");
    bed.rooms.room = 0;
    let data = bed.here(ACK).with(b"def");
    bed.say(data).unwrap();
    assert_eq!(bed.rooms.lost, [(ZONE, bed.inside.ip(), Lost::NoRoom, 1)]);
    bed.rooms.room = 10;
    assert_eq!(bed.wait(), Duration::from_nanos(1));
    assert_eq!(bed.only().ack, bed.seq.wrapping_add(3));
}

#[test]
fn a_network_of_the_largest_packets_gets_none_that_are_larger_than_a_slot() {
    let mut bed = Bed::new();
    bed.rooms.mtu = 65_520;
    bed.ask(&[2, 4, 0xff, 0xc8, 3, 3, 7, 0]);
    bed.establish();
    bed.arrives(&bytes(100_000));
    let heard = bed.heard();
    assert_eq!((heard[0].payload.len(), heard[0].gso), (65_226 - 14 - 40, None));
    assert_eq!(heard[1].payload.len(), 100_000 - heard[0].payload.len());
}

#[test]
fn a_host_out_of_memory_is_asked_again_later() {
    let mut bed = Bed::open();
    bed.conn().peeks.push_back(Failure::NoBuffers);
    assert!(!bed.arrives(b"abc"));
    bed.silent();
    bed.wait();
    assert_eq!(bed.only().payload, b"abc");
}
