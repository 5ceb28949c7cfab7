//! TAP wires: what is tested of veth wires again, and what is their own.

use std::fs;

use crate::harness::{Netns, Wires, World, eventually, with_wires};

const TAPS: Wires = Wires::Taps { without: "" };

/// Tests of other modules, run again in worlds whose wires are TAP devices.
macro_rules! again {
    ($($module:ident: { $($test:ident,)+ })+) => {$(
        mod $module {
            $(
                #[test]
                fn $test() {
                    crate::harness::with_wires(super::TAPS, crate::$module::$test);
                }
            )+
        }
    )+};
}

again! {
    lan: {
        a_node_is_found_by_each_of_its_names,
        networks_are_apart_even_with_equal_subnets,
        two_networks_are_two_interfaces_in_the_order_given,
        a_node_is_shown_run_in_and_removed,
        a_namespace_of_the_same_user_is_attached_detached_and_attached_again,
        a_namespace_of_roots_is_attached_by_roots_daemon,
        connect_and_disconnect_change_a_running_node,
        neighbours_and_gateway_answer_arp_and_ipv6,
        iperf3_runs_guest_to_guest,
    }
    integrity: {
        a_gibibyte_arrives_as_it_was_sent,
        a_gibibyte_arrives_as_it_was_sent_without_offloads,
        superframes_arrive_at_a_guest_without_receive_offloads,
    }
    oracle: {
        the_switch_does_with_every_frame_what_the_kernel_bridge_does,
    }
    crossing: {
        streams_cross_both_ways_over_both_families,
        streams_cross_both_ways_with_a_guest_without_offloads,
    }
    restart: {
        a_killed_daemon_is_replaced_and_every_node_keeps_what_it_had,
        a_connection_lives_through_the_deaths_of_the_daemon_and_its_bytes_are_whole,
        when_both_are_killed_the_next_command_starts_anew_and_tells_the_truth,
        a_keeper_that_is_asked_to_stop_takes_all_of_its_own_along,
        what_is_to_be_removed_at_its_end_leaves_nothing,
        a_link_that_the_guest_deletes_is_the_end_of_its_endpoint_alone,
        a_killed_process_ends_its_node_whether_run_or_attached,
        a_namespace_that_is_deleted_takes_its_node_along,
        deaths_in_quick_succession_are_outlived,
    }
    uplink: {
        curl_gets_pages_over_both_families_and_the_host_is_who_asks,
        datagrams_of_every_size_come_back_as_they_went,
        a_trace_by_datagrams_shows_the_gateway_every_router_and_the_end,
        a_refused_connection_is_refused_at_once,
    }
    publish: {
        a_node_sees_the_clients_own_address_and_port_by_tcp_and_udp_over_both_families,
        who_connects_while_the_daemon_is_dead_is_served_by_its_heir,
    }
    resolver: {
        dig_gets_addresses_and_names,
        dig_gets_a_large_answer_by_the_size_it_takes,
    }
}

/// The same on kernels that have less for TAP devices.
mod less {
    use crate::harness::{Wires, with_wires};
    use crate::{crossing, integrity, lan};

    #[test]
    fn all_works_without_superframes() {
        let plain = Wires::Taps { without: "vnet-hdr" };
        with_wires(plain, integrity::superframes_arrive_at_a_guest_without_receive_offloads);
        with_wires(plain, crossing::streams_cross_both_ways_over_both_families);
        with_wires(plain, lan::neighbours_and_gateway_answer_arp_and_ipv6);
    }

    #[test]
    fn all_works_without_trains_of_datagrams() {
        with_wires(Wires::Taps { without: "uso" }, super::trains_arrive);
    }
}

/// Takes datagrams on port 9000 until one is empty, and prints how many there were, their bytes, and whether all bytes were
/// those of [`TRAINS`].
const TAKE: &str = "
import socket
taker = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
taker.bind(('::', 9000))
print('ready', flush=True)
count, total, whole = 0, 0, True
while data := taker.recv(65536):
    whole &= data == bytes(n % 251 for n in range(len(data)))
    count, total = count + 1, total + len(data)
print(count, total, whole, flush=True)
";

/// Sends ten trains of ten datagrams, each by one call (UDP_SEGMENT is 103), and an empty datagram.
const TRAINS: &str = "
import socket, sys, time
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
sender = socket.socket(family, socket.SOCK_DGRAM)
sender.connect((sys.argv[1], 9000))
piece = bytes(n % 251 for n in range(1000))
for _ in range(10):
    sender.sendmsg([piece * 10], [(socket.IPPROTO_UDP, 103, (1000).to_bytes(2, sys.byteorder))])
    time.sleep(0.02)
