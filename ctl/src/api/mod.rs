//! The API of the daemon: its types, shared by both sides, the server and the client.

mod answers;
pub mod client;
pub mod explain;
pub mod exposition;
pub mod rows;
pub mod routes;
pub mod server;
pub mod types;
