//! The forwarding database step by step, and against a plain model of it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const A: PortId = PortId(1);
const B: PortId = PortId(2);

fn mac(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

#[test]
fn a_station_is_found_where_it_was_heard_last() {
    let mut fdb = Fdb::new(1);
    assert_eq!(fdb.lookup(0, mac(1), at(0)), None);
    assert_eq!(fdb.learn(0, mac(1), A, at(0)), Learned::New);
    assert_eq!(fdb.learn(0, mac(1), A, at(1)), Learned::Refreshed);
    assert_eq!(fdb.lookup(0, mac(1), at(1)), Some(A));
    assert_eq!(fdb.learn(0, mac(1), B, at(2)), Learned::Moved { from: A });
    assert_eq!(fdb.lookup(0, mac(1), at(2)), Some(B));
    assert_eq!((fdb.owned(A), fdb.owned(B), fdb.len()), (0, 1, 1));
}

#[test]
fn vlans_are_learned_apart() {
    let mut fdb = Fdb::new(1);
    fdb.learn(0, mac(1), A, at(0));
    assert_eq!(fdb.lookup(7, mac(1), at(0)), None);
    assert_eq!(fdb.learn(7, mac(1), B, at(0)), Learned::New);
    assert_eq!(fdb.lookup(0, mac(1), at(0)), Some(A));
    assert_eq!(fdb.lookup(7, mac(1), at(0)), Some(B));
}

#[test]
fn a_silent_station_is_forgotten_at_its_age_to_the_second() {
    let mut fdb = Fdb::new(1);
    fdb.learn(0, mac(1), A, at(0));
    fdb.learn(0, mac(2), A, at(10));
    fdb.learn(0, mac(1), A, at(20));
    assert_eq!(fdb.next_expiry(), Some(at(310)));
    assert_eq!(fdb.lookup(0, mac(2), at(309)), Some(A));
    assert_eq!(fdb.lookup(0, mac(2), at(310)), None);
    assert_eq!(fdb.page(None, 9, at(310)).len(), 1);
    assert_eq!(fdb.expire(at(309)), 0);
    assert_eq!(fdb.expire(at(310)), 1);
    assert_eq!(fdb.next_expiry(), Some(at(320)));
    assert_eq!(fdb.learn(0, mac(1), B, at(320)), Learned::New);
    assert_eq!(fdb.expire(at(10_000)), 1);
    assert_eq!(fdb.next_expiry(), None);
    assert!(fdb.is_empty());
}

#[test]
fn a_flooding_port_pushes_out_only_its_own() {
    let mut fdb = Fdb::new(1);
    for station in 0..100 {
        fdb.learn(0, mac(station), A, at(0));
    }
    for made_up in 1000..30_000 {
        assert_eq!(fdb.learn(0, mac(made_up), B, at(1)), Learned::New);
    }
    assert_eq!((fdb.len(), fdb.owned(A), fdb.owned(B)), (CAPACITY, 100, CAPACITY - 100));
    assert_eq!(fdb.evicted(), 29_000 - (CAPACITY as u64 - 100));
    for station in 0..100 {
        assert_eq!(fdb.lookup(0, mac(station), at(1)), Some(A));
    }
    assert_eq!(fdb.lookup(0, mac(30_000 - CAPACITY as u32 + 99), at(1)), None);
    assert_eq!(fdb.lookup(0, mac(30_000 - CAPACITY as u32 + 100), at(1)), Some(B));
    assert_eq!(fdb.learn(0, mac(100), A, at(2)), Learned::New);
    assert_eq!((fdb.owned(A), fdb.owned(B)), (101, CAPACITY - 101));
}

#[test]
fn of_two_ports_that_own_the_most_the_learning_one_gives_way() {
    for learning in [A, B] {
        let mut fdb = Fdb::with_limits(4, AGEING, 1);
        for (station, port) in [(1, A), (2, B), (3, A), (4, B)] {
            fdb.learn(0, mac(station), port, at(0));
        }
        fdb.learn(0, mac(5), learning, at(0));
        assert_eq!((fdb.owned(A), fdb.owned(B)), (2, 2));
    }
}

#[test]
fn what_has_aged_makes_room_before_anything_is_evicted() {
    let mut fdb = Fdb::with_limits(2, AGEING, 1);
    fdb.learn(0, mac(1), A, at(0));
    fdb.learn(0, mac(2), B, at(200));
    assert_eq!(fdb.learn(0, mac(3), B, at(300)), Learned::New);
    assert_eq!(fdb.lookup(0, mac(2), at(300)), Some(B));
    assert_eq!(fdb.evicted(), 0);
}

#[test]
fn no_group_and_no_zero_address_is_learned() {
    let mut fdb = Fdb::new(1);
    for address in [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1]), MacAddr::default()] {
        assert_eq!(fdb.learn(0, address, A, at(0)), Learned::NotStation);
        assert_eq!(fdb.lookup(0, address, at(0)), None);
    }
}

