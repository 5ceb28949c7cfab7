//! The networks as the sockets uplink sees them: where packets of the inside lie, and how one is made.
//!
//! A packet to the inside is composed in the turn's arena, behind the room for its Ethernet header, and leaves by the port of
//! whoever has the address. It counts as made; what is lost of a flow later counts as made and dropped, on the port of
//! the address it is about.

use std::net::IpAddr;

use portolan_nat::inside::{Composed, Inside, Lost, Made, PacketId, Zone};

use crate::datapath::Totals;
use crate::drops::{DropCounts, DropReason};
use crate::frame::{FrameIdx, FrameTable, Offload};
use crate::gateway::ethernet;
use crate::headers::{ETHERNET_LEN, ethertype};
use crate::ids::{NetworkId, Time};
use crate::network::Network;
use crate::offload;
use crate::outbox::Outbox;
use crate::policy::{self, Origin, Prefixes};

/// All networks, and where frames to them are made and put.
pub(crate) struct Lans<'l, 'f> {
    pub(crate) networks: &'l mut [Option<Box<Network>>],
    pub(crate) prefixes: &'l Prefixes,
    pub(crate) frames: &'l mut FrameTable<'f>,
    pub(crate) outbox: &'l mut Outbox,
    pub(crate) totals: &'l mut Totals,
    /// For what is lost with no network left to name.
    pub(crate) adrift: &'l mut DropCounts,
    pub(crate) now: Time,
}

impl Lans<'_, '_> {
    fn network(&self, zone: Zone) -> Option<&Network> {
        find(self.networks, NetworkId(zone.0))
    }

    fn network_mut(&mut self, zone: Zone) -> Option<&mut Network> {
        self.networks.get_mut(zone.0 as usize)?.as_deref_mut()
    }
}

fn find(networks: &[Option<Box<Network>>], id: NetworkId) -> Option<&Network> {
    networks.get(id.0 as usize)?.as_deref()
}

impl Inside for Lans<'_, '_> {
    fn bytes(&self, packet: PacketId) -> &[u8] {
        self.frames.get(FrameIdx(packet.0)).bytes()
    }

    fn mtu(&self, zone: Zone) -> Option<usize> {
        self.network(zone).map(Network::mtu)
    }

    fn gateway(&self, zone: Zone, to: IpAddr) -> Option<IpAddr> {
        self.network(zone)?.gateway().address_towards(to)
    }

    fn is_beyond(&self, zone: Zone, address: IpAddr) -> bool {
        self.network(zone).is_some_and(|network| {
            let origin = Origin { gateway: network.gateway(), prefixes: self.prefixes };
            policy::beyond(&origin, address).is_ok()
        })
    }

    fn compose(
        &mut self,
        zone: Zone,
        to: IpAddr,
        max: usize,
        write: &mut dyn FnMut(&mut [u8]) -> Option<Composed>,
    ) -> Made {
        let Some(network) = find(self.networks, NetworkId(zone.0)) else {
            return Made::NoNeighbor;
        };
        let Some(neighbor) = network.neighbor(to) else { return Made::NoNeighbor };
        let room = ETHERNET_LEN + max;
        if !self.frames.has_room(room) {
            return Made::NoRoom;
        }
        let kind = if to.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        let mut left = Offload::default();
        let made = self.frames.compose(room, |frame| {
            let composed = write(&mut frame[ETHERNET_LEN..])?;
            ethernet(frame, neighbor.mac, network.gateway().mac(), kind);
            left = composed.offload;
            Some(ETHERNET_LEN + composed.len)
        });
        let Some(made) = made else { return Made::Nothing };
        offload::shift(&mut left, ETHERNET_LEN);
        let frame = self.frames.get_mut(made);
        frame.offload = left;
        let segments = frame.segments();
        self.outbox.push(neighbor.port, made);
        self.totals.made += segments;
        self.totals.sent += segments;
        Made::Sent
    }

    fn may_object(&mut self, zone: Zone, to: IpAddr) -> bool {
        let now = self.now;
        self.network_mut(zone).is_some_and(|network| network.may_send_error(to, now))
    }

    fn lost(&mut self, zone: Zone, to: IpAddr, why: Lost, packets: u64) {
        let reason = DropReason::from(why);
        self.totals.made += packets;
        self.totals.dropped += packets;
        match self.network_mut(zone) {
            Some(network) => network.count_lost(to, reason, packets),
            None => self.adrift.add(reason, packets),
        }
    }
}

#[cfg(test)]
mod tests;
