//! The control side of the control neck: messages down with patience, answers and ports back to whoever waits for them.
//!
//! None of the waits is for ever. There is room for a message soon, for the dataplane takes some in each pass, and only stops
//! while what it tells is not received; the task that receives waits for nobody. What must come back (a port that is taken,
//! the end of a publication's sockets) is handed up in the very pass in which the dataplane takes the message. A dataplane
//! that panics takes this process with it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use portolan_switch::capture::{CaptureBuffer, CaptureId, CaptureSpec, Ended};
use portolan_switch::command::{Answer, Command, Event, PublicationId, Query, Question};
use portolan_switch::datapath::STAGED_MAX;
use portolan_switch::ids::PortId;
use portolan_switch::io::{Dataplane, Door, Down, Features, Handle, Port, Up};
use tokio::sync::{Notify, mpsc, oneshot};

use super::uplink::Uplink;

/// How long the dataplane may take over an answer: it answers between two batches.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What the dataplane tells unasked.
#[derive(Debug)]
pub enum News {
    /// Something happened.
    Event(Event),
    /// The port's wire is gone.
    Died(PortId, String),
    /// The port's ring was too small for what came.
    Overflowed(PortId),
    /// Sockets of a publication could not be served, and why.
    Unserved(PublicationId, String),
    /// So many events were lost.
    Lost(u64),
}

/// What comes into service with a change.
#[derive(Debug, Default)]
pub struct Opening {
    /// Ports, once they are attached.
    pub ports: Vec<(PortId, Port)>,
    /// Sockets of publications, once they are published.
    pub doors: Vec<(PublicationId, Vec<Door>)>,
}

/// What comes of a capture.
#[derive(Debug)]
pub enum Taken {
    /// What it saw.
    Buffer(CaptureBuffer),
    /// It has ended; nothing follows.
    Ended(Ended),
}

#[derive(Default)]
struct Waiting {
    answers: BTreeMap<u64, oneshot::Sender<Answer>>,
    ports: BTreeMap<PortId, oneshot::Sender<Port>>,
    unlistened: BTreeMap<PublicationId, oneshot::Sender<()>>,
    captures: BTreeMap<CaptureId, mpsc::UnboundedSender<Taken>>,
    last: u64,
}

/// The dataplane as the control side sees it.
pub struct Plane {
    handle: Handle,
    uplink: Uplink,
    waiting: Mutex<Waiting>,
    /// Events that were lost since the start.
    lost: AtomicU64,
    /// Held while a group of commands goes down, so that groups do not mix.
    turn: tokio::sync::Mutex<u64>,
}

impl Plane {
    /// Starts a dataplane. News come out of the receiver; it is unbounded on this side because the dataplane bounds it.
    pub fn start(
        seed: u64,
        features: Features,
        uplink: Uplink,
    ) -> std::io::Result<(Arc<Plane>, mpsc::UnboundedReceiver<News>)> {
        let come = Arc::new(Notify::new());
        let notify = Arc::clone(&come);
        let handle = Dataplane::spawn(seed, features, Box::new(move || notify.notify_one()))?;
        let plane = Arc::new(Plane {
            handle,
            uplink,
            waiting: Mutex::default(),
            lost: AtomicU64::new(0),
            turn: tokio::sync::Mutex::new(0),
        });
        let (tell, news) = mpsc::unbounded_channel();
        let receiver = Arc::clone(&plane);
        tokio::spawn(async move {
            loop {
                come.notified().await;
                while let Some(up) = receiver.handle.receive() {
                    if let Some(item) = receiver.sort(up) {
                        // Where nobody hears the news, answers are still waited for.
                        let _ = tell.send(item);
                    }
                }
            }
        });
        Ok((plane, news))
    }

    /// Sends a group of commands, which takes effect as a whole, and with it the ports and doors that come with it: what the
    /// gateway has to tell a port at once finds it open.
    ///
    /// More than the dataplane holds of a group take effect in several, one after the other: as the plan orders them, each
    /// beginning of them stands on its own. Only a restart adds so much, and its ports open with the last of the groups; what
    /// is taken away, such as a network with thousands of endpoints, no frame needs whole.
    pub async fn change(&self, open: Opening, commands: Vec<Command>) {
        let mut turn = self.turn.lock().await;
        let mut effect = Vec::new();
        if !commands.is_empty() {
            *turn += 1;
            for (at, command) in commands.into_iter().enumerate() {
                if at > 0 && at.is_multiple_of(STAGED_MAX) {
                    self.down(Down::Command(Command::Commit(*turn))).await;
                    *turn += 1;
                }
                self.down(Down::Command(self.uplink.confine(command))).await;
            }
            effect.push(Down::Command(Command::Commit(*turn)));
        }
        effect.extend(open.ports.into_iter().map(|(id, port)| Down::Open(id, port)));
        effect.extend(open.doors.into_iter().map(|(id, doors)| Down::Listen(id, doors)));
        self.down(Down::Together(effect)).await;
    }