#[test]
fn a_static_entry_holds_for_every_vlan_and_neither_moves_nor_ages() {
    let mut fdb = Fdb::with_limits(1, AGEING, 1);
    fdb.learn(7, mac(1), B, at(0));
    assert_eq!(fdb.set_static(mac(1), A), None);
    assert!(fdb.is_empty());
    assert_eq!(fdb.learn(7, mac(1), B, at(0)), Learned::Static { port: A });
    assert_eq!(fdb.learn(0, mac(2), B, at(0)), Learned::New);
    fdb.expire(at(100_000));
    for vlan in [0, 7, 4094] {
        assert_eq!(fdb.lookup(vlan, mac(1), at(100_000)), Some(A));
    }
    assert_eq!(fdb.set_static(mac(1), B), Some(A));
    assert_eq!(fdb.remove_static(mac(1)), Some(B));
    assert_eq!(fdb.learn(7, mac(1), A, at(100_000)), Learned::New);
}

#[test]
fn a_port_that_leaves_takes_all_its_entries_along() {
    let mut fdb = Fdb::new(1);
    fdb.learn(0, mac(1), A, at(0));
    fdb.learn(5, mac(2), A, at(0));
    fdb.learn(0, mac(3), B, at(0));
    fdb.set_static(mac(4), A);
    fdb.set_static(mac(5), B);
    fdb.remove_port(A);
    let left: Vec<_> = fdb.page(None, 9, at(0)).into_iter().map(|row| row.mac).collect();
    assert_eq!(left, [mac(3), mac(5)]);
    assert_eq!(fdb.lookup(0, mac(4), at(0)), None);
    assert_eq!((fdb.len(), fdb.owned(A)), (1, 0));
}

/// The same table as a plain list, the longest silent first.
#[derive(Default)]
struct Model {
    learned: Vec<(u16, MacAddr, PortId, Time)>,
    statics: BTreeMap<MacAddr, PortId>,
}

const ROOM: usize = 8;
const AGE: Duration = Duration::from_secs(10);

impl Model {
    fn lookup(&self, vlan: u16, mac: MacAddr, now: Time) -> Option<PortId> {
        let fresh = self.learned.iter().find(|e| (e.0, e.1) == (vlan, mac));
        let fresh = fresh.filter(|e| now.since(e.3) < AGE).map(|e| e.2);
        self.statics.get(&mac).copied().or(fresh)
    }

    fn owned(&self, port: PortId) -> usize {
        self.learned.iter().filter(|e| e.2 == port).count()
    }

    fn learn(&mut self, vlan: u16, mac: MacAddr, port: PortId, now: Time) -> Learned {
        if let Some(port) = self.statics.get(&mac) {
            return Learned::Static { port: *port };
        }
        let known = self.lookup(vlan, mac, now);
        self.learned.retain(|e| (e.0, e.1) != (vlan, mac));
        if self.learned.len() == ROOM {
            self.learned.retain(|e| now.since(e.3) < AGE);
        }
        if self.learned.len() == ROOM {
            let heaviest = (0..9).map(PortId).max_by_key(|p| (self.owned(*p), *p == port, *p));
            let victim = self.learned.iter().position(|e| Some(e.2) == heaviest).unwrap();
            self.learned.remove(victim);
        }
        self.learned.push((vlan, mac, port, now));
        match known {
            None => Learned::New,
            Some(from) if from == port => Learned::Refreshed,
            Some(from) => Learned::Moved { from },
        }
    }

    fn rows(&self, now: Time) -> Vec<FdbRow> {
        let learned = self.learned.iter().filter(|e| now.since(e.3) < AGE);
        let learned = learned.map(|e| FdbRow { vlan: e.0, mac: e.1, port: e.2, seen: Some(e.3) });
        let statics = self.statics.iter();
        let statics =
            statics.map(|(mac, port)| FdbRow { vlan: 0, mac: *mac, port: *port, seen: None });
        let mut rows: Vec<_> = learned.chain(statics).collect();
        rows.sort_by_key(|row| (row.vlan, row.mac));
        rows
    }
}

