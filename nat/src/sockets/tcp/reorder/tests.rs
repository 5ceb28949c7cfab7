use proptest::prelude::*;

use super::*;

const ME: Owner = Owner(7);

/// The number of the stream's first byte: the numbers wrap around soon.
const START: Seq = Seq(0xffff_f000);

fn byte(at: usize) -> u8 {
    (at.wrapping_mul(0x9e37_79b1) >> 13) as u8
}

fn stream(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(byte).collect()
}

fn seq(at: usize) -> Seq {
    START + at as u32
}

fn hold(early: &mut Early, stock: &mut Stock, range: std::ops::Range<usize>) -> Held {
    let bytes = stream(range.clone());
    early.hold(Stretch { start: seq(range.start), bytes: &bytes }, ME, stock)
}

/// Where each range lies.
fn ranges(early: &Early) -> Vec<(usize, usize)> {
    let place = |at: Seq| (at - START) as usize;
    early.ranges.iter().map(|range| (place(range.start), place(range.end()))).collect()
}

fn blocks(early: &Early, expected: usize) -> Vec<(usize, usize)> {
    let place = |at: Seq| (at - START) as usize;
    let blocks = early.blocks(seq(expected));
    blocks.ranges().iter().map(|(start, end)| (place(*start), place(*end))).collect()
}

/// What would go to the host, of what is held alone.
fn follows(early: &Early, from: usize, end: Option<usize>) -> Vec<u8> {
    early.in_order(seq(from), end.map(seq), std::iter::empty()).concat()
}

#[test]
fn ranges_join_where_they_touch() {
    let (mut early, mut stock) = (Early::default(), Stock::default());
    assert_eq!(hold(&mut early, &mut stock, 10..20), Held::Taken);
    assert_eq!(hold(&mut early, &mut stock, 30..40), Held::Taken);
    assert_eq!(ranges(&early), [(10, 20), (30, 40)]);
    assert_eq!(hold(&mut early, &mut stock, 12..18), Held::Known);
    assert_eq!(hold(&mut early, &mut stock, 18..25), Held::Taken);
    assert_eq!(ranges(&early), [(10, 25), (30, 40)]);
    assert_eq!(hold(&mut early, &mut stock, 25..30), Held::Taken);
    assert_eq!(ranges(&early), [(10, 40)]);
    assert_eq!(hold(&mut early, &mut stock, 5..50), Held::Taken);
    assert_eq!(ranges(&early), [(5, 50)]);
    assert_eq!(stock.all(), 45);
    assert_eq!(follows(&early, 4, None), b"");
    assert_eq!(follows(&early, 5, None), stream(5..50));
    assert_eq!(follows(&early, 9, Some(12)), stream(9..12));
}

#[test]
fn a_part_that_spans_several_ranges_fills_all_gaps() {
    let (mut early, mut stock) = (Early::default(), Stock::default());
    for range in [10..12, 20..60, 70..71, 90..100] {
        hold(&mut early, &mut stock, range);
    }
    assert_eq!(hold(&mut early, &mut stock, 11..80), Held::Taken);
    assert_eq!(ranges(&early), [(10, 80), (90, 100)]);
    assert_eq!(follows(&early, 10, None), stream(10..80));
    assert_eq!(stock.all(), 80);
}

#[test]
fn the_latest_is_told_first_and_what_came_again_before_it() {
    let (mut early, mut stock) = (Early::default(), Stock::default());
    for range in [50..60, 10..20, 90..95, 30..40, 70..80] {
        hold(&mut early, &mut stock, range);
    }
    assert_eq!(blocks(&early, 5), [(70, 80), (30, 40), (90, 95), (10, 20)]);
    hold(&mut early, &mut stock, 60..65);
    assert_eq!(blocks(&early, 5), [(50, 65), (70, 80), (30, 40), (90, 95)]);
    early.note_duplicate(seq(0), seq(5));
    early.note_duplicate(seq(1), seq(2));
    assert_eq!(blocks(&early, 5), [(0, 5), (50, 65), (70, 80), (30, 40)]);
    assert_eq!(blocks(&early, 4), [(50, 65), (70, 80), (30, 40), (90, 95)], "dropped since");
    early.forget_duplicate();
    early.note_duplicate(seq(52), seq(53));
    assert_eq!(blocks(&early, 4)[..3], [(52, 53), (50, 65), (70, 80)]);
    // What begins where the rest is awaited is not told.
    assert_eq!(blocks(&early, 10), [(52, 53), (50, 65), (70, 80), (30, 40)]);
    early.forget_duplicate();
    early.note_duplicate(seq(31), seq(40));
    assert_eq!(blocks(&early, 4), [(31, 40), (30, 40), (50, 65), (70, 80)]);
}

