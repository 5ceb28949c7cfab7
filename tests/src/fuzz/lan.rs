//! Arbitrary bytes as what the guests of one LAN do to each other and to its gateway.
//!
//! The first bytes of a script choose how the network is and what each of its four ports may do: mode, guard, storm limits,
//! loops, snooping, answers, VLANs, isolation, the servers of addresses, and whether all of it is captured. Its steps are
//! frames of any port, sound to a degree that the script chooses, with any virtio_net_hdr and tags in or beside them, and
//! explained beforehand where it says so; frames that were sent out and come back by some port; time; and ports that come
//! and go. What goes out must go to a port there is, and its offload must fit its bytes, for whoever sends it relies on that;
//! what is explained must change nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use portolan_switch::capture::{CaptureBuffer, CaptureId, CaptureSpec, Scope};
use portolan_switch::command::{
    Advert, Answer, Carriage, Command, Conduct, Dhcp4, Dhcp6, Egress, Filtering, HostSpec, Limits,
    LoopAction, Mode, NetworkSpec, PortSpec, Query, ServiceSpec, StormLimits, VlanPolicy,
};
use portolan_switch::datapath::Datapath;
use portolan_switch::drops::DropReason;
use portolan_switch::frame::{FrameTable, VlanTag};
use portolan_switch::ids::{MacAddr, NetworkId, NodeId, PortId, Time};
use portolan_switch::offload::{VNET_LEN, parse_vnet};
use portolan_switch::outbox::Outbox;
use portolan_switch::segment::segment;
use portolan_switch::trace::Question;

use super::drive::{Drive, Shape, Watch};
use super::frames::tci;
use super::{GATEWAY, STEPS_MAX, Script};

/// Ports of the network, and how many of them are attached from the start.
pub(super) const PORTS: u32 = 4;
/// Bytes of each frame that captures keep.
const SNAPLEN: usize = 200;
/// Frames that were sent out and may come back.
const KEPT_MAX: usize = 16;

const NETWORK: NetworkId = NetworkId(0);
pub(super) const GATE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

pub(super) fn mac_of(port: u32) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, port as u8])
}

pub(super) fn v4_of(port: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 10 + port as u8)
}

pub(super) fn v6_of(port: u32) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x10 + port as u16)
}

/// How the network is: everything the script chooses of it.
fn network(script: &mut Script<'_>) -> NetworkSpec {
    let (how, more) = (script.byte(), script.byte());
    let limit = |bit: u8, frames| (more >> bit & 1 != 0).then_some(frames);
    let mode = match how >> 6 {
        2 => Mode::Hub,
        3 => Mode::Wire,
        _ => Mode::Switch,
    };
    let wire = mode == Mode::Wire;
    NetworkSpec {
        id: NETWORK,
        zone: Some("app".into()),
        mac: GATEWAY,
        gateways: if wire {
            Vec::new()
        } else {
            vec!["10.0.0.1/24".parse().expect("a prefix"), "fd00::1/64".parse().expect("a prefix")]
        },
        mtu: 1500,
        guard: how & 1 != 0 && !wire,
        egress: Egress {
            internal: how & 2 != 0,
            host_access: true,
            metadata: false,
            filtering: Filtering::AddressDependent,
        },
        carriage: Carriage {
            mode,
            storm: StormLimits {
                broadcast: limit(0, 20),
                multicast: limit(1, 20),
                unknown: limit(2, 20),
            },
            loops: match more >> 3 & 3 {
                0 => LoopAction::Ignore,
                1 => LoopAction::Tell,
                _ => LoopAction::Block,
            },
            snooping: how & 4 != 0,
            answers: how & 8 != 0,
        },
        services: if wire { ServiceSpec::default() } else { services(how, more) },
    }
}

