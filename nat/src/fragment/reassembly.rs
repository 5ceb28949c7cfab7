//! Putting packets together (RFC 791, section 3.2; RFC 8200, section 4.5).
//!
//! Theory of operation. Parts are kept apart until the last of them has come, in order of where they lie, so that a part far
//! behind costs no more than it carries. Two that overlap spoil the packet (RFC 5722), with all that still come of it: nobody
//! honest sends such. The same part again changes nothing. Whose packet does not become whole in time is told. What is kept counts against its owner, who loses its own oldest
//! packet when it has too much, and against all, where whoever has most does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::icmp_error::{Error, Reason};
use crate::inside::{Call, Inside, Lost, Owner, Packet, Zone};
use crate::packet::Ip;
use crate::time::Time;

use super::part::{Carried, carried, header};

/// Parts of one packet.
const PARTS_MAX: usize = 64;

/// Bytes kept for one owner, and for all.
const OWNER_BYTES_MAX: usize = 256 << 10;
const BYTES_MAX: usize = 4 << 20;

/// What a packet and a part count besides their bytes: about what remembering them takes.
const PACKET_COST: usize = 512;
const PART_COST: usize = 64;

/// How long parts are waited for: as long as Linux does.
const WAIT_V4: Duration = Duration::from_secs(30);
const WAIT_V6: Duration = Duration::from_secs(60);

/// A packet that came in parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whole {
    /// From its IP header on, which has no options or extensions.
    pub bytes: Vec<u8>,
    /// Its headers; offsets count within `bytes`.
    pub ip: Ip,
}

/// What parts of one packet have in common. The owner is among it, so that nobody spoils another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    zone: Zone,
    owner: Owner,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    id: u32,
}

/// A packet of which parts have come.
#[derive(Debug)]
struct Held {
    key: Key,
    begun: Time,
    due: Time,
    /// What it counts.
    cost: usize,
    /// Parts in order of their offsets; none overlaps.
    parts: Vec<(usize, Vec<u8>)>,
    /// The IP header of the first part, as that of the whole but for its length.
    first: Option<(Ip, Vec<u8>)>,
    /// How long the transport is, once the last part has said so.
    len: Option<usize>,
    /// Nothing will come of it; what still comes of its parts is not to begin anew.
    spoiled: bool,
}

/// What is kept for one owner, the oldest first.
#[derive(Debug, Default)]
struct Account {
    cost: usize,
    held: BTreeSet<(Time, u32)>,
}

/// All packets of which parts have come.
#[derive(Debug, Default)]
pub struct Reassembly {
    by_key: HashMap<Key, u32, FixedState>,
    held: BTreeMap<u32, Held>,
    /// A number that none has.
    next: u32,
    due: BTreeSet<(Time, u32)>,
    accounts: BTreeMap<Owner, Account>,
    cost: usize,
}

impl Reassembly {
    /// Without any. The seed keys the table.
    pub fn new(seed: u64) -> Reassembly {
        let by_key = HashMap::with_hasher(FixedState::with_seed(seed));
        Reassembly { by_key, ..Reassembly::default() }
    }

    /// Takes a part: the whole packet where it was the last one missing. [`Lost::Fragment`] where the part, or the packet it
    /// belongs to, is refused; TCP's always are.
    pub fn take(&mut self, packet: &Packet, call: &mut Call<'_>) -> Result<Option<Whole>, Lost> {
        let bytes = call.inside.bytes(packet.id);
        let part = carried(&packet.ip, bytes).ok_or(Lost::Fragment)?;
        let key = Key {
            zone: packet.zone,
            owner: packet.owner,
            src: packet.ip.src,
            dst: packet.ip.dst,
            protocol: part.protocol,
            id: part.id,
        };
        let number = self.number(key, call.now);
        let Some(held) = self.held.get_mut(&number) else { return Err(Lost::Fragment) };
        let before = held.cost;
        let added = held.add(&packet.ip, bytes, &part);
        let lost = if added.is_err() { held.spoil() } else { 0 };
        let (after, complete) = (held.cost, held.is_complete());
        self.charge(key.owner, before, after);
        if lost > 0 {
            call.inside.lost(key.zone, key.src, Lost::Fragment, lost);
        }
        added?;
        if complete {
            let held = self.remove(number);
            return held.and_then(|held| held.packet(&held.parts)).map(Some).ok_or(Lost::Fragment);
        }
        self.make_room(key.owner, number, call.inside)
    }

    /// When [`Reassembly::handle_timeout`] wants to be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Gives up what has been waited for long enough.
    pub fn handle_timeout(&mut self, call: &mut Call<'_>) {
        while let Some((at, number)) = self.due.first().copied()
            && at <= call.now
        {
            if let Some(held) = self.held.get(&number) {
                held.tell(call.inside);
            }
            self.give_up(number, call.inside);
        }
    }

    /// Whether nothing is kept, in any of the tables.
    #[cfg(test)]
    pub(super) fn is_clear(&self) -> bool {
        let tables = self.by_key.is_empty() && self.held.is_empty() && self.due.is_empty();
        tables && self.accounts.is_empty() && self.cost == 0
    }

    /// What is kept, bytes.
    #[cfg(test)]
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    /// The packet of that key; a new one where there is none.
    fn number(&mut self, key: Key, now: Time) -> u32 {
        if let Some(number) = self.by_key.get(&key) {
            return *number;
        }
        while self.held.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let due = now + if key.src.is_ipv4() { WAIT_V4 } else { WAIT_V6 };
        let held = Held {
            key,
            begun: now,
            due,
            cost: PACKET_COST,
            parts: Vec::new(),
            first: None,
            len: None,
            spoiled: false,
        };
        self.held.insert(number, held);
        self.by_key.insert(key, number);
        self.due.insert((due, number));
        self.charge(key.owner, 0, PACKET_COST);
        self.accounts.entry(key.owner).or_default().held.insert((now, number));
        number
    }

