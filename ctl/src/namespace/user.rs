//! User namespaces: who is in ours, how ids are mapped into a new one, and why there may be none.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{getegid, geteuid};

/// Lets in a peer of a unix socket that lives in our own user namespace and is root or our own user.
///
/// The processes of a node run under the user's uid on the user's files, so the uid alone would let them in. A peer that
/// has gone, or that our PID namespace does not see, is nobody's.
///
/// # Errors
/// A line for the peer: why it is not let in, and what it may do.
pub fn admit(socket: &impl AsFd) -> Result<(), &'static str> {
    const UNSEEN: &str =
        "the daemon cannot see which process asks: run portolan in the daemon's own PID namespace";
    let credentials = getsockopt(socket, sockopt::PeerCredentials).map_err(|_| UNSEEN)?;
    if credentials.uid() != geteuid().as_raw() && credentials.uid() != 0 {
        return Err("the daemon serves nobody but its own user and root: use a daemon of your own");
    }
    // The pidfd outlives a reuse of the number: where the kernel (6.5) gives one, the number is read from it, after the
    // namespace, so that both are of one process.
    let pidfd = peer_pidfd(socket);
    let pid = credentials.pid();
    if pid <= 0 {
        return Err(UNSEEN);
    }
    let theirs = user_namespace_of(pid);
    if let Some(pidfd) = pidfd
        && pid_of(&pidfd).ok() != u32::try_from(pid).ok()
    {
        return Err(UNSEEN);
    }
    match (theirs, own_user_namespace()) {
        (Ok(theirs), Ok(ours)) if theirs == ours => Ok(()),
        (Ok(_), Ok(_)) => Err(
            "the daemon serves nobody in another user namespace than its own: run portolan outside of unshare, podman unshare and containers",
        ),
        _ => Err(UNSEEN),
    }
}

/// Device and inode of the user namespace of a process: its identity.
pub fn user_namespace_of(pid: i32) -> io::Result<(u64, u64)> {
    let meta = fs::metadata(format!("/proc/{pid}/ns/user"))?;
    Ok((meta.dev(), meta.ino()))
}

/// Device and inode of our own user namespace.
pub fn own_user_namespace() -> io::Result<(u64, u64)> {
    let meta = fs::metadata("/proc/self/ns/user")?;
    Ok((meta.dev(), meta.ino()))
}

/// Whether an open file is a network namespace: the kernel says of which type a namespace is, and of other files nothing.
pub fn is_network_namespace(file: &impl AsFd) -> bool {
    nix::ioctl_none_bad!(type_of, libc::NS_GET_NSTYPE);
    // SAFETY: the call takes a descriptor that is open, and touches no memory of ours.
    let kind = unsafe { type_of(file.as_fd().as_raw_fd()) };
    kind.is_ok_and(|kind| kind == libc::CLONE_NEWNET)
}

/// The number of the process behind a pidfd, as our PID namespace counts; an error once it has been reaped.
pub fn pid_of(pidfd: &impl AsFd) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd()))?;
    let pid = text
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|pid| pid.trim().parse::<u32>().ok());
    pid.filter(|pid| *pid != 0).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Sends a signal to the process behind a pidfd, and to no other.
pub fn signal(pidfd: &impl AsFd, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes numbers and a null pointer, and touches no memory of ours.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::c_void>(),
            0,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A pidfd of a process by its number.
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: pidfd_open takes two integers; on success it gives a new descriptor that nobody else owns.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(fd)
}

fn peer_pidfd(socket: &impl AsFd) -> Option<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes one int, for which there is room, and says so in `length`; the descriptor is new and ours.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if result < 0 { None } else { owned(fd.into()).ok() }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(fd) {
        // SAFETY: the caller has just been given this descriptor by the kernel; nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How ids of a new user namespace are mapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdMaps {
    uid: String,
    gid: String,
    /// Without the privilege to map groups, setgroups must be given up first (user_namespaces(7)).
    deny_setgroups: bool,
}

impl IdMaps {
    /// One id: the caller's own, seen inside as root, or with `as_self` as itself.
    pub fn of_user(as_self: bool) -> IdMaps {
        let line = |outside: u32| format!("{} {outside} 1\n", if as_self { outside } else { 0 });
        IdMaps {
            uid: line(geteuid().as_raw()),
            gid: line(getegid().as_raw()),
            deny_setgroups: true,
        }
    }

