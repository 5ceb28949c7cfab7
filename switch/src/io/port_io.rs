//! The two halves of a port, whatever it is made of.
//!
//! They live in two tables, so that a batch lent out of one port's ring can be answered on that port and sent to any other.
//!
//! The two kinds of wire differ in how frames are received, and in three things about sending: a packet socket takes many
//! frames by one call and a TAP one; a TAP may take no virtio_net_hdr, so that what is left to be done for a frame is done
//! here; and some errors mean something else.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use libc::c_int;

use super::packet::{BATCH_MAX, PacketWire, Received};
use super::tap::{Buffers, TapWire, VNET_LONG};
use crate::drops::DropReason;
use crate::frame::{Checksum, Frame, FrameTable, GsoKind, Offload, VlanTag};
use crate::headers::{ADDRESSES_LEN, TAG_LEN};
use crate::offload::{VNET_LEN, segments_of, shift, wire_bytes, write_vnet};
use crate::outbox::Entry;
use crate::segment::segment;

/// Pieces of a frame on its way out: virtio_net_hdr, addresses, tag, and the rest.
const PIECES_MAX: usize = 4;

/// A port as it crosses the control neck. It is opened, and dropped, on the control side: both are slow.
#[derive(Debug)]
pub enum Port {
    /// A veth wire.
    Packet(PacketWire),
    /// A TAP wire.
    Tap(TapWire),
}

impl Port {
    /// Its descriptor, for handing it to an heir: it becomes readable when frames arrive.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Port::Packet(wire) => wire.socket(),
            Port::Tap(wire) => wire.descriptor(),
        }
    }

    /// The half that sends; `uso` where the kernel takes a train of datagrams as one frame.
    pub(super) fn sender(&self, uso: bool) -> Tx {
        match self {
            Port::Packet(wire) => {
                Tx { fd: wire.sender(), kind: Kind::Packet, header: VNET_LEN, uso }
            }
            Port::Tap(wire) => {
                Tx { fd: wire.sender(), kind: Kind::Tap, header: wire.header(), uso }
            }
        }
    }

    /// Takes what memory the port needs to receive, where it has none of its own.
    pub(super) fn provide(&self, buffers: &mut Buffers) {
        match self {
            Port::Packet(_) => {}
            Port::Tap(_) => buffers.provide(),
        }
    }

    /// Lends at most `limit` frames to the table, out of its ring or read into `buffers`. They are given back by
    /// [`Port::release`].
    pub(super) fn receive<'a>(
        &'a mut self,
        limit: usize,
        buffers: &'a mut Buffers,
        frames: &mut FrameTable<'a>,
    ) -> Received {
        match self {
            Port::Packet(wire) => wire.receive(limit, frames),
            Port::Tap(wire) => wire.receive(limit, buffers, frames),
        }
    }

    /// Gives back what the last batch lent.
    pub(super) fn release(&mut self) {
        match self {
            Port::Packet(wire) => wire.release(),
            Port::Tap(_) => {}
        }
    }

    /// Frames that a former owner took and may not have sent; asked once. Of a TAP nobody knows.
    pub(super) fn take_lost(&mut self) -> u32 {
        match self {
            Port::Packet(wire) => wire.take_lost(),
            Port::Tap(_) => 0,
        }
    }

    /// Whether what the port is made of is gone for good.
    pub fn is_gone(&self) -> bool {
        match self {
            Port::Packet(wire) => wire.is_gone(),
            Port::Tap(wire) => wire.is_gone(),
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
    /// For each frame that was refused, or cut and refused in part: which of the run, why, and of how many, a superframe
    /// counted as its segments.
    pub refused: Vec<Refused>,
}

/// A frame of a run that was not sent, or not all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    /// Which of the run.
    pub at: usize,
    /// Why.
    pub reason: DropReason,
    /// As how many it counts.
    pub frames: u64,
}

/// What the descriptor of a sending half is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Packet,
    Tap,
}

