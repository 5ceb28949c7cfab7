//! What the host's socket has to say, sent to the inside.
//!
//! Bytes are peeked from the socket straight behind the headers of the packet they leave in, as many at once as a superframe
//! takes and the inside's window allows. They stay in the socket until they are acknowledged, so that sending them again is
//! peeking again. The network inside is no wider than a wire, so there is no congestion window; but after a loss no more is
//! sent than twice what was acknowledged since, lest a guest that loses frames be sent a whole window of them once more. Where
//! the guest says by selective acknowledgements what it has, a fast recovery sends what lies before that, one gap after
//! the other; what it does not say, and what is lost twice, is found by its silence, and sent again with all that follows.

use crate::inside::Made;
use crate::sockets::Desk;
use crate::sockets::host::Failure;
use crate::time::Time;

use super::flow::{Fate, Flow, State, Wait, count_loss};
use super::segment::{Options, Reply, Segment, flag, headers_len};
use super::sequence::Seq;

/// Superframes for one flow in one step; others wait for their turn meanwhile.
const PER_STEP: usize = 4;

/// The largest packet that is made, bytes: with an Ethernet header it fits any frame's slot.
pub(super) const PACKET_MAX: usize = 65_226 - 14;

/// Segments of one superframe at most.
const SEGMENTS_MAX: usize = 1024;

/// Segments that may be in flight right after a loss.
const RESTART_SEGMENTS: u32 = 4;

/// Acknowledgements of the same that tell a loss (RFC 5681, section 3.2).
pub(super) const REPEATS: u8 = 3;

/// Retransmissions in vain until the connection is given up (Linux: tcp_retries2).
pub(super) const TRIES: u8 = 15;

/// What one attempt to send came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    /// So many bytes, and maybe all there are for now.
    Bytes(u32),
    /// The end of the stream.
    Fin,
    /// There is nothing for now.
    Nothing,
    /// There is something, but not now: the window takes only a part that is not worth a segment, or the host is out of memory.
    Silly,
    /// The turn has no room.
    NoRoom,
    /// The connection outside is dead, and all that came by it was sent.
    Dead,
}

/// Whether more could be sent in another turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum More {
    Yes,
    No,
    /// The flow is over.
    Over,
}

impl From<Fate> for More {
    fn from(fate: Fate) -> More {
        if fate == Fate::Over { More::Over } else { More::No }
    }
}

impl Flow {
    /// Bytes in flight.
    fn flight(&self) -> u32 {
        self.next - self.una
    }

    /// Bytes that may be sent now.
    fn usable(&self) -> u32 {
        self.window.min(self.cap).saturating_sub(self.flight())
    }

    /// Sends what there is, as far as the window, the turn and fairness allow.
    pub(super) fn pump(&mut self, desk: &mut Desk<'_, '_>) -> More {
        if self.state != State::Open || self.doomed {
            return More::No;
        }
        let finished = self.fin.is_some_and(|fin| self.next.behind(fin));
        if finished && self.failed {
            return self.tell_dead(desk);
        }
        let mut more = More::Yes;
        for _ in 0..PER_STEP {
            if !self.may_read || self.fin.is_some_and(|fin| self.next.behind(fin)) {
                more = More::No;
                break;
            }
            let usable = self.usable();
            if usable == 0 {
                more = More::No;
                break;
            }
            match self.emit(self.next, usable, false, desk) {
                Sent::Bytes(count) => self.advance(count, desk),
                Sent::Fin => {
                    self.advance(1, desk);
                    more = More::No;
                    break;
                }
                Sent::Nothing => {
                    self.may_read = false;
                    more = More::No;
                    break;
                }
                Sent::Silly => {
                    more = More::No;
                    break;
                }
                Sent::NoRoom => break,
                Sent::Dead => return self.tell_dead(desk),
            }
        }
        let over = self.fin.is_some_and(|fin| self.next.behind(fin));
        let shut = more == More::No && self.may_read && !over;
        if shut && self.una == self.high && self.wait.is_none() {
            self.waits = 0;
            self.wait_for(Wait::Window, desk.call.now, self.round_trip.wait(0));
        }
        more
    }

    /// The connection outside is dead. The inside is told when it has acknowledged what came before: the host has done so to
    /// whoever sent it, so that a loss in here could not be made up for by anybody else.
    fn tell_dead(&mut self, desk: &mut Desk<'_, '_>) -> More {
        self.failed = true;
        if self.una == self.high || self.next != self.high {
            self.abort(desk).into()
        } else {
            More::No
        }
    }

    /// So many sequence numbers behind [`Flow::next`] were sent.
    fn advance(&mut self, count: u32, desk: &Desk<'_, '_>) {
        let now = desk.call.now;
        let fresh = self.next == self.high;
        self.next = self.next + count;
        self.high = self.high.max(self.next);
        self.used = now;
        if fresh {
            self.round_trip.sent(self.next, now);
        }
        if !matches!(self.wait, Some((Wait::Acknowledgement, _))) {
            self.tries = 0;
            self.waits = 0;
            self.wait_for(Wait::Acknowledgement, now, self.round_trip.wait(0));
        }
    }

