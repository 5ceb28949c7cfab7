//! Packets in parts: cutting what is too large for the inside, and putting together what comes from there.

mod cut;

pub use cut::{Part, parts};
