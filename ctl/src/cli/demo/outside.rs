//! The demo's way out to the host, and the ports of the host that lead in.
//!
//! The host's part is this process, which serves on one address of each family that the host has beside loopback, and on
//! loopback. Where there is no such address, what needs one is skipped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use super::{Demo, Outcome, PORT, Step, Stop, broken};
use crate::cli::demo_program::{SEES, WHO, serve_here};

/// What the server on the host's own addresses says.
const HOST_SAYS: &str = "the host: 3 charts in stock";

/// What the one on the host's loopback says.
const LOOPBACK_SAYS: &str = "the host's loopback: 3 charts in stock";

/// The name that leads to the host's loopback where that is opened.
const HOST_NAME: &str = "host.portolan.internal";

/// Why a step is skipped that needs an address of the host.
const NO_ADDRESS: &str = "this host has no address but loopback and link-local ones";

/// Where the demo serves on the host.
pub struct Host {
    /// At most one of each family.
    own: Vec<SocketAddr>,
    loopback: Option<SocketAddr>,
}

impl Host {
    /// Serves from now on, while this process lives.
    pub fn serve() -> Host {
        let addresses = own_addresses();
        let one = |ipv6: bool| {
            let family = addresses.iter().filter(|address| address.is_ipv6() == ipv6);
            family.flat_map(|address| serve_here("the host", *address)).next()
        };
        let own = [one(false), one(true)].into_iter().flatten().collect();
        Host { own, loopback: serve_here("the host's loopback", Ipv4Addr::LOCALHOST.into()).ok() }
    }

    /// Whether IPv6 can be shown.
    pub fn has_ipv6(&self) -> bool {
        self.own.iter().any(SocketAddr::is_ipv6)
    }

    /// An address of the host that leads to every node's published ports.
    fn any(&self) -> IpAddr {
        let own = self.own.iter().map(SocketAddr::ip).find(IpAddr::is_ipv4);
        own.unwrap_or(Ipv4Addr::LOCALHOST.into())
    }
}

/// The addresses by which others would reach this host.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| interface.address.as_ref().and_then(ip))
        .filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        })
        .collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// By which address a node sees a client.
#[derive(Clone, Copy)]
enum Seen {
    /// Its own, and its own port.
    AsItIs,
    /// This one, by whatever port.
    As(IpAddr),
}

/// Ports of the host that lead to a node.
struct Ports {
    tcp: u16,
    udp: u16,
}

impl Demo {
    /// How nodes reach the host, and what of it they do not reach.
    pub fn way_out(&mut self) -> Step {
        self.chapter("The way out, as if you yourself connected");
        if self.host.own.is_empty() {
            self.skip("visitor -> the host", NO_ADDRESS);
        }
        for own in self.host.own.clone() {
            let what = format!("visitor -> {own}");
            let by_tcp = self.gets(&what, Some("visitor"), &format!("http://{own}/"), HOST_SAYS)?;
            let by_udp = self.gets(&what, Some("visitor"), &format!("udp://{own}/"), HOST_SAYS)?;
            self.tell(by_tcp + by_udp, &what, &format!("{HOST_SAYS}, by TCP and by UDP"));
        }
        let Some(loopback) = self.host.loopback else {
            self.skip("the host's loopback", "nothing can be served there");
            return Ok(());
        };
        let port = loopback.port();
        let shut = format!("http://{loopback}/");
        self.gets_nothing("visitor -x- the host's loopback", Some("visitor"), &shut)?;
        let named = format!("http://{HOST_NAME}:{port}/");
        self.gets_nothing("visitor -x- it by its name", Some("visitor"), &named)?;
        self.network("dev", &["-o", "portolan.host_access=true"])?;
        self.node("guest", &["--network", "dev"], None)?;
        let what = format!("guest -> {HOST_NAME}");
        let took = self.gets(&what, Some("guest"), &named, LOOPBACK_SAYS)?;
        self.tell(took, &what, LOOPBACK_SAYS);
        Ok(())
    }

    /// How the host and nodes reach a node by the host's ports, and as whom it sees them.
    pub fn ways_in(&mut self) -> Step {
        self.chapter("Ports of the host that lead in, and whom the node sees");
        let web = self.ports("web")?;
        let gateway = self.gateway("web", "front")?;
        let local: IpAddr = Ipv4Addr::LOCALHOST.into();
        self.is_seen(None, "web", local, &web, Seen::As(gateway))?;
        let own: Vec<IpAddr> = self.host.own.iter().map(SocketAddr::ip).collect();
        if own.is_empty() {
            self.skip("host -> its own address", NO_ADDRESS);
        }
        for address in &own {
            self.is_seen(None, "web", *address, &web, Seen::AsItIs)?;
        }
        if let Some(address) = own.first() {
            self.is_seen(Some("visitor"), "web", *address, &web, Seen::As(*address))?;
        }

        let ports = [PORT, "8000/udp"];
        self.does("db is published, live", &[&["publish", "db"], &ports[..]].concat())?;
        let db = self.ports("db")?;
        let any = self.host.any();
        let seen =
            if any.is_loopback() { Seen::As(self.gateway("db", "back")?) } else { Seen::AsItIs };
        self.is_seen(None, "db", any, &db, seen)?;
        self.does("db is taken back, live", &[&["unpublish", "db"], &ports[..]].concat())?;
        for (scheme, port, by) in [("http", db.tcp, ""), ("udp", db.udp, ", by UDP")] {
            let place = SocketAddr::new(any, port);
            let what = format!("host -x- {place}{by}");
            self.gets_nothing(&what, None, &format!("{scheme}://{place}/"))?;
        }
        self.is_seen(None, "web", local, &web, Seen::As(gateway))
    }

