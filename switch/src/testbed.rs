//! A datapath on a bench: networks and ports by number, frames in by port, frames out by port, virtual time.
//!
//! Every batch ends with the balance of frames checked. The host's sockets are played by [`Outside`], which takes everything
//! and says what it is told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use portolan_dhcp::lending::PROBE_GAP;
use portolan_nat::sockets::host::{
    Accepted, Complaint, Failure, Host, Incoming, Outgoing, Ready, SendRoom, SocketId,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::command::{
    Answer, Carriage, Command, Conduct, Egress, HostSpec, Limits, NetworkSpec, PortCounters,
    PortSpec, Query, ServiceSpec,
};
use crate::datapath::Datapath;
use crate::drops::DropReason;
use crate::frame::{Frame, FrameTable, HEADROOM, Offload, VlanTag};
use crate::ids::{MacAddr, NetworkId, NodeId, PortId, Time};
use crate::offload::shift;
use crate::outbox::{Entry, Outbox};
use crate::turn::Turn;

mod frames;

pub use frames::{arp, datagram, dns_query, icmpv6, neighbor, packet, plain, raw, solicited_node};

/// The gateway's addresses on every network of the bench.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 1]);

/// The hardware address of the endpoint at a port.
pub fn mac(port: u32) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 1, u8::try_from(port).unwrap()])
}

/// The addresses of the endpoint at a port, in the subnets of the gateway's.
pub fn v4(port: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(GATEWAY_V4) + 0x100 + port)
}

pub fn v6(port: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(GATEWAY_V6) + 0x100 + u128::from(port))
}

/// A frame as a wire would deliver it.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub bytes: Vec<u8>,
    pub offload: Offload,
    pub vlan: Option<VlanTag>,
}

impl From<Vec<u8>> for Sent {
    fn from(bytes: Vec<u8>) -> Sent {
        Sent { bytes, ..Sent::default() }
    }
}

/// Sockets of a host that takes everything, remembers it, and has to tell what a test gave it.
#[derive(Debug, Default)]
pub struct Outside {
    made: u64,
    /// All that are open now.
    pub open: BTreeSet<SocketId>,
    /// Connections that were begun, and whereto.
    pub connects: Vec<(SocketId, SocketAddr)>,
    /// Datagrams that were sent.
    pub sent: Vec<(SocketId, Outgoing, Vec<u8>)>,
    /// Who waits at a listener, whichever it is: from where, to where.
    pub callers: VecDeque<(SocketAddr, SocketAddr)>,
    /// What the next calls fail with; all succeed behind these.
    pub failures: VecDeque<Option<Failure>>,
    /// Connections that were reset.
    pub resets: Vec<SocketId>,
    /// Connections that are made, and what has come by them.
    pub streams: BTreeMap<SocketId, Vec<u8>>,
    /// What was sent by connections.
    pub written: BTreeMap<SocketId, Vec<u8>>,
    /// What has come, by socket.
    pub waiting: BTreeMap<SocketId, VecDeque<(Incoming, Vec<u8>)>>,
}

impl Outside {
    fn make(&mut self) -> SocketId {
        self.made += 1;
        let socket = SocketId(self.made);
        self.open.insert(socket);
        socket
    }

    /// A datagram comes to a socket.
    pub fn arrive(&mut self, socket: SocketId, from: SocketAddr, payload: &[u8]) {
        let incoming = Incoming {
            from,
            to: if from.is_ipv4() { [192, 0, 2, 1].into() } else { Ipv6Addr::LOCALHOST.into() },
            len: payload.len(),
            hop_limit: Some(60),
            traffic_class: 0,
            segment: None,
            truncated: false,
        };
        self.waiting.entry(socket).or_default().push_back((incoming, payload.to_vec()));
    }

    /// What the next call that may fail comes to.
    fn chance(&mut self) -> Result<(), Failure> {
        self.failures.pop_front().flatten().map_or(Ok(()), Err)
    }

    /// As [`Outside::chance`] for a call on a socket, which is open.
    fn used(&mut self, socket: SocketId) -> Result<(), Failure> {
        self.assert_open(socket);
        self.chance()
    }

    /// Nothing is asked of a socket that was closed. Those behind publications are not of our making.
    fn assert_open(&self, socket: SocketId) {
        let given_out = socket.0 <= self.made;
        assert!(!given_out || self.open.contains(&socket), "{socket:?} was closed");
    }

    /// Where the datagrams went, in order.
    pub fn receivers(&self) -> Vec<SocketAddr> {
        self.sent.iter().map(|(_, outgoing, _)| outgoing.to).collect()
    }
}

