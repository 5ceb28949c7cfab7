//! Names that are not ours, asked of others: the sockets and packets by which the questions of
//! [`portolan_dhcp::dns::forward`] travel.
//!
//! Theory of operation. While a batch is handled, questions are only noted; when it is through, what is to be done is done here.
//! Every attempt has a socket of its own, so that its port is one that the host has chosen for it alone, and whatever comes
//! from anybody but the server it was sent to is passed over. A server that lies in a subnet of one of the node's own networks
//! is asked there, by a packet of the gateway from a port drawn for it, or over a connection of the gateway (`caller`); one that lies elsewhere is asked by a socket, if a
//! packet of the node might go there. The host's own servers may be anywhere, its loopback included: it is the daemon that asks
//! them.
//!
//! Replies to clients wait here for room in a turn. Limits: those of the questions themselves, and a quarter of the flows there
//! may be for sockets.

mod caller;
mod opening;
mod stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_dhcp::dns::forward::{self, Action, Attempt, Forwarder, Outward, Servers};
use portolan_dhcp::dns::zone::Directory;
use portolan_nat::packet::protocol;
use portolan_nat::sockets::host::{Failure, Ready, SocketId};
use portolan_nat::sockets::{Limits, Sockets, Transport};
use portolan_nat::write::Header;
use rand::Rng;

use crate::datapath::host_key;
use crate::headers::{ETHERNET_LEN, ethertype};
use crate::ids::{MacAddr, NetworkId, NodeId, PortId, Time};
use crate::network::Network;
use crate::policy::Prefixes;
use crate::turn::Turn;

use super::dns::PORT;
use super::dns_tcp::Pool;
use super::reply::{self, UDP_LEN, write_datagram};
use caller::Caller;
use stream::Stream;

/// The largest message, bytes (RFC 1035, section 4.2.2).
const MESSAGE_MAX: usize = 65_535;

/// Datagrams that are read from one socket in one turn.
const READS_MAX: usize = 16;

/// Replies that wait for room. Whoever gets none asks again.
const REPLIES_MAX: usize = 1024;

/// The least time to the next try where a turn had no room: it must come round first.
const RETRY: Duration = Duration::from_millis(1);

/// A server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Server {
    /// One that the host itself uses.
    Host(SocketAddr),
    /// One that a node is to use.
    Own(NodeId, IpAddr),
}

/// Whom a reply is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Client {
    /// Who has sent a datagram.
    Datagram {
        /// The port it came by.
        port: PortId,
        /// The hardware addresses of client and gateway.
        macs: (MacAddr, MacAddr),
        /// The client.
        to: SocketAddr,
        /// The gateway's address it was sent to.
        from: IpAddr,
    },
    /// A connection of the gateway's.
    Stream {
        /// The port it came by.
        port: PortId,
        /// Its number.
        connection: u64,
    },
}

/// How an attempt travels.
#[derive(Debug)]
enum Line {
    /// By datagrams of a socket.
    Datagrams { socket: SocketId, server: SocketAddr },
    /// By a connection.
    Stream(Stream),
    /// By packets on a network.
    Inside { network: NetworkId, server: IpAddr, port: u16 },
    /// By a connection on a network.
    Call { network: NetworkId, server: IpAddr, port: u16, caller: Box<Caller> },
}

/// What the questions on their way may touch.
pub(crate) struct Ways<'w, 't, 'f> {
    pub(crate) networks: &'w mut [Option<Box<Network>>],
    pub(crate) prefixes: &'w Prefixes,
    pub(crate) names: &'w Directory,
    pub(crate) sockets: Option<&'w Sockets>,
    pub(crate) connections: &'w mut Pool,
    pub(crate) totals: &'w mut crate::datapath::Totals,
    pub(crate) adrift: &'w mut crate::drops::DropCounts,
    pub(crate) turn: &'w mut Turn<'t, 'f>,
    pub(crate) now: Time,
}

