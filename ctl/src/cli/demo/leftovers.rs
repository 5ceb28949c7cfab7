//! What demos left that were killed: a directory, and mostly a daemon and nodes that still run.
//!
//! A directory is left over when it is this user's, no process has the id in its name, and nobody holds its lock. (The id
//! alone would not tell a demo of a container that shares /tmp.) Its daemon is asked to remove the nodes and then ended. Where
//! that fails the directory stays, for the next demo or the user.

use std::fs::{DirEntry, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::now;
use super::session::{BELOW, DAEMON_MAX, LOOK_AGAIN, PREFIX, Session};
use crate::cli::output;

/// Cleans away all that is left over, and says so.
pub fn clean_up(program: &str) {
    let Ok(entries) = std::fs::read_dir(BELOW) else { return };
    for entry in entries.flatten() {
        let Some(lock) = left_over(&entry) else { continue };
        let dir = entry.path();
        let place = dir.display().to_string();
        match end(&mut Session::of(dir, program.to_owned(), lock)) {
            Ok(()) => output::note(&format!("cleaned {place} away, which a killed demo had left")),
            Err(why) => output::note(&format!("a killed demo left {place}, which stays: {why}")),
        }
    }
}

/// The lock of a directory that is left over.
fn left_over(entry: &DirEntry) -> Option<File> {
    let name = entry.file_name();
    let pid: u32 = name.to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
    if pid != std::process::id() && Path::new("/proc").join(pid.to_string()).exists() {
        return None;
    }
    let about = entry.metadata().ok()?;
    if !about.is_dir() || about.uid() != geteuid().as_raw() {
        return None;
    }
    let lock = File::open(entry.path()).ok()?;
    lock.try_lock().ok()?;
    Some(lock)
}

/// Ends what runs there, and deletes the directory.
fn end(session: &mut Session) -> Result<(), String> {
    if UnixStream::connect(session.socket()).is_ok() {
        session.remove_nodes()?;
        let keeper = match session.run(&["info", "-f", "{{.KeeperPid}}"])? {
            Some(told) if told.code == 0 => told.stdout.trim().parse().ok(),
            _ => None,
        };
        stop(keeper.ok_or("its daemon does not say who its keeper is")?)?;
    }
    session.remove_dir().map_err(|failure| failure.message)
}

/// Ends a keeper, and the daemon with it.
fn stop(keeper: i32) -> Result<(), String> {
    // Zero and less would mean groups of processes.
    if keeper <= 1 {
        return Err("its daemon has no keeper any more".into());
    }
    let keeper = Pid::from_raw(keeper);
    let start: Instant = now();
    let mut sent = kill(keeper, Signal::SIGTERM);
    while sent != Err(Errno::ESRCH) {
        if start.elapsed() > DAEMON_MAX {
            return Err(format!("its keeper, process {keeper}, does not stop"));
        }
        std::thread::sleep(LOOK_AGAIN);
        sent = kill(keeper, None);
    }
    Ok(())
}
