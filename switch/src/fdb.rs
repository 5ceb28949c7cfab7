//! The forwarding database of one network: which station lives behind which port.
//!
//! It learns as Open vSwitch does. An entry is keyed by VLAN and address, and ages when its station has been silent for the
//! ageing time. When the table is full, the entry that goes is the one longest silent of the port that owns most: so a port
//! that floods the table with made-up addresses pushes out only its own, and cannot make the switch flood the frames of
//! others. Static entries are the control side's: they hold for every VLAN, never move, never age and take no room.
//!
//! Entries lie in a slab. Each is a link of two lists, both from the longest silent to the latest heard: that of all
//! learned entries, for ageing, and that of its port, for eviction. A station heard again is one hash look-up and the
//! moving of two links; only a change of how many entries a port owns costs a logarithm.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::command::FdbRow;
use crate::ids::{MacAddr, PortId, Time};

/// Entries that a network learns.
pub const CAPACITY: usize = 8192;

/// How long a station may be silent.
pub const AGEING: Duration = Duration::from_secs(300);

/// What came of learning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// The station was not known.
    New,
    /// It was, on this port.
    Refreshed,
    /// It was, on another port.
    Moved {
        /// There.
        from: PortId,
    },
    /// It has a static entry, and nothing was learned.
    Static {
        /// Where it lives, which may be another port.
        port: PortId,
    },
    /// No station has such an address: it is a group's, or zero.
    NotStation,
}

/// VLAN id and address in one number, in the order of listings.
type Key = u64;

fn key(vlan: u16, mac: MacAddr) -> Key {
    let [a, b, c, d, e, f] = mac.0;
    let [v, w] = vlan.to_be_bytes();
    Key::from_be_bytes([v, w, a, b, c, d, e, f])
}

fn parts(key: Key) -> (u16, MacAddr) {
    let [v, w, mac @ ..] = key.to_be_bytes();
    (u16::from_be_bytes([v, w]), MacAddr(mac))
}

/// Index of a slot of the slab; [`NIL`] for none.
type Link = u32;

const NIL: Link = Link::MAX;

/// The ends of a list: the longest silent entry, and the latest heard.
#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: Link,
    newest: Link,
}

const EMPTY: Ends = Ends { oldest: NIL, newest: NIL };

/// Which of an entry's two lists.
#[derive(Clone, Copy)]
enum List {
    All = 0,
    Port = 1,
}

#[derive(Clone, Debug)]
struct Slot {
    key: Key,
    owner: usize,
    seen: Time,
    older: [Link; 2],
    newer: [Link; 2],
}

/// A port that owns entries, or has owned some.
#[derive(Clone, Debug)]
struct Owner {
    port: PortId,
    count: usize,
    ends: Ends,
}

/// The forwarding database of one network.
#[derive(Clone, Debug)]
pub struct Fdb {
    capacity: usize,
    ageing: Duration,
    index: HashMap<Key, Link, FixedState>,
    slots: Vec<Slot>,
    free: Vec<Link>,
    all: Ends,
    owners: Vec<Owner>,
    free_owners: Vec<usize>,
    /// Where in `owners` a port is.
    ports: BTreeMap<PortId, usize>,
    /// The owners by the number of their entries.
    ranking: BTreeSet<(usize, PortId)>,
    statics: HashMap<MacAddr, PortId, FixedState>,
    /// The same in order, for listings.
    static_order: BTreeMap<MacAddr, PortId>,
    evicted: u64,
}

impl Fdb {
    /// An empty table of [`CAPACITY`] and [`AGEING`]. `seed` should be a secret, since guests choose the addresses that are
    /// hashed with it.
    pub fn new(seed: u64) -> Fdb {
        Fdb::with_limits(CAPACITY, AGEING, seed)
    }

    /// As [`Fdb::new`], with room for `capacity` learned entries, and for one at least.
    pub fn with_limits(capacity: usize, ageing: Duration, seed: u64) -> Fdb {
        Fdb {
            capacity: capacity.clamp(1, NIL as usize),
            ageing,
            index: HashMap::with_hasher(FixedState::with_seed(seed)),
            slots: Vec::new(),
            free: Vec::new(),
            all: EMPTY,
            owners: Vec::new(),
            free_owners: Vec::new(),
            ports: BTreeMap::new(),
            ranking: BTreeSet::new(),
            statics: HashMap::with_hasher(FixedState::with_seed(seed)),
            static_order: BTreeMap::new(),
            evicted: 0,
        }
    }