sender.send(b'')
";

/// Trains of datagrams from one node to another, over both families.
fn trains_arrive() {
    let world = World::user();
    world.ok("network create --ipv6 --subnet 10.1.0.0/24 --subnet fd00:1::/64 app");
    for (name, address) in [("four", "10.1.0.2"), ("six", "fd00:1::2")] {
        world
            .portolan([
                "run",
                "-d",
                "--name",
                name,
                "--network",
                "app",
                "--",
                "python3",
                "-c",
                TAKE,
            ])
            .ok();
        eventually("it listens", 20, || world.ok(&format!("logs {name}")).contains("ready"));
        let send = ["run", "--rm", "--network", "app", "--", "python3", "-c", TRAINS, address];
        world.portolan(send).ok();
        eventually("all have come", 20, || world.ok(&format!("logs {name}")).contains(' '));
        assert_eq!(world.ok(&format!("logs {name}")), "ready\n100 100000 True");
        world.ok(&format!("rm -f {name}"));
    }
}

#[test]
fn trains_of_datagrams_arrive() {
    with_wires(TAPS, trains_arrive);
}

#[test]
fn packets_of_every_mtu_cross_whole() {
    with_wires(TAPS, || {
        let world = World::user();
        for mtu in [1500, 9000, 65250] {
            world.ok(&format!("network create --ipv6 -o mtu={mtu} n{mtu}"));
            world.idle(&format!("--name a{mtu} --network n{mtu}"));
            for (options, headers) in [("-4", 28), ("-6", 48)] {
                let ping = format!(
                    "ip link show eth0 | grep -c 'mtu {mtu} ' && ping {options} -M do -c 3 -i 0.2 -w 5 -s {} a{mtu}",
                    mtu - headers
                );
                let said = world.once(&format!("--network n{mtu}"), &ping).ok();
                assert!(said.contains("3 received, 0% packet loss"), "{said}");
            }
        }
    });
}

/// Takes a frame with two tags, of which the kernel tells the outer one beside the frame (PACKET_AUXDATA is 8), and prints that
/// one, the EtherType of the next, the next, and the length of the rest.
const TAKE_TAGGED: &str = "
import socket, struct
taker = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
taker.bind(('eth0', 0))
taker.setsockopt(263, 8, 1)
taker.settimeout(20)
print('ready', flush=True)
while True:
    frame, beside, _, address = taker.recvmsg(65536, 64)
    tag = [struct.unpack('=IIIHHHH', data)[5] for level, kind, data in beside if (level, kind) == (263, 8)]
    if address[2] != 4 and frame[16:18] == b'\\x88\\xb5':
        print(tag[0], frame[12:16].hex(), len(frame), flush=True)
        break
";

#[test]
fn frames_with_two_tags_cross() {
    with_wires(TAPS, || {
        let world = World::user();
        world.ok("network create -o portolan.guard=off app");
        let options = ["run", "-d", "--name", "taker", "--cap-add", "NET_RAW", "--network", "app"];
        world.portolan(options.into_iter().chain(["--", "python3", "-c", TAKE_TAGGED])).ok();
        eventually("it listens", 20, || world.ok("logs taker").contains("ready"));
        let frame = "import socket\n\
                     s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
                     s.bind(('eth0', 0))\n\
                     tags = bytes.fromhex('88a800058100200688b5')\n\
                     s.send(bytes([255] * 6 + [2, 0, 0, 0, 0, 9]) + tags + bytes(1400))\n";
        let options = ["run", "--rm", "--cap-add", "NET_RAW", "--network", "app"];
        world.portolan(options.into_iter().chain(["--", "python3", "-c", frame])).ok();
        eventually("it has come", 20, || world.ok("logs taker").contains(' '));
        assert_eq!(world.ok("logs taker"), "ready\n5 81002006 1418");
    });
}

/// Clock ticks that a process has had.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let words: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    words[11..13].iter().map(|word| word.parse::<u64>().unwrap()).sum()
}

/// How many frames of this network were dropped for this reason.
fn drops(world: &World, reason: &str) -> u64 {
    let rows = world.json("drops app --format json");
    let rows = rows.as_array().unwrap().iter().filter(|row| row["Reason"] == reason);
    rows.map(|row| row["Frames"].as_u64().unwrap()).sum()
}

