//! A wire whose descriptor is that of a TAP device, which lies in the guest's namespace and is its interface.
//!
//! What the guest sends is read, a frame a call, and what is for it is written. Where the kernel can, each frame has a
//! virtio_net_hdr before it both ways, so that superframes and unfinished checksums cross as they are, as on a packet socket.
//! Where it cannot, the guest's stack finishes whatever it sends, and `port_io` what it is sent.
//!
//! There is no ring: frames wait in the device's own queue (its `txqueuelen`, 1000), whoever serves it, and an heir goes on
//! where the dead one stopped. They are read into `Buffers`, of which the dataplane's thread has one set for all ports: a
//! port has them for its turn. The queue does not tell us what it had no room for; the guest's interface counts that.
//!
//! The descriptor keeps the device, and the device does not keep the namespace it was moved to: when that goes, or the guest
//! deletes the device, the descriptor reports an error and is good for nothing any more. A guest may rename the device, take
//! it down and up or move it elsewhere: the descriptor stays with it.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use libc::{c_int, c_short};

use super::packet::Received;
use crate::drops::DropReason;
use crate::frame::{Frame, FrameTable, HEADROOM, VlanTag};
use crate::headers::{ADDRESSES_LEN, TAG_LEN, ethertype};
use crate::offload::{VNET_LEN, parse_vnet};

/// Where TAP devices come from.
pub const DEVICE: &str = "/dev/net/tun";

/// Bytes of the longest virtio_net_hdr we ask for: with it comes a count of buffers, which says nothing on a TAP.
pub(super) const VNET_LONG: usize = 12;

/// The largest packet there is, with an Ethernet header and two tags; one byte more is read to notice what is longer.
const FRAME_MAX: usize = 65535 + 14 + 2 * TAG_LEN;

/// Bytes of a buffer: a multiple of what processors load at once.
const BUFFER_BYTES: usize = (HEADROOM + VNET_LONG + FRAME_MAX + 1).next_multiple_of(64);

/// Frames read in one batch.
const BUFFERS: usize = 32;

/// Bytes after which a batch ends: what was read is still in the processor's cache when it is sent.
const BATCH_BYTES: usize = 256 * 1024;

/// Where frames of TAP devices are read to: memory for one batch, taken when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    memory: Box<[u8]>,
}

impl Buffers {
    /// Takes the memory, if that was not done before.
    pub fn provide(&mut self) {
        if self.memory.is_empty() {
            self.memory = vec![0; BUFFERS * BUFFER_BYTES].into_boxed_slice();
        }
    }
}

/// What is wanted of a new device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TapWish {
    /// Superframes and unfinished checksums, where the kernel has them for TAP devices.
    pub vnet_hdr: bool,
    /// Trains of datagrams too (Linux 6.2).
    pub uso: bool,
}

/// A TAP device's descriptor. The device goes with the last copy of it.
#[derive(Debug)]
pub struct TapWire {
    device: Arc<OwnedFd>,
    /// Bytes of the virtio_net_hdr before each frame; 0 where there is none.
    header: usize,
}

