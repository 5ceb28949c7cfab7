//! The mounts of a node: everything of the host's files, less what would lead around its network.
//!
//! All of this happens in a mount namespace of the caller's own, inside a user namespace where it is root. Mounts that came
//! with the namespace are locked to each other, which is why trees are always bound whole (mount_namespaces(7)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Where the host's name services listen. A program that reached them would be answered with the host's names.
const NAME_SERVICES: [&str; 3] = ["systemd/resolve", "nscd", "avahi-daemon"];

/// Directories that may carry the staging area for a moment; every system has one of them.
const STAGES: [&str; 5] = ["/tmp", "/run", "/mnt", "/var", "/root"];

/// What every mount of ours forbids.
fn inert() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

/// Cuts the mount namespace off: what is mounted on the host later still appears here, nothing goes the other way.
pub fn seclude() -> io::Result<()> {
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?)
}

/// A fresh /proc for a PID namespace of our own. Where part of the old one is covered (as in containers) the kernel
/// refuses one, and the old one stays: it shows more processes, but /proc/self is right.
pub fn renew_proc() {
    let _ = mount(Some("proc"), "/proc", Some("proc"), inert(), None::<&str>);
}

/// A fresh /sys for a network namespace of our own, with the control groups of the old one. Where the kernel refuses one
/// the old one stays; an old one that is read-only makes the new one so.
pub fn renew_sys(stage: &Stage) {
    let groups = Path::new("/sys/fs/cgroup");
    let aside = stage
        .dir("cgroup")
        .ok()
        .filter(|aside| groups.is_dir() && bind_tree(groups, aside).is_ok());
    let fresh =
        |flags: MsFlags| mount(Some("sysfs"), "/sys", Some("sysfs"), inert() | flags, None::<&str>);
    if fresh(MsFlags::empty()).or_else(|_| fresh(MsFlags::MS_RDONLY)).is_ok()
        && let Some(aside) = aside
    {
        let _ = bind_tree(&aside, groups);
    }
}

/// Covers the host's name services, each that exists.
pub fn cover_name_services() -> io::Result<()> {
    let mut bases = vec![Path::new("/run")];
    if fs::symlink_metadata("/var/run").is_ok_and(|facts| facts.is_dir()) {
        bases.push(Path::new("/var/run"));
    }
    for base in bases {
        for service in NAME_SERVICES {
            cover(&base.join(service))?;
        }
    }
    Ok(())
}

/// Covers a directory with an empty one that stays empty; one that does not exist needs no cover.
pub fn cover(dir: &Path) -> io::Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    Ok(mount(
        Some("portolan"),
        dir,
        Some("tmpfs"),
        inert() | MsFlags::MS_RDONLY,
        Some("mode=755,size=4k"),
    )?)
}

/// Makes the tree of mounts at `from` appear at `to` too.
pub fn bind_tree(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?)
}

/// A private tmpfs that serves as a store room while mounts are rearranged. It covers a directory of the host until it is
/// dropped; what has been mounted from it lives on.
pub struct Stage {
    at: PathBuf,
}

impl Stage {
    /// Puts one up.
    pub fn put_up() -> io::Result<Stage> {
        let at = STAGES
            .iter()
            .map(PathBuf::from)
            .find(|dir| dir.is_dir())
            .ok_or(io::ErrorKind::NotFound)?;
        mount(Some("portolan"), &at, Some("tmpfs"), inert(), Some("mode=755,size=1m"))?;
        Ok(Stage { at })
    }

    /// A directory in it, made if need be.
    pub fn dir(&self, name: &str) -> io::Result<PathBuf> {
        let dir = self.at.join(name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(dir),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = umount2(&self.at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }
}
