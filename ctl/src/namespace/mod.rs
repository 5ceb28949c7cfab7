//! Namespaces: what a node is made of, and how the daemon reaches into one.
//!
//! A node is a user namespace and what it owns: a network namespace C, mounts, processes. Nobody but a single-threaded
//! process may join a user namespace, and the daemon has threads; so the daemon reaches into a node through a *step*
//! ([`wire`]): itself, started anew for one request, which joins, does the request and passes descriptors out. Descriptors
//! work from any namespace, so nothing has to stay behind in the node.
//!
//! [`channel`], [`netlink`], [`link`] and [`user`] are the primitives under it; [`mount`] and [`etc`] are what the init of
//! a node does to its own mounts.

pub mod channel;
pub mod etc;
pub mod link;
pub mod mount;
pub mod netlink;
mod offload;
mod step;
pub mod user;
pub mod wire;
