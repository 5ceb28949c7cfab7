//! `portolan stats`: what goes through the endpoints of a network, of a node, or of all; once, or again and again with rates.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use portolan::api::client::{Client, Failure};
use portolan::api::types::StatsEntry;
use serde_json::Value;

use super::output::{self, Format, Row};
use super::switch::all_networks;
use super::{DaemonChoice, segment, target};

const HEADERS: [&str; 10] = [
    "NETWORK",
    "NODE",
    "INTERFACE",
    "IN",
    "IN BYTES",
    "OUT",
    "OUT BYTES",
    "DROPPED",
    "TOP REASON",
    "BACKLOG",
];
const WATCHED: [&str; 10] = [
    "NETWORK",
    "NODE",
    "INTERFACE",
    "IN/s",
    "IN bit/s",
    "OUT/s",
    "OUT bit/s",
    "DROPPED",
    "TOP REASON",
    "BACKLOG",
];

#[derive(Args, Debug)]
pub struct Stats {
    /// Name or id of a network or of a node; all networks unless given
    #[arg(value_name = "NETWORK|NODE")]
    target: Option<String>,
    /// Show them again and again, with rates, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1, requires = "watch",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// table, json (an array, one a line with --watch), or a template such as '{{.Node}} {{.rx_bytes}}'
    #[arg(long, default_value = "table")]
    format: Format,
}

/// One endpoint, for comparing two looks.
type Key = (String, String, String);

/// What was seen at a look, and when.
struct Look {
    at: Instant,
    entries: Vec<StatsEntry>,
}

impl Stats {
    pub fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let client = daemon.open()?;
        let target = self.target.as_deref().map(|word| target::find(&client, word)).transpose()?;
        let mut look = look(&client, target.as_deref())?;
        if !self.watch {
            let rows: Vec<Row> =
                look.entries.iter().map(|e| Row::new(e, cells(e), Value::Null)).collect();
            output::list(&self.format, &HEADERS, &rows)?;
            return Ok(0);
        }
        let terminal = self.format == Format::Table && std::io::stdout().is_terminal();
        if terminal {
            draw("\x1b[2J");
        }
        self.show(&look, &look, terminal)?;
        loop {
            thread::sleep(Duration::from_secs(self.interval));
            let next = self::look(&client, target.as_deref())?;
            self.show(&look, &next, terminal)?;
            look = next;
        }
    }

    fn show(&self, before: &Look, now: &Look, terminal: bool) -> Result<(), Failure> {
        let cells = rates(before, now);
        match &self.format {
            Format::Table => {
                let headers = WATCHED.iter().map(|header| (*header).to_owned());
                let lines = output::table_lines(headers, cells.into_iter());
                if terminal {
                    let text: String = lines.iter().map(|line| format!("{line}\x1b[K\n")).collect();
                    draw(&format!("\x1b[H{text}\x1b[J"));
                } else {
                    lines.iter().for_each(|line| output::line(line));
                }
            }
            Format::Json => {
                output::json_line(&now.entries);
            }
            other => {
                let rows: Vec<Row> = (now.entries.iter().zip(cells))
                    .map(|(entry, cells)| Row::new(entry, cells, Value::Null))
                    .collect();
                output::list(other, &WATCHED, &rows)?;
            }
        }
        Ok(())
    }
}

/// The figures of what this path names, or of all networks there are by now.
fn look(client: &Client, of: Option<&str>) -> Result<Look, Failure> {
    let entries = match of {
        Some(path) => client.get(&format!("{path}/stats"))?,
        None => {
            let mut all: Vec<StatsEntry> = Vec::new();
            for name in all_networks(client)? {
                let path = format!("/v1/networks/{}/stats", segment(&name)?);
                // One may have ended since they were listed.
                all.extend(client.get_if_there::<Vec<_>>(&path)?.unwrap_or_default());
            }
            all
        }
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line is an edge: it measures what rates are of"
    )]
    let at = Instant::now();
    Ok(Look { at, entries })
}