    /// What something of an owner costs has changed.
    fn charge(&mut self, owner: Owner, before: usize, after: usize) {
        let account = self.accounts.entry(owner).or_default();
        account.cost = (account.cost + after).saturating_sub(before);
        self.cost = (self.cost + after).saturating_sub(before);
    }

    /// Gives up the oldest of whoever has too much, `latest` only where there is nothing else; [`Lost::Fragment`] then.
    fn make_room(
        &mut self,
        owner: Owner,
        latest: u32,
        inside: &mut dyn Inside,
    ) -> Result<Option<Whole>, Lost> {
        loop {
            let own = self.accounts.get(&owner).map_or(0, |account| account.cost);
            let payer = if own > OWNER_BYTES_MAX {
                owner
            } else if self.cost > BYTES_MAX {
                let most = self.accounts.iter().max_by_key(|(_, account)| account.cost);
                most.map_or(owner, |(whose, _)| *whose)
            } else {
                return Ok(None);
            };
            let held = self.accounts.get(&payer).map(|account| &account.held);
            let oldest = held.into_iter().flatten().map(|(_, number)| *number);
            match { oldest }.find(|number| *number != latest) {
                Some(oldest) => self.give_up(oldest, inside),
                None => {
                    self.give_up(latest, inside);
                    return Err(Lost::Fragment);
                }
            }
        }
    }

    /// Forgets a packet, and counts the parts that had come.
    fn give_up(&mut self, number: u32, inside: &mut dyn Inside) {
        let Some(held) = self.remove(number) else { return };
        if !held.parts.is_empty() {
            let count = held.parts.len() as u64;
            inside.lost(held.key.zone, held.key.src, Lost::Fragment, count);
        }
    }

    fn remove(&mut self, number: u32) -> Option<Held> {
        let held = self.held.remove(&number)?;
        self.by_key.remove(&held.key);
        self.due.remove(&(held.due, number));
        self.charge(held.key.owner, held.cost, 0);
        if let Some(account) = self.accounts.get_mut(&held.key.owner) {
            account.held.remove(&(held.begun, number));
            if account.held.is_empty() {
                self.accounts.remove(&held.key.owner);
            }
        }
        Some(held)
    }
}

impl Held {
    /// Adds a part, unless it is there already. [`Lost::Fragment`] where it contradicts the others, or is one too many.
    fn add(&mut self, ip: &Ip, bytes: &[u8], part: &Carried<'_>) -> Result<(), Lost> {
        if self.spoiled {
            return Err(Lost::Fragment);
        }
        let at = self.parts.partition_point(|(offset, _)| *offset < part.offset);
        let next = self.parts.get(at);
        if next.is_some_and(|(offset, data)| *offset == part.offset && data == part.data) {
            let last = self.len == Some(part.end());
            return if last != part.more { Ok(()) } else { Err(Lost::Fragment) };
        }
        let end = |(offset, data): &(usize, Vec<u8>)| offset + data.len();
        let before = at.checked_sub(1).and_then(|at| self.parts.get(at)).map_or(0, end);
        let overlaps = before > part.offset || next.is_some_and(|(next, _)| *next < part.end());
        let furthest = self.parts.last().map_or(0, end).max(part.end());
        let len = if part.more { self.len } else { Some(part.end()) };
        let differs = self.len.is_some() && self.len != len;
        let beyond = len.is_some_and(|len| furthest > len || (part.more && part.end() == len));
        if overlaps || differs || beyond || self.parts.len() == PARTS_MAX {
            return Err(Lost::Fragment);
        }
        if part.offset == 0 {
            self.first = Some((*ip, header(ip, bytes, part.protocol, 0).ok_or(Lost::Fragment)?));
        }
        self.len = len;
        self.cost += PART_COST + part.data.len();
        self.parts.insert(at, (part.offset, part.data.to_vec()));
        Ok(())
    }

    /// Lets go of all parts, and takes no more: how many there were.
    fn spoil(&mut self) -> u64 {
        self.spoiled = true;
        self.cost = PACKET_COST;
        self.first = None;
        std::mem::take(&mut self.parts).len() as u64
    }

    /// Whether no part is missing: none overlaps another, so that their lengths tell.
    fn is_complete(&self) -> bool {
        let have = self.parts.iter().map(|(_, data)| data.len()).sum::<usize>();
        !self.spoiled && self.len == Some(have)
    }

    /// Tells the sender that not all came in time, where the part is there that says whose packet it was.
    fn tell(&self, inside: &mut dyn Inside) {
        let Some(own) = inside.gateway(self.key.zone, self.key.src) else { return };
        let start = self.parts.get(..1).and_then(|first| self.packet(first));
        let error =
            start.and_then(|start| Error::about(&start.ip, &start.bytes, own, Reason::Reassembly));
        if let Some(error) = error {
            error.send(self.key.zone, inside);
        }
    }

    /// The packet that these parts make, the first of all in front.
    fn packet(&self, parts: &[(usize, Vec<u8>)]) -> Option<Whole> {
        let (first, head) = self.first.as_ref()?;
        let len = parts.iter().map(|(_, data)| data.len()).sum();
        let mut bytes = header(&Ip { l3: 0, ..*first }, head, self.key.protocol, len)?;
        for (_, data) in parts {
            bytes.extend_from_slice(data);
        }
        let ip = Ip::of(&bytes, 0)?;
        Some(Whole { bytes, ip })
    }
}
