//! What would become of a frame, asked of the running daemon; and what is said of VLANs and isolated ports, held against
//! real wires.

use serde_json::Value;

use crate::harness::{World, eventually};

/// The hardware address of a node on a network, as twelve digits.
fn mac(world: &World, node: &str, network: &str) -> String {
    let template = format!("{{{{.NetworkSettings.Networks.{network}.MacAddress}}}}");
    let shown = world.portolan(["inspect", node, "--format", template.as_str()]).ok();
    shown.trim().replace(':', "")
}

fn explained(world: &World, line: &str) -> Value {
    world.json(&format!("explain {line} --format json"))[0].clone()
}

fn stages(told: &Value) -> Vec<&str> {
    told["Steps"].as_array().unwrap().iter().map(|s| s["Stage"].as_str().unwrap()).collect()
}

#[test]
fn a_frame_is_followed_to_where_it_would_go_and_nothing_comes_of_asking() {
    let world = World::user();
    world.ok("network create app");
    world.idle("--name a --network app");
    world.idle("--name b --network app");
    let (a, b) = (mac(&world, "a", "app"), mac(&world, "b", "app"));
    let before = world.ok("drops app --format json");

    let frame = format!("{b}{a}88b501020304");
    let told = explained(&world, &format!("app {frame}"));
    assert_eq!((&told["Outcome"], &told["From"]), (&"sent".into(), &"a".into()));
    assert_eq!(stages(&told), ["admit", "guard", "learn", "lookup"]);
    assert_eq!(told["Receivers"][0]["Node"], "b");
    assert_eq!(told["Receivers"][0]["Frame"], frame.as_str());

    let told = explained(&world, &format!("app {frame} --from b"));
    assert_eq!((&told["Outcome"], &told["Reason"]), (&"dropped".into(), &"guard_mac".into()));
    let shown = world.ok(&format!("explain app {frame} --from b"));
    assert!(shown.contains("\n  guard     DROPPED, guard_mac: "), "{shown}");

    let refused = world.portolan(["explain", "app", "020202020202060606060606"]).refused(1);
    let hint = "nobody on app is known to have 06:06:06:06:06:06: use --from NODE";
    assert_eq!(refused, format!("portolan: {hint}"));
    let refused = world.portolan(["explain", "app", "nonsense"]).refused(1);
    assert!(refused.contains("neither a frame in hexadecimal nor a file"), "{refused}");
    assert_eq!(world.ok("drops app --format json"), before, "nothing is counted");
}

#[test]
fn each_frame_that_nodes_sent_in_a_capture_is_explained() {
    let world = World::user();
    world.ok("network create app");
    world.idle("--name a --network app");
    world.idle("--name b --network app");
    let file = world.path("home/frames.pcapng");
    let mut words = vec!["capture", "app", "--count", "4", "--duration", "20s", "-w"];
    words.push(file.to_str().unwrap());
    let mut capture = crate::harness::Kept::spawn(world.command(words));
    let address = world.address("b", "app");
    eventually("the capture is full", 30, || {
        world.exec("a", &format!("ping -q -c 1 -W 1 {address}"));
        capture.wait(0).is_some()
    });
    let told = world.json(&format!("explain app {} --format json", file.display()));
    let told = told.as_array().unwrap();
    assert!(!told.is_empty());
    for one in told {
        assert!(one["Number"].as_u64().unwrap() >= 1, "{one}");
        assert_eq!(one["Outcome"], "sent", "{one}");
    }
}

#[test]
fn access_ports_of_a_vlan_reach_each_other_and_isolated_ones_do_not() {
    let world = World::user();
    world.ok("network create app");
    world.idle("--name a --network app --driver-opt portolan.vlan=access:10");
    world.idle("--name b --network app --driver-opt portolan.vlan=access:10");
    world.idle("--name c --network app --driver-opt portolan.vlan=access:20");
    world.idle("--name d --network app --driver-opt portolan.isolated=on");
    world.idle("--name e --network app --driver-opt portolan.isolated=on");
    world.idle("--name f --network app");
    let reaches = |from: &str, to: &str| {
        let address = world.address(to, "app");
        world.exec(from, &format!("ping -q -c 1 -W 1 {address}")).code == 0
    };
    assert!(reaches("a", "b") && reaches("d", "f") && reaches("f", "e"));
    assert!(!reaches("a", "c") && !reaches("a", "f") && !reaches("d", "e"));
    let (a, c) = (mac(&world, "a", "app"), mac(&world, "c", "app"));
    let told = explained(&world, &format!("app {c}{a}88b501020304"));
    assert_eq!(told["Reason"], "vlan_not_allowed");
    let (d, e) = (mac(&world, "d", "app"), mac(&world, "e", "app"));
    let told = explained(&world, &format!("app {e}{d}88b501020304"));
    assert_eq!(told["Reason"], "isolated");
}
