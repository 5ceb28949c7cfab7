//! The file, used well and ill.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tempfile::TempDir;

use super::*;
use crate::api::types::{EndpointCreate, NetworkCreate, NodeCreate};
use crate::topology::{HostFacts, Moment};

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    (directory, path)
}

/// Predefined networks, one of the user's, and a node on it.
fn sample() -> Topology {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let (mut topology, host) = (Topology::default(), HostFacts::default());
    topology.predefined(&host, Moment(1), &mut random);
    let spec = NetworkCreate { name: "app".into(), enable_ipv6: true, ..NetworkCreate::default() };
    topology.create_network(&spec, &host, Moment(2), &mut random).unwrap();
    let wish = EndpointCreate { network: "app".into(), ..EndpointCreate::default() };
    let spec =
        NodeCreate { name: Some("db".into()), networks: vec![wish], ..NodeCreate::default() };
    topology.create_node(&spec, Moment(3), &mut random).unwrap();
    topology
}

fn rows(topology: &Topology) -> (Counters, Vec<Network>, Vec<Node>) {
    let networks = topology.networks().map(|network| Network::clone(network)).collect();
    let nodes = topology.nodes().map(|node| Node::clone(node)).collect();
    (topology.counters().clone(), networks, nodes)
}

#[test]
fn what_is_saved_is_loaded_again() {
    let (_directory, path) = directory();
    let topology = sample();
    let store = Store::open(&path).unwrap();
    assert_eq!(rows(&store.load().unwrap()), rows(&Topology::default()));
    store.save(&Topology::default(), &topology).unwrap();
    drop(store);
    assert_eq!(rows(&Store::open(&path).unwrap().load().unwrap()), rows(&topology));
}

#[test]
fn changed_rows_are_replaced_and_gone_ones_removed() {
    let (_directory, path) = directory();
    let (before, mut after) = (sample(), sample());
    let store = Store::open(&path).unwrap();
    store.save(&Topology::default(), &before).unwrap();
    after.rename("db", "base").unwrap();
    store.save(&before, &after).unwrap();
    assert_eq!(rows(&store.load().unwrap()), rows(&after));
    let mut last = after.clone();
    last.remove_node("base", true).unwrap();
    last.remove_network("app", false).unwrap();
    store.save(&after, &last).unwrap();
    assert_eq!(rows(&store.load().unwrap()), rows(&last));
}

#[test]
fn a_port_that_comes_or_goes_writes_nothing() {
    let before = sample();
    let mut after = before.clone();
    let endpoint = before.node("db").unwrap().endpoints[0].id;
    after.wired(endpoint, Some(portolan_switch::ids::PortId(1)));
    assert_eq!(changes(before.nodes(), after.nodes(), |node| node.id), []);
    after.set_process(after.node("db").unwrap().id, "boot/7".into());
    assert_eq!(changes(before.nodes(), after.nodes(), |node| node.id).len(), 1);
}

#[test]
fn what_was_saved_outlives_a_process_that_ends_without_goodbye() {
    let (directory, path) = directory();
    let store = Store::open(&path).unwrap();
    let topology = sample();
    store.save(&Topology::default(), &topology).unwrap();
    // The file as it is now is what a killed process leaves behind.
    let left = directory.path().join("left.redb");
    std::fs::copy(&path, &left).unwrap();
    assert_eq!(rows(&Store::open(&left).unwrap().load().unwrap()), rows(&topology));
}

#[test]
fn a_second_daemon_is_told_that_the_file_is_in_use() {
    let (_directory, path) = directory();
    let _store = Store::open(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
}

#[test]
fn a_file_that_is_none_of_ours_is_refused_and_left_alone() {
    for noise in [vec![7u8; 64 << 10], b"hello".to_vec()] {
        let (_directory, path) = directory();
        std::fs::write(&path, &noise).unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), noise);
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let (directory, _) = directory();
    let missing = directory.path().join("missing/state.redb");
    let error = Store::open(&missing).unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("missing/state.redb"), "{error}");
}

#[test]
fn a_newer_format_is_refused() {
    let (_directory, path) = directory();
    let store = Store::open(&path).unwrap();
    let transaction = store.database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(FORMAT_KEY, b"2".as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(store);
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Newer { format: 2, .. }), "{error}");
}

#[test]
fn a_row_that_makes_no_sense_is_damage() {
    let (_directory, path) = directory();
    let store = Store::open(&path).unwrap();
    let transaction = store.database.begin_write().unwrap();
    transaction.open_table(NODES).unwrap().insert("x", b"{}".as_slice()).unwrap();
    transaction.commit().unwrap();
    let error = store.load().unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn damage_anywhere_is_refused_or_harmless_and_never_a_panic() {
    let (directory, path) = directory();
    let topology = sample();
    let store = Store::open(&path).unwrap();
    store.save(&Topology::default(), &topology).unwrap();
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let bad = directory.path().join("bad.redb");
    let (mut refused, mut harmless) = (0, 0);
    for case in 0..120 {
        let mut bytes = good.clone();
        let page = (case / 2 % 20) * 4096;
        match case % 4 {
            0 => rand::Rng::fill_bytes(&mut random, &mut bytes[page..page + 4096]),
            1 => bytes[page..page + 4096].fill(0),
            2 => bytes[page + case] ^= 0x10,
            _ => bytes.truncate(page + case),
        }
        std::fs::write(&bad, &bytes).unwrap();
        match Store::open(&bad).and_then(|store| store.load()) {
            Ok(loaded) => {
                assert_eq!(rows(&loaded), rows(&topology), "case {case}");
                harmless += 1;
            }
            Err(StoreError::Damaged { .. }) => {
                assert_eq!(
                    std::fs::read(&bad).unwrap(),
                    bytes,
                    "case {case}: the file was touched"
                );
                refused += 1;
            }
            Err(other) => panic!("case {case}: {other}"),
        }
    }
    assert!(refused > 40 && harmless > 10, "{refused} refused, {harmless} harmless");
}
