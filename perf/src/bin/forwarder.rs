//! The bare forwarders: the baseline that says what moving frames costs without a switch.
//!
//! Two devices, a TPACKET_V2 receive ring each, `sendmsg` to the other; superframes cross whole behind their
//! virtio_net_hdr. No tables, no checks, no counters, no timers, one thread, made as simple as it can be. Run it as root in
//! the namespace that holds both devices: `forwarder IFNAME IFNAME [SLOTS]`.
//!
//! `forwarder --tap IFNAME IFNAME` makes two TAP devices instead, and goes on with them wherever they are moved: a frame is
//! read behind its virtio_net_hdr and written to the other.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::c_int;
use portolan_perf::packet_socket::{bind, check, set};

const SLOT_BYTES: usize = 65536;
const VNET_BYTES: usize = 10;

/// One device: its socket, its mapped ring, and the slot read next.
struct Side {
    socket: RawFd,
    ring: *mut u8,
    slots: usize,
    next: usize,
}

impl Side {
    fn open(name: &str, slots: usize) -> io::Result<Side> {
        // SAFETY: no memory is handed over.
        let socket = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) }, "socket")?;
        set(
            socket,
            libc::SOL_PACKET,
            libc::PACKET_VERSION,
            &(libc::tpacket_versions::TPACKET_V2 as c_int),
        )?;
        set(socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
        set(socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
        let request = libc::tpacket_req {
            tp_block_size: SLOT_BYTES as u32,
            tp_block_nr: slots as u32,
            tp_frame_size: SLOT_BYTES as u32,
            tp_frame_nr: slots as u32,
        };
        set(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: the kernel chooses the address.
        let ring = unsafe {
            libc::mmap(std::ptr::null_mut(), slots * SLOT_BYTES, protection, flags, socket, 0)
        };
        if ring == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        bind(socket, name)?;
        Ok(Side { socket, ring: ring.cast(), slots, next: 0 })
    }

    /// Sends everything in this ring to the other side, slot by slot.
    fn forward(&mut self, to: RawFd) {
        loop {
            // SAFETY: the slot lies in the mapping and starts with its aligned status word.
            let (slot, status) = unsafe {
                let slot = self.ring.add(self.next * SLOT_BYTES);
                (slot, AtomicU32::from_ptr(slot.cast()))
            };
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                return;
            }
            // SAFETY: the kernel wrote a header, a virtio_net_hdr right before `tp_mac` and `tp_snaplen` bytes behind it, and
            // leaves them alone until the status is given back.
            unsafe {
                let header = slot.cast::<libc::tpacket2_hdr>().read();
                let at = slot.add(usize::from(header.tp_mac) - VNET_BYTES);
                libc::send(
                    to,
                    at.cast(),
                    header.tp_snaplen as usize + VNET_BYTES,
                    libc::MSG_DONTWAIT,
                );
            }
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % self.slots;
        }
    }
}

/// Checksums, TCP over IPv4 and IPv6, and trains of datagrams over both (TUNSETOFFLOAD).
const OFFLOADS: libc::c_uint = 0x67;

/// A TAP device of that name with a virtio_net_hdr.
fn tap(name: &str) -> io::Result<RawFd> {
    // SAFETY: a C string, a plain structure of zeros whose name is shorter than its room, and a number are handed over.
    unsafe {
        let device =
            check(libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_NONBLOCK), "open")?;
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from.cast_signed() as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
        check(libc::ioctl(device, libc::TUNSETIFF, &raw mut request), "TUNSETIFF")?;
        check(libc::ioctl(device, libc::TUNSETOFFLOAD, OFFLOADS), "TUNSETOFFLOAD")?;
        Ok(device)
    }
}

/// Forwards between two TAP devices for ever.
fn forward_taps(first: &str, second: &str) -> io::Result<()> {
    let ends = [tap(first)?, tap(second)?];
    let mut frame = vec![0u8; VNET_BYTES + 65536 + 64];
    let mut watched = ends.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    loop {
        // SAFETY: the kernel writes to the two entries of the array.
        check(unsafe { libc::poll(watched.as_mut_ptr(), 2, -1) }, "poll")?;
        for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            loop {
                // SAFETY: the kernel writes at most the buffer's length to it.
                let read = unsafe { libc::read(from, frame.as_mut_ptr().cast(), frame.len()) };
                let Ok(len) = usize::try_from(read) else { break };
                // SAFETY: the kernel reads what it wrote, which lies within the buffer.
                unsafe { libc::write(to, frame.as_ptr().cast(), len) };
            }
        }
    }
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (first, second) = match words.as_slice() {
        [tap, first, second] if tap == "--tap" => return forward_taps(first, second),
        [first, second, ..] => (first, second),
        _ => return Err(io::Error::other("usage: forwarder [--tap] IFNAME IFNAME [SLOTS]")),
    };
    let slots = words.get(2).and_then(|text| text.parse().ok()).unwrap_or(16);
    let (mut a, mut b) = (Side::open(first, slots)?, Side::open(second, slots)?);
    let watch = |socket| libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
    let mut watched = [watch(a.socket), watch(b.socket)];
    loop {
        // SAFETY: the kernel writes to the two entries of the array.
        let polled = unsafe { libc::poll(watched.as_mut_ptr(), 2, -1) };
        check(polled, "poll")?;
        a.forward(b.socket);
        b.forward(a.socket);
    }
}
