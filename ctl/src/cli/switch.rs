//! What the switch knows: `fdb`, `leases`, `flows`, `drops`, `names`; of one network or of all.

use clap::Args;
use portolan::api::client::{Client, Failure};
use portolan::api::types::{
    DropEntry, FdbEntry, FlowEntry, GroupEntry, LeaseEntry, NameEntry, NetworkDetail,
};
use portolan::topology::for_people;
use portolan_switch::command::GroupKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::output::{self, Format, Row};
use super::{DaemonChoice, segment};

#[derive(Args, Debug)]
pub struct Asked {
    /// Name or id of a network; all networks unless given
    network: Option<String>,
    /// table, json, or a template such as '{{.Node}}'
    #[arg(long, default_value = "table")]
    format: Format,
}

#[derive(Args, Debug)]
pub struct Fdb {
    #[command(flatten)]
    asked: Asked,
    /// Who is sent which multicast groups, where these are snooped (portolan.snooping=on)
    #[arg(long)]
    groups: bool,
}

impl Fdb {
    pub fn fdb(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        if self.groups {
            return self.asked.groups(daemon);
        }
        self.asked.show(
            daemon,
            "fdb",
            &["NETWORK", "MAC ADDRESS", "VLAN", "NODE", "KIND", "AGE"],
            |e: &FdbEntry| {
                let vlan = if e.vlan == 0 { "-".into() } else { e.vlan.to_string() };
                let age = e.age.map_or_else(|| "-".into(), |seconds| format!("{seconds} s"));
                vec![e.mac_address.to_string(), vlan, e.node.clone(), e.kind.clone(), age]
            },
        )
    }
}

impl Asked {
    fn groups(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        if let Some(asked) = &self.network {
            let network: NetworkDetail =
                daemon.open()?.get(&format!("/v1/networks/{}", segment(asked)?))?;
            let chosen = network.options.get("portolan.snooping").map(String::as_str);
            if !matches!(chosen, Some("on" | "true")) {
                output::note(&format!(
                    "network {} sends multicast to everybody: whoever asks for a group is noted with -o portolan.snooping=on alone",
                    network.name
                ));
            }
        }
        self.show(
            daemon,
            "groups",
            &["NETWORK", "GROUP", "VLAN", "NODE", "KIND", "AGE"],
            |e: &GroupEntry| {
                let vlan = if e.vlan == 0 { "-".into() } else { e.vlan.to_string() };
                let group = match e.group {
                    _ if e.kind == GroupKind::Everything.name() => "all".into(),
                    all if all.is_unspecified() && all.is_ipv4() => "all (IGMP)".into(),
                    all if all.is_unspecified() => "all (MLD)".into(),
                    group => group.to_string(),
                };
                vec![group, vlan, e.node.clone(), e.kind.clone(), format!("{} s", e.age)]
            },
        )
    }

    pub fn leases(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        self.show(
            daemon,
            "leases",
            &["NETWORK", "ADDRESS", "MAC ADDRESS", "HOSTNAME", "NODE", "EXPIRES IN"],
            |e: &LeaseEntry| {
                let hostname = if e.hostname.is_empty() { "-" } else { &e.hostname };
                let expires = e.expires_in.map_or_else(|| "never".into(), for_people);
                vec![
                    e.ip_address.to_string(),
                    e.mac_address.to_string(),
                    hostname.into(),
                    e.node.clone(),
                    expires,
                ]
            },
        )
    }

    pub fn drops(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        self.show(
            daemon,
            "drops",
            &["NETWORK", "NODE", "REASON", "FRAMES", "MEANING"],
            |e: &DropEntry| {
                let node = if e.node.is_empty() { "(gone)" } else { &e.node };
                vec![node.into(), e.reason.clone(), e.frames.to_string(), e.meaning.clone()]
            },
        )
    }

    pub fn flows(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        self.show(
            daemon,
            "flows",
            &["NETWORK", "NODE", "PROTOCOL", "INSIDE", "OUTSIDE", "STATE", "IDLE", "PUBLISHED"],
            |e: &FlowEntry| {
                let outside = if e.outside.is_empty() { "*" } else { &e.outside };
                let published = if e.published { "yes" } else { "-" };
                vec![
                    e.node.clone(),
                    e.protocol.clone(),
                    e.inside.clone(),
                    outside.into(),
                    e.state.clone(),
                    format!("{} s", e.idle),
                    published.into(),
                ]
            },
        )
    }

    pub fn names(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        if let Some(asked) = &self.network {
            let path = format!("/v1/networks/{}", segment(asked)?);
            let network: NetworkDetail = daemon.open()?.get(&path)?;
            if !network.ipam.config.iter().any(|subnet| subnet.gateway.is_some()) {
                let name = &network.name;
                output::note(&format!(
                    "network {name} has no gateway, so nobody answers for names there"
                ));
            }
        }
        self.show(
            daemon,
            "names",
            &["NETWORK", "NAME", "KIND", "ADDRESSES", "NODE"],
            |e: &NameEntry| {
                let addresses: Vec<String> = e.addresses.iter().map(ToString::to_string).collect();
                vec![e.name.clone(), e.kind.clone(), addresses.join(", "), e.node.clone()]
            },
        )
    }

    fn show<T: DeserializeOwned + Serialize>(
        self,
        daemon: &DaemonChoice,
        what: &str,
        headers: &[&str],
        cells: impl Fn(&T) -> Vec<String>,
    ) -> Result<i32, Failure> {
        let client = daemon.open()?;
        let mut rows = Vec::new();
        for network in self.networks(&client)? {
            let path = format!("/v1/networks/{}/{what}", segment(&network)?);
            // It may have ended since it was found.
            let entries: Option<Vec<T>> = client.get_if_there(&path)?;
            for entry in &entries.unwrap_or_default() {
                let mut all = vec![network.clone()];
                all.extend(cells(entry));
                let mut row = Row::new(entry, all, Value::Null);
                if let (Value::Object(fields), Value::Object(more)) =
                    (&mut row.object, json!({ "Network": network }))
                {
                    fields.extend(more);
                }
                rows.push(row);
            }
        }
        output::list(&self.format, headers, &rows)?;
        Ok(0)
    }
}

impl Asked {
    /// The network asked for by its name, or all that the switch serves.
    fn networks(&self, client: &Client) -> Result<Vec<String>, Failure> {
        match &self.network {
            Some(asked) => {
                let network: NetworkDetail =
                    client.get(&format!("/v1/networks/{}", segment(asked)?))?;
                Ok(vec![network.name])
            }
            None => all_networks(client),
        }
    }
}

/// The names of the networks that the switch serves.
pub fn all_networks(client: &Client) -> Result<Vec<String>, Failure> {
    let all: Vec<NetworkDetail> = client.get("/v1/networks")?;
    let served = all.into_iter().filter(|n| !matches!(n.driver.as_str(), "host" | "null" | "none"));
    Ok(served.map(|network| network.name).collect())
}
