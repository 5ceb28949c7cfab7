//! The two halves of a port, whatever it is made of.
//!
//! They live in two tables, so that a batch lent out of one port's ring can be answered on that port and sent to any other.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::packet::{BATCH_MAX, PacketWire, Received};
use crate::drops::DropReason;
use crate::frame::{Frame, FrameTable, GsoKind, VlanTag};
use crate::headers::TAG_LEN;
use crate::offload::{VNET_LEN, segments_of, shift, wire_bytes, write_vnet};
use crate::outbox::Entry;
use crate::segment::segment;

/// Bytes of the two addresses, behind which a tag comes.
const ADDRESSES_LEN: usize = 12;

/// Pieces of a frame on its way out: virtio_net_hdr, addresses, tag, and the rest.
const PIECES_MAX: usize = 4;

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

/// What goes before a frame's bytes, or among them, on one port.
struct Dress {
    vnet: [u8; VNET_LEN],
    /// The tag that comes behind the addresses, if one does.
    tag: Option<[u8; TAG_LEN]>,
}

impl Dress {
    fn of(frame: &Frame<'_>, tagged: bool) -> Dress {
        let mut offload = frame.offload;
        // The core sends nothing that is shorter than an Ethernet header.
        let tag = frame.vlan.filter(|_| tagged && frame.bytes().len() >= ADDRESSES_LEN);
        if tag.is_some() {
            shift(&mut offload, TAG_LEN);
        }
        let bytes = |tag: VlanTag| {
            let ([a, b], [c, d]) = (tag.tpid.to_be_bytes(), tag.tci.to_be_bytes());
            [a, b, c, d]
        };
        Dress { vnet: write_vnet(&offload), tag: tag.map(bytes) }
    }

    /// A frame that is left nothing to be done for, with the same tag.
    fn plain(&self) -> Dress {
        Dress { vnet: [0; VNET_LEN], tag: self.tag }
    }

    /// The pieces of the frame as they go out.
    fn pieces(&self, bytes: &[u8]) -> ArrayVec<libc::iovec, PIECES_MAX> {
        let mut pieces = ArrayVec::new();
        pieces.push(lend(&self.vnet));
        match &self.tag {
            Some(tag) => {
                let (addresses, rest) = bytes.split_at(ADDRESSES_LEN);
                pieces.extend([lend(addresses), lend(tag), lend(rest)]);
            }
            None => pieces.push(lend(bytes)),
        }
        pieces
    }
}

impl Tx {
    /// Sends the frames of one port in order, at most [`BATCH_MAX`]. A frame that is refused does not hold up the ones
    /// behind it.
    pub(super) fn send(&self, run: &[Entry], frames: &FrameTable<'_>) -> Sent {
        let dresses: ArrayVec<Dress, BATCH_MAX> =
            run.iter().map(|entry| Dress::of(frames.get(entry.frame), entry.tagged)).collect();
        let frames = run.iter().map(|entry| frames.get(entry.frame));
        let parts: ArrayVec<_, BATCH_MAX> = frames
            .clone()
            .zip(&dresses)
            .map(|(frame, dress)| dress.pieces(frame.bytes()))
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
                            self.send_cut(train, &dresses[from].plain(), &mut sent);
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
    fn send_cut(&self, frame: &Frame<'_>, dress: &Dress, sent: &mut Sent) {
        let mut scratch = vec![0; frame.bytes().len()];
        let mut segments = Vec::new();
        let cut = segment(frame.bytes(), &frame.offload, &mut scratch, |segment| {
            segments.push(segment.to_vec());
        });
        if let Err(reason) = cut {
            sent.refused.push((reason, frame.segments()));
            return;
        }
        let parts: Vec<_> = segments.iter().map(|segment| dress.pieces(segment)).collect();
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
fn message(parts: &ArrayVec<libc::iovec, PIECES_MAX>) -> libc::mmsghdr {
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
