//! Address resolution on behalf of endpoints: questions that the switch answers, and news that it spreads.
//!
//! Theory of operation. Who has which address on which VLAN is known before a wire moves: an endpoint's addresses belong to
//! the VLAN of the frames that bear no tag on its wire. Two things follow from it.
//!
//! *Answers*, where a network asks for them: an ARP request (RFC 826) or a neighbor solicitation (RFC 4861) for an endpoint's
//! address is answered out of the asking port with that endpoint's hardware address, as the endpoint itself would, and goes to
//! nobody else. So does the question whether such an address is free (RFC 5227, RFC 4862). What an endpoint asks about itself,
//! what it announces, and what is asked of addresses that nobody is known to have goes to everybody. Advertisements do
//! not say that somebody is a router, since the switch does not know: a network in which nodes route by advertisements of their
//! own has its questions go to everybody, which is what a network does unless told otherwise.
//!
//! *News*: when an address leads to another hardware address than before, those who have spoken with it hold on to the old one,
//! for half a minute or so. So the switch announces the new one, once, as the endpoint would: by a gratuitous ARP request, or
//! an unsolicited advertisement. For that it remembers who had an address last, for [`FORMER_MAX`] addresses.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_nat::write::Header;

use crate::frame::{Frame, FrameIdx, FrameTable};
use crate::gateway::{ethernet, ndp};
use crate::headers::{ETHERNET_LEN, IPV6_LEN, Layout, bytes_at, ethertype, protocol};
use crate::ids::{MacAddr, PortId};
use crate::snooping::message::is_sound;

/// Addresses that nobody has any more, of which the last holder is remembered.
pub const FORMER_MAX: usize = 1024;

/// Bytes of an ARP message for Ethernet and IPv4.
const ARP_LEN: usize = 28;

/// Hardware type, protocol type and both address lengths, for Ethernet and IPv4.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Bytes of an advertisement with one option.
const ADVERT_LEN: usize = 32;

/// Flags of an advertisement: in answer to a solicitation, replacing what is known.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// An address on a VLAN.
type Place = (u16, IpAddr);

/// Who has an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Behind this port.
    pub port: PortId,
    /// With this hardware address.
    pub mac: MacAddr,
}

/// An address that leads elsewhere than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct News {
    /// On which VLAN.
    pub vlan: u16,
    /// Which.
    pub address: IpAddr,
    /// Whereto.
    pub holder: Holder,
}

/// The endpoints' addresses on one network.
#[derive(Clone, Debug, Default)]
pub struct Resolution {
    /// Of several holders the last one counts.
    holders: BTreeMap<Place, Vec<Holder>>,
    /// Who had an address last that nobody has; the oldest first.
    former: VecDeque<(Place, MacAddr)>,
    /// What is to be spread.
    news: VecDeque<News>,
}

impl Resolution {
    /// Without endpoints.
    pub fn new() -> Resolution {
        Resolution::default()
    }

    /// An endpoint comes with these addresses, on the VLAN of its frames without a tag. `seen` says which hardware address
    /// an address was seen with before.
    pub fn attach(
        &mut self,
        vlan: u16,
        holder: Holder,
        addresses: &[IpAddr],
        seen: impl Fn(IpAddr) -> Option<MacAddr>,
    ) {
        for address in addresses {
            let place = (vlan, *address);
            let at = self.former.iter().position(|(former, _)| *former == place);
            let former = at.and_then(|at| self.former.remove(at)).map(|(_, mac)| mac);
            let holders = self.holders.entry(place).or_default();
            let before = holders.last().map(|last| last.mac).or(former).or_else(|| seen(*address));
            holders.push(holder);
            if before.is_some_and(|before| before != holder.mac) {
                self.news.push_back(News { vlan, address: *address, holder });
            }
        }
    }

    /// The endpoint of a port goes. An address that two have leads to the one that is left.
    pub fn detach(&mut self, port: PortId) {
        self.news.retain(|news| news.holder.port != port);
        let gone = |holder: &Holder| holder.port == port;
        for ((vlan, address), holders) in &mut self.holders {
            let before = holders.last().copied();
            holders.retain(|holder| !gone(holder));
            let Some(before) = before.filter(gone) else { continue };
            match holders.last().copied() {
                None => self.former.push_back(((*vlan, *address), before.mac)),
                Some(holder) if holder.mac != before.mac => {
                    self.news.push_back(News { vlan: *vlan, address: *address, holder });
                }
                Some(_) => {}
            }
        }
        self.holders.retain(|_, holders| !holders.is_empty());
        let excess = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..excess);
    }

    /// Who has an address.
    pub fn holder(&self, vlan: u16, address: IpAddr) -> Option<Holder> {
        self.holders.get(&(vlan, address))?.last().copied()
    }

    /// Whether there is something to be spread.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// What is to be spread next. It is given up where the turn has no room for it: give it back then.
    pub fn next_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// Takes back what could not be spread.
    pub fn postpone(&mut self, news: News) {
        self.news.push_front(news);
    }
}

