//! The demo's programs that speak Ethernet themselves: one sends a frame, one tells which it hears, and one asks for an
//! address by DHCP (RFC 2131), as a machine does that has none. A node may open packet sockets, as any container may.

use std::fs;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use clap::{Args, Subcommand};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recv, send,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use portolan::api::client::Failure;

use super::{PATIENCE, SEND_AGAIN, now, output};

/// The type of the demo's frames: IEEE 802's first for experiments.
const EXPERIMENT: u16 = 0x88b5;

const IPV4: u16 = 0x0800;
const BROADCAST: [u8; 6] = [0xff; 6];
const HEADER: usize = 14;
const FRAME_MAX: usize = 2048;

/// What precedes the options of DHCP, the magic number included.
const FIXED: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const TRANSACTION: [u8; 4] = *b"demo";

/// Messages of DHCP.
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;

#[derive(Args, Debug)]
pub struct Frames {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Send one frame with a text
    Send {
        /// Whom to, as twelve digits
        to: String,
        text: String,
    },
    /// Tell the text of each frame that comes
    Hear,
    /// Ask for an address by DHCP, and tell it
    Lease,
}

impl Frames {
    pub fn act(self) -> Result<i32, Failure> {
        self.what.act().map_err(|error| Failure::new(format!("the wire: {error}")))?;
        Ok(0)
    }
}

impl What {
    fn act(&self) -> io::Result<()> {
        match self {
            What::Send { to, text } => {
                let wire = Wire::open(EXPERIMENT)?;
                let kind = EXPERIMENT.to_be_bytes();
                wire.send(&[&hardware(to)?[..], &wire.own, &kind, text.as_bytes()].concat())
            }
            What::Hear => {
                let wire = Wire::open(EXPERIMENT)?;
                loop {
                    if let Some(payload) = wire.hear()?.get(HEADER..) {
                        let text = String::from_utf8_lossy(payload);
                        output::line(&output::clean(text.trim_end_matches('\0')));
                    }
                }
            }
            What::Lease => {
                let wire = Wire::open(IPV4)?;
                let offered = wire.converse(DISCOVER, OFFER, None)?;
                output::line(&wire.converse(REQUEST, ACK, Some(offered))?.to_string());
                Ok(())
            }
        }
    }
}

/// The node's first interface, for frames of one type.
struct Wire {
    fd: OwnedFd,
    own: [u8; 6],
}

impl Wire {
    fn open(kind: u16) -> io::Result<Wire> {
        let own = hardware(&fs::read_to_string("/sys/class/net/eth0/address")?)?;
        // Without a protocol it hears nothing until it is bound.
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        // SAFETY: a sockaddr_ll is plain data, valid with all bytes zero.
        let mut place: libc::sockaddr_ll = unsafe { zeroed() };
        place.sll_family = libc::AF_PACKET as u16;
        place.sll_protocol = kind.to_be();
        place.sll_ifindex = if_nametoindex("eth0")?.cast_signed();
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `place` is an address of that family and size, and is copied.
        let place = unsafe { LinkAddr::from_raw((&raw const place).cast(), Some(size)) };
        bind(fd.as_raw_fd(), &place.ok_or(io::ErrorKind::InvalidInput)?)?;
        Ok(Wire { fd, own })
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(send(self.fd.as_raw_fd(), frame, MsgFlags::empty()).map(drop)?)
    }

