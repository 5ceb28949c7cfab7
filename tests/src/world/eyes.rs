//! Whoever looks on: captures of every network, and questions what would become of a frame. Neither may change anything,
//! and what captures record must be what was counted.

use std::collections::BTreeMap;

use portolan_switch::capture::{CaptureBuffer, CaptureId, CaptureSpec, Direction, Record, Scope};
use portolan_switch::command::{Answer, PortCounters, Query, Question};
use portolan_switch::drops::DropReason;
use portolan_switch::ids::{NetworkId, PortId};
use portolan_switch::offload::segments_of;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::World;
use crate::packet::Packet;

/// Buffers that a capture is lent.
const BUFFERS: usize = 3;

/// What captures have recorded of one port.
#[derive(Clone, Debug, Default)]
struct Recorded {
    rx: u64,
    tx: u64,
    dropped: BTreeMap<DropReason, u64>,
}

/// One capture that runs.
struct Watching {
    id: CaptureId,
    /// What had been counted when it began, of the ports there were.
    before: BTreeMap<PortId, PortCounters>,
    recorded: BTreeMap<PortId, Recorded>,
}

/// What looks on.
pub(super) struct Eyes {
    random: ChaCha8Rng,
    captures: u32,
    running: BTreeMap<NetworkId, Watching>,
    /// Ports of which a superframe was sent in part, which no record can say.
    blurred: Vec<PortId>,
}

impl World {
    /// From now on frames are captured and asked about at random.
    pub fn look_on(&mut self, seed: u64) {
        let random = ChaCha8Rng::seed_from_u64(seed);
        let (running, blurred) = (BTreeMap::new(), Vec::new());
        self.eyes = Some(Eyes { random, captures: 0, running, blurred });
    }

    /// A superframe was sent to a port in part.
    pub(super) fn blur(&mut self, port: PortId) {
        if let Some(eyes) = &mut self.eyes {
            eyes.blurred.push(port);
        }
    }

    fn ports_of(&self, network: NetworkId) -> BTreeMap<PortId, PortCounters> {
        self.counters(network).0.into_iter().map(|row| (row.port, row)).collect()
    }

    /// Starts and ends captures, and reads what they have.
    pub(super) fn watch(&mut self) {
        let Some(mut eyes) = self.eyes.take() else { return };
        while let Some((id, buffer)) = self.datapath.poll_capture(self.now) {
            let watching = eyes.running.values_mut().find(|watching| watching.id == id);
            watching.expect("it runs").read(&buffer);
            self.datapath.lend_to_capture(id, buffer).expect("it runs");
        }
        let networks: Vec<NetworkId> = self.model.networks.keys().copied().collect();
        let gone = eyes.running.extract_if(.., |network, _| !networks.contains(network));
        for (_, watching) in gone {
            self.datapath.end_capture(watching.id);
        }
        if !networks.is_empty() && eyes.random.random_ratio(1, 50) {
            let network = networks[eyes.random.random_range(0..networks.len())];
            if let Some(watching) = eyes.running.remove(&network) {
                self.end(watching, network, &eyes.blurred);
            } else if eyes.running.len() < 4 {
                eyes.captures += 1;
                let id = CaptureId(eyes.captures);
                let scope = Scope::Network(network);
                self.datapath.start_capture(CaptureSpec { id, scope, snaplen: 1 << 17 });
                for _ in 0..BUFFERS {
                    let lent = self.datapath.lend_to_capture(id, CaptureBuffer::default());
                    lent.expect("it runs");
                }
                let before = self.ports_of(network);
                let recorded = BTreeMap::new();
                eyes.running.insert(network, Watching { id, before, recorded });
            }
        }
        self.eyes = Some(eyes);
    }

    /// Ends all captures, and holds them against what was counted.
    pub fn look_away(&mut self) {
        let Some(eyes) = self.eyes.take() else { return };
        for (network, watching) in eyes.running {
            if self.model.networks.contains_key(&network) {
                self.end(watching, network, &eyes.blurred);
            }
        }
    }

