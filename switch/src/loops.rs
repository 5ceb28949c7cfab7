//! Loops: what is sent to one port comes back by another, or by the same.
//!
//! Theory of operation. A bridge cannot see a loop, only what it does: stations that seem to live behind two ports at once, a
//! storm, the gateway's own address as somebody's source. Whatever of this strikes makes a port *suspect*, and so does its
//! attachment. A suspect port is sent a *probe*: a frame of the switch's own, with a random number that nobody can guess who
//! was not sent it. If it comes back, there is a loop, and both of its ends are known for certain: the port it was sent to, and
//! the one it came in by. That one is blocked, so that nothing comes from it or goes to it; the other stays open, and whoever is
//! behind both is reached by it.
//!
//! A probe is recognized by its whole header: a group address of ours, the gateway's address, the EtherType for local
//! experiments (IEEE 802, 0x88b5), and what it begins with. The EtherType of the configuration test protocol (0x9000), which
//! some switches use for this, would have hosts answer it that speak that protocol, which is no loop. The group is none that a
//! bridge keeps to its link, and none of IP, so that every bridge passes it to all its ports. Whatever looks like a probe
//! is taken out of the walk before anybody is judged or learned by it, and goes to nobody, in whichever VLAN.
//!
//! Guests may replay and forge. The number must be that of the last probe to the port it names, of the last [`ANSWER`]; and a
//! probe only ever blocks the port that it came in by. So a guest can have nobody blocked but itself, and that only together
//! with another who passed it what that one's port was sent: which is a loop indeed. Of two ports at least one stays open: what
//! was sent to a blocked port blocks nobody.
//!
//! A port is blocked for [`BLOCK`], and for twice as long each time that the loop is still there, up to [`BLOCK_MAX`]. At the
//! end a new probe, out of the port by which the loop had been found, decides while nothing else passes yet: if it does not
//! come back within [`ANSWER`], the port is open again.
//!
//! There is one record a port, and no deadline where nothing is suspected or blocked.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng, RngExt};

use crate::command::LoopAction;
use crate::headers::ETHERNET_LEN;
use crate::ids::{MacAddr, PortId, Time};

/// Whereto a probe is sent: a group of our own.
pub const GROUP: MacAddr = MacAddr([0x03, b'p', b'o', b'r', b't', b'o']);

/// What a probe is, for bridges: the EtherType for local experiments.
pub const ETHERTYPE: u16 = 0x88b5;

/// What a probe begins with behind its header.
const MAGIC: [u8; 8] = *b"portolan";

/// Bytes of a probe: no shorter than a frame may be on a wire, without the checksum.
pub const PROBE_LEN: usize = 60;

/// Moves of stations to a port within [`MOVES_SPAN`] that make it suspect.
const MOVES: u32 = 3;

/// See [`MOVES`].
const MOVES_SPAN: Duration = Duration::from_secs(1);

/// How long a probe may take to come back, and how often one is sent to a port at most.
pub const ANSWER: Duration = Duration::from_secs(1);

/// How long a port is blocked at first.
pub const BLOCK: Duration = Duration::from_secs(30);

/// How long at most.
pub const BLOCK_MAX: Duration = Duration::from_secs(240);

/// How long a port must have been open for its next loop to be a new one; and how often one is told of that nothing is done
/// about.
const FRESH: Duration = Duration::from_secs(300);

/// Probes sent at once; the rest follows in the next turn.
const AT_ONCE: usize = 32;

/// A probe to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// To which port.
    pub port: PortId,
    /// On which VLAN, 0 for none.
    pub vlan: u16,
    nonce: u64,
}

impl Probe {
    /// Writes what stands behind the Ethernet header.
    pub fn write(&self, payload: &mut [u8; PROBE_LEN - ETHERNET_LEN]) {
        payload.fill(0);
        payload[..8].copy_from_slice(&MAGIC);
        payload[8..12].copy_from_slice(&self.port.0.to_be_bytes());
        payload[12..20].copy_from_slice(&self.nonce.to_be_bytes());
    }
}

/// A loop that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Sent to it.
    pub from: PortId,
    /// Come back by it.
    pub to: PortId,
    /// Whether that one is blocked now.
    pub blocked: bool,
}

