//! What fuzzing has found, or starts from, is replayed: no script makes the switch panic or lose a frame without a name.

use std::fs;
use std::path::Path;

use portolan_tests::fuzz::replay;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const KINDS: [&str; 5] = ["packets", "tcp", "datagrams", "icmp", "replies"];

#[test]
fn every_script_of_the_corpora_leaves_the_switch_sound() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for kind in KINDS {
        let mut scripts = 0;
        for entry in fs::read_dir(corpora.join(kind)).expect("a corpus of each kind") {
            let path = entry.expect("a directory that can be read").path();
            let data = fs::read(&path).expect("a script that can be read");
            println!("{}", path.display());
            assert!(replay(kind, &data));
            scripts += 1;
        }
        assert!(scripts > 0, "no script of {kind}");
    }
}

#[test]
fn scripts_of_chance_leave_the_switch_sound() {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| (0..40).map(move |seed| (kind, seed))) {
        println!("{kind} {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut data = vec![0; 600];
        random.fill_bytes(&mut data);
        assert!(replay(kind, &data));
    }
}
