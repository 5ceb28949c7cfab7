//! What a capture saw, as blocks of pcapng.
//!
//! Each port is an interface, described when the capture begins or when the port is first seen. Packets bear which way they
//! went, as their interface's flags say it from the node's side: out is what the node sent. Times are the dataplane's own
//! clock, moved by what the wall clock differed from it when the capture began, so that they never run backwards. A checksum
//! that was left to a device is stored where all of the frame is there; a superframe gets the one that it would have as a
//! single packet.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriteError, PcapNgWriter};
use pcap_file::{DataLink, Endianness};
use portolan_switch::capture::{CaptureBuffer, Direction, Record};
use portolan_switch::frame::Checksum;
use portolan_switch::ids::{MacAddr, PortId, Time};
use portolan_switch::offload;

/// The exponent of a nanosecond, as if_tsresol has it.
const NANOSECONDS: u8 = 9;

/// The node received the packet: the direction bits of epb_flags.
const INBOUND: u32 = 1;
/// The node sent it.
const OUTBOUND: u32 = 2;

/// What there is to say about a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// As `web/eth0@app`: node, interface, network.
    pub name: String,
    /// The endpoint's hardware address.
    pub mac: MacAddr,
}

/// One interface of the file.
#[derive(Default)]
struct Described {
    recorded: u64,
    lost: u64,
    /// What of these the last statistics block said.
    told: Option<(u64, u64)>,
}

/// A pcapng stream, as far as it is not yet sent.
pub struct Pcapng {
    writer: PcapNgWriter<Vec<u8>>,
    snaplen: u32,
    /// What is to be added to the dataplane's time for that since 1970.
    epoch: Duration,
    interfaces: Vec<Described>,
    by_port: BTreeMap<PortId, usize>,
    /// Where checksums are completed.
    scratch: Vec<u8>,
}

impl Pcapng {
    /// Begins a stream, `now` by the dataplane's clock being `wall` since 1970.
    ///
    /// # Errors
    /// None that a buffer in memory could give.
    pub fn begin(snaplen: u32, now: Time, wall: Duration) -> Result<Pcapng, PcapNgWriteError> {
        let program = concat!("portolan ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(program))],
            ..SectionHeaderBlock::default()
        };
        Ok(Pcapng {
            writer: PcapNgWriter::with_section_header(Vec::new(), section)?,
            snaplen,
            epoch: wall.saturating_sub(Duration::from_nanos(now.0)),
            interfaces: Vec::new(),
            by_port: BTreeMap::new(),
            scratch: Vec::new(),
        })
    }

    /// What has been written since this was last called: whole blocks.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }

    /// Describes a port, once; its number among the interfaces.
    pub fn describe(
        &mut self,
        port: PortId,
        interface: Option<&Interface>,
    ) -> Result<usize, PcapNgWriteError> {
        if let Some(at) = self.by_port.get(&port) {
            return Ok(*at);
        }
        let name = interface.map(|interface| Cow::Borrowed(interface.name.as_str()));
        let name = name.unwrap_or_else(|| Cow::Owned(format!("port {}", port.0)));
        let mut options = vec![InterfaceDescriptionOption::IfName(name)];
        if let Some(interface) = interface {
            options.push(InterfaceDescriptionOption::IfMacAddr(Cow::Borrowed(&interface.mac.0)));
        }
        if let Ok(resolution) = InterfaceTsResolution::from_u8(NANOSECONDS) {
            options.push(InterfaceDescriptionOption::IfTsResol(resolution));
        }
        let linktype = DataLink::ETHERNET;
        self.writer.write_pcapng_block(InterfaceDescriptionBlock {
            linktype,
            snaplen: self.snaplen,
            options,
        })?;
        let at = self.interfaces.len();
        self.interfaces.push(Described::default());
        self.by_port.insert(port, at);
        Ok(at)
    }

