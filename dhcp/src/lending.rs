//! How strangers are lent addresses, whichever family these are of: the table of leases, the clients that wait for an address to
//! be found free, and what became of leases since somebody asked.
//!
//! An address that was not lent in this life may be somebody's all the same, so the wire is asked for it first, three times, as
//! hosts do before they use one (RFC 5227, section 2.1.1): a question or an answer may be lost. Whoever wants it waits meanwhile:
//! nobody answering within [`PROBE_WAIT`] is what makes it free. Time counts from when a question was fetched to be sent
//! ([`Lending::next_probe`]), so that none that could not be sent counts. There is one client that waits for an address at a
//! time, the one that it is held for in the table, so that the table's limits hold for questions too.
//!
//! Each question goes to everybody, so that only [`UNDER_QUESTION_MAX`] addresses are asked for at once: after a restart
//! everybody comes at once, and what is asked too fast is lost on its way, and would count as unanswered. The others wait for
//! their turn, which goes from port to port, so that a port that wants many holds up nobody who wants one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::lease::{Address, Client, Lease, State, Table};

/// How often the wire is asked for an address before it is taken for free.
const PROBES: u32 = 3;

/// How long an answer to each question is waited for.
pub const PROBE_GAP: Duration = Duration::from_millis(200);

/// How long all of that takes: less than the second after which the hastiest clients ask again.
pub const PROBE_WAIT: Duration = PROBE_GAP.saturating_mul(PROBES);

/// Addresses that are asked for at once: some fifty in a second, so that a few hundred machines have theirs before their patience
/// ends.
pub const UNDER_QUESTION_MAX: usize = 32;

/// How long an address is lent to nobody after it was found in use.
pub(crate) const SHUNNED: Duration = Duration::from_secs(600);

/// What became of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happened {
    /// It was given.
    Given,
    /// It goes on.
    Renewed,
    /// It was given back.
    Released,
    /// It ran out, or its port is gone, or an endpoint has the address now.
    Ended,
    /// Its client found somebody else there.
    Declined,
}

/// A lease, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change<A> {
    /// What.
    pub happened: Happened,
    /// Of which.
    pub lease: Lease<A>,
}

/// A client that waits for an address to be found free.
#[derive(Clone, Debug)]
pub(crate) struct Waiting<W> {
    /// Who.
    pub(crate) client: Client,
    /// What it said, to go on with.
    pub(crate) said: W,
    /// Whether somebody has answered.
    pub(crate) taken: bool,
    /// Questions that are still to be asked.
    left: u32,
    /// When the next one is, or the wait is over; none where one is to be fetched.
    due: Option<Duration>,
    /// It has been asked for, and so has one of the places of those that are.
    is_begun: bool,
}

/// Whom one server lends addresses. `W` is what it has to keep of a message whose answer has to wait.
#[derive(Clone, Debug)]
pub struct Lending<A, W> {
    pub(crate) table: Table<A>,
    waiting: BTreeMap<A, Waiting<W>>,
    /// Those that a question was asked for, by when they go on.
    due: BTreeSet<(Duration, A)>,
    /// Those that another question is to be asked for.
    asked: BTreeSet<A>,
    /// Those that none was asked for yet, by the port of who waits.
    queued: BTreeSet<(u32, A)>,
    /// The port whose turn it was last.
    turn: u32,
    /// How many have been asked for.
    begun: usize,
    changes: Vec<Change<A>>,
}

impl<A: Address, W> Lending<A, W> {
    pub(crate) fn new(table: Table<A>) -> Lending<A, W> {
        Lending {
            table,
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            asked: BTreeSet::new(),
            queued: BTreeSet::new(),
            turn: u32::MAX,
            begun: 0,
            changes: Vec::new(),
        }
    }

    /// An endpoint comes, with its addresses in order.
    pub fn attach(&mut self, port: u32, hardware: [u8; 6], addresses: Vec<A>) {
        for &address in &addresses {
            self.wait_no_more(address);
        }
        let ended = self.table.attach(port, hardware, addresses);
        self.note(Happened::Ended, ended);
    }

