//! One connection: what is known of it, and how it ends.
//!
//! Two streams run through it. The host's bytes go to the inside under sequence numbers of our own; they are sent from the
//! host's socket by peeking, and discarded there when the inside has acknowledged them, so that `una` is always the oldest byte
//! the socket holds, but for what [`Flow::undiscarded`] says. The inside's bytes go to the host's socket, and are
//! acknowledged as soon as it has taken them; those that came before others that precede them lie in [`Flow::early`]
//! meanwhile.

use std::time::Duration;

use crate::inside::{Call, Made, Owner};
use crate::sockets::host::{Host, SendRoom, SocketId};
use crate::sockets::{Desk, PublicationId};
use crate::time::Time;

use super::reorder::Early;
use super::rtt::RoundTrip;
use super::segment::{Key, Options, Reply, Segment, flag};
use super::sequence::Seq;

/// The window scale that is offered: windows up to 16 MiB, in steps of 256 bytes.
pub(super) const SCALE: u8 = 8;

/// How long nothing may be heard of the inside before it is asked, and then again, and how often (as Linux does).
const KEEPALIVE: Duration = Duration::from_secs(2 * 3600);
pub(super) const KEEPALIVE_AGAIN: Duration = Duration::from_secs(75);
pub(super) const KEEPALIVE_TRIES: u8 = 9;

/// How long the last segments of a connection may still come (Linux: TIME-WAIT).
pub(super) const TIME_WAIT: Duration = Duration::from_secs(60);

/// The least time between two acknowledgements that answer segments which fit nowhere (RFC 5961, section 7).
const CHALLENGE: Duration = Duration::from_millis(500);

/// Frames that a wire of the inside holds while the switch is busy with others, less some for others; and the least that are
/// reckoned with. What is beyond that is lost, and a loss is dear: whoever sent it hears of it late. The way inside is short, so that a window of so many frames does not slow anybody down.
pub(super) const FRAMES: u8 = 14;
const FRAMES_MIN: u8 = 2;

/// After so many batches without a loss one frame more may be on its way.
const CALM: u8 = 32;

/// How a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// The inside has asked, and the host is connecting. The inside has heard nothing.
    Connecting,
    /// We have asked the inside (SYN-SENT).
    Asked,
    /// We have answered the inside's SYN (SYN-RECEIVED).
    Answered,
    /// Made; how far it is closed, the two ends of stream say.
    Open,
    /// Over, but the inside may not know it has been heard (TIME-WAIT). There is no socket.
    TimeWait,
}

/// What a flow waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// An acknowledgement.
    Acknowledgement,
    /// A window to be opened.
    Window,
    /// That nothing comes any more.
    Quiet,
}

