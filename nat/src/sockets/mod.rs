//! The way out of a network for whoever has no privilege: host sockets.
//!
//! Theory of operation. A packet of the inside comes to [`Sockets::outbound`], already found worth routing. By its transport it
//! goes to `tcp`, `udp` or `icmp`, which translate it into calls on a socket of the host; no payload is kept here but what comes
//! too early: parts of a packet that is not whole yet, and of a TCP stream what others precede. When
//! a socket has something to say, [`Sockets::ready`] finds whose it is, and what it says is written as packets to the inside.
//! Packets of one batch that go to one connection are gathered, and [`Sockets::flush`] sends them together.
//!
//! A [`Publication`] is the way in: ports of the host behind which listening sockets stand that somebody else has made. Whoever
//! comes there is led to a node with the client's own address and port, unless the node would not answer such an address
//! through its gateway; then the client is shown as the gateway (`doors`).
//!
//! Every flow is entered in the `ledger` of its transport: it counts against the limits of its owner and of all, and when these are reached the
//! owner's own least used one gives way.

mod deadlines;
mod doors;
pub mod host;
mod icmp;
mod ledger;
mod parcel;
mod remotes;
mod report;
mod roles;
mod table;
mod tcp;
mod udp;

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::fragment::Reassembly;
use crate::inside::{Call, Lost, Owner, Packet, Zone};
use crate::offload::Offload;
use crate::packet::protocol;
use crate::time::Time;

use doors::Doors;
use host::{Ready, SocketId};
use icmp::Icmp;
use report::Bytes;
use roles::{Role, Roles};
use tcp::Tcp;
use udp::Udp;

/// Names a publication.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PublicationId(pub u32);

/// A transport with ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How many flows there may be. A flow costs the host a descriptor and often a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Of all owners together.
    pub flows: usize,
    /// Of one owner.
    pub owner_flows: usize,
}

impl Limits {
    /// What of these TCP may have: half.
    pub fn of_tcp(self) -> Limits {
        self.share(4)
    }

    /// What of these UDP may have: three eighths.
    pub fn of_udp(self) -> Limits {
        self.share(3)
    }

    /// What of these echo requests may have: an eighth.
    pub fn of_echo(self) -> Limits {
        self.share(1)
    }

    fn share(self, eighths: usize) -> Limits {
        let part = |of: usize| (of * eighths / 8).max(1);
        Limits { flows: part(self.flows), owner_flows: part(self.owner_flows) }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { flows: 4096, owner_flows: 512 }
    }
}

/// Ports of the host that lead to a node: a range is one rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    /// Its handle.
    pub id: PublicationId,
    /// Which transport.
    pub transport: Transport,
    /// The network by which the node is reached.
    pub zone: Zone,
    /// The node.
    pub owner: Owner,
    /// The first of the host's ports, host order.
    pub host_port: u16,
    /// The node's port that the first one leads to; the following lead to the following.
    pub node_port: u16,
    /// How many ports.
    pub count: u16,
    /// The node's addresses on that network, of each family it has.
    pub v4: Option<Ipv4Addr>,
    /// As `v4`.
    pub v6: Option<Ipv6Addr>,
    /// The prefixes of all networks of the node, by address and length: a client from there is shown as the gateway, since
    /// the node would answer it without.
    pub near: Vec<(IpAddr, u8)>,
}

/// One flow, as people see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowRow {
    /// Its network.
    pub zone: Zone,
    /// Its node.
    pub owner: Owner,
    /// IP protocol number.
    pub protocol: u8,
    /// The node's address and port; of ICMP, the id.
    pub inside: SocketAddr,
    /// The other end as the node sees it; none of a UDP mapping, which has many.
    pub outside: Option<SocketAddr>,
    /// Whether it came in by a published port.
    pub published: bool,
    /// How it stands, one word: `established`, `opening`, `closing`, `open`.
    pub state: &'static str,
    /// When it last carried something.
    pub used: Time,
}

/// What ends at once, whatever state it is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// All that came in by a publication.
    Publication(PublicationId),
    /// All of an address of a network.
    Address(Zone, IpAddr),
}

