//! Scenarios on the simulator. Each asserts its exact outcome, and which counters moved.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod any_bytes;
mod churn;
mod datagrams;
mod dns;
mod failing;
mod flood;
mod frames;
mod gso;
mod guard;
mod isolation;
mod learning;
mod leases;
mod outside;
mod published;
mod seeds;
mod slaac;
mod storms;
mod talking;
mod tcp_walk;
mod vlans;
