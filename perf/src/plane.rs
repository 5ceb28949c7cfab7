//! A dataplane without a daemon, as figures of it alone are taken.

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::mpsc;

use portolan_switch::command::{Answer, PortCounters, Query};
use portolan_switch::ids::NetworkId;
use portolan_switch::io::{Dataplane, Down, Features, Handle, PacketWire, RingShape, Up};

use crate::packet_socket::check;

/// The number of the only question that is asked.
const QUESTION: u64 = 1;

/// A dataplane, and a way to hear of what comes up from it.
#[derive(Debug)]
pub struct Plane {
    handle: Handle,
    told: mpsc::Receiver<()>,
}

impl Plane {
    /// Starts it, with what this kernel can do. Errors are the kernel's.
    pub fn start() -> io::Result<Plane> {
        let (tell, told) = mpsc::channel();
        let notify = move || {
            _ = tell.send(());
        };
        let handle = Dataplane::spawn(1, Features::probe(), Box::new(notify))?;
        Ok(Plane { handle, told })
    }

    /// Sends a message down, as soon as there is room for it.
    pub fn send(&self, message: Down) {
        let mut message = message;
        while let Err(back) = self.handle.send(message) {
            message = *back;
            std::thread::yield_now();
        }
    }

    /// The counters of a network's ports, once everything sent before has taken effect.
    pub fn counters(&self, network: NetworkId) -> Vec<PortCounters> {
        self.send(Down::Query(QUESTION, Query::Counters(network)));
        while self.told.recv().is_ok() {
            while let Some(up) = self.handle.receive() {
                if let Up::Answer(QUESTION, Answer::Counters { ports, .. }) = up {
                    return ports;
                }
            }
        }
        Vec::new()
    }
}

/// Opens a wire on a device of this namespace, which takes root. Errors are the kernel's.
pub fn open(name: &str, shape: RingShape) -> io::Result<PacketWire> {
    let text = CString::new(name)?;
    // SAFETY: `text` is a C string; socket takes no pointers, and a fresh descriptor is nobody else's.
    let (ifindex, socket) = unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let socket = check(libc::socket(libc::AF_PACKET, kind, 0), "socket")?;
        (libc::if_nametoindex(text.as_ptr()), OwnedFd::from_raw_fd(socket))
    };
    PacketWire::open(socket, ifindex, shape)
}
