//! Arbitrary bytes as what clients ask of the control side.
//!
//! A script is lines; the first letter of each says which request the rest is, as JSON. What is understood is done to the real
//! topology, and what comes of it is planned and given to a real switch, which panics where the plan does not fit what it has.
//! A refusal must change nothing and say something in one line; and what is settled must survive being kept.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use portolan::api::types::{
    ConnectRequest, DisconnectRequest, NetworkCreate, NodeCreate, NodeExited, PublishRequest,
};
use portolan::namespace::channel;
use portolan::topology::{
    HostFacts, Moment, NetworkFilter, NodeStatus, Refusal, RefusalKind, Topology, plan,
};
use portolan_switch::command::{Command, Limits};
use portolan_switch::datapath::Datapath;
use portolan_switch::ids::{PortId, Time};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Lines of one script.
const LINES_MAX: usize = 24;

/// The control side, and the switch it tells.
struct Desk {
    topology: Topology,
    datapath: Datapath,
    random: ChaCha8Rng,
    ports: u32,
    commits: u64,
}

/// A request, or why it is none: that is the answer then.
fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Refusal> {
    let read = serde_json::from_slice(json);
    read.map_err(|error| Refusal::new(RefusalKind::Invalid, error.to_string()))
}

impl Desk {
    fn new() -> Desk {
        let mut desk = Desk {
            topology: Topology::default(),
            datapath: Datapath::new(1),
            random: ChaCha8Rng::seed_from_u64(1),
            ports: 0,
            commits: 0,
        };
        desk.datapath.apply(Command::SetLimits(Limits { flows: 8, owner_flows: 4 }), Time::ZERO);
        let old = desk.topology.clone();
        desk.topology.predefined(&HostFacts::default(), Moment(0), &mut desk.random);
        desk.put_in_force(&old);
        desk
    }

    /// Does one request.
    fn act(&mut self, letter: u8, json: &[u8]) {
        let old = self.topology.clone();
        let settled = self.change(letter, json);
        if let Err(refusal) = &settled {
            assert!(!refusal.message.trim().is_empty(), "a refusal says why");
            assert_eq!(plan(&old, &self.topology), [], "a refusal changed something: {refusal:?}");
            self.topology = old;
            return;
        }
        self.put_in_force(&old);
        self.keep();
    }

