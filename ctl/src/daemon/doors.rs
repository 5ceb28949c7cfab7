//! Doors: the host's sockets behind published ports.
//!
//! All addresses of a mapping are bound or none. `0.0.0.0` and `[::]` are two sockets on the same number, the IPv6 one for IPv6
//! only; a port that the kernel chooses is asked for IPv6 first and tried for IPv4, again where somebody has it there. TCP
//! listeners set SO_REUSEADDR, so that a connection of the one before does not stand in the way; with UDP it would let two
//! sockets share a port, and is never set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen,
    setsockopt, socket, sockopt,
};
use portolan_switch::command::Transport;
use portolan_switch::io::Door;

use super::holder::Holders;
use crate::topology::{HostPorts, PortWish, Topology, transport_word};

/// Connections that wait to be accepted at one door.
const BACKLOG: i32 = 1024;

/// How often a port of the kernel's choice is tried at all addresses. Five tries were the most it took with 6,000 ports taken.
const CHOICES_MAX: u32 = 64;

/// Runs that a range may come in where the kernel chooses.
const RUNS_MAX: usize = 1024;

/// Taken ports that are told of one range.
const TOLD_MAX: usize = 8;

/// Descriptors that must stay free for connections of the API and the like.
const SPARE: usize = 16;

/// Ports in a row: the host's first, the node's first, how many.
pub(super) type RunOfPorts = (u16, u16, u16);

/// The doors of one mapping.
#[derive(Debug)]
pub(super) struct Opened {
    /// The host's addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// The ports, at each of them.
    pub(super) runs: Vec<RunOfPorts>,
    /// The sockets.
    pub(super) doors: Vec<Door>,
}

impl Opened {
    /// The sockets of each run.
    pub(super) fn by_run(mut self) -> Vec<(RunOfPorts, Vec<Door>)> {
        let mut all = Vec::with_capacity(self.runs.len());
        for run in self.runs {
            let ports = ports_of(run);
            let (own, rest) =
                self.doors.into_iter().partition(|door| ports.contains(&door.local.port()));
            self.doors = rest;
            all.push((run, own));
        }
        all
    }
}

fn ports_of((first, _, count): RunOfPorts) -> std::ops::RangeInclusive<u16> {
    first..=first.saturating_add(count.saturating_sub(1))
}

/// What could not be bound.
type Failed = (SocketAddr, Errno);

/// Whether the host has IPv6 to bind to. Other failures, such as a want of descriptors, are left to be told when the ports are
/// bound: half of what was asked for would pass for all of it.
fn has_ipv6() -> bool {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let bound = new_socket(Transport::Udp, any);
    !matches!(bound, Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

/// The addresses a wish means on this host, the IPv6 one first.
pub(super) fn addresses(wish: &PortWish) -> Vec<IpAddr> {
    match wish.address {
        Some(address) => vec![address],
        None if has_ipv6() => vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
        None => vec![Ipv4Addr::UNSPECIFIED.into()],
    }
}

/// Checks that the descriptors suffice, here and in the keeper, which holds every door a second time.
///
/// # Errors
/// In words, with the numbers.
pub(super) fn room_for(wishes: &[PortWish]) -> Result<(), String> {
    let sockets = |wish: &PortWish| usize::from(wish.count).saturating_mul(addresses(wish).len());
    let needed = wishes.iter().map(sockets).fold(0, usize::saturating_add);
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let keeper = format!("/proc/{}/fd", nix::unistd::getppid());
    let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
    let used = count("/proc/self/fd").max(count(&keeper));
    let free = limit.saturating_sub(used).saturating_sub(SPARE);
    if needed <= free {
        return Ok(());
    }
    Err(format!(
        "these ports need {needed} descriptors in the daemon and as many in its keeper, and RLIMIT_NOFILE, {limit}, leaves \
         {free}: publish fewer, or start the daemon with a higher limit (ulimit -n, or LimitNOFILE= of its service)"
    ))
}

/// A bound socket. Blocks no longer than a system call.
fn new_socket(transport: Transport, local: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match transport {
        Transport::Tcp => SockType::Stream,
        Transport::Udp => SockType::Datagram,
    };
    let made = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if local.is_ipv6() {
        setsockopt(&made, sockopt::Ipv6V6Only, &true)?;
    }
    if transport == Transport::Tcp {
        setsockopt(&made, sockopt::ReuseAddr, &true)?;
    }
    bind(made.as_raw_fd(), &SockaddrStorage::from(local))?;
    Ok(made)
}

fn local_of(socket: &OwnedFd) -> Result<SocketAddr, Errno> {
    let name: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = name.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    let v6 = || name.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port())));
    v4.or_else(v6).ok_or(Errno::EAFNOSUPPORT)
}

