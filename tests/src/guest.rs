//! A simulated host: smoltcp behind a network card of ours, and the few programs it runs.
//!
//! The card either takes and gives plain frames only, or it offloads: then everything it sends owes its checksums, and
//! consecutive segments leave as one superframe ([`crate::coalesce`]).

mod lease;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use portolan_switch::ids::{MacAddr, Time};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr,
    IpAddress, IpCidr, IpEndpoint,
};

use crate::coalesce::coalesce;
use crate::packet::Packet;
pub use lease::Lease;

/// How a guest is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestSpec {
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its addresses with their prefixes; the link-local one is added.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Its default routes.
    pub gateways: Vec<IpAddr>,
    /// Largest IP packet it sends.
    pub mtu: usize,
    /// Whether its card offloads.
    pub offloads: bool,
}

/// Names a program of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppId(usize);

/// A connection: what is to be said on it and what was heard.
#[derive(Debug)]
pub struct Talk {
    handle: SocketHandle,
    say: Vec<u8>,
    said: usize,
    close: bool,
    /// Whether the other side closes first: smoltcp does not repeat a lost FIN where both close at once.
    second: bool,
    /// What the other side said.
    pub heard: Vec<u8>,
    /// Whether the other side has said all it will.
    pub finished: bool,
    /// Whether the connection was ever established.
    pub established: bool,
    /// Who the other side is, once it is known.
    pub peer: Option<(IpAddr, u16)>,
    paused: bool,
}

enum App {
    Talk(Talk),
    Datagrams { handle: SocketHandle, echo: bool, inbox: Vec<(IpEndpoint, Vec<u8>)> },
    Ping { handle: SocketHandle, ident: u16, replies: Vec<(IpAddr, u16)> },
    Ended,
}

/// A simulated host with one interface.
pub struct Guest {
    interface: Interface,
    card: Card,
    sockets: SocketSet<'static>,
    apps: Vec<App>,
    /// Its client of DHCP, where it has one.
    dhcp: Option<(SocketHandle, Lease)>,
    offloads: bool,
    next_poll: Option<Time>,
}

/// How long a connection may lie silent, data in flight, before it counts as broken.
const PATIENCE: Duration = Duration::from_secs(600);

const TCP_BUFFER: usize = 65_535;

fn instant(now: Time) -> Instant {
    Instant::from_micros(i64::try_from(now.0 / 1000).expect("virtual time is short"))
}