    fn change(&mut self, letter: u8, json: &[u8]) -> Result<(), Refusal> {
        let (topology, random) = (&mut self.topology, &mut self.random);
        let now = Moment(1_000_000_000);
        match letter {
            b'N' => {
                let facts = HostFacts::default();
                topology
                    .create_network(&read::<NetworkCreate>(json)?, &facts, now, random)
                    .map(drop)
            }
            b'n' => topology
                .remove_network(&read::<String>(json)?, json.len().is_multiple_of(2))
                .map(drop),
            b'M' => topology.create_node(&read::<NodeCreate>(json)?, now, random).map(drop),
            b'm' => topology.remove_node(&read::<String>(json)?, true).map(drop),
            b'C' => {
                // The network is in the path of the real request.
                let asked = read::<ConnectRequest>(json)?;
                let (network, wish) = (&asked.endpoint_config.network, &asked.endpoint_config);
                topology.connect(network, &asked.container, wish, random).map(drop)
            }
            b'D' => {
                let (network, asked) = read::<(String, DisconnectRequest)>(json)?;
                topology.disconnect(&network, &asked.container, asked.force).map(drop)
            }
            b'R' => {
                let (old, new) = read::<(String, String)>(json)?;
                topology.rename(&old, &new).map(drop)
            }
            b'P' => {
                let (node, asked) = read::<(String, PublishRequest)>(json)?;
                topology.publish(&node, &asked.ports).map(drop)
            }
            b'U' => {
                let (node, asked) = read::<(String, PublishRequest)>(json)?;
                let (node, gone) = topology.unpublish(&node, &asked.ports)?;
                let handles: Vec<u32> = gone.iter().map(|mapping| mapping.handle).collect();
                topology.drop_publications(node, &handles);
                Ok(())
            }
            b'E' => {
                let (node, how) = read::<(String, NodeExited)>(json)?;
                let id = topology.node(&node)?.id;
                topology.exited(id, how.exit_code, now).map(drop)
            }
            b'F' => {
                let conditions = read::<Vec<String>>(json)?;
                let filter = NetworkFilter::parse(&conditions, now)?;
                topology.prune(&filter);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Wires what is not wired yet, and tells the switch of the difference.
    fn put_in_force(&mut self, old: &Topology) {
        let nodes: Vec<_> = self.topology.nodes().cloned().collect();
        for node in nodes.iter().filter(|node| node.status == NodeStatus::Running) {
            for endpoint in node.endpoints.iter().filter(|endpoint| endpoint.port.is_none()) {
                self.ports += 1;
                self.topology.wired(endpoint.id, Some(PortId(self.ports)));
            }
        }
        self.topology.shut_unreachable();
        for command in plan(old, &self.topology) {
            self.datapath.apply(command, Time::ZERO);
        }
        self.commits += 1;
        self.datapath.apply(Command::Commit(self.commits), Time::ZERO);
        while self.datapath.poll_event().is_some() {}
    }

    /// What is wanted can be kept and is the same when it is read again, and all of it can be listed.
    fn keep(&self) {
        let (counters, networks) = (self.topology.counters(), self.topology.networks());
        let networks = networks.map(|network| again(&**network)).collect();
        let nodes: Vec<_> = self.topology.nodes().map(|node| again(&**node)).collect();
        let kept = Topology::restore(again(counters), networks, nodes);
        let kept = kept.unwrap_or_else(|what| panic!("what is kept contradicts itself: {what}"));
        for (was, is) in self.topology.networks().zip(kept.networks()) {
            assert_eq!(was, is);
            again(&self.topology.network_detail(was));
        }
        for (was, is) in self.topology.nodes().zip(kept.nodes()) {
            assert_eq!((was.id, &was.name, was.status), (is.id, &is.name, is.status));
            again(&self.topology.node_detail(was));
        }
    }
}

/// A value, written and read.
fn again<T: Serialize + DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_string(value).expect("all that is kept or shown can be written");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Requests as lines.
pub fn api(data: &[u8]) {
    let mut desk = Desk::new();
    for line in data.split(|byte| *byte == b'\n').take(LINES_MAX) {
        if let Some((letter, json)) = line.split_first() {
            desk.act(*letter, json);
        }
    }
}

/// A message of any bytes, with descriptors, where nodes are made: what is understood of it is made, and whatever becomes of
/// it no descriptor stays behind.
pub fn wires(data: &[u8]) {
    let Some((shape, message)) = data.split_first() else { return };
    // Whoever keeps a descriptor that was sent keeps the pipe open.
    let (end, sent) = std::io::pipe().expect("a pipe");
    {
        let (client, daemon) = channel::pair().expect("two sockets");
        let with = vec![sent.as_raw_fd(); usize::from(*shape) % 12];
        let control = [ControlMessage::ScmRights(&with)];
        let control = if with.is_empty() { &[][..] } else { &control[..] };
        let whole = sendmsg::<()>(
            client.as_raw_fd(),
            &[IoSlice::new(message)],
            control,
            MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
            None,
        );
        drop(client);
        let received = channel::receive::<NodeCreate>(daemon.as_fd(), Some(Duration::ZERO));
        if let Ok((spec, descriptors)) = received {
            assert!(whole.is_ok() && descriptors.len() == with.len());
            let mut desk = Desk::new();
            let old = desk.topology.clone();
            match desk.topology.create_node(&spec, Moment(1), &mut desk.random) {
                Ok(_) => {
                    desk.put_in_force(&old);
                    desk.keep();
                }
                Err(refusal) => {
                    assert!(!refusal.message.trim().is_empty(), "a refusal says why");
                    assert_eq!(plan(&old, &desk.topology), [], "a refusal changed something");
                }
            }
        }
    }
    drop(sent);
    let mut look = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
    poll(&mut look, PollTimeout::ZERO).expect("a pipe can be looked at");
    let is_shut = look[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP));
    assert!(is_shut, "a descriptor stays behind");
}
