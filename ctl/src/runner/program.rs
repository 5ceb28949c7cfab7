//! Becoming the program: the last thing a process of ours does inside a node.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// Where programs are looked for when there is no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Our own exit codes, as `docker run` has them.
pub mod code {
    /// Something of ours failed.
    pub const OURS: i32 = 125;
    /// The program was found but cannot be run.
    pub const CANNOT_RUN: i32 = 126;
    /// There is no such program.
    pub const NOT_FOUND: i32 = 127;
    /// A program that a signal ended: this and its number.
    pub const SIGNALLED: i32 = 128;
}

/// Why a program did not start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// The exit code.
    pub code: i32,
    /// One line for the user.
    pub message: String,
}

impl Refusal {
    /// A failure of ours.
    pub fn ours(message: impl Into<String>) -> Refusal {
        Refusal { code: code::OURS, message: message.into() }
    }

    /// A failure of ours with what the system said.
    pub fn failed(what: &str) -> impl FnOnce(io::Error) -> Refusal {
        move |error| Refusal::ours(format!("cannot {what}: {error}"))
    }
}

/// A pipe on which a starting program tells why it did not start; its end, when the program has started.
pub struct Outcome {
    reader: File,
    writer: OwnedFd,
}

impl Outcome {
    /// A new pipe, closed on exec: that is how success is told.
    pub fn new() -> io::Result<Outcome> {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        Ok(Outcome { reader: reader.into(), writer })
    }

    /// The side of the process that starts the program.
    pub fn into_writer(self) -> File {
        self.writer.into()
    }

    /// Waits until the program has started, or gives the reason why not. The start of a program that dies on the way
    /// counts: its end will be seen.
    pub fn wait(self) -> Result<(), Refusal> {
        drop(self.writer);
        let mut text = Vec::new();
        self.reader
            .take(64 * 1024)
            .read_to_end(&mut text)
            .map_err(Refusal::failed("wait for the program"))?;
        if text.is_empty() {
            return Ok(());
        }
        Err(serde_json::from_slice(&text)
            .unwrap_or_else(|_| Refusal::ours("the program did not start")))
    }
}

/// Tells a refusal to the one who waits, and exits with its code.
pub fn give_up(mut outcome: File, refusal: &Refusal) -> ! {
    let text = serde_json::to_vec(refusal).unwrap_or_default();
    let _ = outcome.write_all(&text);
    std::process::exit(refusal.code)
}

/// A command with its environment, ready to be executed.
#[derive(Clone, Debug)]
pub struct Program {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    path: OsString,
}

impl Program {
    /// `command` with our own environment and `changes` to it.
    pub fn new(command: &[OsString], changes: &[(String, String)]) -> Result<Program, Refusal> {
        let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        for (name, value) in changes {
            variables.retain(|(known, _)| known != OsStr::new(name));
            variables.push((name.into(), value.into()));
        }
        let path =
            variables.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        let zero = || Refusal::ours("an argument or a variable holds a zero byte; leave it out");
        let line = |(name, value): &(OsString, OsString)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).map_err(|_| zero())
        };
        let argument = |word: &OsString| CString::new(word.as_bytes()).map_err(|_| zero());
        if command.first().is_none_or(|name| name.is_empty()) {
            return Err(Refusal::ours(
                "no command given; say what to run, as in `portolan run -- CMD`",
            ));
        }
        Ok(Program {
            arguments: command.iter().map(argument).collect::<Result<_, _>>()?,
            environment: variables.iter().map(line).collect::<Result<_, _>>()?,
            path: path.unwrap_or_else(|| DEFAULT_PATH.into()),
        })
    }

    /// Becomes the program; looks for it along PATH where its name has no slash. Returns only why it could not.
    pub fn execute(&self) -> Refusal {
        let name =
            OsStr::from_bytes(self.arguments.first().map_or(&[][..], |name| name.as_bytes()));
        let mut refusal = Refusal {
            code: code::NOT_FOUND,
            message: format!("{}: command not found", name.display()),
        };
        if name.as_bytes().contains(&b'/') {
            return match self.try_at(Path::new(name)) {
                Errno::ENOENT | Errno::ENOTDIR if !Path::new(name).exists() => {
                    Refusal { message: format!("{}: no such file", name.display()), ..refusal }
                }
                errno => cannot_run(Path::new(name), errno),
            };
        }
        for dir in std::env::split_paths(&self.path) {
            let file = if dir.as_os_str().is_empty() {
                PathBuf::from(".").join(name)
            } else {
                dir.join(name)
            };
            match self.try_at(&file) {
                Errno::ENOENT | Errno::ENOTDIR if !file.exists() => {}
                // A directory on PATH that we may not look into may hold anything: look on, as shells do.
                Errno::EACCES if !file.is_file() => {}
                errno => refusal = cannot_run(&file, errno),
            }
        }
        refusal
    }

    fn try_at(&self, file: &Path) -> Errno {
        let Ok(file) = CString::new(file.as_os_str().as_bytes()) else { return Errno::EINVAL };
        let result: Result<Infallible, Errno> =
            nix::unistd::execve(&file, &self.arguments, &self.environment);
        match result {
            Err(errno) => errno,
        }
    }
}

