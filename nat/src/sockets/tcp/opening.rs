//! How connections come to be.
//!
//! The inside's SYN is answered when the host's connection is made, and refused as that was refused; until then it hears
//! nothing and asks again. Whoever came in by a published port is connected already when the inside is asked.

use std::time::Duration;

use crate::icmp_error::{Error, Reason};
use crate::inside::{Call, Made};
use crate::packet::protocol;
use crate::sockets::Desk;
use crate::sockets::host::{Failure, Host, Ready};
use crate::write::Header;

use super::flow::{Fate, Flow, SCALE, State, Wait};
use super::inward::{More, PACKET_MAX, REPEATS};
use super::segment::{HEADER_LEN, Key, Options, Reply, Segment, flag, headers_len, reset_for};
use super::sequence::Seq;

/// How long a SYN of ours waits for its answer at first; each time twice as long.
const SYN_WAIT: Duration = Duration::from_secs(1);

/// How long where the turn had no room for it.
const SOON: Duration = Duration::from_millis(1);

/// How often it is sent again.
const SYN_TRIES: u8 = 5;

/// Payload of a segment where the other end says nothing about it (RFC 9293, section 3.7.1).
const MSS_DEFAULT_V4: u16 = 536;
const MSS_DEFAULT_V6: u16 = 1220;

/// The least payload that segments are cut to, whatever somebody asks for (Linux: TCP_MIN_SND_MSS less the options).
const MSS_MIN: u16 = 8;

/// The least packet that a complaint about its size may ask for (Linux: min_pmtu; RFC 8200, section 5).
const PACKET_MIN_V4: usize = 552;
const PACKET_MIN_V6: usize = 1280;

impl Flow {
    /// Takes what the inside's SYN says. `mtu` is that of the network.
    pub(super) fn take_syn(&mut self, segment: &Segment, mtu: usize) {
        self.expected = segment.seq + 1;
        self.edge = self.expected;
        self.promised = self.expected;
        self.farthest = self.expected;
        self.scale = segment.scale;
        self.selective = segment.permits;
        self.announced = self.mss_of(mtu);
        let ipv4 = self.key.inside.is_ipv4();
        let asked = segment.mss.unwrap_or(if ipv4 { MSS_DEFAULT_V4 } else { MSS_DEFAULT_V6 });
        self.mss = asked.clamp(MSS_MIN, self.announced.max(MSS_MIN));
        self.take_window(segment);
    }

    /// The payload of a segment that fits a packet of `mtu` bytes, and any that is made.
    fn mss_of(&self, mtu: usize) -> u16 {
        let room = mtu.min(PACKET_MAX).saturating_sub(headers_len(self.key.inside.ip()));
        u16::try_from(room).unwrap_or(u16::MAX).max(MSS_MIN)
    }

    /// Sends our SYN to the inside.
    pub(super) fn ask_to_open(&mut self, mtu: usize, call: &mut Call<'_>) {
        self.announced = self.mss_of(mtu);
        let window = self.first_window(call.host);
        // Where that ends is known when the inside has said where it begins.
        self.edge = self.expected + u32::from(window);
        let reply = Reply {
            seq: self.una,
            ack: Seq(0),
            flags: flag::SYN,
            window,
            options: Options::Syn(self.announced, Some(SCALE), true),
        };
        self.say_syn(&reply, call);
    }

    /// Answers the inside's SYN.
    pub(super) fn answer(&mut self, desk: &mut Desk<'_, '_>) {
        let call = &mut *desk.call;
        let window = self.first_window(call.host);
        // Windows of SYNs are not scaled.
        self.edge = self.edge.max(self.expected + u32::from(window));
        let reply = Reply {
            seq: self.una,
            ack: self.expected,
            flags: flag::SYN | flag::ACK,
            window,
            options: Options::Syn(self.announced, self.scale.map(|_| SCALE), self.selective),
        };
        self.say_syn(&reply, call);
    }

    /// The window of a SYN, which is never scaled.
    fn first_window(&mut self, host: &mut dyn Host) -> u16 {
        let room = self.socket.map_or(0, |socket| self.ask_room(socket, host).bytes);
        let most = self.frames_window().min(u32::from(u16::MAX));
        room.min(most as usize) as u16
    }

    /// Sends a SYN, the first time or again.
    fn say_syn(&mut self, reply: &Reply, call: &mut Call<'_>) {
        self.next = self.una + 1;
        self.high = self.next;
        if self.send(reply, call) == Made::NoRoom {
            self.tries = self.tries.saturating_sub(1);
            self.wait_for(Wait::Acknowledgement, call.now, SOON);
            return;
        }
        if self.tries == 0 && self.wait.is_none() {
            self.round_trip.sent(self.next, call.now);
        } else {
            self.round_trip.confuse();
        }
        let span = SYN_WAIT.saturating_mul(1 << self.tries.min(SYN_TRIES));
        self.wait_for(Wait::Acknowledgement, call.now, span);
    }

    /// A SYN of ours was not acknowledged in time.
    pub(super) fn syn_again(&mut self, desk: &mut Desk<'_, '_>) -> Fate {
        let mtu = desk.call.inside.mtu(self.key.zone);
        let Some(mtu) = mtu.filter(|_| self.tries < SYN_TRIES) else { return self.abort(desk) };
        self.tries += 1;
        if self.state == State::Asked {
            self.ask_to_open(mtu, desk.call);
        } else {
            self.answer(desk);
        }
        Fate::Lives
    }

