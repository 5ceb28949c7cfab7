//! `portolan logs`: the output of a detached node, from the files its runner writes.
//!
//! The runner writes to one file and, when that is full, renames it to `FILE.1` and begins anew. So a reader shows `FILE.1`
//! before `FILE`, and while it follows it looks whether `FILE` has become another file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use portolan::api::client::{Client, Failure};
use portolan::api::types::NodeDetail;

use super::{DaemonChoice, node};

/// How often a follower looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Looks between two questions whether the node still runs.
const LOOKS_PER_QUESTION: u32 = 5;

#[derive(Args, Debug)]
pub struct Logs {
    /// Go on until the node ends
    #[arg(short, long)]
    follow: bool,
    /// Name or id of the node
    node: String,
}

impl Logs {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let client = daemon.open()?;
        let detail: NodeDetail = client.get(&node::path(&self.node)?)?;
        if detail.log_path.is_empty() {
            return Err(Failure::new(format!(
                "{} has no log: only what runs with -d has one",
                detail.name
            )));
        }
        let path = PathBuf::from(&detail.log_path);
        let failed = |e: io::Error| Failure::new(format!("cannot read {}: {e}", path.display()));
        let mut before = path.clone().into_os_string();
        before.push(".1");
        match File::open(&before) {
            Ok(mut file) => copy(&mut file).map_err(failed)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        let mut file = File::open(&path).map_err(failed)?;
        copy(&mut file).map_err(failed)?;
        if self.follow {
            follow(&client, &detail, &path, file).map_err(failed)?;
        }
        Ok(0)
    }
}

/// Shows what is added until the node ends or is gone.
fn follow(client: &Client, detail: &NodeDetail, path: &Path, mut file: File) -> io::Result<()> {
    loop {
        let runs = still_runs(client, detail);
        for _ in 0..LOOKS_PER_QUESTION {
            copy(&mut file)?;
            if let Some(next) = replaced(path, &file)? {
                copy(&mut file)?;
                file = next;
            }
            if !runs {
                return copy(&mut file);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

fn still_runs(client: &Client, detail: &NodeDetail) -> bool {
    let now = node::path(&detail.id).and_then(|path| client.get::<NodeDetail>(&path));
    now.is_ok_and(|now| now.state.running)
}

/// The new file, if another has taken the place of `file`.
fn replaced(path: &Path, file: &File) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(next) if next.metadata()?.ino() != file.metadata()?.ino() => Ok(Some(next)),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn copy(file: &mut File) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut chunk = [0; 16 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => return out.flush(),
            n => out.write_all(chunk.get(..n).unwrap_or_default())?,
        }
    }
}
