//! The leases of one network and one family: who has which address, and until when.
//!
//! Theory of operation. An *endpoint*'s addresses are reserved: they are its own for good, and its server only repeats them.
//! Everybody else is a *stranger*, who is lent an address of the pool. A stranger is known by what it calls itself, by its hardware
//! address and by the port it asks from: machines made of one image often call themselves alike, and must not be lent one address
//! for it; nor can anybody behind another port end a lease by using its name.
//!
//! Which address a newcomer is lent follows from its name: counting begins where a hash of it points to, so that it is mostly
//! lent the same one again after everything here was forgotten. Addresses that have never been lent come first, and then the
//! one whose lease ended longest ago, so that whoever comes back finds its own (RFC 2131, section 4.3.1).
//!
//! An address of the pool is in one of five places: free (kept as spans, so that a pool of any size costs the same), lent or
//! offered, remembered for whom it was lent to last, shunned for a while because somebody uses it unasked, or reserved. All that
//! ends by itself lies in order of its end. Every step costs the logarithm of what there is.
//!
//! Times count from any start that is the same in all calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

mod spans;

use spans::Spans;

/// Leases, offers and shunned addresses that one port may have at once: a few machines behind one wire. Of a small pool one port
/// may have no more than half.
pub const LEASES_PORT_MAX: usize = 64;

/// As [`LEASES_PORT_MAX`], for a network: as many as a network has stations.
pub const LEASES_MAX: usize = 8192;

/// How long a port that gave a lease back gives back no other, for each that it gave back: several at once are heard, what comes
/// too soon behind them is not, and these leases end by themselves. With an address its flows end, and whoever keeps these has to
/// look at all there are.
pub const RELEASE_GAP: Duration = Duration::from_millis(100);

/// Ended leases that are remembered, so that their addresses come back to whoever had them.
const FORMER_MAX: usize = LEASES_MAX;

/// Addresses known to be nobody's own. When there are more, all are asked for anew.
const PROVEN_MAX: usize = 2 * LEASES_MAX;

/// An IP address of either family.
pub trait Address: Copy + Ord + fmt::Debug {
    /// As a number.
    fn bits(self) -> u128;

    /// Of a number that [`Address::bits`] gave, or one between two such.
    fn of(bits: u128) -> Self;
}

impl Address for Ipv4Addr {
    fn bits(self) -> u128 {
        self.to_bits().into()
    }

    fn of(bits: u128) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX))
    }
}

impl Address for Ipv6Addr {
    fn bits(self) -> u128 {
        self.to_bits()
    }

    fn of(bits: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(bits)
    }
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// Behind which port, as the caller numbers them.
    pub port: u32,
    /// The hardware address.
    pub hardware: [u8; 6],
    /// What it calls itself: whatever tells it from others of its hardware. The caller bounds its length.
    pub name: Box<[u8]>,
    /// The hostname it tells, checked by the caller.
    pub hostname: Option<Box<str>>,
}

/// What an address is held for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It was offered, or is about to be.
    Offered,
    /// It is lent.
    Bound,
    /// Its client has found somebody else there.
    Declined,
    /// Somebody was heard there whom nobody had lent it.
    Taken,
}

/// One address of the pool, and what it is held for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease<A> {
    /// Which.
    pub address: A,
    /// By whom; who asked for it last, where it is shunned, with the port and the hardware of whoever was heard there.
    pub client: Client,
    /// What for.
    pub state: State,
    /// Until when.
    pub until: Duration,
}

/// Why nobody can be lent an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// None is left, or as many as a network may have are lent.
    Exhausted,
    /// The port has as many as it may.
    PortLimit,
    /// The address that was asked for is somebody else's, or none of the pool, or the client has another.
    Taken,
}

/// Who an endpoint is, and what it has told of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint<A> {
    /// Its hardware address.
    pub hardware: [u8; 6],
    /// Its own addresses, the first one being the one it is told.
    pub addresses: Vec<A>,
    /// Who it said it was when it asked last; none before it asks.
    pub asked: Option<Client>,
    /// Those of its addresses that it was told.
    pub told: BTreeSet<A>,
}

