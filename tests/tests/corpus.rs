//! What fuzzing has found, or starts from, is replayed: no script makes the switch panic or lose a frame without a name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use portolan_tests::fuzz::KINDS;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Files of one corpus: more would make everybody wait for what few of them tell.
const FILES_MAX: usize = 300;

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_kind_of_script_has_a_target_and_a_corpus() {
    let kinds: BTreeSet<String> = KINDS.iter().map(|(kind, _)| (*kind).to_owned()).collect();
    let named = |directory: &str| -> BTreeSet<String> {
        let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries(&place(directory)).iter().map(stem).collect()
    };
    assert_eq!(named("targets"), kinds);
    assert_eq!(named("corpus"), kinds);
}

#[test]
fn every_script_of_the_corpora_leaves_the_switch_sound() {
    for (kind, play) in KINDS {
        let scripts = entries(&place("corpus").join(kind));
        assert!((1..=FILES_MAX).contains(&scripts.len()), "{} scripts of {kind}", scripts.len());
        for path in scripts {
            println!("{}", path.display());
            play(&fs::read(&path).expect("a script that can be read"));
        }
    }
}

#[test]
fn scripts_of_chance_leave_the_switch_sound() {
    for (kind, play) in KINDS {
        for seed in 0..40 {
            println!("{kind} {seed}");
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut data = vec![0; 600];
            random.fill_bytes(&mut data);
            play(&data);
        }
    }
}

#[test]
fn scripts_that_are_cut_short_leave_the_switch_sound() {
    for (kind, play) in KINDS {
        let Some(path) = entries(&place("corpus").join(kind)).into_iter().next() else { continue };
        let script = fs::read(&path).expect("a script that can be read");
        for end in 0..script.len().min(200) {
            println!("{} to {end}", path.display());
            play(&script[..end]);
        }
    }
}
