//! The built binary in real namespaces, as its users have it. These tests need root, to become an ordinary user and to
//! make namespaces of root's; they touch no network of the host.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

mod harness;
mod integrity;
mod lan;
mod oracle;
mod refusals;
mod resolver;
mod restart;
