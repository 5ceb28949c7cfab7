//! A TPACKET_V2 receive ring, mapped: where its slots lie, and how a new owner finds its place in it.
//!
//! The kernel fills slots in turn and hands each over by its status word; the owner reads them in turn and gives them back
//! in turn. A ring outlives its owner: when the process that read it is killed, the kernel goes on filling it for the next
//! one. Two things in the ring's own memory tell the heir where to go on, so that no frame is sent twice and none out of
//! order:
//!
//! - The owner **marks** a slot when it takes the frame, before it sends anything: the first byte of the header's padding,
//!   which the kernel clears whenever it fills the slot.
//! - The owner then stores the **next** slot it will read, in slot 0, in bytes that belong to the reserve which the kernel
//!   leaves free between its headers and the frame.
//!
//! The slots of a batch are given back only after it was sent. So at any instant the slots that were taken and not given
//! back are the marked ones around the stored index: [`takeover`] finds them, the heir gives them back unsent, and starts
//! with the first unmarked one.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use libc::{c_int, tpacket2_hdr};
use serde::{Deserialize, Serialize};

/// How a ring is laid out: what an heir must know to map it again. It travels with the descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RingShape {
    /// How many slots there are; each holds one frame.
    pub slots: u32,
    /// Bytes of a slot, a multiple of 16.
    pub slot_bytes: u32,
    /// Bytes of the blocks the kernel allocates: a multiple of the page and of `slot_bytes`.
    pub block_bytes: u32,
}

/// Largest ring anybody may ask for, bytes. Ring memory is charged to nobody, so the limit is ours to keep.
const RING_BYTES_MAX: usize = 64 << 20;

/// Where the index of the next slot to read is kept, in slot 0: behind the kernel's header and link-layer address
/// (52 bytes), before the reserve ends.
const NEXT_AT: usize = 56;

/// What the owner of a ring writes to a slot's padding when it takes the frame.
const MARK: u8 = 1;

impl RingShape {
    /// All its memory, bytes.
    pub fn bytes(self) -> usize {
        self.slots as usize * self.slot_bytes as usize
    }

    /// How many blocks it is allocated in.
    pub fn blocks(self) -> u32 {
        self.slots / (self.block_bytes / self.slot_bytes)
    }

    /// Refuses what the kernel would not make or this module would not find its way in: slots of `slot_bytes_min` at
    /// least, whole slots in whole blocks, at most 64 MiB in all.
    pub fn validate(self, slot_bytes_min: usize) -> io::Result<()> {
        let RingShape { slots, slot_bytes, block_bytes } = self;
        let fits = slots >= 2
            && slot_bytes as usize >= slot_bytes_min
            && slot_bytes.is_multiple_of(16)
            && block_bytes >= slot_bytes
            && block_bytes.is_multiple_of(slot_bytes)
            && block_bytes.is_multiple_of(4096)
            && slots.is_multiple_of(block_bytes / slot_bytes)
            && (slots as usize)
                .checked_mul(slot_bytes as usize)
                .is_some_and(|all| all <= RING_BYTES_MAX);
        if fits {
            Ok(())
        } else {
            let text = format!(
                "a ring of {slots} slots of {slot_bytes} bytes in blocks of {block_bytes} cannot be made"
            );
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

/// The mapped memory of one ring. Unmapped on drop; the ring itself lives on with its socket.
#[derive(Debug)]
pub(super) struct Ring {
    base: NonNull<u8>,
    shape: RingShape,
}

// SAFETY: the mapping belongs to this object alone and is not tied to the thread that made it.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the receive ring of `socket`, which has that shape (another length: EINVAL).
    pub(super) fn map(socket: BorrowedFd<'_>, shape: RingShape) -> io::Result<Ring> {
        Ring::map_memory(shape, libc::MAP_SHARED, socket.as_raw_fd())
    }

    /// Memory in the form of a ring that nothing ever fills. It costs nothing until it is looked at.
    pub(super) fn blank(shape: RingShape) -> io::Result<Ring> {
        Ring::map_memory(shape, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1)
    }

    fn map_memory(shape: RingShape, flags: c_int, fd: RawFd) -> io::Result<Ring> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address; nothing that exists is touched.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), shape.bytes(), protection, flags, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(at.cast()).ok_or_else(|| io::Error::other("the ring was mapped at 0"))?;
        Ok(Ring { base, shape })
    }

