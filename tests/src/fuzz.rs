//! Arbitrary bytes as what a guest and the outside do to a whole switch: one function for each kind of traffic, for a fuzzer
//! to call, and for a test to replay what it has found.
//!
//! The bytes are a script of steps: frames of the guest, time that passes, clients and datagrams of the outside, calls of the
//! host that fail. The fields of a frame come from the script too, but lie near those of flows that exist, and its checksums
//! are right unless the script says otherwise: so the script gets far with few bytes. After each step the frames must
//! balance; a panic anywhere is the finding.

mod drive;
mod frames;
mod lan;
mod parsers;
mod requests;

pub use frames::{dhcp4, dhcp6, lan, ndp};
pub use parsers::{dns, vnet};
pub use requests::{api, wires};

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use portolan_switch::command::{
    Command, Egress, Filtering, Limits, NetworkSpec, Owner, PortSpec, Publication, PublicationId,
    Transport, Zone,
};
use portolan_switch::datapath::Datapath;
use portolan_switch::frame::FrameTable;
use portolan_switch::ids::{MacAddr, NetworkId, NodeId, PortId, Time};
use portolan_switch::outbox::Outbox;

use crate::host::{Answer, Peer, Talker};
use crate::host::{HOST4, HOST6};
use crate::packet::{ethernet, fill_checksums, ip, udp};
use drive::{Drive, Shape, Watch};

const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const GUEST4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
const GUEST6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9));
const GATE4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const OUTSIDE4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));
const OUTSIDE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 5));
const UPSTREAM: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53));

/// Steps of one script: beyond them nothing new is learned.
const STEPS_MAX: usize = 200;

/// Bytes that are read from the front, zeros behind their end.
struct Script<'s>(&'s [u8]);

impl<'s> Script<'s> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn bytes(&mut self, count: usize) -> &'s [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// Where each flow of TCP stands, as the guest last heard.
type Heard = BTreeMap<(u16, u16), (u32, u32)>;

impl Watch for Heard {
    fn look(&mut self, _: &mut Datapath, out: &Outbox, frames: &FrameTable<'_>, _: Time) {
        out.entries().iter().for_each(|entry| hear(self, frames.get(entry.frame).bytes()));
    }
}

/// A switch with one guest, a host, and an outside.
type Stage = Drive<Heard>;

impl Stage {
    fn staged() -> Stage {
        let mut datapath = Datapath::new(1);
        let net = |text: &str| text.parse().expect("a prefix");
        let publication = |number, transport| Publication {
            id: PublicationId(number),
            transport,
            zone: Zone(0),
            owner: Owner(0),
            host_port: 8080,
            node_port: 80,
            count: 1,
            v4: Some(Ipv4Addr::new(10, 0, 0, 9)),
            v6: None,
            near: vec![("10.0.0.0".parse().expect("an address"), 24)],
        };
        for command in [
            Command::SetLimits(Limits { flows: 12, owner_flows: 8 }),
            Command::CreateNetwork(NetworkSpec {
                id: NetworkId(0),
                zone: Some("app".into()),
                mac: GATEWAY,
                gateways: vec![net("10.0.0.1/24"), net("fd00::1/64")],
                mtu: 1500,
                guard: true,
                egress: Egress {
                    internal: false,
                    host_access: true,
                    metadata: false,
                    filtering: Filtering::AddressDependent,
                },
                carriage: Default::default(),
                services: Default::default(),
            }),
            Command::AttachPort(PortSpec {
                id: PortId(0),
                network: NetworkId(0),
                node: NodeId(0),
                mac: GUEST,
                addresses: vec![GUEST4, GUEST6],
                conduct: Default::default(),
            }),
            Command::SetView { node: NodeId(0), networks: vec![NetworkId(0)] },
            Command::SetUpstreams(vec![SocketAddr::new(UPSTREAM, 53)]),
            Command::Publish(publication(0, Transport::Tcp)),
            Command::Publish(publication(1, Transport::Udp)),
            Command::Commit(1),
        ] {
            datapath.apply(command, Time::ZERO);
        }
        let mut stage = Drive::new(datapath, Heard::new());
        let host = &mut stage.host;
        let at = |port| SocketAddr::new(OUTSIDE4, port);
        host.peers.insert(at(81), Peer::that_answers(Answer::Refuse));
        host.peers.insert(at(82), Peer::source(vec![7; 100_000]));
        host.peers.insert(at(83), Peer { resets_at: Some(1000), ..Peer::sink() });
        host.peers.insert(at(84), Peer::that_answers(Answer::Never));
        for (ip, port) in [(OUTSIDE4, 80), (OUTSIDE4, 0), (OUTSIDE6, 80), (OUTSIDE6, 0)] {
            host.talkers.insert(SocketAddr::new(ip, port), Talker::Echo);
        }
        host.talkers.insert(at(81), Talker::Complains { from: None, kind: (3, 3) });
        host.talkers.insert(at(82), Talker::EchoTrain);
        for (number, udp) in [(0, false), (1, true)] {
            let local = SocketAddr::new(HOST4, 8080);
            let socket = if udp { host.bind(local) } else { host.listen(local) };
            stage.datapath.listen(PublicationId(number), socket, local);
        }
        stage
    }

