//! A connection: the host kernel's socket at one end, a program at the other, a way that takes time between them.
//!
//! Neither end loses anything: that is TCP's part, and the host's kernel has done it. What remains is what a socket shows:
//! two bounded buffers, and news that arrive late. Everything that takes time is put into the calendar and comes back by
//! [`Stream::happen`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use portolan_nat::sockets::host::{Failure, Ready};

use super::peer::{Answer, Closing, Peer, Reading};

/// How long the host tries to reach somebody who does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);

/// What comes about on a connection.
#[derive(Debug)]
pub(super) enum Happening {
    /// The connection is made, or is not.
    Answered,
    /// Bytes reach the program, and whether they are the last.
    AtPeer(Vec<u8>, bool),
    /// A reset reaches the program.
    ResetAtPeer,
    /// The program has read, or its pause is over.
    PeerWorks,
    /// The host learns that so many bytes have arrived.
    Acked(usize),
    /// The host learns that the program has room for so many more.
    PeerRoom(usize),
    /// Bytes reach the host, and whether they are the last.
    AtHost(Vec<u8>, bool),
    /// A reset reaches the host.
    ResetAtHost,
    /// The program learns that the host has room for so many more.
    HostRoom(usize),
}

/// What a step has set going: news and how long they take.
pub(super) type Later = Vec<(Duration, Happening)>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Opening,
    Open,
    Dead,
}

/// A connection.
#[derive(Debug)]
pub struct Stream {
    peer: Peer,
    /// The host's end.
    pub local: SocketAddr,
    /// The program's end.
    pub remote: SocketAddr,
    state: State,
    error: Option<Failure>,
    /// The host has given its socket up.
    closed: bool,
    wants_room: bool,
    send_limit: usize,
    unsent: VecDeque<u8>,
    unacked: usize,
    peer_room: usize,
    finish: bool,
    finish_sent: bool,
    received: VecDeque<u8>,
    host_room: usize,
    ended: bool,
    /// What the program has heard.
    pub heard: Vec<u8>,
    /// The program knows that it has heard all.
    pub heard_end: bool,
    /// The program was told of a reset, or that there is no connection.
    pub was_reset: bool,
    /// The program has reset the connection.
    pub did_reset: bool,
    /// What the program said: bytes that left it.
    pub said: usize,
    /// How many of them reached the host's socket.
    pub reached: usize,
    said_end: bool,
    inbox: VecDeque<u8>,
    inbox_end: bool,
    to_say: VecDeque<u8>,
    pausing: bool,
}

impl Stream {
    /// A connection that has begun, and is made or not when that [`Happening::Answered`].
    pub(super) fn begin(
        peer: Peer,
        (local, remote): (SocketAddr, SocketAddr),
        (send_limit, receive_limit): (usize, usize),
    ) -> Stream {
        Stream {
            to_say: peer.say.iter().copied().collect(),
            peer_room: peer.buffer,
            peer,
            local,
            remote,
            state: State::Opening,
            error: None,
            closed: false,
            wants_room: true,
            send_limit,
            unsent: VecDeque::new(),
            unacked: 0,
            finish: false,
            finish_sent: false,
            received: VecDeque::new(),
            host_room: receive_limit,
            ended: false,
            heard: Vec::new(),
            heard_end: false,
            was_reset: false,
            did_reset: false,
            said: 0,
            reached: 0,
            said_end: false,
            inbox: VecDeque::new(),
            inbox_end: false,
            pausing: false,
        }
    }

    /// How long until it is known whether the program takes the connection.
    pub(super) fn answers_after(&self) -> Duration {
        match self.peer.answer {
            Answer::Never => CONNECT_TIMEOUT,
            _ => self.peer.delay * 2 + self.peer.after,
        }
    }

    /// Whether the program's end is over: nothing more will be heard or said.
    pub fn is_over(&self) -> bool {
        self.was_reset || self.did_reset || (self.heard_end && self.said_end)
    }

    /// Whether the connection was made.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// How the socket stands, as poll(2) has it.
    pub(super) fn ready(&self) -> Ready {
        match self.state {
            State::Opening => Ready::default(),
            State::Dead => Ready { readable: true, writable: true, error: self.error.is_some() },
            State::Open => Ready {
                readable: !self.received.is_empty() || self.ended,
                writable: !self.finish && self.room() >= self.send_limit / 3,
                error: self.error.is_some(),
            },
        }
    }

