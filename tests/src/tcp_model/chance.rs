//! What chance has the walkers and the programs outside do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_nat::inside::Owner;
use portolan_nat::sockets::{Publication, PublicationId, Transport};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use super::ZONE;
use super::walker::{Opening, Plan};
use crate::host::{Answer, Closing, Peer, Reading};

pub(super) fn chance(random: &mut ChaCha8Rng, of: u32) -> bool {
    random.random_ratio(1, of)
}

pub(super) fn noise(random: &mut ChaCha8Rng, max: usize) -> Vec<u8> {
    let len = match random.random_range(0..4) {
        0 => 0,
        1 => random.random_range(1..100),
        _ => random.random_range(1..max),
    };
    let mut bytes = vec![0; len];
    random.fill_bytes(&mut bytes);
    bytes
}

/// What a walker is to do.
pub(super) fn plan_walker(
    random: &mut ChaCha8Rng,
    opening: Opening,
    closes_first: bool,
    peer: &Peer,
) -> Plan {
    let scale = chance(random, 2).then(|| random.random_range(0..15));
    let buffer_max = if scale.is_some_and(|shift| shift > 2) { 250_000 } else { 65_535 };
    let buffer: usize = random.random_range(1_000..=buffer_max);
    // A scale by which the buffer itself is nothing would be the walker's own fault.
    let scale = scale.map(|shift| shift.min(buffer.ilog2() as u8 - 2));
    Plan {
        opening,
        say: noise(random, 100_000),
        closes_first,
        resets_at: chance(random, 10).then(|| random.random_range(0..100_000)),
        silent_at: chance(random, 20).then(|| random.random_range(0..100_000)),
        buffer,
        mss: (!chance(random, 8)).then(|| random.random_range(88..=1440)),
        scale,
        superframes: random.random::<bool>(),
        strays: chance(random, 3),
        // Where nobody knows of the connection any more, it would begin another one.
        stray_syns: peer.resets_at.is_none(),
    }
}

pub(super) fn publication(number: u16, local: SocketAddr) -> Publication {
    let (v4, v6) = match local.ip() {
        IpAddr::V4(v4) => (Some(v4), None),
        IpAddr::V6(v6) => (None, Some(v6)),
    };
    Publication {
        id: PublicationId(u32::from(number)),
        transport: Transport::Tcp,
        zone: ZONE,
        owner: Owner(1),
        host_port: local.port(),
        node_port: local.port(),
        count: 1,
        v4,
        v6,
        near: Vec::new(),
    }
}

pub(super) fn plan_peer(random: &mut ChaCha8Rng, other_closes_first: bool, asked: bool) -> Peer {
    let answer = match random.random_range(0..20) {
        0 if asked => Answer::Refuse,
        1 if asked => Answer::NetUnreachable,
        2 if asked => Answer::HostUnreachable,
        3 if asked => Answer::Never,
        _ => Answer::Accept,
    };
    let reading = if chance(random, 4) {
        let every = Duration::from_millis(random.random_range(1..300));
        Reading::Slowly { bytes: random.random_range(500..20_000), every }
    } else {
        Reading::AtOnce
    };
    let closing = if other_closes_first && random.random::<bool>() {
        Closing::AfterTheOther
    } else {
        Closing::WhenSaid
    };
    let echoes = closing == Closing::AfterTheOther && random.random::<bool>();
    Peer {
        answer,
        after: Duration::from_millis(if chance(random, 4) {
            random.random_range(0..3000)
        } else {
            0
        }),
        say: if echoes { Vec::new() } else { noise(random, 100_000) },
        echoes,
        reading,
        closing,
        resets_at: chance(random, 12).then(|| random.random_range(0..100_000)),
        buffer: random.random_range(2_000..200_000),
        delay: Duration::from_micros(random.random_range(20..50_000)),
    }
}
