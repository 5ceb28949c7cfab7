//! A bed for one node of the inside that speaks TCP by hand, and a host that does as it is told.

mod chaos;
mod closing;
mod extremes;
mod inward;
mod opening;
mod outward;
mod selective;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::*;
use crate::inside::{Call, Filtering, PacketId};
use crate::offload::{Checksum, Offload};
use crate::packet::Ip;
use crate::sockets::PublicationId;
use crate::sockets::host::{Complaint, Host, Incoming, Outgoing, SendRoom, SocketId};
use crate::sockets::roles::Roles;
use crate::testbed::{Bed as Plain, MadePacket, OWNER, Rooms, ZONE, packet, socket};
use crate::write::Header;

use flag::{ACK, FIN, PSH, RST, SYN};

const SYN_ACK: u8 = SYN | ACK;
const FIN_ACK: u8 = FIN | ACK;
const RST_ACK: u8 = RST | ACK;

/// One connection of the host.
#[derive(Debug, Default)]
struct Conn {
    to: Option<SocketAddr>,
    made: Option<Result<(), Failure>>,
    /// What the inside sent.
    got: Vec<u8>,
    calls: usize,
    /// What the next sends come to; else all is taken.
    sends: VecDeque<Result<usize, Failure>>,
    /// What the next one takes at most.
    most: Option<Result<usize, Failure>>,
    room: SendRoom,
    /// How often it was asked for.
    asked: usize,
    /// What the next peeks come to.
    peeks: VecDeque<Failure>,
    /// What is there for the inside, and whether it ends there.
    has: Vec<u8>,
    ended: bool,
    died: Option<Failure>,
    discarded: usize,
    finished: bool,
    gone: Option<&'static str>,
}

/// The host.
#[derive(Debug, Default)]
struct Hand {
    connects: VecDeque<Failure>,
    conns: BTreeMap<SocketId, Conn>,
}

impl Hand {
    fn conn(&mut self, socket: SocketId) -> &mut Conn {
        let conn = self.conns.get_mut(&socket).expect("a socket that is there");
        assert_eq!(conn.gone, None, "nothing is asked of a socket that was given up");
        conn
    }

    fn put(&mut self, to: Option<SocketAddr>) -> SocketId {
        let socket = SocketId(self.conns.len() as u64 + 1);
        let room = SendRoom { bytes: 64_000, buffer: 128_000 };
        self.conns.insert(socket, Conn { to, room, ..Conn::default() });
        socket
    }
}

impl Host for Hand {
    fn connect(&mut self, to: SocketAddr) -> Result<SocketId, Failure> {
        match self.connects.pop_front() {
            Some(failure) => Err(failure),
            None => Ok(self.put(Some(to))),
        }
    }

    fn connected(&mut self, socket: SocketId) -> Result<(), Failure> {
        let conn = self.conn(socket);
        conn.died.map_or(conn.made.unwrap_or(Err(Failure::WouldBlock)), Err)
    }

    fn accept(&mut self, _listener: SocketId) -> Result<Accepted, Failure> {
        Err(Failure::Unsupported)
    }

    fn send(&mut self, socket: SocketId, parts: &[&[u8]]) -> Result<usize, Failure> {
        let conn = self.conn(socket);
        conn.calls += 1;
        let all = parts.concat();
        assert!(!conn.finished && !all.is_empty(), "something is sent, and only before the end");
        let most = conn.most.take().unwrap_or(Ok(all.len()))?;
        let count = conn.sends.pop_front().unwrap_or(Ok(all.len().min(most)))?;
        conn.got.extend_from_slice(&all[..count]);
        Ok(count)
    }

    fn send_room(&mut self, socket: SocketId) -> SendRoom {
        let conn = self.conn(socket);
        conn.asked += 1;
        conn.room
    }