/// What a transport's step may touch besides its own tables.
pub(crate) struct Desk<'d, 'c> {
    /// The host, the inside, chance and time.
    pub(crate) call: &'d mut Call<'c>,
    /// Whose each socket is.
    pub(crate) roles: &'d mut Roles,
}

/// All flows through the host's sockets.
#[derive(Debug, Default)]
pub struct Sockets {
    tcp: Tcp,
    udp: Udp,
    icmp: Icmp,
    doors: Doors,
    roles: Roles,
    parts: Reassembly,
}

impl Sockets {
    /// Without flows. The seed keys the tables, so that guests cannot aim at them.
    pub fn new(limits: Limits, seed: u64) -> Sockets {
        Sockets {
            tcp: Tcp::new(limits.of_tcp(), seed),
            udp: Udp::new(limits.of_udp(), seed),
            icmp: Icmp::new(limits.of_echo(), seed),
            doors: Doors::default(),
            roles: Roles::new(seed),
            parts: Reassembly::new(seed),
        }
    }

    /// Takes a packet of the inside. What it answers to the inside at once, and what it is lost by, is settled here.
    pub fn outbound(&mut self, packet: &Packet, call: &mut Call<'_>) -> Result<(), Lost> {
        if packet.ip.is_fragment() {
            return self.outbound_part(packet, call);
        }
        let desk = &mut Desk { call, roles: &mut self.roles };
        match (packet.ip.protocol, packet.ip.src) {
            (protocol::TCP, _) => self.tcp.outbound(packet, desk),
            (protocol::UDP, _) => self.udp.outbound(packet, Bytes::Turn(packet.id), desk),
            (protocol::ICMP, IpAddr::V4(_)) | (protocol::ICMPV6, IpAddr::V6(_)) => {
                match icmp::objecting(packet, desk.call.inside.bytes(packet.id))? {
                    Some(said) => {
                        let ends = (said.outside, said.inside);
                        self.tcp.complaint(packet.zone, ends, said.seq, said.objection, desk)
                    }
                    None => self.icmp.outbound(packet, Bytes::Turn(packet.id), desk),
                }
            }
            _ => Err(Lost::Protocol),
        }
    }

    /// Whether there is a flow between a node and somebody as that node sees them. One that only may come about does not count.
    pub fn has(
        &self,
        transport: Transport,
        zone: Zone,
        inside: SocketAddr,
        outside: SocketAddr,
    ) -> bool {
        match transport {
            Transport::Tcp => self.tcp.has(zone, inside, outside),
            Transport::Udp => self.udp.has(zone, inside, outside),
        }
    }

    /// Takes a part of a packet; where it was the last one missing, the packet goes on.
    fn outbound_part(&mut self, packet: &Packet, call: &mut Call<'_>) -> Result<(), Lost> {
        let Some(whole) = self.parts.take(packet, call)? else { return Ok(()) };
        let packet = Packet { ip: whole.ip, offload: Offload::default(), ..*packet };
        let desk = &mut Desk { call, roles: &mut self.roles };
        match packet.ip.protocol {
            protocol::UDP => self.udp.outbound(&packet, Bytes::Whole(&whole.bytes), desk),
            _ => self.icmp.outbound(&packet, Bytes::Whole(&whole.bytes), desk),
        }
    }

    /// Sends what a batch has gathered. To be called before the memory of the batch's packets is given back.
    pub fn flush(&mut self, call: &mut Call<'_>) {
        self.tcp.flush(&mut Desk { call, roles: &mut self.roles });
    }

    /// Whether a socket is one of these.
    pub fn owns(&self, socket: SocketId) -> bool {
        self.roles.get(socket).is_some()
    }