/// The doors of one port at all addresses; port 0 is one of the kernel's choice, the same at all.
fn open_port(transport: Transport, addresses: &[IpAddr], port: u16) -> Result<Vec<Door>, Failed> {
    let mut doors: Vec<Door> = Vec::with_capacity(addresses.len());
    for address in addresses {
        let port = doors.first().map_or(port, |door| door.local.port());
        let local = SocketAddr::new(*address, port);
        let socket = new_socket(transport, local).map_err(|errno| (local, errno))?;
        let local = if port == 0 { local_of(&socket).map_err(|e| (local, e))? } else { local };
        doors.push(Door { local, socket });
    }
    if transport == Transport::Tcp {
        let backlog = Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN);
        for door in &doors {
            listen(&door.socket, backlog).map_err(|errno| (door.local, errno))?;
        }
    }
    Ok(doors)
}

fn choose_port(transport: Transport, addresses: &[IpAddr]) -> Result<Vec<Door>, Failed> {
    let mut tries = 0;
    loop {
        tries += 1;
        match open_port(transport, addresses, 0) {
            Err((_, Errno::EADDRINUSE)) if tries < CHOICES_MAX => {}
            other => return other,
        }
    }
}

/// Opens these very ports, all or none.
fn open_runs(
    transport: Transport,
    addresses: &[IpAddr],
    runs: &[RunOfPorts],
) -> Result<Vec<Door>, Vec<Failed>> {
    let (mut doors, mut failed) = (Vec::new(), Vec::new());
    for port in runs.iter().flat_map(|run| ports_of(*run)) {
        match open_port(transport, addresses, port) {
            Ok(opened) if failed.is_empty() => doors.extend(opened),
            Ok(_) => {}
            // Any other failure befalls the next port too.
            Err(fault) if fault.1 != Errno::EADDRINUSE => return Err(vec![fault]),
            Err(fault) => failed.push(fault),
        }
        if failed.len() > TOLD_MAX {
            break;
        }
    }
    if failed.is_empty() { Ok(doors) } else { Err(failed) }
}

/// One port of the kernel's choice for each of the node's, in a row as far as the next ones are free.
fn open_any(
    wish: &PortWish,
    addresses: &[IpAddr],
) -> Result<(Vec<RunOfPorts>, Vec<Door>), Vec<Failed>> {
    let (mut runs, mut doors): (Vec<RunOfPorts>, Vec<Door>) = (Vec::new(), Vec::new());
    for node_port in wish.node_ports() {
        if let Some(last) = runs.last_mut()
            && let Some(next) = last.0.checked_add(last.2)
            && let Ok(opened) = open_port(wish.transport, addresses, next)
        {
            last.2 = last.2.saturating_add(1);
            doors.extend(opened);
            continue;
        }
        let opened = choose_port(wish.transport, addresses).map_err(|fault| vec![fault])?;
        let host_port = opened.first().map_or(0, |door| door.local.port());
        if runs.len() == RUNS_MAX {
            let none = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            return Err(vec![(none, Errno::EADDRINUSE)]);
        }
        runs.push((host_port, node_port, 1));
        doors.extend(opened);
    }
    Ok((runs, doors))
}

/// The first free port of a range.
fn open_one_of(
    wish: &PortWish,
    addresses: &[IpAddr],
    (first, last): (u16, u16),
) -> Result<(Vec<RunOfPorts>, Vec<Door>), Vec<Failed>> {
    let mut failed = Vec::new();
    for port in first..=last {
        match open_port(wish.transport, addresses, port) {
            Ok(doors) => return Ok((vec![(port, wish.node_port, 1)], doors)),
            Err(fault) if fault.1 == Errno::EADDRINUSE => failed.push(fault),
            Err(fault) => return Err(vec![fault]),
        }
    }
    Err(failed)
}

/// Opens the doors of a mapping; where it had ports before, those if they are free. Blocks: thousands of system calls.
///
/// # Errors
/// One line: what is in the way, who holds it, what to do.
pub(super) fn open(
    wish: &PortWish,
    before: &[RunOfPorts],
    topology: &Topology,
) -> Result<Opened, String> {
    let addresses = addresses(wish);
    let again = (!before.is_empty()).then(|| {
        open_runs(wish.transport, &addresses, before).map(|doors| (before.to_vec(), doors))
    });
    let fixed = |first| vec![(first, wish.node_port, wish.count)];
    let opened = match (again, wish.host) {
        (Some(Ok(opened)), _) => Ok(opened),
        (_, HostPorts::From(first)) => {
            open_runs(wish.transport, &addresses, &fixed(first)).map(|doors| (fixed(first), doors))
        }
        (_, HostPorts::OneOf(first, last)) => open_one_of(wish, &addresses, (first, last)),
        (_, HostPorts::Any) => open_any(wish, &addresses),
    };
    match opened {
        Ok((runs, doors)) => Ok(Opened { addresses, runs, doors }),
        Err(failed) => Err(explain(wish, &failed, topology)),
    }
}

