//! What the inside sends over a connection that is made, given to the host's socket.
//!
//! Payload in order is noted while a batch lasts and goes to the socket in one call at its end ([`Flow::deliver`]); what the
//! socket takes is acknowledged with the window that is left then. Payload that is early is noted as well; what is early still
//! when the batch ends is held until what precedes it has come, and then goes to the socket behind that, in the same call
//! ([`super::reorder`]). What is held lies in the window that was told, so that there is room for it. The checks and their order are those of RFC 9293, section 3.10.7.4, with RFC 5961's.

use arrayvec::ArrayVec;

use crate::inside::{Inside, Lost, Made, PacketId};
use crate::sockets::Desk;
use crate::sockets::host::{Failure, Host};

use super::flow::{Fate, Flow, SCALE, State, TIME_WAIT, Wait};
use super::inward::REPEATS;
use super::reorder::{Early, Held, Stock, Stretch};
use super::segment::{Segment, flag, reset_for};
use super::sequence::Seq;

/// Parts of one call of [`crate::sockets::host::Host::send`].
const PARTS_MAX: usize = 128;

/// Answers to segments out of order within a batch.
const AGAIN_MAX: u8 = 16;

/// Payload that waits for the end of the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    /// Whose it is.
    pub(super) flow: u32,
    /// The packet it lies in.
    pub(super) packet: PacketId,
    /// The number of its first byte.
    pub(super) seq: Seq,
    /// Where it starts in the packet's bytes.
    pub(super) start: usize,
    /// Its length, bytes.
    pub(super) len: u32,
}

/// What of a segment's payload is to be kept for the end of the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Taken {
    /// The number of its first byte.
    pub(super) seq: Seq,
    /// Where it starts in the packet's bytes.
    pub(super) start: usize,
    /// Its length, bytes; it may be 0.
    pub(super) len: u32,
}

impl Taken {
    const NOTHING: Taken = Taken { seq: Seq(0), start: 0, len: 0 };
}

impl Part {
    /// Its bytes and where they belong.
    fn stretch<'i>(&self, inside: &'i dyn Inside) -> Stretch<'i> {
        let bytes = inside.bytes(self.packet).get(self.start..self.start + self.len as usize);
        Stretch { start: self.seq, bytes: bytes.unwrap_or_default() }
    }
}

impl Flow {
    /// Takes a segment of a connection that was answered or made. What of its payload is to be kept, and whether the flow goes
    /// on; or why it goes no further.
    pub(super) fn receive(
        &mut self,
        segment: &Segment,
        desk: &mut Desk<'_, '_>,
    ) -> (Fate, Result<Taken, Lost>) {
        let now = desk.call.now;
        let awaited = self.awaited();
        let window = self.edge.beyond(awaited);
        // The window may have been drawn back from where the inside stands.
        let reach = self.promised.max(self.edge).beyond(awaited);
        let offset = segment.seq - awaited;
        if segment.has(flag::RST) {
            return self.receive_reset(offset, reach, desk);
        }
        if !is_acceptable(awaited, window, reach, segment) {
            return (Fate::Lives, self.refuse(segment, awaited, desk));
        }
        if segment.has(flag::SYN) {
            self.challenge(desk.call);
            return (Fate::Lives, Err(Lost::NoFlow));
        }
        if !segment.has(flag::ACK) {
            return (Fate::Lives, Err(Lost::NoFlow));
        }
        if self.state == State::Answered {
            if segment.ack != self.next {
                if let Some(reset) = reset_for(segment) {
                    self.send(&reset, desk.call);
                }
                return (Fate::Lives, Err(Lost::NoFlow));
            }
            self.establish(segment, desk);
        }
        if segment.ack.behind(self.high) || segment.ack.before(self.una - self.window_max) {
            self.challenge(desk.call);
            return (Fate::Lives, Err(Lost::NoFlow));
        }
        self.hear(now);
        self.used = now;
        if self.state == State::TimeWait {
            return (Fate::Lives, Ok(Taken::NOTHING));
        }
        self.take_acknowledgement(segment, desk);
        (Fate::Lives, self.take_payload(segment, awaited, window))
    }