impl Guest {
    /// A host that has just come up.
    pub fn new(spec: &GuestSpec, seed: u64, now: Time) -> Guest {
        let mut card = Card { received: VecDeque::new(), sent: Vec::new(), mtu: spec.mtu };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(spec.mac.0)));
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut card, instant(now));
        interface.update_ip_addrs(|list| {
            let link_local = (IpAddr::from(spec.mac.link_local()), 64);
            for (address, len) in spec.addresses.iter().copied().chain([link_local]) {
                list.push(IpCidr::new(IpAddress::from(address), len)).expect("few addresses");
            }
        });
        for gateway in &spec.gateways {
            let routes = interface.routes_mut();
            let added = match *gateway {
                IpAddr::V4(gateway) => routes.add_default_ipv4_route(gateway),
                IpAddr::V6(gateway) => routes.add_default_ipv6_route(gateway),
            };
            added.expect("two routes at most");
        }
        Guest {
            interface,
            card,
            sockets: SocketSet::new(Vec::new()),
            apps: Vec::new(),
            dhcp: None,
            offloads: spec.offloads,
            next_poll: Some(now),
        }
    }

    /// Whether its card takes superframes and checksums to be done.
    pub fn offloads(&self) -> bool {
        self.offloads
    }

    /// A frame arrives at its card.
    pub fn receive(&mut self, packet: &Packet) {
        self.card.received.extend(packet.plain_frames());
    }

    /// When it next wants to be polled.
    pub fn poll_at(&self) -> Option<Time> {
        if self.card.received.is_empty() { self.next_poll } else { Some(Time::ZERO) }
    }

    /// Lets it work; what its card sends.
    pub fn poll(&mut self, now: Time) -> Vec<Packet> {
        let at = instant(now);
        loop {
            self.interface.poll(at, &mut self.card, &mut self.sockets);
            let mut worked = self.work_dhcp();
            for app in &mut self.apps {
                worked |= app.work(&mut self.sockets);
            }
            if !worked {
                break;
            }
        }
        // What the stack puts off for less than it can tell is not worth a turn of its own.
        self.next_poll = self.interface.poll_at(at, &self.sockets).map(|due| {
            Time(due.total_micros().unsigned_abs() * 1000).max(now + Duration::from_micros(50))
        });
        let sent = std::mem::take(&mut self.card.sent);
        if self.offloads { coalesce(sent) } else { sent.into_iter().map(Packet::from).collect() }
    }

    fn add(&mut self, app: App) -> AppId {
        self.apps.push(app);
        // A new program has something to say.
        self.next_poll = Some(Time::ZERO);
        AppId(self.apps.len() - 1)
    }

    fn tcp_socket() -> tcp::Socket<'static> {
        let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_timeout(Some(PATIENCE.into()));
        socket
    }

    /// Waits for one connection, to say `say` on it and to close once the other side has.
    pub fn listen(&mut self, port: u16, say: Vec<u8>) -> AppId {
        let mut socket = Guest::tcp_socket();
        socket.listen(port).expect("a port is not 0");
        let handle = self.sockets.add(socket);
        self.add(App::Talk(Talk::new(handle, say, true, true)))
    }

    /// Connects, to say `say` and, where `close`, to close behind it.
    pub fn connect(&mut self, from: u16, to: (IpAddr, u16), say: Vec<u8>, close: bool) -> AppId {
        let mut socket = Guest::tcp_socket();
        let remote = (IpAddress::from(to.0), to.1);
        socket.connect(self.interface.context(), remote, from).expect("a route and a free socket");
        let handle = self.sockets.add(socket);
        self.add(App::Talk(Talk::new(handle, say, close, false)))
    }

    /// Closes a connection once all is said.
    pub fn close(&mut self, id: AppId) {
        if let App::Talk(talk) = &mut self.apps[id.0] {
            talk.close = true;
            self.next_poll = Some(Time::ZERO);
        }
    }

    /// How a connection stands, for a failing scenario to tell.
    pub fn state(&self, id: AppId) -> String {
        let talk = self.talk(id);
        let socket = self.sockets.get::<tcp::Socket<'_>>(talk.handle);
        let Talk { said, heard, finished, close, .. } = talk;
        let (heard, unsent) = (heard.len(), socket.send_queue());
        format!(
            "{}, said {said}, {unsent} unacknowledged, heard {heard}, {finished} {close}",
            socket.state()
        )
    }

    /// A connection.
    pub fn talk(&self, id: AppId) -> &Talk {
        match &self.apps[id.0] {
            App::Talk(talk) => talk,
            _ => panic!("not a connection"),
        }
    }

    /// Whether a connection is neither refused, reset nor over.
    pub fn is_open(&self, id: AppId) -> bool {
        self.sockets.get::<tcp::Socket<'_>>(self.talk(id).handle).is_open()
    }

    /// Ends a connection with a reset.
    pub fn reset(&mut self, id: AppId) {
        let handle = self.talk(id).handle;
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).abort();
        self.next_poll = Some(Time::ZERO);
    }

    /// Reads no more of a connection, or goes on.
    pub fn pause(&mut self, id: AppId, paused: bool) {
        if let App::Talk(talk) = &mut self.apps[id.0] {
            talk.paused = paused;
            self.next_poll = Some(Time::ZERO);
        }
    }

    /// Opens a UDP port, which answers with the same bytes where `echo`.
    pub fn bind(&mut self, port: u16, echo: bool) -> AppId {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 1 << 16]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).expect("a port is not 0");
        let handle = self.sockets.add(socket);
        self.add(App::Datagrams { handle, echo, inbox: Vec::new() })
    }

    /// Sends a datagram; what finds no room is lost, as UDP is.
    pub fn send(&mut self, id: AppId, to: (IpAddr, u16), payload: &[u8]) {
        let App::Datagrams { handle, .. } = &self.apps[id.0] else { panic!("not a UDP port") };
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(*handle);
        let to = IpEndpoint::from((IpAddress::from(to.0), to.1));
        let _ = socket.send_slice(payload, to);
        self.next_poll = Some(Time::ZERO);
    }

    /// The datagrams that came in so far, each with its sender.
    pub fn inbox(&self, id: AppId) -> &[(IpEndpoint, Vec<u8>)] {
        match &self.apps[id.0] {
            App::Datagrams { inbox, .. } => inbox,
            _ => panic!("not a UDP port"),
        }
    }

    /// A program that pings, under an identifier of its own.
    pub fn pinger(&mut self, ident: u16) -> AppId {
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 64], vec![0; 1 << 14]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(ident)).expect("bound once");
        let handle = self.sockets.add(socket);
        self.add(App::Ping { handle, ident, replies: Vec::new() })
    }

    /// Sends an echo request.
    pub fn ping(&mut self, id: AppId, to: IpAddr, seq_no: u16, data: &[u8]) {
        let App::Ping { handle, ident, .. } = self.apps[id.0] else { panic!("not a pinger") };
        let sums = ChecksumCapabilities::default();
        let from = match to {
            IpAddr::V6(to) => Some(self.interface.get_source_address_ipv6(&to)),
            IpAddr::V4(_) => None,
        };
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(handle);
        match to {
            IpAddr::V4(_) => {
                let repr = Icmpv4Repr::EchoRequest { ident, seq_no, data };
                if let Ok(buffer) = socket.send(repr.buffer_len(), to.into()) {
                    repr.emit(&mut Icmpv4Packet::new_unchecked(buffer), &sums);
                }
            }
            IpAddr::V6(to) => {
                let repr = Icmpv6Repr::EchoRequest { ident, seq_no, data };
                let from = from.expect("chosen for this family");
                if let Ok(buffer) = socket.send(repr.buffer_len(), to.into()) {
                    repr.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(buffer), &sums);
                }
            }
        }
        self.next_poll = Some(Time::ZERO);
    }

    /// Ends a program without a word. One whose first datagram finds no neighbor waits for it forever, all its others
    /// behind it, and looks it up again and again, which slows every look-up of the host.
    pub fn end(&mut self, id: AppId) {
        match std::mem::replace(&mut self.apps[id.0], App::Ended) {
            App::Ping { handle, .. }
            | App::Datagrams { handle, .. }
            | App::Talk(Talk { handle, .. }) => {
                self.sockets.remove(handle);
            }
            App::Ended => panic!("nothing ends twice"),
        }
    }

    /// The echo replies that came in so far: from whom, and which.
    pub fn replies(&self, id: AppId) -> &[(IpAddr, u16)] {
        match &self.apps[id.0] {
            App::Ping { replies, .. } => replies,
            _ => panic!("not a pinger"),
        }
    }
}

