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