/// Whether a port passes frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    /// Until then.
    Blocked {
        until: Time,
    },
    /// Blocked still, while a probe decides. None as long as it has not been sent.
    Tried {
        until: Option<Time>,
    },
}

#[derive(Clone, Debug)]
struct Watch {
    state: State,
    /// Since when moves are counted, and how many there were.
    moves: (Time, u32),
    /// A probe is wanted, on this VLAN.
    suspect: Option<u16>,
    /// The last probe to it, and when it was sent.
    probed: Option<(Time, Probe)>,
    /// To which port the probe was sent that it was blocked for, and on which VLAN.
    by: (PortId, u16),
    /// How long it was blocked last.
    span: Duration,
    /// When it was opened last, or told of.
    settled: Option<Time>,
}

/// What a network knows of loops.
#[derive(Clone, Debug)]
pub struct Loops {
    action: LoopAction,
    ports: BTreeMap<PortId, Watch>,
    /// Those that are not open, in order: few, if any.
    blocked: Vec<PortId>,
    /// When something is due next.
    due: Option<Time>,
}

impl Loops {
    /// Without ports.
    pub fn new(action: LoopAction) -> Loops {
        Loops { action, ports: BTreeMap::new(), blocked: Vec::new(), due: None }
    }

    /// A port joins. It is suspect, so that a loop is found before anybody suffers from it; a probe is sent on `vlan`.
    pub fn attach(&mut self, port: PortId, vlan: u16) {
        if self.action == LoopAction::Ignore {
            return;
        }
        self.due = Some(Time::ZERO);
        self.ports.insert(
            port,
            Watch {
                state: State::Open,
                moves: (Time::ZERO, 0),
                suspect: Some(vlan),
                probed: None,
                by: (port, vlan),
                span: BLOCK,
                settled: None,
            },
        );
    }

    /// A port leaves.
    pub fn detach(&mut self, port: PortId) {
        self.ports.remove(&port);
        self.blocked.retain(|blocked| *blocked != port);
    }

    /// Whether nothing passes from or to a port.
    pub fn is_blocked(&self, port: PortId) -> bool {
        !self.blocked.is_empty() && self.blocked.binary_search(&port).is_ok()
    }

    /// A station of that VLAN was seen on another port than before.
    pub fn moved(&mut self, to: PortId, vlan: u16, now: Time) {
        let Some(watch) = self.ports.get_mut(&to) else { return };
        if now.since(watch.moves.0) >= MOVES_SPAN {
            watch.moves = (now, 0);
        }
        watch.moves.1 += 1;
        if watch.moves.1 >= MOVES {
            watch.moves = (now, 0);
            self.suspect(to, vlan, now);
        }
    }

    /// There may be a loop at a port, on that VLAN.
    pub fn suspect(&mut self, port: PortId, vlan: u16, now: Time) {
        let Some(watch) = self.ports.get_mut(&port) else { return };
        if watch.state == State::Open && watch.suspect.is_none() {
            watch.suspect = Some(vlan);
            let due = watch.may_probe(now);
            self.note(due);
        }
    }

