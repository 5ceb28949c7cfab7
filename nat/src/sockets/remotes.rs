//! Whom a socket that speaks to many has spoken to.

use std::net::{IpAddr, SocketAddr};

use crate::inside::Filtering;

/// How many are remembered; whoever was not sent to for longest is forgotten.
const REMOTES_MAX: usize = 64;

/// An end of the outside that was sent to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    reach: SocketAddr,
    /// The address that the inside knows it by.
    pub(super) shown: IpAddr,
    /// How often it was sent to, as far as that can be counted.
    pub(super) asked: u8,
    /// How often it has sent.
    pub(super) answered: u8,
}

/// Those that were sent to, the last one in front.
#[derive(Debug, Default)]
pub(super) struct Remotes(Vec<Remote>);

impl Remotes {
    /// Puts one in front.
    pub(super) fn sent(&mut self, reach: SocketAddr, shown: IpAddr) -> &mut Remote {
        let known = self.0.iter().position(|one| one.reach == reach && one.shown == shown);
        let at = known.unwrap_or_else(|| {
            self.0.truncate(REMOTES_MAX - 1);
            self.0.push(Remote { reach, shown, asked: 0, answered: 0 });
            self.0.len() - 1
        });
        self.0[..=at].rotate_right(1);
        &mut self.0[0]
    }

    /// Where the one is that makes `from` welcome.
    fn find(&self, from: SocketAddr, filtering: Filtering) -> Option<usize> {
        let same = self.0.iter().position(|one| one.reach == from);
        same.or_else(|| {
            let any_port = filtering != Filtering::AddressAndPortDependent;
            self.0.iter().position(|one| any_port && one.reach.ip() == from.ip())
        })
    }

    /// The one that makes `from` welcome.
    pub(super) fn find_mut(
        &mut self,
        from: SocketAddr,
        filtering: Filtering,
    ) -> Option<&mut Remote> {
        let at = self.find(from, filtering)?;
        self.0.get_mut(at)
    }

    /// Whom the inside knows `reach` as.
    pub(super) fn shown(&self, reach: SocketAddr) -> SocketAddr {
        let at = self.find(reach, Filtering::AddressDependent);
        let shown = at.and_then(|at| self.0.get(at)).map_or(reach.ip(), |one| one.shown);
        SocketAddr::new(shown, reach.port())
    }
}
