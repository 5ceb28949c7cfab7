//! A wire's switch end: an AF_PACKET socket with a receive ring.
//!
//! The socket is made bare (`socket(AF_PACKET, SOCK_RAW, 0)`) in the wire's namespace and passed out; everything here works
//! without privilege in any namespace. A frame stays in its ring slot from receipt until it is sent on: it is lent to the
//! core as a [`Frame`], and the slots of a batch are given back, in order, when the turn is over. Superframes and unfinished
//! checksums cross as they are, described by a virtio_net_hdr in front of each frame in both directions.
//!
//! Killed at any instant, the owner leaves a ring from which [`PacketWire::adopt`] goes on: the ring's own memory tells it how
//! far the dead one came.
//!
//! Which slots: they are of one size, so a superframe's worth each, or the guest's end must cut smaller. How many: few, see
//! [`SHAPE`], for most wires are quiet; one that overflows is given a larger ring while it lives, see [`larger`] and
//! [`PacketWire::reshape`].

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use libc::{c_int, socklen_t};

use super::options::{get_option, set_option};
use super::ring::{Ring, RingShape};
use crate::drops::DropReason;
use crate::frame::{Frame, FrameTable, HEADROOM, VlanTag};
use crate::offload::{VNET_LEN, parse_vnet};

/// Most frames taken in one batch.
pub const BATCH_MAX: usize = 64;

/// A batch is at most this part of the ring: its slots are given back only when all of it was sent, and meanwhile the rest
/// must hold what arrives.
const RING_PART: usize = 8;

/// Bytes the kernel leaves free in each slot for us, before the virtio_net_hdr and the frame.
const RESERVE: usize = 192;

/// Where a frame starts in its slot: the header and address (52 bytes) and the 16 bytes the kernel keeps for a link-layer
/// header, rounded up to 16 (80); the reserve and the virtio_net_hdr; less the Ethernet header, which is laid before that
/// point.
pub(super) const FRAME_AT: usize = 80 + RESERVE + VNET_LEN - 14;

/// Where what is lent out of a slot starts: behind the kernel's header and behind what is kept for an heir.
pub(super) const BODY_AT: usize = 128;

const _: () = assert!(FRAME_AT - BODY_AT >= HEADROOM);

/// The ring of a new wire: 1 MiB in 16 slots that each hold a superframe.
pub const SHAPE: RingShape = RingShape { slots: 16, slot_bytes: 65536, block_bytes: 65536 };

/// Most slots of a wire's ring.
const SLOTS_MAX: u32 = 256;

/// How much larger each ring is than the one before.
const SLOTS_STEP: u32 = 4;

/// The shape that comes after this one for a wire that overflows it, if any.
pub fn larger(shape: RingShape) -> Option<RingShape> {
    let slots = shape.slots.checked_mul(SLOTS_STEP).filter(|slots| *slots <= SLOTS_MAX)?;
    Some(RingShape { slots, ..shape })
}

/// To what `gso_max_size` and `gso_ipv4_max_size` of the guest's end must be set for [`SHAPE`]: the kernel cuts whatever is
/// that long, Ethernet header included, so that the longest frame fits its slot with a tag to spare.
pub const GSO_MAX: u32 = SHAPE.slot_bytes - FRAME_AT as u32;

/// Largest MTU of a wire with [`SHAPE`], bytes: a packet that is no superframe must fit a slot too, with its Ethernet header
/// and a tag.
pub const MTU_MAX: u16 = (GSO_MAX - 18) as u16;

/// What one [`PacketWire::receive`] found, besides the frames it put in the table.
#[derive(Debug, Default)]
pub struct Received {
    /// Whether frames may be left in the ring.
    pub more: bool,
    /// Frames taken that are not in the table, and why.
    pub dropped: ArrayVec<DropReason, BATCH_MAX>,
    /// Frames the kernel dropped since it was last asked, for the ring was full.
    pub overflow: u32,
}

/// An AF_PACKET socket with its mapped receive ring. Dropping it closes the descriptor (24 ms where it is the last copy).
#[derive(Debug)]
pub struct PacketWire {
    socket: Arc<OwnedFd>,
    pub(super) ring: Ring,
    /// The slot read next.
    next: u32,
    /// How many slots before `next` are taken and not given back.
    taken: u32,
    lost: u32,
    /// The ring was found full, and the kernel was not asked since what that cost.
    crowded: bool,
    /// Whether there is a ring at all.
    deaf: bool,
}