    fn hear(&self) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; FRAME_MAX];
        let size = recv(self.fd.as_raw_fd(), &mut frame, MsgFlags::empty())?;
        frame.truncate(size);
        Ok(frame)
    }

    /// Sends a message to all servers until an answer comes that is an `answer`; the address in it.
    fn converse(&self, message: u8, answer: u8, wanted: Option<Ipv4Addr>) -> io::Result<Ipv4Addr> {
        let deadline = now() + PATIENCE;
        let frame = self.message(message, wanted)?;
        let again = TimeVal::milliseconds(i64::try_from(SEND_AGAIN.as_millis()).unwrap_or(1));
        setsockopt(&self.fd, ReceiveTimeout, &again)?;
        let mut next = now();
        while now() < deadline {
            if next.saturating_duration_since(now()) == Duration::ZERO {
                self.send(&frame)?;
                next = now() + SEND_AGAIN;
            }
            match self.hear() {
                Ok(heard) => {
                    if let Some(address) = address_of(&heard, answer) {
                        return Ok(address);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("no server of DHCP answered"))
    }

    fn message(&self, kind: u8, wanted: Option<Ipv4Addr>) -> io::Result<Vec<u8>> {
        let mut payload = vec![1, 1, 6, 0];
        payload.extend(TRANSACTION);
        // To all: it has no address yet at which it could be answered.
        payload.extend([0, 0, 0x80, 0]);
        payload.resize(28, 0);
        payload.extend(self.own);
        payload.resize(FIXED - MAGIC.len(), 0);
        payload.extend(MAGIC);
        payload.extend([53, 1, kind]);
        if let Some(address) = wanted {
            payload.extend([50, 4]);
            payload.extend(address.octets());
        }
        payload.push(255);
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(self.own, BROADCAST)
            .ipv4([0; 4], [255; 4], 64)
            .udp(68, 67)
            .write(&mut frame, &payload)
            .map_err(io::Error::other)?;
        Ok(frame)
    }
}

/// The address that a frame gives this client, where it is a server's message of that kind.
fn address_of(frame: &[u8], kind: u8) -> Option<Ipv4Addr> {
    let Some(TransportSlice::Udp(datagram)) = SlicedPacket::from_ethernet(frame).ok()?.transport
    else {
        return None;
    };
    let message = datagram.payload();
    let mut options = message.get(FIXED..)?;
    let ours = datagram.destination_port() == 68 && message.get(4..8)? == TRANSACTION;
    let address: [u8; 4] = message.get(16..20)?.try_into().ok()?;
    while let [code, size, rest @ ..] = options {
        let (value, others) = rest.split_at_checked((*size).into())?;
        if *code == 53 {
            return (ours && value == [kind]).then(|| address.into());
        }
        options = others;
    }
    None
}

/// A hardware address, as twelve digits with or without colons.
fn hardware(text: &str) -> io::Result<[u8; 6]> {
    let digits = text.trim().replace(':', "");
    let bytes = u64::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 12);
    let [_, _, address @ ..] = bytes.ok_or(io::ErrorKind::InvalidInput)?.to_be_bytes();
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_from_the_answer_that_was_waited_for() {
        let fd = io::pipe().unwrap().0.into();
        let wire = Wire { fd, own: hardware("02:00:00:00:00:01\n").unwrap() };
        let offer = |address: Ipv4Addr| {
            let mut frame = wire.message(OFFER, Some(address)).unwrap();
            frame[HEADER + 20 + 2..HEADER + 20 + 4].copy_from_slice(&68_u16.to_be_bytes());
            frame[HEADER + 28 + 16..HEADER + 28 + 20].copy_from_slice(&address.octets());
            frame
        };
        let own = Ipv4Addr::new(192, 0, 2, 7);
        assert_eq!(address_of(&offer(own), OFFER), Some(own));
        assert_eq!(address_of(&offer(own), ACK), None);
        assert_eq!(address_of(&wire.message(OFFER, Some(own)).unwrap(), OFFER), None);
        for cut in 0..HEADER + 28 + FIXED + 3 {
            assert_eq!(address_of(&offer(own)[..cut], OFFER), None);
        }
    }

    #[test]
    fn hardware_addresses_have_twelve_digits() {
        assert_eq!(hardware("0180c2000002").unwrap(), [1, 0x80, 0xc2, 0, 0, 2]);
        assert!(hardware("0180c200000").is_err() && hardware("0180c200000g").is_err());
    }
}
