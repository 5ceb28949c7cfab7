//! The two halves of a port, whatever it is made of.
//!
//! They live in two tables, so that a batch lent out of one port's ring can be answered on that port and sent to any other.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::packet::{BATCH_MAX, PacketWire, Received};
use crate::drops::DropReason;
use crate::frame::{Frame, FrameIdx, FrameTable};
use crate::ids::PortId;
use crate::offload::{VNET_LEN, segments_of, shift, wire_bytes, write_vnet};

/// A port as it crosses the control neck. It is opened, and dropped, on the control side: both are slow.
#[derive(Debug)]
pub enum Port {
    /// A veth wire.
    Packet(PacketWire),
}

impl Port {
    /// The descriptor that becomes readable when frames arrive.
    pub(super) fn raw_fd(&self) -> i32 {
        match self {
            Port::Packet(wire) => wire.socket().as_raw_fd(),
        }
    }

    /// The half that sends.
    pub(super) fn sender(&self) -> Tx {
        match self {
            Port::Packet(wire) => Tx { socket: wire.sender() },
        }
    }

    /// Lends at most `limit` frames to the table. They are given back by [`Port::release`].
    pub(super) fn receive<'a>(&'a mut self, limit: usize, frames: &mut FrameTable<'a>) -> Received {
        match self {
            Port::Packet(wire) => wire.receive(limit, frames),
        }
    }

    /// Gives back what the last batch lent.
    pub(super) fn release(&mut self) {
        match self {
            Port::Packet(wire) => wire.release(),
        }
    }

    /// Frames that a former owner took and may not have sent; asked once.
    pub(super) fn take_lost(&mut self) -> u32 {
        match self {
            Port::Packet(wire) => wire.take_lost(),
        }
    }

    /// Whether what the port is made of is gone for good.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Port::Packet(wire) => wire.is_gone(),
        }
    }
}

/// What became of the frames of one run.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Frames, a superframe counted as its segments.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
    /// The kernel knew no device to send to.
    pub device_absent: bool,
    /// One reason for each frame that was refused.
    pub refused: ArrayVec<DropReason, BATCH_MAX>,
}

/// The sending half of a wire.
#[derive(Debug)]
pub(super) struct Tx {
    socket: Arc<OwnedFd>,
}

/// Puts a tag that came beside the frame among its bytes, before a sender reads them. Once for a frame, however many ports
/// it goes to.
pub(super) fn settle_tag(frame: &mut Frame<'_>) {
    let Some(tag) = frame.vlan.take() else { return };
    // Every frame has more headroom than a tag is long, and at least its addresses: otherwise the core would not send it.
    if frame.open_gap(12, 4) {
        let bytes = frame.bytes_mut();
        bytes[12..14].copy_from_slice(&tag.tpid.to_be_bytes());
        bytes[14..16].copy_from_slice(&tag.tci.to_be_bytes());
        shift(&mut frame.offload, 4);
    }
}

impl Tx {
    /// Sends the frames of one port in order, at most [`BATCH_MAX`]. A frame that is refused does not hold up the ones
    /// behind it.
    pub(super) fn send(&self, run: &[(PortId, FrameIdx)], frames: &FrameTable<'_>) -> Sent {
        let frames = run.iter().map(|(_, idx)| frames.get(*idx));
        let vnets: ArrayVec<[u8; VNET_LEN], BATCH_MAX> =
            frames.clone().map(|frame| write_vnet(&frame.offload)).collect();
        let parts: ArrayVec<[libc::iovec; 2], BATCH_MAX> = frames
            .clone()
            .zip(&vnets)
            .map(|(frame, vnet)| [lend(vnet), lend(frame.bytes())])
            .collect();
        let mut messages: ArrayVec<libc::mmsghdr, BATCH_MAX> = parts.iter().map(message).collect();
        let mut sent = Sent::default();
        let mut from = 0;
        while from < messages.len() {
            match self.send_messages(&mut messages[from..]) {
                Ok(count) => {
                    for frame in frames.clone().skip(from).take(count) {
                        let len = frame.bytes().len();
                        sent.frames += segments_of(len, &frame.offload);
                        sent.bytes += wire_bytes(len, &frame.offload);
                    }
                    from += count;
                }
                Err(error) => {
                    sent.device_absent |= error.raw_os_error() == Some(libc::ENXIO);
                    sent.refused.push(refusal(&error));
                    from += 1;
                }
            }
        }
        sent
    }

    /// Sends as many as the kernel takes, one at least.
    fn send_messages(&self, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
        // SAFETY: each message points to iovecs, and they to bytes, that the caller holds across the call.
        let count = unsafe {
            let count = messages.len() as u32;
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

/// Bytes as the kernel wants them named. It only reads them.
fn lend(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// One frame as a message.
fn message(parts: &[libc::iovec; 2]) -> libc::mmsghdr {
    // SAFETY: an mmsghdr is plain data, valid with all bytes zero: no address, no control data.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = parts.as_ptr().cast_mut();
    message.msg_hdr.msg_iovlen = parts.len();
    message
}

/// What a refusal means on a packet socket: a veth never says "wait", and ENOBUFS is how it says "too big for the peer".
fn refusal(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOMEM | libc::EINTR) => DropReason::TxFull,
        Some(libc::ENOBUFS | libc::EMSGSIZE) => DropReason::TxTooBig,
        Some(libc::EINVAL) => DropReason::BadOffload,
        _ => DropReason::TxDown,
    }
}
