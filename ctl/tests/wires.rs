//! Wires into real namespaces. They need root, and make every namespace they touch.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{LinkAddr, MsgFlags, SockaddrLike, bind, recv, send, setsockopt, sockopt};
use portolan::namespace::user::open_pidfd;
use portolan::namespace::wire::{Target, Wire, WireSpec, make, route, use_program, write_etc};
use portolan::topology::WireKind;

/// A process in namespaces of its own; they go with it.
struct Guest {
    child: Child,
    pidfd: OwnedFd,
}

impl Guest {
    fn new(unshare: &[&str]) -> Guest {
        use_program(PathBuf::from(env!("CARGO_BIN_EXE_portolan")));
        let mut child = Command::new("unshare")
            .args(unshare)
            .args(["sh", "-c", "echo ready; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pidfd = open_pidfd(child.id()).unwrap();
        Guest { child, pidfd }
    }

    fn user() -> Guest {
        Guest::new(&["-Urn"])
    }

    fn target(&self) -> Target<'_> {
        Target::Process(self.pidfd.as_fd())
    }

    /// Runs a shell line inside.
    fn shell(&self, line: &str) -> Output {
        let pid = self.child.id().to_string();
        Command::new("nsenter")
            .args(["-t", &pid, "-U", "-n", "--preserve-credentials", "sh", "-c", line])
            .output()
            .unwrap()
    }

    fn says(&self, line: &str) -> String {
        let output = self.shell(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spec() -> WireSpec {
    WireSpec {
        ifname: "eth0".into(),
        mac: "02:42:ac:12:00:02".parse().unwrap(),
        addresses: vec!["172.18.0.2/16".parse().unwrap(), "fd00:1::2/64".parse().unwrap()],
        gateway4: Some("172.18.0.1".parse().unwrap()),
        gateway6: Some("fd00:1::1".parse().unwrap()),
        bare: false,
        kind: WireKind::Veth,
        ipv6: true,
        mtu: 1400,
        gso_max_size: 65000,
    }
}

/// Binds the packet socket of a wire to every protocol.
fn listen(wire: &Wire) {
    let raw = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: wire.ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `raw` is a whole sockaddr_ll, as its family says.
    let address =
        unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(size_of_val(&raw) as u32)) }
            .unwrap();
    bind(wire.descriptor.as_raw_fd(), &address).unwrap();
}

/// The next frame of this EtherType.
fn frame(wire: &Wire, ether_type: u16) -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    for _ in 0..100 {
        assert_eq!(
            poll(&mut [PollFd::new(wire.descriptor.as_fd(), PollFlags::POLLIN)], 5000u16),
            Ok(1)
        );
        let length = recv(wire.descriptor.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap();
        if bytes[12..14] == ether_type.to_be_bytes() {
            return bytes[..length].to_vec();
        }
    }
    panic!("no such frame among a hundred");
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn the_guest_has_what_was_asked_for() {
    let guest = Guest::user();
    let _wire = make(guest.target(), &spec()).unwrap();
    let link = guest.says("ip -d link show eth0");
    for word in [
        "link/ether 02:42:ac:12:00:02",
        "mtu 1400",
        "state UP",
        "addrgenmode none",
        "gso_max_size 65000",
    ] {
        assert!(link.contains(word), "{word}: {link}");
    }
    let addresses = guest.says("ip -o addr show eth0; ip -o link show lo");
    for word in [
        "172.18.0.2/16 brd 172.18.255.255",
        "fd00:1::2/64",
        "fe80::42:acff:fe12:2/64",
        "LOOPBACK,UP",
    ] {
        assert!(addresses.contains(word), "{word}: {addresses}");
    }
    assert!(!addresses.contains("tentative"), "{addresses}");
    assert_eq!(
        guest.says("ip route show default").trim(),
        "default via 172.18.0.1 dev eth0 proto static"
    );
    assert!(
        guest
            .says("ip -6 route show default")
            .starts_with("default via fd00:1::1 dev eth0 proto static")
    );
}

#[test]
fn what_a_vnet_header_cannot_say_is_off_and_the_rest_is_on() {
    let guest = Guest::user();
    let _wire = make(guest.target(), &spec()).unwrap();
    let features = guest.says("ethtool -k eth0");
    for (name, wanted) in [
        ("tx-udp_tnl-segmentation", "off"),
        ("tx-gre-segmentation", "off"),
        ("tx-checksum-sctp", "off"),
        ("tx-tcp-segmentation", "on"),
        ("tx-tcp6-segmentation", "on"),
        ("tx-checksum-ip-generic", "on"),
        ("tx-udp-segmentation", "on"),
    ] {
        let line =
            features.lines().find(|line| line.trim().starts_with(&format!("{name}:"))).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(wanted), "{line}");
    }
}

#[test]
fn without_ipv6_the_interface_has_none() {
    let guest = Guest::user();
    let _wire = make(guest.target(), &WireSpec { ipv6: false, ..spec() }).unwrap();
    assert_eq!(guest.says("ip -6 addr show eth0"), "");
    assert_eq!(guest.says("ip -6 route show default"), "");
}

#[test]
fn frames_go_both_ways_and_our_end_is_silent() {
    let guest = Guest::user();
    let wire = make(guest.target(), &spec()).unwrap();
    setsockopt(&wire.descriptor, sockopt::RcvBuf, &(1 << 20)).unwrap();
    listen(&wire);
    guest.shell("ping -c 1 -W 1 172.18.0.1");
    let request = frame(&wire, 0x0806);
    assert_eq!(request[..6], [0xff; 6]);
    assert_eq!(request[6..12], [2, 0x42, 0xac, 0x12, 0, 2]);
    assert_eq!(request[28..32], [172, 18, 0, 2]);
    assert_eq!(request[38..42], [172, 18, 0, 1]);

    let gateway = [2, 0x42, 1, 2, 3, 4];
    let mut question = request.clone();
    question[6..12].copy_from_slice(&gateway);
    question[22..28].copy_from_slice(&gateway);
    question[28..32].copy_from_slice(&request[38..42]);
    question[38..42].copy_from_slice(&request[28..32]);
    send(wire.descriptor.as_raw_fd(), &question, MsgFlags::empty()).unwrap();
    let answer = loop {
        let frame = frame(&wire, 0x0806);
        if frame[20..22] == [0, 2] {
            break frame;
        }
    };
    assert_eq!(answer[..12], [2, 0x42, 1, 2, 3, 4, 2, 0x42, 0xac, 0x12, 0, 2]);
    assert_eq!(answer[28..32], [172, 18, 0, 2]);
}

#[test]
fn a_taken_name_is_told_and_leaves_nothing() {
    let guest = Guest::user();
    let first = make(guest.target(), &spec()).unwrap();
    let error = make(guest.target(), &spec()).unwrap_err();
    assert!(error.contains("there is an interface eth0 already"), "{error}");
    let second = make(
        guest.target(),
        &WireSpec {
            ifname: "eth1".into(),
            addresses: vec![],
            gateway4: None,
            gateway6: None,
            ..spec()
        },
    );
    assert!(second.is_ok(), "{second:?}");
    drop((first, second));
    eventually("the interfaces go with the descriptors", || {
        guest.says("ip -o link").matches("eth").count() == 0
    });
}

#[test]
fn a_wire_that_cannot_be_finished_leaves_nothing() {
    let guest = Guest::user();
    let far = WireSpec { gateway4: Some("10.9.9.9".parse().unwrap()), ..spec() };
    let error = make(guest.target(), &far).unwrap_err();
    assert!(error.contains("cannot route by 10.9.9.9 on eth0"), "{error}");
    assert!(!guest.says("ip -o link").contains("eth0"));
}

#[test]
fn the_death_of_the_guest_shows_on_both_sockets() {
    let guest = Guest::user();
    let wire = make(guest.target(), &spec()).unwrap();
    listen(&wire);
    drop(guest);
    let mut polled = [PollFd::new(wire.descriptor.as_fd(), PollFlags::empty())];
    assert_eq!(poll(&mut polled, 10_000u16), Ok(1));
    assert!(polled[0].revents().unwrap().contains(PollFlags::POLLERR));
    eventually("the link event", || {
        let mut bytes = [0; 8192];
        match recv(wire.netlink.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(length) => bytes[..length].get(4..6) == Some(&libc::RTM_DELLINK.to_ne_bytes()),
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN);
                false
            }
        }
    });
}

