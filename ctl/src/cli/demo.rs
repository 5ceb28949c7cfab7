//! `portolan demo`: the main job, end to end, on this machine.
//!
//! It has a daemon of its own in a temporary directory, and drives it as a person would, with the commands of this binary.
//! Each step is one command, shown with its time. A step that must fail (isolation) has to fail for that reason: its program
//! tells "nobody answers" from any other trouble by its exit code. Everything is cleaned away, also after Ctrl-C; what a demo
//! leaves that is killed, the next one cleans away.

mod lan;
mod leftovers;
mod outside;
mod session;

use std::time::{Duration, Instant};

use portolan::api::client::Failure;

use self::outside::Host;
use self::session::{Outcome, Session};
use super::demo_program::UNREACHABLE;
use super::output;

/// Where the tiers listen.
const PORT: &str = "8000";

/// Exit code of a demo that was broken off.
const INTERRUPTED: i32 = 130;

/// How a person would do the same.
const BY_HAND: &str = "
The same by hand, with programs of your own:
  portolan network create front
  portolan network create back
  portolan run -d --name db --network back -- python3 -m http.server 8000
  portolan run -d --name web --network front --network back -- sleep 1000
  portolan exec web -- curl -s http://db:8000/           # by name
  portolan run --rm --network front -- curl -m 2 http://db:8000/    # may not
  portolan network connect back NODE                     # live; disconnect takes it back
  portolan publish db 8000; portolan port db             # live; unpublish takes it back
  curl -s http://127.0.0.1:PORT/                         # or by an address of the host, also from nodes
  portolan run --network lab --driver-opt portolan.vlan=access:10 ...     # or trunk:10,20; portolan.configure=off
  portolan network create -o portolan.mode=wire cable    # passes LACP, STP and what else there is
  portolan capture back; portolan explain back FRAME-HEX; portolan leases
  portolan ps; portolan names; portolan drops; portolan rm -f db web";

/// Why the demo ended before its end.
enum Stop {
    /// Ctrl-C.
    Interrupted,
    /// A step did not do what it should.
    Broken(String),
}

type Step = Result<(), Stop>;

/// Runs the demo; the exit code, 0 only if all of it worked.
pub fn act() -> Result<i32, Failure> {
    let start = now();
    let session = Session::prepare()?;
    let mut demo = Demo { session, host: Host::serve(), steps: 0, skipped: 0 };
    let ended = demo.play();
    let clean = demo.session.clean_up();
    match ended {
        Err(Stop::Interrupted) => {
            clean?;
            output::note("interrupted; everything is cleaned away");
            return Ok(INTERRUPTED);
        }
        Err(Stop::Broken(why)) => {
            let left = clean.err().map(|left| format!("; {}", left.message));
            return Err(Failure::new(why + &left.unwrap_or_default()));
        }
        Ok(()) => clean?,
    }
    output::line(BY_HAND);
    let skipped = match demo.skipped {
        0 => String::new(),
        count => format!(" ({count} could not be shown here)"),
    };
    output::line(&format!(
        "\nAll {} steps worked{skipped}, in {}. Nothing is left behind.",
        demo.steps,
        shown(start.elapsed())
    ));
    Ok(0)
}

struct Demo {
    session: Session,
    host: Host,
    steps: usize,
    skipped: usize,
}

impl Demo {
    fn play(&mut self) -> Step {
        output::line(
            "Portolan demo: a shop of three tiers on two LANs, without root and without a kernel bridge.",
        );
        self.build()?;
        let db = self.address("db", "back")?;

        self.chapter("Who reaches whom, by name");
        self.reaches("visitor", "web", "web <- app <- db: 3 charts in stock")?;
        self.reaches("web", "app", "app <- db: 3 charts in stock")?;
        self.reaches("app", "db.back", "db: 3 charts in stock")?;

        self.chapter("Who may not");
        self.is_cut_off("visitor", "db", "db by its name")?;
        self.is_cut_off("visitor", &db, "db by its address")?;

        self.twin(&db)?;

        self.chapter("Joining and leaving while it runs");
        self.does("visitor joins back", &["network", "connect", "back", "visitor"])?;
        self.reaches("visitor", "db", "db: 3 charts in stock")?;
        self.does("visitor leaves back", &["network", "disconnect", "back", "visitor"])?;
        self.is_cut_off("visitor", &db, "db by its address")?;
        self.reaches("visitor", "web", "web <- app <- db: 3 charts in stock")?;

        self.way_out()?;
        self.ways_in()?;
        self.lan()
    }

