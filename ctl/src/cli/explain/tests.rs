use std::time::Duration;

use pcap_file::pcap::{PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;
use portolan::api::types::{ExplainLeftOut, ExplainReceiver, ExplainStep};

use super::*;

fn explain(frame: &str) -> Explain {
    Explain { network: "lan".into(), frame: frame.into(), from: None, format: Format::Table }
}

#[test]
fn a_frame_in_hexadecimal_is_told_from_a_file() {
    for text in ["0102", "0x0102", "01:02", "01 02\n"] {
        let wanted = explain(text).frames().unwrap();
        assert_eq!((wanted.frames.len(), wanted.frames[0].number), (1, None), "{text:?}");
        assert_eq!((wanted.received, wanted.cut_short), (0, false), "{text:?}");
    }
    for text in ["frames.pcap", "./0102", "", "1"] {
        assert!(explain(text).frames().is_err(), "{text:?}");
    }
}

/// A pcap file of a frame of three bytes, and of the first two bytes of one of nine.
fn two_frames() -> Vec<u8> {
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    for (len, whole) in [(3, 3), (2, 9)] {
        let packet = PcapPacket::new(Duration::ZERO, whole, vec![0xab; len]).unwrap();
        writer.write_packet(&packet).unwrap();
    }
    writer.into_inner()
}

#[test]
fn each_frame_of_a_capture_is_asked_about_and_one_that_is_cut_off_is_known() {
    let wanted = pcap(&two_frames()).unwrap();
    let told: Vec<_> = wanted.frames.iter().map(|f| (f.number, &*f.frame, f.cut)).collect();
    assert_eq!(told, [(Some(1), "ababab", false), (Some(2), "abab", true)]);
    assert!(!wanted.cut_short);
}

/// A pcapng file of a frame of eight bytes and one of four.
fn two_blocks() -> Vec<u8> {
    let interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    writer.write_pcapng_block(interface).unwrap();
    for len in [8, 4] {
        let data = vec![0xcd; len as usize].into();
        writer.write_pcapng_block(SimplePacketBlock { original_len: len, data }).unwrap();
    }
    writer.into_inner()
}

#[test]
fn of_a_capture_that_was_cut_short_the_whole_frames_are_asked_about() {
    // Headers of 24 and 16 bytes: the first frame ends at 43 and the second at 61.
    let whole = two_frames();
    for len in 4..whole.len() {
        let wanted = pcap(&whole[..len]).unwrap();
        let clean = [24, 43].contains(&len);
        assert_eq!((wanted.frames.len(), wanted.cut_short), (usize::from(len >= 43), !clean));
    }
    // The blocks of the frames are the last 24 and 20 bytes.
    let whole = two_blocks();
    for len in 4..whole.len() {
        let wanted = pcapng(&whole[..len]).unwrap();
        let at_most_one = usize::from(len >= whole.len() - 20);
        assert_eq!(wanted.frames.len(), at_most_one, "{len}");
    }
    assert!(!pcapng(&whole[..whole.len() - 20]).unwrap().cut_short);
    assert!(pcapng(&whole[..whole.len() - 1]).unwrap().cut_short);
    assert!(pcapng(&whole[..whole.len() - 21]).unwrap().cut_short);
    let wanted = pcapng(&whole).unwrap();
    assert_eq!((wanted.frames.len(), wanted.cut_short), (2, false));
}

#[test]
fn any_bytes_are_refused_in_a_line() {
    for magic in PCAP.iter().chain([&PCAPNG]) {
        for len in 0..64 {
            let bytes = [&magic[..], &vec![0xff; len]].concat();
            let read = if *magic == PCAPNG {
                pcapng(&bytes).map(|_| ())
            } else {
                pcap(&bytes).map(|_| ())
            };
            if let Err(failure) = read {
                assert!(!failure.message.contains('\n'), "{}", failure.message);
            }
        }
    }
}

#[test]
fn an_answer_reads_from_top_to_bottom() {
    let step = |stage: &str, verdict: &str, detail: &str| ExplainStep {
        stage: stage.into(),
        verdict: verdict.into(),
        detail: detail.into(),
    };
    let answer = ExplainAnswer {
        from: "web".into(),
        frame: "a > b".into(),
        steps: vec![step("admit", "pass", "fits"), step("guard", "drop", "Not its own.")],
        outcome: "dropped".into(),
        reason: "guard_mac".into(),
        receivers: vec![ExplainReceiver {
            node: "web".into(),
            from_gateway: true,
            summary: "ICMP".into(),
            frame: "00".into(),
        }],
        left_out: vec![ExplainLeftOut {
            node: "db".into(),
            reason: "isolated".into(),
            meaning: "Both are.".into(),
        }],
    };
    let expected = [
        "frame 7: a > b",
        "  from      sent by web",
        "  admit     fits",
        "  guard     DROPPED, guard_mac: Not its own.",
        "  to        web: an answer of the gateway: ICMP",
        "  not to    db, isolated: Both are.",
    ];
    assert_eq!(lines(Some(7), &answer), expected);
}