/// All questions to others.
#[derive(Debug, Default)]
pub(crate) struct Forwarding {
    forwarder: Forwarder<Server, Client>,
    /// The host's servers; none where nobody outside is to be asked.
    upstreams: Option<Vec<SocketAddr>>,
    /// The servers of nodes that have their own.
    own: BTreeMap<NodeId, Vec<IpAddr>>,
    lines: BTreeMap<Attempt, Line>,
    by_socket: BTreeMap<SocketId, Attempt>,
    by_port: BTreeMap<(NetworkId, Transport, u16), Attempt>,
    /// Those that have a connection on a network.
    calls: BTreeSet<Attempt>,
    /// Those of them to which something has come in this batch.
    called: Vec<Attempt>,
    sockets_max: usize,
    /// Replies that have found no room yet.
    replies: VecDeque<(Client, Vec<u8>)>,
    /// When they are tried again.
    retry: Option<Time>,
    room: Vec<u8>,
}

/// Time as the questions know it.
fn span(now: Time) -> Duration {
    Duration::from_nanos(now.0)
}

impl Forwarding {
    /// How many flows there may be; a part of as many sockets is for questions.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.sockets_max = (limits.flows / 4).clamp(1, forward::QUESTIONS_MAX);
        self.forwarder.set_most(self.sockets_max);
    }

    /// One that would ask the same servers, of which nobody has asked anything yet.
    pub(crate) fn shadow(&self) -> Forwarding {
        Forwarding {
            upstreams: self.upstreams.clone(),
            own: self.own.clone(),
            sockets_max: self.sockets_max,
            ..Forwarding::default()
        }
    }

    /// The host's servers are these from now on.
    pub(crate) fn set_upstreams(&mut self, upstreams: Vec<SocketAddr>) {
        self.upstreams = Some(upstreams);
        self.forwarder.change_servers();
    }

    /// The servers of a node are these from now on; the host's where there is none.
    pub(crate) fn set_name_servers(&mut self, node: NodeId, servers: Vec<IpAddr>) {
        if servers.is_empty() {
            self.own.remove(&node);
        } else {
            self.own.insert(node, servers);
        }
        self.forwarder.change_servers();
    }

    /// Forgets the clients of a port that has gone.
    pub(crate) fn close_port(&mut self, gone: PortId) {
        let of_port = |client: &Client| match client {
            Client::Datagram { port, .. } | Client::Stream { port, .. } => *port == gone,
        };
        self.forwarder.forget(of_port);
        self.replies.retain(|(client, _)| !of_port(client));
        if !self.lines.is_empty() {
            // Their sockets are closed in the next turn, which is due at once.
            self.retry = Some(Time::ZERO);
        }
    }

    /// Notes a question of a node. False where nobody may be asked for it.
    pub(crate) fn ask(
        &mut self,
        names: &Directory,
        node: NodeId,
        client: Client,
        question: Outward,
        now: Time,
        random: &mut dyn Rng,
    ) -> bool {
        let host = host_key(node);
        let servers = match (self.own.get(&node), &self.upstreams) {
            (Some(own), _) => {
                let list = own.iter().map(|address| Server::Own(node, *address)).collect();
                Servers { own: true, list }
            }
            (None, Some(upstreams)) if names.leads_out(host) => {
                let list = upstreams.iter().copied().map(Server::Host).collect();
                Servers { own: false, list }
            }
            _ => return false,
        };
        self.forwarder.ask(host, client, question, &servers, span(now), random);
        true
    }

    /// Whether a packet to a port of a network's gateway may be a reply: it comes from the server that was asked from there.
    pub(crate) fn expects(
        &self,
        network: NetworkId,
        transport: Transport,
        from: SocketAddr,
        to: u16,
    ) -> bool {
        let attempt = self.by_port.get(&(network, transport, to));
        match attempt.and_then(|attempt| self.lines.get(attempt)) {
            Some(Line::Inside { server, .. } | Line::Call { server, .. }) => {
                (*server, PORT) == (from.ip(), from.port())
            }
            _ => false,
        }
    }

    /// Takes a segment that is expected.
    pub(crate) fn receive_segment(&mut self, network: NetworkId, to: u16, packet: Vec<u8>) {
        let Some(&attempt) = self.by_port.get(&(network, Transport::Tcp, to)) else { return };
        if let Some(Line::Call { caller, .. }) = self.lines.get_mut(&attempt) {
            caller.push(packet);
            if !self.called.contains(&attempt) {
                self.called.push(attempt);
            }
        }
    }

    /// Takes such a datagram.
    pub(crate) fn receive(
        &mut self,
        network: NetworkId,
        to: u16,
        message: &[u8],
        now: Time,
        random: &mut dyn Rng,
    ) {
        if let Some(&attempt) = self.by_port.get(&(network, Transport::Udp, to)) {
            self.forwarder.reply(attempt, message, span(now), random);
        }
    }

    /// Whether a socket is one of these.
    pub(crate) fn owns(&self, socket: SocketId) -> bool {
        self.by_socket.contains_key(&socket)
    }

    /// Something has changed about one of the sockets. True where more is to be done for it.
    pub(crate) fn ready(
        &mut self,
        socket: SocketId,
        ready: Ready,
        ways: &mut Ways<'_, '_, '_>,
    ) -> bool {
        let Some(&attempt) = self.by_socket.get(&socket) else { return false };
        let more = match self.lines.get_mut(&attempt) {
            Some(Line::Datagrams { .. }) => self.read_datagrams(attempt, ready, ways),
            Some(Line::Stream(stream)) => {
                let (host, random) = (&mut *ways.turn.host, &mut *ways.turn.random);
                match stream.proceed(host) {
                    Ok(None) => {}
                    Ok(Some(reply)) => {
                        let taken = self.forwarder.reply(attempt, &reply, span(ways.now), random);
                        if !taken {
                            self.forwarder.failed(attempt, span(ways.now), random);
                        }
                    }
                    Err(_) => self.forwarder.failed(attempt, span(ways.now), random),
                }
                false
            }
            Some(Line::Inside { .. } | Line::Call { .. }) | None => false,
        };
        self.run(ways);
        more
    }

    fn read_datagrams(
        &mut self,
        attempt: Attempt,
        ready: Ready,
        ways: &mut Ways<'_, '_, '_>,
    ) -> bool {
        let Some(Line::Datagrams { socket, server }) = self.lines.get(&attempt) else {
            return false;
        };
        let (socket, server, now) = (*socket, *server, span(ways.now));
        let (host, random) = (&mut *ways.turn.host, &mut *ways.turn.random);
        self.room.resize(MESSAGE_MAX, 0);
        for _ in 0..READS_MAX {
            let incoming = match host.receive_from(socket, &mut self.room) {
                Ok(incoming) => incoming,
                // The kernel has compared what the complaint quotes with what was sent.
                Err(Failure::WouldBlock) => {
                    if ready.error && host.complaint(socket).is_some() {
                        self.forwarder.failed(attempt, now, random);
                    }
                    return false;
                }
                Err(_) => {
                    self.forwarder.failed(attempt, now, random);
                    return false;
                }
            };
            let from = (incoming.from.ip().to_canonical(), incoming.from.port());
            if from != (server.ip().to_canonical(), server.port()) || incoming.truncated {
                continue;
            }
            let bytes = self.room.get(..incoming.len).unwrap_or_default();
            let each = incoming.segment.map_or(bytes.len(), usize::from).max(1);
            if bytes.chunks(each).any(|part| self.forwarder.reply(attempt, part, now, random)) {
                return false;
            }
        }
        true
    }

    /// When [`Forwarding::handle_timeout`] wants to be called.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let due = self.forwarder.poll_timeout().map(|at| Time::ZERO + at);
        let calls = self.calls.iter().filter_map(|attempt| self.caller_due(*attempt)).min();
        [due, self.retry, calls].into_iter().flatten().min()
    }

    fn caller_due(&self, attempt: Attempt) -> Option<Time> {
        match self.lines.get(&attempt)? {
            Line::Call { caller, .. } => caller.due,
            _ => None,
        }
    }

    /// Has the connections on networks go on.
    fn call(&mut self, attempt: Attempt, ways: &mut Ways<'_, '_, '_>) {
        let Some(Line::Call { caller, .. }) = self.lines.get_mut(&attempt) else { return };
        let now = span(ways.now);
        let taken = match caller.proceed(ways.turn, ways.totals, ways.now) {
            Ok(None) => return,
            Ok(Some(reply)) => self.forwarder.reply(attempt, &reply, now, ways.turn.random),
            Err(_) => false,
        };
        if !taken {
            self.forwarder.failed(attempt, now, ways.turn.random);
        }
    }

    /// Does what has become due.
    pub(crate) fn handle_timeout(&mut self, ways: &mut Ways<'_, '_, '_>) {
        self.forwarder.handle_timeout(span(ways.now), ways.turn.random);
        let is_due =
            |attempt: &&Attempt| self.caller_due(**attempt).is_some_and(|at| at <= ways.now);
        let due: Vec<Attempt> = self.calls.iter().filter(is_due).copied().collect();
        self.called.extend(due);
        self.run(ways);
    }

    /// Does what is to be done.
    pub(crate) fn run(&mut self, ways: &mut Ways<'_, '_, '_>) {
        for attempt in std::mem::take(&mut self.called) {
            self.call(attempt, ways);
        }
        while let Some(action) = self.forwarder.poll_action() {
            match action {
                Action::Ask { attempt, server, over, message } => {
                    match self.open(attempt, server, over, &message, ways) {
                        Some(line) => {
                            self.enter(attempt, line);
                        }
                        None => self.forwarder.failed(attempt, span(ways.now), ways.turn.random),
                    }
                }
                Action::Leave(attempt) => self.leave(attempt, ways),
                Action::Answer { client, message } => {
                    if self.replies.len() < REPLIES_MAX {
                        self.replies.push_back((client, message));
                    }
                }
            }
        }
        self.deliver(ways);
    }

    fn enter(&mut self, attempt: Attempt, line: Line) {
        match &line {
            Line::Datagrams { socket, .. } | Line::Stream(Stream { socket, .. }) => {
                self.by_socket.insert(*socket, attempt);
            }
            Line::Inside { network, port, .. } => {
                self.by_port.insert((*network, Transport::Udp, *port), attempt);
            }
            Line::Call { network, port, .. } => {
                self.by_port.insert((*network, Transport::Tcp, *port), attempt);
                self.calls.insert(attempt);
            }
        }
        self.lines.insert(attempt, line);
    }

    fn leave(&mut self, attempt: Attempt, ways: &mut Ways<'_, '_, '_>) {
        match self.lines.remove(&attempt) {
            Some(Line::Datagrams { socket, .. } | Line::Stream(Stream { socket, .. })) => {
                self.by_socket.remove(&socket);
                ways.turn.host.close(socket);
            }
            Some(Line::Inside { network, port, .. }) => {
                self.by_port.remove(&(network, Transport::Udp, port));
            }
            Some(Line::Call { network, port, mut caller, .. }) => {
                self.by_port.remove(&(network, Transport::Tcp, port));
                self.calls.remove(&attempt);
                caller.hang_up(ways.turn, ways.totals, ways.now);
            }
            None => {}
        }
    }

    /// Sends replies to whom they are for, as long as the turn has room.
    fn deliver(&mut self, ways: &mut Ways<'_, '_, '_>) {
        self.retry = None;
        while let Some((client, message)) = self.replies.front() {
            match *client {
                Client::Stream { connection, .. } => {
                    ways.connections.answer(connection, message, ways.now);
                }
                Client::Datagram { port, macs, to, from } => {
                    let header = Header::new(from, to.ip(), protocol::UDP);
                    let len = ETHERNET_LEN + header.len() + UDP_LEN + message.len();
                    let Some(made) = ways.turn.frames.make(len) else {
                        self.retry = Some(ways.now + RETRY);
                        return;
                    };
                    let frame = ways.turn.frames.get_mut(made).bytes_mut();
                    let kind = if from.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
                    reply::ethernet(frame, macs.0, macs.1, kind);
                    let ports = (PORT, to.port());
                    write_datagram(&mut frame[ETHERNET_LEN..], &header, ports, message);
                    ways.turn.outbox.push(port, made);
                    ways.totals.made += 1;
                    ways.totals.sent += 1;
                }
            }
            self.replies.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
