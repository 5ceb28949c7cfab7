//! What the walk of a frame asks of the rules that watch over a network: [`crate::storm`], [`crate::loops`],
//! [`crate::snooping`] and [`crate::resolution`]; and what these send of their own accord.

use crate::command::{Event, Mode};
use crate::datapath::Shared;
use crate::drops::DropReason;
use crate::frame::{FrameIdx, FrameTable, VlanTag};
use crate::gateway::ethernet;
use crate::headers::{ETHERNET_LEN, Layout, ethertype};
use crate::ids::{MacAddr, PortId, Time};
use crate::loops::{self, Found, Probe};
use crate::port::Port;
use crate::resolution::{Holder, News, Question};
use crate::storm::{Admission, Kind};
use crate::trace::Stage;
use crate::turn::Turn;
use crate::vlan::{Leave, UNTAGGED};

use super::Network;
use super::walk::{Placed, Walk, permits};

/// Announcements in one turn; the rest follows in the next.
const NEWS_AT_ONCE: usize = 16;

impl Walk<'_, '_, '_> {
    /// Takes a probe of ours out of the walk, before anybody is judged or learned by it. Whether it was one.
    pub(super) fn take_probe(&mut self, layout: &Layout) -> bool {
        let network = &mut *self.network;
        let bytes = self.turn.frames.get(self.idx).bytes();
        let Some(payload) = network.loops.probe_in(network.gateway.mac(), bytes, layout.l3) else {
            return false;
        };
        let to = network.ports[self.at].id();
        if let Some(found) = network.loops.returned(payload, to, self.now) {
            network.note_loop(found, self.shared);
        }
        self.shared.totals.consumed += self.segments;
        true
    }

    /// Whether the port may send at all.
    pub(super) fn is_open(&self) -> Result<(), DropReason> {
        if self.network.ports[self.at].is_blocked() { Err(DropReason::LoopBlocked) } else { Ok(()) }
    }

    /// A frame bears an address that is not its sender's: of the gateway, or of another endpoint. It may have come around.
    pub(super) fn suspect_source(&mut self, layout: &Layout) {
        let network = &mut *self.network;
        let is_foreign = layout.src == network.gateway.mac()
            || network.stations.lookup(layout.vlan, layout.src, self.now).is_some();
        if is_foreign {
            network.loops.suspect(network.ports[self.at].id(), layout.vlan, self.now);
        }
    }

    /// Counts a frame that goes to many against what its port may send.
    pub(super) fn limit(&mut self, layout: &Layout) -> Result<(), DropReason> {
        let kind = match layout.dst {
            MacAddr::BROADCAST => Kind::Broadcast,
            dst if dst.is_group() => Kind::Multicast,
            // A hub knows no stations.
            _ if self.network.mode == Mode::Hub => return Ok(()),
            _ => Kind::Unknown,
        };
        let network = &mut *self.network;
        let port = &mut network.ports[self.at];
        let Admission::TooMuch { begins } = port.storm_mut().admit(kind, self.segments, self.now)
        else {
            return Ok(());
        };
        let (reason, port) = (kind.reason(), port.id());
        if begins {
            self.shared.events.push(Event::Storm { network: network.id, port, reason });
        }
        network.loops.suspect(port, layout.vlan, self.now);
        Err(reason)
    }

    /// Answers a question who has an endpoint's address, where the switch is to. Whether it did, so that nobody else needs to
    /// hear it.
    pub(super) fn answer(&mut self, layout: &Layout) -> bool {
        if !self.network.answers {
            return false;
        }
        let network = &*self.network;
        let question = Question::of(layout, self.turn.frames.get(self.idx));
        let asker = &network.ports[self.at];
        let reachable = |holder: &Holder| {
            let to = network.find(holder.port).filter(|to| *to != self.at);
            to.is_some_and(|to| {
                permits(Some(asker), &network.ports[to], Placed::of(layout)).is_ok()
            })
        };
        let Some((question, leave)) = question.zip(asker.vlans().leave(layout.vlan)) else {
            return false;
        };
        let holder = network.resolution.holder(layout.vlan, question.target()).filter(reachable);
        let made = holder.and_then(|holder| question.answer(holder.mac, self.turn.frames));
        let Some(made) = made else { return false };
        self.shared.tell(Stage::LookUp, || {
            vec!["answered by the switch, so that nobody else hears it".into()]
        });
        self.turn.frames.get_mut(made).vlan = tag_of(layout.vlan);
        self.turn.outbox.push_as(asker.id(), made, leave);
        self.shared.totals.consumed += self.segments;
        self.shared.totals.made += 1;
        self.shared.totals.sent += 1;
        true
    }

    /// Whether a frame asks for an address of the gateway's own, on a network where the switch answers: nobody else needs to
    /// hear it then either.
    pub(super) fn asks_gateway(&self, layout: &Layout) -> bool {
        let (network, frame) = (&*self.network, self.turn.frames.get(self.idx));
        network.answers
            && Question::of(layout, frame).is_some_and(|q| network.gateway.has(q.target()))
            && network.gateway.concerns(layout, frame, &network.services)
    }
}

