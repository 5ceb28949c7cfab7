//! What comes too early, and what is acknowledged of it.

use super::*;
use crate::sockets::tcp::reorder::{FLOW_MAX, RANGES_MAX};

impl Bed {
    /// As [`Bed::open`], with selective acknowledgements.
    fn selective() -> Bed {
        let mut bed = Bed::asked(&PERMITS);
        bed.establish();
        bed
    }

    /// A stretch of the inside's stream, by its places.
    fn part(&self, from: usize, to: usize) -> Seg {
        let at = self.seq.wrapping_add(from as u32);
        seg(ACK, at, self.ack).with(&bytes(to)[from..])
    }

    /// What a segment acknowledges, and what selectively, by places.
    fn told(&self, seg: &Seg) -> (usize, Vec<(usize, usize)>) {
        let place = |number: u32| number.wrapping_sub(self.seq) as i32 as usize;
        let blocks = match &seg.options[..] {
            [] => &[],
            [1, 1, 5, len, blocks @ ..] => {
                assert_eq!(usize::from(*len), 2 + blocks.len());
                blocks
            }
            other => panic!("what options: {other:?}"),
        };
        let numbers: Vec<usize> = blocks
            .chunks(4)
            .map(|number| place(u32::from_be_bytes(number.try_into().unwrap())))
            .collect();
        (place(seg.ack), numbers.chunks(2).map(|range| (range[0], range[1])).collect())
    }

    /// As [`Bed::told`], of all that was said since.
    fn all_told(&mut self) -> Vec<(usize, Vec<(usize, usize)>)> {
        let heard = self.heard();
        heard.iter().map(|seg| self.told(seg)).collect()
    }

    /// What the guest says it has, by places of the outside's stream, of which it has acknowledged all before `bed.ack`.
    fn has(&mut self, ranges: &[(u32, u32)]) {
        let mut options = vec![1, 1, 5, 2 + 8 * ranges.len() as u8];
        for (from, to) in ranges {
            options.extend(self.ack.wrapping_add(*from).to_be_bytes());
            options.extend(self.ack.wrapping_add(*to).to_be_bytes());
        }
        let ack = self.here(ACK).options(&options);
        self.say(ack).unwrap();
    }
}

#[test]
fn selective_acknowledgements_are_offered_and_answered_where_they_are_asked_for() {
    let mut bed = Bed::asked(&PERMITS);
    assert_eq!(bed.connect().options, [2, 4, 0x05, 0xb4, 1, 3, 3, flow::SCALE, 1, 1, 4, 2]);
    let mut bed = Bed::asked(&OPTIONS);
    assert_eq!(bed.connect().options, [2, 4, 0x05, 0xb4, 1, 3, 3, flow::SCALE]);
    let mut bed = Bed::new();
    let syn = bed.comes_in().remove(0);
    bed.ack = syn.seq.wrapping_add(1);
    let answer = bed.here(SYN_ACK).options(&PERMITS);
    bed.say(answer).unwrap();
    bed.heard();
    bed.seq = bed.seq.wrapping_add(1);
    bed.say(bed.part(10, 20)).unwrap();
    assert_eq!(bed.all_told(), [(0, vec![(10, 20)])]);
}

#[test]
fn what_is_early_within_a_batch_is_not_held_and_not_spoken_of() {
    let mut bed = Bed::selective();
    let parts = [(1000, 2000), (3000, 4000), (0, 1000), (2000, 3000), (4000, 5000)];
    bed.batch(&parts.map(|(from, to)| bed.part(from, to)));
    assert_eq!(bed.conn().got, bytes(5000));
    assert_eq!(bed.conn().calls, 1);
    assert_eq!(bed.all_told(), [(5000, vec![])]);
    assert!(bed.tcp.flows[0].as_ref().unwrap().early.is_none());
}

#[test]
fn what_is_early_is_held_told_of_at_once_each_time_and_delivered_with_what_precedes_it() {
    for selective in [false, true] {
        let mut bed = if selective { Bed::selective() } else { Bed::open() };
        let blocks = |blocks: &[(usize, usize)]| if selective { blocks.to_vec() } else { vec![] };
        bed.batch(&[bed.part(1000, 2000), bed.part(4000, 5000)]);
        assert_eq!(bed.all_told(), vec![(0, blocks(&[(4000, 5000), (1000, 2000)])); 2]);
        bed.say(bed.part(2000, 3000)).unwrap();
        assert_eq!(bed.all_told(), [(0, blocks(&[(1000, 3000), (4000, 5000)]))]);
        assert_eq!((bed.conn().calls, bed.tcp.stock.all()), (0, 3000));
        bed.say(bed.part(0, 1000)).unwrap();
        assert_eq!(bed.all_told(), [(3000, blocks(&[(4000, 5000)]))]);
        assert_eq!((bed.conn().calls, bed.tcp.stock.all()), (1, 1000));
        bed.batch(&[bed.part(5000, 6000), bed.part(3000, 4000)]);
        assert_eq!(bed.conn().got, bytes(6000));
        assert_eq!(bed.all_told(), [(6000, vec![])]);
        assert_eq!((bed.conn().calls, bed.tcp.stock.all()), (2, 0));
        assert!(bed.tcp.flows[0].as_ref().unwrap().early.is_none());
    }
}

