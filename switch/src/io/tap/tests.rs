//! What a guest may have written, by a socket in the place of a device: a message for each frame.

use std::os::unix::net::UnixDatagram;

use proptest::prelude::*;

use super::*;
use crate::frame::{Checksum, FrameIdx, GsoKind, Offload};

/// A wire with a header of that length, and the end by which it is written to.
fn wire(header: usize) -> (TapWire, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (TapWire { device: Arc::new(ours.into()), header }, theirs)
}

fn buffers() -> Buffers {
    let mut buffers = Buffers::default();
    buffers.provide();
    buffers
}

/// What one frame, header and all, becomes.
fn read_one(
    header: usize,
    bytes: &[u8],
) -> Result<(Vec<u8>, Option<VlanTag>, Offload), DropReason> {
    let (wire, guest) = wire(header);
    guest.send(bytes).unwrap();
    let (mut arena, mut buffers) = ([], buffers());
    let mut frames = FrameTable::new(&mut arena);
    let received = wire.receive(8, &mut buffers, &mut frames);
    assert!(!received.more);
    assert_eq!(frames.len() + received.dropped.len(), 1);
    if let Some(reason) = received.dropped.first() {
        return Err(*reason);
    }
    let frame = frames.get(FrameIdx(0));
    assert!(frame.headroom() >= HEADROOM);
    Ok((frame.bytes().to_vec(), frame.vlan, frame.offload))
}

/// A TCP superframe of three segments, and its header; both without a tag.
fn superframe() -> (Vec<u8>, [u8; VNET_LEN]) {
    let mut frame = Vec::new();
    let packet = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1, 2, 3, 4);
    packet.write(&mut frame, &[7; 2500]).unwrap();
    (frame, header(1, 1, 1000, 34, 16))
}

fn header(flags: u8, gso: u8, size: u16, start: u16, offset: u16) -> [u8; VNET_LEN] {
    let numbers = [54, size, start, offset].map(u16::to_ne_bytes).concat();
    [&[flags, gso][..], &numbers].concat().try_into().unwrap()
}

fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], &tags.concat(), &frame[12..]].concat()
}

/// As it lies in the queue, behind a header of that length; the count of buffers that ends the longer one is noise.
fn queued(len: usize, vnet: [u8; VNET_LEN], frame: &[u8]) -> Vec<u8> {
    let mut long = [&vnet[..], &[0xee, 0xee]].concat();
    long.truncate(len);
    [long, frame.to_vec()].concat()
}

#[test]
fn a_superframe_is_the_same_behind_each_header_and_with_each_tag() {
    let (frame, vnet) = superframe();
    let plain = parse_vnet(&vnet, &frame).unwrap();
    assert_eq!(plain.gso.map(|gso| gso.kind), Some(GsoKind::TcpV4));
    for len in [VNET_LEN, VNET_LONG] {
        assert_eq!(read_one(len, &queued(len, vnet, &frame)), Ok((frame.clone(), None, plain)));
        for tpid in [0x8100, 0x88a8_u16] {
            let [a, b] = tpid.to_be_bytes();
            let bytes =
                queued(len, header(1, 1, 1000, 38, 16), &tagged(&frame, &[[a, b, 0x20, 5]]));
            let tag = Some(VlanTag { tpid, tci: 0x2005 });
            assert_eq!(read_one(len, &bytes), Ok((frame.clone(), tag, plain)));
        }
    }
    assert_eq!(read_one(0, &frame), Ok((frame, None, Offload::default())));
}

#[test]
fn of_two_tags_the_inner_one_stays_among_the_bytes() {
    let (frame, _) = superframe();
    let bytes = tagged(&frame, &[[0x88, 0xa8, 0, 3], [0x81, 0, 0, 4]]);
    let (got, tag, offload) =
        read_one(10, &queued(10, header(1, 1, 1000, 42, 16), &bytes)).unwrap();
    assert_eq!(tag, Some(VlanTag { tpid: 0x88a8, tci: 3 }));
    assert_eq!(got, tagged(&frame, &[[0x81, 0, 0, 4]]));
    assert_eq!(offload.csum, Checksum::Partial { start: 38, offset: 16 });
}

