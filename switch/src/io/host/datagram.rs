//! Sockets for datagrams and echo requests: what each call does with one.
//!
//! ICMP errors that come back for a datagram lie in the socket's error queue, and besides fail the next call on the socket once,
//! whomever that is about. So when a call fails with what may be somebody else's error, the queue is emptied into a short
//! list kept here ([`Datagrams::complaint`] takes from it first) and the call made again. What is too big for our own link
//! is told at once, by the call's own error; the kernel puts that in the queue as well, and here it becomes a complaint that
//! names the datagram.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;
use libc::c_int;
use portolan_nat::packet::bytes_at;
use portolan_nat::sockets::host::{Complaint, Failure, Incoming, Outgoing, QUOTE_MAX};

use super::address::{Name, read};
use super::control::Control;
use super::failure::last;
use super::features::Features;
use super::tcp::{lend, message, take};
use crate::io::options::set_option;

/// Complaints kept for one socket; more push out the oldest.
const COMPLAINTS_MAX: usize = 16;

/// How often a call that fails with others' errors is made in all.
const TRIES: usize = 3;

/// Datagrams of one train: what every kernel that knows trains takes.
const TRAIN_MAX: usize = 64;

/// Payload bytes of one train, with room for the headers of the IP packet it is made as.
const TRAIN_BYTES: usize = 65_000;

/// Not in libc: sock_extended_err's origins (linux/errqueue.h).
const ORIGIN_LOCAL: u8 = 1;
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// Bytes of a sock_extended_err, behind which the address of the one who complains stands.
const EXTENDED_ERR: usize = 16;

/// What such a socket carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Carries {
    /// UDP datagrams.
    Udp,
    /// ICMP echo.
    Echo,
}

/// A socket for datagrams.
#[derive(Debug)]
pub(super) struct Datagrams {
    ipv6: bool,
    /// Sends trains by one call.
    trains: bool,
    /// How IP(V6)_MTU_DISCOVER stands; none before the first send.
    probes: Option<bool>,
    complaints: VecDeque<Complaint>,
}

/// One entry of the error queue.
pub(super) struct Trouble {
    complaint: Complaint,
    origin: u8,
}

impl Datagrams {
    /// Sets what a socket of that family needs, so that what comes tells all about itself.
    pub fn prepare(
        socket: &OwnedFd,
        ipv6: bool,
        carries: Carries,
        features: &Features,
    ) -> io::Result<Datagrams> {
        let set = |level, option| set_option(socket.as_fd(), level, option, &1);
        if ipv6 {
            for option in [
                libc::IPV6_RECVERR,
                libc::IPV6_RECVPKTINFO,
                libc::IPV6_RECVHOPLIMIT,
                libc::IPV6_RECVTCLASS,
            ] {
                set(libc::IPPROTO_IPV6, option)?;
            }
        } else {
            for option in [libc::IP_RECVERR, libc::IP_PKTINFO, libc::IP_RECVTTL, libc::IP_RECVTOS] {
                set(libc::IPPROTO_IP, option)?;
            }
        }
        let udp = carries == Carries::Udp;
        if udp && features.udp_gro {
            set(libc::SOL_UDP, libc::UDP_GRO)?;
        }
        let trains = udp && features.udp_gso;
        Ok(Datagrams { ipv6, trains, probes: None, complaints: VecDeque::new() })
    }

    /// Whether complaints wait that no event of the socket will tell of.
    pub fn has_complaints(&self) -> bool {
        !self.complaints.is_empty()
    }