/// One row of what is listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row<A> {
    /// The address.
    pub address: A,
    /// Whose.
    pub client: Client,
    /// When its lease ends; none for an endpoint's own address.
    pub until: Option<Duration>,
}

/// The leases of one network and one family.
#[derive(Clone, Debug)]
pub struct Table<A> {
    pool: Vec<(A, A)>,
    size: u128,
    port_max: usize,
    /// By port.
    endpoints: BTreeMap<u32, Endpoint<A>>,
    /// How many endpoints have each address.
    reserved: BTreeMap<A, usize>,
    leases: BTreeMap<A, Lease<A>>,
    /// Where each client's lease is, or the one that is remembered for it.
    clients: BTreeMap<Box<[u8]>, A>,
    former: BTreeMap<A, Former>,
    /// Remembered leases by their end.
    fading: BTreeSet<(Duration, A)>,
    /// What ends by itself, by when.
    due: BTreeSet<(Duration, A)>,
    /// What counts against each port.
    held: BTreeMap<u32, BTreeSet<A>>,
    /// From when on each port may give something back again.
    released: BTreeMap<u32, Duration>,
    free: Spans,
    proven: BTreeSet<A>,
}

/// Whose lease of an address ended last, and when.
#[derive(Clone, Debug)]
struct Former {
    key: Box<[u8]>,
    ended: Duration,
}

impl<A: Address> Table<A> {
    /// A table that lends the addresses of `pool`: ranges in order, both ends included. Panics where they overlap.
    pub fn new(pool: Vec<(A, A)>) -> Table<A> {
        let mut free = Spans::default();
        for (first, last) in &pool {
            free.add(first.bits(), last.bits());
        }
        let size = free.count();
        let half = usize::try_from(size / 2).unwrap_or(usize::MAX);
        Table {
            pool,
            size,
            port_max: half.clamp(1, LEASES_PORT_MAX),
            endpoints: BTreeMap::new(),
            reserved: BTreeMap::new(),
            leases: BTreeMap::new(),
            clients: BTreeMap::new(),
            former: BTreeMap::new(),
            fading: BTreeSet::new(),
            due: BTreeSet::new(),
            held: BTreeMap::new(),
            released: BTreeMap::new(),
            free,
            proven: BTreeSet::new(),
        }
    }

    /// An endpoint comes; one that the port had before goes. Returns whose leases end because the addresses are its own now.
    pub fn attach(&mut self, port: u32, hardware: [u8; 6], addresses: Vec<A>) -> Vec<Lease<A>> {
        self.detach_endpoint(port);
        let mut ended = Vec::new();
        for &address in &addresses {
            if let Some(lease) = self.remove(address) {
                self.unname(&key(&lease.client), address);
                ended.extend((lease.state == State::Bound).then_some(lease));
            }
            self.forget_former(address);
            self.free.take(address.bits());
            *self.reserved.entry(address).or_default() += 1;
        }
        self.endpoints
            .insert(port, Endpoint { hardware, addresses, asked: None, told: BTreeSet::new() });
        ended
    }

    /// A port goes, with its endpoint and all leases behind it. Returns those that were lent.
    pub fn detach(&mut self, port: u32) -> Vec<Lease<A>> {
        self.detach_endpoint(port);
        self.released.remove(&port);
        let mut ended = Vec::new();
        for address in self.held.remove(&port).unwrap_or_default() {
            if let Some(lease) = self.remove(address) {
                self.give_back(address);
                ended.extend((lease.state == State::Bound).then_some(lease));
            }
        }
        let behind = |key: &[u8]| key.starts_with(&port.to_be_bytes());
        let from: Box<[u8]> = port.to_be_bytes().into();
        let of_port = self.clients.range(from..).take_while(|(key, _)| behind(key));
        let of_port: Vec<_> = of_port.map(|(key, address)| (key.clone(), *address)).collect();
        for (key, address) in of_port {
            self.clients.remove(&key);
            if self.former.get(&address).is_some_and(|former| former.key == key) {
                self.forget_former(address);
                self.give_back(address);
            }
        }
        ended
    }

