//! The gateway of a network: the station behind its own hardware address, which nobody's wire leads to.
//!
//! Theory of operation. The network hands over what is addressed to the gateway, and what is addressed to a group, since it may
//! concern it. Each protocol has a file, and answers in the turn it is asked in, out of the port the question came from, to
//! the hardware address that asked: the gateway keeps no neighbor table and waits for nobody. Only connections for DNS over TCP
//! outlive a turn.
//!
//! What it offers is ARP, neighbor discovery, echo and DNS. What is sent to it to be passed on is set aside for the
//! router, and so is what is sent to one of its addresses but meant for somebody who is shown by it: the host's
//! loopback, where the network opens that, or a client of a published port. Whatever else is sent to one of its addresses is
//! refused at once, by ICMP or by a reset, so that a client fails instead of waiting; that is a drop with a name. ICMP errors
//! obey RFC 1122 (section 3.2.2) and RFC 4443 (section 2.4), and a limit per port.
//!
//! Every frame comes from a guest and may hold anything.

mod arp;
mod dhcp;
mod dhcp6;
mod dns;
pub(crate) mod dns_tcp;
pub(crate) mod forward;
mod icmp;
pub(crate) mod ndp;
mod reply;
mod router_advert;
pub(crate) mod services;
mod tcp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_nat::icmp_error::Reason;
use portolan_nat::inside::Zone;
use portolan_nat::write::Header;

use crate::checksum;
use crate::command::{Egress, NetworkSpec};
use crate::datapath::Shared;
use crate::drops::DropReason;
use crate::frame::{Checksum, Frame, FrameIdx};
use crate::headers::{Ip, Layout, ethertype, protocol};
use crate::ids::{MacAddr, Time};
use crate::port::Port;
use crate::router::ends;
use crate::turn::Turn;

pub(crate) use reply::ethernet;
use services::Services;

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The gateway took it.
    Consumed,
    /// It is to be routed.
    Aside(Ip),
    /// It does not concern the gateway.
    Ignored,
    /// It ends here, by that name.
    Dropped(DropReason),
}

/// Who asks, and where the question lies.
pub(crate) struct Asker<'a> {
    /// The port it came from.
    pub(crate) port: &'a mut Port,
    /// The hardware address that sent it.
    pub(crate) mac: MacAddr,
    /// The frame.
    pub(crate) frame: FrameIdx,
    /// The servers of its network.
    pub(crate) services: &'a mut Services,
}

/// The gateway of one network.
#[derive(Clone, Debug)]
pub struct Gateway {
    zone: Zone,
    mac: MacAddr,
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
    /// Where it has any IPv6 address.
    link_local: Option<Ipv6Addr>,
    mtu: usize,
    egress: Egress,
}

/// One frame on its way through the gateway, and all it may touch.
struct Call<'c, 't, 'f> {
    gateway: &'c Gateway,
    asker: Asker<'c>,
    turn: &'c mut Turn<'t, 'f>,
    shared: &'c mut Shared,
    now: Time,
}

impl Gateway {
    /// The gateway that `spec` describes.
    pub fn new(spec: &NetworkSpec) -> Gateway {
        let mut gateway = Gateway {
            zone: Zone(spec.id.0),
            mac: spec.mac,
            v4: Vec::new(),
            v6: Vec::new(),
            link_local: None,
            mtu: usize::from(spec.mtu),
            egress: spec.egress,
        };
        for net in &spec.gateways {
            match *net {
                IpNet::V4(net) => gateway.v4.push(net),
                IpNet::V6(net) => gateway.v6.push(net),
            }
        }
        gateway.link_local = (!gateway.v6.is_empty()).then(|| spec.mac.link_local());
        gateway
    }

    /// Its hardware address.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Takes a frame that is addressed to the gateway or to a group.
    pub(crate) fn input(
        &self,
        asker: Asker<'_>,
        layout: &Layout,
        turn: &mut Turn<'_, '_>,
        shared: &mut Shared,
        now: Time,
    ) -> Outcome {
        let frame = turn.frames.get(asker.frame);
        if !self.concerns(layout, frame, asker.services) {
            return Outcome::Ignored;
        }
        let mut call = Call { gateway: self, asker, turn, shared, now };
        call.run(layout).unwrap_or_else(Outcome::Dropped)
    }

    /// Tells the sender of a packet, which was set aside, why it goes no further. Returns what it counts as: `drop`, unless it
    /// could not be told.
    pub(crate) fn refuse(
        &self,
        asker: Asker<'_>,
        ip: &Ip,
        why: (Reason, DropReason),
        turn: &mut Turn<'_, '_>,
        shared: &mut Shared,
        now: Time,
    ) -> DropReason {
        Call { gateway: self, asker, turn, shared, now }.refuse(ip, why.0, why.1)
    }

