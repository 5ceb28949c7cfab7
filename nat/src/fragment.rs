//! Packets in parts: cutting what is too large for the inside ([`parts`]), and putting together what comes from there
//! ([`Reassembly`]).

mod cut;
mod part;
mod reassembly;

pub use cut::{Part, parts};
pub use reassembly::{Reassembly, Whole};

#[cfg(test)]
mod tests;
