//! What the stages of a walk say of themselves to whoever asked about one frame ([`crate::trace`]).

use crate::command::Mode;
use crate::drops::DropReason;
use crate::gateway::Outcome;
use crate::headers::Layout;
use crate::trace::{Piece, Stage};
use crate::vlan::{Leave, UNTAGGED};

use super::{Verdict, Walk};

impl Walk<'_, '_, '_> {
    /// Tells of a stage that has come to `result`, where somebody wants to know; nothing where `say` has nothing to say.
    pub(super) fn told<T>(
        &mut self,
        stage: Stage,
        result: Result<T, DropReason>,
        say: impl FnOnce(&Self, &T) -> Vec<Piece>,
    ) -> Result<T, DropReason> {
        if self.shared.trace.is_none() {
            return result;
        }
        let said = result.as_ref().map(|value| say(self, value)).map_err(|reason| *reason);
        if let Some(trace) = &mut self.shared.trace {
            match said {
                Ok(said) if said.is_empty() => {}
                Ok(said) => trace.passed(stage, said),
                Err(reason) => trace.dropped(stage, reason),
            }
        }
        result
    }

    pub(super) fn say_admitted<T>(&self, _: &T) -> Vec<Piece> {
        let mtu = self.network.mtu;
        vec![format!("from a station, and no larger than the MTU of {mtu}").into()]
    }

    pub(super) fn say_guarded<T>(&self, _: &T) -> Vec<Piece> {
        let says = if self.network.guard {
            "says truly who sent it"
        } else {
            "the network has no guard: whoever sends may call itself anything"
        };
        vec![says.into()]
    }

    pub(super) fn say_vlan(&self, layout: &Layout) -> Vec<Piece> {
        match (self.network.tagging, layout.vlan) {
            (false, _) => Vec::new(),
            (true, 0) => vec!["of no VLAN".into()],
            (true, vlan) => vec![format!("of VLAN {vlan}").into()],
        }
    }

    pub(super) fn say_learned(&self, layout: &Layout) -> Vec<Piece> {
        let network = &*self.network;
        match network.mode {
            Mode::Hub => return vec!["a hub learns nothing".into()],
            _ if network.guard => return vec!["stations are known beforehand".into()],
            _ => {}
        }
        match network.stations.lookup(layout.vlan, layout.src, self.now) {
            Some(port) => vec![format!("{} lives behind ", layout.src).into(), Piece::Port(port)],
            None => vec!["nothing is learned of it".into()],
        }
    }

    pub(super) fn say_verdict(&self, layout: &Layout, verdict: Verdict) -> Vec<Piece> {
        let dst = layout.dst;
        match verdict {
            Verdict::Unicast(port, leave) => {
                let mut said = vec![format!("{dst} lives behind ").into(), Piece::Port(port)];
                if leave == Leave::Untagged {
                    said.push(", whose frames bear no tag".into());
                }
                said
            }
            Verdict::Flood if self.network.mode == Mode::Hub => vec!["a hub sends to all".into()],
            Verdict::Flood if dst.is_group() => {
                vec!["to a group, so to all that may have it".into()]
            }
            Verdict::Flood => vec![format!("nobody has heard of {dst}, so to all").into()],
            Verdict::Local => vec!["to the gateway".into()],
        }
    }

    /// Adds to a frame that ended when it was looked up who it was for.
    pub(super) fn say_whose(&mut self, layout: &Layout) {
        let (network, dst) = (&*self.network, layout.dst);
        let Some(trace) = &mut self.shared.trace else { return };
        let more = if dst == network.gateway.mac() {
            vec![format!(" {}.", of_no_vlan(layout.vlan)).into()]
        } else if let Some(port) = network.stations.lookup(layout.vlan, dst, self.now) {
            vec![format!(" {dst} lives behind ").into(), Piece::Port(port), ".".into()]
        } else {
            return;
        };
        if let Some(step) = trace.steps.last_mut() {
            step.detail.extend(more);
        }
    }

    /// What the gateway made of it; `frames` is how many there were before.
    pub(super) fn say_gateway(&mut self, layout: &Layout, outcome: &Outcome, frames: usize) {
        let made = self.turn.frames.len() - frames;
        let Some(trace) = &mut self.shared.trace else { return };
        match outcome {
            Outcome::Ignored => {
                let (network, frame) = (&*self.network, self.turn.frames.get(self.idx));
                let (gateway, services) = (&network.gateway, &network.services);
                if layout.vlan != UNTAGGED && gateway.is_meant(layout, frame, services) {
                    let said = format!("hears nothing of it: {}", of_no_vlan(layout.vlan));
                    trace.passed(Stage::Gateway, vec![said.into()]);
                }
            }
            Outcome::Aside(ip) => {
                trace.passed(Stage::Gateway, vec![format!("to be routed to {}", ip.dst).into()]);
            }
            Outcome::Dropped(reason) => trace.dropped(Stage::Gateway, *reason),
            Outcome::Consumed if made > 0 => {
                trace.passed(Stage::Gateway, vec!["takes it and answers".into()]);
            }
            Outcome::Consumed => trace.passed(Stage::Gateway, vec!["takes it".into()]),
        }
    }
}

/// Why the gateway hears nothing of a VLAN.
fn of_no_vlan(vlan: u16) -> String {
    format!("the gateway is of no VLAN, and this is of VLAN {vlan}")
}