    /// Our SYN was acknowledged, and the inside's is known.
    pub(super) fn establish(&mut self, segment: &Segment, desk: &Desk<'_, '_>) {
        self.state = State::Open;
        self.una = self.next;
        self.round_trip.acknowledged(self.una, desk.call.now);
        self.tries = 0;
        self.waits = 0;
        self.wait = None;
        // Whatever came meanwhile was told once, and not again.
        self.may_read = true;
        self.take_window(segment);
    }

    /// Takes a segment of a connection that we have asked the inside for (RFC 9293, section 3.10.7.3).
    pub(super) fn receive_asked(&mut self, segment: &Segment, desk: &mut Desk<'_, '_>) -> Fate {
        let acknowledges = segment.has(flag::ACK) && segment.ack == self.next;
        if segment.has(flag::ACK) && !acknowledges {
            if let Some(reset) = reset_for(segment) {
                self.send(&reset, desk.call);
            }
            return Fate::Lives;
        }
        if segment.has(flag::RST) {
            return if acknowledges { self.reset_outside(desk) } else { Fate::Lives };
        }
        if !segment.has(flag::SYN) {
            return Fate::Lives;
        }
        let mtu = desk.call.inside.mtu(self.key.zone).unwrap_or_default();
        let told = self.edge.beyond(self.expected);
        self.hear(desk.call.now);
        self.take_syn(segment, mtu);
        self.edge = self.expected + told;
        if acknowledges {
            self.establish(segment, desk);
            self.owed = true;
        } else {
            // Both have asked at once.
            self.state = State::Answered;
            self.answer(desk);
        }
        Fate::Lives
    }

    /// Something has changed about the socket: whether more is to be done for it in another turn.
    pub(super) fn ready(&mut self, ready: Ready, desk: &mut Desk<'_, '_>) -> (Fate, bool) {
        let Some(socket) = self.socket else { return (Fate::Lives, false) };
        if self.state == State::Connecting {
            return (self.connecting(desk), false);
        }
        self.may_read |= ready.readable;
        if ready.error && !self.failed {
            match desk.call.host.connected(socket) {
                Ok(()) | Err(Failure::WouldBlock) => {}
                Err(_) => self.fail(),
            }
        }
        if ready.writable && self.narrow && self.state == State::Open && !self.finished {
            let before = self.edge;
            self.fresh_window(false, desk.call);
            if self.edge.behind(before) {
                self.owed = true;
                if self.missing() > 0 {
                    // This asks for it.
                    self.owed_again = REPEATS;
                }
                self.say_owed(desk);
            }
        }
        match self.pump(desk) {
            More::Over => (Fate::Over, false),
            more => (Fate::Lives, more == More::Yes),
        }
    }

    /// Asks the host what became of the connection that it began, and tells the inside.
    fn connecting(&mut self, desk: &mut Desk<'_, '_>) -> Fate {
        let Some(socket) = self.socket else { return Fate::Lives };
        match desk.call.host.connected(socket) {
            Err(Failure::WouldBlock) => {}
            Ok(()) => {
                self.state = State::Answered;
                self.answer(desk);
            }
            Err(failure) => {
                self.close(desk);
                self.refuse_opening(failure, desk.call);
                return Fate::Over;
            }
        }
        Fate::Lives
    }

    /// Tells the inside why there is no connection: as whoever it asked would have done.
    pub(super) fn refuse_opening(&mut self, failure: Failure, call: &mut Call<'_>) {
        let reason = match failure {
            Failure::Refused | Failure::Reset => None,
            Failure::NetUnreachable | Failure::Unsupported => Some(Reason::Net),
            Failure::Forbidden => Some(Reason::Prohibited),
            _ => Some(Reason::Host),
        };
        let error = reason.and_then(|reason| {
            let gateway = call.inside.gateway(self.key.zone, self.key.inside.ip())?;
            complaint(&self.key, self.expected - 1, gateway, reason)
        });
        match error {
            Some(error) => {
                let made = error.send(self.key.zone, call.inside);
                super::flow::count_loss(&self.key, made, call);
            }
            None => {
                self.reset_inside(call);
            }
        }
    }

    /// Packets of ours to the inside must not be larger than `mtu` bytes. Whether they were.
    pub(super) fn shrink(&mut self, mtu: usize) -> bool {
        let least = if self.key.inside.is_ipv4() { PACKET_MIN_V4 } else { PACKET_MIN_V6 };
        let mss = self.mss_of(mtu.max(least));
        let smaller = mss < self.mss;
        if smaller {
            self.mss = mss;
        }
        smaller
    }
}

/// An error about the inside's SYN, of which what is needed is known.
fn complaint(key: &Key, seq: Seq, from: std::net::IpAddr, reason: Reason) -> Option<Error> {
    let header = Header::new(key.inside.ip(), key.outside.ip(), protocol::TCP);
    let mut syn = [0; HEADER_LEN];
    syn[..2].copy_from_slice(&key.inside.port().to_be_bytes());
    syn[2..4].copy_from_slice(&key.outside.port().to_be_bytes());
    syn[4..8].copy_from_slice(&seq.0.to_be_bytes());
    syn[12] = (HEADER_LEN * 4) as u8;
    syn[13] = flag::SYN;
    Error::quoting(&header, &[&syn], from, reason)
}