#[test]
fn a_namespace_of_our_own_user_is_entered_by_its_process_or_its_name() {
    let guest = Guest::new(&["-n"]);
    let by_process = make(guest.target(), &spec()).unwrap();
    let netns = File::open(format!("/proc/{}/ns/net", guest.child.id())).unwrap();
    let other = WireSpec {
        ifname: "eth1".into(),
        addresses: vec![],
        gateway4: None,
        gateway6: None,
        ..spec()
    };
    let by_name = make(Target::Netns(netns.as_fd()), &other).unwrap();
    let links = Command::new("nsenter")
        .args(["-t", &guest.child.id().to_string(), "-n", "ip", "-o", "link"])
        .output()
        .unwrap();
    let links = String::from_utf8(links.stdout).unwrap();
    assert!(links.contains("eth0") && links.contains("eth1"), "{links}");
    drop((by_process, by_name));
}

#[test]
fn default_routes_follow_and_foreign_ones_stay() {
    let guest = Guest::user();
    let _wire = make(guest.target(), &spec()).unwrap();
    let other = WireSpec {
        ifname: "eth1".into(),
        mac: "02:42:ac:13:00:02".parse().unwrap(),
        addresses: vec!["172.19.0.2/16".parse().unwrap()],
        gateway4: None,
        gateway6: None,
        ..spec()
    };
    let _second = make(guest.target(), &other).unwrap();
    guest.says("ip route add default via 172.18.0.9 metric 50 proto boot");
    route(guest.target(), Some(("eth1".into(), "172.19.0.1".parse().unwrap())), None).unwrap();
    assert_eq!(
        guest.says("ip route show default"),
        "default via 172.19.0.1 dev eth1 proto static \ndefault via 172.18.0.9 dev eth0 metric 50 \n"
    );
    assert_eq!(guest.says("ip -6 route show default"), "");
    route(guest.target(), None, None).unwrap();
    assert_eq!(guest.says("ip route show default"), "default via 172.18.0.9 dev eth0 metric 50 \n");
    let error = route(guest.target(), Some(("eth7".into(), "172.19.0.1".parse().unwrap())), None)
        .unwrap_err();
    assert!(error.contains("behind eth7"), "{error}");
}