    /// A port goes, and everybody behind it.
    pub fn detach(&mut self, port: u32) {
        let behind = self.waiting.iter().filter(|(_, waiting)| waiting.client.port == port);
        let behind: Vec<_> = behind.map(|(address, _)| *address).collect();
        for address in behind {
            self.wait_no_more(address);
        }
        let ended = self.table.detach(port);
        self.note(Happened::Ended, ended);
    }

    /// Somebody behind a port was heard to use an address. Where a client waits for it to be found free, that is settled when the
    /// server runs out next: it gets another, or is told that it cannot keep this one. Its own voice does not count, nor one that
    /// has spoken for as many addresses as a port may hold.
    pub fn heard(&mut self, address: A, port: u32, hardware: [u8; 6], now: Duration) {
        let Some(waiting) = self.waiting.get_mut(&address) else { return };
        if waiting.taken || waiting.client.hardware == hardware || !self.table.has_room(port) {
            return;
        }
        waiting.taken = true;
        let (by, until) = ((port, hardware), now + SHUNNED);
        let held = self.table.shun(&waiting.client, address, State::Taken, by, until);
        self.schedule(address, now);
        let ended = held.filter(|held| held.state == State::Bound);
        self.note(Happened::Ended, ended);
    }

    /// The next address to be asked for on the wire: by ARP, or a neighbor solicitation.
    pub fn next_probe(&mut self, now: Duration) -> Option<A> {
        let address = self.asked.pop_first().or_else(|| self.begin())?;
        self.schedule(address, now + PROBE_GAP);
        Some(address)
    }

    /// The address whose turn it is to be asked for first, where there is a place for one.
    fn begin(&mut self) -> Option<A> {
        if !self.may_begin() {
            return None;
        }
        let following = self.turn.checked_add(1);
        let behind = following.and_then(|port| self.queued.range((port, A::of(0))..).next());
        let (port, address) = *behind.or_else(|| self.queued.first())?;
        self.queued.remove(&(port, address));
        self.turn = port;
        self.waiting.get_mut(&address)?.is_begun = true;
        self.begun += 1;
        Some(address)
    }

    /// Whether an address waits for its turn, and there is a place for it.
    fn may_begin(&self) -> bool {
        self.begun < UNDER_QUESTION_MAX && !self.queued.is_empty()
    }

