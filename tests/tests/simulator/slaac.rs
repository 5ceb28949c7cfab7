//! Hosts that make themselves addresses of what the router tells (RFC 4861, RFC 4862), on wires that lose.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use portolan_switch::command::{Advert, Command};
use portolan_switch::ids::{MacAddr, PortId};
use portolan_tests::packet::{ICMPV6, check, ip};
use portolan_tests::scene::{self, v6};
use portolan_tests::wire::Wire;
use portolan_tests::world::{PortOptions, World, seed_or};

const ALL_ROUTERS: (MacAddr, Ipv6Addr) =
    (MacAddr([0x33, 0x33, 0, 0, 0, 2]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2));

/// RFC 4861, section 10: how often a host solicits, and how long it waits.
const SOLICITATIONS: u32 = 3;
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);

/// The prefix of an advertisement by which hosts may make themselves addresses, where the frame is one.
fn prefix(frame: &[u8]) -> Option<[u8; 8]> {
    if frame.get(12..14)? != [0x86, 0xdd] || frame.get(20)? != &ICMPV6 || frame.get(54)? != &134 {
        return None;
    }
    assert_eq!(check(frame), Ok(()));
    assert_eq!(frame[21], 255, "the hop limit tells that it is from this link");
    let mut options = &frame[70..];
    while let [kind, len, ..] = options {
        let (option, rest) = options.split_at(usize::from(*len) * 8);
        // A prefix of 64 bits, on the link and autonomous.
        if *kind == 3 && option[2] == 64 && option[3] & 0xc0 == 0xc0 {
            return option[16..24].try_into().ok();
        }
        options = rest;
    }
    None
}

/// The address that a host makes itself of a prefix and its hardware address (RFC 4291, appendix A).
fn own(prefix: [u8; 8], mac: MacAddr) -> Ipv6Addr {
    let mut bytes = mac.link_local().octets();
    bytes[..8].copy_from_slice(&prefix);
    bytes.into()
}

fn live(seed: u64, loss: u32) {
    let mut world = World::new(seed_or(seed));
    let mut spec = scene::network(1, false);
    let prefixes = vec!["fd00:1::/64".parse().expect("a prefix")];
    spec.services.advert = Some(Advert {
        prefixes,
        autonomous: true,
        managed: false,
        other: true,
        leads_out: true,
        mtu: 1500,
        dns: Vec::new(),
        search: Vec::new(),
        routes: Vec::new(),
    });
    let gateway = spec.mac;
    world.apply([Command::CreateNetwork(spec)]);
    let wire = Wire { loss, ..Wire::default() };
    let hosts: Vec<(PortId, MacAddr)> = (2..62u32)
        .map(|h| {
            let mut port = scene::endpoint(1, h, 100 + h);
            port.addresses.clear();
            let options = PortOptions { wire, offloads: h % 2 == 0, ..PortOptions::default() };
            world.plug_tap(port.id, options);
            let host = (port.id, port.mac);
            world.apply([Command::AttachPort(port)]);
            host
        })
        .collect();
    let mut heard = vec![None; hosts.len()];
    for _ in 0..SOLICITATIONS {
        for ((port, mac), heard) in hosts.iter().zip(&heard) {
            if heard.is_none() {
                let message = [&[133, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &mac.0].concat();
                let from = (*mac, mac.link_local().into());
                let to = (ALL_ROUTERS.0, ALL_ROUTERS.1.into());
                let mut frame = ip(from, to, ICMPV6, &message);
                frame[21] = 255;
                world.send_by_wire(*port, frame);
            }
        }
        world.run_for(SOLICITATION_INTERVAL);
        for ((port, _), heard) in hosts.iter().zip(&mut heard) {
            let received = world.received(*port);
            let frames = received.iter().flat_map(|packet| packet.plain_frames());
            *heard = heard.or(frames.filter_map(|frame| prefix(&frame)).next());
        }
    }
    let mut addresses = Vec::new();
    for ((port, mac), heard) in hosts.iter().zip(&heard) {
        let prefix = heard.unwrap_or_else(|| panic!("port {} was told nothing", port.0));
        assert_eq!(prefix, [0xfd, 0, 0, 1, 0, 0, 0, 0]);
        let own = own(prefix, *mac);
        addresses.push(own);
        world.rewire(*port, |options| options.wire.loss = 0);
        let echo = [&[128, 0, 0, 0, 0, 1, 0, 1][..], &port.0.to_be_bytes()].concat();
        world.send(*port, ip((*mac, own.into()), (gateway, v6(1, 1)), ICMPV6, &echo));
        world.run_for(Duration::from_millis(1));
        let received = world.received(*port);
        let answers = |frame: &Vec<u8>| frame.len() > 54 && frame[20] == ICMPV6 && frame[54] == 129;
        let answer = received.iter().flat_map(|p| p.plain_frames()).find(answers);
        let answer = answer.unwrap_or_else(|| panic!("{own} reaches nobody"));
        assert_eq!(IpAddr::from(<[u8; 16]>::try_from(&answer[38..54]).expect("sixteen")), own);
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), hosts.len(), "all have one of their own");
    assert_eq!(world.all_drops(), []);
    world.check_all();
}

#[test]
fn hosts_make_themselves_addresses_of_what_the_router_tells() {
    live(1, 0);
    live(2, 50);
}