/// What becomes of a flow after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It goes on.
    Lives,
    /// It is over and has no socket any more.
    Over,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) owner: Owner,
    /// By which it came in.
    pub(super) publication: Option<PublicationId>,
    pub(super) socket: Option<SocketId>,
    pub(super) state: State,
    /// It ends as soon as it is looked at again.
    pub(super) doomed: bool,

    /// To the inside: the oldest byte not acknowledged, the next to be sent, and the end of all that ever was.
    pub(super) una: Seq,
    pub(super) next: Seq,
    pub(super) high: Seq,
    /// Where the host's stream ends: the number of our FIN.
    pub(super) fin: Option<Seq>,
    /// Bytes acknowledged that the socket still holds.
    pub(super) undiscarded: u32,
    /// The inside's window, bytes, and the largest it has been.
    pub(super) window: u32,
    pub(super) window_max: u32,
    /// The segment that the window is known by (SND.WL1, SND.WL2).
    pub(super) window_seq: Seq,
    pub(super) window_ack: Seq,
    /// By how much the inside scales its windows; none where nobody scales.
    pub(super) scale: Option<u8>,
    /// Payload bytes of a segment to the inside at most.
    pub(super) mss: u16,
    /// Bytes that may be in flight after a loss, whatever the window.
    pub(super) cap: u32,
    /// Acknowledgements that came again.
    pub(super) repeats: u8,
    /// In a fast recovery: the end of what was sent again.
    pub(super) resent: Seq,
    /// After a loss: what had been sent by then; and whether it was told by acknowledgements that came again.
    pub(super) recover: Option<Seq>,
    pub(super) fast: bool,
    /// The socket may hold bytes that were not sent yet.
    pub(super) may_read: bool,
    /// The socket's connection has died: what it holds is still delivered and acknowledged, then the inside is told.
    pub(super) failed: bool,

    /// From the inside: the next byte the host is to have.
    pub(super) expected: Seq,
    /// The end of the window that the inside knows of.
    pub(super) edge: Seq,
    /// Bytes of a frame of the inside as they come lately, how many such frames may be on their way, and how often none was
    /// missing since that number changed.
    pub(super) frame: u32,
    pub(super) frames: u8,
    pub(super) calm: u8,
    /// The host had little room when it was last asked, and will tell when it has more.
    pub(super) narrow: bool,
    /// Bytes that the host's buffer holds at most, as it said when it was last asked.
    pub(super) buffer: u32,
    /// The end of the farthest window that the inside was ever told.
    pub(super) promised: Seq,
    /// The end of all payload that has come in order, whether the host took it or not.
    pub(super) farthest: Seq,
    /// The inside takes selective acknowledgements.
    pub(super) selective: bool,
    /// What came too early. There is one from the first early part of a batch to the end of the batch, at least.
    pub(super) early: Option<Box<Early>>,
    /// Bytes that wait for the end of the batch, and whether a FIN follows them.
    pub(super) gathered: u32,
    pub(super) gathered_fin: bool,
    /// The inside's FIN was taken.
    pub(super) finished: bool,
    /// Our FIN was sent before the inside's came.
    pub(super) first_to_finish: bool,
    /// The maximum segment size that was announced.
    pub(super) announced: u16,
    /// An acknowledgement is owed, and how many of the same.
    pub(super) owed: bool,
    pub(super) owed_again: u8,
    /// It is among those that a batch touched.
    pub(super) touched: bool,

    /// What is waited for, and until when.
    pub(super) wait: Option<(Wait, Time)>,
    /// More is to be said at once, in another turn.
    pub(super) again: bool,
    /// Waits in vain since the inside was last heard, by which it is given up; and since something moved, by which they become
    /// longer.
    pub(super) tries: u8,
    pub(super) waits: u8,
    pub(super) round_trip: RoundTrip,
    /// When the inside is asked whether it is there, unless it is heard before or something else is waited for.
    pub(super) ask_at: Time,
    /// When it was last used, to be shown.
    pub(super) used: Time,
    /// From when on another segment that fits nowhere is answered.
    pub(super) challenge_at: Time,
    /// The deadline that is entered for it.
    pub(super) held: Option<Time>,
}

impl Flow {
    /// A connection that nothing was said about yet.
    pub(super) fn new(key: Key, owner: Owner, state: State, iss: Seq, now: Time) -> Flow {
        Flow {
            key,
            owner,
            publication: None,
            socket: None,
            state,
            doomed: false,
            una: iss,
            next: iss,
            high: iss,
            fin: None,
            undiscarded: 0,
            window: 0,
            window_max: 0,
            window_seq: Seq(0),
            window_ack: Seq(0),
            scale: None,
            mss: 536,
            cap: u32::MAX,
            repeats: 0,
            resent: iss,
            recover: None,
            fast: false,
            may_read: false,
            failed: false,
            expected: Seq(0),
            edge: Seq(0),
            promised: Seq(0),
            farthest: Seq(0),
            selective: false,
            early: None,
            frame: 0,
            frames: FRAMES,
            calm: 0,
            narrow: false,
            buffer: 0,
            gathered: 0,
            gathered_fin: false,
            finished: false,
            first_to_finish: false,
            announced: 536,
            owed: false,
            owed_again: 0,
            touched: false,
            wait: None,
            again: false,
            tries: 0,
            waits: 0,
            round_trip: RoundTrip::default(),
            ask_at: now + KEEPALIVE,
            used: now,
            challenge_at: now,
            held: None,
        }
    }

    /// What the next byte of the inside will be when the batch is over.
    pub(super) fn awaited(&self) -> Seq {
        self.expected + self.gathered + u32::from(self.gathered_fin)
    }

    /// Whether the inside has acknowledged our FIN.
    pub(super) fn fin_acknowledged(&self) -> bool {
        self.fin.is_some_and(|fin| self.una.behind(fin))
    }

    /// By how many bits our windows are scaled.
    fn shift(&self) -> u8 {
        if self.scale.is_some() { SCALE } else { 0 }
    }

    /// The window to be written, in the inside's units; [`Flow::edge`] becomes what that says. The end of the window never
    /// moves back by it, but for `truth`, which is for when the host took less than it was thought to.
    fn window_field(&mut self, truth: bool, room: Option<SendRoom>) -> u16 {
        let shift = self.shift();
        let held = self.edge.beyond(self.expected);
        let mut window = held;
        if let Some(room) = room {
            let most = (u32::from(u16::MAX) << shift).min(self.frames_window());
            let bytes = u32::try_from(room.bytes).unwrap_or(u32::MAX).min(most) >> shift << shift;
            // The silly window syndrome is avoided by moving the edge only in steps worth a segment (RFC 9293, section
            // 3.8.6.2.2).
            let step = self.window_step();
            if bytes >= held.saturating_add(step) {
                window = bytes;
            } else if truth {
                window = bytes.min(held);
            }
        }
        // What the host took less of than it had room for is missing, and all behind it as well. Whoever may send what is new would do so
        // to find out, and lose that, too, and with it the only sign of a loss that he goes by.
        let missing = self.missing();
        let field = if missing > 0 {
            window = window.min(missing);
            window.div_ceil(1 << shift)
        } else {
            // Rounded down, and yet what was promised holds: rounded up, the end would creep on with every acknowledgement,
            // beyond what the host has room for.
            window >> shift
        };
        let field = field.min(u32::from(u16::MAX));
        self.promised = self.promised.max(self.edge).max(self.expected + (field << shift));
        self.edge = self.expected + window;
        field as u16
    }

