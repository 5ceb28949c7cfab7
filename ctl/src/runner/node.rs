//! The runner: makes a node around a program, and stands by until it ends.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};
use serde::de::IgnoredAny;

use super::init::{self, Plan, Setup};
use super::log::Log;
use super::program::{self, Outcome, Program, Refusal, code};
use super::signals::{Held, pass_on};
use super::{RunOptions, capabilities, complain};
use crate::api::client::{Client, Failure};
use crate::api::types::{Info, NodeCreate, NodeExited, NodeKind};
use crate::namespace::channel;
use crate::namespace::user::{IdMaps, why_no_namespaces};
use crate::paths;

/// How often the end of a program is told to a daemon that is just being restarted, and how long between.
const TELL_TRIES: u32 = 60;
const TELL_PAUSE: Duration = Duration::from_millis(50);

/// Runs a program in a new node until it ends. `started` is called with the node's id once the program runs.
pub fn run(
    client: &Client,
    options: &RunOptions,
    started: &mut dyn FnMut(&str) -> Result<(), Refusal>,
) -> i32 {
    let ended = Runner::prepare(client, options).and_then(|runner| runner.run(started));
    ended.unwrap_or_else(|refusal| {
        complain(&refusal.message);
        refusal.code
    })
}

struct Runner<'a> {
    client: &'a Client,
    options: &'a RunOptions,
    held: Held,
    info: Info,
    output: Option<Output>,
}

/// The output of a detached program.
struct Output {
    log: Log,
    pipe: File,
}

/// PID 1 of the node, from outside. Dropped before the program has ended, it is killed.
struct Inside {
    pid: Pid,
    pidfd: OwnedFd,
    is_reaped: bool,
}