impl PacketWire {
    /// Sets up a bare packet socket, made in the wire's namespace, and binds it to the device `ifindex` there. Takes 9 ms
    /// (the kernel waits for its readers): not for the dataplane's thread. Errors are the kernel's, with the step that
    /// failed.
    pub fn open(socket: OwnedFd, ifindex: u32, shape: RingShape) -> io::Result<PacketWire> {
        shape.validate(SLOT_BYTES_MIN)?;
        let set = |name, option, value: c_int| {
            set_option(socket.as_fd(), libc::SOL_PACKET, option, &value).map_err(|e| step(name, &e))
        };
        set("PACKET_VERSION", libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as c_int)?;
        set("PACKET_VNET_HDR", libc::PACKET_VNET_HDR, 1)?;
        set("PACKET_RESERVE", libc::PACKET_RESERVE, RESERVE as c_int)?;
        set("PACKET_IGNORE_OUTGOING", libc::PACKET_IGNORE_OUTGOING, 1)?;
        // As much as wmem_max allows; where it is less, a burst of superframes may meet a full queue, which is counted.
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BYTES)?;
        set_ring(socket.as_fd(), Some(shape)).map_err(|e| step("PACKET_RX_RING", &e))?;
        let ring = Ring::map(socket.as_fd(), shape).map_err(|e| step("mapping the ring", &e))?;
        bind(socket.as_fd(), ifindex).map_err(|e| step("binding to the device", &e))?;
        Ok(PacketWire::with(socket, ring, 0, 0))
    }

    /// Takes over a wire whose former owner is dead and had it from [`PacketWire::open`] with that shape. Frames that it
    /// had taken and perhaps sent are given up, see [`PacketWire::take_lost`]; the ones behind them are received in order.
    ///
    /// An owner that died while it changed the ring leaves another one or none: then the wire gets a new one of that shape.
    pub fn adopt(socket: OwnedFd, shape: RingShape) -> io::Result<PacketWire> {
        shape.validate(SLOT_BYTES_MIN)?;
        let ring = match Ring::map(socket.as_fd(), shape) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                replace_ring(socket.as_fd(), shape)?
            }
            mapped => mapped.map_err(|e| step("mapping the ring", &e))?,
        };
        let (next, lost) = ring.take_over()?;
        Ok(PacketWire::with(socket, ring, next, lost))
    }

    fn with(socket: OwnedFd, ring: Ring, next: u32, lost: u32) -> PacketWire {
        let socket = Arc::new(socket);
        PacketWire { socket, ring, next, taken: 0, lost, crowded: false, deaf: false }
    }

    /// Gives the wire a ring of another shape, empty. Takes some 20 ms, in which frames that arrive are lost; those that were
    /// in the old ring are given up, see [`PacketWire::take_lost`]. Sending goes on meanwhile.
    ///
    /// # Errors
    /// The kernel's, with the step that failed. The wire then has an empty ring of its former shape, or, should that be
    /// refused too, none: it hears nothing any more, and [`PacketWire::is_gone`].
    pub fn reshape(&mut self, shape: RingShape) -> io::Result<()> {
        assert_eq!(self.taken, 0, "a batch is given back before the ring goes");
        shape.validate(SLOT_BYTES_MIN)?;
        let former = self.shape();
        // The kernel lets go of a ring that nobody maps, so something else must stand in its place here.
        let blank = Ring::blank(former).map_err(|e| step("memory for a ring", &e))?;
        let unread = |slot: &u32| self.ring.is_filled((self.next + slot) % former.slots);
        self.lost += (0..former.slots).take_while(unread).count() as u32;
        self.ring = blank;
        (self.next, self.crowded, self.deaf) = (0, false, true);
        let made = replace_ring(self.socket(), shape);
        let (ring, result) = match made {
            Ok(ring) => (ring, Ok(())),
            Err(error) => (replace_ring(self.socket(), former)?, Err(error)),
        };
        (self.ring, self.deaf) = (ring, false);
        self.lost += self.overflow();
        result
    }

    /// The socket, for links to be asked of and for handing it to an heir.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The half that sends.
    pub(super) fn sender(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.socket)
    }

    /// How the ring is laid out.
    pub fn shape(&self) -> RingShape {
        self.ring.shape()
    }

    /// How many frames were given up at takeover or with a former ring; asked once, to be counted.
    pub fn take_lost(&mut self) -> u32 {
        std::mem::take(&mut self.lost)
    }

    /// Whether the device is gone for good, not merely down, or the ring is. Clears the socket's pending error, which would
    /// otherwise fail the next send.
    pub fn is_gone(&self) -> bool {
        let _: io::Result<c_int> = get_option(self.socket(), libc::SOL_SOCKET, libc::SO_ERROR);
        self.deaf || bound_device(self.socket()).is_ok_and(|ifindex| ifindex == -1)
    }

    /// Takes at most `limit` frames (and [`BATCH_MAX`], and an eighth of the ring) and lends them to `frames`. They stay in
    /// their slots until [`PacketWire::release`]. An heir will not see them again.
    pub fn receive<'a>(&'a mut self, limit: usize, frames: &mut FrameTable<'a>) -> Received {
        assert_eq!(self.taken, 0, "a batch is given back before the next is taken");
        let slots = self.ring.shape().slots;
        let limit = limit.min(BATCH_MAX).min((slots as usize / RING_PART).max(1)) as u32;
        let filled = (0..limit)
            .take_while(|step| self.ring.is_filled((self.next + step) % slots))
            .count() as u32;
        self.crowded |= filled == limit && self.ring.is_filled((self.next + slots - 1) % slots);
        let mut received = Received { more: filled == limit, ..Received::default() };
        let mut losing = false;
        for step in 0..filled {
            let slot = (self.next + step) % slots;
            self.ring.mark(slot);
            losing |= self.ring.header(slot).tp_status & libc::TP_STATUS_LOSING != 0;
            match self.frame(slot) {
                Ok(frame) => {
                    frames.push(frame);
                }
                Err(reason) => received.dropped.push(reason),
            }
        }
        if filled > 0 {
            self.next = (self.next + filled) % slots;
            self.taken = filled;
            self.ring.store_next(self.next);
        }
        // The kernel tells with the next frame it has room for; a burst that ended may have none.
        if losing || (self.crowded && !received.more) {
            self.crowded = false;
            received.overflow = self.overflow();
        }
        received
    }

    /// Gives the slots of the last batch back to the kernel, in order. The borrow checker sees to it that nothing of them
    /// is still lent.
    pub fn release(&mut self) {
        let slots = self.ring.shape().slots;
        for step in (1..=self.taken).rev() {
            self.ring.release((self.next + slots - step) % slots);
        }
        self.taken = 0;
    }

    /// The frame of a filled slot that has just been taken.
    fn frame<'a>(&self, slot: u32) -> Result<Frame<'a>, DropReason> {
        let header = self.ring.header(slot);
        let (at, len) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        let fits = at >= BODY_AT + HEADROOM && at + len <= self.ring.shape().slot_bytes as usize;
        if header.tp_snaplen < header.tp_len || !fits {
            return Err(DropReason::Truncated);
        }
        // SAFETY: the slot is filled and was not lent since; `receive` lends it for as long as it borrows the wire, and
        // `release` borrows it anew.
        let body = unsafe { self.ring.body(slot, BODY_AT) };
        let start = at - BODY_AT;
        let mut vnet = [0; VNET_LEN];
        vnet.copy_from_slice(&body[start - VNET_LEN..start]);
        let offload = parse_vnet(&vnet, &body[start..start + len])?;
        let mut frame = Frame::new(body, start, len);
        frame.offload = offload;
        frame.vlan = vlan_tag(&header);
        Ok(frame)
    }

    /// Frames the kernel has dropped since it was last asked.
    fn overflow(&self) -> u32 {
        let stats: io::Result<libc::tpacket_stats> =
            get_option(self.socket(), libc::SOL_PACKET, libc::PACKET_STATISTICS);
        stats.map_or(0, |stats| stats.tp_drops)
    }
}

