//! Links, addresses and routes, as requests on a [`Netlink`] socket.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use nix::errno::Errno;
use portolan_switch::ids::MacAddr;

use super::netlink::Netlink;

/// The most default routes of ours that are taken away at once; there should be one.
const DEFAULT_ROUTES_MAX: usize = 16;

/// The index of our end. A guest's ends count from 2; where the two ends of a pair bear the same number the kernel takes the
/// device for its own lower one, and shows it as down for up to a second.
const OUR_INDEX: u32 = 1_000_000;

/// A pair of virtual Ethernet interfaces to be made.
pub struct VethPair<'a> {
    /// The name of the end in the namespace of the socket.
    pub name: &'a str,
    /// The name of the other end.
    pub peer_name: &'a str,
    /// The network namespace of the other end.
    pub peer_netns: BorrowedFd<'a>,
    /// The hardware address of the other end.
    pub peer_mac: MacAddr,
    /// The MTU of both, in bytes.
    pub mtu: u16,
}

impl Netlink {
    /// Makes a pair, both ends down and without automatic IPv6 addresses; `EEXIST` where a name is taken. One request: a
    /// name that is taken leaves nothing behind.
    pub fn make_veth(&mut self, pair: &VethPair<'_>) -> io::Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(pair.peer_name.into()),
            LinkAttribute::NetNsFd(pair.peer_netns.as_raw_fd()),
            LinkAttribute::Address(pair.peer_mac.0.to_vec()),
            LinkAttribute::Mtu(pair.mtu.into()),
        ];
        let mut link = LinkMessage::default();
        link.header.index = OUR_INDEX;
        link.attributes = vec![
            LinkAttribute::IfName(pair.name.into()),
            LinkAttribute::Mtu(pair.mtu.into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.request(Message::NewLink(link), NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Gives the namespace `netns` a number by which requests on a socket of this one can mean it.
    pub fn number_namespace(&mut self, netns: BorrowedFd<'_>, number: i32) -> io::Result<()> {
        let mut message = NsidMessage::default();
        message.attributes =
            vec![NsidAttribute::Id(number), NsidAttribute::Fd(netns.as_raw_fd().cast_unsigned())];
        self.request(Message::NewNsId(message), 0).map(drop)
    }

    /// Moves an interface to the namespace `netns`, where it has that name; `EEXIST` where another one has it.
    pub fn move_link(&mut self, index: u32, netns: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let none = LinkFlags::empty();
        let to = [LinkAttribute::NetNsFd(netns.as_raw_fd()), LinkAttribute::IfName(name.into())];
        self.set_link(index, none, none, to.to_vec())
    }

    /// The index of the interface of this name; `ENODEV` where there is none.
    pub fn index_of(&mut self, name: &str) -> io::Result<u32> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.into())];
        let answer = self.request(Message::GetLink(link), 0)?;
        let index = answer
            .as_deref()
            .and_then(|bytes| bytes.get(4..8))
            .and_then(|bytes| bytes.first_chunk());
        index.map(|bytes| u32::from_ne_bytes(*bytes)).ok_or_else(|| Errno::ENODEV.into())
    }

    /// Deletes an interface, and with it its peer.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.request(Message::DelLink(link), 0).map(drop)
    }

    /// Sets attributes and flags of an interface.
    pub fn set_link(
        &mut self,
        index: u32,
        on: LinkFlags,
        off: LinkFlags,
        attributes: Vec<LinkAttribute>,
    ) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = on;
        link.header.change_mask = on | off;
        link.attributes = attributes;
        self.request(Message::SetLink(link), 0).map(drop)
    }

    /// Keeps the kernel from giving the interface IPv6 addresses of its own choice. A kernel without IPv6 has none to give.
    pub fn no_automatic_ipv6(&mut self, index: u32) -> io::Result<()> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])];
        match self.set_link(index, LinkFlags::empty(), LinkFlags::empty(), attributes) {
            Err(error) if is_without_ipv6(&error) => Ok(()),
            other => other,
        }
    }

    /// Sets how large a superframe may become, in bytes. Setting the first overwrites the IPv4 value, which therefore comes
    /// second; kernels before 6.3 know only the first.
    pub fn set_superframe_size(&mut self, index: u32, bytes: u32) -> io::Result<()> {
        let none = LinkFlags::empty();
        self.set_link(index, none, none, vec![LinkAttribute::GsoMaxSize(bytes)])?;
        let rest = [
            LinkAttribute::GsoIpv4MaxSize(bytes),
            LinkAttribute::GroMaxSize(bytes),
            LinkAttribute::GroIpv4MaxSize(bytes),
        ];
        for attribute in rest {
            match self.set_link(index, none, none, vec![attribute]) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives an interface an address, without duplicate address detection.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = address.prefix_len();
        message.header.family = family(address.addr());
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes = vec![
            AddressAttribute::Address(address.addr()),
            AddressAttribute::Local(address.addr()),
            AddressAttribute::Flags(AddressFlags::Nodad),
        ];
        match address {
            IpNet::V4(net) if net.prefix_len() < 31 => {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
            IpNet::V6(net) if net.addr().is_unicast_link_local() => {
                message.header.scope = AddressScope::Link
            }
            _ => {}
        }
        self.request(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Makes `gateway` behind the interface the one default route of its family.
    pub fn replace_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let mut message = default_route(gateway);
        message.attributes =
            vec![RouteAttribute::Gateway(gateway.into()), RouteAttribute::Oif(index)];
        self.request(Message::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE).map(drop)
    }

    /// Takes our default route of the family of `like` away, if there is one; routes that somebody else made stay.
    pub fn delete_default_route(&mut self, like: IpAddr) -> io::Result<()> {
        for _ in 0..DEFAULT_ROUTES_MAX {
            match self.request(Message::DelRoute(default_route(like)), 0) {
                Ok(_) => {}
                Err(error)
                    if error.raw_os_error() == Some(libc::ESRCH) || is_without_ipv6(&error) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The default route of the family of `like`, as we mark it: protocol `static`.
fn default_route(like: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(like);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}
