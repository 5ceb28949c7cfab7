//! Where the daemon of a user keeps its things.

use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{User, getuid};

/// The state directory: `$XDG_STATE_HOME/portolan`, for root `/var/lib/portolan`.
pub fn state_dir() -> PathBuf {
    if getuid().is_root() {
        return "/var/lib/portolan".into();
    }
    let base = match absolute("XDG_STATE_HOME") {
        Some(dir) => dir,
        None => home().join(".local/state"),
    };
    base.join("portolan")
}

/// The runtime directory: `$XDG_RUNTIME_DIR/portolan`, `/run/user/UID/portolan` where that is ours, else
/// `/tmp/portolan-UID`; for root `/run/portolan`.
pub fn runtime_dir() -> PathBuf {
    let uid = getuid();
    if uid.is_root() {
        return "/run/portolan".into();
    }
    if let Some(dir) = absolute("XDG_RUNTIME_DIR").filter(|dir| owned_by_us(dir)) {
        return dir.join("portolan");
    }
    let login = PathBuf::from(format!("/run/user/{uid}"));
    if owned_by_us(&login) {
        return login.join("portolan");
    }
    PathBuf::from(format!("/tmp/portolan-{uid}"))
}

/// What the /etc of a node holds and no other one does: the node's id.
pub const NODE_MARK: &str = "/etc/portolan-node";

/// Whether this process runs inside a node, where no daemon is in reach and none is started.
pub fn inside_node() -> bool {
    Path::new(NODE_MARK).exists()
}

/// What to do where a directory cannot be had.
const OTHERS: &str = "give portolan daemon other directories with --state and --runtime, and name its api.sock with --host";

/// Makes a directory that is ours alone, or checks that it is one. The error is a line for the user.
pub fn private_dir(dir: &Path) -> Result<(), String> {
    if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        return Err(format!("cannot make {}: {error}; {OTHERS}", dir.display()));
    }
    let facts = std::fs::symlink_metadata(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    if !facts.is_dir() || facts.uid() != getuid().as_raw() {
        return Err(format!("{} is not a directory of ours; {OTHERS}", dir.display()));
    }
    if facts.mode() & 0o077 != 0 {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(dir, private)
            .map_err(|e| format!("cannot make {} private: {e}", dir.display()))?;
    }
    Ok(())
}

fn owned_by_us(dir: &Path) -> bool {
    std::fs::metadata(dir).is_ok_and(|facts| facts.is_dir() && facts.uid() == getuid().as_raw())
}

fn absolute(variable: &str) -> Option<PathBuf> {
    let value: OsString = std::env::var_os(variable)?;
    Some(PathBuf::from(value)).filter(|path| path.is_absolute())
}

fn home() -> PathBuf {
    let passwd = || User::from_uid(getuid()).ok().flatten().map(|user| user.dir);
    absolute("HOME").or_else(passwd).unwrap_or_else(|| "/".into())
}
