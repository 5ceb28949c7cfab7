//! Groups are sent to their members alone (RFC 4541), as far as members have been heard of.
//!
//! Theory of operation. The switch listens to what hosts tell routers of groups ([`message`]), and keeps by VLAN and group the
//! ports that want it. A group that anybody is known to want goes to these ports, and to those behind which a router was heard;
//! one that nobody is known to want goes to everybody, since there may be members that nobody has asked. Groups of the link
//! itself, 224.0.0.0/24 and ff02::/16, always do, and so does whatever is no IP, or is sent to another hardware address than
//! its group's. Groups are told apart by their IP addresses: of the hardware addresses, 32 share one. What bears two tags is a
//! VLAN of somebody else's within one of ours: the same host may be on several of these, so that they go to everybody too, and
//! say nothing.
//!
//! There is no querier of ours. As long as none was heard, nobody repeats what he has said: a membership then lasts until
//! he takes it back, or his port goes. Where there is one, memberships age as a router's would (RFC 3376, section 8.4), the time
//! counting from the first query. Reports go to the routers alone, so that no host keeps silent because it has heard another
//! (RFC 4541, section 2.1.1); where no router is known, they go to everybody.
//!
//! What a port says counts for that port alone. Behind one there may be several hosts, so that each is remembered by its
//! hardware address, and the port leaves a group with the last of them; where there are more than [`REPORTERS_MAX`], it stays
//! until it ages or goes. Nobody can thus have others sent less, whatever he sends: a query has memberships age only where the
//! hosts will answer it in time, and what they might take for another's report goes to the routers alone, however it is sent.
//! Whoever asks hosts of all groups is a router all the same, though they may leave its query unanswered.
//!
//! Limits never cost anybody a frame. A port that asks for more groups than it may, or has most of them when the network has
//! all it may, is sent every group from then on, and nothing more is remembered of it. No timer runs: what has aged is
//! forgotten when somebody looks.

pub mod message;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::command::{GroupKind, GroupPlace, GroupRow};
use crate::frame::Frame;
use crate::headers::{Layout, ethertype};
use crate::ids::{MacAddr, PortId, Time};
use message::{Message, Wish};

/// Groups that a port may be a member of, each VLAN for itself.
pub const GROUPS_PORT_MAX: usize = 256;

/// Memberships that a network may have.
pub const MEMBERSHIPS_MAX: usize = 8192;

/// VLANs, each family for itself, in which a port may be known for a router.
pub const ROUTED_PORT_MAX: usize = 64;

/// Hosts behind one port that are told apart by group.
pub const REPORTERS_MAX: usize = 8;

/// How long a membership lasts that nobody repeats, where there is a querier; how long a router is known.
pub const AGEING: Duration = Duration::from_secs(260);

/// Where an IPv6 header says what follows it.
const NEXT_HEADER_AT: usize = 6;

/// One VLAN, and whether IPv6.
type Domain = (u16, bool);

#[derive(Clone, Debug)]
struct Member {
    seen: Time,
    reporters: ArrayVec<MacAddr, REPORTERS_MAX>,
    /// There were more of them.
    crowded: bool,
}

#[derive(Clone, Copy, Debug)]
struct Router {
    heard: Time,
    /// When it last asked.
    asked: Option<Time>,
}

/// The routers of a domain.
#[derive(Clone, Debug, Default)]
struct Routers {
    /// Since when there has been a querier whose questions are answered, if there is one: what is older has not aged.
    since: Time,
    /// When all that were asked have answered.
    answered: Time,
    ports: BTreeMap<PortId, Router>,
}

impl Routers {
    fn has_querier(&self, now: Time) -> bool {
        let asked = |router: &Router| router.asked.is_some_and(|at| now.since(at) < AGEING);
        self.ports.values().any(asked)
    }

    fn known(&self, now: Time) -> impl Iterator<Item = PortId> + '_ {
        let known = move |router: &Router| now.since(router.heard) < AGEING;
        self.ports.iter().filter(move |(_, router)| known(router)).map(|(port, _)| *port)
    }
}

/// What is kept of one port.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    memberships: usize,
    routed: usize,
    /// Since when it is sent every group, if it is.
    everything: Option<Time>,
}

