//! The command line: each verb is read, turned into requests of the API, and its answer shown.
//!
//! One file per noun. A verb returns its exit code, or a [`Failure`] that `main` prints as one line.

mod address;
mod attach;
mod capture;
mod completions;
mod demo;
mod demo_program;
mod doctor;
mod endpoint;
mod events;
mod explain;
mod logs;
mod network;
mod node;
mod output;
mod port;
mod run;
mod stats;
mod switch;
mod system;
mod target;
mod template;
mod terminal;
mod time;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, Subcommand};
use portolan::api::client::{Client, Failure};

/// LANs without root: programs, containers and labs on isolated networks of their own.
#[derive(Parser, Debug)]
#[command(name = "portolan", version, max_term_width = 100, infer_subcommands = false)]
pub struct Cli {
    /// API socket of the daemon to talk to, instead of $PORTOLAN_HOST or the user's own
    #[arg(long, global = true, value_name = "PATH")]
    host: Option<PathBuf>,
    /// Say on stderr which daemon answered and how long it took
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make, list, inspect, remove and join networks
    #[command(subcommand)]
    Network(network::Verb),
    /// Run a program as a node on networks
    Run(run::Run),
    /// Run one more program inside a running node
    Exec(run::Exec),
    /// List nodes
    Ps(node::Ps),
    /// Show all about nodes
    Inspect(node::Inspect),
    /// Stop running nodes
    Stop(node::Stop),
    /// Remove nodes
    Rm(node::Remove),
    /// Give a node another name
    Rename(node::Rename),
    /// Show the output of a detached node
    Logs(logs::Logs),
    /// Put a foreign network namespace on networks, as a node
    Attach(attach::Attach),
    /// Take an attached namespace off its networks
    Detach(attach::Detach),
    /// Show which ports of the host lead to a node
    Port(port::Port),
    /// Publish more ports of a running node
    Publish(port::Publish),
    /// Take published ports back
    Unpublish(port::Publish),
    /// Follow what happens
    Events(events::Events),
    /// Capture frames of a network or node, with what became of each
    Capture(capture::Capture),
    /// Say what would become of a frame, stage by stage, without sending it
    Explain(explain::Explain),
    /// Show which station is behind which node
    Fdb(switch::Fdb),
    /// Show which addresses hosts were given by DHCP
    Leases(switch::Asked),
    /// Show what goes through endpoints, in and out
    Stats(stats::Stats),
    /// Show which frames were dropped, and why
    Drops(switch::Asked),
    /// Show what goes in and out by sockets of the host
    Flows(switch::Asked),
    /// Show the names that a network's DNS answers
    Names(switch::Asked),
    /// Show facts about the daemon
    Info(system::Formatted),
    /// Show what this machine lacks, and what to do about it
    Doctor(doctor::Doctor),
    /// Show the versions of this program and of the daemon
    Version(system::Formatted),
    /// Show what it does: tiers on networks, the way out and the ways in, on this machine, in under a minute
    Demo,
    /// Run the daemon in the foreground (other verbs start one when they need it)
    Daemon(system::Daemon),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    #[command(hide = true)]
    DaemonChild(system::Daemon),
    #[command(hide = true)]
    TryNamespaces,
    #[command(hide = true)]
    DemoServe(demo_program::Serve),
    #[command(hide = true)]
    DemoFetch(demo_program::Fetch),
    #[command(hide = true)]
    DemoFrames(demo_program::Frames),
}

impl Cli {
    /// Whether stdout is for a reader that may go away early, as `head` does.
    pub fn prints(&self) -> bool {
        !matches!(
            self.verb,
            Verb::Run(_)
                | Verb::Exec(_)
                | Verb::Daemon(_)
                | Verb::DaemonChild(_)
                | Verb::Demo
                | Verb::DemoServe(_)
        )
    }

    /// Does what was asked; the exit code.
    ///
    /// # Errors
    /// What the daemon refused, or what could not be done.
    pub fn act(self) -> Result<i32, Failure> {
        let daemon = DaemonChoice { host: self.host, verbose: self.verbose };
        match self.verb {
            Verb::Run(run) => run.act(&daemon),
            Verb::Exec(exec) => exec.act(&daemon),
            Verb::Network(verb) => network::act(verb, &daemon),
            Verb::Ps(ps) => ps.act(&daemon),
            Verb::Inspect(inspect) => inspect.act(&daemon),
            Verb::Stop(stop) => stop.act(&daemon),
            Verb::Rm(remove) => remove.act(&daemon),
            Verb::Rename(rename) => rename.act(&daemon),
            Verb::Logs(logs) => logs.act(&daemon),
            Verb::Attach(attach) => attach.act(&daemon),
            Verb::Detach(detach) => detach.act(&daemon),
            Verb::Port(port) => port.act(&daemon),
            Verb::Publish(ports) => ports.publish(&daemon),
            Verb::Unpublish(ports) => ports.unpublish(&daemon),
            Verb::Events(events) => events.act(&daemon),
            Verb::Capture(capture) => capture.act(&daemon),
            Verb::Explain(explain) => explain.act(&daemon),
            Verb::Fdb(asked) => asked.fdb(&daemon),
            Verb::Leases(asked) => asked.leases(&daemon),
            Verb::Stats(stats) => stats.act(&daemon),
            Verb::Drops(asked) => asked.drops(&daemon),
            Verb::Flows(asked) => asked.flows(&daemon),
            Verb::Names(asked) => asked.names(&daemon),
            Verb::Info(info) => info.info(&daemon),
            Verb::Doctor(doctor) => doctor.act(),
            Verb::TryNamespaces => Ok(doctor::try_namespaces_here()),
            Verb::Version(version) => version.version(&daemon),
            Verb::Demo => demo::act(),
            Verb::Daemon(options) => Ok(options.keep()),
            Verb::DaemonChild(options) => Ok(options.serve()),
            Verb::Completions(completions) => Ok(completions.act()),
            Verb::DemoServe(serve) => serve.act(),
            Verb::DemoFetch(fetch) => fetch.act(),
            Verb::DemoFrames(frames) => frames.act(),
        }
    }
}

