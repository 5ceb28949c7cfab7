//! What leads out of a network and back in.
//!
//! Packets of the inside come with the network they come from ([`inside::Zone`]) and are translated into calls on the
//! sockets of a host ([`sockets`]); what those sockets have to say becomes packets to the inside again. Nothing here knows
//! Ethernet, descriptors, threads or clocks: the host is a trait ([`sockets::host::Host`]), the inside is a trait
//! ([`inside::Inside`]), and time and randomness are arguments.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod checksum;
pub mod fragment;
pub mod icmp_error;
pub mod inside;
pub mod offload;
pub mod packet;
pub mod sockets;
#[cfg(test)]
mod testbed;
pub mod time;
pub mod write;
