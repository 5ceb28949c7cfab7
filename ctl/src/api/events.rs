//! What happens, as the API tells it: in Docker's words where Docker has one, and in ours for what happens on a LAN.
//!
//! Whatever an event is about bears its id as the actor, and its name as the attribute `name`. Where a node has to do with
//! what happened to a network, its id is the attribute `container`, as Docker has it, and its name the attribute `node`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! words {
    ($(#[doc = $about:literal])+ $name:ident: $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// All of them, in the order of the alphabet.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word that people and scripts see; it never changes.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }
    };
}

words! {
    /// What events are about.
    Subject:
    /// A node; Docker's word for what it has of that kind.
    Node = "container",
    /// A network, and a node on it where one has to do with it.
    Network = "network",
}

words! {
    /// What happened.
    Action:
    /// A node was put on the network.
    Connect = "connect",
    /// It was made.
    Create = "create",
    /// A host found that somebody else has the address that it was given.
    Decline = "decline",
    /// It was removed.
    Destroy = "destroy",
    /// The node's program has ended.
    Die = "die",
    /// A node was taken off the network.
    Disconnect = "disconnect",
    /// A lease was not renewed.
    Expire = "expire",
    /// A host was given an address.
    Lease = "lease",
    /// What was sent to one port came back by another, or by the same.
    Loop = "loop",
    /// A port that was blocked for a loop is open again.
    LoopEnd = "loop-end",
    /// Ports of the host lead to the node.
    Publish = "publish",
    /// A host gave its address back.
    Release = "release",
    /// The node has another name.
    Rename = "rename",
    /// The node's program runs.
    Start = "start",
    /// A station was seen on another port than before.
    StationMove = "station-move",
    /// The node was stopped as it was asked for.
    Stop = "stop",
    /// A port sends more to many than it may.
    Storm = "storm",
    /// Ports of the host lead to the node no more.
    Unpublish = "unpublish",
}

/// One event of `GET /v1/events`, as Docker words it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct EventMessage {
    /// `network`, or `container` for a node.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `connect`, `die`, ...
    pub action: String,
    /// What it happened to.
    pub actor: EventActor,
    /// Seconds since 1970.
    #[serde(rename = "time")]
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What an event happened to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct EventActor {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name, and what else tells it apart; of an event of a network that a node has to do with, the node's id as
    /// `container` and its name as `node`.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}
