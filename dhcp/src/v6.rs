//! A DHCPv6 server (RFC 8415) for one link: UDP payload in, UDP payload out.
//!
//! Theory of operation. An endpoint is known by its port and hardware address, whatever DUID it uses, and is told its own
//! addresses in the first association of each message. Everybody else is a stranger: it is lent an address of the pool for each
//! association, by [`crate::lease`], under its DUID and the association's number. Where the server has been started anew it
//! knows no lease: who renews an address of the pool that nobody else has goes on with it.
//!
//! An address that was not lent since the server was made may be in use. Before anybody gets it, the link is asked
//! ([`crate::lending`]); when nobody has answered, the message is taken up again ([`Server::run_out`]). The voice of the client
//! itself does not count.
//!
//! There is one server on a link, which says so (preference 255), so that clients do not wait for others. Temporary addresses
//! and prefixes are refused by their status. Messages of relay agents are not for us: there is nobody behind one.

use std::net::Ipv6Addr;
use std::time::Duration;

use crate::lease::{Client, Row, Table};
use crate::lending::Lending;
use crate::service::Dhcp6;

mod message;

use message::{Association, Message, Purpose, Status, Writer, code, kind};

/// UDP ports of servers and clients.
pub const SERVER_PORT: u16 = 547;
/// As [`SERVER_PORT`].
pub const CLIENT_PORT: u16 = 546;

/// The group that servers listen to.
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// How long an address is kept for whom it was offered to: a client that means it asks within seconds.
const OFFER_TIME: Duration = Duration::from_secs(30);

/// After how long a client that only asked for other things looks whether they have changed: they do not.
const REFRESH: u32 = 86_400;

/// How long clients that are not answered wait at most, seconds (RFC 8415, section 7.6).
const MAX_RT: u32 = 3600;

/// Own addresses of an endpoint that one message tells.
const OWN_MAX: usize = 16;

/// A message may be no longer: whoever sends more has more to say than any client has.
const MESSAGE_MAX: usize = 1500;

/// From whom a message came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Behind which port, as the caller numbers them.
    pub port: u32,
    /// The hardware address that sent it.
    pub hardware: [u8; 6],
    /// The IP address that sent it.
    pub address: Ipv6Addr,
}

/// A reply, to whoever asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// To whom.
    pub to: Origin,
    /// The payload of a datagram.
    pub message: Vec<u8>,
}

/// Why a message is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It is none of a client.
    Malformed,
    /// It is for another server, or for one that gives addresses where this one does not, or not for any (RFC 8415, section 16).
    NotForUs,
}

/// The server of one link.
#[derive(Clone, Debug)]
pub struct Server {
    spec: Dhcp6,
    duid: [u8; 10],
    /// Whom it lends addresses.
    pub lending: Lending<Ipv6Addr, Asked>,
}

/// A message that waits for an address to be found free.
#[derive(Clone, Debug)]
pub struct Asked {
    from: Origin,
    message: Box<[u8]>,
}

/// What a message asks of its associations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    /// To hear what it would get.
    Offer,
    /// To get it.
    Bind,
    /// To keep it.
    Keep,
}

/// What a client is told of one association.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Its addresses.
    given: Vec<Ipv6Addr>,
    /// Addresses that it names and may use no longer.
    ended: Vec<Ipv6Addr>,
    /// Why it has none.
    status: Option<Status>,
}

/// One message on its way through the server.
struct Call<'c> {
    server: &'c mut Server,
    from: Origin,
    bytes: &'c [u8],
    message: &'c Message<'c>,
    duid: &'c [u8],
    now: Duration,
    /// An endpoint's own addresses, until an association has them.
    own: Option<Vec<Ipv6Addr>>,
    /// Whether an answer has to wait.
    waits: bool,
}

impl Server {
    /// A server that knows nobody yet. Its DUID is made of the gateway's hardware address (RFC 8415, section 11.4), so that it
    /// is the same in every life.
    pub fn new(spec: Dhcp6, hardware: [u8; 6]) -> Server {
        let mut duid = [0, 3, 0, 1, 0, 0, 0, 0, 0, 0];
        duid[4..].copy_from_slice(&hardware);
        Server { lending: Lending::new(Table::new(spec.pool.clone())), spec, duid }
    }