    /// Its addresses, each with the prefix of its subnet.
    pub(crate) fn nets(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.v4.iter().copied().map(IpNet::V4);
        v4.chain(self.v6.iter().copied().map(IpNet::V6))
    }

    /// What leads out through it.
    pub(crate) fn egress(&self) -> Egress {
        self.egress
    }

    /// Whether the frame is for the gateway to look at. It belongs to no VLAN; a tag that only gives a priority makes no
    /// difference.
    pub(crate) fn concerns(&self, layout: &Layout, frame: &Frame<'_>, services: &Services) -> bool {
        layout.vlan == 0 && layout.tags(frame.vlan) <= 1 && self.is_meant(layout, frame, services)
    }

    /// Whether the frame is one that the gateway takes, if only it is of no VLAN. Of what groups are sent, it listens to address
    /// resolution for its own addresses, and to what asks for one of its servers.
    pub(crate) fn is_meant(&self, layout: &Layout, frame: &Frame<'_>, services: &Services) -> bool {
        let payload = frame.bytes().get(layout.l3..).unwrap_or_default();
        match layout.ethertype {
            ethertype::ARP => arp::target(payload).is_some_and(|target| self.has_v4(target)),
            ethertype::IPV4 if !layout.dst.is_group() => true,
            ethertype::IPV4 => self.hears(layout, frame.bytes(), services),
            ethertype::IPV6 if !layout.dst.is_group() => true,
            ethertype::IPV6 => match layout.ip(frame.bytes()) {
                Ok(Some(ip)) => {
                    let frame = frame.bytes();
                    ndp::target(&ip, frame).is_some_and(|target| self.has_v6(target))
                        || (services.adverts().is_some() && router_advert::asks(&ip, frame))
                        || self.asks_dhcp6(&ip, frame, services)
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn has_v4(&self, address: Ipv4Addr) -> bool {
        self.v4.iter().any(|net| net.addr() == address)
    }

    fn has_v6(&self, address: Ipv6Addr) -> bool {
        self.link_local == Some(address) || self.v6.iter().any(|net| net.addr() == address)
    }

    /// Whether an address is one of its own.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.has_v4(v4),
            IpAddr::V6(v6) => self.has_v6(v6),
        }
    }

    /// Whether an address lies in one of its subnets.
    pub(crate) fn is_near(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.iter().any(|net| net.contains(&v4)),
            IpAddr::V6(v6) => self.v6.iter().any(|net| net.contains(&v6)),
        }
    }

    /// Which of its addresses speaks to `peer`; none where it has none of that family.
    pub(crate) fn address_towards(&self, peer: IpAddr) -> Option<IpAddr> {
        match peer {
            IpAddr::V4(peer) => {
                let near = self.v4.iter().find(|net| net.contains(&peer));
                near.or(self.v4.first()).map(|net| net.addr().into())
            }
            IpAddr::V6(peer) if peer.is_unicast_link_local() => self.link_local.map(IpAddr::from),
            IpAddr::V6(peer) => {
                let near = self.v6.iter().find(|net| net.contains(&peer));
                near.or(self.v6.first()).map(|net| net.addr().into())
            }
        }
    }

    /// Whether one host may call itself that, and a reply to it reaches that host alone.
    fn is_host(&self, address: IpAddr) -> bool {
        let alone = match address {
            IpAddr::V4(v4) => {
                let is_edge = |net: &Ipv4Net| {
                    net.prefix_len() < 31 && (net.broadcast() == v4 || net.network() == v4)
                };
                v4.octets()[0] != 0 && !v4.is_broadcast() && !self.v4.iter().any(is_edge)
            }
            IpAddr::V6(v6) => !v6.is_unspecified() && v6.to_ipv4_mapped().is_none(),
        };
        alone && !address.is_multicast() && !address.is_loopback() && !self.has(address)
    }
}

impl Call<'_, '_, '_> {
    fn run(&mut self, layout: &Layout) -> Result<Outcome, DropReason> {
        if layout.ethertype == ethertype::ARP {
            return self.arp(layout).map(|()| Outcome::Consumed);
        }
        let frame = self.turn.frames.get(self.asker.frame);
        let Some(ip) = layout.ip(frame.bytes())? else {
            return Err(DropReason::GatewayUnserved);
        };
        if ip.src.is_ipv4() && checksum::sum(&frame.bytes()[ip.l3..ip.l4]) != 0xffff {
            return Err(DropReason::BadChecksum);
        }
        // Of neighbor discovery the source may be unspecified, and the destination a group.
        let solicits_neighbor = ndp::target(&ip, frame.bytes()).is_some();
        if solicits_neighbor || router_advert::asks(&ip, frame.bytes()) {
            self.verify(&ip)?;
            let answered =
                if solicits_neighbor { self.ndp(&ip) } else { self.router_solicitation(&ip) };
            return answered.map(|()| Outcome::Consumed);
        }
        if self.gateway.asks_dhcp(&ip, frame.bytes(), self.asker.services) {
            return self.dhcp(&ip).map(|()| Outcome::Consumed);
        }
        if self.gateway.asks_dhcp6(&ip, frame.bytes(), self.asker.services) {
            return self.dhcp6(&ip).map(|()| Outcome::Consumed);
        }
        if let Some(address) = ndp::advertised(&ip, frame.bytes())
            && self.gateway.has(ip.dst)
            && self.asker.services.dhcp6().is_some()
        {
            self.verify(&ip)?;
            self.neighbor_advert(address);
            return Ok(Outcome::Consumed);
        }
        if !self.gateway.is_host(ip.src) {
            return Err(DropReason::BadSource);
        }
        if self.shared.sockets.is_none() && !self.gateway.has(ip.dst) {
            return Err(self.refuse(&ip, Reason::Net, DropReason::NoRoute));
        }
        if !self.gateway.has(ip.dst) || self.stands_for_another(&ip) {
            return Ok(Outcome::Aside(ip));
        }
        self.serve(&ip).map(|()| Outcome::Consumed)
    }

