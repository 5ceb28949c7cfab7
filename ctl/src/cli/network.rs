//! `portolan network ...`

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::net::IpAddr;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use portolan::api::client::{Client, Failure};
use portolan::api::types::{
    ConnectRequest, DisconnectRequest, EndpointCreate, Ipam, IpamConfig, NetworkCreate,
    NetworkCreated, NetworkDetail,
};
use portolan::api::types::{Prune as PruneRequest, Pruned};
use serde_json::json;

use super::endpoint::{SingleArgs, label, pair};
use super::output::{self, Format, Row};
use super::{DaemonChoice, address, for_each, segment};

#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Make a network
    Create(Create),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(List),
    /// Show all about networks
    Inspect(Inspect),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(Remove),
    /// Remove all networks that no node is on
    Prune(Prune),
    /// Put a running node on a network
    Connect(Connect),
    /// Take a node off a network
    Disconnect(Disconnect),
}

/// Does one of them.
pub fn act(verb: Verb, daemon: &DaemonChoice) -> Result<i32, Failure> {
    match verb {
        Verb::Create(create) => create.act(daemon),
        Verb::Ls(list) => list.act(daemon),
        Verb::Inspect(inspect) => inspect.act(daemon),
        Verb::Rm(remove) => remove.act(daemon),
        Verb::Prune(prune) => prune.act(daemon),
        Verb::Connect(connect) => connect.act(daemon),
        Verb::Disconnect(disconnect) => disconnect.act(daemon),
    }
}

#[derive(Args, Debug)]
pub struct Create {
    /// Name of the network
    name: String,
    /// How it is made
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Subnet, such as 10.1.0.0/24 or fd00:1::/64; chosen from the default pools unless given
    #[arg(long, value_name = "CIDR", value_parser = address::prefix)]
    subnet: Vec<IpNet>,
    /// Part of a subnet that addresses are chosen from
    #[arg(long, value_name = "CIDR", value_parser = address::prefix)]
    ip_range: Vec<IpNet>,
    /// Gateway of a subnet; its first address unless given
    #[arg(long, value_name = "ADDRESS", value_parser = address::either)]
    gateway: Vec<IpAddr>,
    /// Address that is never given to a node
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = aux_address)]
    aux_address: Vec<(String, IpAddr)>,
    /// No way out
    #[arg(long)]
    internal: bool,
    /// Give it an IPv6 subnet too
    #[arg(long)]
    ipv6: bool,
    /// Whether it has IPv4
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    ipv4: bool,
    /// Taken for the sake of scripts: every network is attachable
    #[arg(long)]
    attachable: bool,
    /// Label for your own use
    #[arg(long, value_name = "K[=V]", value_parser = label)]
    label: Vec<(String, String)>,
    /// Option, each with what holds unless given first: portolan.guard=on|off, portolan.host_access=false|true,
    /// portolan.metadata=false|true, com.docker.network.driver.mtu=1500,
    /// portolan.filtering=address-dependent|address-and-port-dependent|endpoint-independent,
    /// portolan.mode=switch|hub|wire, portolan.storm=broadcast:1000,multicast:off,unknown:1000 or off,
    /// portolan.loop=block|tell|off, portolan.snooping=off|on, portolan.neighbors=flood|answer,
    /// portolan.dhcp=on|off, portolan.dhcp_range=CIDR or FIRST-LAST, portolan.dhcp_lease=1h,
    /// portolan.dhcp_relay=off|on, portolan.ra=managed|slaac|stateless|off, portolan.ra_routes=PREFIX,...,
    /// portolan.domain=NAME,...
    #[arg(short, long = "opt", value_name = "K=V", value_parser = pair)]
    opt: Vec<(String, String)>,
}

fn aux_address(text: &str) -> Result<(String, IpAddr), String> {
    let (name, address) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("NAME=ADDRESS is needed, as printer=10.1.0.7")?;
    Ok((name.to_owned(), address::either(address)?))
}

impl Create {
    fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let request = self.request()?;
        let made: NetworkCreated = daemon.open()?.post("/v1/networks", &request)?;
        made.warnings.iter().for_each(|warning| output::note(warning));
        output::line(&made.id);
        Ok(0)
    }

    fn request(self) -> Result<NetworkCreate, Failure> {
        let mut config: Vec<IpamConfig> = self
            .subnet
            .into_iter()
            .map(|subnet| IpamConfig {
                subnet,
                ip_range: None,
                gateway: None,
                aux_addresses: BTreeMap::new(),
            })
            .collect();
        for range in self.ip_range {
            let owner = owner(&mut config, range.addr(), "--ip-range")?;
            if owner.ip_range.replace(range).is_some() {
                return Err(Failure::new(format!(
                    "two --ip-range lie in {}; give one",
                    owner.subnet
                )));
            }
        }
        for gateway in self.gateway {
            let owner = owner(&mut config, gateway, "--gateway")?;
            if owner.gateway.replace(gateway).is_some() {
                return Err(Failure::new(format!(
                    "two --gateway lie in {}; give one",
                    owner.subnet
                )));
            }
        }
        for (name, address) in self.aux_address {
            owner(&mut config, address, "--aux-address")?.aux_addresses.insert(name, address);
        }
        Ok(NetworkCreate {
            name: self.name,
            driver: self.driver,
            ipam: Ipam { config },
            internal: self.internal,
            enable_ipv6: self.ipv6,
            enable_ipv4: self.ipv4,
            attachable: self.attachable,
            labels: self.label.into_iter().collect(),
            options: self.opt.into_iter().collect(),
        })
    }
}

