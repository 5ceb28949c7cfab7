//! Sockets for datagrams and echo requests.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use portolan_nat::sockets::host::{Complaint, Failure, Incoming, Outgoing, QUOTE_MAX, Ready};

/// Datagrams that may wait to be read.
const WAITING_MAX: usize = 256;

/// What a datagram socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Any datagrams.
    Udp,
    /// Echo requests.
    Ping,
}

/// A datagram, or a train, on its way to a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Arrived {
    pub(super) from: SocketAddr,
    pub(super) to: IpAddr,
    pub(super) segment: Option<u16>,
    pub(super) payload: Vec<u8>,
}

/// A socket without connections.
#[derive(Debug)]
pub(super) struct Datagrams {
    pub(super) kind: Kind,
    pub(super) ipv6: bool,
    /// Port, or the id of its echo requests.
    pub(super) port: u16,
    pub(super) waiting: VecDeque<Arrived>,
    pub(super) complaints: VecDeque<Complaint>,
}

impl Datagrams {
    pub(super) fn new(kind: Kind, ipv6: bool, port: u16) -> Datagrams {
        Datagrams { kind, ipv6, port, waiting: VecDeque::new(), complaints: VecDeque::new() }
    }

    pub(super) fn ready(&self) -> Ready {
        let error = !self.complaints.is_empty();
        Ready { readable: !self.waiting.is_empty() || error, writable: true, error }
    }

    pub(super) fn arrive(&mut self, arrived: Arrived) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(arrived);
        }
    }

    pub(super) fn complain(&mut self, complaint: Complaint) {
        if self.complaints.len() < WAITING_MAX {
            self.complaints.push_back(complaint);
        }
    }

    pub(super) fn receive(&mut self, room: &mut [u8]) -> Result<Incoming, Failure> {
        let Arrived { from, to, segment, payload } =
            self.waiting.pop_front().ok_or(Failure::WouldBlock)?;
        let len = payload.len().min(room.len());
        room[..len].copy_from_slice(&payload[..len]);
        let (hop_limit, traffic_class) = (Some(61), 0);
        let truncated = len < payload.len();
        Ok(Incoming { from, to, len, hop_limit, traffic_class, segment, truncated })
    }

    /// Whether the kernel would take this to be sent.
    pub(super) fn takes(&self, outgoing: &Outgoing, payload: &[u8]) -> Result<(), Failure> {
        let max = if self.ipv6 { 65_527 } else { 65_507 };
        let request = if self.ipv6 { 128 } else { 8 };
        if outgoing.to.is_ipv6() != self.ipv6 {
            return Err(Failure::Unsupported);
        }
        if self.kind == Kind::Ping && (payload.len() < 8 || payload[..2] != [request, 0]) {
            return Err(Failure::Other(22));
        }
        match outgoing.segment {
            Some(0) => Err(Failure::Other(22)),
            Some(size) if payload.len().div_ceil(usize::from(size)) > 64 => Err(Failure::Other(22)),
            _ if payload.len() > max => Err(Failure::TooBig),
            _ => Ok(()),
        }
    }
}

/// What a router or a destination has to say about a datagram.
pub(super) fn complaint(
    to: SocketAddr,
    from: Option<IpAddr>,
    (kind, mtu): ((u8, u8), u32),
    payload: &[u8],
) -> Complaint {
    let quote = payload.iter().copied().take(QUOTE_MAX).collect();
    Complaint { to, from, kind, mtu, quote }
}