    /// How many bytes to ask for where `usable` may be sent: whole segments, unless not even one fits.
    fn room(&self, usable: u32) -> usize {
        let mss = usize::from(self.mss);
        let most = (PACKET_MAX - headers_len(self.key.inside.ip())) / mss;
        let whole = (usable as usize / mss).min(most).min(SEGMENTS_MAX);
        if whole == 0 { usable as usize } else { whole * mss }
    }

    /// Sends at most `usable` bytes from `at` on, which lies between `una` and `next`; `forced` even where that is silly.
    fn emit(&mut self, at: Seq, usable: u32, forced: bool, desk: &mut Desk<'_, '_>) -> Sent {
        let Some(socket) = self.socket else { return Sent::Nothing };
        let front = headers_len(self.key.inside.ip());
        let room = self.room(usable);
        let skip = self.undiscarded as usize + (at - self.una) as usize;
        // A window that is smaller than a segment is used only where that empties the socket, where it is half of the
        // largest there was, or where nothing else would ever open it (RFC 9293, section 3.8.6.2.1).
        let silly = !forced && room < usize::from(self.mss) && usable < self.window_max / 2;
        let window = self.known_window();
        let (key, mss, failed, fin) = (self.key, self.mss, self.failed, self.fin);
        let reply =
            Reply { seq: at, ack: self.expected, flags: flag::ACK, window, options: Options::None };
        let mut sent = Sent::Nothing;
        let host = &mut *desk.call.host;
        let made =
            desk.call.inside.compose(key.zone, key.inside.ip(), front + room, &mut |bytes| {
                let space = bytes.get_mut(front..front + room)?;
                sent = if fin == Some(at) {
                    Sent::Fin
                } else {
                    found(host.peek(socket, skip, space), room, silly, failed)
                };
                let (flags, payload) = match sent {
                    Sent::Bytes(count) if (count as usize) < room => (flag::PSH, count),
                    Sent::Bytes(count) => (0, count),
                    Sent::Fin => (flag::FIN, 0),
                    Sent::Nothing | Sent::Silly | Sent::NoRoom | Sent::Dead => return None,
                };
                let payload = payload as usize;
                Reply { flags: reply.flags | flags, ..reply }.seal(&key, bytes, payload, mss)
            });
        if sent == Sent::Fin && self.fin != Some(at) {
            self.fin = Some(at);
            self.first_to_finish = !self.finished;
        }
        if made == Made::NoRoom {
            // Nothing is lost by that: it lies in the socket.
            return Sent::NoRoom;
        }
        count_loss(&key, made, desk.call);
        if matches!(sent, Sent::Bytes(_) | Sent::Fin) {
            self.owed = false;
        }
        // Where nobody is there, it is as if it had been sent and lost: by and by that ends the flow.
        if made == Made::NoNeighbor { Sent::Silly } else { sent }
    }

    /// A segment acknowledges something new.
    pub(super) fn progress(&mut self, segment: &Segment, desk: &mut Desk<'_, '_>) {
        self.acknowledged(segment.ack, segment.selected.is_some(), desk.call.now);
        if self.fast {
            self.resend(segment.selected, desk);
        }
    }

    /// The inside has acknowledged everything before `ack`, which is new; `keeps` where it says that it has some of what
    /// follows.
    fn acknowledged(&mut self, ack: Seq, keeps: bool, now: Time) {
        let count = ack - self.una;
        let fin = self.fin.is_some_and(|fin| ack.behind(fin));
        self.undiscarded += count - u32::from(fin);
        self.una = ack;
        self.next = self.next.max(ack);
        self.repeats = 0;
        self.tries = 0;
        self.waits = 0;
        self.round_trip.acknowledged(ack, now);
        self.cap = self.cap.saturating_add(count);
        if self.cap > self.window_max {
            self.cap = u32::MAX;
        }
        match self.recover {
            Some(recover) if !ack.before(recover) => {
                self.recover = None;
                self.fast = false;
            }
            // It tells of another loss (RFC 6582, section 3.2); the inside may well have kept nothing of what followed.
            Some(_) if self.fast && !keeps => {
                self.round_trip.confuse();
                self.fast = false;
                self.next = ack;
                self.may_read = true;
            }
            _ => {}
        }
        self.wait = None;
        if self.una != self.high {
            self.wait_for(Wait::Acknowledgement, now, self.round_trip.wait(0));
        }
    }

    /// The inside has acknowledged what it had acknowledged before.
    pub(super) fn repeated(&mut self, segment: &Segment, desk: &mut Desk<'_, '_>) {
        self.repeats = self.repeats.saturating_add(1);
        let selected = segment.selected;
        // A superframe is acknowledged once, and yet stands for as many segments (RFC 6675, section 5).
        let segments = u32::from(REPEATS) * u32::from(self.mss);
        let many = selected.is_some_and(|(start, end)| end - start >= segments);
        if (self.repeats == REPEATS || many) && self.recover.is_none() {
            self.recover = Some(self.high);
            self.fast = true;
            self.resent = self.una;
            self.cap = (self.flight() / 2).max(RESTART_SEGMENTS * u32::from(self.mss));
        }
        if self.fast {
            // What found no room in an earlier turn, too.
            self.resend(selected, desk);
        }
    }

