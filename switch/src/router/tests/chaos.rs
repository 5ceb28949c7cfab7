//! Anything in any order, on a host where any call may fail: every frame is accounted for, nothing is asked of a closed socket,
//! and when all who spoke have gone, nothing is left.

use std::net::SocketAddr;

use portolan_nat::sockets::host::{Failure, Ready};
use proptest::prelude::*;

use super::*;
use crate::command::{Owner, Publication, PublicationId, Transport, Zone};

const PORTS: u32 = 3;

/// The sockets behind the publications of TCP and UDP.
const DOORS: [SocketId; 2] = [SocketId(1 << 40), SocketId((1 << 40) + 1)];

#[derive(Clone, Debug)]
enum Event {
    Datagram {
        port: u32,
        dst: usize,
        to: u16,
        len: usize,
        parts: bool,
    },
    Segment {
        port: u32,
        dst: usize,
        flags: u8,
        sequence: u32,
        acknowledges: u32,
        len: usize,
    },
    /// The node at a port answers the last frame it was sent, if that was a segment.
    Answer {
        port: u32,
        flags: u8,
        len: usize,
    },
    Echo {
        port: u32,
        dst: usize,
    },
    Changed {
        socket: usize,
        ready: u8,
    },
    Arrives {
        socket: usize,
        from: usize,
        len: usize,
    },
    Streams {
        socket: usize,
        len: usize,
    },
    Calls {
        from: usize,
    },
    Attach(u32),
    Detach(u32),
    Publish(bool),
    Unpublish(bool),
    Pass(u64),
    Arena(usize),
    Failures(Vec<Option<Failure>>),
}

fn any_failure() -> impl Strategy<Value = Failure> {
    prop::sample::select(vec![
        Failure::WouldBlock,
        Failure::Refused,
        Failure::Reset,
        Failure::TimedOut,
        Failure::NetUnreachable,
        Failure::HostUnreachable,
        Failure::Forbidden,
        Failure::TooBig,
        Failure::TooManyFiles,
        Failure::NoBuffers,
        Failure::NoAddress,
        Failure::Unsupported,
        Failure::Other(5),
    ])
}

fn any_event() -> impl Strategy<Value = Event> {
    let (port, dst, len) = (1..=PORTS, 0..8usize, prop_oneof![0..40usize, 1000..5000usize]);
    let socket = 0..8usize;
    let number = || prop_oneof![0..4u32, any::<u32>()];
    prop_oneof![
        4 => (port.clone(), dst.clone(), prop_oneof![Just(53u16), Just(80), 5000..5004u16], len.clone(), any::<bool>())
            .prop_map(|(port, dst, to, len, parts)| Event::Datagram { port, dst, to, len, parts }),
        4 => (port.clone(), dst.clone(), any::<u8>(), number(), number(), 0..100usize).prop_map(
            |(port, dst, flags, sequence, acknowledges, len)| Event::Segment {
                port, dst, flags, sequence, acknowledges, len
            }
        ),
        2 => (port.clone(), dst.clone()).prop_map(|(port, dst)| Event::Segment {
            port, dst, flags: 2, sequence: 7, acknowledges: 0, len: 0
        }),
        6 => (port.clone(), prop::sample::select(vec![0x10u8, 0x18, 0x11, 0x12, 0x14]), 0..100usize)
            .prop_map(|(port, flags, len)| Event::Answer { port, flags, len }),
        1 => (port.clone(), dst).prop_map(|(port, dst)| Event::Echo { port, dst }),
        4 => (socket.clone(), 0..8u8).prop_map(|(socket, ready)| Event::Changed { socket, ready }),
        3 => (socket.clone(), 0..6usize, len).prop_map(|(socket, from, len)| Event::Arrives { socket, from, len }),
        2 => (socket, 0..20_000usize).prop_map(|(socket, len)| Event::Streams { socket, len }),
        2 => (0..6usize).prop_map(|from| Event::Calls { from }),
        1 => port.clone().prop_map(Event::Attach),
        1 => port.prop_map(Event::Detach),
        1 => any::<bool>().prop_map(Event::Publish),
        1 => any::<bool>().prop_map(Event::Unpublish),
        2 => prop_oneof![0..2000u64, 0..400_000u64].prop_map(Event::Pass),
        1 => prop_oneof![Just(0usize), Just(3000), Just(1 << 17), Just(1 << 18)].prop_map(Event::Arena),
        1 => prop::collection::vec(prop::option::of(any_failure()), 0..6).prop_map(Event::Failures),
    ]
}

