//! Captures: what the dataplane copies, written as pcapng and streamed to whoever asked.
//!
//! Theory of operation. A capture is lent a fixed number of buffers, which go round: the dataplane fills one, its task here
//! writes it out as pcapng and hands it down again. A client that reads slowly keeps the task waiting with what it holds, so
//! that the dataplane finds no buffer and counts what it loses; neither it nor this process keeps more.
//!
//! The capture ends when the client goes away; when it has taken nothing for `STALL_MAX` (it is told so, should it ever read
//! on); when it asks for the end, and is then sent what was left with the final counts; or when the network or node that it is
//! of is no more. The last two are heard also while the task waits for the client, who then has `REST_MAX` to go on.

mod pcapng;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use pcap_file::pcapng::PcapNgWriteError;
use portolan_switch::capture::{CAPTURES_MAX, CaptureBuffer, CaptureId, CaptureSpec, Scope};
use portolan_switch::ids::PortId;
use tokio::sync::{Notify, mpsc};

use self::pcapng::{Interface, Pcapng};
use super::plane::{Plane, Taken};
use super::{Daemon, clock, internal};
use crate::daemon::log::say;
use crate::topology::{Id, Refusal, RefusalKind, Topology};

/// Buffers lent to one capture.
const BUFFERS: usize = 8;

/// Chunks that wait for the client, besides the last one, for which a place is kept.
const CHUNKS_MAX: usize = 2;

/// How long a client may take nothing before its capture ends: a place among the captures is not held by one that is stopped.
const STALL_MAX: Duration = Duration::from_secs(30);

/// How long a client may take nothing of what is left of a capture that ends: our own waits no longer for it either.
const REST_MAX: Duration = Duration::from_secs(5);

/// Bytes of each frame that are kept unless the client says otherwise: all of a packet of the usual size, and of a superframe
/// as much.
pub const SNAPLEN: u32 = 1600;

/// The most bytes of a frame that can be kept: all of any.
pub const SNAPLEN_MAX: u32 = 262_144;

/// Interfaces of ports that have gone which are remembered, besides those there are.
const GONE_MAX: usize = 4096;

/// What is captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Network(Id),
    Node(Id),
}

impl Target {
    fn is_there(self, topology: &Topology) -> bool {
        match self {
            Target::Network(id) => topology.network_by_id(id).is_some(),
            Target::Node(id) => topology.node_by_id(id).is_some_and(|node| node.running()),
        }
    }
}

/// A capture that runs.
struct Running {
    target: Target,
    end: Arc<Notify>,
}

#[derive(Default)]
struct State {
    last: u32,
    /// Frames that found no buffer, or no reader, in all captures there were.
    lost: u64,
    running: BTreeMap<CaptureId, Running>,
    /// Of all ports since the first of the captures that run began, so that what a node sent before it went has a name.
    interfaces: BTreeMap<PortId, Interface>,
}

/// The captures that run.
#[derive(Default)]
pub(super) struct Captures(Mutex<State>);