/// The subnet that `address` lies in, among those given.
fn owner<'a>(
    config: &'a mut [IpamConfig],
    address: IpAddr,
    option: &str,
) -> Result<&'a mut IpamConfig, Failure> {
    config.iter_mut().find(|c| c.subnet.contains(&address)).ok_or_else(|| {
        Failure::new(format!(
            "{option} {address} lies in no --subnet; give the subnet that holds it"
        ))
    })
}

#[derive(Args, Debug)]
pub struct List {
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Show only what matches: name=, id=, driver=, label=K[=V], type=custom|builtin, dangling=true|false
    #[arg(short, long, value_name = "K=V", value_parser = pair)]
    filter: Vec<(String, String)>,
    /// table, json, or a template such as '{{.Name}}'
    #[arg(long, default_value = "table")]
    format: Format,
}

impl List {
    fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let mut networks: Vec<NetworkDetail> = daemon.open()?.get("/v1/networks")?;
        let mut kept = Vec::new();
        for network in networks.drain(..) {
            if matches(&network, &self.filter)? {
                kept.push(network);
            }
        }
        if self.quiet {
            kept.iter().for_each(|n| output::line(&output::short(&n.id, self.no_trunc)));
            return Ok(0);
        }
        let rows: Vec<Row> = kept.iter().map(|n| self.row(n)).collect();
        output::list(&self.format, &["NETWORK ID", "NAME", "DRIVER", "SCOPE", "SUBNET"], &rows)?;
        Ok(0)
    }

    fn row(&self, network: &NetworkDetail) -> Row {
        let id = output::short(&network.id, self.no_trunc);
        let subnets: Vec<String> =
            network.ipam.config.iter().map(|c| c.subnet.to_string()).collect();
        let labels: Vec<String> = network.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let extra = json!({
            "ID": id, "IPv4": network.enable_ipv4, "IPv6": network.enable_ipv6,
            "CreatedAt": network.created, "Subnet": subnets.join(","), "Labels": labels.join(","),
        });
        let cells = vec![
            id,
            network.name.clone(),
            network.driver.clone(),
            network.scope.clone(),
            subnets.join(", "),
        ];
        Row::new(network, cells, extra)
    }
}

/// Whether every key is met by one of its values, as Docker filters.
fn matches(network: &NetworkDetail, filter: &[(String, String)]) -> Result<bool, Failure> {
    let mut met: BTreeMap<&str, bool> = BTreeMap::new();
    for (key, value) in filter {
        let hit = match key.as_str() {
            "name" => network.name.contains(value.as_str()),
            "id" => network.id.starts_with(value.as_str()),
            "driver" => network.driver == *value,
            "scope" => network.scope == *value,
            "label" => has_label(&network.labels, value),
            "type" => (value == "builtin") == is_predefined(network),
            "dangling" => {
                (value == "true") == (network.containers.is_empty() && !is_predefined(network))
            }
            _ => {
                return Err(Failure::new(format!(
                    "there is no filter {key:?}; use name, id, driver, scope, label, type or dangling"
                )));
            }
        };
        // Every label must be there; of another key, one value suffices.
        let so_far = met.entry(key.as_str()).or_insert(key == "label");
        *so_far = if key == "label" { *so_far && hit } else { *so_far || hit };
    }
    Ok(met.values().all(|hit| *hit))
}

fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    }
}

fn is_predefined(network: &NetworkDetail) -> bool {
    matches!(network.name.as_str(), "bridge" | "host" | "none")
}

#[derive(Args, Debug)]
pub struct Inspect {
    /// Names or ids of networks
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// json, or a template such as '{{range .IPAM.Config}}{{.Subnet}}{{end}}'
    #[arg(short, long)]
    format: Option<Format>,
}

impl Inspect {
    fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let client = daemon.open()?;
        let mut found: Vec<NetworkDetail> = Vec::new();
        let code = for_each(&self.networks, |name| {
            found.push(client.get(&path(name)?)?);
            Ok(())
        });
        output::inspected(self.format.as_ref(), &found)?;
        Ok(code)
    }
}

fn path(name: &str) -> Result<String, Failure> {
    Ok(format!("/v1/networks/{}", segment(name)?))
}

