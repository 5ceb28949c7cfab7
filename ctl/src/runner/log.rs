//! The log of a detached program: what it writes to its standard output and error, in one file that cannot grow for ever.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;

/// How big a log may grow before it is put aside; one old one is kept, under the same name with [`OLD_SUFFIX`].
pub const LOG_BYTES_MAX: u64 = 10 << 20;

/// What the name of a log that was put aside ends in.
pub const OLD_SUFFIX: &str = ".1";

/// How much is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// A log being written.
pub struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
}

impl Log {
    /// A new log in `dir`, which is made if need be, under a name that says nothing.
    pub fn create(dir: &Path) -> io::Result<Log> {
        Log::create_limited(dir, LOG_BYTES_MAX)
    }

    fn create_limited(dir: &Path, limit: u64) -> io::Result<Log> {
        fs::create_dir_all(dir)?;
        let token = SysRng.try_next_u64().map_err(io::Error::other)?;
        let path = dir.join(format!("{token:016x}.log"));
        let file = open(&path)?;
        Ok(Log { path, file, written: 0, limit })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the log away: there is nothing to read in it.
    pub fn discard(&self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.old_path());
    }

    /// Takes over what can be read from `pipe` now; false at its end. What the disk does not take is lost: the program
    /// must not wait for it.
    pub fn take(&mut self, pipe: &mut impl Read) -> bool {
        let mut chunk = vec![0; CHUNK_BYTES];
        match pipe.read(&mut chunk) {
            Ok(0) => false,
            Ok(length) => {
                self.write(&chunk[..length]);
                true
            }
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.written + bytes.len() as u64 > self.limit
            && fs::rename(&self.path, self.old_path()).is_ok()
        {
            if let Ok(file) = open(&self.path) {
                self.file = file;
            }
            self.written = 0;
        }
        if self.file.write_all(bytes).is_ok() {
            self.written += bytes.len() as u64;
        }
    }

    fn old_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(OLD_SUFFIX);
        path.into()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_put_aside_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::create_limited(dir.path(), 10).unwrap();
        for text in ["12345678", "abcdef", "ABCDEF"] {
            assert!(log.take(&mut text.as_bytes()));
        }
        assert_eq!(fs::read_to_string(log.path()).unwrap(), "ABCDEF");
        assert_eq!(fs::read_to_string(log.old_path()).unwrap(), "abcdef");
        assert!(!log.take(&mut &b""[..]));
        log.discard();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