    /// A reset counts only where it is exactly at what is awaited (RFC 5961, section 3.2). It also ends TIME-WAIT (RFC 9293,
    /// section 3.10.7.4): whoever answers so to being told where the old connection stands knows of none, and wants another.
    fn receive_reset(
        &mut self,
        offset: u32,
        reach: u32,
        desk: &mut Desk<'_, '_>,
    ) -> (Fate, Result<Taken, Lost>) {
        // What the batch has gathered was not acknowledged: whoever resets may not have sent it.
        let exact = offset == 0 || offset == (self.expected - self.awaited());
        if exact {
            return (self.reset_outside(desk), Ok(Taken::NOTHING));
        }
        if offset <= reach {
            self.challenge(desk.call);
        }
        (Fate::Lives, Err(Lost::NoFlow))
    }

    /// Answers a segment that does not lie in the window.
    fn refuse(
        &mut self,
        segment: &Segment,
        awaited: Seq,
        desk: &mut Desk<'_, '_>,
    ) -> Result<Taken, Lost> {
        let asks = segment.has(flag::SYN) && segment.seq + 1 == self.expected;
        if self.state == State::Answered && asks {
            // Where both have asked at once, either answer completes it.
            if segment.has(flag::ACK) && segment.ack == self.next {
                self.establish(segment, desk);
            } else {
                self.answer(desk);
            }
            return Ok(Taken::NOTHING);
        }
        let old = !segment.seq.behind(awaited);
        if segment.len > 0 || segment.has(flag::FIN) {
            // It was sent again, or asks for the window: it must be told at once how far it is.
            self.owe_again();
            let end = segment.seq + segment.len;
            // What lies farther back than any window may be somebody's guess.
            let near = awaited - segment.seq <= u32::from(u16::MAX) << SCALE;
            if segment.len > 0 && near && !end.behind(awaited) {
                self.note_duplicate(segment.seq, end);
            }
            if self.state == State::TimeWait && segment.has(flag::FIN) {
                self.wait_for(Wait::Quiet, desk.call.now, TIME_WAIT);
            }
        } else if segment.seq + 1 == awaited && !segment.has(flag::SYN) {
            self.hear(desk.call.now);
            self.owe_again();
        } else {
            self.challenge(desk.call);
        }
        // Its acknowledgement may be news nevertheless.
        if old && segment.has(flag::ACK) && self.state == State::Open {
            let ack = segment.ack;
            if ack.behind(self.una) && !ack.behind(self.high) {
                self.hear(desk.call.now);
                // Its window says nothing, so the one that was told ends where it did.
                self.window = self.window.saturating_sub(ack - self.una);
                self.progress(segment, desk);
            }
        }
        if old { Ok(Taken::NOTHING) } else { Err(Lost::NoFlow) }
    }

    /// An acknowledgement is owed at the end of the batch, even where it says nothing new.
    fn owe_again(&mut self) {
        self.owed_again = self.owed_again.saturating_add(1).min(AGAIN_MAX);
    }

    /// Takes what a segment says about the other direction.
    fn take_acknowledgement(&mut self, segment: &Segment, desk: &mut Desk<'_, '_>) {
        let window_before = self.window;
        // One that acknowledges something new tells the window, too, even where its payload was sent before: the old window
        // would end too far behind.
        let newer = segment.seq.behind(self.window_seq)
            || segment.ack.behind(self.una)
            || segment.seq == self.window_seq && !segment.ack.before(self.window_ack);
        if !segment.ack.before(self.una) && newer {
            self.take_window(segment);
        }
        if segment.ack.behind(self.una) {
            self.progress(segment, desk);
        } else if segment.ack == self.una {
            let same = self.window == window_before || segment.selected.is_some();
            if same && segment.span() == 0 && self.una != self.high && self.window > 0 {
                self.repeated(segment, desk);
            }
            if self.window == 0 || self.una == self.high {
                // It lives, and only has no room.
                self.tries = 0;
            }
        }
        if self.window > window_before && matches!(self.wait, Some((Wait::Window, _))) {
            self.wait = None;
        }
    }

    /// Notes payload and FIN as far as they lie in the window and had not come yet.
    fn take_payload(
        &mut self,
        segment: &Segment,
        awaited: Seq,
        window: u32,
    ) -> Result<Taken, Lost> {
        if segment.span() == 0 {
            return Ok(Taken::NOTHING);
        }
        if self.finished || self.gathered_fin || self.failed {
            // Nothing can follow a FIN, and the dead take nothing.
            self.owed = true;
            return Ok(Taken::NOTHING);
        }
        if segment.seq.behind(awaited) {
            return Ok(self.take_early(segment, window - (segment.seq - awaited).min(window)));
        }
        let known = awaited - segment.seq;
        self.owed = true;
        if known > 0 && segment.len > 0 {
            self.note_duplicate(segment.seq, awaited);
        }
        let fresh = segment.len.saturating_sub(known);
        let len = fresh.min(window);
        self.gathered += len;
        self.frame_came(segment.len);
        self.farthest = self.farthest.max(self.awaited());
        self.gathered_fin = segment.has(flag::FIN) && len == fresh;
        Ok(Taken { seq: awaited, start: segment.payload + known as usize, len })
    }

