//! Frames with offloads of every kind, held against another parser.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::frame::VlanTag;

/// A superframe as a guest makes one, and what it says of it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub kind: GsoKind,
    /// For UDP only; TCP's kind says it.
    pub v6: bool,
    pub tags: Vec<[u8; 4]>,
    /// Words of IPv4 options, or IPv6 destination options of 8 bytes.
    pub options: u8,
    pub tcp_options: u8,
    pub tcp_flags: u8,
    pub ipv4_id: u16,
    pub sequence: u32,
    pub size: u16,
    pub ecn: bool,
    pub payload: Vec<u8>,
}

pub(crate) fn any_sample() -> impl Strategy<Value = Sample> {
    let kinds = vec![GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpL4];
    let tag = prop_oneof![Just([0x81, 0, 0, 9]), Just([0x88, 0xa8, 0xe0, 7])];
    let shape = (
        prop::sample::select(kinds),
        any::<bool>(),
        prop::collection::vec(tag, 0..3),
        0..4u8,
        0..11u8,
    );
    let values = (any::<u8>(), any::<u16>(), any::<u32>(), any::<bool>());
    let payload = prop::collection::vec(any::<u8>(), 1..5000);
    (shape, values, payload, 4..2000u16).prop_map(|(shape, values, payload, size)| {
        let (kind, v6, tags, options, tcp_options) = shape;
        let (tcp_flags, ipv4_id, sequence, ecn) = values;
        let (v6, ecn) = match kind {
            GsoKind::TcpV4 => (false, ecn),
            GsoKind::TcpV6 => (true, ecn),
            GsoKind::UdpL4 => (v6, false),
        };
        Sample {
            kind,
            v6,
            tags,
            options,
            tcp_options,
            tcp_flags,
            ipv4_id,
            sequence,
            size,
            ecn,
            payload,
        }
    })
}

impl Sample {
    pub fn l3(&self) -> usize {
        14 + self.tags.len() * 4
    }

    pub fn l4(&self) -> usize {
        let options = usize::from(self.options);
        self.l3() + if self.v6 { 40 + options * 8 } else { 20 + options * 4 }
    }

    pub fn hdr_len(&self) -> usize {
        let tcp = 20 + usize::from(self.tcp_options) * 4;
        self.l4() + if self.kind == GsoKind::UdpL4 { 8 } else { tcp }
    }

    fn check(&self) -> usize {
        if self.kind == GsoKind::UdpL4 { 6 } else { 16 }
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(self.tags.concat());
        let protocol = if self.kind == GsoKind::UdpL4 { 17 } else { 6 };
        let len = self.hdr_len() - self.l4() + self.payload.len();
        let pseudo = self.put_ip(&mut frame, protocol, len as u16);
        if self.kind == GsoKind::UdpL4 {
            frame.extend([0x12, 0x34, 0, 53]);
            frame.extend((len as u16).to_be_bytes());
        } else {
            frame.extend([0x12, 0x34, 0, 80]);
            frame.extend(self.sequence.to_be_bytes());
            frame.extend([1, 2, 3, 4, (5 + self.tcp_options) << 4, self.tcp_flags, 5, 6]);
        }
        frame.extend(pseudo.to_be_bytes());
        // An urgent pointer in TCP, and options that do nothing.
        frame.resize(self.hdr_len(), 1);
        frame.extend(&self.payload);
        frame
    }

