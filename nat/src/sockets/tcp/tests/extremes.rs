//! The ends of what numbers and options can say, and guests that lie.

use super::*;

impl Bed {
    /// A connection whose numbers towards the inside wrap around behind so many bytes.
    fn wrapping(behind: u32) -> Bed {
        let mut probe = Bed::asked(&OPTIONS);
        let iss = probe.connect().seq;
        let mut bed = Bed::new();
        // The first number counts by the clock, once in 4 microseconds.
        let more = 0u32.wrapping_sub(behind).wrapping_sub(1).wrapping_sub(iss);
        bed.now = Time(bed.now.0 + u64::from(more) * 4000);
        bed.ask(&OPTIONS);
        bed.establish();
        assert_eq!(bed.ack, 0u32.wrapping_sub(behind));
        bed
    }
}

#[test]
fn numbers_towards_the_inside_wrap_around_through_losses_and_up_to_the_end() {
    let data = bytes(100_000);
    for behind in [0, 1, 1460, 30_000, 99_999, 100_000] {
        let mut bed = Bed::wrapping(behind);
        let start = bed.ack;
        bed.arrives(&data);
        bed.ends();
        let (mut has, mut turns) = (0, 0);
        while bed.state() == Some(State::Open) {
            for (n, said) in bed.heard().into_iter().enumerate() {
                let at = said.seq.wrapping_sub(start) as usize;
                let payload = &said.payload;
                assert_eq!(data.get(at..at + payload.len()), Some(&payload[..]));
                // Of the first few turns, the first frame is lost.
                if (turns > 5 || n > 0) && at <= has {
                    has = has.max(at + payload.len() + usize::from(said.flags & FIN != 0));
                }
            }
            bed.ack = start.wrapping_add(has as u32);
            let ack = bed.here(ACK);
            bed.batch(&vec![ack; 4]);
            if has > data.len() {
                bed.heard();
                break;
            }
            if bed.rooms.made.is_empty() {
                bed.wait();
            }
            turns += 1;
            assert!(turns < 100, "it goes on: {has}");
        }
        assert_eq!((bed.conn().discarded, has), (data.len(), data.len() + 1));
    }
}

#[test]
fn any_segment_size_that_is_asked_for_leads_to_one_that_can_be() {
    let sizes = [(0, 8), (1, 8), (7, 8), (9, 9), (1460, 1460), (1461, 1460), (u16::MAX, 1460)];
    for (asked, taken) in sizes {
        let [a, b] = asked.to_be_bytes();
        let mut bed = Bed::asked(&[2, 4, a, b, 1, 3, 3, 7]);
        bed.establish();
        bed.arrives(&bytes(taken * 3));
        let first = bed.heard().remove(0);
        assert_eq!((first.payload.len(), first.gso), (taken * 3, Some(taken as u16)), "{asked}");
    }
}

#[test]
fn a_window_scale_beyond_the_largest_counts_as_that() {
    for shift in [14, 15, 255] {
        let mut bed = Bed::asked(&[2, 4, 0x05, 0xb4, 1, 3, 3, shift]);
        bed.establish();
        bed.say(seg(ACK, bed.seq, bed.ack).window(u16::MAX)).unwrap();
        let flow = bed.tcp.flows[0].as_ref().unwrap();
        assert_eq!(flow.window, u32::from(u16::MAX) << 14);
        bed.arrives(&bytes(100_000));
        assert_eq!(bed.heard().iter().map(|seg| seg.payload.len()).sum::<usize>(), 100_000);
    }
}

#[test]
fn selective_acknowledgements_that_lie_have_nothing_sent_more_than_twice() {
    let mut bed = Bed::asked(&PERMITS);
    bed.establish();
    bed.arrives(&bytes(50_000));
    let before: usize = bed.heard().iter().map(|seg| seg.payload.len()).sum();
    assert_eq!(before, 50_000);
    for (from, to) in [(30_000, 50_000u32), (49_999, 60_000), (50_000, 1 << 30), (60_000, 70_000)] {
        let mut options = vec![1, 1, 5, 10];
        options.extend(bed.ack.wrapping_add(from).to_be_bytes());
        options.extend(bed.ack.wrapping_add(to).to_be_bytes());
        let lie = bed.here(ACK).options(&options);
        bed.batch(&vec![lie; 60]);
    }
    let again: usize = bed.heard().iter().map(|seg| seg.payload.len()).sum();
    assert!(again <= 50_000, "{again}");
    bed.ack = bed.ack.wrapping_add(50_000);
    let ack = bed.here(ACK);
    bed.say(ack).unwrap();
    assert_eq!(bed.conn().discarded, 50_000);
}

#[test]
fn an_inside_that_asks_for_ever_more_connections_has_only_so_many() {
    let mut bed = Bed::limited(Limits { flows: 100, owner_flows: 40 });
    for n in 0..10_000u32 {
        bed.inside.set_port(1024 + (n % 50_000) as u16);
        let syn = seg(SYN, n, 0).options(&OPTIONS);
        bed.say(syn).unwrap();
        assert!(bed.tcp.len() <= 40 && bed.tcp.flows.len() <= 41);
        bed.heard();
        bed.rooms.packets.clear();
    }
    let live = bed.host.conns.values().filter(|conn| conn.gone.is_none()).count();
    assert_eq!(live, 40);
}

#[test]
fn windows_of_one_byte_have_as_many_segments_sent_as_acknowledgements_come() {
    let mut bed = Bed::asked(&[2, 4, 0x05, 0xb4]);
    let answer = bed.connect();
    bed.seq = answer.ack;
    bed.ack = answer.seq.wrapping_add(1);
    bed.say(seg(ACK, bed.seq, bed.ack).window(u16::MAX)).unwrap();
    bed.say(seg(ACK, bed.seq, bed.ack).window(1)).unwrap();
    bed.arrives(&bytes(1000));
    for n in 0..5 {
        bed.silent();
        assert_eq!(bed.wait(), Duration::from_millis(200));
        assert_eq!(bed.only().payload, bytes(1000)[n..=n], "a small part only when nothing helps");
        bed.ack = bed.ack.wrapping_add(1);
        bed.say(seg(ACK, bed.seq, bed.ack).window(1)).unwrap();
    }
}
