//! How a question is sent on its way: by a socket of the host, or on a network.

use std::net::{IpAddr, SocketAddr};

use portolan_dhcp::dns::forward::{Attempt, Over};
use portolan_nat::inside::{Composed, Inside, Made, Zone};
use portolan_nat::offload::Offload;
use portolan_nat::packet::protocol;
use portolan_nat::sockets::host::Outgoing;
use portolan_nat::sockets::{Sockets, Transport};
use portolan_nat::write::{HOP_LIMIT, Header};
use rand::Rng;

use crate::datapath::{host_key, network_id};
use crate::gateway::dns::PORT;
use crate::gateway::dns_tcp::{Link, MTU_MAX};
use crate::gateway::reply::{UDP_LEN, write_datagram};
use crate::ids::{NetworkId, NodeId};
use crate::network::Network;
use crate::policy::{self, Origin};
use crate::uplink::Lans;

use super::caller::Caller;
use super::stream::Stream;
use super::{Forwarding, Line, Server, Ways};

/// Where ports of the gateway's own questions begin (RFC 6335, section 6).
pub(super) const PORTS_FROM: u16 = 49_152;

/// Connections to servers on networks at once: each has room for the longest message.
const CALLS_MAX: usize = 16;

/// Of these, how many on one network: its nodes run the servers, which may take their time.
const NETWORK_CALLS_MAX: usize = 4;

/// How often a port is drawn before a question is given up.
const DRAWS_MAX: usize = 8;

/// Where a node's own server is.
enum Way {
    Inside(NetworkId),
    Host(SocketAddr),
}

impl Forwarding {
    /// Sends a question on its way; none where that does not work.
    pub(super) fn open(
        &mut self,
        attempt: Attempt,
        server: Server,
        over: Over,
        message: &[u8],
        ways: &mut Ways<'_, '_, '_>,
    ) -> Option<Line> {
        debug_assert!(!self.lines.contains_key(&attempt), "an attempt has one line");
        let way = match server {
            Server::Host(server) => Way::Host(server),
            Server::Own(node, address) => self.way_to(node, address, ways)?,
        };
        let server = match way {
            Way::Host(server) => server,
            Way::Inside(network) => {
                let Server::Own(_, address) = server else { return None };
                return match over {
                    Over::Datagrams => self.send_inside(network, address, message, ways),
                    Over::Stream => self.call_inside(network, address, message, ways),
                };
            }
        };
        if self.by_socket.len() >= self.sockets_max {
            return None;
        }
        let host = &mut *ways.turn.host;
        match over {
            Over::Datagrams => {
                let socket = host.datagrams(server.is_ipv6()).ok()?;
                let outgoing = Outgoing {
                    to: server,
                    from: None,
                    hop_limit: HOP_LIMIT,
                    traffic_class: 0,
                    dont_fragment: false,
                    segment: None,
                };
                if host.send_to(socket, &outgoing, message).is_err() {
                    host.close(socket);
                    return None;
                }
                Some(Line::Datagrams { socket, server })
            }
            Over::Stream => {
                let query = prefixed(message)?;
                let socket = host.connect(server).ok()?;
                Some(Line::Stream(Stream::new(socket, query)))
            }
        }
    }

    /// How a node's own server is reached: on one of its networks, or as far as a packet of the node might go.
    fn way_to(&self, node: NodeId, address: IpAddr, ways: &Ways<'_, '_, '_>) -> Option<Way> {
        let view = ways.names.view_of(host_key(node)).map(network_id);
        let seen: Vec<(NetworkId, &Network)> = view
            .filter_map(|id| Some((id, ways.networks.get(id.0 as usize)?.as_deref()?)))
            .collect();
        let near = |(_, network): &&(NetworkId, &Network)| {
            let gateway = network.gateway();
            gateway.is_near(address) && !gateway.has(address)
        };
        if let Some((id, _)) = seen.iter().find(near) {
            return Some(Way::Inside(*id));
        }
        self.upstreams.as_ref()?;
        let reach = seen.iter().find_map(|(_, network)| {
            let gateway = network.gateway();
            let origin = Origin { gateway, prefixes: ways.prefixes };
            let own = gateway.nets().next()?.addr();
            policy::reach(&origin, own, address).ok()
        });
        reach.map(|address| Way::Host((address, PORT).into()))
    }

    fn send_inside(
        &self,
        network: NetworkId,
        server: IpAddr,
        message: &[u8],
        ways: &mut Ways<'_, '_, '_>,
    ) -> Option<Line> {
        let zone = Zone(network.0);
        let mut lans = Lans {
            networks: ways.networks,
            prefixes: ways.prefixes,
            frames: ways.turn.frames,
            outbox: ways.turn.outbox,
            totals: ways.totals,
            adrift: ways.adrift,
            now: ways.now,
        };
        let own = lans.gateway(zone, server)?;
        let port =
            self.draw_port((network, Transport::Udp), own, server, ways.sockets, ways.turn.random)?;
        let header = Header::new(own, server, protocol::UDP);
        let len = header.len() + UDP_LEN + message.len();
        if lans.mtu(zone)? < len {
            return None;
        }
        let made = lans.compose(zone, server, len, &mut |packet| {
            let packet = packet.get_mut(..len)?;
            write_datagram(packet, &header, (port, PORT), message);
            Some(Composed { len, offload: Offload::default() })
        });
        (made == Made::Sent).then_some(Line::Inside { network, server, port })
    }

    /// Begins a connection to a server on a network.
    fn call_inside(
        &self,
        network: NetworkId,
        server: IpAddr,
        message: &[u8],
        ways: &mut Ways<'_, '_, '_>,
    ) -> Option<Line> {
        let ports = |port| (network, Transport::Tcp, port);
        let of_network = self.by_port.range(ports(0)..=ports(u16::MAX)).count();
        if self.calls.len() >= CALLS_MAX || of_network >= NETWORK_CALLS_MAX {
            return None;
        }
        let lan = ways.networks.get(network.0 as usize)?.as_deref()?;
        let own = lan.gateway().address_towards(server)?;
        let neighbor = lan.neighbor(server)?;
        let link = Link {
            port: neighbor.port,
            client_mac: neighbor.mac,
            server_mac: lan.gateway().mac(),
            mtu: lan.mtu().min(MTU_MAX),
        };
        let place = (network, Transport::Tcp);
        let port = self.draw_port(place, own, server, ways.sockets, ways.turn.random)?;
        let to = (server, PORT).into();
        let caller = Caller::new(link, (own, port), to, prefixed(message)?, ways.turn, ways.now)?;
        Some(Line::Call { network, server, port, caller: Box::new(caller) })
    }

    /// A port of the gateway that nothing else uses towards a server.
    fn draw_port(
        &self,
        (network, transport): (NetworkId, Transport),
        own: IpAddr,
        server: IpAddr,
        sockets: Option<&Sockets>,
        random: &mut dyn Rng,
    ) -> Option<u16> {
        (0..DRAWS_MAX).find_map(|_| {
            let drawn = PORTS_FROM + (random.next_u32() >> 18) as u16;
            let (inside, outside) = ((server, PORT).into(), (own, drawn).into());
            let taken = sockets.is_some_and(|s| s.has(transport, Zone(network.0), inside, outside));
            let free = !self.by_port.contains_key(&(network, transport, drawn));
            (free && !taken).then_some(drawn)
        })
    }
}

/// A message as a stream carries it, its length first (RFC 1035, section 4.2.2).
fn prefixed(message: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(message.len()).ok()?.to_be_bytes();
    Some([&len[..], message].concat())
}
