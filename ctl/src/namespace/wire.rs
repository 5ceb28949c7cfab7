//! Wires: how a port of the switch comes to be in somebody else's network namespace.
//!
//! A wire is a veth pair, as a rule. One end is the guest's interface, in its network namespace C. The other lies in a
//! namespace S that no process lives in and that the wire's descriptors alone keep alive: closing them all takes the wire away.
//! The daemon cannot go there (it has threads, and no privilege), so it starts itself anew as a *step* (`portolan wire-step`),
//! which joins the guest's namespaces, makes the pair, and passes two sockets of S out. The step holds nothing afterwards.
//!
//! Where a TAP device is asked for, it is made in S and moved into C, and its descriptor is passed out in place of the packet
//! socket. Made in C, the descriptor would keep C alive when all that lived there has ended, and nobody would be told.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use ipnet::IpNet;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use portolan_switch::ids::MacAddr;
use serde::{Deserialize, Serialize};

use super::channel;
use super::user::pid_of;
use crate::api::types::EtcFiles;
use crate::paths::NODE_MARK;
use crate::topology::WireKind;

pub use super::step::{THEIRS, step_main};

/// The hidden subcommand that runs [`step_main`].
pub const STEP_COMMAND: &str = "wire-step";

/// How long a step may take. It waits for the kernel's RCU, not for people.
const STEP_SECONDS_MAX: u64 = 10;

/// Where a wire goes.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// The network namespace of a process, by its pidfd; its user namespace is joined too.
    Process(BorrowedFd<'a>),
    /// A network namespace of our own user namespace, as `ip netns add` makes; needs root.
    Netns(BorrowedFd<'a>),
}

/// The guest's end of a wire to be made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WireSpec {
    /// What it is made of.
    pub kind: WireKind,
    /// The name of the interface.
    pub ifname: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its addresses, with the prefix lengths of their subnets.
    pub addresses: Vec<IpNet>,
    /// The IPv4 default route, where it is to lead here.
    pub gateway4: Option<Ipv4Addr>,
    /// The IPv6 default route, where it is to lead here.
    pub gateway6: Option<Ipv6Addr>,
    /// Whether the interface comes up without addresses and routes, and whoever lives there sees to them: the kernel to IPv6
    /// by its own rules, link-local address and router advertisements included.
    pub bare: bool,
    /// Whether the interface speaks IPv6, and so has its link-local address.
    pub ipv6: bool,
    /// The MTU, in bytes.
    pub mtu: u16,
    /// The most bytes of a superframe.
    pub gso_max_size: u32,
}

/// Our side of a wire. A veth wire lives while one of its descriptors is open, a TAP while copies of the first are.
#[derive(Debug)]
pub struct Wire {
    /// What frames go through: a packet socket of S, not bound yet (`socket(AF_PACKET, SOCK_RAW, 0)`), or a TAP device.
    pub descriptor: OwnedFd,
    /// The index of our end in S, or of the TAP device in C.
    pub ifindex: u32,
    /// An rtnetlink socket of S, non-blocking, subscribed to link events.
    pub netlink: OwnedFd,
}

/// What a step is asked; the target's descriptor travels with it.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) is_process: bool,
    pub(super) task: Task,
}

/// What a step does once it has joined the target.
#[derive(Serialize, Deserialize)]
pub(super) enum Task {
    Make(WireSpec),
    Route { gateway4: Option<(String, Ipv4Addr)>, gateway6: Option<(String, Ipv6Addr)> },
}

/// What a step answers: the index that [`Wire`] has (0 where nothing was made), or why not.
pub(super) type Answer = Result<u32, String>;

/// Makes a wire into `target`. Blocks for some milliseconds, at most ten seconds; on failure nothing is left.
pub fn make(target: Target<'_>, spec: &WireSpec) -> Result<Wire, String> {
    let (ifindex, descriptors) = step(target, Task::Make(spec.clone()))?;
    let Ok([descriptor, netlink]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return Err("the wire step did not pass its two descriptors".into());
    };
    Ok(Wire { descriptor, ifindex, netlink })
}

