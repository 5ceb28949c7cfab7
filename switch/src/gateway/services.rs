//! The servers of one network that tell hosts of their addresses: DHCPv4, DHCPv6 and router advertisements.
//!
//! Their rules are those of `portolan_dhcp`; what is here carries their messages between them and the wire, and keeps them
//! told of the endpoints, whose addresses they repeat.

use std::net::IpAddr;

use crate::command::{LeaseRow, PortSpec, ServiceSpec};
use crate::ids::{PortId, Time};

/// The servers of one network.
#[derive(Debug)]
pub(crate) struct Services {
    spec: ServiceSpec,
}

impl Services {
    /// Servers that know no endpoint yet.
    pub(crate) fn new(spec: ServiceSpec) -> Services {
        Services { spec }
    }

    /// An endpoint comes: its addresses are its own from now on.
    pub(crate) fn attach(&mut self, _spec: &PortSpec) {}

    /// An endpoint goes, and the leases of whoever was behind it.
    pub(crate) fn detach(&mut self, _port: PortId) {}

    /// When something is due next.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        None
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