    /// Whether a frame is a probe of this network, whose gateway has that address; what stands behind its header, then.
    pub fn probe_in<'f>(&self, gateway: MacAddr, frame: &'f [u8], l3: usize) -> Option<&'f [u8]> {
        if self.action == LoopAction::Ignore || !frame.starts_with(&GROUP.0) {
            return None;
        }
        let kind = frame.get(l3.checked_sub(2)?..l3)?;
        let payload = frame.get(l3..)?;
        let ours = frame.get(6..12) == Some(&gateway.0[..]) && kind == ETHERTYPE.to_be_bytes();
        (ours && payload.starts_with(&MAGIC)).then_some(payload)
    }

    /// A probe has come in by a port. What was found by it, which is to be told of; the stations that were learned behind its
    /// ports are then to be forgotten.
    pub fn returned(&mut self, payload: &[u8], to: PortId, now: Time) -> Option<Found> {
        let from = PortId(u32::from_be_bytes(*payload.get(8..)?.first_chunk()?));
        let nonce = u64::from_be_bytes(*payload.get(12..)?.first_chunk()?);
        let (sent, probe) = self.ports.get(&from)?.probed?;
        if probe.nonce != nonce || now.since(sent) > ANSWER {
            return None;
        }
        // What came of a port that is blocked already has been told of, and that loop is cut.
        if from != to && self.is_blocked(from) {
            return None;
        }
        let action = self.action;
        let watch = self.ports.get_mut(&to)?;
        let is_again = match watch.state {
            State::Blocked { .. } => return None,
            State::Tried { .. } => true,
            State::Open => watch.settled.is_some_and(|then| now.since(then) < FRESH),
        };
        if action == LoopAction::Tell {
            watch.settled = watch.settled.filter(|_| is_again).or(Some(now));
            return (!is_again).then_some(Found { from, to, blocked: false });
        }
        watch.span = if is_again { (watch.span * 2).min(BLOCK_MAX) } else { BLOCK };
        watch.by = (from, probe.vlan);
        watch.suspect = None;
        let until = now + watch.span;
        watch.state = State::Blocked { until };
        self.note(until);
        if let Err(at) = self.blocked.binary_search(&to) {
            self.blocked.insert(at, to);
        }
        Some(Found { from, to, blocked: true })
    }

    /// When [`Loops::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Time> {
        self.due
    }

    /// Does what is due: `send` sends a probe, and says whether there was room for it. Returns the ports that are open again.
    pub fn handle_timeout(
        &mut self,
        random: &mut dyn Rng,
        now: Time,
        mut send: impl FnMut(Probe) -> bool,
    ) -> Vec<PortId> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let opened = self.try_blocked(now);
        let mut sent = 0;
        for (port, watch) in &mut self.ports {
            let Some(vlan) = watch.suspect.filter(|_| watch.may_probe(now) <= now) else {
                continue;
            };
            let probe = Probe { port: *port, vlan, nonce: random.random() };
            sent += 1;
            if sent > AT_ONCE || !send(probe) {
                break;
            }
            watch.suspect = None;
            watch.probed = Some((now, probe));
        }
        self.wait_for_probes(now);
        self.due = self.ports.values().filter_map(|watch| watch.due(now)).min();
        opened
    }

    /// Has those tried whose time is over, and opens those whose probe has not come back. Returns these.
    fn try_blocked(&mut self, now: Time) -> Vec<PortId> {
        let mut opened = Vec::new();
        for port in self.blocked.clone() {
            let Some(watch) = self.ports.get_mut(&port) else { continue };
            match watch.state {
                State::Blocked { until } if until <= now => {
                    watch.state = State::Tried { until: None };
                    let (by, vlan) = watch.by;
                    if let Some(other) = self.ports.get_mut(&by) {
                        other.suspect = Some(vlan);
                    }
                }
                State::Tried { until: Some(until) } if until <= now => {
                    watch.state = State::Open;
                    watch.settled = Some(now);
                    // It may have become part of another loop meanwhile.
                    watch.suspect = Some(watch.by.1);
                    opened.push(port);
                }
                _ => {}
            }
        }
        self.blocked.retain(|port| !opened.contains(port));
        opened
    }

    /// Sets the time until which those wait that are tried, now that the probe for them is sent, or nobody is left to send it to.
    fn wait_for_probes(&mut self, now: Time) {
        for port in &self.blocked {
            let Some(watch) = self.ports.get(port) else { continue };
            let other = self.ports.get(&watch.by.0);
            let is_waiting = other.is_some_and(|other| other.suspect.is_some());
            if watch.state == (State::Tried { until: None }) && !is_waiting {
                let until = Some(if other.is_some() { now + ANSWER } else { now });
                if let Some(watch) = self.ports.get_mut(port) {
                    watch.state = State::Tried { until };
                }
            }
        }
    }

    fn note(&mut self, due: Time) {
        self.due = Some(self.due.map_or(due, |at| at.min(due)));
    }
}

impl Watch {
    /// When a probe may be sent to it, at the earliest.
    fn may_probe(&self, now: Time) -> Time {
        self.probed.map_or(now, |(sent, _)| sent + ANSWER)
    }

    /// When something is due for it.
    fn due(&self, now: Time) -> Option<Time> {
        let probe = self.suspect.map(|_| self.may_probe(now));
        let state = match self.state {
            State::Open | State::Tried { until: None } => None,
            State::Blocked { until } | State::Tried { until: Some(until) } => Some(until),
        };
        [probe, state].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
