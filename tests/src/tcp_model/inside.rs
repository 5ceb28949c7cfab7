//! The inside as the sockets are shown it, and its packets as the independent parsers want them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portolan_nat::inside::{Composed, Inside, Lost, Made, PacketId, Zone};
use portolan_nat::offload::{Checksum, Offload};
use portolan_nat::packet::Ip;
use portolan_switch::ids::MacAddr;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{ETHERNET, MTU, ZONE};
use crate::packet::{ICMP, ICMPV6, Packet, Parts, ip};

/// One packet to the inside, as the sockets made it.
pub(super) struct Sent {
    pub(super) to: IpAddr,
    pub(super) bytes: Vec<u8>,
    pub(super) offload: Offload,
}

pub(super) struct Turn<'t> {
    pub(super) batch: &'t [Packet],
    pub(super) sent: Vec<Sent>,
    pub(super) room: usize,
    pub(super) no_room: u32,
    pub(super) random: ChaCha8Rng,
    pub(super) lost: Vec<Lost>,
}

impl Inside for Turn<'_> {
    fn bytes(&self, packet: PacketId) -> &[u8] {
        &self.batch[usize::from(packet.0)].bytes
    }

    fn mtu(&self, zone: Zone) -> Option<usize> {
        (zone == ZONE).then_some(MTU)
    }

    fn gateway(&self, _zone: Zone, to: IpAddr) -> Option<IpAddr> {
        Some(inside_address(to.is_ipv6(), 1))
    }

    fn is_beyond(&self, _zone: Zone, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => v4.octets()[..3] != [10, 1, 0],
            IpAddr::V6(v6) => v6.segments()[..4] != [0xfd00, 1, 0, 0],
        }
    }

    fn compose(
        &mut self,
        zone: Zone,
        to: IpAddr,
        max: usize,
        write: &mut dyn FnMut(&mut [u8]) -> Option<Composed>,
    ) -> Made {
        assert_eq!(zone, ZONE);
        let refused = self.no_room > 0 && self.random.random_ratio(self.no_room, 1000);
        if max > self.room || refused {
            return Made::NoRoom;
        }
        let mut bytes = vec![0xa5; max];
        let Some(Composed { len, offload }) = write(&mut bytes) else { return Made::Nothing };
        bytes.truncate(len);
        self.room -= len;
        self.sent.push(Sent { to, bytes, offload });
        Made::Sent
    }

    fn may_object(&mut self, _zone: Zone, _to: IpAddr) -> bool {
        true
    }

    fn lost(&mut self, _zone: Zone, _to: IpAddr, why: Lost, _packets: u64) {
        self.lost.push(why);
    }
}

pub(super) fn inside_address(ipv6: bool, host: u8) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, u16::from(host)).into()
    } else {
        Ipv4Addr::new(10, 1, 0, host).into()
    }
}

/// A frame as the independent parsers want it: an Ethernet header before the packet, offsets shifted by it.
pub(super) fn framed(sent: &Sent) -> Packet {
    let ethertype: [u8; 2] = if sent.to.is_ipv6() { [0x86, 0xdd] } else { [8, 0] };
    let mut packet = Packet::from([&[0; 12][..], &ethertype, &sent.bytes].concat());
    packet.offload = sent.offload;
    if let Checksum::Partial { start, .. } = &mut packet.offload.csum {
        *start += ETHERNET as u16;
    }
    if let Some(gso) = &mut packet.offload.gso {
        gso.hdr_len += ETHERNET as u16;
    }
    packet
}

/// The inside's end that an ICMP error is about.
pub(super) fn quoted(frame: &[u8]) -> Option<SocketAddr> {
    let parts = Parts::of(frame).ok()?;
    let (l4, _) = parts.l4?;
    let inner = [&frame[..12], &frame[12..14], frame.get(l4 + 8..)?].concat();
    let ip = Ip::of(&inner, ETHERNET)?;
    let port = inner.get(ip.l4..ip.l4 + 2)?;
    Some(SocketAddr::new(ip.src, u16::from_be_bytes([port[0], port[1]])))
}

/// What a router inside, or the receiver, says of a packet that is too large for it.
pub(super) fn too_big(frame: &[u8], mtu: u16) -> Packet {
    let parts = Parts::of(frame).expect("read before");
    let (src, dst) = parts.addresses(frame).expect("read before");
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    let (protocol, kind) = if dst.is_ipv4() { (ICMP, [3, 4]) } else { (ICMPV6, [2, 0]) };
    let quote = &frame[ETHERNET..frame.len().min(ETHERNET + 100)];
    let message = [&kind[..], &[0; 4], &mtu.to_be_bytes(), quote].concat();
    Packet::from(ip((mac(2), dst), (mac(1), src), protocol, &message))
}

/// Some byte behind the IP header changes on the way: the checksum must tell.
pub(super) fn damage(packet: &mut Packet, random: &mut ChaCha8Rng) {
    if packet.offload != Offload::default() {
        return;
    }
    let Ok(Parts { l4: Some((l4, _)), end, .. }) = Parts::of(&packet.bytes) else { return };
    let at = random.random_range(l4..end);
    packet.bytes[at] ^= 1 << random.random_range(0..8);
}