    /// Sends one datagram, or a train of them.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        outgoing: &Outgoing,
        payload: &[u8],
    ) -> Result<(), Failure> {
        self.set_probing(socket, outgoing.dont_fragment)?;
        let Some(size) =
            outgoing.segment.map(usize::from).filter(|s| (1..payload.len()).contains(s))
        else {
            return self.send_one(socket, outgoing, payload, None);
        };
        let count = if self.trains { (TRAIN_BYTES / size).clamp(1, TRAIN_MAX) } else { 1 };
        for train in payload.chunks(size * count) {
            self.send_train(socket, outgoing, train, size)?;
        }
        Ok(())
    }

    /// Sends what one call can carry, or one by one what it does not.
    fn send_train(
        &mut self,
        socket: BorrowedFd<'_>,
        outgoing: &Outgoing,
        train: &[u8],
        size: usize,
    ) -> Result<(), Failure> {
        if train.len() > size {
            match send_message(socket, self.ipv6, outgoing, train, u16::try_from(size).ok()) {
                Ok(()) => return Ok(()),
                Err(Failure::WouldBlock) => return Err(Failure::WouldBlock),
                // The way, or the kernel, does not take them together; or it was somebody else's error.
                Err(_) => {}
            }
        }
        for datagram in train.chunks(size) {
            self.send_one(socket, outgoing, datagram, None)?;
        }
        Ok(())
    }

    /// Sends one message, again where the error was another's.
    fn send_one(
        &mut self,
        socket: BorrowedFd<'_>,
        outgoing: &Outgoing,
        payload: &[u8],
        segment: Option<u16>,
    ) -> Result<(), Failure> {
        let mut tries = 1;
        loop {
            let failed = match send_message(socket, self.ipv6, outgoing, payload, segment) {
                Ok(()) => return Ok(()),
                Err(failed @ (Failure::WouldBlock | Failure::NoBuffers)) => return Err(failed),
                Err(failed) => failed,
            };
            let own = self.drain(socket);
            if let Some(own) = own.filter(|_| failed == Failure::TooBig) {
                let quote = payload.iter().copied().take(QUOTE_MAX).collect();
                self.keep(Complaint { to: outgoing.to, from: None, quote, ..own });
                return Err(failed);
            }
            if tries == TRIES {
                return Err(failed);
            }
            tries += 1;
        }
    }

    /// Takes one datagram, or a train.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        room: &mut [u8],
    ) -> Result<Incoming, Failure> {
        let mut tries = 1;
        loop {
            match receive_message(socket, room) {
                Err(failed) if failed != Failure::WouldBlock && tries < TRIES => {
                    self.drain(socket);
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Takes the oldest complaint.
    pub fn complaint(&mut self, socket: BorrowedFd<'_>) -> Option<Complaint> {
        if let Some(oldest) = self.complaints.pop_front() {
            return Some(oldest);
        }
        loop {
            match next_trouble(socket) {
                Err(_) => return None,
                // One of our own has been told by the call that met it.
                Ok(Some(trouble)) if trouble.origin != ORIGIN_LOCAL => {
                    return Some(trouble.complaint);
                }
                Ok(_) => {}
            }
        }
    }

    /// Empties the error queue, keeps the complaints of others, and returns the latest of our own.
    fn drain(&mut self, socket: BorrowedFd<'_>) -> Option<Complaint> {
        let mut own = None;
        for _ in 0..COMPLAINTS_MAX {
            match next_trouble(socket) {
                Err(_) => break,
                Ok(None) => {}
                Ok(Some(trouble)) if trouble.origin == ORIGIN_LOCAL => {
                    own = Some(trouble.complaint)
                }
                Ok(Some(trouble)) => self.keep(trouble.complaint),
            }
        }
        own
    }

    fn keep(&mut self, complaint: Complaint) {
        if self.complaints.len() == COMPLAINTS_MAX {
            self.complaints.pop_front();
        }
        self.complaints.push_back(complaint);
    }

    /// Sets whether what is sent may be fragmented. Where it may not, it is sent as large as our own link takes, whatever is
    /// known of the way: a router that finds it too big says so, and the guest is told.
    fn set_probing(&mut self, socket: BorrowedFd<'_>, probe: bool) -> Result<(), Failure> {
        if self.probes == Some(probe) {
            return Ok(());
        }
        let how = if probe { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_DONT };
        // The two families' values are the same. A socket of IPv6 has both, for mapped addresses.
        set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &how)
            .or_else(|error| if self.ipv6 { Ok(()) } else { Err(error) })
            .and_then(|()| match self.ipv6 {
                true => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &how),
                false => Ok(()),
            })
            .map_err(|error| super::failure::of(&error))?;
        self.probes = Some(probe);
        Ok(())
    }
}

/// One sendmsg.
fn send_message(
    socket: BorrowedFd<'_>,
    ipv6_socket: bool,
    outgoing: &Outgoing,
    payload: &[u8],
    segment: Option<u16>,
) -> Result<(), Failure> {
    let mut name = Name::of(outgoing.to, ipv6_socket);
    let mut control = beside(outgoing, segment);
    let mut vectors = [lend(payload)];
    let mut message = message(&mut vectors);
    message.msg_name = name.as_ptr();
    message.msg_namelen = name.len;
    message.msg_control = control.as_ptr();
    message.msg_controllen = control.len as _;
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: all that the message points to is held across the call, which only reads it.
    match unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) } {
        -1 => Err(last()),
        _ => Ok(()),
    }
}

/// What goes beside a datagram. The family is that of its destination: an IPv4 address may be sent to by a socket of IPv6.
fn beside(outgoing: &Outgoing, segment: Option<u16>) -> Control {
    let mut control = Control::new();
    let hops = c_int::from(outgoing.hop_limit.max(1)).to_ne_bytes();
    let class = c_int::from(outgoing.traffic_class).to_ne_bytes();
    if outgoing.to.is_ipv4() {
        control.push(libc::IPPROTO_IP, libc::IP_TTL, &hops);
        control.push(libc::IPPROTO_IP, libc::IP_TOS, &class);
    } else {
        control.push(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &hops);
        control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class);
    }
    match outgoing.from {
        Some(IpAddr::V4(from)) => {
            // in_pktinfo: the device, the address to send from, the destination; only the second is ours to say.
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&from.octets());
            control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(from)) => {
            // in6_pktinfo: the address, then the device.
            let mut info = [0; 20];
            info[..16].copy_from_slice(&from.octets());
            control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if let Some(segment) = segment {
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
    }
    control
}