    fn put_ip(&self, frame: &mut Vec<u8>, protocol: u8, len: u16) -> u16 {
        let options = usize::from(self.options);
        if self.v6 {
            let [a, b] = [Ipv6Addr::from([0xfd; 16]), Ipv6Addr::from([0xfe; 16])];
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((len + 8 * u16::from(self.options)).to_be_bytes());
            frame.extend([if options > 0 { 60 } else { protocol }, 64]);
            frame.extend(a.octets().into_iter().chain(b.octets()));
            for left in (0..options).rev() {
                let next = if left > 0 { 60 } else { protocol };
                frame.extend([next, 0, 1, 4, 0, 0, 0, 0]);
            }
            return checksum::pseudo_v6(a, b, protocol, len.into());
        }
        let [a, b] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        let total = len + 20 + options as u16 * 4;
        frame.extend([0x08, 0]);
        let start = frame.len();
        frame.extend([0x45 + self.options, 0]);
        frame.extend(total.to_be_bytes().into_iter().chain(self.ipv4_id.to_be_bytes()));
        frame.extend([0x40, 0, 64, protocol, 0, 0]);
        frame.extend(a.octets().into_iter().chain(b.octets()));
        frame.resize(frame.len() + options * 4, 1);
        let header = checksum::finish(checksum::sum(&frame[start..]));
        frame[start + 10..start + 12].copy_from_slice(&header.to_be_bytes());
        checksum::pseudo_v4(a, b, protocol, len.into())
    }

    pub fn offload(&self) -> Offload {
        let start = self.l4() as u16;
        Offload {
            csum: Checksum::Partial { start, offset: self.check() as u16 },
            gso: Some(Gso {
                kind: self.kind,
                size: self.size,
                hdr_len: self.hdr_len() as u16,
                ecn: self.ecn,
            }),
        }
    }

    /// The same frame not as a superframe.
    pub fn plain(&self) -> Offload {
        Offload { gso: None, ..self.offload() }
    }
}

fn tcp() -> Sample {
    Sample {
        kind: GsoKind::TcpV4,
        v6: false,
        tags: vec![],
        options: 0,
        tcp_options: 0,
        tcp_flags: 0x10,
        ipv4_id: 1,
        sequence: 1,
        size: 1000,
        ecn: false,
        payload: vec![7; 2500],
    }
}

fn udp() -> Sample {
    Sample { kind: GsoKind::UdpL4, ..tcp() }
}

fn vnet(flags: u8, gso: u8, size: u16, start: u16, offset: u16) -> [u8; VNET_LEN] {
    let numbers = [0, size, start, offset].map(u16::to_ne_bytes).concat();
    [&[flags, gso][..], &numbers].concat().try_into().unwrap()
}

/// All checksums of a frame are right, as another parser sees it.
pub(crate) fn assert_checksums(frame: &[u8]) {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            let right = tcp.calc_checksum_ipv4(header.source(), header.destination()).unwrap();
            assert_eq!(tcp.checksum(), right);
        }
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            let right = udp.to_header().calc_checksum_ipv4(&header.to_header(), udp.payload());
            assert_eq!(udp.checksum(), right.unwrap());
            assert_ne!(udp.checksum(), 0);
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let header = ip.header().to_header();
            let right = tcp.to_header().calc_checksum_ipv6(&header, tcp.payload()).unwrap();
            assert_eq!(tcp.checksum(), right);
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            let right = udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap();
            assert_eq!(udp.checksum(), right);
            assert_ne!(udp.checksum(), 0);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_header_that_asks_for_nothing_is_taken_whatever_the_frame() {
    let none = Offload::default();
    assert_eq!(parse_vnet(&[0; VNET_LEN], &[]), Ok(none));
    assert_eq!(parse_vnet(&vnet(0, 0, 7, 8, 9), b"junk"), Ok(none));
    let verified = Offload { csum: Checksum::Verified, gso: None };
    assert_eq!(parse_vnet(&vnet(DATA_VALID, 0, 0, 0, 0), &[]), Ok(verified));
    assert_eq!(write_vnet(&verified), [0; VNET_LEN]);
}

