//! Who on a network has which address, as the gateway needs to know to reach somebody unasked.
//!
//! Theory of operation. An endpoint's addresses are known before its wire moves, so nobody is ever asked: each leads to its port
//! and hardware address. On a network without guard there may be more behind a port than its endpoint; whoever sends something
//! to be routed from there is learned, and remembered until others of the same port have pushed it out, which they may once it
//! has been silent for a while. An endpoint's own address is never learned for anybody else.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::ids::{MacAddr, PortId, Time};

/// Learned addresses that a port may have: a few machines behind one wire.
pub const LEARNED_PORT_MAX: usize = 64;

/// Learned addresses that a network may have, as many as it has stations ([`crate::fdb::CAPACITY`]).
pub const LEARNED_MAX: usize = crate::fdb::CAPACITY;

/// How long a learned address must have been silent to give way. With an address its flows go, which costs a look at all there are:
/// a guest that invents addresses shall not have that done for each of its packets.
pub const LEARNED_IDLE: Duration = Duration::from_secs(10);

/// Where an address is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbor {
    /// Behind this port.
    pub port: PortId,
    /// With this hardware address.
    pub mac: MacAddr,
}

/// What came of learning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learning {
    /// The address leads there now.
    Known,
    /// As [`Learning::Known`], and this other address of the same port had to be forgotten for it.
    Instead(IpAddr),
    /// The address is another endpoint's own, or there is no room.
    Refused,
}

#[derive(Clone, Debug)]
struct Entry {
    at: Neighbor,
    /// When it was last learned; none of an endpoint's own address.
    used: Option<Time>,
}

/// One port's addresses.
#[derive(Clone, Debug)]
struct Home {
    mac: MacAddr,
    own: Vec<IpAddr>,
    learned: Vec<IpAddr>,
}

/// The neighbors of one network's gateway.
#[derive(Clone, Debug)]
pub struct Neighbors {
    homes: BTreeMap<PortId, Home>,
    entries: HashMap<IpAddr, Entry, FixedState>,
    learned: usize,
}

impl Neighbors {
    /// Without any. The seed keys the table, so that guests cannot aim at it.
    pub fn new(seed: u64) -> Neighbors {
        Neighbors {
            homes: BTreeMap::new(),
            entries: HashMap::with_hasher(FixedState::with_seed(seed)),
            learned: 0,
        }
    }

    /// An endpoint comes with its addresses; with one of IPv6 it has the link-local one of `mac` too. What was learned of them
    /// before no longer holds.
    pub fn attach(&mut self, port: PortId, mac: MacAddr, addresses: &[IpAddr]) {
        let link_local = addresses.iter().any(IpAddr::is_ipv6).then(|| mac.link_local().into());
        let own: Vec<IpAddr> = addresses.iter().copied().chain(link_local).collect();
        for address in &own {
            self.unlearn(*address);
            self.entries.insert(*address, Entry { at: Neighbor { port, mac }, used: None });
        }
        self.homes.insert(port, Home { mac, own, learned: Vec::new() });
    }

    /// An endpoint goes: all addresses that lead there no longer. One that two endpoints share leads to the one that is left.
    pub fn detach(&mut self, port: PortId) -> Vec<IpAddr> {
        let Some(home) = self.homes.remove(&port) else { return Vec::new() };
        self.learned -= home.learned.len();
        let mut gone = [home.own, home.learned].concat();
        gone.retain(|address| self.entries.get(address).is_some_and(|entry| entry.at.port == port));
        for address in &gone {
            self.entries.remove(address);
            let left = self.homes.iter().find(|(_, home)| home.own.contains(address));
            if let Some((port, home)) = left {
                let at = Neighbor { port: *port, mac: home.mac };
                self.entries.insert(*address, Entry { at, used: None });
            }
        }
        gone
    }

    /// Where `address` is found.
    pub fn get(&self, address: IpAddr) -> Option<Neighbor> {
        self.entries.get(&address).map(|entry| entry.at)
    }

    /// Somebody at `port`, which is attached, has sent from `address`.
    pub fn learn(&mut self, address: IpAddr, port: PortId, mac: MacAddr, now: Time) -> Learning {
        let at = Neighbor { port, mac };
        if let Some(entry) = self.entries.get_mut(&address) {
            if entry.at.port == port {
                entry.at = at;
                entry.used = entry.used.map(|_| now);
                return Learning::Known;
            }
            if entry.used.is_none() {
                return Learning::Refused;
            }
            self.unlearn(address);
        }
        let Some(home) = self.homes.get(&port) else { return Learning::Refused };
        let full = home.learned.len() >= LEARNED_PORT_MAX || self.learned >= LEARNED_MAX;
        let used = |address: &IpAddr| self.entries.get(address).and_then(|entry| entry.used);
        let oldest = home.learned.iter().copied().min_by_key(used).filter(|address| {
            full && used(address).is_none_or(|used| now.since(used) >= LEARNED_IDLE)
        });
        match oldest {
            Some(oldest) => self.unlearn(oldest),
            None if full => return Learning::Refused,
            None => {}
        }
        if let Some(home) = self.homes.get_mut(&port) {
            home.learned.push(address);
            self.learned += 1;
            self.entries.insert(address, Entry { at, used: Some(now) });
        }
        oldest.map_or(Learning::Known, Learning::Instead)
    }

