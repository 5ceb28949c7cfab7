//! The keeper: the tiny parent of the daemon.
//!
//! When the last descriptor of a wire closes, the wire is gone, and with it the guest's interface. So the keeper holds every
//! wire, every listening socket and every node's pidfd a second time. When the daemon dies without goodbye it starts another
//! one and hands it all of them; when the daemon stops in order it leaves too. It parses nothing that a guest can send: it
//! talks to the daemon alone, over one SEQPACKET channel, and what it is told about a descriptor it merely repeats.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::daemon::clock;
use crate::daemon::log::say;
use crate::daemon::place::{self, Place, Taken};
use crate::daemon::uplink::{self, Uplink};
use crate::namespace::channel;
use crate::paths;

/// Exit code of a keeper that found its state directory served by another daemon.
pub const ALREADY_SERVED: u8 = 3;

/// Things it holds at most; a wire is one, a node another.
const HELD_MAX: usize = 16_384;

/// How a receive fails once the daemon is gone.
const HANG_UPS: [io::ErrorKind; 2] = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];

/// The first pause before a new daemon; it doubles with each failure up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A daemon that has lived this long died of something new.
const SETTLED: Duration = Duration::from_secs(10);

/// Connections that wait to be accepted, so that clients wait out a restart.
const BACKLOG: i32 = 128;

/// What a daemon is told on its command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaemonOptions {
    /// Where the desired state is kept.
    pub state: PathBuf,
    /// Where the sockets are.
    pub runtime: PathBuf,
    /// How packets leave for the outside, where that is chosen now; else as the state directory says.
    pub uplink: Option<Uplink>,
    /// Where to log once it serves; standard error where there is none.
    pub log: Option<PathBuf>,
}

impl DaemonOptions {
    /// The API socket.
    pub fn api_socket(&self) -> PathBuf {
        self.runtime.join("api.sock")
    }

    /// The socket that takes descriptors.
    pub fn wires_socket(&self) -> PathBuf {
        self.runtime.join("wires.sock")
    }
}

/// What the daemon tells its keeper.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ToKeeper {
    /// Keep the descriptors of this message under `key`; `note` comes back with them.
    Hold {
        /// Names it until it is released.
        key: String,
        /// The keeper does not look into it.
        note: String,
    },
    /// From now on this comes back with what is held under `key`; nothing where nothing is.
    Note {
        /// As it was held.
        key: String,
        /// In place of the former one.
        note: String,
    },
    /// Close these, and then the descriptors of this message: whoever waits at their other ends knows by that.
    Release(Vec<String>),
    /// The daemon serves.
    Ready,
}

/// What the keeper tells a daemon that starts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ToDaemon {
    /// The descriptors of this message are held under `key`.
    Held {
        /// As the daemon before named it.
        key: String,
        /// What that one wrote.
        note: String,
    },
    /// That was all.
    End {
        /// How many daemons died before.
        restarts: u64,
    },
}

struct Held {
    note: String,
    descriptors: Vec<OwnedFd>,
}

struct Keeper {
    options: DaemonOptions,
    held: BTreeMap<String, Held>,
    signals: SignalFd,
    restarts: u64,
    ever_ready: bool,
}

/// How one daemon's life ended for the keeper.
enum End {
    Exited(ExitStatus),
    Asked,
}

/// Names this process as people look for it: it was started by /proc/self/exe, and would be called after that. Threads made
/// later have the name too.
pub fn name_process() {
    // A name is for people: whoever cannot be named does the same.
    let _ = nix::sys::prctl::set_name(c"portolan");
}

/// Runs a daemon under a keeper until it stops; the exit code.
pub fn keep(options: DaemonOptions) -> u8 {
    name_process();
    match Keeper::prepare(options) {
        Ok(mut keeper) => keeper.run(),
        Err((message, code)) => {
            say(format_args!("{message}"));
            code
        }
    }
}

