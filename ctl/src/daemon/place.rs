//! One daemon per state directory: the lock on it, and where clients learn the socket.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a daemon is to be found; the content of the lock file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Place {
    /// The API socket.
    pub socket: PathBuf,
    /// The keeper.
    pub pid: u32,
}

/// Why a state directory could not be had.
#[derive(Debug)]
pub enum Taken {
    /// Another daemon serves it.
    Served(Option<Place>),
    /// It cannot be locked or written to: a line for the user.
    Unusable(String),
}

impl Place {
    /// What is written in a state directory, if anything is.
    pub fn read(state: &Path) -> Option<Place> {
        let mut text = String::new();
        File::open(lock_path(state)).ok()?.take(4096).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes this place into the state directory that `lock` holds, for clients to follow.
    pub fn write(&self, lock: &mut File, state: &Path) -> Result<(), Taken> {
        let text = serde_json::to_vec(self).map_err(|e| unusable(state, &e))?;
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(&text))
            .map_err(|e| unusable(state, &e))
    }
}

/// Takes the state directory. The lock lives as long as any copy of the descriptor.
pub fn lock(state: &Path) -> Result<File, Taken> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock_path(state));
    let file = file.map_err(|e| unusable(state, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Taken::Served(Place::read(state))),
        Err(TryLockError::Error(error)) => Err(unusable(state, &error)),
    }
}

fn unusable(state: &Path, error: &dyn std::fmt::Display) -> Taken {
    let state = state.display();
    Taken::Unusable(format!(
        "cannot use the state directory {state}: {error}; choose another with --state"
    ))
}

fn lock_path(state: &Path) -> PathBuf {
    state.join("lock")
}