#[test]
fn flags_and_kinds_that_nobody_knows_are_refused() {
    let frame = tcp().frame();
    let parse = |hdr| parse_vnet(&hdr, &frame);
    assert_eq!(parse(vnet(1, 1, 1000, 34, 16)), Ok(tcp().offload()));
    assert_eq!(parse(vnet(3, 1, 1000, 34, 16)), Ok(tcp().offload()));
    for hdr in [
        vnet(4, 0, 0, 0, 0),
        vnet(0, 1, 1000, 34, 16),
        vnet(2, 1, 1000, 34, 16),
        vnet(1, 2, 1000, 34, 16),
        vnet(1, 3, 1000, 34, 16),
        vnet(1, 4, 1000, 34, 16),
        vnet(1, 5, 1000, 34, 16),
        vnet(1, 0x80, 1000, 34, 16),
        vnet(1, 1, 0, 34, 16),
        vnet(1, 1, u16::MAX, 34, 16),
        vnet(1, 1, 1, 34, 16),
    ] {
        assert_eq!(parse(hdr), Err(DropReason::BadOffload), "{hdr:?}");
    }
}

#[test]
fn a_superframe_must_be_what_its_kind_says_to_its_last_byte() {
    let hdr = vnet(1, 1, 1000, 34, 16);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = tcp().frame();
        change(&mut frame);
        parse_vnet(&hdr, &frame)
    };
    let bad = Err(DropReason::BadOffload);
    assert_eq!(refused(&|f| f.push(0)), bad, "padding");
    assert_eq!(refused(&|f| f[20] |= 0x20), bad, "a fragment");
    assert_eq!(refused(&|f| f[46] = 0x40), bad, "a short TCP header");
    assert_eq!(refused(&|f| f[23] = 17), bad, "another protocol");
    assert_eq!(refused(&|f| f.truncate(2000)), Err(DropReason::Malformed), "cut off");
    let headers = Sample { payload: vec![], ..tcp() }.frame();
    assert_eq!(parse_vnet(&hdr, &headers), bad, "no payload");
    let mut datagram = udp().frame();
    assert!(parse_vnet(&vnet(1, 5, 1000, 34, 6), &datagram).is_ok());
    assert_eq!(parse_vnet(&vnet(1, 0x85, 1000, 34, 6), &datagram), bad, "ECN of UDP");
    assert_eq!(parse_vnet(&vnet(1, 5, 1000, 46, 6), &datagram), bad, "an inner header");
    datagram[39] ^= 1;
    assert_eq!(parse_vnet(&vnet(1, 5, 1000, 34, 6), &datagram), bad, "UDP's own length");
}

#[test]
fn a_checksum_goes_only_where_nothing_that_was_checked_lies() {
    let bad = Err(DropReason::BadOffload);
    let frame = tcp().frame();
    for (start, offset) in [(0, 26), (14, 12), (26, 0), (33, 16), (34, 6), (36, 16), (34, 15)] {
        assert_eq!(parse_vnet(&vnet(1, 0, 0, start, offset), &frame), bad, "{start} {offset}");
    }
    let mut arp = vec![0xff; 12];
    arp.extend([0x08, 0x06]);
    arp.extend([0; 28]);
    assert_eq!(parse_vnet(&vnet(1, 0, 0, 14, 14), &arp), bad);
    let mut other = arp.clone();
    other[13] = 0x99;
    assert!(parse_vnet(&vnet(1, 0, 0, 14, 14), &other).is_ok());
    assert_eq!(parse_vnet(&vnet(1, 0, 0, 14, 28), &other), bad);
    assert_eq!(parse_vnet(&vnet(1, 0, 0, u16::MAX, u16::MAX - 1), &other), bad);
    // Neighbor discovery: only its own checksum, not the target that the guard has read.
    let mut nd = Sample { v6: true, ..udp() }.frame();
    nd[20] = protocol::ICMPV6;
    assert!(parse_vnet(&vnet(1, 0, 0, 54, 2), &nd).is_ok());
    assert_eq!(parse_vnet(&vnet(1, 0, 0, 54, 8), &nd), bad);
    assert_eq!(parse_vnet(&vnet(1, 0, 0, 62, 2), &nd), bad);
}

