//! A DHCPv4 server (RFC 2131): one message in, and what is to be done about it out.
//!
//! Theory of operation. Endpoints are told their own addresses, whatever they ask for. A stranger is lent one of the pool, softly:
//! nothing of it is kept when the switch ends. So an address that was not lent in this life is first asked for on the wire: the
//! caller sends an ARP request, and when [`PROBE_WAIT`] has passed without an answer ([`Server::heard`]), the client gets what it
//! waits for ([`Server::run_out`]). An answer keeps the address from everybody for a while, and the next one is tried.
//!
//! The same way a stranger gets to keep an address that it says it has had all along, though nobody here remembers. RFC 2131
//! would have the server be silent, for there might be another one that knows. Here there is none, and silence would have each
//! client keep trying until its lease ends, and then change its address, after every restart. Its own answer to the ARP request
//! does not count against it.
//!
//! What becomes of leases is told beside the reply ([`Change`]): the caller keeps names and neighbors by it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dhcproto::v4::MessageType;

use crate::lease::{self, Client, Lease, Row, State, Table};
use crate::service::Dhcp4;

mod reply;
pub(crate) mod request;

use reply::Told;
use request::Request;

/// The port that the server and relay agents listen at.
pub const SERVER_PORT: u16 = 67;

/// The port that clients listen at.
pub const CLIENT_PORT: u16 = 68;

/// How long somebody has to answer for an address before it is lent.
pub const PROBE_WAIT: Duration = Duration::from_millis(500);

/// How long an offer holds: a client that has several to choose from decides within seconds.
const OFFER_TIME: Duration = Duration::from_secs(30);

/// How long an address is lent to nobody after it was found in use.
const SHUNNED: Duration = Duration::from_secs(600);

/// The shortest lease that a client may ask for: a shorter one is little but work.
const LEASE_MIN: Duration = Duration::from_secs(60);

/// Where a message came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin<'a> {
    /// The port, as the caller numbers them.
    pub port: u32,
    /// The hardware address that sent it: the client's own, or a relay agent's.
    pub hardware: [u8; 6],
    /// What the endpoint behind that port is called; none where it has no name.
    pub hostname: Option<&'a str>,
}

/// A reply, and who is to have it (RFC 2131, section 4.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// By which port.
    pub port: u32,
    /// The hardware address: everybody's, where the client can take nothing else.
    pub hardware: [u8; 6],
    /// The address and the port.
    pub to: SocketAddrV4,
    /// The payload of a datagram.
    pub message: Vec<u8>,
}

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
pub struct Change {
    /// What.
    pub happened: Happened,
    /// Of which.
    pub lease: Lease<Ipv4Addr>,
}

/// Why a message is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It is none of a client.
    Malformed,
    /// It came by a relay agent, which the network does not allow, or one of another subnet.
    Relay,
    /// No address is left.
    Exhausted,
    /// The port has as many leases as it may.
    PortLimit,
}

/// The server of one network.
#[derive(Clone, Debug)]
pub struct Server {
    spec: Dhcp4,
    table: Table<Ipv4Addr>,
    /// What waits for nobody to answer for an address, by address.
    waiting: BTreeMap<Ipv4Addr, Waiting>,
    /// The same by when it has waited long enough.
    probes: BTreeSet<(Duration, Ipv4Addr)>,
    /// Addresses to be asked for.
    asked: Vec<Ipv4Addr>,
    changes: Vec<Change>,
}

/// A client that waits for an address to be found free.
#[derive(Clone, Debug)]
struct Waiting {
    request: Request,
    port: u32,
    /// Who sent it.
    hardware: [u8; 6],
    due: Duration,
    /// Whether somebody has answered.
    taken: bool,
}