    fn build(&mut self) -> Step {
        self.chapter("The house");
        let (took, place) = self.session.start_daemon().map_err(Stop::Broken)?;
        self.tell(took, "a daemon of its own", &place);
        // Both families there, where the host has both: the way out and the published ports are those of this network.
        let families: &[&str] = if self.host.has_ipv6() { &["--ipv6"] } else { &[] };
        self.network("front", families)?;
        self.network("back", &[])?;
        self.node("db", &["--network", "back"], None)?;
        self.node("app", &["--network", "back"], Some("http://db:8000/"))?;
        let both = ["--network", "front,gw-priority=1", "--network", "back"];
        let published = ["-p", PORT, "-p", "8000/udp"];
        self.node("web", &[&both[..], &published[..]].concat(), Some("http://app:8000/"))?;
        self.node("visitor", &["--network", "front"], None)
    }

    fn twin(&mut self, db: &str) -> Step {
        self.chapter("Another LAN with the very same subnet");
        let subnet =
            self.ask(&["network", "inspect", "back", "-f", "{{(index .IPAM.Config 0).Subnet}}"])?;
        self.network("twin", &["--subnet", &subnet])?;
        let web = self.address("web", "back")?;
        self.node("stranger", &["--network", &format!("twin,ip={web}")], None)?;
        self.is_cut_off("stranger", db, "the address of db")?;
        self.node("decoy", &["--network", &format!("twin,ip={db}")], None)?;
        self.reaches("stranger", db, "decoy: 3 charts in stock")?;
        self.reaches("app", db, "db: 3 charts in stock")
    }

    fn chapter(&self, title: &str) {
        output::line(&format!("\n{}", output::bold(title)));
    }

    fn tell(&mut self, took: Duration, what: &str, outcome: &str) {
        self.steps += 1;
        output::line(&format!("  {:>8}  {what:<32}  {}", shown(took), output::clean(outcome)));
    }

    /// Tells what cannot be shown on this machine, and why.
    fn skip(&mut self, what: &str, why: &str) {
        self.skipped += 1;
        output::line(&format!("  {:>8}  {what:<32}  {why}", "skipped"));
    }

    fn network(&mut self, name: &str, options: &[&str]) -> Step {
        let made = self.run(&[&["network", "create", name], options].concat())?;
        let subnet = self.ask(&[
            "network",
            "inspect",
            name,
            "-f",
            "{{range .IPAM.Config}}{{.Subnet}}  {{end}}",
        ])?;
        self.tell(made.took, &format!("network {name}"), &subnet);
        Ok(())
    }

    fn node(&mut self, name: &str, options: &[&str], upstream: Option<&str>) -> Step {
        let program = self.session.program().to_owned();
        let mut command = vec!["run", "-d", "--name", name];
        command.extend(options);
        command.extend(["--", &program, "demo-serve", name, PORT]);
        command.extend(upstream);
        let started = self.run(&command)?;
        let addresses = self.ask(&[
            "inspect",
            name,
            "-f",
            "{{range $net, $end := .NetworkSettings.Networks}}{{$net}} {{$end.IPAddress}}  {{end}}",
        ])?;
        self.tell(started.took, &format!("node {name}"), &addresses);
        Ok(())
    }

    fn address(&mut self, node: &str, network: &str) -> Result<String, Stop> {
        let template = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
        self.ask(&["inspect", node, "-f", &template])
    }