    /// All ids that we have ourselves, unchanged: for root.
    pub fn identity() -> io::Result<IdMaps> {
        let uid = identity_over(&fs::read_to_string("/proc/self/uid_map")?);
        let gid = identity_over(&fs::read_to_string("/proc/self/gid_map")?);
        Ok(IdMaps { uid, gid, deny_setgroups: false })
    }

    /// The range of group ids that may use ping sockets inside, for `net.ipv4.ping_group_range`.
    pub fn ping_groups(&self) -> String {
        let first = self.gid.split_whitespace().next().unwrap_or("0");
        if self.deny_setgroups { format!("{first} {first}") } else { format!("{first} 2147483647") }
    }

    /// Writes the maps of a process that has just got a user namespace of its own.
    pub fn write(&self, pid: u32) -> io::Result<()> {
        if self.deny_setgroups {
            fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        }
        fs::write(format!("/proc/{pid}/gid_map"), &self.gid)?;
        fs::write(format!("/proc/{pid}/uid_map"), &self.uid)
    }
}

/// The map that leaves every id of `own_map` as it is.
fn identity_over(own_map: &str) -> String {
    let lines = own_map.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (inside, _, count) = (fields.next()?, fields.next()?, fields.next()?);
        Some(format!("{inside} {inside} {count}\n"))
    });
    lines.collect()
}

/// Why no user namespace could be made, in words that name the knob. `error` is what the kernel said.
pub fn why_no_namespaces(error: &io::Error) -> String {
    let knob = |name: &str| {
        fs::read_to_string(format!("/proc/sys/{name}")).map(|text| text.trim().to_string()).ok()
    };
    explain(error, &knob)
}

fn explain(error: &io::Error, knob: &dyn Fn(&str) -> Option<String>) -> String {
    let is = |name: &str, value: &str| knob(name).as_deref() == Some(value);
    let reason = if is("kernel/unprivileged_userns_clone", "0") {
        "kernel.unprivileged_userns_clone is 0; ask root for `sysctl -w kernel.unprivileged_userns_clone=1`".into()
    } else if is("user/max_user_namespaces", "0") {
        "user.max_user_namespaces is 0; ask root for `sysctl -w user.max_user_namespaces=15000`"
            .into()
    } else if is("user/max_net_namespaces", "0") {
        "user.max_net_namespaces is 0; ask root for `sysctl -w user.max_net_namespaces=15000`"
            .into()
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "kernel.apparmor_restrict_unprivileged_userns is 1; ask root for an AppArmor profile for portolan that allows \
         `userns`, or for `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
            .into()
    } else if error.raw_os_error() == Some(libc::ENOSPC) {
        "the limit user.max_user_namespaces (or another in /proc/sys/user) is reached; raise it or end some nodes".into()
    } else if error.raw_os_error() == Some(libc::EPERM) {
        "a seccomp filter, a chroot or the container around us forbids it; run outside of it, or allow unshare and clone \
         with CLONE_NEWUSER there"
            .into()
    } else {
        error.to_string()
    };
    format!("cannot make a user namespace: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> io::Error {
        io::Error::from_raw_os_error(libc::EPERM)
    }

    #[test]
    fn the_identity_map_keeps_every_extent() {
        assert_eq!(
            identity_over("         0       1000          1\n 1 100000 65536\n"),
            "0 0 1\n1 1 65536\n"
        );
    }

    #[test]
    fn each_knob_is_named() {
        for (name, value, word) in [
            ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone"),
            ("user/max_user_namespaces", "0", "user.max_user_namespaces"),
            (
                "kernel/apparmor_restrict_unprivileged_userns",
                "1",
                "kernel.apparmor_restrict_unprivileged_userns",
            ),
        ] {
            let text = explain(&denied(), &|asked| (asked == name).then(|| value.to_string()));
            assert!(text.contains(word) && !text.contains('\n'), "{text}");
        }
        assert!(explain(&denied(), &|_| None).contains("seccomp"));
        assert!(explain(&io::Error::from_raw_os_error(libc::ENOSPC), &|_| None).contains("limit"));
    }

    #[test]
    fn we_are_our_own_peer() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(admit(&a), Ok(()));
    }

    #[test]
    fn a_pidfd_knows_its_process() {
        let pidfd = open_pidfd(std::process::id()).unwrap();
        assert_eq!(pid_of(&pidfd).unwrap(), std::process::id());
    }
}