#[test]
fn a_tunnels_inner_checksum_is_taken_and_a_fragments_is_not() {
    let mut frame = udp().frame();
    frame[36..38].copy_from_slice(&4789u16.to_be_bytes());
    assert!(parse_vnet(&vnet(1, 0, 0, 100, 16), &frame).is_ok());
    assert_eq!(parse_vnet(&vnet(1, 0, 0, 40, 6), &frame), Err(DropReason::BadOffload));
    frame[20] |= 0x20;
    assert_eq!(parse_vnet(&vnet(1, 0, 0, 34, 6), &frame), Err(DropReason::BadOffload));
}

#[test]
fn no_checksum_lies_within_what_the_guard_and_the_services_read_of_a_datagram() {
    for v6 in [false, true] {
        let frame = Sample { v6, ..udp() }.frame();
        let l4 = if v6 { 54 } else { 34 };
        for (port, is_tunnel) in [
            (53, false),
            (67, false),
            (68, false),
            (546, false),
            (547, false),
            (4789, true),
            (6081, true),
        ] {
            let mut frame = frame.clone();
            frame[usize::from(l4) + 2..][..2].copy_from_slice(&u16::to_be_bytes(port));
            assert!(parse_vnet(&vnet(1, 0, 0, l4, 6), &frame).is_ok(), "{port}");
            let inner = parse_vnet(&vnet(1, 0, 0, l4 + 50, 16), &frame);
            assert_eq!(inner.is_ok(), is_tunnel, "{port}");
        }
    }
}

#[test]
fn what_speaks_of_groups_and_for_hardware_has_its_checksum_or_none() {
    let bad = Err(DropReason::BadOffload);
    for (v6, l4) in [(false, 34), (true, 54)] {
        let mut frame = Sample { v6, ..udp() }.frame();
        for (number, inner, own) in [
            (1, false, true),
            (2, false, false),
            (103, false, false),
            (4, true, true),
            (47, true, true),
        ] {
            frame[if v6 { 20 } else { 23 }] = number;
            let asked = parse_vnet(&vnet(1, 0, 0, l4 + 20, 16), &frame);
            assert_eq!(asked.is_ok(), inner, "{number}");
            let asked = parse_vnet(&vnet(1, 0, 0, l4, 2), &frame);
            assert_eq!(asked.is_ok(), own, "{number}");
        }
    }
    let frame = [&[0xff; 12][..], &[0x80, 0x35], &[0; 28]].concat();
    assert_eq!(parse_vnet(&vnet(1, 0, 0, 14, 12), &frame), bad);
}