/// Who is a member of which groups, on one network.
#[derive(Clone, Debug, Default)]
pub struct Snooping {
    groups: BTreeMap<(u16, IpAddr), BTreeMap<PortId, Member>>,
    routers: BTreeMap<Domain, Routers>,
    ports: BTreeMap<PortId, Tally>,
    memberships: usize,
    /// Room for the receivers of one frame.
    receivers: Vec<PortId>,
}

impl Snooping {
    /// Knows of nobody.
    pub fn new() -> Snooping {
        Snooping::default()
    }

    /// A port leaves the network, and all groups.
    pub fn detach(&mut self, port: PortId) {
        self.forget_memberships(port);
        self.routers.retain(|_, routers| {
            routers.ports.remove(&port);
            !routers.ports.is_empty()
        });
        self.ports.remove(&port);
    }

    /// Hears a frame to a group that came in by a port, and says which ports it is for, in order; the sender's may be among
    /// them. None where it is for everybody. Who is `isolated` reaches not all hosts, and is no router to us: some could not
    /// answer it.
    pub fn hear(
        &mut self,
        frame: &Frame<'_>,
        layout: &Layout,
        (port, isolated): (PortId, bool),
        now: Time,
    ) -> Option<&[PortId]> {
        if layout.tags(frame.vlan) > 1 {
            return None;
        }
        let ip = layout.ip(frame.bytes()).ok().flatten()?;
        let to_group = ip.dst.is_multicast() && hardware(ip.dst) == layout.dst;
        let domain = (layout.vlan, ip.dst.is_ipv6());
        match Message::of(&ip, frame, to_group) {
            Some(Message::Query { general, within, routes }) => {
                if let Some(within) = within.filter(|_| !isolated) {
                    self.ask(domain, port, within, now);
                } else if general {
                    if routes && !isolated {
                        self.route(domain, port, false, now);
                    }
                    self.disturb(domain, now);
                }
                None
            }
            Some(Message::Greeting) => {
                if !isolated {
                    self.route(domain, port, false, now);
                }
                None
            }
            Some(Message::Stray) => self.of_routers(domain, now),
            Some(message) => {
                message.wishes(&mut |group, wish| match wish {
                    Wish::Join => self.join((layout.vlan, group), port, layout.src, now),
                    Wish::Leave => self.leave((layout.vlan, group), port, layout.src),
                });
                self.of_routers(domain, now)
            }
            None if to_group => self.of_members((layout.vlan, ip.dst), now),
            None => None,
        }
    }

    /// Hears a frame to a single station. What it says counts for nothing, but a question of MLD may put off that one's answer to
    /// the querier, which is then no sign of its having left; of IGMP, hosts keep to the earlier time (RFC 3376, section 5.2).
    pub fn overhear(&mut self, frame: &Frame<'_>, layout: &Layout, now: Time) {
        // Hosts heed none without options, which stand first.
        let next = frame.bytes().get(layout.l3 + NEXT_HEADER_AT);
        let may_ask = layout.ethertype == ethertype::IPV6 && next == Some(&message::HOP_BY_HOP);
        if !may_ask || self.routers.is_empty() || layout.tags(frame.vlan) > 1 {
            return;
        }
        let Ok(Some(ip)) = layout.ip(frame.bytes()) else { return };
        if let Some(Message::Query { general: true, .. }) = Message::of(&ip, frame, false) {
            self.disturb((layout.vlan, true), now);
        }
    }

    /// How many memberships there are, aged ones that nobody has looked at included.
    pub fn len(&self) -> usize {
        self.memberships
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.memberships == 0
    }

    fn of_routers(&mut self, domain: Domain, now: Time) -> Option<&[PortId]> {
        self.receivers.clear();
        self.receivers.extend(self.routers.get(&domain)?.known(now));
        (!self.receivers.is_empty()).then_some(&self.receivers[..])
    }

