//! What `-p` asks for: which ports of the host lead to which of a node's.
//!
//! Every form that Docker takes is read: `80`, `8080:80`, `127.0.0.1:8080:80`, `127.0.0.1::80`, `[::1]:8080:80`, ranges on
//! either side, `/tcp` and `/udp`, and the long form `published=8080,target=80,protocol=udp,host_ip=127.0.0.1`. No address
//! means all of the host's, IPv4 and IPv6, on the same number.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use portolan_switch::command::Transport;
use serde::{Deserialize, Serialize};

/// Which of the host's ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostPorts {
    /// Those the kernel gives.
    Any,
    /// As many as the node's, from this one on.
    From(u16),
    /// One of these, the first that is free.
    OneOf(u16, u16),
}

/// One publication, as asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortWish {
    /// The host's address; all of them where there is none.
    pub address: Option<IpAddr>,
    /// The host's ports.
    pub host: HostPorts,
    /// The first of the node's ports.
    pub node_port: u16,
    /// How many ports.
    pub count: u16,
    /// Which transport.
    pub transport: Transport,
}

/// The word for a transport.
pub fn transport_word(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

/// Reads a transport's word, in any case.
///
/// # Errors
/// In words, where it is none that can be published.
fn transport_of(word: &str) -> Result<Transport, String> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        "sctp" => Err("sctp cannot be published: sockets of the host carry tcp and udp".into()),
        _ => Err(format!("{word:?} is neither tcp nor udp")),
    }
}

/// `first` or `first-last`.
fn shown(first: u16, last: u16) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// The number of a port's text, 0 included.
fn number(text: &str) -> Result<u16, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| format!("{text:?} is not a port of 1 to 65535"))
}

/// Reads `80` or `80-90`.
fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first == 0 {
        Err("there is no port 0".into())
    } else if last < first {
        Err(format!("the range {text} ends before it begins"))
    } else {
        Ok((first, last))
    }
}

/// How many ports a range holds; it begins at 1 at least.
fn width((first, last): (u16, u16)) -> u16 {
    (last - first).saturating_add(1)
}

fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address: IpAddr =
        bare.parse().map_err(|_| format!("{text:?} is not an address of the host"))?;
    let address = address.to_canonical();
    match address {
        _ if address.is_multicast() => Err(format!("{address} is the address of a group")),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Err(format!("{address} is link-local: give another address of the host, or none"))
        }
        _ => Ok(address),
    }
}

/// What an address without a port of the host comes to.
fn portless<T>(address: &str, node: &str) -> Result<T, String> {
    Err(format!("behind an address comes the host's port, which may be empty: {address}::{node}"))
}

/// The three parts of `[ADDRESS:][HOST:]NODE`, empty where they are not given.
fn parts(text: &str) -> Result<(&str, &str, &str), String> {
    let Some((rest, node)) = text.rsplit_once(':') else { return Ok(("", "", text)) };
    let Some((address, host)) = rest.rsplit_once(':') else {
        return if rest.parse::<IpAddr>().is_ok() {
            portless(rest, node)
        } else {
            Ok(("", rest, node))
        };
    };
    if address.starts_with('[') && host.ends_with(']') {
        return portless(rest, node);
    }
    if address.starts_with('[') && !address.ends_with(']') {
        Err("the bracket of its address is not closed before a colon".into())
    } else {
        Ok((address, host, node))
    }
}

/// What was read of a wish: each range by its ends.
struct Given {
    address: Option<IpAddr>,
    host: Option<(u16, u16)>,
    node: (u16, u16),
    transport: Transport,
}

fn settle(given: Given) -> Result<PortWish, String> {
    let Given { address, host, node, transport } = given;
    let count = width(node);
    let host = match host {
        None => HostPorts::Any,
        Some((first, _)) if width(host.unwrap_or(node)) == count => HostPorts::From(first),
        Some((first, last)) if count == 1 => HostPorts::OneOf(first, last),
        Some((first, last)) => {
            return Err(format!(
                "{} and {} are not equally many ports",
                shown(first, last),
                shown(node.0, node.1)
            ));
        }
    };
    Ok(PortWish { address, host, node_port: node.0, count, transport })
}