    /// Bytes that may be sent, as if nothing went wrong.
    pub(super) fn room(&self) -> usize {
        self.send_limit.saturating_sub(self.unsent.len() + self.unacked)
    }

    /// The room, for whom asks; one who finds less than half of it is told when there is more.
    pub(super) fn ask_room(&mut self) -> (usize, usize) {
        self.wants_room |= self.room() < self.send_limit / 2;
        let room = if self.state == State::Dead || self.finish { 0 } else { self.room() };
        (room, self.send_limit)
    }

    /// What became of the connection.
    pub(super) fn connected(&mut self) -> Result<(), Failure> {
        match (self.error.take(), self.state) {
            (Some(error), _) => Err(error),
            (None, State::Opening) => Err(Failure::WouldBlock),
            (None, State::Open) => Ok(()),
            (None, State::Dead) => Err(Failure::Reset),
        }
    }

    /// Takes `bytes` as far as there is room.
    pub(super) fn send(&mut self, bytes: &[u8], later: &mut Later) -> Result<usize, Failure> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let room = match self.state {
            State::Opening => 0,
            State::Dead => return Err(Failure::Reset),
            State::Open if self.finish => return Err(Failure::Reset),
            State::Open => self.room(),
        };
        self.wants_room |= room < bytes.len();
        if room == 0 {
            return Err(Failure::WouldBlock);
        }
        let taken = room.min(bytes.len());
        self.unsent.extend(&bytes[..taken]);
        self.transmit(later);
        Ok(taken)
    }

    /// It will be told when there is room.
    pub(super) fn wait_for_room(&mut self) {
        self.wants_room = true;
    }

    pub(super) fn peek(&mut self, skip: usize, room: &mut [u8]) -> Result<usize, Failure> {
        let left = self.received.len().saturating_sub(skip);
        if left > 0 {
            let len = left.min(room.len());
            let bytes = self.received.range(skip..skip + len);
            room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            return Ok(len);
        }
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.ended || self.state == State::Dead { Ok(0) } else { Err(Failure::WouldBlock) }
    }

    pub(super) fn discard(&mut self, count: usize, later: &mut Later) -> Result<(), Failure> {
        assert!(count <= self.received.len(), "{count} of {} discarded", self.received.len());
        self.received.drain(..count);
        later.push((self.peer.delay, Happening::HostRoom(count)));
        Ok(())
    }

    pub(super) fn finish(&mut self, later: &mut Later) -> Result<(), Failure> {
        if self.state != State::Open {
            return Err(Failure::Other(107));
        }
        self.finish = true;
        self.transmit(later);
        Ok(())
    }

    /// The host gives the socket up. What it was given is still delivered, unless it leaves something unread.
    pub(super) fn close(&mut self, later: &mut Later) {
        if !self.received.is_empty() || self.state == State::Opening {
            return self.abort(later);
        }
        self.closed = true;
        if self.state == State::Open {
            self.finish = true;
            self.transmit(later);
        }
    }

    /// The host gives the socket up, and the connection with it.
    pub(super) fn abort(&mut self, later: &mut Later) {
        self.closed = true;
        self.die(None, later);
    }

    /// The connection ends at the host, and the program is told.
    pub(super) fn die(&mut self, error: Option<Failure>, later: &mut Later) {
        if self.state != State::Dead {
            later.push((self.peer.delay, Happening::ResetAtPeer));
        }
        self.state = State::Dead;
        self.error = error;
        self.unsent.clear();
    }

    fn transmit(&mut self, later: &mut Later) {
        if self.state != State::Open || self.finish_sent {
            return;
        }
        let len = self.unsent.len().min(self.peer_room);
        let bytes: Vec<u8> = self.unsent.drain(..len).collect();
        self.peer_room -= len;
        self.unacked += len;
        self.finish_sent = self.finish && self.unsent.is_empty();
        if len > 0 || self.finish_sent {
            later.push((self.peer.delay, Happening::AtPeer(bytes, self.finish_sent)));
        }
    }

    /// Something comes about; whether the host's socket has news.
    pub(super) fn happen(&mut self, what: Happening, later: &mut Later) -> bool {
        match what {
            Happening::Answered => return self.answered(later),
            Happening::AtPeer(bytes, end) => {
                if self.was_reset || self.did_reset {
                    return false;
                }
                later.push((self.peer.delay, Happening::Acked(bytes.len())));
                self.inbox.extend(bytes);
                self.inbox_end |= end;
                self.work(later);
            }
            Happening::ResetAtPeer => {
                self.was_reset = true;
                self.inbox.clear();
                self.to_say.clear();
            }
            Happening::PeerWorks => {
                self.pausing = false;
                self.work(later);
            }
            Happening::Acked(count) => {
                self.unacked -= count;
                return self.has_room();
            }
            Happening::PeerRoom(count) => {
                self.peer_room += count;
                self.transmit(later);
            }
            Happening::AtHost(bytes, end) => return self.arrived(&bytes, end, later),
            Happening::ResetAtHost => {
                if self.state == State::Dead {
                    return false;
                }
                self.state = State::Dead;
                self.error = Some(Failure::Reset);
                self.unsent.clear();
                return true;
            }
            Happening::HostRoom(count) => {
                self.host_room += count;
                self.work(later);
            }
        }
        false
    }

    fn has_room(&mut self) -> bool {
        let told = self.wants_room && self.ready().writable;
        self.wants_room &= !told;
        told
    }

    fn answered(&mut self, later: &mut Later) -> bool {
        if self.state != State::Opening {
            return false;
        }
        let error = match self.peer.answer {
            Answer::Accept => {
                self.state = State::Open;
                self.wants_room = false;
                self.work(later);
                return true;
            }
            Answer::Refuse => Failure::Refused,
            Answer::NetUnreachable => Failure::NetUnreachable,
            Answer::HostUnreachable => Failure::HostUnreachable,
            Answer::Never => Failure::TimedOut,
        };
        self.state = State::Dead;
        self.error = Some(error);
        self.was_reset = true;
        true
    }

    fn arrived(&mut self, bytes: &[u8], end: bool, later: &mut Later) -> bool {
        if self.state == State::Dead {
            return false;
        }
        if self.closed && !bytes.is_empty() {
            self.die(None, later);
            return false;
        }
        self.received.extend(bytes);
        self.reached += bytes.len();
        self.ended |= end;
        true
    }

    /// The program does what it can.
    fn work(&mut self, later: &mut Later) {
        if self.state == State::Opening || self.was_reset || self.did_reset {
            return;
        }
        self.read(later);
        if self.peer.resets_at.is_some_and(|at| self.heard.len() >= at) {
            self.did_reset = true;
            self.to_say.clear();
            later.push((self.peer.delay, Happening::ResetAtHost));
            return;
        }
        let len = self.to_say.len().min(self.host_room);
        if len > 0 {
            let bytes: Vec<u8> = self.to_say.drain(..len).collect();
            self.host_room -= len;
            self.said += len;
            // In pieces, as a network brings them.
            for piece in bytes.chunks(16_384) {
                later.push((self.peer.delay, Happening::AtHost(piece.to_vec(), false)));
            }
        }
        let closes = match self.peer.closing {
            Closing::WhenSaid => !self.peer.echoes || self.heard_end,
            Closing::AfterTheOther => self.heard_end,
            Closing::Never => false,
        };
        if closes && self.to_say.is_empty() && !self.said_end {
            self.said_end = true;
            later.push((self.peer.delay, Happening::AtHost(Vec::new(), true)));
        }
    }

    fn read(&mut self, later: &mut Later) {
        let bytes = match self.peer.reading {
            Reading::AtOnce => usize::MAX,
            Reading::Slowly { .. } if self.pausing => 0,
            Reading::Slowly { bytes, every } => {
                if !self.inbox.is_empty() {
                    self.pausing = true;
                    later.push((every, Happening::PeerWorks));
                }
                bytes
            }
        };
        let len = bytes.min(self.inbox.len());
        let before = self.heard.len();
        self.heard.extend(self.inbox.drain(..len));
        if self.peer.echoes {
            self.to_say.extend(&self.heard[before..]);
        }
        if len > 0 {
            later.push((self.peer.delay, Happening::PeerRoom(len)));
        }
        self.heard_end |= self.inbox_end && self.inbox.is_empty();
    }
}
