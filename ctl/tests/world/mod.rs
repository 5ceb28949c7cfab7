//! A daemon with all it needs, for tests that start the real program.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// An id that no user of a system has.
pub const SOMEBODY: u32 = 64_321;

/// A daemon of its own, in directories of its own, for one user.
pub struct World {
    pub dir: tempfile::TempDir,
    uid: u32,
    pub keeper: Option<Child>,
}

impl World {
    /// Directories, and a copy of the program that the user can execute.
    pub fn without_daemon(uid: u32) -> World {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(dir.path(), Some(uid), Some(uid)).unwrap();
        let binary = dir.path().join("portolan");
        // By a process of its own: a descriptor of ours open for writing would be inherited by what other tests start at
        // this moment, and nobody could execute the file until they let go.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_portolan")).arg(&binary).status();
        assert!(copied.unwrap().success());
        World { dir, uid, keeper: None }
    }

    /// Starts the daemon behind the words of `wrapper`, which run as root, and makes a network.
    pub fn start(&mut self, wrapper: &[&str]) {
        self.serve(wrapper);
        assert!(self.run(&["network", "create", "lan"]).status.success());
    }

    /// Starts the daemon behind the words of `wrapper`, which run as root.
    pub fn serve(&mut self, wrapper: &[&str]) {
        let (state, runtime) = (self.path("s"), self.path("r"));
        let words =
            ["daemon", "--state", state.to_str().unwrap(), "--runtime", runtime.to_str().unwrap()];
        self.keeper = Some(self.wrapped(wrapper, &words).spawn().unwrap());
        eventually("the daemon answers", || self.run(&["ps"]).status.success());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        self.wrapped(&[], words)
    }

    /// The program as the user starts it, behind the words of `wrapper`.
    pub fn wrapped(&self, wrapper: &[&str], words: &[&str]) -> Command {
        let binary = self.path("portolan");
        let id = self.uid.to_string();
        let become_user = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
        let as_user: &[&str] = if self.uid == 0 { &["env"] } else { &become_user };
        let line: Vec<&str> = wrapper
            .iter()
            .chain(as_user)
            .copied()
            .chain([binary.to_str().unwrap()])
            .chain(words.iter().copied())
            .collect();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]);
        command.env("PORTOLAN_HOST", self.path("r/api.sock"));
        command
            .env("HOME", self.dir.path())
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_RUNTIME_DIR");
        command.current_dir(self.dir.path()).stdin(Stdio::null()).process_group(0);
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let nodes = String::from_utf8(self.run(&["ps", "-a", "-q"]).stdout).unwrap_or_default();
            for node in nodes.split_whitespace() {
                self.run(&["rm", "-f", node]);
            }
            let _ = kill(Pid::from_raw(keeper.id() as i32), Signal::SIGTERM);
            let _ = keeper.wait();
        }
    }
}

/// What a command printed; it must have succeeded.
pub fn says(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command printed on standard error.
pub fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Waits for something to hold.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        // A pause between looks, not a wait for the time: what is looked for runs on the same processors.
        std::thread::sleep(Duration::from_millis(5));
    }
}
