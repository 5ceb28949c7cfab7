//! A model of the host's sockets in virtual time, and of the world outside.
//!
//! [`SimHost`] answers the calls of [`portolan_nat::sockets::host::Host`] as a kernel would: buffers are bounded, news take
//! time, and readiness is told by edges alone. A socket that something has happened to is looked at once, when the world
//! takes [`SimHost::ready`]: what poll(2) would say of it then is told, and nothing more until something happens to it again.
//! A core that does not read on until there is nothing, or forgets that it did not, hangs.
//!
//! A call on a socket that is not open panics, and so does one that must never be made: bytes discarded that were not there,
//! a connection to an address that nobody outside has.

mod calls;
mod datagram;
mod faults;
mod peer;
mod stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use portolan_nat::sockets::host::{Complaint, Failure, Outgoing, Ready, SocketId};
use portolan_switch::ids::Time;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use datagram::{Arrived, Datagrams, Kind};
pub use faults::{Call, Faults, Rule};
pub use peer::{Answer, Closing, Mail, Peer, Reading, Talker};
pub use stream::Stream;
use stream::{Happening, Later};

/// The host's own addresses.
pub const HOST4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
/// As above.
pub const HOST6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

/// How long a datagram is on its way.
const WAY: Duration = Duration::from_micros(300);

/// The first of the ports that the host chooses itself.
const EPHEMERAL: u16 = 32_768;

/// Names a connection, whoever has its ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StreamId(pub u64);

#[derive(Debug)]
enum Socket {
    Stream(StreamId),
    Listener { local: SocketAddr, waiting: VecDeque<StreamId> },
    Datagrams(Datagrams),
}

#[derive(Debug)]
enum Due {
    Stream(StreamId, Happening),
    /// Somebody has come to a listener.
    Comes(StreamId),
    Datagram {
        ipv6: bool,
        port: u16,
        kind: Kind,
        arrived: Arrived,
    },
    Complaint(SocketId, Complaint),
    Wake(SocketId),
}

/// The host.
#[derive(Debug)]
pub struct SimHost {
    now: Time,
    random: ChaCha8Rng,
    next_id: u64,
    next_port: u16,
    sockets: BTreeMap<SocketId, Socket>,
    streams: BTreeMap<StreamId, Stream>,
    /// Whose socket a connection is; none once it was given up, or before it was accepted.
    holders: BTreeMap<StreamId, SocketId>,
    /// Connections of the host to itself: the other half of each.
    halves: BTreeMap<StreamId, StreamId>,
    calendar: BTreeMap<(Time, u64), Due>,
    noted: u64,
    woken: BTreeSet<SocketId>,
    /// Who takes connections, by address.
    pub peers: BTreeMap<SocketAddr, Peer>,
    /// Who takes connections to any other address.
    pub anybody: Option<Peer>,
    /// Who takes datagrams, by address; of echo requests, with port 0.
    pub talkers: BTreeMap<SocketAddr, Talker>,
    /// All datagrams that have left, trains in their parts.
    pub mail: Vec<Mail>,
    /// What goes wrong.
    pub faults: Faults,
    /// Routers on the way: a datagram of fewer hops is complained of.
    pub hops: u8,
    /// The largest datagram that goes out whole where it may not be cut; its packet, bytes.
    pub path_mtu: usize,
    /// Bytes a connection may hold to be sent, and to be read.
    pub buffers: (usize, usize),
    /// Whether the host's loopback may be reached.
    pub loopback: bool,
    /// Sockets there may be.
    pub descriptors: usize,
    /// Calls made, all in all.
    pub calls: u64,
    /// Connections the host was asked for, in order.
    pub connects: Vec<(SocketAddr, StreamId)>,
}

/// Whether an address is one that the sockets uplink never goes to unless it is opened on purpose.
fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            a == 0 || a == 127 || (a, b) == (169, 254) || a >= 224
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            let mapped = v6.to_ipv4_mapped().is_some();
            let link = first & 0xffc0 == 0xfe80;
            v6.is_unspecified() || v6.is_loopback() || mapped || link || first >> 8 == 0xff
        }
    }
}

fn host_of(ipv6: bool) -> IpAddr {
    if ipv6 { HOST6 } else { HOST4 }
}

