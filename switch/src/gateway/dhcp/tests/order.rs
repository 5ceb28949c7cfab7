//! Messages in any order, said again and again: whatever clients say when, nobody is told an address that is another's.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const CLIENTS: u32 = 5;
const POOL: u8 = 6;

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 9, number)
}

/// One message, of all that its client could say, and how often it comes.
#[derive(Clone, Debug)]
enum Said {
    Discovers,
    /// Takes an offer, if of an address that it may never have been offered.
    Takes(u8),
    /// Asks whether the address is its own still.
    Reboots(u8),
    Renews(u8),
    GivesBack(u8),
    Declines(u8),
    /// Says nothing for a while, of which a lease lasts 20.
    Waits,
}

fn said() -> impl Strategy<Value = (u32, Said, usize)> {
    let named = 1..=POOL;
    let said = prop_oneof![
        3 => Just(Said::Discovers),
        5 => named.clone().prop_map(Said::Takes),
        1 => named.clone().prop_map(Said::Reboots),
        2 => named.clone().prop_map(Said::Renews),
        1 => named.clone().prop_map(Said::GivesBack),
        1 => named.prop_map(Said::Declines),
        1 => Just(Said::Waits),
    ];
    (0..CLIENTS, said, 1..3_usize)
}

impl Said {
    fn frame(&self, client: MacAddr) -> Option<Vec<u8>> {
        Some(match *self {
            Said::Discovers => ask(1, client).broadcast(),
            Said::Takes(number) => ask(3, client).of_us().wanting(address(number)).broadcast(),
            Said::Reboots(number) => ask(3, client).wanting(address(number)).broadcast(),
            Said::Renews(number) => ask(3, client).holding(address(number)).unicast(),
            Said::GivesBack(number) => ask(7, client).of_us().holding(address(number)).unicast(),
            Said::Declines(number) => ask(4, client).of_us().wanting(address(number)).broadcast(),
            Said::Waits => return None,
        })
    }
}

/// Who was told that an address is his, and until when.
type Held = BTreeMap<Ipv4Addr, (MacAddr, Duration)>;

/// Notes what clients are told, which must be theirs to have.
fn hear(held: &mut Held, out: &[(u32, Vec<u8>)], now: Duration) {
    for reply in replies(out).iter().filter(|reply| reply.kind() == MessageType::Ack) {
        let client = MacAddr(reply.message.chaddr().try_into().unwrap());
        let before = held.insert(reply.address(), (client, now + LEASE));
        let others = before.filter(|(holder, until)| *holder != client && *until > now);
        assert_eq!(others, None, "{} for {client:?} too", reply.address());
        held.retain(|address, (holder, _)| *holder != client || *address == reply.address());
    }
}

proptest! {
    #[test]
    fn nobody_is_told_an_address_that_is_anothers(
        script in prop::collection::vec(said(), 1..60),
    ) {
        let pool = vec![(address(1), address(POOL))];
        let mut bench = bench_telling(false, CLIENTS, Dhcp4 { pool, ..told() });
        let start = bench.now;
        let mut held = Held::new();
        for (number, said, times) in script {
            let client = stranger(number);
            let now = bench.now.since(start);
            let Some(frame) = said.frame(client) else {
                hear(&mut held, &bench.pass(LEASE / 20), now);
                continue;
            };
            for _ in 0..times {
                hear(&mut held, &bench.send(number + 1, frame.clone()), now);
            }
            if let Said::GivesBack(number) | Said::Declines(number) = said {
                held.retain(|at, (holder, _)| *at != address(number) || *holder != client);
            }
            // Time for probes, if any are on the wire.
            for _ in 0..4 {
                let out = bench.pass(Duration::from_millis(250));
                hear(&mut held, &out, bench.now.since(start));
            }
        }
    }
}