/// One recvmsg.
fn receive_message(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<Incoming, Failure> {
    let mut name = Name::room();
    let mut control = Control::room();
    let (len, flags) = receive_into(socket, room, &mut name, &mut control, 0)?;
    let mut incoming = Incoming {
        from: name.read().ok_or(Failure::Other(libc::EAFNOSUPPORT))?,
        to: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        len,
        hop_limit: None,
        traffic_class: 0,
        segment: None,
        truncated: flags & libc::MSG_TRUNC != 0,
    };
    for (level, kind, data) in control.messages() {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // The address of ours that an answer should come from, which the destination is not where it is a group.
                if let Some(address) = bytes_at::<4>(data, 4) {
                    incoming.to = Ipv4Addr::from(address).into();
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(address) = bytes_at::<16>(data, 0) {
                    incoming.to = Ipv6Addr::from(address).to_canonical();
                }
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                incoming.hop_limit = number(data).and_then(|hops| hops.try_into().ok());
            }
            // IPv4 tells it as one byte.
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                incoming.traffic_class = data.first().copied().unwrap_or_default();
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                incoming.traffic_class =
                    number(data).and_then(|class| class.try_into().ok()).unwrap_or_default();
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size = number(data).and_then(|size| u16::try_from(size).ok());
                incoming.segment = size.filter(|size| (1..len).contains(&usize::from(*size)));
            }
            _ => {}
        }
    }
    Ok(incoming)
}

/// Receives: bytes of payload, and the message's flags.
fn receive_into(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
    name: &mut Name,
    control: &mut Control,
    flags: c_int,
) -> Result<(usize, c_int), Failure> {
    let mut vectors = [take(room)];
    let mut message = message(&mut vectors);
    message.msg_name = name.as_ptr();
    message.msg_namelen = name.len;
    message.msg_control = control.as_ptr();
    message.msg_controllen = control.len as _;
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: all that the message points to is held across the call; any bytes are valid there.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let len = usize::try_from(len).map_err(|_| last())?;
    control.len = message.msg_controllen as _;
    Ok((len, message.msg_flags))
}

/// The oldest entry of the error queue; none where it says nothing that concerns a datagram.
fn next_trouble(socket: BorrowedFd<'_>) -> Result<Option<Trouble>, Failure> {
    let mut name = Name::room();
    let mut control = Control::room();
    let mut quote = [0; QUOTE_MAX];
    let (len, _) = receive_into(socket, &mut quote, &mut name, &mut control, libc::MSG_ERRQUEUE)?;
    let said = control.messages().find(|(level, kind, _)| {
        matches!(
            (*level, *kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        )
    });
    let Some((_, _, said)) = said else { return Ok(None) };
    let quote = quote.iter().copied().take(len).collect();
    Ok(trouble(name.read(), said, quote))
}

/// What an extended error says about a datagram to `to`.
pub(super) fn trouble(
    to: Option<SocketAddr>,
    said: &[u8],
    quote: ArrayVec<u8, QUOTE_MAX>,
) -> Option<Trouble> {
    let errno = i32::from_ne_bytes(bytes_at(said, 0)?);
    let [origin, kind, code] = bytes_at(said, 4)?;
    let info = u32::from_ne_bytes(bytes_at(said, 8)?);
    let ipv6 = match origin {
        ORIGIN_ICMP => false,
        ORIGIN_ICMP6 => true,
        ORIGIN_LOCAL => to.is_some_and(|to| to.is_ipv6()),
        _ => return None,
    };
    let too_big = if ipv6 { (2, 0) } else { (3, 4) };
    let local = origin == ORIGIN_LOCAL;
    if local && errno != libc::EMSGSIZE {
        return None;
    }
    let kind = if local { too_big } else { (kind, code) };
    let offender = said.get(EXTENDED_ERR..).and_then(read).map(|address| address.ip());
    let complaint = Complaint {
        to: to.unwrap_or(SocketAddr::from(([0; 4], 0))),
        from: offender.filter(|_| !local),
        kind,
        mtu: if kind == too_big { info } else { 0 },
        quote,
    };
    Some(Trouble { complaint, origin })
}

/// A number as the kernel tells it, host order.
fn number(data: &[u8]) -> Option<c_int> {
    bytes_at(data, 0).map(c_int::from_ne_bytes)
}
