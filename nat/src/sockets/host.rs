//! The host, as the translation sees it: sockets, and calls on them that never wait.
//!
//! The IO edge implements it with system calls, the simulator with a model. Every call either does something at once or says
//! why not. Readiness is edge-triggered: whoever drives the core calls it for a socket when something has changed there, and
//! not again until it changes once more, so whoever reads goes on until [`Failure::WouldBlock`] or remembers that it did not.
//! A socket whose send was refused with [`Failure::WouldBlock`], or whose [`Host::send_room`] was asked for and found small,
//! becomes writable by such a change.

use std::net::{IpAddr, SocketAddr};

/// Names a socket of the host. Never given out twice, so that news of a closed one fit no other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub u64);

/// What has changed about a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// There may be something to read, an end included; of a listener, somebody to accept.
    pub readable: bool,
    /// There may be room to write; a connection may have been made.
    pub writable: bool,
    /// Something failed: an error is pending, or lies in the error queue.
    pub error: bool,
}

/// Why the host did not do it. Not one of them is fatal to anybody but the flow it struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Not now (EAGAIN).
    WouldBlock,
    /// Somebody refused (ECONNREFUSED).
    Refused,
    /// The peer ended it (ECONNRESET, EPIPE, ECONNABORTED).
    Reset,
    /// Nobody answered (ETIMEDOUT).
    TimedOut,
    /// No way to that network (ENETUNREACH, ENETDOWN).
    NetUnreachable,
    /// No way to that host (EHOSTUNREACH, EHOSTDOWN).
    HostUnreachable,
    /// Forbidden (EPERM, EACCES): the host's firewall, or its policy.
    Forbidden,
    /// Larger than the way takes (EMSGSIZE).
    TooBig,
    /// Out of descriptors (EMFILE, ENFILE).
    TooManyFiles,
    /// Out of memory or of buffers (ENOBUFS, ENOMEM).
    NoBuffers,
    /// Out of ports, or no such address here (EADDRINUSE, EADDRNOTAVAIL).
    NoAddress,
    /// The host has no such kind of socket (EAFNOSUPPORT, EPROTONOSUPPORT).
    Unsupported,
    /// Anything else, by its errno.
    Other(i32),
}

/// How a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SendRoom {
    /// Payload bytes the socket takes now, cautiously reckoned: a send of so many is not cut short.
    pub bytes: usize,
    /// How large that could become: the size of its buffer, payload bytes.
    pub buffer: usize,
}

/// A connection somebody made to a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// The connection.
    pub socket: SocketId,
    /// Who made it. Of IPv4 where it is, whatever the listener is.
    pub peer: SocketAddr,
}

/// A datagram, or a train of them, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// To whom. To a ping socket the port says nothing.
    pub to: SocketAddr,
    /// From which address of the host; it chooses where there is none.
    pub from: Option<IpAddr>,
    /// Hops it may take.
    pub hop_limit: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Not to be fragmented: too big is an error of the way, and comes back as one.
    pub dont_fragment: bool,
    /// Where the payload is a train of datagrams: bytes of each but the last.
    pub segment: Option<u16>,
}

/// A datagram, or a train of them, that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incoming {
    /// From whom.
    pub from: SocketAddr,
    /// The address of the host that it came to.
    pub to: IpAddr,
    /// Bytes of payload; it may be 0.
    pub len: usize,
    /// Hops it had left, where the host tells.
    pub hop_limit: Option<u8>,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Where the payload is a train of datagrams: bytes of each but the last.
    pub segment: Option<u16>,
    /// The room did not suffice, and the rest is lost.
    pub truncated: bool,
}

/// Bytes of the datagram that a complaint quotes.
pub const QUOTE_MAX: usize = 128;

/// An ICMP error that came back for a datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// Where the datagram was sent to.
    pub to: SocketAddr,
    /// Who complains: a router on the way, or the destination; none where the host itself does.
    pub from: Option<IpAddr>,
    /// ICMP type and code, of the family of `to`.
    pub kind: (u8, u8),
    /// For "too big": the largest packet the way takes, bytes; else 0.
    pub mtu: u32,
    /// The start of the datagram's payload as it was sent; of a ping socket, from the ICMP header on.
    pub quote: arrayvec::ArrayVec<u8, QUOTE_MAX>,
}

