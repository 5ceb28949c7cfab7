//! TCP by the rules of RFC 9293, at random, through a bad network.
//!
//! `PORTOLAN_SEED` replays one walk, `PORTOLAN_SEEDS` sets how many there are.

use portolan_tests::tcp_model::Lab;

/// Walks, unless said otherwise.
const SEEDS: u64 = 500;

/// Parts that run side by side.
const PARTS: u64 = 2;

fn part(number: u64) {
    if let Ok(seed) = std::env::var("PORTOLAN_SEED") {
        if number == 0 {
            Lab::new(seed.parse().expect("PORTOLAN_SEED is a number")).run();
        }
        return;
    }
    let seeds = std::env::var("PORTOLAN_SEEDS");
    let seeds = seeds.map_or(SEEDS, |text| text.parse().expect("PORTOLAN_SEEDS is a number"));
    for seed in (number..seeds).step_by(PARTS as usize) {
        Lab::new(seed).run();
    }
}

#[test]
fn every_walk_of_tcps_state_diagram_delivers_all_or_tells_of_a_reset_first_part() {
    part(0);
}

#[test]
fn every_walk_of_tcps_state_diagram_delivers_all_or_tells_of_a_reset_second_part() {
    part(1);
}