impl SimHost {
    /// A host without sockets, in a world without anybody.
    pub fn new(seed: u64) -> SimHost {
        SimHost {
            now: Time::ZERO,
            random: ChaCha8Rng::seed_from_u64(seed),
            next_id: 0,
            next_port: EPHEMERAL,
            sockets: BTreeMap::new(),
            streams: BTreeMap::new(),
            holders: BTreeMap::new(),
            halves: BTreeMap::new(),
            calendar: BTreeMap::new(),
            noted: 0,
            woken: BTreeSet::new(),
            peers: BTreeMap::new(),
            anybody: None,
            talkers: BTreeMap::new(),
            mail: Vec::new(),
            faults: Faults::default(),
            hops: 3,
            path_mtu: 1500,
            buffers: (1 << 18, 1 << 18),
            loopback: false,
            descriptors: 1 << 20,
            calls: 0,
            connects: Vec::new(),
        }
    }

    /// Sockets that are open, listeners and doors included.
    pub fn open_sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Sockets that are open and were not made by [`SimHost::listen`] or [`SimHost::bind`].
    pub fn flow_sockets(&self) -> usize {
        let own = |socket: &&Socket| match socket {
            Socket::Listener { .. } => false,
            Socket::Datagrams(datagrams) => datagrams.port >= EPHEMERAL,
            Socket::Stream(_) => true,
        };
        self.sockets.values().filter(own).count()
    }

    /// A connection.
    pub fn stream(&self, id: StreamId) -> &Stream {
        &self.streams[&id]
    }

