//! What the demo runs in: a temporary directory, a daemon in it, commands with a time limit, and their end.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;
use portolan::api::client::Failure;

use super::{leftovers, now};
use crate::cli::output;

/// Where the directories of demos are; sockets need short names.
pub const BELOW: &str = "/tmp";

/// What their names begin with; the demo's process id follows.
pub const PREFIX: &str = "portolan-demo-";

/// The longest a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(20);

/// The longest the daemon may take to start, and to stop.
pub const DAEMON_MAX: Duration = Duration::from_secs(10);

/// How often a wait looks again.
pub const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Set by the signals that ask the demo to end.
static SIGNALLED: AtomicBool = AtomicBool::new(false);

extern "C" fn remember(_: i32) {
    SIGNALLED.store(true, Ordering::Relaxed);
}

/// How a command ended.
#[derive(Default)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// A command that goes on in the background.
pub struct Going {
    child: Child,
    words: String,
    said: PathBuf,
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The demo's surroundings.
pub struct Session {
    dir: PathBuf,
    program: String,
    daemon: Option<Child>,
    /// Whether it ends: from then on no signal keeps it from that.
    ending: bool,
    /// Held while the directory is in use.
    _lock: File,
}

impl Session {
    /// Makes the directory and catches the signals that would leave it behind. What a killed demo left is cleaned away.
    pub fn prepare() -> Result<Session, Failure> {
        let program = std::env::current_exe()
            .map_err(|e| Failure::new(format!("cannot find this program's own file: {e}")))?;
        catch_signals().map_err(|e| Failure::new(format!("cannot watch for Ctrl-C: {e}")))?;
        let program = program.to_string_lossy().into_owned();
        leftovers::clean_up(&program);
        let dir = Path::new(BELOW).join(format!("{PREFIX}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&dir).map_err(|e| {
            Failure::new(format!("cannot make {}: {e}; make /tmp writable", dir.display()))
        })?;
        let lock = File::open(&dir)
            .and_then(|lock| lock.try_lock().map(|()| lock).map_err(io::Error::from));
        let lock = lock
            .map_err(|e| Failure::new(format!("cannot lock {}: {e}; try again", dir.display())))?;
        Ok(Session::of(dir, program, lock))
    }

    /// A session in `dir`, which `lock` holds.
    pub fn of(dir: PathBuf, program: String, lock: File) -> Session {
        Session { dir, program, daemon: None, ending: false, _lock: lock }
    }

