//! The way in: publications and their sockets.

use std::net::SocketAddr;

use crate::inside::{Owner, Zone};

use super::host::SocketId;
use super::roles::{DoorPlace, Roles};
use super::tcp::Tcp;
use super::udp::Udp;
use super::{Desk, Publication, PublicationId};

/// Where somebody who came in is led.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// By which publication.
    pub(super) publication: PublicationId,
    /// The node's network.
    pub(super) zone: Zone,
    /// The node.
    pub(super) owner: Owner,
    /// The node's address and port.
    pub(super) inside: SocketAddr,
    /// What the node sees the client as.
    pub(super) outside: SocketAddr,
}

/// All publications.
#[derive(Debug, Default)]
pub(super) struct Doors {}

impl Doors {
    /// A publication comes to be.
    pub(super) fn publish(&mut self, _publication: Publication) {}

    /// A publication ends.
    pub(super) fn unpublish(&mut self, _id: PublicationId, _roles: &mut Roles) {}

    /// A socket stands behind a publication.
    pub(super) fn listen(
        &mut self,
        _id: PublicationId,
        _socket: SocketId,
        _local: SocketAddr,
        _roles: &mut Roles,
    ) {
    }

    /// Leads those in who wait at a listener; whether more do.
    pub(super) fn accept(
        &mut self,
        _listener: SocketId,
        _place: DoorPlace,
        _tcp: &mut Tcp,
        _desk: &mut Desk<'_, '_>,
    ) -> bool {
        false
    }

    /// Leads datagrams in that have come; whether more have.
    pub(super) fn receive(
        &mut self,
        _socket: SocketId,
        _place: DoorPlace,
        _udp: &mut Udp,
        _desk: &mut Desk<'_, '_>,
    ) -> bool {
        false
    }
}