impl Keeper {
    fn prepare(mut options: DaemonOptions) -> Result<Keeper, (String, u8)> {
        let refused = |message| (message, 1);
        // The daemon looks again; whoever starts it by hand is to be told here.
        uplink::features().map_err(refused)?;
        paths::private_dir(&options.state).map_err(refused)?;
        paths::private_dir(&options.runtime).map_err(refused)?;
        let taken = |taken| match taken {
            Taken::Unusable(message) => (message, 1),
            Taken::Served(by) => (served(&options.state, by), ALREADY_SERVED),
        };
        let mut lock = place::lock(&options.state).map_err(taken)?;
        let uplink = match options.uplink {
            Some(chosen) => chosen.keep(&options.state).map(|()| chosen),
            None => Uplink::kept(&options.state),
        };
        options.uplink = Some(uplink.map_err(refused)?);
        let api = listener(&options.api_socket(), SockType::Stream).map_err(refused)?;
        let wires = listener(&options.wires_socket(), SockType::SeqPacket).map_err(refused)?;
        let place = Place { socket: options.api_socket(), pid: std::process::id() };
        place.write(&mut lock, &options.state).map_err(taken)?;
        let mut held = BTreeMap::new();
        for (key, descriptor) in [("lock", lock.into()), ("api", api), ("wires", wires)] {
            held.insert(key.into(), Held { note: String::new(), descriptors: vec![descriptor] });
        }
        raise_descriptor_limit();
        let signals = watch_signals().map_err(|e| refused(format!("cannot watch signals: {e}")))?;
        Ok(Keeper { options, held, signals, restarts: 0, ever_ready: false })
    }

