//! The world: a switch, the stations on its ports, and a clock that only they move.
//!
//! Time jumps from one thing that is due to the next: a frame's arrival, a guest's timer, the switch's. At each instant the
//! world does what the IO edge's loop does: it hands every port's frames to the switch in bounded batches, sends what the
//! outbox says, finishing for each port what that port cannot take, and calls the timers. After every step it checks what
//! must always hold ([`crate::checks`]), and compares what is delivered with an independent idea of it
//! ([`crate::packet`]).
//!
//! All chance comes from one seed, so a seed replays a run to the last byte: [`World::trace`] is a hash of all that
//! happened. The seed is printed when a run fails.

mod books;
mod eyes;
mod sending;
mod sockets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use portolan_nat::sockets::host::{Ready, SocketId};
use portolan_switch::command::{Command, Event};
use portolan_switch::datapath::Datapath;
use portolan_switch::drops::DropReason;
use portolan_switch::frame::{Frame, FrameTable, HEADROOM};
use portolan_switch::ids::{NetworkId, PortId, Time};
use portolan_switch::outbox::{Entry, Outbox};
use portolan_switch::turn::Turn;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::checks;
use crate::guest::{Guest, GuestSpec};
use crate::host::SimHost;
use crate::model::Model;
use crate::packet::Packet;
use crate::wire::Wire;
use eyes::Eyes;

/// Frames one port may hand over at once, as in the IO edge.
const BATCH: usize = 64;

/// Bytes in which the switch makes frames of its own in one turn.
const ARENA: usize = 1 << 18;

/// Frames that may wait in a port's receive ring.
const RING: usize = 1024;

/// Steps within one instant before it counts as a loop that never ends.
const STUCK: u32 = 10_000;

/// How often the forwarding databases are read in full: every that many steps.
const STATIONS_EVERY: u64 = 64;

/// What a port's device can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortOptions {
    /// The wire to its station.
    pub wire: Wire,
    /// Whether it takes superframes and checksums to be done.
    pub offloads: bool,
    /// Whether superframes of UDP are among them, which older kernels cannot say of a TAP device.
    pub uso: bool,
    /// Largest packet it takes.
    pub mtu: usize,
    /// Frames that may be on the way to its station.
    pub queue: usize,
}

impl Default for PortOptions {
    fn default() -> PortOptions {
        PortOptions { wire: Wire::default(), offloads: false, uso: true, mtu: 1500, queue: 4096 }
    }
}

/// Who sits at the far end of a wire.
enum Station {
    Guest(Box<Guest>),
    /// Nobody: what arrives is kept for the scenario to look at.
    Tap(Vec<Packet>),
}

struct Socket {
    options: PortOptions,
    station: Station,
    ring: VecDeque<Packet>,
    on_the_way: usize,
}

enum Arrival {
    AtSwitch(PortId, Packet),
    AtStation(PortId, Packet),
}

/// A switch and all that is plugged into it.
pub struct World {
    /// The switch.
    pub datapath: Datapath,
    /// What is attached.
    pub model: Model,
    /// The host, and all outside.
    pub host: SimHost,
    /// Sockets of which more is to be done than one turn did.
    again: Vec<(SocketId, Ready)>,
    seed: u64,
    /// Whether every frame is printed.
    shows: bool,
    random: ChaCha8Rng,
    now: Time,
    sockets: BTreeMap<PortId, Socket>,
    arrivals: BTreeMap<(Time, u64), Arrival>,
    arrived: u64,
    steps: u64,
    at_this_instant: u32,
    trace: u64,
    /// Dropped in networks that have ended.
    gone: u64,
    /// Dropped by the world in the IO edge's place.
    edge: u64,
    /// Frames that wires lost.
    pub lost: u64,
    events: Vec<Event>,
    commits: u64,
    eyes: Option<Eyes>,
}

/// The seed of this run: `PORTOLAN_SEED` where it is set, else `given`.
pub fn seed_or(given: u64) -> u64 {
    match std::env::var("PORTOLAN_SEED") {
        Ok(text) => text.parse().expect("PORTOLAN_SEED is a number"),
        Err(_) => given,
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, now) = (self.seed, self.now.0);
            eprintln!("the simulator failed with seed {seed} at {now} ns of its time");
            eprintln!("replay: PORTOLAN_SEED={seed} cargo test -p portolan-tests TEST_NAME");
            eprintln!(
                "PORTOLAN_SHOW=1 shows every frame that reaches the switch (<) or a station (>)"
            );
            eprintln!("dropped: {:?}", self.all_drops());
        }
    }
}

