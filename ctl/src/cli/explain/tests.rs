use std::time::Duration;

use pcap_file::pcap::{PcapPacket, PcapWriter};
use portolan::api::types::{ExplainLeftOut, ExplainReceiver, ExplainStep};

use super::*;

fn explain(frame: &str) -> Explain {
    Explain { network: "lan".into(), frame: frame.into(), from: None, format: Format::Table }
}

#[test]
fn a_frame_in_hexadecimal_is_told_from_a_file() {
    for text in ["0102", "0x0102", "01:02", "01 02\n"] {
        let (asked, passed_over) = explain(text).frames().unwrap();
        assert_eq!((asked.len(), asked[0].number, passed_over), (1, None, 0), "{text:?}");
    }
    for text in ["frames.pcap", "./0102", "", "1"] {
        assert!(explain(text).frames().is_err(), "{text:?}");
    }
}

#[test]
fn each_frame_of_a_capture_is_asked_about_and_one_that_is_cut_off_is_known() {
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    for (len, whole) in [(3, 3), (2, 9)] {
        let packet = PcapPacket::new(Duration::ZERO, whole, vec![0xab; len]).unwrap();
        writer.write_packet(&packet).unwrap();
    }
    let frames = pcap(&writer.into_inner()).unwrap();
    let told: Vec<_> = frames.iter().map(|f| (f.number, f.frame.as_str(), f.cut)).collect();
    assert_eq!(told, [(Some(1), "ababab", false), (Some(2), "abab", true)]);
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
