//! The daemon's end of the channel to its keeper.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use crate::daemon::keeper::{ToDaemon, ToKeeper};
use crate::daemon::log::say;
use crate::namespace::channel;

/// What the keeper handed over at the start, by key.
pub type Inheritance = BTreeMap<String, Inherited>;

/// One thing of the daemon before.
#[derive(Debug)]
pub struct Inherited {
    /// What that one wrote about it.
    pub note: String,
    /// Its descriptors, in the order they were given.
    pub descriptors: Vec<OwnedFd>,
}

/// The channel to the keeper.
#[derive(Debug)]
pub struct Keeping {
    socket: Mutex<OwnedFd>,
}

impl Keeping {
    /// Receives everything that is held, and how many daemons died before.
    pub fn inherit(socket: OwnedFd) -> io::Result<(Keeping, Inheritance, u64)> {
        let mut inheritance = Inheritance::new();
        loop {
            let (message, descriptors) = channel::receive_batch(socket.as_fd())?;
            match message {
                ToDaemon::Held { key, note } => {
                    inheritance.insert(key, Inherited { note, descriptors });
                }
                ToDaemon::End { restarts } => {
                    return Ok((Keeping { socket: Mutex::new(socket) }, inheritance, restarts));
                }
            }
        }
    }

    /// Has the keeper hold these descriptors too.
    pub fn hold(&self, key: &str, note: String, descriptors: &[BorrowedFd<'_>]) {
        self.tell(&ToKeeper::Hold { key: key.into(), note }, descriptors);
    }

    /// Has the keeper hand this over in place of the former note, if it still holds anything under that key.
    pub fn note(&self, key: &str, note: String) {
        self.tell(&ToKeeper::Note { key: key.into(), note }, &[]);
    }

    /// Has the keeper close what it holds under these keys.
    pub fn release(&self, keys: Vec<String>) {
        self.tell(&ToKeeper::Release(keys), &[]);
    }

    /// As [`Keeping::release`]; what comes back becomes readable once they are closed there.
    pub fn release_and_tell(&self, keys: Vec<String>) -> io::Result<OwnedFd> {
        let (told, tells) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        self.tell(&ToKeeper::Release(keys), &[tells.as_fd()]);
        Ok(told)
    }

    /// Tells that the daemon serves.
    pub fn ready(&self) {
        self.tell(&ToKeeper::Ready, &[]);
    }

    fn tell(&self, message: &ToKeeper, descriptors: &[BorrowedFd<'_>]) {
        let socket = self.socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A keeper that was killed holds nothing any more: the daemon goes on without one.
        if let Err(error) = channel::send(socket.as_fd(), message, descriptors) {
            say(format_args!("the keeper is gone ({error}): a restart would cut the wires"));
        }
    }
}
