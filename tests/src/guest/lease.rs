//! A host's own client of DHCPv4, which is smoltcp's: what it is lent becomes the interface's address and route.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::dhcpv4;
use smoltcp::wire::{IpCidr, Ipv4Cidr};

use portolan_switch::ids::Time;

use super::Guest;

/// What the client has been told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lease {
    /// Its address, and the length of the subnet's prefix.
    pub address: Option<(Ipv4Addr, u8)>,
    /// Whom it asks for names.
    pub dns: Vec<IpAddr>,
    /// How often it was told anew.
    pub changes: u32,
}

impl Guest {
    /// Starts the client.
    pub fn start_dhcp(&mut self) {
        self.dhcp = Some((self.sockets.add(dhcpv4::Socket::new()), Lease::default()));
        self.next_poll = Some(Time::ZERO);
    }

    /// What it has been told. Panics where it was not started.
    pub fn lease(&self) -> &Lease {
        &self.dhcp.as_ref().expect("a client runs").1
    }

    /// Takes what the client has been told. Whether it was anything.
    pub(super) fn work_dhcp(&mut self) -> bool {
        let Some((handle, lease)) = &mut self.dhcp else { return false };
        let handle: SocketHandle = *handle;
        let before = lease.address;
        let router = match self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            None => return false,
            Some(dhcpv4::Event::Deconfigured) => {
                lease.address = None;
                None
            }
            Some(dhcpv4::Event::Configured(told)) => {
                lease.address = Some((told.address.address(), told.address.prefix_len()));
                lease.dns = told.dns_servers.iter().copied().map(IpAddr::from).collect();
                told.router
            }
        };
        lease.changes += 1;
        let now = lease.address;
        self.interface.update_ip_addrs(|list| {
            let cidr = |(address, len)| IpCidr::Ipv4(Ipv4Cidr::new(address, len));
            list.retain(|known| before.is_none_or(|before| *known != cidr(before)));
            if let Some(now) = now {
                list.push(cidr(now)).expect("few addresses");
            }
        });
        self.interface.routes_mut().remove_default_ipv4_route();
        if let Some(router) = router {
            let added = self.interface.routes_mut().add_default_ipv4_route(router);
            added.expect("two routes at most");
        }
        true
    }
}
