//! Who has which name, and what a name means to the node that asks.
//!
//! A zone is one network: the names and addresses of the hosts on it, and the domain (the network's own name) below
//! which each of the names is known a second time. A view is what one host sees: the zones of the networks it is on,
//! in the order of their priority.
//!
//! Names and domains may both contain dots, so a name is tried in all its readings, as Docker does: `a.b.c` as a whole
//! in every zone of the view, then `a.b` in a zone `c`, then `a` in a zone `b.c`. The first zone that knows the name
//! wins; zones are never united. A zone may have more domains, given by its owner, below which its names are known too.
//! Those may be domains of the world: what the zone does not have there is as foreign as any other name. A name that nobody has is missing for certain when it lies below the domain of any
//! zone, in view or not, when it is a single label, when it is kept from the world's servers by rule, and when it is the
//! reverse name of an address of a zone's prefixes: none of these ever leaves the machine. All else is somebody else's
//! to answer, where a zone in view leads out.
//!
//! Of the names below `portolan.internal` there is one: `host`, which stands for the machine the networks are on, and is
//! known to those who see a zone that gives access to it.
//!
//! Zones are told of hosts and views by the control side. Keys are its own; a view may mention a zone that does not
//! exist (yet, or any more) and is then as if it did not mention it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::{Folded, join, wire_form};

/// The domain of names that Portolan itself gives, folded wire form.
const OWN_DOMAIN: &[u8] = b"\x08portolan\x08internal";

/// The name of the machine below it.
const MACHINE: &[u8] = b"\x04host";

/// Domains that no resolver of the world knows, and that say what is looked for to whoever is asked (RFC 6761, RFC 6762,
/// RFC 7686).
const KEPT: [&[u8]; 4] = [b"\x05local", b"\x09localhost", b"\x07invalid", b"\x05onion"];

/// A network, as the caller numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ZoneKey(pub u32);

/// A host: whatever has names and asks for names. The same key stands for the same host in all zones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostKey(pub u32);

/// Prefixes whose addresses mean another machine to everybody who is asked for their names (RFC 6303, section 4).
const NEAR: [(IpAddr, u8); 6] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8),
    (IpAddr::V4(Ipv4Addr::LOCALHOST), 8),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

/// All zones and all views of the daemon.
#[derive(Debug, Default)]
pub struct Directory {
    zones: BTreeMap<ZoneKey, Zone>,
    views: BTreeMap<HostKey, Vec<ZoneKey>>,
    /// The folded domains of all zones, and how many zones have each.
    domains: BTreeMap<Box<[u8]>, usize>,
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
    /// Further domains of its names, folded. They may be somebody else's as well.
    shared_domains: Vec<Box<[u8]>>,
    hosts: BTreeMap<HostKey, Host>,
    /// Folded name to all who share it.
    names: BTreeMap<Box<[u8]>, BTreeSet<HostKey>>,
    addresses: BTreeMap<IpAddr, BTreeSet<HostKey>>,
    /// Names that whoever was lent an address has brought along, by the folded name.
    lent: BTreeMap<Box<[u8]>, Lent>,
    /// Under which of these names each lent address is known.
    lent_addresses: BTreeMap<IpAddr, Box<[u8]>>,
    outlook: Outlook,
}

/// Whoever was lent an address, by the port it is behind and its hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lodger(pub u32, pub [u8; 6]);

/// A name that is known as long as an address is lent.
#[derive(Debug)]
struct Lent {
    to: Lodger,
    addresses: Vec<IpAddr>,
    canonical: Option<Box<[u8]>>,
}

/// What a zone says of the world around it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outlook {
    /// Whether names that are not ours may be asked for elsewhere.
    pub leads_out: bool,
    /// The prefixes of its addresses, by address and length.
    pub prefixes: Vec<(IpAddr, u8)>,
    /// By which addresses the machine itself is reached; none where it is not.
    pub machine: Vec<IpAddr>,
}

/// One host of a zone.
#[derive(Debug)]
struct Host {
    /// Folded.
    names: Vec<Box<[u8]>>,
    /// The first of them as it was given.
    first: Option<Box<str>>,
    addresses: Vec<IpAddr>,
    /// What its addresses lead back to: its first name below the domain, in wire form.
    canonical: Option<Box<[u8]>>,
}

