//! Options of networks and endpoints, drawn at random.

use std::collections::BTreeMap;

use portolan::api::types::NetworkCreate;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::pick;

type Words = BTreeMap<String, String>;

fn draw(words: &mut Words, random: &mut ChaCha8Rng, (of, name): (u32, &str), values: &[&str]) {
    if random.random_ratio(1, of)
        && let Some(value) = pick(values, random)
    {
        words.insert(name.into(), (*value).into());
    }
}

/// Gives a network options beside those it has.
pub(super) fn network(spec: &mut NetworkCreate, random: &mut ChaCha8Rng) {
    let words = &mut spec.options;
    if random.random_ratio(1, 10) {
        words.clear();
        words.insert("portolan.mode".into(), "wire".into());
        return;
    }
    draw(words, random, (8, "portolan.mode"), &["hub", "switch"]);
    let storms = [
        "off",
        "broadcast:20",
        "broadcast:100,multicast:50",
        "unknown:10,multicast:off",
        "multicast:20",
    ];
    draw(words, random, (3, "portolan.storm"), &storms);
    draw(words, random, (3, "portolan.loop"), &["block", "tell", "off"]);
    draw(words, random, (5, "portolan.snooping"), &["on"]);
    draw(words, random, (4, "portolan.neighbors"), &["answer", "flood"]);
    draw(words, random, (3, "portolan.dhcp"), &["on", "off"]);
    draw(words, random, (5, "portolan.dhcp_lease"), &["60s", "90s", "1h"]);
    draw(words, random, (5, "portolan.domain"), &["example.org", "a.example,b.example"]);
    if spec.enable_ipv6 {
        draw(words, random, (3, "portolan.ra"), &["managed", "slaac", "stateless", "off"]);
    }
}

/// Options of an endpoint.
pub(super) fn endpoint(random: &mut ChaCha8Rng) -> Words {
    let mut words = Words::new();
    let vlans = [
        "access:10",
        "access:20",
        "trunk:10,20-29",
        "trunk:10,20,native:5",
        "trunk:30,native:10",
        "tunnel:10",
        "tunnel:30",
    ];
    draw(&mut words, random, (5, "portolan.vlan"), &vlans);
    draw(&mut words, random, (4, "portolan.isolated"), &["on", "off"]);
    let stations = ["02:00:5e:00:00:01", "02:00:5e:00:00:02,02:00:5e:00:00:03"];
    draw(&mut words, random, (10, "portolan.stations"), &stations);
    draw(&mut words, random, (8, "portolan.storm"), &["off", "broadcast:30", "unknown:5"]);
    draw(&mut words, random, (6, "portolan.wire"), &["tap", "veth"]);
    words
}
