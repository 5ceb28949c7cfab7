//! What can only be known by trying: namespaces, and what a wire is made of inside them. A process of its own tries, for it
//! does not come back out of its namespaces.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use portolan::namespace::link::VethPair;
use portolan::namespace::netlink::Netlink;
use portolan::namespace::user;
use portolan_switch::ids::MacAddr;

/// Exit codes of the process that tries, beyond those that are numbers of errors.
const NO_PACKET_SOCKET: i32 = 201;
/// As above.
const NO_VETH: i32 = 202;

/// What no wire can be made without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanting {
    /// Sockets of AF_PACKET.
    PacketSocket,
    /// Pairs of virtual Ethernet devices.
    Veth,
}

impl Wanting {
    /// What was found.
    pub fn finding(self) -> &'static str {
        match self {
            Wanting::PacketSocket => {
                "no packet sockets in a namespace of its own: nothing carries frames"
            }
            Wanting::Veth => "no veth pairs in a namespace of its own: no node gets an interface",
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Wanting::PacketSocket => {
                "as root: modprobe af_packet; in a container, allow sockets of AF_PACKET in its seccomp profile"
            }
            Wanting::Veth => {
                "as root: modprobe veth, and a line `veth` in /etc/modules-load.d/veth.conf"
            }
        }
    }
}

/// Tries in a process of its own: why there are no namespaces, and what is wanting in them.
pub fn run() -> (Result<(), String>, Result<(), Wanting>) {
    let mut probe = Command::new("/proc/self/exe");
    probe.arg("try-namespaces").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match probe.status() {
        Ok(status) => judge(status.code()),
        Err(error) => (Err(format!("cannot start a process: {error}")), Ok(())),
    }
}

/// What the exit code of that process says. Without namespaces there is nothing to be said of wires.
fn judge(code: Option<i32>) -> (Result<(), String>, Result<(), Wanting>) {
    match code {
        Some(0) => (Ok(()), Ok(())),
        Some(NO_PACKET_SOCKET) => (Ok(()), Err(Wanting::PacketSocket)),
        Some(NO_VETH) => (Ok(()), Err(Wanting::Veth)),
        code => {
            let error = std::io::Error::from_raw_os_error(code.unwrap_or(Errno::EPERM as i32));
            (Err(user::why_no_namespaces(&error)), Ok(()))
        }
    }
}

/// What `doctor` starts. 0 where all works; the errno of making the namespaces; or what is wanting in them.
pub fn try_namespaces_here() -> i32 {
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
    if let Err(errno) = nix::sched::unshare(flags) {
        return errno as i32;
    }
    if socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).is_err() {
        return NO_PACKET_SOCKET;
    }
    let made = File::open("/proc/self/ns/net").and_then(|here| {
        Netlink::open()?.make_veth(&VethPair {
            name: "trial0",
            peer_name: "trial1",
            peer_netns: here.as_fd(),
            peer_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
        })
    });
    if made.is_ok() { 0 } else { NO_VETH }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_the_trial_says_what_is_wanting() {
        assert_eq!(judge(Some(0)), (Ok(()), Ok(())));
        assert_eq!(judge(Some(NO_PACKET_SOCKET)), (Ok(()), Err(Wanting::PacketSocket)));
        assert_eq!(judge(Some(NO_VETH)), (Ok(()), Err(Wanting::Veth)));
        for code in [Some(Errno::ENOSPC as i32), Some(Errno::EPERM as i32), None] {
            let (namespaces, wires) = judge(code);
            assert!(namespaces.is_err() && wires.is_ok(), "{code:?}");
        }
    }

    #[test]
    fn no_errno_is_taken_for_another_end() {
        assert!(
            [NO_PACKET_SOCKET, NO_VETH]
                .iter()
                .all(|code| Errno::from_raw(*code) == Errno::UnknownErrno)
        );
    }
}