struct Chaos {
    bench: Bench,
    attached: Vec<u32>,
    published: Vec<bool>,
    /// The last segment to each port: from whom, to whom, what it says next, what it has acknowledged.
    heard: Vec<Option<(SocketAddr, SocketAddr, u32, u32)>>,
}

fn targets() -> [IpAddr; 8] {
    [
        FAR_V4.into(),
        FAR_V6.into(),
        GATEWAY_V4.into(),
        GATEWAY_V6.into(),
        ip("127.0.0.1"),
        v4(2).into(),
        ip("198.51.100.7"),
        ip("ff02::1"),
    ]
}

fn clients(at: usize) -> SocketAddr {
    let all =
        ["192.0.2.9:80", "127.0.0.1:5000", "127.0.0.2:5000", "[2001:db8::9]:80", "[::1]:5001"];
    all[at % all.len()].parse().unwrap()
}

impl Chaos {
    fn new(guard: bool, host_access: bool) -> Chaos {
        let egress = Egress { host_access, ..Egress::default() };
        Chaos {
            bench: Bench::leading_out(guard, PORTS, egress),
            attached: (1..=PORTS).collect(),
            published: vec![],
            heard: vec![None; PORTS as usize + 1],
        }
    }

    fn hear(&mut self, out: Vec<(u32, Vec<u8>)>) {
        for (port, frame) in out {
            let ip = Layout::of(&frame, None).unwrap().ip(&frame).unwrap().unwrap();
            let message = ip.transport(&frame);
            if ip.protocol != protocol::TCP {
                continue;
            }
            let (_, src, dst) = super::super::ends(&ip, &frame).unwrap();
            let at = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
            let payload = message.len() as u32 - u32::from(message[12] >> 4) * 4;
            let flags = u32::from(message[13] & 1) + u32::from(message[13] >> 1 & 1);
            let next = at(4).wrapping_add(payload + flags);
            self.heard[port as usize] = Some((src, dst, next, at(8)));
        }
    }

    fn send(&mut self, port: u32, frame: Vec<u8>) {
        if self.attached.contains(&port) {
            let out = self.bench.send(port, frame);
            self.hear(out);
        }
    }

    fn segment(
        &mut self,
        port: u32,
        (src, dst): (SocketAddr, SocketAddr),
        flags: u8,
        (sequence, acknowledges): (u32, u32),
        len: usize,
    ) {
        let mut frame = Vec::new();
        let start = packet(GATEWAY_MAC, mac(port), src.ip(), dst.ip());
        let mut tcp = start.tcp(src.port(), dst.port(), sequence, 60_000);
        if flags & 0x10 != 0 {
            tcp = tcp.ack(acknowledges);
        }
        tcp = if flags & 1 != 0 { tcp.fin() } else { tcp };
        tcp = if flags & 2 != 0 { tcp.syn() } else { tcp };
        tcp = if flags & 4 != 0 { tcp.rst() } else { tcp };
        tcp = if flags & 8 != 0 { tcp.psh() } else { tcp };
        tcp.write(&mut frame, &vec![7; len]).unwrap();
        self.send(port, frame);
    }

    /// One of the sockets there are.
    fn socket(&self, at: usize) -> SocketId {
        let open: Vec<_> = self.bench.outside.open.iter().copied().chain(DOORS).collect();
        open[at % open.len()]
    }

    fn changed(&mut self, socket: SocketId, ready: u8) {
        let ready =
            Ready { readable: ready & 1 != 0, writable: ready & 2 != 0, error: ready & 4 != 0 };
        for _ in 0..4 {
            let (out, more) = self.bench.changed(socket, ready);
            self.hear(out);
            if !more {
                break;
            }
        }
    }

    fn publish(&mut self, udp: bool) {
        let door = DOORS[usize::from(udp)];
        let id = PublicationId(udp.into());
        self.bench.apply(Command::Publish(Publication {
            id,
            transport: if udp { Transport::Udp } else { Transport::Tcp },
            zone: Zone(0),
            owner: Owner(1),
            host_port: 8080,
            node_port: 80,
            count: 1,
            v4: Some(v4(1)),
            v6: Some(v6(1)),
            near: vec![(ip("10.0.0.0"), 16), (ip("fd00::"), 64)],
        }));
        if !self.published.contains(&udp) {
            self.bench.datapath.listen(id, door, "0.0.0.0:8080".parse().unwrap());
            self.published.push(udp);
        }
    }

    fn unpublish(&mut self, udp: bool) {
        if self.published.contains(&udp) {
            self.bench.apply(Command::Unpublish(PublicationId(udp.into())));
            self.published.retain(|other| *other != udp);
        }
    }