#[test]
fn what_is_given_up_takes_no_memory() {
    let (mut early, mut stock) = (Early::default(), Stock::default());
    assert_eq!(hold(&mut early, &mut stock, 10..200_000), Held::Taken);
    early.trim(seq(199_000), Owner(1), &mut stock);
    assert_eq!(follows(&early, 199_000, None), stream(199_000..200_000));
    assert!(early.ranges[0].bytes.capacity() <= 2000);
}

#[test]
fn what_finds_no_room_is_not_held() {
    let (mut early, mut stock) = (Early::default(), Stock::default());
    for n in 0..RANGES_MAX {
        assert_eq!(hold(&mut early, &mut stock, 10 * n + 1..10 * n + 9), Held::Taken);
    }
    assert_eq!(hold(&mut early, &mut stock, 1000..1001), Held::NoRoom);
    assert_eq!(hold(&mut early, &mut stock, 9..11), Held::Taken, "it joins two");
    assert_eq!(hold(&mut early, &mut stock, 1000..1001), Held::Taken);
    early.clear(ME, &mut stock);
    assert_eq!(stock.all(), 0);
    assert_eq!(hold(&mut early, &mut stock, 1..FLOW_MAX + 2), Held::NoRoom);
    assert_eq!(hold(&mut early, &mut stock, 1..FLOW_MAX + 1), Held::Taken);
    assert_eq!(hold(&mut early, &mut stock, FLOW_MAX + 1..FLOW_MAX + 2), Held::NoRoom);
    assert_eq!(stock.all(), FLOW_MAX);
}

#[test]
fn an_owner_holds_so_much_and_all_together_so_much() {
    let mut stock = Stock::default();
    let fill = |owner, stock: &mut Stock| {
        let bytes = stream(0..FLOW_MAX);
        let mut flows = Vec::new();
        loop {
            let mut early = Early::default();
            match early.hold(Stretch { start: START, bytes: &bytes }, owner, stock) {
                Held::NoRoom => return flows,
                _ => flows.push(early),
            }
        }
    };
    let mut all = Vec::new();
    for owner in 0..ALL_MAX / OWNER_MAX {
        let flows = fill(Owner(owner as u32), &mut stock);
        assert_eq!(flows.len(), OWNER_MAX / FLOW_MAX);
        all.push(flows);
    }
    assert_eq!(stock.all(), ALL_MAX);
    assert_eq!(fill(Owner(99), &mut stock).len(), 0);
    for early in &mut all[3] {
        early.clear(Owner(3), &mut stock);
    }
    assert_eq!(fill(Owner(99), &mut stock).len(), OWNER_MAX / FLOW_MAX);
}

#[test]
fn a_loss_is_told_once_and_lateness_is_none() {
    let mut early = Early::default();
    assert!(!early.is_lost(3, false));
    assert!(!early.is_lost(3, true));
    assert!(early.is_lost(1, false));
    assert!(!early.is_lost(60, false));
    assert!(!early.is_lost(60, true));
}

#[test]
fn the_first_word_on_the_end_counts_and_goes_when_it_is_passed() {
    let (mut early, mut stock) = (Early::default(), Stock::default());
    early.note_fin(seq(40));
    early.note_fin(seq(30));
    assert_eq!(early.fin(), Some(seq(40)));
    early.trim(seq(40), ME, &mut stock);
    assert_eq!(early.fin(), Some(seq(40)));
    early.trim(seq(41), ME, &mut stock);
    assert!(early.is_empty());
}

