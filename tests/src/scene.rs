//! Networks and endpoints as most scenarios want them, told apart by small numbers.
//!
//! Network `n` has the gateway 10.n.0.1/24, fd00:n::1/64 and the zone `netN`; its endpoint `h` has 10.n.0.h, fd00:n::h and
//! the hardware address 02:0a:00:0n:00:0h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_nat::inside::{Owner, Zone};
use portolan_switch::command::{
    Answer, Command, Egress, FlowRow, HostSpec, Limits, NetworkSpec, PortSpec, Publication,
    PublicationId, Query, Transport,
};
use portolan_switch::ids::{MacAddr, NetworkId, NodeId, PortId};

use crate::guest::GuestSpec;
use crate::world::{PortOptions, World};

/// The IPv4 address of host `h` of network `n`.
pub fn v4(n: u32, h: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 | n << 16 | h).into()
}

/// The IPv6 address of host `h` of network `n`.
pub fn v6(n: u32, h: u32) -> IpAddr {
    Ipv6Addr::from(0xfd00 << 112 | u128::from(n) << 96 | u128::from(h)).into()
}

/// The hardware address of host `h` of network `n`.
pub fn mac(n: u32, h: u32) -> MacAddr {
    let ([_, _, n1, n0], [_, _, h1, h0]) = (n.to_be_bytes(), h.to_be_bytes());
    MacAddr([0x02, 0x0a, n1, n0, h1, h0])
}

/// Network `n`.
pub fn network(n: u32, guard: bool) -> NetworkSpec {
    let (IpAddr::V4(gateway4), IpAddr::V6(gateway6)) = (v4(n, 1), v6(n, 1)) else {
        unreachable!("one of each family");
    };
    NetworkSpec {
        id: NetworkId(n),
        zone: Some(format!("net{n}")),
        mac: mac(n, 1),
        gateways: vec![
            IpNet::V4(Ipv4Net::new(gateway4, 24).expect("a prefix")),
            IpNet::V6(Ipv6Net::new(gateway6, 64).expect("a prefix")),
        ],
        mtu: 1500,
        guard,
        egress: Egress::default(),
        carriage: Default::default(),
        services: Default::default(),
    }
}

/// Endpoint `h` of network `n`: a node of its own, on the port of that number.
pub fn endpoint(n: u32, h: u32, port: u32) -> PortSpec {
    PortSpec {
        id: PortId(port),
        network: NetworkId(n),
        node: NodeId(port),
        mac: mac(n, h),
        addresses: vec![v4(n, h), v6(n, h)],
        conduct: Default::default(),
    }
}

/// The host that sits at an endpoint of a network.
pub fn guest(spec: &PortSpec, network: &NetworkSpec, offloads: bool) -> GuestSpec {
    let prefix_of = |address: &IpAddr| {
        let net = network.gateways.iter().find(|net| net.contains(address));
        (*address, net.map_or(if address.is_ipv4() { 24 } else { 64 }, IpNet::prefix_len))
    };
    GuestSpec {
        mac: spec.mac,
        addresses: spec.addresses.iter().map(prefix_of).collect(),
        gateways: network.gateways.iter().map(IpNet::addr).collect(),
        mtu: usize::from(network.mtu),
        offloads,
    }
}

/// The names of endpoint `h` of network `n`.
pub fn names(n: u32, spec: &PortSpec, names: &[&str]) -> HostSpec {
    HostSpec {
        network: NetworkId(n),
        node: spec.node,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        addresses: spec.addresses.clone(),
    }
}

/// Somebody outside.
pub fn out4(n: u8) -> IpAddr {
    Ipv4Addr::new(203, 0, 113, n).into()
}

/// As [`out4`].
pub fn out6(n: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, n).into()
}

/// Port `port` of the host, and the same of endpoint `h` of network `n`, which joined by [`World::join`].
pub fn publication(id: u32, (n, h): (u32, u32), transport: Transport, port: u16) -> Publication {
    let (IpAddr::V4(address4), IpAddr::V6(address6)) = (v4(n, h), v6(n, h)) else {
        unreachable!("one of each family");
    };
    Publication {
        id: PublicationId(id),
        transport,
        zone: Zone(n),
        owner: Owner(100 * n + h),
        host_port: port,
        node_port: port,
        count: 1,
        v4: Some(address4),
        v6: Some(address6),
        near: vec![(v4(n, 0), 24), (v6(n, 0), 64)],
    }
}

impl World {
    /// Opens the way out.
    pub fn uplink(&mut self, limits: Limits) {
        self.apply([Command::SetLimits(limits)]);
    }

    /// All flows through the host's sockets.
    pub fn flows(&self) -> Vec<FlowRow> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let query = Query::Flows { network: None, after, limit: 1000 };
            let Answer::Flows { rows, next } = self.datapath.query(&query, self.now()) else {
                panic!("flows are asked for");
            };
            all.extend(rows);
            after = next;
            if after.is_none() {
                return all;
            }
        }
    }

    /// Makes network `n`.
    pub fn lan(&mut self, n: u32, guard: bool) -> NetworkSpec {
        let spec = network(n, guard);
        self.apply([Command::CreateNetwork(spec.clone())]);
        spec
    }

    /// A host joins as endpoint `h` of network `n`, on a port whose number is `100 n + h`.
    pub fn join(&mut self, n: u32, h: u32, offloads: bool) -> PortId {
        let spec = endpoint(n, h, 100 * n + h);
        let network = self.model.networks[&NetworkId(n)].clone();
        self.plug_guest(spec.id, &guest(&spec, &network, offloads), PortOptions::default());
        let view = Command::SetView { node: spec.node, networks: vec![spec.network] };
        let id = spec.id;
        self.apply([Command::AttachPort(spec), view]);
        id
    }

    /// The scenario itself joins as endpoint `h` of network `n`, on a port whose number is `100 n + h`.
    pub fn tap(&mut self, n: u32, h: u32, offloads: bool) -> PortId {
        let spec = endpoint(n, h, 100 * n + h);
        self.plug_tap(spec.id, PortOptions { offloads, ..PortOptions::default() });
        let id = spec.id;
        self.apply([Command::AttachPort(spec)]);
        id
    }
}
