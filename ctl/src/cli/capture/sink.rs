//! Where a capture goes: whole blocks, in order, whatever happens.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::{Block, PcapNgParser};

use super::filter::Filter;
use super::listing::Listing;
use super::pass_on;

/// Bytes of a block before its body.
const HEAD_LEN: usize = 8;

/// The type of an enhanced packet block.
const PACKET: u32 = 6;

/// Where the bytes of a packet begin in its block, and the two lengths before them.
const PACKET_DATA: usize = 28;

/// No block of the daemon's is this long.
const BLOCK_MAX: usize = 1 << 20;

/// The option of a packet that holds its flags, and what their first two bits say.
const FLAGS: u16 = 2;
const DIRECTION: u32 = 3;

/// Which way a frame went, as the node's interface sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Direction {
    /// The node received it.
    In = 1,
    /// The node sent it.
    Out = 2,
}

/// What becomes of the blocks.
pub(super) enum Target {
    /// A line each.
    Listing(Listing),
    /// A file to be made, or emptied, when the first block has come: what the daemon refuses costs no older capture.
    Path(PathBuf),
    /// A file, which is cut back to whole blocks where it takes no more.
    File(File),
    /// Whoever reads.
    Pipe(Box<dyn Write>),
}

/// Why a chunk could not be passed on.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is no pcapng.
    Stream(String),
    /// It could not be written.
    Write(io::Error),
}

/// Passes blocks on, and counts them.
pub(super) struct Sink {
    target: Target,
    filter: Option<Filter>,
    direction: Option<Direction>,
    limit: Option<u64>,
    /// What the daemon has to say of the capture's end.
    remark: Option<String>,
    /// Of a block that has not come whole.
    rest: Vec<u8>,
    parser: Option<PcapNgParser>,
    /// Bytes of whole blocks in the file.
    len: u64,
    seen: u64,
    written: u64,
    /// By interface, as last told.
    lost: Vec<u64>,
}

impl Sink {
    pub(super) fn new(
        target: Target,
        filter: Option<Filter>,
        direction: Option<Direction>,
        limit: Option<u64>,
    ) -> Sink {
        Sink {
            target,
            filter,
            direction,
            limit,
            remark: None,
            rest: Vec::new(),
            parser: None,
            len: 0,
            seen: 0,
            written: 0,
            lost: Vec::new(),
        }
    }

    /// Takes what came; true once there is enough.
    pub(super) fn take(&mut self, chunk: &[u8]) -> Result<bool, Fault> {
        let mut whole = std::mem::take(&mut self.rest);
        if whole.is_empty() {
            let used = self.blocks(chunk)?;
            whole.extend_from_slice(&chunk[used..]);
        } else {
            whole.extend_from_slice(chunk);
            let used = self.blocks(&whole)?;
            whole.drain(..used);
        }
        self.rest = whole;
        Ok(self.is_full())
    }

    /// Whether anything has come.
    pub(super) fn has_begun(&self) -> bool {
        self.parser.is_some()
    }

