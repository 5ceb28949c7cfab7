//! A plain, blocking rtnetlink socket: one request, one answer.
//!
//! The socket belongs to the network namespace of the thread that opened it, for ever; that is how one process configures
//! two namespaces.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// RTMGRP_LINK, as a mask: link events.
const GROUP_LINK: u32 = 1;

/// How long an answer of the kernel may take, in seconds; it holds a lock that others take too.
const ANSWER_SECONDS_MAX: i64 = 8;

/// Bytes of a netlink header (RFC 3549, 2.3.2).
const HEADER_BYTES: usize = 16;

/// The type of a message that ends a request, with its error number (0: done).
const TYPE_ERROR: u16 = 2;

/// RTM_NEWLINK (rtnetlink(7)), its fixed part, the attribute IFLA_STATS64 and where in that `tx_dropped` lies (struct
/// rtnl_link_stats64 in linux/if_link.h).
const TYPE_NEW_LINK: u16 = 16;
const LINK_HEADER_BYTES: usize = 16;
const STATISTICS: u16 = 23;
const TX_DROPPED_AT: usize = 7 * 8;

/// An rtnetlink socket in the network namespace where it was opened.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one in the network namespace of this thread.
    pub fn open() -> io::Result<Netlink> {
        let socket = raw(SockFlag::empty())?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS_MAX, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends a request with `flags` (besides REQUEST and ACK) and waits until it is done. What the kernel answers before
    /// its acknowledgement is given back, without its header; the error is the kernel's.
    pub fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<Vec<u8>>> {
        self.sequence += 1;
        let bytes = encode(message, NLM_F_ACK | flags, self.sequence);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        self.answer()
    }

    fn answer(&self) -> io::Result<Option<Vec<u8>>> {
        let mut answer = None;
        let mut bytes = vec![0; 32 * 1024];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
            let mut rest = &bytes[..length];
            while let Some((kind, sequence, payload, next)) = split(rest) {
                rest = next;
                if sequence != self.sequence {
                    continue;
                }
                if kind != TYPE_ERROR {
                    answer.get_or_insert_with(|| payload.to_vec());
                    continue;
                }
                let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return if code == 0 {
                    Ok(answer)
                } else {
                    Err(io::Error::from_raw_os_error(-code))
                };
            }
        }
    }
}

/// A non-blocking rtnetlink socket in the network namespace of this thread, subscribed to link events.
pub fn link_events() -> io::Result<OwnedFd> {
    let socket = raw(SockFlag::SOCK_NONBLOCK)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP_LINK))?;
    Ok(socket)
}

fn raw(flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?)
}

/// The first message of `bytes`: type, sequence number, payload, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let sequence = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
    let payload = bytes.get(HEADER_BYTES..length)?;
    Some((kind, sequence, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or(&[])))
}

/// Asks for the state of an interface through a socket whose answers somebody else reads: [`tx_dropped`] finds its figure there.
pub fn ask_for_link(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    let bytes = encode(RouteNetlinkMessage::GetLink(link), 0, 0);
    send(socket.as_raw_fd(), &bytes, MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// How many frames the kernel dropped behind an interface, where `bytes`, as they were read from a socket, tell of it. Of the
/// outer end of a veth pair these are the frames for which the inner end's backlog had no room.
pub fn tx_dropped(bytes: &[u8], index: u32) -> Option<u64> {
    let (mut rest, mut found) = (bytes, None);
    while let Some((kind, _, payload, next)) = split(rest) {
        rest = next;
        let of = payload.get(4..8).and_then(|index| index.first_chunk());
        if kind == TYPE_NEW_LINK && of.map(|of| u32::from_ne_bytes(*of)) == Some(index) {
            found = attribute(payload.get(LINK_HEADER_BYTES..)?, STATISTICS)
                .and_then(|counts| counts.get(TX_DROPPED_AT..)?.first_chunk())
                .map(|count| u64::from_ne_bytes(*count))
                .or(found);
        }
    }
    found
}

/// The value of the attribute of this type (netlink(7): length, type, value, each at a multiple of four bytes).
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

/// Deletes an interface through a socket whose answers somebody else reads, so that none is asked for. The kernel does it
/// within the call: when this returns, the interface and its peer are gone, or were before. It lies in the socket's own
/// namespace, or in the one that has this number there.
pub fn delete_link_unanswered(
    socket: BorrowedFd<'_>,
    index: u32,
    namespace: Option<i32>,
) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.extend(namespace.map(LinkAttribute::IfNetnsId));
    let bytes = encode(RouteNetlinkMessage::DelLink(link), 0, 0);
    send(socket.as_raw_fd(), &bytes, MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// One request as it goes to the kernel.
fn encode(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of this type with an interface's fixed part and these attributes.
    fn message(kind: u16, index: u32, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut payload = vec![0; LINK_HEADER_BYTES];
        payload[4..8].copy_from_slice(&index.to_ne_bytes());
        for (kind, value) in attributes {
            payload.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(value);
            payload.resize(payload.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(HEADER_BYTES + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn what_was_dropped_behind_an_interface_is_found_among_messages() {
        let counts = |dropped: u64| {
            (0..24u64).flat_map(|at| if at == 7 { dropped } else { at }.to_ne_bytes()).collect()
        };
        let name = (3, b"p1\0".to_vec());
        let of = |kind, index, dropped| {
            message(kind, index, &[name.clone(), (STATISTICS, counts(dropped))])
        };
        let mut bytes = of(TYPE_NEW_LINK, 5, 41);
        bytes.extend(of(17, 7, 9));
        assert_eq!(tx_dropped(&bytes, 7), None, "of another interface, or of its end");
        bytes.extend(of(TYPE_NEW_LINK, 7, 42));
        bytes.extend(message(TYPE_NEW_LINK, 7, std::slice::from_ref(&name)));
        assert_eq!(tx_dropped(&bytes, 7), Some(42));
        for length in 0..bytes.len() {
            assert!(matches!(tx_dropped(&bytes[..length], 7), None | Some(42)), "{length}");
        }
    }
}
