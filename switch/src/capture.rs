//! Captures: frames copied for people to look at, with what became of each.
//!
//! Theory of operation. A capture is of one network or of one node. It sees a frame at each port of its scope that the frame
//! passes: where it comes in, before anything is done to it, and what the walk then decided; and where it goes out, as it was
//! sent, and how sending went. What the gateway makes is seen where it goes out. So a frame from one node to another of the
//! same network is recorded twice, once at each port, as by captures on the two interfaces.
//!
//! Frames are copied into buffers that the control side has lent ([`CaptureBuffer`]), each with its length, its times and what
//! its sender left to be done, so that all else happens elsewhere. A buffer goes up when it is full, or when its oldest record
//! has waited for [`LINGER`]. Where there is no buffer the frame is counted as lost, by port, and the switch goes on: a capture
//! never waits, and takes no memory but what it was lent.
//!
//! As long as nothing is captured, a batch costs one look at an empty list.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::drops::DropReason;
use crate::frame::{FRAMES_MAX, Frame, FrameIdx, FrameTable, Offload, VlanTag};
use crate::headers::{ADDRESSES_LEN, TAG_LEN};
use crate::ids::{NetworkId, NodeId, PortId, Time};
use crate::offload::shift;
use crate::outbox::Entry;

/// How long a record may wait in a buffer that is not full.
pub const LINGER: Duration = Duration::from_millis(50);

/// Bytes of frames that one buffer takes: several superframes.
pub const BUFFER_BYTES: usize = 512 * 1024;

/// Frames that one buffer takes.
pub const BUFFER_FRAMES: usize = 4096;

/// Captures at a time. The control side starts no more.
pub const CAPTURES_MAX: usize = 8;

/// Names a capture.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CaptureId(pub u32);

/// Whose frames are captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Those of all ports of a network.
    Network(NetworkId),
    /// Those of all ports of a node.
    Node(NodeId),
}

/// What is to be captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CaptureSpec {
    /// Its name.
    pub id: CaptureId,
    /// Whose frames.
    pub scope: Scope,
    /// Bytes of each frame that are kept.
    pub snaplen: usize,
}

/// Which way a frame went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the node to the switch.
    FromNode,
    /// From the switch to the node.
    ToNode,
}

/// What is known of a frame in a buffer.
#[derive(Clone, Copy, Debug)]
struct Head {
    time: Time,
    port: PortId,
    direction: Direction,
    dropped: Option<DropReason>,
    offload: Offload,
    len: u32,
    end: u32,
}

/// One frame that was captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// When: the time of the pass in which it was handled.
    pub time: Time,
    /// At which port.
    pub port: PortId,
    /// Which way it went there.
    pub direction: Direction,
    /// Why it went no further; none where it did.
    pub dropped: Option<DropReason>,
    /// What its sender left to be done, its offsets those of [`Record::bytes`].
    pub offload: Offload,
    /// How long it was, bytes, its tags counted.
    pub len: usize,
    /// The first of its bytes, tags among them.
    pub bytes: &'a [u8],
}

/// Room for frames, made by the control side, filled by the dataplane and handed back.
#[derive(Debug)]
pub struct CaptureBuffer {
    heads: Vec<Head>,
    bytes: Vec<u8>,
    lost: Vec<(PortId, u64)>,
}

impl Default for CaptureBuffer {
    fn default() -> CaptureBuffer {
        CaptureBuffer {
            heads: Vec::with_capacity(BUFFER_FRAMES),
            bytes: Vec::with_capacity(BUFFER_BYTES),
            lost: Vec::new(),
        }
    }
}

