//! The servers of one network that tell hosts of their addresses: DHCPv4, DHCPv6 and router advertisements.
//!
//! Their rules are those of `portolan_dhcp`; what is here carries their messages between them and the wire, and keeps them
//! told of the endpoints, whose addresses they repeat.

use std::net::IpAddr;
use std::time::Duration;

use portolan_dhcp::dns::zone::Lodger;
use portolan_dhcp::lease::{Address, Row};
use portolan_dhcp::lending::{Change, Happened};
use portolan_dhcp::{v4, v6};
use portolan_nat::inside::Zone;

use crate::command::{Dhcp4, Dhcp6, Event, LeaseChange, LeaseRow, PortSpec, ServiceSpec};
use crate::datapath::{Shared, zone_key};
use crate::ids::{MacAddr, NetworkId, PortId, Time};
use crate::neighbor::{Learning, Neighbors};

use super::router_advert::Adverts;

/// The servers of one network.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    adverts: Option<Adverts>,
    dhcp4: Option<v4::Server>,
    dhcp6: Option<v6::Server>,
}

impl Services {
    /// Servers that know no endpoint yet, of the gateway with the hardware address `mac`.
    pub(crate) fn new(spec: ServiceSpec, mac: MacAddr, guard: bool) -> Services {
        // There are no strangers where there is a guard.
        let dhcp4 = spec.dhcp4.map(|told| {
            let pool = if guard { Vec::new() } else { told.pool };
            v4::Server::new(Dhcp4 { pool, ..told })
        });
        let dhcp6 = spec.dhcp6.map(|told| {
            let pool = if guard { Vec::new() } else { told.pool };
            v6::Server::new(Dhcp6 { pool, ..told }, mac.0)
        });
        Services { adverts: spec.advert.map(Adverts::new), dhcp4, dhcp6 }
    }

    /// An endpoint comes: its addresses are its own from now on.
    pub(crate) fn attach(&mut self, spec: &PortSpec) {
        if let Some(server) = &mut self.dhcp4 {
            let own = spec.addresses.iter().filter_map(|address| match address {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            });
            server.lending.attach(spec.id.0, spec.mac.0, own.collect());
        }
        if let Some(server) = &mut self.dhcp6 {
            let own = spec.addresses.iter().filter_map(|address| match address {
                IpAddr::V6(address) => Some(*address),
                IpAddr::V4(_) => None,
            });
            server.lending.attach(spec.id.0, spec.mac.0, own.collect());
        }
    }

    /// An endpoint goes, and the leases of whoever was behind it.
    pub(crate) fn detach(&mut self, port: PortId) {
        if let Some(adverts) = &mut self.adverts {
            adverts.detach(port);
        }
        if let Some(server) = &mut self.dhcp4 {
            server.lending.detach(port.0);
        }
        if let Some(server) = &mut self.dhcp6 {
            server.lending.detach(port.0);
        }
    }

    /// Its server of DHCPv4, where it has one.
    pub(crate) fn dhcp4(&self) -> Option<&v4::Server> {
        self.dhcp4.as_ref()
    }

    /// As [`Services::dhcp4`], to change.
    pub(crate) fn dhcp4_mut(&mut self) -> Option<&mut v4::Server> {
        self.dhcp4.as_mut()
    }

    /// Its server of DHCPv6, where it has one.
    pub(crate) fn dhcp6(&self) -> Option<&v6::Server> {
        self.dhcp6.as_ref()
    }

    /// As [`Services::dhcp6`], to change.
    pub(crate) fn dhcp6_mut(&mut self) -> Option<&mut v6::Server> {
        self.dhcp6.as_mut()
    }

    /// Makes known what has become of leases: to the names of the network, to its neighbors, and to whoever looks on.
    pub(crate) fn settle(
        &mut self,
        network: NetworkId,
        neighbors: &mut Neighbors,
        shared: &mut Shared,
        now: Time,
    ) {
        let mut settling = Settling { network, neighbors, shared, now };
        let dhcp4 = self.dhcp4.iter_mut().flat_map(|server| server.lending.take_changes());
        dhcp4.for_each(|change| settling.settle(change));
        let dhcp6 = self.dhcp6.iter_mut().flat_map(|server| server.lending.take_changes());
        dhcp6.for_each(|change| settling.settle(change));
    }

