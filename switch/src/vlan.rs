//! A port's part in VLANs (IEEE 802.1Q): what a frame belongs to when it comes in, and how it leaves.
//!
//! Theory of operation. Where ports of a network differ in this, the outermost tag of each frame lies beside it and not among
//! its bytes: [`Membership::enter`] brings it there, or makes it where the port gives the VLAN. So every port can be sent the
//! same bytes, with the tag or without it, and a flood still copies none ([`crate::outbox`]). A superframe is treated as one
//! frame: its tag is that of all its segments, and the offsets of what is left to be done follow the bytes.
//!
//! A frame without a tag belongs to [`UNTAGGED`], and so does one whose tag gives a priority only. The priority is kept, and
//! told where the frame leaves with a tag. Tags inside the outermost one are payload (IEEE 802.1ad). Where the outermost one comes
//! off, though, the next would be taken for it. So no frame that has another leaves by a trunk as one of its native VLAN, or
//! it would be one of whichever VLAN its sender liked there; and behind a tag that gives a priority only, a port that gives
//! the VLAN takes no other.

use crate::command::VlanPolicy;
use crate::drops::DropReason;
use crate::frame::{Frame, VlanTag};
use crate::headers::{ADDRESSES_LEN, TAG_LEN, bytes_at, ethertype};
use crate::offload;

/// What frames without a VLAN belong to: the gateway does, and ports that have all VLANs.
pub const UNTAGGED: u16 = 0;

/// The bits of a tag that name the VLAN; the others are priority and eligibility to be dropped.
const VID: u16 = 0xfff;

/// How a frame leaves by a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// With the tag that lies beside it, if one does.
    Tagged,
    /// Without it.
    Untagged,
}

/// One bit for each VLAN, so that a port with thousands of them is asked as fast as one with two.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Bitmap(Box<[u64; 64]>);

impl Bitmap {
    fn of(vlans: &[u16], native: Option<u16>) -> Bitmap {
        let mut bits = Box::new([0; 64]);
        for vlan in vlans.iter().copied().chain(native) {
            bits[usize::from((vlan & VID) / 64)] |= 1 << (vlan % 64);
        }
        Bitmap(bits)
    }

    fn has(&self, vlan: u16) -> bool {
        self.0[usize::from((vlan & VID) / 64)] & (1 << (vlan % 64)) != 0
    }
}

/// A port's part in VLANs, in the form that frames are held against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership(Kind);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    Transparent,
    Access(u16),
    Tunnel(u16),
    Trunk { members: Bitmap, native: Option<u16> },
}

impl Membership {
    /// What `policy` makes of a port.
    pub fn new(policy: &VlanPolicy) -> Membership {
        Membership(match policy {
            VlanPolicy::Transparent => Kind::Transparent,
            VlanPolicy::Access(vlan) => Kind::Access(*vlan),
            VlanPolicy::Tunnel(vlan) => Kind::Tunnel(*vlan),
            VlanPolicy::Trunk { allowed, native } => {
                Kind::Trunk { members: Bitmap::of(allowed, *native), native: *native }
            }
        })
    }

    /// Whether frames pass as they are, of whatever VLAN.
    pub fn is_transparent(&self) -> bool {
        self.0 == Kind::Transparent
    }

    /// Which VLAN frames without a tag belong to on this wire: what an endpoint's own addresses are of. None where they may not
    /// be sent.
    pub fn untagged(&self) -> Option<u16> {
        match &self.0 {
            Kind::Transparent => Some(UNTAGGED),
            Kind::Access(own) | Kind::Tunnel(own) => Some(*own),
            Kind::Trunk { native, .. } => *native,
        }
    }

    /// How a frame of `vlan` leaves by this port; none where the port has no part in that VLAN.
    pub fn leave(&self, vlan: u16) -> Option<Leave> {
        match &self.0 {
            Kind::Transparent => Some(Leave::Tagged),
            Kind::Access(own) | Kind::Tunnel(own) => (*own == vlan).then_some(Leave::Untagged),
            Kind::Trunk { native, .. } if *native == Some(vlan) => Some(Leave::Untagged),
            Kind::Trunk { members, .. } => members.has(vlan).then_some(Leave::Tagged),
        }
    }

