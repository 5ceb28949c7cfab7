//! `portolan stats`: what goes through the endpoints of a network, of a node, or of all; once, or again and again with rates.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use portolan::api::client::{Client, Failure};
use portolan::api::types::StatsEntry;
use portolan::daemon::clock;
use serde_json::{Value, json};

use super::output::{self, Format, Row};
use super::switch::all_networks;
use super::terminal::{self, Size};
use super::{DaemonChoice, segment, target};

const HEADERS: [&str; 11] = [
    "NETWORK",
    "NODE",
    "INTERFACE",
    "STATE",
    "IN",
    "IN BYTES",
    "OUT",
    "OUT BYTES",
    "DROPPED",
    "TOP REASON",
    "BACKLOG",
];
const WATCHED: [&str; 11] = [
    "NETWORK",
    "NODE",
    "INTERFACE",
    "STATE",
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
    /// table, json (an array, one a line with --watch, with Time and rates), or a template such as '{{.Node}} {{.rx_bytes}}'
    #[arg(long, default_value = "table")]
    format: Format,
}

/// One endpoint, for comparing two looks.
type Key = (String, String, String);

/// Frames and bits in, frames and bits out, a second.
type Rates = [f64; 4];

/// What they are called in JSON.
const RATES: [&str; 4] =
    ["rx_packets_per_second", "rx_bits_per_second", "tx_packets_per_second", "tx_bits_per_second"];

