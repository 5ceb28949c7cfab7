//! Options of networks and endpoints, and what shows of them: refusals, leases of strangers, figures and events.

use serde_json::Value;

use crate::harness::{World, eventually};

fn rows(world: &World, line: &str) -> Vec<Value> {
    world.json(line).as_array().unwrap().clone()
}

/// A program in a node that asks for an address in the name of another machine, and keeps it.
fn stranger(world: &World, node: &str, network: &str, mac: &str) {
    let shell = format!(
        "ip link set eth0 address {mac} && exec busybox udhcpc -f -i eth0 -s /bin/true -x hostname:{node}"
    );
    let options = format!(
        "--cap-add NET_ADMIN --cap-add NET_RAW --name {node} --network {network},driver-opt=portolan.configure=off"
    );
    world.node(&options, &shell);
}

#[test]
fn options_are_refused_word_for_word_and_shown_where_they_are_taken() {
    let world = World::user();
    for (line, said) in [
        (
            "network create -o portolan.mode=bridge x",
            "portolan: portolan.mode=bridge: one of switch, hub, wire is needed",
        ),
        (
            "network create -o portolan.vlan=access:1 x",
            "portolan: portolan.vlan is an option of endpoints: give it to run or network connect, as --driver-opt",
        ),
        (
            "network create -o portolan.ra=slaac x",
            "portolan: portolan.ra has no effect without IPv6: add --ipv6 or drop it",
        ),
        (
            "network create --subnet 10.9.0.0/24 -o portolan.dhcp_range=10.8.0.0/28 x",
            "portolan: portolan.dhcp_range 10.8.0.0-10.8.0.15 is outside subnet 10.9.0.0/24, where addresses are leased",
        ),
    ] {
        assert_eq!(world.portolan(line.split(' ')).refused(1), said, "{line}");
    }
    world.ok("network create -o portolan.storm=broadcast:50 -o portolan.loop=tell app");
    let network = world.json("network inspect app");
    assert_eq!(network[0]["Options"]["portolan.storm"], "broadcast:50");

    world.idle("--name a --network app --driver-opt portolan.vlan=access:10");
    let options = ["run", "-d", "--name", "b", "--network"];
    let quoted = r#"app,"driver-opt=portolan.vlan=trunk:10,20-29""#;
    world.portolan(options.iter().copied().chain([quoted, "--", "sleep", "600"])).ok();
    let opts = "{{json .NetworkSettings.Networks.app.DriverOpts}}";
    let shown = world.portolan(["inspect", "b", "--format", opts]).ok();
    assert_eq!(shown.trim(), r#"{"portolan.vlan":"trunk:10,20-29"}"#);
    let wrong = "run --network app --driver-opt portolan.vlan=access:4095 -- true";
    assert_eq!(
        world.portolan(wrong.split(' ')).refused(125),
        "portolan: portolan.vlan=access:4095: \"4095\" is no VLAN: a number from 1 to 4094 is needed"
    );
    // A node of VLAN 10 without a tag on its wire and one that gets its tags are of different minds: nothing passes.
    let address = world.address("a", "app");
    assert_eq!(world.exec("b", &format!("ping -q -c 1 -W 1 {address}")).code, 1);
    let drops = rows(&world, "drops app --format json");
    let named = |row: &Value| row["Node"] == "b" && row["Reason"] == "vlan_not_allowed";
    assert!(drops.iter().any(named), "{drops:?}");
}

#[test]
fn a_wire_takes_two_ends_and_leads_nowhere_else() {
    let world = World::user();
    world.ok("network create --subnet 10.9.0.0/31 -o portolan.mode=wire line");
    assert_eq!(world.json("network inspect line")[0]["Options"]["portolan.guard"], "off");
    world.idle("--name a --network line");
    world.idle("--name b --network line");
    let refused = world.portolan("run --name c --network line -- true".split(' ')).refused(125);
    assert_eq!(
        refused,
        "portolan: network line is a wire, and its two ends are a and b: disconnect one, or make another network"
    );
    assert_eq!(world.exec("a", "ip route show default").ok(), "");
    assert!(!world.exec("a", "cat /etc/resolv.conf").ok().contains("nameserver"));
    world.exec("a", &format!("ping -q -c 1 -W 2 {}", world.address("b", "line"))).ok();
}

#[test]
fn a_strangers_lease_is_listed_told_of_and_kept_from_endpoints() {
    let world = World::user();
    world.ok(
        "network create --subnet 10.9.0.0/29 -o portolan.guard=off -o portolan.dhcp_lease=5m lab",
    );
    world.ok("network create --subnet 10.8.0.0/24 -o portolan.guard=off -o portolan.dhcp_range=10.8.0.2-10.8.0.9 other");
    world.idle("--name first --network other");
    assert_eq!(world.address("first", "other"), "10.8.0.10", "the range is for strangers");
    stranger(&world, "s", "lab", "02:00:00:00:00:77");
    eventually("the stranger has a lease", 20, || {
        !rows(&world, "leases lab --format json").is_empty()
    });
    let leases = rows(&world, "leases lab --format json");
    let [lease] = leases.as_slice() else { panic!("{leases:?}") };
    assert_eq!(lease["MacAddress"], "02:00:00:00:00:77");
    assert_eq!((&lease["Hostname"], &lease["Node"]), (&"s".into(), &"s".into()));
    let expires = lease["ExpiresIn"].as_u64().unwrap();
    assert!((200..=300).contains(&expires), "{expires}");
    let address = lease["IPAddress"].as_str().unwrap();

    let events = world.ok("events --since 1h --until 0s --filter event=lease --format json");
    let event: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!((&event["Type"], &event["Action"]), (&"network".into(), &"lease".into()));
    let told = &event["Actor"]["Attributes"];
    assert_eq!((&told["name"], &told["node"]), (&"lab".into(), &"s".into()));
    let id = world.ok("inspect s --format {{.Id}}");
    assert_eq!(told["container"], id.trim());
    for node in ["s", id.trim(), &id[..12]] {
        let of_node = world.ok(&format!(
            "events --since 0 --until 0s --filter node={node} --format {{{{.Action}}}}"
        ));
        assert_eq!(
            of_node.lines().collect::<Vec<_>>(),
            ["create", "connect", "start", "lease"],
            "{node}"
        );
    }
    assert_eq!(
        (told["address"].as_str(), &told["mac"]),
        (Some(address), &"02:00:00:00:00:77".into())
    );

    let asked = format!("run --name x --network lab,ip={address} -- true");
    assert_eq!(
        world.portolan(asked.split(' ')).refused(125),
        format!(
            "portolan: IP address {address} is leased to 02:00:00:00:00:77 on network lab: choose another, or wait until the \
             lease ends"
        )
    );
    // Five addresses are a host's: the stranger has one leased and one reserved, so three are left.
    for name in ["a", "b", "c"] {
        world.idle(&format!("--name {name} --network lab"));
        assert_ne!(world.address(name, "lab"), address);
    }
    let full = world.portolan("run --name d --network lab -- true".split(' ')).refused(125);
    assert!(full.contains("no free IPv4 address left in 10.9.0.0/29"), "{full}");
}

#[test]
fn figures_are_as_the_node_sees_them() {
    let world = World::user();
    world.ok("network create --subnet 10.9.0.0/24 app");
    world.idle("--name a --network app");
    world.idle("--name b --network app");
    world.exec("a", "ping -q -c 5 -i 0.2 -W 2 10.9.0.3").ok();
    let of =
        |rows: &[Value], node: &str| rows.iter().find(|row| row["Node"] == node).cloned().unwrap();
    let all = rows(&world, "stats app --format json");
    assert_eq!(all.len(), 2);
    let (a, b) = (of(&all, "a"), of(&all, "b"));
    assert_eq!((&a["Network"], &a["Interface"]), (&"app".into(), &"eth0".into()));
    for row in [&a, &b] {
        for figure in ["rx_packets", "tx_packets"] {
            assert!(row[figure].as_u64().unwrap() >= 5, "{row}");
        }
        assert!(row["tx_bytes"].as_u64().unwrap() >= 5 * 98, "{row}");
        assert_eq!(row["GuestBacklog"], 0, "the link tells of its backlog");
    }
    let one = rows(&world, "stats a --format json");
    assert_eq!(one.len(), 1);
    assert_eq!(one[0]["Node"], "a");
    let unknown = world.portolan(["stats", "nope"]).refused(1);
    assert_eq!(
        unknown,
        "portolan: there is no network and no node \"nope\": `portolan network ls` and `portolan ps` list them"
    );
    let mut command = world.command(["stats", "app", "--watch", "--format", "json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for line in lines.take(2) {
        let array: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(array.as_array().unwrap().len(), 2);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