    fn end(&mut self, mut watching: Watching, network: NetworkId, blurred: &[PortId]) {
        let ended = self.datapath.end_capture(watching.id).expect("it runs");
        ended.filled.iter().for_each(|buffer| watching.read(buffer));
        assert_eq!(ended.lost, [], "buffers are emptied after every step");
        for (port, now) in self.ports_of(network) {
            let none = PortCounters {
                port,
                rx_frames: 0,
                rx_bytes: 0,
                tx_frames: 0,
                tx_bytes: 0,
                drops: Default::default(),
                blocked: false,
            };
            let before = watching.before.get(&port).unwrap_or(&none);
            let recorded = watching.recorded.remove(&port).unwrap_or_default();
            assert_eq!(recorded.rx, now.rx_frames - before.rx_frames, "from port {}", port.0);
            if blurred.contains(&port) {
                continue;
            }
            assert_eq!(recorded.tx, now.tx_frames - before.tx_frames, "to port {}", port.0);
            for (reason, frames) in &recorded.dropped {
                let counted = now.drops.get(*reason) - before.drops.get(*reason);
                assert!(*frames <= counted, "{reason:?} of port {}: {frames}, {counted}", port.0);
            }
            for (reason, frames) in now.drops.nonzero().filter(|(reason, _)| in_walk(*reason)) {
                let counted = frames - before.drops.get(reason);
                let shown = recorded.dropped.get(&reason).copied().unwrap_or(0);
                assert_eq!(shown, counted, "{reason:?} of port {}", port.0);
            }
        }
    }

    /// Asks now and then what would become of a frame that is about to be handed over. It changes nothing.
    pub(super) fn ask(&mut self, port: PortId, batch: &[Packet]) {
        let Some(eyes) = &mut self.eyes else { return };
        if !eyes.random.random_ratio(1, 16) {
            return;
        }
        let packet = batch[eyes.random.random_range(0..batch.len())].with_tag_inside();
        let before = self.state();
        let question = Question { port, frame: packet.bytes };
        let answer = self.datapath.explain(&question, self.now);
        assert_eq!(self.state(), before, "asked about {question:?}: {answer:?}");
        let attached = self.model.ports.contains_key(&port);
        assert_eq!(matches!(answer, Answer::Explained(_)), attached);
    }

    /// All that can be asked of the switch.
    fn state(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let networks = self.model.networks.keys();
        let limit = 4096;
        let of = |network: &NetworkId| {
            let ask = |query: Query| self.datapath.query(&query, self.now);
            (
                ask(Query::Counters(*network)),
                ask(Query::Fdb { network: *network, after: None, limit }),
                ask(Query::Leases { network: *network, after: None, limit }),
            )
        };
        let tally = self.datapath.query(&Query::Tally, self.now);
        let flows = Query::Flows { network: None, after: None, limit };
        let flows = self.datapath.query(&flows, self.now);
        let all: Vec<_> = networks.map(of).collect();
        let due = self.datapath.poll_timeout();
        let sockets = self.host.open_sockets();
        (all, tally, flows, due, self.datapath.totals(), sockets, self.datapath.lost_events())
    }
}

impl Watching {
    fn read(&mut self, buffer: &CaptureBuffer) {
        assert_eq!(buffer.lost(), [], "buffers are emptied after every step");
        for record in buffer.records() {
            let Record { port, direction, dropped, offload, len, bytes, .. } = record;
            assert_eq!(len, bytes.len(), "all of it is kept");
            let segments = segments_of(len, &offload);
            let recorded = self.recorded.entry(port).or_default();
            match (direction, dropped) {
                (Direction::FromNode, _) => recorded.rx += segments,
                (Direction::ToNode, None) => recorded.tx += segments,
                (Direction::ToNode, Some(_)) => {}
            }
            if let Some(reason) = dropped {
                *recorded.dropped.entry(reason).or_default() += segments;
            }
        }
    }
}

/// Whether it strikes frames on their walk alone, so that each is seen where it came in.
fn in_walk(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::Runt
            | DropReason::Oversize
            | DropReason::BadSource
            | DropReason::GuardMac
            | DropReason::GuardIpv4
            | DropReason::GuardIpv6
            | DropReason::GuardArp
            | DropReason::GuardNd
            | DropReason::GuardDhcp
            | DropReason::VlanNotAllowed
            | DropReason::Isolated
            | DropReason::StormBroadcast
            | DropReason::StormMulticast
            | DropReason::StormUnknown
            | DropReason::LoopBlocked
            | DropReason::UnknownUnicast
            | DropReason::SamePort
            | DropReason::ReservedGroup
            | DropReason::GatewayUnserved
    )
}