/// Which daemon a verb talks to.
struct DaemonChoice {
    host: Option<PathBuf>,
    verbose: bool,
}

impl DaemonChoice {
    /// The daemon; one is started where none answers.
    fn open(&self) -> Result<Client, Failure> {
        self.told(|| Client::open(self.host.as_deref()).map(Some))?
            .ok_or_else(|| Failure::new("no daemon answers"))
    }

    /// The daemon if one answers.
    fn find(&self) -> Result<Option<Client>, Failure> {
        self.told(|| Client::find(self.host.as_deref()))
    }

    fn told(
        &self,
        reach: impl FnOnce() -> Result<Option<Client>, Failure>,
    ) -> Result<Option<Client>, Failure> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the command line is an edge: it times its own calls for -v"
        )]
        let start = Instant::now();
        let client = reach()?;
        if self.verbose {
            let found = client.as_ref().map_or_else(
                || "no daemon answers".to_owned(),
                |client| format!("the daemon at {} answers", client.socket().display()),
            );
            output::note(&format!(
                "{found}, after {:.1} ms",
                start.elapsed().as_secs_f64() * 1000.0
            ));
        }
        Ok(client)
    }
}

/// A name as a segment of a path (RFC 3986, section 2.1).
///
/// # Errors
/// An empty name, which would make another path.
fn segment(name: &str) -> Result<String, Failure> {
    if name.is_empty() {
        return Err(Failure::new("a name must not be empty"));
    }
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(out)
}

/// Does `act` for every name, tells each failure, and goes on with the rest; the exit code.
fn for_each(names: &[String], mut act: impl FnMut(&str) -> Result<(), Failure>) -> i32 {
    let mut code = 0;
    for name in names {
        if let Err(failure) = act(name) {
            output::note(&failure.message);
            code = failure.code;
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_program_belongs_to_it() {
        let cli = Cli::try_parse_from([
            "portolan",
            "run",
            "--rm",
            "--network",
            "app",
            "curl",
            "-v",
            "--host",
            "x",
            "--",
            "-d",
        ])
        .unwrap();
        assert!(!cli.verbose);
        assert_eq!(cli.host, None);
        let Verb::Run(run) = cli.verb else { panic!("not a run") };
        assert_eq!(run.command(), ["curl", "-v", "--host", "x", "--", "-d"]);
    }

    #[test]
    fn values_may_be_attached_to_the_letters_of_options() {
        let words = "portolan run -p6961:80 -p=6962:80 -dp6963:80 -eK=V -e=L=W --rm srv -p1:1 -x";
        let cli = Cli::try_parse_from(words.split(' ')).unwrap();
        let Verb::Run(run) = cli.verb else { panic!("not a run") };
        assert_eq!(run.command(), ["srv", "-p1:1", "-x"]);
        let (ports, env) = run.given();
        assert_eq!(ports, ["6961:80", "6962:80", "6963:80"]);
        assert_eq!(env, ["K=V", "L=W"]);
    }

    #[test]
    fn two_dashes_before_the_program_are_not_its_own() {
        let cli = Cli::try_parse_from(["portolan", "exec", "db", "--", "ss", "-ltn"]).unwrap();
        let Verb::Exec(exec) = cli.verb else { panic!("not an exec") };
        assert_eq!(exec.command(), ["ss", "-ltn"]);
    }

    #[test]
    fn wrong_usage_is_code_2() {
        for wrong in [
            vec!["portolan"],
            vec!["portolan", "nonsense"],
            vec!["portolan", "run"],
            vec!["portolan", "run", "-x", "true"],
            vec!["portolan", "run", "--nonsense", "true"],
            vec!["portolan", "run", "--network", "app,ip=x", "true"],
            vec!["portolan", "ps", "--format", "{{.Name"],
            vec!["portolan", "network", "create", "app", "--subnet", "10.0.0.0/33"],
            vec!["portolan", "attach", "--name", "c"],
            vec!["portolan", "attach", "--pid", "1", "--netns", "/x"],
        ] {
            let error = Cli::try_parse_from(&wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn any_name_makes_one_segment_of_a_path() {
        assert_eq!(segment("test@#$").unwrap(), "test%40%23%24");
        assert_eq!(segment("a/b?c").unwrap(), "a%2Fb%3Fc");
        assert_eq!(segment("web-1.a_b~").unwrap(), "web-1.a_b~");
        assert!(segment("").is_err());
    }
}
