//! `-d`: the runner goes on in a session of its own, and its caller returns once the program runs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, setsid};

use super::program::{self, Refusal, code};
use super::{RunOptions, complain, node};
use crate::api::client::Client;

/// What an id is long.
const ID_DIGITS: u64 = 64;

/// Runs a node detached; the exit code is that of the caller, once it may return.
pub fn run(client: &Client, options: &RunOptions) -> i32 {
    match split(client, options) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("cannot detach: {error}"));
            code::OURS
        }
    }
}

fn split(client: &Client, options: &RunOptions) -> io::Result<i32> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread, so its copy may do anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(writer);
            let mut id = String::new();
            // Not until the end: the node's init has a copy of the other end.
            File::from(reader).take(ID_DIGITS).read_to_string(&mut id)?;
            if !id.is_empty() {
                println!("{id}");
                return Ok(0);
            }
            // The runner has told why on the standard error that we share.
            Ok(match waitpid(child, None)? {
                WaitStatus::Exited(_, code) if code != 0 => code,
                _ => code::OURS,
            })
        }
        ForkResult::Child => {
            drop(reader);
            let _ = setsid();
            let mut writer = Some(File::from(writer));
            let code = node::run(client, options, &mut |id| {
                let told = leave_caller(&mut writer, id);
                told.map_err(Refusal::failed("leave the terminal"))
            });
            std::process::exit(code)
        }
    }
}

/// Lets go of everything that the caller waits for, and tells it the node's id.
fn leave_caller(writer: &mut Option<File>, id: &str) -> io::Result<()> {
    let null: OwnedFd = File::options().read(true).write(true).open("/dev/null")?.into();
    program::redirect([Some(&null), Some(&null), Some(&null)])?;
    match writer.take() {
        Some(mut writer) => writer.write_all(id.as_bytes()),
        None => Ok(()),
    }
}
