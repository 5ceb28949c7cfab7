//! The host's name servers, and the file that names them (resolv.conf(5)), followed as it changes.
//!
//! Whoever changes it may write it in place, put another file over it, or put another target behind the link that it is. So
//! watched are the file itself and the directories that its name and its links' names lie in, or where one of these does not
//! exist the nearest that does. After any change there the file is read anew, and the watches are set anew: it may be
//! elsewhere now.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use portolan_switch::command::Command;
use tokio::io::unix::AsyncFd;

use super::plane::{Opening, Plane};
use super::readiness::readable;
use crate::daemon::log::say;

/// Where the host says whom to ask.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Servers that are used, as the C library does (MAXNS).
const SERVERS_MAX: usize = 3;

/// The port of DNS.
const PORT: u16 = 53;

/// Links that are followed from one to the next (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// How long a change may take: several steps of one are looked at once.
const SETTLING: Duration = Duration::from_millis(100);

/// The name servers that the host uses, in order.
pub fn servers() -> Vec<SocketAddr> {
    // A comment of another encoding hides no server.
    servers_of(&String::from_utf8_lossy(&std::fs::read(RESOLV_CONF).unwrap_or_default()))
}

fn servers_of(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        let word = words.next()?;
        let (address, scope) = match word.split_once('%') {
            Some((address, zone)) => (address.parse::<Ipv6Addr>().ok()?.into(), scope_of(zone)?),
            None => (word.parse().ok()?, 0),
        };
        Some(match address {
            IpAddr::V4(v4) => SocketAddr::from((v4, PORT)),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, PORT, 0, scope).into(),
        })
    };
    text.lines().filter_map(server).take(SERVERS_MAX).collect()
}

/// The number of a link-local address' interface, which is written as a number or as a name (RFC 4007, section 11).
fn scope_of(zone: &str) -> Option<u32> {
    zone.parse().ok().or_else(|| nix::net::if_::if_nametoindex(zone).ok())
}

/// Tells the dataplane of the host's name servers, now and whenever they change.
pub async fn follow(plane: Arc<Plane>) {
    let mut known = None;
    loop {
        let watch = match watch() {
            Ok(watch) => Some(watch),
            // Something went between the look and the watch: another look finds what there is instead.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tokio::time::sleep(SETTLING).await;
                continue;
            }
            Err(error) => {
                say(format_args!("changes of {RESOLV_CONF} are not followed: {error}"));
                None
            }
        };
        let servers = servers();
        if known.as_ref() != Some(&servers) {
            let command = Command::SetUpstreams(servers.clone());
            plane.change(Opening::default(), vec![command]).await;
            known = Some(servers);
        }
        let Some(watch) = watch else { return };
        if watch.readable().await.is_err() {
            return;
        }
        tokio::time::sleep(SETTLING).await;
    }
}

/// Watches that become readable with the next change; what it was is of no interest.
fn watch() -> std::io::Result<AsyncFd<OwnedFd>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let changes = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    for path in watched(Path::new(RESOLV_CONF)) {
        inotify.add_watch(&path, changes | AddWatchFlags::IN_MODIFY)?;
    }
    readable(inotify.as_fd().try_clone_to_owned()?)
}

/// What has to be watched to see what becomes of a file.
fn watched(path: &Path) -> Vec<PathBuf> {
    let (mut all, mut path) = (Vec::new(), path.to_path_buf());
    for _ in 0..LINKS_MAX {
        let existing = path.ancestors().skip(1).find(|parent| parent.is_dir());
        all.extend(existing.map(Path::to_path_buf));
        match std::fs::read_link(&path) {
            // A relative target counts from where the link lies; an absolute one takes the place of all.
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => break,
        }
    }
    all.extend(path.exists().then_some(path));
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_servers_are_read_of_either_family() {
        let text = "# x\nnameserver 10.0.0.1 # the first\nsearch a\nnameserver\tfe80::1%7\n\
                    ; nameserver 9.9.9.9\nnameserver nonsense\nnameserver 10.0.0.1%7\n\
                    nameserversX 9.9.9.9\n  nameserver fd00::53\nnameserver 10.0.0.4\n";
        let servers: Vec<String> = servers_of(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[fe80::1%7]:53", "[fd00::53]:53"]);
        assert_eq!(servers_of(""), []);
    }

    #[test]
    fn a_zone_may_be_a_name() {
        let servers = servers_of("nameserver fe80::1%lo\nnameserver fe80::1%no-such-link\n");
        assert_eq!(servers, ["[fe80::1%1]:53".parse::<SocketAddr>().unwrap()]);
    }

    #[test]
    fn the_file_and_what_leads_to_it_are_watched() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (etc, run) = (base.join("etc"), base.join("run"));
        std::fs::create_dir(&etc).unwrap();
        let link = etc.join("resolv.conf");
        std::os::unix::fs::symlink("../run/dns/resolv.conf", &link).unwrap();
        let through = |path: &str| etc.join(path);
        assert_eq!(watched(&link), [etc.clone(), etc.join("..")]);
        std::fs::create_dir_all(run.join("dns")).unwrap();
        std::fs::write(run.join("dns/resolv.conf"), "").unwrap();
        assert_eq!(
            watched(&link),
            [etc.clone(), through("../run/dns"), through("../run/dns/resolv.conf")]
        );
        std::fs::remove_file(&link).unwrap();
        assert_eq!(watched(&link), std::slice::from_ref(&etc));
        std::fs::write(&link, "").unwrap();
        assert_eq!(watched(&link), [etc.clone(), link]);
    }
}
