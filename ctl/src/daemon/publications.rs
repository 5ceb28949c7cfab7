//! Published ports: opening their doors, handing them down, and closing them.
//!
//! Doors are bound on a thread for blocking work, and the keeper holds each a second time before anybody can come in by it, in
//! batches that fit a message. They go down once their publication is committed. On the way back the order is: the publication
//! ends, the dataplane closes its copies and says so, the keeper closes its own and says so; only then can the port be had
//! again, and whoever opens doors waits for those that are just being closed.
//!
//! Doors are open while their node runs and is reachable: a commit closes those that are not open any more in the state it
//! makes, and [`Daemon::settle_doors`] opens them again after every change of a node's networks. Ports that somebody else took
//! meanwhile stay closed; the log tells, and so do `ps` and `inspect`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use portolan_switch::command::PublicationId;
use portolan_switch::io::Door;

use super::doors::{self, Opened, RunOfPorts};
use super::held::Inheritance;
use super::plane::Opening;
use super::readiness::readable;
use super::{Control, Daemon, internal};
use crate::api::events::Action;
use crate::api::types::PortRow;
use crate::daemon::log::say;
use crate::namespace::channel::BATCH_MAX;
use crate::topology::{
    Id, Mapping, Node, PortWish, Published, Refusal, RefusalKind, Topology, port_rows,
};

/// Doors are closed within this time, or the keeper or the dataplane does not answer.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// How often, and how long apart, doors of one node that were open before are tried: a process that the daemon before had just
/// started may hold a copy of them for a moment.
const REOPEN_TRIES: u32 = 5;
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// How often, and how long apart, it is looked whether a node is wired and its ports are open: 5 s in all.
const SETTLE_LOOKS: u32 = 100;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// What the keys of doors begin with.
const KEY: &str = "door/";

/// Doors that are bound and held by the keeper, and not served yet.
#[derive(Debug)]
pub(super) struct MadeDoors {
    node: Id,
    mapping: u32,
    opened: Opened,
    keys: Vec<String>,
}

/// Doors that go into service with the next commit.
#[derive(Default)]
pub(super) struct EnlistedDoors {
    /// Whose they are.
    pub(super) mappings: Vec<u32>,
    /// What goes down.
    pub(super) opened: Vec<(PublicationId, Vec<Door>)>,
}

/// What the keeper held for mappings, by node and mapping: the keys and the sockets.
pub(super) type InheritedDoors = BTreeMap<(String, u32), (Vec<String>, Vec<OwnedFd>)>;

fn key(node: Id, mapping: u32, batch: usize) -> String {
    format!("{KEY}{node}/{mapping}/{batch}")
}

/// Takes what belongs to doors out of an inheritance.
pub(super) fn inherited(inheritance: &mut Inheritance) -> InheritedDoors {
    let keys: Vec<String> =
        inheritance.keys().filter(|key| key.starts_with(KEY)).cloned().collect();
    let mut all = InheritedDoors::new();
    for key in keys {
        let mut parts = key.trim_start_matches(KEY).split('/');
        let node = parts.next().unwrap_or_default().to_owned();
        let mapping = parts.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let Some(held) = inheritance.remove(&key) else { continue };
        let (keys, sockets) = all.entry((node, mapping)).or_default();
        keys.push(key);
        sockets.extend(held.descriptors);
    }
    all
}

fn runs_of(mapping: &Mapping) -> Vec<RunOfPorts> {
    mapping.runs.iter().map(|run| (run.host_port, run.node_port, run.count)).collect()
}

fn words(mappings: &[Mapping]) -> String {
    let words: Vec<String> = mappings.iter().map(|mapping| mapping.wish.to_string()).collect();
    words.join(" ")
}

impl Daemon {
    /// What is open for a node; what is just being opened is waited for.
    pub async fn ports(&self, name: &str) -> Result<Vec<PortRow>, Refusal> {
        self.while_node(name, Topology::is_settling).await;
        let control = self.control.lock().await;
        Ok(port_rows(control.topology.node(name)?))
    }