    fn peek(&mut self, socket: SocketId, skip: usize, room: &mut [u8]) -> Result<usize, Failure> {
        assert!(!room.is_empty(), "room to peek into");
        let conn = self.conn(socket);
        if let Some(failure) = conn.peeks.pop_front() {
            return Err(failure);
        }
        let rest = conn.has.get(skip..).expect("no skipping past the end");
        if rest.is_empty() {
            return match conn.died {
                Some(failure) => Err(failure),
                None if conn.ended => Ok(0),
                None => Err(Failure::WouldBlock),
            };
        }
        let count = rest.len().min(room.len());
        room[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn discard(&mut self, socket: SocketId, count: usize) -> Result<(), Failure> {
        let conn = self.conn(socket);
        assert!(count > 0 && count <= conn.has.len(), "only what is there is discarded");
        conn.has.drain(..count);
        conn.discarded += count;
        Ok(())
    }

    fn finish(&mut self, socket: SocketId) -> Result<(), Failure> {
        let conn = self.conn(socket);
        assert!(!std::mem::replace(&mut conn.finished, true), "finished once");
        Ok(())
    }

    fn reset(&mut self, socket: SocketId) {
        self.conn(socket).gone = Some("reset");
    }

    fn close(&mut self, socket: SocketId) {
        self.conn(socket).gone = Some("closed");
    }

    fn datagrams(&mut self, _ipv6: bool) -> Result<SocketId, Failure> {
        Err(Failure::Unsupported)
    }

    fn pings(&mut self, _ipv6: bool) -> Result<SocketId, Failure> {
        Err(Failure::Unsupported)
    }

    fn send_to(&mut self, _: SocketId, _: &Outgoing, _: &[u8]) -> Result<(), Failure> {
        Err(Failure::Unsupported)
    }

    fn receive_from(&mut self, _: SocketId, _: &mut [u8]) -> Result<Incoming, Failure> {
        Err(Failure::Unsupported)
    }

    fn complaint(&mut self, _socket: SocketId) -> Option<Complaint> {
        None
    }
}

/// A segment as the test says or sees it.
#[derive(Clone, PartialEq, Eq)]
struct Seg {
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
    gso: Option<u16>,
}

impl std::fmt::Debug for Seg {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (flags, seq, ack, len) = self.short();
        write!(to, "{flags:#x} {seq}+{len} ack {ack} window {} {:?}", self.window, self.options)
    }
}

fn seg(flags: u8, seq: u32, ack: u32) -> Seg {
    Seg { flags, seq, ack, window: 1000, options: vec![], payload: vec![], gso: None }
}

impl Seg {
    fn with(self, payload: &[u8]) -> Seg {
        Seg { payload: payload.to_vec(), ..self }
    }

    fn window(self, window: u16) -> Seg {
        Seg { window, ..self }
    }

    fn options(self, options: &[u8]) -> Seg {
        Seg { options: options.to_vec(), ..self }
    }

    /// Flags, sequence number, acknowledgement and payload length.
    fn short(&self) -> (u8, u32, u32, usize) {
        (self.flags, self.seq, self.ack, self.payload.len())
    }
}

/// MSS 1460, window scale 7.
const OPTIONS: [u8; 8] = [2, 4, 0x05, 0xb4, 1, 3, 3, 7];

/// The same, and selective acknowledgements.
const PERMITS: [u8; 12] = [2, 4, 0x05, 0xb4, 1, 3, 3, 7, 1, 1, 4, 2];

/// The number of the inside's SYN.
const ISN: u32 = 0xffff_ff00;

struct Bed {
    tcp: Tcp,
    roles: Roles,
    host: Hand,
    rooms: Rooms,
    now: Time,
    inside: SocketAddr,
    outside: SocketAddr,
    /// Where the inside is: its next byte, and what it expects.
    seq: u32,
    ack: u32,
}

impl Bed {
    fn new() -> Bed {
        Bed::limited(Limits::default())
    }

    fn limited(limits: Limits) -> Bed {
        Bed {
            tcp: Tcp::new(limits, 1),
            roles: Roles::new(1),
            host: Hand::default(),
            rooms: Plain::new().rooms,
            now: Time(1_000_000_000),
            inside: socket("10.0.0.2:40000"),
            outside: socket("192.0.2.1:80"),
            seq: ISN,
            ack: 0,
        }
    }

    fn six() -> Bed {
        Bed { inside: socket("[fd00::2]:40000"), outside: socket("[2001:db8::1]:80"), ..Bed::new() }
    }

