//! The names of the nodes, served at the gateway of every network.
//!
//! A name is a view of the asking node: its networks in the order of their priority. The node gets the same answer at
//! whichever of its gateways it asks. [`zone`] holds the names and decides what a name means to a node; [`query`]
//! speaks the protocol; [`forward`] has others asked for names that are not ours. Names are compared in wire form, folded to lower case (`name`), so that a label that contains
//! a dot can never pass for two labels.

pub mod forward;
mod message;
pub(crate) mod name;
pub mod query;
pub mod zone;