/// Servers with pools so small that scripts run them dry.
fn services(how: u8, more: u8) -> ServiceSpec {
    let domain = || vec!["app".to_owned(), "corp.example".to_owned()];
    let lease = Duration::from_secs(if more & 0x20 == 0 { 90 } else { 3600 });
    let pool4 = (Ipv4Addr::new(10, 0, 0, 100), Ipv4Addr::new(10, 0, 0, 107));
    let pool6 = ("fd00::100".parse().expect("v6"), "fd00::107".parse().expect("v6"));
    let strangers = how & 1 == 0;
    ServiceSpec {
        dhcp4: (how & 0x10 == 0).then(|| Dhcp4 {
            subnet: "10.0.0.0/24".parse().expect("a prefix"),
            server: Ipv4Addr::new(10, 0, 0, 1),
            leads_out: how & 2 == 0,
            pool: if strangers { vec![pool4] } else { Vec::new() },
            lease,
            domain: Some("app".into()),
            search: domain(),
            mtu: 1500,
            relay: more & 0x40 != 0,
        }),
        dhcp6: (how & 0x20 == 0).then(|| Dhcp6 {
            subnet: "fd00::/64".parse().expect("a prefix"),
            server: GATE6,
            stateful: more & 0x80 == 0,
            pool: if strangers { vec![pool6] } else { Vec::new() },
            lease,
            search: domain(),
        }),
        advert: (how & 0x20 == 0).then(|| Advert {
            prefixes: vec!["fd00::/64".parse().expect("a prefix")],
            autonomous: more & 0x80 != 0,
            managed: more & 0x80 == 0,
            other: true,
            leads_out: how & 2 == 0,
            mtu: 1500,
            dns: vec![GATE6],
            search: domain(),
            routes: vec!["fd00:1::/48".parse().expect("a prefix")],
        }),
        domains: domain(),
    }
}

fn conduct(choice: u8, port: u32) -> Conduct {
    let vlans = match choice & 7 {
        0..=2 => VlanPolicy::Transparent,
        3 => VlanPolicy::Access(10),
        4 => VlanPolicy::Access(20),
        5 => VlanPolicy::Tunnel(30),
        6 => VlanPolicy::Trunk { allowed: vec![10, 20, 30], native: None },
        _ => VlanPolicy::Trunk { allowed: vec![10], native: Some(5) },
    };
    Conduct {
        vlans,
        isolated: choice & 8 != 0,
        storm: (choice & 0x10 != 0).then_some(StormLimits {
            broadcast: Some(3),
            multicast: Some(3),
            unknown: Some(3),
        }),
        stations: if choice & 0x20 == 0 { Vec::new() } else { vec![mac_of(100 + port)] },
    }
}

/// What is held of a LAN beside its datapath.
struct Ports {
    attached: [bool; PORTS as usize],
    /// Frames that were sent out of late.
    kept: Vec<Vec<u8>>,
    choices: [u8; PORTS as usize],
    most: u32,
}

impl Watch for Ports {
    /// All that goes out goes to a port there is, with an offload that fits it.
    fn look(&mut self, datapath: &mut Datapath, out: &Outbox, frames: &FrameTable<'_>, now: Time) {
        for entry in out.entries() {
            datapath.show_sent(entry.port, &[*entry], frames, &[], now);
            let frame = frames.get(entry.frame);
            let is_there = self.attached.get(entry.port.0 as usize).copied().unwrap_or(false);
            assert!(is_there, "to {:?}, which is not attached", entry.port);
            let mut scratch = vec![0; 1 << 17];
            let sent = segment(frame.bytes(), &frame.offload, &mut scratch, |_| {});
            assert!(sent.is_ok(), "{sent:?}: {:?} of {} bytes", frame.offload, frame.bytes().len());
            if self.kept.len() == KEPT_MAX {
                self.kept.remove(0);
            }
            self.kept.push(frame.bytes().to_vec());
        }
        while datapath.poll_event().is_some() {}
        look_at_captures(datapath, now);
    }
}

type Lan = Drive<Ports>;

impl Lan {
    fn of(script: &mut Script<'_>) -> Lan {
        let spec = network(script);
        let most = if spec.carriage.mode == Mode::Wire { 2 } else { PORTS };
        let mut datapath = Datapath::new(1);
        datapath.apply(Command::SetLimits(Limits { flows: 12, owner_flows: 8 }), Time::ZERO);
        datapath.apply(Command::CreateNetwork(spec), Time::ZERO);
        datapath.apply(
            Command::SetUpstreams(vec![SocketAddr::from(([203, 0, 113, 53], 53))]),
            Time::ZERO,
        );
        datapath.apply(Command::Commit(1), Time::ZERO);
        let ports = Ports {
            attached: [false; PORTS as usize],
            kept: Vec::new(),
            choices: [script.byte(), script.byte(), script.byte(), script.byte()],
            most,
        };
        let mut lan = Drive::new(datapath, ports);
        if lan.watch.choices[3] & 0x80 != 0 {
            let id = CaptureId(1);
            let scope = Scope::Network(NETWORK);
            lan.datapath.start_capture(CaptureSpec { id, scope, snaplen: SNAPLEN });
            for _ in 0..2 {
                let lent = lan.datapath.lend_to_capture(id, CaptureBuffer::default());
                assert!(lent.is_ok(), "the capture runs");
            }
        }
        // One stays away, so that there are unknown stations, and it may come.
        (0..most.min(3)).for_each(|port| lan.attach(port));
        lan
    }