    /// Its router advertisements, where it has any.
    pub(crate) fn adverts(&self) -> Option<&Adverts> {
        self.adverts.as_ref()
    }

    /// As [`Services::adverts`], to change.
    pub(crate) fn adverts_mut(&mut self) -> Option<&mut Adverts> {
        self.adverts.as_mut()
    }

    /// When something is due next.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let adverts = self.adverts().and_then(Adverts::next_timeout);
        let dhcp4 = self.dhcp4().and_then(|server| server.lending.next_timeout()).map(time);
        let dhcp6 = self.dhcp6().and_then(|server| server.lending.next_timeout()).map(time);
        [adverts, dhcp4, dhcp6].into_iter().flatten().min()
    }

    /// How many leases strangers have.
    pub(crate) fn lease_count(&self) -> usize {
        let v4 = self.dhcp4().map_or(0, |server| server.lending.bound());
        v4 + self.dhcp6().map_or(0, |server| server.lending.bound())
    }

    /// At most `limit` leases behind `after`, in order of address: those of IPv4 come first.
    pub(crate) fn leases(&self, after: Option<IpAddr>, limit: usize) -> Vec<LeaseRow> {
        let (after_v4, after_v6) = match after {
            None => (Some(None), None),
            Some(IpAddr::V4(after)) => (Some(Some(after)), None),
            Some(IpAddr::V6(after)) => (None, Some(after)),
        };
        let v4 = self.dhcp4().zip(after_v4).map(|(server, after)| server.rows(after, limit));
        let mut rows: Vec<LeaseRow> = v4.into_iter().flatten().map(lease_row).collect();
        let left = limit - rows.len();
        let v6 = self.dhcp6().map(|server| server.rows(after_v6, left));
        rows.extend(v6.into_iter().flatten().map(lease_row));
        rows
    }
}

fn lease_row<A: Address + Into<IpAddr>>(row: Row<A>) -> LeaseRow {
    LeaseRow {
        address: row.address.into(),
        mac: MacAddr(row.client.hardware),
        client: row.client.name.into(),
        hostname: row.client.hostname.map(String::from),
        port: PortId(row.client.port),
        expires: row.until.map(time),
        named: false,
    }
}

/// Where what has become of leases is made known.
struct Settling<'s> {
    network: NetworkId,
    neighbors: &'s mut Neighbors,
    shared: &'s mut Shared,
    now: Time,
}

impl Settling<'_> {
    fn settle<A: Address + Into<IpAddr>>(&mut self, change: Change<A>) {
        let (happened, client) = (change.happened, &change.lease.client);
        let address = change.lease.address.into();
        let (port, mac) = (PortId(client.port), MacAddr(client.hardware));
        let (zone, names) = (zone_key(self.network), &mut self.shared.names);
        let forgotten = if matches!(happened, Happened::Given | Happened::Renewed) {
            let to = Lodger(client.port, client.hardware);
            match &client.hostname {
                Some(name) => _ = names.lend(zone, name, to, address),
                None => names.end_lent(zone, address),
            }
            match self.neighbors.learn(address, port, mac, self.now) {
                Learning::Instead(other) => Some(other),
                Learning::Known | Learning::Refused => None,
            }
        } else {
            names.end_lent(zone, address);
            self.neighbors.forget(address, port).then_some(address)
        };
        if let (Some(address), Some(sockets)) = (forgotten, &mut self.shared.sockets) {
            sockets.forget(Zone(self.network.0), address);
        }
        let change = match happened {
            Happened::Renewed => return,
            Happened::Given => LeaseChange::Given,
            Happened::Released => LeaseChange::Released,
            Happened::Ended => LeaseChange::Expired,
            Happened::Declined => LeaseChange::Declined,
        };
        let network = self.network;
        self.shared.events.push(Event::Lease { network, change, port, mac, address });
    }
}

/// A time as the servers count it.
pub(super) fn moment(time: Time) -> Duration {
    time.since(Time::ZERO)
}

/// The same, back.
fn time(moment: Duration) -> Time {
    Time::ZERO + moment
}
