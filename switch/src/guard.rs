//! The source guard: on a guarded network, whoever sends says truly who it is.
//!
//! An endpoint's hardware and IP addresses are known before its wire moves, so that each frame is held against them: the
//! Ethernet source, the IP source, and what ARP and neighbor discovery claim inside. Tags make no difference. Each kind of
//! untruth has a drop reason of its own.
//!
//! What a host must say before it has an address passes: a DHCP client's broadcast, an ARP probe and duplicate address
//! detection for its own addresses, listener reports and router solicitations. An endpoint with an IPv6 address also has the
//! link-local one that its kernel makes of its hardware address; one without has none, and the chatter of its kernel's IPv6 is
//! dropped and counted.
//!
//! An endpoint may be told to have more stations behind it: it then also sends from their hardware addresses. They are other
//! cards of the same host and not hosts of their own: the IP addresses stay the endpoint's, and the link-local ones that
//! follow from the hardware addresses. Machines with addresses of their own need a network without guard, or an endpoint each.
//!
//! Servers of addresses are ours: nothing that is meant for a client of DHCP passes from an endpoint, and no client's message in
//! which it calls itself by another hardware address than its own, so that nobody asks in another's name.
//!
//! Routers are ours: a router advertisement or redirect passes from no endpoint.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::drops::DropReason;
use crate::headers::{Ip, Layout, bytes_at, ethertype, protocol};
use crate::ids::MacAddr;

/// Ports of DHCP: client and server.
const DHCP: (u16, u16) = (68, 67);

/// The port of DHCPv6's clients.
const DHCP6_CLIENT: u16 = 546;

/// Where a datagram of DHCPv4 has the client's hardware address.
const CHADDR_AT: usize = 8 + 28;

/// ARP over Ethernet for IPv4: hardware type, protocol type and both address lengths.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// ICMPv6 types that concern the guard.
mod icmpv6 {
    pub const LISTENER_REPORT: u8 = 131;
    pub const LISTENER_DONE: u8 = 132;
    pub const ROUTER_SOLICIT: u8 = 133;
    pub const ROUTER_ADVERT: u8 = 134;
    pub const NEIGHBOR_SOLICIT: u8 = 135;
    pub const NEIGHBOR_ADVERT: u8 = 136;
    pub const REDIRECT: u8 = 137;
    pub const LISTENER_REPORT_V2: u8 = 143;
}

/// What an endpoint may call itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    mac: MacAddr,
    stations: Vec<MacAddr>,
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
}

impl Identity {
    /// The identity of an endpoint with these addresses, and with `stations` as further hardware addresses. One with an IPv6
    /// address also has the link-local one of each hardware address.
    pub fn new(mac: MacAddr, addresses: &[IpAddr], stations: &[MacAddr]) -> Identity {
        let stations = stations.to_vec();
        let mut identity = Identity { mac, stations, v4: Vec::new(), v6: Vec::new() };
        for address in addresses {
            match *address {
                IpAddr::V4(v4) => identity.v4.push(v4),
                IpAddr::V6(v6) => identity.v6.push(v6),
            }
        }
        if !identity.v6.is_empty() {
            let macs = std::iter::once(&mac).chain(&identity.stations);
            identity.v6.extend(macs.map(|mac| mac.link_local()));
        }
        identity
    }

