//! DHCPv6 at the gateway: carries messages between the server of a network and the wire.
//!
//! A client sends from its link-local address to the group of servers (RFC 8415, section 16), and is answered there. As for
//! [`super::dhcp`], what the server says after it has looked whether somebody uses an address, and the neighbor solicitations by
//! which it looks, are made when the network's timers run; and each reply leaves by the port the question came from.

use std::net::{IpAddr, Ipv6Addr};

use portolan_dhcp::v6::{CLIENT_PORT, Origin, Refusal, Reply, SERVER_PORT, SERVERS};
use portolan_nat::write::Header;

use crate::datapath::Shared;
use crate::drops::DropReason;
use crate::frame::{FrameIdx, FrameTable};
use crate::headers::{Ip, protocol};
use crate::ids::{MacAddr, PortId, Time};
use crate::turn::Turn;

use super::reply::UDP_LEN;
use super::services::{Services, moment};
use super::{Call, Gateway, ndp};

/// Room that a turn must have left for what the server makes unasked: no answer is longer.
const ROOM: usize = 4096;

/// The hardware address of the group of servers.
pub(super) const SERVERS_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 1, 0, 2]);

impl Gateway {
    /// Whether a packet asks this network's server of DHCPv6.
    pub(super) fn asks_dhcp6(&self, ip: &Ip, frame: &[u8], services: &Services) -> bool {
        services.dhcp6().is_some()
            && ip.protocol == protocol::UDP
            && ip.has_transport()
            && ip.transport(frame).get(2..4) == Some(&SERVER_PORT.to_be_bytes())
            && ip.dst == IpAddr::V6(SERVERS)
    }

    /// Does what the server of DHCPv6 has to do by now, as [`Gateway::run_dhcp`] does.
    pub(crate) fn run_dhcp6(
        &self,
        services: &mut Services,
        turn: &mut Turn<'_, '_>,
        shared: &mut Shared,
        now: Time,
    ) {
        let (Some(server), Some(own)) = (services.dhcp6_mut(), self.link_local) else { return };
        while turn.frames.has_room(ROOM)
            && let Some(reply) = server.run_out(moment(now))
        {
            if let Some(made) = self.dhcp6_frame(own, &reply, turn.frames) {
                turn.outbox.push(PortId(reply.to.port), made);
                shared.totals.made += 1;
                shared.totals.sent += 1;
            }
        }
        // Behind the rest, of which questions may come: where an address is somebody's, another one is asked for.
        while turn.frames.has_room(ROOM)
            && let Some(address) = server.lending.next_probe(moment(now))
        {
            shared.for_all.extend(ndp::solicit(self.mac, own, address, turn.frames));
        }
    }

    fn dhcp6_frame(
        &self,
        own: Ipv6Addr,
        reply: &Reply,
        frames: &mut FrameTable<'_>,
    ) -> Option<FrameIdx> {
        let header = Header::new(own.into(), reply.to.address.into(), protocol::UDP);
        let ports = (SERVER_PORT, CLIENT_PORT);
        self.make_datagram(MacAddr(reply.to.hardware), &header, ports, &reply.message, frames)
    }
}

impl Call<'_, '_, '_> {
    /// Takes a message of a client of DHCPv6, and answers it where that can be done at once.
    pub(super) fn dhcp6(&mut self, ip: &Ip) -> Result<(), DropReason> {
        if ip.is_fragment() {
            return Err(DropReason::GatewayFragment);
        }
        let own = self.gateway.link_local.ok_or(DropReason::GatewayUnserved)?;
        // RFC 8415, section 13: a client speaks from its link-local address.
        let address = match ip.src {
            IpAddr::V6(from) if from.is_unicast_link_local() && from != own => from,
            _ => return Err(DropReason::BadSource),
        };
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
        let (port, now) = (self.asker.port.id(), self.now);
        // Whoever asks here listens to advertisements, which told it to.
        if let Some(adverts) = self.asker.services.adverts_mut() {
            adverts.note_listener(port, now);
        }
        let from = Origin { port: port.0, hardware: self.asker.mac.0, address };
        let server = self.asker.services.dhcp6_mut().ok_or(DropReason::GatewayUnserved)?;
        let reply = server.receive(message, from, moment(now)).map_err(drop_reason)?;
        let Some(reply) = reply else { return Ok(()) };
        let made = self.gateway.dhcp6_frame(own, &reply, self.turn.frames);
        self.turn.outbox.push(port, made.ok_or(DropReason::GatewayLimit)?);
        self.shared.totals.made += 1;
        self.shared.totals.sent += 1;
        Ok(())
    }
}

fn drop_reason(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Malformed => DropReason::Malformed,
        Refusal::NotForUs => DropReason::GatewayUnserved,
    }
}

#[cfg(test)]
mod tests;