impl News {
    /// Writes the announcement; none where the turn has no room.
    pub fn write(&self, frames: &mut FrameTable<'_>) -> Option<FrameIdx> {
        let mac = self.holder.mac;
        match self.address {
            IpAddr::V4(own) => {
                let made = frames.make(ETHERNET_LEN + ARP_LEN)?;
                let frame = frames.get_mut(made).bytes_mut();
                ethernet(frame, MacAddr::BROADCAST, mac, ethertype::ARP);
                let asked = MacAddr::default();
                write_arp(&mut frame[ETHERNET_LEN..], 1, (mac, own), (asked, own));
                Some(made)
            }
            IpAddr::V6(own) => {
                let made = frames.make(ETHERNET_LEN + IPV6_LEN + ADVERT_LEN)?;
                let frame = frames.get_mut(made).bytes_mut();
                ethernet(frame, ALL_NODES_MAC, mac, ethertype::IPV6);
                write_advert(&mut frame[ETHERNET_LEN..], (mac, own), ALL_NODES, OVERRIDE);
                Some(made)
            }
        }
    }
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// A question who has an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// By ARP.
    Arp {
        /// Who asks: as the message says, and the frame.
        asker: (MacAddr, Ipv4Addr),
        /// Whom the answer is sent to.
        to: MacAddr,
        /// What about.
        target: Ipv4Addr,
    },
    /// By neighbor discovery.
    Solicitation {
        /// Who asks; unspecified where it wants to know whether the address is free.
        asker: Ipv6Addr,
        /// Whom the answer is sent to.
        to: MacAddr,
        /// What about.
        target: Ipv6Addr,
    },
}

impl Question {
    /// The question that a frame asks of everybody; none where it asks none, or one that nobody would answer. One behind a tag
    /// among the frame's bytes is somebody else's business.
    pub fn of(layout: &Layout, frame: &Frame<'_>) -> Option<Question> {
        let bytes = frame.bytes();
        if layout.l3 != ETHERNET_LEN || !layout.dst.is_group() {
            return None;
        }
        match layout.ethertype {
            ethertype::ARP => {
                let message: [u8; ARP_LEN] = bytes_at(bytes, layout.l3)?;
                let asker = (MacAddr(bytes_at(&message, 8)?), bytes_at::<4>(&message, 14)?.into());
                let target: Ipv4Addr = bytes_at::<4>(&message, 24)?.into();
                let asks = message.starts_with(&ARP_HEAD) && message[6..8] == [0, 1];
                (asks && asker.1 != target).then_some(Question::Arp {
                    asker,
                    to: layout.src,
                    target,
                })
            }
            ethertype::IPV6 => {
                let ip = layout.ip(bytes).ok()??;
                let target = ndp::target(&ip, bytes)?;
                let IpAddr::V6(asker) = ip.src else { return None };
                let asks = ndp::is_valid(&ip, bytes) && is_sound(&ip, frame) && asker != target;
                asks.then_some(Question::Solicitation { asker, to: layout.src, target })
            }
            _ => None,
        }
    }

    /// The address that it is about.
    pub fn target(&self) -> IpAddr {
        match *self {
            Question::Arp { target, .. } => target.into(),
            Question::Solicitation { target, .. } => target.into(),
        }
    }

    /// Writes what the endpoint that has the address would answer; none where the turn has no room.
    pub fn answer(&self, mac: MacAddr, frames: &mut FrameTable<'_>) -> Option<FrameIdx> {
        match *self {
            Question::Arp { asker, to, target } => {
                let made = frames.make(ETHERNET_LEN + ARP_LEN)?;
                let frame = frames.get_mut(made).bytes_mut();
                ethernet(frame, to, mac, ethertype::ARP);
                write_arp(&mut frame[ETHERNET_LEN..], 2, (mac, target), asker);
                Some(made)
            }
            Question::Solicitation { asker, to, target } => {
                let made = frames.make(ETHERNET_LEN + IPV6_LEN + ADVERT_LEN)?;
                let frame = frames.get_mut(made).bytes_mut();
                let (to, dst, flags) = if asker.is_unspecified() {
                    (ALL_NODES_MAC, ALL_NODES, OVERRIDE)
                } else {
                    (to, asker, SOLICITED | OVERRIDE)
                };
                ethernet(frame, to, mac, ethertype::IPV6);
                write_advert(&mut frame[ETHERNET_LEN..], (mac, target), dst, flags);
                Some(made)
            }
        }
    }
}

fn write_arp(
    message: &mut [u8],
    operation: u8,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) {
    message[..6].copy_from_slice(&ARP_HEAD);
    message[6..8].copy_from_slice(&[0, operation]);
    message[8..14].copy_from_slice(&sender.0.0);
    message[14..18].copy_from_slice(&sender.1.octets());
    message[18..24].copy_from_slice(&target.0.0);
    message[24..28].copy_from_slice(&target.1.octets());
}

fn write_advert(packet: &mut [u8], own: (MacAddr, Ipv6Addr), dst: Ipv6Addr, flags: u8) {
    let message = &mut packet[IPV6_LEN..];
    message[0] = 136;
    message[4] = flags;
    message[8..24].copy_from_slice(&own.1.octets());
    message[24..26].copy_from_slice(&[2, 1]);
    message[26..32].copy_from_slice(&own.0.0);
    let header = Header::new(own.1.into(), dst.into(), protocol::ICMPV6);
    Header { hop_limit: 255, ..header }.seal(packet, 2);
}
