//! The step: what `portolan wire-step` does, single-threaded, inside the target's namespaces.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipnet::{IpNet, Ipv6Net};
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use portolan_switch::io::tap::{DEVICE as TUN, TapWire, TapWish};

use super::channel;
use super::link::VethPair;
use super::netlink::{Netlink, link_events};
use super::offload;
use super::wire::{Answer, Request, Task, WireSpec};
use crate::topology::WireKind;

/// The name of our end of every wire; it is alone in its namespace.
const OUR_END: &str = "wire";

/// The number that the guest's namespace has in ours, where its device is a TAP.
pub const THEIRS: i32 = 0;

/// The index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Serves one request from descriptor 0, and exits.
pub fn step_main() -> ! {
    let stdin = io::stdin();
    let served =
        channel::receive::<Request>(stdin.as_fd(), None).and_then(|(request, descriptors)| {
            let (answer, passed): (Answer, Vec<OwnedFd>) = match serve(&request, &descriptors) {
                Ok((ifindex, passed)) => (Ok(ifindex), passed),
                Err(message) => (Err(message), vec![]),
            };
            let passed: Vec<BorrowedFd<'_>> = passed.iter().map(AsFd::as_fd).collect();
            channel::send(stdin.as_fd(), &answer, &passed)
        });
    std::process::exit(i32::from(served.is_err()))
}

fn serve(request: &Request, descriptors: &[OwnedFd]) -> Result<(u32, Vec<OwnedFd>), String> {
    let target = descriptors.first().ok_or("the wire step was given no target")?;
    join(target, request.is_process)?;
    match &request.task {
        Task::Make(spec) => make(spec),
        Task::Route { gateway4, gateway6 } => {
            let mut netlink = Netlink::open()
                .map_err(|error| format!("cannot open a netlink socket: {error}"))?;
            let gateway4 = gateway4.as_ref().map(|(name, address)| (name, IpAddr::V4(*address)));
            let gateway6 = gateway6.as_ref().map(|(name, address)| (name, IpAddr::V6(*address)));
            reroute(&mut netlink, gateway4, IpAddr::V4(0.into()))?;
            reroute(&mut netlink, gateway6, IpAddr::V6(0.into()))?;
            Ok((0, vec![]))
        }
    }
}

fn reroute(
    netlink: &mut Netlink,
    gateway: Option<(&String, IpAddr)>,
    family: IpAddr,
) -> Result<(), String> {
    let done = match gateway {
        Some((name, address)) => {
            netlink.index_of(name).and_then(|index| netlink.replace_default_route(index, address))
        }
        None => netlink.delete_default_route(family),
    };
    done.map_err(|error| match gateway {
        Some((name, address)) => {
            format!("cannot lead the default route to {address} behind {name}: {error}")
        }
        None => format!("cannot take the default route away: {error}"),
    })
}

/// Enters the target's network namespace, and its user namespace where that is another than ours.
fn join(target: &OwnedFd, is_process: bool) -> Result<(), String> {
    let network = CloneFlags::CLONE_NEWNET;
    let joined = if is_process {
        match setns(target, CloneFlags::CLONE_NEWUSER | network) {
            // One may not join the user namespace that one is in.
            Err(nix::errno::Errno::EINVAL) => setns(target, network),
            other => other,
        }
    } else {
        setns(target, network)
    };
    joined.map_err(|errno| match errno {
        nix::errno::Errno::ESRCH => "the process has ended".to_string(),
        nix::errno::Errno::EPERM | nix::errno::Errno::EACCES => {
            "not allowed to enter the network namespace; it belongs to another user (run the daemon as that user, or as root)"
                .into()
        }
        errno => format!("cannot enter the network namespace: {errno}"),
    })
}

