//! The table against what it promises, and against a list that is searched from end to end.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type V4 = Ipv4Addr;

fn ip(last: u8) -> V4 {
    V4::new(10, 0, 0, last)
}

fn client(port: u32, name: &str) -> Client {
    Client { port, hardware: [2, 0, 0, 0, 0, 1], name: name.as_bytes().into(), hostname: None }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn table(first: u8, last: u8) -> Table<V4> {
    Table::new(vec![(ip(first), ip(last))])
}

fn lend(table: &mut Table<V4>, client: &Client, until: Duration) -> Result<V4, Refusal> {
    let address = table.offer(client, None, until)?;
    table.bind(client, address, until).expect("what was offered is lent");
    Ok(address)
}

#[test]
fn a_client_keeps_its_address_and_finds_it_again_when_it_returns() {
    let mut table = table(10, 250);
    let first = lend(&mut table, &client(1, "a"), at(100)).unwrap();
    assert_eq!(table.offer(&client(1, "a"), Some(ip(99)), at(50)), Ok(first));
    for other in 0..50 {
        lend(&mut table, &client(2 + other, "a"), at(1000)).unwrap();
    }
    let ended = table.release(&client(1, "a"), first, at(60)).unwrap();
    assert_eq!((ended.address, ended.state), (first, State::Bound));
    for other in 100..150 {
        lend(&mut table, &client(other, "b"), at(1000)).unwrap();
    }
    assert_eq!(table.offer(&client(1, "a"), None, at(200)), Ok(first));
}

#[test]
fn a_client_gets_the_same_address_from_a_table_that_has_forgotten_everything() {
    let lent = |_| lend(&mut table(10, 250), &client(1, "somebody"), at(100)).unwrap();
    assert_eq!(lent(1), lent(2));
    let other = lend(&mut table(10, 250), &client(7, "somebody"), at(100)).unwrap();
    assert_eq!(lent(1), other, "whatever its port is called");
}

#[test]
fn machines_that_call_themselves_alike_are_told_apart_by_their_ports() {
    let mut table = table(10, 250);
    let one = lend(&mut table, &client(1, "clone"), at(100)).unwrap();
    let two = lend(&mut table, &client(2, "clone"), at(100)).unwrap();
    assert_ne!(one, two);
    assert_eq!(table.release(&client(2, "clone"), one, at(1)), None);
    assert_eq!(table.bound(), 2);
}

#[test]
fn machines_that_call_themselves_alike_behind_one_port_are_told_apart_by_their_hardware() {
    let mut table = table(10, 250);
    let clone = Client { hardware: [2, 0, 0, 0, 0, 2], ..client(1, "clone") };
    let one = lend(&mut table, &client(1, "clone"), at(100)).unwrap();
    let two = lend(&mut table, &clone, at(100)).unwrap();
    assert_ne!(one, two);
    assert_eq!(table.release(&clone, one, at(1)), None);
    assert_eq!(table.bound(), 2);
}

#[test]
fn a_port_that_has_given_back_leases_waits_for_as_long_as_they_are_many() {
    let mut table = table(10, 250);
    let [a, b] = ["a", "b"].map(|name| client(1, name));
    let [first, second] = [&a, &b].map(|client| lend(&mut table, client, at(100)).unwrap());
    assert!(table.may_release(1, at(1)));
    assert!(table.release(&a, first, at(1)).is_some());
    assert!(table.release(&b, second, at(1)).is_some(), "both at once");
    assert_eq!(table.release(&b, second, at(1)), None, "once");
    assert!(!table.may_release(1, at(1) + 2 * RELEASE_GAP - Duration::from_nanos(1)));
    assert!(table.may_release(2, at(1)), "another port");
    assert!(table.may_release(1, at(1) + 2 * RELEASE_GAP));
}

#[test]
fn an_endpoint_that_takes_a_declined_address_leaves_its_former_client_the_next_one() {
    let mut table = table(1, 20);
    let declined = lend(&mut table, &client(1, "a"), at(100)).unwrap();
    table.shun(&client(1, "a"), declined, State::Declined, (1, [0; 6]), at(500)).unwrap();
    let next = lend(&mut table, &client(1, "a"), at(100)).unwrap();
    assert!(table.attach(2, [2; 6], vec![declined]).is_empty());
    assert_eq!(table.of_client(&client(1, "a")).map(|lease| lease.address), Some(next));
}

#[test]
fn what_a_port_says_is_taken_counts_against_it_and_goes_with_it() {
    let mut table = table(1, 4);
    for name in ["a", "b"] {
        let address = table.offer(&client(1, name), None, at(30)).unwrap();
        assert!(table.has_room(7));
        table.shun(&client(1, name), address, State::Taken, (7, [0; 6]), at(500)).unwrap();
    }
    assert!(!table.has_room(7) && table.has_room(1));
    assert!(table.detach(7).is_empty());
    assert_eq!(table.next_end(), None);
    assert!((1..=2).all(|port| table.offer(&client(port, "a"), None, at(30)).is_ok()));
}

#[test]
fn the_address_that_was_given_back_first_is_lent_again_first() {
    let mut table = table(1, 4);
    for port in 1..=4 {
        lend(&mut table, &client(port, "a"), at(100)).unwrap();
    }
    let of = |table: &Table<V4>, port| table.of_client(&client(port, "a")).unwrap().address;
    let order: Vec<_> = [3, 1, 4].map(|port| (port, of(&table, port))).into();
    for (when, (port, address)) in order.iter().enumerate() {
        table.release(&client(*port, "a"), *address, at(10 + when as u64)).unwrap();
    }
    for (port, (_, address)) in (11..).zip(&order) {
        assert_eq!(lend(&mut table, &client(port, "b"), at(200)), Ok(*address));
    }
    assert_eq!(lend(&mut table, &client(20, "c"), at(200)), Err(Refusal::Exhausted));
}

#[test]
fn one_port_leaves_half_of_a_small_pool_to_others() {
    let mut table = table(1, 20);
    for number in 0..10 {
        lend(&mut table, &client(1, &format!("m{number}")), at(100)).unwrap();
    }
    assert_eq!(lend(&mut table, &client(1, "more"), at(100)), Err(Refusal::PortLimit));
    assert!(lend(&mut table, &client(1, "m3"), at(100)).is_ok(), "who has one keeps it");
    assert!(lend(&mut table, &client(2, "more"), at(100)).is_ok());
    let ended = table.detach(1);
    assert_eq!(ended.len(), 10);
    assert!(lend(&mut table, &client(1, "more"), at(100)).is_ok());
}

#[test]
fn a_declined_address_is_lent_to_nobody_for_a_while_and_counts_against_its_port() {
    let mut table = table(1, 2);
    let address = lend(&mut table, &client(1, "a"), at(100)).unwrap();
    let declined =
        table.shun(&client(1, "a"), address, State::Declined, (1, [0; 6]), at(500)).unwrap();
    assert_eq!(declined.address, address);
    assert_eq!(lend(&mut table, &client(1, "a"), at(100)), Err(Refusal::PortLimit));
    assert_ne!(lend(&mut table, &client(2, "a"), at(600)), Ok(address));
    assert_eq!(lend(&mut table, &client(3, "a"), at(600)), Err(Refusal::Exhausted));
    assert_eq!(table.next_end(), Some(at(500)));
    assert_eq!(table.expire(at(499)), None);
    assert_eq!(table.expire(at(500)).unwrap().state, State::Declined);
    assert_eq!(lend(&mut table, &client(3, "a"), at(600)), Ok(address));
}

#[test]
fn an_endpoint_takes_its_address_from_whoever_was_lent_it_and_gives_it_to_the_pool_when_it_goes() {
    let mut table = table(1, 1);
    lend(&mut table, &client(1, "a"), at(100)).unwrap();
    let ended = table.attach(2, [2; 6], vec![ip(1)]);
    assert_eq!(ended.iter().map(|lease| lease.address).collect::<Vec<_>>(), [ip(1)]);
    assert!(table.is_reserved(ip(1)));
    assert_eq!(table.endpoint(2, [2; 6]).unwrap().addresses, [ip(1)]);
    assert_eq!(table.endpoint(2, [3; 6]), None, "somebody else behind its port");
    assert_eq!(table.offer(&client(1, "a"), Some(ip(1)), at(100)), Err(Refusal::Exhausted));
    assert_eq!(table.adopt(&client(1, "a"), ip(1), at(100)), Err(Refusal::Taken));
    table.attach(3, [3; 6], vec![ip(1)]);
    table.detach(2);
    assert!(table.is_reserved(ip(1)), "two endpoints had it");
    table.detach(3);
    assert_eq!(table.offer(&client(1, "a"), None, at(100)), Ok(ip(1)));
}

#[test]
fn an_offer_that_is_not_taken_ends_and_leaves_nothing() {
    let mut table = table(1, 1);
    table.offer(&client(1, "a"), None, at(30)).unwrap();
    assert_eq!(table.offer(&client(2, "b"), None, at(30)), Err(Refusal::Exhausted));
    assert_eq!(table.expire(at(30)).unwrap().state, State::Offered);
    assert_eq!(table.bind(&client(1, "a"), ip(1), at(90)), None);
    assert_eq!(table.offer(&client(2, "b"), None, at(60)), Ok(ip(1)));
    table.withdraw(&client(2, "b"));
    assert_eq!((table.offer(&client(1, "a"), None, at(60)), table.bound()), (Ok(ip(1)), 0));
}

#[test]
fn an_address_is_adopted_where_it_is_nobody_elses() {
    let mut table = table(1, 9);
    assert_eq!(table.adopt(&client(1, "a"), ip(5), at(9)), Ok(()));
    assert_eq!(table.bind(&client(1, "a"), ip(5), at(100)), Some(true));
    assert_eq!(table.bind(&client(1, "a"), ip(5), at(200)), Some(false));
    assert_eq!(table.adopt(&client(1, "a"), ip(6), at(9)), Err(Refusal::Taken));
    assert_eq!(table.adopt(&client(2, "a"), ip(5), at(9)), Err(Refusal::Taken));
    assert_eq!(table.adopt(&client(2, "a"), ip(10), at(9)), Err(Refusal::Taken));
    table.release(&client(1, "a"), ip(5), at(1)).unwrap();
    assert_eq!(table.adopt(&client(2, "a"), ip(5), at(9)), Ok(()), "whoever had it has let it go");
}

#[test]
fn pages_hold_leases_and_the_endpoints_that_asked_in_order() {
    let mut table = table(1, 9);
    table.attach(7, [7; 6], vec![ip(6), ip(4), ip(7)]);
    table.attach(8, [8; 6], vec![ip(8)]);
    table.note_told(client(7, "end"), [ip(6), ip(4)]);
    for address in [2, 5, 3] {
        table.adopt(&client(address, "a"), ip(address as u8), at(9)).unwrap();
        table.bind(&client(address, "a"), ip(address as u8), at(50)).unwrap();
    }
    let page = |after, limit| {
        let rows = table.rows(after, limit);
        rows.into_iter().map(|row| (row.address, row.until.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2), [(ip(2), true), (ip(3), true)]);
    assert_eq!(page(Some(ip(3)), 9), [(ip(4), false), (ip(5), true), (ip(6), false)]);
}

#[test]
fn a_pool_of_a_whole_ipv6_subnet_costs_no_more_than_a_small_one() {
    let first = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 0);
    let last = Ipv6Addr::from_bits(first.to_bits() | u128::from(u64::MAX));
    let mut table = Table::new(vec![(first, last)]);
    let mut lent = BTreeSet::new();
    for port in 0..1000 {
        let address = table.offer(&client(port, "a"), None, at(9)).unwrap();
        assert!(table.is_lendable(address) && lent.insert(address));
    }
    let mut all = Table::new(vec![(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX))]);
    assert!(all.offer(&client(1, "a"), None, at(9)).is_ok());
}