    /// Notes what lies behind what is awaited, as far as it fits `room` bytes of the window.
    fn take_early(&mut self, segment: &Segment, room: u32) -> Taken {
        let len = segment.len.min(room);
        self.frame_came(segment.len);
        let early = self.early.get_or_insert_default();
        if segment.has(flag::FIN) && len == segment.len {
            early.note_fin(segment.seq + len);
        }
        if len == 0 {
            self.owe_again();
        }
        Taken { seq: segment.seq, start: segment.payload, len }
    }

    /// Gives the host what the batch has gathered, acknowledges it, and sends what has become possible.
    pub(super) fn deliver(
        &mut self,
        parts: &mut [Part],
        stock: &mut Stock,
        desk: &mut Desk<'_, '_>,
    ) -> Fate {
        if self.doomed {
            return Fate::Lives;
        }
        let (truth, fin) = match self.early.take() {
            Some(early) => self.sort_out(early, parts, stock, desk),
            None => (self.send_parts(parts, desk), self.gathered_fin),
        };
        if self.gathered > 0 && self.owed_again == 0 {
            self.batch_came();
        }
        self.gathered = 0;
        self.gathered_fin = false;
        if fin && !truth && !self.failed {
            self.take_fin(desk);
        }
        if (self.finished || self.failed)
            && let Some(mut early) = self.early.take()
        {
            early.clear(self.owner, stock);
        }
        self.discard(desk);
        self.owed |= truth;
        if self.owed || self.owed_again > 0 {
            let window = self.fresh_window(truth, desk.call);
            if truth && window > 0 {
                // What the host did not take is to come again at once, not when its sender has waited for long enough.
                self.owed_again = self.owed_again.max(REPEATS);
            }
        }
        // What is sent anyhow acknowledges, too.
        if self.pump_on(desk) == Fate::Over {
            return Fate::Over;
        }
        self.say_owed(desk);
        self.early = self.early.take().filter(|early| !early.is_empty());
        self.settle(desk)
    }

    /// Sends the acknowledgements that are owed; in another turn those that this one has no room for.
    pub(super) fn say_owed(&mut self, desk: &mut Desk<'_, '_>) {
        let window = self.known_window();
        let count = u8::from(std::mem::take(&mut self.owed)) + std::mem::take(&mut self.owed_again);
        for said in 0..count {
            if self.reply(flag::ACK, self.next, window, desk.call) == Made::NoRoom {
                self.owed_again = count - said;
                self.again = true;
                return;
            }
        }
    }

    /// Gives parts in order to the socket. Whether it took less.
    fn send_parts(&mut self, parts: &[Part], desk: &mut Desk<'_, '_>) -> bool {
        parts.chunks(PARTS_MAX).any(|parts| {
            let inside = &*desk.call.inside;
            let slices = parts.iter().map(|part| part.stretch(inside).bytes);
            let slices: ArrayVec<&[u8], PARTS_MAX> = slices.collect();
            self.offer(&slices, desk.call.host)
        })
    }

    /// Gives bytes in order to the socket, in one call. Whether it took less.
    fn offer(&mut self, slices: &[&[u8]], host: &mut dyn Host) -> bool {
        let Some(socket) = self.socket.filter(|_| !self.failed) else { return true };
        let all = slices.iter().map(|slice| slice.len()).sum::<usize>();
        match host.send(socket, slices) {
            Ok(count) => {
                self.expected = self.expected + count.min(all) as u32;
                count < all
            }
            Err(Failure::WouldBlock | Failure::NoBuffers) => true,
            Err(_) => {
                self.fail();
                true
            }
        }
    }

