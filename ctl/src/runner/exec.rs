//! `portolan exec`: one more program in a node that runs.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use capctl::caps::CapSet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, getuid, setgid, setgroups, setuid};

use super::program::{self, Outcome, Program, Refusal, code};
use super::signals::{Held, Source, pass_on};
use super::{capabilities, complain};
use crate::api::client::Client;
use crate::api::types::NodeDetail;
use crate::namespace::user::open_pidfd;

/// The namespaces that make a node, by their names under /proc/PID/ns.
const NAMESPACES: [(&str, CloneFlags); 6] = [
    ("user", CloneFlags::CLONE_NEWUSER),
    ("net", CloneFlags::CLONE_NEWNET),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
];

/// Runs a program in the node of this name or id, with the caller's environment, `env` and the node's capabilities. Prints
/// errors itself; returns the exit code, as [`super::run`] does. The process must have one thread.
pub fn exec(
    client: &Client,
    node: &str,
    env: Vec<(String, String)>,
    command: Vec<OsString>,
) -> i32 {
    program::close_inherited();
    let ended = start(client, node, &env, &command).map(|(child, source)| attend(child, source));
    ended.unwrap_or_else(|refusal| {
        complain(&refusal.message);
        refusal.code
    })
}

/// A running node, held fast so that another process under the same number cannot be taken for it.
struct Inside {
    pidfd: OwnedFd,
    pid: u32,
}

impl Inside {
    fn find(client: &Client, node: &str) -> Result<Inside, Refusal> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if node.is_empty() || !node.bytes().all(is_plain) {
            return Err(Refusal::ours(format!(
                "{node:?} cannot name a node; `portolan ps` lists them"
            )));
        }
        let look = || {
            let detail: NodeDetail =
                client.get(&format!("/v1/nodes/{node}")).map_err(|f| Refusal::ours(f.message))?;
            let gone =
                || Refusal::ours(format!("{node} does not run; start it anew with `portolan run`"));
            if !detail.state.running {
                return Err(gone());
            }
            if detail.state.pid == 0 {
                let way = "there is no process in it to join; use `ip netns exec`";
                return Err(Refusal::ours(format!(
                    "{node} is a network namespace by itself: {way}"
                )));
            }
            Ok(detail.state.pid)
        };
        let pid = look()?;
        let pidfd =
            open_pidfd(pid).map_err(Refusal::failed(&format!("find the process of {node}")))?;
        // The number was right when the daemon looked again after we had taken hold of it.
        if look()? != pid {
            return Err(Refusal::ours(format!("{node} was just replaced; try again")));
        }
        Ok(Inside { pidfd, pid })
    }

    /// Which of its namespaces are not ours: those are to be joined.
    fn foreign(&self) -> io::Result<CloneFlags> {
        let mut flags = CloneFlags::empty();
        for (name, flag) in NAMESPACES {
            let theirs = fs::read_link(format!("/proc/{}/ns/{name}", self.pid))?;
            if theirs != fs::read_link(format!("/proc/self/ns/{name}"))? {
                flags |= flag;
            }
        }
        Ok(flags)
    }
}

fn start(
    client: &Client,
    node: &str,
    env: &[(String, String)],
    command: &[OsString],
) -> Result<(Pid, Source), Refusal> {
    let program = Program::new(command, env)?;
    let inside = Inside::find(client, node)?;
    let entering = || Refusal::failed("enter the node");
    let allowed = capabilities::bounding_of(inside.pid).map_err(entering())?;
    let foreign = inside.foreign().map_err(entering())?;
    let here = std::env::current_dir();
    let held = Held::hold().map_err(Refusal::failed("hold signals back"))?;
    let outcome = Outcome::new().map_err(Refusal::failed("make a pipe"))?;
    if !foreign.is_empty() {
        setns(&inside.pidfd, foreign).map_err(io::Error::from).map_err(entering())?;
    }
    drop(inside);
    // SAFETY: this process has one thread, so its copy may do anything.
    match unsafe { fork() }.map_err(io::Error::from).map_err(entering())? {
        ForkResult::Child => {
            let outcome = outcome.into_writer();
            let ready = settle(here.ok(), allowed, foreign).and_then(|()| held.release());
            become_program(&program, ready, outcome)
        }
        ForkResult::Parent { child } => {
            let source = held.descriptor().map_err(Refusal::failed("read signals"))?;
            if let Err(refusal) = outcome.wait() {
                let _ = waitpid(child, None);
                return Err(refusal);
            }
            Ok((child, source))
        }
    }
}

/// Takes the place of a process of the node: its directory, its rights and no more.
fn settle(here: Option<PathBuf>, allowed: CapSet, foreign: CloneFlags) -> io::Result<()> {
    capctl::prctl::set_pdeathsig(Some(libc::SIGKILL))
        .map_err(|error| io::Error::from_raw_os_error(error.code()))?;
    if here.is_none_or(|here| std::env::set_current_dir(here).is_err()) {
        std::env::set_current_dir("/")?;
    }
    if foreign.contains(CloneFlags::CLONE_NEWUSER) && is_nobody(getuid())? {
        // Root has come into the namespace of a user who has no name for it there.
        let _ = setgroups(&[]);
        setgid(Gid::from_raw(0))?;
        setuid(Uid::from_raw(0))?;
    }
    capabilities::bound(allowed)?;
    capabilities::limit(allowed)
}

/// Whether this id is what the kernel shows for ids without a mapping.
fn is_nobody(uid: Uid) -> io::Result<bool> {
    let text = fs::read_to_string("/proc/sys/kernel/overflowuid")?;
    Ok(text.trim() == uid.to_string())
}

fn become_program(program: &Program, ready: io::Result<()>, outcome: File) -> ! {
    let refusal = match ready {
        Ok(()) => program.execute(),
        Err(error) => Refusal::failed("enter the node")(error),
    };
    program::give_up(outcome, &refusal)
}

/// Passes signals on until the program ends; returns its exit code.
fn attend(child: Pid, mut source: Source) -> i32 {
    loop {
        let _ = poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        while let Some(signal) = source.next() {
            if signal.number != libc::SIGCHLD && !signal.from_terminal {
                pass_on(child.as_raw(), signal.number);
            }
        }
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => return code::SIGNALLED + signal as i32,
            Err(_) => return code::OURS,
            _ => {}
        }
    }
}
