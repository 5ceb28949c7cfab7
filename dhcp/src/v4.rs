//! A DHCPv4 server (RFC 2131): one message in, and what is to be done about it out.
//!
//! Theory of operation. Endpoints are told their own addresses, whatever they ask for. A stranger is lent one of the pool, softly:
//! nothing of it is kept when the switch ends. So an address that was not lent in this life is first asked for on the wire
//! ([`crate::lending`]): the caller sends ARP requests, and when they went without an answer, the client gets what it waits for
//! ([`Server::run_out`]). An answer keeps the address from everybody for a while, and the next one is tried.
//!
//! The same way a stranger gets to keep an address that it says it has had all along, though nobody here remembers. RFC 2131
//! would have the server be silent, for there might be another one that knows. Here there is none, and silence would have each
//! client keep trying until its lease ends, and then change its address, after every restart. Its own answer to the ARP request
//! does not count against it.
//!
//! What becomes of leases is told beside the reply ([`Lending::take_changes`]): the caller keeps names and neighbors by it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dhcproto::v4::MessageType;

use crate::lease::{self, Client, Row, Table};
use crate::lending::{Lending, Waiting};
use crate::service::Dhcp4;

mod reply;
pub(crate) mod request;

use reply::Told;
use request::Request;

/// The port that the server and relay agents listen at.
pub const SERVER_PORT: u16 = 67;

/// The port that clients listen at.
pub const CLIENT_PORT: u16 = 68;

/// How long an offer holds: a client that has several to choose from decides within seconds.
const OFFER_TIME: Duration = Duration::from_secs(30);

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
    /// Whom it lends addresses.
    pub lending: Lending<Ipv4Addr, Asked>,
}

/// A message whose answer waits for an address to be found free.
#[derive(Clone, Debug)]
pub struct Asked {
    request: Request,
    /// Who sent it: the client, or a relay agent.
    hardware: [u8; 6],
}

impl Server {
    /// A server that knows nobody yet.
    pub fn new(spec: Dhcp4) -> Server {
        Server { lending: Lending::new(Table::new(spec.pool.clone())), spec }
    }

    /// What it tells.
    pub fn spec(&self) -> &Dhcp4 {
        &self.spec
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

    /// Does what has become due, up to the first reply that comes of it, which is returned; none where nothing more is due.
    pub fn run_out(&mut self, now: Duration) -> Option<Reply> {
        while let Some((address, waiting)) = self.lending.waited(now) {
            let reply = self.proceed(&waiting, address, now);
            if reply.is_some() {
                return reply;
            }
        }
        self.lending.expire(now);
        None
    }

    /// At most `limit` rows behind `after`, in order of address, each client called by its identifier.
    pub fn rows(&self, after: Option<Ipv4Addr>, limit: usize) -> Vec<Row<Ipv4Addr>> {
        self.lending.table.rows(after, limit)
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
        let offered = self.lending.table.offer(&client, request.requested, now + OFFER_TIME);
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
        match self.lending.table.adopt(&client, wanted, now + OFFER_TIME) {
            Ok(()) => Ok(self.after_probe(request, from, wanted, now)),
            Err(lease::Refusal::Taken) if self.is_in_doubt(request, wanted) => {
                self.lending.heard(wanted, from.port, request.chaddr, now);
                Ok(None)
            }
            Err(lease::Refusal::Taken) => Ok(Some(self.refuse(request, from))),
            Err(refusal) => Err(refused(refusal)),
        }
    }

    /// Whether a client says that it has an address which is just being asked for on the wire, for another. That is an answer, too,
    /// and nothing that can be refused before it is settled: it will ask again.
    fn is_in_doubt(&self, request: &Request, address: Ipv4Addr) -> bool {
        request.server.is_none() && self.lending.is_awaited_by_another(address, request.chaddr)
    }

    fn decline(&mut self, request: &Request, from: Origin<'_>, now: Duration) {
        let ours = request.server.is_none_or(|server| server == self.spec.server);
        let Some(address) = request.requested.filter(|_| ours) else { return };
        let client = request.client(from.port);
        if self.own(request, from.port).is_some_and(|own| own.contains(&address)) {
            self.lending.decline_own(&client, vec![address], now);
        } else {
            self.lending.decline(&client, address, now);
        }
    }

    fn release(&mut self, request: &Request, from: Origin<'_>, now: Duration) {
        let client = request.client(from.port);
        let ours = request.server.is_none_or(|server| server == self.spec.server);
        if ours && self.lending.table.may_release(from.port, now) {
            self.lending.release(&client, request.ciaddr, now);
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
        let endpoint = self.lending.table.endpoint(port, request.chaddr).filter(|_| near)?;
        let own = || endpoint.addresses.iter().copied();
        own().any(|own| self.spec.subnet.contains(&own)).then(|| own().collect())
    }

    /// Tells an endpoint its own address: the first of `own` in the subnet.
    fn repeat(&mut self, request: &Request, from: Origin<'_>, own: Vec<Ipv4Addr>) -> Reply {
        let hostname = from.hostname.map(Into::into).or_else(|| request.hostname.clone());
        let rapid = request.kind == MessageType::Discover && request.rapid;
        let offer = request.kind == MessageType::Discover && !rapid;
        let address = own.into_iter().find(|own| self.spec.subnet.contains(own));
        let client = Client { hostname, ..request.client(from.port) };
        self.lending.table.note_told(client, address);
        let told = Told {
            kind: if offer { MessageType::Offer } else { MessageType::Ack },
            address,
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
        if self.lending.table.is_proven(address) {
            return Some(self.settle(request, from, address, now));
        }
        let said = Asked { request: request.clone(), hardware: from.hardware };
        self.lending.wait(address, request.client(from.port), said);
        None
    }

    /// Goes on with a client that has waited for an address.
    fn proceed(
        &mut self,
        waiting: &Waiting<Asked>,
        address: Ipv4Addr,
        now: Duration,
    ) -> Option<Reply> {
        let Asked { request, hardware } = &waiting.said;
        let from = Origin { port: waiting.client.port, hardware: *hardware, hostname: None };
        if !waiting.taken {
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
            let bound = self.lending.bind(&client, address, now + lease);
            if bound.is_none() {
                return self.refuse(request, from);
            }
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
        let held = self.lending.table.of_client(client);
        if held.is_some_and(|held| !self.lending.is_awaited(held.address)) {
            self.lending.table.withdraw(client);
        }
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