    fn detach_endpoint(&mut self, port: u32) {
        let Some(endpoint) = self.endpoints.remove(&port) else { return };
        for address in endpoint.addresses {
            let Some(count) = self.reserved.get_mut(&address) else { continue };
            *count -= 1;
            if *count == 0 {
                self.reserved.remove(&address);
                self.give_back(address);
            }
        }
    }

    /// The endpoint behind a port, where that is its hardware address.
    pub fn endpoint(&self, port: u32, hardware: [u8; 6]) -> Option<&Endpoint<A>> {
        self.endpoints.get(&port).filter(|endpoint| endpoint.hardware == hardware)
    }

    /// An endpoint has asked and was told addresses of its own: these are listed from now on.
    pub fn note_told(&mut self, client: Client, told: impl IntoIterator<Item = A>) {
        if let Some(endpoint) = self.endpoints.get_mut(&client.port) {
            endpoint.asked = Some(client);
            endpoint.told.extend(told);
        }
    }

    /// Whether an address is an endpoint's own.
    pub fn is_reserved(&self, address: A) -> bool {
        self.reserved.contains_key(&address)
    }

    /// Whether an address is one that strangers may be lent.
    pub fn is_lendable(&self, address: A) -> bool {
        self.pool.iter().any(|(first, last)| (*first..=*last).contains(&address))
            && !self.is_reserved(address)
    }

    /// What an address is held for.
    pub fn get(&self, address: A) -> Option<&Lease<A>> {
        self.leases.get(&address)
    }

    /// What a client is lent or offered.
    pub fn of_client(&self, client: &Client) -> Option<&Lease<A>> {
        self.leases.get(self.clients.get(&key(client))?)
    }

    /// Holds an address for a client until then: what it has already, else what it had last, else `wanted` where that is free,
    /// else another. A lease that it has stays as it is.
    pub fn offer(
        &mut self,
        client: &Client,
        wanted: Option<A>,
        until: Duration,
    ) -> Result<A, Refusal> {
        let known = self.clients.get(&key(client)).copied();
        if let Some(lease) = known.and_then(|address| self.leases.get(&address)) {
            let (address, state) = (lease.address, lease.state);
            if state == State::Offered {
                self.hold(client, address, State::Offered, until);
            }
            return Ok(address);
        }
        self.check_room(client)?;
        let wanted = wanted.filter(|address| self.free.contains(address.bits()));
        let address = known.or(wanted).or_else(|| self.choose(client)).ok_or(Refusal::Exhausted)?;
        self.claim(address);
        self.hold(client, address, State::Offered, until);
        Ok(address)
    }

    /// As [`Table::offer`], for this address and no other: that of a client who says it has had it all along. Whoever was heard to
    /// use it is such a client.
    pub fn adopt(&mut self, client: &Client, address: A, until: Duration) -> Result<(), Refusal> {
        if let Some(lease) = self.of_client(client) {
            return if lease.address == address { Ok(()) } else { Err(Refusal::Taken) };
        }
        let held = self.leases.get(&address);
        let is_own = held.is_some_and(|held| {
            let who = |client: &Client| (client.port, client.hardware);
            held.state == State::Taken && who(&held.client) == who(client)
        });
        if !self.is_lendable(address) || held.is_some() && !is_own {
            return Err(Refusal::Taken);
        }
        if is_own {
            self.remove(address);
        } else {
            self.check_room(client)?;
            self.claim(address);
        }
        if let Some(other) = self.clients.get(&key(client)).copied() {
            self.forget_former(other);
            self.give_back(other);
        }
        self.hold(client, address, State::Offered, until);
        Ok(())
    }

    /// Lends the address that is offered to a client, or goes on lending it. None where that is not held for it; else whether it
    /// was not lent before.
    pub fn bind(&mut self, client: &Client, address: A, until: Duration) -> Option<bool> {
        let held = self.of_client(client).filter(|lease| lease.address == address)?;
        let fresh = held.state != State::Bound;
        self.hold(client, address, State::Bound, until);
        self.prove(address);
        Some(fresh)
    }