    fn does(&mut self, what: &str, command: &[&str]) -> Step {
        let done = self.run(command)?;
        self.tell(done.took, what, "done");
        Ok(())
    }

    /// `from` must get exactly `answer` from `to`.
    fn reaches(&mut self, from: &str, to: &str, answer: &str) -> Step {
        let what = format!("{from} -> {to}");
        let url = format!("http://{to}:{PORT}/");
        let took = self.gets(&what, Some(from), &url, answer)?;
        self.tell(took, &what, answer);
        Ok(())
    }

    /// `from`, or the host itself, must get exactly `answer`; how long it took.
    fn gets(
        &mut self,
        what: &str,
        from: Option<&str>,
        url: &str,
        answer: &str,
    ) -> Result<Duration, Stop> {
        let outcome = self.fetch(from, &[url])?;
        let said = outcome.stdout.trim();
        if outcome.code != 0 {
            Err(broken(what, &outcome))
        } else if said != answer {
            Err(Stop::Broken(format!("{what} answered {said:?}, not {answer:?}")))
        } else {
            Ok(outcome.took)
        }
    }

    /// `from` must find nobody at `to`.
    fn is_cut_off(&mut self, from: &str, to: &str, what: &str) -> Step {
        let url = format!("http://{to}:{PORT}/");
        self.gets_nothing(&format!("{from} -x- {what}"), Some(from), &url)
    }

    /// `from`, or the host itself, must find nobody there.
    fn gets_nothing(&mut self, what: &str, from: Option<&str>, url: &str) -> Step {
        let outcome = self.fetch(from, &[url, "--timeout", "1", "--once"])?;
        match outcome.code {
            0 => Err(Stop::Broken(format!("{what} was reached: {}", outcome.stdout.trim()))),
            UNREACHABLE => {
                let why = outcome.stderr.trim().trim_start_matches("portolan: ");
                self.tell(outcome.took, what, why);
                Ok(())
            }
            _ => Err(broken(what, &outcome)),
        }
    }

    /// Asks from a node, or from the host itself.
    fn fetch(&mut self, from: Option<&str>, options: &[&str]) -> Result<Outcome, Stop> {
        let program = self.session.program().to_owned();
        let fetch = &["demo-fetch"];
        let command = match from {
            Some(node) => [&["exec", node, "--", &program], &fetch[..], options].concat(),
            None => [&fetch[..], options].concat(),
        };
        self.try_run(&command)
    }

    /// What a command that must succeed prints.
    fn ask(&mut self, command: &[&str]) -> Result<String, Stop> {
        Ok(self.run(command)?.stdout.trim().to_owned())
    }

    fn run(&mut self, command: &[&str]) -> Result<Outcome, Stop> {
        let outcome = self.try_run(command)?;
        if outcome.code == 0 { Ok(outcome) } else { Err(broken(&command.join(" "), &outcome)) }
    }

    fn try_run(&mut self, command: &[&str]) -> Result<Outcome, Stop> {
        match self.session.run(command) {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => Err(Stop::Interrupted),
            Err(why) => Err(Stop::Broken(why)),
        }
    }
}

fn broken(what: &str, outcome: &Outcome) -> Stop {
    let said = outcome.stderr.trim();
    let said =
        said.lines().next_back().unwrap_or("it said nothing").trim_start_matches("portolan: ");
    Stop::Broken(format!("{what} failed with code {}: {said}", outcome.code))
}

#[expect(clippy::disallowed_methods, reason = "the demo shows real times")]
fn now() -> Instant {
    Instant::now()
}

/// A time as a person reads it.
fn shown(took: Duration) -> String {
    match took.as_millis() {
        millis @ ..1000 => format!("{millis} ms"),
        _ => format!("{:.2} s", took.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_the_unit_that_reads_best() {
        assert_eq!(shown(Duration::from_micros(12_345)), "12 ms");
        assert_eq!(shown(Duration::from_millis(1234)), "1.23 s");
    }
}
