//! The servers of one network that tell hosts of their addresses: DHCPv4, DHCPv6 and router advertisements.
//!
//! Their rules are those of `portolan_dhcp`; what is here carries their messages between them and the wire, and keeps them
//! told of the endpoints, whose addresses they repeat.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use portolan_dhcp::dns::zone::Lodger;
use portolan_dhcp::v4::{self, Change, Happened};
use portolan_nat::inside::Zone;

use crate::command::{Event, LeaseChange, LeaseRow, PortSpec, ServiceSpec};
use crate::datapath::{Shared, zone_key};
use crate::ids::{MacAddr, NetworkId, PortId, Time};
use crate::neighbor::{Learning, Neighbors};

use super::router_advert::Adverts;

/// The servers of one network.
#[derive(Debug)]
pub(crate) struct Services {
    spec: ServiceSpec,
    adverts: Option<Adverts>,
    dhcp4: Option<v4::Server>,
}

impl Services {
    /// Servers that know no endpoint yet.
    pub(crate) fn new(mut spec: ServiceSpec, guard: bool) -> Services {
        let dhcp4 = spec.dhcp4.take().map(|mut told| {
            // There are no strangers where there is a guard.
            if guard {
                told.pool.clear();
            }
            v4::Server::new(told)
        });
        Services { adverts: spec.advert.clone().map(Adverts::new), dhcp4, spec }
    }

    /// An endpoint comes: its addresses are its own from now on.
    pub(crate) fn attach(&mut self, spec: &PortSpec) {
        if let Some(server) = &mut self.dhcp4 {
            let own = spec.addresses.iter().filter_map(|address| match address {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            });
            server.attach(spec.id.0, spec.mac.0, own.collect());
        }
    }

    /// An endpoint goes, and the leases of whoever was behind it.
    pub(crate) fn detach(&mut self, port: PortId) {
        if let Some(adverts) = &mut self.adverts {
            adverts.detach(port);
        }
        if let Some(server) = &mut self.dhcp4 {
            server.detach(port.0);
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

    /// Makes known what has become of leases: to the names of the network, to its neighbors, and to whoever looks on.
    pub(crate) fn settle(
        &mut self,
        network: NetworkId,
        neighbors: &mut Neighbors,
        shared: &mut Shared,
        now: Time,
    ) {
        let Some(server) = &mut self.dhcp4 else { return };
        for Change { happened, lease } in server.take_changes() {
            let (client, address) = (&lease.client, IpAddr::V4(lease.address));
            let given = matches!(happened, Happened::Given | Happened::Renewed);
            let port = PortId(client.port);
            let mac = MacAddr(client.hardware);
            if given {
                let learned = neighbors.learn(address, port, mac, now);
                if let (Learning::Instead(other), Some(sockets)) = (learned, &mut shared.sockets) {
                    sockets.forget(Zone(network.0), other);
                }
                let to = Lodger(client.port, client.hardware);
                match &client.hostname {
                    Some(name) => _ = shared.names.lend(zone_key(network), name, to, address),
                    None => shared.names.end_lent(zone_key(network), address),
                }
            } else {
                shared.names.end_lent(zone_key(network), address);
                if neighbors.forget(address, port)
                    && let Some(sockets) = &mut shared.sockets
                {
                    sockets.forget(Zone(network.0), address);
                }
            }
            let change = match happened {
                Happened::Renewed => continue,
                Happened::Given => LeaseChange::Given,
                Happened::Released => LeaseChange::Released,
                Happened::Ended => LeaseChange::Expired,
                Happened::Declined => LeaseChange::Declined,
            };
            shared.events.push(Event::Lease { network, change, port, mac, address });
        }
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
        let dhcp4 = self.dhcp4().and_then(v4::Server::next_timeout).map(time);
        [adverts, dhcp4].into_iter().flatten().min()
    }

    /// How many leases strangers have.
    pub(crate) fn lease_count(&self) -> usize {
        self.dhcp4().map_or(0, v4::Server::bound)
    }

    /// At most `limit` leases behind `after`, in order of address.
    pub(crate) fn leases(&self, after: Option<IpAddr>, limit: usize) -> Vec<LeaseRow> {
        let after: Option<Ipv4Addr> = match after {
            Some(IpAddr::V6(_)) => return Vec::new(),
            Some(IpAddr::V4(after)) => Some(after),
            None => None,
        };
        let rows = self.dhcp4().map(|server| server.rows(after, limit)).unwrap_or_default();
        let rows = rows.into_iter().map(|row| LeaseRow {
            address: row.address.into(),
            mac: MacAddr(row.client.hardware),
            client: row.client.name.into(),
            hostname: row.client.hostname.map(String::from),
            port: PortId(row.client.port),
            expires: row.until.map(time),
        });
        rows.collect()
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
