//! Three hundred clients and 253 addresses on a wire that loses one message in five.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const CLIENTS: u32 = 300;
const LEASE: u64 = 600;

/// What a client believes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Belief {
    Nothing,
    Offered(Ipv4Addr),
    /// Lent at the first time, until the second.
    Lent(Ipv4Addr, u64, u64),
}

struct World {
    server: Server,
    clients: Vec<Belief>,
    random: ChaCha8Rng,
    now: u64,
    refused: u64,
}

impl World {
    fn is_lost(&mut self) -> bool {
        self.random.random_range(0..5) == 0
    }

    /// A client says what its state has it say.
    fn speak(&mut self, number: u32) {
        let own = ip(1).octets();
        let chaddr = [2, 0, 0, 1, (number >> 8) as u8, number as u8];
        let bytes = match self.clients[number as usize] {
            Belief::Nothing => message(chaddr, 1, &[]),
            Belief::Offered(address) => message(chaddr, 3, &[(54, &own), (50, &address.octets())]),
            Belief::Lent(address, since, _) => {
                if self.now < since + LEASE / 2 {
                    return;
                }
                let mut bytes = message(chaddr, 3, &[]);
                bytes[12..16].copy_from_slice(&address.octets());
                bytes
            }
        };
        if self.is_lost() {
            return;
        }
        let now = Duration::from_secs(self.now);
        match self.server.receive(&bytes, origin(number), now) {
            Ok(Some(reply)) => self.deliver(&reply),
            Ok(None) => while self.server.lending.next_probe(now).is_some() {},
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Exhausted);
                self.refused += 1;
            }
        }
    }

    fn deliver(&mut self, reply: &Reply) {
        if self.is_lost() {
            return;
        }
        let message = read(reply);
        let client = &mut self.clients[reply.port as usize];
        *client = match message.opts().msg_type() {
            Some(MessageType::Offer) if *client == Belief::Nothing => {
                Belief::Offered(message.yiaddr())
            }
            Some(MessageType::Ack) => Belief::Lent(message.yiaddr(), self.now, self.now + LEASE),
            Some(MessageType::Nak) => Belief::Nothing,
            _ => *client,
        };
    }

    /// One second: each client has a chance to speak, in any order, and what is due happens.
    fn pass(&mut self) {
        self.now += 1;
        while let Some(reply) = self.server.run_out(Duration::from_secs(self.now)) {
            self.deliver(&reply);
        }
        while self.server.lending.next_probe(Duration::from_secs(self.now)).is_some() {}
        for number in 0..CLIENTS {
            if let Belief::Lent(_, _, until) = self.clients[number as usize]
                && until <= self.now
            {
                self.clients[number as usize] = Belief::Nothing;
            }
            if self.random.random_range(0..8) == 0 {
                self.speak(number);
            }
        }
    }

    fn lent(&self) -> Vec<Ipv4Addr> {
        let lent = self.clients.iter().filter_map(|client| match client {
            Belief::Lent(address, ..) => Some(*address),
            _ => None,
        });
        lent.collect()
    }
}

#[test]
fn nobody_is_doubled_and_all_renew_though_one_message_in_five_is_lost() {
    for seed in 0..4 {
        let pool = vec![(ip(2), ip(254))];
        let lease = Duration::from_secs(LEASE);
        let mut world = World {
            server: Server::new(Dhcp4 { pool, lease, ..spec() }),
            clients: vec![Belief::Nothing; CLIENTS as usize],
            random: ChaCha8Rng::seed_from_u64(seed),
            now: 0,
            refused: 0,
        };
        let mut first = Vec::new();
        for second in 1..=3000 {
            world.pass();
            let mut lent = world.lent();
            lent.sort_unstable();
            assert!(lent.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed} at {second}");
            if second == 300 {
                assert_eq!(lent.len(), 253, "seed {seed}");
                first = world.clients.clone();
            }
        }
        assert!(world.refused > 0);
        for (then, now) in first.iter().zip(&world.clients) {
            if let (Belief::Lent(had, ..), Belief::Lent(has, ..)) = (then, now) {
                assert_eq!(had, has, "seed {seed}: it was renewed, not lent anew");
            }
            assert_eq!(matches!(then, Belief::Lent(..)), matches!(now, Belief::Lent(..)));
        }
        assert_eq!(world.server.lending.bound(), 253);
    }
}
