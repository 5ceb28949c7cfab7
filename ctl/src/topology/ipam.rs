//! Which addresses are taken, and which comes next.
//!
//! Dynamic addresses are given lowest free first, so that a network fills up without holes and its taken addresses are a
//! few intervals. That is how they are held: finding the lowest free one of a /64 is one look into a tree. Ranges that are
//! kept for strangers are passed over as a whole, and so are the addresses that strangers have leased at the moment, which the
//! dataplane knows and its asker tells; neither is taken, for they are nobody's for good.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_switch::ids::MacAddr;
use rand::Rng;

use super::model::{Endpoint, Network, Subnet};
use super::options::{NetworkOptions, stations};

/// Addresses that strangers have at the moment, and who they are.
pub(super) type Leased = BTreeMap<IpAddr, MacAddr>;

/// An address as a number; the families do not share a set.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address that a number is.
fn address(v4: bool, number: u128) -> Option<IpAddr> {
    if v4 {
        u32::try_from(number).ok().map(|number| Ipv4Addr::from_bits(number).into())
    } else {
        Some(Ipv6Addr::from_bits(number).into())
    }
}

/// A set of numbers: disjoint inclusive intervals, first to last, that never touch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct AddressSet(BTreeMap<u128, u128>);

impl AddressSet {
    /// The interval that holds `value`.
    fn around(&self, value: u128) -> Option<(u128, u128)> {
        let (&first, &last) = self.0.range(..=value).next_back()?;
        (last >= value).then_some((first, last))
    }

    /// Whether it is in.
    pub fn contains(&self, value: u128) -> bool {
        self.around(value).is_some()
    }

    /// Takes it in; false where it was in.
    pub fn insert(&mut self, value: u128) -> bool {
        if self.contains(value) {
            return false;
        }
        let left = value.checked_sub(1).and_then(|left| self.around(left));
        let right = value.checked_add(1).and_then(|right| self.around(right));
        if let Some((first, _)) = right {
            self.0.remove(&first);
        }
        let first = left.map_or(value, |(first, _)| first);
        let last = right.map_or(value, |(_, last)| last);
        self.0.insert(first, last);
        true
    }

    /// Takes it out; false where it was not in.
    pub fn remove(&mut self, value: u128) -> bool {
        let Some((first, last)) = self.around(value) else { return false };
        self.0.remove(&first);
        if first < value {
            self.0.insert(first, value - 1);
        }
        if value < last {
            self.0.insert(value + 1, last);
        }
        true
    }

    /// The lowest number from `first` to `last` that is not in.
    pub fn first_free(&self, first: u128, last: u128) -> Option<u128> {
        let free = match self.around(first) {
            Some((_, end)) => end.checked_add(1)?,
            None => first,
        };
        (free <= last).then_some(free)
    }
}

/// What is taken on one network.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Occupancy {
    v4: AddressSet,
    v6: AddressSet,
    macs: BTreeSet<MacAddr>,
    /// Ranges of IPv4 and of IPv6 of which nothing is chosen, in order.
    kept4: Vec<(u128, u128)>,
    kept6: Vec<(u128, u128)>,
}

impl Occupancy {
    /// A network without nodes: what its plan reserves.
    pub fn of(network: &Network) -> Occupancy {
        let mut taken = Occupancy::default();
        taken.macs.insert(network.mac);
        for range in NetworkOptions::of(network).ranges() {
            let kept = if range.first.is_ipv4() { &mut taken.kept4 } else { &mut taken.kept6 };
            kept.push((number(range.first), number(range.last)));
        }
        for subnet in &network.subnets {
            for address in reserved(subnet) {
                taken.take(address);
            }
        }
        taken
    }

