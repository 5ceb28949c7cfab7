//! TCP at the gateway: DNS goes to a connection, everything else is reset at once (RFC 9293, section 3.10.7.1).

use portolan_nat::sockets::Transport;

use crate::drops::DropReason;
use crate::headers::Ip;
use crate::trace::Stage;

use super::Call;
use super::dns::PORT;
use super::dns_tcp::{Arrival, ConnectionId};
use super::reply::{IPV6_LEN, Packet};

/// Bytes of a TCP header without options.
const HEADER_LEN: usize = 20;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What of a segment decides about it.
#[derive(Clone, Copy)]
struct Segment {
    from: u16,
    to: u16,
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    /// Sequence numbers that it takes.
    len: u32,
}

impl Segment {
    fn parse(bytes: &[u8]) -> Option<Segment> {
        let head = bytes.first_chunk::<HEADER_LEN>()?;
        let payload = bytes.get(usize::from(head[12] >> 4) * 4..)?;
        if usize::from(head[12] >> 4) * 4 < HEADER_LEN {
            return None;
        }
        let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, _, flags, ..] = *head;
        let virtual_bytes = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        Some(Segment {
            from: u16::from_be_bytes([s0, s1]),
            to: u16::from_be_bytes([d0, d1]),
            sequence: u32::from_be_bytes([q0, q1, q2, q3]),
            acknowledged: u32::from_be_bytes([a0, a1, a2, a3]),
            flags,
            len: u32::try_from(payload.len()).ok()? + virtual_bytes,
        })
    }

    fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }
}

impl Call<'_, '_, '_> {
    /// Takes a segment to one of the gateway's addresses.
    pub(super) fn tcp(&mut self, ip: &Ip) -> Result<(), DropReason> {
        let segment = Segment::parse(ip.transport(self.bytes())).ok_or(DropReason::Malformed)?;
        self.verify(ip)?;
        let plain = ip.src.is_ipv4() || ip.l4 == ip.l3 + IPV6_LEN;
        if plain && self.is_expected(Transport::Tcp, (ip.src, segment.from).into(), segment.to) {
            // Who is called has nothing to open: two that open at the same time (RFC 9293, section 3.5) were no client and server.
            if segment.opens() {
                return Err(DropReason::GatewayUnserved);
            }
            let packet = self.bytes()[ip.l3..ip.end].to_vec();
            self.shared.forwarding.receive_segment(self.network(), segment.to, packet);
            return Ok(());
        }
        if segment.to != PORT || segment.from == 0 {
            self.reset(ip, &segment)?;
            return Err(DropReason::GatewayUnserved);
        }
        // No client sends extension headers here; the stack behind need not cope with them.
        if !plain {
            return Err(DropReason::GatewayUnserved);
        }
        if self.shared.trace.is_some() && !segment.opens() {
            let say = || vec!["of a DNS connection, into which it is not followed".into()];
            self.shared.tell(Stage::Gateway, say);
            return Ok(());
        }
        let arrival = Arrival {
            id: ConnectionId {
                port: self.asker.port.id(),
                client: (ip.src, segment.from),
                server: ip.dst,
            },
            node: self.asker.port.node(),
            client_mac: self.asker.mac,
            server_mac: self.gateway.mac(),
            mtu: self.gateway.mtu,
            opens: segment.opens(),
            packet: self.bytes()[ip.l3..ip.end].to_vec(),
        };
        let shared = &mut *self.shared;
        let taken = shared.connections.input(
            arrival,
            &shared.names,
            &mut shared.forwarding,
            &mut shared.totals,
            self.turn,
            self.now,
        );
        taken.or_else(|reason| {
            self.reset(ip, &segment)?;
            Err(reason)
        })
    }

    fn reset(&mut self, ip: &Ip, segment: &Segment) -> Result<(), DropReason> {
        if segment.flags & RST != 0 {
            return Ok(());
        }
        let (sequence, acknowledged, flags) = if segment.flags & ACK != 0 {
            (segment.acknowledged, 0, RST)
        } else {
            (0, segment.sequence.wrapping_add(segment.len), RST | ACK)
        };
        let packet = Packet::answering(ip, HEADER_LEN, 16);
        let (from, to) = (segment.to, segment.from);
        self.send_packet(self.asker.mac, &packet, |_, answer| {
            answer[..2].copy_from_slice(&from.to_be_bytes());
            answer[2..4].copy_from_slice(&to.to_be_bytes());
            answer[4..8].copy_from_slice(&u32::to_be_bytes(sequence));
            answer[8..12].copy_from_slice(&u32::to_be_bytes(acknowledged));
            answer[12..14].copy_from_slice(&[5 << 4, flags]);
        })
    }
}