    /// Has the sockets of a publication closed, and waits until they are.
    pub async fn unlisten(&self, id: PublicationId) {
        let (give, get) = oneshot::channel();
        self.waiting().unlistened.insert(id, give);
        self.down(Down::Unlisten(id)).await;
        if tokio::time::timeout(ANSWER_MAX, get).await.is_err() {
            self.waiting().unlistened.remove(&id);
        }
    }

    /// Takes a port back. It is open, and nobody else takes it.
    pub async fn close(&self, id: PortId) -> Option<Port> {
        self.take(id, Down::Close(id)).await
    }

    /// As [`Plane::close`], for the caller to open it again soon: it is sent to meanwhile.
    pub async fn pause(&self, id: PortId) -> Option<Port> {
        self.take(id, Down::Pause(id)).await
    }

    async fn take(&self, id: PortId, message: Down) -> Option<Port> {
        let (give, get) = oneshot::channel();
        self.waiting().ports.insert(id, give);
        self.down(message).await;
        get.await.ok()
    }

    /// Starts a capture, to which buffers are lent next. What comes of it waits in the receiver, which is unbounded because the
    /// buffers bound it.
    pub async fn capture(&self, spec: CaptureSpec) -> mpsc::UnboundedReceiver<Taken> {
        let (give, get) = mpsc::unbounded_channel();
        self.waiting().captures.insert(spec.id, give);
        self.down(Down::Capture(spec)).await;
        get
    }

    /// Lends a capture one more buffer.
    pub async fn lend(&self, id: CaptureId, buffer: CaptureBuffer) {
        self.down(Down::CaptureBuffer(id, buffer)).await;
    }

    /// Has a capture end; [`Taken::Ended`] tells when it has.
    pub async fn end_capture(&self, id: CaptureId) {
        self.down(Down::EndCapture(id)).await;
    }

    /// Asks a question; none where the dataplane does not answer in time.
    pub async fn ask(&self, query: Query) -> Option<Answer> {
        self.answer_to(|number| Down::Query(number, query)).await
    }

    /// Asks what would become of a frame; none where the dataplane does not answer in time.
    pub async fn explain(&self, question: Question) -> Option<Answer> {
        self.answer_to(|number| Down::Explain(number, question)).await
    }

    async fn answer_to(&self, question: impl FnOnce(u64) -> Down) -> Option<Answer> {
        let (give, get) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting();
            waiting.last += 1;
            let number = waiting.last;
            waiting.answers.insert(number, give);
            number
        };
        self.down(question(number)).await;
        let answer = tokio::time::timeout(ANSWER_MAX, get).await;
        self.waiting().answers.remove(&number);
        answer.ok()?.ok()
    }

    /// How many events were lost since the start.
    pub fn events_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    async fn down(&self, message: Down) {
        let mut message = message;
        while let Err(back) = self.handle.send(message) {
            message = *back;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn sort(&self, up: Up) -> Option<News> {
        match up {
            Up::Event(event) => Some(News::Event(event)),
            Up::Died { port, error } => Some(News::Died(port, error)),
            Up::Overflowed(port) => Some(News::Overflowed(port)),
            Up::Lost(count) => {
                self.lost.fetch_add(count, Ordering::Relaxed);
                Some(News::Lost(count))
            }
            Up::Unlistened(id) => {
                if let Some(give) = self.waiting().unlistened.remove(&id) {
                    let _ = give.send(());
                }
                None
            }
            Up::Unserved { publication, error } => Some(News::Unserved(publication, error)),
            Up::Closed(id, port) => {
                if let Some(give) = self.waiting().ports.remove(&id) {
                    let _ = give.send(port);
                }
                None
            }
            Up::Captured(id, buffer) => {
                // Where nobody hears of it, its capture has ended, and the buffer with it.
                if let Some(give) = self.waiting().captures.get(&id) {
                    let _ = give.send(Taken::Buffer(buffer));
                }
                None
            }
            Up::CaptureEnded(id, ended) => {
                if let Some(give) = self.waiting().captures.remove(&id) {
                    let _ = give.send(Taken::Ended(ended));
                }
                None
            }
            Up::Answer(number, answer) => {
                if let Some(give) = self.waiting().answers.remove(&number) {
                    let _ = give.send(answer);
                }
                None
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