/// What a name means to the host that asks for it. `apex` is where, in the name asked for, the zone begins that the
/// answer comes from; short names belong to the root.
pub(super) enum Finding<'a> {
    /// These hosts of this zone have the name.
    Hosts { zone: &'a Zone, holders: &'a BTreeSet<HostKey>, apex: usize },
    /// Somebody who was lent these addresses has brought it along.
    Lent { addresses: &'a [IpAddr], apex: usize },
    /// It is the machine's own.
    Machine { addresses: &'a [IpAddr], apex: usize },
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
        self.remove_zone(zone);
        if let Some(domain) = &folded_domain {
            *self.domains.entry(domain.clone()).or_default() += 1;
        }
        self.zones.insert(zone, Zone { named, domain: wire, folded_domain, ..Zone::default() });
    }

    /// Says what a zone's surroundings are; until then it leads nowhere. Without such a zone nothing happens.
    pub fn set_outlook(&mut self, zone: ZoneKey, outlook: Outlook) {
        if let Some(zone) = self.zones.get_mut(&zone) {
            zone.outlook = outlook;
        }
    }

    /// Sets the domains below which the names of a zone are known beside its own; what it does not have there is somebody
    /// else's to answer. One the wire cannot carry is skipped; without such a zone nothing happens.
    pub fn set_shared_domains(&mut self, zone: ZoneKey, domains: &[String]) {
        if let Some(zone) = self.zones.get_mut(&zone) {
            let wire = domains.iter().filter_map(|domain| wire_form(domain));
            zone.shared_domains = wire.map(|wire| wire.to_ascii_lowercase().into()).collect();
        }
    }

    /// Removes a zone with its hosts.
    pub fn remove_zone(&mut self, zone: ZoneKey) {
        let domain = self.zones.remove(&zone).and_then(|zone| zone.folded_domain);
        if let Some(domain) = domain
            && let Some(count) = self.domains.get_mut(&domain)
        {
            *count -= 1;
            if *count == 0 {
                self.domains.remove(&domain);
            }
        }
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

    /// The first name of a host in a zone, as it was given.
    pub fn first_name(&self, zone: ZoneKey, host: HostKey) -> Option<&str> {
        self.zones.get(&zone)?.hosts.get(&host)?.first.as_deref()
    }

    /// An address was lent to somebody who calls itself so: the name means the address from now on, where the zone has names
    /// and this one is free, or has already been lent to the same. False where it is not: no host loses a name by this.
    pub fn lend(&mut self, zone: ZoneKey, name: &str, to: Lodger, address: IpAddr) -> bool {
        let Some(zone) = self.zones.get_mut(&zone).filter(|zone| zone.named) else { return false };
        zone.end_lent(address);
        let Some(wire) = wire_form(name) else { return false };
        let folded = wire.to_ascii_lowercase().into_boxed_slice();
        let taken = zone.lent.get(&folded).is_some_and(|lent| lent.to != to);
        if taken || zone.names.contains_key(&folded) || zone.addresses.contains_key(&address) {
            return false;
        }
        let canonical = zone.domain.as_deref().and_then(|domain| join(&wire, domain));
        let none = || Lent { to, addresses: Vec::new(), canonical };
        let lent = zone.lent.entry(folded.clone()).or_insert_with(none);
        lent.addresses.push(address);
        lent.addresses.sort_unstable();
        zone.lent_addresses.insert(address, folded);
        true
    }

    /// An address is no longer lent, and means no name any more.
    pub fn end_lent(&mut self, zone: ZoneKey, address: IpAddr) {
        if let Some(zone) = self.zones.get_mut(&zone) {
            zone.end_lent(address);
        }
    }

    /// Whether an address has a name that whoever was lent it has brought along.
    pub fn is_lent(&self, zone: ZoneKey, address: IpAddr) -> bool {
        self.zones.get(&zone).is_some_and(|zone| zone.lent_addresses.contains_key(&address))
    }

    /// Sets the zones a host sees, most important first.
    pub fn set_view(&mut self, host: HostKey, zones: Vec<ZoneKey>) {
        self.views.insert(host, zones);
    }

    /// Removes what a host sees: it knows no names any more.
    pub fn remove_view(&mut self, host: HostKey) {
        self.views.remove(&host);
    }

    /// The zones in view, most important first.
    fn seen(&self, asker: HostKey) -> impl Iterator<Item = &Zone> {
        let keys = self.views.get(&asker).map_or(&[][..], Vec::as_slice);
        keys.iter().filter_map(|key| self.zones.get(key))
    }

    /// Those of them that have names.
    fn view(&self, asker: HostKey) -> impl Iterator<Item = &Zone> {
        self.seen(asker).filter(|zone| zone.named)
    }

    /// The zones a host sees, most important first; some of them may not exist.
    pub fn view_of(&self, host: HostKey) -> impl Iterator<Item = ZoneKey> {
        self.views.get(&host).into_iter().flatten().copied()
    }

    /// Whether a host may have others asked for it: whether a zone in its view leads out.
    pub fn leads_out(&self, asker: HostKey) -> bool {
        self.seen(asker).any(|zone| zone.outlook.leads_out)
    }

    /// What `name` means to `asker`.
    pub(super) fn find(&self, asker: HostKey, name: &Folded) -> Finding<'_> {
        if let Some(apex) = name.below(OWN_DOMAIN) {
            return self.find_own(asker, name, apex);
        }
        for zone in self.view(asker) {
            if let Some(holders) = zone.names.get(name.whole()) {
                return Finding::Hosts { zone, holders, apex: name.root() };
            }
        }
        // Whoever brings a name along on one network takes it from no host on another.
        for zone in self.view(asker) {
            if let Some(lent) = zone.lent.get(name.whole()) {
                return Finding::Lent { addresses: &lent.addresses, apex: name.root() };
            }
        }
        for &apex in name.starts().iter().skip(1).rev() {
            let (host, domain) = name.whole().split_at(apex);
            for zone in self.view(asker).filter(|zone| zone.has_names_below(domain)) {
                if let Some(holders) = zone.names.get(host) {
                    return Finding::Hosts { zone, holders, apex };
                }
                if let Some(lent) = zone.lent.get(host) {
                    return Finding::Lent { addresses: &lent.addresses, apex };
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
            _ => self.kept_apex(name).map_or(Finding::Elsewhere, |apex| Finding::Missing { apex }),
        }
    }

    fn find_own(&self, asker: HostKey, name: &Folded, apex: usize) -> Finding<'_> {
        match name.whole().get(..apex) {
            Some([]) => Finding::Empty { apex },
            Some(MACHINE) => {
                let mut machines = self.seen(asker).map(|zone| &zone.outlook.machine[..]);
                match machines.find(|addresses| !addresses.is_empty()) {
                    Some(addresses) => Finding::Machine { addresses, apex },
                    None => Finding::Missing { apex },
                }
            }
            _ => Finding::Missing { apex },
        }
    }

    /// Where, in a name that nobody in view has, that begins for which nobody elsewhere is asked.
    fn kept_apex(&self, name: &Folded) -> Option<usize> {
        let kept = KEPT.iter().find_map(|domain| name.below(domain));
        let of_others = || {
            let mut starts = name.starts().iter().copied();
            starts.find(|&apex| self.domains.contains_key(&name.whole()[apex..]))
        };
        let of_prefixes = || {
            let (address, len) = name.reversed_prefix()?;
            let prefixes = self.zones.values().flat_map(|zone| &zone.outlook.prefixes);
            let within = |(net, bits): &(IpAddr, u8)| *bits <= len && covers(*net, *bits, address);
            let ours = NEAR.iter().chain(prefixes).any(within);
            ours.then_some(0)
        };
        kept.or_else(of_others).or_else(of_prefixes)
    }

    /// The name in wire form that `address` leads back to, in the first zone in view where it does.
    pub(super) fn reverse(&self, asker: HostKey, address: IpAddr) -> Option<&[u8]> {
        let address = address.to_canonical();
        self.view(asker).find_map(|zone| {
            if let Some(name) = zone.lent_addresses.get(&address) {
                return zone.lent.get(name)?.canonical.as_deref();
            }
            let holders = zone.addresses.get(&address)?;
            holders.iter().find_map(|host| zone.hosts.get(host)?.canonical.as_deref())
        })
    }
}

impl Zone {
    fn is(&self, folded_domain: &[u8]) -> bool {
        self.folded_domain.as_deref() == Some(folded_domain)
    }

    fn has_names_below(&self, folded_domain: &[u8]) -> bool {
        self.is(folded_domain) || self.shared_domains.iter().any(|one| **one == *folded_domain)
    }

    /// All addresses of `holders`, each once, in order.
    pub(super) fn addresses(&self, holders: &BTreeSet<HostKey>) -> Vec<IpAddr> {
        let hosts = holders.iter().filter_map(|host| self.hosts.get(host));
        let mut addresses: Vec<_> = hosts.flat_map(|host| host.addresses.iter().copied()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// A host comes by that name: whoever was lent it has it no longer.
    fn take_back(&mut self, name: &[u8]) {
        for address in self.lent.remove(name).into_iter().flat_map(|lent| lent.addresses) {
            self.lent_addresses.remove(&address);
        }
    }

    fn end_lent(&mut self, address: IpAddr) {
        let Some(name) = self.lent_addresses.remove(&address) else { return };
        if let Some(lent) = self.lent.get_mut(&name) {
            lent.addresses.retain(|other| *other != address);
            if lent.addresses.is_empty() {
                self.lent.remove(&name);
            }
        }
    }

    fn insert(&mut self, key: HostKey, names: &[String], addresses: &[IpAddr]) {
        let domain = self.domain.as_deref();
        let given: Vec<_> = names.iter().filter_map(|name| wire_form(name)).collect();
        let canonical = given.first().and_then(|name| join(name, domain?));
        let first =
            names.iter().find(|name| wire_form(name).is_some()).map(|name| name.as_str().into());
        let names = given.iter().map(|name| name.to_ascii_lowercase().into_boxed_slice()).collect();
        let addresses = addresses.iter().map(IpAddr::to_canonical).collect();
        let host = Host { names, first, addresses, canonical };
        for name in &host.names {
            self.take_back(name);
            self.names.entry(name.clone()).or_default().insert(key);
        }
        for &address in &host.addresses {
            self.end_lent(address);
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

/// Whether `address` lies in the prefix of `len` bits of `net`.
fn covers(net: IpAddr, len: u8, address: IpAddr) -> bool {
    let (bits, width) = match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            (u128::from(net.to_bits() ^ address.to_bits()), 32)
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => (net.to_bits() ^ address.to_bits(), 128),
        _ => return false,
    };
    let rest = u32::saturating_sub(width, len.into());
    bits.checked_shr(rest).unwrap_or(0) == 0
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
