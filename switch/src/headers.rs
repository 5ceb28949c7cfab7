//! Where a frame's headers lie, found once.
//!
//! Two steps, because a bridge forwards what it does not understand: [`Layout::of`] reads no further than the Ethernet
//! header and its tags, which every frame must have, and [`Layout::ip`] is asked only by those who need to know more: the
//! guard, the gateway, and whoever checks an offload. Both take any bytes; what contradicts itself is refused by name.
//! All offsets count from the frame's first byte.

pub use portolan_nat::packet::{Fragment, IPV6_LEN, Ip, bytes_at, protocol, u16_at};

use crate::drops::DropReason;
use crate::frame::VlanTag;
use crate::ids::MacAddr;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;

/// Bytes of the two hardware addresses, behind which tags stand.
pub const ADDRESSES_LEN: usize = 12;

/// Bytes of one 802.1Q tag.
pub const TAG_LEN: usize = 4;

/// Tags looked behind among the frame's bytes; a third one is payload.
const TAGS_MAX: usize = 2;

/// EtherTypes, host order.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// A customer tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A service tag (IEEE 802.1ad).
    pub const QINQ: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// RARP (RFC 903), with which hypervisors announce where a guest lives now.
    pub const RARP: u16 = 0x8035;
}

/// The link layer of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// To whom.
    pub dst: MacAddr,
    /// From whom.
    pub src: MacAddr,
    /// VLAN id of the outermost tag, 0 for none; a tag that only gives a priority has 0 too.
    pub vlan: u16,
    /// What the payload is, behind all tags looked at; below 0x600 it is a length (IEEE 802.3).
    pub ethertype: u16,
    /// Where the payload starts.
    pub l3: usize,
}

impl Layout {
    /// Reads the Ethernet header of `frame` and up to two tags behind it. `vlan` is the tag that came beside the frame, if
    /// one did; it lies outside all others. [`DropReason::Runt`] where not even the header fits, [`DropReason::Malformed`]
    /// where a tag is cut off.
    pub fn of(frame: &[u8], vlan: Option<VlanTag>) -> Result<Layout, DropReason> {
        let dst = MacAddr(bytes_at(frame, 0).ok_or(DropReason::Runt)?);
        let src = MacAddr(bytes_at(frame, 6).ok_or(DropReason::Runt)?);
        let mut ethertype = u16_at(frame, 12).ok_or(DropReason::Runt)?;
        let mut outer = vlan.map(|tag| tag.tci);
        let mut l3 = ETHERNET_LEN;
        for _ in 0..TAGS_MAX {
            if !matches!(ethertype, ethertype::VLAN | ethertype::QINQ) {
                break;
            }
            let [t0, t1, e0, e1] = bytes_at(frame, l3).ok_or(DropReason::Malformed)?;
            outer.get_or_insert(u16::from_be_bytes([t0, t1]));
            ethertype = u16::from_be_bytes([e0, e1]);
            l3 += TAG_LEN;
        }
        Ok(Layout { dst, src, vlan: outer.unwrap_or(0) & 0xfff, ethertype, l3 })
    }

    /// How many tags the frame has, of those looked at; `beside` is the one that came beside it, if one did.
    pub fn tags(&self, beside: Option<VlanTag>) -> usize {
        (self.l3 - ETHERNET_LEN) / TAG_LEN + usize::from(beside.is_some())
    }