impl Host for Outside {
    fn connect(&mut self, to: SocketAddr) -> Result<SocketId, Failure> {
        self.chance()?;
        let socket = self.make();
        self.connects.push((socket, to));
        Ok(socket)
    }

    fn connected(&mut self, socket: SocketId) -> Result<(), Failure> {
        self.used(socket)?;
        if self.streams.contains_key(&socket) { Ok(()) } else { Err(Failure::WouldBlock) }
    }

    fn accept(&mut self, _listener: SocketId) -> Result<Accepted, Failure> {
        self.chance()?;
        let (peer, _) = self.callers.pop_front().ok_or(Failure::WouldBlock)?;
        Ok(Accepted { socket: self.make(), peer })
    }

    fn send(&mut self, socket: SocketId, parts: &[&[u8]]) -> Result<usize, Failure> {
        self.used(socket)?;
        self.written.entry(socket).or_default().extend(parts.concat());
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn send_room(&mut self, _socket: SocketId) -> SendRoom {
        SendRoom { bytes: 1 << 16, buffer: 1 << 16 }
    }

    fn peek(&mut self, socket: SocketId, skip: usize, room: &mut [u8]) -> Result<usize, Failure> {
        self.used(socket)?;
        let come = self.streams.get(&socket).and_then(|come| come.get(skip..));
        let come = come.filter(|come| !come.is_empty()).ok_or(Failure::WouldBlock)?;
        let len = come.len().min(room.len());
        room[..len].copy_from_slice(&come[..len]);
        Ok(len)
    }

    fn discard(&mut self, socket: SocketId, count: usize) -> Result<(), Failure> {
        self.used(socket)?;
        self.streams.entry(socket).or_default().drain(..count);
        Ok(())
    }

    fn finish(&mut self, socket: SocketId) -> Result<(), Failure> {
        self.used(socket)
    }

    fn reset(&mut self, socket: SocketId) {
        self.assert_open(socket);
        self.open.remove(&socket);
        self.resets.push(socket);
    }

    fn close(&mut self, socket: SocketId) {
        self.assert_open(socket);
        self.open.remove(&socket);
    }

    fn datagrams(&mut self, _ipv6: bool) -> Result<SocketId, Failure> {
        self.chance()?;
        Ok(self.make())
    }

    fn pings(&mut self, _ipv6: bool) -> Result<SocketId, Failure> {
        self.chance()?;
        Ok(self.make())
    }

    fn send_to(
        &mut self,
        socket: SocketId,
        outgoing: &Outgoing,
        payload: &[u8],
    ) -> Result<(), Failure> {
        self.used(socket)?;
        self.sent.push((socket, *outgoing, payload.to_vec()));
        Ok(())
    }

    fn receive_from(&mut self, socket: SocketId, room: &mut [u8]) -> Result<Incoming, Failure> {
        self.used(socket)?;
        let next = self.waiting.get_mut(&socket).and_then(VecDeque::pop_front);
        let (incoming, payload) = next.ok_or(Failure::WouldBlock)?;
        room[..payload.len()].copy_from_slice(&payload);
        Ok(incoming)
    }

    fn complaint(&mut self, _socket: SocketId) -> Option<Complaint> {
        None
    }
}

pub struct Bench {
    pub datapath: Datapath,
    pub outside: Outside,
    pub now: Time,
    pub arena: usize,
    /// What the last turn put out as it lies on the wires: with the tag where an entry has one.
    pub wires: Vec<(u32, Vec<u8>, Offload)>,
    /// Ports whose wires take nothing, for that reason.
    pub refusing: Vec<(u32, DropReason)>,
    random: ChaCha8Rng,
    commits: u64,
}

impl Bench {
    /// A bench with nothing on it.
    pub fn bare() -> Bench {
        Bench {
            datapath: Datapath::new(7),
            outside: Outside::default(),
            now: Time(1_000_000_000),
            arena: 1 << 18,
            wires: Vec::new(),
            refusing: Vec::new(),
            random: ChaCha8Rng::seed_from_u64(7),
            commits: 0,
        }
    }

    /// Network 0 with ports 1 to `ports`, each of a node of its own.
    pub fn new(guard: bool, ports: u32) -> Bench {
        let mut bench = Bench::bare();
        bench.network(0, guard);
        (1..=ports).for_each(|port| bench.port(port, 0));
        bench
    }

    pub fn apply(&mut self, command: Command) {
        self.datapath.apply(command, self.now);
        self.commits += 1;
        self.datapath.apply(Command::Commit(self.commits), self.now);
    }

    pub fn network(&mut self, id: u32, guard: bool) {
        self.network_with(id, guard, Egress::default());
    }

    pub fn network_with(&mut self, id: u32, guard: bool, egress: Egress) {
        self.network_serving(id, guard, egress, ServiceSpec::default());
    }