fn make(spec: &WireSpec) -> Result<(u32, Vec<OwnedFd>), String> {
    check_name(&spec.ifname)?;
    let failed = |what: &'static str| {
        let ifname = spec.ifname.clone();
        move |error: io::Error| format!("cannot {what} for {ifname}: {error}")
    };
    let their_netns: OwnedFd =
        fs::File::open("/proc/self/ns/net").map_err(failed("open the network namespace"))?.into();
    let mut theirs = Netlink::open().map_err(failed("open a netlink socket"))?;
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| failed("make our namespace")(errno.into()))?;
    // Our end is a plug, not a host: the name space it lies in never speaks by itself.
    sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    let mut ours = Netlink::open().map_err(failed("open a netlink socket"))?;
    let plugged = match spec.kind {
        WireKind::Veth => plug_veth(&mut ours, spec, their_netns.as_fd()),
        WireKind::Tap => plug_tap(&mut ours, spec, their_netns.as_fd()),
    };
    let (index, passed) = plugged?;
    let finished = setns(&their_netns, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| failed("return")(errno.into()))
        .and_then(|()| finish_theirs(&mut theirs, spec));
    match (finished, index) {
        (Ok(_), Some(index)) => Ok((index, passed)),
        (Ok(theirs), None) => Ok((theirs, passed)),
        (Err(message), index) => {
            // Our namespace dies with this process, but later than it; the caller may try again at once. A TAP goes with its
            // descriptor.
            let _ = index.map(|index| ours.delete_link(index));
            Err(message)
        }
    }
}

/// Where our end lies by itself, if it does; and what is passed out.
type Plugged = (Option<u32>, Vec<OwnedFd>);

/// Makes a veth pair, the guest's end down in its namespace.
fn plug_veth(
    ours: &mut Netlink,
    spec: &WireSpec,
    their_netns: BorrowedFd<'_>,
) -> Result<Plugged, String> {
    let pair = VethPair {
        name: OUR_END,
        peer_name: &spec.ifname,
        peer_netns: their_netns,
        peer_mac: spec.mac,
        mtu: spec.mtu,
    };
    ours.make_veth(&pair).map_err(|error| match error.raw_os_error() {
        Some(libc::EEXIST) => name_is_taken(spec),
        Some(libc::EOPNOTSUPP) => {
            "the kernel has no veth interfaces; load them (`modprobe veth`)".into()
        }
        _ => format!("cannot make {}: {error}", spec.ifname),
    })?;
    let index = ours.index_of(OUR_END).map_err(|error| format!("cannot find our end: {error}"))?;
    match finish_ours(ours, index, spec) {
        Ok(passed) => Ok((Some(index), passed)),
        Err(error) => {
            let _ = ours.delete_link(index);
            Err(format!("cannot set up our end for {}: {error}", spec.ifname))
        }
    }
}

/// Makes a TAP device and moves it to the guest, down.
fn plug_tap(
    ours: &mut Netlink,
    spec: &WireSpec,
    their_netns: BorrowedFd<'_>,
) -> Result<Plugged, String> {
    let wish = TapWish { vnet_hdr: !is_without("vnet-hdr"), uso: has_udp_superframes() };
    let device = TapWire::make(OUR_END, wish).map_err(|error| no_tap(&error))?;
    let settings =
        [LinkAttribute::Address(spec.mac.0.to_vec()), LinkAttribute::Mtu(spec.mtu.into())];
    let plug = |ours: &mut Netlink| -> io::Result<Vec<OwnedFd>> {
        let index = ours.index_of(OUR_END)?;
        let none = LinkFlags::empty();
        ours.set_link(index, none, none, settings.to_vec())?;
        ours.number_namespace(their_netns, THEIRS)?;
        ours.move_link(index, their_netns, &spec.ifname)?;
        // Later than the move, which looks like an end from here.
        Ok(vec![device.descriptor().try_clone_to_owned()?, link_events()?])
    };
    match plug(ours) {
        Ok(passed) => Ok((None, passed)),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Err(name_is_taken(spec)),
        Err(error) => Err(format!("cannot make {}: {error}", spec.ifname)),
    }
}

fn name_is_taken(spec: &WireSpec) -> String {
    format!("there is an interface {} already; choose another name (--ifname)", spec.ifname)
}

/// What to do where a TAP device could not be made.
fn no_tap(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "a TAP wire needs {TUN}, which this user may not open: let it (as root, `chmod 0666 {TUN}`), or choose a veth wire"
        ),
        io::ErrorKind::NotFound => format!(
            "a TAP wire needs {TUN}, which is not there: load it (as root, `modprobe tun`), or choose a veth wire"
        ),
        _ => format!("cannot make a TAP device of {TUN}: {error}; a veth wire needs none"),
    }
}

/// Readies our end and opens the sockets that are to be passed out.
fn finish_ours(ours: &mut Netlink, index: u32, spec: &WireSpec) -> io::Result<Vec<OwnedFd>> {
    ours.no_automatic_ipv6(index)?;
    ours.set_superframe_size(index, spec.gso_max_size)?;
    let silent = LinkFlags::Multicast;
    ours.set_link(index, LinkFlags::Up | LinkFlags::Noarp, silent, vec![])?;
    let packet = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    Ok(vec![packet, link_events()?])
}