    /// All connections there ever were, in the order in which they began.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, &Stream)> {
        self.streams.iter().map(|(id, stream)| (*id, stream))
    }

    /// When something comes about.
    pub fn next_due(&self) -> Option<Time> {
        if !self.woken.is_empty() {
            return Some(self.now);
        }
        self.calendar.keys().next().map(|(at, _)| *at)
    }

    /// Lets time come to `now`.
    pub fn advance(&mut self, now: Time) {
        while let Some(entry) = self.calendar.first_entry() {
            let (at, _) = *entry.key();
            if at > now {
                break;
            }
            let due = entry.remove();
            self.now = at;
            self.come_about(due);
        }
        self.now = now;
    }

    /// The sockets that something has happened to since the last call, and how they stand now.
    pub fn ready(&mut self) -> Vec<(SocketId, Ready)> {
        let woken = std::mem::take(&mut self.woken);
        let stands = |id: SocketId| {
            let ready = match self.sockets.get(&id)? {
                Socket::Stream(stream) => self.streams[stream].ready(),
                Socket::Listener { waiting, .. } => {
                    Ready { readable: !waiting.is_empty(), ..Ready::default() }
                }
                Socket::Datagrams(datagrams) => datagrams.ready(),
            };
            Some((id, ready)).filter(|(_, ready)| *ready != Ready::default())
        };
        woken.into_iter().filter_map(stands).collect()
    }

    fn note(&mut self, after: Duration, due: Due) {
        self.noted += 1;
        self.calendar.insert((self.now + after, self.noted), due);
    }

    fn note_stream(&mut self, id: StreamId, later: Later) {
        for (after, happening) in later {
            self.note(after, Due::Stream(id, happening));
        }
    }

    fn wake(&mut self, stream: StreamId) {
        if let Some(holder) = self.holders.get(&stream) {
            self.woken.insert(*holder);
        }
    }

    fn open(&mut self, socket: Socket) -> SocketId {
        self.next_id += 1;
        let id = SocketId(self.next_id);
        if let Socket::Stream(stream) = socket {
            self.holders.insert(stream, id);
        }
        self.sockets.insert(id, socket);
        self.woken.insert(id);
        id
    }

    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(EPHEMERAL);
        port
    }

    fn come_about(&mut self, due: Due) {
        match due {
            Due::Stream(id, happening) => self.happen(id, happening),
            Due::Comes(id) => self.come(id),
            Due::Wake(socket) => {
                self.woken.insert(socket);
            }
            Due::Complaint(id, complaint) => {
                if let Some(Socket::Datagrams(datagrams)) = self.sockets.get_mut(&id) {
                    datagrams.complain(complaint);
                    self.woken.insert(id);
                }
            }
            Due::Datagram { ipv6, port, kind, arrived } => {
                for (id, socket) in &mut self.sockets {
                    let Socket::Datagrams(datagrams) = socket else { continue };
                    if (datagrams.kind, datagrams.ipv6, datagrams.port) == (kind, ipv6, port) {
                        datagrams.arrive(arrived);
                        self.woken.insert(*id);
                        break;
                    }
                }
            }
        }
    }

    fn happen(&mut self, id: StreamId, happening: Happening) {
        // What would reach the program of a connection to the host itself reaches its other half.
        let (id, happening) = match (self.halves.get(&id).copied(), happening) {
            (Some(half), Happening::AtPeer(bytes, end)) => {
                self.note(WAY, Due::Stream(id, Happening::Acked(bytes.len())));
                (half, Happening::AtHost(bytes, end))
            }
            (Some(half), Happening::ResetAtPeer) => (half, Happening::ResetAtHost),
            (Some(half), Happening::HostRoom(count)) => (half, Happening::PeerRoom(count)),
            (_, happening) => (id, happening),
        };
        let mut later = Later::new();
        let stream = self.streams.get_mut(&id).expect("a connection stays known");
        if stream.happen(happening, &mut later) {
            self.wake(id);
        }
        self.note_stream(id, later);
    }

    /// Somebody has come to where there may be a listener.
    fn come(&mut self, id: StreamId) {
        let at = self.streams[&id].local;
        let listener = self.sockets.iter_mut().find_map(|(socket, kind)| match kind {
            Socket::Listener { local, waiting } if listens(*local, at) => Some((*socket, waiting)),
            _ => None,
        });
        let Some((socket, waiting)) = listener else {
            // The half of a connection to the host itself is told at its other one.
            let half = self.halves.get(&id).copied();
            return match half {
                Some(near) => self.happen(near, Happening::ResetAtHost),
                None => self.happen(id, Happening::ResetAtPeer),
            };
        };
        waiting.push_back(id);
        self.woken.insert(socket);
        self.happen(id, Happening::Answered);
    }

    /// Makes a listener, as the control side does.
    pub fn listen(&mut self, local: SocketAddr) -> SocketId {
        self.open(Socket::Listener { local, waiting: VecDeque::new() })
    }

    /// Makes a socket for datagrams on a port, as the control side does for a publication; the port lies below those that
    /// the host chooses.
    pub fn bind(&mut self, local: SocketAddr) -> SocketId {
        assert!(local.port() < EPHEMERAL, "{local} is for the host to choose");
        self.open(Socket::Datagrams(Datagrams::new(Kind::Udp, local.is_ipv6(), local.port())))
    }

    /// A client outside connects to a listener.
    pub fn dial(&mut self, to: SocketAddr, client: SocketAddr, program: Peer) -> StreamId {
        let id = self.new_stream(program, (to, client));
        self.note(WAY, Due::Comes(id));
        id
    }

    /// Somebody outside sends a datagram to a port of the host; a train where it is in segments.
    pub fn post(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8], segment: Option<u16>) {
        let arrived = Arrived { from, to: to.ip(), segment, payload: payload.to_vec() };
        let (ipv6, port) = (to.is_ipv6(), to.port());
        self.note(WAY, Due::Datagram { ipv6, port, kind: Kind::Udp, arrived });
    }

    fn new_stream(&mut self, peer: Peer, ends: (SocketAddr, SocketAddr)) -> StreamId {
        self.next_id += 1;
        let id = StreamId(self.next_id);
        self.streams.insert(id, Stream::begin(peer, ends, self.buffers));
        id
    }

    fn strike(&mut self, call: Call) -> Result<(), Failure> {
        self.calls += 1;
        self.faults.strike(call, &mut self.random).map_or(Ok(()), Err)
    }

    /// As [`SimHost::strike`] of a call on a socket: one that is to be tried again is woken for it, and one whose connection
    /// is said to be over is over; that there is none is so, whatever the reason.
    fn strike_at(&mut self, call: Call, socket: SocketId) -> Result<(), Failure> {
        let struck = self.strike(call);
        let deadly = match struck {
            Ok(()) | Err(Failure::WouldBlock) => false,
            Err(Failure::Reset | Failure::TimedOut | Failure::HostUnreachable) => true,
            Err(_) => call == Call::Connected,
        };
        match struck {
            Err(Failure::WouldBlock) => {
                self.note(Duration::from_millis(2), Due::Wake(socket));
            }
            Err(_) if deadly => {
                if let Some(Socket::Stream(id)) = self.sockets.get(&socket) {
                    let id = *id;
                    let mut later = Later::new();
                    self.streams.get_mut(&id).expect("known").die(None, &mut later);
                    self.note_stream(id, later);
                }
            }
            _ => {}
        }
        struck
    }

    fn stream_of(&mut self, socket: SocketId) -> (StreamId, &mut Stream) {
        match self.sockets.get(&socket) {
            Some(Socket::Stream(id)) => {
                let id = *id;
                (id, self.streams.get_mut(&id).expect("a connection stays known"))
            }
            other => panic!("{socket:?} is no connection but {other:?}"),
        }
    }

    fn check_descriptors(&self) -> Result<(), Failure> {
        if self.sockets.len() < self.descriptors { Ok(()) } else { Err(Failure::TooManyFiles) }
    }

    fn check_target(&self, to: IpAddr) {
        let loopback = self.loopback && to.is_loopback();
        assert!(loopback || !is_forbidden(to), "{to} must never be gone to");
    }

    /// What those outside do about a datagram.
    fn answer(&mut self, socket: SocketId, outgoing: &Outgoing, mail: &[Mail], payload: &[u8]) {
        let Some(Socket::Datagrams(datagrams)) = self.sockets.get(&socket) else { return };
        let (ipv6, port, kind) = (datagrams.ipv6, datagrams.port, datagrams.kind);
        let to = match kind {
            Kind::Udp => outgoing.to,
            Kind::Ping => SocketAddr::new(outgoing.to.ip(), 0),
        };
        if outgoing.hop_limit < self.hops {
            let router = match ipv6 {
                false => IpAddr::V4(Ipv4Addr::new(198, 51, 100, outgoing.hop_limit)),
                true => IpAddr::V6(Ipv6Addr::from(0xfdff << 112 | u128::from(outgoing.hop_limit))),
            };
            let kind = if ipv6 { (3, 0) } else { (11, 0) };
            let said = datagram::complaint(to, Some(router), (kind, 0), payload);
            return self.note(WAY, Due::Complaint(socket, said));
        }
        let local = outgoing.from.unwrap_or(host_of(ipv6));
        let reply = |from: SocketAddr, payload: Vec<u8>, segment: Option<u16>| {
            let arrived = Arrived { from, to: local, segment, payload };
            Due::Datagram { ipv6, port, kind, arrived }
        };
        let echoed = |mut payload: Vec<u8>| {
            if kind == Kind::Ping {
                payload[0] = if ipv6 { 129 } else { 0 };
                payload[4..6].copy_from_slice(&port.to_be_bytes());
            }
            payload
        };
        match self.talkers.get(&to).cloned().unwrap_or(Talker::Silent) {
            Talker::Silent => {}
            Talker::Echo => {
                for one in mail {
                    self.note(WAY * 2, reply(to, echoed(one.payload.clone()), None));
                }
            }
            Talker::EchoTrain => {
                self.note(WAY * 2, reply(to, echoed(payload.to_vec()), outgoing.segment));
            }
            Talker::EchoFrom(from) => {
                self.note(WAY * 2, reply(from, echoed(payload.to_vec()), outgoing.segment));
            }
            Talker::Complains { from, kind } => {
                let from = from.or(Some(to.ip()));
                let said = datagram::complaint(to, from, (kind, 0), payload);
                self.note(WAY * 2, Due::Complaint(socket, said));
            }
            Talker::Replies(replies) => {
                for payload in replies {
                    self.note(WAY * 2, reply(to, payload, None));
                }
            }
        }
    }

    fn new_datagrams(&mut self, kind: Kind, ipv6: bool) -> Result<SocketId, Failure> {
        self.check_descriptors()?;
        let port = self.port();
        Ok(self.open(Socket::Datagrams(Datagrams::new(kind, ipv6, port))))
    }

    /// Ends the connections that wait at a listener, or the one that a socket is.
    fn end(&mut self, socket: SocketId, end: fn(&mut Stream, &mut Later)) {
        let streams: Vec<StreamId> = match self.sockets.remove(&socket) {
            Some(Socket::Stream(id)) => vec![id],
            Some(Socket::Listener { waiting, .. }) => waiting.into(),
            Some(Socket::Datagrams(_)) => Vec::new(),
            None => panic!("{socket:?} is not open"),
        };
        for id in streams {
            self.holders.remove(&id);
            let mut later = Later::new();
            end(self.streams.get_mut(&id).expect("a connection stays known"), &mut later);
            self.note_stream(id, later);
        }
    }
}

fn listens(local: SocketAddr, at: SocketAddr) -> bool {
    let any = local.ip().is_unspecified() && (local.is_ipv6() || at.is_ipv4());
    local.port() == at.port() && (any || local.ip() == at.ip())
}