    /// The port behind which `mac` lives on that VLAN, none where nobody knows.
    pub fn lookup(&self, vlan: u16, mac: MacAddr, now: Time) -> Option<PortId> {
        if let Some(port) = self.static_port(mac) {
            return Some(port);
        }
        let slot = &self.slots[*self.index.get(&key(vlan, mac))? as usize];
        (!self.aged(slot.seen, now)).then(|| self.owners[slot.owner].port)
    }

    /// Takes note that a frame from `mac` came in by `port` on that VLAN.
    pub fn learn(&mut self, vlan: u16, mac: MacAddr, port: PortId, now: Time) -> Learned {
        if !mac.is_station() {
            return Learned::NotStation;
        }
        if let Some(port) = self.static_port(mac) {
            return Learned::Static { port };
        }
        let key = key(vlan, mac);
        if let Some(&at) = self.index.get(&key) {
            let slot = &self.slots[at as usize];
            let (owner, from) = (slot.owner, self.owners[slot.owner].port);
            if !self.aged(slot.seen, now) {
                if from == port {
                    self.touch(at, now);
                    return Learned::Refreshed;
                }
                self.unlink(at, List::Port);
                self.count(owner, |count| count - 1);
                self.slots[at as usize].owner = self.owner_of(port);
                self.own(at);
                self.touch(at, now);
                return Learned::Moved { from };
            }
            self.remove(at);
        }
        if self.index.len() >= self.capacity {
            self.expire(now);
        }
        if self.index.len() >= self.capacity {
            self.evict_for(port);
        }
        self.insert(key, port, now);
        Learned::New
    }

    /// Forgets the stations that have been silent for the ageing time, and returns how many there were.
    pub fn expire(&mut self, now: Time) -> usize {
        let before = self.index.len();
        while self.all.oldest != NIL && self.aged(self.slots[self.all.oldest as usize].seen, now) {
            self.remove(self.all.oldest);
        }
        before - self.index.len()
    }

    /// When [`Fdb::expire`] has something to do next; none while nothing is learned.
    pub fn next_expiry(&self) -> Option<Time> {
        self.slots.get(self.all.oldest as usize).map(|slot| slot.seen + self.ageing)
    }

    /// `mac` lives behind `port` from now on, on every VLAN, whatever is heard. Returns where it had a static entry before.
    pub fn set_static(&mut self, mac: MacAddr, port: PortId) -> Option<PortId> {
        let on = |at: &Link| parts(self.slots[*at as usize].key).1 == mac;
        for at in self.links().filter(on).collect::<Vec<_>>() {
            self.remove(at);
        }
        self.static_order.insert(mac, port);
        self.statics.insert(mac, port)
    }

    /// Takes a static entry back; its station can be learned again. Returns where it lived.
    pub fn remove_static(&mut self, mac: MacAddr) -> Option<PortId> {
        self.static_order.remove(&mac);
        self.statics.remove(&mac)
    }

    /// Forgets all that lives behind `port`, static entries too.
    pub fn remove_port(&mut self, port: PortId) {
        self.forget(port);
        self.static_order.retain(|_, at| *at != port);
        self.statics.retain(|_, at| *at != port);
    }

    /// Forgets all that was learned behind `port`.
    pub fn forget(&mut self, port: PortId) {
        while let Some(&owner) = self.ports.get(&port) {
            self.remove(self.owners[owner].ends.oldest);
        }
    }

    /// How many entries are learned, those included that have aged since the last [`Fdb::expire`].
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// How many entries there are, static ones included.
    pub fn entries(&self) -> usize {
        self.index.len() + self.statics.len()
    }

    /// Whether nothing is learned.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many of the learned entries are those of `port`.
    pub fn owned(&self, port: PortId) -> usize {
        self.ports.get(&port).map_or(0, |owner| self.owners[*owner].count)
    }

    /// How many entries had to go before their time to make room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// At most `limit` entries behind `after`, in order of VLAN and address; static ones stand among those of no VLAN.
    /// What has aged is left out.
    pub fn page(&self, after: Option<(u16, MacAddr)>, limit: usize, now: Time) -> Vec<FdbRow> {
        let after = after.map(|(vlan, mac)| key(vlan, mac));
        let statics = self.static_order.iter().map(|(mac, port)| (key(0, *mac), *port, None));
        let learned = self.links().map(|at| {
            let slot = &self.slots[at as usize];
            (slot.key, self.owners[slot.owner].port, Some(slot.seen))
        });
        let mut rows: Vec<_> = statics
            .chain(learned)
            .filter(|(key, _, _)| after.is_none_or(|after| *key > after))
            .filter(|(_, _, seen)| seen.is_none_or(|seen| !self.aged(seen, now)))
            .collect();
        rows.sort_unstable_by_key(|(key, _, _)| *key);
        rows.truncate(limit);
        let row = |(key, port, seen)| {
            let (vlan, mac) = parts(key);
            FdbRow { vlan, mac, port, seen }
        };
        rows.into_iter().map(row).collect()
    }