/// What was seen at a look, and when.
struct Look {
    at: Instant,
    /// The same by the clock on the wall, RFC 3339 in UTC.
    time: String,
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
        let rates = rates(before, now);
        let cells = now.entries.iter().zip(&rates).map(|(entry, rates)| rate_cells(entry, rates));
        match &self.format {
            Format::Table => {
                let headers = WATCHED.iter().map(|header| (*header).to_owned());
                let lines = output::table_lines(headers, cells);
                if terminal {
                    let lines = match terminal::size() {
                        Some(size) => fitted(lines, size),
                        None => lines,
                    };
                    // Without a line end behind the last line, which would move the first one out.
                    let text: Vec<String> =
                        lines.iter().map(|l| format!("{l}\x1b[0m\x1b[K")).collect();
                    draw(&format!("\x1b[H{}\x1b[J", text.join("\r\n")));
                } else {
                    lines.iter().for_each(|line| output::line(line));
                }
            }
            Format::Json => {
                let all = now.entries.iter().zip(&rates);
                let told: Vec<Value> =
                    all.map(|(entry, rates)| object(entry, rates, now)).collect();
                output::json_line(&told);
            }
            other => {
                let all = now.entries.iter().zip(&rates).zip(cells);
                let rows: Vec<Row> = all
                    .map(|((entry, rates), cells)| {
                        Row::new(entry, cells, object(entry, rates, now))
                    })
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
    let time = clock::now().to_string();
    Ok(Look { at, time, entries })
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
    let state = if entry.blocked { "blocked" } else { "-" };
    let mut cells =
        vec![entry.network.clone(), entry.node.clone(), entry.interface.clone(), state.into()];
    cells.extend(figures);
    cells.push(entry.rx_dropped.saturating_add(entry.tx_dropped).to_string());
    cells.push(if entry.top_drop.is_empty() { "-".into() } else { entry.top_drop.clone() });
    cells.push(entry.guest_backlog.map_or_else(|| "-".into(), |frames| frames.to_string()));
    cells
}

/// Lines as a terminal has room for them: cut to its width, and those that find no row told of in the last.
fn fitted(mut lines: Vec<String>, size: Size) -> Vec<String> {
    if lines.len() > size.rows {
        let kept = size.rows.saturating_sub(1);
        let beyond = lines.len() - kept;
        lines.truncate(kept);
        lines.push(format!("{beyond} more: name a network or a node, or make the window larger"));
    }
    lines.iter().map(|line| visible(line, size.columns)).collect()
}

/// The beginning of a line, as many characters as stand in a row; what a terminal obeys takes no room.
fn visible(line: &str, columns: usize) -> String {
    let (mut kept, mut room, mut obeyed) = (String::new(), columns, false);
    for letter in line.chars() {
        obeyed |= letter == '\x1b';
        if !obeyed && room == 0 {
            break;
        }
        room -= usize::from(!obeyed);
        kept.push(letter);
        obeyed &= letter != 'm';
    }
    kept
}

/// An endpoint's figures with the time of the look and the rates since the one before.
fn object(entry: &StatsEntry, rates: &Rates, now: &Look) -> Value {
    let mut object = json!(entry);
    if let Value::Object(fields) = &mut object {
        fields.insert("Time".into(), now.time.clone().into());
        for (name, rate) in RATES.iter().zip(rates) {
            fields.insert((*name).into(), json!((rate * 1000.0).round() / 1000.0));
        }
    }
    object
}

fn rate_cells(entry: &StatsEntry, rates: &Rates) -> Vec<String> {
    row(entry, rates.map(people))
}

/// What happened since the look before, by the second; of an endpoint that is new, or was made anew and counts from zero again,
/// nothing yet.
fn rates(before: &Look, now: &Look) -> Vec<Rates> {
    let known: BTreeMap<Key, &StatsEntry> = before.entries.iter().map(|e| (key(e), e)).collect();
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64().max(0.001);
    let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
    let of = |entry: &StatsEntry| {
        let old = known.get(&key(entry)).copied().unwrap_or(entry);
        let bits = |bytes: u64| bytes.saturating_mul(8);
        [
            rate(entry.rx_packets, old.rx_packets),
            rate(bits(entry.rx_bytes), bits(old.rx_bytes)),
            rate(entry.tx_packets, old.tx_packets),
            rate(bits(entry.tx_bytes), bits(old.tx_bytes)),
        ]
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
            blocked: false,
            top_drop: String::new(),
            guest_backlog: None,
        }
    }

    #[test]
    fn rates_are_what_happened_between_two_looks() {
        #[expect(clippy::disallowed_methods, reason = "a base for two instants that are set")]
        let start = Instant::now();
        let time = || "2026-01-01T00:00:00Z".to_owned();
        let entries = vec![entry("a", 100, 1000), entry("c", 900, 900)];
        let before = Look { at: start, time: time(), entries };
        let now = Look {
            at: start + Duration::from_secs(2),
            time: time(),
            entries: vec![entry("a", 3100, 1_001_000), entry("b", 7, 7), entry("c", 1, 1)],
        };
        let rows = rates(&before, &now);
        assert_eq!(rows[0], [1500.0, 4_000_000.0, 0.0, 0.0]);
        assert_eq!(rows[1], [0.0; 4], "a new endpoint has no rate yet");
        assert_eq!(rows[2], [0.0; 4], "one made anew counts from zero");
        let cells = rate_cells(&now.entries[0], &rows[0]);
        let expected = ["app", "a", "eth0", "-", "1.50k", "4.00M", "0", "0", "5", "-", "-"];
        assert_eq!(cells, expected);
        let told = object(&now.entries[0], &rows[0], &now);
        assert_eq!(told["Time"], "2026-01-01T00:00:00Z");
        assert_eq!((&told["rx_packets"], &told["rx_bits_per_second"]), (&json!(3100), &json!(4e6)));
    }

    #[test]
    fn a_table_fits_its_terminal_and_says_what_does_not() {
        let lines: Vec<String> =
            (0..5).map(|n| format!("\x1b[1mline {n}\x1b[0m of many")).collect();
        let size = |columns, rows| Size { columns, rows };
        assert_eq!(fitted(lines.clone(), size(99, 5)), lines);
        let told = fitted(lines.clone(), size(8, 3));
        assert_eq!(told, ["\x1b[1mline 0\x1b[0m o", "\x1b[1mline 1\x1b[0m o", "3 more: "]);
        assert_eq!(fitted(lines, size(6, 1)), ["5 more"]);
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
