//! Who has a port of the host: from the socket tables of /proc, and from the descriptors of those processes that we may look
//! into.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::unistd::{Uid, User};
use portolan_switch::command::Transport;

use crate::topology::addresses_meet;

/// State of a listener in /proc/net/tcp (TCP_LISTEN).
const LISTENS: &str = "0A";

/// One socket of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Row {
    transport: Transport,
    local: SocketAddr,
    listens: bool,
    uid: u32,
    inode: u64,
}

/// The host's sockets at one moment.
#[derive(Debug, Default)]
pub(super) struct Holders {
    rows: Vec<Row>,
    /// Process and its name, by the socket's inode.
    programs: BTreeMap<u64, (u32, String)>,
}

impl Holders {
    /// Looks at all of them.
    pub(super) fn look() -> Holders {
        let mut holders = Holders::default();
        for (table, transport) in [
            ("tcp", Transport::Tcp),
            ("tcp6", Transport::Tcp),
            ("udp", Transport::Udp),
            ("udp6", Transport::Udp),
        ] {
            let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
            holders.rows.extend(text.lines().filter_map(|line| row(transport, line)));
        }
        holders.programs = programs();
        holders
    }

    /// Who stands in the way of a socket at `local`, in words.
    pub(super) fn who(&self, transport: Transport, local: SocketAddr) -> String {
        let in_the_way = |row: &&Row| {
            row.transport == transport && row.local.port() == local.port() && meet(row.local, local)
        };
        let Some(row) = self.rows.iter().filter(in_the_way).max_by_key(|row| row.listens) else {
            return "somebody who cannot be seen".into();
        };
        let user = User::from_uid(Uid::from_raw(row.uid)).ok().flatten();
        let user = user.map_or_else(
            || format!("uid {}", row.uid),
            |user| format!("user {} (uid {})", user.name, row.uid),
        );
        match self.programs.get(&row.inode) {
            Some((pid, _)) if *pid == std::process::id() => "another node's own traffic".into(),
            Some((pid, name)) => format!("{name} (pid {pid}) of {user}"),
            None => user,
        }
    }
}

/// An IPv6 socket at any address may stand for IPv4 too.
fn meet(theirs: SocketAddr, ours: SocketAddr) -> bool {
    let both = |address: IpAddr| address.is_ipv6() && address.is_unspecified();
    both(theirs.ip()) || addresses_meet(Some(theirs.ip().to_canonical()), Some(ours.ip()))
}

/// A line of /proc/net/tcp and its like: slot, local, remote, state, queues, timer, retransmits, uid, timeout, inode.
fn row(transport: Transport, line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    Some(Row {
        transport,
        local: SocketAddr::new(address_of(address)?, u16::from_str_radix(port, 16).ok()?),
        listens: *fields.get(3)? == LISTENS,
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// Words of 32 bits in the host's order, each holding four octets in the network's.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (part, at) in octets.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
                part.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

fn programs() -> BTreeMap<u64, (u32, String)> {
    let mut found = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let name = name_of(&fs::read(process.path().join("comm")).unwrap_or_default());
        for link in descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let inode = link.to_str().and_then(|text| {
                text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
            });
            if let Some(inode) = inode {
                found.entry(inode).or_insert_with(|| (pid, name.clone()));
            }
        }
    }
    found
}

/// What a process calls itself: any bytes, which are to stay one line of an answer and of the log.
fn name_of(comm: &[u8]) -> String {
    let name = String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(comm));
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_in_both_families() {
        let v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100 0 0 10 0";
        let read = row(Transport::Tcp, v4).unwrap();
        assert_eq!(
            (read.local, read.listens, read.uid, read.inode),
            ("127.0.0.1:8080".parse().unwrap(), true, 1000, 4242)
        );
        let v6 = " 12: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 \
                  00:00000000 00000000     0        0 77 2 0 0";
        assert_eq!(row(Transport::Udp, v6).unwrap().local, "[::1]:53".parse().unwrap());
        assert_eq!(row(Transport::Tcp, "  sl  local_address rem_address   st tx_queue"), None);
    }

    #[test]
    fn what_a_process_calls_itself_stays_one_line() {
        assert_eq!(name_of(b"nginx\n"), "nginx");
        assert_eq!(name_of(b"a\nb\x1b[31m\xff\n"), "a?b?[31m\u{fffd}");
    }

    #[test]
    fn a_listener_of_this_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let local = socket.local_addr().unwrap();
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, local.port()));
        let holders = Holders::look();
        assert_eq!(holders.who(Transport::Tcp, any), "another node's own traffic");
        let elsewhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), local.port()));
        assert_eq!(holders.who(Transport::Tcp, elsewhere), "somebody who cannot be seen");
    }
}