    fn of_members(&mut self, group: (u16, IpAddr), now: Time) -> Option<&[PortId]> {
        if is_of_link(group.1) || !self.groups.contains_key(&group) {
            return None;
        }
        self.expire(group, now);
        let members = self.groups.get(&group)?;
        self.receivers.clear();
        self.receivers.extend(members.keys());
        if let Some(routers) = self.routers.get(&(group.0, group.1.is_ipv6())) {
            self.receivers.extend(routers.known(now));
        }
        let everything = self.ports.iter().filter(|(_, tally)| tally.everything.is_some());
        self.receivers.extend(everything.map(|(port, _)| *port));
        self.receivers.sort_unstable();
        self.receivers.dedup();
        Some(&self.receivers)
    }

    /// At most `limit` rows behind `after`: the members of groups by VLAN, group and port, then the routers, each family of a VLAN
    /// for itself, and then who is sent everything.
    pub fn rows(&self, after: Option<GroupPlace>, limit: usize, now: Time) -> Vec<GroupRow> {
        let from = match after {
            None => Some((0, Ipv4Addr::UNSPECIFIED.into())),
            Some((GroupKind::Member, vlan, group, _)) => Some((vlan, group)),
            Some((GroupKind::Router | GroupKind::Everything, ..)) => None,
        };
        let members = from.into_iter().flat_map(|from| self.members(from, now));
        let all = members.chain(self.known_routers(now)).chain(self.crowded_out());
        all.filter(|row| after.is_none_or(|after| row.place() > after)).take(limit).collect()
    }