    /// Gives the socket what has come in order, by this batch's parts and by what is held, and holds what is early
    /// still. Whether the socket took less, and whether the inside's FIN is next.
    fn sort_out(
        &mut self,
        mut early: Box<Early>,
        parts: &mut [Part],
        stock: &mut Stock,
        desk: &mut Desk<'_, '_>,
    ) -> (bool, bool) {
        let from = self.expected;
        let known = from + self.gathered;
        let early_fin = early.fin().filter(|fin| !fin.before(known));
        let fin = if self.gathered_fin { Some(known) } else { early_fin };
        parts.sort_unstable_by_key(|part| part.seq - from);
        let inside = &*desk.call.inside;
        let slices = early.in_order(from, fin, parts.iter().map(|part| part.stretch(inside)));
        let count = slices.iter().map(|slice| slice.len()).sum::<usize>() as u32;
        let mut chunks = slices.chunks(PARTS_MAX);
        let truth = chunks.any(|slices| self.offer(slices, desk.call.host));
        early.trim(self.expected, self.owner, stock);
        let moved = self.expected != from;
        self.owed |= moved;
        // What the socket has not taken of the batch is asked for again, as always.
        let rest = parts.partition_point(|part| part.seq - from <= count);
        let frames = self.hold(&mut early, &parts[rest..], stock, desk);
        if early.is_lost(frames, moved) {
            self.frame_lost();
        }
        if !early.is_empty() {
            self.early = Some(early);
        }
        (truth, fin == Some(self.expected))
    }

    /// Holds parts that are early, and owes an answer for each. How many were new.
    fn hold(
        &mut self,
        early: &mut Early,
        parts: &[Part],
        stock: &mut Stock,
        desk: &mut Desk<'_, '_>,
    ) -> usize {
        let mut frames = 0;
        for part in parts {
            let held = early.hold(part.stretch(desk.call.inside), self.owner, stock);
            match held {
                Held::Taken => frames += 1,
                Held::Known if self.selective => {
                    early.note_duplicate(part.seq, part.seq + part.len);
                }
                Held::Known => {}
                Held::NoRoom => {
                    frames += 1;
                    let (zone, inside) = (self.key.zone, self.key.inside.ip());
                    desk.call.inside.lost(zone, inside, Lost::NoFlow, 1);
                }
            }
            // Where nothing else tells how much has come, a superframe is answered as the several segments it stands for.
            let segments = part.len.div_ceil(u32::from(self.announced)).clamp(1, REPEATS.into());
            for _ in 0..if self.selective { 1 } else { segments } {
                self.owe_again();
            }
        }
        frames
    }

    /// Nothing more comes of the inside.
    fn take_fin(&mut self, desk: &mut Desk<'_, '_>) {
        let Some(socket) = self.socket else { return };
        if desk.call.host.finish(socket).is_err() {
            self.fail();
            return;
        }
        self.expected = self.expected + 1;
        self.edge = self.edge.max(self.expected);
        self.finished = true;
        self.owed = true;
    }

    /// Takes off the socket what was acknowledged.
    fn discard(&mut self, desk: &mut Desk<'_, '_>) {
        let count = std::mem::take(&mut self.undiscarded);
        let Some(socket) = self.socket.filter(|_| count > 0) else { return };
        match desk.call.host.discard(socket, count as usize) {
            Ok(()) => {}
            Err(failure) => {
                // The socket holds them still, and what is behind them must be peeked from behind them.
                self.undiscarded = count;
                if !matches!(failure, Failure::WouldBlock | Failure::NoBuffers) {
                    self.fail();
                }
            }
        }
    }

    /// Ends what has been closed on both sides.
    fn settle(&mut self, desk: &mut Desk<'_, '_>) -> Fate {
        if self.state != State::Open || !self.finished || !self.fin_acknowledged() {
            return Fate::Lives;
        }
        self.close(desk);
        if !self.first_to_finish {
            return Fate::Over;
        }
        self.state = State::TimeWait;
        self.wait_for(Wait::Quiet, desk.call.now, TIME_WAIT);
        Fate::Lives
    }
}

/// Whether a segment lies in the window (RFC 9293, section 3.10.7.4, table 6); one that starts before it and ends behind it
/// does, too.
fn is_acceptable(awaited: Seq, window: u32, reach: u32, segment: &Segment) -> bool {
    let end = segment.seq + segment.span();
    match (segment.span(), window) {
        // Up to the very end of any window that was told: there stands who has filled it and lost something of that, and its
        // acknowledgements must count.
        (0, _) => segment.seq - awaited <= reach,
        // A FIN takes no room, so it is good where no window is left.
        (_, 0) => segment.has(flag::FIN) && segment.seq + segment.len == awaited,
        _ => segment.seq.before(awaited + window) && end.behind(awaited),
    }
}
