//! A host and an inside for tests, which do what they are told and remember what was done to them.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::inside::{Call, Composed, Filtering, Inside, Lost, Made, Owner, Packet, PacketId, Zone};
use crate::offload::Offload;
use crate::packet::{Ip, protocol};
use crate::sockets::host::{
    Accepted, Complaint, Failure, Host, Incoming, Outgoing, SendRoom, SocketId,
};
use crate::time::Time;
use crate::write::Header;

/// A datagram that was sent by a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    pub(crate) socket: SocketId,
    pub(crate) outgoing: Outgoing,
    pub(crate) payload: Vec<u8>,
}

/// Datagram sockets by script.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    /// How many were opened.
    count: u64,
    /// Who waits at a listener, whichever it is.
    pub(crate) accepts: VecDeque<Result<Accepted, Failure>>,
    /// All connections that were reset.
    pub(crate) resets: Vec<SocketId>,
    /// What the next openings of a socket fail with.
    pub(crate) openings: VecDeque<Failure>,
    /// What the next sends fail with; none succeeds.
    pub(crate) sends: VecDeque<Option<Failure>>,
    /// What the next receptions fail with, before anything is taken.
    pub(crate) receptions: VecDeque<Failure>,
    /// All that were opened.
    pub(crate) opened: Vec<SocketId>,
    /// All that were closed.
    pub(crate) closed: Vec<SocketId>,
    /// All that was sent.
    pub(crate) sent: Vec<Sent>,
    /// What waits to be received.
    pub(crate) waiting: BTreeMap<SocketId, VecDeque<(Incoming, Vec<u8>)>>,
    /// What waits in the error queues.
    pub(crate) complaints: BTreeMap<SocketId, VecDeque<Complaint>>,
}

impl Scripted {
    fn open(&mut self) -> Result<SocketId, Failure> {
        if let Some(failure) = self.openings.pop_front() {
            return Err(failure);
        }
        let socket = SocketId(100 + self.count);
        self.count += 1;
        self.opened.push(socket);
        Ok(socket)
    }

    /// Puts a datagram where it will be received.
    pub(crate) fn arrive(&mut self, socket: SocketId, incoming: Incoming, payload: &[u8]) {
        self.waiting.entry(socket).or_default().push_back((incoming, payload.to_vec()));
    }

    /// Puts a complaint where it will be found.
    pub(crate) fn complain(&mut self, socket: SocketId, complaint: Complaint) {
        self.complaints.entry(socket).or_default().push_back(complaint);
    }

    /// How many sockets are open.
    pub(crate) fn open_count(&self) -> usize {
        self.opened.len() - self.closed.len()
    }
}

impl Host for Scripted {
    fn connect(&mut self, _to: SocketAddr) -> Result<SocketId, Failure> {
        Err(Failure::Unsupported)
    }

    fn connected(&mut self, _socket: SocketId) -> Result<(), Failure> {
        Err(Failure::Unsupported)
    }

    fn accept(&mut self, _listener: SocketId) -> Result<Accepted, Failure> {
        self.accepts.pop_front().unwrap_or(Err(Failure::WouldBlock))
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

    fn reset(&mut self, socket: SocketId) {
        self.resets.push(socket);
    }

    fn close(&mut self, socket: SocketId) {
        assert!(!self.closed.contains(&socket), "closed once");
        self.closed.push(socket);
    }

    fn datagrams(&mut self, _ipv6: bool) -> Result<SocketId, Failure> {
        self.open()
    }

    fn pings(&mut self, _ipv6: bool) -> Result<SocketId, Failure> {
        self.open()
    }

    fn send_to(
        &mut self,
        socket: SocketId,
        outgoing: &Outgoing,
        payload: &[u8],
    ) -> Result<(), Failure> {
        assert!(!self.closed.contains(&socket), "nothing is sent by a closed socket");
        if let Some(Some(failure)) = self.sends.pop_front() {
            return Err(failure);
        }
        self.sent.push(Sent { socket, outgoing: *outgoing, payload: payload.to_vec() });
        Ok(())
    }

    fn receive_from(&mut self, socket: SocketId, room: &mut [u8]) -> Result<Incoming, Failure> {
        if let Some(failure) = self.receptions.pop_front() {
            return Err(failure);
        }
        let waiting = self.waiting.entry(socket).or_default();
        let (incoming, payload) = waiting.pop_front().ok_or(Failure::WouldBlock)?;
        let len = payload.len().min(room.len());
        room[..len].copy_from_slice(&payload[..len]);
        Ok(Incoming { len, truncated: len < payload.len(), ..incoming })
    }

    fn complaint(&mut self, socket: SocketId) -> Option<Complaint> {
        self.complaints.get_mut(&socket)?.pop_front()
    }
}

/// A packet that was made for the inside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MadePacket {
    pub(crate) zone: Zone,
    pub(crate) to: IpAddr,
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
}

impl MadePacket {
    /// Its headers.
    pub(crate) fn ip(&self) -> Ip {
        Ip::of(&self.bytes, 0).expect("a sound packet")
    }

    /// Its transport.
    pub(crate) fn transport(&self) -> &[u8] {
        self.ip().transport(&self.bytes)
    }
}

