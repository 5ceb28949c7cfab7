//! UDP, one unconnected socket of the host for each inside address and port.

use std::net::SocketAddr;

use crate::inside::{Lost, Packet, Zone};
use crate::time::Time;

use super::doors::Entry;
use super::host::{Incoming, Ready, SocketId};
use super::{Desk, Ending, FlowRow, Limits};

/// All flows of this transport.
#[derive(Debug, Default)]
pub(crate) struct Udp {}

impl Udp {
    /// Without flows.
    pub(super) fn new(_limits: Limits, _seed: u64) -> Udp {
        Udp {}
    }

    /// Takes a packet of the inside.
    pub(super) fn outbound(
        &mut self,
        _packet: &Packet,
        _desk: &mut Desk<'_, '_>,
    ) -> Result<(), Lost> {
        Err(Lost::Protocol)
    }

    /// Something has changed about a flow's socket; whether more is to be done for it in another turn.
    pub(super) fn ready(&mut self, _flow: u32, _ready: Ready, _desk: &mut Desk<'_, '_>) -> bool {
        false
    }

    /// When something is due.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        None
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, _desk: &mut Desk<'_, '_>) {}

    /// Marks flows as ended; the rest is done when they are due, which is at once.
    pub(super) fn end(&mut self, _which: Ending) {}

    /// All flows, in order of their numbers.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u32, FlowRow)> {
        std::iter::empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        0
    }

    /// A datagram, or a train, came in by a published port's socket: it goes to the inside, and answers go back by that
    /// socket, from the address of the host that the client sent to.
    pub(super) fn inbound(
        &mut self,
        _entry: &Entry,
        _door: SocketId,
        _incoming: &Incoming,
        _payload: &[u8],
        _desk: &mut Desk<'_, '_>,
    ) {
    }

    /// What the node sees a client of a published port as, where it has been there before and is remembered.
    pub(super) fn known(&self, _door: SocketId, _client: SocketAddr) -> Option<SocketAddr> {
        None
    }

    /// Whether there is a flow between these two.
    pub(super) fn has(&self, _zone: Zone, _inside: SocketAddr, _outside: SocketAddr) -> bool {
        false
    }
}