#[test]
fn a_gone_process_is_told() {
    let mut child = Command::new("true").spawn().unwrap();
    use_program(PathBuf::from(env!("CARGO_BIN_EXE_portolan")));
    let pidfd = open_pidfd(child.id()).unwrap();
    child.wait().unwrap();
    let error = make(Target::Process(pidfd.as_fd()), &spec()).unwrap_err();
    assert_eq!(error, "the process has ended");
}

#[test]
fn an_etc_that_is_not_a_nodes_own_is_left_alone() {
    let guest = Guest::user();
    assert!(write_etc(guest.pidfd.as_fd(), &Default::default()).is_err());
    let mut hosts = String::new();
    File::open("/etc/hosts").unwrap().read_to_string(&mut hosts).unwrap();
    assert_ne!(hosts, "");
}

#[test]
fn two_hundred_wires_take_less_than_ten_seconds() {
    use_program(PathBuf::from(env!("CARGO_BIN_EXE_portolan")));
    let guests: Vec<Guest> = (0..20).map(|_| Guest::user()).collect();
    let start = Instant::now();
    let wires: Vec<Wire> = std::thread::scope(|scope| {
        let makers: Vec<_> = guests
            .iter()
            .map(|guest| {
                scope.spawn(move || {
                    let wires = (0..10).map(|i| {
                        let plain = WireSpec {
                            addresses: vec![],
                            gateway4: None,
                            gateway6: None,
                            ..spec()
                        };
                        make(guest.target(), &WireSpec { ifname: format!("eth{i}"), ..plain })
                            .unwrap()
                    });
                    wires.collect::<Vec<_>>()
                })
            })
            .collect();
        makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect()
    });
    let took = start.elapsed();
    assert_eq!(wires.len(), 200);
    let _ = writeln!(std::io::stderr(), "200 wires in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}