/// Readies the guest's end, whose index is given back; the thread is in the guest's network namespace.
fn finish_theirs(theirs: &mut Netlink, spec: &WireSpec) -> Result<u32, String> {
    let name = spec.ifname.as_str();
    let none = LinkFlags::empty();
    let failed = |what: String| move |error: io::Error| format!("cannot {what} on {name}: {error}");
    let index = theirs.index_of(name).map_err(|error| format!("cannot find {name}: {error}"))?;
    sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), if spec.ipv6 { "0" } else { "1" });
    if !spec.bare || !spec.ipv6 {
        theirs.no_automatic_ipv6(index).map_err(failed("set IPv6 up".into()))?;
        // These repeat what was asked for by netlink, or keep quiet what static addresses need not say.
        sysctl(&format!("net/ipv6/conf/{name}/accept_dad"), "0");
        sysctl(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
    }
    theirs
        .set_superframe_size(index, spec.gso_max_size)
        .map_err(failed("limit superframes".into()))?;
    offload::only_expressible(name, has_udp_superframes())
        .map_err(failed("set offloads".into()))?;
    theirs.set_link(LOOPBACK, LinkFlags::Up, none, vec![]).map_err(failed("bring lo up".into()))?;
    theirs
        .set_link(index, LinkFlags::Up, none, vec![])
        .map_err(failed("bring the link up".into()))?;
    if !spec.bare {
        configure(theirs, index, spec)?;
    }
    Ok(index)
}

/// Gives the guest's end its addresses and routes.
fn configure(theirs: &mut Netlink, index: u32, spec: &WireSpec) -> Result<(), String> {
    let name = spec.ifname.as_str();
    let failed = |what: String| move |error: io::Error| format!("cannot {what} on {name}: {error}");
    if spec.ipv6 {
        let link_local =
            Ipv6Net::new(spec.mac.link_local(), 64).map_err(|error| error.to_string())?;
        theirs
            .add_address(index, link_local.into())
            .map_err(failed(format!("add {link_local}")))?;
    }
    for address in
        spec.addresses.iter().filter(|address| spec.ipv6 || matches!(address, IpNet::V4(_)))
    {
        theirs.add_address(index, *address).map_err(failed(format!("add {address}")))?;
    }
    let gateways =
        [spec.gateway4.map(IpAddr::V4), spec.gateway6.filter(|_| spec.ipv6).map(IpAddr::V6)];
    for gateway in gateways.into_iter().flatten() {
        theirs
            .replace_default_route(index, gateway)
            .map_err(failed(format!("route by {gateway}")))?;
    }
    Ok(())
}

/// What the kernel takes as the name of an interface, less what would leave the directory of its settings.
fn check_name(name: &str) -> Result<(), String> {
    let fits = (1..libc::IFNAMSIZ).contains(&name.len());
    let plain = name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte));
    if fits && plain && name != "." && name != ".." {
        Ok(())
    } else {
        Err(format!("{name:?} cannot name an interface: 1 to 15 letters, digits, '-', '_' or '.'"))
    }
}

/// Sets a network setting of this thread's namespace. Best effort: /proc/sys may be read-only in a container, and every
/// caller has asked for the essential by netlink.
fn sysctl(path: &str, value: &str) {
    let _ = fs::write(format!("/proc/sys/{path}"), value);
}

/// Whether a feature of the kernel was switched off, as for a test.
fn is_without(feature: &str) -> bool {
    let without = std::env::var("PORTOLAN_WITHOUT").unwrap_or_default();
    without.split(',').any(|name| name.trim() == feature)
}

/// Whether packet sockets and TAP devices can tell UDP superframes (Linux 6.2), and nobody has switched that off.
fn has_udp_superframes() -> bool {
    let release =
        nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned());
    !is_without("uso") && release.is_ok_and(|release| version(&release) >= (6, 2))
}

/// Major and minor number of a kernel release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v657"), (6, 18));
        assert_eq!(version("5.15.0-91-generic"), (5, 15));
        assert!(version("6.10") > version("6.2.1"));
    }

    #[test]
    fn names_that_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "sixteen-bytes-xx", "eth0:1", "eth%d", "é"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        for good in ["eth0", "fifteen-bytes-x", "a.b_c-d"] {
            assert_eq!(check_name(good), Ok(()));
        }
    }
}