/// The sending half of a wire.
#[derive(Debug)]
pub(super) struct Tx {
    fd: Arc<OwnedFd>,
    kind: Kind,
    /// Bytes of the virtio_net_hdr before each frame; 0 where the kernel takes none.
    header: usize,
    uso: bool,
}

/// A frame as it goes out: virtio_net_hdr, addresses, tag, and the rest.
type Pieces = ArrayVec<libc::iovec, PIECES_MAX>;

/// What goes before a frame's bytes, or among them, on one port.
struct Dress {
    /// The longer form ends in zeros.
    vnet: [u8; VNET_LONG],
    /// How much of it goes out.
    header: usize,
    /// The tag that comes behind the addresses, if one does.
    tag: Option<[u8; TAG_LEN]>,
}

impl Dress {
    fn of(frame: &Frame<'_>, tagged: bool, header: usize) -> Dress {
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
        let mut vnet = [0; VNET_LONG];
        vnet[..VNET_LEN].copy_from_slice(&write_vnet(&offload));
        Dress { vnet, header, tag: tag.map(bytes) }
    }

    /// A frame that is left nothing to be done for, with the same tag.
    fn plain(&self) -> Dress {
        Dress { vnet: [0; VNET_LONG], ..*self }
    }

    /// The pieces of the frame as they go out.
    fn pieces(&self, bytes: &[u8]) -> Pieces {
        let mut pieces = ArrayVec::new();
        if self.header > 0 {
            pieces.push(lend(&self.vnet[..self.header]));
        }
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
    /// One that writes each frame to a descriptor, without a virtio_net_hdr.
    #[cfg(test)]
    pub(super) fn to_descriptor(fd: OwnedFd) -> Tx {
        Tx { fd: Arc::new(fd), kind: Kind::Tap, header: 0, uso: false }
    }

    /// Sends the frames of one port in order, at most [`BATCH_MAX`]. A frame that is refused does not hold up the ones
    /// behind it.
    pub(super) fn send(&self, run: &[Entry], frames: &FrameTable<'_>) -> Sent {
        let frame = |at: usize| frames.get(run[at].frame);
        let dresses: ArrayVec<Dress, BATCH_MAX> = run
            .iter()
            .map(|entry| Dress::of(frames.get(entry.frame), entry.tagged, self.header))
            .collect();
        let parts: ArrayVec<Pieces, BATCH_MAX> =
            (0..run.len()).map(|at| dresses[at].pieces(frame(at).bytes())).collect();
        let mut sent = Sent::default();
        // The frames from the one to the other go as they are.
        let (mut from, mut until) = (0, 0);
        while from < run.len() {
            until += (until..run.len()).take_while(|at| self.takes(frame(*at))).count();
            if from == until {
                self.send_finished(from, frame(from), &dresses[from].plain(), &mut sent);
                (from, until) = (from + 1, until + 1);
                continue;
            }
            match self.send_pieces(&parts[from..until]) {
                Ok(count) => {
                    for at in from..from + count {
                        let (len, offload) = (frame(at).bytes().len(), &frame(at).offload);
                        sent.frames += segments_of(len, offload);
                        sent.bytes += wire_bytes(len, offload);
                    }
                    from += count;
                }
                Err(error) => {
                    let first = frame(from);
                    if is_train(first) && error.raw_os_error() == Some(libc::EINVAL) {
                        self.send_finished(from, first, &dresses[from].plain(), &mut sent);
                    } else {
                        self.refuse(&mut sent, from, &error, first.segments());
                    }
                    from += 1;
                }
            }
        }
        sent
    }

    /// Whether the kernel takes this frame as it is.
    fn takes(&self, frame: &Frame<'_>) -> bool {
        match frame.offload {
            Offload { gso: None, csum } => {
                self.header > 0 || !matches!(csum, Checksum::Partial { .. })
            }
            Offload { gso: Some(_), .. } => self.header > 0 && (self.uso || !is_train(frame)),
        }
    }

    /// Sends a frame, the one at `at` of its run, with its checksum done, a superframe as the frames it stands for.
    fn send_finished(&self, at: usize, frame: &Frame<'_>, dress: &Dress, sent: &mut Sent) {
        let mut scratch = vec![0; frame.bytes().len()];
        let mut segments = Vec::new();
        let cut = segment(frame.bytes(), &frame.offload, &mut scratch, |segment| {
            segments.push(segment.to_vec());
        });
        if let Err(reason) = cut {
            sent.refused.push(Refused { at, reason, frames: frame.segments() });
            return;
        }
        let parts: Vec<Pieces> = segments.iter().map(|segment| dress.pieces(segment)).collect();
        let mut from = 0;
        while from < parts.len() {
            match self.send_pieces(&parts[from..]) {
                Ok(count) => {
                    sent.frames += count as u64;
                    let bytes = segments.iter().skip(from).take(count).map(|s| s.len() as u64);
                    sent.bytes += bytes.sum::<u64>();
                    from += count;
                }
                Err(error) => {
                    self.refuse(sent, at, &error, (parts.len() - from) as u64);
                    return;
                }
            }
        }
    }

    /// Sends as many frames as the kernel takes by one call, one at least.
    fn send_pieces(&self, parts: &[Pieces]) -> io::Result<usize> {
        let fd = self.fd.as_fd();
        match self.kind {
            Kind::Packet => send_messages(fd, parts),
            Kind::Tap => parts.first().map_or(Ok(0), |pieces| write(fd, pieces).map(|()| 1)),
        }
    }

    /// The frame at `at` was refused, which counts as so many.
    fn refuse(&self, sent: &mut Sent, at: usize, error: &io::Error, frames: u64) {
        // A packet socket whose device is gone, and a TAP.
        sent.device_absent |= matches!(error.raw_os_error(), Some(libc::ENXIO | libc::EBADFD));
        sent.refused.push(Refused { at, reason: self.refusal(error), frames });
    }

    /// What a refusal means. A veth never says "wait", and ENOBUFS is how it says "too big for the peer"; a TAP says by it that
    /// there is no memory, and by EIO that it is down.
    fn refusal(&self, error: &io::Error) -> DropReason {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOMEM | libc::EINTR) => DropReason::TxFull,
            Some(libc::ENOBUFS) if self.kind == Kind::Tap => DropReason::TxFull,
            Some(libc::ENOBUFS | libc::EMSGSIZE) => DropReason::TxTooBig,
            Some(libc::EINVAL) => DropReason::BadOffload,
            _ => DropReason::TxDown,
        }
    }
}

/// Sends frames on a packet socket, as many as it takes, at most [`BATCH_MAX`].
fn send_messages(socket: BorrowedFd<'_>, parts: &[Pieces]) -> io::Result<usize> {
    let mut messages: ArrayVec<libc::mmsghdr, BATCH_MAX> =
        parts.iter().take(BATCH_MAX).map(message).collect();
    let (at, count) = (messages.as_mut_ptr(), messages.len() as u32);
    // SAFETY: each message points to iovecs, and they to bytes, that the caller holds across the call.
    let count = unsafe { libc::sendmmsg(socket.as_raw_fd(), at, count, libc::MSG_DONTWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Writes one frame to a TAP, which takes it whole or not.
fn write(device: BorrowedFd<'_>, pieces: &Pieces) -> io::Result<()> {
    // SAFETY: the iovecs point to bytes that the caller holds across the call.
    let written =
        unsafe { libc::writev(device.as_raw_fd(), pieces.as_ptr(), pieces.len() as c_int) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
fn message(parts: &Pieces) -> libc::mmsghdr {
    // SAFETY: an mmsghdr is plain data, valid with all bytes zero: no address, no control data.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = parts.as_ptr().cast_mut();
    message.msg_hdr.msg_iovlen = parts.len();
    message
}