/// Writes to the terminal as it is.
fn draw(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn key(entry: &StatsEntry) -> Key {
    (entry.network.clone(), entry.node.clone(), entry.interface.clone())
}

fn cells(entry: &StatsEntry) -> Vec<String> {
    row(
        entry,
        [entry.rx_packets, entry.rx_bytes, entry.tx_packets, entry.tx_bytes].map(|n| n.to_string()),
    )
}

fn row(entry: &StatsEntry, figures: [String; 4]) -> Vec<String> {
    let mut cells = vec![entry.network.clone(), entry.node.clone(), entry.interface.clone()];
    cells.extend(figures);
    cells.push(entry.rx_dropped.saturating_add(entry.tx_dropped).to_string());
    cells.push(if entry.top_drop.is_empty() { "-".into() } else { entry.top_drop.clone() });
    cells.push(entry.guest_backlog.map_or_else(|| "-".into(), |frames| frames.to_string()));
    cells
}

/// The rows of a look with what happened since the one before, by the second; of an endpoint that is new, or was made anew and
/// counts from zero again, nothing yet.
fn rates(before: &Look, now: &Look) -> Vec<Vec<String>> {
    let known: BTreeMap<Key, &StatsEntry> = before.entries.iter().map(|e| (key(e), e)).collect();
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64().max(0.001);
    let rate = |new: u64, old: u64| people(new.saturating_sub(old) as f64 / seconds);
    let of = |entry: &StatsEntry| {
        let old = known.get(&key(entry)).copied().unwrap_or(entry);
        let bits = |bytes: u64| bytes.saturating_mul(8);
        row(
            entry,
            [
                rate(entry.rx_packets, old.rx_packets),
                rate(bits(entry.rx_bytes), bits(old.rx_bytes)),
                rate(entry.tx_packets, old.tx_packets),
                rate(bits(entry.tx_bytes), bits(old.tx_bytes)),
            ],
        )
    };
    now.entries.iter().map(of).collect()
}

/// A rate with three digits that count: `999`, `1.25k`, `31.4M`.
fn people(rate: f64) -> String {
    let mut scaled = rate;
    for unit in ["", "k", "M", "G"] {
        if scaled < 999.5 || unit == "G" {
            let digits = if unit.is_empty() || scaled >= 99.95 {
                0
            } else if scaled >= 9.995 {
                1
            } else {
                2
            };
            return format!("{scaled:.digits$}{unit}");
        }
        scaled /= 1000.0;
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: &str, packets: u64, bytes: u64) -> StatsEntry {
        StatsEntry {
            network: "app".into(),
            node: node.into(),
            interface: "eth0".into(),
            rx_bytes: bytes,
            rx_packets: packets,
            rx_dropped: 2,
            tx_bytes: 0,
            tx_packets: 0,
            tx_dropped: 3,
            top_drop: String::new(),
            guest_backlog: None,
        }
    }

    #[test]
    fn rates_are_what_happened_between_two_looks() {
        #[expect(clippy::disallowed_methods, reason = "a base for two instants that are set")]
        let start = Instant::now();
        let before = Look { at: start, entries: vec![entry("a", 100, 1000), entry("c", 900, 900)] };
        let now = Look {
            at: start + Duration::from_secs(2),
            entries: vec![entry("a", 3100, 1_001_000), entry("b", 7, 7), entry("c", 1, 1)],
        };
        let rows = rates(&before, &now);
        assert_eq!(rows[0], ["app", "a", "eth0", "1.50k", "4.00M", "0", "0", "5", "-", "-"]);
        assert_eq!(rows[1][3..5], ["0", "0"], "a new endpoint has no rate yet");
        assert_eq!(rows[2][3..5], ["0", "0"], "one made anew counts from zero");
    }

    #[test]
    fn rates_have_three_digits() {
        for (rate, text) in [
            (0.0, "0"),
            (999.4, "999"),
            (999.5, "1.00k"),
            (12_340.0, "12.3k"),
            (123_400.0, "123k"),
            (999_600.0, "1.00M"),
            (4.2e12, "4200G"),
        ] {
            assert_eq!(people(rate), text);
        }
    }
}