/// Takes over the doors of the daemon before; none where they are not those of these runs.
pub(super) fn adopt(runs: &[RunOfPorts], sockets: Vec<OwnedFd>) -> Option<Opened> {
    let mut doors: Vec<Door> = Vec::with_capacity(sockets.len());
    for socket in sockets {
        doors.push(Door { local: local_of(&socket).ok()?, socket });
    }
    doors.sort_by_key(|door| (door.local.port(), std::cmp::Reverse(door.local.ip())));
    let addresses: BTreeSet<IpAddr> = doors.iter().map(|door| door.local.ip()).collect();
    let wanted: Vec<SocketAddr> = runs
        .iter()
        .flat_map(|run| ports_of(*run))
        .flat_map(|port| addresses.iter().map(move |address| SocketAddr::new(*address, port)))
        .collect();
    let have: BTreeSet<SocketAddr> = doors.iter().map(|door| door.local).collect();
    let whole = !doors.is_empty()
        && have.len() == doors.len()
        && have == wanted.into_iter().collect::<BTreeSet<_>>();
    whole.then(|| Opened {
        addresses: addresses.into_iter().rev().collect(),
        runs: runs.to_vec(),
        doors,
    })
}

/// What was in the way, in one line.
fn explain(wish: &PortWish, failed: &[Failed], topology: &Topology) -> String {
    let Some((local, errno)) = failed.first().copied() else {
        return format!("{wish} cannot be published");
    };
    match errno {
        Errno::EADDRINUSE => clash(wish, failed, topology),
        Errno::EACCES => privileged(wish, local),
        Errno::EADDRNOTAVAIL => format!(
            "{wish} cannot be published: {} is no address of this host; `ip address` lists those there are",
            local.ip()
        ),
        Errno::EMFILE | Errno::ENFILE => format!(
            "{wish} cannot be published: the daemon is out of descriptors (RLIMIT_NOFILE); publish fewer ports or raise \
             that limit"
        ),
        Errno::EAFNOSUPPORT => {
            format!("{wish} cannot be published: this host has no {}", family(local.ip()))
        }
        errno => format!("{wish} cannot be published: binding {local}: {}", errno.desc()),
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The sysctl below which a port needs privilege.
const PRIVILEGED: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

fn privileged(wish: &PortWish, local: SocketAddr) -> String {
    let start = std::fs::read_to_string(PRIVILEGED).ok().and_then(|text| text.trim().parse().ok());
    let start = start.unwrap_or(1024u32);
    if u32::from(local.port()) >= start {
        return format!(
            "{wish} cannot be published: a policy of this host forbids to bind {local}"
        );
    }
    format!(
        "{wish} cannot be published: the host's ports below {start} are for root alone; publish one from {start} on, or \
         allow it: sudo sysctl net.ipv4.ip_unprivileged_port_start=0"
    )
}

/// Who has the ports, each holder once with what it holds.
fn clash(wish: &PortWish, failed: &[Failed], topology: &Topology) -> String {
    let word = transport_word(wish.transport);
    if failed.iter().all(|(local, _)| local.port() == 0) {
        return format!("{wish} cannot be published: no {word} port of the host is free");
    }
    let holders = Holders::look();
    let mut held: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    for (local, _) in failed.iter().take(TOLD_MAX) {
        let ours = topology.publisher(wish.transport, local.ip(), local.port());
        let holder = ours.map_or_else(
            || holders.who(wish.transport, *local),
            |node| format!("node {}", node.name),
        );
        held.entry(holder).or_default().push(*local);
    }
    let mut line = format!("{wish} cannot be published: ");
    for (i, (holder, ports)) in held.iter().enumerate() {
        let ports: Vec<String> = ports.iter().map(|local| format!("{local}/{word}")).collect();
        let verb = if ports.len() == 1 { "is" } else { "are" };
        let comma = if i == 0 { "" } else { ", " };
        // Writing into a string cannot fail.
        let _ = write!(line, "{comma}{} {verb} taken by {holder}", ports.join(" and "));
    }
    if failed.len() > TOLD_MAX {
        line.push_str(", and more are taken");
    }
    line.push_str("; choose another port of the host, or end what has it");
    line
}
