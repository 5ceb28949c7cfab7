//! Larger rings for wires that overflow theirs.
//!
//! A ring's slots hold a superframe each, so a small ring has few, and a burst of small frames overruns it. Every wire begins
//! small; the dataplane tells when one has lost frames that way, and then the ring is replaced by a larger one: the port is
//! paused, the ring made by a thread for blocking work, the port resumed. Frames that the guest sends in that time are lost,
//! as some just were; frames to it go on. The keeper's note comes first: killed in the middle, the daemon leaves a note and a
//! ring that do not fit, and its heir makes a new ring as the note says.
//!
//! A guest can bring this about at will. So each wire has a largest ring, and all of them together a budget of memory over
//! what new wires have. Nothing shrinks: what a wire took it has until it goes.

use std::sync::Arc;

use nix::unistd::{SysconfVar, sysconf};
use portolan_switch::ids::PortId;
use portolan_switch::io::{Port, RingShape, packet};
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;

use super::log::say;
use super::plane::Opening;
use super::wires::{WireNote, wire_key};
use super::{Control, Daemon};
use crate::topology::EndpointId;

/// Bytes that rings may take over what new wires have, all together, where the machine is large enough.
const BUDGET_MAX: usize = 256 << 20;

/// This part of the machine's memory, as a divisor, where it is not.
const BUDGET_PART: usize = 16;

/// The memory that rings may take over what new wires have.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: usize,
    /// It was told that it is used up.
    told: bool,
}

impl Budget {
    /// That of this machine.
    pub(super) fn of_host() -> Budget {
        let number = |var| sysconf(var).ok().flatten().and_then(|n| usize::try_from(n).ok());
        let pages = number(SysconfVar::_PHYS_PAGES).unwrap_or_default();
        let memory = pages.saturating_mul(number(SysconfVar::PAGE_SIZE).unwrap_or_default());
        Budget::of_memory(memory)
    }

    fn of_memory(bytes: usize) -> Budget {
        Budget { bytes: (bytes / BUDGET_PART).min(BUDGET_MAX), told: false }
    }

    /// Whether one of `rings` may change its shape so.
    fn admits(
        &self,
        rings: impl Iterator<Item = RingShape>,
        from: RingShape,
        to: RingShape,
    ) -> bool {
        let used: usize = rings.map(extra).sum();
        used.saturating_sub(extra(from)) + extra(to) <= self.bytes
    }

    /// Says that it is used up; once.
    fn tell_used_up(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            say(format_args!(
                "busy wires have used up their {} MiB: bursts may be lost, which `portolan drops` shows as ring_overflow",
                self.bytes >> 20
            ));
        }
    }
}

/// A wire that is to grow, and that nobody closes meanwhile.
struct Growth {
    endpoint: EndpointId,
    from: WireNote,
    to: WireNote,
    shape: RingShape,
    _held: OwnedMutexGuard<()>,
}

impl Control {
    /// Takes memory for a larger ring of the wire behind `port`, unless it has the largest, grows already or is gone.
    fn begin_growth(&mut self, port: PortId) -> Option<Growth> {
        let (&endpoint, wire) = self.wires.iter().find(|(_, wire)| wire.port == port)?;
        let held = Arc::clone(&wire.taking).try_lock_owned().ok()?;
        let from = wire.note;
        let former = from.shape?;
        let shape = packet::larger(former)?;
        let to = WireNote { shape: Some(shape), ..from };
        let rings = self.wires.values().filter_map(|wire| wire.note.shape);
        if !self.ring_budget.admits(rings, former, shape) {
            self.ring_budget.tell_used_up();
            return None;
        }
        self.wires.get_mut(&endpoint)?.note = to;
        Some(Growth { endpoint, from, to, shape, _held: held })
    }
}

impl Daemon {
    /// Gives the wire behind a port a larger ring, if it may have one.
    pub(super) async fn grow(&self, port: PortId) {
        let growth = {
            let mut control = self.control.lock().await;
            let Some(growth) = control.begin_growth(port) else { return };
            // With the lock held: later, the key may be that of another wire of the endpoint.
            self.keeping.note(&wire_key(growth.endpoint), growth.to.text());
            growth
        };
        let (plane, shape) = (Arc::clone(&self.plane), growth.shape);
        let runtime = Handle::current();
        // All of it on that thread: a port that is paused is not to wait until one is free.
        let work = move || {
            let mut paused = runtime.block_on(plane.pause(port))?;
            let result = match &mut paused {
                Port::Packet(wire) => wire.reshape(shape),
                Port::Tap(_) => Ok(()),
            };
            let open = Opening { ports: vec![(port, paused)], ..Opening::default() };
            runtime.block_on(plane.change(open, Vec::new()));
            result.err()
        };
        if let Ok(Some(error)) = tokio::task::spawn_blocking(work).await {
            say(format_args!("cannot give wire {} more slots: {error}", growth.endpoint.short()));
            let mut control = self.control.lock().await;
            let wire = control.wires.get_mut(&growth.endpoint);
            if let Some(wire) = wire.filter(|wire| wire.port == port) {
                wire.note = growth.from;
                self.keeping.note(&wire_key(growth.endpoint), growth.from.text());
            }
        }
    }
}

/// What a ring takes over that of a new wire, bytes.
fn extra(shape: RingShape) -> usize {
    shape.bytes().saturating_sub(packet::SHAPE.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(slots: u32) -> RingShape {
        RingShape { slots, ..packet::SHAPE }
    }

    #[test]
    fn rings_grow_as_far_as_all_of_them_stay_within_the_budget() {
        let budget = Budget::of_memory(BUDGET_PART * (6 << 20));
        let new = packet::SHAPE;
        let larger = packet::larger(new).unwrap();
        assert_eq!((new.bytes(), larger.bytes()), (1 << 20, 4 << 20));
        let admits = |rings: &[u32], from, to| {
            budget.admits(rings.iter().map(|n| slots(*n)), slots(from), slots(to))
        };
        assert!(admits(&[16; 100], 16, 64), "new wires take nothing of it");
        assert!(admits(&[64, 16, 16], 16, 64));
        assert!(!admits(&[64, 64, 16], 16, 64));
        assert!(admits(&[64, 64], 64, 64), "what one has counts once");
        assert!(!admits(&[64], 64, 256));
    }

    #[test]
    fn budget_is_a_part_of_the_memory_and_never_more_than_its_bound() {
        assert_eq!(Budget::of_memory(1 << 30).bytes, 64 << 20);
        assert_eq!(Budget::of_memory(1 << 40).bytes, BUDGET_MAX);
        assert_eq!(Budget::of_memory(0).bytes, 0);
    }

    #[test]
    fn growth_comes_to_an_end() {
        let steps = std::iter::successors(Some(packet::SHAPE), |shape| packet::larger(*shape));
        assert!(steps.count() <= 3);
    }
}