    pub(super) fn shape(&self) -> RingShape {
        self.shape
    }

    /// The first byte of a slot. Slots are whole in their blocks and blocks are mapped one behind the other.
    fn slot(&self, slot: u32) -> *mut u8 {
        assert!(slot < self.shape.slots);
        let offset = slot as usize * self.shape.slot_bytes as usize;
        // SAFETY: `slot` is one of the ring's, so the offset lies within the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }

    fn status_word(&self, slot: u32) -> &AtomicU32 {
        // SAFETY: a slot starts, 16-aligned, with its status word, and lives as long as `self`; the kernel shares it, so
        // it is accessed atomically only.
        unsafe { AtomicU32::from_ptr(self.slot(slot).cast()) }
    }

    fn mark_byte(&self, slot: u32) -> &AtomicU8 {
        // SAFETY: the padding lies within the slot's header and lives as long as `self`.
        unsafe {
            AtomicU8::from_ptr(self.slot(slot).add(std::mem::offset_of!(tpacket2_hdr, tp_padding)))
        }
    }

    fn next_word(&self) -> &AtomicU32 {
        // SAFETY: within slot 0 (a slot is never smaller than its headers and reserve), aligned, and lives as long as
        // `self`.
        unsafe { AtomicU32::from_ptr(self.slot(0).add(NEXT_AT).cast()) }
    }

    /// Whether the slot holds a frame; everything the kernel wrote to it is then visible.
    pub(super) fn is_filled(&self, slot: u32) -> bool {
        self.status_word(slot).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// What the kernel tells of the frame in a filled slot.
    pub(super) fn header(&self, slot: u32) -> tpacket2_hdr {
        // SAFETY: every slot starts with a header, which the kernel leaves alone while the slot is filled; any bytes are
        // a valid header.
        unsafe { self.slot(slot).cast::<tpacket2_hdr>().read() }
    }

    /// The slot's bytes from `from` on.
    ///
    /// # Safety
    /// The slot is filled, nobody else has borrowed it, it is not given back while the bytes are borrowed, and `from`
    /// lies behind the headers and the stored index.
    pub(super) unsafe fn body<'a>(&self, slot: u32, from: usize) -> &'a mut [u8] {
        let len = self.shape.slot_bytes as usize - from;
        // SAFETY: within the slot; exclusive by the caller's promise, as the kernel leaves a filled slot alone.
        unsafe { std::slice::from_raw_parts_mut(self.slot(slot).add(from), len) }
    }

    /// Notes, for an heir, that the frame of a filled slot has been taken.
    pub(super) fn mark(&self, slot: u32) {
        self.mark_byte(slot).store(MARK, Ordering::Release);
    }

    /// Whether the frame of the slot has been taken, provided that the slot is filled.
    pub(super) fn is_marked(&self, slot: u32) -> bool {
        self.mark_byte(slot).load(Ordering::Acquire) == MARK
    }

    /// The slot read next, as noted for an heir.
    pub(super) fn stored_next(&self) -> u32 {
        self.next_word().load(Ordering::SeqCst)
    }

    /// Notes, for an heir, which slot is read next.
    pub(super) fn store_next(&self, slot: u32) {
        self.next_word().store(slot, Ordering::SeqCst);
    }

    /// Gives a slot back to the kernel. Only ever the oldest one.
    pub(super) fn release(&self, slot: u32) {
        self.status_word(slot).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }

    /// Finds the place of a new owner: gives back what the one before had taken, and returns the slot to read next and
    /// how many frames were lost with it. Fails where slot 0 holds no index of this ring.
    pub(super) fn take_over(&self) -> io::Result<(u32, u32)> {
        let stored = self.stored_next();
        if stored >= self.shape.slots {
            let text =
                format!("slot 0 names slot {stored} of {}: not a ring of ours", self.shape.slots);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let is_taken = |slot| self.is_filled(slot) && self.is_marked(slot);
        let taken = takeover(self.shape.slots, stored, is_taken);
        let next = (taken.first + taken.count) % self.shape.slots;
        // Should this process die half-way, the next heir finds the rest marked as before.
        self.store_next(next);
        for step in 0..taken.count {
            self.release((taken.first + step) % self.shape.slots);
        }
        Ok((next, taken.count))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: this object made the mapping, and nothing borrows from it any more.
        let unmapped = unsafe { libc::munmap(self.base.as_ptr().cast(), self.shape.bytes()) };
        assert_eq!(unmapped, 0, "a ring's mapping is unmapped once");
    }
}

/// A run of slots, in ring order.
#[derive(PartialEq, Eq, Debug)]
struct Taken {
    first: u32,
    count: u32,
}

/// The slots that a dead owner had taken and not given back, from the index it stored and its marks.
///
/// Ahead of the index lie slots that it marked and died before it stored the index anew: they were not sent, and are
/// given up like the rest so that the rule stays one. Behind it lie the slots of its last batch that it had not given back;
/// walking back ends at the first that was, be it empty or filled anew, for filling clears the mark.
fn takeover(slots: u32, stored: u32, is_taken: impl Fn(u32) -> bool) -> Taken {
    let ahead = (0..slots).take_while(|step| is_taken((stored + step) % slots)).count() as u32;
    let behind = (1..=slots - ahead)
        .take_while(|step| is_taken((stored + slots - step) % slots))
        .count() as u32;
    Taken { first: (stored + slots - behind) % slots, count: ahead + behind }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(marks: &str, stored: u32) -> (u32, u32) {
        let marks = marks.as_bytes();
        let taken = takeover(marks.len() as u32, stored, |slot| marks[slot as usize] == b'x');
        (taken.first, taken.count)
    }

    #[test]
    fn takeover_gives_up_exactly_the_marked_run_around_the_index() {
        assert_eq!(found("........", 3), (3, 0), "nothing was taken");
        assert_eq!(found("..xxx...", 5), (2, 3), "a batch was taken and the index stored");
        assert_eq!(found("..xxx...", 2), (2, 3), "a batch was marked, the index not yet stored");
        assert_eq!(found("...xx...", 5), (3, 2), "one slot was already given back");
        assert_eq!(found("xx....xx", 2), (6, 4), "a batch lies around the ring's end");
        assert_eq!(found("xx....xx", 6), (6, 4));
        assert_eq!(found("xxxxxxxx", 4), (4, 8), "the whole ring was taken");
        assert_eq!(found("x.......", 3), (3, 0), "a mark elsewhere means nothing");
    }

    #[test]
    fn shapes_the_kernel_would_refuse_are_refused() {
        let good = RingShape { slots: 16, slot_bytes: 65536, block_bytes: 65536 };
        assert!(good.validate(512).is_ok());
        for bad in [
            RingShape { slots: 0, ..good },
            RingShape { slot_bytes: 0, ..good },
            RingShape { slot_bytes: 1000, ..good },
            RingShape { slot_bytes: 256, ..good },
            RingShape { block_bytes: 0, ..good },
            RingShape { block_bytes: 32768, ..good },
            RingShape { slots: 15, slot_bytes: 32768, ..good },
            RingShape { slots: 2048, ..good },
            RingShape { slots: u32::MAX, slot_bytes: u32::MAX - 15, ..good },
        ] {
            assert!(bad.validate(512).is_err(), "{bad:?}");
        }
    }
}
