//! The dataplane: a pure core, and an IO edge that moves its frames.
//!
//! The core is [`datapath::Datapath`]. It opens nothing, reads no clock and draws no randomness of its own, so that a poll
//! loop, a simulator or a fuzzer drive the same code. Without the feature `io` this crate is that core alone.

pub mod command;
pub mod drops;
pub mod frame;
pub mod ids;
pub mod outbox;
pub mod turn;
