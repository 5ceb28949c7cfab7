//! What the switch sends, on its way to the stations, as the IO edge does it: finished for each port as far as its device
//! cannot, and held against an independent idea of what was to be sent to whom ([`crate::lan`]).

use std::collections::BTreeSet;

use portolan_switch::drops::DropReason;
use portolan_switch::frame::{Checksum, FrameIdx, FrameTable, GsoKind};
use portolan_switch::ids::{MacAddr, PortId};
use portolan_switch::offload::{parse_vnet, write_vnet};
use portolan_switch::outbox::{Entry, Outbox};

use super::{Arrival, PortOptions, World};
use crate::checks;
use crate::edge::{cut, tag_inside};
use crate::lan;
use crate::packet::{Packet, check};

/// Whereto the switch sends its probes for loops, which know no VLAN.
const PROBES: MacAddr = MacAddr([0x03, b'p', b'o', b'r', b't', b'o']);

/// A frame for a device with offloads is told of by the header that lies before it; what is read of that is the same.
fn through_header(packet: &Packet) {
    let mut told = packet.offload;
    if told.csum == Checksum::Verified {
        told.csum = Checksum::Unverified;
    }
    let read = parse_vnet(&write_vnet(&packet.offload), &packet.bytes);
    assert_eq!(read, Ok(told), "a header tells of the frame behind it");
}

impl World {
    /// A frame is passed on as it came, but for the tag that its receiver's VLANs ask for, and to nobody who may not have it.
    fn check_passed(&self, from: PortId, to: PortId, origin: &Packet, packet: &Packet) {
        let ports = [&self.model.ports[&from], &self.model.ports[&to]];
        let network = &self.model.networks[&ports[0].network];
        let apart = ports.iter().all(|port| port.conduct.isolated);
        assert!(!apart, "both isolated: {} and {}", from.0, to.0);
        if lan::is_plain(network, ports) {
            assert_eq!(origin.with_tag_inside(), packet.with_tag_inside(), "passed on as it came");
            return;
        }
        let expected = lan::all_pass(network, ports[0], ports[1], origin);
        let passed = Some(packet.plain_frames());
        assert_eq!(passed, expected, "from {:?} to {:?}", ports[0].conduct, ports[1].conduct);
    }

    /// A frame that the switch made is sound, and the gateway speaks in no VLAN.
    fn check_made(&self, to: PortId, packet: &Packet) {
        for plain in packet.plain_frames() {
            assert_eq!(check(&plain), Ok(()), "a frame the switch made");
        }
        let port = &self.model.ports[&to];
        let network = &self.model.networks[&port.network];
        if let Some((dst, src)) = packet.macs().filter(|(dst, _)| *dst != PROBES)
            && src == network.mac
        {
            assert!(lan::has_gateway(network, port), "the gateway spoke to {dst:?} in {port:?}");
            assert_eq!(packet.vlan, None, "the gateway speaks without a tag");
        }
    }

    /// Sends what the outbox says. `origins` are the frames that were received, as they were, and by which port.
    pub(super) fn flush(
        &mut self,
        origins: Option<(PortId, &[Packet])>,
        table: &mut FrameTable<'_>,
        outbox: &mut Outbox,
        counted: u64,
    ) {
        let put = outbox.entries().to_vec();
        outbox.group_by_port();
        for port in outbox.entries().iter().map(|entry| entry.port).collect::<BTreeSet<_>>() {
            let of = |list: &[Entry]| -> Vec<FrameIdx> {
                list.iter().filter(|entry| entry.port == port).map(|entry| entry.frame).collect()
            };
            assert_eq!(of(&put), of(outbox.entries()), "grouping keeps the order of a port");
        }
        let mut sent = 0;
        for Entry { port, frame: idx, tagged } in outbox.entries().to_vec() {
            let frame = table.get(idx);
            let vlan = frame.vlan.filter(|_| tagged);
            let packet = Packet { bytes: frame.bytes().to_vec(), offload: frame.offload, vlan };
            sent += packet.segments();
            let origin = origins.and_then(|(from, all)| Some((from, all.get(usize::from(idx.0))?)));
            match origin {
                Some((from, origin)) => self.check_passed(from, port, origin, &packet),
                None => self.check_made(port, &packet),
            }
            let refused = self.transmit(port, packet);
            let refused: Vec<_> = refused.map(|reason| (0, reason)).into_iter().collect();
            let entry = [Entry { port, frame: idx, tagged }];
            self.datapath.show_sent(port, &entry, table, &refused, self.now);
        }
        assert_eq!(sent, counted, "frames put into the outbox");
    }

    /// Sends one frame to one port, finishing what the port cannot take.
    fn transmit(&mut self, port: PortId, packet: Packet) -> Option<DropReason> {
        let network = self.model.network_of(port).expect("sent to an attached port");
        let tag = checks::foreign_tag(&packet.bytes, network);
        assert_eq!(tag, None, "isolation: seen on network {}", network.0);
        let Some(socket) = self.sockets.get(&port) else {
            return self.edge_drop(port, DropReason::TxDown, packet.segments());
        };
        let options = socket.options;
        let inside = tag_inside(&packet);
        assert_eq!(inside, packet.with_tag_inside(), "the tag's place");
        let expected = packet.plain_frames();
        // The tag goes among the bytes of each piece, as it does where they are sent.
        let bare = Packet { vlan: None, ..packet.clone() };
        let with_tag = |bytes| Packet { bytes, vlan: packet.vlan, ..Packet::default() };
        let cut: Vec<Vec<u8>> =
            cut(&bare).into_iter().map(|bytes| tag_inside(&with_tag(bytes)).bytes).collect();
        assert_eq!(cut, expected, "what a superframe stands for");
        let is_train = inside.offload.gso.is_some_and(|gso| gso.kind == GsoKind::UdpL4);
        let pieces = if options.offloads && (options.uso || !is_train) {
            through_header(&bare);
            vec![inside]
        } else {
            cut.into_iter().map(Packet::from).collect()
        };
        let mut refusals: Vec<_> =
            pieces.into_iter().map(|piece| self.deliver(port, options, piece)).collect();
        refusals.dedup();
        if refusals.len() > 1 {
            self.blur(port);
        }
        refusals[0]
    }

    fn deliver(&mut self, port: PortId, options: PortOptions, piece: Packet) -> Option<DropReason> {
        let segments = piece.segments();
        if piece.longest() > options.mtu {
            return self.edge_drop(port, DropReason::TxTooBig, segments);
        }
        let socket = self.sockets.get_mut(&port).expect("looked up");
        if socket.on_the_way >= options.queue {
            return self.edge_drop(port, DropReason::TxFull, segments);
        }
        self.datapath.count_tx(port, segments, piece.bytes.len() as u64);
        self.model.seen.get_mut(&port).expect("attached").tx += segments;
        match options.wire.carry(self.now, &mut self.random) {
            Some(at) => {
                socket.on_the_way += 1;
                let key = self.next_key(at);
                self.arrivals.insert(key, Arrival::AtStation(port, piece));
            }
            None => self.lost += segments,
        }
        None
    }

    pub(super) fn edge_drop(
        &mut self,
        port: PortId,
        reason: DropReason,
        frames: u64,
    ) -> Option<DropReason> {
        self.edge += frames;
        self.datapath.count_drop(port, reason, frames);
        Some(reason)
    }
}