    fn set(&mut self, address: IpAddr) -> &mut AddressSet {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    /// Takes an address; false where it was taken.
    pub fn take(&mut self, address: IpAddr) -> bool {
        self.set(address).insert(number(address))
    }

    /// Takes a hardware address; false where it was taken.
    pub fn take_mac(&mut self, mac: MacAddr) -> bool {
        self.macs.insert(mac)
    }

    /// Takes all that an endpoint has; false where any of it was taken.
    pub fn claim(&mut self, endpoint: &Endpoint) -> bool {
        // All of it is taken, also where some of it was: `all` would stop there.
        let mut free = true;
        for mac in std::iter::once(endpoint.mac).chain(stations(&endpoint.driver_opts)) {
            free &= self.take_mac(mac);
        }
        for address in endpoint.addresses() {
            free &= self.take(address);
        }
        free
    }

    /// Gives back all that an endpoint had.
    pub fn release(&mut self, endpoint: &Endpoint) {
        self.macs.remove(&endpoint.mac);
        for station in stations(&endpoint.driver_opts) {
            self.macs.remove(&station);
        }
        for address in endpoint.addresses() {
            self.set(address).remove(number(address));
        }
    }

    /// Takes the lowest free IPv4 address of the plan that is not leased, with the prefix length of its subnet; none where all
    /// are taken.
    pub fn next_v4(&mut self, subnets: &[Subnet], leased: &Leased) -> Option<Ipv4Net> {
        subnets.iter().find_map(|subnet| {
            let IpNet::V4(net) = subnet.net else { return None };
            let free = self.next(subnet, leased)?;
            let address = Ipv4Addr::from_bits(u32::try_from(free).ok()?);
            Ipv4Net::new(address, net.prefix_len()).ok()
        })
    }

    /// As [`Occupancy::next_v4`].
    pub fn next_v6(&mut self, subnets: &[Subnet], leased: &Leased) -> Option<Ipv6Net> {
        subnets.iter().find_map(|subnet| {
            let IpNet::V6(net) = subnet.net else { return None };
            let free = self.next(subnet, leased)?;
            Ipv6Net::new(Ipv6Addr::from_bits(free), net.prefix_len()).ok()
        })
    }

    fn next(&mut self, subnet: &Subnet, leased: &Leased) -> Option<u128> {
        let v4 = subnet.net.addr().is_ipv4();
        let range = subnet.ip_range.unwrap_or(subnet.net);
        let (set, kept) =
            if v4 { (&mut self.v4, &self.kept4) } else { (&mut self.v6, &self.kept6) };
        let (mut from, last) = (number(range.network()), number(range.broadcast()));
        loop {
            let free = set.first_free(from, last)?;
            let held = kept.iter().find(|(first, last)| (*first..=*last).contains(&free));
            if let Some((_, end)) = held {
                from = end.checked_add(1)?;
            } else if leased.contains_key(&address(v4, free)?) {
                from = free.checked_add(1)?;
            } else {
                set.insert(free);
                return Some(free);
            }
        }
    }

    /// Takes a hardware address drawn at random: locally administered, of one station. Not of Docker's 02:42 block, which
    /// is the gateways'.
    pub fn next_mac(&mut self, random: &mut dyn Rng) -> MacAddr {
        loop {
            let mut octets = [0; 6];
            random.fill_bytes(&mut octets);
            octets[0] = 0x02;
            if octets[1] == 0x42 {
                octets[1] = 0x43;
            }
            // At most a few thousand of 2^40 are taken: the first draw is nearly always free.
            if self.macs.insert(MacAddr(octets)) {
                return MacAddr(octets);
            }
        }
    }
}

/// Whether a subnet is so small that every address of it is a host's (RFC 3021, RFC 6164).
pub(super) fn is_tiny(net: &IpNet) -> bool {
    net.max_prefix_len() - net.prefix_len() <= 1
}

/// The address of the network itself (in IPv6 the routers' anycast address, RFC 4291 section 2.6.1) and, in IPv4, that
/// of broadcast. Neither is a host's, except where the subnet is tiny.
pub(super) fn ends(net: &IpNet) -> Vec<IpAddr> {
    match net {
        _ if is_tiny(net) => Vec::new(),
        IpNet::V4(_) => vec![net.network(), net.broadcast()],
        IpNet::V6(_) => vec![net.network()],
    }
}

/// What is never given out: the ends, the gateway and the auxiliary addresses.
pub(super) fn reserved(subnet: &Subnet) -> Vec<IpAddr> {
    let mut addresses = ends(&subnet.net);
    addresses.extend(subnet.gateway);
    addresses.extend(subnet.aux.values());
    addresses
}

/// The lowest address of a subnet that can be its gateway; none where the subnet is tiny or full.
pub(super) fn default_gateway(net: &IpNet, aux: &BTreeMap<String, IpAddr>) -> Option<IpAddr> {
    if is_tiny(net) {
        return None;
    }
    let mut set = AddressSet::default();
    for address in ends(net).into_iter().chain(aux.values().copied()) {
        set.insert(number(address));
    }
    let free = set.first_free(number(net.network()), number(net.broadcast()))?;
    Some(match net {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(free).ok()?)),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(free)),
    })
}

/// Whether two subnets have an address in common.
pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn address_set_holds_both_ends_of_the_number_line() {
        let mut set = AddressSet::default();
        for value in [0, u128::MAX, 1, u128::MAX - 1] {
            assert!(set.insert(value));
            assert!(!set.insert(value));
        }
        assert_eq!(set.0, BTreeMap::from([(0, 1), (u128::MAX - 1, u128::MAX)]));
        assert_eq!(set.first_free(u128::MAX - 1, u128::MAX), None);
        assert_eq!(set.first_free(0, 9), Some(2));
    }

    proptest! {
        #[test]
        fn address_set_agrees_with_a_plain_set(
            steps in prop::collection::vec((any::<bool>(), 0u128..24), 1..200),
            from in 0u128..24,
            to in 0u128..30,
        ) {
            let (mut set, mut plain) = (AddressSet::default(), BTreeSet::new());
            for (add, value) in steps {
                if add {
                    prop_assert_eq!(set.insert(value), plain.insert(value));
                } else {
                    prop_assert_eq!(set.remove(value), plain.remove(&value));
                }
                prop_assert_eq!(set.contains(value), plain.contains(&value));
                let lowest = (from..=to).find(|value| !plain.contains(value));
                prop_assert_eq!(set.first_free(from, to), lowest);
                let mut previous = None;
                for (&first, &last) in &set.0 {
                    prop_assert!(first <= last);
                    prop_assert!(previous.is_none_or(|end: u128| end + 1 < first), "intervals touch");
                    previous = Some(last);
                }
            }
        }
    }
}
