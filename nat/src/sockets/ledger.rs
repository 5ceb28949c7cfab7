//! Who has how many flows, and which gives way.
//!
//! Theory of operation. Every flow lies in one of its owner's two lists, by [`Rank`], the least used in front; the lists run
//! through a table that is indexed by the flow's number, so that using a flow moves it in constant time. Owners stand in order
//! of how many flows they have. Who asks for one too many loses the least used of its own; where all together have too many,
//! whoever has the most loses one, so that nobody can take another's place by asking more often.

use std::collections::{BTreeMap, BTreeSet};

use crate::inside::{Lost, Owner};

use super::Limits;

/// How dear a flow is: where one must give way, a transitory one goes before any lasting one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    /// Half open, closing, or of one question: it would be over soon anyhow.
    Transitory,
    /// In use.
    Lasting,
}

/// One flow's place.
#[derive(Clone, Copy, Debug)]
struct Place {
    account: usize,
    rank: Rank,
    earlier: Option<u32>,
    later: Option<u32>,
}

/// Flows of one owner and rank, by when they were last used.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    first: Option<u32>,
    last: Option<u32>,
}

/// What one owner has.
#[derive(Clone, Copy, Debug)]
struct Account {
    owner: Owner,
    count: usize,
    lists: [List; 2],
}

impl Account {
    /// Which of its flows would give way.
    fn least(&self) -> Option<u32> {
        self.lists.iter().find_map(|list| list.first)
    }
}

/// The flows of one transport, by owner.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    limits: Limits,
    count: usize,
    /// By flow number.
    places: Vec<Option<Place>>,
    accounts: Vec<Account>,
    /// Accounts of nobody.
    spare: Vec<usize>,
    owners: BTreeMap<Owner, usize>,
    /// All owners by how many they have.
    by_count: BTreeSet<(usize, Owner)>,
}

impl Ledger {
    /// Without flows.
    pub(super) fn new(limits: Limits) -> Ledger {
        Ledger { limits, ..Ledger::default() }
    }

    /// Enters a flow. Where its owner, or all together, have as many as they may: which one gives way, already struck; it is
    /// the owner's own, or, where all together have too many and another has more, one of whoever has the most.
    /// [`Lost::FlowLimit`] where none can.
    pub(super) fn enter(
        &mut self,
        owner: Owner,
        flow: u32,
        rank: Rank,
    ) -> Result<Option<u32>, Lost> {
        self.strike(flow);
        let own = self.owners.get(&owner).copied();
        let has = own.and_then(|at| self.accounts.get(at)).map_or(0, |account| account.count);
        let payer = if has >= self.limits.owner_flows {
            Some(own.ok_or(Lost::FlowLimit)?)
        } else if self.count >= self.limits.flows {
            let (most, whose) = *self.by_count.last().ok_or(Lost::FlowLimit)?;
            let whose = if has >= most { owner } else { whose };
            Some(*self.owners.get(&whose).ok_or(Lost::FlowLimit)?)
        } else {
            None
        };
        let gone = match payer {
            Some(at) => {
                let least = self.accounts.get(at).and_then(Account::least);
                Some(least.ok_or(Lost::FlowLimit)?)
            }
            None => None,
        };
        if let Some(gone) = gone {
            self.strike(gone);
        }
        let account = self.account(owner);
        let at = flow as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, None);
        }
        self.places[at] = Some(Place { account, rank, earlier: None, later: None });
        self.recount(account, 1);
        self.append(flow);
        Ok(gone)
    }

    /// Strikes the least used of an owner's flows, which then gives way; none where it has none.
    pub(super) fn give_way(&mut self, owner: Owner) -> Option<u32> {
        let least = self.accounts.get(*self.owners.get(&owner)?)?.least()?;
        self.strike(least);
        Some(least)
    }

    /// It was used just now.
    pub(super) fn touch(&mut self, flow: u32) {
        // Most often it is the one used last already.
        if self.place(flow).is_some_and(|place| place.later.is_some()) {
            self.detach(flow);
            self.append(flow);
        }
    }

    /// It has become more or less dear; it counts as used just now.
    pub(super) fn rank(&mut self, flow: u32, rank: Rank) {
        if self.place(flow).is_some_and(|place| place.rank != rank) {
            self.detach(flow);
            if let Some(place) = self.place_mut(flow) {
                place.rank = rank;
            }
            self.append(flow);
        }
    }

    /// Whether it is entered.
    pub(super) fn holds(&self, flow: u32) -> bool {
        self.place(flow).is_some()
    }

    /// It is over.
    pub(super) fn strike(&mut self, flow: u32) {
        let Some(place) = self.place(flow) else { return };
        self.detach(flow);
        self.places[flow as usize] = None;
        self.recount(place.account, -1);
    }

    fn place(&self, flow: u32) -> Option<Place> {
        *self.places.get(flow as usize)?
    }

    fn place_mut(&mut self, flow: u32) -> Option<&mut Place> {
        self.places.get_mut(flow as usize)?.as_mut()
    }

    /// Where the owner's account is; makes one where there is none.
    fn account(&mut self, owner: Owner) -> usize {
        if let Some(at) = self.owners.get(&owner) {
            return *at;
        }
        let account = Account { owner, count: 0, lists: [List::default(); 2] };
        let at = match self.spare.pop() {
            Some(at) => {
                self.accounts[at] = account;
                at
            }
            None => {
                self.accounts.push(account);
                self.accounts.len() - 1
            }
        };
        self.owners.insert(owner, at);
        at
    }

    /// One flow more or less; an account without flows is given up.
    fn recount(&mut self, at: usize, change: isize) {
        let Some(account) = self.accounts.get_mut(at) else { return };
        let (owner, before) = (account.owner, account.count);
        account.count = before.saturating_add_signed(change);
        let after = account.count;
        self.count = self.count.saturating_add_signed(change);
        self.by_count.remove(&(before, owner));
        if after > 0 {
            self.by_count.insert((after, owner));
        } else {
            self.owners.remove(&owner);
            self.spare.push(at);
        }
    }

    /// The list that a place is in.
    fn list(&mut self, place: Place) -> Option<&mut List> {
        self.accounts.get_mut(place.account)?.lists.get_mut(place.rank as usize)
    }

    /// Takes it out of its list.
    fn detach(&mut self, flow: u32) {
        let Some(place) = self.place(flow) else { return };
        match place.earlier {
            Some(earlier) => {
                if let Some(earlier) = self.place_mut(earlier) {
                    earlier.later = place.later;
                }
            }
            None => {
                if let Some(list) = self.list(place) {
                    list.first = place.later;
                }
            }
        }
        match place.later {
            Some(later) => {
                if let Some(later) = self.place_mut(later) {
                    later.earlier = place.earlier;
                }
            }
            None => {
                if let Some(list) = self.list(place) {
                    list.last = place.earlier;
                }
            }
        }
    }

    /// Puts it behind all others of its list.
    fn append(&mut self, flow: u32) {
        let Some(place) = self.place(flow) else { return };
        let Some(list) = self.list(place) else { return };
        let earlier = list.last.replace(flow);
        list.first.get_or_insert(flow);
        if let Some(earlier) = earlier.and_then(|earlier| self.place_mut(earlier)) {
            earlier.later = Some(flow);
        }
        if let Some(place) = self.place_mut(flow) {
            *place = Place { earlier, later: None, ..*place };
        }
    }
}

#[cfg(test)]
mod tests;