#[derive(Clone, Debug)]
enum Step {
    Learn(u16, MacAddr, PortId),
    Wait(u64),
    Expire,
    SetStatic(MacAddr, PortId),
    RemoveStatic(MacAddr),
    RemovePort(PortId),
}

fn any_step() -> impl Strategy<Value = Step> {
    let station = || (0..20u32).prop_map(mac);
    let port = || prop_oneof![3 => Just(PortId(0)), 2 => (0..5u32).prop_map(PortId)];
    prop_oneof![
        20 => (0..2u16, station(), port()).prop_map(|(v, m, p)| Step::Learn(v, m, p)),
        6 => (0..6u64).prop_map(Step::Wait),
        2 => Just(Step::Expire),
        1 => (station(), port()).prop_map(|(m, p)| Step::SetStatic(m, p)),
        1 => station().prop_map(Step::RemoveStatic),
        1 => port().prop_map(Step::RemovePort),
    ]
}

fn pages(fdb: &Fdb, limit: usize, now: Time) -> Vec<FdbRow> {
    let mut rows: Vec<FdbRow> = Vec::new();
    loop {
        let page = fdb.page(rows.last().map(|row| (row.vlan, row.mac)), limit, now);
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

proptest! {
    #[test]
    fn any_history_ends_as_in_the_plain_list(
        steps in prop::collection::vec(any_step(), 1..150),
        limit in 1..5usize,
        seed: u64,
    ) {
        let (mut fdb, mut model) = (Fdb::with_limits(ROOM, AGE, seed), Model::default());
        let mut now = at(5);
        for step in steps {
            match step {
                Step::Learn(vlan, mac, port) => {
                    let before = model.rows(now);
                    let learned = fdb.learn(vlan, mac, port, now);
                    prop_assert_eq!(learned, model.learn(vlan, mac, port, now));
                    assert_fair(&before, &pages(&fdb, limit, now), port, mac);
                }
                Step::Wait(seconds) => now = now + Duration::from_secs(seconds),
                Step::Expire => {
                    let before = model.learned.len();
                    model.learned.retain(|e| now.since(e.3) < AGE);
                    prop_assert_eq!(fdb.expire(now), before - model.learned.len());
                }
                Step::SetStatic(mac, port) => {
                    model.learned.retain(|e| e.1 != mac);
                    prop_assert_eq!(fdb.set_static(mac, port), model.statics.insert(mac, port));
                }
                Step::RemoveStatic(mac) => {
                    prop_assert_eq!(fdb.remove_static(mac), model.statics.remove(&mac));
                }
                Step::RemovePort(port) => {
                    fdb.remove_port(port);
                    model.learned.retain(|e| e.2 != port);
                    model.statics.retain(|_, at| *at != port);
                }
            }
            prop_assert_eq!(pages(&fdb, limit, now), model.rows(now));
            prop_assert_eq!(fdb.len(), model.learned.len());
            prop_assert!(fdb.len() <= ROOM);
            prop_assert_eq!(fdb.next_expiry(), model.learned.first().map(|e| e.3 + AGE));
            for port in (0..5).map(PortId) {
                prop_assert_eq!(fdb.owned(port), model.owned(port));
            }
            for (vlan, mac) in (0..2).flat_map(|v| (0..20).map(move |m| (v, mac(m)))) {
                prop_assert_eq!(fdb.lookup(vlan, mac, now), model.lookup(vlan, mac, now));
            }
        }
    }
}

/// Whoever lost an entry because another port learned one owned at least a fair share.
fn assert_fair(before: &[FdbRow], after: &[FdbRow], learning: PortId, moved: MacAddr) {
    let owned = |port| before.iter().filter(|r| r.seen.is_some() && r.port == port).count();
    let owners = (0..5).map(PortId).filter(|p| owned(*p) > 0 || *p == learning).count();
    for row in before.iter().filter(|row| row.port != learning && row.mac != moved) {
        if !after.iter().any(|left| (left.vlan, left.mac) == (row.vlan, row.mac)) {
            assert!(owned(row.port) * owners >= ROOM, "{row:?} was evicted unfairly");
        }
    }
}
