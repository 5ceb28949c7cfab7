use std::io::Read;

use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsBlock;
use pcap_file::pcapng::blocks::section_header::SectionHeaderBlock;

use super::*;

/// A stream of one interface with `packets` packets of `len` bytes, and `lost` told at its end; where each block begins.
fn stream(packets: u32, len: usize, lost: u64) -> (Vec<u8>, Vec<usize>) {
    let section = SectionHeaderBlock {
        endianness: pcap_file::Endianness::native(),
        ..SectionHeaderBlock::default()
    };
    let mut writer = PcapNgWriter::with_section_header(Vec::new(), section).unwrap();
    let mut starts = vec![0];
    let mut note = |writer: &PcapNgWriter<Vec<u8>>| starts.push(writer.get_ref().len());
    note(&writer);
    writer.write_pcapng_block(InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0)).unwrap();
    for packet in 0..packets {
        note(&writer);
        writer
            .write_pcapng_block(EnhancedPacketBlock {
                original_len: len as u32,
                data: vec![packet as u8; len].into(),
                options: vec![
                    EnhancedPacketOption::Common(CommonOption::Comment("odd".into())),
                    EnhancedPacketOption::Flags(1 + packet % 2),
                ],
                ..EnhancedPacketBlock::default()
            })
            .unwrap();
    }
    note(&writer);
    writer
        .write_pcapng_block(InterfaceStatisticsBlock {
            interface_id: 0,
            timestamp: std::time::Duration::ZERO,
            options: vec![InterfaceStatisticsOption::IsbIfDrop(lost)],
        })
        .unwrap();
    (writer.into_inner(), starts)
}

fn into_file(limit: Option<u64>) -> (Sink, File) {
    let file = tempfile::tempfile().unwrap();
    (Sink::new(Target::File(file.try_clone().unwrap()), None, None, limit), file)
}

fn content(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_stream_arrives_as_it_is_however_it_is_cut() {
    let (bytes, _) = stream(5, 61, 3);
    for cut in [1, 7, 64, 1000] {
        let (mut sink, file) = into_file(None);
        for chunk in bytes.chunks(cut) {
            assert!(!sink.take(chunk).unwrap());
        }
        assert_eq!(content(file), bytes);
        assert_eq!(
            sink.summary(),
            "5 frames captured, 3 lost: they came faster than they could be written"
        );
    }
}

#[test]
fn whole_blocks_are_in_the_file_wherever_the_stream_breaks_off() {
    let (bytes, starts) = stream(3, 40, 0);
    for end in 0..bytes.len() {
        let (mut sink, file) = into_file(None);
        sink.take(&bytes[..end]).unwrap();
        let whole = starts.iter().rfind(|start| **start <= end).unwrap();
        assert_eq!(content(file), bytes[..*whole]);
    }
}

#[test]
fn a_limit_holds_to_the_frame_and_the_counts_still_come() {
    let (bytes, starts) = stream(5, 40, 2);
    let (mut sink, file) = into_file(Some(2));
    assert!(sink.take(&bytes).unwrap());
    let wanted = [&bytes[..starts[4]], &bytes[starts[7]..]].concat();
    assert_eq!(content(file), wanted);
    assert_eq!(sink.written(), 2);
    assert!(sink.summary().starts_with("2 frames captured, 2 lost"));
}

#[test]
fn frames_of_one_direction_are_passed_on_alone() {
    let (bytes, _) = stream(5, 41, 0);
    for (wanted, frames) in [(Direction::In, 3), (Direction::Out, 2)] {
        let target = Target::Pipe(Box::new(io::sink()));
        let mut sink = Sink::new(target, None, Some(wanted), None);
        sink.take(&bytes).unwrap();
        assert_eq!((sink.written(), sink.remark()), (frames, None));
    }
}

#[test]
fn what_the_daemon_says_of_the_end_is_kept() {
    let (mut bytes, _) = stream(1, 41, 0);
    let remark = InterfaceStatisticsOption::Common(CommonOption::Comment("too slow".into()));
    let block = InterfaceStatisticsBlock {
        interface_id: 0,
        timestamp: std::time::Duration::ZERO,
        options: vec![remark],
    };
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    writer.write_pcapng_block(InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0)).unwrap();
    let from = writer.get_ref().len();
    writer.write_pcapng_block(block).unwrap();
    bytes.extend_from_slice(&writer.get_ref()[from..]);
    let mut sink = Sink::new(Target::Pipe(Box::new(io::sink())), None, None, None);
    sink.take(&bytes).unwrap();
    assert_eq!(sink.remark(), Some("too slow"));
}

#[test]
fn what_is_no_pcapng_is_told_and_not_waited_for() {
    for bytes in [[0; 12], [0xff; 12]] {
        let (mut sink, _file) = into_file(None);
        assert!(matches!(sink.take(&bytes), Err(Fault::Stream(_))));
    }
}

#[test]
fn a_disk_that_is_full_keeps_whole_blocks() {
    let (bytes, starts) = stream(4, 40, 0);
    for done in 0..bytes.len() {
        let (mut sink, mut file) = into_file(None);
        // What a full disk leaves: part of a run was written when the error came.
        file.write_all(&bytes[..done]).unwrap();
        sink.written = 4;
        let told = sink.cut_back(&bytes, done, io::ErrorKind::StorageFull.into());
        assert!(matches!(told, Err(Fault::Write(_))));
        let whole = starts.iter().rfind(|start| **start <= done).unwrap();
        assert_eq!(content(file), bytes[..*whole]);
        let packets = starts[2..6].iter().filter(|start| **start < *whole).count();
        assert_eq!(sink.written(), packets as u64, "{done}");
    }
}

#[test]
fn an_older_file_is_as_it_was_until_the_first_block_has_come() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("older.pcapng");
    std::fs::write(&path, "older").unwrap();
    let mut sink = Sink::new(Target::Path(path.clone()), None, None, None);
    let (bytes, starts) = stream(1, 61, 0);
    assert!(!sink.take(&bytes[..starts[1] - 1]).unwrap());
    assert!(!sink.has_begun());
    assert_eq!(std::fs::read(&path).unwrap(), b"older");
    sink.take(&bytes[starts[1] - 1..]).unwrap();
    assert!(sink.has_begun());
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}
