//! `portolan capture`: the frames of a network or of a node, as pcapng into a file or a pipe, or a line each.
//!
//! The daemon's stream is passed on block by block as it comes, so that a file or a pipe holds whole blocks whenever and
//! however the capture ends. A filter is looked at here and not in the daemon: its language is libpcap's.

mod filter;
mod listing;
mod sink;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use portolan::api::client::{CaptureEnd, Failure, Wanted};

use self::filter::Filter;
use self::listing::Listing;
use self::sink::{Direction, Fault, Sink, Target};
use super::{DaemonChoice, output, target, time};

/// Whether captures can be filtered here.
pub fn can_filter() -> bool {
    filter::library().is_some()
}

#[derive(Args, Debug)]
pub struct Capture {
    /// Name or id of a network, or of a running node
    target: String,
    /// Write pcapng to this file, or to stdout for -; a line a frame is shown without it
    #[arg(short, long, value_name = "FILE|-")]
    write: Option<PathBuf>,
    /// Only frames that match, as tcpdump words it: 'tcp port 80 and host 10.0.0.2'
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Only frames that nodes sent (out), each of them once, or only what they were sent (in)
    #[arg(long, value_name = "in|out")]
    direction: Option<Direction>,
    /// Bytes kept of each frame, 0 for all; 1600 unless given
    #[arg(long, value_name = "N")]
    snaplen: Option<u32>,
    /// End after so many frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time, as 10s or 5m
    #[arg(long, value_name = "TIME", value_parser = time::span)]
    duration: Option<Duration>,
}

impl Capture {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let piped = self.write.as_ref().is_some_and(|path| path.as_os_str() == "-");
        if piped && io::stdout().is_terminal() {
            return Err(Failure::new(
                "pcapng is not for a terminal: pipe it (portolan capture app -w - | wireshark -k -i -), or give a file",
            ));
        }
        let filter = self.filter.as_deref().map(Filter::new).transpose()?;
        let client = daemon.open()?;
        let mut path = target::find(&client, &self.target)? + "/capture";
        if let Some(bytes) = self.snaplen {
            path += &format!("?snaplen={bytes}");
        }
        let target = match &self.write {
            None => Target::Listing(Listing::default()),
            Some(_) if piped => Target::Pipe(Box::new(io::stdout().lock())),
            Some(path) => Target::Path(path.clone()),
        };
        if path.starts_with("/v1/networks/") && self.direction.is_none() {
            output::note(
                "a network's frames are seen where they come in and at each port they go out; --direction out shows each once",
            );
        }
        let mut sink = Sink::new(target, filter, self.direction, self.count);
        let mut fault = None;
        let ended = client.capture(&path, self.duration, &mut |chunk| match sink.take(chunk) {
            Ok(true) => Wanted::End,
            Ok(false) => Wanted::More,
            Err(error) => {
                fault = Some(error);
                Wanted::Nothing
            }
        });
        self.conclude(&sink, fault)?;
        if sink.has_begun() {
            output::note(&sink.summary());
        }
        match (ended?, sink.remark()) {
            (_, Some(why)) => {
                return Err(Failure::new(format!("the daemon ended the capture: {why}")));
            }
            (CaptureEnd::Asked, None) => {}
            (CaptureEnd::Over, None) => {
                output::note(&format!(
                    "{} is not there any more; its capture is over",
                    self.target
                ));
            }
        }
        Ok(0)
    }

    /// What went wrong with the writing, if anything did.
    fn conclude(&self, sink: &Sink, fault: Option<Fault>) -> Result<(), Failure> {
        let file = self.write.as_ref().filter(|path| path.as_os_str() != "-");
        let path = file.map_or_else(|| "stdout".to_owned(), |path| path.display().to_string());
        match fault {
            None => Ok(()),
            Some(Fault::Stream(error)) => {
                Err(Failure::new(format!("the daemon's stream is malformed: {error}")))
            }
            Some(Fault::Write(error)) if error.kind() == io::ErrorKind::StorageFull => {
                Err(Failure::new(format!(
                    "the disk is full: {path} ends after {} frames, and can be read up to there",
                    sink.written()
                )))
            }
            Some(Fault::Write(error)) => Err(Failure::new(format!("cannot write {path}: {error}"))),
        }
    }
}

/// Writes all of it at once, so that a reader at the other end of a pipe sees it.
fn pass_on(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}
