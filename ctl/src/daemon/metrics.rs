//! What `GET /metrics` tells: how the daemon, its networks and their ports fare, for Prometheus.
//!
//! A scrape asks the dataplane one small question, and one of each network for its counters. What a guest does cannot make
//! more samples: labels are names that the user gave, interfaces, and the fixed words of reasons and transports. Ports are
//! told one by one up to [`PORTS_MAX`]; of those beyond there is only the number. Everything begins anew with the daemon's
//! process, whose start is told, as Prometheus expects of counters.

use std::collections::BTreeMap;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::unistd::{SysconfVar, sysconf};
use portolan_switch::command::{Answer, PortCounters, Query, Tally};
use portolan_switch::drops::DropCounts;
use portolan_switch::ids::{NetworkId, PortId};

use super::{Daemon, internal};
use crate::api::exposition::{Kind, Page};
use crate::topology::Refusal;

/// Ports that are told one by one: four samples each, and one for each reason that struck it.
const PORTS_MAX: usize = 4096;

/// What the control side knows.
struct Wanted {
    networks: Vec<(NetworkId, String)>,
    ports: BTreeMap<PortId, Place>,
    running: usize,
    exited: usize,
    /// Bytes of all rings.
    rings: usize,
}

/// Where a port is.
struct Place {
    node: String,
    interface: String,
}

/// What a network's ports have seen.
struct Counted {
    name: String,
    ports: Vec<PortCounters>,
    departed: DropCounts,
}

impl Daemon {
    /// The page of metrics.
    pub async fn metrics(&self) -> Result<String, Refusal> {
        let silent = || internal("the dataplane does not answer; look at daemon.log");
        let wanted = self.wanted().await;
        let Some(Answer::Tally(tally)) = self.plane.ask(Query::Tally).await else {
            return Err(silent());
        };
        let mut counted = Vec::new();
        for (id, name) in &wanted.networks {
            match self.plane.ask(Query::Counters(*id)).await {
                Some(Answer::Counters { ports, departed }) => {
                    counted.push(Counted { name: name.clone(), ports, departed });
                }
                // It has gone since.
                Some(_) => {}
                None => return Err(silent()),
            }
        }
        let mut page = Page::default();
        self.tell_daemon(&mut page, &wanted);
        self.tell_tables(&mut page, &wanted, &tally);
        tell_ports(&mut page, &wanted, &counted);
        tell_drops(&mut page, &wanted, &counted, &tally.adrift);
        tell_process(&mut page);
        Ok(page.finish())
    }

    async fn wanted(&self) -> Wanted {
        let control = self.control.lock().await;
        let mut ports = BTreeMap::new();
        for node in control.topology.nodes() {
            for endpoint in &node.endpoints {
                let place =
                    || Place { node: node.name.clone(), interface: endpoint.ifname.clone() };
                ports.extend(endpoint.port.map(|port| (port, place())));
            }
        }
        let networks = control.topology.networks();
        let mut networks: Vec<_> = networks.map(|n| (n.network_id(), n.name.clone())).collect();
        networks.sort_by(|a, b| a.1.cmp(&b.1));
        let running = control.topology.nodes().filter(|node| node.running()).count();
        Wanted {
            networks,
            ports,
            running,
            exited: control.topology.nodes().len() - running,
            rings: control
                .wires
                .values()
                .filter_map(|wire| wire.note.shape)
                .map(|shape| shape.bytes())
                .sum(),
        }
    }

    fn tell_daemon(&self, page: &mut Page, wanted: &Wanted) {
        use Kind::{Counter, Gauge};
        let mut info =
            page.family("portolan_build_info", Gauge, "Which Portolan this is; always 1.");
        let uplink = self.uplink.to_string();
        info.sample(&[("version", env!("CARGO_PKG_VERSION")), ("uplink", &uplink)], 1_u64);
        let started = self.started.0 as f64 / 1e9;
        let help = "When the daemon began to serve, in seconds since 1970.";
        page.single("portolan_start_time_seconds", Gauge, help, started);
        let help = "Times the keeper had to start the daemon anew.";
        page.single("portolan_restarts_total", Counter, help, self.restarts);
        let help = "Events of the dataplane that found no room.";
        page.single("portolan_events_lost_total", Counter, help, self.plane.events_lost());
        let (captures, lost) = self.captures.tally();
        page.single("portolan_captures", Gauge, "Captures that run.", captures);
        let help = "Frames that captures had no room for, because they were read too slowly.";
        page.single("portolan_capture_lost_frames_total", Counter, help, lost);
        page.single("portolan_networks", Gauge, "Networks there are.", wanted.networks.len());
        let mut nodes = page.family("portolan_nodes", Gauge, "Nodes there are.");
        nodes.sample(&[("state", "running")], wanted.running);
        nodes.sample(&[("state", "exited")], wanted.exited);
        page.single("portolan_ports", Gauge, "Endpoints that are wired.", wanted.ports.len());
        let help = "Memory of the rings of all wires.";
        page.single("portolan_ring_memory_bytes", Gauge, help, wanted.rings);
    }