impl Captures {
    /// The topology is now this: ports have joined, and what is gone is not captured any more.
    pub(super) fn follow(&self, topology: &Topology) {
        let mut state = self.state();
        if !state.running.is_empty() {
            state.learn(topology);
            for capture in state.running.values() {
                if !capture.target.is_there(topology) {
                    capture.end.notify_one();
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many captures run, and how many frames all there were have lost.
    pub(super) fn tally(&self) -> (usize, u64) {
        let state = self.state();
        (state.running.len(), state.lost)
    }

    fn note_lost(&self, lost: &[(PortId, u64)]) {
        let frames = lost.iter().fold(0, |sum: u64, (_, frames)| sum.saturating_add(*frames));
        let mut state = self.state();
        state.lost = state.lost.saturating_add(frames);
    }

    fn interface(&self, port: PortId) -> Option<Interface> {
        self.state().interfaces.get(&port).cloned()
    }

    fn forget(&self, id: CaptureId) {
        let mut state = self.state();
        state.running.remove(&id);
        if state.running.is_empty() {
            state.interfaces.clear();
        }
    }
}

impl State {
    fn learn(&mut self, topology: &Topology) {
        let all: BTreeMap<PortId, Interface> = interfaces(topology, |_, _| true).collect();
        if self.interfaces.len() > all.len() + GONE_MAX {
            self.interfaces.clear();
        }
        self.interfaces.extend(all);
    }
}

/// The wired endpoints of a topology that are wanted, by node and network.
fn interfaces(
    topology: &Topology,
    wanted: impl Fn(Id, Id) -> bool,
) -> impl Iterator<Item = (PortId, Interface)> {
    topology
        .nodes()
        .flat_map(|node| node.endpoints.iter().map(move |endpoint| (node, endpoint)))
        .filter(move |(node, endpoint)| wanted(node.id, endpoint.network))
        .filter_map(|(node, endpoint)| {
            let network = topology.network_by_id(endpoint.network)?;
            let name = format!("{}/{}@{}", node.name, endpoint.ifname, network.name);
            Some((endpoint.port?, Interface { name, mac: endpoint.mac }))
        })
}

/// A stream of pcapng.
pub struct Stream {
    /// What the capture is ended by.
    pub id: u32,
    /// The bytes, a few blocks at a time.
    pub chunks: mpsc::Receiver<Bytes>,
}

impl Daemon {
    /// Captures a network.
    ///
    /// # Errors
    /// There is no such network, or too many captures run.
    pub async fn capture_network(
        self: &Arc<Self>,
        name: &str,
        snaplen: Option<u32>,
    ) -> Result<Stream, Refusal> {
        let control = self.control.lock().await;
        let network = control.topology.network(name)?;
        let (target, scope) = (Target::Network(network.id), Scope::Network(network.network_id()));
        let ports = interfaces(&control.topology, |_, on| on == network.id);
        self.capture(target, scope, ports.collect(), &control.topology, snaplen).await
    }

    /// Captures a node, on all its networks.
    ///
    /// # Errors
    /// There is no such node, it does not run, or too many captures run.
    pub async fn capture_node(
        self: &Arc<Self>,
        name: &str,
        snaplen: Option<u32>,
    ) -> Result<Stream, Refusal> {
        let control = self.control.lock().await;
        let node = control.topology.node(name)?;
        if !node.running() {
            let message = format!("node {name:?} does not run, so it sends nothing to capture");
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let (target, scope) = (Target::Node(node.id), Scope::Node(node.node_id()));
        let ports = interfaces(&control.topology, |of, _| of == node.id);
        self.capture(target, scope, ports.collect(), &control.topology, snaplen).await
    }

    /// Ends a capture: its client is sent the rest.
    ///
    /// # Errors
    /// It does not run.
    pub fn end_capture(&self, id: u32) -> Result<(), Refusal> {
        let state = self.captures.state();
        let Some(capture) = state.running.get(&CaptureId(id)) else {
            return Err(Refusal::new(
                RefusalKind::NotFound,
                format!("capture {id} does not run (any more)"),
            ));
        };
        capture.end.notify_one();
        Ok(())
    }

    async fn capture(
        self: &Arc<Self>,
        target: Target,
        scope: Scope,
        ports: Vec<(PortId, Interface)>,
        topology: &Topology,
        snaplen: Option<u32>,
    ) -> Result<Stream, Refusal> {
        let snaplen = match snaplen.unwrap_or(SNAPLEN) {
            0 => SNAPLEN_MAX,
            asked => asked.min(SNAPLEN_MAX),
        };
        let wall = Duration::from_nanos(u64::try_from(clock::unix_nanos()).unwrap_or(u64::MAX));
        let begun = Pcapng::begin(snaplen, portolan_switch::io::clock::now(), wall);
        let mut writer = begun.map_err(|error| internal(format!("a capture: {error}")))?;
        for (port, interface) in &ports {
            let described = writer.describe(*port, Some(interface));
            described.map_err(|error| internal(format!("a capture: {error}")))?;
        }
        let end = Arc::new(Notify::new());
        let id = {
            let mut state = self.captures.state();
            if state.running.len() >= CAPTURES_MAX {
                return Err(Refusal::new(
                    RefusalKind::Conflict,
                    format!("{CAPTURES_MAX} captures run already, the most there may be; end one"),
                ));
            }
            state.last = state.last.wrapping_add(1);
            let id = CaptureId(state.last);
            state.running.insert(id, Running { target, end: Arc::clone(&end) });
            state.learn(topology);
            id
        };
        let snaplen = usize::try_from(snaplen).unwrap_or(usize::MAX);
        let taken = self.plane.capture(CaptureSpec { id, scope, snaplen }).await;
        let (chunks_in, chunks) = mpsc::channel(CHUNKS_MAX + 1);
        let daemon = Arc::clone(self);
        tokio::spawn(async move {
            let (plane, captures) = (&daemon.plane, &daemon.captures);
            let mut task = Task { plane, captures, id, writer, end, ending: false, stalled: None };
            if let Err(error) = task.run(taken, &chunks_in).await {
                say(format_args!("capture {}: {error}", id.0));
            }
            daemon.captures.forget(id);
        });
        Ok(Stream { id: id.0, chunks })
    }
}

/// What turns one capture's buffers into chunks.
struct Task<'a> {
    plane: &'a Plane,
    captures: &'a Captures,
    id: CaptureId,
    writer: Pcapng,
    /// What the capture is ended by.
    end: Arc<Notify>,
    /// The dataplane was told to end it.
    ending: bool,
    /// The client has taken nothing for so long, which is too long: what comes is counted as lost.
    stalled: Option<Duration>,
}

impl Task<'_> {
    /// Goes on until the capture has ended in the dataplane, whatever becomes of the client.
    async fn run(
        &mut self,
        mut taken: mpsc::UnboundedReceiver<Taken>,
        chunks: &mpsc::Sender<Bytes>,
    ) -> Result<(), PcapNgWriteError> {
        for _ in 0..BUFFERS {
            self.plane.lend(self.id, CaptureBuffer::default()).await;
        }
        let last = chunks.clone().reserve_owned().await.ok();
        if !self.send(chunks).await {
            self.stop().await;
        }
        let mut failed = Ok(());
        loop {
            let next = tokio::select! {
                () = chunks.closed(), if !self.ending => None,
                () = self.end.notified(), if !self.ending => None,
                next = taken.recv() => Some(next),
            };
            match next {
                Some(Some(Taken::Buffer(buffer))) => {
                    failed = failed.and(self.write(&buffer));
                    let heard = failed.is_ok() && self.send(chunks).await;
                    if !self.ending {
                        self.plane.lend(self.id, buffer).await;
                        if heard {
                            continue;
                        }
                    }
                }
                Some(Some(Taken::Ended(ended))) => {
                    for buffer in &ended.filled {
                        failed = failed.and(self.write(buffer));
                    }
                    failed = failed.and(self.lose(&ended.lost));
                    let now = portolan_switch::io::clock::now();
                    failed = failed.and(self.writer.statistics(now));
                    if self.send(chunks).await {
                        return failed;
                    }
                    if let Some(time) = self.stalled {
                        let why = format!("its reader took nothing for {} s", time.as_secs());
                        say(format_args!("capture {} is over: {why}", self.id.0));
                        failed = failed.and(self.writer.remark(now, &why));
                    }
                    if let Some(last) = last {
                        last.send(Bytes::from(self.writer.take()));
                    }
                    return failed;
                }
                Some(None) => return failed,
                None => {}
            }
            self.stop().await;
        }
    }

    /// Has the dataplane end the capture, once.
    async fn stop(&mut self) {
        if !std::mem::replace(&mut self.ending, true) {
            self.plane.end_capture(self.id).await;
        }
    }

    fn write(&mut self, buffer: &CaptureBuffer) -> Result<(), PcapNgWriteError> {
        if self.stalled.is_some() {
            let unread: Vec<(PortId, u64)> = buffer.records().map(|r| (r.port, 1)).collect();
            self.lose(&unread)?;
            return self.lose(buffer.lost());
        }
        let captures = self.captures;
        self.writer.records(buffer, &|port| captures.interface(port))?;
        if !buffer.lost().is_empty() {
            self.lose(buffer.lost())?;
            self.writer.statistics(portolan_switch::io::clock::now())?;
        }
        Ok(())
    }

    /// Counts frames that are in no chunk.
    fn lose(&mut self, lost: &[(PortId, u64)]) -> Result<(), PcapNgWriteError> {
        self.captures.note_lost(lost);
        let captures = self.captures;
        self.writer.lost(lost, &|port| captures.interface(port))
    }

    /// Sends what was written; false where nobody reads it, or nobody did for too long.
    async fn send(&mut self, chunks: &mpsc::Sender<Bytes>) -> bool {
        if self.stalled.is_some() {
            return false;
        }
        loop {
            let patience = if self.ending { REST_MAX } else { STALL_MAX };
            let room = tokio::select! {
                room = tokio::time::timeout(patience, chunks.reserve()) => room,
                () = self.end.notified(), if !self.ending => {
                    self.stop().await;
                    continue;
                }
            };
            return match room {
                Ok(Ok(room)) => {
                    room.send(Bytes::from(self.writer.take()));
                    true
                }
                Ok(Err(_)) => false,
                Err(_) => {
                    self.stalled = Some(patience);
                    false
                }
            };
        }
    }
}

#[cfg(test)]
mod tests;