/// The sockets of a host. No call waits.
pub trait Host {
    /// Begins a connection. When it is made or has failed the socket becomes writable; [`Host::connected`] tells which.
    fn connect(&mut self, to: SocketAddr) -> Result<SocketId, Failure>;

    /// What became of a connection that was begun: made, not yet ([`Failure::WouldBlock`]), or failed. Also takes the error
    /// that a connection died of.
    fn connected(&mut self, socket: SocketId) -> Result<(), Failure>;

    /// Takes one connection from a listener.
    fn accept(&mut self, listener: SocketId) -> Result<Accepted, Failure>;

    /// Sends the parts, one behind the other, as far as there is room: how many bytes were taken, at least one.
    fn send(&mut self, socket: SocketId, parts: &[&[u8]]) -> Result<usize, Failure>;

    /// What room the connection has for more. Where it is less than half the buffer the socket becomes writable when there
    /// is more.
    fn send_room(&mut self, socket: SocketId) -> SendRoom;

    /// Reads into `room` without taking: what lies `skip` bytes behind the oldest byte that was not discarded. 0 is the
    /// stream's end; `room` is not empty.
    fn peek(&mut self, socket: SocketId, skip: usize, room: &mut [u8]) -> Result<usize, Failure>;

    /// Takes the `count` oldest bytes off the stream; they have been peeked at. Where it fails, none of them is taken.
    fn discard(&mut self, socket: SocketId, count: usize) -> Result<(), Failure>;

    /// Says that nothing more will be sent. What was is still delivered.
    fn finish(&mut self, socket: SocketId) -> Result<(), Failure>;

    /// Ends a connection without ceremony: the peer gets a reset.
    fn reset(&mut self, socket: SocketId);

    /// Gives up a socket of any kind. What a connection was given to send is still delivered.
    fn close(&mut self, socket: SocketId);

    /// A socket for datagrams on a port that the host chooses, for one family.
    fn datagrams(&mut self, ipv6: bool) -> Result<SocketId, Failure>;

    /// A socket for echo requests, for one family. [`Failure::Forbidden`] where the system lets nobody have one.
    fn pings(&mut self, ipv6: bool) -> Result<SocketId, Failure>;

    /// Sends one datagram, or a train. Any error that lay waiting is left in place to be taken by [`Host::complaint`], and
    /// the datagram is sent all the same. An echo request goes from its ICMP header on; the host sets id and checksum.
    fn send_to(
        &mut self,
        socket: SocketId,
        outgoing: &Outgoing,
        payload: &[u8],
    ) -> Result<(), Failure>;

    /// Takes one datagram, or a train. An echo reply comes from its ICMP header on.
    fn receive_from(&mut self, socket: SocketId, room: &mut [u8]) -> Result<Incoming, Failure>;

    /// Takes the oldest complaint there is.
    fn complaint(&mut self, socket: SocketId) -> Option<Complaint>;
}

/// A host without sockets: nothing leads out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoHost;

impl Host for NoHost {
    fn connect(&mut self, _to: SocketAddr) -> Result<SocketId, Failure> {
        Err(Failure::Unsupported)
    }

    fn connected(&mut self, _socket: SocketId) -> Result<(), Failure> {
        Err(Failure::Unsupported)
    }

    fn accept(&mut self, _listener: SocketId) -> Result<Accepted, Failure> {
        Err(Failure::Unsupported)
    }

    fn send(&mut self, _socket: SocketId, _parts: &[&[u8]]) -> Result<usize, Failure> {
        Err(Failure::Unsupported)
    }

    fn send_room(&mut self, _socket: SocketId) -> SendRoom {
        SendRoom::default()
    }

    fn peek(&mut self, _: SocketId, _: usize, _: &mut [u8]) -> Result<usize, Failure> {
        Err(Failure::Unsupported)
    }

    fn discard(&mut self, _socket: SocketId, _count: usize) -> Result<(), Failure> {
        Err(Failure::Unsupported)
    }

    fn finish(&mut self, _socket: SocketId) -> Result<(), Failure> {
        Err(Failure::Unsupported)
    }

    fn reset(&mut self, _socket: SocketId) {}

    fn close(&mut self, _socket: SocketId) {}

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