    fn tell_tables(&self, page: &mut Page, wanted: &Wanted, tally: &Tally) {
        use Kind::Gauge;
        let names: BTreeMap<_, _> = wanted.networks.iter().map(|(id, name)| (*id, name)).collect();
        let rows = || {
            let named = |row| Some((names.get(&row)?.as_str(), row));
            tally.networks.iter().filter_map(move |row| Some((named(row.network)?.0, row)))
        };
        let help = "Stations in the forwarding table, those of endpoints among them.";
        let mut stations = page.family("portolan_fdb_entries", Gauge, help);
        rows().for_each(|(name, row)| stations.sample(&[("network", name)], row.stations));
        let help = "Addresses that DHCP has given out.";
        let mut leases = page.family("portolan_leases", Gauge, help);
        rows().for_each(|(name, row)| leases.sample(&[("network", name)], row.leases));
        let help = "Flows through the host's sockets.";
        let mut flows = page.family("portolan_flows", Gauge, help);
        for (transport, count) in [("tcp", tally.tcp), ("udp", tally.udp), ("icmp", tally.echo)] {
            flows.sample(&[("transport", transport)], count);
        }
        let help = "Flows there may be at once.";
        let mut limits = page.family("portolan_flows_limit", Gauge, help);
        let most = super::flows_max(self.limits, |limits| limits.flows);
        for (transport, count) in [("tcp", most.tcp), ("udp", most.udp), ("icmp", most.echo)] {
            limits.sample(&[("transport", transport)], count);
        }
        let help = "DNS connections that are open at the gateways.";
        page.single("portolan_dns_connections", Gauge, help, tally.dns_connections);
    }
}

/// The ports that are told one by one, with their labels.
fn told<'a>(
    wanted: &'a Wanted,
    counted: &'a [Counted],
) -> impl Iterator<Item = ([(&'static str, &'a str); 3], &'a PortCounters)> {
    let rows =
        counted.iter().flat_map(|network| network.ports.iter().map(move |row| (network, row)));
    let labelled = move |(network, row): (&'a Counted, &'a PortCounters)| {
        let place = wanted.ports.get(&row.port)?;
        let labels = [
            ("network", network.name.as_str()),
            ("node", place.node.as_str()),
            ("interface", place.interface.as_str()),
        ];
        Some((labels, row))
    };
    rows.filter_map(labelled).take(PORTS_MAX)
}

fn tell_ports(page: &mut Page, wanted: &Wanted, counted: &[Counted]) {
    use Kind::{Counter, Gauge};
    let with = |labels: [(&'static str, _); 3], direction| {
        let [network, node, interface] = labels;
        [network, node, interface, ("direction", direction)]
    };
    let help = "Frames from and to a node; a superframe counts as its segments.";
    let mut frames = page.family("portolan_port_frames_total", Counter, help);
    for (labels, row) in told(wanted, counted) {
        frames.sample(&with(labels, "from_node"), row.rx_frames);
        frames.sample(&with(labels, "to_node"), row.tx_frames);
    }
    let help = "Bytes of the frames from and to a node.";
    let mut bytes = page.family("portolan_port_bytes_total", Counter, help);
    for (labels, row) in told(wanted, counted) {
        bytes.sample(&with(labels, "from_node"), row.rx_bytes);
        bytes.sample(&with(labels, "to_node"), row.tx_bytes);
    }
    let all: usize = counted.iter().map(|network| network.ports.len()).sum();
    let beyond = all.saturating_sub(PORTS_MAX);
    let help = "Ports that are not told one by one, for there are so many.";
    page.single("portolan_ports_untold", Gauge, help, beyond);
}

fn tell_drops(page: &mut Page, wanted: &Wanted, counted: &[Counted], adrift: &DropCounts) {
    use Kind::Counter;
    let help =
        "Frames that went no further, on the port they came from or, for tx_*, were to leave by.";
    let mut drops = page.family("portolan_port_dropped_frames_total", Counter, help);
    for ([network, node, interface], row) in told(wanted, counted) {
        for (reason, frames) in row.drops.nonzero() {
            drops.sample(&[network, node, interface, ("reason", reason.name())], frames);
        }
    }
    let help = "Dropped frames of ports that have gone since.";
    let mut drops = page.family("portolan_departed_dropped_frames_total", Counter, help);
    for network in counted {
        for (reason, frames) in network.departed.nonzero() {
            drops.sample(&[("network", &network.name), ("reason", reason.name())], frames);
        }
    }
    let help = "Dropped frames of ports that are on no network.";
    let mut drops = page.family("portolan_adrift_dropped_frames_total", Counter, help);
    for (reason, frames) in adrift.nonzero() {
        drops.sample(&[("reason", reason.name())], frames);
    }
}

/// What the kernel says of this process, by the names that every exporter uses. What cannot be had is left out.
fn tell_process(page: &mut Page) {
    use Kind::{Counter, Gauge};
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let seconds =
            |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let spent = seconds(usage.user_time()) + seconds(usage.system_time());
        page.single("process_cpu_seconds_total", Counter, "Processor time of the daemon.", spent);
    }
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|n| u64::try_from(n).ok());
    if let Some((pages, size)) = pages.zip(size) {
        let help = "Memory of the daemon that is resident, rings among it.";
        page.single("process_resident_memory_bytes", Gauge, help, pages * size);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.single("process_open_fds", Gauge, "Descriptors that are open.", open.count());
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        page.single("process_max_fds", Gauge, "Descriptors there may be.", soft);
    }
}