impl Server {
    /// A server that knows nobody yet.
    pub fn new(spec: Dhcp4) -> Server {
        Server {
            table: Table::new(spec.pool.clone()),
            spec,
            waiting: BTreeMap::new(),
            probes: BTreeSet::new(),
            asked: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// What it tells.
    pub fn spec(&self) -> &Dhcp4 {
        &self.spec
    }

    /// An endpoint comes, with its addresses in order.
    pub fn attach(&mut self, port: u32, hardware: [u8; 6], addresses: Vec<Ipv4Addr>) {
        for &address in &addresses {
            self.wait_no_more(address);
        }
        let ended = self.table.attach(port, hardware, addresses);
        self.note(Happened::Ended, ended);
    }

    /// A port goes, and everybody behind it.
    pub fn detach(&mut self, port: u32) {
        let behind = self.waiting.iter().filter(|(_, waiting)| waiting.port == port);
        let behind: Vec<_> = behind.map(|(address, _)| *address).collect();
        for address in behind {
            self.wait_no_more(address);
        }
        let ended = self.table.detach(port);
        self.note(Happened::Ended, ended);
    }

    /// Takes a message, and returns the reply where there is one at once.
    pub fn receive(
        &mut self,
        message: &[u8],
        from: Origin<'_>,
        now: Duration,
    ) -> Result<Option<Reply>, Refusal> {
        let request = Request::read(message).ok_or(Refusal::Malformed)?;
        let relay = request.giaddr;
        let welcome = self.spec.relay && self.spec.subnet.contains(&relay);
        if !relay.is_unspecified() && !welcome {
            return Err(Refusal::Relay);
        }
        match request.kind {
            MessageType::Discover => self.discover(&request, from, now),
            MessageType::Request => self.request(&request, from, now),
            MessageType::Decline => {
                self.decline(&request, from, now);
                Ok(None)
            }
            MessageType::Release => {
                self.release(&request, from, now);
                Ok(None)
            }
            MessageType::Inform => Ok(Some(self.inform(&request, from))),
            _ => Err(Refusal::Malformed),
        }
    }

    /// Somebody behind a port was heard to use an address. Where a client waits for it to be found free, that is settled with the
    /// next call of [`Server::run_out`]: it is offered another, or told that it cannot keep this one. Its own voice does not count,
    /// nor one that has spoken for as many addresses as a port may hold.
    pub fn heard(&mut self, address: Ipv4Addr, port: u32, hardware: [u8; 6], now: Duration) {
        let Some(waiting) = self.waiting.get_mut(&address) else { return };
        if waiting.taken || waiting.request.chaddr == hardware || !self.table.has_room(port) {
            return;
        }
        let client = waiting.request.client(waiting.port);
        let by = (port, hardware);
        let held = self.table.shun(&client, address, State::Taken, by, now + SHUNNED);
        self.probes.remove(&(waiting.due, address));
        self.probes.insert((now, address));
        waiting.due = now;
        waiting.taken = true;
        let ended = held.filter(|held| held.state == State::Bound);
        self.note(Happened::Ended, ended);
    }

    /// The next address to be asked for by ARP.
    pub fn next_probe(&mut self) -> Option<Ipv4Addr> {
        self.asked.pop()
    }

    /// What became of leases since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// When something is due: a probe to be sent or to be over, or a lease to end.
    pub fn next_timeout(&self) -> Option<Duration> {
        let asked = (!self.asked.is_empty()).then_some(Duration::ZERO);
        let probe = self.probes.first().map(|(due, _)| *due);
        [asked, probe, self.table.next_end()].into_iter().flatten().min()
    }

    /// Does what has become due, up to the first reply that comes of it, which is returned; none where nothing more is due.
    pub fn run_out(&mut self, now: Duration) -> Option<Reply> {
        while let Some(&(due, address)) = self.probes.first().filter(|(due, _)| *due <= now) {
            self.probes.remove(&(due, address));
            let waiting = self.wait_no_more(address);
            let reply = waiting.and_then(|waiting| self.proceed(&waiting, address, now));
            if reply.is_some() {
                return reply;
            }
        }
        while let Some(lease) = self.table.expire(now) {
            self.wait_no_more(lease.address);
            if lease.state == State::Bound {
                self.note(Happened::Ended, [lease]);
            }
        }
        None
    }

    /// At most `limit` rows behind `after`, in order of address, each client called by its identifier.
    pub fn rows(&self, after: Option<Ipv4Addr>, limit: usize) -> Vec<Row<Ipv4Addr>> {
        self.table.rows(after, limit)
    }

    /// How many strangers have a lease.
    pub fn bound(&self) -> usize {
        self.table.bound()
    }

    fn discover(
        &mut self,
        request: &Request,
        from: Origin<'_>,
        now: Duration,
    ) -> Result<Option<Reply>, Refusal> {
        let client = request.client(from.port);
        if let Some(own) = self.own(request, from.port) {
            return Ok(Some(self.repeat(request, from, own)));
        }
        let offered = self.table.offer(&client, request.requested, now + OFFER_TIME);
        let address = offered.map_err(refused)?;
        Ok(self.after_probe(request, from, address, now))
    }

    fn request(
        &mut self,
        request: &Request,
        from: Origin<'_>,
        now: Duration,
    ) -> Result<Option<Reply>, Refusal> {
        let client = request.client(from.port);
        if request.server.is_some_and(|server| server != self.spec.server) {
            self.cancel(&client);
            return Ok(None);
        }
        let wanted = request.requested.or(Some(request.ciaddr).filter(|ip| !ip.is_unspecified()));
        let wanted = wanted.ok_or(Refusal::Malformed)?;
        if let Some(own) = self.own(request, from.port) {
            let reply = match own.contains(&wanted) {
                true => self.repeat(request, from, vec![wanted]),
                false => self.refuse(request, from),
            };
            return Ok(Some(reply));
        }
        match self.table.adopt(&client, wanted, now + OFFER_TIME) {
            Ok(()) => Ok(self.after_probe(request, from, wanted, now)),
            Err(lease::Refusal::Taken) if self.is_in_doubt(request, wanted) => {
                self.heard(wanted, from.port, request.chaddr, now);
                Ok(None)
            }
            Err(lease::Refusal::Taken) => Ok(Some(self.refuse(request, from))),
            Err(refusal) => Err(refused(refusal)),
        }
    }

    /// Whether a client says that it has an address which is just being asked for on the wire, for another. That is an answer, too,
    /// and nothing that can be refused before it is settled: it will ask again.
    fn is_in_doubt(&self, request: &Request, address: Ipv4Addr) -> bool {
        let waiting = self.waiting.get(&address);
        let for_another = waiting.is_some_and(|waiting| waiting.request.chaddr != request.chaddr);
        request.server.is_none() && for_another
    }

    fn decline(&mut self, request: &Request, from: Origin<'_>, now: Duration) {
        let ours = request.server.is_none_or(|server| server == self.spec.server);
        let Some(address) = request.requested.filter(|_| ours) else { return };
        let client = request.client(from.port);
        if self.own(request, from.port).is_some_and(|own| own.contains(&address)) {
            if self.table.may_release(from.port, now) {
                let own = Lease { address, client, state: State::Declined, until: now };
                self.note(Happened::Declined, [own]);
            }
            return;
        }
        let (until, by) = (now + SHUNNED, (from.port, request.chaddr));
        let shunned = self.table.shun(&client, address, State::Declined, by, until);
        if let Some(lease) = shunned {
            self.wait_no_more(address);
            self.note(Happened::Declined, [lease]);
        }
    }

    fn release(&mut self, request: &Request, from: Origin<'_>, now: Duration) {
        let client = request.client(from.port);
        let ours = request.server.is_none_or(|server| server == self.spec.server);
        if ours {
            let ended = self.table.release(&client, request.ciaddr, now);
            self.note(Happened::Released, ended);
        }
    }

    /// Tells whoever has an address all but that.
    fn inform(&mut self, request: &Request, from: Origin<'_>) -> Reply {
        let own = self.own(request, from.port).is_some();
        let hostname = from.hostname.filter(|_| own);
        let told =
            Told { kind: MessageType::Ack, address: None, lease: None, hostname, rapid: false };
        self.reply(request, from, &told)
    }

    /// The addresses that are an endpoint's own, where it asks itself.
    fn own(&self, request: &Request, port: u32) -> Option<Vec<Ipv4Addr>> {
        let near = request.giaddr.is_unspecified();
        let endpoint = self.table.endpoint(port, request.chaddr).filter(|_| near)?;
        let own = || endpoint.addresses.iter().copied();
        own().any(|own| self.spec.subnet.contains(&own)).then(|| own().collect())
    }

    /// Tells an endpoint its own address: the first of `own` in the subnet.
    fn repeat(&mut self, request: &Request, from: Origin<'_>, own: Vec<Ipv4Addr>) -> Reply {
        let hostname = from.hostname.map(Into::into).or_else(|| request.hostname.clone());
        self.table.note_asked(Client { hostname, ..request.client(from.port) });
        let rapid = request.kind == MessageType::Discover && request.rapid;
        let offer = request.kind == MessageType::Discover && !rapid;
        let told = Told {
            kind: if offer { MessageType::Offer } else { MessageType::Ack },
            address: own.into_iter().find(|own| self.spec.subnet.contains(own)),
            lease: Some(self.lease_time(request)),
            hostname: from.hostname,
            rapid,
        };
        self.reply(request, from, &told)
    }

    /// Settles what a stranger asks at once where the address is known to be nobody's, else when it is.
    fn after_probe(
        &mut self,
        request: &Request,
        from: Origin<'_>,
        address: Ipv4Addr,
        now: Duration,
    ) -> Option<Reply> {
        if self.table.is_proven(address) {
            return Some(self.settle(request, from, address, now));
        }
        let request = request.clone();
        if let Some(waiting) = self.waiting.get_mut(&address) {
            // One that was taken waits for another; whoever has it will ask again.
            if !waiting.taken {
                (waiting.request, waiting.hardware) = (request, from.hardware);
            }
            return None;
        }
        let due = now + PROBE_WAIT;
        self.asked.push(address);
        self.probes.insert((due, address));
        let Origin { port, hardware, .. } = from;
        let waiting = Waiting { request, port, hardware, due, taken: false };
        self.waiting.insert(address, waiting);
        None
    }

    /// Goes on with a client that has waited for an address.
    fn proceed(&mut self, waiting: &Waiting, address: Ipv4Addr, now: Duration) -> Option<Reply> {
        let Waiting { request, port, hardware, .. } = waiting;
        let from = Origin { port: *port, hardware: *hardware, hostname: None };
        if !waiting.taken {
            self.table.prove(address);
            return Some(self.settle(request, from, address, now));
        }
        match request.kind {
            MessageType::Discover => self.discover(request, from, now).ok().flatten(),
            _ => Some(self.refuse(request, from)),
        }
    }

    /// Offers or lends a stranger the address that is held for it.
    fn settle(
        &mut self,
        request: &Request,
        from: Origin<'_>,
        address: Ipv4Addr,
        now: Duration,
    ) -> Reply {
        let rapid = request.kind == MessageType::Discover && request.rapid;
        let offer = request.kind == MessageType::Discover && !rapid;
        let lease = self.lease_time(request);
        let client = request.client(from.port);
        if !offer {
            let Some(fresh) = self.table.bind(&client, address, now + lease) else {
                return self.refuse(request, from);
            };
            let happened = if fresh { Happened::Given } else { Happened::Renewed };
            let held = self.table.get(address).cloned();
            self.note(happened, held);
        }
        let told = Told {
            kind: if offer { MessageType::Offer } else { MessageType::Ack },
            address: Some(address),
            lease: Some(lease),
            hostname: client.hostname.as_deref(),
            rapid,
        };
        self.reply(request, from, &told)
    }

    fn refuse(&mut self, request: &Request, from: Origin<'_>) -> Reply {
        let told = Told {
            kind: MessageType::Nak,
            address: None,
            lease: None,
            hostname: None,
            rapid: false,
        };
        self.reply(request, from, &told)
    }

    fn reply(&self, request: &Request, from: Origin<'_>, told: &Told<'_>) -> Reply {
        let everybody = ([0xff; 6], SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT));
        let (hardware, to) = if !request.giaddr.is_unspecified() {
            (from.hardware, SocketAddrV4::new(request.giaddr, SERVER_PORT))
        } else if told.kind == MessageType::Nak {
            everybody
        } else if !request.ciaddr.is_unspecified() {
            (from.hardware, SocketAddrV4::new(request.ciaddr, CLIENT_PORT))
        } else {
            match told.address.filter(|_| !request.wants_broadcast()) {
                Some(address) => (request.chaddr, SocketAddrV4::new(address, CLIENT_PORT)),
                None => everybody,
            }
        };
        let message = reply::write(&self.spec, request, told);
        Reply { port: from.port, hardware, to, message }
    }

    fn lease_time(&self, request: &Request) -> Duration {
        let wanted =
            request.lease.map_or(self.spec.lease, |wanted| Duration::from_secs(wanted.into()));
        wanted.max(LEASE_MIN).min(self.spec.lease)
    }

    /// A client has chosen another server's offer. An address that the wire is still asked for stays offered until it ends:
    /// whoever turned it down at once could have everybody asked without end.
    fn cancel(&mut self, client: &Client) {
        let held = self.table.of_client(client);
        if held.is_some_and(|held| !self.waiting.contains_key(&held.address)) {
            self.table.withdraw(client);
        }
    }

    fn wait_no_more(&mut self, address: Ipv4Addr) -> Option<Waiting> {
        let waiting = self.waiting.remove(&address)?;
        self.probes.remove(&(waiting.due, address));
        self.asked.retain(|asked| *asked != address);
        Some(waiting)
    }

    fn note(&mut self, happened: Happened, leases: impl IntoIterator<Item = Lease<Ipv4Addr>>) {
        let changes = leases.into_iter().map(|lease| Change { happened, lease });
        self.changes.extend(changes);
    }
}

fn refused(refusal: lease::Refusal) -> Refusal {
    match refusal {
        lease::Refusal::PortLimit => Refusal::PortLimit,
        lease::Refusal::Exhausted | lease::Refusal::Taken => Refusal::Exhausted,
    }
}

#[cfg(test)]
mod tests;