/// Bytes asked for the send buffer.
const SEND_BYTES: c_int = 4 << 20;

/// Smallest slot that holds the headers, the reserve and a full Ethernet frame.
const SLOT_BYTES_MIN: usize = 2048;

/// The tag the kernel took out of the frame.
fn vlan_tag(header: &libc::tpacket2_hdr) -> Option<VlanTag> {
    let has = |flag| header.tp_status & flag != 0;
    has(libc::TP_STATUS_VLAN_VALID).then(|| {
        let tpid = if has(libc::TP_STATUS_VLAN_TPID_VALID) { header.tp_vlan_tpid } else { 0x8100 };
        VlanTag { tpid, tci: header.tp_vlan_tci }
    })
}

/// An error with the step that met it.
fn step(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// Sets the socket's receive ring where it has none, or takes it away where nobody maps it.
pub(super) fn set_ring(socket: BorrowedFd<'_>, shape: Option<RingShape>) -> io::Result<()> {
    let request = libc::tpacket_req {
        tp_block_size: shape.map_or(0, |shape| shape.block_bytes),
        tp_block_nr: shape.map_or(0, RingShape::blocks),
        tp_frame_size: shape.map_or(0, |shape| shape.slot_bytes),
        tp_frame_nr: shape.map_or(0, |shape| shape.slots),
    };
    set_option(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)
}

/// Maps a new ring in place of what there is.
pub(super) fn replace_ring(socket: BorrowedFd<'_>, shape: RingShape) -> io::Result<Ring> {
    set_ring(socket, None).map_err(|e| step("taking the ring away", &e))?;
    set_ring(socket, Some(shape)).map_err(|e| step("PACKET_RX_RING", &e))?;
    Ring::map(socket, shape).map_err(|e| step("mapping the ring", &e))
}

/// An address that names a device and all protocols.
fn link_address(ifindex: c_int) -> libc::sockaddr_ll {
    // SAFETY: a sockaddr_ll is plain data, valid with all bytes zero.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = ifindex;
    address
}

fn bind(socket: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let ifindex = c_int::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    let address = link_address(ifindex);
    let len = size_of::<libc::sockaddr_ll>() as socklen_t;
    // SAFETY: the kernel reads `len` bytes from `address`, which is that long.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The device a packet socket is bound to; -1 when it is gone.
fn bound_device(socket: BorrowedFd<'_>) -> io::Result<c_int> {
    let mut address = link_address(0);
    let mut len = size_of::<libc::sockaddr_ll>() as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `address`.
    match unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut len) }
    {
        0 => Ok(address.sll_ifindex),
        _ => Err(io::Error::last_os_error()),
    }
}