/// Makes the given gateways the default routes of `target`, each behind the interface of that name. A family without one
/// loses the default route that we gave it.
pub fn route(
    target: Target<'_>,
    gateway4: Option<(String, Ipv4Addr)>,
    gateway6: Option<(String, Ipv6Addr)>,
) -> Result<(), String> {
    step(target, Task::Route { gateway4, gateway6 }).map(drop)
}

/// Names the program that runs steps, in place of the one that calls; for programs that are not `portolan` themselves.
/// The first call counts.
pub fn use_program(path: PathBuf) {
    let _ = PROGRAM.set(path);
}

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

fn step(target: Target<'_>, task: Task) -> Result<(u32, Vec<OwnedFd>), String> {
    let (is_process, fd) = match target {
        Target::Process(fd) => (true, fd),
        Target::Netns(fd) => (false, fd),
    };
    let failed = |error: io::Error| format!("cannot run the wire step: {error}");
    let (ours, theirs) = channel::pair().map_err(failed)?;
    // The link to ourselves names the very file that runs, even after an upgrade has replaced it.
    let program = PROGRAM.get().map_or(Path::new("/proc/self/exe"), PathBuf::as_path);
    let child = Command::new(program)
        .arg0("portolan")
        .arg(STEP_COMMAND)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let _child = Reaped(child);
    channel::send(ours.as_fd(), &Request { is_process, task }, &[fd]).map_err(failed)?;
    let limit = Duration::from_secs(STEP_SECONDS_MAX);
    match channel::receive::<Answer>(ours.as_fd(), Some(limit)) {
        Ok((Ok(ifindex), descriptors)) => Ok((ifindex, descriptors)),
        Ok((Err(message), _)) => Err(message),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(format!("the wire step took longer than {STEP_SECONDS_MAX} s and was given up"))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err("the wire step ended without an answer".into())
        }
        Err(error) => Err(failed(error)),
    }
}

/// A child that does not outlive its owner.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // A step that has answered is on its way out: killing it changes nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rewrites a running node's resolv.conf and hosts in place: the same files, so that programs that hold them open see it.
///
/// Only an /etc that is a node's own is written: one that differs from ours and holds our marker. Links that the node has
/// put there are not followed.
pub fn write_etc(process: BorrowedFd<'_>, files: &EtcFiles) -> Result<(), String> {
    let number = || pid_of(&process).map_err(|_| "the process has ended".to_string());
    let pid = number()?;
    let failed = |what: &'static str| {
        move |error: io::Error| format!("cannot rewrite {what} of process {pid}: {error}")
    };
    let root = File::open(format!("/proc/{pid}/root")).map_err(failed("/etc"))?;
    // While the process is not reaped its number means no other, so what was opened is its root.
    number()?;
    let open = |path: &str, flags: OFlag| -> io::Result<File> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
        Ok(openat2(&root, path, how)?.into())
    };
    let etc_dir =
        open("etc", OFlag::O_DIRECTORY).and_then(|dir| dir.metadata()).map_err(failed("/etc"))?;
    let ours = fs::metadata("/etc").map_err(failed("/etc"))?;
    open(NODE_MARK.trim_start_matches('/'), OFlag::O_RDONLY).map_err(failed("/etc"))?;
    if (ours.dev(), ours.ino()) == (etc_dir.dev(), etc_dir.ino()) {
        return Err(format!("process {pid} has no /etc of its own; its files are left alone"));
    }
    for (path, text) in [("etc/resolv.conf", &files.resolv_conf), ("etc/hosts", &files.hosts)] {
        let rewrite = || -> io::Result<()> {
            let mut file = open(path, OFlag::O_RDWR)?;
            if !file.metadata()?.is_file() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let mut old = String::new();
            if (&mut file).take(1 << 20).read_to_string(&mut old).is_ok() && old == *text {
                return Ok(());
            }
            // The length comes last: a reader in between finds old lines, never an empty file.
            io::Seek::rewind(&mut file)?;
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)
        };
        rewrite().map_err(failed(path))?;
    }
    Ok(())
}