fn cannot_run(file: &Path, errno: Errno) -> Refusal {
    let file = file.display();
    let message = match errno {
        Errno::ENOENT => format!("{file}: the interpreter that it names does not exist"),
        Errno::ENOEXEC => {
            format!("{file}: not a program; if it is a script, name its interpreter (`sh {file}`)")
        }
        Errno::EACCES => format!("{file}: permission denied; it is not executable"),
        errno => format!("{file}: {}", errno.desc()),
    };
    Refusal { code: code::CANNOT_RUN, message }
}

/// Closes what the caller of ours left open beyond the standard three. Our own descriptors all close on exec, which tells
/// them apart.
pub fn close_inherited() {
    for number in open_numbers() {
        // SAFETY: F_GETFD only reads the flags of a descriptor number, whoever owns it.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: everything that this program opens closes on exec; this one does not, so nobody here owns it.
            unsafe { libc::close(number) };
        }
    }
}

/// In a fresh copy of a process: closes the copies of its descriptors, but for the standard three and `kept`.
pub fn close_all_but(kept: &[RawFd]) {
    for number in open_numbers().into_iter().filter(|number| !kept.contains(number)) {
        // SAFETY: what owns the others are the frames of the original, to which this copy never returns.
        unsafe { libc::close(number) };
    }
}

/// The numbers of our open descriptors beyond the standard three.
fn open_numbers() -> Vec<RawFd> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return vec![] };
    let numbers = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<RawFd>().ok());
    numbers.filter(|number| *number > 2).collect()
}

/// Points the standard descriptors elsewhere; `None` leaves one.
pub fn redirect(streams: [Option<&OwnedFd>; 3]) -> io::Result<()> {
    for (number, stream) in (0..).zip(streams) {
        let Some(stream) = stream else { continue };
        // SAFETY: dup2 takes two numbers; the standard descriptors are owned by nobody and may be replaced.
        if unsafe { libc::dup2(stream.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The words of a command, for people to read.
pub fn words(command: &[OsString]) -> Vec<String> {
    command
        .iter()
        .map(|word| String::from_utf8_lossy(&word.clone().into_vec()).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(command: &str) -> Refusal {
        Program::new(&[command.into()], &[("PATH".into(), "/nowhere:/etc".into())])
            .unwrap()
            .execute()
    }

    #[test]
    fn an_unknown_command_is_127() {
        let expected = Refusal { code: 127, message: "no-such-thing: command not found".into() };
        assert_eq!(refused("no-such-thing"), expected);
        assert_eq!(refused("/no/such/thing").code, 127);
    }

    #[test]
    fn a_file_that_cannot_run_is_126() {
        assert_eq!(
            refused("passwd"),
            Refusal {
                code: 126,
                message: "/etc/passwd: permission denied; it is not executable".into()
            }
        );
        assert_eq!(refused("/etc").code, 126);
    }

    #[test]
    fn a_missing_interpreter_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, "#!/no/such/interpreter\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let refusal = refused(script.to_str().unwrap());
        assert_eq!(refusal.code, 126);
        assert!(
            refusal.message.ends_with("the interpreter that it names does not exist"),
            "{}",
            refusal.message
        );
    }

    #[test]
    fn an_empty_command_is_ours() {
        assert_eq!(Program::new(&[], &[]).unwrap_err().code, 125);
    }

    #[test]
    fn variables_given_replace_inherited_ones() {
        let program = Program::new(
            &["x".into()],
            &[("PATH".into(), "/a".into()), ("NEW".into(), "1".into())],
        )
        .unwrap();
        let paths = program.environment.iter().filter(|line| line.as_bytes().starts_with(b"PATH="));
        assert_eq!(paths.map(|line| line.as_bytes()).collect::<Vec<_>>(), [b"PATH=/a"]);
        assert!(program.environment.iter().any(|line| line.as_bytes() == b"NEW=1"));
    }

    #[test]
    fn the_end_of_the_pipe_is_success() {
        assert_eq!(Outcome::new().unwrap().wait(), Ok(()));
    }
}