impl Network {
    /// Tells of a loop, and blocks the port that it was found by where that is wanted. What was learned behind its ends was
    /// learned of frames that went around.
    fn note_loop(&mut self, found: Found, shared: &mut Shared) {
        let Found { from, to, blocked } = found;
        shared.events.push(Event::Loop { network: self.id, from, to, blocked });
        if blocked {
            self.stations.forget(from);
            self.stations.forget(to);
            self.set_blocked(to, true);
        }
    }

    fn set_blocked(&mut self, port: PortId, blocked: bool) {
        if let Some(at) = self.find(port) {
            self.ports[at].set_blocked(blocked);
            self.note_policies();
        }
    }

    /// When something is due that the rules send of their own accord.
    pub(super) fn next_watch(&self) -> Option<Time> {
        let news = self.resolution.has_news().then_some(Time::ZERO);
        [news, self.loops.next_timeout()].into_iter().flatten().min()
    }

    /// Sends it.
    pub(super) fn run_watch(&mut self, turn: &mut Turn<'_, '_>, shared: &mut Shared, now: Time) {
        for _ in 0..NEWS_AT_ONCE {
            let Some(news) = self.resolution.next_news() else { break };
            if !self.spread_news(news, turn, shared) {
                self.resolution.postpone(news);
                break;
            }
        }
        let (ports, gateway) = (&self.ports, self.gateway.mac());
        let Turn { frames, outbox, random, .. } = turn;
        let opened = self.loops.handle_timeout(*random, now, |probe| {
            let port = ports.binary_search_by_key(&probe.port, Port::id);
            let Ok(port) = port.map(|at| &ports[at]) else { return true };
            let Some(made) = write_probe(&probe, gateway, frames) else { return false };
            // Where the VLAN is none that has a tag on this wire, the probe has none.
            let leave = port.vlans().leave(probe.vlan).unwrap_or(Leave::Untagged);
            outbox.push_as(probe.port, made, leave);
            shared.totals.made += 1;
            shared.totals.sent += 1;
            true
        });
        for port in opened {
            self.set_blocked(port, false);
            shared.events.push(Event::LoopEnded { network: self.id, port });
        }
    }

    /// Announces where an address leads now, to everybody but the port that it leads to. Whether there was room for it.
    fn spread_news(&self, news: News, turn: &mut Turn<'_, '_>, shared: &mut Shared) -> bool {
        let Some(from) = self.find(news.holder.port) else { return true };
        let Some(made) = news.write(turn.frames) else { return false };
        turn.frames.get_mut(made).vlan = tag_of(news.vlan);
        self.spread(Some(&self.ports[from]), news.vlan, made, turn, shared);
        true
    }
}

fn write_probe(probe: &Probe, gateway: MacAddr, frames: &mut FrameTable<'_>) -> Option<FrameIdx> {
    let made = frames.make(loops::PROBE_LEN)?;
    let frame = frames.get_mut(made);
    frame.vlan = tag_of(probe.vlan);
    let bytes = frame.bytes_mut();
    ethernet(bytes, loops::GROUP, gateway, loops::ETHERTYPE);
    if let Some(payload) = bytes[ETHERNET_LEN..].first_chunk_mut() {
        probe.write(payload);
    }
    Some(made)
}

/// The tag of a frame that the switch makes for a VLAN.
fn tag_of(vlan: u16) -> Option<VlanTag> {
    (vlan != UNTAGGED).then_some(VlanTag { tpid: ethertype::VLAN, tci: vlan })
}

#[cfg(test)]
mod tests;
