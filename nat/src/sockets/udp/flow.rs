//! What is remembered of a flow of datagrams.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::inside::{Filtering, Owner, Zone};
use crate::packet::protocol;
use crate::sockets::host::SocketId;
use crate::sockets::ledger::Rank;
use crate::sockets::remotes::Remotes;
use crate::sockets::{Ending, FlowRow, PublicationId};
use crate::time::Time;

/// How long a flow lasts that carries nothing (RFC 4787, requirement 5: the recommended one).
const IDLE: Duration = Duration::from_secs(300);

/// As [`IDLE`] of one that asks single questions (requirement 5 a).
const IDLE_BRIEF: Duration = Duration::from_secs(30);

/// Ports whose servers answer a question and are done: DNS and NTP.
const ONE_QUESTION: [u16; 2] = [53, 123];

/// One flow.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) zone: Zone,
    pub(super) owner: Owner,
    /// The node's address and port.
    pub(super) inside: SocketAddr,
    /// When it last carried something.
    pub(super) used: Time,
    /// When it is looked after.
    pub(super) due: Option<Time>,
    /// It is over but for its socket.
    pub(super) ended: bool,
    pub(super) way: Way,
}

/// By what socket a flow leads out.
#[derive(Debug)]
pub(super) enum Way {
    /// One of its own.
    Own(Mapping),
    /// That of a published port.
    Door(Visit),
}

/// A socket for all that an inside address and port sends.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) socket: SocketId,
    pub(super) filtering: Filtering,
    pub(super) remotes: Remotes,
    /// It has only asked single questions.
    brief: bool,
    /// Something has come back.
    answered: bool,
}

impl Mapping {
    pub(super) fn new(socket: SocketId, filtering: Filtering) -> Mapping {
        Mapping { socket, filtering, remotes: Remotes::default(), brief: true, answered: false }
    }

    /// It sends to `reach`, which the inside knows by the address `shown`.
    pub(super) fn sends(&mut self, reach: SocketAddr, shown: IpAddr) {
        let remote = self.remotes.sent(reach, shown);
        remote.asked = remote.asked.saturating_add(1);
        self.brief &= remote.asked == 1 && ONE_QUESTION.contains(&reach.port());
    }

    /// Something comes from `from`: whom the inside knows that as. None where nothing was sent that it answers.
    pub(super) fn asked(&mut self, from: SocketAddr) -> Option<SocketAddr> {
        let remote = self.remotes.find_mut(from, self.filtering)?;
        remote.answered = remote.answered.saturating_add(1);
        self.brief &= remote.answered == 1;
        self.answered = true;
        Some(SocketAddr::new(remote.shown, from.port()))
    }

    /// Whether somebody may send unasked.
    pub(super) fn is_open(&self) -> bool {
        self.filtering == Filtering::EndpointIndependent
    }
}

/// Somebody of the outside who came by a published port.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) publication: PublicationId,
    pub(super) door: SocketId,
    pub(super) client: SocketAddr,
    /// The address of the host that the client sent to.
    pub(super) local: IpAddr,
    /// What the node sees the client as.
    pub(super) outside: SocketAddr,
    /// Datagrams from the client.
    pub(super) asked: u8,
    /// Datagrams to the client.
    pub(super) answered: u8,
}

impl Flow {
    /// The socket of its own.
    pub(super) fn socket(&self) -> Option<SocketId> {
        match &self.way {
            Way::Own(mapping) => Some(mapping.socket),
            Way::Door(_) => None,
        }
    }

    /// When it ends unless it carries something before.
    pub(super) fn ends(&self) -> Time {
        let brief = match &self.way {
            Way::Own(mapping) => mapping.brief,
            Way::Door(visit) => visit.asked == 1 && visit.answered == 1,
        };
        self.used + if brief { IDLE_BRIEF } else { IDLE }
    }

    /// How dear it is. Whoever has had no answer has nothing to lose, so that a scan, and a flood from made-up addresses, gives
    /// way before anything else.
    pub(super) fn rank(&self) -> Rank {
        let lasting = match &self.way {
            Way::Own(mapping) => mapping.answered && !mapping.brief,
            Way::Door(visit) => visit.answered > 0 && visit.asked > 1,
        };
        if lasting { Rank::Lasting } else { Rank::Transitory }
    }

    /// Whether it is among those that end.
    pub(super) fn is_in(&self, which: Ending) -> bool {
        match (which, &self.way) {
            (Ending::Publication(id), Way::Door(visit)) => visit.publication == id,
            (Ending::Publication(_), Way::Own(_)) => false,
            (Ending::Address(zone, address), _) => self.zone == zone && self.inside.ip() == address,
        }
    }

    /// As people see it.
    pub(super) fn row(&self) -> FlowRow {
        let outside = match &self.way {
            Way::Own(_) => None,
            Way::Door(visit) => Some(visit.outside),
        };
        FlowRow {
            zone: self.zone,
            owner: self.owner,
            protocol: protocol::UDP,
            inside: self.inside,
            outside,
            published: outside.is_some(),
            state: if self.ended { "closing" } else { "open" },
            used: self.used,
        }
    }
}
