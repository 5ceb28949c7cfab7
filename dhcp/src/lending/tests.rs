//! Whose turn it is to have the wire asked for an address, and how many at once.

use std::net::Ipv4Addr;

use super::*;

type Servers = Lending<Ipv4Addr, ()>;

fn lending() -> Servers {
    Lending::new(Table::new(vec![(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 3, 250))]))
}

fn client(port: u32, number: u8) -> Client {
    let hardware = [2, 0, 0, 0, u8::try_from(port).unwrap(), number];
    Client { port, hardware, name: hardware.into(), hostname: None }
}

/// A newcomer wants an address.
fn want(lending: &mut Servers, port: u32, number: u8) -> Ipv4Addr {
    let client = client(port, number);
    let address = lending.table.offer(&client, None, Duration::MAX).unwrap();
    lending.wait(address, client, ());
    address
}

/// The ports for which questions are asked by now.
fn asked(lending: &mut Servers, now: Duration) -> Vec<u32> {
    let mut ports = Vec::new();
    while let Some(address) = lending.next_probe(now) {
        ports.push(lending.waiting[&address].client.port);
    }
    ports
}

#[test]
fn so_many_addresses_are_asked_for_at_once_and_the_others_port_by_port() {
    let mut lending = lending();
    (0..50).for_each(|number| _ = want(&mut lending, 1, number));
    (2..=40).for_each(|port| _ = want(&mut lending, port, 0));
    let rounds = [Vec::from_iter(1..=32), (33..=40).chain([1; 24]).collect(), vec![1; 25]];
    for (round, ports) in (0..).zip(rounds) {
        for question in 0..PROBES {
            let now = PROBE_WAIT * round + PROBE_GAP * question;
            let told = Vec::from_iter(std::iter::from_fn(|| lending.waited(now))).len();
            assert_eq!(told, if question == 0 && round > 0 { UNDER_QUESTION_MAX } else { 0 });
            let mut asked = asked(&mut lending, now);
            if question == 0 {
                assert_eq!(asked, ports, "round {round}");
            } else {
                asked.sort_unstable();
                let mut ports = ports.clone();
                ports.sort_unstable();
                assert_eq!(asked, ports, "question {question} of round {round}");
            }
            assert_eq!(lending.next_timeout(), Some(now + PROBE_GAP), "nothing else is due");
        }
    }
    assert_eq!(std::iter::from_fn(|| lending.waited(PROBE_WAIT * 3)).count(), 25);
    assert_eq!((lending.begun, lending.waiting.len()), (0, 0));
    assert_eq!(lending.next_timeout(), Some(Duration::MAX), "only the offers are to end");
}

#[test]
fn a_place_is_free_again_when_whoever_waited_has_gone() {
    let mut lending = lending();
    (1..=80).for_each(|port| _ = want(&mut lending, port, 0));
    assert_eq!(asked(&mut lending, Duration::ZERO), Vec::from_iter(1..=32));
    assert_eq!(lending.next_timeout(), Some(PROBE_GAP));
    (1..=10).chain(33..=40).for_each(|port| lending.detach(port));
    assert_eq!(lending.next_timeout(), Some(Duration::ZERO));
    assert_eq!(asked(&mut lending, Duration::ZERO), Vec::from_iter(41..=50));
    assert_eq!(lending.next_timeout(), Some(PROBE_GAP));
}

#[test]
fn who_is_heard_at_an_address_that_waits_for_its_turn_settles_it_without_a_question() {
    let mut lending = lending();
    (1..=32).for_each(|port| _ = want(&mut lending, port, 0));
    let address = want(&mut lending, 50, 0);
    assert_eq!(asked(&mut lending, Duration::ZERO).len(), UNDER_QUESTION_MAX);
    lending.heard(address, 60, [2, 6, 6, 6, 6, 6], Duration::ZERO);
    let (settled, waiting) = lending.waited(Duration::ZERO).unwrap();
    assert_eq!((settled, waiting.taken, waiting.client.port), (address, true, 50));
    assert_eq!((lending.begun, lending.queued.len()), (UNDER_QUESTION_MAX, 0));
}

#[test]
fn who_asks_again_from_another_port_waits_among_those_of_that_one() {
    let mut lending = lending();
    let address = want(&mut lending, 9, 0);
    lending.wait(address, client(3, 0), ());
    assert_eq!(Vec::from_iter(&lending.queued), [&(3, address)]);
    assert!(lending.wait_no_more(address).is_some());
    assert_eq!((lending.queued.len(), lending.next_probe(Duration::ZERO)), (0, None));
}
