//! Whether a file is sound, found out on a copy.
//!
//! redb meets some kinds of damage with a panic. Where panics unwind it is caught here; where they abort (release) the hook
//! that runs before says what is wrong with which file, as any other refusal to start, and ends the process.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, StorageBackend, StorageError};

use super::{StoreError, database_error, shown};

/// The largest file that can be ours: 4096 nodes and 1024 networks with all their words, twice.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Refuses a file that is damaged or in use. One that does not exist, or is empty, is neither.
pub(super) fn check(path: &Path, cache_bytes: usize) -> Result<(), StoreError> {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(Unread::Missing) => return Ok(()),
        Err(Unread::Locked) => return Err(StoreError::InUse { path: shown(path) }),
        Err(Unread::Failed(error)) => {
            return Err(StoreError::Unusable { path: shown(path), error });
        }
    };
    if bytes.is_empty() {
        return Ok(());
    }
    let sound = guarded(path, || -> Result<bool, DatabaseError> {
        let copy = InMemoryBackend::new();
        copy.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        copy.write(0, &bytes)?;
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes).create_with_backend(copy)?.check_integrity()
    })?;
    match sound {
        Ok(true) => Ok(()),
        Ok(false) => Err(contradiction(path)),
        // Memory does not fail: the file leads to where it has no bytes, or begins like another kind of file.
        Err(DatabaseError::Storage(StorageError::Io(error))) => {
            Err(StoreError::Damaged { path: shown(path), what: error.to_string() })
        }
        Err(error) => Err(database_error(path, error)),
    }
}

enum Unread {
    Missing,
    Locked,
    Failed(io::Error),
}

/// The bytes of a file that nobody has locked, so that none of them is being written.
fn read(path: &Path) -> Result<Vec<u8>, Unread> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unread::Missing,
        _ => Unread::Failed(error),
    })?;
    file.try_lock_shared().map_err(|error| match error {
        TryLockError::WouldBlock => Unread::Locked,
        TryLockError::Error(error) => Unread::Failed(error),
    })?;
    let mut bytes = Vec::new();
    let length = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Unread::Failed)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        let words = format!("it is larger than {FILE_BYTES_MAX} bytes, as no state file is");
        return Err(Unread::Failed(io::Error::new(io::ErrorKind::FileTooLarge, words)));
    }
    Ok(bytes)
}

fn contradiction(path: &Path) -> StoreError {
    StoreError::Damaged { path: shown(path), what: "its pages contradict each other".into() }
}

/// Does work that a damaged file may make panic; a panic is then damage.
fn guarded<T>(path: &Path, work: impl FnOnce() -> T) -> Result<T, StoreError> {
    let abrupt = cfg!(panic = "abort");
    if abrupt {
        let (refusal, reader) = (contradiction(path).to_string(), std::thread::current().id());
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if std::thread::current().id() == reader {
                eprintln!("portolan: {refusal}");
                std::process::exit(1);
            }
            usual(info);
        }));
    }
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    if abrupt {
        // The standard hook: nothing of this program sets another.
        drop(panic::take_hook());
    }
    done.map_err(|_| contradiction(path))
}