    /// Waits while a node is wired or its ports are opened, as both are after a start of the daemon.
    async fn while_node(&self, name: &str, is_busy: fn(&Topology, Id) -> bool) {
        for _ in 0..SETTLE_LOOKS {
            let control = self.control.lock().await;
            let topology = &control.topology;
            if !topology.node(name).is_ok_and(|node| is_busy(topology, node.id)) {
                return;
            }
            drop(control);
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }

    /// Publishes more ports to a running node, all or none; of what is published and closed, each is tried anew.
    pub async fn publish(self: &Arc<Self>, name: &str, specs: &[String]) -> Result<(), Refusal> {
        self.while_node(name, Topology::is_being_wired).await;
        let _turn = self.publishing.lock().await;
        let Published { node: id, added, again } = {
            let mut control = self.control.lock().await;
            let mut new = control.topology.clone();
            let published = new.publish(name, specs)?;
            if !new.is_reachable(published.node) {
                let message = format!("node {name} is just being wired: try again");
                return Err(Refusal::new(RefusalKind::Conflict, message));
            }
            self.commit(&mut control, new, Opening::default()).await?;
            published
        };
        let done = match self.open_again(id, &again).await {
            Ok(()) => match self.open_doors(id, Some(&added)).await {
                Ok(made) => self.serve_doors(id, made).await,
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        let mut control = self.control.lock().await;
        let open = |handle: &u32| {
            control.topology.mapping(id, *handle).is_some_and(|mapping| !mapping.open.is_empty())
        };
        let done = match done {
            Ok(()) if !added.iter().chain(&again).all(open) => Err(Refusal::new(
                RefusalKind::Conflict,
                "the node ended, or left its networks, while it was published",
            )),
            other => other,
        };
        if done.is_err() {
            let mut new = control.topology.clone();
            new.drop_publications(id, &added);
            self.commit(&mut control, new, Opening::default()).await?;
        } else {
            self.tell_ports(&control.topology, Action::Publish, id, &specs.join(" "));
        }
        done
    }

    /// Opens what is closed of a node, each by itself; what is still in the way of one is what its node shows from now on.
    async fn open_again(self: &Arc<Self>, id: Id, mappings: &[u32]) -> Result<(), Refusal> {
        let mut faults = Vec::new();
        for mapping in mappings {
            let Some(fault) = self.reopen(id, *mapping, &mut 0).await else { continue };
            let mut control = self.control.lock().await;
            let mut new = control.topology.clone();
            new.closed(id, *mapping, Some(fault.message.clone()));
            self.commit(&mut control, new, Opening::default()).await?;
            faults.push(fault.message);
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(Refusal::new(RefusalKind::Conflict, faults.join("; ")))
    }

    /// Takes publications off a node; their ports can be had by others when this returns.
    pub async fn unpublish(self: &Arc<Self>, name: &str, specs: &[String]) -> Result<(), Refusal> {
        let _turn = self.publishing.lock().await;
        let mut control = self.control.lock().await;
        let mut new = control.topology.clone();
        let (id, gone) = new.unpublish(name, specs)?;
        self.commit(&mut control, new, Opening::default()).await?;
        self.tell_ports(&control.topology, Action::Unpublish, id, &words(&gone));
        drop(control);
        self.until_doors_are_closed().await;
        Ok(())
    }

    fn tell_ports(&self, topology: &Topology, action: Action, node: Id, ports: &str) {
        if let Some(node) = topology.node_by_id(node) {
            self.events.tell_of_node(action, node, &[("ports", ports)]);
        }
    }

    /// Binds the doors of a node's mappings, all or none, and has the keeper hold them; of all its mappings where none are
    /// named.
    pub(super) async fn open_doors(
        self: &Arc<Self>,
        node: Id,
        which: Option<&[u32]>,
    ) -> Result<Vec<MadeDoors>, Refusal> {
        let topology = self.control.lock().await.topology.clone();
        let wanted = |mapping: &&Mapping| which.is_none_or(|which| which.contains(&mapping.handle));
        let mappings: Vec<Mapping> = topology
            .node_by_id(node)
            .map(|node| node.publications.iter().filter(wanted).cloned().collect())
            .unwrap_or_default();
        if mappings.is_empty() {
            return Ok(Vec::new());
        }
        self.until_doors_are_closed().await;
        let daemon = Arc::clone(self);
        let work = move || daemon.bind_doors(node, &mappings, &topology);
        let opened = tokio::task::spawn_blocking(work).await;
        let opened = opened.map_err(|error| internal(format!("opening ports: {error}")))?;
        opened.map_err(|message| Refusal::new(RefusalKind::Conflict, message))
    }

    fn bind_doors(
        &self,
        node: Id,
        mappings: &[Mapping],
        topology: &Topology,
    ) -> Result<Vec<MadeDoors>, String> {
        let wishes: Vec<PortWish> = mappings.iter().map(|mapping| mapping.wish).collect();
        doors::room_for(&wishes)?;
        let (mut all, mut faults) = (Vec::new(), Vec::new());
        // Who has no choice comes first.
        let (fixed, free): (Vec<_>, Vec<_>) =
            mappings.iter().partition(|mapping| mapping.wish.fixed_ports().is_some());
        for mapping in fixed.into_iter().chain(free) {
            match doors::open(&mapping.wish, &runs_of(mapping), topology) {
                Ok(opened) => all.push((mapping.handle, opened)),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults.join("; "));
        }
        let hold = |(mapping, opened): (u32, Opened)| {
            let keys = self.hold_doors(node, mapping, &opened.doors);
            MadeDoors { node, mapping, opened, keys }
        };
        Ok(all.into_iter().map(hold).collect())
    }

    fn hold_doors(&self, node: Id, mapping: u32, doors: &[Door]) -> Vec<String> {
        let mut keys = Vec::new();
        for (batch, doors) in doors.chunks(BATCH_MAX).enumerate() {
            let key = key(node, mapping, batch);
            let sockets: Vec<BorrowedFd<'_>> =
                doors.iter().map(|door| door.socket.as_fd()).collect();
            self.keeping.hold(&key, String::new(), &sockets);
            keys.push(key);
        }
        keys
    }

    /// Puts doors into service.
    async fn serve_doors(self: &Arc<Self>, node: Id, made: Vec<MadeDoors>) -> Result<(), Refusal> {
        let mut control = self.control.lock().await;
        if control.topology.node_by_id(node).is_none() {
            drop(control);
            self.give_up(made);
            return Ok(());
        }
        let new = control.topology.clone();
        self.commit_wired(&mut control, new, Vec::new(), made).await
    }

    /// Takes doors into service with `new`, which the caller commits. Those whose mapping has gone, or whose node cannot be
    /// reached any more, are closed.
    pub(super) fn enlist_doors(
        self: &Arc<Self>,
        control: &mut Control,
        new: &mut Topology,
        made: Vec<MadeDoors>,
    ) -> EnlistedDoors {
        let (useful, useless): (Vec<_>, Vec<_>) = made.into_iter().partition(|made| {
            new.mapping(made.node, made.mapping).is_some() && new.is_reachable(made.node)
        });
        self.give_up(useless);
        let mut enlisted = EnlistedDoors::default();
        for MadeDoors { node, mapping, opened, keys } in useful {
            new.opened(node, mapping, &opened.runs, opened.addresses.clone());
            control.doors.insert(mapping, keys);
            enlisted.mappings.push(mapping);
            let runs = new.mapping(node, mapping).map(|m| m.runs.clone()).unwrap_or_default();
            let handles = runs.into_iter().map(|run| PublicationId(run.handle));
            let sockets = opened.by_run().into_iter().map(|(_, doors)| doors);
            enlisted.opened.extend(handles.zip(sockets));
        }
        enlisted
    }

    /// Takes over the doors of the daemon before, where their nodes are reachable now; the others are closed, to be bound anew.
    pub(super) fn adopt_doors(
        self: &Arc<Self>,
        control: &mut Control,
        new: &mut Topology,
        mut inherited: InheritedDoors,
    ) -> Vec<(PublicationId, Vec<Door>)> {
        let mut made = Vec::new();
        let nodes: Vec<Arc<Node>> = new.nodes().cloned().collect();
        for (node, mapping) in
            nodes.iter().flat_map(|node| node.publications.iter().map(move |m| (node, m)))
        {
            if node.running() && mapping.runs.is_empty() {
                // The daemon before died over it, so whoever asked was told that it failed.
                new.drop_publications(node.id, &[mapping.handle]);
            }
            let at = (node.id.to_string(), mapping.handle);
            let Some((keys, sockets)) = inherited.remove(&at) else { continue };
            let runs = runs_of(mapping);
            match doors::adopt(&runs, sockets).filter(|_| new.is_reachable(node.id)) {
                Some(opened) => {
                    made.push(MadeDoors { node: node.id, mapping: mapping.handle, opened, keys });
                }
                None => self.release_keys(keys),
            }
        }
        let strays: Vec<String> = inherited.into_values().flat_map(|(keys, _)| keys).collect();
        if !strays.is_empty() {
            self.release_keys(strays);
        }
        self.enlist_doors(control, new, made).opened
    }

    /// Closes doors that never came into service.
    pub(super) fn give_up(self: &Arc<Self>, made: Vec<MadeDoors>) {
        let keys: Vec<String> = made.into_iter().flat_map(|made| made.keys).collect();
        if !keys.is_empty() {
            self.release_keys(keys);
        }
    }

    /// The keeper closes what it holds of mappings whose doors did not come into service.
    pub(super) fn release_doors(self: &Arc<Self>, control: &mut Control, mappings: &[u32]) {
        let keys: Vec<String> =
            mappings.iter().filter_map(|mapping| control.doors.remove(mapping)).flatten().collect();
        if !keys.is_empty() {
            self.release_keys(keys);
        }
    }

    fn release_keys(&self, keys: Vec<String>) {
        self.close(Vec::new(), keys);
    }

    /// Closes doors, after the commands that end their publications have gone down.
    pub(super) fn close_doors(&self, control: &mut Control, shut: &[(Id, Mapping)]) {
        let (mut handles, mut keys) = (Vec::new(), Vec::new());
        for (_, mapping) in shut {
            let Some(held) = control.doors.remove(&mapping.handle) else { continue };
            keys.extend(held);
            handles.extend(mapping.runs.iter().map(|run| PublicationId(run.handle)));
        }
        if !keys.is_empty() {
            self.close(handles, keys);
        }
    }

    fn close(&self, handles: Vec<PublicationId>, keys: Vec<String>) {
        self.closing.send_modify(|count| *count = count.saturating_add(1));
        let (plane, keeping) = (Arc::clone(&self.plane), Arc::clone(&self.keeping));
        let closing = self.closing.clone();
        tokio::spawn(async move {
            for handle in handles {
                plane.unlisten(handle).await;
            }
            match keeping.release_and_tell(keys).and_then(readable) {
                Ok(told) => {
                    if tokio::time::timeout(CLOSE_MAX, told.readable()).await.is_err() {
                        say(format_args!("the keeper does not close published ports"));
                    }
                }
                Err(error) => say(format_args!("cannot wait for ports to be closed: {error}")),
            }
            closing.send_modify(|count| *count = count.saturating_sub(1));
        });
    }

    /// Waits until the ports of all doors that are being closed can be had again.
    pub(super) async fn until_doors_are_closed(&self) {
        let mut closing = self.closing.subscribe();
        let _ = tokio::time::timeout(CLOSE_MAX, closing.wait_for(|count| *count == 0)).await;
    }

    /// Opens the doors of a node that can be reached and has some that are closed. What cannot be opened is told, a line each,
    /// and the rest works.
    pub(super) async fn settle_doors(self: &Arc<Self>, id: Id) -> Vec<String> {
        let mut told = Vec::new();
        let _turn = self.publishing.lock().await;
        let to_open: Vec<Mapping> = {
            let control = self.control.lock().await;
            let Some(node) = control.topology.node_by_id(id) else { return told };
            if !control.topology.is_reachable(id) {
                return told;
            }
            node.publications.iter().filter(|mapping| mapping.open.is_empty()).cloned().collect()
        };
        let mut tries = REOPEN_TRIES;
        for mapping in to_open {
            let Some(fault) = self.reopen(id, mapping.handle, &mut tries).await else { continue };
            self.close_faulty(id, mapping.handle, &fault.message).await;
            told.push(fault.message);
        }
        told
    }

    /// Closes a mapping that the dataplane cannot serve as a whole.
    pub(super) async fn unserved(self: &Arc<Self>, publication: PublicationId, why: &str) {
        let _turn = self.publishing.lock().await;
        let found = self.control.lock().await.topology.opened_as(publication);
        let Some((node, mapping)) = found else { return };
        let fault = format!("{} cannot be published: {why}", mapping.wish);
        self.close_faulty(node, mapping.handle, &fault).await;
    }

    /// Notes what keeps the ports of a mapping from being open, closes what is open of them, and tells.
    async fn close_faulty(&self, id: Id, mapping: u32, fault: &str) {
        let mut control = self.control.lock().await;
        let mut new = control.topology.clone();
        new.closed(id, mapping, Some(fault.to_owned()));
        let Some((node, mapping)) = new.node_by_id(id).zip(new.mapping(id, mapping)) else {
            return;
        };
        say(format_args!("published ports of {}: {fault}", node.name));
        let ports = mapping.wish.to_string();
        if let Err(refusal) = self.commit(&mut control, new, Opening::default()).await {
            say(format_args!("{}", refusal.message));
        }
        self.tell_ports(&control.topology, Action::Unpublish, id, &ports);
    }

    /// Opens the doors of one mapping again; what is in the way.
    async fn reopen(self: &Arc<Self>, node: Id, mapping: u32, tries: &mut u32) -> Option<Refusal> {
        loop {
            match self.open_doors(node, Some(&[mapping])).await {
                Ok(made) => return self.serve_doors(node, made).await.err(),
                Err(refusal) if *tries == 0 => return Some(refusal),
                Err(_) => {
                    *tries -= 1;
                    tokio::time::sleep(REOPEN_PAUSE).await;
                }
            }
        }
    }
}