impl CaptureBuffer {
    /// What it holds, in the order in which it happened.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let starts = std::iter::once(0).chain(self.heads.iter().map(|head| head.end as usize));
        starts.zip(&self.heads).map(|(start, head)| Record {
            time: head.time,
            port: head.port,
            direction: head.direction,
            dropped: head.dropped,
            offload: head.offload,
            len: head.len as usize,
            bytes: &self.bytes[start..head.end as usize],
        })
    }

    /// How many bytes of frames it holds.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds no frame.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// How many frames found no buffer before the last of its own, by port; a superframe is one.
    pub fn lost(&self) -> &[(PortId, u64)] {
        &self.lost
    }

    /// Forgets what it holds, keeping the memory.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.bytes.clear();
        self.lost.clear();
    }

    fn takes(&self, len: usize) -> bool {
        self.heads.len() < BUFFER_FRAMES && BUFFER_BYTES - self.bytes.len() >= len
    }

    fn push(&mut self, sight: &Sight, frame: &Frame<'_>, tag: Option<VlanTag>, snaplen: usize) {
        let all = frame.bytes();
        let mut offload = frame.offload;
        let from = self.bytes.len();
        match tag.zip(all.split_at_checked(ADDRESSES_LEN)) {
            None => self.bytes.extend_from_slice(&all[..all.len().min(snaplen)]),
            Some((tag, (addresses, rest))) => {
                shift(&mut offload, TAG_LEN);
                self.bytes.extend_from_slice(addresses);
                self.bytes.extend_from_slice(&tag.tpid.to_be_bytes());
                self.bytes.extend_from_slice(&tag.tci.to_be_bytes());
                let room = snaplen.saturating_sub(ADDRESSES_LEN + TAG_LEN);
                self.bytes.extend_from_slice(&rest[..rest.len().min(room)]);
                self.bytes.truncate(from + snaplen);
            }
        }
        let Sight { time, port, direction, dropped } = *sight;
        let end = u32::try_from(self.bytes.len()).expect("a buffer is small");
        let len = u32::try_from(all.len() + tag.map_or(0, |_| TAG_LEN)).unwrap_or(u32::MAX);
        self.heads.push(Head { time, port, direction, dropped, offload, len, end });
    }
}

/// Where and when frames are seen, and what is known of them then.
#[derive(Clone, Copy)]
struct Sight {
    time: Time,
    port: PortId,
    direction: Direction,
    dropped: Option<DropReason>,
}

/// Where the record of a frame lies.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Which of the capture's buffers, counted since its start.
    buffer: u64,
    /// Which record there.
    record: usize,
}

/// What is left of a capture that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Buffers with records, in order.
    pub filled: Vec<CaptureBuffer>,
    /// Buffers without.
    pub spare: Vec<CaptureBuffer>,
    /// Frames that found no buffer after the last one that was filled, by port.
    pub lost: Vec<(PortId, u64)>,
}

#[derive(Debug)]
struct Capture {
    spec: CaptureSpec,
    spare: Vec<CaptureBuffer>,
    filling: Option<CaptureBuffer>,
    /// To be handed up.
    full: VecDeque<CaptureBuffer>,
    /// How many buffers were filled before the one that is being filled.
    serial: u64,
    lost: BTreeMap<PortId, u64>,
    /// The records of the batch that is being handled, by the frames' places in the turn.
    marks: Vec<Option<Mark>>,
}

impl Capture {
    fn wants(&self, network: NetworkId, node: NodeId) -> bool {
        match self.spec.scope {
            Scope::Network(id) => id == network,
            Scope::Node(id) => id == node,
        }
    }

    /// Records one frame; none where there is no buffer for it.
    fn record(&mut self, sight: &Sight, frame: &Frame<'_>, tag: Option<VlanTag>) -> Option<Mark> {
        let tag = tag.filter(|_| frame.bytes().len() >= ADDRESSES_LEN);
        let len = frame.bytes().len() + tag.map_or(0, |_| TAG_LEN);
        let snaplen = len.min(self.spec.snaplen).min(BUFFER_BYTES);
        if self.filling.as_ref().is_some_and(|buffer| !buffer.takes(snaplen)) {
            self.roll();
        }
        if self.filling.is_none() {
            self.filling = self.spare.pop();
        }
        let Some(buffer) = &mut self.filling else {
            *self.lost.entry(sight.port).or_default() += 1;
            return None;
        };
        let mark = Mark { buffer: self.serial, record: buffer.heads.len() };
        buffer.push(sight, frame, tag, snaplen);
        Some(mark)
    }

    /// The buffer that is being filled is handed up next.
    fn roll(&mut self) {
        if let Some(mut buffer) = self.filling.take() {
            buffer.lost.extend(std::mem::take(&mut self.lost));
            self.full.push_back(buffer);
            self.serial += 1;
        }
    }

    fn strike(&mut self, frame: FrameIdx, reason: DropReason) {
        let Some(mark) = self.marks.get(usize::from(frame.0)).copied().flatten() else { return };
        let behind = usize::try_from(self.serial - mark.buffer).unwrap_or(usize::MAX);
        let buffer = match self.full.len().checked_sub(behind) {
            _ if behind == 0 => self.filling.as_mut(),
            Some(at) => self.full.get_mut(at),
            None => None,
        };
        if let Some(head) = buffer.and_then(|buffer| buffer.heads.get_mut(mark.record)) {
            head.dropped = Some(reason);
        }
    }