    fn run(&mut self) -> u8 {
        let mut pause = PAUSE_MIN;
        loop {
            let born = clock::instant();
            let end = self.live_once().unwrap_or_else(|error| {
                say(format_args!("cannot start the daemon: {error}"));
                End::Exited(std::os::unix::process::ExitStatusExt::from_raw(1 << 8))
            });
            let status = match end {
                End::Asked => return self.leave(0),
                End::Exited(status) => status,
            };
            match status.code() {
                Some(0) => return self.leave(0),
                Some(code) if !self.ever_ready => {
                    return self.leave(u8::try_from(code).unwrap_or(1));
                }
                _ => {}
            }
            if born.elapsed() >= SETTLED {
                pause = PAUSE_MIN;
            }
            say(format_args!(
                "the daemon died ({status}); starting another in {} ms",
                pause.as_millis()
            ));
            self.restarts += 1;
            if self.asked_to_stop_within(pause) {
                return self.leave(0);
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Starts a daemon, hands everything over, and holds what it is given until it ends.
    fn live_once(&mut self) -> io::Result<End> {
        let (ours, theirs) = channel::pair()?;
        let mut child = self.spawn(theirs)?;
        if self.hand_over(ours.as_fd()).is_err() {
            // It died while it was told: its status says the rest.
            return Ok(End::Exited(child.wait()?));
        }
        let mut stopping = false;
        loop {
            let mut waiting = [
                PollFd::new(ours.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut waiting, PollTimeout::NONE)
                .or_else(|e| if e == nix::errno::Errno::EINTR { Ok(0) } else { Err(e) })?;
            let ready = waiting.map(|w| w.any().unwrap_or(false));
            if ready[0] && !self.heed(ours.as_fd()) {
                let status = child.wait()?;
                return Ok(if stopping { End::Asked } else { End::Exited(status) });
            }
            if ready[1] && self.asked_to_stop() {
                stopping = true;
                let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            }
        }
    }

    fn spawn(&self, channel: OwnedFd) -> io::Result<Child> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("portolan").arg("daemon-child");
        command.arg("--state").arg(&self.options.state).arg("--runtime").arg(&self.options.runtime);
        if let Some(uplink) = self.options.uplink {
            command.arg("--uplink").arg(uplink.to_string());
        }
        if let Some(log) = &self.options.log {
            command.arg("--log").arg(log);
        }
        command.stdin(Stdio::from(channel)).stdout(Stdio::null()).spawn()
    }

    fn hand_over(&self, daemon: BorrowedFd<'_>) -> io::Result<()> {
        for (key, held) in &self.held {
            let message = ToDaemon::Held { key: key.clone(), note: held.note.clone() };
            let descriptors: Vec<BorrowedFd<'_>> =
                held.descriptors.iter().map(AsFd::as_fd).collect();
            channel::send(daemon, &message, &descriptors)?;
        }
        channel::send(daemon, &ToDaemon::End { restarts: self.restarts }, &[])
    }

    /// Takes one message; false once the daemon has hung up.
    fn heed(&mut self, daemon: BorrowedFd<'_>) -> bool {
        let (message, descriptors) = match channel::receive_batch(daemon) {
            Ok(received) => received,
            Err(error) if HANG_UPS.contains(&error.kind()) => return false,
            Err(error) => {
                // Out of descriptors, most likely. Whoever lives on must not be waited for as dead.
                say(format_args!("cannot hold what the daemon hands over: {error}"));
                return true;
            }
        };
        match message {
            ToKeeper::Hold { key, note } if self.held.len() < HELD_MAX => {
                self.held.insert(key, Held { note, descriptors });
            }
            ToKeeper::Note { key, note } => {
                if let Some(held) = self.held.get_mut(&key) {
                    held.note = note;
                }
            }
            ToKeeper::Release(keys) => {
                for key in keys {
                    self.held.remove(&key);
                }
            }
            ToKeeper::Ready if !self.ever_ready => {
                self.ever_ready = true;
                log_to(self.options.log.as_deref());
            }
            ToKeeper::Hold { key, .. } => {
                say(format_args!("{HELD_MAX} things are held already: a restart would cut {key}"));
            }
            ToKeeper::Ready => {}
        }
        true
    }

    /// Reads the signals that have come; whether one asks to stop.
    fn asked_to_stop(&self) -> bool {
        let mut asked = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = signal.ssi_signo.cast_signed();
            asked |= number == Signal::SIGTERM as i32 || number == Signal::SIGINT as i32;
        }
        asked
    }

    fn asked_to_stop_within(&self, pause: Duration) -> bool {
        let until = clock::instant() + pause;
        loop {
            let left = until.saturating_duration_since(clock::instant());
            let mut waiting = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if !matches!(poll(&mut waiting, left), Ok(1)) {
                return false;
            }
            if self.asked_to_stop() {
                return true;
            }
        }
    }

    fn leave(&mut self, code: u8) -> u8 {
        let _ = std::fs::remove_file(self.options.api_socket());
        let _ = std::fs::remove_file(self.options.wires_socket());
        self.held.clear();
        code
    }
}

/// From now on standard error goes to the log.
pub fn log_to(path: Option<&Path>) {
    let Some(path) = path else { return };
    if let Ok(log) = std::fs::OpenOptions::new().create(true).append(true).open(path) {
        let _ = nix::unistd::dup2_stderr(&log);
    }
}

fn served(state: &Path, by: Option<Place>) -> String {
    let by =
        by.map(|p| format!(" (pid {}, socket {})", p.pid, p.socket.display())).unwrap_or_default();
    format!(
        "another daemon{by} serves {}; use that one, or give this one its own --state and --runtime",
        state.display()
    )
}

/// A listening socket in place of a dead one. A live one is not touched.
fn listener(path: &Path, kind: SockType) -> Result<OwnedFd, String> {
    let failed = |e: &dyn std::fmt::Display| {
        format!("cannot listen at {}: {e}; choose another --runtime", path.display())
    };
    let address = UnixAddr::new(path).map_err(|e| failed(&e))?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let new = || socket(AddressFamily::Unix, kind, flags, None);
    let probe = new().map_err(|e| failed(&e))?;
    if nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&probe), &address).is_ok() {
        return Err(failed(&"another daemon answers there"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&error)),
        _ => {}
    }
    let fd = new().map_err(|e| failed(&e))?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &address).map_err(|e| failed(&e))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(|e| failed(&e))?;
    listen(&fd, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN)).map_err(|e| failed(&e))?;
    Ok(fd)
}

fn watch_signals() -> nix::Result<SignalFd> {
    let mut watched = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        watched.add(signal);
    }
    watched.thread_block()?;
    SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Every wire is two descriptors, here and in the daemon.
pub fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// A listener as the standard library has it, of a descriptor that the keeper handed over.
pub fn stream_listener(fd: OwnedFd) -> io::Result<UnixListener> {
    let listener = UnixListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(listener)
}