    pub fn network_serving(&mut self, id: u32, guard: bool, egress: Egress, services: ServiceSpec) {
        self.network_that(id, |spec| {
            (spec.guard, spec.egress, spec.services) = (guard, egress, services)
        });
    }

    /// A network that is not guarded and leads nowhere, changed so.
    pub fn network_that(&mut self, id: u32, change: impl FnOnce(&mut NetworkSpec)) {
        let gateways = vec![
            IpNet::new(GATEWAY_V4.into(), 16).unwrap(),
            IpNet::new(GATEWAY_V6.into(), 64).unwrap(),
        ];
        let mut spec = NetworkSpec {
            id: NetworkId(id),
            zone: Some(format!("net{id}")),
            mac: GATEWAY_MAC,
            gateways,
            mtu: 1500,
            guard: false,
            egress: Egress::default(),
            carriage: Carriage::default(),
            services: ServiceSpec::default(),
        };
        change(&mut spec);
        self.apply(Command::CreateNetwork(spec));
    }

    /// Network 0 as [`Bench::new`] makes it, and a way out of it.
    pub fn leading_out(guard: bool, ports: u32, egress: Egress) -> Bench {
        let mut bench = Bench::bare();
        bench.apply(Command::SetLimits(Limits::default()));
        bench.network_with(0, guard, egress);
        (1..=ports).for_each(|port| bench.port(port, 0));
        bench
    }

    pub fn port(&mut self, id: u32, network: u32) {
        self.port_with(id, network, vec![v4(id).into(), v6(id).into()]);
    }

    pub fn port_with(&mut self, id: u32, network: u32, addresses: Vec<IpAddr>) {
        self.port_of(id, network, addresses, Conduct::default());
    }

    /// A port of network 0 that behaves so.
    pub fn port_that(&mut self, id: u32, conduct: Conduct) {
        self.port_of(id, 0, vec![v4(id).into(), v6(id).into()], conduct);
    }

    fn port_of(&mut self, id: u32, network: u32, addresses: Vec<IpAddr>, conduct: Conduct) {
        self.apply(Command::AttachPort(PortSpec {
            id: PortId(id),
            network: NetworkId(network),
            node: NodeId(id),
            mac: mac(id),
            addresses,
            conduct,
        }));
    }

    /// Sends one frame; what lies on which wires then.
    pub fn wired(&mut self, port: u32, frame: impl Into<Sent>) -> Vec<(u32, Vec<u8>)> {
        self.send(port, frame);
        self.wires.iter().map(|(port, bytes, _)| (*port, bytes.clone())).collect()
    }

    /// Gives the node of a port a name on network 0, which all nodes see.
    pub fn host(&mut self, node: u32, name: &str) {
        self.apply(Command::SetHost(HostSpec {
            network: NetworkId(0),
            node: NodeId(node),
            names: vec![name.into()],
            addresses: vec![v4(node).into(), v6(node).into()],
        }));
        self.apply(Command::SetView { node: NodeId(node), networks: vec![NetworkId(0)] });
    }

    /// Sends one frame; what comes out, in order.
    pub fn send(&mut self, port: u32, frame: impl Into<Sent>) -> Vec<(u32, Vec<u8>)> {
        self.batch(port, vec![frame.into()])
    }

    /// Sends frames in one batch; what comes out, in order.
    pub fn batch(&mut self, port: u32, frames: Vec<Sent>) -> Vec<(u32, Vec<u8>)> {
        self.turn(frames, |datapath, turn, now| datapath.handle_batch(PortId(port), turn, now))
    }

    /// A datagram comes to a socket of the host; what comes out.
    pub fn arrive(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
        payload: &[u8],
    ) -> Vec<(u32, Vec<u8>)> {
        self.outside.arrive(socket, from, payload);
        self.readable(socket)
    }