    /// Why the daemon has ended it, where it says so.
    pub(super) fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// How many frames were passed on.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// What there is to say at the end.
    pub(super) fn summary(&self) -> String {
        let lost: u64 = self.lost.iter().sum();
        let frames = |n: u64| if n == 1 { "1 frame".to_owned() } else { format!("{n} frames") };
        let mut said = match &self.filter {
            None => format!("{} captured", frames(self.written)),
            Some(_) => format!("{} captured of {} seen", frames(self.written), self.seen),
        };
        said += &match (lost, &self.filter) {
            (0, _) => ", none lost".to_owned(),
            (_, None) => format!(", {lost} lost: they came faster than they could be written"),
            (_, Some(_)) => format!(
                ", {lost} more lost before the filter: they came faster than they could be looked at"
            ),
        };
        said
    }

    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.written >= limit)
    }

    /// Passes on the whole blocks of `bytes`; how many bytes these are.
    fn blocks(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        // Blocks that are passed on lie in runs, each of which is written at once.
        let (mut at, mut run) = (0, 0);
        while let Some(block) = next_block(&bytes[at..])? {
            let kept = self.look_at(block)?;
            if !kept {
                self.write(&bytes[run..at])?;
                run = at + block.len();
            }
            at += block.len();
        }
        self.write(&bytes[run..at])?;
        Ok(at)
    }

    /// Whether a block is passed on.
    fn look_at(&mut self, block: &[u8]) -> Result<bool, Fault> {
        if number(block, 0) == Some(PACKET) {
            if self.is_full() {
                return Ok(false);
            }
            if self.direction.is_some_and(|wanted| direction(block) != Some(wanted as u32)) {
                return Ok(false);
            }
            self.seen += 1;
            if !self.filter.as_mut().is_none_or(|filter| matches(filter, block)) {
                return Ok(false);
            }
            self.written += 1;
        }
        self.understand(block)?;
        Ok(true)
    }

    /// Notes what a block tells of interfaces, and lists it where that is wanted.
    fn understand(&mut self, block: &[u8]) -> Result<(), Fault> {
        let is_packet = number(block, 0) == Some(PACKET);
        if is_packet && !matches!(self.target, Target::Listing(_)) {
            return Ok(());
        }
        let malformed = |error: &dyn std::fmt::Display| Fault::Stream(error.to_string());
        let Some(parser) = &mut self.parser else {
            self.parser = Some(PcapNgParser::new(block).map_err(|error| malformed(&error))?.1);
            return Ok(());
        };
        let (_, parsed) = parser.next_block(block).map_err(|error| malformed(&error))?;
        match parsed {
            Block::InterfaceStatistics(block) => {
                let at = usize::try_from(block.interface_id).unwrap_or(usize::MAX);
                if at < parser.interfaces().len() {
                    self.lost.resize(parser.interfaces().len(), 0);
                    for option in &block.options {
                        match option {
                            InterfaceStatisticsOption::IsbIfDrop(lost) => self.lost[at] = *lost,
                            InterfaceStatisticsOption::Common(CommonOption::Comment(said)) => {
                                self.remark = Some(said.to_string());
                            }
                            _ => {}
                        }
                    }
                }
            }
            Block::EnhancedPacket(packet) => {
                if let Target::Listing(listing) = &mut self.target {
                    listing
                        .show(&packet, parser.packet_interface(&packet))
                        .map_err(Fault::Write)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn write(&mut self, run: &[u8]) -> Result<(), Fault> {
        if run.is_empty() {
            return Ok(());
        }
        if let Target::Path(path) = &self.target {
            self.target = Target::File(File::create(path).map_err(Fault::Write)?);
        }
        let file = match &mut self.target {
            Target::Listing(_) | Target::Path(_) => return Ok(()),
            Target::Pipe(pipe) => return pass_on(pipe.as_mut(), run).map_err(Fault::Write),
            Target::File(file) => file,
        };
        let mut done = 0;
        while done < run.len() {
            match file.write(&run[done..]) {
                Ok(0) => return self.cut_back(run, done, io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.cut_back(run, done, error),
            }
        }
        self.len += run.len() as u64;
        Ok(())
    }

    /// Takes the part of a block back that was written of a run.
    fn cut_back(&mut self, run: &[u8], done: usize, error: io::Error) -> Result<(), Fault> {
        let mut at = 0;
        while let Ok(Some(block)) = next_block(&run[at..]) {
            if at + block.len() > done {
                break;
            }
            at += block.len();
        }
        let mut rest = at;
        while let Ok(Some(block)) = next_block(&run[rest..]) {
            self.written -= u64::from(number(block, 0) == Some(PACKET));
            rest += block.len();
        }
        self.len += at as u64;
        if let Target::File(file) = &mut self.target {
            // Where that fails too, the file ends in part of a block, which readers tell of.
            let _ = file.set_len(self.len).and_then(|()| file.seek(SeekFrom::Start(self.len)));
        }
        Err(Fault::Write(error))
    }
}

/// The block that `bytes` begin with; none where it is not all there.
fn next_block(bytes: &[u8]) -> Result<Option<&[u8]>, Fault> {
    if bytes.len() < HEAD_LEN {
        return Ok(None);
    }
    let len = number(bytes, 4).and_then(|len| usize::try_from(len).ok()).unwrap_or_default();
    if len < HEAD_LEN + 4 || !len.is_multiple_of(4) || len > BLOCK_MAX {
        return Err(Fault::Stream(format!("a block of {len} bytes")));
    }
    Ok(bytes.get(..len))
}

/// Whether the packet in a block passes the filter.
fn matches(filter: &mut Filter, block: &[u8]) -> bool {
    let lengths = number(block, PACKET_DATA - 8).zip(number(block, PACKET_DATA - 4));
    let Some((captured, len)) = lengths else { return false };
    let captured = usize::try_from(captured).unwrap_or(usize::MAX);
    let data = block.get(PACKET_DATA..).and_then(|data| data.get(..captured));
    data.is_some_and(|data| filter.matches(data, len))
}

/// Which way the packet in a block went; none where it does not say.
fn direction(block: &[u8]) -> Option<u32> {
    let captured = usize::try_from(number(block, PACKET_DATA - 8)?).ok()?;
    let mut rest = block.get(PACKET_DATA..)?.get(captured.checked_next_multiple_of(4)?..)?;
    loop {
        let [a, b, c, d, ..] = *rest else { return None };
        let (code, len) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
        match (code, len) {
            (FLAGS, 4) => return Some(number(rest, 4)? & DIRECTION),
            (0, _) => return None,
            _ => rest = rest.get(4 + usize::from(len).next_multiple_of(4)..)?,
        }
    }
}

/// The number at a place in a block; this machine's daemon writes in this machine's order.
fn number(block: &[u8], at: usize) -> Option<u32> {
    block.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests;
