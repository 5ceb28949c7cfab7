//! DNS over TCP (RFC 7766): the only connections that the gateway has.
//!
//! Theory of operation. One pool serves all networks. A connection is made when a SYN arrives and is freed when it is over, with
//! all its memory. Each has a TCP/IP stack of its own, of one address and one socket, so that two networks with the same
//! addresses cannot meet in one table, and remembers what lies below IP: the port and the hardware address it answers to. The
//! stack sees packets only after the gateway has checked them, and writes straight into the turn's frames.
//!
//! Several queries may follow each other on a connection, and are answered in order; one is taken up when the answer
//! before it has left for the socket, so that a client that does not read holds up nobody but itself.
//!
//! Limits: connections in all, and of one node; the size of a query; the time without a whole query. At a limit, a connection that
//! has taken its leave gives way to a new one: clients that come and go have their next SYN here before the last acknowledgement
//! of the one before. Where all places are taken by connections in use, whoever has most of them loses the one that was idle for
//! longest to a node that has fewer still with one more; a node that has as many as it may is refused.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use portolan_dhcp::dns::query::{Reaction, Transport, react};
use portolan_dhcp::dns::zone::Directory;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::datapath::{Totals, host_key};
use crate::drops::DropReason;
use crate::headers::{ETHERNET_LEN, ethertype};
use crate::ids::{MacAddr, NodeId, PortId, Time};
use crate::turn::Turn;

use super::dns::PORT;
use super::forward::{Client, Forwarding};
use super::reply;

/// Connections at once.
const CONNECTIONS_MAX: usize = 128;

/// Connections of one node at once: some clients open their next handful before they close the one before.
const NODE_CONNECTIONS_MAX: usize = 16;

/// Largest query, bytes.
const QUERY_MAX: usize = 4096;

/// Bytes of the length before each message.
pub(super) const PREFIX_LEN: usize = 2;

/// Bytes that wait to be acknowledged.
const SEND_BUFFER: usize = 8192;

/// How long a connection may go without a whole query, or without an answer making its way.
const IDLE: Duration = Duration::from_secs(10);

/// How long it may wait for others to be asked: three servers, by datagrams and then by a stream.
const ELSEWHERE: Duration = Duration::from_secs(20);

/// How long the farewell may take.
const CLOSING: Duration = Duration::from_secs(5);

/// Segments are no larger than this, whatever the network allows, so that one always finds room in a fresh turn.
pub(super) const MTU_MAX: usize = 1500;

/// The least time to the next look at a connection that had no room to send: the turn must come round first.
const RETRY: Duration = Duration::from_millis(1);

/// Names a connection. The server's port is always the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ConnectionId {
    pub(super) port: PortId,
    pub(super) client: (IpAddr, u16),
    pub(super) server: IpAddr,
}

/// A segment for port 53 of the gateway, already found sound.
pub(super) struct Arrival {
    pub(super) id: ConnectionId,
    pub(super) node: NodeId,
    pub(super) client_mac: MacAddr,
    pub(super) server_mac: MacAddr,
    pub(super) mtu: usize,
    /// Whether it asks for a new connection.
    pub(super) opens: bool,
    /// The packet, from the IP header on.
    pub(super) packet: Vec<u8>,
}

/// What a connection needs to know below IP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) port: PortId,
    pub(super) client_mac: MacAddr,
    pub(super) server_mac: MacAddr,
    pub(super) mtu: usize,
}

/// One connection.
struct Connection {
    number: u64,
    id: ConnectionId,
    node: NodeId,
    link: Link,
    stack: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    /// What has come of a query, its length first.
    query: Vec<u8>,
    /// What of the answer has not reached the socket yet.
    answer: Vec<u8>,
    /// Whether others are asked for what was queried last.
    is_waiting: bool,
    is_closing: bool,
    /// Ends it.
    deadline: Time,
    /// When it wants to be looked at.
    due: Time,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).field("due", &self.due).finish()
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    connections: Vec<Connection>,
    last: u64,
}

/// What a connection is lent to go on.
struct Lent<'l, 't, 'f> {
    names: &'l Directory,
    forwarding: &'l mut Forwarding,
    totals: &'l mut Totals,
    turn: &'l mut Turn<'t, 'f>,
    now: Time,
}

