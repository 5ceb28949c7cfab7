//! DHCPv4 at the gateway: carries messages between the server of a network and the wire.
//!
//! A client's message comes from any address, often from none, and goes to everybody or to the gateway. What the server says at
//! once is sent in the same turn; what it says after it has looked whether somebody uses an address, and the requests of ARP by
//! which it looks, are made when the network's timers run. Each reply leaves by the port the question came from, also where it is
//! addressed to everybody: no other port has a client that waits for it.

use std::net::{IpAddr, Ipv4Addr};

use portolan_dhcp::v4::{Origin, Refusal, Reply, SERVER_PORT};
use portolan_nat::write::Header;

use crate::datapath::{Shared, host_key, zone_key};
use crate::drops::DropReason;
use crate::frame::FrameIdx;
use crate::frame::FrameTable;
use crate::headers::{ETHERNET_LEN, Ip, Layout, ethertype, protocol};
use crate::ids::{MacAddr, PortId, Time};
use crate::turn::Turn;
use crate::vlan::UNTAGGED;

use super::dhcp6::SERVERS_MAC;
use super::reply::{UDP_LEN, ethernet};
use super::services::{Services, moment};
use super::{Call, Gateway, arp};

/// Room that a turn must have left for what the server makes unasked: no reply is larger than a client takes, which is seldom
/// more than the smallest packet that all take.
const ROOM: usize = 2048;

/// Whether a packet is a client's, or a relay agent's, to a server.
pub(super) fn asks(ip: &Ip, frame: &[u8]) -> bool {
    let to = ip.transport(frame).get(2..4);
    ip.protocol == protocol::UDP
        && ip.src.is_ipv4()
        && ip.has_transport()
        && to == Some(&SERVER_PORT.to_be_bytes())
}

impl Gateway {
    /// Whether a packet asks this network's server of DHCP.
    pub(super) fn asks_dhcp(&self, ip: &Ip, frame: &[u8], services: &Services) -> bool {
        let IpAddr::V4(to) = ip.dst else { return false };
        let ours = || {
            let of_subnet = |net: &ipnet::Ipv4Net| net.addr() == to || net.broadcast() == to;
            to.is_broadcast() || self.v4.iter().any(of_subnet)
        };
        services.dhcp4().is_some() && asks(ip, frame) && ours()
    }

    /// Whether a packet to everybody, or to the group of servers, asks one of this network's servers of DHCP. On a guarded network
    /// it is the gateway's alone, for nobody else there may answer.
    pub(crate) fn hears(&self, layout: &Layout, frame: &[u8], services: &Services) -> bool {
        let served = match layout.ethertype {
            ethertype::IPV4 => layout.dst == MacAddr::BROADCAST && services.dhcp4().is_some(),
            ethertype::IPV6 => layout.dst == SERVERS_MAC && services.dhcp6().is_some(),
            _ => false,
        };
        let asks =
            |ip: &Ip| self.asks_dhcp(ip, frame, services) || self.asks_dhcp6(ip, frame, services);
        served && layout.vlan == UNTAGGED && matches!(layout.ip(frame), Ok(Some(ip)) if asks(&ip))
    }

    /// Does what the server of DHCP has to do by now: what it has to say is put into the outbox, what it has to ask everybody
    /// where such frames are put. What finds no room stays due.
    pub(crate) fn run_dhcp(
        &self,
        services: &mut Services,
        turn: &mut Turn<'_, '_>,
        shared: &mut Shared,
        now: Time,
    ) {
        let Some(server) = services.dhcp4_mut() else { return };
        while turn.frames.has_room(ROOM)
            && let Some(reply) = server.run_out(moment(now))
        {
            if let Some(made) = self.dhcp_frame(server.spec().server, &reply, turn.frames) {
                turn.outbox.push(PortId(reply.port), made);
                shared.totals.made += 1;
                shared.totals.sent += 1;
            }
        }
        // Behind the rest, of which questions may come: where an address is somebody's, another one is asked for.
        while turn.frames.has_room(ROOM)
            && let Some(address) = server.lending.next_probe(moment(now))
        {
            shared.for_all.extend(self.probe(server.spec().server, address, turn.frames));
        }
    }

    /// A request of ARP for an address that is about to be lent.
    fn probe(
        &self,
        own: Ipv4Addr,
        address: Ipv4Addr,
        frames: &mut FrameTable<'_>,
    ) -> Option<FrameIdx> {
        let made = frames.make(ETHERNET_LEN + arp::MESSAGE_LEN)?;
        let frame = frames.get_mut(made).bytes_mut();
        ethernet(frame, MacAddr::BROADCAST, self.mac, ethertype::ARP);
        arp::request(&mut frame[ETHERNET_LEN..], self.mac, own, address);
        Some(made)
    }

    fn dhcp_frame(
        &self,
        own: Ipv4Addr,
        reply: &Reply,
        frames: &mut FrameTable<'_>,
    ) -> Option<FrameIdx> {
        let header = Header::new(own.into(), (*reply.to.ip()).into(), protocol::UDP);
        let ports = (SERVER_PORT, reply.to.port());
        self.make_datagram(MacAddr(reply.hardware), &header, ports, &reply.message, frames)
    }
}

impl Call<'_, '_, '_> {
    /// Takes a message of a client of DHCP, and answers it where that can be done at once.
    pub(super) fn dhcp(&mut self, ip: &Ip) -> Result<(), DropReason> {
        if ip.is_fragment() {
            return Err(DropReason::GatewayFragment);
        }
        let frame = self.turn.frames.get(self.asker.frame);
        let datagram = ip.transport(frame.bytes());
        let [_, _, _, _, l0, l1, ..] =
            *datagram.first_chunk::<UDP_LEN>().ok_or(DropReason::Malformed)?;
        if frame.offload.gso.is_some() {
            return Err(DropReason::GatewayUnserved);
        }
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let message = datagram.get(UDP_LEN..length).ok_or(DropReason::Malformed)?;
        self.verify(ip)?;
        let (zone, host) = (zone_key(self.network()), host_key(self.asker.port.node()));
        let from = Origin {
            port: self.asker.port.id().0,
            hardware: self.asker.mac.0,
            hostname: self.shared.names.first_name(zone, host),
        };
        let server = self.asker.services.dhcp4_mut().ok_or(DropReason::GatewayUnserved)?;
        let reply = server.receive(message, from, moment(self.now)).map_err(drop_reason)?;
        let Some(reply) = reply else { return Ok(()) };
        let own = server.spec().server;
        let made = self.gateway.dhcp_frame(own, &reply, self.turn.frames);
        self.turn.outbox.push(self.asker.port.id(), made.ok_or(DropReason::GatewayLimit)?);
        self.shared.totals.made += 1;
        self.shared.totals.sent += 1;
        Ok(())
    }
}

fn drop_reason(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Malformed => DropReason::Malformed,
        Refusal::Relay => DropReason::DhcpRelay,
        Refusal::Exhausted => DropReason::DhcpExhausted,
        Refusal::PortLimit => DropReason::DhcpPortLimit,
    }
}

#[cfg(test)]
mod tests;
