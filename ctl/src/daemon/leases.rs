//! Which addresses hosts were given by DHCP: for people, and for the topology, which must give no endpoint what a stranger has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_switch::command::{Answer, LeaseRow, Query};
use portolan_switch::ids::{NetworkId, PortId};

use super::explain::hex_of;
use super::{Daemon, internal};
use crate::api::types::{LeaseEntry, NameEntry};
use crate::topology::{Refusal, Topology};

/// Rows of one page.
const PAGE: usize = 512;

impl Daemon {
    /// The leases of a network, in order of address.
    pub async fn leases(&self, name: &str) -> Result<Vec<LeaseEntry>, Refusal> {
        let (network, owners) = self.owners(name).await?;
        let now = portolan_switch::io::clock::now();
        let entry = |row: LeaseRow| LeaseEntry {
            ip_address: row.address,
            mac_address: row.mac,
            client_id: hex_of(&row.client),
            hostname: row.hostname.unwrap_or_default(),
            node: owners.get(&row.port).cloned().unwrap_or_default(),
            expires_in: row.expires.map(|end| end.since(now).as_secs()),
        };
        Ok(self.lease_rows(network).await?.into_iter().map(entry).collect())
    }

    /// The names that came with leases of a network, each with all addresses that it means.
    pub(super) async fn lent_names(&self, name: &str) -> Result<Vec<NameEntry>, Refusal> {
        let (network, owners) = self.owners(name).await?;
        Ok(names_of(self.lease_rows(network).await?, &owners))
    }

    /// Tells the topology what strangers have leased on a network, where they may have anything. A lease that is given after
    /// this and before the endpoint is attached loses its address: the dataplane serves endpoints first.
    pub(super) async fn learn_leases(
        &self,
        topology: &mut Topology,
        network: &str,
    ) -> Result<(), Refusal> {
        let Some((id, handle)) = topology.lends(network) else { return Ok(()) };
        let rows = self.lease_rows(handle).await?;
        let strangers = rows.into_iter().filter(|row| row.expires.is_some());
        topology.set_leased(
            id,
            strangers.map(|row| (row.address, row.mac)).collect::<BTreeMap<_, _>>(),
        );
        Ok(())
    }

    async fn lease_rows(&self, network: NetworkId) -> Result<Vec<LeaseRow>, Refusal> {
        let mut all: Vec<LeaseRow> = Vec::new();
        let mut after: Option<IpAddr> = None;
        loop {
            let rows = match self.plane.ask(Query::Leases { network, after, limit: PAGE }).await {
                Some(Answer::Leases(rows)) => rows,
                Some(_) => return Ok(all),
                None => return Err(internal("the dataplane does not answer; look at daemon.log")),
            };
            after = rows.last().map(|row| row.address);
            let last = rows.len() < PAGE;
            all.extend(rows);
            if last {
                return Ok(all);
            }
        }
    }
}

/// The names that mean addresses of these leases, one a name and port.
fn names_of(rows: Vec<LeaseRow>, owners: &BTreeMap<PortId, String>) -> Vec<NameEntry> {
    let mut names: BTreeMap<(String, PortId), Vec<IpAddr>> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.named) {
        let key = (row.hostname.unwrap_or_default(), row.port);
        names.entry(key).or_default().push(row.address);
    }
    let entry = |((name, port), addresses): ((String, PortId), Vec<IpAddr>)| NameEntry {
        name,
        kind: "lease".into(),
        addresses,
        node: owners.get(&port).cloned().unwrap_or_default(),
    };
    names.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use portolan_switch::ids::MacAddr;

    use super::*;

    fn lease(address: &str, hostname: Option<&str>, port: u32, named: bool) -> LeaseRow {
        LeaseRow {
            address: address.parse().unwrap(),
            mac: MacAddr::default(),
            client: Vec::new(),
            hostname: hostname.map(Into::into),
            port: PortId(port),
            expires: None,
            named,
        }
    }

    #[test]
    fn a_name_of_leases_means_all_addresses_behind_its_port_and_none_where_somebody_else_has_it() {
        let rows = vec![
            lease("10.0.0.2", Some("printer"), 1, true),
            lease("10.0.0.3", None, 1, false),
            lease("10.0.0.4", Some("db"), 2, false),
            lease("fd00::2", Some("printer"), 1, true),
            lease("10.0.0.5", Some("camera"), 2, true),
        ];
        let owners = [(PortId(1), "bridge".to_owned()), (PortId(2), "other".to_owned())].into();
        let entry = |name: &str, node: &str, addresses: &[&str]| NameEntry {
            name: name.into(),
            kind: "lease".into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            node: node.into(),
        };
        let names = [
            entry("camera", "other", &["10.0.0.5"]),
            entry("printer", "bridge", &["10.0.0.2", "fd00::2"]),
        ];
        assert_eq!(names_of(rows, &owners), names);
    }
}