    /// A learned address leads to that port no longer. False where it did not.
    pub fn forget(&mut self, address: IpAddr, port: PortId) -> bool {
        let entry = self.entries.get(&address);
        let leads = entry.is_some_and(|entry| entry.at.port == port && entry.used.is_some());
        if leads {
            self.unlearn(address);
        }
        leads
    }

    /// Forgets a learned address.
    fn unlearn(&mut self, address: IpAddr) {
        let Some(entry) = self.entries.get(&address).filter(|entry| entry.used.is_some()) else {
            return;
        };
        if let Some(home) = self.homes.get_mut(&entry.at.port) {
            home.learned.retain(|learned| *learned != address);
        }
        self.learned -= 1;
        self.entries.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::testbed::{mac, v4};

    fn ip(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0xc0a8_0000 + number).into()
    }

    fn at(port: u32) -> Option<Neighbor> {
        Some(Neighbor { port: PortId(port), mac: mac(port) })
    }

    fn with_ports(ports: u32) -> Neighbors {
        let mut neighbors = Neighbors::new(7);
        (1..=ports).for_each(|port| neighbors.attach(PortId(port), mac(port), &[v4(port).into()]));
        neighbors
    }

    #[test]
    fn an_endpoints_address_leads_to_it_until_it_goes() {
        let mut neighbors = with_ports(2);
        assert_eq!(neighbors.get(v4(1).into()), at(1));
        assert_eq!(neighbors.get(v4(9).into()), None);
        assert_eq!(neighbors.detach(PortId(1)), [IpAddr::from(v4(1))]);
        assert_eq!(neighbors.get(v4(1).into()), None);
        assert_eq!(neighbors.get(v4(2).into()), at(2));
        assert!(neighbors.detach(PortId(1)).is_empty());
    }

    #[test]
    fn a_shared_address_leads_to_the_endpoint_that_is_left() {
        let mut neighbors = with_ports(1);
        neighbors.attach(PortId(2), mac(2), &[v4(1).into()]);
        assert_eq!(neighbors.get(v4(1).into()), at(2));
        neighbors.detach(PortId(2));
        assert_eq!(neighbors.get(v4(1).into()), at(1));
    }

    #[test]
    fn an_endpoints_own_address_is_learned_for_nobody_else() {
        let mut neighbors = with_ports(2);
        let learned = neighbors.learn(v4(1).into(), PortId(2), mac(2), Time(1));
        assert_eq!(learned, Learning::Refused);
        assert_eq!(neighbors.get(v4(1).into()), at(1));
        neighbors.learn(v4(1).into(), PortId(1), mac(9), Time(1));
        let moved = Some(Neighbor { port: PortId(1), mac: mac(9) });
        assert_eq!(neighbors.get(v4(1).into()), moved, "behind its own port it may move");
    }

    #[test]
    fn a_learned_address_moves_and_goes_with_its_port() {
        let mut neighbors = with_ports(2);
        neighbors.learn(ip(1), PortId(1), mac(1), Time(1));
        neighbors.learn(ip(1), PortId(2), mac(2), Time(2));
        assert_eq!(neighbors.get(ip(1)), at(2));
        assert_eq!(neighbors.detach(PortId(1)), [IpAddr::from(v4(1))]);
        assert_eq!(neighbors.detach(PortId(2)), [IpAddr::from(v4(2)), ip(1)]);
        assert_eq!((neighbors.learned, neighbors.entries.len()), (0, 0));
    }

    #[test]
    fn a_port_that_has_learned_all_it_may_forgets_what_was_used_least() {
        let mut neighbors = with_ports(2);
        for number in 0..64 {
            let learned = neighbors.learn(ip(number), PortId(1), mac(1), Time(number.into()));
            assert_eq!(learned, Learning::Known);
        }
        neighbors.learn(ip(0), PortId(1), mac(1), Time(100));
        let learned = neighbors.learn(ip(64), PortId(1), mac(1), Time(101));
        assert_eq!(learned, Learning::Refused, "all have just been used");
        let later = Time(1) + LEARNED_IDLE;
        let learned = neighbors.learn(ip(64), PortId(1), mac(1), later);
        assert_eq!(learned, Learning::Instead(ip(1)));
        assert_eq!(neighbors.learn(ip(65), PortId(1), mac(1), later), Learning::Refused);
        assert_eq!((neighbors.get(ip(1)), neighbors.get(ip(0))), (None, at(1)));
        assert_eq!(neighbors.learn(ip(1), PortId(2), mac(2), later), Learning::Known);
        assert_eq!(neighbors.learned, 65);
    }

    #[test]
    fn an_endpoint_that_comes_takes_its_address_from_whoever_was_learned() {
        let mut neighbors = with_ports(1);
        neighbors.learn(v4(2).into(), PortId(1), mac(1), Time(1));
        neighbors.attach(PortId(2), mac(2), &[v4(2).into()]);
        assert_eq!(neighbors.get(v4(2).into()), at(2));
        assert_eq!((neighbors.learned, neighbors.homes[&PortId(1)].learned.len()), (0, 0));
    }
}
