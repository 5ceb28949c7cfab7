//! A connection of the gateway to a name server on one of its networks: one question, one reply.
//!
//! As for the connections that come to the gateway, each has a TCP/IP stack of its own, of one address and one socket, and speaks
//! to one hardware address behind one port.

use std::net::{IpAddr, SocketAddr};

use portolan_nat::sockets::host::Failure;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::datapath::Totals;
use crate::gateway::dns_tcp::{Link, PREFIX_LEN, Wire, framed_len, instant, point};
use crate::ids::Time;
use crate::turn::Turn;

use super::RETRY;

/// Segments that wait to be looked at.
const WAITING_MAX: usize = 64;

/// Bytes that a server may send before they are taken: the largest window that needs no scale (RFC 7323). With one, the stack
/// takes the window of a SYN for scaled, which never is, and more for promised than it has room for. The reply is taken out as
/// it comes, so that it may be longer.
const WINDOW: usize = 65_535;

/// A connection, and what goes over it.
pub(super) struct Caller {
    link: Link,
    stack: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    waiting: Vec<Vec<u8>>,
    /// What of the question has not reached the socket, its length first.
    query: Vec<u8>,
    /// What has come of the reply, its length first.
    reply: Vec<u8>,
    /// When it wants to be looked at.
    pub(super) due: Option<Time>,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("link", &self.link).field("due", &self.due).finish()
    }
}

impl Caller {
    /// Begins a connection from `own` to `server`, to ask `query` there. None where that cannot be.
    pub(super) fn new(
        link: Link,
        own: (IpAddr, u16),
        server: SocketAddr,
        query: Vec<u8>,
        turn: &mut Turn<'_, '_>,
        now: Time,
    ) -> Option<Caller> {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = turn.random.next_u64();
        let mut nothing = Totals::default();
        let mut wire = Wire::new(link, None, turn, &mut nothing);
        let mut stack = Interface::new(config, &mut wire, instant(now));
        stack.update_ip_addrs(|addresses| {
            // Whoever it speaks to is behind the one port: to the stack, everybody is on the link.
            let _ = addresses.push(IpCidr::new(own.0.into(), 0));
        });
        let receive = tcp::SocketBuffer::new(vec![0; WINDOW]);
        let send = tcp::SocketBuffer::new(vec![0; query.len()]);
        let mut socket = tcp::Socket::new(receive, send);
        socket.set_nagle_enabled(false);
        socket.connect(stack.context(), (server.ip(), server.port()), own).ok()?;
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        let (waiting, reply) = (Vec::new(), Vec::new());
        Some(Caller { link, stack, sockets, socket, waiting, query, reply, due: Some(now) })
    }

    /// Takes a segment, to be looked at when the batch is through.
    pub(super) fn push(&mut self, packet: Vec<u8>) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(packet);
        }
    }

    /// Goes on as far as it can; the reply once it is whole.
    pub(super) fn proceed(
        &mut self,
        turn: &mut Turn<'_, '_>,
        totals: &mut Totals,
        now: Time,
    ) -> Result<Option<Vec<u8>>, Failure> {
        for packet in std::mem::take(&mut self.waiting) {
            self.poll(Some(packet), turn, totals, now);
            if let Some(reply) = self.serve() {
                return Ok(Some(reply));
            }
        }
        self.poll(None, turn, totals, now);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        if !self.query.is_empty() && socket.can_send() {
            let sent = socket.send_slice(&self.query).unwrap_or(0);
            self.query.drain(..sent);
            self.poll(None, turn, totals, now);
        }
        if let Some(reply) = self.serve() {
            return Ok(Some(reply));
        }
        let socket = self.sockets.get::<tcp::Socket<'_>>(self.socket);
        if matches!(socket.state(), tcp::State::Closed | tcp::State::CloseWait) {
            return Err(Failure::Reset);
        }
        let next = self.stack.poll_at(instant(now), &self.sockets);
        self.due = next.map(|at| point(at).max(now + RETRY));
        Ok(None)
    }

    /// Ends the connection, and tells the server.
    pub(super) fn hang_up(&mut self, turn: &mut Turn<'_, '_>, totals: &mut Totals, now: Time) {
        self.sockets.get_mut::<tcp::Socket<'_>>(self.socket).abort();
        self.poll(None, turn, totals, now);
    }

    fn poll(
        &mut self,
        packet: Option<Vec<u8>>,
        turn: &mut Turn<'_, '_>,
        totals: &mut Totals,
        now: Time,
    ) -> PollResult {
        let mut wire = Wire::new(self.link, packet, turn, totals);
        self.stack.poll(instant(now), &mut wire, &mut self.sockets)
    }

    /// Takes what has come from the socket.
    fn serve(&mut self) -> Option<Vec<u8>> {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        loop {
            let wanted = framed_len(&self.reply);
            let held = self.reply.len();
            if held >= PREFIX_LEN && held == wanted {
                return Some(self.reply.split_off(PREFIX_LEN));
            }
            self.reply.resize(wanted, 0);
            let read = socket.recv_slice(&mut self.reply[held..]).unwrap_or(0);
            self.reply.truncate(held + read);
            if read == 0 {
                return None;
            }
        }
    }
}