impl World {
    /// An empty world.
    pub fn new(seed: u64) -> World {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        World {
            datapath: Datapath::new(random.next_u64()),
            model: Model::default(),
            host: SimHost::new(seed),
            again: Vec::new(),
            seed,
            shows: std::env::var_os("PORTOLAN_SHOW").is_some(),
            random,
            now: Time::ZERO,
            sockets: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            arrived: 0,
            steps: 0,
            at_this_instant: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            gone: 0,
            edge: 0,
            lost: 0,
            events: Vec::new(),
            commits: 0,
            eyes: None,
        }
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The source of all chance.
    pub fn random(&mut self) -> &mut ChaCha8Rng {
        &mut self.random
    }

    /// A hash of all that has happened.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    fn note(&mut self, what: u8, port: PortId, bytes: &[u8]) {
        if self.shows {
            let head = &bytes[..bytes.len().min(80)];
            let (now, what) = (self.now.0, char::from(what));
            eprintln!("{now} {what} port {} {} bytes {head:02x?}", port.0, bytes.len());
        }
        let head = [self.now.0.to_le_bytes(), u64::from(port.0).to_le_bytes()].concat();
        for byte in [what].iter().chain(&head).chain(bytes) {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    /// Gives the switch commands and commits them.
    pub fn apply(&mut self, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            assert!(!matches!(command, Command::Commit(_)), "the world commits");
            self.model.apply(command.clone());
            self.datapath.apply(command, self.now);
        }
        // What a network has dropped is not to be read off it any more once it has ended.
        let drops_of = |id: &NetworkId| (*id, checks::drops_of(&self.datapath, *id, self.now));
        let before: Vec<(NetworkId, u64)> = self.model.networks.keys().map(drops_of).collect();
        self.commits += 1;
        self.model.apply(Command::Commit(self.commits));
        self.datapath.apply(Command::Commit(self.commits), self.now);
        let ended = before.iter().filter(|(id, _)| !self.model.networks.contains_key(id));
        self.gone += ended.map(|(_, drops)| drops).sum::<u64>();
        self.collect_events();
        let committed = self.events.last();
        assert_eq!(committed, Some(&Event::Committed(self.commits)), "a commit is told of");
        self.check();
    }

    /// The switch dies, and another one begins with nothing but `commands`. The wires stay, and what is on them.
    pub fn restart(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.look_away();
        self.datapath = Datapath::new(self.random.next_u64());
        self.model = Model::default();
        (self.host, self.again) = (SimHost::new(self.random.next_u64()), Vec::new());
        (self.gone, self.edge) = (0, 0);
        self.apply(commands);
    }

    /// Plugs a host into a port, attached or not.
    pub fn plug_guest(&mut self, port: PortId, spec: &GuestSpec, options: PortOptions) {
        let seed = self.random.next_u64();
        let guest = Guest::new(spec, seed, self.now);
        let options = PortOptions { offloads: spec.offloads, ..options };
        self.plug(port, Station::Guest(Box::new(guest)), options);
    }

    /// Plugs nobody into a port: the scenario speaks for it with [`World::send`] and reads [`World::received`].
    pub fn plug_tap(&mut self, port: PortId, options: PortOptions) {
        self.plug(port, Station::Tap(Vec::new()), options);
    }

    fn plug(&mut self, port: PortId, station: Station, options: PortOptions) {
        let socket = Socket { options, station, ring: VecDeque::new(), on_the_way: 0 };
        assert!(self.sockets.insert(port, socket).is_none(), "port {} is taken", port.0);
    }

    /// Takes a station away, with all that is on its wire.
    pub fn unplug(&mut self, port: PortId) {
        self.sockets.remove(&port).expect("plugged in");
        self.arrivals.retain(|_, arrival| match arrival {
            Arrival::AtSwitch(at, _) | Arrival::AtStation(at, _) => *at != port,
        });
    }

    /// The host at a port.
    pub fn guest(&mut self, port: PortId) -> &mut Guest {
        match &mut self.sockets.get_mut(&port).expect("plugged in").station {
            Station::Guest(guest) => guest,
            Station::Tap(_) => panic!("nobody at port {}", port.0),
        }
    }

    /// Changes the wire of a port.
    pub fn rewire(&mut self, port: PortId, change: impl FnOnce(&mut PortOptions)) {
        change(&mut self.sockets.get_mut(&port).expect("plugged in").options);
    }

    /// Whether a port has a station.
    pub fn is_plugged(&self, port: PortId) -> bool {
        self.sockets.contains_key(&port)
    }

    /// A station sends a frame, which reaches the switch in the next step, no wire being in its way.
    pub fn send(&mut self, port: PortId, packet: impl Into<Packet>) {
        assert!(self.sockets.contains_key(&port), "nothing in port {}", port.0);
        let key = self.next_key(self.now);
        self.arrivals.insert(key, Arrival::AtSwitch(port, packet.into()));
    }

    /// As [`World::send`], by the wire of the port: what it loses is lost.
    pub fn send_by_wire(&mut self, port: PortId, packet: impl Into<Packet>) {
        let (packet, wire) = (packet.into(), self.sockets[&port].options.wire);
        match wire.carry(self.now, &mut self.random) {
            Some(at) => {
                let key = self.next_key(at);
                self.arrivals.insert(key, Arrival::AtSwitch(port, packet));
            }
            None => self.lost += packet.segments(),
        }
    }

    /// Takes what has arrived where nobody sits.
    pub fn received(&mut self, port: PortId) -> Vec<Packet> {
        match &mut self.sockets.get_mut(&port).expect("plugged in").station {
            Station::Tap(packets) => std::mem::take(packets),
            Station::Guest(_) => panic!("a host sits at port {}", port.0),
        }
    }

    fn next_key(&mut self, at: Time) -> (Time, u64) {
        self.arrived += 1;
        (at, self.arrived)
    }

    /// When something is due.
    fn next_due(&self) -> Option<Time> {
        let waiting = self.sockets.values().any(|socket| !socket.ring.is_empty());
        let guests = self.sockets.values().filter_map(|socket| match &socket.station {
            Station::Guest(guest) => guest.poll_at(),
            Station::Tap(_) => None,
        });
        let arrival = self.arrivals.keys().next().map(|(at, _)| *at);
        let timeout = self.datapath.poll_timeout();
        let due = guests.chain(arrival).chain(timeout).chain(self.host.next_due()).min();
        let waiting = waiting || !self.again.is_empty();
        if waiting { Some(self.now) } else { due.map(|at| at.max(self.now)) }
    }

    /// Does all that is due next, if it is due by `until`. False where nothing is.
    pub fn step(&mut self, until: Time) -> bool {
        let Some(due) = self.next_due().filter(|due| *due <= until) else {
            return false;
        };
        self.at_this_instant = if due > self.now { 0 } else { self.at_this_instant + 1 };
        assert!(self.at_this_instant < STUCK, "time stands still at {due:?}");
        self.now = due;
        self.steps += 1;
        self.arrive();
        self.poll_guests();
        self.poll_ports();
        self.poll_sockets();
        self.poll_timers();
        self.collect_events();
        self.watch();
        self.check();
        true
    }

    /// Lets time pass.
    pub fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until) {}
        self.now = until;
        self.at_this_instant = 0;
    }

    /// Lets time pass until `done`, at most `span`; whether it came to that.
    pub fn run_until(&mut self, span: Duration, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let until = self.now + span;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(until) {
                self.now = until;
                self.at_this_instant = 0;
                return done(self);
            }
        }
    }

    fn arrive(&mut self) {
        while let Some(entry) = self.arrivals.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            match entry.remove() {
                Arrival::AtSwitch(port, packet) => {
                    self.note(b'<', port, &packet.bytes);
                    let socket = self.sockets.get_mut(&port).expect("unplugging clears the wire");
                    if socket.ring.len() < RING {
                        socket.ring.push_back(packet);
                    } else {
                        self.edge_drop(port, DropReason::RingOverflow, packet.segments());
                    }
                }
                Arrival::AtStation(port, packet) => {
                    self.note(b'>', port, &packet.bytes);
                    let socket = self.sockets.get_mut(&port).expect("unplugging clears the wire");
                    socket.on_the_way -= 1;
                    match &mut socket.station {
                        Station::Guest(guest) => guest.receive(&packet),
                        Station::Tap(packets) => packets.push(packet),
                    }
                }
            }
        }
    }

    fn poll_guests(&mut self) {
        let mut sent = Vec::new();
        for (port, socket) in &mut self.sockets {
            let Station::Guest(guest) = &mut socket.station else { continue };
            if guest.poll_at().is_some_and(|at| at <= self.now) {
                let packets = guest.poll(self.now);
                sent.extend(packets.into_iter().map(|packet| (*port, socket.options.wire, packet)));
            }
        }
        for (port, wire, packet) in sent {
            match wire.carry(self.now, &mut self.random) {
                Some(at) => {
                    let key = self.next_key(at);
                    self.arrivals.insert(key, Arrival::AtSwitch(port, packet));
                }
                None => self.lost += packet.segments(),
            }
        }
    }

    /// Each port in turn hands over a bounded batch, until all rings are empty.
    fn poll_ports(&mut self) {
        loop {
            let ready: BTreeSet<PortId> = self
                .sockets
                .iter()
                .filter(|(_, socket)| !socket.ring.is_empty())
                .map(|(port, _)| *port)
                .collect();
            if ready.is_empty() {
                break;
            }
            for port in ready {
                let most = self.random.random_range(1..=BATCH);
                let ring = &mut self.sockets.get_mut(&port).expect("ready").ring;
                let batch: Vec<Packet> = ring.drain(..most.min(ring.len())).collect();
                self.handle(port, batch);
            }
        }
    }

    fn handle(&mut self, port: PortId, batch: Vec<Packet>) {
        self.ask(port, &batch);
        let room = |packet: &Packet| vec![0; HEADROOM + packet.bytes.len()];
        let mut buffers: Vec<Vec<u8>> = batch.iter().map(room).collect();
        let mut arena = vec![0xa5; ARENA];
        let mut table = FrameTable::new(&mut arena);
        for (packet, buffer) in batch.iter().zip(&mut buffers) {
            buffer[HEADROOM..].copy_from_slice(&packet.bytes);
            let mut frame = Frame::new(buffer, HEADROOM, packet.bytes.len());
            frame.offload = packet.offload;
            frame.vlan = packet.vlan;
            table.push(frame);
        }
        let mut outbox = Outbox::default();
        let before = self.datapath.totals();
        let mut random = ChaCha8Rng::seed_from_u64(self.random.next_u64());
        let mut turn = Turn {
            frames: &mut table,
            outbox: &mut outbox,
            host: &mut self.host,
            random: &mut random,
        };
        self.datapath.handle_batch(port, &mut turn, self.now);
        let fed: u64 = batch.iter().map(Packet::segments).sum();
        if let Some(seen) = self.model.seen.get_mut(&port) {
            seen.rx += fed;
        }
        let after = self.datapath.totals();
        assert_eq!(after.received - before.received, fed, "frames received");
        let network = self.model.network_of(port);
        for Entry { port: to, frame: idx, .. } in outbox.entries() {
            let network = network.expect("a port without a network makes the switch send nothing");
            assert_eq!(self.model.network_of(*to), Some(network), "isolation, port {}", port.0);
            assert!(usize::from(idx.0) >= batch.len() || *to != port, "back to its sender");
        }
        self.flush(Some((port, &batch)), &mut table, &mut outbox, after.sent - before.sent);
    }

    /// One turn without frames of its own.
    fn turn<R>(&mut self, step: impl FnOnce(&mut Datapath, &mut Turn<'_, '_>, Time) -> R) -> R {
        let mut arena = vec![0xa5; ARENA];
        let mut table = FrameTable::new(&mut arena);
        let mut outbox = Outbox::default();
        let before = self.datapath.totals();
        let mut random = ChaCha8Rng::seed_from_u64(self.random.next_u64());
        let mut turn = Turn {
            frames: &mut table,
            outbox: &mut outbox,
            host: &mut self.host,
            random: &mut random,
        };
        let result = step(&mut self.datapath, &mut turn, self.now);
        let sent = self.datapath.totals().sent - before.sent;
        self.flush(None, &mut table, &mut outbox, sent);
        result
    }

    fn poll_timers(&mut self) {
        let Some(due) = self.datapath.poll_timeout().filter(|due| *due <= self.now) else {
            return;
        };
        self.turn(|datapath, turn, now| datapath.handle_timeout(turn, now));
        let next = self.datapath.poll_timeout();
        let progress = next.is_none_or(|next| next > self.now);
        assert!(progress, "due at {due:?}, and again at {next:?}, at {:?}", self.now);
    }

    fn collect_events(&mut self) {
        while let Some(event) = self.datapath.poll_event() {
            self.events.push(event);
        }
    }

    fn check(&self) {
        checks::balance(&self.datapath, &self.model, self.gone, self.edge, self.now);
        if self.steps.is_multiple_of(STATIONS_EVERY) {
            checks::stations(&self.datapath, &self.model, self.now);
        }
    }

    /// Checks all that must hold, the slow checks too.
    pub fn check_all(&self) {
        self.check();
        checks::stations(&self.datapath, &self.model, self.now);
    }

    /// The events since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}