impl Talk {
    fn new(handle: SocketHandle, say: Vec<u8>, close: bool, second: bool) -> Talk {
        let (heard, finished, established) = (Vec::new(), false, false);
        let (peer, paused) = (None, false);
        Talk { handle, say, said: 0, close, second, heard, finished, established, peer, paused }
    }

    fn work(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let mut worked = false;
        self.established |= socket.may_send();
        let remote = socket.remote_endpoint().map(|end| (end.addr.into(), end.port));
        self.peer = self.peer.or(remote);
        while socket.can_recv() && !self.paused {
            let took = socket.recv(|bytes| {
                self.heard.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            });
            if took.is_err() || took == Ok(0) {
                break;
            }
            worked = true;
        }
        if self.established && !socket.may_recv() && !self.finished && !self.paused {
            self.finished = true;
            worked = true;
        }
        if socket.can_send() && self.said < self.say.len() {
            let sent = socket.send_slice(&self.say[self.said..]).unwrap_or(0);
            self.said += sent;
            worked |= sent > 0;
        }
        let due = self.close && (self.finished || !self.second);
        if due && self.established && self.said == self.say.len() && socket.may_send() {
            socket.close();
            worked = true;
        }
        worked
    }
}

impl App {
    /// Moves what can be moved; whether anything was.
    fn work(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        match self {
            App::Ended => false,
            App::Talk(talk) => talk.work(sockets),
            App::Datagrams { handle, echo, inbox } => {
                let socket = sockets.get_mut::<udp::Socket<'_>>(*handle);
                let mut worked = false;
                while let Ok((bytes, meta)) = socket.recv() {
                    let (bytes, from) = (bytes.to_vec(), meta.endpoint);
                    if *echo {
                        let _ = socket.send_slice(&bytes, from);
                    }
                    inbox.push((from, bytes));
                    worked = true;
                }
                worked
            }
            App::Ping { handle, replies, .. } => {
                let socket = sockets.get_mut::<icmp::Socket<'_>>(*handle);
                let mut worked = false;
                while let Ok((bytes, from)) = socket.recv() {
                    // Echo reply: type 0 in ICMP, 129 in ICMPv6; the sequence number lies at 6 in both.
                    if let [0 | 129, 0, _, _, _, _, s0, s1, ..] = *bytes {
                        replies.push((from.into(), u16::from_be_bytes([s0, s1])));
                    }
                    worked = true;
                }
                worked
            }
        }
    }
}

struct Card {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    mtu: usize,
}

struct Incoming(Vec<u8>);

struct Outgoing<'c>(&'c mut Vec<Vec<u8>>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Incoming(frame), Outgoing(&mut self.sent)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}