#[derive(Clone, Debug)]
enum Step {
    Lend(u32, u8),
    Adopt(u32, u8, u8),
    Release(u32, u8),
    Withdraw(u32, u8),
    Offer(u32, u8),
    Decline(u32, u8),
    Attach(u32, u8),
    Detach(u32),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let port = || 1..5_u32;
    let name = || 0..3_u8;
    prop_oneof![
        4 => (port(), name()).prop_map(|(p, n)| Step::Lend(p, n)),
        2 => (port(), name(), 1..16_u8).prop_map(|(p, n, a)| Step::Adopt(p, n, a)),
        2 => (port(), name()).prop_map(|(p, n)| Step::Release(p, n)),
        1 => (port(), name()).prop_map(|(p, n)| Step::Withdraw(p, n)),
        2 => (port(), name()).prop_map(|(p, n)| Step::Offer(p, n)),
        1 => (port(), name()).prop_map(|(p, n)| Step::Decline(p, n)),
        1 => (port(), 1..16_u8).prop_map(|(p, a)| Step::Attach(p, a)),
        1 => port().prop_map(Step::Detach),
        2 => (1..40_u64).prop_map(Step::Pass),
    ]
}

/// Who holds each address of the pool, and until when: searched from end to end.
#[derive(Default)]
struct Model {
    held: BTreeMap<V4, (u32, u8, State, u64)>,
    own: BTreeMap<u32, V4>,
}

