//! Who has which name, and what a name means to the node that asks.
//!
//! A zone is one network: the names and addresses of the hosts on it, and the domain (the network's own name) below
//! which each of the names is known a second time. A view is what one host sees: the zones of the networks it is on,
//! in the order of their priority.
//!
//! Names and domains may both contain dots, so a name is tried in all its readings, as Docker does: `a.b.c` as a whole
//! in every zone of the view, then `a.b` in a zone `c`, then `a` in a zone `b.c`. The first zone that knows the name
//! wins; zones are never united. A name that nobody has is missing for certain when it lies below the domain of a zone
//! in view, and when it is a single label: neither ever leaves the machine. All else is somebody else's to answer.
//!
//! Zones are told of hosts and views by the control side. Keys are its own; a view may mention a zone that does not
//! exist (yet, or any more) and is then as if it did not mention it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::name::{Folded, join, wire_form};

/// A network, as the caller numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ZoneKey(pub u32);

/// A host: whatever has names and asks for names. The same key stands for the same host in all zones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostKey(pub u32);

/// All zones and all views of the daemon.
#[derive(Debug, Default)]
pub struct Directory {
    zones: BTreeMap<ZoneKey, Zone>,
    views: BTreeMap<HostKey, Vec<ZoneKey>>,
}

/// The names and addresses of one network.
#[derive(Debug, Default)]
pub(super) struct Zone {
    /// False for a network that has no names at all.
    named: bool,
    /// The domain in wire form, as it was given; `None` if the wire cannot carry it. Then short names remain.
    domain: Option<Box<[u8]>>,
    /// The domain folded to lower case.
    folded_domain: Option<Box<[u8]>>,
    hosts: BTreeMap<HostKey, Host>,
    /// Folded name to all who share it.
    names: BTreeMap<Box<[u8]>, BTreeSet<HostKey>>,
    addresses: BTreeMap<IpAddr, BTreeSet<HostKey>>,
}

/// One host of a zone.
#[derive(Debug)]
struct Host {
    /// Folded.
    names: Vec<Box<[u8]>>,
    addresses: Vec<IpAddr>,
    /// What its addresses lead back to: its first name below the domain, in wire form.
    canonical: Option<Box<[u8]>>,
}

/// What a name means to the host that asks for it. `apex` is where, in the name asked for, the zone begins that the
/// answer comes from; short names belong to the root.
pub(super) enum Finding<'a> {
    /// These hosts of this zone have the name.
    Hosts { zone: &'a Zone, holders: &'a BTreeSet<HostKey>, apex: usize },
    /// The name exists and has nothing of its own.
    Empty { apex: usize },
    /// Nobody has the name, and nobody elsewhere can.
    Missing { apex: usize },
    /// Not a name of ours.
    Elsewhere,
}

impl Directory {
    /// A directory without zones and views.
    pub fn new() -> Directory {
        Directory::default()
    }

    /// Adds an empty zone; one that already has this key is dropped with its hosts. `domain` is the network's name; `None`
    /// makes a zone without any names, that of a network which does not serve them.
    pub fn add_zone(&mut self, zone: ZoneKey, domain: Option<&str>) {
        let wire = domain.and_then(wire_form);
        let folded_domain = wire.as_ref().map(|wire| wire.to_ascii_lowercase().into_boxed_slice());
        let named = domain.is_some();
        self.zones.insert(zone, Zone { named, domain: wire, folded_domain, ..Zone::default() });
    }

    /// Removes a zone with its hosts.
    pub fn remove_zone(&mut self, zone: ZoneKey) {
        self.zones.remove(&zone);
    }

    /// Sets all names and addresses a host has in a zone, in place of those it had there. Its addresses lead back to
    /// the first of the names. Hosts may share a name. A name the wire cannot carry is skipped; without such a zone
    /// nothing happens. An IPv6 address that only stands for an IPv4 address is taken as the latter.
    pub fn set_host(
        &mut self,
        zone: ZoneKey,
        host: HostKey,
        names: &[String],
        addresses: &[IpAddr],
    ) {
        if let Some(zone) = self.zones.get_mut(&zone) {
            zone.remove(host);
            zone.insert(host, names, addresses);
        }
    }