    /// This binary, as a node finds it too.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Starts the daemon and waits for its socket; how long it took, and where it is.
    pub fn start_daemon(&mut self) -> Result<(Duration, String), String> {
        let start = now();
        let log = self.dir.join("daemon.log");
        let said =
            File::create(&log).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
        let daemon = Command::new(&self.program)
            .arg("daemon")
            .arg("--state")
            .arg(self.dir.join("state"))
            .arg("--runtime")
            .arg(self.dir.join("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot start a daemon: {e}"))?;
        let socket = self.socket();
        let daemon = self.daemon.insert(daemon);
        while UnixStream::connect(&socket).is_err() {
            let ended = daemon.try_wait().ok().flatten().is_some();
            if ended || start.elapsed() > DAEMON_MAX {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let last = said.lines().next_back().unwrap_or("it said nothing");
                return Err(format!(
                    "the daemon did not start: {}",
                    last.trim_start_matches("portolan: ")
                ));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok((start.elapsed(), self.dir.display().to_string()))
    }

    /// Where the daemon answers.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/api.sock")
    }

    /// Runs one command of this binary against the demo's daemon; none when Ctrl-C came.
    pub fn run(&mut self, command: &[&str]) -> Result<Option<Outcome>, String> {
        let words = command.join(" ");
        let start = now();
        let mut process = Command::new(&self.program);
        if self.ending {
            // Out of the terminal's reach, which signals all of a group.
            process.process_group(0);
        }
        let mut child = process
            .arg("--host")
            .arg(self.socket())
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start portolan {words}: {e}"))?;
        let status = loop {
            let interrupted = !self.ending && SIGNALLED.load(Ordering::Relaxed);
            if interrupted || start.elapsed() > COMMAND_MAX {
                let _ = child.kill();
                let _ = child.wait();
                let late = format!("portolan {words} did not end within {COMMAND_MAX:?}");
                return if interrupted { Ok(None) } else { Err(late) };
            }
            if let Some(status) = child.try_wait().map_err(|e| format!("portolan {words}: {e}"))? {
                break status;
            }
            std::thread::sleep(LOOK_AGAIN);
        };
        let took = start.elapsed();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let read = |from: Option<&mut dyn Read>, into: &mut String| {
            from.map_or(Ok(0), |from| from.read_to_string(into))
                .map_err(|e| format!("portolan {words}: {e}"))
        };
        read(child.stdout.as_mut().map(|out| out as &mut dyn Read), &mut stdout)?;
        read(child.stderr.as_mut().map(|out| out as &mut dyn Read), &mut stderr)?;
        Ok(Some(Outcome { code: status.code().unwrap_or(-1), stdout, stderr, took }))
    }

    /// Starts one command of this binary that goes on until it is ended.
    pub fn start(&self, command: &[&str]) -> Result<Going, String> {
        let words = command.join(" ");
        let said = self.dir.join("said");
        let file = File::create(&said).map_err(|e| format!("cannot write {said:?}: {e}"))?;
        let child = Command::new(&self.program)
            .arg("--host")
            .arg(self.socket())
            .args(command)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start portolan {words}: {e}"))?;
        Ok(Going { child, words, said })
    }

    /// What such a command has said so far.
    pub fn said(&self, going: &Going) -> Result<String, String> {
        let text = std::fs::read(&going.said).map_err(|e| format!("{:?}: {e}", going.said))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Ends it as Ctrl-C does. It must take that for its end, and not for a failure.
    pub fn end(&self, mut going: Going) -> Result<(), String> {
        let start = now();
        if let Ok(pid) = i32::try_from(going.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        while start.elapsed() < COMMAND_MAX {
            match going.child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK_AGAIN),
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("portolan {}: {status}", going.words)),
                Err(e) => return Err(format!("portolan {}: {e}", going.words)),
            }
        }
        Err(format!("portolan {} did not end within {COMMAND_MAX:?}", going.words))
    }

    /// Removes the nodes, stops the daemon, and deletes the directory, whatever signals come meanwhile.
    pub fn clean_up(&mut self) -> Result<(), Failure> {
        let removed = if self.daemon.is_some() { self.remove_nodes() } else { Ok(()) };
        if let Some(mut daemon) = self.daemon.take() {
            stop(&mut daemon);
        }
        self.remove_dir()?;
        removed.map_err(|why| Failure::new(format!("nodes may be left that run: {why}")))
    }

    pub fn remove_dir(&self) -> Result<(), Failure> {
        std::fs::remove_dir_all(&self.dir).map_err(|e| {
            Failure::new(format!("cannot remove {}: {e}; delete it by hand", self.dir.display()))
        })
    }

    /// Removes all nodes, as the last that is done here. One that a command was making when it was broken off may come late.
    pub fn remove_nodes(&mut self) -> Result<(), String> {
        self.ending = true;
        let start = now();
        let mut said = String::new();
        while start.elapsed() < DAEMON_MAX {
            let listed = self.run(&["ps", "-a", "-q", "--no-trunc"])?.unwrap_or_default();
            let ids: Vec<&str> = listed.stdout.split_whitespace().collect();
            if listed.code != 0 {
                return Err(listed.stderr.trim().to_owned());
            }
            if ids.is_empty() {
                return Ok(());
            }
            let removed = self.run(&[&["rm", "-f"], ids.as_slice()].concat())?;
            said = removed.unwrap_or_default().stderr;
        }
        Err(said.trim().to_owned())
    }
}

/// From now on Ctrl-C and its like are remembered; the commands that are started get them in the usual way.
fn catch_signals() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(remember), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Ends the daemon in order, or by force where it does not heed.
fn stop(daemon: &mut Child) {
    let Ok(pid) = i32::try_from(daemon.id()) else { return };
    let start: Instant = now();
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    while matches!(daemon.try_wait(), Ok(None)) {
        if start.elapsed() > DAEMON_MAX {
            // The keeper and its daemon are one process group.
            let _ = kill(Pid::from_raw(-pid), Signal::SIGKILL);
            let _ = daemon.wait();
            output::note("the demo's daemon did not stop and was killed");
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
