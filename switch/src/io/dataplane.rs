//! The loop that moves frames: `Dataplane::run`.
//!
//! Each pass: sleep until something is to be done; read the clock once; take a bounded number of messages from the control
//! side; serve each ready port in turn with a bounded batch, from receipt to sending; serve a bounded number of the host's
//! sockets that have news, each with an arena of frames; fire the core's timers if they are due; count what became of floods to
//! many ports (`floods` has why another thread sends them); hand up what is to be told. There is no other queue between receiving
//! and sending, and no tick: with nothing due, the loop sleeps for ever.
//!
//! Readiness is edge-triggered: a port stays in the list of ready ones until its ring was found empty, and a socket in its
//! own list until the core has no more to do for it; as long as either list is not empty the loop does not sleep.
//!
//! Sockets of publications come from the control side ([`Down::Listen`]) and are closed when it says so; all others the core
//! opens and closes itself.
//!
//! A port whose ring overflowed is told of ([`Up::Overflowed`]), so that the control side may pause it and give it a larger one.
//! It is sent to meanwhile; only what it sends waits in vain.
//!
//! A port whose descriptor reports an error is served to the end of its ring first; then it is asked whether its device is
//! gone or merely down. The kernel reports a device's end once, as it goes down, and only later forgets it: so a port that
//! was down is asked again, ever more seldom and for two seconds or so. A device that goes after a longer time down is seen by
//! the control side, or by the next frame sent to it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use portolan_nat::sockets::PublicationId;
use portolan_nat::sockets::host::{Host, Ready, SocketId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::clock;
use super::floods::Floods;
use super::host::{Features, HostSockets, socket_of};
use super::neck::{Door, Down, Handle, Neck, Up};
use super::packet::BATCH_MAX;
use super::port_io::{Port, Tx};
use super::sending::Sending;
use super::tap::Buffers;
use crate::datapath::Datapath;
use crate::drops::DropReason;
use crate::frame::{FrameTable, HEADROOM};
use crate::ids::{PortId, Time};
use crate::outbox::Outbox;
use crate::turn::Turn;

/// Messages taken in one pass.
const MESSAGES_MAX: usize = 64;

/// Readiness reports fetched at once. More wait in the kernel.
const READY_MAX: usize = 256;

/// Sockets served in one pass, so that ports do not wait long.
const SOCKETS_MAX: usize = 32;

/// Ports of floods that are counted in one pass, and those of one flood more.
const COUNTED_MAX: usize = 1024;

/// Room for the frames that the core makes in one turn: several superframes.
const ARENA_BYTES: usize = 256 * 1024;

/// How soon a port that reported an error is asked again whether its device is gone; each time after that, twice as long.
const RECHECK_FIRST: Duration = Duration::from_millis(2);

/// Nor does it take longer than this from one time to the next: then the device is merely down.
const RECHECK_LAST: Duration = Duration::from_millis(1024);

/// How long nothing more is told of a port's overflows once one was: the control side could do no more than it does, or its
/// means are used up and may be free again later.
const OVERFLOW_QUIET: Duration = Duration::from_secs(10);

/// The same for a port that was just resumed: enough that a growth that fails each time costs little.
const RESUMED_QUIET: Duration = Duration::from_secs(1);

/// The token of the waker; no port has it.
const WAKER: Token = Token(usize::MAX);

/// The receiving half of a port, and where it stands.
struct Rx {
    port: Port,
    /// In the list of ready ports.
    ready: bool,
    /// Its descriptor reported an error: to be looked into when the ring is empty.
    suspect: bool,
    /// Its death was told.
    dead: bool,
    /// Until when its overflows are not told.
    quiet_until: Option<Time>,
}

/// A port whose device was down when it was asked, and is asked again.
struct Doubt {
    port: PortId,
    due: Time,
    wait: Duration,
}

/// The thread that owns the core and all open ports.
pub struct Dataplane {
    core: Datapath,
    rx: Vec<Option<Rx>>,
    tx: Vec<Option<Arc<Tx>>>,
    /// Ports that may have frames, each once, in the order they are served.
    ready: Vec<PortId>,
    /// Each port once at most.
    doubts: Vec<Doubt>,
    /// Ports that could not be sent to in this pass because their device is not there.
    absent: Vec<PortId>,
    sockets: HostSockets,
    /// Sockets of publications.
    doors: BTreeMap<PublicationId, Vec<SocketId>>,
    /// Ports take trains of datagrams as one frame.
    uso: bool,
    poll: Poll,
    neck: Neck,
    outbox: Outbox,
    floods: Floods,
    arena: Box<[u8]>,
    /// What TAP ports read into; no memory before there is one.
    buffers: Buffers,
    random: ChaCha8Rng,
    events_lost: u64,
}

impl Dataplane {
    /// Starts a dataplane on a thread of its own. The seed is all the randomness it will ever have. `notify` is called on
    /// that thread whenever something has come up; it must not block.
    pub fn spawn(
        seed: u64,
        features: Features,
        notify: Box<dyn Fn() + Send>,
    ) -> io::Result<Handle> {
        let poll = Poll::new()?;
        let sockets = HostSockets::new(poll.registry().try_clone()?, features);
        let neck = Neck::new(Waker::new(poll.registry(), WAKER)?, notify);
        let bell = neck.bell();
        let floods = Floods::start(move || bell.ring())?;
        Handle::spawn(neck, move |neck| {
            let dataplane = Dataplane {
                core: Datapath::new(seed),
                rx: Vec::new(),
                tx: Vec::new(),
                ready: Vec::new(),
                doubts: Vec::new(),
                absent: Vec::new(),
                sockets,
                doors: BTreeMap::new(),
                uso: features.uso,
                poll,
                neck,
                outbox: Outbox::default(),
                floods,
                arena: vec![0; ARENA_BYTES].into_boxed_slice(),
                buffers: Buffers::default(),
                random: ChaCha8Rng::seed_from_u64(seed),
                events_lost: 0,
            };
            dataplane.run();
        })
    }

    /// The loop.
    fn run(mut self) {
        let mut events = Events::with_capacity(READY_MAX);
        let mut batch = Vec::new();
        loop {
            self.sleep(&mut events);
            let now = clock::now();
            if !self.take_messages(now) {
                // Floods that wait go nowhere then, and their thread is not long in ending.
                self.tx.clear();
                return;
            }
            std::mem::swap(&mut batch, &mut self.ready);
            for port in batch.drain(..) {
                self.serve(port, now);
            }
            for _ in 0..self.sockets.waiting().min(SOCKETS_MAX) {
                self.serve_socket(now);
            }
            self.fire_timers(now);
            self.count_floods(now);
            self.recheck(now);
            self.report(now);
        }
    }

    /// Waits for readiness, a message or a timer, as long as none is there already.
    fn sleep(&mut self, events: &mut Events) {
        let busy = !self.ready.is_empty() || self.sockets.waiting() > 0;
        let timeout = if busy || !self.neck.may_sleep() || self.floods.has_news() {
            Some(Duration::ZERO)
        } else {
            let doubts = self.doubts.iter().map(|doubt| doubt.due);
            let captures = self.core.capture_due();
            let due = doubts.chain(self.core.poll_timeout()).chain(captures).min();
            due.map(|due| due.since(clock::now()))
        };
        let polled = self.poll.poll(events, timeout);
        self.neck.awake();
        match polled {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(error) => panic!("waiting for frames: {error}"),
        }
        for event in events.iter().filter(|event| event.token() != WAKER) {
            if let Some(socket) = socket_of(event.token()) {
                self.sockets.tell(socket, readiness(event));
                continue;
            }
            let id = PortId(event.token().0 as u32);
            if event.is_error() {
                // Whatever was known of it before, it is asked from the start.
                self.doubts.retain(|doubt| doubt.port != id);
            }
            self.note_ready(id, event.is_error());
        }
    }

    fn note_ready(&mut self, id: PortId, suspect: bool) {
        if let Some(rx) = entry(&mut self.rx, id) {
            rx.suspect |= suspect;
            if !rx.ready {
                rx.ready = true;
                self.ready.push(id);
            }
        }
    }

    /// Takes what the control side has sent, up to a bound. False when that was to stop.
    fn take_messages(&mut self, now: Time) -> bool {
        for _ in 0..MESSAGES_MAX {
            let Some(message) = self.neck.take() else { break };
            if !self.obey(message, now) {
                return false;
            }
        }
        true
    }

    /// Does what a message says. False when that is to stop.
    fn obey(&mut self, message: Down, now: Time) -> bool {
        match message {
            Down::Open(id, port) => self.open(id, port, now),
            Down::Pause(id) => self.pause(id),
            Down::Close(id) => self.close(id),
            Down::Listen(id, doors) => self.listen(id, doors),
            Down::Unlisten(id) => self.unlisten(id),
            Down::Command(command) => self.core.apply(command, now),
            Down::Capture(spec) => self.core.start_capture(spec),
            Down::CaptureBuffer(id, buffer) => {
                if let Err(back) = self.core.lend_to_capture(id, buffer) {
                    self.neck.hand_up(Up::Captured(id, back));
                }
            }
            Down::EndCapture(id) => {
                if let Some(ended) = self.core.end_capture(id) {
                    self.neck.hand_up(Up::CaptureEnded(id, ended));
                }
            }
            Down::Query(number, query) => {
                let answer = self.core.query(&query, now);
                self.neck.hand_up(Up::Answer(number, answer));
            }
            Down::Explain(number, question) => {
                let answer = self.core.explain(&question, now);
                self.neck.hand_up(Up::Answer(number, answer));
            }
            Down::Together(messages) => {
                return messages.into_iter().all(|message| self.obey(message, now));
            }
            Down::Stop => return false,
        }
        true
    }

    fn open(&mut self, id: PortId, mut port: Port, now: Time) {
        let at = id.0 as usize;
        if self.rx.len() <= at {
            self.rx.resize_with(at + 1, || None);
            self.tx.resize_with(at + 1, || None);
        }
        assert!(self.rx[at].is_none(), "port {at} is open");
        let resumed = self.tx[at].is_some();
        let lost = port.take_lost();
        if lost > 0 {
            let reason = if resumed { DropReason::RingOverflow } else { DropReason::Restart };
            self.core.count_drop(id, reason, u64::from(lost));
        }
        let registry = self.poll.registry();
        let token = Token(id.0 as usize);
        let registered = registry.register(
            &mut SourceFd(&port.descriptor().as_raw_fd()),
            token,
            Interest::READABLE,
        );
        port.provide(&mut self.buffers);
        // A pause keeps the half that sends, which is the same: floods on their way have a hold of it.
        self.tx[at].get_or_insert_with(|| Arc::new(port.sender(self.uso)));
        let dead = registered.is_err();
        let quiet_until = resumed.then(|| now + RESUMED_QUIET);
        self.rx[at] = Some(Rx { port, ready: false, suspect: false, dead, quiet_until });
        match registered {
            // What an heir finds in the ring is not reported as new; nor is what happened to a device in a pause.
            Ok(()) => self.note_ready(id, resumed),
            Err(error) => self
                .neck
                .hand_up(Up::Died { port: id, error: format!("watching the wire: {error}") }),
        }
    }

    fn close(&mut self, id: PortId) {
        self.pause(id);
        self.tx[id.0 as usize] = None;
    }

    fn pause(&mut self, id: PortId) {
        let rx = self.rx.get_mut(id.0 as usize).and_then(Option::take);
        let rx = rx.unwrap_or_else(|| panic!("port {} is not open", id.0));
        // Fails only where registering failed; the descriptor then is in no set to be taken out of.
        let _ = self.poll.registry().deregister(&mut SourceFd(&rx.port.descriptor().as_raw_fd()));
        self.ready.retain(|other| *other != id);
        self.doubts.retain(|doubt| doubt.port != id);
        self.neck.hand_up(Up::Closed(id, rx.port));
    }

    /// Has the sockets of a publication served. Those that cannot be are closed, and the first of them is told of.
    fn listen(&mut self, id: PublicationId, doors: Vec<Door>) {
        let open = self.doors.entry(id).or_default();
        let mut fault = None;
        for Door { local, socket } in doors {
            match self.sockets.adopt(socket) {
                Ok(socket) => {
                    open.push(socket);
                    self.core.listen(id, socket, local);
                }
                Err(error) => {
                    fault.get_or_insert_with(|| format!("watching {local}: {error}"));
                }
            }
        }
        if let Some(error) = fault {
            self.neck.hand_up(Up::Unserved { publication: id, error });
        }
    }

    /// Closes the sockets of a publication.
    fn unlisten(&mut self, id: PublicationId) {
        for socket in self.doors.remove(&id).unwrap_or_default() {
            self.sockets.close(socket);
        }
        self.neck.hand_up(Up::Unlistened(id));
    }

    /// One turn of one of the host's sockets: the core reads from it, and what comes of it is sent.
    fn serve_socket(&mut self, now: Time) {
        let Some((socket, ready)) = self.sockets.next() else { return };
        let mut frames = FrameTable::new(&mut self.arena);
        let mut turn = Turn {
            frames: &mut frames,
            outbox: &mut self.outbox,
            host: &mut self.sockets,
            random: &mut self.random,
        };
        let more = self.core.handle_socket(socket, ready, &mut turn, now);
        Sending { tx: &self.tx, core: &mut self.core, absent: &mut self.absent, now }.flush(
            None,
            &mut self.outbox,
            &frames,
            &mut self.floods,
        );
        if more {
            // What there was to be done is told again: the core did not get to the end of it.
            self.sockets.tell(socket, ready);
        }
    }

    /// One turn of one port: receive a batch, let the core handle it, send what came of it, give the slots back.
    fn serve(&mut self, id: PortId, now: Time) {
        let Some(rx) = entry(&mut self.rx, id) else { return };
        let mut frames = FrameTable::new(&mut self.arena);
        let received = rx.port.receive(BATCH_MAX, &mut self.buffers, &mut frames);
        for reason in received.dropped {
            self.core.count_drop(id, reason, 1);
        }
        if received.overflow > 0 {
            self.core.count_drop(id, DropReason::RingOverflow, u64::from(received.overflow));
            if rx.quiet_until.is_none_or(|until| until <= now) {
                rx.quiet_until = Some(now + OVERFLOW_QUIET);
                self.neck.hand_up(Up::Overflowed(id));
            }
        }
        let mut turn = Turn {
            frames: &mut frames,
            outbox: &mut self.outbox,
            host: &mut self.sockets,
            random: &mut self.random,
        };
        self.core.handle_batch(id, &mut turn, now);
        Sending { tx: &self.tx, core: &mut self.core, absent: &mut self.absent, now }.flush(
            Some(id),
            &mut self.outbox,
            &frames,
            &mut self.floods,
        );
        drop(frames);
        rx.port.release();
        rx.ready = received.more;
        if received.more {
            self.ready.push(id);
        } else if std::mem::take(&mut rx.suspect) {
            self.look_into(id, now);
        }
    }

    /// Tells of a port whose device is gone, its ring being empty; doubts one whose device may only be down.
    fn look_into(&mut self, id: PortId, now: Time) {
        let Some(rx) = entry(&mut self.rx, id).filter(|rx| !rx.dead) else { return };
        let doubt = self.doubts.iter().find(|doubt| doubt.port == id);
        let asked_enough = doubt.is_some_and(|doubt| doubt.wait > RECHECK_LAST);
        let is_new = doubt.is_none();
        let gone = rx.port.is_gone();
        if gone || asked_enough {
            self.doubts.retain(|doubt| doubt.port != id);
        } else if is_new {
            self.doubts.push(Doubt { port: id, due: now + RECHECK_FIRST, wait: RECHECK_FIRST });
        }
        if gone {
            rx.dead = true;
            self.neck.hand_up(Up::Died { port: id, error: "its device is gone".to_owned() });
        }
    }

    /// Has the doubtful ports whose time has come served once more, and so looked into; and those whose device was absent.
    fn recheck(&mut self, now: Time) {
        let mut due = Vec::new();
        for doubt in self.doubts.iter_mut().filter(|doubt| doubt.due <= now) {
            doubt.wait *= 2;
            doubt.due = now + doubt.wait;
            due.push(doubt.port);
        }
        due.append(&mut self.absent);
        for port in due {
            self.note_ready(port, true);
        }
    }

    fn fire_timers(&mut self, now: Time) {
        if self.core.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        let mut frames = FrameTable::new(&mut self.arena);
        let mut turn = Turn {
            frames: &mut frames,
            outbox: &mut self.outbox,
            host: &mut self.sockets,
            random: &mut self.random,
        };
        self.core.handle_timeout(&mut turn, now);
        Sending { tx: &self.tx, core: &mut self.core, absent: &mut self.absent, now }.flush(
            None,
            &mut self.outbox,
            &frames,
            &mut self.floods,
        );
    }

    /// Counts what became of floods that have come back.
    fn count_floods(&mut self, now: Time) {
        let mut ports = 0;
        while ports < COUNTED_MAX
            && let Some((flood, more)) = self.floods.take_back()
        {
            let (tx, core, absent) = (&self.tx[..], &mut self.core, &mut self.absent);
            Sending { tx, core, absent, now }.count_flood(flood);
            ports += more;
        }
    }

    /// Hands up what happened.
    fn report(&mut self, now: Time) {
        while let Some((id, buffer)) = self.core.poll_capture(now) {
            self.neck.hand_up(Up::Captured(id, buffer));
        }
        while let Some(event) = self.core.poll_event() {
            self.neck.tell(event);
        }
        let lost = self.core.lost_events();
        self.neck.count_lost(lost - self.events_lost);
        self.events_lost = lost;
        self.neck.flush();
    }
}

/// What an event says about a socket of the host.
fn readiness(event: &Event) -> Ready {
    Ready {
        readable: event.is_readable() || event.is_read_closed(),
        writable: event.is_writable() || event.is_write_closed(),
        error: event.is_error(),
    }
}

fn entry<T>(table: &mut [Option<T>], id: PortId) -> Option<&mut T> {
    table.get_mut(id.0 as usize)?.as_mut()
}

const _: () =
    assert!(ARENA_BYTES > HEADROOM + 65536, "the core can make at least one frame of any size");
