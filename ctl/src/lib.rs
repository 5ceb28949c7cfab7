//! The control plane: what is wanted, how it is kept, and how it comes to be.

pub mod api;
