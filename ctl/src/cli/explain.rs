//! `portolan explain`: what would become of a frame, or of each frame of a capture.

use std::fs;
use std::io::{self, Read};

use clap::Args;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapReadError, PcapReader};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReadError, PcapNgReader};
use portolan::api::client::{Client, Failure};
use portolan::api::types::{ExplainAnswer, ExplainRequest};
use serde_json::json;

use super::output::{self, Format};
use super::{DaemonChoice, segment};

/// Bytes of a capture that are read: whoever wants more explained takes a part of it.
const FILE_MAX: u64 = 64 << 20;

/// The first bytes of a pcapng file, and of the four kinds of pcap files.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const PCAP: [[u8; 4]; 4] = [
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0x4d, 0x3c, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
];

/// The direction of a packet in its flags: in to the interface it was captured at.
const INBOUND: u32 = 1;

#[derive(Args, Debug)]
pub struct Explain {
    /// Name or id of a network
    network: String,
    /// The frame in hexadecimal, a pcap or pcapng file, or - for either on stdin
    #[arg(value_name = "FRAME-HEX|FILE|-")]
    frame: String,
    /// The node that sends it; whoever its source address belongs to unless given
    #[arg(long, value_name = "NODE")]
    from: Option<String>,
    /// table or json
    #[arg(long, default_value = "table")]
    format: Format,
}

/// A frame to be explained.
struct Asked {
    /// Where it stands in its file, counted from 1 as Wireshark does; none of one that was given by itself.
    number: Option<usize>,
    /// The frame in hexadecimal.
    frame: String,
    /// Whether the capture has only its beginning.
    cut: bool,
}

/// What there is to explain, and what is to be told of what there is not.
#[derive(Default)]
struct Wanted {
    /// The frames, in order.
    frames: Vec<Asked>,
    /// How many frames of a capture are not among them, for nodes received them.
    received: usize,
    /// Whether the capture ends in the middle of something.
    cut_short: bool,
}

impl Explain {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        if !matches!(self.format, Format::Table | Format::Json) {
            return Err(Failure::new("--format of explain is table or json"));
        }
        let wanted = self.frames()?;
        if wanted.frames.is_empty() {
            return Err(Failure::new(if wanted.cut_short {
                "the capture was cut short before the end of its first frame that a node sent"
            } else {
                "the capture holds no frame that a node sent"
            }));
        }
        let client = daemon.open()?;
        let (mut told, mut code) = (Vec::new(), 0);
        for one in &wanted.frames {
            match self.ask(&client, one) {
                Ok(answer) if self.format == Format::Json => told.push((one.number, answer)),
                Ok(answer) => show(one.number, &answer),
                Err(failure) => match one.number {
                    None => return Err(failure),
                    Some(number) => {
                        output::note(&format!("frame {number}: {}", failure.message));
                        code = 1;
                    }
                },
            }
        }
        if self.format == Format::Json {
            output::json(
                &told.iter().map(|(number, answer)| object(*number, answer)).collect::<Vec<_>>(),
            );
        }
        if wanted.received > 0 {
            output::note(&format!("passed over {} frames that nodes received", wanted.received));
        }
        if wanted.cut_short {
            output::note("the capture was cut short: what followed these frames is not in it");
            code = 1;
        }
        Ok(code)
    }

    fn ask(&self, client: &Client, one: &Asked) -> Result<ExplainAnswer, Failure> {
        if one.cut {
            return Err(Failure::new(
                "the capture has only its beginning: capture with --snaplen 0",
            ));
        }
        let request = ExplainRequest { frame: one.frame.clone(), from: self.from.clone() };
        client.post(&format!("/v1/networks/{}/explain", segment(&self.network)?), &request)
    }

    /// The frames that are asked about.
    fn frames(&self) -> Result<Wanted, Failure> {
        let bytes = match self.frame.as_str() {
            "-" => {
                let mut bytes = Vec::new();
                let read = io::stdin().lock().take(FILE_MAX).read_to_end(&mut bytes);
                read.map_err(|error| Failure::new(format!("cannot read stdin: {error}")))?;
                bytes
            }
            text if is_hex(text) => text.as_bytes().to_vec(),
            path => {
                let why = |error| {
                    Failure::new(format!(
                        "{path:?} is neither a frame in hexadecimal nor a file to read: {error}"
                    ))
                };
                let mut bytes = Vec::new();
                let file = fs::File::open(path).map_err(why)?;
                file.take(FILE_MAX).read_to_end(&mut bytes).map_err(why)?;
                bytes
            }
        };
        match bytes.first_chunk() {
            Some(magic) if *magic == PCAPNG => pcapng(&bytes),
            Some(magic) if PCAP.contains(magic) => pcap(&bytes),
            _ => match String::from_utf8(bytes) {
                Ok(frame) if is_hex(&frame) => {
                    let frames = vec![Asked { number: None, frame, cut: false }];
                    Ok(Wanted { frames, ..Wanted::default() })
                }
                _ => Err(Failure::new("it is neither hexadecimal nor pcap nor pcapng")),
            },
        }
    }
}

