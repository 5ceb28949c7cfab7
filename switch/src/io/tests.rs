//! The edge on real wires. Each test runs again in a user and network namespace of its own, so that it needs no privilege and
//! its traffic stays there: two veth pairs, whose switch ends are served and at whose guest ends it plays the guests.

#![allow(
    clippy::disallowed_methods,
    reason = "what waits for a real kernel needs a deadline by a real clock"
)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::Command as Process;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use libc::c_int;

use super::packet::{self, BODY_AT, FRAME_AT, PacketWire};
use super::*;
use crate::command::{Answer, Command, LoopAction, NetworkSpec, PortCounters, PortSpec, Query};
use crate::drops::DropReason;
use crate::frame::FrameTable;
use crate::ids::{MacAddr, NetworkId, NodeId, PortId};
use crate::offload::VNET_LEN;

mod crossing;
mod floods;
mod growth;
mod takeover;
mod taps;

const INSIDE: &str = "PORTOLAN_TEST_INSIDE";
pub(super) const NETWORK: NetworkId = NetworkId(0);
const SMALL: RingShape = RingShape { slots: 64, slot_bytes: 2048, block_bytes: 65536 };

/// Runs `body` in namespaces of its own: this very test, started again there.
fn alone(test: &str, body: fn()) {
    alone_as(&format!("io::tests::{test}"), body);
}

/// As [`alone`], of a test of that full name.
pub(super) fn alone_as(name: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        body();
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let status = Process::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(exe)
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed inside its namespace");
}

