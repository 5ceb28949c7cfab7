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
//! **Bounds.** What waits is bounded in ports to be sent to, which is time, in bytes and in number; one network may have half
//! of that, and one sender half of its network's part. A flood beyond that is dropped at each of its ports as the queue of a
//! slow receiver would ([`DropReason::TxFull`]). Nobody waits. But those who flood all they may must not silence others, whose
//! questions for addresses are floods too. So the first flood of a network has room whatever others hold, beyond all these
//! bounds: there may be one frame more for each network, to as many ports as that has. The first of a sender has room beyond
//! what others of its network hold, up to as much again. What is nobody's, as the gateway's questions for addresses that it is
//! about to lend, has that room whatever else is: these come in bursts, and are bounded where they are made.
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
use crate::ids::{NetworkId, PortId};
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

/// The part of each of these that one sender may have on a network.
const SENDER_SHARE: usize = 2 * SHARE;

/// How often each of these there may be on one network where it is of no sender: half a second, for questions for addresses of both
/// families at once.
const OWN_SHARE: usize = 2;

/// How often each of these there may be on all networks together, where senders have none waiting: a second.
const RESERVE: usize = 4;

/// Floods that may wait in any case: as many are first of their network as there are networks.
const QUEUE_MAX: usize = RESERVE * FLOODS_MAX;

/// Where a flood comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Whence {
    /// The network whose ports it goes to.
    pub network: Option<NetworkId>,
    /// The port whose frames it was made of; none where it is of a timer or of the outside.
    pub sender: Option<PortId>,
}

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

/// What floods take of the bounds.
#[derive(Clone, Copy, Default)]
struct Load {
    floods: usize,
    ports: usize,
    bytes: usize,
}

impl Load {
    fn of(ports: usize, bytes: usize) -> Load {
        Load { floods: 1, ports, bytes }
    }

    fn and(self, more: Load) -> Load {
        Load {
            floods: self.floods + more.floods,
            ports: self.ports + more.ports,
            bytes: self.bytes + more.bytes,
        }
    }

    /// Whether it is no more than `times` of the bounds, or than that part of them.
    fn within(self, times: usize, part: usize) -> bool {
        self.floods <= FLOODS_MAX * times / part
            && self.ports <= PORTS_MAX * times / part
            && self.bytes <= BYTES_MAX * times / part
    }
}

/// A flood that waits.
#[derive(Clone, Copy)]
struct Waiting {
    whence: Whence,
    load: Load,
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
        let (there, come) = bounded(QUEUE_MAX);
        let back = Arc::new(ArrayQueue::new(QUEUE_MAX));
        let give = Arc::clone(&back);
        let thread = std::thread::Builder::new()
            .name("floods".to_owned())
            .spawn(move || send_all(&come, &give, wake))?;
        Ok(Floods { there: Some(there), back, waiting: VecDeque::new(), thread: Some(thread) })
    }

    /// Whether a frame of that length may go to so many ports of a network.
    pub(super) fn has_room(&self, whence: Whence, ports: usize, bytes: usize) -> bool {
        if self.waiting.len() >= QUEUE_MAX {
            return false;
        }
        let sum = |wanted: &dyn Fn(&Whence) -> bool| {
            let loads = self.waiting.iter().filter(|one| wanted(&one.whence)).map(|one| one.load);
            loads.fold(Load::default(), Load::and)
        };
        let of_network = sum(&|other| other.network == whence.network);
        if of_network.floods == 0 {
            return true;
        }
        let one = Load::of(ports, bytes);
        let (all, of_network) = (sum(&|_| true).and(one), of_network.and(one));
        if whence.sender.is_none() {
            return of_network.within(OWN_SHARE, 1) && all.within(RESERVE, 1);
        }
        let of_sender = sum(&|other| *other == whence);
        if of_sender.floods == 0 {
            return of_network.within(1, 1) && all.within(RESERVE, 1);
        }
        of_sender.and(one).within(1, SENDER_SHARE)
            && of_network.within(1, SHARE)
            && all.within(1, 1)
    }

    /// Hands a frame over; there must be room for it.
    pub(super) fn push(&mut self, whence: Whence, frame: &Frame<'_>, receivers: Vec<Receiving>) {
        let load = Load::of(receivers.len(), frame.bytes().len());
        let flood = Flood {
            bytes: frame.bytes().into(),
            offload: frame.offload,
            vlan: frame.vlan,
            receivers,
        };
        let there = self.there.as_ref().expect("it is taken when all ends");
        there.try_send(flood).expect("the queue holds more than may wait, and its thread lives");
        self.waiting.push_back(Waiting { whence, load });
    }

    /// Whether something came back.
    pub(super) fn has_news(&self) -> bool {
        !self.back.is_empty()
    }

    /// The oldest flood that came back, and how many ports it had.
    pub(super) fn take_back(&mut self) -> Option<(Flood, usize)> {
        let flood = self.back.pop()?;
        let waited = self.waiting.pop_front().expect("it was handed over");
        Some((flood, waited.load.ports))
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
