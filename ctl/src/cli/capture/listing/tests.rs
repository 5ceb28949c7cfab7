use etherparse::PacketBuilder;

use super::*;

const ENDS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

fn udp() -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(ENDS.0, ENDS.1)
        .single_vlan(etherparse::VlanId::try_new(7).unwrap())
        .ipv4([10, 0, 0, 2], [10, 0, 0, 3], 64)
        .udp(4000, 53);
    let mut frame = Vec::new();
    builder.write(&mut frame, b"question").unwrap();
    frame
}

fn arp(operation: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(ENDS.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(ENDS.0);
    frame.extend([10, 0, 0, 2]);
    frame.extend(ENDS.1);
    frame.extend([10, 0, 0, 3]);
    frame
}

#[test]
fn frames_are_told_by_what_they_are() {
    assert_eq!(summary(&udp()), "vlan 7 UDP 10.0.0.2:4000 > 10.0.0.3:53");
    let mut tcp = Vec::new();
    let builder = PacketBuilder::ethernet2(ENDS.0, ENDS.1).ipv6([0xfd; 16], [0xfe; 16], 64);
    builder.tcp(1, 2, 3, 4).syn().ack(9).write(&mut tcp, &[]).unwrap();
    assert!(summary(&tcp).ends_with(":2 [S.]"), "{}", summary(&tcp));
    let mut echo = Vec::new();
    let builder = PacketBuilder::ethernet2(ENDS.0, ENDS.1).ipv4([1; 4], [2; 4], 64);
    builder.icmpv4_echo_request(1, 2).write(&mut echo, &[]).unwrap();
    assert_eq!(summary(&echo), "ICMP echo request 1.1.1.1 > 2.2.2.2");
    assert_eq!(summary(&arp(1)), "ARP who has 10.0.0.3, asks 10.0.0.2");
    assert_eq!(summary(&arp(2)), "ARP 10.0.0.2 is at 02:00:00:00:00:01");
    let other = [&ENDS.1[..], &ENDS.0, &[0x88, 0xcc], &[0; 46]].concat();
    assert_eq!(summary(&other), "02:00:00:00:00:01 > 02:00:00:00:00:02 ethertype 0x88cc");
}

#[test]
fn what_was_cut_off_anywhere_is_told_as_far_as_it_goes() {
    for frame in [udp(), arp(1)] {
        for len in 0..frame.len() {
            assert!(!summary(&frame[..len]).is_empty(), "{len}");
        }
    }
}

#[test]
fn a_line_gives_the_interface_the_way_and_the_reason() {
    let frame = arp(1);
    let comment = "dropped: guard_arp: An ARP message speaks for another.";
    let packet = EnhancedPacketBlock {
        timestamp: std::time::Duration::from_nanos(1_500_000_000),
        original_len: 42,
        data: frame.into(),
        options: vec![
            EnhancedPacketOption::Flags(2),
            EnhancedPacketOption::Common(CommonOption::Comment(comment.into())),
        ],
        ..EnhancedPacketBlock::default()
    };
    let mut interface = InterfaceDescriptionBlock::new(pcap_file::DataLink::ETHERNET, 0);
    interface.options.push(InterfaceDescriptionOption::IfName("web/eth0@app".into()));
    assert_eq!(
        line(&packet, Some(&interface)),
        "00:00:01.500000000Z web/eth0@app out ARP who has 10.0.0.3, asks 10.0.0.2, 42 bytes \
         [dropped: guard_arp]"
    );
}
