//! Cutting a superframe into the frames it stands for.
//!
//! Only for a port that cannot take superframes; everywhere else they stay whole. The headers are repeated, and in each
//! copy those fields are set that tell one segment from the next: lengths, the IPv4 identification, TCP's sequence number
//! and flags, the checksums. The transport checksum starts from the sum that the sender left in its field, corrected by
//! the length, as Linux does it: so the pseudo header is right behind an IPv6 routing header too.

use crate::checksum;
use crate::drops::DropReason;
use crate::frame::{Checksum, Gso, GsoKind, Offload};
use crate::headers::{IPV6_LEN, Ip, Layout, bytes_at, u16_at};
use crate::offload::{segments_of, store, superframe_headers};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// What all segments have in common.
struct Cut<'f> {
    frame: &'f [u8],
    ip: Ip,
    gso: Gso,
    /// Where the transport header has its checksum.
    check: usize,
    /// The sum of the pseudo header without the length.
    pseudo: u16,
    /// Of the first segment.
    ipv4_id: u16,
    /// Of the first segment.
    sequence: u32,
    segments: u64,
}

/// Calls `emit` with each frame that `frame` stands for, in order, checksums complete, and returns how many there were. A
/// frame that is no superframe is emitted as one. `scratch` holds one frame at a time.
/// [`DropReason::BadOffload`] where `offload` does not fit the frame, [`DropReason::TxTooBig`] where `scratch` is too
/// short; nothing was emitted then.
pub fn segment(
    frame: &[u8],
    offload: &Offload,
    scratch: &mut [u8],
    mut emit: impl FnMut(&[u8]),
) -> Result<u64, DropReason> {
    let Some(gso) = offload.gso else {
        emit(whole(frame, offload, scratch)?);
        return Ok(1);
    };
    let cut = Cut::of(frame, offload, gso).ok_or(DropReason::BadOffload)?;
    let payload = &frame[gso.hdr_len.into()..];
    let longest = usize::from(gso.hdr_len) + payload.len().min(gso.size.into());
    let scratch = scratch.get_mut(..longest).ok_or(DropReason::TxTooBig)?;
    for (number, part) in (0..).zip(payload.chunks(gso.size.into())) {
        let segment = &mut scratch[..usize::from(gso.hdr_len) + part.len()];
        cut.write(number, part, segment).ok_or(DropReason::BadOffload)?;
        emit(segment);
    }
    Ok(cut.segments)
}

/// A frame that is no superframe, its checksum complete.
fn whole<'s>(
    frame: &'s [u8],
    offload: &Offload,
    scratch: &'s mut [u8],
) -> Result<&'s [u8], DropReason> {
    let Checksum::Partial { start, offset } = offload.csum else { return Ok(frame) };
    let copy = scratch.get_mut(..frame.len()).ok_or(DropReason::TxTooBig)?;
    copy.copy_from_slice(frame);
    store(copy, start.into(), offset.into()).ok_or(DropReason::BadOffload)?;
    Ok(copy)
}

