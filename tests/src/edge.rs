//! What the IO edge does to a frame for a device that cannot do it, by the switch's own code.

use portolan_switch::frame::{Frame, HEADROOM};
use portolan_switch::offload;
use portolan_switch::segment::segment;

use crate::packet::Packet;

/// A tag put among the bytes as the IO edge does it, in the headroom.
pub fn tag_inside(packet: &Packet) -> Packet {
    let Some(tag) = packet.vlan else { return packet.clone() };
    let mut buffer = vec![0; HEADROOM];
    buffer.extend(&packet.bytes);
    let mut frame = Frame::new(&mut buffer, HEADROOM, packet.bytes.len());
    assert!(frame.open_gap(12, 4), "headroom for a tag");
    frame.bytes_mut()[12..14].copy_from_slice(&tag.tpid.to_be_bytes());
    frame.bytes_mut()[14..16].copy_from_slice(&tag.tci.to_be_bytes());
    let mut offload = packet.offload;
    offload::shift(&mut offload, 4);
    Packet { bytes: frame.bytes().to_vec(), offload, vlan: None }
}

/// The plain frames a packet stands for, by the switch's own code.
pub fn cut(packet: &Packet) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut scratch = vec![0; 1 << 16];
    let emitted = segment(&packet.bytes, &packet.offload, &mut scratch, |frame| {
        frames.push(frame.to_vec());
    });
    assert_eq!(emitted, Ok(packet.segments()));
    frames
}
