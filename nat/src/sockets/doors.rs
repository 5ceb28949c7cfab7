//! The way in: publications and their sockets.
//!
//! Theory of operation. Somebody else has bound the sockets and says which publication each stands behind; the port it is bound to
//! says which port of the node it leads to. Whoever comes in is led to the node's address of his own family, and is shown to the node by his own
//! address and port. Where the node would not answer him through its gateway, the answer would be lost; then he is shown as the
//! gateway: a client out of a prefix of one of the node's networks, a link-local or loopback one, one with an address of the node itself, and
//! one of a family that the node lacks.
//!
//! Two clients are never shown alike to one port of a node: whose port is taken gets another one.
//!
//! A listener whose clients the host has no descriptor for is tried again after a while, since no change there will be told.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::RngExt;

use crate::inside::{Inside, Lost, Made, Owner, Zone};
use crate::time::Time;

use super::host::{Failure, SocketId};
use super::parcel::FAILED_MAX;
use super::roles::{DoorPlace, Role, Roles};
use super::tcp::Tcp;
use super::udp::Udp;
use super::{Desk, Publication, PublicationId, Transport};

/// Connections taken from a listener in one call.
const ACCEPTS_MAX: usize = 16;

/// Datagrams, or trains of them, taken from a socket in one call.
const RECEIVES_MAX: usize = 32;

/// After so many bytes the rest is left for another turn: the parts of these and of one more datagram find room in one.
const RECEIVED_BYTES_MAX: usize = 1 << 16;

/// The largest datagram there is, and the largest train.
const DATAGRAM_MAX: usize = 65_535;

/// How often a free port is looked for. With half of all ports taken, one in sixteen million would go without.
const PORT_TRIES: usize = 24;

/// Ports that are given to a client in place of its own.
const PORTS: std::ops::RangeInclusive<u16> = 1024..=65_535;

/// The gateway itself answers there: nobody is shown as its port.
const DNS_PORT: u16 = 53;

/// After what time a listener is tried again whose clients the host had no room for.
const RETRY: Duration = Duration::from_millis(100);

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

/// A publication and what stands behind it.
#[derive(Debug)]
struct Door {
    publication: Publication,
    sockets: Vec<SocketId>,
}

/// All publications.
#[derive(Debug, Default)]
pub(super) struct Doors {
    doors: BTreeMap<PublicationId, Door>,
    /// What a datagram is read into; made when the first socket comes that needs it.
    scratch: Vec<u8>,
    /// Listeners that are to be tried again.
    stalled: BTreeSet<SocketId>,
    /// When.
    retry: Option<Time>,
}

impl Doors {
    /// A publication comes to be, or takes the place and the sockets of one with its handle; whether that one led elsewhere.
    pub(super) fn publish(&mut self, publication: Publication) -> bool {
        let goal =
            |p: &Publication| (p.zone, p.owner, p.v4, p.v6, p.host_port, p.node_port, p.count);
        match self.doors.entry(publication.id) {
            btree_map::Entry::Vacant(free) => {
                free.insert(Door { publication, sockets: Vec::new() });
                false
            }
            btree_map::Entry::Occupied(mut taken) => {
                let before = std::mem::replace(&mut taken.get_mut().publication, publication);
                goal(&before) != goal(&taken.get().publication)
            }
        }
    }

    /// A publication ends.
    pub(super) fn unpublish(&mut self, id: PublicationId, roles: &mut Roles) {
        let door = self.doors.remove(&id);
        for socket in door.map(|door| door.sockets).unwrap_or_default() {
            roles.remove(socket);
            self.stalled.remove(&socket);
        }
    }