    fn detach(&mut self, port: u32) {
        if self.attached.contains(&port) {
            self.bench.apply(Command::DetachPort(PortId(port)));
            self.attached.retain(|other| *other != port);
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Datagram { port, dst, to, len, parts } => {
                let frame = datagram(port, targets()[dst], to, &vec![7; len]);
                let whole = frame.len() <= 1514;
                match frame[12] {
                    8 if parts || !whole => {
                        in_parts(&frame).into_iter().for_each(|part| self.send(port, part));
                    }
                    _ => self.send(port, frame),
                }
            }
            Event::Segment { port, dst, flags, sequence, acknowledges, len } => {
                let dst = SocketAddr::new(targets()[dst], 80);
                let src = if dst.is_ipv4() { IpAddr::from(v4(port)) } else { v6(port).into() };
                let numbers = (sequence, acknowledges);
                self.segment(port, ((src, 4000).into(), dst), flags, numbers, len);
            }
            Event::Answer { port, flags, len } => {
                if let Some((src, dst, next, acknowledged)) = self.heard[port as usize] {
                    let len = if flags & 6 == 0 { len } else { 0 };
                    self.segment(port, (dst, src), flags, (acknowledged, next), len);
                }
            }
            Event::Echo { port, dst } => {
                let dst = targets()[dst];
                let mut frame = Vec::new();
                let src = if dst.is_ipv4() { IpAddr::from(v4(port)) } else { v6(port).into() };
                let start = packet(GATEWAY_MAC, mac(port), src, dst);
                match dst {
                    IpAddr::V4(_) => start.icmpv4_echo_request(1, 2).write(&mut frame, b"x"),
                    IpAddr::V6(_) => start.icmpv6_echo_request(1, 2).write(&mut frame, b"x"),
                }
                .unwrap();
                self.send(port, frame);
            }
            Event::Changed { socket, ready } => self.changed(self.socket(socket), ready),
            Event::Arrives { socket, from, len } => {
                let socket = self.socket(socket);
                self.bench.outside.arrive(socket, clients(from), &vec![7; len]);
                self.changed(socket, 1);
            }
            Event::Streams { socket, len } => {
                let socket = self.socket(socket);
                self.bench.outside.streams.entry(socket).or_default().extend(vec![7; len]);
                self.changed(socket, 3);
            }
            Event::Calls { from } => {
                let call = (clients(from), "192.0.2.1:8080".parse().unwrap());
                self.bench.outside.callers.push_back(call);
                self.changed(DOORS[0], 1);
            }
            Event::Attach(port) => {
                if !self.attached.contains(&port) {
                    self.bench.port(port, 0);
                    self.attached.push(port);
                }
            }
            Event::Detach(port) => self.detach(port),
            Event::Publish(udp) => self.publish(udp),
            Event::Unpublish(udp) => self.unpublish(udp),
            Event::Pass(ms) => self.pass(Duration::from_millis(ms)),
            Event::Arena(bytes) => self.bench.arena = bytes,
            Event::Failures(failures) => self.bench.outside.failures = failures.into(),
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.bench.now + span;
        for _ in 0..200 {
            let Some(due) = self.bench.datapath.poll_timeout().filter(|due| *due <= end) else {
                break;
            };
            let out = self.bench.pass_until(due.max(self.bench.now));
            self.hear(out);
        }
        self.bench.now = self.bench.now.max(end);
    }
}

proptest! {
    #[test]
    fn when_all_have_gone_nothing_is_left(
        guard: bool,
        host_access: bool,
        events in prop::collection::vec(any_event(), 1..60),
    ) {
        let mut chaos = Chaos::new(guard, host_access);
        for event in events {
            chaos.step(event);
        }
        chaos.bench.outside.failures.clear();
        chaos.bench.arena = 1 << 18;
        [false, true].into_iter().for_each(|udp| chaos.unpublish(udp));
        (1..=PORTS).for_each(|port| chaos.detach(port));
        chaos.pass(Duration::from_secs(1));
        let all = Query::Flows { network: None, after: None, limit: 10 };
        let none = Answer::Flows { rows: vec![], next: None };
        prop_assert_eq!(chaos.bench.datapath.query(&all, chaos.bench.now), none);
        prop_assert!(chaos.bench.outside.open.is_empty(), "{:?}", chaos.bench.outside.open);
        chaos.pass(Duration::from_secs(400));
        prop_assert_eq!(chaos.bench.datapath.poll_timeout(), None);
    }
}
