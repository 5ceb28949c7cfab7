//! The simulator: whole topologies of hosts in virtual time, on the real switch.
//!
//! [`world::World`] drives a [`portolan_switch::datapath::Datapath`] as the IO edge does, with [`guest::Guest`]s, which are
//! smoltcp hosts, at the far ends of [`wire::Wire`]s. Nothing in it reads a clock or draws chance but from its seed. The
//! scenarios are this crate's tests.

pub mod checks;
pub mod clients;
pub mod coalesce;
pub mod control;
pub mod dns;
pub mod edge;
pub mod fuzz;
pub mod guest;
pub mod host;
pub mod lan;
pub mod model;
pub mod packet;
pub mod scene;
pub mod tcp_model;
pub mod wire;
pub mod world;
