//! The host's sockets, by system calls.
//!
//! Every socket is registered, edge-triggered, with the loop's poll, under a token that bears its id (`token`). What the
//! loop is told of it is gathered here until the socket's turn has come (`next`), in the order in which they
//! became ready. An id is never given out twice: it has the place of the socket, and a number that only grows.
//!
//! Connections are watched for writability too. Datagram sockets are not: each datagram that leaves would be told, and
//! nobody waits for it, since what finds no room is lost.
//!
//! A connection that is closed with its process is reset, so that its peer does not take what it got for all there was. Only
//! where the inside has said all there was to say does it end in order, whatever becomes of the process; but the kernel resets
//! what is closed with bytes unread.

mod address;
mod control;
mod datagram;
mod failure;
mod features;
mod tcp;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use libc::c_int;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use portolan_nat::sockets::host::{
    Accepted, Complaint, Failure, Host, Incoming, Outgoing, Ready, SendRoom, SocketId,
};

use super::options::{get_option, set_option};
use address::Name;
use datagram::{Carries, Datagrams};
pub use features::Features;
use tcp::Peeking;

/// What marks the token of a socket apart from a port's.
const SOCKET: usize = 1 << 63;

/// Bits of an id that say where the socket stands; the others are its number.
const PLACE_BITS: u32 = 20;

/// Where bytes are put that nobody wants to see.
const NOWHERE_BYTES: usize = 64 * 1024;

const _: () = assert!(usize::BITS == 64, "a token bears a whole id");

/// The token under which a socket is registered.
fn token(id: SocketId) -> Token {
    Token(SOCKET | id.0 as usize)
}

/// Whose token that is, where it is a socket's.
pub(super) fn socket_of(token: Token) -> Option<SocketId> {
    (token.0 & SOCKET != 0).then_some(SocketId((token.0 & !SOCKET) as u64))
}

