//! Clients of DHCP, many behind one port, as a guest's bridge has them: scripted, so that there can be hundreds, and that
//! they may do what a stack's own client never does.
//!
//! Each walks RFC 2131's diagram of states, or RFC 8415's: it asks, takes an offer, renews at T1, rebinds at T2, gives up when its
//! lease has run out, and asks again for what is lost, waiting longer each time. It answers for its address, as its host would,
//! once it has one. What the two families differ in is in `v4` and `v6`.

mod v4;
mod v6;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use portolan_switch::command::NetworkSpec;
use portolan_switch::ids::{MacAddr, PortId, Time};
use rand::RngExt;

use crate::coalesce::coalesce;
use crate::packet::{Packet, check};
use crate::world::World;

/// How long the first answer is waited for; each time twice as long, up to [`WAIT_MAX`].
const WAIT: Duration = Duration::from_secs(2);
/// As above.
const WAIT_MAX: Duration = Duration::from_secs(16);

/// How often a lease is asked for before the client begins anew.
const TRIES: u32 = 4;

/// Between two messages of one that renews or rebinds.
const AGAIN: Duration = Duration::from_secs(15);

/// Which protocol clients speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// DHCPv4.
    V4,
    /// DHCPv6, with one association each.
    V6,
}

/// Where a client stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It asks who would serve it.
    Looking,
    /// It asks for what it was offered.
    Asking,
    /// It has an address.
    Bound,
    /// It asks its server to prolong.
    Renewing,
    /// It asks anybody to prolong.
    Rebinding,
    /// It wants nothing.
    Idle,
}

/// What an answer says.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Said {
    /// This is offered, by that server.
    Offer(IpAddr, Vec<u8>),
    /// This is lent: until T1, T2 and the end.
    Lent(IpAddr, [Duration; 3]),
    /// Nothing can be had, or not that.
    Refused,
}

/// One client.
#[derive(Clone, Debug)]
pub struct Client {
    /// Behind which port.
    pub port: PortId,
    /// Its hardware address.
    pub mac: MacAddr,
    /// What it calls itself, for DNS.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// The address that it was offered, or has.
    pub address: Option<IpAddr>,
    /// How often its lease was prolonged by the server that gave it, and by any.
    pub renewed: [u32; 2],
    server: Vec<u8>,
    times: [Time; 3],
    next: Time,
    tries: u32,
    xid: u32,
}

impl Client {
    /// Whether it may use its address.
    pub fn holds(&self) -> Option<IpAddr> {
        let holds = matches!(self.state, State::Bound | State::Renewing | State::Rebinding);
        self.address.filter(|_| holds)
    }
}

/// All clients of one family on one network.
pub struct Clients {
    family: Family,
    network: NetworkSpec,
    /// Each of them.
    pub all: Vec<Client>,
    by_mac: BTreeMap<MacAddr, usize>,
    /// Who has which address.
    held: BTreeMap<IpAddr, usize>,
    xids: u32,
    /// How often each address can still be asked for without an answer of its holder.
    missed: BTreeMap<IpAddr, u32>,
    /// Whether what they send at once is joined, as by a card that offloads.
    coalesces: BTreeSet<PortId>,
}

impl Clients {
    /// Nobody yet, on that network.
    pub fn new(family: Family, network: NetworkSpec) -> Clients {
        Clients {
            family,
            network,
            all: Vec::new(),
            by_mac: BTreeMap::new(),
            held: BTreeMap::new(),
            missed: BTreeMap::new(),
            xids: 0,
            coalesces: BTreeSet::new(),
        }
    }

    /// One more, who begins at `next`.
    pub fn add(&mut self, port: PortId, mac: MacAddr, next: Time) {
        let name = format!("guest{}", self.all.len());
        self.by_mac.insert(mac, self.all.len());
        self.all.push(Client {
            port,
            mac,
            name,
            state: State::Looking,
            address: None,
            renewed: [0; 2],
            server: Vec::new(),
            times: [Time::ZERO; 3],
            next,
            tries: 0,
            xid: 0,
        });
    }

    /// All behind a port leave as by a card that offloads.
    pub fn offload(&mut self, port: PortId) {
        self.coalesces.insert(port);
    }

    /// Whoever has an address does not hear the next `questions` for it.
    pub fn miss(&mut self, questions: u32) {
        self.missed = self.held.keys().map(|address| (*address, questions)).collect();
    }

    /// How many of those questions it can still miss.
    pub fn unheard(&self, address: IpAddr) -> u32 {
        self.missed.get(&address).copied().unwrap_or(0)
    }

    /// How many have an address.
    pub fn holding(&self) -> usize {
        self.held.len()
    }

    /// Gives an address back, without waiting for an answer.
    pub fn release(&mut self, world: &mut World, at: usize) {
        let message = self.message(at, true);
        let client = &mut self.all[at];
        if let Some(address) = client.holds() {
            self.held.remove(&address);
            client.state = State::Idle;
            let port = client.port;
            world.send_by_wire(port, message);
        }
    }

    /// Lets time pass for all of them.
    pub fn run_for(&mut self, world: &mut World, span: Duration) {
        let until = world.now() + span;
        loop {
            self.speak(world);
            let next = self.all.iter().filter(|client| client.state != State::Idle);
            let next = next.map(|client| client.next).min().unwrap_or(until).min(until);
            if !world.step(next) {
                let left = next.since(world.now());
                world.run_for(left);
                if next == until {
                    break;
                }
            }
            self.listen(world);
        }
    }