    /// A frame of the guest, and all that follows from it at once.
    fn guest(&mut self, bytes: &[u8]) {
        self.frame(PortId(0), bytes, &Shape::default());
    }

    /// A step that is no frame of the guest.
    fn aside(&mut self, step: u8, script: &mut Script<'_>) {
        let client = SocketAddr::new(OUTSIDE4, 50_000 + u16::from(step >> 5));
        let door = SocketAddr::new(HOST4, 8080);
        match step % 8 {
            0 => self.wait(Duration::from_millis(u64::from(script.byte()))),
            1 => self.wait(Duration::from_millis(50 * u64::from(script.byte()))),
            2 => self.wait(Duration::from_secs(2 * u64::from(script.byte()))),
            3 => drop(self.host.dial(door, client, Peer::source(vec![3; 5000]))),
            4 => drop(self.host.dial(door, client, Peer::echo())),
            5 => {
                let payload = script.bytes(usize::from(step) * 8);
                self.host.post(client, door, payload, None);
            }
            6 => self.host.descriptors = usize::from(script.byte()),
            _ => self.host.path_mtu = 576 + usize::from(script.word() % 2000),
        }
        self.settle();
    }
}

/// Remembers what a frame to the guest says of a flow of TCP: the next number to come, and the one that is awaited.
fn hear(heard: &mut Heard, frame: &[u8]) {
    let Ok(parts) = crate::packet::Parts::of(frame) else { return };
    let Some((at, 6)) = parts.l4 else { return };
    let Some(header) = frame.get(at..at + 20) else { return };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let long = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
    let payload = (parts.end - at).saturating_sub(usize::from(header[12] >> 4) * 4);
    let ends = u32::from(header[13] & 1) + u32::from(header[13] >> 1 & 1);
    let next = long(4).wrapping_add(payload as u32).wrapping_add(ends);
    heard.insert((word(2), word(0)), (next, long(8)));
}