    /// Writes the frames that a buffer holds. Ports that are seen for the first time are described by `whose`.
    pub fn records(
        &mut self,
        buffer: &CaptureBuffer,
        whose: &dyn Fn(PortId) -> Option<Interface>,
    ) -> Result<(), PcapNgWriteError> {
        // A block has some 100 bytes besides the packet's own.
        self.writer.get_mut().reserve(buffer.len() + buffer.records().count() * 64);
        for record in buffer.records() {
            let at = match self.by_port.get(&record.port) {
                Some(at) => *at,
                None => self.describe(record.port, whose(record.port).as_ref())?,
            };
            self.packet(at, &record)?;
        }
        Ok(())
    }

    /// Counts frames that found no buffer, and tells of them if there were any.
    pub fn lost(
        &mut self,
        lost: &[(PortId, u64)],
        whose: &dyn Fn(PortId) -> Option<Interface>,
    ) -> Result<(), PcapNgWriteError> {
        for (port, frames) in lost {
            let at = self.describe(*port, whose(*port).as_ref())?;
            self.interfaces[at].lost += frames;
        }
        Ok(())
    }

    /// Writes what each interface has seen, where that has changed since it was last told.
    pub fn statistics(&mut self, now: Time) -> Result<(), PcapNgWriteError> {
        let timestamp = self.time(now);
        for (at, interface) in self.interfaces.iter_mut().enumerate() {
            let counts = (interface.recorded + interface.lost, interface.lost);
            if interface.told == Some(counts) {
                continue;
            }
            interface.told = Some(counts);
            self.writer.write_pcapng_block(InterfaceStatisticsBlock {
                interface_id: number(at),
                timestamp,
                options: vec![
                    InterfaceStatisticsOption::IsbIfRecv(counts.0),
                    InterfaceStatisticsOption::IsbIfDrop(counts.1),
                ],
            })?;
        }
        Ok(())
    }

    /// Writes a remark, as the comment of the first interface's statistics; nothing where there is no interface.
    pub fn remark(&mut self, now: Time, remark: &str) -> Result<(), PcapNgWriteError> {
        if self.interfaces.is_empty() {
            return Ok(());
        }
        let comment = CommonOption::Comment(Cow::Borrowed(remark));
        self.writer.write_pcapng_block(InterfaceStatisticsBlock {
            interface_id: 0,
            timestamp: self.time(now),
            options: vec![InterfaceStatisticsOption::Common(comment)],
        })?;
        Ok(())
    }

    fn packet(&mut self, at: usize, record: &Record<'_>) -> Result<(), PcapNgWriteError> {
        let data = whole(record, &mut self.scratch);
        let direction = match record.direction {
            Direction::FromNode => OUTBOUND,
            Direction::ToNode => INBOUND,
        };
        let mut options = vec![EnhancedPacketOption::Flags(direction)];
        if let Some(reason) = record.dropped {
            let comment = format!("dropped: {}: {}", reason.name(), reason.meaning());
            options.push(EnhancedPacketOption::Common(CommonOption::Comment(Cow::Owned(comment))));
        }
        let block = EnhancedPacketBlock {
            interface_id: number(at),
            timestamp: self.epoch + Duration::from_nanos(record.time.0),
            original_len: u32::try_from(record.len).unwrap_or(u32::MAX),
            data: Cow::Borrowed(data),
            options,
        };
        self.writer.write_block(&block.into_block())?;
        self.interfaces[at].recorded += 1;
        Ok(())
    }

    fn time(&self, time: Time) -> Duration {
        self.epoch + Duration::from_nanos(time.0)
    }
}

/// The bytes of a record, its checksum stored where the sender left that to be done.
fn whole<'a>(record: &Record<'a>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let left = matches!(record.offload.csum, Checksum::Partial { .. });
    if !left || record.bytes.len() < record.len {
        return record.bytes;
    }
    scratch.clear();
    scratch.extend_from_slice(record.bytes);
    let mut offload = record.offload;
    offload.gso = None;
    offload::complete(scratch, &mut offload);
    scratch
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