    fn attach(&mut self, port: u32) {
        let at = port as usize;
        if std::mem::replace(&mut self.watch.attached[at], true) {
            return;
        }
        let addresses: Vec<IpAddr> = vec![v4_of(port).into(), v6_of(port).into()];
        let node = NodeId(port);
        for command in [
            Command::AttachPort(PortSpec {
                id: PortId(port),
                network: NETWORK,
                node,
                mac: mac_of(port),
                addresses: addresses.clone(),
                conduct: conduct(self.watch.choices[at], port),
            }),
            Command::SetHost(HostSpec {
                network: NETWORK,
                node,
                names: vec![format!("n{port}")],
                addresses,
            }),
            Command::SetView { node, networks: vec![NETWORK] },
            Command::Commit(2),
        ] {
            self.datapath.apply(command, self.now);
        }
    }

    fn detach(&mut self, port: u32) {
        if std::mem::replace(&mut self.watch.attached[port as usize], false) {
            let node = NodeId(port);
            for command in [
                Command::RemoveView(node),
                Command::RemoveHost { network: NETWORK, node },
                Command::DetachPort(PortId(port)),
                Command::Commit(3),
            ] {
                self.datapath.apply(command, self.now);
            }
        }
    }

    /// Asks what would become of a frame: whatever the answer, nothing changes.
    fn explain(&mut self, port: u32, frame: &[u8]) {
        let (totals, due) = (self.datapath.totals(), self.datapath.poll_timeout());
        let tally = self.datapath.query(&Query::Tally, self.now);
        let question = Question { port: PortId(port), frame: frame.to_vec() };
        let answer = self.datapath.explain(&question, self.now);
        assert!(matches!(answer, Answer::Explained(_)), "{answer:?}");
        assert_eq!((self.datapath.totals(), self.datapath.poll_timeout()), (totals, due));
        assert_eq!(self.datapath.query(&Query::Tally, self.now), tally);
    }

    /// A frame of a port. What its header of virtio says is held against it as the IO edge does.
    fn send(&mut self, port: u32, bytes: &[u8], script: &mut Script<'_>, how: u8) {
        let mut shape = Shape::default();
        if how & 0x10 != 0 {
            let mut header = [0; VNET_LEN];
            let given = script.bytes(VNET_LEN);
            header[..given.len()].copy_from_slice(given);
            match parse_vnet(&header, bytes) {
                Ok(offload) => shape.offload = offload,
                Err(reason) => return self.datapath.count_drop(PortId(port), reason, 1),
            }
        }
        if how & 0x20 != 0 {
            let tpid = if how & 0x40 == 0 { 0x8100 } else { 0x88a8 };
            shape.beside = Some(VlanTag { tpid, tci: tci(script) });
        }
        self.frame(PortId(port), bytes, &shape);
    }
}

/// Reads what was captured, and lends the buffer again.
fn look_at_captures(datapath: &mut Datapath, now: Time) {
    while let Some((id, mut buffer)) = datapath.poll_capture(now) {
        for record in buffer.records() {
            assert!(record.bytes.len() <= SNAPLEN && record.bytes.len() <= record.len);
            assert!(record.time <= now, "a frame of times to come");
        }
        buffer.clear();
        assert!(datapath.lend_to_capture(id, buffer).is_ok(), "the capture runs");
    }
}

/// Plays a script on a LAN whose frames `make` makes.
pub(super) fn play(data: &[u8], mut make: impl FnMut(&mut Script<'_>, u32) -> Vec<u8>) {
    let mut script = Script(data);
    let mut lan = Lan::of(&mut script);
    for _ in 0..STEPS_MAX {
        if script.0.is_empty() {
            break;
        }
        let step = script.byte();
        let port = u32::from(step >> 3 & 3) % lan.watch.most;
        match step & 7 {
            0 => {
                let millis = u64::from(script.byte());
                lan.wait(Duration::from_millis(millis * millis));
            }
            1 if step & 0x80 != 0 => lan.detach(port),
            1 => lan.attach(port),
            2 => {
                // What was sent comes back: somebody has joined two ports.
                let at = usize::from(script.byte());
                if let Some(frame) = lan.watch.kept.get(at % lan.watch.kept.len().max(1)).cloned() {
                    lan.send(port, &frame, &mut script, step & 0x60);
                }
            }
            _ => {
                let frame = make(&mut script, port);
                if lan.watch.attached[port as usize] {
                    if step & 0x80 != 0 {
                        lan.explain(port, &frame);
                    }
                    lan.send(port, &frame, &mut script, step & 0x70);
                } else {
                    lan.datapath.count_drop(PortId(port), DropReason::TxDown, 1);
                }
            }
        }
    }
    lan.wait(Duration::from_secs(10_000));
}
