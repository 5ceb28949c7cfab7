//! Rules of the topology, one test a rule.

use super::*;

/// An endpoint on nothing.
pub(super) fn bare_endpoint() -> Endpoint {
    Endpoint {
        id: Id([0; 32]),
        network: Id([0; 32]),
        ifname: "eth0".into(),
        mac: Default::default(),
        ipv4: None,
        ipv6: None,
        aliases: Vec::new(),
        gw_priority: 0,
        driver_opts: BTreeMap::new(),
        port: None,
    }
}
