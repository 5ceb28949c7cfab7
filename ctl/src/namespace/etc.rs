//! The /etc of a node.

/// The file that tells a process that it is inside a node; it holds the node's id.
pub const MARKER: &str = "/etc/portolan-node";
