//! The main job: programs on LANs, found by name, kept apart.

use crate::harness::{World, eventually};

/// A world with the networks `app` and `other`, and a web server `db` on `app`.
fn with_db() -> World {
    let world = World::user();
    world.ok("network create app");
    world.ok("network create other");
    world.node("--name db --network app", "exec python3 -m http.server 8000");
    eventually("the server listens", 20, || {
        world.exec("db", "ss -Hltn sport = :8000").out.contains(":8000")
    });
    world
}

#[test]
fn a_node_is_found_by_each_of_its_names() {
    let world = with_db();
    let id: String = world.json("inspect db")[0]["Id"].as_str().unwrap()[..12].into();
    let hostname = world.exec("db", "hostname").ok();
    for name in ["db", "db.app", "DB.app.", &id, &format!("{id}.app"), &hostname] {
        let code = world.once(
            "--network app",
            &format!("curl -s -m 10 -o /dev/null -w '%{{http_code}}' http://{name}:8000/"),
        );
        assert_eq!(code.ok(), "200", "{name}");
    }
    let address = world.address("db", "app");
    assert_eq!(world.once("--network app", &format!("dig +short -x {address}")).ok(), "db.app.");
}