    /// Takes a packet to one of the gateway's addresses.
    fn serve(&mut self, ip: &Ip) -> Result<(), DropReason> {
        if ip.is_fragment() {
            return Err(DropReason::GatewayFragment);
        }
        match (ip.protocol, ip.src) {
            (protocol::ICMP, IpAddr::V4(_)) | (protocol::ICMPV6, IpAddr::V6(_)) => self.echo(ip),
            (protocol::UDP, _) => self.udp(ip),
            (protocol::TCP, _) => self.tcp(ip),
            _ => Err(self.refuse(ip, Reason::Protocol, DropReason::GatewayUnserved)),
        }
    }

    /// Whether the gateway's address, which the packet is for, stands for somebody whom a socket leads to. Names are always
    /// the gateway's own business. A later fragment says nothing of its port; whoever puts it together with the first decides.
    fn stands_for_another(&self, ip: &Ip) -> bool {
        let Some(sockets) = &self.shared.sockets else { return false };
        if !matches!(ip.protocol, protocol::TCP | protocol::UDP) {
            return icmp::is_error(ip, self.bytes());
        }
        let Some((transport, inside, outside)) = ends(ip, self.bytes()) else {
            return !ip.has_transport();
        };
        if self.is_expected(transport, inside, outside.port()) {
            return false;
        }
        let opened = self.gateway.egress.host_access && !self.gateway.egress.internal;
        let wanted = || opened || sockets.has(transport, self.gateway.zone, inside, outside);
        outside.port() != dns::PORT && (ip.is_fragment() || wanted())
    }

    /// The bytes of the frame in question.
    fn bytes(&self) -> &[u8] {
        self.turn.frames.get(self.asker.frame).bytes()
    }

    /// Checks the transport checksum. One that the sender left to the device never lay on a wire that could have hurt it.
    fn verify(&self, ip: &Ip) -> Result<(), DropReason> {
        let frame = self.turn.frames.get(self.asker.frame);
        match frame.offload.csum {
            Checksum::Verified => return Ok(()),
            Checksum::Partial { start, .. } if usize::from(start) == ip.l4 => return Ok(()),
            Checksum::Partial { .. } | Checksum::Unverified => {}
        }
        let message = ip.transport(frame.bytes());
        if ip.protocol == protocol::UDP && message.get(6..8) == Some(&[0, 0]) {
            // Only IPv4 lets a datagram go without (RFC 8200, section 8.1).
            return if ip.src.is_ipv4() { Ok(()) } else { Err(DropReason::BadChecksum) };
        }
        let holds = checksum::add(
            Header::new(ip.src, ip.dst, ip.protocol).pseudo(message.len()),
            checksum::sum(message),
        );
        if holds == 0xffff { Ok(()) } else { Err(DropReason::BadChecksum) }
    }
}

#[cfg(test)]
mod tests;
