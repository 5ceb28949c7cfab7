//! Router advertisements (RFC 4861, section 6.2): hosts that ask are told at once, and told again from time to time.
//!
//! Theory of operation. A solicitation is answered in its turn, out of the port it came from: to its sender, or to all nodes
//! behind that port where the sender has no address yet. From then on everybody is told once each [`ra::INTERVAL`], so that what
//! hosts hold does not run out. Where nobody listens nothing is sent, and there is no timer.
//!
//! Who has taken the gateway for its router before the switch was started anew does not solicit again; but as soon as it sends
//! something it looks whether its router is still there, under the link-local address that only advertisements tell. That counts
//! as listening too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use portolan_dhcp::ra;
use portolan_dhcp::service::Advert;
use portolan_nat::write::Header;

use crate::drops::DropReason;
use crate::frame::FrameIdx;
use crate::headers::{ETHERNET_LEN, Ip, ethertype, protocol};
use crate::ids::{MacAddr, PortId, Time};
use crate::port::TokenBucket;
use crate::turn::Turn;

use super::reply::{IPV6_LEN, Packet, ethernet};
use super::{Call, Gateway};

/// Solicitations of one port that are answered at once, and how long it is until one more is: a host sends three, and there may
/// be a few hosts behind a port.
const PORT_BURST: u32 = 10;
const PORT_INTERVAL: Duration = Duration::from_secs(1);

/// The same for a network: all nodes of a large one may come up together.
const NETWORK_BURST: u32 = 1000;
const NETWORK_INTERVAL: Duration = Duration::from_millis(10);

/// How soon everybody is told after a sign of somebody who listens but did not ask: what it holds may be about to run out.
/// Advertisements to all are no closer together than this (RFC 4861, section 10: MIN_DELAY_BETWEEN_RAS).
const SOON: Duration = Duration::from_secs(3);

/// Hop limit that tells a packet was not forwarded.
const ON_LINK: u8 = 255;

/// Where an ICMPv6 message has its checksum.
const CHECK_AT: usize = 2;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The advertisements of one network.
#[derive(Clone, Debug)]
pub(crate) struct Adverts {
    advert: Advert,
    /// The ports that somebody listens behind, and what these may still ask.
    listeners: BTreeMap<PortId, TokenBucket>,
    answers: TokenBucket,
    /// When everybody is told next: none as long as nobody listens.
    next: Option<Time>,
}

impl Adverts {
    /// Advertisements that nobody has asked for yet.
    pub(crate) fn new(advert: Advert) -> Adverts {
        Adverts {
            advert,
            listeners: BTreeMap::new(),
            answers: TokenBucket::new(NETWORK_BURST, NETWORK_INTERVAL),
            next: None,
        }
    }

    /// A port goes, and who listened behind it.
    pub(crate) fn detach(&mut self, port: PortId) {
        self.listeners.remove(&port);
        if self.listeners.is_empty() {
            self.next = None;
        }
    }

    /// When everybody is to be told.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.next
    }

    /// Somebody behind a port listens, and may not have been told for long.
    pub(super) fn note_listener(&mut self, port: PortId, now: Time) {
        self.limit(port);
        self.next.get_or_insert(now + SOON);
    }

    fn limit(&mut self, port: PortId) -> &mut TokenBucket {
        let full = || TokenBucket::new(PORT_BURST, PORT_INTERVAL);
        self.listeners.entry(port).or_insert_with(full)
    }

    /// Whether somebody behind a port, who asks, is told.
    fn may_answer(&mut self, port: PortId, now: Time) -> bool {
        let allowed = self.limit(port).take(now) && self.answers.take(now);
        self.next.get_or_insert(now + ra::INTERVAL);
        allowed
    }
}

/// Whether a packet is a router solicitation that concerns a router on this link; whether it is sound is another question.
pub(super) fn asks(ip: &Ip, frame: &[u8]) -> bool {
    ip.protocol == protocol::ICMPV6
        && ip.has_transport()
        && ip.transport(frame).first() == Some(&ra::SOLICITATION)
        && (!ip.dst.is_multicast() || ip.dst == IpAddr::V6(ALL_ROUTERS))
}

impl Gateway {
    /// Makes the frame that tells everybody what a network advertises, where that is due: none else. It is for the network to
    /// send. Where the turn has no room, it is due again soon.
    pub(crate) fn advertise(
        &self,
        adverts: &mut Adverts,
        turn: &mut Turn<'_, '_>,
        now: Time,
    ) -> Option<FrameIdx> {
        adverts.next.filter(|at| *at <= now)?;
        adverts.next = Some(now + SOON);
        let own = self.link_local?;
        let message = ra::advertisement(&adverts.advert, self.mac.0);
        let made = turn.frames.make(ETHERNET_LEN + IPV6_LEN + message.len())?;
        adverts.next = Some(now + ra::INTERVAL);
        let frame = turn.frames.get_mut(made).bytes_mut();
        ethernet(frame, ALL_NODES_MAC, self.mac, ethertype::IPV6);
        let packet = &mut frame[ETHERNET_LEN..];
        packet[IPV6_LEN..].copy_from_slice(&message);
        header(own, ALL_NODES).seal(packet, CHECK_AT);
        Some(made)
    }
}

fn header(from: Ipv6Addr, to: Ipv6Addr) -> Header {
    Header { hop_limit: ON_LINK, ..Header::new(from.into(), to.into(), protocol::ICMPV6) }
}

impl Call<'_, '_, '_> {
    /// Answers a router solicitation.
    pub(super) fn router_solicitation(&mut self, ip: &Ip) -> Result<(), DropReason> {
        let (frame, IpAddr::V6(from)) = (self.bytes(), ip.src) else {
            return Err(DropReason::Malformed);
        };
        let on_link = frame.get(ip.l3 + 7) == Some(&ON_LINK) && !ip.is_fragment();
        if !on_link || !ra::is_solicitation(ip.transport(frame), from) {
            return Err(DropReason::Malformed);
        }
        let own = self.gateway.link_local.ok_or(DropReason::GatewayUnserved)?;
        let (port, now) = (self.asker.port.id(), self.now);
        let adverts = self.asker.services.adverts_mut().ok_or(DropReason::GatewayUnserved)?;
        if !adverts.may_answer(port, now) {
            return Err(DropReason::GatewayLimit);
        }
        let message = ra::advertisement(&adverts.advert, self.gateway.mac.0);
        let (mac, to) =
            if from.is_unspecified() { (ALL_NODES_MAC, ALL_NODES) } else { (self.asker.mac, from) };
        let packet = Packet { header: header(own, to), len: message.len(), check_at: CHECK_AT };
        self.send_packet(mac, &packet, |_, answer| answer.copy_from_slice(&message))
    }
}

#[cfg(test)]
mod tests;