    /// Its hardware address.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    fn has_mac(&self, mac: MacAddr) -> bool {
        mac == self.mac || self.stations.contains(&mac)
    }

    fn check_arp(&self, arp: &[u8], is_rarp: bool) -> Result<(), DropReason> {
        let Some((message, _)) = arp.split_first_chunk::<28>() else {
            return Err(DropReason::Malformed);
        };
        let [_, _, _, _, _, _, _, operation, rest @ ..] = *message;
        let [s0, s1, s2, s3, s4, s5, a, b, c, d, _, _, _, _, _, _, e, f, g, h] = rest;
        let sender = Ipv4Addr::new(a, b, c, d);
        let target = Ipv4Addr::new(e, f, g, h);
        let own = |address| self.v4.contains(&address);
        let truthful = match (is_rarp, operation) {
            // A request, whose sender may be unspecified when it probes its own address (RFC 5227).
            (false, 1) => own(sender) || (sender.is_unspecified() && own(target)),
            (false, 2) => own(sender),
            (true, 3) => own(sender) || sender.is_unspecified(),
            _ => false,
        };
        let sound = message[..6] == ARP_HEAD && message[6] == 0;
        if sound && truthful && self.has_mac(MacAddr([s0, s1, s2, s3, s4, s5])) {
            Ok(())
        } else {
            Err(DropReason::GuardArp)
        }
    }

    fn check_v4(&self, source: Ipv4Addr, ip: &Ip, frame: &[u8]) -> Result<(), DropReason> {
        if ip.protocol == protocol::UDP && ip.has_transport() {
            self.check_dhcp(ip.transport(frame), ip.is_fragment())?;
        }
        if self.v4.contains(&source) || (source.is_unspecified() && asks_for_address(ip, frame)) {
            Ok(())
        } else {
            Err(DropReason::GuardIpv4)
        }
    }

    /// Holds a datagram against the endpoint, where it is of DHCPv4: one to a client comes from a server, and one to a server has
    /// the client's hardware address in it. What is too short to have one is of use to nobody, unless it goes on in another
    /// fragment, at which nobody looks.
    fn check_dhcp(&self, datagram: &[u8], is_fragment: bool) -> Result<(), DropReason> {
        let to = bytes_at(datagram, 2).map(u16::from_be_bytes);
        let truthful = match to {
            Some(to) if to == DHCP.0 => false,
            Some(to) if to == DHCP.1 => match bytes_at(datagram, CHADDR_AT) {
                Some(chaddr) => self.has_mac(MacAddr(chaddr)),
                None => !is_fragment,
            },
            _ => true,
        };
        if truthful { Ok(()) } else { Err(DropReason::GuardDhcp) }
    }

    fn check_v6(&self, source: Ipv6Addr, ip: &Ip, frame: &[u8]) -> Result<(), DropReason> {
        if self.v6.is_empty() {
            return Err(DropReason::GuardIpv6);
        }
        let to_client = || bytes_at(ip.transport(frame), 2) == Some(DHCP6_CLIENT.to_be_bytes());
        if ip.protocol == protocol::UDP && ip.has_transport() && to_client() {
            return Err(DropReason::GuardDhcp);
        }
        let discovery = self.check_icmpv6(source, ip, frame)?;
        if self.v6.contains(&source) || (source.is_unspecified() && discovery) {
            Ok(())
        } else {
            Err(DropReason::GuardIpv6)
        }
    }

    /// Holds neighbor discovery against the endpoint. Whether this is a message that a host may send before it has an address.
    fn check_icmpv6(&self, source: Ipv6Addr, ip: &Ip, frame: &[u8]) -> Result<bool, DropReason> {
        if ip.protocol != protocol::ICMPV6 || !ip.has_transport() {
            return Ok(false);
        }
        let message = ip.transport(frame);
        let kind = *message.first().ok_or(DropReason::Malformed)?;
        let options = match kind {
            icmpv6::ROUTER_SOLICIT => 8,
            icmpv6::NEIGHBOR_SOLICIT | icmpv6::NEIGHBOR_ADVERT => 24,
            icmpv6::ROUTER_ADVERT | icmpv6::REDIRECT => return Err(DropReason::GuardNd),
            icmpv6::LISTENER_REPORT | icmpv6::LISTENER_DONE | icmpv6::LISTENER_REPORT_V2 => {
                return Ok(ip.dst.is_multicast());
            }
            _ => return Ok(false),
        };
        // Nobody may listen to neighbor discovery in fragments (RFC 6980), which could hide the rest from this look.
        if ip.is_fragment() || !self.names_itself(message, options)? {
            return Err(DropReason::GuardNd);
        }
        let own_target = || {
            let target = message[8..].first_chunk::<16>().copied().map(Ipv6Addr::from);
            target.is_some_and(|target| self.v6.contains(&target))
        };
        match kind {
            icmpv6::NEIGHBOR_ADVERT if !own_target() => Err(DropReason::GuardNd),
            icmpv6::NEIGHBOR_SOLICIT if source.is_unspecified() && !own_target() => {
                Err(DropReason::GuardNd)
            }
            _ => Ok(kind != icmpv6::NEIGHBOR_ADVERT),
        }
    }

    /// Whether the link-layer addresses among a message's options, which start at `at`, are the endpoint's own.
    fn names_itself(&self, message: &[u8], at: usize) -> Result<bool, DropReason> {
        let mut rest = message.get(at..).ok_or(DropReason::Malformed)?;
        while let [kind, units, ..] = *rest {
            let (option, behind) =
                rest.split_at_checked(usize::from(units) * 8).ok_or(DropReason::Malformed)?;
            let value = bytes_at(option, 2).ok_or(DropReason::Malformed)?;
            let is_link_layer = kind == 1 || kind == 2;
            if is_link_layer && (units != 1 || !self.has_mac(MacAddr(value))) {
                return Ok(false);
            }
            rest = behind;
        }
        if rest.is_empty() { Ok(true) } else { Err(DropReason::Malformed) }
    }
}