    /// Removes a host from a zone.
    pub fn remove_host(&mut self, zone: ZoneKey, host: HostKey) {
        if let Some(zone) = self.zones.get_mut(&zone) {
            zone.remove(host);
        }
    }

    /// Sets the zones a host sees, most important first.
    pub fn set_view(&mut self, host: HostKey, zones: Vec<ZoneKey>) {
        self.views.insert(host, zones);
    }

    /// Removes what a host sees: it knows no names any more.
    pub fn remove_view(&mut self, host: HostKey) {
        self.views.remove(&host);
    }

    /// The zones in view that have names, most important first.
    fn view(&self, asker: HostKey) -> impl Iterator<Item = &Zone> {
        let keys = self.views.get(&asker).map_or(&[][..], Vec::as_slice);
        keys.iter().filter_map(|key| self.zones.get(key)).filter(|zone| zone.named)
    }

    /// What `name` means to `asker`.
    pub(super) fn find(&self, asker: HostKey, name: &Folded) -> Finding<'_> {
        for zone in self.view(asker) {
            if let Some(holders) = zone.names.get(name.whole()) {
                return Finding::Hosts { zone, holders, apex: name.root() };
            }
        }
        for &apex in name.starts().iter().skip(1).rev() {
            let (host, domain) = name.whole().split_at(apex);
            for zone in self.view(asker).filter(|zone| zone.is(domain)) {
                if let Some(holders) = zone.names.get(host) {
                    return Finding::Hosts { zone, holders, apex };
                }
            }
        }
        for &apex in name.starts() {
            let (host, domain) = name.whole().split_at(apex);
            if self.view(asker).any(|zone| zone.is(domain)) {
                let bare = host.is_empty();
                return if bare { Finding::Empty { apex } } else { Finding::Missing { apex } };
            }
        }
        match name.starts() {
            [_] => Finding::Missing { apex: name.root() },
            _ => Finding::Elsewhere,
        }
    }

    /// The name in wire form that `address` leads back to, in the first zone in view where it does.
    pub(super) fn reverse(&self, asker: HostKey, address: IpAddr) -> Option<&[u8]> {
        let address = address.to_canonical();
        self.view(asker).find_map(|zone| {
            let holders = zone.addresses.get(&address)?;
            holders.iter().find_map(|host| zone.hosts.get(host)?.canonical.as_deref())
        })
    }
}

impl Zone {
    fn is(&self, folded_domain: &[u8]) -> bool {
        self.folded_domain.as_deref() == Some(folded_domain)
    }

    /// All addresses of `holders`, each once, in order.
    pub(super) fn addresses(&self, holders: &BTreeSet<HostKey>) -> Vec<IpAddr> {
        let hosts = holders.iter().filter_map(|host| self.hosts.get(host));
        let mut addresses: Vec<_> = hosts.flat_map(|host| host.addresses.iter().copied()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    fn insert(&mut self, key: HostKey, names: &[String], addresses: &[IpAddr]) {
        let domain = self.domain.as_deref();
        let given: Vec<_> = names.iter().filter_map(|name| wire_form(name)).collect();
        let canonical = given.first().and_then(|name| join(name, domain?));
        let names = given.iter().map(|name| name.to_ascii_lowercase().into_boxed_slice()).collect();
        let addresses = addresses.iter().map(IpAddr::to_canonical).collect();
        let host = Host { names, addresses, canonical };
        for name in &host.names {
            self.names.entry(name.clone()).or_default().insert(key);
        }
        for &address in &host.addresses {
            self.addresses.entry(address).or_default().insert(key);
        }
        self.hosts.insert(key, host);
    }

    fn remove(&mut self, key: HostKey) {
        let Some(host) = self.hosts.remove(&key) else { return };
        for name in &host.names {
            forget(&mut self.names, name.as_ref(), key);
        }
        for address in &host.addresses {
            forget(&mut self.addresses, address, key);
        }
    }
}

/// Takes `host` out of the set under `key`, and the set out of the index when it is empty.
fn forget<K, Q>(index: &mut BTreeMap<K, BTreeSet<HostKey>>, key: &Q, host: HostKey)
where
    K: std::borrow::Borrow<Q> + Ord,
    Q: Ord + ?Sized,
{
    if let Some(holders) = index.get_mut(key) {
        holders.remove(&host);
        if holders.is_empty() {
            index.remove(key);
        }
    }
}