impl Pool {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// When the next one wants to be looked at.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.connections.iter().map(|connection| connection.due).min()
    }

    /// Takes a segment to its connection, which is made if need be. [`DropReason::GatewayUnserved`] where there is none and none
    /// is asked for, [`DropReason::GatewayLimit`] where there are too many.
    pub(super) fn input(
        &mut self,
        arrival: Arrival,
        names: &Directory,
        forwarding: &mut Forwarding,
        totals: &mut Totals,
        turn: &mut Turn<'_, '_>,
        now: Time,
    ) -> Result<(), DropReason> {
        let known = self.connections.iter().position(|known| known.id == arrival.id);
        let at = match known {
            Some(at) => at,
            None if !arrival.opens => return Err(DropReason::GatewayUnserved),
            None => {
                self.make_room(arrival.node, totals, turn, now)?;
                self.last += 1;
                self.connections.push(Connection::new(self.last, &arrival, turn, now));
                self.connections.len() - 1
            }
        };
        let mut lent = Lent { names, forwarding, totals, turn, now };
        if self.connections[at].proceed(Some(arrival.packet), &mut lent) {
            self.connections.swap_remove(at);
        }
        Ok(())
    }

    /// Sees to it that there is room for one more connection of a node.
    fn make_room(
        &mut self,
        node: NodeId,
        totals: &mut Totals,
        turn: &mut Turn<'_, '_>,
        now: Time,
    ) -> Result<(), DropReason> {
        let is_full = self.connections.len() >= CONNECTIONS_MAX;
        if self.of_node(node) >= NODE_CONNECTIONS_MAX {
            let at = self.leaving(|connection| connection.node == node);
            self.connections.remove(at.ok_or(DropReason::GatewayLimit)?);
        } else if is_full && let Some(at) = self.leaving(|_| true) {
            self.connections.remove(at);
        } else if is_full {
            let at = self.one_too_many(node).ok_or(DropReason::GatewayLimit)?;
            self.connections.remove(at).reset(totals, turn, now);
        }
        Ok(())
    }

    fn of_node(&self, node: NodeId) -> usize {
        self.connections.iter().filter(|connection| connection.node == node).count()
    }

    /// The oldest of these connections that has taken its leave.
    fn leaving(&self, is_meant: impl Fn(&Connection) -> bool) -> Option<usize> {
        let leaves = |known: &(usize, &Connection)| is_meant(known.1) && known.1.is_leaving();
        let all = self.connections.iter().enumerate();
        all.filter(leaves).min_by_key(|known| known.1.number).map(|(at, _)| at)
    }

    /// Of the nodes that have most, the connection that goes without anything for longest; none where the one who asks would then
    /// have as many as whoever loses it.
    fn one_too_many(&self, asking: NodeId) -> Option<usize> {
        let mut have = BTreeMap::<NodeId, usize>::new();
        for connection in &self.connections {
            *have.entry(connection.node).or_default() += 1;
        }
        let of = |node| have.get(&node).copied().unwrap_or(0);
        let all = self.connections.iter().enumerate();
        let (at, connection) =
            all.min_by_key(|(_, known)| (Reverse(of(known.node)), known.deadline, known.number))?;
        (of(connection.node) > of(asking) + 1).then_some(at)
    }

    /// Looks at all connections that are due.
    pub(crate) fn handle_timeout(
        &mut self,
        names: &Directory,
        forwarding: &mut Forwarding,
        totals: &mut Totals,
        turn: &mut Turn<'_, '_>,
        now: Time,
    ) {
        let mut lent = Lent { names, forwarding, totals, turn, now };
        self.connections
            .retain_mut(|connection| connection.due > now || !connection.proceed(None, &mut lent));
    }

    /// What others had to say to the query that a connection waits for: it leaves as soon as the connection is looked at,
    /// which is due at once.
    pub(super) fn answer(&mut self, number: u64, reply: &[u8], now: Time) {
        let known = self.connections.iter_mut().find(|known| known.number == number);
        let (Some(known), Ok(len)) = (known, u16::try_from(reply.len())) else { return };
        if known.is_waiting {
            known.is_waiting = false;
            known.answer.extend_from_slice(&len.to_be_bytes());
            known.answer.extend_from_slice(reply);
            known.deadline = now + IDLE;
            known.due = now;
        }
    }

    /// Forgets the connections of a port that has gone.
    pub(crate) fn close_port(&mut self, port: PortId) {
        self.connections.retain(|connection| connection.id.port != port);
    }
}