impl Model {
    fn of(&self, port: u32, name: u8) -> Option<(V4, State)> {
        let mut held = self.held.iter().filter(|(_, held)| (held.0, held.1) == (port, name));
        held.find(|(_, held)| matches!(held.2, State::Offered | State::Bound))
            .map(|(address, held)| (*address, held.2))
    }

    fn may(&self, port: u32) -> bool {
        self.held.values().filter(|held| held.0 == port).count() < 5
    }

    fn is_free(&self, address: V4) -> bool {
        !self.held.contains_key(&address) && !self.own.values().any(|own| *own == address)
    }
}

proptest! {
    #[test]
    fn nobody_is_lent_what_another_has(steps in prop::collection::vec(step(), 1..80)) {
        let mut table = table(1, 10);
        let mut model = Model::default();
        let mut now = 0;
        for step in steps {
            run(&mut table, &mut model, &mut now, step)?;
            for last in 1..=12 {
                let address = ip(last);
                let held = table.get(address).map(|lease| {
                    let name = lease.client.name[0];
                    (lease.client.port, name, lease.state, lease.until.as_secs())
                });
                prop_assert_eq!(held, model.held.get(&address).copied(), "{}", address);
            }
            let next = model.held.values().map(|held| held.3).min().map(at);
            prop_assert_eq!(table.next_end(), next);
        }
    }
}

