//! Sending what a turn put in the outbox, and counting what became of it.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::floods::{FEW, Flood, Floods, Receiving, Whence};
use super::packet::BATCH_MAX;
use super::port_io::{Sent, Tx};
use crate::datapath::Datapath;
use crate::drops::DropReason;
use crate::frame::FrameTable;
use crate::ids::{PortId, Time};
use crate::outbox::{Entry, Outbox};

/// What is needed to send, and to count what became of it.
pub(super) struct Sending<'s> {
    pub tx: &'s [Option<Arc<Tx>>],
    pub core: &'s mut Datapath,
    pub absent: &'s mut Vec<PortId>,
    pub now: Time,
}

impl Sending<'_> {
    /// Sends what a turn put in the outbox, each port's frames together and in order. What goes to many ports is handed over, as
    /// of the port whose frames the turn was about.
    pub(super) fn flush(
        mut self,
        sender: Option<PortId>,
        outbox: &mut Outbox,
        frames: &FrameTable<'_>,
        floods: &mut Floods,
    ) {
        outbox.take_floods(FEW, |entries| self.hand_over(sender, entries, frames, floods));
        outbox.group_by_port();
        self.send(outbox.entries(), frames);
        outbox.clear();
    }

    /// Has one frame sent to many ports, or dropped where too much waits.
    fn hand_over(
        &mut self,
        whose: Option<PortId>,
        entries: &[Entry],
        frames: &FrameTable<'_>,
        floods: &mut Floods,
    ) {
        let Some(first) = entries.first() else { return };
        let frame = frames.get(first.frame);
        let whence = Whence { network: self.core.network_of(first.port), sender: whose };
        let has_room = floods.has_room(whence, entries.len(), frame.bytes().len());
        let mut receivers = Vec::with_capacity(if has_room { entries.len() } else { 0 });
        for entry in entries {
            let one = std::slice::from_ref(entry);
            match sender(self.tx, entry.port) {
                Some(tx) if has_room => receivers.push(Receiving::new(entry, tx)),
                Some(_) => self.refuse(one, frames, DropReason::TxFull),
                None => self.refuse(one, frames, DropReason::TxDown),
            }
        }
        if !receivers.is_empty() {
            floods.push(whence, frame, receivers);
        }
    }

    /// Sends entries that are grouped by port, and counts what became of them.
    fn send(&mut self, entries: &[Entry], frames: &FrameTable<'_>) {
        for all in entries.chunk_by(|a, b| a.port == b.port) {
            let Some(tx) = sender(self.tx, all[0].port) else {
                self.refuse(all, frames, DropReason::TxDown);
                continue;
            };
            for run in all.chunks(BATCH_MAX) {
                let sent = tx.send(run, frames);
                self.count(run, frames, &sent);
            }
        }
    }

    /// Counts what became of a flood. What was for a port that has been closed since is no port's.
    pub(super) fn count_flood(&mut self, mut flood: Flood) {
        flood.each(|Receiving { entry, tx, sent }, frames| {
            if sender(self.tx, entry.port).is_some_and(|now| Arc::as_ptr(now) == tx.as_ptr()) {
                self.count(std::slice::from_ref(entry), frames, sent);
            } else {
                for refused in &sent.refused {
                    self.core.count_adrift(refused.reason, refused.frames);
                }
            }
        });
    }

    /// Counts what became of a port's run of at most [`BATCH_MAX`] frames.
    fn count(&mut self, run: &[Entry], frames: &FrameTable<'_>, sent: &Sent) {
        let id = run[0].port;
        if sent.device_absent {
            self.absent.push(id);
        }
        if sent.frames > 0 {
            self.core.count_tx(id, sent.frames, sent.bytes);
        }
        for refused in &sent.refused {
            self.core.count_drop(id, refused.reason, refused.frames);
        }
        let refused: ArrayVec<_, BATCH_MAX> =
            sent.refused.iter().map(|refused| (refused.at, refused.reason)).collect();
        self.core.show_sent(id, run, frames, &refused, self.now);
    }

    /// Counts frames of one port that are not sent.
    fn refuse(&mut self, all: &[Entry], frames: &FrameTable<'_>, reason: DropReason) {
        let id = all[0].port;
        let lost = all.iter().map(|entry| frames.get(entry.frame).segments()).sum();
        self.core.count_drop(id, reason, lost);
        if self.core.is_captured() {
            let refused: Vec<_> = (0..all.len()).map(|at| (at, reason)).collect();
            self.core.show_sent(id, all, frames, &refused, self.now);
        }
    }
}

/// The sending half of a port that is open.
fn sender(tx: &[Option<Arc<Tx>>], port: PortId) -> Option<&Arc<Tx>> {
    tx.get(port.0 as usize)?.as_ref()
}

#[cfg(test)]
mod tests;
