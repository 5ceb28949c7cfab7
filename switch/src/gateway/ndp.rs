//! Neighbor discovery (RFC 4861): who has the gateway's IPv6 addresses.

use std::net::{IpAddr, Ipv6Addr};

use portolan_nat::write::Header;

use crate::drops::DropReason;
use crate::frame::{FrameIdx, FrameTable};
use crate::headers::{ETHERNET_LEN, Ip, ethertype, protocol};
use crate::ids::MacAddr;

use super::Call;
use super::reply::{IPV6_LEN, Packet, ethernet};
use super::services::moment;

const NEIGHBOR_SOLICIT: u8 = 135;
const NEIGHBOR_ADVERT: u8 = 136;

/// Bytes of a solicitation or advertisement before its options.
const FIXED_LEN: usize = 24;

/// Options that carry a link-layer address.
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// Hop limit that tells a packet was not forwarded.
const ON_LINK: u8 = 255;

/// Flags of an advertisement: from a router, in answer to a solicitation, replacing what is known.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// The address that a neighbor solicitation is about.
pub(crate) fn target(ip: &Ip, frame: &[u8]) -> Option<Ipv6Addr> {
    if ip.protocol != protocol::ICMPV6 || !ip.src.is_ipv6() || !ip.has_transport() {
        return None;
    }
    let message = ip.transport(frame);
    let target = message.get(8..)?.first_chunk::<16>().copied()?;
    (message[0] == NEIGHBOR_SOLICIT).then(|| target.into())
}

/// The address that a neighbor advertisement speaks for.
pub(super) fn advertised(ip: &Ip, frame: &[u8]) -> Option<Ipv6Addr> {
    let message = ip.transport(frame);
    let discovery = ip.protocol == protocol::ICMPV6 && ip.src.is_ipv6() && !ip.is_fragment();
    let target = message.get(8..)?.first_chunk::<16>().copied()?;
    (discovery && message[0] == NEIGHBOR_ADVERT).then(|| target.into())
}

/// A solicitation for an address that somebody may have; none where there is no room for it.
pub(super) fn solicit(
    mac: MacAddr,
    own: Ipv6Addr,
    address: Ipv6Addr,
    frames: &mut FrameTable<'_>,
) -> Option<FrameIdx> {
    let [.., a, b, c] = address.octets();
    let group = Ipv6Addr::from_bits(SOLICITED_NODES | u128::from(u32::from_be_bytes([0, a, b, c])));
    let made = frames.make(ETHERNET_LEN + IPV6_LEN + FIXED_LEN + 8)?;
    let frame = frames.get_mut(made).bytes_mut();
    ethernet(frame, MacAddr([0x33, 0x33, 0xff, a, b, c]), mac, ethertype::IPV6);
    let packet = &mut frame[ETHERNET_LEN..];
    let message = &mut packet[IPV6_LEN..];
    message[0] = NEIGHBOR_SOLICIT;
    message[8..24].copy_from_slice(&address.octets());
    message[24..26].copy_from_slice(&[SOURCE_LINK_LAYER, 1]);
    message[26..32].copy_from_slice(&mac.0);
    let header = Header::new(own.into(), group.into(), protocol::ICMPV6);
    Header { hop_limit: ON_LINK, ..header }.seal(packet, 2);
    Some(made)
}

/// The groups of those who have addresses with the same last 24 bits.
const SOLICITED_NODES: u128 = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).to_bits();

/// Whether the solicitation is one that RFC 4861, section 7.1.1, does not have discarded.
pub(crate) fn is_valid(ip: &Ip, frame: &[u8]) -> bool {
    let message = ip.transport(frame);
    let hop_limit = frame.get(ip.l3 + 7).copied();
    let sound = hop_limit == Some(ON_LINK) && message.get(1) == Some(&0) && !ip.is_fragment();
    let mut names_source = false;
    let mut rest = message.get(FIXED_LEN..).unwrap_or_default();
    while let [kind, units, ..] = *rest {
        names_source |= kind == SOURCE_LINK_LAYER;
        match rest.split_at_checked(usize::from(units) * 8) {
            Some((option, behind)) if !option.is_empty() => rest = behind,
            _ => return false,
        }
    }
    let source = match ip.src {
        IpAddr::V6(src) if src.is_unspecified() => !names_source && is_solicited_node(ip.dst),
        src => !src.is_multicast(),
    };
    sound && source && rest.is_empty()
}

/// Whether this is a group of those who have an address with certain last bits (RFC 4291, section 2.7.1).
fn is_solicited_node(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(v6) => v6.octets()[..13] == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff],
        IpAddr::V4(_) => false,
    }
}

impl Call<'_, '_, '_> {
    /// Hears an advertisement. It changes nothing, for there is no table to poison; but whoever speaks for an address that DHCPv6
    /// is about to lend has it already.
    pub(super) fn neighbor_advert(&mut self, address: Ipv6Addr) {
        let (port, hardware, now) = (self.asker.port.id().0, self.asker.mac.0, moment(self.now));
        if let Some(server) = self.asker.services.dhcp6_mut() {
            server.lending.heard(address, port, hardware, now);
        }
    }

    /// Answers a solicitation for one of the gateway's addresses. One who only probes whether the address is free has no
    /// address of its own yet: it gets the answer as all nodes would (RFC 4861, section 7.2.4).
    pub(super) fn ndp(&mut self, ip: &Ip) -> Result<(), DropReason> {
        let wanted = target(ip, self.bytes()).filter(|target| self.gateway.has_v6(*target));
        let wanted = wanted.ok_or(DropReason::GatewayUnserved)?;
        if !is_valid(ip, self.bytes()) {
            return Err(DropReason::Malformed);
        }
        let (to, dst, flags) = if ip.src.is_unspecified() {
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into();
            (MacAddr([0x33, 0x33, 0, 0, 0, 1]), all_nodes, ROUTER | OVERRIDE)
        } else {
            (self.asker.mac, ip.src, ROUTER | SOLICITED | OVERRIDE)
        };
        if self.gateway.link_local == Some(wanted)
            && let Some(adverts) = self.asker.services.adverts_mut()
        {
            adverts.note_listener(self.asker.port.id(), self.now);
        }
        let own = self.gateway.mac();
        let packet = Packet {
            header: Header {
                hop_limit: ON_LINK,
                ..Header::new(wanted.into(), dst, protocol::ICMPV6)
            },
            len: FIXED_LEN + 8,
            check_at: 2,
        };
        self.send_packet(to, &packet, |_, reply| {
            reply[0] = NEIGHBOR_ADVERT;
            reply[4] = flags;
            reply[8..24].copy_from_slice(&wanted.octets());
            reply[24..26].copy_from_slice(&[TARGET_LINK_LAYER, 1]);
            reply[26..32].copy_from_slice(&own.0);
        })
    }
}
