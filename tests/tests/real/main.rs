//! The built binary in real namespaces, as its users have it. These tests need root, to become an ordinary user and to
//! make namespaces of root's; they touch no network of the host.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

mod api;
mod bare;
mod capture;
mod crossing;
mod dhcp;
mod explain;
mod harness;
mod hostaccess;
mod integrity;
mod ipv6_hosts;
mod lan;
mod networkd;
mod options;
mod oracle;
mod place;
mod publish;
mod refusals;
mod resolver;
mod restart;
mod taps;
mod uplink;
mod upstream;
mod watch;