    /// Takes a message, and returns the reply where there is one at once.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        from: Origin,
        now: Duration,
    ) -> Result<Option<Reply>, Refusal> {
        let message = Some(bytes).filter(|bytes| bytes.len() <= MESSAGE_MAX);
        let message = &message.and_then(Message::read).ok_or(Refusal::Malformed)?;
        if message.kind == kind::INFORMATION_REQUEST {
            let message = self.inform(message).ok_or(Refusal::NotForUs)?;
            return Ok(Some(Reply { to: from, message }));
        }
        let duid = message.client.ok_or(Refusal::NotForUs)?;
        let for_this = match message.kind {
            kind::SOLICIT | kind::CONFIRM | kind::REBIND => message.server.is_none(),
            kind::REQUEST | kind::RENEW | kind::RELEASE | kind::DECLINE => {
                message.server == Some(&self.duid)
            }
            _ => false,
        };
        if !for_this || !self.spec.stateful {
            return Err(Refusal::NotForUs);
        }
        let own = self.lending.table.endpoint(from.port, from.hardware);
        let own = own.map(|endpoint| endpoint.addresses.iter().copied().take(OWN_MAX).collect());
        let call = Call { server: self, from, bytes, message, duid, now, own, waits: false };
        Ok(call.run().map(|message| Reply { to: from, message }))
    }

    /// Does what has become due, up to the first reply that comes of it, which is returned; none where nothing more is due.
    pub fn run_out(&mut self, now: Duration) -> Option<Reply> {
        while let Some((_, waiting)) = self.lending.waited(now) {
            let Asked { from, message } = &waiting.said;
            if let Ok(Some(reply)) = self.receive(message, *from, now) {
                return Some(reply);
            }
        }
        self.lending.expire(now);
        None
    }

    /// At most `limit` rows behind `after`, in order of address, each client called by its DUID.
    pub fn rows(&self, after: Option<Ipv6Addr>, limit: usize) -> Vec<Row<Ipv6Addr>> {
        let mut rows = self.lending.table.rows(after, limit);
        for row in &mut rows {
            row.client.name = row.client.name.get(ASSOCIATION_LEN..).unwrap_or_default().into();
        }
        rows
    }

    /// Answers whoever wants to hear of the rest only.
    fn inform(&self, message: &Message<'_>) -> Option<Vec<u8>> {
        let for_this = message.server.is_none_or(|server| server == self.duid);
        if !for_this || !message.associations.is_empty() {
            return None;
        }
        let mut reply = self.reply(kind::REPLY, message);
        self.tell_rest(&mut reply, message);
        if message.wants(code::INFORMATION_REFRESH) {
            reply.option(code::INFORMATION_REFRESH, &[&REFRESH.to_be_bytes()]);
        }
        if message.wants(code::INF_MAX_RT) {
            reply.option(code::INF_MAX_RT, &[&MAX_RT.to_be_bytes()]);
        }
        Some(reply.finish())
    }

    /// The start of an answer: of whom, and to whom.
    fn reply(&self, kind: u8, message: &Message<'_>) -> Writer {
        let mut reply = Writer::new(kind, message.transaction);
        if let Some(client) = message.client {
            reply.option(code::CLIENT_ID, &[client]);
        }
        reply.option(code::SERVER_ID, &[&self.duid]);
        reply
    }

    /// Tells what a client wants to hear besides addresses.
    fn tell_rest(&self, reply: &mut Writer, message: &Message<'_>) {
        if message.wants(code::DNS_SERVERS) {
            reply.option(code::DNS_SERVERS, &[&self.spec.server.octets()]);
        }
        if message.wants(code::DOMAIN_LIST) {
            reply.domains(&self.spec.search);
        }
        if message.wants(code::SOL_MAX_RT) {
            reply.option(code::SOL_MAX_RT, &[&MAX_RT.to_be_bytes()]);
        }
    }

    /// For how long addresses are preferred and valid, seconds.
    fn lifetimes(&self) -> (u32, u32) {
        let valid = u32::try_from(self.spec.lease.as_secs()).unwrap_or(u32::MAX);
        (valid - valid / 4, valid)
    }
}

/// Bytes of an association's number, which stands before the DUID in a client's name.
const ASSOCIATION_LEN: usize = 4;

