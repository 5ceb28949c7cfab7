//! The command: one binary that is client, daemon, and the steps that both start.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod cli;

use std::process::ExitCode;

use clap::Parser;
use nix::sys::signal::{SigHandler, Signal, signal};
use portolan::namespace::wire;

use self::cli::Cli;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|mode| mode == wire::STEP_COMMAND) {
        wire::step_main();
    }
    let cli = Cli::parse();
    if cli.prints() {
        end_quietly_without_reader();
    }
    let code = cli.act().unwrap_or_else(|failure| {
        eprintln!("portolan: {}", failure.message.replace('\n', " "));
        failure.code
    });
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Lets SIGPIPE end the process, as it does other programs, so that `portolan ps | head -1` is silent.
fn end_quietly_without_reader() {
    // SAFETY: the default action is no handler, so nothing of this process runs in it.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}