#[test]
fn sctp_is_completed_with_its_own_checksum() {
    let mut frame = udp().frame();
    frame[23] = protocol::SCTP;
    let mut offload = parse_vnet(&vnet(1, 0, 0, 34, 8), &frame).unwrap();
    frame[42..46].fill(0);
    let right = checksum::crc32c(&[&frame[34..]]);
    frame[42..46].fill(0xee);
    complete(&mut frame, &mut offload);
    assert_eq!(offload.csum, Checksum::Verified);
    assert_eq!(frame[42..46], right);
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ones() {
    // The field is all there is to sum, and it holds ones: the checksum would be zero.
    let mut frame = vec![0; 42];
    frame[40..42].fill(0xff);
    let mut offload = Offload { csum: Checksum::Partial { start: 34, offset: 6 }, gso: None };
    complete(&mut frame, &mut offload);
    assert_eq!((offload.csum, &frame[40..]), (Checksum::Verified, &[0xff, 0xff][..]));
}

#[test]
fn a_superframe_counts_as_its_segments() {
    let (len, offload) = (tcp().frame().len(), tcp().offload());
    assert_eq!(len, 2554);
    assert_eq!(segments_of(len, &offload), 3);
    assert_eq!(wire_bytes(len, &offload), 2500 + 3 * 54);
    let layout = Layout::of(&tcp().frame(), None).unwrap();
    assert_eq!(max_packet(&layout, len, &offload), 1040);
    let small = Offload { gso: offload.gso.map(|g| Gso { size: 3000, ..g }), ..offload };
    assert_eq!(segments_of(len, &small), 1);
    assert_eq!(max_packet(&layout, len, &small), 2540);
    let plain = Offload::default();
    assert_eq!((segments_of(len, &plain), wire_bytes(len, &plain)), (1, 2554));
    assert_eq!(max_packet(&layout, len, &plain), 2540);
}

pub(crate) fn any_offload() -> impl Strategy<Value = Offload> {
    let csum = prop_oneof![
        (0..200u16, 0..40u16).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        (any::<u16>(), any::<u16>())
            .prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        Just(Checksum::Verified),
        Just(Checksum::Unverified),
    ];
    let kinds = vec![GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpL4];
    let size = prop_oneof![any::<u16>(), 0..3u16];
    let gso = (prop::sample::select(kinds), size, any::<u16>(), any::<bool>())
        .prop_map(|(kind, size, hdr_len, ecn)| Gso { kind, size, hdr_len, ecn });
    (csum, prop::option::of(gso)).prop_map(|(csum, gso)| Offload { csum, gso })
}

proptest! {
    #[test]
    fn a_guests_superframe_is_taken_as_it_says(sample in any_sample()) {
        prop_assume!(sample.payload.len() / usize::from(sample.size) < SEGMENTS_MAX as usize);
        let frame = sample.frame();
        let mut hdr = write_vnet(&sample.offload());
        // Linux gives its linear part, which is only a hint.
        hdr[2..4].copy_from_slice(&999u16.to_ne_bytes());
        prop_assert_eq!(parse_vnet(&hdr, &frame), Ok(sample.offload()));
        let plain = write_vnet(&sample.plain());
        prop_assert_eq!(parse_vnet(&plain, &frame), Ok(sample.plain()));
    }

    #[test]
    fn a_tag_put_in_shifts_what_counts_from_the_first_byte(mut sample in any_sample()) {
        sample.tags.truncate(1);
        let mut offload = sample.offload();
        shift(&mut offload, 4);
        sample.tags.insert(0, [0x81, 0, 0, 1]);
        prop_assert_eq!(offload, sample.offload());
        let beside = Layout::of(&sample.frame(), Some(VlanTag { tpid: 0x88a8, tci: 3 })).unwrap();
        prop_assert_eq!((beside.l3, beside.vlan), (sample.l3(), 3));
    }

    #[test]
    fn a_completed_frame_has_the_checksum_that_another_parser_computes(sample in any_sample()) {
        let before = sample.frame();
        let mut frame = before.clone();
        let mut offload = sample.plain();
        complete(&mut frame, &mut offload);
        prop_assert_eq!(offload, Offload { csum: Checksum::Verified, gso: None });
        assert_checksums(&frame);
        let at = sample.l4() + sample.check();
        frame[at..at + 2].copy_from_slice(&before[at..at + 2]);
        prop_assert_eq!(frame, before);
    }

    #[test]
    fn any_offload_on_any_bytes_is_survived(
        mut frame in prop::collection::vec(any::<u8>(), 0..300),
        offload in any_offload(),
        by: usize,
    ) {
        let mut done = offload;
        complete(&mut frame, &mut done);
        let inside = match offload.csum {
            Checksum::Partial { start, offset } => {
                usize::from(start) + usize::from(offset) + 2 <= frame.len()
            }
            Checksum::Verified | Checksum::Unverified => false,
        };
        if offload.gso.is_none() && inside {
            prop_assert_eq!(done.csum, Checksum::Verified);
        }
        prop_assert!(segments_of(frame.len(), &offload) >= 1);
        prop_assert!(wire_bytes(frame.len(), &offload) >= frame.len() as u64);
        if let Ok(layout) = Layout::of(&frame, None) {
            max_packet(&layout, frame.len(), &offload);
        }
        shift(&mut done, by);
        write_vnet(&done);
    }
}
