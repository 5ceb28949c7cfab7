//! Floods to many ports, sent by a thread of their own.
//!
//! Sending costs some microseconds a port, most of which the kernel takes to run what is behind it: a veth hands a frame to the
//! guest's stack in the very call that sends it. A thousand ports make several milliseconds, in which the loop would serve nobody
//! else. So a frame that goes to more than [`FEW`] ports is copied, once, and handed over to the thread through a bounded queue.
//! The thread sends it to one port after the other and hands it back with what became of it; the loop counts that, and shows it to
//! captures. The thread owns nothing of the core: it has the frame, and a weak hold of each port's sending half.
//!
//! **Order.** Floods that go this way keep their order. What goes to few ports is sent by the loop, and may overtake them. That
//! leaves order where it is owed, within one source, destination and priority (IEEE 802.1Q, section 6.5.3), since a group has
//! nearly the same ports from one frame to the next, and so one way: only where their number crosses the threshold, or where
//! flooding ends since a station was heard, may the last flood be overtaken once. To send all floods this way as long as any
//! waits would mend that, at the price that whoever floods a large network delays the small ones; so it is not done.
//!
//! **Bounds.** What waits is bounded in ports to be sent to, which is time, in bytes and in number; one network may have half of that. A
//! flood beyond that is dropped at each of its ports as the queue of a slow receiver would ([`DropReason::TxFull`]). Nobody waits.
//!
//! **Change.** A flood goes to the ports of the time it came at. A port that is closed drops its sending half, and that is how the
//! thread knows; the frame counts as [`DropReason::TxDown`], nowhere near whoever has the port's number by then. So neither a
//! commit nor a close has to wait. When the loop ends it drops all sending halves, and what waits goes nowhere.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::queue::ArrayQueue;

use super::port_io::{Refused, Sent, Tx};
use crate::drops::DropReason;
use crate::frame::{Frame, FrameIdx, FrameTable, Offload, VlanTag};
use crate::ids::NetworkId;
use crate::outbox::Entry;

/// Most ports of a flood that the loop sends itself: a quarter of a millisecond, and no less than handing over is worth.
pub(super) const FEW: usize = 32;

/// Ports that may wait to be sent to: a quarter of a second.
const PORTS_MAX: usize = 32 * 1024;

/// Bytes of frames that may wait.
const BYTES_MAX: usize = 4 << 20;

/// Floods that may wait, however few of their ports are open.
const FLOODS_MAX: usize = 1024;

/// The part of each of these that one network may have.
const SHARE: usize = 2;

/// A frame on its way to many ports, and on its way back.
pub(super) struct Flood {
    bytes: Box<[u8]>,
    offload: Offload,
    vlan: Option<VlanTag>,
    receivers: Vec<Receiving>,
}

/// One of the ports of a flood.
pub(super) struct Receiving {
    /// The only entry of its run, of the first frame of a table.
    pub entry: Entry,
    /// Which sending half it was, whatever the port's number stands for by now.
    pub tx: Weak<Tx>,
    /// What became of it.
    pub sent: Sent,
}

impl Receiving {
    pub(super) fn new(entry: &Entry, tx: &Arc<Tx>) -> Receiving {
        let entry = Entry { frame: FrameIdx(0), ..*entry };
        Receiving { entry, tx: Arc::downgrade(tx), sent: Sent::default() }
    }
}

impl Flood {
    /// Sends the frame to one port after the other.
    fn send(&mut self) {
        self.each(|receiving, frames| {
            let run = std::slice::from_ref(&receiving.entry);
            receiving.sent = match receiving.tx.upgrade() {
                Some(tx) => tx.send(run, frames),
                None => closed(frames.get(receiving.entry.frame)),
            };
        });
    }

