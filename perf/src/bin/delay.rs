//! A long way: whatever one device takes in leaves by the other a while later, and back, in order and whole. Superframes cross
//! with their virtio_net_hdr. Run it as root in the namespace that holds both devices: `delay IFNAME IFNAME MILLISECONDS`, the
//! time of one direction. It stands in for netem where the kernel has none.

#![allow(clippy::disallowed_methods, reason = "it measures, and waits")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use portolan_perf::packet_socket::{bind, check, set};

/// A virtio_net_hdr and the largest frame.
const FRAME_MAX: usize = 10 + 65_536 + 18;

/// What waits in one direction at most; 50 ms of some 40 Gbit/s.
const HELD_MAX: usize = 256 << 20;

/// Frames taken in before those that are due are looked at again.
const BATCH: usize = 64;

/// A packet socket on a device, which takes in frames with their offloads.
fn open(name: &str) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is handed over; the descriptor is new, and nobody else's.
    let socket =
        unsafe { OwnedFd::from_raw_fd(check(libc::socket(libc::AF_PACKET, kind, 0), "socket")?) };
    let raw = socket.as_raw_fd();
    set(raw, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
    set(raw, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
    set(raw, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(128 << 20))?;
    set(raw, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(128 << 20))?;
    bind(raw, name)?;
    Ok(socket)
}

/// Carries one direction, for ever.
fn carry(from: RawFd, to: RawFd, delay: Duration) -> io::Result<()> {
    let mut held: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let (mut bytes, mut room) = (0, vec![0u8; FRAME_MAX]);
    loop {
        let mut taken = 0;
        while taken < BATCH {
            // SAFETY: the kernel writes at most the room's length into it.
            let count = unsafe { libc::recv(from, room.as_mut_ptr().cast(), room.len(), 0) };
            let Ok(count) = usize::try_from(count) else { break };
            taken += 1;
            if bytes + count <= HELD_MAX {
                bytes += count;
                held.push_back((Instant::now() + delay, room[..count].to_vec()));
            }
        }
        while held.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            let Some((_, frame)) = held.pop_front() else { break };
            bytes -= frame.len();
            // SAFETY: the kernel reads the frame's length from it. What the device refuses is lost, as on any way.
            unsafe { libc::send(to, frame.as_ptr().cast(), frame.len(), 0) };
        }
        if taken == BATCH {
            continue;
        }
        let wait = held.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
        let wait = wait.map(|wait| libc::timespec {
            tv_sec: wait.as_secs() as libc::time_t,
            tv_nsec: wait.subsec_nanos().into(),
        });
        let wait = wait.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let mut watched = libc::pollfd { fd: from, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, and a time that is read or none.
        check(unsafe { libc::ppoll(&raw mut watched, 1, wait, std::ptr::null()) }, "ppoll")?;
    }
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [a, b, millis] = words.as_slice() else {
        return Err(io::Error::other("usage: delay IFNAME IFNAME MILLISECONDS"));
    };
    let millis = millis.parse().map_err(|_| io::Error::other("MILLISECONDS is no number"))?;
    let (a, b, delay) = (open(a)?, open(b)?, Duration::from_millis(millis));
    let (there, back) = (a.as_raw_fd(), b.as_raw_fd());
    let thread = std::thread::spawn(move || carry(there, back, delay));
    carry(back, there, delay)?;
    thread.join().map_err(|_| io::Error::other("the other direction failed"))?
}
