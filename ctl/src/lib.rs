//! The control plane: what is wanted, how it is kept, and how it comes to be.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod api;
pub mod daemon;
pub mod namespace;
pub mod paths;
pub mod runner;
pub mod store;
pub mod topology;