    fn step<T>(&mut self, step: impl FnOnce(&mut Tcp, &mut Desk<'_, '_>) -> T) -> T {
        let mut random = Plain::new().random;
        let call = &mut Call {
            host: &mut self.host,
            inside: &mut self.rooms,
            random: &mut random,
            now: self.now,
        };
        let desk = &mut Desk { call, roles: &mut self.roles };
        let result = step(&mut self.tcp, desk);
        let live = self.tcp.flows.iter().flatten().count();
        assert_eq!(live, self.tcp.len(), "the tables agree");
        let early = self.tcp.flows.iter().flatten().filter_map(|flow| flow.early.as_ref());
        assert_eq!(early.map(|early| early.len()).sum::<usize>(), self.tcp.stock.all());
        result
    }

    fn packet(&mut self, seg: &Seg) -> Packet {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.inside.port().to_be_bytes());
        bytes.extend_from_slice(&self.outside.port().to_be_bytes());
        bytes.extend_from_slice(&seg.seq.to_be_bytes());
        bytes.extend_from_slice(&seg.ack.to_be_bytes());
        bytes.push(((20 + seg.options.len()) * 4) as u8);
        bytes.push(seg.flags);
        bytes.extend_from_slice(&seg.window.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&seg.options);
        bytes.extend_from_slice(&seg.payload);
        let header = Header::new(self.inside.ip(), self.outside.ip(), protocol::TCP);
        self.raw(packet(header, &bytes, Some(16)))
    }

    fn raw(&mut self, bytes: Vec<u8>) -> Packet {
        let ip = Ip::of(&bytes, 0).expect("a sound packet");
        self.rooms.packets.push(bytes);
        Packet {
            id: PacketId(self.rooms.packets.len() as u16 - 1),
            ip,
            offload: Offload::default(),
            zone: ZONE,
            owner: OWNER,
            reach: Some(ip.dst),
            filtering: Filtering::default(),
        }
    }

    /// The inside says several segments in one batch.
    fn batch(&mut self, segs: &[Seg]) -> Vec<Result<(), Lost>> {
        let mut results = Vec::new();
        for seg in segs {
            let packet = self.packet(seg);
            results.push(self.step(|tcp, desk| tcp.outbound(&packet, desk)));
        }
        self.step(|tcp, desk| tcp.flush(desk));
        results
    }

    /// The inside says one segment.
    fn say(&mut self, seg: Seg) -> Result<(), Lost> {
        self.batch(&[seg]).remove(0)
    }

    /// The inside says something at its place.
    fn here(&mut self, flags: u8) -> Seg {
        seg(flags, self.seq, self.ack)
    }

    /// What was said to the inside since.
    fn heard(&mut self) -> Vec<Seg> {
        std::mem::take(&mut self.rooms.made).iter().map(|made| self.read(made)).collect()
    }

    fn only(&mut self) -> Seg {
        let mut heard = self.heard();
        assert_eq!(heard.len(), 1, "one segment was made: {heard:?}");
        heard.remove(0)
    }

    /// The same segment that was said four times: an acknowledgement that asks for what is missing.
    fn asked_again(&mut self) -> Seg {
        let mut heard = self.heard();
        assert_eq!(heard.len(), 4, "once, and three times again: {heard:?}");
        heard.dedup();
        assert_eq!(heard.len(), 1, "all are alike: {heard:?}");
        heard.remove(0)
    }

    fn silent(&mut self) {
        assert_eq!(self.heard(), [], "nothing is said");
    }

    fn read(&self, made: &MadePacket) -> Seg {
        let ip = made.ip();
        assert_eq!((ip.src, ip.dst, ip.protocol), (self.outside.ip(), self.inside.ip(), 6));
        let bytes = made.transport();
        let header = Header::new(ip.src, ip.dst, protocol::TCP);
        let pseudo = header.pseudo(bytes.len());
        match made.offload.csum {
            Checksum::Partial { start, offset } => {
                assert_eq!((usize::from(start), offset), (ip.l4, 16));
                assert_eq!(bytes[16..18], pseudo.to_be_bytes());
            }
            _ => {
                let sum = crate::checksum::add(pseudo, crate::checksum::sum(bytes));
                assert_eq!(crate::checksum::finish(sum), 0, "a right checksum");
            }
        }
        let front = usize::from(bytes[12] >> 4) * 4;
        let gso = made.offload.gso.inspect(|gso| {
            assert_eq!(usize::from(gso.hdr_len), ip.l4 + front);
            assert!(bytes.len() - front > usize::from(gso.size));
        });
        let long = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        Seg {
            flags: bytes[13],
            seq: long(4),
            ack: long(8),
            window: u16::from_be_bytes([bytes[14], bytes[15]]),
            options: bytes[20..front].to_vec(),
            payload: bytes[front..].to_vec(),
            gso: gso.map(|gso| gso.size),
        }
    }