#[test]
fn whatever_root_inside_does_to_the_device_is_seen_and_outlived() {
    with_wires(TAPS, || {
        let world = World::root();
        world.ok("network create --subnet 10.1.0.0/24 app");
        let [a, b, c] = ["still", "restless", "elsewhere"].map(Netns::new);
        for (name, netns) in [("a", &a), ("b", &b)] {
            world.ok(&format!("attach --netns {} --name {name} --network app", netns.path()));
        }
        let reaches =
            |from: &Netns, to: &str| from.shell(&format!("ping -c 1 -W 2 {to}")).code == 0;
        assert!(reaches(&a, "10.1.0.3"));
        b.shell("ip link set eth0 down").ok();
        let busy = ticks(world.pids().0);
        assert!(!reaches(&a, "10.1.0.3"));
        assert!(ticks(world.pids().0) - busy < 100, "two seconds in which there is nothing to do");
        assert!(drops(&world, "tx_down") > 0);
        b.shell("ip link set eth0 name other && ip link set other up").ok();
        eventually("it is back", 10, || reaches(&a, "10.1.0.3"));
        b.shell("ip link set other mtu 9000").ok();
        assert_eq!(drops(&world, "oversize"), 0);
        assert_ne!(b.shell("ping -c 1 -W 1 -M do -s 8000 10.1.0.2").code, 0);
        assert_eq!(drops(&world, "oversize"), 1);
        b.shell(&format!("ip link set other netns {}", c.name())).ok();
        c.shell("ip addr add 10.1.0.3/24 dev other && ip link set other up").ok();
        eventually("it is there", 10, || reaches(&c, "10.1.0.2"));
        c.shell("ip link del other").ok();
        eventually("the node is gone", 15, || world.nodes().lines().count() == 1);
        let busy = ticks(world.pids().0);
        assert!(!reaches(&a, "10.1.0.3"));
        assert!(ticks(world.pids().0) - busy < 100, "nobody asks for what is gone");
        assert!(world.log().contains("the wire of b on"), "{}", world.log());
    });
}

#[test]
fn an_interface_is_gone_when_disconnect_returns() {
    with_wires(TAPS, || {
        let world = World::user();
        world.ok("network create app");
        world.idle("--name n --network app");
        for _ in 0..3 {
            world.ok("network disconnect app n");
            assert!(!world.exec("n", "ip -br link").ok().contains("eth0"));
            world.ok("network connect app n");
            assert!(world.exec("n", "ip -d link show eth0").ok().contains("tun type tap"));
        }
    });
}

#[test]
fn without_a_device_file_a_tap_is_refused_with_the_remedy() {
    let no_tun =
        "mount -t tmpfs tmpfs /dev/net && mknod -m 600 /dev/net/tun c 10 200 && exec \"$@\"";
    let world = World::started(
        crate::harness::Who::User,
        &["unshare", "--mount", "sh", "-c", no_tun, "sh"],
    );
    world.ok("network create app");
    let refused = world.portolan(["run", "--wire", "tap", "--network", "app", "--", "true"]);
    assert!(refused.err.contains("chmod 0666 /dev/net/tun"), "{refused:?}");
    assert!(refused.err.contains("veth"), "{refused:?}");
    assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
    assert_eq!(world.nodes(), "");
    // It fails for whatever else this machine lacks.
    let found = world.portolan(["doctor", "--format", "json"]).out;
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let taps = found.as_array().unwrap().iter().find(|one| one["Check"] == "TAP wires");
    assert!(taps.unwrap()["Remedy"].as_str().unwrap().contains("chmod 0666"), "{found}");
    world.once("--network app", "true").ok();
}

#[test]
fn an_endpoint_that_is_not_configured_comes_up_bare_on_either_wire() {
    let world = World::user();
    world.ok("network create --subnet 10.1.0.0/24 app");
    let options = "--name n --network app,driver-opt=portolan.configure=off";
    world.idle(options);
    let shown = world.exec("n", "ip -br -4 addr show eth0; ip route; ip -br link show eth0").ok();
    assert!(shown.contains(" UP "), "{shown}");
    assert!(!shown.contains("10.1.0"), "{shown}");
    assert_eq!(world.address("n", "app"), "10.1.0.2", "it is the endpoint's all the same");
    assert!(world.exec("n", "cat /etc/resolv.conf").ok().contains("nameserver 10.1.0.1"));
}
