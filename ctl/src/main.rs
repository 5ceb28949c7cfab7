//! The command: one binary that is client, daemon, and the steps that both start.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod cli;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use nix::sys::signal::{SigHandler, Signal, signal};
use portolan::namespace::wire;

use self::cli::Cli;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|mode| mode == wire::STEP_COMMAND) {
        wire::step_main();
    }
    let cli = match parsed(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return wrong_usage(&error),
        // Help and version are what was asked for.
        Err(error) => error.exit(),
    };
    if cli.prints() {
        end_quietly_without_reader();
    }
    let code = cli.act().unwrap_or_else(|failure| {
        eprintln!("portolan: {}", failure.message.replace('\n', " "));
        failure.code
    });
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Reads the command line. `help --help` asks for what `help` does.
fn parsed(mut words: Vec<OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(&words).or_else(|error| match words.as_slice() {
        [.., help, flag]
            if error.kind() == ErrorKind::InvalidSubcommand
                && help == "help"
                && (flag == "--help" || flag == "-h") =>
        {
            words.pop();
            Cli::try_parse_from(&words)
        }
        _ => Err(error),
    })
}

/// Says in one line what is wrong with the command line; the exit code is 2, as for every tool.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    eprintln!("portolan: {}; see --help", in_a_line(&text));
    ExitCode::from(2)
}

/// What clap says, without its advice to pass a mistyped option as a value.
fn in_a_line(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim);
    let said: Vec<&str> = lines.filter(|line| !line.starts_with("tip: to pass")).collect();
    let said = said.join(" ").replace(" tip: ", "; ");
    let said = said.trim_start_matches("error: ").split("For more information").next();
    said.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ").replace(" ;", ";")
}

/// Lets SIGPIPE end the process, as it does other programs, so that `portolan ps | head -1` is silent.
fn end_quietly_without_reader() {
    // SAFETY: the default action is no handler, so nothing of this process runs in it.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(words: &str) -> String {
        in_a_line(&Cli::try_parse_from(words.split(' ')).err().unwrap().to_string())
    }

    #[test]
    fn help_of_help_is_help() {
        for (words, verb) in [
            ("portolan help --help", "Usage: portolan "),
            ("portolan network help -h", "Usage: portolan network "),
        ] {
            let error = parsed(words.split(' ').map(OsString::from).collect()).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::DisplayHelp, "{words}");
            assert!(error.to_string().contains(verb), "{error}");
        }
    }

    #[test]
    fn wrong_usage_is_told_in_one_sentence() {
        assert_eq!(told("portolan publish web -1:80"), "unexpected argument '-1' found");
        assert_eq!(told("portolan run -x true"), "unexpected argument '-x' found");
        assert_eq!(
            told("portolan run --networ a true"),
            "unexpected argument '--networ' found; a similar argument exists: '--network'"
        );
    }
}
