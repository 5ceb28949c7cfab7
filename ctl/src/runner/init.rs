//! PID 1 of a node: sets the node up from inside, starts the program, and stays to reap.
//!
//! It lives as long as the program; when it ends, the kernel ends everything else in its PID namespace. It dies with the
//! runner, which is its parent, so that a killed runner leaves nothing behind.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use capctl::caps::{Cap, CapSet};
use netlink_packet_route::link::LinkFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use serde::{Deserialize, Serialize};

use super::capabilities;
use super::program::{self, Program, Refusal, code};
use super::signals::{Held, Source, pass_on};
use crate::api::types::EtcFiles;
use crate::namespace::netlink::Netlink;
use crate::namespace::{channel, etc, mount};

/// What is settled before the process starts.
pub struct Plan {
    /// What to run.
    pub program: Program,
    /// What it may do.
    pub capabilities: CapSet,
    /// Whether it has a network namespace of its own.
    pub own_network: bool,
    /// Its standard input, and its standard output and error, where they are not the runner's.
    pub streams: Option<(OwnedFd, OwnedFd)>,
}

/// What the runner knows only once the daemon has made the node.
#[derive(Serialize, Deserialize)]
pub struct Setup {
    /// The node's id.
    pub id: String,
    /// Its hostname.
    pub hostname: String,
    /// Its files of /etc; none where it uses the host's.
    pub etc: Option<EtcFiles>,
    /// Directories of ours that it must not see.
    pub covered: Vec<PathBuf>,
    /// Which groups may use ping sockets.
    pub ping_groups: String,
}

/// Runs PID 1, told by `control` when the node is ready. `outcome` tells the runner whether the program started.
pub fn main(plan: &Plan, held: &Held, control: OwnedFd, outcome: File) -> ! {
    // The runner's end of `control` closes with it: a runner that died before this line shows there.
    let _ = capctl::prctl::set_pdeathsig(Some(libc::SIGKILL));
    let _ = capctl::prctl::set_dumpable(true);
    let _ = capctl::prctl::set_name("portolan-init");
    let mut kept = vec![control.as_raw_fd(), outcome.as_raw_fd()];
    if let Some((input, output)) = &plan.streams {
        kept.extend([input.as_raw_fd(), output.as_raw_fd()]);
    }
    program::close_all_but(&kept);
    let Ok((setup, _)) = channel::receive::<Setup>(control.as_fd(), None) else {
        std::process::exit(code::OURS)
    };
    drop(control);
    let started = prepare(plan, &setup).and_then(|()| start(plan, held, &outcome));
    match started {
        Ok((child, source)) => {
            drop(outcome);
            tend(child, source)
        }
        Err(refusal) => program::give_up(outcome, &refusal),
    }
}

/// Makes the node look as it should.
fn prepare(plan: &Plan, setup: &Setup) -> Result<(), Refusal> {
    let usual = umask(Mode::from_bits_truncate(0o022));
    let here = std::env::current_dir();
    mounts(plan, setup)?;
    nix::unistd::sethostname(setup.hostname.trim())
        .map_err(io::Error::from)
        .map_err(Refusal::failed("set the hostname"))?;
    if plan.own_network {
        network(setup).map_err(Refusal::failed("bring lo up"))?;
    }
    // The directory that we stand in may have been covered: find it again by its name.
    if here.and_then(std::env::set_current_dir).is_err() {
        std::env::set_current_dir("/").map_err(Refusal::failed("enter /"))?;
    }
    umask(usual);
    if let Some((input, output)) = &plan.streams {
        let streams = [Some(input), Some(output), Some(output)];
        program::redirect(streams).map_err(Refusal::failed("redirect the output"))?;
    }
    Ok(())
}

fn mounts(plan: &Plan, setup: &Setup) -> Result<(), Refusal> {
    mount::seclude().map_err(Refusal::failed("cut the mounts off from the host's"))?;
    {
        let stage = mount::Stage::put_up().map_err(Refusal::failed("mount a tmpfs"))?;
        if let Some(files) = &setup.etc {
            etc::install(&stage, files, &setup.id)
                .map_err(Refusal::failed("make an /etc of its own"))?;
        }
        mount::renew_proc();
        if plan.own_network {
            mount::renew_sys(&stage);
        }
    }
    if plan.own_network {
        mount::cover_name_services().map_err(Refusal::failed("cover the host's name services"))?;
    }
    for dir in &setup.covered {
        mount::cover(dir).map_err(Refusal::failed("cover our own directories"))?;
    }
    Ok(())
}

fn network(setup: &Setup) -> io::Result<()> {
    Netlink::open()?.set_link(1, LinkFlags::Up, LinkFlags::empty(), vec![])?;
    // Conveniences that a container's root has too; a read-only /proc/sys does without.
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", &setup.ping_groups);
    let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    Ok(())
}

/// Gives up what the node may not do, and forks the program off.
fn start(plan: &Plan, held: &Held, outcome: &File) -> Result<(Pid, Source), Refusal> {
    let limited = || Refusal::failed("limit the capabilities");
    capabilities::bound(plan.capabilities).map_err(limited())?;
    let source = held.descriptor().map_err(Refusal::failed("read signals"))?;
    let telling = outcome.try_clone().map_err(Refusal::failed("start the program"))?;
    // SAFETY: this process has one thread, so its copy may do anything.
    match unsafe { fork() }
        .map_err(io::Error::from)
        .map_err(Refusal::failed("start the program"))?
    {
        ForkResult::Child => {
            let ready = capabilities::limit(plan.capabilities).and_then(|()| held.release());
            let refusal = match ready {
                Ok(()) => plan.program.execute(),
                Err(error) => Refusal::failed("start the program")(error),
            };
            program::give_up(telling, &refusal)
        }
        ForkResult::Parent { child } => {
            // To pass signals on to a program that has changed its uid takes one capability, wanted or not.
            let own = plan.capabilities | CapSet::from_iter([Cap::KILL]);
            capabilities::limit(own).map_err(limited())?;
            Ok((child, source))
        }
    }
}

/// Reaps, and passes signals on, until the program ends; then exits as it did.
fn tend(child: Pid, mut source: Source) -> ! {
    loop {
        let _ = poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        while let Some(signal) = source.next() {
            if signal.number != libc::SIGCHLD && !signal.from_terminal {
                pass_on(child.as_raw(), signal.number);
            }
        }
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match status {
                WaitStatus::StillAlive => break,
                WaitStatus::Exited(pid, status) if pid == child => std::process::exit(status),
                WaitStatus::Signaled(pid, signal, _) if pid == child => {
                    std::process::exit(code::SIGNALLED + signal as i32)
                }
                _ => {}
            }
        }
    }
}