#[derive(Args, Debug)]
pub struct Remove {
    /// Names or ids of networks
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// Disconnect the nodes that are on it first
    #[arg(short, long)]
    force: bool,
}

impl Remove {
    fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let client = daemon.open()?;
        Ok(for_each(&self.networks, |name| {
            client.delete::<()>(&format!("{}?force={}", path(name)?, self.force))?;
            output::line(name);
            Ok(())
        }))
    }
}

#[derive(Args, Debug)]
pub struct Prune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove only networks that bear it: label=K[=V]
    #[arg(long, value_name = "K=V", value_parser = pair)]
    filter: Vec<(String, String)>,
}

impl Prune {
    fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        if let Some((key, _)) = self.filter.iter().find(|(key, _)| key != "label") {
            return Err(Failure::new(format!(
                "there is no filter {key:?} here; use label=K or label=K=V"
            )));
        }
        if !self.force && !agreed("This removes all networks that no node is on. Go on? [y/N] ")? {
            return Ok(0);
        }
        let labels = self.filter.into_iter().map(|(_, label)| label).collect();
        let gone: Pruned = daemon.open()?.post("/v1/networks/prune", &PruneRequest { labels })?;
        gone.networks_deleted.iter().for_each(|name| output::line(name));
        Ok(0)
    }
}

/// Asks the user at the terminal.
fn agreed(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("nobody is at the terminal to be asked; use -f"));
    }
    eprint!("{question}");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|e| Failure::new(format!("cannot read the answer: {e}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[derive(Args, Debug)]
pub struct Connect {
    #[command(flatten)]
    single: SingleArgs,
    /// One more name of the node there
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// The highest gives the default route and is asked first for names
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true, value_parser = address::whole)]
    gw_priority: i64,
    /// Name or id of the network
    network: String,
    /// Name or id of the node
    node: String,
}

impl Connect {
    fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let endpoint = EndpointCreate {
            network: self.network.clone(),
            aliases: self.alias,
            gw_priority: self.gw_priority,
            ..EndpointCreate::default()
        };
        let request =
            ConnectRequest { container: self.node, endpoint_config: self.single.on(endpoint) };
        let client: Client = daemon.open()?;
        let warnings: Vec<String> =
            client.post(&format!("{}/connect", path(&self.network)?), &request)?;
        warnings.iter().for_each(|warning| output::note(warning));
        Ok(0)
    }
}

#[derive(Args, Debug)]
pub struct Disconnect {
    /// Also where the node is gone
    #[arg(short, long)]
    force: bool,
    /// Name or id of the network
    network: String,
    /// Name or id of the node
    node: String,
}

impl Disconnect {
    fn act(self, daemon: &DaemonChoice) -> Result<i32, Failure> {
        let request = DisconnectRequest { container: self.node, force: self.force };
        let warnings: Vec<String> =
            daemon.open()?.post(&format!("{}/disconnect", path(&self.network)?), &request)?;
        warnings.iter().for_each(|warning| output::note(warning));
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        create: Create,
    }

    fn request(arguments: &[&str]) -> Result<NetworkCreate, Failure> {
        Only::try_parse_from([&["create"], arguments].concat()).unwrap().create.request()
    }

    #[test]
    fn gateways_and_ranges_go_to_the_subnet_that_holds_them() {
        let made = request(&[
            "--subnet",
            "10.1.0.0/24",
            "--subnet",
            "fd00:1::/64",
            "--gateway",
            "fd00:1::9",
            "--gateway",
            "10.1.0.254",
            "--ip-range",
            "10.1.0.128/25",
            "--aux-address",
            "printer=10.1.0.7",
            "--ipv4=true",
            "--label",
            "a",
            "-o",
            "portolan.guard=off",
            "app",
        ])
        .unwrap();
        let [four, six] = made.ipam.config.as_slice() else { panic!("{:?}", made.ipam) };
        assert_eq!(four.gateway, Some("10.1.0.254".parse().unwrap()));
        assert_eq!(four.ip_range, Some("10.1.0.128/25".parse().unwrap()));
        assert_eq!(four.aux_addresses.get("printer"), Some(&"10.1.0.7".parse().unwrap()));
        assert_eq!(six.gateway, Some("fd00:1::9".parse().unwrap()));
        assert_eq!(made.labels.get("a").map(String::as_str), Some(""));
        assert_eq!(made.options.get("portolan.guard").map(String::as_str), Some("off"));
        assert!(!request(&["--ipv4=false", "--ipv6", "six"]).unwrap().enable_ipv4);
    }

    #[test]
    fn what_lies_in_no_subnet_is_refused_with_the_way_out() {
        let error = request(&["--gateway", "10.2.0.1", "app"]).unwrap_err();
        assert_eq!(
            error.message,
            "--gateway 10.2.0.1 lies in no --subnet; give the subnet that holds it"
        );
        assert_eq!(error.code, 1);
    }
}