    /// Something has changed about a socket. True where more is to be done for it: call again, in another turn, without a
    /// change having been told.
    pub fn ready(&mut self, socket: SocketId, ready: Ready, call: &mut Call<'_>) -> bool {
        let Some(role) = self.roles.get(socket) else { return false };
        let desk = &mut Desk { call, roles: &mut self.roles };
        match role {
            Role::Tcp(flow) => self.tcp.ready(flow, ready, desk),
            Role::Udp(mapping) => self.udp.ready(mapping, ready, desk),
            Role::Ping(mapping) => self.icmp.ready(mapping, ready, desk),
            Role::TcpDoor(place) => self.doors.accept(socket, place, &mut self.tcp, desk),
            Role::UdpDoor(place) => {
                if ready.error {
                    self.udp.hear(socket, desk);
                }
                self.doors.receive(socket, place, &mut self.udp, desk)
            }
        }
    }

    /// When [`Sockets::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let doors = self.doors.next_timeout();
        let flows = [self.tcp.next_timeout(), self.udp.next_timeout(), self.icmp.next_timeout()];
        flows.into_iter().chain([doors, self.parts.next_timeout()]).flatten().min()
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, call: &mut Call<'_>) {
        let desk = &mut Desk { call, roles: &mut self.roles };
        self.tcp.handle_timeout(desk);
        self.udp.handle_timeout(desk);
        self.icmp.handle_timeout(desk);
        self.parts.handle_timeout(call);
        for listener in self.doors.due(call.now) {
            if self.ready(listener, Ready { readable: true, ..Ready::default() }, call) {
                // Behind the present, so that it is another turn.
                self.doors.stall(listener, call.now + Duration::from_nanos(1));
            }
        }
    }

    /// A publication comes to be; its sockets follow by [`Sockets::listen`]. One of the same handle is replaced and leaves it
    /// its sockets; where it leads elsewhere, what came in before ends, and the next datagram of a client begins anew.
    pub fn publish(&mut self, publication: Publication) {
        let id = publication.id;
        if self.doors.publish(publication) {
            self.tcp.end(Ending::Publication(id));
            self.udp.end(Ending::Publication(id));
        }
    }

    /// A socket stands behind a publication: a listener of TCP, or a bound UDP socket, at `local` of the host.
    pub fn listen(&mut self, id: PublicationId, socket: SocketId, local: SocketAddr) {
        self.doors.listen(id, socket, local, &mut self.roles);
    }

    /// A publication ends, and what came in by it; its sockets are closed by whoever made them. What there is to tell the
    /// host is done at the next [`Sockets::handle_timeout`], which is due at once.
    pub fn unpublish(&mut self, id: PublicationId) {
        self.doors.unpublish(id, &mut self.roles);
        self.tcp.end(Ending::Publication(id));
        self.udp.end(Ending::Publication(id));
    }

    /// All flows of an address of a network end, since it has gone; as [`Sockets::unpublish`] for what is left to be done.
    pub fn forget(&mut self, zone: Zone, address: IpAddr) {
        let gone = Ending::Address(zone, address);
        self.tcp.end(gone);
        self.udp.end(gone);
        self.icmp.end(gone);
    }

    /// Flows in the order of their numbers behind `after`, at most `limit`, each with its number.
    pub fn flows(&self, after: Option<u64>, limit: usize) -> Vec<(u64, FlowRow)> {
        // A transport's number, and its flow's number behind it.
        let first = after.map_or(0, |after| after.saturating_add(1));
        let from = |transport: u64| match transport.cmp(&(first >> 32)) {
            Ordering::Less => u32::MAX,
            Ordering::Equal => first as u32,
            Ordering::Greater => 0,
        };
        let tcp = self.tcp.rows(from(0)).map(|(n, row)| (u64::from(n), row));
        let udp = self.udp.rows(from(1)).map(|(n, row)| (1 << 32 | u64::from(n), row));
        let icmp = self.icmp.rows(from(2)).map(|(n, row)| (2 << 32 | u64::from(n), row));
        tcp.chain(udp).chain(icmp).take(limit).collect()
    }

    /// Whether the system let nobody have a socket for echo requests when one was last asked for.
    pub fn echo_refused(&self) -> bool {
        self.icmp.refused()
    }

    /// How many flows there are: of TCP, of UDP, and of echo.
    pub fn by_transport(&self) -> [usize; 3] {
        [self.tcp.len(), self.udp.len(), self.icmp.len()]
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.by_transport().iter().sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
