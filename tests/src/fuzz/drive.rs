//! A datapath that scripts drive: one turn at a time, and time that jumps from one thing that is due to the next.

use std::time::Duration;

use portolan_nat::sockets::host::{Ready, SocketId};
use portolan_switch::datapath::Datapath;
use portolan_switch::frame::{Frame, FrameTable, HEADROOM, Offload, VlanTag};
use portolan_switch::ids::{PortId, Time};
use portolan_switch::outbox::Outbox;
use portolan_switch::turn::Turn;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::host::{Peer, SimHost};

/// Rounds within one instant, and instants of one wait: beyond them nothing new is learned.
const ROUNDS_MAX: usize = 50;
const ARENA: usize = 1 << 18;

/// Who looks at what each turn brings about.
pub(super) trait Watch {
    /// Called after every turn, with all that is to be sent.
    fn look(&mut self, datapath: &mut Datapath, out: &Outbox, frames: &FrameTable<'_>, now: Time);
}

/// What comes with a frame.
#[derive(Default)]
pub(super) struct Shape {
    pub offload: Offload,
    pub beside: Option<VlanTag>,
}

/// A switch, its host with an outside where anybody echoes, and a clock.
pub(super) struct Drive<W> {
    pub datapath: Datapath,
    pub host: SimHost,
    pub now: Time,
    pub watch: W,
    random: ChaCha8Rng,
    again: Vec<(SocketId, Ready)>,
}

impl<W: Watch> Drive<W> {
    pub fn new(datapath: Datapath, watch: W) -> Drive<W> {
        let mut host = SimHost::new(1);
        host.loopback = true;
        host.anybody = Some(Peer::echo());
        let random = ChaCha8Rng::seed_from_u64(1);
        Drive { datapath, host, now: Time::ZERO, watch, random, again: Vec::new() }
    }

    /// A frame of a port, and all that follows from it at once.
    pub fn frame(&mut self, port: PortId, bytes: &[u8], shape: &Shape) {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend(bytes);
        let mut frame = Frame::new(&mut buffer, HEADROOM, bytes.len());
        frame.offload = shape.offload;
        frame.vlan = shape.beside;
        self.turn(Some(frame), |datapath, turn, now| {
            datapath.handle_batch(port, turn, now);
        });
        self.settle();
    }

    /// One turn, with a frame or without.
    fn turn<R>(
        &mut self,
        frame: Option<Frame<'_>>,
        step: impl FnOnce(&mut Datapath, &mut Turn<'_, '_>, Time) -> R,
    ) -> R {
        let mut arena = vec![0xa5; ARENA];
        let mut table = FrameTable::new(&mut arena);
        if let Some(frame) = frame {
            table.push(frame);
        }
        let mut outbox = Outbox::default();
        let (host, random) = (&mut self.host, &mut self.random);
        let mut turn = Turn { frames: &mut table, outbox: &mut outbox, host, random };
        let result = step(&mut self.datapath, &mut turn, self.now);
        self.watch.look(&mut self.datapath, &outbox, &table, self.now);
        assert!(self.datapath.totals().balanced(), "{:?}", self.datapath.totals());
        result
    }

    /// Lets sockets and timers have their say until nothing more is due now.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.host.advance(self.now);
            let mut news = std::mem::take(&mut self.again);
            news.extend(self.host.ready());
            let is_due = self.datapath.poll_timeout().is_some_and(|due| due <= self.now);
            if news.is_empty() && !is_due {
                return;
            }
            for (socket, ready) in news {
                let more = self.turn(None, |datapath, turn, now| {
                    datapath.handle_socket(socket, ready, turn, now)
                });
                if more {
                    self.again.push((socket, ready));
                }
            }
            if is_due {
                self.turn(None, |datapath, turn, now| datapath.handle_timeout(turn, now));
            }
        }
    }

    /// Lets time pass. What becomes due on the way becomes due then.
    pub fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..ROUNDS_MAX {
            let due = [self.datapath.poll_timeout(), self.host.next_due()];
            match due.into_iter().flatten().min().filter(|due| *due < end) {
                Some(due) => self.now = self.now.max(due),
                None => break,
            }
            self.settle();
        }
        self.now = end;
        self.settle();
    }
}