/// Holds a frame against the identity of the endpoint that sent it.
pub fn check(identity: &Identity, layout: &Layout, frame: &[u8]) -> Result<(), DropReason> {
    if !identity.has_mac(layout.src) {
        return Err(DropReason::GuardMac);
    }
    match layout.ethertype {
        kind @ (ethertype::ARP | ethertype::RARP) => {
            identity.check_arp(frame.get(layout.l3..).unwrap_or_default(), kind == ethertype::RARP)
        }
        // More tags than we look behind could hide anything.
        ethertype::VLAN | ethertype::QINQ => Err(DropReason::Malformed),
        _ => match layout.ip(frame)? {
            None => Ok(()),
            Some(ip) => match ip.src {
                IpAddr::V4(source) => identity.check_v4(source, &ip, frame),
                IpAddr::V6(source) => identity.check_v6(source, &ip, frame),
            },
        },
    }
}

/// Whether a packet is a DHCP client's.
fn asks_for_address(ip: &Ip, frame: &[u8]) -> bool {
    let ports = ip
        .transport(frame)
        .first_chunk::<4>()
        .map(|[a, b, c, d]| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])));
    ip.protocol == protocol::UDP && !ip.is_fragment() && ports == Some(DHCP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload;
    use crate::testbed::{
        Bench, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, arp, icmpv6, mac, neighbor, packet, raw,
        solicited_node, v4, v6,
    };

    const LIAR: MacAddr = MacAddr([0x02, 6, 6, 6, 6, 6]);
    const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    const NOTHING: MacAddr = MacAddr([0; 6]);

    fn own() -> Identity {
        Identity::new(mac(1), &[v4(1).into(), v6(1).into()], &[])
    }

    fn verdict(identity: &Identity, frame: &[u8]) -> Result<(), DropReason> {
        check(identity, &Layout::of(frame, None).unwrap(), frame)
    }

    #[track_caller]
    fn passes(frame: &[u8]) {
        assert_eq!(verdict(&own(), frame), Ok(()));
        assert_eq!(verdict(&own(), &tagged(frame)), Ok(()), "tagged");
    }

    #[track_caller]
    fn fails(frame: &[u8], reason: DropReason) {
        assert_eq!(verdict(&own(), frame), Err(reason));
        assert_eq!(verdict(&own(), &tagged(frame)), Err(reason), "tagged");
        assert_eq!(verdict(&own(), &tagged(&tagged(frame))), Err(reason), "tagged twice");
    }

    /// The same frame on a VLAN.
    fn tagged(frame: &[u8]) -> Vec<u8> {
        [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat()
    }

    fn udp(src: IpAddr, dst: IpAddr, from: u16, to: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        packet(mac(2), mac(1), src, dst).udp(from, to).write(&mut frame, b"x").unwrap();
        frame
    }

    fn arp_from(operation: u16, sender: (MacAddr, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
        arp(MacAddr::BROADCAST, mac(1), operation, sender, (NOTHING, target))
    }

    fn nd(src: Ipv6Addr, dst: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
        icmpv6(GATEWAY_MAC, mac(1), src, dst, kind, body)
    }

    #[test]
    fn hardware_address_must_be_the_endpoints() {
        passes(&raw(mac(2), mac(1), 0x88b5, b"anything"));
        fails(&raw(mac(2), LIAR, 0x88b5, b"anything"), DropReason::GuardMac);
    }

    #[test]
    fn ipv4_source_must_be_the_endpoints() {
        passes(&udp(v4(1).into(), v4(2).into(), 1, 2));
        fails(&udp(v4(2).into(), v4(3).into(), 1, 2), DropReason::GuardIpv4);
        fails(&udp(NOBODY.into(), v4(3).into(), 1, 2), DropReason::GuardIpv4);
    }

    #[test]
    fn a_dhcp_client_may_have_no_address_yet() {
        let everybody = Ipv4Addr::BROADCAST.into();
        passes(&udp(NOBODY.into(), everybody, 68, 67));
        fails(&udp(NOBODY.into(), everybody, 66, 68), DropReason::GuardDhcp);
        fails(&udp(NOBODY.into(), everybody, 68, 66), DropReason::GuardIpv4);
        fails(&udp(v4(2).into(), everybody, 68, 67), DropReason::GuardIpv4);
        let mut fragment = asks(NOBODY, mac(1));
        fragment[20] |= 0x20;
        fails(&fragment, DropReason::GuardIpv4);
    }

    /// A message to servers of DHCP in the name of a hardware address, nothing behind which matters.
    fn asks(from: Ipv4Addr, name: MacAddr) -> Vec<u8> {
        let message = [&[1, 1, 6, 0][..], &[0; 24], &name.0, &[0; 10]].concat();
        let builder = packet(MacAddr::BROADCAST, mac(1), from.into(), Ipv4Addr::BROADCAST.into());
        let mut frame = Vec::new();
        builder.udp(68, 67).write(&mut frame, &message).unwrap();
        frame
    }

    #[test]
    fn nobody_hides_in_whose_name_he_asks_for_addresses_in_a_second_fragment() {
        let first = |len: usize, name| {
            let mut frame = asks(v4(1), name);
            frame.truncate(34 + len);
            frame[20] |= 0x20;
            frame[17] = u8::try_from(20 + len).unwrap();
            frame
        };
        for len in [8, 32, 40] {
            fails(&first(len, mac(1)), DropReason::GuardDhcp);
        }
        passes(&first(48, mac(1)));
        fails(&first(48, LIAR), DropReason::GuardDhcp);
        let mut whole = first(40, mac(1));
        whole[20] &= !0x20;
        passes(&whole);
    }

    #[test]
    fn nobody_serves_addresses_or_asks_for_them_in_anothers_name() {
        let everybody: IpAddr = Ipv4Addr::BROADCAST.into();
        for src in [NOBODY, v4(1)] {
            for from in [67, 68, 4011] {
                fails(&udp(src.into(), everybody, from, 68), DropReason::GuardDhcp);
            }
        }
        let mut first = udp(v4(1).into(), everybody, 67, 68);
        first[20] |= 0x20;
        fails(&first, DropReason::GuardDhcp);
        passes(&asks(NOBODY, mac(1)));
        fails(&asks(NOBODY, LIAR), DropReason::GuardDhcp);
    }

    #[test]
    fn nobody_serves_addresses_of_ipv6() {
        let (own, other) = (mac(1).link_local(), mac(2).link_local());
        let servers: IpAddr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2).into();
        passes(&udp(own.into(), servers, 546, 547));
        for from in [547, 546, 1000] {
            fails(&udp(own.into(), other.into(), from, 546), DropReason::GuardDhcp);
        }
        let answer = udp(own.into(), other.into(), 547, 546);
        // Behind destination options, and as the first of several fragments, it is an answer still.
        for (kind, header) in [(60, [17, 0, 1, 4, 0, 0, 0, 0]), (44, [17, 0, 0, 1, 0, 0, 0, 9])] {
            let mut hidden = [&answer[..54], &header, &answer[54..]].concat();
            hidden[19] += 8;
            hidden[20] = kind;
            fails(&hidden, DropReason::GuardDhcp);
        }
    }

    #[test]
    fn ipv6_source_must_be_the_endpoints() {
        passes(&udp(v6(1).into(), v6(2).into(), 1, 2));
        passes(&udp(mac(1).link_local().into(), v6(2).into(), 1, 2));
        for src in [v6(2), mac(2).link_local(), Ipv6Addr::UNSPECIFIED] {
            fails(&udp(src.into(), v6(2).into(), 1, 2), DropReason::GuardIpv6);
        }
    }

    #[test]
    fn an_endpoint_without_ipv6_speaks_none() {
        let v4_only = Identity::new(mac(1), &[v4(1).into()], &[]);
        let routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        for src in [mac(1).link_local(), Ipv6Addr::UNSPECIFIED] {
            let frame = nd(src, routers, 133, &[0; 4]);
            assert_eq!(verdict(&v4_only, &frame), Err(DropReason::GuardIpv6));
        }
    }

    #[test]
    fn arp_speaks_for_own_addresses_alone() {
        let own = (mac(1), v4(1));
        for operation in [1, 2] {
            passes(&arp_from(operation, own, v4(2)));
            passes(&arp_from(operation, own, v4(1)));
            fails(&arp_from(operation, (mac(1), v4(2)), v4(3)), DropReason::GuardArp);
            fails(&arp_from(operation, (LIAR, v4(1)), v4(2)), DropReason::GuardArp);
            fails(&arp_from(operation, (mac(1), GATEWAY_V4), GATEWAY_V4), DropReason::GuardArp);
        }
        fails(&arp_from(2, (mac(1), NOBODY), v4(1)), DropReason::GuardArp);
        fails(&arp_from(8, own, v4(2)), DropReason::GuardArp);
        let mut strange = arp_from(1, own, v4(2));
        strange[15] = 6;
        fails(&strange, DropReason::GuardArp);
        fails(&arp_from(1, own, v4(2))[..41], DropReason::Malformed);
    }

    #[test]
    fn an_arp_probe_asks_for_own_addresses_alone() {
        passes(&arp_from(1, (mac(1), NOBODY), v4(1)));
        fails(&arp_from(1, (mac(1), NOBODY), v4(2)), DropReason::GuardArp);
    }

    #[test]
    fn a_reverse_arp_announcement_names_the_endpoint() {
        let announce = |sender| {
            let mut frame = arp(MacAddr::BROADCAST, mac(1), 3, sender, (mac(1), NOBODY));
            frame[12..14].copy_from_slice(&ethertype::RARP.to_be_bytes());
            frame
        };
        passes(&announce((mac(1), NOBODY)));
        fails(&announce((LIAR, NOBODY)), DropReason::GuardArp);
        fails(&announce((mac(1), v4(2))), DropReason::GuardArp);
    }

    #[test]
    fn no_deferred_checksum_makes_a_lie_of_what_was_looked_at() {
        let message = [&[1, 1, 6, 0][..], &[0; 24], &mac(1).0, &[0; 266]].concat();
        let mut dhcp = Vec::new();
        let everybody = Ipv4Addr::BROADCAST.into();
        let builder = packet(MacAddr::BROADCAST, mac(1), NOBODY.into(), everybody);
        builder.udp(68, 67).write(&mut dhcp, &message).unwrap();
        let mut rarp = arp_from(3, (mac(1), v4(1)), v4(1));
        rarp[12..14].copy_from_slice(&ethertype::RARP.to_be_bytes());
        let arp = arp_from(1, (mac(1), v4(1)), v4(2));
        let discovery = nd(v6(1), v6(2), 136, &neighbor(0x20, v6(1), Some((2, mac(1)))));
        let tunnel = udp(v6(1).into(), v6(2).into(), 4789, 4789);
        for frame in [dhcp, rarp, arp, discovery, tunnel] {
            assert_eq!(verdict(&own(), &frame), Ok(()));
            let ends = u16::try_from(frame.len()).unwrap();
            for (start, at) in (0..ends).flat_map(|start| (start..ends).map(move |at| (start, at)))
            {
                let [s0, s1] = start.to_ne_bytes();
                let [o0, o1] = (at - start).to_ne_bytes();
                let header = [1, 0, 0, 0, 0, 0, s0, s1, o0, o1];
                let Ok(mut offload) = offload::parse_vnet(&header, &frame) else { continue };
                let mut done = frame.clone();
                offload::complete(&mut done, &mut offload);
                assert_eq!(verdict(&own(), &done), Ok(()), "{start} {at} {frame:02x?}");
            }
        }
    }

    #[test]
    fn duplicate_address_detection_passes_for_own_addresses_alone() {
        let dad = |target| {
            let (_, group) = solicited_node(target);
            nd(Ipv6Addr::UNSPECIFIED, group, 135, &neighbor(0, target, None))
        };
        passes(&dad(v6(1)));
        passes(&dad(mac(1).link_local()));
        fails(&dad(v6(2)), DropReason::GuardNd);
        fails(&dad(GATEWAY_V6), DropReason::GuardNd);
    }

    #[test]
    fn solicitations_name_the_endpoints_own_hardware() {
        let ask = |option| nd(v6(1), v6(2), 135, &neighbor(0, v6(2), option));
        passes(&ask(None));
        passes(&ask(Some((1, mac(1)))));
        fails(&ask(Some((1, LIAR))), DropReason::GuardNd);
        fails(&nd(v6(2), v6(3), 135, &neighbor(0, v6(3), None)), DropReason::GuardIpv6);
        let router = |option: &[u8]| {
            let body = [&[0; 4][..], option].concat();
            nd(mac(1).link_local(), v6(2), 133, &body)
        };
        let [_, _, rest @ ..] = LIAR.0;
        passes(&router(&[]));
        fails(&router(&[1, 1, 2, 6, rest[0], rest[1], rest[2], rest[3]]), DropReason::GuardNd);
        fails(&router(&[1, 0, 2, 6, 6, 6, 6, 6]), DropReason::Malformed);
        fails(&router(&[1, 2, 2, 6, 6, 6, 6, 6]), DropReason::Malformed);
    }

    #[test]
    fn advertisements_speak_for_own_addresses_alone() {
        let tell = |target, option| nd(v6(1), v6(2), 136, &neighbor(0x60, target, option));
        passes(&tell(v6(1), Some((2, mac(1)))));
        passes(&tell(mac(1).link_local(), None));
        fails(&tell(v6(2), Some((2, mac(1)))), DropReason::GuardNd);
        fails(&tell(v6(1), Some((2, LIAR))), DropReason::GuardNd);
        let nobodys = nd(Ipv6Addr::UNSPECIFIED, v6(2), 136, &neighbor(0x20, v6(1), None));
        fails(&nobodys, DropReason::GuardIpv6);
    }

    #[test]
    fn no_endpoint_is_a_router() {
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let advert = nd(mac(1).link_local(), all_nodes, 134, &[0; 12]);
        fails(&advert, DropReason::GuardNd);
        fails(&nd(mac(1).link_local(), v6(2), 137, &[0; 36]), DropReason::GuardNd);
        // Behind destination options it is one still.
        let mut hidden = advert[..54].to_vec();
        hidden.extend([58, 0, 1, 4, 0, 0, 0, 0]);
        hidden.extend(&advert[54..]);
        hidden[19] += 8;
        hidden[20] = 60;
        fails(&hidden, DropReason::GuardNd);
    }

    #[test]
    fn neighbor_discovery_in_fragments_does_not_pass() {
        let whole = nd(v6(1), v6(2), 136, &neighbor(0x60, v6(1), None));
        let mut first = whole[..54].to_vec();
        first.extend([58, 0, 0, 1, 0, 0, 0, 9]);
        first.extend(&whole[54..]);
        first[19] += 8;
        first[20] = 44;
        fails(&first, DropReason::GuardNd);
    }

    #[test]
    fn listener_reports_come_before_addresses() {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
        for kind in [131, 132, 143] {
            passes(&nd(Ipv6Addr::UNSPECIFIED, group, kind, &[0; 20]));
            fails(&nd(Ipv6Addr::UNSPECIFIED, v6(2), kind, &[0; 20]), DropReason::GuardIpv6);
        }
        passes(&nd(Ipv6Addr::UNSPECIFIED, group, 133, &[0; 4]));
        fails(&nd(Ipv6Addr::UNSPECIFIED, group, 128, &[0; 4]), DropReason::GuardIpv6);
    }

    #[test]
    fn nothing_hides_behind_a_third_tag() {
        let frame = udp(v4(2).into(), v4(3).into(), 1, 2);
        let thrice = tagged(&tagged(&tagged(&frame)));
        assert_eq!(verdict(&own(), &thrice), Err(DropReason::Malformed));
    }

    #[test]
    fn an_open_network_has_no_guard() {
        let mut bench = Bench::new(false, 2);
        let out = bench.send(1, raw(mac(2), LIAR, 0x88b5, b"anything"));
        assert_eq!(out.len(), 1);
        let mut bench = Bench::new(true, 2);
        bench.refuses(1, raw(mac(2), LIAR, 0x88b5, b"anything"), DropReason::GuardMac);
    }
}