impl Connection {
    fn new(number: u64, arrival: &Arrival, turn: &mut Turn<'_, '_>, now: Time) -> Connection {
        let link = Link {
            port: arrival.id.port,
            client_mac: arrival.client_mac,
            server_mac: arrival.server_mac,
            mtu: arrival.mtu.min(MTU_MAX),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = turn.random.next_u64();
        let mut stack = Interface::new(
            config,
            &mut Wire::new(link, None, turn, &mut Totals::default()),
            instant(now),
        );
        stack.update_ip_addrs(|addresses| {
            // Whoever asks was let in by the gateway: to the stack, everybody is on the link.
            let address = IpCidr::new(arrival.id.server.into(), 0);
            addresses.push(address).expect("an empty table has room for one");
        });
        let receive = tcp::SocketBuffer::new(vec![0; PREFIX_LEN + QUERY_MAX]);
        let mut socket = tcp::Socket::new(receive, tcp::SocketBuffer::new(vec![0; SEND_BUFFER]));
        socket.set_nagle_enabled(false);
        socket.listen((arrival.id.server, PORT)).expect("a new socket can listen");
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Connection {
            number,
            id: arrival.id,
            node: arrival.node,
            link,
            stack,
            sockets,
            socket,
            query: Vec::new(),
            answer: Vec::new(),
            is_waiting: false,
            is_closing: false,
            deadline: now + IDLE,
            due: now,
        }
    }

    /// Lets the connection go on as far as it can. Whether it is over.
    fn proceed(&mut self, packet: Option<Vec<u8>>, lent: &mut Lent<'_, '_, '_>) -> bool {
        self.poll(packet, lent);
        self.serve(lent);
        if lent.now >= self.deadline {
            self.hang_up(lent.now);
        }
        self.poll(None, lent);
        let state = self.sockets.get::<tcp::Socket<'_>>(self.socket).state();
        if matches!(state, tcp::State::Closed | tcp::State::TimeWait | tcp::State::Listen) {
            return true;
        }
        let next = self.stack.poll_at(instant(lent.now), &self.sockets);
        let next = next.map_or(self.deadline, point);
        self.due = next.max(lent.now + RETRY).min(self.deadline.max(lent.now + RETRY));
        false
    }

    fn poll(&mut self, packet: Option<Vec<u8>>, lent: &mut Lent<'_, '_, '_>) {
        let mut wire = Wire::new(self.link, packet, lent.turn, lent.totals);
        self.stack.poll(instant(lent.now), &mut wire, &mut self.sockets);
    }

    /// Moves bytes: answers to the socket, queries from it.
    fn serve(&mut self, lent: &mut Lent<'_, '_, '_>) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        loop {
            if !self.answer.is_empty() {
                let Ok(sent) = socket.send_slice(&self.answer) else { return };
                if sent > 0 {
                    self.deadline = lent.now + IDLE;
                }
                self.answer.drain(..sent);
                if !self.answer.is_empty() {
                    return;
                }
            }
            if self.is_waiting {
                return;
            }
            let wanted = framed_len(&self.query);
            if wanted > PREFIX_LEN + QUERY_MAX {
                return socket.abort();
            }
            if self.query.len() < wanted {
                let held = self.query.len();
                self.query.resize(wanted, 0);
                let read = socket.recv_slice(&mut self.query[held..]).unwrap_or(0);
                self.query.truncate(held + read);
                if read == 0 {
                    break;
                }
                continue;
            }
            let asker = host_key(self.node);
            let query = &self.query[PREFIX_LEN..];
            let random = &mut *lent.turn.random;
            let reply = match react(lent.names, asker, query, Transport::Tcp, random) {
                Some(Reaction::Reply(reply)) => Some(reply),
                Some(Reaction::Elsewhere { question, refusal }) => {
                    let client = Client::Stream { port: self.id.port, connection: self.number };
                    let (names, node, now) = (lent.names, self.node, lent.now);
                    let asked = lent.forwarding.ask(names, node, client, question, now, random);
                    if asked {
                        self.is_waiting = true;
                        self.deadline = now + ELSEWHERE;
                        self.query.clear();
                        return;
                    }
                    Some(refusal)
                }
                None => None,
            };
            let Some((reply, len)) =
                reply.and_then(|r| u16::try_from(r.len()).ok().map(|n| (r, n)))
            else {
                return socket.abort();
            };
            self.query.clear();
            self.answer.extend_from_slice(&len.to_be_bytes());
            self.answer.extend_from_slice(&reply);
            self.deadline = lent.now + IDLE;
        }
        // All that the client sent is answered, and no more will come.
        if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
            socket.close();
        }
    }

    /// Whether it has said all that it has to say, and the client has it all: only the farewells are under way. Should one of them
    /// be lost with the connection, the client's next segment is answered by a reset.
    fn is_leaving(&self) -> bool {
        let socket = self.sockets.get::<tcp::Socket<'_>>(self.socket);
        let has_left = matches!(
            socket.state(),
            tcp::State::FinWait1 | tcp::State::FinWait2 | tcp::State::Closing | tcp::State::LastAck
        );
        has_left && socket.send_queue() == 0
    }

    /// Ends it at once, and tells the client.
    fn reset(mut self, totals: &mut Totals, turn: &mut Turn<'_, '_>, now: Time) {
        self.sockets.get_mut::<tcp::Socket<'_>>(self.socket).abort();
        self.stack.poll(
            instant(now),
            &mut Wire::new(self.link, None, turn, totals),
            &mut self.sockets,
        );
    }

    /// Ends a connection that has been idle for too long: in good order, and if that does not work, at once.
    fn hang_up(&mut self, now: Time) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        if self.is_closing {
            socket.abort();
        } else {
            self.is_closing = true;
            self.deadline = now + CLOSING;
            socket.close();
        }
    }
}