    fn ready(&mut self, socket: SocketId, ready: Ready) -> bool {
        let role = self.roles.get(socket).expect("a socket in use");
        let Role::Tcp(n) = role else { panic!("a connection's") };
        self.step(|tcp, desk| tcp.ready(n, ready, desk))
    }

    fn writable(&mut self) -> bool {
        self.ready(S, Ready { writable: true, ..Ready::default() })
    }

    fn readable(&mut self) -> bool {
        self.ready(S, Ready { readable: true, ..Ready::default() })
    }

    /// The outside sends.
    fn arrives(&mut self, bytes: &[u8]) -> bool {
        self.host.conn(S).has.extend_from_slice(bytes);
        self.readable()
    }

    /// The outside sends no more.
    fn ends(&mut self) {
        self.host.conn(S).ended = true;
        self.readable();
    }

    fn conn(&mut self) -> &mut Conn {
        self.host.conns.get_mut(&S).unwrap()
    }

    /// The inside has asked, and the host connects.
    fn asked(options: &[u8]) -> Bed {
        let mut bed = Bed::new();
        bed.ask(options);
        bed
    }

    fn ask(&mut self, options: &[u8]) {
        let syn = self.here(SYN).options(options);
        self.say(syn).unwrap();
        self.silent();
    }

    /// The host's connection is made.
    fn connect(&mut self) -> Seg {
        self.conn().made = Some(Ok(()));
        assert!(!self.writable());
        self.only()
    }

    /// A connection that the inside has made.
    fn open() -> Bed {
        let mut bed = Bed::asked(&OPTIONS);
        bed.establish();
        bed
    }

    fn establish(&mut self) {
        let answer = self.connect();
        assert_eq!((answer.flags, answer.ack), (SYN_ACK, self.seq.wrapping_add(1)));
        self.seq = answer.ack;
        self.ack = answer.seq.wrapping_add(1);
        let ack = self.here(ACK);
        self.say(ack).unwrap();
        self.silent();
        // As if superframes had come for a while: what the host has room for is what counts.
        for flow in self.tcp.flows.iter_mut().flatten() {
            flow.frame = 65_536;
            flow.edge = flow.expected + 64_000;
            flow.buffer = 128_000;
        }
    }

    /// Time passes until something is due, which is done. How long that took. A deadline that has been put off is none.
    fn wait(&mut self) -> Duration {
        let before = self.now;
        loop {
            self.now = self.tcp.next_timeout().expect("something is due").max(self.now);
            let now = self.now;
            let mut flows = self.tcp.flows.iter().flatten();
            let is_due = flows.any(|flow| flow.again || flow.due(now).is_some_and(|at| at <= now));
            self.step(|tcp, desk| tcp.handle_timeout(desk));
            if is_due {
                return now.since(before);
            }
        }
    }

    /// So much time passes, and all that becomes due is done.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.tcp.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.step(|tcp, desk| tcp.handle_timeout(desk));
        }
        self.now = end;
    }

    fn state(&self) -> Option<State> {
        self.tcp.flows.iter().flatten().map(|flow| flow.state).next()
    }

    /// Nothing is left.
    fn is_over(&self, how: &str) {
        assert_eq!(self.tcp.len(), 0, "no flow is left");
        assert_eq!(self.tcp.next_timeout(), None);
        for (socket, conn) in &self.host.conns {
            assert_eq!(conn.gone, Some(how));
            assert_eq!(self.roles.get(*socket), None);
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            publication: PublicationId(5),
            zone: ZONE,
            owner: OWNER,
            inside: self.inside,
            outside: self.outside,
        }
    }

    /// Somebody comes in by a published port.
    fn comes_in(&mut self) -> Vec<Seg> {
        let socket = self.host.put(None);
        let peer = self.outside;
        let (entry, accepted) = (self.entry(), Accepted { socket, peer });
        self.step(|tcp, desk| tcp.inbound(&entry, accepted, desk));
        self.heard()
    }
}

/// The first socket.
const S: SocketId = SocketId(1);

/// Bytes that tell their places.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at ^ at >> 8) as u8).collect()
}