/// A fresh descriptor, or why there is none.
fn own(fd: c_int) -> Result<OwnedFd, Failure> {
    if fd < 0 {
        return Err(failure::last());
    }
    // SAFETY: the caller has just got it from the kernel, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A new socket, not blocking.
fn open(family: c_int, kind: c_int, protocol: c_int) -> Result<OwnedFd, Failure> {
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes no pointers.
    own(unsafe { libc::socket(family, kind, protocol) })
}

fn family(ipv6: bool) -> c_int {
    if ipv6 { libc::AF_INET6 } else { libc::AF_INET }
}

/// What a socket is, and what is remembered of it.
#[derive(Debug)]
enum Kind {
    Connection(Peeking),
    Listener,
    Datagrams(Datagrams),
}

/// One socket.
#[derive(Debug)]
struct Slot {
    id: SocketId,
    socket: OwnedFd,
    kind: Kind,
    /// What has been told of it since its last turn.
    news: Ready,
    /// In the list of those that have news.
    waits: bool,
    /// A connection that is reset when its descriptor is closed.
    abrupt: bool,
}

impl Slot {
    /// Has what was sent delivered even if the descriptor is closed meanwhile.
    fn end_in_order(&mut self) {
        if self.abrupt {
            self.abrupt = tcp::end_abruptly(self.socket.as_fd(), false).is_err();
        }
    }
}

/// All open sockets.
#[derive(Debug)]
pub(super) struct HostSockets {
    registry: Registry,
    features: Features,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// The number of the latest id.
    number: u64,
    /// Those that have news; some of them may be closed.
    waiting: VecDeque<SocketId>,
    nowhere: Box<[u8]>,
    /// A descriptor to give up when there are no others, so that who waits at a listener can be sent away.
    spare: Option<OwnedFd>,
}

impl HostSockets {
    /// Without sockets. They will be registered with `registry`.
    pub fn new(registry: Registry, features: Features) -> HostSockets {
        let nowhere = if features.peek_off { 0 } else { NOWHERE_BYTES };
        HostSockets {
            registry,
            features,
            slots: Vec::new(),
            free: Vec::new(),
            number: 0,
            waiting: VecDeque::new(),
            nowhere: vec![0; nowhere].into_boxed_slice(),
            spare: spare(),
        }
    }

    /// Takes over a socket that somebody else has bound: a listener of TCP, or one of UDP. Errors are the kernel's.
    pub fn adopt(&mut self, socket: OwnedFd) -> io::Result<SocketId> {
        let option = |name| get_option::<c_int>(socket.as_fd(), libc::SOL_SOCKET, name);
        let kind = match option(libc::SO_TYPE)? {
            libc::SOCK_STREAM => {
                tcp::prepare(socket.as_fd())?;
                Kind::Listener
            }
            libc::SOCK_DGRAM => {
                let ipv6 = option(libc::SO_DOMAIN)? == libc::AF_INET6;
                Kind::Datagrams(Datagrams::prepare(&socket, ipv6, Carries::Udp, &self.features)?)
            }
            _ => return Err(io::Error::from_raw_os_error(libc::ESOCKTNOSUPPORT)),
        };
        self.enter(socket, kind)
    }

    /// Gathers what has been told of a socket. It may be closed by now.
    pub fn tell(&mut self, id: SocketId, ready: Ready) {
        let Some(slot) = slot(&mut self.slots, id) else { return };
        slot.news.readable |= ready.readable;
        slot.news.writable |= ready.writable;
        slot.news.error |= ready.error;
        if !slot.waits {
            slot.waits = true;
            self.waiting.push_back(id);
        }
    }

    /// The socket whose turn it is, and its news.
    pub fn next(&mut self) -> Option<(SocketId, Ready)> {
        loop {
            let id = self.waiting.pop_front()?;
            if let Some(slot) = slot(&mut self.slots, id) {
                slot.waits = false;
                return Some((id, std::mem::take(&mut slot.news)));
            }
        }
    }

    /// How many may have news.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Gives a socket its place and its id, and has it watched.
    fn enter(&mut self, socket: OwnedFd, kind: Kind) -> io::Result<SocketId> {
        let place = self.free.last().copied().unwrap_or(self.slots.len());
        if place >> PLACE_BITS != 0 {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let id = SocketId((self.number + 1) << PLACE_BITS | place as u64);
        let interest = match kind {
            Kind::Connection(_) => Interest::READABLE | Interest::WRITABLE,
            Kind::Listener | Kind::Datagrams(_) => Interest::READABLE,
        };
        self.registry.register(&mut SourceFd(&socket.as_raw_fd()), token(id), interest)?;
        self.number += 1;
        let abrupt = matches!(kind, Kind::Connection(_));
        let slot = Slot { id, socket, kind, news: Ready::default(), waits: false, abrupt };
        if self.free.pop().is_some() {
            self.slots[place] = Some(slot);
        } else {
            self.slots.push(Some(slot));
        }
        Ok(id)
    }

    /// As [`HostSockets::enter`], a connection.
    fn enter_connection(&mut self, socket: OwnedFd) -> Result<SocketId, Failure> {
        let peeking = match self.features.peek_off {
            true => Peeking::Offset(None),
            false => Peeking::FromStart,
        };
        self.enter(socket, Kind::Connection(peeking)).map_err(|error| failure::of(&error))
    }

    /// As [`HostSockets::enter`], a new socket for datagrams.
    fn enter_datagrams(
        &mut self,
        socket: OwnedFd,
        ipv6: bool,
        carries: Carries,
    ) -> Result<SocketId, Failure> {
        let only = if ipv6 {
            set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1)
        } else {
            Ok(())
        };
        only.and_then(|()| Datagrams::prepare(&socket, ipv6, carries, &self.features))
            .and_then(|datagrams| self.enter(socket, Kind::Datagrams(datagrams)))
            .map_err(|error| failure::of(&error))
    }

    /// Takes a socket out; it is closed when it is dropped.
    fn leave(&mut self, id: SocketId) -> Option<Slot> {
        slot(&mut self.slots, id)?;
        let place = place(id);
        let slot = self.slots[place].take()?;
        self.free.push(place);
        // A keeper may hold a copy of what it was that adopted, so closing that would not end the watch; of a connection there is one
        // descriptor, and closing it does. Fails only for what is not watched.
        if !matches!(slot.kind, Kind::Connection(_)) {
            let _ = self.registry.deregister(&mut SourceFd(&slot.socket.as_raw_fd()));
        }
        Some(slot)
    }

    fn listener(&mut self, id: SocketId) -> Result<&OwnedFd, Failure> {
        match slot(&mut self.slots, id) {
            Some(Slot { socket, kind: Kind::Listener, .. }) => Ok(socket),
            _ => Err(Failure::Other(libc::EBADF)),
        }
    }

    fn connection(&mut self, id: SocketId) -> Result<(&OwnedFd, &mut Peeking), Failure> {
        match slot(&mut self.slots, id) {
            Some(Slot { socket, kind: Kind::Connection(peeking), .. }) => Ok((socket, peeking)),
            _ => Err(Failure::Other(libc::EBADF)),
        }
    }

    fn datagram_socket(&mut self, id: SocketId) -> Result<(&OwnedFd, &mut Datagrams), Failure> {
        match slot(&mut self.slots, id) {
            Some(Slot { socket, kind: Kind::Datagrams(datagrams), .. }) => Ok((socket, datagrams)),
            _ => Err(Failure::Other(libc::EBADF)),
        }
    }

    /// Sends away who waits at a listener for whom there is no descriptor: left waiting, he would be told of no more, and
    /// his like would fill the queue. What the failure is then: that nobody waits cannot be seen without a descriptor.
    fn turn_away(&mut self, listener: SocketId) -> Failure {
        self.spare = None;
        let taken = self.listener(listener).and_then(|listener| tcp::accept(listener.as_fd()));
        let failure = match taken {
            Ok((socket, _)) => {
                // If this failed, he would see an ordinary end.
                let _ = tcp::end_abruptly(socket.as_fd(), true);
                Failure::TooManyFiles
            }
            Err(failure) => failure,
        };
        self.spare = spare();
        failure
    }
}

/// A descriptor that serves for nothing else.
fn spare() -> Option<OwnedFd> {
    UnixDatagram::unbound().ok().map(OwnedFd::from)
}

/// Where the socket of an id stands, or stood.
fn place(id: SocketId) -> usize {
    (id.0 & ((1 << PLACE_BITS) - 1)) as usize
}

fn slot(slots: &mut [Option<Slot>], id: SocketId) -> Option<&mut Slot> {
    slots.get_mut(place(id))?.as_mut().filter(|slot| slot.id == id)
}

impl Host for HostSockets {
    fn connect(&mut self, to: SocketAddr) -> Result<SocketId, Failure> {
        if to.is_ipv6() && !self.features.ipv6 {
            return Err(Failure::Unsupported);
        }
        let socket = open(family(to.is_ipv6()), libc::SOCK_STREAM, 0)?;
        tcp::prepare(socket.as_fd()).map_err(|error| failure::of(&error))?;
        tcp::connect(socket.as_fd(), Name::of(to, to.is_ipv6()))?;
        // Not before: a socket that is neither open nor opening counts as ended, and would be told as such.
        self.enter_connection(socket)
    }

    fn connected(&mut self, socket: SocketId) -> Result<(), Failure> {
        tcp::connected(self.connection(socket)?.0.as_fd())
    }

    fn accept(&mut self, listener: SocketId) -> Result<Accepted, Failure> {
        let (socket, peer) = match tcp::accept(self.listener(listener)?.as_fd()) {
            Err(Failure::TooManyFiles) => return Err(self.turn_away(listener)),
            other => other?,
        };
        let peer = peer.read().ok_or(Failure::Other(libc::EAFNOSUPPORT))?;
        Ok(Accepted { socket: self.enter_connection(socket)?, peer })
    }

    fn send(&mut self, socket: SocketId, parts: &[&[u8]]) -> Result<usize, Failure> {
        tcp::send(self.connection(socket)?.0.as_fd(), parts)
    }

    fn send_room(&mut self, socket: SocketId) -> SendRoom {
        self.connection(socket)
            .map(|(socket, _)| tcp::send_room(socket.as_fd()))
            .unwrap_or_default()
    }

    fn peek(&mut self, socket: SocketId, skip: usize, room: &mut [u8]) -> Result<usize, Failure> {
        let mut nowhere = std::mem::take(&mut self.nowhere);
        let peeked = self.connection(socket).and_then(|(socket, peeking)| {
            tcp::peek(socket.as_fd(), peeking, skip, room, &mut nowhere)
        });
        self.nowhere = nowhere;
        peeked
    }

    fn discard(&mut self, socket: SocketId, count: usize) -> Result<(), Failure> {
        let (socket, peeking) = self.connection(socket)?;
        tcp::discard(socket.as_fd(), peeking, count)
    }

    fn finish(&mut self, socket: SocketId) -> Result<(), Failure> {
        match slot(&mut self.slots, socket) {
            Some(slot @ Slot { kind: Kind::Connection(_), .. }) => {
                slot.end_in_order();
                tcp::finish(slot.socket.as_fd())
            }
            _ => Err(Failure::Other(libc::EBADF)),
        }
    }

    fn reset(&mut self, socket: SocketId) {
        if let Some(slot) = self.leave(socket) {
            // If this failed, the peer would see an ordinary end.
            let _ = tcp::end_abruptly(slot.socket.as_fd(), true);
        }
    }

    fn close(&mut self, socket: SocketId) {
        if let Some(mut slot) = self.leave(socket) {
            slot.end_in_order();
        }
    }

    fn datagrams(&mut self, ipv6: bool) -> Result<SocketId, Failure> {
        if ipv6 && !self.features.ipv6 {
            return Err(Failure::Unsupported);
        }
        let socket = open(family(ipv6), libc::SOCK_DGRAM, 0)?;
        self.enter_datagrams(socket, ipv6, Carries::Udp)
    }

    fn pings(&mut self, ipv6: bool) -> Result<SocketId, Failure> {
        let allowed = if ipv6 { self.features.ping_v6 } else { self.features.ping_v4 };
        if !allowed {
            return Err(Failure::Forbidden);
        }
        let protocol = if ipv6 { libc::IPPROTO_ICMPV6 } else { libc::IPPROTO_ICMP };
        let socket = open(family(ipv6), libc::SOCK_DGRAM, protocol)?;
        self.enter_datagrams(socket, ipv6, Carries::Echo)
    }

    fn send_to(
        &mut self,
        socket: SocketId,
        outgoing: &Outgoing,
        payload: &[u8],
    ) -> Result<(), Failure> {
        let (descriptor, datagrams) = self.datagram_socket(socket)?;
        let sent = datagrams.send(descriptor.as_fd(), outgoing, payload);
        if datagrams.has_complaints() {
            self.tell(socket, Ready { error: true, ..Ready::default() });
        }
        sent
    }

    fn receive_from(&mut self, socket: SocketId, room: &mut [u8]) -> Result<Incoming, Failure> {
        let (descriptor, datagrams) = self.datagram_socket(socket)?;
        let received = datagrams.receive(descriptor.as_fd(), room);
        if datagrams.has_complaints() {
            self.tell(socket, Ready { error: true, ..Ready::default() });
        }
        received
    }

    fn complaint(&mut self, socket: SocketId) -> Option<Complaint> {
        let (socket, datagrams) = self.datagram_socket(socket).ok()?;
        datagrams.complaint(socket.as_fd())
    }
}