    /// Reads the IP header behind, none where the frame carries something else. `frame` must be the bytes this layout was
    /// made of. [`DropReason::Malformed`] where the header contradicts itself or the frame's length, which also holds for
    /// a packet of more than 65535 bytes that does not state its length (RFC 2675).
    pub fn ip(&self, frame: &[u8]) -> Result<Option<Ip>, DropReason> {
        match self.ethertype {
            ethertype::IPV4 => Ip::v4(frame, self.l3).map(Some).ok_or(DropReason::Malformed),
            ethertype::IPV6 => Ip::v6(frame, self.l3).map(Some).ok_or(DropReason::Malformed),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn ethernet(behind: &[&[u8]]) -> Vec<u8> {
        let mut frame = ADDRESSES.to_vec();
        behind.iter().for_each(|part| frame.extend_from_slice(part));
        frame
    }

    fn v4(total: u16, place: u16, protocol: u8) -> [u8; 20] {
        let [t0, t1] = total.to_be_bytes();
        let [p0, p1] = place.to_be_bytes();
        [0x45, 0, t0, t1, 0, 0, p0, p1, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
    }

    fn v6(payload: u16, next: u8) -> Vec<u8> {
        let [p0, p1] = payload.to_be_bytes();
        let mut header = vec![0x60, 0, 0, 0, p0, p1, next, 64];
        header.extend_from_slice(&Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets());
        header.extend_from_slice(&Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets());
        header
    }

    fn ip(frame: &[u8]) -> Result<Option<Ip>, DropReason> {
        Layout::of(frame, None).and_then(|layout| layout.ip(frame))
    }

    fn v6_walk(next: u8, payload: &[u8]) -> Result<Option<Ip>, DropReason> {
        ip(&ethernet(&[&[0x86, 0xdd], &v6(payload.len() as u16, next), payload]))
    }

    #[test]
    fn a_frame_without_a_whole_ethernet_header_is_a_runt() {
        let frame = ethernet(&[&[0x08, 0x06]]);
        for len in 0..ETHERNET_LEN {
            assert_eq!(Layout::of(&frame[..len], None), Err(DropReason::Runt), "{len}");
        }
        let layout = Layout::of(&frame, None).unwrap();
        assert_eq!(layout.dst, MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(layout.src, MacAddr([2, 0, 0, 0, 0, 2]));
        assert_eq!((layout.vlan, layout.ethertype, layout.l3), (0, ethertype::ARP, 14));
    }

    #[test]
    fn the_outermost_tag_names_the_vlan_wherever_it_lies() {
        let two = ethernet(&[&[0x88, 0xa8, 0x20, 5, 0x81, 0, 0x0f, 0xff, 0x08, 0]]);
        let layout = Layout::of(&two, None).unwrap();
        assert_eq!((layout.vlan, layout.ethertype, layout.l3), (5, ethertype::IPV4, 22));
        let beside = VlanTag { tpid: 0x88a8, tci: 0xe007 };
        let layout = Layout::of(&two, Some(beside)).unwrap();
        assert_eq!((layout.vlan, layout.ethertype, layout.l3), (7, ethertype::IPV4, 22));
        let three = ethernet(&[&[0x81, 0, 0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7, 0x08, 0]]);
        let layout = Layout::of(&three, None).unwrap();
        assert_eq!((layout.vlan, layout.ethertype, layout.l3), (5, ethertype::VLAN, 22));
        assert_eq!(Layout::of(&two[..17], None), Err(DropReason::Malformed));
    }

    #[test]
    fn a_broken_ip_header_leaves_the_layout_readable() {
        let frame = ethernet(&[&[0x08, 0], &v4(21, 0, protocol::UDP)]);
        assert!(Layout::of(&frame, None).is_ok());
        assert_eq!(ip(&frame), Err(DropReason::Malformed));
        assert_eq!(ip(&ethernet(&[&[0x08, 0x06], &[0xff; 3]])), Ok(None));
    }

    #[test]
    fn ipv4_is_held_against_its_own_lengths() {
        let with = |change: &dyn Fn(&mut [u8; 20])| {
            let mut header = v4(28, 0, protocol::UDP);
            change(&mut header);
            ip(&ethernet(&[&[0x08, 0], &header, &[0; 8], b"padding"]))
        };
        let whole = with(&|_| ()).unwrap().unwrap();
        assert_eq!((whole.l3, whole.l4, whole.end), (14, 34, 42));
        assert_eq!((whole.protocol, whole.fragment), (protocol::UDP, None));
        assert_eq!(whole.src, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(whole.dst, IpAddr::from([10, 0, 0, 2]));
        assert_eq!(with(&|h| h[0] = 0x46).unwrap().unwrap().l4, 38);
        for (at, byte) in [(0, 0x65), (0, 0x44), (0, 0x48), (3, 19), (3, 36), (3, 0)] {
            let broken = with(&|header| header[at] = byte);
            assert_eq!(broken, Err(DropReason::Malformed), "{at} {byte}");
        }
    }

    #[test]
    fn fragments_are_told_and_only_the_first_has_a_transport() {
        let at =
            |place| ip(&ethernet(&[&[0x08, 0], &v4(20, place, protocol::UDP)])).unwrap().unwrap();
        assert_eq!(at(0x4000).fragment, None);
        assert_eq!(at(0x2000).fragment, Some(Fragment { offset: 0, more: true }));
        assert!(at(0x2000).has_transport());
        assert_eq!(at(0x0003).fragment, Some(Fragment { offset: 24, more: false }));
        assert!(!at(0x0003).has_transport());
        let later = v6_walk(44, &[60, 0, 0, 0x10, 0, 0, 0, 1, 0xff]).unwrap().unwrap();
        assert_eq!(later.fragment, Some(Fragment { offset: 16, more: false }));
        assert_eq!((later.protocol, later.l4), (60, 62));
        let whole = v6_walk(44, &[17, 0, 0, 0, 0, 0, 0, 1]).unwrap().unwrap();
        assert_eq!((whole.fragment, whole.protocol), (None, protocol::UDP));
    }

    #[test]
    fn ipv6_extensions_are_walked_to_the_transport_and_no_further_than_a_bound() {
        let hop_auth = [51, 0, 0, 0, 0, 0, 0, 0, 6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let behind = v6_walk(0, &hop_auth).unwrap().unwrap();
        assert_eq!((behind.protocol, behind.l4), (protocol::TCP, 14 + 40 + 20));
        let chain = |links: usize| {
            let mut payload = [60, 0, 0, 0, 0, 0, 0, 0].repeat(links);
            payload[links * 8 - 8] = protocol::TCP;
            v6_walk(60, &payload)
        };
        assert_eq!(chain(8).unwrap().unwrap().protocol, protocol::TCP);
        assert_eq!(chain(9), Err(DropReason::Malformed));
        assert_eq!(v6_walk(60, &[6, 1, 0, 0, 0, 0, 0, 0]), Err(DropReason::Malformed));
        assert_eq!(v6_walk(60, &[]), Err(DropReason::Malformed));
    }

    #[test]
    fn a_jumbogram_is_malformed_and_an_empty_packet_is_not() {
        let jumbo = ethernet(&[&[0x86, 0xdd], &v6(0, 0), &[6, 0, 0xc2, 4, 0, 1, 0x20, 0]]);
        assert_eq!(ip(&jumbo), Err(DropReason::Malformed));
        let empty = v6_walk(59, &[]).unwrap().unwrap();
        assert_eq!((empty.l4, empty.end), (54, 54));
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_walk(
            start in prop::sample::select(vec![
                vec![], vec![0x08, 0, 0x45], vec![0x86, 0xdd, 0x60], vec![0x81, 0, 0, 0, 0x86, 0xdd, 0x60],
            ]),
            rest in prop::collection::vec(prop_oneof![any::<u8>(), 0..64u8], 0..200),
        ) {
            let frame = ethernet(&[&start, &rest]);
            if let Ok(layout) = Layout::of(&frame, None) {
                prop_assert!(layout.l3 <= frame.len());
                if let Ok(Some(ip)) = layout.ip(&frame) {
                    prop_assert!(layout.l3 < ip.l4 && ip.l4 <= ip.end && ip.end <= frame.len());
                    prop_assert_eq!(ip.transport(&frame).len(), ip.end - ip.l4);
                    prop_assert_eq!(ip.src.is_ipv4(), ip.dst.is_ipv4());
                }
            }
        }
    }
}
