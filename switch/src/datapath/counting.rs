//! What the IO edge tells of the fate of frames behind the neck.

use crate::drops::DropReason;
use crate::ids::{NetworkId, PortId};

use super::{Datapath, find, place};

impl Datapath {
    /// The network that a port is on.
    pub fn network_of(&self, port: PortId) -> Option<NetworkId> {
        place(&self.places, port)
    }

    /// Counts what has been sent to a port; a superframe counts as its segments.
    pub fn count_tx(&mut self, port: PortId, frames: u64, bytes: u64) {
        if let Some(network) = self.network_of(port).and_then(|id| find(&mut self.networks, id)) {
            network.count_tx(port, frames, bytes);
        }
    }

    /// Counts what the IO edge lost of a port's frames, in either direction.
    pub fn count_drop(&mut self, port: PortId, reason: DropReason, frames: u64) {
        match self.network_of(port).and_then(|id| find(&mut self.networks, id)) {
            Some(network) => network.count_drop(port, reason, frames),
            None => self.count_adrift(reason, frames),
        }
    }

    /// Counts what the IO edge lost of frames for a port that it had closed by then.
    pub fn count_adrift(&mut self, reason: DropReason, frames: u64) {
        self.adrift.add(reason, frames);
    }
}