#[test]
fn a_superframe_that_is_early_asks_for_what_is_missing_at_once_of_whoever_only_counts() {
    let mut bed = Bed::open();
    bed.say(bed.part(10_000, 40_000)).unwrap();
    assert_eq!(bed.heard().len(), 3, "no more than it takes to be believed");
    let mut bed = Bed::selective();
    bed.say(bed.part(10_000, 40_000)).unwrap();
    assert_eq!(bed.heard().len(), 1);
}

#[test]
fn what_comes_late_shrinks_no_window() {
    let mut bed = Bed::selective();
    bed.say(bed.part(0, 10)).unwrap();
    let edge = |seg: &Seg| seg.ack.wrapping_add(u32::from(seg.window) << flow::SCALE);
    let before = edge(&bed.only());
    let frames = bed.tcp.flows[0].as_ref().unwrap().frames;
    for n in 0..20 {
        let at = 10 + n * 300;
        bed.batch(&[bed.part(at + 100, at + 200), bed.part(at + 200, at + 300)]);
        assert!(bed.heard().iter().all(|seg| before.wrapping_sub(edge(seg)) as i32 <= 255));
        bed.say(bed.part(at, at + 100)).unwrap();
        assert!(before.wrapping_sub(edge(&bed.only())) as i32 <= 255);
    }
    assert_eq!(bed.tcp.flows[0].as_ref().unwrap().frames, frames);
    assert_eq!(bed.conn().got, bytes(6010));
}

#[test]
fn what_came_again_is_told_once() {
    let mut bed = Bed::selective();
    bed.say(bed.part(0, 1000)).unwrap();
    bed.heard();
    bed.say(bed.part(0, 1000)).unwrap();
    assert_eq!(bed.all_told(), [(1000, vec![(0, 1000)])]);
    bed.say(bed.part(500, 1500)).unwrap();
    assert_eq!(bed.all_told(), [(1500, vec![(500, 1000)])]);
    bed.say(bed.part(2000, 3000)).unwrap();
    assert_eq!(bed.all_told(), [(1500, vec![(2000, 3000)])]);
    bed.say(bed.part(2100, 2200)).unwrap();
    assert_eq!(bed.all_told(), [(1500, vec![(2100, 2200), (2000, 3000)])]);
    bed.say(bed.part(1500, 2000)).unwrap();
    assert_eq!(bed.all_told(), [(3000, vec![])]);
    assert_eq!(bed.conn().got, bytes(3000));
    let mut bed = Bed::open();
    bed.batch(&[bed.part(0, 10), bed.part(0, 10)]);
    assert!(bed.all_told().iter().all(|told| told.1.is_empty()), "only where it is permitted");
}

#[test]
fn what_is_early_stays_so_though_something_is_said_within_the_batch() {
    let mut bed = Bed::selective();
    let far = seg(ACK, bed.seq.wrapping_add(1 << 20), bed.ack);
    bed.batch(&[bed.part(100, 200), far]);
    assert_eq!(bed.conn().got, b"");
    bed.say(bed.part(0, 100)).unwrap();
    assert_eq!(bed.conn().got, bytes(200));
}

#[test]
fn an_early_fin_is_remembered() {
    let mut bed = Bed::selective();
    let last = Seg { flags: FIN_ACK, ..bed.part(1000, 2000) };
    bed.say(last).unwrap();
    assert_eq!(bed.all_told(), [(0, vec![(1000, 2000)])]);
    assert!(!bed.conn().finished);
    bed.say(bed.part(0, 1000)).unwrap();
    assert!(bed.conn().finished);
    assert_eq!(bed.all_told(), [(2001, vec![])]);
    let mut bed = Bed::selective();
    let last = Seg { flags: FIN_ACK, ..bed.part(1000, 1000) };
    bed.say(last).unwrap();
    assert_eq!(bed.all_told(), [(0, vec![])]);
    bed.batch(&[bed.part(0, 1000), bed.part(1000, 1500)]);
    assert!(!bed.conn().finished, "the stream goes on behind the end that was said");
    assert_eq!(bed.conn().got, bytes(1500));
}

