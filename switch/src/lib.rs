//! The dataplane: a pure core, and an IO edge that moves its frames.
//!
//! The core is [`datapath::Datapath`]. It opens nothing, reads no clock and draws no randomness of its own, so that a poll
//! loop, a simulator or a fuzzer drive the same code. Without the feature `io` this crate is that core alone.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod capture;
pub mod command;
pub mod datapath;
pub mod describe;
pub mod drops;
pub mod fdb;
pub mod frame;
pub mod gateway;
pub mod guard;
pub mod headers;
pub mod ids;
#[cfg(feature = "io")]
pub mod io;
pub mod loops;
pub mod neighbor;
pub mod network;
pub mod offload;
pub mod outbox;
pub mod policy;
pub mod port;
pub mod resolution;
mod router;
pub mod segment;
pub mod snooping;
pub mod storm;
pub mod trace;
pub mod turn;
mod uplink;
pub mod vlan;

pub use portolan_nat::checksum;

#[cfg(test)]
mod testbed;
