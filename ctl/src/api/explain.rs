//! What is asked and answered about one frame.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/networks/{name}/explain`: what would become of a frame?
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ExplainRequest {
    /// The frame in hexadecimal, from the destination address on, without preamble and check sequence. Spaces, colons and line
    /// ends between the digits make no difference.
    pub frame: String,
    /// The node that sends it; whoever the source address belongs to where it is left out.
    #[serde(default)]
    pub from: Option<String>,
}

/// What would become of a frame.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ExplainAnswer {
    /// Who would send it.
    pub from: String,
    /// What it is, in a line.
    pub frame: String,
    /// The stages that it would come to, in order.
    pub steps: Vec<ExplainStep>,
    /// `dropped`, `sent` where any node would get it or an answer to it, `taken` by the gateway or by a socket of the host, or
    /// `unheard` where there is nobody to get it.
    pub outcome: String,
    /// The name of the reason it would be dropped for; empty where it would not.
    pub reason: String,
    /// What would be sent to whom.
    pub receivers: Vec<ExplainReceiver>,
    /// Whom it would not be sent to, though it goes to many.
    #[serde(default)]
    pub left_out: Vec<ExplainLeftOut>,
}

/// A node that a frame to many would not be sent to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ExplainLeftOut {
    /// Who.
    pub node: String,
    /// What keeps it apart, by the name that `portolan drops` has for it; `no_member` where nobody there has asked for the
    /// group.
    pub reason: String,
    /// The same in a sentence.
    pub meaning: String,
}

/// One stage of a frame's way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ExplainStep {
    /// Its name.
    pub stage: String,
    /// `pass` or `drop`.
    pub verdict: String,
    /// What was found.
    pub detail: String,
}

/// A frame that would be sent to a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ExplainReceiver {
    /// To whom.
    pub node: String,
    /// Whether it is an answer of the gateway's own, and not the frame in question.
    pub from_gateway: bool,
    /// What it is, in a line.
    pub summary: String,
    /// The frame as it would lie on that wire, in hexadecimal; empty once those before it come to 4 MiB, which is never the case
    /// within the first 60.
    pub frame: String,
}