#[test]
fn what_the_host_does_not_take_of_what_is_held_stays_and_goes_when_it_can() {
    let mut bed = Bed::selective();
    bed.say(bed.part(1000, 3000)).unwrap();
    bed.heard();
    bed.conn().sends.push_back(Ok(1500));
    bed.conn().room.bytes = 0;
    bed.say(bed.part(0, 1000)).unwrap();
    let heard = bed.all_told();
    assert!(heard.iter().all(|told| *told == (1500, vec![])), "{heard:?}");
    assert_eq!(bed.tcp.stock.all(), 1500);
    bed.conn().room.bytes = 64_000;
    bed.writable();
    assert_eq!(bed.conn().got, bytes(3000));
    assert_eq!(bed.all_told().last(), Some(&(3000, vec![])));
    assert_eq!(bed.tcp.stock.all(), 0);
}

#[test]
fn nothing_is_held_of_a_connection_that_is_over_or_has_died() {
    let mut bed = Bed::selective();
    bed.say(bed.part(1000, 2000)).unwrap();
    bed.say(seg(RST, bed.seq, bed.ack)).unwrap();
    assert_eq!((bed.tcp.len(), bed.tcp.stock.all()), (0, 0));
    let mut bed = Bed::selective();
    bed.say(bed.part(1000, 2000)).unwrap();
    bed.conn().sends.push_back(Err(Failure::Reset));
    bed.say(bed.part(0, 1000)).unwrap();
    assert_eq!((bed.tcp.len(), bed.tcp.stock.all()), (0, 0));
}

#[test]
fn what_finds_no_room_to_be_held_is_counted_as_lost() {
    let mut bed = Bed::selective();
    for n in 0..RANGES_MAX {
        bed.say(bed.part(10 * n + 5, 10 * n + 10)).unwrap();
    }
    assert_eq!(bed.rooms.lost.len(), 0);
    bed.say(bed.part(1000, 1010)).unwrap();
    assert_eq!(bed.rooms.lost.len(), 1);
    assert!(bed.tcp.stock.all() <= FLOW_MAX);
}

#[test]
fn a_fast_retransmission_sends_all_that_is_missing_and_nothing_else() {
    let mut bed = Bed::selective();
    bed.arrives(&bytes(60_000));
    assert_eq!(bed.only().payload.len(), 60_000);
    let start = bed.ack;
    // A superframe of what follows stands for several segments.
    bed.has(&[(3000, 20_000), (30_000, 40_000)]);
    let again = bed.heard();
    let sent: Vec<_> =
        again.iter().map(|seg| (seg.seq.wrapping_sub(start), seg.payload.len())).collect();
    assert_eq!(sent, [(0, 2920), (2920, 80)]);
    bed.has(&[(3000, 20_000), (30_000, 41_000)]);
    bed.silent();
    // It has what was missing first: the next gap.
    bed.ack = start.wrapping_add(20_000);
    bed.has(&[(10_000, 21_000)]);
    let again = bed.heard();
    let sent: Vec<_> =
        again.iter().map(|seg| (seg.seq.wrapping_sub(start), seg.payload.len())).collect();
    assert_eq!(sent, [(20_000, 8760), (28_760, 1240)]);
    // A part of it: it is on its way already.
    bed.ack = start.wrapping_add(25_000);
    bed.has(&[(5_000, 16_000)]);
    bed.silent();
    bed.ack = start.wrapping_add(60_000);
    let all = bed.here(ACK);
    bed.say(all).unwrap();
    assert_eq!(bed.tcp.flows[0].as_ref().unwrap().recover, None);
}

#[test]
fn what_is_acknowledged_selectively_and_makes_no_sense_is_ignored() {
    let mut bed = Bed::selective();
    bed.arrives(&bytes(20_000));
    bed.heard();
    let far = 1 << 30;
    for range in [(far, far + 100), (5, 5), (10, 5), (0, 10_000), (u32::MAX, 5000)] {
        bed.has(&[range]);
        let heard = bed.heard();
        assert!(heard.iter().all(|seg| seg.payload.len() <= 1460), "{range:?}: {heard:?}");
    }
    for options in [&[5, 2, 1, 1][..], &[5, 3, 0, 1], &[5, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]] {
        let ack = bed.here(ACK).options(options);
        bed.say(ack).unwrap();
    }
}
