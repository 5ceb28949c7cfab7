//! TCP, translated against the host kernel's socket.

use std::net::SocketAddr;

use crate::inside::{Lost, Packet, Zone};
use crate::time::Time;

use super::doors::Entry;
use super::host::{Accepted, Ready};
use super::{Desk, Ending, FlowRow, Limits};

/// All flows of this transport.
#[derive(Debug, Default)]
pub(crate) struct Tcp {}

impl Tcp {
    /// Without flows.
    pub(super) fn new(_limits: Limits, _seed: u64) -> Tcp {
        Tcp {}
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

    /// Somebody came in by a published port: opens the same connection to the inside. Takes the socket over, and resets it
    /// where that cannot be.
    pub(super) fn inbound(
        &mut self,
        _entry: &Entry,
        _accepted: Accepted,
        _desk: &mut Desk<'_, '_>,
    ) {
    }

    /// Whether there is a connection between these two.
    pub(super) fn has(&self, _zone: Zone, _inside: SocketAddr, _outside: SocketAddr) -> bool {
        false
    }

    /// Sends what a batch has gathered, and acknowledges it.
    pub(super) fn flush(&mut self, _desk: &mut Desk<'_, '_>) {}
}
