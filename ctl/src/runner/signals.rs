//! Signals on their way to the program: caught by a descriptor, passed on by hand.
//!
//! What the terminal sends (Ctrl-C, a hang-up, a new size) goes to every process of the foreground group, the program
//! among them; passing that on would give it twice. The kernel marks such signals, so they are told apart.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that are left as they are: those that report a fault of our own, those that stop us together with the
/// program, and the one that a closed pipe sends.
const LEFT_ALONE: [Signal; 11] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGSYS,
    Signal::SIGPIPE,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Signals held back, and the mask from before.
pub struct Held {
    before: SigSet,
    held: SigSet,
}

/// One signal that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// Its number.
    pub number: i32,
    /// Whether the kernel sent it to the whole foreground group.
    pub from_terminal: bool,
}

impl Held {
    /// Holds back every signal that can be passed on, and SIGCHLD, in this process and those it starts.
    pub fn hold() -> io::Result<Held> {
        let mut held = SigSet::all();
        LEFT_ALONE.into_iter().for_each(|signal| held.remove(signal));
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&held), Some(&mut before))?;
        Ok(Held { before, held })
    }

    /// A descriptor that the held signals of this process are read from.
    pub fn descriptor(&self) -> io::Result<Source> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Source(SignalFd::with_flags(&self.held, flags)?))
    }

    /// Lets signals through as before, for as long as there is nobody to pass them on to.
    pub fn suspend(&self) -> io::Result<()> {
        Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None)?)
    }

    /// Holds them back again.
    pub fn resume(&self) -> io::Result<()> {
        Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.held), None)?)
    }

    /// Restores what a program expects to find.
    pub fn release(&self) -> io::Result<()> {
        // SAFETY: setting the default action installs no handler.
        unsafe { nix::sys::signal::signal(Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) }?;
        self.suspend()
    }
}

/// Where held signals are read.
pub struct Source(SignalFd);

impl Source {
    /// The next signal, if one has arrived.
    pub fn next(&mut self) -> Option<Arrived> {
        let info = self.0.read_signal().ok().flatten()?;
        Some(Arrived {
            number: info.ssi_signo as i32,
            from_terminal: info.ssi_code == libc::SI_KERNEL,
        })
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a signal, real-time ones too, to a child that has not been waited for yet. One that has ended cannot mind.
pub fn pass_on(pid: i32, number: i32) {
    // SAFETY: kill takes two integers.
    unsafe { libc::kill(pid, number) };
}
