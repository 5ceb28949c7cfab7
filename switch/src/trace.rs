//! What a frame goes through, told in words: steps of its walk, as a question about one frame wants to know them.
//!
//! The walk tells of itself only while somebody has asked: without a `Trace` each stage pays one look at a pointer, and
//! nothing is written.

use crate::drops::DropReason;
use crate::ids::PortId;

/// What would become of a frame if a port sent it now?
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Who sends it.
    pub port: PortId,
    /// The frame, from the destination address on; tags among its bytes.
    pub frame: Vec<u8>,
}

/// The longest frame that is asked about, bytes: the largest IP packet, behind an Ethernet header and two tags.
pub const FRAME_MAX: usize = 65_535 + 14 + 8;

/// Stages of a frame's way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Is it an Ethernet frame?
    Read,
    /// Is its source a station's, and does it fit?
    Admit,
    /// Does it say truly who sent it?
    Guard,
    /// Which VLAN is it of?
    Vlan,
    /// Where does its source live?
    Learn,
    /// For whom is it?
    LookUp,
    /// May the port send that much?
    Limit,
    /// What the gateway makes of it.
    Gateway,
    /// May it leave the network?
    Route,
    /// By what it would leave the host.
    Out,
}

impl Stage {
    /// The name that people and scripts see.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Admit => "admit",
            Stage::Guard => "guard",
            Stage::Vlan => "vlan",
            Stage::Learn => "learn",
            Stage::LookUp => "lookup",
            Stage::Limit => "limit",
            Stage::Gateway => "gateway",
            Stage::Route => "route",
            Stage::Out => "out",
        }
    }
}

/// A piece of a sentence. Whoever shows it knows whose the ports are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Words.
    Text(String),
    /// A port.
    Port(PortId),
}

impl From<String> for Piece {
    fn from(text: String) -> Piece {
        Piece::Text(text)
    }
}

impl From<&str> for Piece {
    fn from(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }
}

/// One stage that the frame came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Which.
    pub stage: Stage,
    /// Why it went no further, where it did not.
    pub dropped: Option<DropReason>,
    /// What was found.
    pub detail: Vec<Piece>,
}

/// A frame that would be sent to a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    /// To which.
    pub port: PortId,
    /// Whether the gateway has made it: an answer, and not the frame in question.
    pub made: bool,
    /// Which of [`Explanation::frames`] it is.
    pub frame: usize,
}

/// A frame as it lies on a wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OnWire {
    /// All of it; tags among its bytes.
    pub bytes: Vec<u8>,
    /// What it is, in a line.
    pub summary: String,
}

/// A port that a frame to many would not be sent to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// Which.
    pub port: PortId,
    /// What keeps them apart; none where it is only that nobody behind it has asked for the group.
    pub reason: Option<DropReason>,
}

/// What would become of a frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Explanation {
    /// What it is, in a line.
    pub summary: String,
    /// The stages it would come to, in order.
    pub steps: Vec<Step>,
    /// Whether the gateway would take it, or a socket of the host.
    pub taken: bool,
    /// As what it would be dropped.
    pub dropped: Option<DropReason>,
    /// What would be sent, each once: it may go to thousands of ports.
    pub frames: Vec<OnWire>,
    /// To whom.
    pub receivers: Vec<Receiver>,
    /// Whom it would not be sent to, though it goes to many.
    pub left_out: Vec<LeftOut>,
}

/// What has been told so far.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) steps: Vec<Step>,
    pub(crate) left_out: Vec<LeftOut>,
}

impl Trace {
    /// Adds a step that the frame has passed.
    pub(crate) fn passed(&mut self, stage: Stage, detail: Vec<Piece>) {
        self.steps.push(Step { stage, dropped: None, detail });
    }

    /// Adds the step in which it ended.
    pub(crate) fn dropped(&mut self, stage: Stage, reason: DropReason) {
        let detail = vec![reason.meaning().into()];
        self.steps.push(Step { stage, dropped: Some(reason), detail });
    }
}
