use proptest::prelude::*;

use super::*;

const A: Owner = Owner(1);
const B: Owner = Owner(2);
const C: Owner = Owner(3);

use Rank::{Lasting, Transitory};

fn ledger(flows: usize, owner_flows: usize) -> Ledger {
    Ledger::new(Limits { flows, owner_flows })
}

#[test]
fn an_owner_at_its_limit_loses_its_own_least_used() {
    let mut ledger = ledger(10, 2);
    assert_eq!(ledger.enter(B, 9, Lasting), Ok(None));
    assert_eq!(ledger.enter(A, 0, Lasting), Ok(None));
    assert_eq!(ledger.enter(A, 1, Lasting), Ok(None));
    ledger.touch(0);
    assert_eq!(ledger.enter(A, 2, Lasting), Ok(Some(1)));
    assert_eq!(ledger.enter(A, 3, Lasting), Ok(Some(0)));
}

#[test]
fn a_transitory_flow_goes_before_any_lasting_one() {
    let mut ledger = ledger(10, 3);
    for (flow, rank) in [(0, Lasting), (1, Transitory), (2, Transitory)] {
        assert_eq!(ledger.enter(A, flow, rank), Ok(None));
    }
    ledger.rank(1, Lasting);
    assert_eq!(ledger.enter(A, 3, Lasting), Ok(Some(2)));
    assert_eq!(ledger.enter(A, 4, Lasting), Ok(Some(0)));
}

#[test]
fn where_all_have_too_many_whoever_has_the_most_gives_way() {
    let mut ledger = ledger(4, 4);
    for flow in 0..3 {
        assert_eq!(ledger.enter(A, flow, Lasting), Ok(None));
    }
    assert_eq!(ledger.enter(B, 3, Transitory), Ok(None));
    // B has one, A three: A's goes though B's is transitory.
    assert_eq!(ledger.enter(B, 4, Lasting), Ok(Some(0)));
    // Both have two now: B pays itself.
    assert_eq!(ledger.enter(B, 5, Lasting), Ok(Some(3)));
    assert_eq!(ledger.enter(C, 6, Lasting), Ok(Some(4)));
}

#[test]
fn where_nobody_may_have_any_none_can_give_way() {
    assert_eq!(ledger(0, 5).enter(A, 0, Lasting), Err(Lost::FlowLimit));
    assert_eq!(ledger(5, 0).enter(A, 0, Lasting), Err(Lost::FlowLimit));
}

#[test]
fn an_owner_gives_way_with_its_own_least_used_and_nothing_else() {
    let mut ledger = ledger(10, 10);
    assert_eq!(ledger.enter(A, 0, Lasting), Ok(None));
    assert_eq!(ledger.enter(A, 1, Transitory), Ok(None));
    assert_eq!(ledger.give_way(B), None);
    assert_eq!(ledger.give_way(A), Some(1));
    assert_eq!(ledger.give_way(A), Some(0));
    assert_eq!(ledger.give_way(A), None);
}

#[test]
fn what_is_not_entered_can_be_touched_and_struck() {
    let mut ledger = ledger(1, 1);
    ledger.touch(7);
    ledger.rank(u32::MAX, Lasting);
    ledger.strike(7);
    assert_eq!(ledger.enter(A, 0, Lasting), Ok(None));
}

/// The same by a plain list, the least used in front.
struct Plain {
    limits: Limits,
    flows: Vec<(u32, Owner, Rank)>,
}

impl Plain {
    fn count(&self, owner: Owner) -> usize {
        self.flows.iter().filter(|(_, whose, _)| *whose == owner).count()
    }

    fn enter(&mut self, owner: Owner, flow: u32, rank: Rank) -> Result<Option<u32>, Lost> {
        self.flows.retain(|(number, ..)| *number != flow);
        let owners = [A, B, C];
        let payer = if self.count(owner) >= self.limits.owner_flows {
            Some(owner)
        } else if self.flows.len() >= self.limits.flows {
            let most = owners.into_iter().max_by_key(|whose| (self.count(*whose), *whose));
            most.map(|most| if self.count(owner) >= self.count(most) { owner } else { most })
        } else {
            None
        };
        let mut gone = None;
        if let Some(payer) = payer {
            let least = [Transitory, Lasting].into_iter().find_map(|rank| {
                self.flows.iter().find(|(_, whose, its)| *whose == payer && *its == rank)
            });
            let (least, ..) = *least.ok_or(Lost::FlowLimit)?;
            self.flows.retain(|(number, ..)| *number != least);
            gone = Some(least);
        }
        self.flows.push((flow, owner, rank));
        Ok(gone)
    }

    fn touch(&mut self, flow: u32) {
        if let Some(at) = self.flows.iter().position(|(number, ..)| *number == flow) {
            let place = self.flows.remove(at);
            self.flows.push(place);
        }
    }

    fn rank(&mut self, flow: u32, rank: Rank) {
        if self.flows.iter().any(|(number, _, its)| *number == flow && *its != rank) {
            self.touch(flow);
            if let Some(last) = self.flows.last_mut() {
                last.2 = rank;
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Enter(Owner, u32, Rank),
    Touch(u32),
    Rank(u32, Rank),
    Strike(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let owner = prop::sample::select(vec![A, B, C]);
    let rank = prop::sample::select(vec![Transitory, Lasting]);
    let flow = 0..12u32;
    prop_oneof![
        3 => (owner, flow.clone(), rank.clone()).prop_map(|(o, f, r)| Step::Enter(o, f, r)),
        2 => flow.clone().prop_map(Step::Touch),
        1 => (flow.clone(), rank).prop_map(|(f, r)| Step::Rank(f, r)),
        1 => flow.prop_map(Step::Strike),
    ]
}

proptest! {
    #[test]
    fn it_says_what_a_plain_list_says(
        flows in 0..9usize,
        owner_flows in 0..6usize,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let limits = Limits { flows, owner_flows };
        let mut ledger = Ledger::new(limits);
        let mut plain = Plain { limits, flows: Vec::new() };
        for step in steps {
            match step {
                Step::Enter(owner, flow, rank) => {
                    prop_assert_eq!(ledger.enter(owner, flow, rank), plain.enter(owner, flow, rank));
                }
                Step::Touch(flow) => {
                    ledger.touch(flow);
                    plain.touch(flow);
                }
                Step::Rank(flow, rank) => {
                    ledger.rank(flow, rank);
                    plain.rank(flow, rank);
                }
                Step::Strike(flow) => {
                    ledger.strike(flow);
                    plain.flows.retain(|(number, ..)| *number != flow);
                }
            }
            prop_assert_eq!(ledger.count, plain.flows.len());
            prop_assert!(ledger.owners.len() == ledger.by_count.len());
        }
    }
}