/// Whether a text can be nothing but a frame in hexadecimal.
fn is_hex(text: &str) -> bool {
    let text = text.trim().strip_prefix("0x").unwrap_or(text);
    let between = |byte: u8| byte.is_ascii_whitespace() || b":-.".contains(&byte);
    text.bytes().all(|byte| byte.is_ascii_hexdigit() || between(byte))
        && text.bytes().filter(u8::is_ascii_hexdigit).count() >= 2
}

fn pcap(bytes: &[u8]) -> Result<Wanted, Failure> {
    let mut wanted = Wanted::default();
    let mut reader = match PcapReader::new(bytes) {
        Ok(reader) => reader,
        Err(PcapReadError::Io(why)) if is_end(&why) => return Ok(cut_short(wanted)),
        Err(why) => return Err(broken(why)),
    };
    ethernet(reader.header().datalink)?;
    while let Some(packet) = reader.next_packet() {
        match packet {
            Ok(packet) => {
                let number = wanted.frames.len() + 1;
                wanted.frames.push(asked(number, packet.data(), packet.orig_len()));
            }
            Err(PcapReadError::Io(why)) if is_end(&why) => return Ok(cut_short(wanted)),
            Err(why) => return Err(broken(why)),
        }
    }
    Ok(wanted)
}

fn pcapng(bytes: &[u8]) -> Result<Wanted, Failure> {
    let (mut wanted, mut number) = (Wanted::default(), 0);
    let mut reader = match PcapNgReader::new(bytes) {
        Ok(reader) => reader,
        Err(PcapNgReadError::Io(why)) if is_end(&why) => return Ok(cut_short(wanted)),
        Err(why) => return Err(broken(why)),
    };
    while let Some(block) = reader.next_block() {
        let block = match block {
            Ok((block, _)) => block,
            Err(PcapNgReadError::Io(why)) if is_end(&why) => return Ok(cut_short(wanted)),
            Err(why) => return Err(broken(why)),
        };
        match block {
            Block::InterfaceDescription(interface) => ethernet(interface.linktype)?,
            Block::EnhancedPacket(packet) => {
                number += 1;
                let inbound = |option: &EnhancedPacketOption<'_>| matches!(option, EnhancedPacketOption::Flags(flags) if flags & 3 == INBOUND);
                if packet.options.iter().any(inbound) {
                    wanted.received += 1;
                } else {
                    wanted.frames.push(asked(number, &packet.data, packet.original_len));
                }
            }
            Block::SimplePacket(packet) => {
                number += 1;
                wanted.frames.push(asked(number, &packet.data, packet.original_len));
            }
            _ => {}
        }
    }
    Ok(wanted)
}

/// Whether the bytes ended where more had been announced.
fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

fn cut_short(wanted: Wanted) -> Wanted {
    Wanted { cut_short: true, ..wanted }
}

fn asked(number: usize, frame: &[u8], whole: u32) -> Asked {
    let digits = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    Asked { number: Some(number), frame: digits, cut: frame.len() < whole as usize }
}

fn ethernet(kind: DataLink) -> Result<(), Failure> {
    match kind {
        DataLink::ETHERNET => Ok(()),
        other => Err(Failure::new(format!("the capture is of {other:?}, not of Ethernet"))),
    }
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("the capture cannot be read: {error}"))
}

/// An answer as JSON: the API's, and where in its file the frame stands.
fn object(number: Option<usize>, answer: &ExplainAnswer) -> serde_json::Value {
    let mut object = json!(answer);
    if let (Some(number), serde_json::Value::Object(fields)) = (number, &mut object) {
        fields.insert("Number".into(), number.into());
    }
    object
}

/// Shows an answer to people.
fn show(number: Option<usize>, answer: &ExplainAnswer) {
    lines(number, answer).iter().for_each(|line| output::line(&output::clean(line)));
}

fn lines(number: Option<usize>, answer: &ExplainAnswer) -> Vec<String> {
    let head = number.map(|number| format!("frame {number}: ")).unwrap_or_default();
    let mut lines = vec![
        format!("{head}{}", answer.frame),
        format!("  {:<8}  sent by {}", "from", answer.from),
    ];
    for step in &answer.steps {
        let detail = match step.verdict.as_str() {
            "drop" => format!("DROPPED, {}: {}", answer.reason, step.detail),
            _ => step.detail.clone(),
        };
        lines.push(format!("  {:<8}  {detail}", step.stage));
    }
    for to in &answer.receivers {
        let what = if to.from_gateway { "an answer of the gateway: " } else { "" };
        lines.push(format!("  {:<8}  {}: {what}{}", "to", to.node, to.summary));
    }
    for out in &answer.left_out {
        lines.push(format!("  {:<8}  {}, {}: {}", "not to", out.node, out.reason, out.meaning));
    }
    if answer.outcome == "unheard" {
        lines.push(format!("  {:<8}  nobody: there is no other port it may go to", "to"));
    }
    lines
}

#[cfg(test)]
mod tests;