    /// The members of groups, from that VLAN and group on.
    fn members(&self, from: (u16, IpAddr), now: Time) -> impl Iterator<Item = GroupRow> + '_ {
        self.groups.range(from..).flat_map(move |(&(vlan, group), members)| {
            let aged = self.aged((vlan, group), now);
            let there = members.iter().filter(move |(_, member)| !aged(member));
            there.map(move |(&port, member)| GroupRow {
                kind: GroupKind::Member,
                vlan,
                group,
                port,
                seen: member.seen,
            })
        })
    }

    fn known_routers(&self, now: Time) -> impl Iterator<Item = GroupRow> + '_ {
        self.routers.iter().flat_map(move |(&(vlan, is_v6), routers)| {
            let group = match is_v6 {
                true => IpAddr::from(Ipv6Addr::UNSPECIFIED),
                false => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            };
            routers.known(now).filter_map(move |port| {
                let seen = routers.ports.get(&port)?.heard;
                Some(GroupRow { kind: GroupKind::Router, vlan, group, port, seen })
            })
        })
    }

    /// The ports that are sent everything, as no more is remembered of them.
    fn crowded_out(&self) -> impl Iterator<Item = GroupRow> + '_ {
        let (kind, vlan, group) = (GroupKind::Everything, 0, Ipv4Addr::UNSPECIFIED.into());
        self.ports.iter().filter_map(move |(&port, tally)| {
            Some(GroupRow { kind, vlan, group, port, seen: tally.everything? })
        })
    }

    /// Which members of a group have aged: none where nobody asks them.
    fn aged(&self, group: (u16, IpAddr), now: Time) -> impl Fn(&Member) -> bool + use<> {
        let routers = self.routers.get(&(group.0, group.1.is_ipv6()));
        let since = routers.filter(|routers| routers.has_querier(now)).map(|routers| routers.since);
        move |member| since.is_some_and(|since| now.since(member.seen.max(since)) >= AGEING)
    }

    /// Forgets the members of a group that have aged.
    fn expire(&mut self, group: (u16, IpAddr), now: Time) {
        let aged = self.aged(group, now);
        let Some(members) = self.groups.get_mut(&group) else { return };
        for (port, _) in members.extract_if(.., |_, member| aged(member)) {
            self.memberships -= 1;
            if let Some(tally) = self.ports.get_mut(&port) {
                tally.memberships -= 1;
            }
        }
        if members.is_empty() {
            self.groups.remove(&group);
        }
    }

    /// A question that every host answers in time. Of one that comes too soon, hosts may answer the first no more.
    fn ask(&mut self, domain: Domain, port: PortId, within: Duration, now: Time) {
        self.route(domain, port, true, now);
        if let Some(routers) = self.routers.get_mut(&domain) {
            if now < routers.answered {
                routers.since = now;
            }
            routers.answered = routers.answered.max(now + within);
        }
    }

    /// A question that some hosts may answer late or never, and with it the one before: of MLD, Linux has one time for both, which
    /// is the later question's.
    fn disturb(&mut self, domain: Domain, now: Time) {
        if let Some(routers) = self.routers.get_mut(&domain) {
            routers.since = now;
        }
    }

    fn route(&mut self, domain: Domain, port: PortId, asks: bool, now: Time) {
        let tally = self.ports.entry(port).or_default();
        let routers = self.routers.entry(domain).or_default();
        if asks && !routers.has_querier(now) {
            routers.since = now;
        }
        if !routers.ports.contains_key(&port) {
            if tally.routed >= ROUTED_PORT_MAX {
                tally.everything.get_or_insert(now);
                if routers.ports.is_empty() {
                    self.routers.remove(&domain);
                }
                return;
            }
            tally.routed += 1;
        }
        let router = routers.ports.entry(port).or_insert(Router { heard: now, asked: None });
        router.heard = now;
        router.asked = if asks { Some(now) } else { router.asked };
    }

    fn join(&mut self, group: (u16, IpAddr), port: PortId, reporter: MacAddr, now: Time) {
        let tally = *self.ports.entry(port).or_default();
        if tally.everything.is_some() || !group.1.is_multicast() || is_of_link(group.1) {
            return;
        }
        let is_member = self.groups.get(&group).is_some_and(|members| members.contains_key(&port));
        if !is_member && !self.make_room(port, tally, now) {
            return;
        }
        let member = self.groups.entry(group).or_default().entry(port).or_insert(Member {
            seen: now,
            reporters: ArrayVec::new(),
            crowded: false,
        });
        member.seen = now;
        if !member.reporters.contains(&reporter) {
            member.crowded |= member.reporters.try_push(reporter).is_err();
        }
        if !is_member {
            self.memberships += 1;
            self.ports.entry(port).or_default().memberships += 1;
        }
    }

    /// Whether one more membership of a port may be remembered. Who has too many is sent everything from now on.
    fn make_room(&mut self, port: PortId, tally: Tally, now: Time) -> bool {
        if tally.memberships >= GROUPS_PORT_MAX {
            self.send_everything(port, now);
            return false;
        }
        if self.memberships >= MEMBERSHIPS_MAX {
            let most = self.ports.iter().max_by_key(|(_, tally)| tally.memberships);
            let most = most.map_or(port, |(most, _)| *most);
            self.send_everything(most, now);
            return most != port;
        }
        true
    }

    fn send_everything(&mut self, port: PortId, now: Time) {
        self.forget_memberships(port);
        self.ports.entry(port).or_default().everything.get_or_insert(now);
    }

    fn leave(&mut self, group: (u16, IpAddr), port: PortId, reporter: MacAddr) {
        let Some(members) = self.groups.get_mut(&group) else { return };
        let Some(member) = members.get_mut(&port) else { return };
        member.reporters.retain(|known| *known != reporter);
        if member.crowded || !member.reporters.is_empty() {
            return;
        }
        members.remove(&port);
        if members.is_empty() {
            self.groups.remove(&group);
        }
        self.memberships -= 1;
        if let Some(tally) = self.ports.get_mut(&port) {
            tally.memberships -= 1;
        }
    }

    fn forget_memberships(&mut self, port: PortId) {
        let Some(tally) = self.ports.get_mut(&port).filter(|tally| tally.memberships > 0) else {
            return;
        };
        self.memberships -= std::mem::take(&mut tally.memberships);
        self.groups.retain(|_, members| {
            members.remove(&port);
            !members.is_empty()
        });
    }
}

/// Whether a group holds on its own link, or nearer, and is none to be routed: its members need not report themselves.
fn is_of_link(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.octets()[1] & 0x0f <= 2,
    }
}

/// The hardware address of a group (RFC 1112, section 6.4; RFC 2464, section 7).
fn hardware(group: IpAddr) -> MacAddr {
    match group {
        IpAddr::V4(v4) => hardware_v4(v4),
        IpAddr::V6(v6) => hardware_v6(v6),
    }
}

fn hardware_v4(group: Ipv4Addr) -> MacAddr {
    let [_, b, c, d] = group.octets();
    MacAddr([0x01, 0x00, 0x5e, b & 0x7f, c, d])
}

fn hardware_v6(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests;