    /// Goes through the ports in order, with the table that their entries speak of.
    pub(super) fn each(&mut self, mut visit: impl FnMut(&mut Receiving, &FrameTable<'_>)) {
        let len = self.bytes.len();
        let mut frame = Frame::new(&mut self.bytes, 0, len);
        (frame.offload, frame.vlan) = (self.offload, self.vlan);
        let mut frames = FrameTable::new(&mut []);
        frames.push(frame);
        for receiving in &mut self.receivers {
            visit(receiving, &frames);
        }
    }
}

/// What becomes of a frame for a port that was closed.
fn closed(frame: &Frame<'_>) -> Sent {
    let refused = Refused { at: 0, reason: DropReason::TxDown, frames: frame.segments() };
    Sent { refused: vec![refused], ..Sent::default() }
}

/// What a flood that waits takes of the bounds.
#[derive(Clone, Copy)]
struct Waiting {
    network: Option<NetworkId>,
    ports: usize,
    bytes: usize,
}

/// The loop's end: what was handed over, and the way back. Dropping it ends the thread and waits for that.
pub(super) struct Floods {
    /// None once the thread is to end.
    there: Option<Sender<Flood>>,
    back: Arc<ArrayQueue<Flood>>,
    /// What has not come back, oldest first.
    waiting: VecDeque<Waiting>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Floods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Floods").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Floods {
    /// Starts the thread. It calls `wake` whenever a flood has come back.
    pub(super) fn start(wake: impl Fn() + Send + 'static) -> io::Result<Floods> {
        let (there, come) = bounded(FLOODS_MAX);
        let back = Arc::new(ArrayQueue::new(FLOODS_MAX));
        let give = Arc::clone(&back);
        let thread = std::thread::Builder::new()
            .name("floods".to_owned())
            .spawn(move || send_all(&come, &give, wake))?;
        Ok(Floods { there: Some(there), back, waiting: VecDeque::new(), thread: Some(thread) })
    }

    /// Whether a frame of that length may go to so many ports of a network. A network of which none waits has room for one in
    /// any case, unless others have used up everything.
    pub(super) fn has_room(&self, network: Option<NetworkId>, ports: usize, bytes: usize) -> bool {
        let fits = |waiting: &mut dyn Iterator<Item = &Waiting>, part: usize| {
            let sum = |(n, p, b), one: &Waiting| (n + 1, p + one.ports, b + one.bytes);
            let (floods, waiting_ports, waiting_bytes) = waiting.fold((0, 0, 0), sum);
            floods == 0
                || (floods < FLOODS_MAX / part
                    && waiting_ports + ports <= PORTS_MAX / part
                    && waiting_bytes + bytes <= BYTES_MAX / part)
        };
        fits(&mut self.waiting.iter(), 1)
            && fits(&mut self.waiting.iter().filter(|one| one.network == network), SHARE)
    }

    /// Hands a frame over; there must be room for it.
    pub(super) fn push(
        &mut self,
        network: Option<NetworkId>,
        frame: &Frame<'_>,
        receivers: Vec<Receiving>,
    ) {
        let waiting = Waiting { network, ports: receivers.len(), bytes: frame.bytes().len() };
        let flood = Flood {
            bytes: frame.bytes().into(),
            offload: frame.offload,
            vlan: frame.vlan,
            receivers,
        };
        let there = self.there.as_ref().expect("it is taken when all ends");
        there.try_send(flood).expect("the queue holds more than may wait, and its thread lives");
        self.waiting.push_back(waiting);
    }

    /// Whether something came back.
    pub(super) fn has_news(&self) -> bool {
        !self.back.is_empty()
    }

    /// The oldest flood that came back, and how many ports it had.
    pub(super) fn take_back(&mut self) -> Option<(Flood, usize)> {
        let flood = self.back.pop()?;
        let waited = self.waiting.pop_front().expect("it was handed over");
        Some((flood, waited.ports))
    }
}

impl Drop for Floods {
    fn drop(&mut self) {
        self.there = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The thread: sends what comes, until nothing can come any more.
fn send_all(come: &Receiver<Flood>, back: &ArrayQueue<Flood>, wake: impl Fn()) {
    for mut flood in come {
        flood.send();
        assert!(back.push(flood).is_ok(), "as many find room on the way back as there are");
        wake();
    }
}

#[cfg(test)]
mod tests;