#[test]
fn a_header_that_the_frame_does_not_bear_out_is_named() {
    let (frame, _) = superframe();
    let with_tag = tagged(&frame, &[[0x81, 0, 0, 5]]);
    for (vnet, frame) in [
        (header(1, 4, 1000, 34, 16), &frame),
        (header(1, 5, 1000, 34, 16), &frame),
        (header(1, 3, 1000, 34, 16), &frame),
        (header(0, 1, 1000, 34, 16), &frame),
        (header(1, 1, 0, 34, 16), &frame),
        (header(4, 0, 0, 0, 0), &frame),
        (header(1, 1, 1000, 34, 16), &with_tag),
        (header(1, 1, 1000, 0, 16), &with_tag),
        (header(1, 0, 0, 3, 16), &with_tag),
        (header(1, 0, 0, 16, 0), &with_tag),
        (header(1, 0, 0, u16::MAX, u16::MAX), &with_tag),
    ] {
        for len in [VNET_LEN, VNET_LONG] {
            let read = read_one(len, &queued(len, vnet, frame));
            assert_eq!(read, Err(DropReason::BadOffload), "{vnet:?}");
        }
    }
}

#[test]
fn what_is_longer_than_any_frame_is_truncated_and_what_ends_in_the_header_a_runt() {
    let longest = vec![0; FRAME_MAX];
    assert!(read_one(12, &queued(12, [0; 10], &longest)).is_ok());
    let (wire, guest) = wire(12);
    let room = BUFFER_BYTES - HEADROOM;
    for len in [room, room + 1000] {
        guest.send(&vec![0; len]).unwrap();
    }
    guest.send(&[0; 11]).unwrap();
    let (mut arena, mut buffers) = ([], buffers());
    let mut frames = FrameTable::new(&mut arena);
    let received = wire.receive(8, &mut buffers, &mut frames);
    assert!(frames.is_empty());
    use DropReason::{Runt, Truncated};
    assert_eq!(received.dropped.as_slice(), [Truncated, Truncated, Runt]);
}

#[test]
fn a_batch_ends_with_its_limit_and_the_rest_is_told() {
    let count = |sizes: &[usize], limit: usize| {
        let (wire, guest) = wire(0);
        for size in sizes {
            guest.send(&vec![0; *size]).unwrap();
        }
        let (mut arena, mut buffers) = ([], buffers());
        let mut frames = FrameTable::new(&mut arena);
        let received = wire.receive(limit, &mut buffers, &mut frames);
        (frames.len(), received.more)
    };
    assert_eq!(count(&[], 64), (0, false));
    assert_eq!(count(&[60; 3], 64), (3, false));
    assert_eq!(count(&[60; 3], 2), (2, true));
    assert_eq!(count(&[60; 3], 3), (3, true), "whether there is more is not known");
}

#[test]
fn a_device_that_is_none_is_told_so() {
    let (wire, _guest) = wire(0);
    let fd = Arc::try_unwrap(wire.device).unwrap();
    assert!(TapWire::adopt(fd).unwrap_err().to_string().starts_with("TUNGETIFF: "));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 1..200),
        header in prop::sample::select(vec![0, VNET_LEN, VNET_LONG]),
    ) {
        let _ = read_one(header, &bytes);
    }

    #[test]
    fn a_frame_that_ends_early_is_survived_at_every_byte(
        len in 1..300_usize,
        tags in 0..3_usize,
    ) {
        let (frame, _) = superframe();
        let start = 34 + 4 * tags as u16;
        let frame = tagged(&frame, &vec![[0x81, 0, 0, 5]; tags]);
        let mut bytes = queued(VNET_LONG, header(1, 1, 1000, start, 16), &frame);
        bytes.truncate(len);
        prop_assert!(read_one(VNET_LONG, &bytes).is_err());
    }
}
