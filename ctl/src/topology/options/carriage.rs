//! What a network's options say of how it carries frames.

use portolan_switch::command::{Carriage, LoopAction, Mode, StormLimits};

use super::{Circumstances, Key, NetworkOptions, on, one_of};
use crate::topology::refusal::Faults;

/// What holds unless said: what no healthy network comes near. A storm of broadcasts costs every port of the network, each
/// frame, while a thousand of them a second are less than a percent of a core; multicast is what video and clusters live on.
pub(super) const USUAL: Carriage = Carriage {
    mode: Mode::Switch,
    storm: StormLimits { broadcast: Some(1000), multicast: None, unknown: Some(1000) },
    loops: LoopAction::Block,
    snooping: false,
    answers: false,
};

const MODE: &str = "portolan.mode";
const STORM: &str = "portolan.storm";
const LOOP: &str = "portolan.loop";
const SNOOPING: &str = "portolan.snooping";
const NEIGHBORS: &str = "portolan.neighbors";

pub(super) const KEYS: &[Key<NetworkOptions>] = &[
    Key {
        name: MODE,
        read: |draft, value| {
            let modes = [("switch", Mode::Switch), ("hub", Mode::Hub), ("wire", Mode::Wire)];
            draft.carriage.mode = one_of(value, &modes)?;
            Ok(())
        },
    },
    Key {
        name: STORM,
        read: |draft, value| {
            draft.storm = StormWish::read(value)?;
            draft.carriage.storm = draft.storm.over(draft.carriage.storm);
            Ok(())
        },
    },
    Key {
        name: LOOP,
        read: |draft, value| {
            let actions = [
                ("block", LoopAction::Block),
                ("tell", LoopAction::Tell),
                ("off", LoopAction::Ignore),
            ];
            draft.carriage.loops = one_of(value, &actions)?;
            Ok(())
        },
    },
    Key {
        name: SNOOPING,
        read: |draft, value| {
            draft.carriage.snooping = on(value)?;
            Ok(())
        },
    },
    Key {
        name: NEIGHBORS,
        read: |draft, value| {
            draft.carriage.answers = one_of(value, &[("flood", false), ("answer", true)])?;
            Ok(())
        },
    },
];

/// Limits as far as they were given: of each kind a number or none at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct StormWish {
    broadcast: Option<Option<u32>>,
    multicast: Option<Option<u32>>,
    unknown: Option<Option<u32>>,
}

impl StormWish {
    /// Reads `off`, or `KIND:LIMIT` parted by commas.
    pub fn read(value: &str) -> Result<StormWish, String> {
        if value == "off" {
            let free = Some(None);
            return Ok(StormWish { broadcast: free, multicast: free, unknown: free });
        }
        let mut wish = StormWish::default();
        for part in value.split(',') {
            let (kind, limit) = part.split_once(':').ok_or_else(|| {
                format!("{part:?} is not KIND:LIMIT like broadcast:1000, nor is all of it off")
            })?;
            let place = match kind {
                "broadcast" => &mut wish.broadcast,
                "multicast" => &mut wish.multicast,
                "unknown" => &mut wish.unknown,
                _ => return Err(format!("{kind:?} is none of broadcast, multicast, unknown")),
            };
            let number = limit.parse().ok().filter(|number| *number > 0);
            if number.is_none() && limit != "off" {
                return Err(format!(
                    "{limit:?} is no limit of {kind}: frames a second, from 1 to {}, or off are needed",
                    u32::MAX
                ));
            }
            if place.replace(number).is_some() {
                return Err(format!("{kind} is given twice: each is needed once"));
            }
        }
        Ok(wish)
    }

    /// What to tell whoever gives these limits where there is a guard: it drops what goes to stations that nobody knows, so
    /// that none of it is ever a storm.
    pub fn idle_behind_guard(self) -> Option<String> {
        self.unknown.flatten().map(|limit| {
            format!(
                "{STORM}: unknown:{limit} has no effect while the guard is on, which drops all that goes to unknown stations: drop \
                 it, or make the network with -o portolan.guard=off"
            )
        })
    }

    /// These limits where they were given, and those of `base` where not.
    pub fn over(self, base: StormLimits) -> StormLimits {
        StormLimits {
            broadcast: self.broadcast.unwrap_or(base.broadcast),
            multicast: self.multicast.unwrap_or(base.multicast),
            unknown: self.unknown.unwrap_or(base.unknown),
        }
    }
}

pub(super) fn conflicts(
    draft: &NetworkOptions,
    around: Circumstances<'_>,
    faults: &mut Faults,
    warnings: &mut Vec<String>,
) {
    if draft.guard && !draft.is_wire() {
        warnings.extend(draft.storm.idle_behind_guard());
    }
    match draft.carriage.mode {
        Mode::Switch => {}
        Mode::Hub => {
            if draft.carriage.snooping {
                faults.invalid(format!(
                    "{SNOOPING}=on has nothing to choose on a hub, which sends everything to everybody: drop it or {MODE}=hub"
                ));
            }
        }
        Mode::Wire => {
            if draft.has("portolan.guard") && draft.guard {
                faults.invalid(format!(
                    "portolan.guard=on contradicts {MODE}=wire, which passes whatever comes: drop one of them"
                ));
            }
            if around.gateway {
                faults.invalid(format!("a wire has no gateway: drop --gateway or {MODE}=wire"));
            }
            let idle = |name: &str| {
                name.starts_with("portolan.") && ![MODE, "portolan.guard"].contains(&name)
            };
            for name in draft.given.iter().filter(|name| idle(name)) {
                if super::names(super::NETWORK).any(|known| known == name) {
                    faults.invalid(format!(
                        "{name} has no effect on a wire, which passes whatever comes: drop it or {MODE}=wire"
                    ));
                }
            }
        }
    }
}