    /// The gateway that a node sees on a network.
    fn gateway(&mut self, node: &str, network: &str) -> Result<IpAddr, Stop> {
        let template = format!("{{{{.NetworkSettings.Networks.{network}.Gateway}}}}");
        let gateway = self.ask(&["inspect", node, "-f", &template])?;
        gateway
            .parse()
            .map_err(|_| Stop::Broken(format!("{node} has no gateway on {network}: {gateway:?}")))
    }

    fn ports(&mut self, node: &str) -> Result<Ports, Stop> {
        Ok(Ports { tcp: self.port(node, PORT)?, udp: self.port(node, "8000/udp")? })
    }

    /// The host's port that leads to one of a node's.
    fn port(&mut self, node: &str, port: &str) -> Result<u16, Stop> {
        let shown = self.ask(&["port", node, port])?;
        let first = shown.lines().next().and_then(|line| line.parse::<SocketAddr>().ok());
        let wrong = || Stop::Broken(format!("{node}'s port {port} leads from nowhere: {shown:?}"));
        first.map(|place| place.port()).ok_or_else(wrong)
    }

    /// `node` must see who asks it by TCP and by UDP, from a node or the host itself, as expected.
    fn is_seen(
        &mut self,
        from: Option<&str>,
        node: &str,
        to: IpAddr,
        ports: &Ports,
        expected: Seen,
    ) -> Step {
        let what = format!("{} -> {}", from.unwrap_or("host"), SocketAddr::new(to, ports.tcp));
        let mut took = Duration::ZERO;
        let mut seen = Vec::new();
        for (scheme, port) in [("http", ports.tcp), ("udp", ports.udp)] {
            let url = format!("{scheme}://{}{WHO}", SocketAddr::new(to, port));
            let outcome = self.fetch(from, &[&url, "--own"])?;
            seen.push(client(&what, node, &outcome, expected)?);
            took += outcome.took;
        }
        let seen: Vec<String> = seen.iter().map(SocketAddr::to_string).collect();
        self.tell(took, &what, &format!("{node}{SEES}{}", seen.join(", by UDP ")));
        Ok(())
    }
}

/// Whom a node said it sees, which must be as expected.
fn client(what: &str, node: &str, outcome: &Outcome, expected: Seen) -> Result<SocketAddr, Stop> {
    if outcome.code != 0 {
        return Err(broken(what, outcome));
    }
    let mut lines = outcome.stdout.lines();
    let seen =
        lines.next().and_then(|line| line.strip_prefix(node)?.strip_prefix(SEES)?.parse().ok());
    let own: Option<SocketAddr> = lines.next().and_then(|line| line.parse().ok());
    match (seen, own) {
        (Some(seen), Some(own)) if expected.is(seen, own) => Ok(seen),
        _ => Err(Stop::Broken(format!(
            "{what} answered {:?}, which is not whom it should see",
            outcome.stdout.trim()
        ))),
    }
}

impl Seen {
    /// Whether a client that is `own` is seen so.
    fn is(self, seen: SocketAddr, own: SocketAddr) -> bool {
        match self {
            Seen::AsItIs => seen == own,
            Seen::As(address) => seen.ip() == address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stdout: &str) -> Outcome {
        let (stdout, stderr) = (stdout.to_owned(), String::new());
        Outcome { code: 0, stdout, stderr, took: Duration::ZERO }
    }

    #[test]
    fn a_client_is_whom_the_node_should_see() {
        let same = told("web: you are 192.0.2.2:5000\n192.0.2.2:5000\n");
        let other = told("web: you are 192.0.2.2:5001\n192.0.2.2:5000\n");
        let nobody = told("web: 3 charts in stock\n192.0.2.2:5000\n");
        let gateway = Seen::As("192.0.2.2".parse().unwrap());
        let is = |outcome, expected| client("x", "web", outcome, expected).is_ok();
        assert!(is(&same, Seen::AsItIs) && is(&same, gateway) && is(&other, gateway));
        assert!(!is(&other, Seen::AsItIs) && !is(&nobody, gateway));
        assert!(!is(&same, Seen::As("172.18.0.1".parse().unwrap())));
    }

    #[test]
    fn loopback_is_no_address_by_which_others_reach_the_host() {
        assert!(!own_addresses().iter().any(IpAddr::is_loopback));
    }
}
