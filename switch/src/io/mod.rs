//! The IO edge: what moves frames between devices and the core, and nothing else.
//!
//! One thread owns the core, all open ports and the host's sockets, and runs [`dataplane`]'s loop; a second one sends frames to
//! many ports for it (`floods`). The control side, on threads of its own, opens ports and moves them down, and gets them back to
//! close them. The only `unsafe` of this crate is here.

pub mod clock;
pub mod dataplane;
mod floods;
mod host;
mod neck;
mod options;
pub mod packet;
mod port_io;
mod ring;
mod sending;
pub mod tap;
#[cfg(test)]
mod tests;

pub use dataplane::Dataplane;
pub use host::Features;
pub use neck::{Door, Down, Handle, Up};
pub use packet::PacketWire;
pub use port_io::Port;
pub use ring::RingShape;
pub use tap::TapWire;