    fn static_port(&self, mac: MacAddr) -> Option<PortId> {
        if self.statics.is_empty() { None } else { self.statics.get(&mac).copied() }
    }

    fn aged(&self, seen: Time, now: Time) -> bool {
        now.since(seen) >= self.ageing
    }

    /// Every learned entry, the longest silent first.
    fn links(&self) -> impl Iterator<Item = Link> + '_ {
        let real = |at: Link| (at != NIL).then_some(at);
        let newer = |at: Link| self.slots[at as usize].newer[List::All as usize];
        std::iter::successors(real(self.all.oldest), move |at| real(newer(*at)))
    }

    /// Makes room for an entry of `port`, if there is any.
    fn evict_for(&mut self, port: PortId) {
        let Some(&(most, heaviest)) = self.ranking.last() else { return };
        let victim = if self.owned(port) == most { port } else { heaviest };
        if let Some(&owner) = self.ports.get(&victim) {
            self.remove(self.owners[owner].ends.oldest);
            self.evicted += 1;
        }
    }

    fn insert(&mut self, key: Key, port: PortId, now: Time) {
        let owner = self.owner_of(port);
        let slot = Slot { key, owner, seen: now, older: [NIL; 2], newer: [NIL; 2] };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                Link::try_from(self.slots.len() - 1).expect("the capacity is clamped")
            }
        };
        self.index.insert(key, at);
        self.link(at, List::All);
        self.own(at);
    }

    fn remove(&mut self, at: Link) {
        self.unlink(at, List::All);
        self.unlink(at, List::Port);
        let slot = &self.slots[at as usize];
        self.index.remove(&slot.key);
        self.count(slot.owner, |count| count - 1);
        self.free.push(at);
    }

    /// Moves an entry to the latest heard end of both lists.
    fn touch(&mut self, at: Link, now: Time) {
        self.slots[at as usize].seen = now;
        for list in [List::All, List::Port] {
            self.unlink(at, list);
            self.link(at, list);
        }
    }

    /// Adds an entry to the list and the count of its owner.
    fn own(&mut self, at: Link) {
        self.link(at, List::Port);
        self.count(self.slots[at as usize].owner, |count| count + 1);
    }

    /// Where in `owners` the port is, from now on if it was not; [`Fdb::count`] must follow.
    fn owner_of(&mut self, port: PortId) -> usize {
        if let Some(owner) = self.ports.get(&port) {
            return *owner;
        }
        let fresh = Owner { port, count: 0, ends: EMPTY };
        let owner = match self.free_owners.pop() {
            Some(owner) => {
                self.owners[owner] = fresh;
                owner
            }
            None => {
                self.owners.push(fresh);
                self.owners.len() - 1
            }
        };
        self.ports.insert(port, owner);
        owner
    }

    /// Changes the count of an owner, who is one no longer when it comes to nothing.
    fn count(&mut self, at: usize, change: impl Fn(usize) -> usize) {
        let owner = &mut self.owners[at];
        self.ranking.remove(&(owner.count, owner.port));
        owner.count = change(owner.count);
        if owner.count > 0 {
            self.ranking.insert((owner.count, owner.port));
        } else {
            self.ports.remove(&owner.port);
            self.free_owners.push(at);
        }
    }

    fn ends(&mut self, at: Link, list: List) -> &mut Ends {
        match list {
            List::All => &mut self.all,
            List::Port => &mut self.owners[self.slots[at as usize].owner].ends,
        }
    }

    /// Puts an entry at the latest heard end.
    fn link(&mut self, at: Link, list: List) {
        let ends = self.ends(at, list);
        let before = std::mem::replace(&mut ends.newest, at);
        if before == NIL {
            ends.oldest = at;
        } else {
            self.slots[before as usize].newer[list as usize] = at;
        }
        let slot = &mut self.slots[at as usize];
        slot.older[list as usize] = before;
        slot.newer[list as usize] = NIL;
    }

    fn unlink(&mut self, at: Link, list: List) {
        let slot = &self.slots[at as usize];
        let (older, newer) = (slot.older[list as usize], slot.newer[list as usize]);
        match older {
            NIL => self.ends(at, list).oldest = newer,
            older => self.slots[older as usize].newer[list as usize] = newer,
        }
        match newer {
            NIL => self.ends(at, list).newest = older,
            newer => self.slots[newer as usize].older[list as usize] = older,
        }
    }
}

#[cfg(test)]
mod tests;