    /// As [`Membership::leave`], for a frame that has another tag among its bytes: that one must not come to name the VLAN, as it
    /// would on a trunk.
    pub fn leave_nested(&self, vlan: u16) -> Option<Leave> {
        let is_trunk = matches!(self.0, Kind::Trunk { .. });
        self.leave(vlan).filter(|leave| !is_trunk || *leave == Leave::Tagged)
    }

    /// Takes a frame in by this port, and puts beside it the tag that says where it belongs from here on: none, or one of VLAN 0
    /// for a priority, where that is [`UNTAGGED`]. [`DropReason::VlanNotAllowed`] where the port may not send it, in which
    /// case the frame still says the same, though a tag may have moved; [`DropReason::NoRoom`] where a tag that is to go among
    /// the bytes finds no headroom.
    pub fn enter(&self, frame: &mut Frame<'_>) -> Result<(), DropReason> {
        if let Kind::Tunnel(vlan) = self.0 {
            return enter_tunnel(vlan, frame);
        }
        if frame.vlan.is_none() {
            frame.vlan = take_tag(frame)?;
        }
        let tag = frame.vlan.unwrap_or(VlanTag { tpid: ethertype::VLAN, tci: 0 });
        let is_unnamed = tag.tci & VID == UNTAGGED && !self.is_transparent();
        if is_unnamed && tag_among(frame)?.is_some() {
            return Err(DropReason::VlanNotAllowed);
        }
        let own = match (&self.0, tag.tci & VID) {
            (Kind::Transparent, _) => return Ok(()),
            (Kind::Access(vlan), UNTAGGED) => *vlan,
            (Kind::Trunk { native: Some(vlan), .. }, UNTAGGED) => *vlan,
            (Kind::Trunk { members, .. }, vlan) if vlan != UNTAGGED && members.has(vlan) => vlan,
            _ => return Err(DropReason::VlanNotAllowed),
        };
        frame.vlan = Some(VlanTag { tci: tag.tci & !VID | own, ..tag });
        Ok(())
    }
}

/// Gives the frame a service tag with the priority it came with. A tag that it has belongs to the customer, whichever it is.
fn enter_tunnel(vlan: u16, frame: &mut Frame<'_>) -> Result<(), DropReason> {
    if let Some(tag) = frame.vlan {
        put_tag(frame, tag)?;
    }
    let priority = tag_among(frame)?.map_or(0, |tag| tag.tci & !VID);
    frame.vlan = Some(VlanTag { tpid: ethertype::QINQ, tci: priority | vlan & VID });
    Ok(())
}

/// The outermost tag among the frame's bytes.
fn tag_among(frame: &Frame<'_>) -> Result<Option<VlanTag>, DropReason> {
    let [a, b] = bytes_at(frame.bytes(), ADDRESSES_LEN).ok_or(DropReason::Runt)?;
    let tpid = u16::from_be_bytes([a, b]);
    if !matches!(tpid, ethertype::VLAN | ethertype::QINQ) {
        return Ok(None);
    }
    // A tag, and the EtherType behind it.
    let [_, _, c, d, _, _] = bytes_at(frame.bytes(), ADDRESSES_LEN).ok_or(DropReason::Malformed)?;
    Ok(Some(VlanTag { tpid, tci: u16::from_be_bytes([c, d]) }))
}

/// Takes the outermost tag out of the frame's bytes, if there is one.
fn take_tag(frame: &mut Frame<'_>) -> Result<Option<VlanTag>, DropReason> {
    let Some(tag) = tag_among(frame)? else { return Ok(None) };
    if !frame.close_gap(ADDRESSES_LEN, TAG_LEN) {
        return Err(DropReason::Malformed);
    }
    offload::unshift(&mut frame.offload, TAG_LEN);
    Ok(Some(tag))
}

/// Puts a tag among the frame's bytes, outside all others.
fn put_tag(frame: &mut Frame<'_>, tag: VlanTag) -> Result<(), DropReason> {
    if !frame.open_gap(ADDRESSES_LEN, TAG_LEN) {
        return Err(DropReason::NoRoom);
    }
    let bytes = &mut frame.bytes_mut()[ADDRESSES_LEN..];
    bytes[..2].copy_from_slice(&tag.tpid.to_be_bytes());
    bytes[2..TAG_LEN].copy_from_slice(&tag.tci.to_be_bytes());
    offload::shift(&mut frame.offload, TAG_LEN);
    Ok(())
}

#[cfg(test)]
mod tests;