/// The stack's way out: one packet in at most, and packets out as frames of the turn.
pub(super) struct Wire<'w, 't, 'f> {
    link: Link,
    packet: Option<Vec<u8>>,
    turn: &'w mut Turn<'t, 'f>,
    totals: &'w mut Totals,
}

impl<'w, 't, 'f> Wire<'w, 't, 'f> {
    fn outgoing(&mut self) -> Outgoing<'_, 't, 'f> {
        Outgoing { link: self.link, turn: self.turn, totals: self.totals }
    }

    pub(super) fn new(
        link: Link,
        packet: Option<Vec<u8>>,
        turn: &'w mut Turn<'t, 'f>,
        totals: &'w mut Totals,
    ) -> Wire<'w, 't, 'f> {
        Wire { link, packet, turn, totals }
    }
}

/// A packet that goes in.
pub(super) struct Incoming(Vec<u8>);

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a packet that comes out.
pub(super) struct Outgoing<'o, 't, 'f> {
    link: Link,
    turn: &'o mut Turn<'t, 'f>,
    totals: &'o mut Totals,
}

impl phy::TxToken for Outgoing<'_, '_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Some(made) = self.turn.frames.make(ETHERNET_LEN + len) else {
            // An answer to a packet in a turn without room: TCP sends it again.
            return f(&mut vec![0; len]);
        };
        let bytes = self.turn.frames.get_mut(made).bytes_mut();
        let result = f(&mut bytes[ETHERNET_LEN..]);
        let is_v4 = bytes.get(ETHERNET_LEN).is_some_and(|first| first >> 4 == 4);
        let kind = if is_v4 { ethertype::IPV4 } else { ethertype::IPV6 };
        reply::ethernet(bytes, self.link.client_mac, self.link.server_mac, kind);
        self.turn.outbox.push(self.link.port, made);
        self.totals.made += 1;
        self.totals.sent += 1;
        result
    }
}

impl<'t, 'f> phy::Device for Wire<'_, 't, 'f> {
    type RxToken<'a>
        = Incoming
    where
        Self: 'a;
    type TxToken<'a>
        = Outgoing<'a, 't, 'f>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Self::TxToken<'_>)> {
        let packet = self.packet.take()?;
        Some((Incoming(packet), self.outgoing()))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Self::TxToken<'_>> {
        let room = self.turn.frames.has_room(ETHERNET_LEN + self.link.mtu);
        room.then(|| self.outgoing())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        // The gateway has looked at those that came, also where the sender left them out.
        checksum.tcp = phy::Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.link.mtu;
        capabilities.checksum = checksum;
        capabilities
    }
}

/// Bytes that a message takes in a stream, its length included, by what has come of it; of the length alone until that has.
pub(super) fn framed_len(come: &[u8]) -> usize {
    let prefix = come.first_chunk::<PREFIX_LEN>().map(|prefix| u16::from_be_bytes(*prefix));
    PREFIX_LEN + usize::from(prefix.unwrap_or(0))
}

/// A point in time as the core knows it.
pub(super) fn point(at: Instant) -> Time {
    Time(u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000))
}

/// A point in time as the stack knows it.
pub(super) fn instant(now: Time) -> Instant {
    Instant::from_micros(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