/// What is held, as whoever has time would keep it.
struct Naive {
    has: Vec<bool>,
    expected: usize,
}

impl Naive {
    fn runs(&self) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for at in (0..self.has.len()).filter(|at| self.has[*at] && *at >= self.expected) {
            match runs.last_mut() {
                Some((_, end)) if *end == at => *end += 1,
                _ => runs.push((at, at + 1)),
            }
        }
        runs
    }

    fn hold(&mut self, range: std::ops::Range<usize>) -> Held {
        let fresh = range.clone().filter(|at| !self.has[*at]).count();
        let runs = self.runs();
        let touches = runs.iter().any(|(start, end)| *start <= range.end && range.start <= *end);
        if fresh == 0 {
            Held::Known
        } else if !touches && runs.len() >= RANGES_MAX {
            Held::NoRoom
        } else {
            self.has[range].fill(true);
            Held::Taken
        }
    }
}

/// Bytes of the stream that is tried.
const LEN: usize = 2400;

proptest! {
    #[test]
    fn bytes_in_any_order_come_out_as_the_stream_that_they_were(
        batches in prop::collection::vec(
            (
                prop::collection::vec((any::<bool>(), 0..LEN, 1..400usize), 1..6),
                prop::option::weighted(0.2, 0..500usize),
            ),
            1..60,
        ),
        end in prop::option::of(LEN / 2..LEN),
    ) {
        let (mut early, mut stock) = (Early::default(), Stock::default());
        let mut naive = Naive { has: vec![false; LEN], expected: 0 };
        let mut out: Vec<u8> = Vec::new();
        // In the end, all of it once more, so that it is complete.
        let again = (0..LEN).step_by(300).map(|at| (vec![(false, at, 300)], None));
        for (parts, taken) in batches.into_iter().chain(again) {
            let expected = naive.expected;
            let mut parts: Vec<_> = parts
                .into_iter()
                // Often near where it is awaited.
                .map(|(near, at, len)| (if near { expected + at % 700 } else { at }, len))
                .map(|(at, len)| (at.max(expected), (at + len).min(LEN)))
                .filter(|(at, end)| at < end)
                .collect();
            parts.sort();
            let bytes: Vec<_> = parts.iter().map(|(at, end)| stream(*at..*end)).collect();
            let pairs = || parts.iter().zip(&bytes);
            let stretches = pairs().map(|((at, _), bytes)| Stretch { start: seq(*at), bytes });
            let slices = early.in_order(seq(expected), end.map(seq), stretches);
            let mut has = naive.has.clone();
            for (at, end) in &parts {
                has[*at..*end].fill(true);
            }
            let run = has[expected..].iter().take_while(|has| **has).count();
            let run = run.min(end.map_or(LEN, |end| end.saturating_sub(expected)));
            prop_assert_eq!(slices.concat(), stream(expected..expected + run));
            let count = taken.unwrap_or(LEN).min(run);
            out.extend(&slices.concat()[..count]);
            naive.expected += count;
            naive.has[..naive.expected].fill(true);
            early.trim(seq(naive.expected), ME, &mut stock);
            for ((at, end), bytes) in pairs().filter(|((at, _), _)| *at > expected + run) {
                let part = Stretch { start: seq(*at), bytes };
                prop_assert_eq!(early.hold(part, ME, &mut stock), naive.hold(*at..*end));
            }
            prop_assert_eq!(ranges(&early), naive.runs());
            prop_assert_eq!(stock.all(), early.len());
            for (start, end) in blocks(&early, naive.expected) {
                prop_assert!(start > naive.expected && naive.has[start..end].iter().all(|has| *has));
            }
        }
        prop_assert_eq!(&out, &stream(0..out.len()));
        prop_assert_eq!(out.len(), end.unwrap_or(LEN));
        early.clear(ME, &mut stock);
        prop_assert_eq!(stock.all(), 0);
        prop_assert!(stock.owners.is_empty() && early.is_empty());
    }
}
