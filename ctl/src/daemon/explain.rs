//! What would become of a frame: who would send it is found here, and the dataplane says the rest.

use std::collections::BTreeMap;

use portolan_switch::command::{Answer, Explanation, Piece, Query, Question};
use portolan_switch::drops::DropReason;
use portolan_switch::ids::{MacAddr, NetworkId, PortId};
use portolan_switch::trace::FRAME_MAX;

use super::{Daemon, internal};
use crate::api::types::{
    ExplainAnswer, ExplainLeftOut, ExplainReceiver, ExplainRequest, ExplainStep,
};
use crate::topology::{Refusal, RefusalKind};

/// Stations in one page of the FDB.
const PAGE: usize = 1024;

/// Bytes of frames in one answer, which names each receiver: a long frame may go to thousands.
const FRAMES_BYTES_MAX: usize = 4 << 20;

/// Bytes of the two hardware addresses of a frame.
const ADDRESSES_LEN: usize = 12;

impl Daemon {
    /// What would become of a frame on a network. Nothing changes.
    pub async fn explain(
        &self,
        name: &str,
        request: &ExplainRequest,
    ) -> Result<ExplainAnswer, Refusal> {
        let frame = bytes_of(&request.frame)?;
        let (network, owners) = self.owners(name).await?;
        let port = match &request.from {
            Some(node) => self.port_of(name, node).await?,
            None => self.sender(name, network, &frame).await?,
        };
        match self.plane.explain(Question { port, frame }).await {
            Some(Answer::Explained(told)) => Ok(answer(&told, port, &owners)),
            Some(_) => Err(Refusal::new(
                RefusalKind::Conflict,
                format!("the node that sends it is on {name} no longer; try again"),
            )),
            None => Err(internal("the dataplane does not answer; look at daemon.log")),
        }
    }

    /// The port of a node on a network.
    async fn port_of(&self, network: &str, node: &str) -> Result<PortId, Refusal> {
        let control = self.control.lock().await;
        let id = control.topology.network(network)?.id;
        let node = control.topology.node(node)?;
        let port = node.endpoint_on(id).and_then(|endpoint| endpoint.port);
        port.ok_or_else(|| {
            let why = format!("{} has no wire on {network}: start it, or connect it", node.name);
            Refusal::new(RefusalKind::Conflict, why)
        })
    }

    /// The port behind which the source of a frame lives.
    async fn sender(
        &self,
        name: &str,
        network: NetworkId,
        frame: &[u8],
    ) -> Result<PortId, Refusal> {
        let source = frame.get(ADDRESSES_LEN / 2..).and_then(|rest| rest.first_chunk());
        let source = MacAddr(*source.ok_or_else(|| {
            let why = "a frame shorter than its addresses does not say who sends it: use --from";
            Refusal::new(RefusalKind::Invalid, why)
        })?);
        {
            let control = self.control.lock().await;
            let id = control.topology.network(name)?.id;
            let mut endpoints = control.topology.nodes().filter_map(|node| node.endpoint_on(id));
            let own = endpoints.find(|endpoint| endpoint.mac == source && endpoint.port.is_some());
            if let Some(port) = own.and_then(|endpoint| endpoint.port) {
                return Ok(port);
            }
        }
        let mut after = None;
        loop {
            let rows = match self.plane.ask(Query::Fdb { network, after, limit: PAGE }).await {
                Some(Answer::Fdb(rows)) => rows,
                Some(_) => Vec::new(),
                None => return Err(internal("the dataplane does not answer; look at daemon.log")),
            };
            if let Some(row) = rows.iter().find(|row| row.mac == source) {
                return Ok(row.port);
            }
            after = rows.last().map(|row| (row.vlan, row.mac));
            if rows.len() < PAGE {
                let why = format!("nobody on {name} is known to have {source}: use --from NODE");
                return Err(Refusal::new(RefusalKind::NotFound, why));
            }
        }
    }
}