    /// Whoever is due says what it has to.
    fn speak(&mut self, world: &mut World) {
        let now = world.now();
        let mut said: BTreeMap<PortId, Vec<Vec<u8>>> = BTreeMap::new();
        for at in 0..self.all.len() {
            if self.all[at].next > now || self.all[at].state == State::Idle {
                continue;
            }
            self.advance(at, now);
            self.xids += 1;
            let spread = Duration::from_millis(world.random().random_range(0..500));
            let client = &mut self.all[at];
            client.xid = self.xids;
            client.tries += 1;
            let wait = match client.state {
                State::Renewing => AGAIN.min(client.times[1].since(now)),
                State::Rebinding => AGAIN.min(client.times[2].since(now)),
                _ => (WAIT * 2u32.pow(client.tries.min(4) - 1)).min(WAIT_MAX) + spread,
            };
            client.next = now + wait.max(Duration::from_millis(1));
            said.entry(client.port).or_default().push(self.message(at, false));
        }
        for (port, frames) in said {
            let packets = if self.coalesces.contains(&port) {
                coalesce(frames)
            } else {
                frames.into_iter().map(Packet::from).collect()
            };
            packets.into_iter().for_each(|packet| world.send_by_wire(port, packet));
        }
    }

    /// What time alone does to a client.
    fn advance(&mut self, at: usize, now: Time) {
        let client = &mut self.all[at];
        let [t1, t2, end] = client.times;
        let before = client.state;
        match client.state {
            State::Bound | State::Renewing | State::Rebinding if now >= end => {
                self.held.remove(&client.address.take().expect("it holds one"));
                client.state = State::Looking;
            }
            State::Bound | State::Renewing if now >= t2 => client.state = State::Rebinding,
            State::Bound if now >= t1 => client.state = State::Renewing,
            State::Asking if client.tries >= TRIES => {
                client.state = State::Looking;
                client.address = None;
            }
            _ => {}
        }
        if client.state != before {
            client.tries = 0;
        }
    }

    /// What has come to all ports is taken by whom it is for.
    fn listen(&mut self, world: &mut World) {
        let ports: BTreeSet<PortId> = self.all.iter().map(|client| client.port).collect();
        for port in ports {
            for packet in world.received(port) {
                for frame in packet.plain_frames() {
                    self.hear(world, port, &frame);
                }
            }
        }
    }

    fn hear(&mut self, world: &mut World, port: PortId, frame: &[u8]) {
        let asked = match self.family {
            Family::V4 => v4::asked_for(frame),
            Family::V6 => v6::asked_for(frame),
        };
        if let Some(at) = asked.and_then(|address| self.held.get(&address).copied()) {
            let (client, gateway) = (&self.all[at], &self.network);
            // Whoever asks for its own is no question.
            if client.port == port && frame[6..12] == gateway.mac.0 {
                if let Some(left @ 1..) = self.missed.get_mut(&client.address.expect("it is held"))
                {
                    *left -= 1;
                    return;
                }
                let answer = match self.family {
                    Family::V4 => v4::answer(client, frame),
                    Family::V6 => v6::answer(client, frame),
                };
                world.send_by_wire(port, answer);
            }
            return;
        }
        let read = match self.family {
            Family::V4 => v4::read(frame),
            Family::V6 => v6::read(frame),
        };
        let Some((mac, xid, said)) = read else { return };
        let Some(&at) = self.by_mac.get(&mac).filter(|at| self.all[**at].port == port) else {
            return;
        };
        assert_eq!(check(frame), Ok(()));
        if self.all[at].xid == xid {
            self.take(world, at, said);
        }
    }

    fn take(&mut self, world: &mut World, at: usize, said: Said) {
        let now = world.now();
        let client = &mut self.all[at];
        let renews = match client.state {
            State::Renewing => Some(0),
            State::Rebinding => Some(1),
            _ => None,
        };
        match (said, client.state) {
            (Said::Offer(address, server), State::Looking) => {
                (client.address, client.server) = (Some(address), server);
                (client.state, client.tries, client.next) = (State::Asking, 0, now);
            }
            (
                Said::Lent(address, [t1, t2, end]),
                State::Asking | State::Renewing | State::Rebinding,
            ) => {
                assert_eq!(
                    client.address,
                    Some(address),
                    "{}: another than was asked for",
                    client.name
                );
                assert!(t1 < t2 && t2 < end, "{t1:?} {t2:?} {end:?}");
                client.times = [now + t1, now + t2, now + end];
                (client.state, client.tries, client.next) = (State::Bound, 0, now + t1);
                if let Some(which) = renews {
                    client.renewed[which] += 1;
                }
                let other = self.held.insert(address, at);
                assert!(other.is_none_or(|other| other == at), "{address} is lent twice");
            }
            (Said::Refused, State::Asking | State::Renewing | State::Rebinding) => {
                let address = client.address.take().expect("it asked for one");
                if self.held.get(&address) == Some(&at) {
                    self.held.remove(&address);
                }
                (client.state, client.tries, client.next) = (State::Looking, 0, now + WAIT);
            }
            _ => {}
        }
    }

    fn message(&self, at: usize, gives_back: bool) -> Vec<u8> {
        match self.family {
            Family::V4 => v4::message(&self.all[at], &self.network, gives_back),
            Family::V6 => v6::message(&self.all[at], &self.network, gives_back),
        }
    }
}