    /// When the buffer that is being filled is to go up, full or not.
    fn due(&self) -> Option<Time> {
        self.filling.as_ref()?.heads.first().map(|oldest| oldest.time + LINGER)
    }
}

/// The captures that run.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    running: Vec<Capture>,
    /// The batch that is being handled is seen by one of them.
    marked: bool,
}

impl Captures {
    /// Whether nothing is captured.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Starts one. Panics where it runs, or too many do.
    pub(crate) fn start(&mut self, spec: CaptureSpec) {
        assert!(self.running.len() < CAPTURES_MAX, "captures are limited");
        assert!(self.find(spec.id).is_none(), "capture {} runs", spec.id.0);
        self.running.push(Capture {
            spec,
            spare: Vec::new(),
            filling: None,
            full: VecDeque::new(),
            serial: 0,
            lost: BTreeMap::new(),
            marks: Vec::with_capacity(FRAMES_MAX),
        });
    }

    /// One that runs may fill this too. It comes back where the capture has ended.
    pub(crate) fn lend(
        &mut self,
        id: CaptureId,
        mut buffer: CaptureBuffer,
    ) -> Result<(), CaptureBuffer> {
        let Some(at) = self.find(id) else { return Err(buffer) };
        buffer.clear();
        self.running[at].spare.push(buffer);
        Ok(())
    }

    /// Ends one; none where it does not run.
    pub(crate) fn end(&mut self, id: CaptureId) -> Option<Ended> {
        let mut capture = self.running.remove(self.find(id)?);
        capture.roll();
        let filled = capture.full.into();
        let lost = capture.lost.into_iter().collect();
        Some(Ended { filled, spare: capture.spare, lost })
    }

    /// The oldest buffer that is full, or whose time has come.
    pub(crate) fn poll(&mut self, now: Time) -> Option<(CaptureId, CaptureBuffer)> {
        self.running.iter_mut().find_map(|capture| {
            if capture.due().is_some_and(|due| due <= now) {
                capture.roll();
            }
            capture.full.pop_front().map(|buffer| (capture.spec.id, buffer))
        })
    }

    /// When [`Captures::poll`] is to be called though no frame came.
    pub(crate) fn due(&self) -> Option<Time> {
        self.running.iter().filter_map(Capture::due).min()
    }

    /// A batch came in on a port. What becomes of its frames is told by [`Captures::dropped`] until [`Captures::settle`].
    pub(crate) fn received(
        &mut self,
        port: PortId,
        (network, node): (NetworkId, NodeId),
        frames: &FrameTable<'_>,
        now: Time,
    ) {
        let sight = Sight { time: now, port, direction: Direction::FromNode, dropped: None };
        for capture in self.running.iter_mut().filter(|capture| capture.wants(network, node)) {
            self.marked = true;
            for idx in frames.indices() {
                let frame = frames.get(idx);
                let mark = capture.record(&sight, frame, frame.vlan);
                capture.marks.push(mark);
            }
        }
    }

    /// A frame of the batch that is being handled went no further.
    pub(crate) fn dropped(&mut self, frame: FrameIdx, reason: DropReason) {
        if self.marked {
            self.running.iter_mut().for_each(|capture| capture.strike(frame, reason));
        }
    }

    /// All of the batch is decided.
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.marked) {
            self.running.iter_mut().for_each(|capture| capture.marks.clear());
        }
    }

    /// Frames were sent to a port, or were to be; those at `refused` were not, in order.
    pub(crate) fn sent(
        &mut self,
        port: PortId,
        (network, node): (NetworkId, NodeId),
        run: &[Entry],
        frames: &FrameTable<'_>,
        refused: &[(usize, DropReason)],
        now: Time,
    ) {
        for capture in self.running.iter_mut().filter(|capture| capture.wants(network, node)) {
            let mut refused = refused.iter().copied().peekable();
            for (at, entry) in run.iter().enumerate() {
                let dropped = refused.next_if(|(which, _)| *which == at).map(|(_, reason)| reason);
                let sight = Sight { time: now, port, direction: Direction::ToNode, dropped };
                let frame = frames.get(entry.frame);
                capture.record(&sight, frame, frame.vlan.filter(|_| entry.tagged));
            }
        }
    }

    fn find(&self, id: CaptureId) -> Option<usize> {
        self.running.iter().position(|capture| capture.spec.id == id)
    }
}

#[cfg(test)]
mod tests;