fn run(
    table: &mut Table<V4>,
    model: &mut Model,
    now: &mut u64,
    step: Step,
) -> Result<(), TestCaseError> {
    let client = |port, name| Client { name: [name].into(), ..client(port, "") };
    match step {
        Step::Lend(port, name) | Step::Offer(port, name) => {
            let until = *now + 20;
            let before = model.of(port, name);
            let lent = table.offer(&client(port, name), None, at(until));
            let any = (1..=10).any(|last| model.is_free(ip(last)));
            prop_assert_eq!(lent.is_ok(), before.is_some() || (model.may(port) && any));
            let Ok(address) = lent else { return Ok(()) };
            match before {
                Some((had, _)) => prop_assert_eq!(address, had),
                None => prop_assert!(model.is_free(address) && (ip(1)..=ip(10)).contains(&address)),
            }
            let bind = matches!(step, Step::Lend(..));
            if bind {
                let fresh = !matches!(before, Some((_, State::Bound)));
                let bound = table.bind(&client(port, name), address, at(until));
                prop_assert_eq!(bound, Some(fresh));
                model.held.insert(address, (port, name, State::Bound, until));
            } else if !matches!(before, Some((_, State::Bound))) {
                model.held.insert(address, (port, name, State::Offered, until));
            }
        }
        Step::Adopt(port, name, last) => {
            let before = model.of(port, name);
            let adopted = table.adopt(&client(port, name), ip(last), at(*now + 20)).is_ok();
            let fits = last <= 10 && model.is_free(ip(last)) && model.may(port);
            prop_assert_eq!(adopted, before.map_or(fits, |(had, _)| had == ip(last)));
            if adopted && before.is_none() {
                model.held.insert(ip(last), (port, name, State::Offered, *now + 20));
            }
        }
        Step::Release(port, name) => {
            let Some((address, state)) = model.of(port, name) else { return Ok(()) };
            let ended = table.release(&client(port, name), address, at(*now)).is_some();
            prop_assert_eq!(ended, state == State::Bound);
            if ended {
                model.held.remove(&address);
            }
        }
        Step::Withdraw(port, name) => {
            table.withdraw(&client(port, name));
            if let Some((address, State::Offered)) = model.of(port, name) {
                model.held.remove(&address);
            }
        }
        Step::Decline(port, name) => {
            let Some((address, _)) = model.of(port, name) else { return Ok(()) };
            let until = *now + 30;
            table
                .shun(&client(port, name), address, State::Declined, (port, [0; 6]), at(until))
                .unwrap();
            model.held.insert(address, (port, name, State::Declined, until));
        }
        Step::Attach(port, last) => {
            table.attach(port, [2; 6], vec![ip(last)]);
            model.own.insert(port, ip(last));
            model.held.remove(&ip(last));
        }
        Step::Detach(port) => {
            table.detach(port);
            model.own.remove(&port);
            model.held.retain(|_, held| held.0 != port);
        }
        Step::Pass(seconds) => {
            *now += seconds;
            while let Some(ended) = table.expire(at(*now)) {
                let held = model.held.remove(&ended.address);
                prop_assert!(held.is_some_and(|held| held.3 <= *now));
            }
        }
    }
    Ok(())
}