    /// Takes an offer back, as if it had never been made.
    pub fn withdraw(&mut self, client: &Client) {
        let offered = self.of_client(client).filter(|lease| lease.state == State::Offered);
        if let Some(address) = offered.map(|lease| lease.address) {
            self.remove(address);
            self.clients.remove(&key(client));
            self.give_back(address);
        }
    }

    /// Ends a client's lease of an address, and remembers whose it was. None where it has no such lease. Whether the port may is
    /// asked before ([`Table::may_release`]).
    pub fn release(&mut self, client: &Client, address: A, now: Duration) -> Option<Lease<A>> {
        let held = self.of_client(client)?;
        if held.address != address || held.state != State::Bound {
            return None;
        }
        let lease = self.remove(address)?;
        self.note_release(client.port, now);
        self.remember(&lease, now);
        Some(lease)
    }

    /// Whether a port may give anything back by now.
    pub fn may_release(&self, port: u32, now: Duration) -> bool {
        self.released.get(&port).is_none_or(|until| now >= *until)
    }

    /// A port has given something back.
    pub fn note_release(&mut self, port: u32, now: Duration) {
        let until = self.released.entry(port).or_default();
        *until = now.max(*until) + RELEASE_GAP;
    }

    /// Keeps an address that is held for a client from everybody until then, since it is in use: as its client says
    /// ([`State::Declined`]) or as was heard ([`State::Taken`]) of the hardware behind the port `by`, against which it counts. None
    /// where it is not held for the client.
    pub fn shun(
        &mut self,
        client: &Client,
        address: A,
        state: State,
        by: (u32, [u8; 6]),
        until: Duration,
    ) -> Option<Lease<A>> {
        self.of_client(client).filter(|lease| lease.address == address)?;
        let lease = self.remove(address)?;
        self.clients.remove(&key(client));
        self.proven.remove(&address);
        let (port, hardware) = by;
        self.held.entry(port).or_default().insert(address);
        self.due.insert((until, address));
        let client = Client { port, hardware, ..client.clone() };
        let shunned = Lease { address, client, state, until };
        self.leases.insert(address, shunned);
        Some(lease)
    }

