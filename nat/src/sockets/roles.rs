//! Whose each socket is.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::PublicationId;
use super::host::SocketId;

/// Where a socket of a publication stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DoorPlace {
    /// The publication.
    pub(crate) publication: PublicationId,
    /// The host's port it is bound to, host order.
    pub(crate) host_port: u16,
}

/// What a socket is for. Numbers are those of the transport's own table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// A connection.
    Tcp(u32),
    /// A UDP mapping.
    Udp(u32),
    /// Echo requests of one inside address and id.
    Ping(u32),
    /// A listener of a publication.
    TcpDoor(DoorPlace),
    /// A UDP socket of a publication.
    UdpDoor(DoorPlace),
}

/// All sockets in use.
#[derive(Debug, Default)]
pub(crate) struct Roles(HashMap<SocketId, Role, FixedState>);

impl Roles {
    /// Without sockets.
    pub(crate) fn new(seed: u64) -> Roles {
        Roles(HashMap::with_hasher(FixedState::with_seed(seed)))
    }

    /// What a socket is for.
    pub(crate) fn get(&self, socket: SocketId) -> Option<Role> {
        self.0.get(&socket).copied()
    }

    /// A socket has been opened.
    pub(crate) fn set(&mut self, socket: SocketId, role: Role) {
        self.0.insert(socket, role);
    }

    /// A socket has been closed.
    pub(crate) fn remove(&mut self, socket: SocketId) {
        self.0.remove(&socket);
    }
}