fn short_form(text: &str) -> Result<PortWish, String> {
    let (ports, transport) = match text.split_once('/') {
        // Docker reads no word as tcp.
        Some((ports, "")) => (ports, Transport::Tcp),
        Some((ports, word)) => (ports, transport_of(word)?),
        None => (text, Transport::Tcp),
    };
    let (host_ip, host, node) = parts(ports)?;
    let host_ip = if host_ip.is_empty() { None } else { Some(address(host_ip)?) };
    if node.is_empty() {
        return Err("the node's port is missing".into());
    }
    // Docker reads 0 as any.
    let host = if host.is_empty() || host == "0" { None } else { Some(range(host)?) };
    settle(Given { address: host_ip, host, node: range(node)?, transport })
}

/// `mode` is taken without effect: there is one host.
fn long_form(text: &str) -> Result<PortWish, String> {
    let (mut host_ip, mut host, mut node, mut transport) = (None, None, None, Transport::Tcp);
    for part in text.split(',') {
        let (key, value) =
            part.split_once('=').ok_or_else(|| format!("{part:?} is not of the form KEY=VALUE"))?;
        match key.to_ascii_lowercase().as_str() {
            "target" => node = Some(range(value)?),
            "published" if value == "0" => host = None,
            "published" => host = Some(range(value)?),
            "protocol" => transport = transport_of(value)?,
            "host_ip" => host_ip = Some(address(value)?),
            "mode" if ["host", "ingress"].contains(&value) => {}
            _ => {
                return Err(format!(
                    "{part:?} is none of target, published, protocol, host_ip, mode"
                ));
            }
        }
    }
    let node = node.ok_or("target= is missing: the node's port")?;
    settle(Given { address: host_ip, host, node, transport })
}

impl FromStr for PortWish {
    type Err = String;

    fn from_str(text: &str) -> Result<PortWish, String> {
        let read = if text.contains('=') { long_form(text) } else { short_form(text) };
        read.map_err(|why| {
            let text: String = text.chars().take(80).collect();
            format!("invalid port {text:?}: {why}")
        })
    }
}

impl TryFrom<String> for PortWish {
    type Error = String;

    fn try_from(text: String) -> Result<PortWish, String> {
        text.parse()
    }
}

impl From<PortWish> for String {
    fn from(wish: PortWish) -> String {
        wish.to_string()
    }
}

/// The address as it stands before a port: IPv6 in brackets.
pub fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

impl fmt::Display for PortWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{}:", bracketed(address))?;
        }
        match self.host {
            HostPorts::Any if self.address.is_some() => f.write_str(":")?,
            HostPorts::Any => {}
            HostPorts::From(first) => write!(f, "{}:", shown(first, self.last_after(first)))?,
            HostPorts::OneOf(first, last) => write!(f, "{}:", shown(first, last))?,
        }
        let node = shown(self.node_port, self.last_after(self.node_port));
        write!(f, "{node}/{}", transport_word(self.transport))
    }
}

impl PortWish {
    /// The last of as many ports from `first` on.
    fn last_after(&self, first: u16) -> u16 {
        first.saturating_add(self.count.saturating_sub(1))
    }

    /// The node's ports.
    pub fn node_ports(&self) -> RangeInclusive<u16> {
        self.node_port..=self.last_after(self.node_port)
    }

    /// The host's ports that it must have, where it says which.
    pub fn fixed_ports(&self) -> Option<RangeInclusive<u16>> {
        match self.host {
            HostPorts::From(first) => Some(first..=self.last_after(first)),
            HostPorts::OneOf(..) | HostPorts::Any => None,
        }
    }

    /// Whether both cannot be had: a port of the one is a port of the other, at an address of both.
    pub fn clashes(&self, other: &PortWish) -> bool {
        let (Some(ours), Some(theirs)) = (self.fixed_ports(), other.fixed_ports()) else {
            return false;
        };
        self.transport == other.transport
            && ours.start() <= theirs.end()
            && theirs.start() <= ours.end()
            && addresses_meet(self.address, other.address)
    }
}

/// Whether sockets at both addresses cannot share a port; no address means all of both families.
pub fn addresses_meet(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
        }
        _ => true,
    }
}

/// Reads several, as a request gives them.
///
/// # Errors
/// One line that names all that are wrong.
pub fn read_ports(texts: &[String]) -> Result<Vec<PortWish>, String> {
    let mut wrong = Vec::new();
    let read = |text: &String| text.parse().map_err(|why| wrong.push(why)).ok();
    let wishes: Vec<PortWish> = texts.iter().filter_map(read).collect();
    if wrong.is_empty() { Ok(wishes) } else { Err(wrong.join("; ")) }
}