    /// When something ends by itself next.
    pub fn next_end(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next that has ended by `now`, which ends with this: a lease, which is remembered; an offer; or a shunned address, which
    /// may be lent again.
    pub fn expire(&mut self, now: Duration) -> Option<Lease<A>> {
        let &(at, address) = self.due.first().filter(|(at, _)| *at <= now)?;
        let lease = self.remove(address)?;
        match lease.state {
            State::Bound => self.remember(&lease, at),
            State::Offered => {
                self.clients.remove(&key(&lease.client));
                self.give_back(address);
            }
            State::Declined | State::Taken => self.give_back(address),
        }
        Some(lease)
    }

    /// Whether it is known that an address is nobody's own.
    pub fn is_proven(&self, address: A) -> bool {
        self.proven.contains(&address)
    }

    /// Nobody has answered for an address, or it was lent.
    pub fn prove(&mut self, address: A) {
        if self.proven.len() >= PROVEN_MAX {
            self.proven.clear();
        }
        self.proven.insert(address);
    }

    /// At most `limit` rows behind `after`, in order of address: leases, and the endpoints that have asked.
    pub fn rows(&self, after: Option<A>, limit: usize) -> Vec<Row<A>> {
        let behind = |address: &A| after.is_none_or(|after| *address > after);
        let bound = self.leases.values().filter(|lease| lease.state == State::Bound);
        let bound = bound.filter(|lease| behind(&lease.address)).take(limit).map(|lease| Row {
            address: lease.address,
            client: lease.client.clone(),
            until: Some(lease.until),
        });
        let endpoints = self.endpoints.values().filter_map(|endpoint| {
            let told = endpoint.told.iter().filter(|address| behind(address));
            Some(told.zip(std::iter::repeat(endpoint.asked.as_ref()?)))
        });
        let endpoints = endpoints.flatten().map(|(address, client)| Row {
            address: *address,
            client: client.clone(),
            until: None,
        });
        let mut rows: Vec<_> = bound.chain(endpoints).collect();
        rows.sort_by_key(|row| (row.address, row.client.port));
        rows.truncate(limit);
        rows
    }

    /// How many addresses are lent.
    pub fn bound(&self) -> usize {
        self.leases.values().filter(|lease| lease.state == State::Bound).count()
    }

    /// Whether a port may have more addresses held for it, or shunned by it.
    pub fn has_room(&self, port: u32) -> bool {
        self.held.get(&port).is_none_or(|held| held.len() < self.port_max)
    }

    fn check_room(&self, client: &Client) -> Result<(), Refusal> {
        if !self.has_room(client.port) {
            return Err(Refusal::PortLimit);
        }
        if self.leases.len() >= LEASES_MAX { Err(Refusal::Exhausted) } else { Ok(()) }
    }

    /// An address for a newcomer.
    fn choose(&self, client: &Client) -> Option<A> {
        let mut at = hash(client.hardware.iter().chain(&client.name)).checked_rem(self.size)?;
        for (first, last) in &self.pool {
            let (first, last) = (first.bits(), last.bits());
            if at <= last - first {
                at += first;
                break;
            }
            at -= last - first + 1;
        }
        let fresh = self.free.next(at).map(A::of);
        fresh.or_else(|| self.fading.first().map(|(_, address)| *address))
    }

    /// Takes an address out of what is free or remembered.
    fn claim(&mut self, address: A) {
        self.free.take(address.bits());
        if let Some(former) = self.former.remove(&address) {
            self.fading.remove(&(former.ended, address));
            self.clients.remove(&former.key);
        }
    }

    /// A client has that address no longer.
    fn unname(&mut self, key: &[u8], address: A) {
        if self.clients.get(key) == Some(&address) {
            self.clients.remove(key);
        }
    }

    /// Holds an address that was claimed, or goes on holding it.
    fn hold(&mut self, client: &Client, address: A, state: State, until: Duration) {
        self.remove(address);
        self.clients.insert(key(client), address);
        self.held.entry(client.port).or_default().insert(address);
        self.due.insert((until, address));
        self.leases.insert(address, Lease { address, client: client.clone(), state, until });
    }

    /// Holds an address no longer. What becomes of it, and of its client's entry, is the caller's.
    fn remove(&mut self, address: A) -> Option<Lease<A>> {
        let lease = self.leases.remove(&address)?;
        self.due.remove(&(lease.until, address));
        if let Some(held) = self.held.get_mut(&lease.client.port) {
            held.remove(&address);
            if held.is_empty() {
                self.held.remove(&lease.client.port);
            }
        }
        Some(lease)
    }

    /// An address is free again, where it is the pool's.
    fn give_back(&mut self, address: A) {
        let held = self.leases.contains_key(&address) || self.former.contains_key(&address);
        if self.is_lendable(address) && !held && !self.free.contains(address.bits()) {
            self.free.add(address.bits(), address.bits());
        }
    }

    fn remember(&mut self, lease: &Lease<A>, ended: Duration) {
        if self.former.len() >= FORMER_MAX
            && let Some(&(_, oldest)) = self.fading.first()
        {
            self.forget_former(oldest);
            self.give_back(oldest);
        }
        self.former.insert(lease.address, Former { key: key(&lease.client), ended });
        self.fading.insert((ended, lease.address));
    }

    fn forget_former(&mut self, address: A) {
        if let Some(former) = self.former.remove(&address) {
            self.fading.remove(&(former.ended, address));
            self.clients.remove(&former.key);
        }
    }
}

/// By what a client is found.
fn key(client: &Client) -> Box<[u8]> {
    [&client.port.to_be_bytes()[..], &client.hardware, &client.name].concat().into_boxed_slice()
}

/// FNV-1a: the same in every life of the daemon. Whoever aims at an address gets it, and nothing by it.
fn hash<'b>(bytes: impl Iterator<Item = &'b u8>) -> u128 {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits alone decide in a pool of a power of two, and the last byte alone decides them.
    u128::from(hash ^ (hash >> 32))
}

#[cfg(test)]
mod tests;
