//! Who may hear whom within a network, and with which tags: written anew from IEEE 802.1Q and the words of the options, so
//! that the switch is held against something that does not share its mistakes.
//!
//! It works on whole plain frames with all tags among their bytes, and knows nothing of places beside them, of superframes or
//! of who is known where.

use portolan_switch::command::{Mode, NetworkSpec, PortSpec, VlanPolicy};

use crate::packet::Packet;

/// Where the tags of a frame begin.
const TAGS: usize = 12;

/// A frame within the switch: what it belongs to, its outermost tag, and the frame without that.
struct Within {
    vlan: u16,
    tag: Option<[u8; 4]>,
    rest: Vec<u8>,
}

fn outermost(frame: &[u8]) -> Option<[u8; 4]> {
    let tag: [u8; 4] = frame.get(TAGS..TAGS + 4)?.try_into().ok()?;
    matches!(tag, [0x81, 0x00, ..] | [0x88, 0xa8, ..]).then_some(tag)
}

fn vlan_of(tag: [u8; 4]) -> u16 {
    u16::from_be_bytes([tag[2], tag[3]]) & 0xfff
}

/// The tag `tag`, or a plain one, of another VLAN.
fn of_vlan(tag: Option<[u8; 4]>, vlan: u16) -> [u8; 4] {
    let [p0, p1, t0, _] = tag.unwrap_or([0x81, 0, 0, 0]);
    let [v0, v1] = vlan.to_be_bytes();
    [p0, p1, t0 & 0xf0 | v0, v1]
}

fn enter(policy: &VlanPolicy, frame: &[u8]) -> Option<Within> {
    let tag = outermost(frame);
    let vlan = tag.map_or(0, vlan_of);
    let mut rest = frame.to_vec();
    if let VlanPolicy::Tunnel(own) = policy {
        let [.., v0, v1] = of_vlan(tag, *own);
        return Some(Within { vlan: *own, tag: Some([0x88, 0xa8, v0, v1]), rest });
    }
    if tag.is_some() {
        rest.drain(TAGS..TAGS + 4);
    }
    let hides = vlan == 0 && tag.is_some() && outermost(&rest).is_some();
    let vlan = match policy {
        VlanPolicy::Transparent => return Some(Within { vlan, tag, rest }),
        // Another VLAN behind a priority.
        _ if hides => return None,
        VlanPolicy::Access(own) if vlan == 0 => *own,
        VlanPolicy::Trunk { native: Some(native), .. } if vlan == 0 => *native,
        VlanPolicy::Trunk { allowed, native } => {
            let is_member = vlan != 0 && (allowed.contains(&vlan) || *native == Some(vlan));
            if !is_member {
                return None;
            }
            vlan
        }
        _ => return None,
    };
    Some(Within { vlan, tag: Some(of_vlan(tag, vlan)), rest })
}

fn leave(policy: &VlanPolicy, frame: &Within) -> Option<Vec<u8>> {
    let tagged = || {
        let mut bytes = frame.rest.clone();
        bytes.splice(TAGS.min(bytes.len())..TAGS.min(bytes.len()), frame.tag.into_iter().flatten());
        bytes
    };
    match policy {
        VlanPolicy::Transparent => Some(tagged()),
        VlanPolicy::Access(own) | VlanPolicy::Tunnel(own) => {
            (*own == frame.vlan).then(|| frame.rest.clone())
        }
        VlanPolicy::Trunk { native, .. } if *native == Some(frame.vlan) => {
            // Without its tag, one that has another would be of that one's VLAN.
            outermost(&frame.rest).is_none().then(|| frame.rest.clone())
        }
        VlanPolicy::Trunk { allowed, .. } => allowed.contains(&frame.vlan).then(tagged),
    }
}

/// What of a frame that `from` sends would come to `to`, if it is sent there: none where it may not be.
pub fn passes(
    network: &NetworkSpec,
    from: &PortSpec,
    to: &PortSpec,
    frame: &[u8],
) -> Option<Vec<u8>> {
    if network.carriage.mode == Mode::Wire {
        return Some(frame.to_vec());
    }
    if from.conduct.isolated && to.conduct.isolated {
        return None;
    }
    leave(&to.conduct.vlans, &enter(&from.conduct.vlans, frame)?)
}

/// As [`passes`], for all that a packet stands for.
pub fn all_pass(
    network: &NetworkSpec,
    from: &PortSpec,
    to: &PortSpec,
    packet: &Packet,
) -> Option<Vec<Vec<u8>>> {
    packet.plain_frames().iter().map(|frame| passes(network, from, to, frame)).collect()
}

/// Whether nobody on the network is treated otherwise than others: then frames pass as they are.
pub fn is_plain(network: &NetworkSpec, ports: [&PortSpec; 2]) -> bool {
    let plain = |port: &PortSpec| port.conduct.vlans == VlanPolicy::Transparent;
    network.carriage.mode == Mode::Wire || ports.into_iter().all(plain)
}

/// Which VLAN a host is of that knows of none: what it sends without a tag. None where it may not.
pub fn home(port: &PortSpec) -> Option<u16> {
    match &port.conduct.vlans {
        VlanPolicy::Transparent => Some(0),
        VlanPolicy::Access(own) | VlanPolicy::Tunnel(own) => Some(*own),
        VlanPolicy::Trunk { native, .. } => *native,
    }
}

/// Whether two hosts that know of no tags can talk.
pub fn can_talk(network: &NetworkSpec, a: &PortSpec, b: &PortSpec) -> bool {
    let apart = a.conduct.isolated && b.conduct.isolated;
    let wire = network.carriage.mode == Mode::Wire;
    a.network == b.network && (wire || !apart && home(a).is_some() && home(a) == home(b))
}

/// Whether such a host can talk to the gateway, which is of no VLAN.
pub fn has_gateway(network: &NetworkSpec, port: &PortSpec) -> bool {
    network.carriage.mode != Mode::Wire && home(port) == Some(0)
}