/// Plays a script whose frames `make` makes.
fn play(data: &[u8], mut make: impl FnMut(&mut Script<'_>, &Stage) -> Vec<u8>) {
    let (mut stage, mut script) = (Stage::staged(), Script(data));
    for _ in 0..STEPS_MAX {
        if script.0.is_empty() {
            break;
        }
        let step = script.byte();
        if step % 4 == 3 {
            stage.aside(step / 4, &mut script);
        } else {
            let frame = make(&mut script, &stage);
            stage.guest(&frame);
        }
    }
    stage.wait(Duration::from_secs(10_000));
}

/// Addresses of one family: the guest's, and one that is spoken to.
fn ends(choice: u8) -> (IpAddr, IpAddr) {
    match choice % 4 {
        0 | 1 => (GUEST4, OUTSIDE4),
        2 => (GUEST6, OUTSIDE6),
        _ => (GUEST4, GATE4),
    }
}

/// Packets of any bytes that call themselves IP.
pub fn packets(data: &[u8]) {
    play(data, |script, _| {
        let shape = script.byte();
        let len = usize::from(script.word() % 2100);
        let bytes = script.bytes(len).to_vec();
        let ethertype = if shape & 1 == 0 { 0x0800 } else { 0x86dd };
        let mut frame = ethernet(GATEWAY, GUEST, ethertype, &bytes);
        if shape & 2 == 0 {
            // Sound enough to be looked into: version, addresses, and checksums where they can be told.
            let (source, header): (usize, u8) = if shape & 1 == 0 { (12, 0x45) } else { (8, 0x60) };
            let addresses = ends(if shape & 1 == 0 { 0 } else { 2 });
            if let Some(first) = frame.get_mut(14) {
                *first = if shape & 4 == 0 { header } else { header & 0xf0 | *first & 0x0f };
            }
            let both: Vec<u8> = [addresses.0, addresses.1].iter().flat_map(octets).collect();
            if let Some(place) = frame.get_mut(14 + source..14 + source + both.len()) {
                place.copy_from_slice(&both);
            }
            if lies_whole(&frame) {
                fill_checksums(&mut frame);
            }
        }
        frame
    });
}

/// Whether the packet and its headers end where the frame does, or before.
fn lies_whole(frame: &[u8]) -> bool {
    let Ok(parts) = crate::packet::Parts::of(frame) else { return false };
    let header = frame.get(parts.l3).map_or(0, |first| usize::from(first & 15) * 4);
    parts.end <= frame.len() && parts.l3 + header.max(20) <= frame.len()
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Segments of TCP around those that flows await.
pub fn tcp(data: &[u8]) {
    play(data, |script, stage| {
        let shape = script.byte();
        let (source, destination) = ends(shape);
        let ports = if shape & 0x80 == 0 {
            (40_000 + u16::from(shape >> 2 & 3), 80 + u16::from(shape >> 4 & 7))
        } else {
            (80, 50_000 + u16::from(shape >> 4 & 7))
        };
        let (next, awaited) = stage.watch.get(&ports).copied().unwrap_or((0, 1000));
        let near =
            |delta: u8| i32::from(delta as i8).wrapping_mul(if delta & 1 == 0 { 1 } else { 999 });
        let flags = script.byte();
        let seq = awaited.wrapping_add_signed(if shape & 8 == 0 { 0 } else { near(script.byte()) });
        let ack = next.wrapping_add_signed(if flags & 0x40 == 0 { 0 } else { near(script.byte()) });
        let window = script.word();
        let lengths = script.byte();
        let options = script.bytes(usize::from(lengths & 7) * 4);
        let payload = script.bytes(usize::from(lengths >> 3) * 40);
        let mut segment = Vec::new();
        segment.extend(ports.0.to_be_bytes());
        segment.extend(ports.1.to_be_bytes());
        segment.extend(seq.to_be_bytes());
        segment.extend(ack.to_be_bytes());
        segment.extend([(5 + options.len().div_ceil(4) as u8) << 4, flags & 0x3f]);
        segment.extend(window.to_be_bytes());
        segment.extend([0, 0, 0, script.byte() & 0x0f]);
        segment.extend(options);
        segment.resize(20 + options.len().next_multiple_of(4), 0);
        segment.extend(payload);
        let mut frame = ip((GUEST, source), (GATEWAY, destination), 6, &segment);
        if shape & 0x0c == 0x0c && flags & 0x80 != 0 {
            let at = usize::from(script.word()) % frame.len();
            frame[at] ^= script.byte();
        }
        frame
    });
}

/// Datagrams and their fragments.
pub fn datagrams(data: &[u8]) {
    play(data, |script, _| {
        let shape = script.byte();
        let (source, destination) = ends(shape);
        let ports = (40_000 + u16::from(shape >> 2 & 7), 80 + u16::from(shape >> 5 & 3));
        let len = usize::from(script.word() % 1460);
        let payload = script.bytes(len);
        let mut frame = udp((GUEST, source, ports.0), (GATEWAY, destination, ports.1), payload);
        let extra = script.byte();
        if extra & 1 != 0 && source.is_ipv4() {
            // A fragment: identification, flags and offset from the script, so that some belong together.
            frame[14 + 5] = extra >> 5;
            let word = script.word() & 0x20ff | u16::from(extra & 2) << 12;
            frame[14 + 6..14 + 8].copy_from_slice(&word.to_be_bytes());
            fill_header(&mut frame);
        }
        if extra & 4 != 0 {
            let at = usize::from(script.word()) % frame.len();
            frame[at] ^= script.byte();
            if extra & 8 != 0 && lies_whole(&frame) {
                fill_checksums(&mut frame);
            }
        }
        frame
    });
}

/// The checksum of an IPv4 header alone, as a fragment has it.
fn fill_header(frame: &mut [u8]) {
    frame[14 + 10..14 + 12].fill(0);
    let check = !crate::packet::sum(&[&frame[14..34]]);
    frame[14 + 10..14 + 12].copy_from_slice(&check.to_be_bytes());
}

/// Messages of ICMP: echoes, and errors that quote what was sent to the guest, or claim to.
pub fn icmp(data: &[u8]) {
    play(data, |script, stage| {
        let shape = script.byte();
        let (source, destination) = ends(shape);
        let protocol = if source.is_ipv4() { 1 } else { 58 };
        let mut message = match (shape >> 2 & 3, source.is_ipv4()) {
            (0, true) => vec![8, 0, 0, 0],
            (0, false) => vec![128, 0, 0, 0],
            (1, true) => vec![3, shape >> 4, 0, 0],
            (1, false) => vec![1 + (shape >> 4 & 3), 0, 0, 0],
            _ => vec![script.byte(), script.byte(), 0, 0],
        };
        message.extend(script.word().to_be_bytes());
        message.extend(script.word().to_be_bytes());
        if shape >> 2 & 3 == 1 {
            // A quote of a packet that was sent to the guest, of a flow there is or nearly.
            let nth = stage.watch.iter().nth(usize::from(script.byte() & 7));
            let ((here, there), (seq, _)) = nth.map_or(((40_000, 80), (0, 0)), |(k, v)| (*k, *v));
            let kind = if script.byte() & 1 == 0 { 6 } else { 17 };
            let mut quoted = Vec::new();
            quoted.extend(there.to_be_bytes());
            quoted.extend(here.to_be_bytes());
            quoted.extend(seq.to_be_bytes());
            quoted.extend([0; 12]);
            let frame = ip((GATEWAY, destination), (GUEST, source), kind, &quoted);
            let cut = usize::from(script.byte()).min(frame.len() - 14);
            message.extend(&frame[14..14 + cut]);
        }
        let len = usize::from(script.word() % 1400);
        message.extend(script.bytes(len));
        let mut frame = ip((GUEST, source), (GATEWAY, destination), protocol, &message);
        if shape & 0xc0 == 0xc0 {
            let at = usize::from(script.word()) % frame.len();
            frame[at] ^= script.byte();
        }
        frame
    });
}

/// Questions of the guest, and replies of any bytes from the server that the host asks for it.
pub fn replies(data: &[u8]) {
    let (mut stage, mut script) = (Stage::staged(), Script(data));
    for number in 0..STEPS_MAX as u16 {
        if script.0.is_empty() {
            break;
        }
        let shape = script.byte();
        let label = [3, b'a' + (shape & 7), b'b', b'c', 3, b'n', b'e', b't', 0, 0, 1, 0, 1];
        let mut query = number.to_be_bytes().to_vec();
        query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        query.extend(label);
        let asked = stage.host.mail.len();
        stage.guest(&udp((GUEST, GUEST4, 50_000), (GATEWAY, GATE4, 53), &query));
        let Some(mail) = stage.host.mail.get(asked).cloned() else {
            stage.wait(Duration::from_secs(u64::from(shape)));
            continue;
        };
        let len = usize::from(script.word() % 1500);
        let mut reply = script.bytes(len).to_vec();
        for (at, byte) in mail.payload.iter().enumerate().take(reply.len()) {
            // Which question it answers, and the question itself, unless the script insists on its own bytes.
            let keeps = at < 2 || (12..12 + label.len()).contains(&at);
            if keeps && shape & 0x80 == 0 {
                reply[at] = *byte;
            }
        }
        let to = SocketAddr::new(if mail.to.is_ipv4() { HOST4 } else { HOST6 }, mail.from.port());
        stage.host.post(mail.to, to, &reply, None);
        stage.wait(Duration::from_millis(10));
    }
    stage.wait(Duration::from_secs(100));
}

/// What plays a script.
pub type Play = fn(&[u8]);

/// All kinds of scripts by their names, which are those of their fuzz targets and corpora.
pub const KINDS: [(&str, Play); 13] = [
    ("packets", packets),
    ("tcp", tcp),
    ("datagrams", datagrams),
    ("icmp", icmp),
    ("replies", replies),
    ("lan", lan),
    ("dhcp4", dhcp4),
    ("dhcp6", dhcp6),
    ("ndp", ndp),
    ("dns", dns),
    ("vnet", vnet),
    ("api", api),
    ("wires", wires),
];