impl<'f> Cut<'f> {
    fn of(frame: &'f [u8], offload: &Offload, gso: Gso) -> Option<Cut<'f>> {
        let ip = Layout::of(frame, None).and_then(|layout| layout.ip(frame)).ok()??;
        let hdr_len = superframe_headers(&ip, frame, gso.kind)?;
        let check = if gso.kind == GsoKind::UdpL4 { 6 } else { 16 };
        let owed =
            Checksum::Partial { start: ip.l4.try_into().ok()?, offset: check.try_into().ok()? };
        if gso.size == 0 || gso.hdr_len != hdr_len || offload.csum != owed {
            return None;
        }
        let len = u32::try_from(ip.end - ip.l4).ok()?;
        let pseudo = checksum::sub(u16_at(frame, ip.l4 + check)?, checksum::of_u32(len));
        Some(Cut {
            frame,
            ip,
            gso,
            check,
            pseudo,
            ipv4_id: u16_at(frame, ip.l3 + 4)?,
            sequence: u32::from_be_bytes(bytes_at(frame, ip.l4 + 4)?),
            segments: segments_of(frame.len(), offload),
        })
    }

    /// Makes segment `number`, counted from 0, which carries `part`. `out` is just as long as it will be.
    fn write(&self, number: u32, part: &[u8], out: &mut [u8]) -> Option<()> {
        let hdr_len = usize::from(self.gso.hdr_len);
        let (headers, payload) = out.split_at_mut_checked(hdr_len)?;
        headers.copy_from_slice(self.frame.get(..hdr_len)?);
        payload.copy_from_slice(part);
        let packet = out.len() - self.ip.l3;
        if self.ip.src.is_ipv4() {
            put(out, self.ip.l3 + 2, u16::try_from(packet).ok()?)?;
            // The identification wraps, so only the low half of the number matters.
            put(out, self.ip.l3 + 4, self.ipv4_id.wrapping_add(number as u16))?;
            put(out, self.ip.l3 + 10, 0)?;
            let header = checksum::sum(out.get(self.ip.l3..self.ip.l4)?);
            put(out, self.ip.l3 + 10, checksum::finish(header))?;
        } else {
            put(out, self.ip.l3 + 4, u16::try_from(packet - IPV6_LEN).ok()?)?;
        }
        let len = out.len() - self.ip.l4;
        match self.gso.kind {
            GsoKind::UdpL4 => put(out, self.ip.l4 + 4, u16::try_from(len).ok()?)?,
            GsoKind::TcpV4 | GsoKind::TcpV6 => self.write_tcp(number, out)?,
        }
        let pseudo = checksum::add(self.pseudo, checksum::of_u32(u32::try_from(len).ok()?));
        put(out, self.ip.l4 + self.check, pseudo)?;
        store(out, self.ip.l4, self.check)
    }

    fn write_tcp(&self, number: u32, out: &mut [u8]) -> Option<()> {
        let tcp = out.get_mut(self.ip.l4..)?;
        let sequence = self.sequence.wrapping_add(number.wrapping_mul(self.gso.size.into()));
        tcp.get_mut(4..8)?.copy_from_slice(&sequence.to_be_bytes());
        let flags = tcp.get_mut(13)?;
        if u64::from(number) + 1 < self.segments {
            *flags &= !(FIN | PSH);
        }
        if number > 0 && self.gso.ecn {
            *flags &= !CWR;
        }
        Some(())
    }
}

/// Stores a big-endian number.
fn put(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    bytes.get_mut(at..)?.first_chunk_mut().map(|field| *field = value.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::offload::tests::{Sample, any_offload, any_sample, assert_checksums};
    use crate::offload::{complete, parse_vnet, wire_bytes};

    fn cut(frame: &[u8], offload: &Offload) -> Result<Vec<Vec<u8>>, DropReason> {
        let mut out = Vec::new();
        let count = segment(frame, offload, &mut [0; 66_000], |s| out.push(s.to_vec()))?;
        assert_eq!(count, out.len() as u64);
        Ok(out)
    }

    /// One segment as another parser sees it, held against where it stands in the superframe.
    fn assert_segment(sample: &Sample, number: usize, last: bool, segment: &[u8]) -> Vec<u8> {
        assert_checksums(segment);
        let sliced = SlicedPacket::from_ethernet(segment).unwrap();
        assert_eq!(sliced.link_exts.len(), sample.tags.len());
        match sliced.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => {
                let id = sample.ipv4_id.wrapping_add(number as u16);
                assert_eq!(ip.header().identification(), id);
                assert_eq!(usize::from(ip.header().total_len()), segment.len() - sample.l3());
            }
            NetSlice::Ipv6(ip) => {
                let len = segment.len() - sample.l3() - 40;
                assert_eq!(usize::from(ip.header().payload_length()), len);
            }
            other => panic!("{other:?}"),
        }
        match sliced.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                let behind = number as u32 * u32::from(sample.size);
                assert_eq!(tcp.sequence_number(), sample.sequence.wrapping_add(behind));
                let flag = |bit: u8, kept: bool| sample.tcp_flags & bit != 0 && kept;
                assert_eq!(tcp.fin(), flag(FIN, last));
                assert_eq!(tcp.psh(), flag(PSH, last));
                assert_eq!(tcp.cwr(), flag(CWR, number == 0 || !sample.ecn));
                assert_eq!(tcp.ack(), flag(0x10, true));
                assert_eq!(tcp.syn(), flag(0x02, true));
                tcp.payload().to_vec()
            }
            TransportSlice::Udp(udp) => udp.payload().to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_routing_header_leaves_the_pseudo_header_that_the_sender_used() {
        let sample = Sample {
            kind: GsoKind::TcpV6,
            v6: true,
            tags: vec![],
            options: 1,
            tcp_options: 0,
            tcp_flags: 0x10,
            ipv4_id: 0,
            sequence: 0,
            size: 100,
            ecn: false,
            payload: vec![3; 250],
        };
        let mut frame = sample.frame();
        // A routing header in place of the options, and the next stop in place of the last.
        frame[20] = 43;
        frame[38..54].fill(0x11);
        let src = std::net::Ipv6Addr::from([0xfd; 16]);
        let dst = std::net::Ipv6Addr::from([0xfe; 16]);
        for segment in cut(&frame, &sample.offload()).unwrap() {
            let transport = &segment[sample.l4()..];
            let pseudo = checksum::pseudo_v6(src, dst, 6, transport.len() as u32);
            assert_eq!(checksum::add(pseudo, checksum::sum(transport)), 0xffff);
        }
    }

    proptest! {
        #[test]
        fn segments_are_whole_frames_that_together_carry_the_payload(sample in any_sample()) {
            let (frame, offload) = (sample.frame(), sample.offload());
            let segments = cut(&frame, &offload).unwrap();
            prop_assert_eq!(segments.len() as u64, segments_of(frame.len(), &offload));
            let bytes: usize = segments.iter().map(Vec::len).sum();
            prop_assert_eq!(bytes as u64, wire_bytes(frame.len(), &offload));
            let mut payload = Vec::new();
            for (number, segment) in segments.iter().enumerate() {
                let last = number + 1 == segments.len();
                let part = assert_segment(&sample, number, last, segment);
                prop_assert!(last || part.len() == usize::from(sample.size));
                payload.extend(part);
            }
            prop_assert_eq!(payload, sample.payload);
        }

        #[test]
        fn a_frame_that_is_no_superframe_comes_out_complete(sample in any_sample()) {
            let mut frame = sample.frame();
            let mut offload = sample.plain();
            let whole = cut(&frame, &offload).unwrap();
            complete(&mut frame, &mut offload);
            prop_assert_eq!(&whole, &vec![frame.clone()]);
            prop_assert_eq!(cut(&frame, &offload), Ok(whole));
        }

        #[test]
        fn nothing_is_emitted_that_does_not_fit(sample in any_sample(), short in 1..500usize) {
            let offload = sample.offload();
            let longest = sample.hdr_len() + sample.payload.len().min(sample.size.into());
            let mut scratch = vec![0; longest.saturating_sub(short)];
            let refused = segment(&sample.frame(), &offload, &mut scratch, |_| panic!("emitted"));
            prop_assert_eq!(refused, Err(DropReason::TxTooBig));
        }

        #[test]
        fn what_parse_takes_of_a_spoilt_frame_can_be_cut_and_completed(
            sample in any_sample(),
            spoilt in prop::collection::vec((0..100usize, any::<u8>()), 0..4),
            spoilt_hdr in prop::collection::vec((0..10usize, any::<u8>()), 0..2),
            len in prop::option::of(0..200usize),
        ) {
            let mut frame = sample.frame();
            let mut hdr = crate::offload::write_vnet(&sample.offload());
            spoilt_hdr.into_iter().for_each(|(at, byte)| hdr[at] = byte);
            frame.truncate(len.unwrap_or(usize::MAX));
            spoilt.into_iter().for_each(|(at, byte)| {
                frame.get_mut(at).into_iter().for_each(|b| *b = byte);
            });
            if let Ok(mut offload) = parse_vnet(&hdr, &frame) {
                let count = segments_of(frame.len(), &offload);
                prop_assert!(count <= crate::offload::SEGMENTS_MAX);
                let segments = cut(&frame, &offload).unwrap();
                prop_assert_eq!(segments.len() as u64, count);
                complete(&mut frame, &mut offload);
                let done = !matches!(offload.csum, Checksum::Partial { .. });
                prop_assert!(done || offload.gso.is_some());
            }
        }

        #[test]
        fn any_bytes_and_any_header_are_survived(
            frame in prop::collection::vec(any::<u8>(), 0..200),
            hdr: [u8; 10],
            offload in any_offload(),
        ) {
            if let Ok(taken) = parse_vnet(&hdr, &frame) {
                prop_assert!(cut(&frame, &taken).is_ok());
            }
            let _ = cut(&frame, &offload);
        }
    }
}
