//! Echo by ping sockets; ICMP errors in both directions.

use crate::inside::{Lost, Packet};
use crate::time::Time;

use super::host::Ready;
use super::{Desk, Ending, FlowRow, Limits};

/// All flows of this transport.
#[derive(Debug, Default)]
pub(crate) struct Icmp {}

impl Icmp {
    /// Without flows.
    pub(super) fn new(_limits: Limits, _seed: u64) -> Icmp {
        Icmp {}
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

    /// All flows from a number on, in order of their numbers.
    pub(super) fn rows(&self, _from: u32) -> impl Iterator<Item = (u32, FlowRow)> {
        std::iter::empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        0
    }
}
