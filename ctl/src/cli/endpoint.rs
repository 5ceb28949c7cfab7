//! How an endpoint is written on the command line: `--network NET[,ip=..,ip6=..,mac-address=..,alias=..,gw-priority=..,driver-opt=K=V]`.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::{Args, ValueEnum};
use portolan::api::types::EndpointCreate;
use portolan_switch::ids::MacAddr;

use super::address;

/// The options of `run` and `attach` that make endpoints.
#[derive(Args, Debug)]
pub struct EndpointArgs {
    /// Network to be on, with options: NET[,ip=A][,ip6=A][,mac-address=M][,alias=N][,gw-priority=N][,driver-opt=K=V]
    #[arg(long = "network", alias = "net", value_name = "NET[,K=V...]", value_parser = parse)]
    networks: Vec<EndpointCreate>,
    /// One more name on the first network
    #[arg(long, value_name = "NAME")]
    network_alias: Vec<String>,
    #[command(flatten)]
    single: SingleArgs,
}

/// What the interface of an endpoint is made of.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum Wire {
    Veth,
    Tap,
}

impl Wire {
    /// Makes it the choice of an endpoint whose own options make none.
    fn choose(self, endpoint: &mut EndpointCreate) {
        let word = match self {
            Wire::Veth => "veth",
            Wire::Tap => "tap",
        };
        endpoint.driver_opts.entry("portolan.wire".into()).or_insert_with(|| word.into());
    }
}

/// What is said of one endpoint: of the first of `run` and `attach`, and of that of `network connect`.
#[derive(Args, Clone, Debug, Default)]
pub struct SingleArgs {
    /// IPv4 address on the (first) network
    #[arg(long, value_name = "ADDRESS", value_parser = address::ipv4)]
    ip: Option<Ipv4Addr>,
    /// IPv6 address on the (first) network
    #[arg(long, value_name = "ADDRESS", value_parser = address::ipv6)]
    ip6: Option<Ipv6Addr>,
    /// Hardware address on the (first) network
    #[arg(long, value_name = "MAC")]
    mac_address: Option<MacAddr>,
    /// Option on the (first) network: portolan.vlan=access:ID, trunk:ID,FIRST-LAST,native:ID or tunnel:ID,
    /// portolan.isolated=on, portolan.stations=MAC,..., portolan.storm=KIND:LIMIT,..., portolan.wire=veth|tap,
    /// portolan.configure=on|off
    #[arg(long, value_name = "K=V", value_parser = pair)]
    driver_opt: Vec<(String, String)>,
    /// What interfaces are made of: veth pairs, or TAP devices, which need a /dev/net/tun that may be opened; veth unless given
    #[arg(long, value_name = "KIND")]
    wire: Option<Wire>,
}

impl SingleArgs {
    /// The endpoint with what was given.
    pub fn on(self, endpoint: EndpointCreate) -> EndpointCreate {
        let mut endpoint = EndpointCreate {
            ipv4: self.ip.or(endpoint.ipv4),
            ipv6: self.ip6.or(endpoint.ipv6),
            mac_address: self.mac_address.or(endpoint.mac_address),
            ..endpoint
        };
        endpoint.driver_opts.extend(self.driver_opt);
        self.wire.into_iter().for_each(|wire| wire.choose(&mut endpoint));
        endpoint
    }
}

impl EndpointArgs {
    /// The endpoints in the order given; `bridge` where none was.
    pub fn endpoints(self) -> Vec<EndpointCreate> {
        let mut endpoints = self.networks;
        if endpoints.is_empty() {
            endpoints
                .push(EndpointCreate { network: "bridge".into(), ..EndpointCreate::default() });
        }
        let wire = self.single.wire;
        if let Some(first) = endpoints.first_mut() {
            first.aliases.extend(self.network_alias);
            *first = self.single.on(std::mem::take(first));
        }
        if let Some(wire) = wire {
            endpoints.iter_mut().for_each(|endpoint| wire.choose(endpoint));
        }
        endpoints
    }
}

/// Parts a value at its commas, but for those within double quotes, which stand around a whole field (RFC 4180, section 2), as
/// Docker has it: `app,"driver-opt=portolan.vlan=trunk:10,20"`.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut rest) = (Vec::new(), text);
    loop {
        let Some(mut quoted) = rest.strip_prefix('"') else {
            let (field, more) = rest.split_once(',').map_or((rest, None), |(f, r)| (f, Some(r)));
            fields.push(field.to_owned());
            let Some(more) = more else { return Ok(fields) };
            rest = more;
            continue;
        };
        let mut field = String::new();
        loop {
            let (part, more) = quoted
                .split_once('"')
                .ok_or_else(|| format!("a double quote is not closed in {text:?}"))?;
            field.push_str(part);
            match more.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    quoted = more;
                }
                None => {
                    quoted = more;
                    break;
                }
            }
        }
        fields.push(field);
        match quoted.strip_prefix(',') {
            Some(more) => rest = more,
            None if quoted.is_empty() => return Ok(fields),
            None => return Err(format!("a comma is needed behind a double quote in {text:?}")),
        }
    }
}

