//! The control neck as two bounded queues between threads.
//!
//! Down go commands, questions and ports; up come events, answers and ports. Neither direction ever blocks the dataplane: a
//! full queue down is the control side's to wait for, and what finds no room on the way up is either counted as lost (events)
//! or kept until there is (everything else). The loop is woken only when it sleeps: it says so before it does, and looks at
//! its queue once more.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam::queue::ArrayQueue;
use mio::Waker;

use super::port_io::Port;
use crate::capture::{CaptureBuffer, CaptureId, CaptureSpec, Ended};
use crate::command::{Answer, Command, Event, PublicationId, Query, Question};
use crate::ids::PortId;

/// Messages that wait in either direction.
const QUEUE_MAX: usize = 1024;

/// What may be kept for want of room before the dataplane takes no more messages.
const KEPT_MAX: usize = 256;

/// From the control side to the dataplane.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "its queue is short, and holds ports too")]
pub enum Down {
    /// The port is served from now on. Attach it by [`Command::AttachPort`] first: until then its frames are dropped.
    Open(PortId, Port),
    /// The port comes back as [`Up::Closed`], but goes on being sent to. It is opened again before it is closed.
    Pause(PortId),
    /// The port comes back as [`Up::Closed`].
    Close(PortId),
    /// These sockets stand behind a publication that was committed: they are served from now on.
    Listen(PublicationId, Vec<Door>),
    /// The sockets of a publication are closed; [`Up::Unlistened`] tells when they are.
    Unlisten(PublicationId),
    /// A step towards the desired state.
    Command(Command),
    /// A capture begins. It records nothing before buffers come.
    Capture(CaptureSpec),
    /// Room for what a capture sees.
    CaptureBuffer(CaptureId, CaptureBuffer),
    /// A capture ends; [`Up::CaptureEnded`] tells when it has.
    EndCapture(CaptureId),
    /// A question, and the number its answer will bear.
    Query(u64, Query),
    /// A question about a frame, and the number its answer will bear.
    Explain(u64, Question),
    /// These, in order and in one pass of the loop: nothing is sent between them.
    Together(Vec<Down>),
    /// The dataplane ends; ports that are still open are dropped with it.
    Stop,
}

/// A socket of the host that a publication is reached by. Not blocking, of TCP listening.
#[derive(Debug)]
pub struct Door {
    /// What it is bound to.
    pub local: SocketAddr,
    /// The socket.
    pub socket: OwnedFd,
}

/// From the dataplane to the control side.
#[derive(Debug)]
pub enum Up {
    /// Something happened. Lossy.
    Event(Event),
    /// The port's device is gone, or it cannot be served. All its frames have been taken; it waits to be closed.
    Died {
        /// Which.
        port: PortId,
        /// What happened, for people.
        error: String,
    },
    /// The port's ring was full and frames were lost. Told again only if that goes on for long.
    Overflowed(PortId),
    /// The sockets of a publication are closed.
    Unlistened(PublicationId),
    /// Sockets of a publication cannot be served, and are closed; the others wait for [`Down::Unlisten`]. Told once for one
    /// [`Down::Listen`].
    Unserved {
        /// Of which publication.
        publication: PublicationId,
        /// The first of the sockets and why, for people.
        error: String,
    },
    /// Here it is back.
    Closed(PortId, Port),
    /// What a capture saw.
    Captured(CaptureId, CaptureBuffer),
    /// A capture has ended, and this is what was left of it.
    CaptureEnded(CaptureId, Ended),
    /// The answer to the question of that number.
    Answer(u64, Answer),
    /// So many events found no room since this was last told.
    Lost(u64),
}

/// What both sides see.
pub(super) struct Shared {
    down: ArrayQueue<Down>,
    up: ArrayQueue<Up>,
    /// The loop sleeps, or is about to: whoever has something for it must wake it.
    asleep: AtomicBool,
    /// The loop keeps something for want of room.
    keeps: AtomicBool,
    waker: Waker,
}

impl Shared {
    /// Wakes the loop if it sleeps.
    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            // An eventfd that cannot be written to: the dataplane would never hear of anything again.
            panic!("waking the dataplane: {error}");
        }
    }
}