    /// A socket stands behind a publication. It may have ended meanwhile.
    pub(super) fn listen(
        &mut self,
        id: PublicationId,
        socket: SocketId,
        local: SocketAddr,
        roles: &mut Roles,
    ) {
        let Some(door) = self.doors.get_mut(&id) else { return };
        let place = DoorPlace { publication: id, host_port: local.port() };
        let role = match door.publication.transport {
            Transport::Tcp => Role::TcpDoor(place),
            Transport::Udp => Role::UdpDoor(place),
        };
        if door.publication.transport == Transport::Udp {
            self.scratch.resize(DATAGRAM_MAX, 0);
        }
        door.sockets.push(socket);
        roles.set(socket, role);
    }

    /// Leads those in who wait at a listener; whether more do.
    pub(super) fn accept(
        &mut self,
        listener: SocketId,
        place: DoorPlace,
        tcp: &mut Tcp,
        desk: &mut Desk<'_, '_>,
    ) -> bool {
        let Some(door) = self.doors.get(&place.publication) else { return false };
        let mut failed = 0;
        for _ in 0..ACCEPTS_MAX {
            let accepted = match desk.call.host.accept(listener) {
                Ok(accepted) => accepted,
                // He has gone again before he was let in.
                Err(Failure::Reset) if failed < FAILED_MAX => {
                    failed += 1;
                    continue;
                }
                Err(Failure::WouldBlock) => return false,
                Err(_) => {
                    self.stall(listener, desk.call.now + RETRY);
                    return false;
                }
            };
            let publication = &door.publication;
            let free = |inside, outside| !tcp.has(publication.zone, inside, outside);
            let entry = publication.entry(place, accepted.peer, free, desk);
            match entry.filter(|entry| is_there(entry, desk.call.inside)) {
                Some(entry) => tcp.inbound(&entry, accepted, desk),
                None => {
                    desk.call.host.reset(accepted.socket);
                    publication.turn_away(desk);
                }
            }
        }
        true
    }

    /// Leads datagrams in that have come; whether more have.
    pub(super) fn receive(
        &mut self,
        socket: SocketId,
        place: DoorPlace,
        udp: &mut Udp,
        desk: &mut Desk<'_, '_>,
    ) -> bool {
        let Some(door) = self.doors.get(&place.publication) else { return false };
        let publication = &door.publication;
        let (mut bytes, mut failed) = (0, 0);
        for _ in 0..RECEIVES_MAX {
            if bytes >= RECEIVED_BYTES_MAX {
                break;
            }
            let incoming = match desk.call.host.receive_from(socket, &mut self.scratch) {
                Ok(incoming) => incoming,
                Err(Failure::WouldBlock) => return false,
                Err(_) if failed == FAILED_MAX => return false,
                // The error of a datagram sent before; what has come lies behind it.
                Err(_) => {
                    failed += 1;
                    continue;
                }
            };
            let Some(payload) = self.scratch.get(..incoming.len) else { continue };
            bytes += payload.len();
            let client = incoming.from;
            let known = udp.known(socket, client).and_then(|outside| {
                publication.known_entry(place, client, outside, desk.call.inside)
            });
            let free = |inside, outside| !udp.has(publication.zone, inside, outside);
            match known.or_else(|| publication.entry(place, client, free, desk)) {
                Some(entry) => udp.inbound(&entry, socket, &incoming, payload, desk),
                None => publication.turn_away(desk),
            }
        }
        true
    }

    /// Has a listener tried again.
    pub(super) fn stall(&mut self, listener: SocketId, until: Time) {
        self.stalled.insert(listener);
        self.retry = Some(self.retry.map_or(until, |at| at.min(until)));
    }

    /// When listeners are to be tried again.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.retry.filter(|_| !self.stalled.is_empty())
    }

    /// The listeners to be tried now.
    pub(super) fn due(&mut self, now: Time) -> BTreeSet<SocketId> {
        if self.next_timeout().is_none_or(|at| at > now) {
            return BTreeSet::new();
        }
        self.retry = None;
        std::mem::take(&mut self.stalled)
    }
}

