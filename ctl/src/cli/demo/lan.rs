//! The demo's LAN: VLANs, a piece of wire, an address by DHCP, and how one sees what became of a frame.

use std::time::Duration;

use super::{Demo, Step, Stop, broken, now};

/// The group that LACP speaks to, which no bridge passes on (IEEE 802.1Q, table 8-1), and what is sent there.
const RESERVED: &str = "0180c2000002";
const TEXT: &str = "a bond says hello";

/// What a capture says of such a frame.
const KEPT_BACK: &str = "[dropped: reserved_group]";

/// The type of the frame whose fate is asked for: IEEE 802's first for experiments.
const EXPERIMENT: &str = "88b5";

/// The longest until a frame is heard, or seen.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

impl Demo {
    /// Shows what a switch does, and how to see it.
    pub fn lan(&mut self) -> Step {
        self.chapter("A complete LAN: VLANs, DHCP, a piece of wire, and eyes");
        self.network("lab", &[])?;
        let on = |options: &'static str| ["--network", "lab", "--driver-opt", options];
        self.node("red", &on("portolan.vlan=access:10"), None)?;
        self.node("blue", &on("portolan.vlan=access:20"), None)?;
        self.node("core", &on("portolan.vlan=trunk:20,native:10"), None)?;
        let (red, blue) = (self.address("red", "lab")?, self.address("blue", "lab")?);
        self.reaches("core", &red, "red: 3 charts in stock")?;
        self.is_cut_off("red", &blue, "blue, of another VLAN")?;
        self.explained()?;
        self.leased(&on("portolan.configure=off"))?;
        self.captured()?;
        self.wired()
    }

    /// Asked why a frame does not come through, the switch names the reason.
    fn explained(&mut self) -> Step {
        let [red, blue] = [self.hardware("red")?, self.hardware("blue")?];
        let told = self.run(&["explain", "lab", &format!("{blue}{red}{EXPERIMENT}")])?;
        let verdict = told.stdout.lines().find(|line| line.contains("DROPPED, vlan_not_allowed"));
        let Some(verdict) = verdict else {
            return Err(Stop::Broken(format!("explain does not say why: {}", told.stdout.trim())));
        };
        let verdict = verdict.split_whitespace().collect::<Vec<_>>().join(" ");
        self.tell(told.took, "explain lab FRAME-HEX", &verdict);
        Ok(())
    }

    /// A node that comes up bare asks for its address as any machine does.
    fn leased(&mut self, options: &[&str]) -> Step {
        self.node("bare", options, None)?;
        let own = self.address("bare", "lab")?;
        let program = self.session.program().to_owned();
        let told = self.run(&["exec", "bare", "--", &program, "demo-frames", "lease"])?;
        let row = "{{.Node}} {{.IPAddress}}";
        let leases = self.ask(&["leases", "lab", "--format", row])?;
        if told.stdout.trim() != own || !leases.lines().any(|row| row == format!("bare {own}")) {
            return Err(Stop::Broken(format!(
                "bare, which is {own}, was given {:?} by DHCP; leases shows {leases:?}",
                told.stdout.trim()
            )));
        }
        self.tell(told.took, "bare asks for it by DHCP", &format!("{own}, and leases shows it"));
        Ok(())
    }

    /// A capture shows the frame that a switch keeps back, and why.
    fn captured(&mut self) -> Step {
        let start = now();
        let capture = self.session.start(&["capture", "lab"]).map_err(Stop::Broken)?;
        let seen = self.until("capture", "red", |demo| {
            let shown = demo.session.said(&capture)?;
            Ok(shown.lines().find(|line| line.contains(KEPT_BACK)).map(str::to_owned))
        });
        let ended = self.session.end(capture).map_err(Stop::Broken);
        let line = seen?;
        ended?;
        // Without the time of day.
        let line = line.split_once(' ').map_or(line.as_str(), |(_, line)| line);
        self.tell(start.elapsed(), "capture lab", line);
        Ok(())
    }

    /// What a switch keeps back, a piece of wire passes.
    fn wired(&mut self) -> Step {
        self.network("cable", &["-o", "portolan.mode=wire"])?;
        self.node("left", &["--network", "cable"], None)?;
        let program = self.session.program().to_owned();
        let listens = ["--", &program, "demo-frames", "hear"];
        let right = ["run", "-d", "--name", "right", "--network", "cable"];
        self.does("node right listens", &[&right[..], &listens].concat())?;
        let start = now();
        let heard = self.until("left -> right", "left", |demo| {
            let logs = demo.session.run(&["logs", "right"])?.map(|logs| logs.stdout);
            Ok(logs.filter(|logs| logs.lines().any(|line| line == TEXT)))
        });
        heard?;
        self.tell(start.elapsed(), "left -> the group of LACP", &format!("right heard: {TEXT}"));
        Ok(())
    }

    /// Has a node send to the reserved group, again and again, until `look` finds what came of it.
    fn until(
        &mut self,
        what: &str,
        node: &str,
        mut look: impl FnMut(&mut Demo) -> Result<Option<String>, String>,
    ) -> Result<String, Stop> {
        let start = now();
        let program = self.session.program().to_owned();
        let words = ["exec", node, "--", &program, "demo-frames", "send", RESERVED, TEXT];
        while start.elapsed() < HEARD_WITHIN {
            let sent = self.try_run(&words)?;
            if sent.code != 0 {
                return Err(broken(what, &sent));
            }
            if let Some(found) = look(self).map_err(Stop::Broken)? {
                return Ok(found);
            }
        }
        Err(Stop::Broken(format!("{what}: the frame of {node} was not seen in {HEARD_WITHIN:?}")))
    }

    /// The hardware address of a node on the LAN, as twelve digits.
    fn hardware(&mut self, node: &str) -> Result<String, Stop> {
        let template = "{{.NetworkSettings.Networks.lab.MacAddress}}";
        Ok(self.ask(&["inspect", node, "-f", template])?.replace(':', ""))
    }
}