impl Drop for Inside {
    fn drop(&mut self) {
        if !self.is_reaped {
            pass_on(self.pid.as_raw(), libc::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

impl<'a> Runner<'a> {
    fn prepare(client: &'a Client, options: &'a RunOptions) -> Result<Runner<'a>, Refusal> {
        let info: Info = client.get("/v1/info").map_err(refused)?;
        let held = Held::hold().map_err(Refusal::failed("hold signals back"))?;
        Ok(Runner { client, options, held, info, output: None })
    }

    fn run(mut self, started: &mut dyn FnMut(&str) -> Result<(), Refusal>) -> Result<i32, Refusal> {
        let made = self.start(started);
        if let (Err(_), Some(output)) = (&made, &self.output) {
            output.log.discard();
        }
        let (id, inside) = made?;
        let code = self.attend(inside);
        self.tell_end(&id, code);
        Ok(code)
    }

    /// All up to the running program; on failure nothing is left.
    fn start(
        &mut self,
        started: &mut dyn FnMut(&str) -> Result<(), Refusal>,
    ) -> Result<(String, Inside), Refusal> {
        let plan = self.plan()?;
        let maps = self.id_maps()?;
        let (control, theirs) = channel::pair().map_err(Refusal::failed("make a channel"))?;
        let outcome = Outcome::new().map_err(Refusal::failed("make a pipe"))?;
        let (control, outcome, inside) = enter(&plan, &self.held, (control, theirs), outcome)?;
        drop(plan);
        maps.write(inside.pid.as_raw() as u32)
            .map_err(|error| Refusal::ours(why_no_namespaces(&error)))?;
        // A daemon that does not answer must not keep Ctrl-C from ending us; the process inside dies with us.
        let signalled = || Refusal::failed("hold signals back");
        self.held.suspend().map_err(signalled())?;
        let made = self.client.create_node(&self.request(&inside), inside.pidfd.as_fd());
        self.held.resume().map_err(signalled())?;
        let (node, etc, warnings) = made.map_err(refused)?;
        warnings.iter().for_each(|warning| complain(warning));
        let setup = Setup {
            id: node.id.clone(),
            hostname: etc.hostname.clone(),
            etc: self.options.has_own_network().then_some(etc),
            covered: self.covered(),
            ping_groups: maps.ping_groups(),
        };
        let sent = channel::send(control.as_fd(), &setup, &[])
            .map_err(Refusal::failed("reach the new process"));
        match sent.and_then(|()| outcome.wait()).and_then(|()| started(&node.id)) {
            Ok(()) => Ok((node.id, inside)),
            Err(refusal) => {
                // First the process, then the node: else the daemon would see it die and note an end.
                drop(inside);
                let _ =
                    self.client.delete::<IgnoredAny>(&format!("/v1/nodes/{}?force=true", node.id));
                Err(refusal)
            }
        }
    }

    fn plan(&mut self) -> Result<Plan, Refusal> {
        let options = self.options;
        let capabilities =
            capabilities::resolve(options.privileged, &options.cap_add, &options.cap_drop);
        let mut plan = Plan {
            program: Program::new(&options.command, &options.env)?,
            capabilities: capabilities.map_err(Refusal::ours)?,
            own_network: options.has_own_network(),
            streams: None,
        };
        if options.detach {
            let failed = || Refusal::failed("make a log");
            let log = Log::create(&self.info.state_dir.join("logs")).map_err(failed())?;
            let null = File::open("/dev/null").map_err(failed())?;
            let (pipe, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
                .map_err(io::Error::from)
                .map_err(failed())?;
            self.output = Some(Output { log, pipe: pipe.into() });
            plan.streams = Some((null.into(), writer));
        }
        Ok(plan)
    }

    fn id_maps(&self) -> Result<IdMaps, Refusal> {
        if geteuid().is_root() {
            IdMaps::identity().map_err(Refusal::failed("read our own id map"))
        } else {
            Ok(IdMaps::of_user(self.options.user_self))
        }
    }

    fn request(&self, inside: &Inside) -> NodeCreate {
        let options = self.options;
        NodeCreate {
            name: options.name.clone(),
            kind: NodeKind::Run,
            hostname: options.hostname.clone(),
            networks: options.networks.clone(),
            publish: options.publish.clone(),
            command: program::words(&options.command),
            pid: u32::try_from(inside.pid.as_raw()).ok(),
            dns: options.dns.clone(),
            dns_search: options.dns_search.clone(),
            extra_hosts: options.extra_hosts.clone(),
            auto_remove: options.remove,
            log_path: self.output.as_ref().map(|output| output.log.path().to_path_buf()),
            ..NodeCreate::default()
        }
    }

    /// Our own directories, as far as they are ours alone: those that hold nothing else.
    fn covered(&self) -> Vec<PathBuf> {
        let socket_dir = self.client.socket().parent().map(Path::to_path_buf);
        let info_dir = self.info.socket.parent().map(Path::to_path_buf);
        let dirs = [socket_dir, info_dir, Some(self.info.state_dir.clone())];
        let usual = [Some(paths::state_dir()), Some(paths::runtime_dir())];
        let home = std::env::var_os("HOME").and_then(|home| fs::canonicalize(home).ok());
        let found =
            dirs.into_iter().chain(usual).flatten().filter_map(|dir| fs::canonicalize(dir).ok());
        let mut found: Vec<PathBuf> = found
            .filter(|dir| {
                fs::metadata(dir).is_ok_and(|facts| is_private(facts.uid(), facts.mode()))
            })
            .filter(|dir| home.as_ref().is_none_or(|home| !home.starts_with(dir)))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// Stands by while the program runs; returns its exit code.
    fn attend(&mut self, mut inside: Inside) -> i32 {
        let pid = inside.pid.as_raw();
        let Ok(mut source) = self.held.descriptor() else { return code::OURS };
        // What arrived before there was a program to get it is passed on, whoever sent it.
        while let Some(signal) = source.next() {
            if signal.number != libc::SIGCHLD {
                pass_on(pid, signal.number);
            }
        }
        let mut has_output = self.output.is_some();
        loop {
            let pipe =
                self.output.as_ref().filter(|_| has_output).map(|output| output.pipe.as_fd());
            let mut polled = vec![
                PollFd::new(source.as_fd(), PollFlags::POLLIN),
                PollFd::new(inside.pidfd.as_fd(), PollFlags::POLLIN),
            ];
            polled.extend(pipe.map(|pipe| PollFd::new(pipe, PollFlags::POLLIN)));
            let _ = poll(&mut polled, PollTimeout::NONE);
            let ready = |place: usize| polled.get(place).is_some_and(|fd| fd.any() == Some(true));
            let (has_ended, can_read) = (ready(1), ready(2));
            drop(polled);
            while let Some(signal) = source.next() {
                if signal.number != libc::SIGCHLD && !signal.from_terminal {
                    pass_on(pid, signal.number);
                }
            }
            if let Some(output) = self.output.as_mut().filter(|_| can_read) {
                has_output = output.log.take(&mut output.pipe);
            }
            if has_ended && !(has_output && can_read) {
                break;
            }
        }
        let status = waitpid(inside.pid, Some(WaitPidFlag::empty()));
        inside.is_reaped = true;
        match status {
            Ok(WaitStatus::Exited(_, code)) => code,
            Ok(WaitStatus::Signaled(_, signal, _)) => code::SIGNALLED + signal as i32,
            _ => code::OURS,
        }
    }

    /// Tells the daemon how the program ended; a daemon that is being restarted is waited for.
    fn tell_end(&self, id: &str, exit_code: i32) {
        for _ in 0..TELL_TRIES {
            let told = self.client.post::<_, IgnoredAny>(
                &format!("/v1/nodes/{id}/exited"),
                &NodeExited { exit_code },
            );
            if told.is_ok() || std::os::unix::net::UnixStream::connect(self.client.socket()).is_ok()
            {
                return;
            }
            std::thread::sleep(TELL_PAUSE);
        }
    }
}

fn is_private(uid: u32, mode: u32) -> bool {
    uid == geteuid().as_raw() && mode & 0o077 == 0
}

fn refused(failure: Failure) -> Refusal {
    // Of a program that was to run, a refusal of the daemon is a failure of ours.
    Refusal {
        code: if failure.code == 1 { code::OURS } else { failure.code },
        message: failure.message,
    }
}

/// Starts PID 1 of a node in namespaces of its own; returns our ends of its channels.
fn enter(
    plan: &Plan,
    held: &Held,
    (control, theirs): (OwnedFd, OwnedFd),
    outcome: Outcome,
) -> Result<(OwnedFd, Outcome, Inside), Refusal> {
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_PIDFD
        | libc::SIGCHLD;
    if plan.own_network {
        flags |= libc::CLONE_NEWNET;
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: without CLONE_VM the child is a copy, as after fork, on a copy of this stack; this process has one thread, so
    // no lock is held by another. The third argument is where the kernel puts the pidfd.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0, &raw mut pidfd, 0, 0) };
    match pid {
        0 => {
            drop(control);
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                init::main(plan, held, theirs, outcome.into_writer())
            }));
            drop(ran);
            std::process::exit(code::OURS)
        }
        pid if pid > 0 => {
            // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            debug_assert!(pidfd.as_raw_fd() > 2);
            Ok((
                control,
                outcome,
                Inside { pid: Pid::from_raw(pid as i32), pidfd, is_reaped: false },
            ))
        }
        _ => Err(Refusal::ours(why_no_namespaces(&io::Error::last_os_error()))),
    }
}