impl Publication {
    /// Where a client is led who comes by a port of the host, and what he is shown as there, so that `free` holds. None where
    /// the node has no address to lead him to, its gateway none to show him by, or no port is free.
    fn entry(
        &self,
        place: DoorPlace,
        client: SocketAddr,
        free: impl Fn(SocketAddr, SocketAddr) -> bool,
        desk: &mut Desk<'_, '_>,
    ) -> Option<Entry> {
        let node = self.node_towards(client.ip())?;
        let inside = SocketAddr::new(node, self.node_port(place)?);
        let shown = self.shown(node, client.ip(), desk.call.inside)?;
        let is_gateway = desk.call.inside.gateway(self.zone, node) == Some(shown);
        let random = &mut *desk.call.random;
        let ports = std::iter::once(client.port())
            .chain(std::iter::repeat_with(|| random.random_range(PORTS)).take(PORT_TRIES));
        ports
            .filter(|port| *port != 0 && !(is_gateway && *port == DNS_PORT))
            .map(|port| SocketAddr::new(shown, port))
            .find(|outside| free(inside, *outside))
            .map(|outside| self.entry_of(inside, outside))
    }

    /// As [`Publication::entry`] for a client whom the node knows already. None too where he is to be shown by another address
    /// now.
    fn known_entry(
        &self,
        place: DoorPlace,
        client: SocketAddr,
        outside: SocketAddr,
        inside: &dyn Inside,
    ) -> Option<Entry> {
        let node = self.node_towards(client.ip())?;
        self.shown(node, client.ip(), inside).filter(|shown| *shown == outside.ip())?;
        Some(self.entry_of(SocketAddr::new(node, self.node_port(place)?), outside))
    }

    /// By what address a client is shown.
    fn shown(&self, node: IpAddr, client: IpAddr, inside: &dyn Inside) -> Option<IpAddr> {
        if self.answers(node, client) { Some(client) } else { inside.gateway(self.zone, node) }
    }

    fn entry_of(&self, inside: SocketAddr, outside: SocketAddr) -> Entry {
        Entry { publication: self.id, zone: self.zone, owner: self.owner, inside, outside }
    }

    /// The node's port that a port of the host leads to.
    fn node_port(&self, place: DoorPlace) -> Option<u16> {
        let at = place.host_port.checked_sub(self.host_port).filter(|at| *at < self.count)?;
        self.node_port.checked_add(at)
    }

    /// Which of the node's addresses a client is led to: that of his family, where it has one.
    fn node_towards(&self, client: IpAddr) -> Option<IpAddr> {
        let (v4, v6) = (self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6));
        if client.is_ipv4() { v4.or(v6) } else { v6.or(v4) }
    }

    /// Whether the node answers an address through its gateway.
    fn answers(&self, node: IpAddr, client: IpAddr) -> bool {
        let own =
            self.v4.map(IpAddr::V4) == Some(client) || self.v6.map(IpAddr::V6) == Some(client);
        let near = self.near.iter().any(|(net, len)| is_within(client, *net, *len));
        node.is_ipv4() == client.is_ipv4() && !own && !near && is_far(client)
    }

    /// Counts somebody who could not be led in.
    fn turn_away(&self, desk: &mut Desk<'_, '_>) {
        let node = self.v4.map(IpAddr::V4).or(self.v6.map(IpAddr::V6));
        let node = node.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        desk.call.inside.lost(self.zone, node, Lost::NoNeighbor, 1);
    }
}

/// Whether a node is there to be led to: a packet to it that is not written after all would find its way.
fn is_there(entry: &Entry, inside: &mut dyn Inside) -> bool {
    inside.compose(entry.zone, entry.inside.ip(), 0, &mut |_| None) != Made::NoNeighbor
}

/// Whether an address can lie behind a gateway at all.
fn is_far(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets()[0] == 0 || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified(),
    };
    !link_local && !address.is_loopback() && !address.is_multicast()
}

/// Whether an address lies in a prefix of its family.
fn is_within(address: IpAddr, net: IpAddr, len: u8) -> bool {
    let (differ, width) = match (address, net) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    let host_bits = width - u32::from(len).min(width);
    differ.checked_shr(host_bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests;
