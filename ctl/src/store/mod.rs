//! Where what is wanted is kept, so that a daemon that starts anew finds it.
//!
//! A store is told of a change by the topology before and the one after, and writes the rows in which they differ. What it
//! has answered for survives the end of the process, however sudden.

mod redb;

pub use self::redb::{Store, StoreError};