    /// Sends the oldest bytes in flight once more: all before those that the inside says it has, or a segment of them where
    /// it says nothing; but none twice in one recovery.
    fn resend(&mut self, selected: Option<(Seq, Seq)>, desk: &mut Desk<'_, '_>) {
        self.round_trip.confuse();
        let data_end =
            self.fin.map_or(self.high, |fin| if self.high.behind(fin) { fin } else { self.high });
        let selected = selected.map(|(start, _)| start).filter(|start| start.before(data_end));
        let Some(end) = selected else {
            if self.resent.behind(self.una) {
                return;
            }
            let count = data_end.beyond(self.una).clamp(1, self.mss.into());
            if self.emit(self.una, count, true, desk) != Sent::NoRoom {
                self.resent = self.una + count;
            }
            return;
        };
        self.resent = self.resent.max(self.una);
        for _ in 0..PER_STEP {
            let count = end.beyond(self.resent);
            if count == 0 {
                return;
            }
            match self.emit(self.resent, count, true, desk) {
                Sent::Bytes(count) => self.resent = self.resent + count,
                _ => return,
            }
        }
    }

    /// All that is in flight counts as lost, and is sent again from the oldest byte on.
    pub(super) fn go_back(&mut self) {
        self.round_trip.confuse();
        self.next = self.una;
        self.recover = Some(self.high);
        self.fast = false;
        self.repeats = 0;
        self.may_read = true;
    }

    /// Nothing was acknowledged for too long.
    pub(super) fn retransmit(&mut self, desk: &mut Desk<'_, '_>) -> Fate {
        if self.tries >= TRIES {
            return self.abort(desk);
        }
        self.go_back();
        self.cap = RESTART_SEGMENTS * u32::from(self.mss);
        self.wait_longer(Wait::Acknowledgement, desk);
        if self.usable() == 0 {
            self.ask(desk);
            return Fate::Lives;
        }
        self.pump_on(desk)
    }

    /// The window stayed too small for too long.
    pub(super) fn persist(&mut self, desk: &mut Desk<'_, '_>) -> Fate {
        if self.tries >= TRIES {
            return self.abort(desk);
        }
        let usable = self.usable();
        if usable > 0 {
            self.wait = None;
            match self.emit(self.next, usable, true, desk) {
                Sent::Bytes(count) => self.advance(count, desk),
                Sent::Fin => self.advance(1, desk),
                Sent::Nothing => self.may_read = false,
                Sent::Dead => return self.abort(desk),
                Sent::Silly | Sent::NoRoom => self.wait_longer(Wait::Window, desk),
            }
            return Fate::Lives;
        }
        // There may be nothing to be sent after all.
        let mut byte = [0];
        let skip = self.undiscarded as usize + self.flight() as usize;
        let peeked = self.socket.map(|socket| desk.call.host.peek(socket, skip, &mut byte));
        match peeked.map_or(Sent::Nothing, |peeked| found(peeked, 1, false, self.failed)) {
            Sent::Nothing => {
                self.may_read = false;
                self.wait = None;
            }
            // A reset needs no window.
            Sent::Dead => return self.abort(desk),
            Sent::Bytes(_) | Sent::Fin | Sent::Silly | Sent::NoRoom => {
                self.ask(desk);
                self.wait_longer(Wait::Window, desk);
            }
        }
        Fate::Lives
    }

    /// Waits again, longer than before.
    fn wait_longer(&mut self, what: Wait, desk: &Desk<'_, '_>) {
        self.tries += 1;
        self.waits = self.waits.saturating_add(1);
        self.wait_for(what, desk.call.now, self.round_trip.wait(self.waits));
    }

    /// Makes the inside say where it stands: a segment of nothing, just before its window.
    pub(super) fn ask(&mut self, desk: &mut Desk<'_, '_>) {
        let window = self.known_window();
        self.reply(flag::ACK, self.una - 1, window, desk.call);
    }

    /// Sends what there is; the rest in another turn, without being told to.
    pub(super) fn pump_on(&mut self, desk: &mut Desk<'_, '_>) -> Fate {
        let more = self.pump(desk);
        self.again |= more == More::Yes;
        if more == More::Over { Fate::Over } else { Fate::Lives }
    }
}

/// What a look at the socket, with `room` for bytes, leads to.
fn found(peeked: Result<usize, Failure>, room: usize, silly: bool, failed: bool) -> Sent {
    match peeked {
        Ok(0) | Err(Failure::WouldBlock) if failed => Sent::Dead,
        Ok(0) => Sent::Fin,
        Ok(count) if count >= room && silly => Sent::Silly,
        Ok(count) => Sent::Bytes(count.min(room) as u32),
        Err(Failure::WouldBlock) => Sent::Nothing,
        // There may be bytes, and nobody will tell when they can be had.
        Err(Failure::NoBuffers) => Sent::Silly,
        Err(_) => Sent::Dead,
    }
}