impl TapWire {
    /// Makes a TAP device of that name in the network namespace of this thread; it is down.
    ///
    /// # Errors
    /// The kernel's, with the step that failed: `PermissionDenied` or `NotFound` where [`DEVICE`] cannot be opened.
    pub fn make(name: &str, wish: TapWish) -> io::Result<TapWire> {
        let device: OwnedFd = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(DEVICE)
            .map_err(|e| step("opening", &e))?
            .into();
        let mut known: c_int = 0;
        control(&device, libc::TUNGETFEATURES, &raw mut known)
            .map_err(|e| step("TUNGETFEATURES", &e))?;
        let vnet_hdr = wish.vnet_hdr && known & libc::IFF_VNET_HDR != 0;
        let mut request = request();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from.cast_signed() as libc::c_char;
        }
        let vnet_flag = if vnet_hdr { libc::IFF_VNET_HDR } else { 0 };
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | vnet_flag) as c_short;
        control(&device, libc::TUNSETIFF, &raw mut request).map_err(|e| step("TUNSETIFF", &e))?;
        if vnet_hdr {
            let mut long = VNET_LONG as c_int;
            // Where it is refused, the header has its first form.
            let _ = control(&device, libc::TUNSETVNETHDRSZ, &raw mut long);
            offer(&device, wish.uso)?;
        }
        TapWire::adopt(device)
    }

    /// Takes a descriptor over from whoever made it, here or in another process: the kernel knows how it is set.
    ///
    /// # Errors
    /// The kernel's; EBADFD where the device is gone.
    pub fn adopt(device: OwnedFd) -> io::Result<TapWire> {
        let mut request = request();
        control(&device, libc::TUNGETIFF, &raw mut request).map_err(|e| step("TUNGETIFF", &e))?;
        // SAFETY: TUNGETIFF has filled in the flags, and any bytes are valid for a number.
        let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        let mut header: c_int = 0;
        if flags & libc::IFF_VNET_HDR != 0 {
            control(&device, libc::TUNGETVNETHDRSZ, &raw mut header)
                .map_err(|e| step("TUNGETVNETHDRSZ", &e))?;
        }
        let header = usize::try_from(header).unwrap_or_default();
        if ![0, VNET_LEN, VNET_LONG].contains(&header) {
            return Err(io::Error::other(format!("a virtio_net_hdr of {header} bytes")));
        }
        Ok(TapWire { device: Arc::new(device), header })
    }

    /// The descriptor, for handing it to an heir.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Bytes of the virtio_net_hdr before each frame; 0 where there is none.
    pub fn header(&self) -> usize {
        self.header
    }

    /// The half that sends.
    pub(super) fn sender(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.device)
    }

    /// Whether the device is gone for good, not merely down.
    pub fn is_gone(&self) -> bool {
        let mut request = request();
        let asked = control(&self.device, libc::TUNGETIFF, &raw mut request);
        asked.is_err_and(|error| error.raw_os_error() == Some(libc::EBADFD))
    }

    /// Reads at most `limit` frames, as many as there are buffers and [`BATCH_BYTES`] or little more, and lends them to
    /// `frames`.
    pub(super) fn receive<'a>(
        &self,
        limit: usize,
        buffers: &'a mut Buffers,
        frames: &mut FrameTable<'a>,
    ) -> Received {
        let mut received = Received::default();
        let mut bytes = 0;
        for buffer in buffers.memory.chunks_exact_mut(BUFFER_BYTES).take(limit) {
            received.more = true;
            if bytes >= BATCH_BYTES {
                break;
            }
            let room = &mut buffer[HEADROOM..];
            match read(&self.device, room) {
                Ok(len) if len == room.len() => received.dropped.push(DropReason::Truncated),
                Ok(len) => {
                    bytes += len;
                    match self.frame(buffer, len) {
                        Ok(frame) => {
                            frames.push(frame);
                        }
                        Err(reason) => received.dropped.push(reason),
                    }
                }
                // A superframe that no virtio_net_hdr can tell of; it is out of the queue.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    received.dropped.push(DropReason::BadOffload);
                }
                Err(error) => {
                    received.more = error.kind() == io::ErrorKind::Interrupted;
                    break;
                }
            }
        }
        received
    }

    /// The frame of which `len` bytes were read, header and all. Its outermost tag is put beside it, where a packet socket
    /// has it.
    fn frame<'a>(&self, buffer: &'a mut [u8], len: usize) -> Result<Frame<'a>, DropReason> {
        let len = len.checked_sub(self.header).ok_or(DropReason::Runt)?;
        let mut start = HEADROOM + self.header;
        let mut vnet = [0; VNET_LEN];
        if self.header > 0 {
            vnet.copy_from_slice(&buffer[HEADROOM..HEADROOM + VNET_LEN]);
        }
        let vlan = outermost_tag(&buffer[start..start + len]);
        let tag = if vlan.is_some() { TAG_LEN } else { 0 };
        if tag > 0 {
            buffer.copy_within(start..start + ADDRESSES_LEN, start + tag);
            without_tag(&mut vnet);
        }
        start += tag;
        let len = len - tag;
        let offload = parse_vnet(&vnet, &buffer[start..start + len])?;
        let mut frame = Frame::new(buffer, start, len);
        frame.offload = offload;
        frame.vlan = vlan;
        Ok(frame)
    }
}

/// The tag behind the addresses, if one stands there and a type behind it.
fn outermost_tag(frame: &[u8]) -> Option<VlanTag> {
    let [a, b, c, d, _, _] = *frame.get(ADDRESSES_LEN..)?.first_chunk()?;
    let tpid = u16::from_be_bytes([a, b]);
    [ethertype::VLAN, ethertype::QINQ]
        .contains(&tpid)
        .then(|| VlanTag { tpid, tci: u16::from_be_bytes([c, d]) })
}

/// Has the checksum's place (csum_start) count from the start of a frame that has lost a tag. What lay before the tag's end is
/// no place for one, and remains none.
fn without_tag(vnet: &mut [u8; VNET_LEN]) {
    let [.., a, b, _, _] = *vnet;
    let start = u16::from_ne_bytes([a, b]).saturating_sub(TAG_LEN as u16);
    vnet[6..8].copy_from_slice(&start.to_ne_bytes());
}

/// Whether TAP devices can be made here: an error says why not. True where they have a virtio_net_hdr.
pub fn probe() -> io::Result<bool> {
    let device: OwnedFd = OpenOptions::new().read(true).write(true).open(DEVICE)?.into();
    let mut known: c_int = 0;
    control(&device, libc::TUNGETFEATURES, &raw mut known)?;
    Ok(known & libc::IFF_VNET_HDR != 0)
}

/// Lets the guest's stack leave checksums and cutting to us, as far as this kernel has it. Of trains of datagrams it takes
/// both families or none.
fn offer(device: &OwnedFd, uso: bool) -> io::Result<()> {
    const PLAIN: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let mut last = Ok(());
    for flags in
        [PLAIN | libc::TUN_F_USO4 | libc::TUN_F_USO6, PLAIN].into_iter().skip(usize::from(!uso))
    {
        // SAFETY: this ioctl takes a number and touches no memory of ours.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, flags) };
        if done == 0 {
            return Ok(());
        }
        last = Err(step("TUNSETOFFLOAD", &io::Error::last_os_error()));
    }
    last
}

/// An empty request about an interface.
fn request() -> libc::ifreq {
    // SAFETY: an ifreq is plain data, valid with all bytes zero.
    unsafe { std::mem::zeroed() }
}

/// One ioctl of a TAP device that reads or writes `what`.
fn control<T>(device: &OwnedFd, number: libc::Ioctl, what: *mut T) -> io::Result<()> {
    // SAFETY: each caller hands over what its ioctl takes: an ifreq or an int, that lives through the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), number, what) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads one frame, the head of it where there is less room.
fn read(device: &OwnedFd, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `room.len()` bytes to `room`.
    let len = unsafe { libc::read(device.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

/// An error with the step that met it.
fn step(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

#[cfg(test)]
mod tests;