    /// Bytes that have come once and must come again.
    pub(super) fn missing(&self) -> u32 {
        self.farthest.beyond(self.awaited())
    }

    /// Bytes that the wires of the inside hold.
    pub(super) fn frames_window(&self) -> u32 {
        u32::from(self.frames) * self.frame.max(u32::from(self.announced))
    }

    /// A frame came in order, with so much payload.
    pub(super) fn frame_came(&mut self, len: u32) {
        self.frame = self.frame - self.frame / 8 + len / 8;
    }

    /// A batch came of which nothing was missing.
    pub(super) fn batch_came(&mut self) {
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            self.frames = (self.frames + 1).min(FRAMES);
        }
    }

    /// A frame was lost: fewer are to be on their way. One that comes late is not lost.
    pub(super) fn frame_lost(&mut self) {
        self.frames = (self.frames / 2).max(FRAMES_MIN);
        self.calm = 0;
    }

    /// Whether the host is to have what is held next.
    pub(super) fn holds_next(&self) -> bool {
        self.early.as_ref().is_some_and(|early| early.holds_at(self.expected))
    }

    /// Bytes from `start` on that came once more are to be told, up to `end` (RFC 2883).
    pub(super) fn note_duplicate(&mut self, start: Seq, end: Seq) {
        if self.selective && self.state == State::Open {
            self.early.get_or_insert_default().note_duplicate(start, end);
        }
    }

    /// What is acknowledged selectively.
    fn blocks(&self) -> Options {
        let early = self.early.as_ref().filter(|_| self.selective);
        let blocks = early.map(|early| early.blocks(self.expected));
        blocks.filter(|blocks| !blocks.ranges().is_empty()).map_or(Options::None, Options::Blocks)
    }

    /// The window that was told last, as it stands now.
    pub(super) fn known_window(&mut self) -> u16 {
        self.window_field(false, None)
    }

    /// By how much more the inside is told, or nothing.
    fn window_step(&self) -> u32 {
        (self.buffer / 2).min(u32::from(self.announced)).max(1)
    }

    /// Whether the inside knows of as large a window as it would be told in any case.
    fn is_wide(&self) -> bool {
        let held = self.edge.beyond(self.expected);
        let most = self.frames_window().min(self.buffer).min(u32::from(u16::MAX) << self.shift());
        held > 0 && held.saturating_add(self.window_step()) > most
    }

    /// Makes a window of what room the host has. It is asked only where the answer could make a difference: to ask costs as
    /// much as to send.
    pub(super) fn fresh_window(&mut self, truth: bool, call: &mut Call<'_>) -> u16 {
        let socket = self.socket.filter(|_| !self.failed);
        if !truth && socket.is_some() && self.is_wide() {
            return self.window_field(false, None);
        }
        let room = socket.map(|socket| self.ask_room(socket, call.host));
        self.narrow = truth || room.is_some() && self.narrow;
        self.window_field(truth, room)
    }

    /// Asks the host what room there is.
    pub(super) fn ask_room(&mut self, socket: SocketId, host: &mut dyn Host) -> SendRoom {
        let room = host.send_room(socket);
        self.buffer = u32::try_from(room.buffer).unwrap_or(u32::MAX);
        self.narrow = room.bytes < room.buffer / 2;
        room
    }

    /// Sends an acknowledgement with what window there is.
    pub(super) fn acknowledge(&mut self, truth: bool, call: &mut Call<'_>) {
        let window = self.fresh_window(truth, call);
        self.owed = false;
        self.reply(flag::ACK, self.next, window, call);
    }

    /// Sends a segment without payload; an acknowledgement tells what is held, too.
    pub(super) fn reply(&mut self, flags: u8, seq: Seq, window: u16, call: &mut Call<'_>) -> Made {
        let options = if flags == flag::ACK { self.blocks() } else { Options::None };
        let made = self.send(&Reply { seq, ack: self.expected, flags, window, options }, call);
        if made == Made::Sent
            && flags == flag::ACK
            && let Some(early) = &mut self.early
        {
            early.forget_duplicate();
        }
        made
    }

    /// Sends a segment without payload.
    pub(super) fn send(&self, reply: &Reply, call: &mut Call<'_>) -> Made {
        let made = reply.send(&self.key, call.inside);
        count_loss(&self.key, made, call);
        made
    }

    /// Answers a segment that fits nowhere, but not every one.
    pub(super) fn challenge(&mut self, call: &mut Call<'_>) {
        if call.now >= self.challenge_at {
            self.challenge_at = call.now + CHALLENGE;
            self.acknowledge(false, call);
        }
    }

    /// Gives up the host's socket in good order.
    pub(super) fn close(&mut self, desk: &mut Desk<'_, '_>) {
        if let Some(socket) = self.socket.take() {
            desk.roles.remove(socket);
            desk.call.host.close(socket);
        }
    }

    /// Ends the host's connection with a reset.
    pub(super) fn reset_outside(&mut self, desk: &mut Desk<'_, '_>) -> Fate {
        if let Some(socket) = self.socket.take() {
            desk.roles.remove(socket);
            desk.call.host.reset(socket);
        }
        Fate::Over
    }

    /// Ends the inside's connection with a reset, as far as it knows of one.
    pub(super) fn reset_inside(&mut self, call: &mut Call<'_>) -> Made {
        let seq = self.next.max(self.high);
        match self.state {
            State::TimeWait => Made::Nothing,
            // As if nobody had listened.
            State::Connecting => self.reply(flag::RST | flag::ACK, Seq(0), 0, call),
            State::Asked => {
                let reply =
                    Reply { seq, ack: Seq(0), flags: flag::RST, window: 0, options: Options::None };
                self.send(&reply, call)
            }
            State::Answered | State::Open => self.reply(flag::RST | flag::ACK, seq, 0, call),
        }
    }

    /// Ends it on both sides. Where the turn has no room for saying so, it is over only when that has been said.
    pub(super) fn abort(&mut self, desk: &mut Desk<'_, '_>) -> Fate {
        // Who had said all there was to say may leave in peace: what it was told is taken is still delivered.
        if self.finished
            && let Some(socket) = self.socket.take()
        {
            desk.roles.remove(socket);
            desk.call.host.close(socket);
        }
        let fate = self.reset_outside(desk);
        if self.reset_inside(desk.call) == Made::NoRoom {
            self.doomed = true;
            self.again = true;
            return Fate::Lives;
        }
        fate
    }

    /// The host's connection has died. What it had sent before is still delivered.
    pub(super) fn fail(&mut self) {
        self.failed = true;
        self.may_read = true;
    }

    /// Waits for something from now on.
    pub(super) fn wait_for(&mut self, what: Wait, now: Time, span: Duration) {
        self.wait = Some((what, now + span));
    }

    /// When it is to be looked at.
    pub(super) fn due(&self, now: Time) -> Option<Time> {
        if self.again {
            // Behind the present, so that it is another turn.
            return Some(now + Duration::from_nanos(1));
        }
        if self.doomed {
            return Some(Time::ZERO);
        }
        match (self.wait, self.state) {
            (Some((_, at)), _) => Some(at),
            (None, State::Open) => Some(self.ask_at),
            (None, _) => None,
        }
    }

    /// The inside is there.
    pub(super) fn hear(&mut self, now: Time) {
        self.ask_at = now + KEEPALIVE;
    }

    /// What may be asked or answered no sooner than it was asked: the inside's window, and what it acknowledges.
    pub(super) fn take_window(&mut self, segment: &Segment) {
        let shift = if segment.has(flag::SYN) { 0 } else { self.scale.unwrap_or_default() };
        self.window = u32::from(segment.window) << shift;
        self.window_max = self.window_max.max(self.window);
        self.window_seq = segment.seq;
        self.window_ack = segment.ack;
    }

    /// Whether one of its ends has closed or died.
    pub(super) fn is_closing(&self) -> bool {
        self.finished || self.fin.is_some() || self.failed
    }

    /// How it stands, for people.
    pub(super) fn word(&self) -> &'static str {
        match self.state {
            State::Connecting | State::Asked | State::Answered => "opening",
            State::Open if !self.is_closing() => "established",
            State::Open | State::TimeWait => "closing",
        }
    }
}

/// Counts a packet to the inside that was not made.
pub(super) fn count_loss(key: &Key, made: Made, call: &mut Call<'_>) {
    use crate::inside::Lost;
    let why = match made {
        Made::Sent | Made::Nothing => return,
        Made::NoRoom => Lost::NoRoom,
        Made::NoNeighbor => Lost::NoNeighbor,
    };
    call.inside.lost(key.zone, key.inside.ip(), why, 1);
}