/// What the dataplane has said, with nodes in the place of ports.
fn answer(told: &Explanation, from: PortId, owners: &BTreeMap<PortId, String>) -> ExplainAnswer {
    let node = |port: &PortId| owners.get(port).map_or("a node that has gone", String::as_str);
    let words = |pieces: &[Piece]| {
        let word = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Port(port) => node(port).to_owned(),
        };
        pieces.iter().map(word).collect::<String>()
    };
    let outcome = match told.dropped {
        Some(_) => "dropped",
        None if !told.receivers.is_empty() => "sent",
        None if told.taken => "taken",
        None => "unheard",
    };
    let steps = told.steps.iter().map(|step| ExplainStep {
        stage: step.stage.name().into(),
        verdict: if step.dropped.is_some() { "drop" } else { "pass" }.into(),
        detail: words(&step.detail),
    });
    let mut left = FRAMES_BYTES_MAX;
    let receivers = told.receivers.iter().filter_map(|to| {
        let frame = told.frames.get(to.frame)?;
        let after = left.checked_sub(frame.bytes.len());
        left = after.unwrap_or(0);
        Some(ExplainReceiver {
            node: node(&to.port).into(),
            from_gateway: to.made,
            summary: frame.summary.clone(),
            frame: after.map_or_else(String::new, |_| hex_of(&frame.bytes)),
        })
    });
    let left_out = told.left_out.iter().map(|out| ExplainLeftOut {
        node: node(&out.port).into(),
        reason: out.reason.map_or("no_member", DropReason::name).into(),
        meaning: out.reason.map_or("Nobody there has asked for the group.", why_left_out).into(),
    });
    ExplainAnswer {
        from: node(&from).into(),
        frame: told.summary.clone(),
        steps: steps.collect(),
        outcome: outcome.into(),
        reason: told.dropped.map_or("", |reason| reason.name()).into(),
        receivers: receivers.collect(),
        left_out: left_out.collect(),
    }
}

/// What keeps a port apart from whoever sends.
fn why_left_out(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Isolated => "Both are isolated (portolan.isolated).",
        DropReason::VlanNotAllowed => "It has no part in the VLAN.",
        DropReason::LoopBlocked => "It is blocked for being part of a loop.",
        other => other.meaning(),
    }
}

/// Reads hexadecimal digits, with what people and programs put between them.
fn bytes_of(text: &str) -> Result<Vec<u8>, Refusal> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").unwrap_or(text).bytes();
    let digits = digits.filter(|byte| !byte.is_ascii_whitespace() && !b":-.".contains(byte));
    let mut frame = Vec::new();
    let mut high = None;
    for digit in digits {
        let value = char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let value = value.ok_or_else(|| {
            let why = format!("Frame: {:?} is no hexadecimal digit", char::from(digit));
            Refusal::new(RefusalKind::Invalid, why)
        })?;
        match high.take() {
            None => high = Some(value),
            Some(high) => frame.push(high << 4 | value),
        }
    }
    let why = match (high, frame.len()) {
        (Some(_), _) => {
            "half a byte is left: a frame has an even number of hexadecimal digits".into()
        }
        (None, 0) => "a frame has bytes: give it in hexadecimal".into(),
        (None, len) if len > FRAME_MAX => format!("a frame has at most {FRAME_MAX} bytes"),
        _ => return Ok(frame),
    };
    Err(Refusal::new(RefusalKind::Invalid, why))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex_of(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use portolan_switch::command::{OnWire, Receiver};

    use super::*;

    #[test]
    fn an_answer_holds_no_more_frames_than_it_may_and_names_all_receivers() {
        let long = OnWire { bytes: vec![7; FRAME_MAX], summary: "long".into() };
        let to = |port| Receiver { port: PortId(port), made: false, frame: 0 };
        let told = Explanation {
            frames: vec![long],
            receivers: (1..=1000).map(to).collect(),
            ..Explanation::default()
        };
        let answer = answer(&told, PortId(9), &BTreeMap::new());
        assert_eq!(answer.receivers.len(), 1000);
        assert!(answer.receivers.iter().all(|to| to.summary == "long"));
        let lens: Vec<usize> = answer.receivers.iter().map(|to| to.frame.len()).collect();
        let whole = FRAMES_BYTES_MAX / FRAME_MAX;
        assert_eq!(lens[..whole], vec![2 * FRAME_MAX; whole]);
        assert_eq!(lens[whole..], vec![0; 1000 - whole]);
    }

    #[test]
    fn digits_are_read_with_what_stands_between_them() {
        for text in ["0102fF", "0x0102ff", "01:02:ff", "01 02\nff\n", "0102.ff"] {
            assert_eq!(bytes_of(text).unwrap(), [1, 2, 255], "{text:?}");
        }
        assert_eq!(hex_of(&[1, 2, 255]), "0102ff");
    }

    #[test]
    fn what_is_no_frame_is_refused_by_what_is_wrong_with_it() {
        for (text, why) in [("", "has bytes"), ("012", "half a byte"), ("0g", "Frame: 'g' is no")] {
            let refused = bytes_of(text).unwrap_err();
            assert!(refused.message.contains(why), "{}", refused.message);
        }
        assert!(bytes_of(&"00".repeat(FRAME_MAX)).is_ok());
        assert!(bytes_of(&"00".repeat(FRAME_MAX + 1)).is_err());
    }
}
