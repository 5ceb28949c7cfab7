//! The API of the daemon: its types, shared by both sides, the server and the client.

pub mod client;
pub mod exposition;
pub mod rows;
pub mod server;
pub mod types;
