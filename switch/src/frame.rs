//! Frames as descriptors.
//!
//! A frame's bytes lie where they were received (a slot of a port's ring) or in the turn's arena (whatever the core makes
//! itself). Nothing in the core copies them to pass them on: a frame is named by its [`FrameIdx`] within the turn, and a
//! flood is several outbox entries of one frame. Before the first byte lies headroom, so that a tag or a tunnel header is
//! put in front in place.

use arrayvec::ArrayVec;
pub use portolan_nat::offload::{Checksum, Gso, GsoKind, Offload};

/// Frames one turn can hold: what one port may hand over in a batch, and as many that the core makes in answer.
pub const FRAMES_MAX: usize = 128;

/// Bytes that lie free before a frame received from a port, or made in the arena.
pub const HEADROOM: usize = 128;

/// Names a frame within its turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameIdx(pub u16);

/// An 802.1Q tag that is not among the frame's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VlanTag {
    /// Tag protocol identifier, host order: 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Priority, drop eligible and VLAN id, host order.
    pub tci: u16,
}

/// One Ethernet frame: where it lies, and what is known of it.
#[derive(Debug)]
pub struct Frame<'a> {
    buf: &'a mut [u8],
    start: usize,
    len: usize,
    /// What the sender left for a device to do.
    pub offload: Offload,
    /// The outermost tag, where the kernel handed it over beside the frame.
    pub vlan: Option<VlanTag>,
}

impl<'a> Frame<'a> {
    /// The frame that lies in `buf[start..start + len]`. Panics where it does not.
    pub fn new(buf: &'a mut [u8], start: usize, len: usize) -> Frame<'a> {
        assert!(start + len <= buf.len());
        Frame { buf, start, len, offload: Offload::default(), vlan: None }
    }

    /// The frame's bytes, from the destination address on.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.start + self.len]
    }

    /// As [`Frame::bytes`], to write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.start + self.len]
    }

    /// How many frames on the wire this one stands for: 1 if it is not a superframe.
    pub fn segments(&self) -> u64 {
        crate::offload::segments_of(self.len, &self.offload)
    }

    /// The bytes free before the frame.
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Moves the first `keep` bytes `by` bytes to the front and leaves the gap for the caller to fill: how a tag comes to
    /// stand behind the addresses. False, and nothing moved, where the headroom does not suffice.
    pub fn open_gap(&mut self, keep: usize, by: usize) -> bool {
        if by > self.start || keep > self.len {
            return false;
        }
        self.buf.copy_within(self.start..self.start + keep, self.start - by);
        self.start -= by;
        self.len += by;
        true
    }

    /// Moves the first `keep` bytes `by` bytes to the back, over what lies there: how a tag behind the addresses is taken out, and
    /// the inverse of [`Frame::open_gap`]. False, and nothing moved, where the frame is shorter.
    pub fn close_gap(&mut self, keep: usize, by: usize) -> bool {
        if keep + by > self.len {
            return false;
        }
        self.buf.copy_within(self.start..self.start + keep, self.start + by);
        self.start += by;
        self.len -= by;
        true
    }

    /// Cuts the frame down to its first `len` bytes. Panics where it is shorter.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len);
        self.len = len;
    }
}

/// The frames of one turn, and the arena in which more can be made.
#[derive(Debug)]
pub struct FrameTable<'a> {
    frames: ArrayVec<Frame<'a>, FRAMES_MAX>,
    arena: &'a mut [u8],
}

impl<'a> FrameTable<'a> {
    /// An empty table whose own frames will lie in `arena`.
    pub fn new(arena: &'a mut [u8]) -> FrameTable<'a> {
        FrameTable { frames: ArrayVec::new(), arena }
    }

    /// Takes a received frame in. The IO edge calls it, within [`FRAMES_MAX`].
    pub fn push(&mut self, frame: Frame<'a>) -> FrameIdx {
        let idx = FrameIdx(u16::try_from(self.frames.len()).expect("FRAMES_MAX fits"));
        self.frames.push(frame);
        idx
    }

    /// Makes a frame of `len` zero bytes with [`HEADROOM`] before it; none when the turn's arena or table is used up.
    pub fn make(&mut self, len: usize) -> Option<FrameIdx> {
        if !self.has_room(len) {
            return None;
        }
        let (buf, rest) = std::mem::take(&mut self.arena).split_at_mut(HEADROOM + len);
        self.arena = rest;
        buf[HEADROOM..].fill(0);
        Some(self.push(Frame::new(buf, HEADROOM, len)))
    }

    /// Makes a frame of at most `max` bytes, of which `write` says how many it has filled; none of them where it declines.
    /// `None` too when the turn's arena or table is used up: ask [`FrameTable::has_room`] before. The room may hold
    /// anything; `write` is to set every byte that it counts.
    pub fn compose(
        &mut self,
        max: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<FrameIdx> {
        if !self.has_room(max) {
            return None;
        }
        let room = &mut self.arena[HEADROOM..HEADROOM + max];
        let len = write(room)?;
        assert!(len <= max, "no more than there was room for");
        let (buf, rest) = std::mem::take(&mut self.arena).split_at_mut(HEADROOM + len);
        self.arena = rest;
        Some(self.push(Frame::new(buf, HEADROOM, len)))
    }

    /// Whether [`FrameTable::make`] would make a frame of `len` bytes.
    pub fn has_room(&self, len: usize) -> bool {
        !self.frames.is_full() && self.arena.len() >= HEADROOM + len
    }

    /// How many frames there are; they are numbered from 0.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// The names of all frames there are now, in order. Frames made later are not among them.
    pub fn indices(&self) -> impl Iterator<Item = FrameIdx> + use<> {
        (0..u16::try_from(self.frames.len()).expect("FRAMES_MAX fits")).map(FrameIdx)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The frame of that name. Panics on a name of another turn.
    pub fn get(&self, idx: FrameIdx) -> &Frame<'a> {
        &self.frames[usize::from(idx.0)]
    }

    /// As [`FrameTable::get`], to change.
    pub fn get_mut(&mut self, idx: FrameIdx) -> &mut Frame<'a> {
        &mut self.frames[usize::from(idx.0)]
    }

    /// A frame to read and another to write to: how an answer is made from what it answers. Panics where they are the same.
    pub fn pair_mut(&mut self, read: FrameIdx, write: FrameIdx) -> (&Frame<'a>, &mut Frame<'a>) {
        let both = [usize::from(read.0), usize::from(write.0)];
        let [read, write] = self.frames.get_disjoint_mut(both).expect("two frames of this turn");
        (read, write)
    }
}