/// The control side's end. Dropping it stops the dataplane and waits for it.
pub struct Handle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// Starts `run` on a thread of its own with the other end.
    pub(super) fn spawn(neck: Neck, run: impl FnOnce(Neck) + Send + 'static) -> io::Result<Handle> {
        let shared = Arc::clone(&neck.shared);
        let thread =
            std::thread::Builder::new().name("dataplane".to_owned()).spawn(move || run(neck))?;
        Ok(Handle { shared, thread: Some(thread) })
    }

    /// Sends a message down, never blocking. When there is no room it comes back: try again when `notify` was called, or a
    /// little later.
    pub fn send(&self, message: Down) -> Result<(), Box<Down>> {
        self.shared.down.push(message).map_err(Box::new)?;
        self.shared.wake();
        Ok(())
    }

    /// The oldest message that came up, if any. To be called until there is none, whenever `notify` was called.
    pub fn receive(&self) -> Option<Up> {
        let message = self.shared.up.pop();
        if message.is_some() && self.shared.keeps.swap(false, Ordering::SeqCst) {
            self.shared.wake();
        }
        message
    }

    /// Stops the dataplane and waits for its end. What has come up until then can still be received by nobody.
    pub fn join(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let mut message = Down::Stop;
        while let Err(back) = self.send(message) {
            message = *back;
            if thread.is_finished() {
                break;
            }
            // The loop takes messages each turn unless it keeps too much for want of room.
            while self.receive().is_some() {}
            std::thread::yield_now();
        }
        while !thread.is_finished() {
            while self.receive().is_some() {}
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// The dataplane's end.
pub(super) struct Neck {
    shared: Arc<Shared>,
    notify: Box<dyn Fn() + Send>,
    kept: VecDeque<Up>,
    lost: u64,
    told: bool,
}

/// What another thread of this edge wakes the loop by.
pub(super) struct Bell(Arc<Shared>);

impl Bell {
    /// Wakes the loop if it sleeps, so that it looks at what was done for it.
    pub(super) fn ring(&self) {
        self.0.wake();
    }
}

impl Neck {
    /// A neck whose other end [`Handle::spawn`] makes.
    pub(super) fn new(waker: Waker, notify: Box<dyn Fn() + Send>) -> Neck {
        let shared = Arc::new(Shared {
            down: ArrayQueue::new(QUEUE_MAX),
            up: ArrayQueue::new(QUEUE_MAX),
            asleep: AtomicBool::new(false),
            keeps: AtomicBool::new(false),
            waker,
        });
        Neck { shared, notify, kept: VecDeque::new(), lost: 0, told: false }
    }

    /// A way for another thread to wake the loop. What it has for the loop is to be looked for after [`Neck::may_sleep`].
    pub(super) fn bell(&self) -> Bell {
        Bell(Arc::clone(&self.shared))
    }

    /// The oldest message that came down, unless too much is kept on the way up.
    pub(super) fn take(&mut self) -> Option<Down> {
        if self.kept.len() < KEPT_MAX { self.shared.down.pop() } else { None }
    }

    /// Says that the loop will sleep now. False when there is something to do after all.
    pub(super) fn may_sleep(&self) -> bool {
        self.shared.asleep.store(true, Ordering::SeqCst);
        let keeps = !self.kept.is_empty() || self.lost > 0;
        let busy = (self.kept.len() < KEPT_MAX && !self.shared.down.is_empty())
            || (keeps && !self.shared.up.is_full());
        if busy {
            self.awake();
        }
        !busy
    }

    /// Says that the loop is awake and need not be woken.
    pub(super) fn awake(&self) {
        self.shared.asleep.store(false, Ordering::SeqCst);
    }

    /// Hands up what must not be lost: it waits, in order, until there is room.
    pub(super) fn hand_up(&mut self, message: Up) {
        if self.kept.is_empty() {
            match self.shared.up.push(message) {
                Ok(()) => self.told = true,
                Err(back) => self.kept.push_back(back),
            }
        } else {
            self.kept.push_back(message);
        }
    }

    /// Tells an event, or counts it as lost.
    pub(super) fn tell(&mut self, event: Event) {
        if self.kept.is_empty() && self.shared.up.push(Up::Event(event)).is_ok() {
            self.told = true;
        } else {
            self.lost += 1;
        }
    }

    /// Counts events that were lost before they came here.
    pub(super) fn count_lost(&mut self, events: u64) {
        self.lost += events;
    }

    /// Ends a pass of the loop: moves up what was kept, as far as there is room, and notifies the control side if anything
    /// has come up in this pass.
    pub(super) fn flush(&mut self) {
        while let Some(message) = self.kept.pop_front() {
            if let Err(back) = self.shared.up.push(message) {
                self.kept.push_front(back);
                break;
            }
            self.told = true;
        }
        if self.lost > 0 && self.kept.is_empty() && self.shared.up.push(Up::Lost(self.lost)).is_ok()
        {
            self.lost = 0;
            self.told = true;
        }
        let keeps = !self.kept.is_empty() || self.lost > 0;
        self.shared.keeps.store(keeps, Ordering::SeqCst);
        if std::mem::take(&mut self.told) {
            (self.notify)();
        }
    }
}