/// Networks by script.
#[derive(Debug)]
pub(crate) struct Rooms {
    /// The packets of the turn.
    pub(crate) packets: Vec<Vec<u8>>,
    /// What was made for the inside.
    pub(crate) made: Vec<MadePacket>,
    /// What was counted as lost.
    pub(crate) lost: Vec<(Zone, IpAddr, Lost, u64)>,
    /// How many more packets there is room for.
    pub(crate) room: usize,
    /// The largest packet.
    pub(crate) mtu: usize,
    /// Who nobody is.
    pub(crate) absent: Vec<IpAddr>,
}

impl Inside for Rooms {
    fn bytes(&self, packet: PacketId) -> &[u8] {
        &self.packets[usize::from(packet.0)]
    }

    fn mtu(&self, _zone: Zone) -> Option<usize> {
        Some(self.mtu)
    }

    fn gateway(&self, _zone: Zone, to: IpAddr) -> Option<IpAddr> {
        Some(if to.is_ipv4() { address("10.0.0.1") } else { address("fd00::1") })
    }

    fn is_beyond(&self, _zone: Zone, address: IpAddr) -> bool {
        let inside = match address {
            IpAddr::V4(v4) => v4.octets()[..3] == [10, 0, 0],
            IpAddr::V6(v6) => v6.segments()[..4] == [0xfd00, 0, 0, 0],
        };
        !inside && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
    }

    fn compose(
        &mut self,
        zone: Zone,
        to: IpAddr,
        max: usize,
        write: &mut dyn FnMut(&mut [u8]) -> Option<Composed>,
    ) -> Made {
        if self.absent.contains(&to) {
            return Made::NoNeighbor;
        }
        if self.room == 0 {
            return Made::NoRoom;
        }
        // Whatever is not written shows.
        let mut bytes = vec![0xa5; max];
        let Some(composed) = write(&mut bytes) else { return Made::Nothing };
        bytes.truncate(composed.len);
        self.room -= 1;
        self.made.push(MadePacket { zone, to, bytes, offload: composed.offload });
        Made::Sent
    }

    fn may_object(&mut self, _zone: Zone, _to: IpAddr) -> bool {
        true
    }

    fn lost(&mut self, zone: Zone, to: IpAddr, why: Lost, packets: u64) {
        self.lost.push((zone, to, why, packets));
    }
}

/// Everything a step is given.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) host: Scripted,
    pub(crate) rooms: Rooms,
    pub(crate) random: ChaCha8Rng,
    pub(crate) now: Time,
}

/// The zone and owner of a bed's packets.
pub(crate) const ZONE: Zone = Zone(7);
pub(crate) const OWNER: Owner = Owner(3);

impl Bed {
    pub(crate) fn new() -> Bed {
        let rooms = Rooms {
            packets: Vec::new(),
            made: Vec::new(),
            lost: Vec::new(),
            room: usize::MAX,
            mtu: 1500,
            absent: Vec::new(),
        };
        let random = ChaCha8Rng::seed_from_u64(1);
        Bed { host: Scripted::default(), rooms, random, now: Time::ZERO }
    }

    pub(crate) fn call(&mut self) -> Call<'_> {
        Call {
            host: &mut self.host,
            inside: &mut self.rooms,
            random: &mut self.random,
            now: self.now,
        }
    }

    /// A packet of the inside with these bytes, which are sound as far as IP goes.
    pub(crate) fn packet(&mut self, bytes: Vec<u8>) -> Packet {
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

    /// Takes what was made for the inside.
    pub(crate) fn made(&mut self) -> Vec<MadePacket> {
        std::mem::take(&mut self.rooms.made)
    }

    /// Takes the one packet that was made for the inside.
    pub(crate) fn only(&mut self) -> MadePacket {
        let mut made = self.made();
        assert_eq!(made.len(), 1, "one packet was made: {made:?}");
        made.remove(0)
    }
}

/// An address.
pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An address and port.
pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

/// A whole packet with a transport of any bytes, whose checksum is set at `check_at` where there is one.
pub(crate) fn packet(header: Header, transport: &[u8], check_at: Option<usize>) -> Vec<u8> {
    let mut bytes = vec![0; header.len()];
    bytes.extend_from_slice(transport);
    match check_at {
        Some(at) => header.seal(&mut bytes, at),
        None => header.write(&mut bytes),
    }
    bytes
}

/// A UDP packet.
pub(crate) fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let header = Header::new(from.ip(), to.ip(), protocol::UDP);
    packet(header, &udp_bytes(from.port(), to.port(), payload), Some(6))
}

/// A UDP header and payload, the checksum zero.
pub(crate) fn udp_bytes(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let words = [from, to, len, 0].map(u16::to_be_bytes).concat();
    [&words[..], payload].concat()
}

/// An ICMP echo request of either family.
pub(crate) fn echo(from: &str, to: &str, id: u16, seq: u16, data: &[u8]) -> Vec<u8> {
    let (from, to) = (address(from), address(to));
    let (kind, protocol) =
        if from.is_ipv4() { (8, protocol::ICMP) } else { (128, protocol::ICMPV6) };
    let words = [id, seq].map(u16::to_be_bytes).concat();
    let message = [&[kind, 0, 0, 0], &words[..], data].concat();
    packet(Header::new(from, to, protocol), &message, Some(2))
}