/// Reads the value of one `--network`. Docker's long form, `name=NET,alias=N`, is taken too.
fn parse(text: &str) -> Result<EndpointCreate, String> {
    let mut endpoint = EndpointCreate::default();
    for (i, part) in fields(text)?.iter().enumerate() {
        let (key, value) = match part.split_once('=') {
            None if i == 0 => ("name", part.as_str()),
            None => return Err(format!("{part:?} is not of the form KEY=VALUE")),
            Some(pair) => pair,
        };
        match key {
            "name" => endpoint.network = value.to_owned(),
            "ip" => endpoint.ipv4 = Some(word(part, address::ipv4(value))?),
            "ip6" => endpoint.ipv6 = Some(word(part, address::ipv6(value))?),
            "mac-address" => endpoint.mac_address = Some(word(part, value.parse())?),
            "alias" => endpoint.aliases.push(value.to_owned()),
            "gw-priority" => endpoint.gw_priority = word(part, address::whole(value))?,
            "driver-opt" => {
                let (name, value) = pair(value)?;
                endpoint.driver_opts.insert(name, value);
            }
            _ => {
                return Err(format!(
                    "{key:?} is none of ip, ip6, mac-address, alias, gw-priority, driver-opt"
                ));
            }
        }
    }
    if endpoint.network.is_empty() {
        Err("the network's name is missing".into())
    } else {
        Ok(endpoint)
    }
}

/// What was read of one field, or what is wrong with it.
fn word<T>(field: &str, read: Result<T, String>) -> Result<T, String> {
    read.map_err(|why| format!("{field}: {why}"))
}

/// Reads `KEY=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    if key.is_empty() {
        return Err(format!("{text:?} has no key"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Reads `KEY[=VALUE]`.
pub fn label(text: &str) -> Result<(String, String), String> {
    if text.contains('=') { pair(text) } else { Ok((text.to_owned(), String::new())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_takes_all_its_options() {
        let text = "app,ip=10.0.0.2,ip6=fd00::2,mac-address=02:00:00:00:00:02,alias=a,alias=b,gw-priority=-3,driver-opt=x=y=z";
        let endpoint = parse(text).unwrap();
        assert_eq!(endpoint.network, "app");
        assert_eq!(endpoint.ipv4, Some(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(endpoint.ipv6, Some("fd00::2".parse().unwrap()));
        assert_eq!(endpoint.mac_address, Some(MacAddr([2, 0, 0, 0, 0, 2])));
        assert_eq!(endpoint.aliases, ["a", "b"]);
        assert_eq!(endpoint.gw_priority, -3);
        assert_eq!(endpoint.driver_opts.get("x").map(String::as_str), Some("y=z"));
        assert_eq!(parse("name=app,alias=a").unwrap().network, "app");
    }

    #[test]
    fn fields_with_commas_stand_in_double_quotes() {
        let endpoint =
            parse(r#"app,"driver-opt=portolan.vlan=trunk:10,20",alias=a,"alias=b""c""#).unwrap();
        assert_eq!(endpoint.driver_opts["portolan.vlan"], "trunk:10,20");
        assert_eq!(endpoint.aliases, ["a", "b\"c"]);
        assert_eq!(
            parse(r#"app,"alias=a"#).unwrap_err(),
            r#"a double quote is not closed in "app,\"alias=a""#
        );
        assert_eq!(
            parse(r#"app,"alias=a"b"#).unwrap_err(),
            r#"a comma is needed behind a double quote in "app,\"alias=a\"b""#
        );
    }

    #[test]
    fn what_is_wrong_in_a_network_is_named() {
        assert_eq!(parse("").unwrap_err(), "the network's name is missing");
        assert_eq!(
            parse("app,ipp=1").unwrap_err(),
            "\"ipp\" is none of ip, ip6, mac-address, alias, gw-priority, driver-opt"
        );
        assert_eq!(parse("app,alias").unwrap_err(), "\"alias\" is not of the form KEY=VALUE");
        for (field, needed) in [
            ("ip=300.0.0.1", "an IPv4 address like 10.1.0.5 is needed"),
            ("ip=fd00::1", "this is an IPv6 address, which goes to ip6"),
            ("ip6=fd00::g", "an IPv6 address like fd00:1::5 is needed"),
            ("mac-address=1", "\"1\" is not a hardware address like 02:42:ac:11:00:02"),
            ("gw-priority=high", "a whole number is needed"),
        ] {
            assert_eq!(parse(&format!("app,{field}")).unwrap_err(), format!("{field}: {needed}"));
        }
    }

    #[test]
    fn single_options_apply_to_the_first_network() {
        let args = EndpointArgs {
            networks: vec![
                parse("a,alias=x").unwrap(),
                parse("b").unwrap(),
                parse("c,driver-opt=portolan.wire=veth").unwrap(),
            ],
            network_alias: vec!["y".into()],
            single: SingleArgs {
                ip: Some(Ipv4Addr::new(10, 0, 0, 9)),
                driver_opt: vec![("portolan.isolated".into(), "on".into())],
                wire: Some(Wire::Tap),
                ..SingleArgs::default()
            },
        };
        let endpoints = args.endpoints();
        assert_eq!(endpoints[0].aliases, ["x", "y"]);
        assert_eq!(endpoints[0].driver_opts["portolan.isolated"], "on");
        assert_eq!(endpoints[0].ipv4, Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(endpoints[1].ipv4, None);
        assert!(endpoints[1].aliases.is_empty());
        let wires = endpoints.iter().map(|endpoint| endpoint.driver_opts["portolan.wire"].as_str());
        assert_eq!(
            wires.collect::<Vec<_>>(),
            ["tap", "tap", "veth"],
            "for all that say nothing else"
        );
    }
}