    /// Somebody calls at a listener; what comes out.
    pub fn call(
        &mut self,
        listener: SocketId,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Vec<(u32, Vec<u8>)> {
        self.outside.callers.push_back((from, to));
        self.readable(listener)
    }

    /// Something comes by a connection, which is made if it was not; what comes out.
    pub fn stream(&mut self, socket: SocketId, bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.outside.streams.entry(socket).or_default().extend(bytes);
        self.readable(socket)
    }

    fn readable(&mut self, socket: SocketId) -> Vec<(u32, Vec<u8>)> {
        let ready = Ready { readable: true, ..Ready::default() };
        let (out, more) = self.changed(socket, ready);
        assert!(!more, "nothing is left");
        out
    }

    /// Something has changed about a socket; what comes out, and whether more is to be done.
    pub fn changed(&mut self, socket: SocketId, ready: Ready) -> (Vec<(u32, Vec<u8>)>, bool) {
        let mut more = false;
        let out = self.turn(Vec::new(), |datapath, turn, now| {
            more = datapath.handle_socket(socket, ready, turn, now);
        });
        (out, more)
    }

    /// Lets `span` pass, and does what is due at its end.
    pub fn pass(&mut self, span: Duration) -> Vec<(u32, Vec<u8>)> {
        self.now = self.now + span;
        self.turn(Vec::new(), |datapath, turn, now| datapath.handle_timeout(turn, now))
    }

    /// Lets time pass until then, and does what is due.
    pub fn pass_until(&mut self, then: Time) -> Vec<(u32, Vec<u8>)> {
        self.pass(then.since(self.now))
    }

    /// Lets time pass until an address that was just asked for on the wire is known to be free: it is asked for twice more, of as
    /// many. What leaves then.
    pub fn wait_for_answers(&mut self) -> Vec<(u32, Vec<u8>)> {
        let again = self.pass(PROBE_GAP);
        assert_eq!(receivers(&self.pass(PROBE_GAP)), receivers(&again));
        self.pass(PROBE_GAP)
    }

    fn turn(
        &mut self,
        frames: Vec<Sent>,
        call: impl FnOnce(&mut Datapath, &mut Turn<'_, '_>, Time),
    ) -> Vec<(u32, Vec<u8>)> {
        let mut arena = vec![0xaa; self.arena];
        let mut slots: Vec<Vec<u8>> =
            frames.iter().map(|sent| [&[0; HEADROOM][..], &sent.bytes].concat()).collect();
        let mut table = FrameTable::new(&mut arena);
        for (slot, sent) in slots.iter_mut().zip(&frames) {
            let mut frame = Frame::new(slot, HEADROOM, sent.bytes.len());
            frame.offload = sent.offload;
            frame.vlan = sent.vlan;
            table.push(frame);
        }
        let mut outbox = Outbox::default();
        let mut turn = Turn {
            frames: &mut table,
            outbox: &mut outbox,
            host: &mut self.outside,
            random: &mut self.random,
        };
        call(&mut self.datapath, &mut turn, self.now);
        let totals = self.datapath.totals();
        assert!(totals.balanced(), "{totals:?}");
        let out = outbox.entries().iter();
        let wires = out.clone().map(|entry| on_wire(entry, table.get(entry.frame)));
        self.wires = wires.collect();
        for entry in outbox.entries() {
            let refused = self.refusing.iter().find(|(port, _)| *port == entry.port.0);
            let refused: Vec<_> = refused.iter().map(|(_, reason)| (0, *reason)).collect();
            self.datapath.show_sent(entry.port, &[*entry], &table, &refused, self.now);
        }
        out.map(|entry| (entry.port.0, table.get(entry.frame).bytes().to_vec())).collect()
    }

    pub fn counters(&self, port: u32) -> PortCounters {
        for network in 0..4 {
            let counters = Query::Counters(NetworkId(network));
            if let Answer::Counters { ports, .. } = self.datapath.query(&counters, self.now)
                && let Some(found) = ports.into_iter().find(|row| row.port == PortId(port))
            {
                return found;
            }
        }
        panic!("port {port} is on no network");
    }

    /// What was dropped of a port's frames: all that was, in order.
    pub fn drops(&self, port: u32) -> Vec<(DropReason, u64)> {
        self.counters(port).drops.nonzero().collect()
    }

    /// Sends a frame that is to be dropped for `reason`, and for nothing else.
    #[track_caller]
    pub fn refuses(&mut self, port: u32, frame: impl Into<Sent>, reason: DropReason) {
        let before = self.counters(port);
        let out = self.send(port, frame);
        assert_eq!(out, vec![], "{reason:?}");
        let mut expected = before.drops;
        expected.add(reason, 1);
        let struck: Vec<_> = self.counters(port).drops.nonzero().collect();
        assert_eq!(struck, expected.nonzero().collect::<Vec<_>>());
    }
}

/// A frame as the sender of its port puts it on the wire.
fn on_wire(entry: &Entry, frame: &Frame<'_>) -> (u32, Vec<u8>, Offload) {
    let (mut bytes, mut offload) = (frame.bytes().to_vec(), frame.offload);
    if let Some(tag) = frame.vlan.filter(|_| entry.tagged) {
        let tag = [tag.tpid.to_be_bytes(), tag.tci.to_be_bytes()].concat();
        bytes.splice(12..12, tag);
        shift(&mut offload, 4);
    }
    (entry.port.0, bytes, offload)
}

/// The receivers of what came out.
pub fn receivers(out: &[(u32, Vec<u8>)]) -> Vec<u32> {
    out.iter().map(|(port, _)| *port).collect()
}