    /// What became of leases since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<Change<A>> {
        std::mem::take(&mut self.changes)
    }

    /// When something is due: a question to be asked, a wait to be over, or a lease to end.
    pub fn next_timeout(&self) -> Option<Duration> {
        let asked = (!self.asked.is_empty() || self.may_begin()).then_some(Duration::ZERO);
        let due = self.due.first().map(|(due, _)| *due);
        [asked, due, self.table.next_end()].into_iter().flatten().min()
    }

    /// How many strangers have a lease.
    pub fn bound(&self) -> usize {
        self.table.bound()
    }

    /// A client, which the address is held for, waits for it to be found free.
    pub(crate) fn wait(&mut self, address: A, client: Client, said: W) {
        if let Some(waiting) = self.waiting.get_mut(&address) {
            // One that was taken waits for another; whoever has it will ask again.
            if !waiting.taken {
                if self.queued.remove(&(waiting.client.port, address)) {
                    self.queued.insert((client.port, address));
                }
                (waiting.client, waiting.said) = (client, said);
            }
            return;
        }
        self.queued.insert((client.port, address));
        let (left, due) = (PROBES - 1, None);
        let waiting = Waiting { client, said, taken: false, left, due, is_begun: false };
        self.waiting.insert(address, waiting);
    }

    /// Nobody waits for an address any longer; who did.
    pub(crate) fn wait_no_more(&mut self, address: A) -> Option<Waiting<W>> {
        let waiting = self.waiting.remove(&address)?;
        self.asked.remove(&address);
        self.queued.remove(&(waiting.client.port, address));
        self.begun -= usize::from(waiting.is_begun);
        if let Some(due) = waiting.due {
            self.due.remove(&(due, address));
        }
        Some(waiting)
    }

    /// Whether somebody waits for an address.
    pub(crate) fn is_awaited(&self, address: A) -> bool {
        self.waiting.contains_key(&address)
    }

    /// Whether a machine of another hardware address waits for an address.
    pub(crate) fn is_awaited_by_another(&self, address: A, hardware: [u8; 6]) -> bool {
        self.waiting.get(&address).is_some_and(|waiting| waiting.client.hardware != hardware)
    }

    /// Lends an address that is held for a client and known to be nobody else's, or goes on lending it. None where it is not held
    /// for it.
    pub(crate) fn bind(&mut self, client: &Client, address: A, until: Duration) -> Option<()> {
        let fresh = self.table.bind(client, address, until)?;
        let happened = if fresh { Happened::Given } else { Happened::Renewed };
        let lease = self.table.get(address).cloned();
        self.note(happened, lease);
        Some(())
    }

    /// A client gives an address back. None where it has no lease of it. The caller asks first whether the port may.
    pub(crate) fn release(&mut self, client: &Client, address: A, now: Duration) -> Option<()> {
        let lease = self.table.release(client, address, now)?;
        self.wait_no_more(address);
        self.note(Happened::Released, [lease]);
        Some(())
    }

    /// A client has found somebody else at an address that is held for it. None where it is not, else what was.
    pub(crate) fn decline(&mut self, client: &Client, address: A, now: Duration) -> Option<()> {
        let (until, by) = (now + SHUNNED, (client.port, client.hardware));
        let lease = self.table.shun(client, address, State::Declined, by, until)?;
        self.wait_no_more(address);
        self.note(Happened::Declined, [lease]);
        Some(())
    }

    /// The endpoint behind a client's port has found somebody else at addresses that are its own, and stay so.
    pub(crate) fn decline_own(&mut self, client: &Client, own: Vec<A>, now: Duration) {
        if !own.is_empty() && self.table.may_release(client.port, now) {
            self.table.note_release(client.port, now);
            let (state, until) = (State::Declined, now);
            let lease = |address| Lease { address, client: client.clone(), state, until };
            self.note(Happened::Declined, own.into_iter().map(lease));
        }
    }

    /// The next client that has waited long enough, and for what. An address that nobody answered for is proven then.
    pub(crate) fn waited(&mut self, now: Duration) -> Option<(A, Waiting<W>)> {
        while let Some(&(due, address)) = self.due.first().filter(|(due, _)| *due <= now) {
            if let Some(waiting) = self.waiting.get_mut(&address)
                && !waiting.taken
                && waiting.left > 0
            {
                waiting.left -= 1;
                waiting.due = None;
                self.due.remove(&(due, address));
                self.asked.insert(address);
                continue;
            }
            let waiting = self.wait_no_more(address)?;
            if !waiting.taken {
                self.table.prove(address);
            }
            return Some((address, waiting));
        }
        None
    }

    /// Ends the leases whose time is over.
    pub(crate) fn expire(&mut self, now: Duration) {
        while let Some(lease) = self.table.expire(now) {
            self.wait_no_more(lease.address);
            if lease.state == State::Bound {
                self.note(Happened::Ended, [lease]);
            }
        }
    }

    /// Whoever waits for an address goes on at that time, and no other.
    fn schedule(&mut self, address: A, at: Duration) {
        let Some(waiting) = self.waiting.get_mut(&address) else { return };
        self.asked.remove(&address);
        self.queued.remove(&(waiting.client.port, address));
        if let Some(before) = waiting.due.replace(at) {
            self.due.remove(&(before, address));
        }
        self.due.insert((at, address));
    }

    /// Takes note of what became of leases.
    pub(crate) fn note(&mut self, happened: Happened, leases: impl IntoIterator<Item = Lease<A>>) {
        let changes = leases.into_iter().map(|lease| Change { happened, lease });
        self.changes.extend(changes);
    }
}

#[cfg(test)]
mod tests;
