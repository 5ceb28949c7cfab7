//! The two halves of a port, whatever it is made of.
//!
//! They live in two tables, so that a batch lent out of one port's ring can be answered on that port and sent to any other.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::packet::{BATCH_MAX, PacketWire, Received};
use crate::drops::DropReason;
use crate::frame::{Frame, FrameIdx, FrameTable, GsoKind};
use crate::ids::PortId;
use crate::offload::{VNET_LEN, segments_of, shift, wire_bytes, write_vnet};
use crate::segment::segment;

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

    /// The half that sends; `uso` where the kernel takes a train of datagrams as one frame.
    pub(super) fn sender(&self, uso: bool) -> Tx {
        match self {
            Port::Packet(wire) => Tx { socket: wire.sender(), uso },
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
    /// For each frame that was refused, or cut and refused in part: why, and of how many, a superframe counted as its
    /// segments.
    pub refused: ArrayVec<(DropReason, u64), BATCH_MAX>,
}

impl Sent {
    /// A frame was refused, which counts as so many.
    fn refuse(&mut self, error: &io::Error, frames: u64) {
        self.device_absent |= error.raw_os_error() == Some(libc::ENXIO);
        self.refused.push((refusal(error), frames));
    }
}

/// The sending half of a wire.
#[derive(Debug)]
pub(super) struct Tx {
    socket: Arc<OwnedFd>,
    uso: bool,
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
            let mut rest = frames.clone().skip(from);
            let whole = rest.clone().take_while(|frame| self.uso || !is_train(frame)).count();
            let result = match whole {
                0 => Err(io::Error::from_raw_os_error(libc::EINVAL)),
                _ => self.send_messages(&mut messages[from..from + whole]),
            };
            match (result, rest.next()) {
                (Ok(count), _) => {
                    for frame in frames.clone().skip(from).take(count) {
                        let len = frame.bytes().len();
                        sent.frames += segments_of(len, &frame.offload);
                        sent.bytes += wire_bytes(len, &frame.offload);
                    }
                    from += count;
                }
                (Err(error), frame) => {
                    match frame.filter(|frame| is_train(frame)) {
                        Some(train) if error.raw_os_error() == Some(libc::EINVAL) => {
                            self.send_cut(train, &mut sent);
                        }
                        _ => sent.refuse(&error, frame.map_or(1, Frame::segments)),
                    }
                    from += 1;
                }
            }
        }
        sent
    }

    /// Sends a superframe as the frames it stands for.
    fn send_cut(&self, frame: &Frame<'_>, sent: &mut Sent) {
        let mut scratch = vec![0; frame.bytes().len()];
        let mut segments = Vec::new();
        let cut = segment(frame.bytes(), &frame.offload, &mut scratch, |segment| {
            segments.push(segment.to_vec());
        });
        if let Err(reason) = cut {
            sent.refused.push((reason, frame.segments()));
            return;
        }
        let vnet = [0; VNET_LEN];
        let parts: Vec<[libc::iovec; 2]> =
            segments.iter().map(|segment| [lend(&vnet), lend(segment)]).collect();
        let mut messages: Vec<libc::mmsghdr> = parts.iter().map(message).collect();
        let mut from = 0;
        while from < messages.len() {
            match self.send_messages(&mut messages[from..]) {
                Ok(count) => {
                    sent.frames += count as u64;
                    let bytes = segments.iter().skip(from).take(count).map(|s| s.len() as u64);
                    sent.bytes += bytes.sum::<u64>();
                    from += count;
                }
                Err(error) => {
                    sent.refuse(&error, (messages.len() - from) as u64);
                    return;
                }
            }
        }
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

/// Whether a frame stands for several datagrams.
fn is_train(frame: &Frame<'_>) -> bool {
    frame.offload.gso.is_some_and(|gso| gso.kind == GsoKind::UdpL4)
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