impl Call<'_> {
    fn run(mut self) -> Option<Vec<u8>> {
        match self.message.kind {
            kind::SOLICIT => self.solicit(),
            kind::REQUEST => self.bind(Wish::Bind),
            kind::RENEW | kind::REBIND => self.bind(Wish::Keep),
            kind::CONFIRM => self.confirm(),
            _ => Some(self.give_up()),
        }
    }

    /// A client looks for servers. One that would be bound at once is, if there is anything for it.
    fn solicit(&mut self) -> Option<Vec<u8>> {
        if self.message.associations.is_empty() {
            return None;
        }
        let told = self.tell_all(if self.message.rapid { Wish::Bind } else { Wish::Offer });
        let rapid = self.message.rapid && told.iter().any(|told| !told.given.is_empty());
        let kind = if rapid { kind::REPLY } else { kind::ADVERTISE };
        let mut reply = self.server.reply(kind, self.message);
        if rapid {
            reply.option(code::RAPID_COMMIT, &[]);
        } else {
            reply.option(code::PREFERENCE, &[&[u8::MAX]]);
        }
        self.finish(reply, &told)
    }

    /// A client takes what it was offered, or wants to keep what it has.
    fn bind(&mut self, wish: Wish) -> Option<Vec<u8>> {
        let told = self.tell_all(wish);
        let reply = self.server.reply(kind::REPLY, self.message);
        self.finish(reply, &told)
    }

    /// Completes an answer about associations, unless the link has to be asked first.
    fn finish(&self, mut reply: Writer, told: &[Told]) -> Option<Vec<u8>> {
        if self.waits {
            return None;
        }
        let (preferred, valid) = self.server.lifetimes();
        let times = (preferred / 2, preferred / 5 * 4);
        for (association, told) in self.message.associations.iter().zip(told) {
            let times = if told.given.is_empty() { (0, 0) } else { times };
            reply.association(association, times, |reply| {
                told.given.iter().for_each(|address| reply.address(*address, preferred, valid));
                told.ended.iter().for_each(|address| reply.address(*address, 0, 0));
                if let Some(status) = told.status {
                    reply.status(status);
                }
            });
        }
        self.server.tell_rest(&mut reply, self.message);
        Some(reply.finish())
    }

    fn tell_all(&mut self, wish: Wish) -> Vec<Told> {
        let message = self.message;
        message.associations.iter().map(|association| self.tell(association, wish)).collect()
    }

    /// What a client is told of one association, which has what it wishes for from now on.
    fn tell(&mut self, association: &Association, wish: Wish) -> Told {
        let none = |status| Told { status: Some(status), ..Told::default() };
        match (association.purpose, wish) {
            (Purpose::Lasting, _) => {}
            (_, Wish::Keep) => return none(Status::NoBinding),
            (Purpose::Prefixes, _) => return none(Status::NoPrefixAvail),
            (Purpose::Temporary, _) => return none(Status::NoAddrsAvail),
        }
        let subnet = self.server.spec.subnet;
        let elsewhere = association.addresses.iter().any(|address| !subnet.contains(address));
        if elsewhere && self.message.kind == kind::REQUEST {
            return none(Status::NotOnLink);
        }
        let given = match self.own.take() {
            Some(own) => {
                // The addresses are told once; what else it asks for it does not get.
                self.own = Some(Vec::new());
                if wish != Wish::Offer && !own.is_empty() {
                    let client = self.client(association.id);
                    self.server.lending.table.note_told(client, own.iter().copied());
                }
                own
            }
            None => self.lend(association, wish).into_iter().collect(),
        };
        let ended = association.addresses.iter().filter(|address| !given.contains(address));
        let ended: Vec<_> = ended.copied().filter(|_| wish == Wish::Keep).collect();
        let status = match wish {
            _ if !given.is_empty() || !ended.is_empty() => None,
            Wish::Keep => Some(Status::NoBinding),
            Wish::Offer | Wish::Bind => Some(Status::NoAddrsAvail),
        };
        Told { given, ended, status }
    }

    /// The address of a stranger's association: the one it has, or another. None where there is none, or none yet.
    fn lend(&mut self, association: &Association, wish: Wish) -> Option<Ipv6Addr> {
        let client = self.client(association.id);
        let (now, table) = (self.now, &mut self.server.lending.table);
        let held = table.of_client(&client).map(|lease| lease.address);
        let address = match (held, wish) {
            (Some(address), _) => address,
            (None, Wish::Keep) => {
                let mut named = association.addresses.iter().copied();
                let mut adopts =
                    |address: &Ipv6Addr| table.adopt(&client, *address, now + OFFER_TIME).is_ok();
                let Some(kept) = named.find(&mut adopts) else {
                    self.note_doubts(association);
                    return None;
                };
                kept
            }
            (None, Wish::Offer | Wish::Bind) => {
                let wanted = association.addresses.first().copied();
                table.offer(&client, wanted, now + OFFER_TIME).ok()?
            }
        };
        if !table.is_proven(address) {
            self.wait(address, client);
            return None;
        }
        if wish != Wish::Offer {
            let until = now + self.server.spec.lease;
            self.server.lending.bind(&client, address, until)?;
        }
        Some(address)
    }

    /// A client says that it has an address which is just being asked for on the wire, for another. That is an answer, too, and
    /// nothing that can be refused before it is settled: it will ask again.
    fn note_doubts(&mut self, association: &Association) {
        let Origin { port, hardware, .. } = self.from;
        for address in &association.addresses {
            if self.server.lending.is_awaited_by_another(*address, hardware) {
                self.server.lending.heard(*address, port, hardware, self.now);
                self.waits = true;
            }
        }
    }

    /// The message waits for an address to be found free.
    fn wait(&mut self, address: Ipv6Addr, client: Client) {
        self.waits = true;
        let said = Asked { from: self.from, message: self.bytes.into() };
        self.server.lending.wait(address, client, said);
    }

    /// Who an association belongs to: its name is the association's number and the DUID.
    fn client(&self, association: [u8; ASSOCIATION_LEN]) -> Client {
        Client {
            port: self.from.port,
            hardware: self.from.hardware,
            name: [&association[..], self.duid].concat().into_boxed_slice(),
            hostname: self.message.hostname.clone(),
        }
    }

    /// A client that was elsewhere wants to know whether its addresses are of this link. Where it names none there is nothing to
    /// say (RFC 8415, section 18.3.3).
    fn confirm(&self) -> Option<Vec<u8>> {
        let associations = self.message.associations.iter();
        let mut named = associations.flat_map(|association| &association.addresses).peekable();
        named.peek()?;
        let on_link = named.all(|address| self.server.spec.subnet.contains(address));
        let mut reply = self.server.reply(kind::REPLY, self.message);
        reply.status(if on_link { Status::Success } else { Status::NotOnLink });
        Some(reply.finish())
    }

    /// A client gives addresses back, or has found somebody else there. An endpoint's own stay its own.
    fn give_up(&mut self) -> Vec<u8> {
        let mut reply = self.server.reply(kind::REPLY, self.message);
        reply.status(Status::Success);
        let message = self.message;
        // One message is heard whole or not at all.
        let heard = self.server.lending.table.may_release(self.from.port, self.now);
        for association in &message.associations {
            let lasts = association.purpose == Purpose::Lasting;
            let had = lasts
                && match message.kind {
                    kind::DECLINE => self.decline(association),
                    _ => self.release(association, heard),
                };
            if !had {
                reply.association(association, (0, 0), |reply| reply.status(Status::NoBinding));
            }
        }
        reply.finish()
    }

    /// Whether the association had any of the addresses that it gives back, all of which end where that is `heard`.
    fn release(&mut self, association: &Association, heard: bool) -> bool {
        if let Some(own) = &self.own {
            return association.addresses.iter().any(|address| own.contains(address));
        }
        let (client, lending) = (self.client(association.id), &mut self.server.lending);
        let mut any = false;
        for &address in association.addresses.iter().filter(|_| heard) {
            any |= lending.release(&client, address, self.now).is_some();
        }
        any
    }

    /// Whether the association had any of the addresses that it found somebody else at.
    fn decline(&mut self, association: &Association) -> bool {
        let (client, lending) = (self.client(association.id), &mut self.server.lending);
        let named = association.addresses.iter().copied();
        if let Some(own) = &self.own {
            let own: Vec<_> = named.filter(|address| own.contains(address)).collect();
            let any = !own.is_empty();
            lending.decline_own(&client, own, self.now);
            return any;
        }
        let mut any = false;
        for address in named {
            any |= lending.decline(&client, address, self.now).is_some();
        }
        any
    }
}

#[cfg(test)]
mod tests;
