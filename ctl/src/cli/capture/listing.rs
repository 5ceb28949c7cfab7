//! One line a frame, for people: when, where, which way, and what it is.

use std::fmt::Write as _;
use std::io::{self, Write};

use etherparse::{LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use portolan::topology::Moment;

use crate::cli::output;

/// Prints frames as they come.
#[derive(Default)]
pub(super) struct Listing(());

impl Listing {
    /// Prints one.
    pub(super) fn show(
        &mut self,
        packet: &EnhancedPacketBlock<'_>,
        interface: Option<&InterfaceDescriptionBlock<'_>>,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", output::clean(&line(packet, interface)))?;
        out.flush()
    }
}

/// A frame in a line.
fn line(
    packet: &EnhancedPacketBlock<'_>,
    interface: Option<&InterfaceDescriptionBlock<'_>>,
) -> String {
    let names = interface.into_iter().flat_map(|interface| &interface.options);
    let name = names.into_iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfName(name) => Some(name.as_ref()),
        _ => None,
    });
    let (mut way, mut comment) = ("?", None);
    for option in &packet.options {
        match option {
            EnhancedPacketOption::Flags(flags) if flags & 3 == 1 => way = "in ",
            EnhancedPacketOption::Flags(flags) if flags & 3 == 2 => way = "out",
            EnhancedPacketOption::Common(CommonOption::Comment(text)) => comment = Some(text),
            _ => {}
        }
    }
    let when = Moment(i64::try_from(packet.timestamp.as_nanos()).unwrap_or(i64::MAX)).to_string();
    let clock = when.split_once('T').map_or(when.as_str(), |(_, clock)| clock);
    let what = summary(&packet.data);
    let mut line =
        format!("{} {} {way} {what}, {} bytes", clock, name.unwrap_or("?"), packet.original_len);
    if let Some(comment) = comment {
        // The meaning is in the file, and in the output of `drops`.
        let short: Vec<&str> = comment.splitn(3, ": ").take(2).collect();
        let _ = write!(line, " [{}]", short.join(": "));
    }
    line
}

/// What a frame is, as far as its headers are there.
fn summary(frame: &[u8]) -> String {
    let Ok(parsed) = LaxSlicedPacket::from_ethernet(frame) else { return "a runt".to_owned() };
    let mut said = String::new();
    for vlan in parsed.vlan_ids() {
        let _ = write!(said, "vlan {} ", vlan.value());
    }
    let (from, to) = match &parsed.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            (header.source_addr().to_string(), header.destination_addr().to_string())
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (header.source_addr().to_string(), header.destination_addr().to_string())
        }
        Some(LaxNetSlice::Arp(arp)) => return said + &arp_summary(arp),
        None => return said + &ethernet_summary(&parsed),
    };
    let more = match &parsed.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let flags = [
                (tcp.syn(), 'S'),
                (tcp.fin(), 'F'),
                (tcp.rst(), 'R'),
                (tcp.psh(), 'P'),
                (tcp.ack(), '.'),
            ];
            let flags: String =
                flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
            let (from_port, to_port) = (tcp.source_port(), tcp.destination_port());
            return format!("{said}TCP {from}:{from_port} > {to}:{to_port} [{flags}]");
        }
        Some(TransportSlice::Udp(udp)) => {
            let (from_port, to_port) = (udp.source_port(), udp.destination_port());
            return format!("{said}UDP {from}:{from_port} > {to}:{to_port}");
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            format!("ICMP {}", icmp_name(icmp.type_u8(), [8, 0, 3, 11]))
        }
        Some(TransportSlice::Icmpv6(icmp)) => match icmp.type_u8() {
            133 => "ICMPv6 router solicitation".to_owned(),
            134 => "ICMPv6 router advertisement".to_owned(),
            135 => "ICMPv6 neighbor solicitation".to_owned(),
            136 => "ICMPv6 neighbor advertisement".to_owned(),
            other => format!("ICMPv6 {}", icmp_name(other, [128, 129, 1, 3])),
        },
        Some(TransportSlice::Igmp(_)) => "IGMP".to_owned(),
        None => match &parsed.net {
            Some(LaxNetSlice::Ipv4(ip)) => format!("IP protocol {}", ip.payload_ip_number().0),
            Some(LaxNetSlice::Ipv6(ip)) => format!("IPv6 next header {}", ip.payload().ip_number.0),
            _ => String::new(),
        },
    };
    format!("{said}{more} {from} > {to}")
}

/// The four messages of ICMP that are met most, by the numbers that its version gives them.
fn icmp_name(kind: u8, [request, reply, unreachable, exceeded]: [u8; 4]) -> String {
    match kind {
        _ if kind == request => "echo request".to_owned(),
        _ if kind == reply => "echo reply".to_owned(),
        _ if kind == unreachable => "unreachable".to_owned(),
        _ if kind == exceeded => "time exceeded".to_owned(),
        other => format!("type {other}"),
    }
}

fn arp_summary(arp: &etherparse::ArpPacketSlice<'_>) -> String {
    let address =
        |bytes: &[u8]| bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
    let (sender, target) =
        (address(arp.sender_protocol_addr()), address(arp.target_protocol_addr()));
    match arp.operation().0 {
        1 => format!("ARP who has {target}, asks {sender}"),
        2 => format!("ARP {sender} is at {}", hardware(arp.sender_hw_addr())),
        other => format!("ARP operation {other}"),
    }
}

fn ethernet_summary(parsed: &LaxSlicedPacket<'_>) -> String {
    match &parsed.link {
        Some(LinkSlice::Ethernet2(header)) => format!(
            "{} > {} ethertype {:#06x}",
            hardware(&header.source()),
            hardware(&header.destination()),
            parsed.ether_payload().map_or(header.ether_type(), |payload| payload.ether_type).0
        ),
        _ => "no Ethernet frame".to_owned(),
    }
}

fn hardware(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests;
