//! The names and leases of Portolan's networks: UDP payload in, UDP payload out.
//!
//! This crate is the pure side of the in-band services: it performs no IO, reads no clock, and knows nothing of
//! Ethernet, ports or descriptors. The switch takes a payload off the wire, asks here, and sends what comes back.
//! Whatever varies from run to run (randomness, limits of the transport) is an argument, so a seed replays a run.
//!
//! - [`dns::zone`]: who has which name and which address, network by network, and which networks each node sees.
//! - [`dns::query`]: one DNS query answered from it.
//! - [`lease`]: who has which address, and until when.
//! - [`lending`]: how it is found out that an address is free, and what becomes of leases.
//! - [`ra`]: router advertisements.
//! - [`service`]: what the servers of addresses are to tell.
//! - [`v4`], [`v6`]: servers of DHCP.
//!
//! Invariants: no input, however malformed, panics or takes more than linear time; every reply stays within the size
//! the caller allows.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod dns;
pub mod lease;
pub mod lending;
pub mod ra;
pub mod service;
pub mod v4;
pub mod v6;