pub(super) fn ip(words: &str) {
    let status = Process::new("ip").args(words.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// Two wires: guests' ends g0 and g1, switch ends s0 and s1. Nothing but the test speaks on them.
fn wires() {
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    for i in 0..2 {
        ip(&format!("link add g{i} type veth peer name s{i}"));
        ip(&format!("link set g{i} up"));
        ip(&format!("link set s{i} up"));
    }
}

fn index(name: &str) -> u32 {
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_else(|| {
            let name = std::ffi::CString::new(name).unwrap();
            // SAFETY: `name` is a C string.
            unsafe { libc::if_nametoindex(name.as_ptr()) }
        })
}

fn bare_socket() -> OwnedFd {
    // SAFETY: socket takes no pointers, and a fresh descriptor is nobody else's.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

fn open(name: &str, shape: RingShape) -> PacketWire {
    PacketWire::open(bare_socket(), index(name), shape).unwrap()
}

fn mac(end: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, end])
}

/// A frame from one guest to the other that bears a number.
fn numbered(from: u8, to: u8, number: u64, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..6].copy_from_slice(&mac(to).0);
    frame[6..12].copy_from_slice(&mac(from).0);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u64 {
    u64::from_be_bytes(frame[14..22].try_into().unwrap())
}

/// A guest's end, for sending and receiving what it is told to.
struct Guest {
    wire: PacketWire,
    arena: Vec<u8>,
}

impl Guest {
    fn new(name: &str, slots: u32) -> Guest {
        Guest { wire: open(name, RingShape { slots, ..SMALL }), arena: Vec::new() }
    }

    fn send(&self, frame: &[u8]) -> std::io::Result<()> {
        self.send_with([0; VNET_LEN], frame)
    }

    /// As [`Guest::send`], with what is left for a device to do.
    fn send_with(&self, vnet: [u8; VNET_LEN], frame: &[u8]) -> std::io::Result<()> {
        let bytes = [&vnet, frame].concat();
        // SAFETY: the kernel reads `bytes` to its length.
        let sent = unsafe {
            libc::send(self.wire.socket().as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0)
        };
        if sent < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }

    /// What has arrived, each with its tag.
    fn receive(&mut self) -> Vec<(Option<u16>, Vec<u8>)> {
        let mut frames = FrameTable::new(&mut self.arena);
        self.wire.receive(64, &mut frames);
        let all = (0..frames.len()).map(|i| {
            let frame = frames.get(crate::frame::FrameIdx(i as u16));
            (frame.vlan.map(|tag| tag.tci), frame.bytes().to_vec())
        });
        let all = all.collect();
        drop(frames);
        self.wire.release();
        all
    }

    /// Waits for one frame at least.
    fn wait(&mut self) -> Vec<(Option<u16>, Vec<u8>)> {
        let started = Instant::now();
        loop {
            let frames = self.receive();
            if !frames.is_empty() {
                return frames;
            }
            assert!(started.elapsed() < Duration::from_secs(5), "nothing arrived");
            readable(self.wire.socket(), 100);
        }
    }
}

fn readable(socket: BorrowedFd<'_>, timeout_ms: c_int) -> bool {
    let mut watched = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the kernel writes to the one entry.
    unsafe { libc::poll(&raw mut watched, 1, timeout_ms) == 1 }
}

/// A network without a guard.
pub(super) fn network() -> NetworkSpec {
    NetworkSpec {
        id: NETWORK,
        zone: None,
        mac: mac(9),
        gateways: Vec::new(),
        mtu: 1500,
        guard: false,
        egress: crate::command::Egress::default(),
        carriage: Default::default(),
        services: Default::default(),
    }
}

/// The port of that number, of a node of its own.
pub(super) fn attached(i: u32) -> PortSpec {
    PortSpec {
        id: PortId(i),
        network: NETWORK,
        node: NodeId(i),
        mac: mac(i as u8),
        addresses: Vec::new(),
        conduct: Default::default(),
    }
}

/// A dataplane with one network, and a way to wait for what comes up.
struct Bench {
    handle: Handle,
    told: mpsc::Receiver<()>,
}

impl Bench {
    /// Serves nothing yet.
    fn empty(features: Features) -> Bench {
        let (tell, told) = mpsc::channel();
        let notify = Box::new(move || {
            let _ = tell.send(());
        });
        Bench { handle: Dataplane::spawn(7, features, notify).unwrap(), told }
    }

    /// Serves these two wires as ports 0 and 1 of one network.
    fn new(wires: [PacketWire; 2]) -> Bench {
        Bench::of(Features::probe(), wires.map(Port::Packet))
    }

    /// As [`Bench::new`], of ports of any kind, on a kernel that can do this.
    fn of(features: Features, ports: [Port; 2]) -> Bench {
        let bench = Bench::empty(features);
        bench.command(Command::CreateNetwork(network()));
        for i in 0..2 {
            bench.command(Command::AttachPort(attached(i)));
        }
        let mut effect = vec![Down::Command(Command::Commit(1))];
        let ids = (0..).map(PortId);
        effect.extend(ids.zip(ports).map(|(id, port)| Down::Open(id, port)));
        bench.send(Down::Together(effect));
        bench
    }

    fn send(&self, message: Down) {
        assert!(self.handle.send(message).is_ok(), "there is room");
    }

    fn command(&self, command: Command) {
        self.send(Down::Command(command));
    }

    /// The next message that is no event.
    fn next(&self) -> Up {
        loop {
            match self.handle.receive() {
                Some(Up::Event(_)) => {}
                Some(up) => return up,
                None => self.told.recv_timeout(Duration::from_secs(5)).expect("something comes up"),
            }
        }
    }

    fn counters(&self, port: u32) -> PortCounters {
        self.send(Down::Query(1, Query::Counters(NETWORK)));
        match self.next() {
            Up::Answer(1, Answer::Counters { ports, .. }) => {
                ports.into_iter().find(|row| row.port == PortId(port)).unwrap()
            }
            other => panic!("not an answer: {other:?}"),
        }
    }

    /// Waits until that many frames of a port were dropped for that reason.
    fn wait_for_drops(&self, port: u32, reason: DropReason, frames: u64) {
        let started = Instant::now();
        while self.counters(port).drops.get(reason) != frames {
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", self.counters(port).drops);
        }
    }
}

#[test]
fn kernel_keeps_what_an_heir_needs() {
    alone("kernel_keeps_what_an_heir_needs", || {
        wires();
        let guest = Guest::new("g0", 64);
        let mut wire = open("s0", SMALL);
        let mut arena = [];
        for round in 0..3 * u64::from(SMALL.slots) {
            guest.send(&numbered(0, 1, round, 1514)).unwrap();
            let slot = (round % u64::from(SMALL.slots)) as u32;
            assert!(wire.ring.is_filled(slot));
            assert!(
                !wire.ring.is_marked(slot),
                "filling a slot clears the mark of the round before"
            );
            assert_eq!(usize::from(wire.ring.header(slot).tp_mac), FRAME_AT);
            let mut frames = FrameTable::new(&mut arena);
            assert!(!wire.receive(1, &mut frames).more || frames.len() == 1);
            assert_eq!(number(frames.get(crate::frame::FrameIdx(0)).bytes()), round);
            drop(frames);
            assert!(wire.ring.is_marked(slot));
            assert_eq!(
                wire.ring.stored_next(),
                (slot + 1) % SMALL.slots,
                "the kernel leaves the reserve alone"
            );
            wire.release();
        }
        const { assert!(BODY_AT < FRAME_AT) };
    });
}

#[test]
fn refused_frames_are_counted_by_name_and_hold_up_nobody() {
    alone("refused_frames_are_counted_by_name_and_hold_up_nobody", || {
        wires();
        for name in ["g0", "s0"] {
            ip(&format!("link set {name} mtu 9000"));
        }
        let (a, mut b) = (Guest::new("g0", 64), Guest::new("g1", 64));
        let bench = Bench::new([open("s0", SMALL), open("s1", SMALL)]);
        a.send(&numbered(0, 1, 1, 8000)).unwrap();
        bench.wait_for_drops(0, DropReason::Truncated, 1);
        ip("link set g1 mtu 1000");
        a.send(&numbered(0, 1, 2, 1400)).unwrap();
        bench.wait_for_drops(1, DropReason::TxTooBig, 1);
        ip("link set s1 down");
        a.send(&numbered(0, 1, 3, 100)).unwrap();
        bench.wait_for_drops(1, DropReason::TxDown, 1);
        ip("link set s1 up");
        a.send(&numbered(0, 1, 4, 100)).unwrap();
        assert_eq!(
            b.wait(),
            [(None, numbered(0, 1, 4, 100))],
            "a device that was down is no death"
        );
    });
}

#[test]
fn what_is_sent_to_a_port_at_its_attachment_finds_it_open() {
    alone("what_is_sent_to_a_port_at_its_attachment_finds_it_open", || {
        wires();
        let mut guest = Guest::new("g0", 64);
        let bench = Bench::empty(Features::probe());
        let mut network = network();
        network.carriage.loops = LoopAction::Block;
        bench.command(Command::CreateNetwork(network));
        bench.command(Command::AttachPort(attached(0)));
        bench.send(Down::Together(vec![
            Down::Command(Command::Commit(1)),
            Down::Open(PortId(0), Port::Packet(open("s0", SMALL))),
        ]));
        assert_eq!(guest.wait().len(), 1, "the probe for loops");
        assert_eq!(bench.counters(0).drops.nonzero().count(), 0);
    });
}

#[test]
fn sockets_of_a_publication_are_served_until_it_ends() {
    let bench = Bench::empty(Features::probe());
    let id = crate::command::PublicationId(3);
    let doors: Vec<Door> = (0..3).map(|_| listener()).collect();
    let at = doors[0].local;
    let copies: Vec<_> = doors.iter().map(|door| door.socket.try_clone().unwrap()).collect();
    bench.send(Down::Listen(id, doors));
    let stray = || Door { local: at, socket: std::fs::File::open("/dev/null").unwrap().into() };
    let other = crate::command::PublicationId(4);
    bench.send(Down::Listen(other, vec![stray(), listener(), stray()]));
    match bench.next() {
        Up::Unserved { publication, error } => {
            assert_eq!(publication, other);
            assert!(error.starts_with(&format!("watching {at}: ")), "{error}");
        }
        unexpected => panic!("{unexpected:?}"),
    }
    bench.send(Down::Unlisten(id));
    assert!(matches!(bench.next(), Up::Unlistened(gone) if gone == id));
    // Our copies keep the sockets open, as a keeper's would; without them nobody listens.
    assert!(std::net::TcpStream::connect(at).is_ok());
    drop(copies);
    assert!(std::net::TcpStream::connect(at).is_err());
    bench.send(Down::Unlisten(other));
    assert!(matches!(bench.next(), Up::Unlistened(gone) if gone == other));
}

fn listener() -> Door {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    Door { local: socket.local_addr().unwrap(), socket: socket.into() }
}

#[test]
fn full_ring_is_counted() {
    alone("full_ring_is_counted", || {
        wires();
        let (a, wire) = (Guest::new("g0", 64), open("s0", SMALL));
        for i in 0..u64::from(SMALL.slots) + 10 {
            a.send(&numbered(0, 1, i, 100)).unwrap();
        }
        let bench = Bench::new([wire, open("s1", SMALL)]);
        // No frame comes after them that could tell.
        assert!(matches!(bench.next(), Up::Overflowed(PortId(0))));
        assert_eq!(bench.counters(0).drops.get(DropReason::RingOverflow), 10);
    });
}

#[test]
fn dead_wire_is_drained_told_and_given_back() {
    alone("dead_wire_is_drained_told_and_given_back", || {
        wires();
        let (a, mut b) = (Guest::new("g0", 64), Guest::new("g1", 64));
        let wire = open("s0", SMALL);
        for i in 0..20 {
            a.send(&numbered(0, 1, i, 100)).unwrap();
        }
        ip("link del s0");
        let bench = Bench::new([wire, open("s1", SMALL)]);
        assert!(matches!(bench.next(), Up::Died { port: PortId(0), .. }));
        let mut numbers = Vec::new();
        while numbers.len() < 20 {
            numbers.extend(b.wait().iter().map(|(_, frame)| number(frame)));
        }
        assert_eq!(numbers, (0..20).collect::<Vec<u64>>());
        bench.send(Down::Close(PortId(0)));
        match bench.next() {
            Up::Closed(PortId(0), Port::Packet(wire)) => assert!(wire.is_gone()),
            other => panic!("not given back: {other:?}"),
        }
        b.send(&numbered(1, 0, 1, 100)).unwrap();
        bench.wait_for_drops(0, DropReason::TxDown, 1);
    });
}

#[test]
fn wire_that_goes_while_served_is_told_once() {
    alone("wire_that_goes_while_served_is_told_once", || {
        wires();
        let bench = Bench::new([open("s0", SMALL), open("s1", SMALL)]);
        ip("link set s1 down");
        ip("link set s1 up");
        ip("link del g0");
        assert!(matches!(bench.next(), Up::Died { port: PortId(0), .. }));
        assert_eq!(bench.counters(1).drops.nonzero().count(), 0, "and nothing else came up");
    });
}
