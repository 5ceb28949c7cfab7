//! The API of the daemon: its types, shared by both sides, the server and the client.

mod answers;
pub mod changes;
pub mod client;
pub mod events;
pub mod explain;
pub mod exposition;
pub mod routes;
pub mod rows;
pub mod server;
pub mod types;
