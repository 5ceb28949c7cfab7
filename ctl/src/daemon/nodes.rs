//! What can be asked of nodes, and how they come and go.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::plane::Opening;
use super::publications::MadeDoors;
use super::readiness::readable;
use super::wires::{self, Cut, DefaultRoutes, Place};
use super::{Control, Daemon, LiveNode, clock, host, internal};
use crate::api::events::Action;
use crate::api::types::*;
use crate::daemon::log::say;
use crate::namespace::{user, wire};
use crate::topology::{EndpointId, Id, Node, NodeStatus, Refusal, RefusalKind};

/// The exit code of a program that was killed, until its runner says better.
pub(super) const KILLED: i32 = 137;

/// A killed process is gone within this time, or it cannot be killed.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Two small files are written within this time, or the guest is in the way.
const ETC_WAIT: Duration = Duration::from_secs(2);

/// How often, and how long apart, a runner's word on how its program ended is looked for. A runner that was killed has none.
const REPORT_LOOKS: u32 = 20;
const REPORT_PAUSE: Duration = Duration::from_millis(10);

/// The keeper's key of a node.
pub(super) fn node_key(node: Id) -> String {
    format!("node/{node}")
}

/// Whether the process behind a pidfd has ended (a pidfd is readable then).
pub(super) fn has_ended(pidfd: &Arc<OwnedFd>) -> bool {
    let mut waiting = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut waiting, PollTimeout::ZERO), Ok(1))
}

impl Daemon {
    /// Nodes, in order of their making, the last one first; ended ones with `all`.
    pub async fn nodes(&self, all: bool) -> Vec<NodeSummary> {
        let control = self.control.lock().await;
        let mut nodes: Vec<&Arc<Node>> =
            control.topology.nodes().filter(|node| all || node.running()).collect();
        nodes.sort_by_key(|node| std::cmp::Reverse(node.created));
        nodes.into_iter().map(|node| control.topology.node_summary(node, clock::now())).collect()
    }

    /// One node.
    pub async fn node(&self, name: &str) -> Result<NodeDetail, Refusal> {
        let control = self.control.lock().await;
        let node = control.topology.node(name)?;
        Ok(control.topology.node_detail(node))
    }

    /// Makes a node of what was handed in: its endpoints are wired when this returns.
    pub(super) async fn create_node(
        self: &Arc<Self>,
        spec: &NodeCreate,
        inside: OwnedFd,
    ) -> NodeCreated {
        match self.try_create_node(spec, inside).await {
            Ok(made) => made,
            Err(refusal) => NodeCreated::Refused(ErrorBody { message: refusal.message }),
        }
    }

    async fn try_create_node(
        self: &Arc<Self>,
        spec: &NodeCreate,
        inside: OwnedFd,
    ) -> Result<NodeCreated, Refusal> {
        let (place, pid) = place_of(spec, inside)?;
        let spec = &NodeCreate { pid, ..spec.clone() };
        let (id, warnings, wanted) = {
            let mut control = self.control.lock().await;
            let mut new = control.topology.clone();
            for wish in &spec.networks {
                self.learn_leases(&mut new, &wish.network).await?;
            }
            let (id, warnings) = new.create_node(spec, clock::now(), &mut control.random)?;
            if let Some(process) = pid.and_then(host::process_start) {
                new.set_process(id, process);
            }
            let endpoints: Vec<EndpointId> = new
                .node_by_id(id)
                .map(|node| node.endpoints.iter().map(|e| e.id).collect())
                .unwrap_or_default();
            let wanted =
                endpoints.iter().filter_map(|e| Some((*e, wires::wire_spec(&new, *e)?))).collect();
            self.commit(&mut control, new, Opening::default()).await?;
            (id, warnings, wanted)
        };
        let started = match self.open_doors(id, None).await {
            Ok(doors) => match wires::make(place.clone(), wanted).await {
                Ok(made) => self.start_node(id, &place, (made, doors), warnings).await,
                Err(error) => {
                    self.give_up(doors);
                    Err(internal(error))
                }
            },
            Err(refusal) => Err(refusal),
        };
        if started.is_err() {
            self.unmake_node(id).await;
        }
        started
    }

    /// Takes back what is left of a node that could not be made.
    async fn unmake_node(self: &Arc<Self>, id: Id) {
        let mut control = self.control.lock().await;
        let mut new = control.topology.clone();
        let Ok(removed) = new.remove_node(&id.to_string(), true) else { return };
        if let Err(refusal) = self.commit(&mut control, new, Opening::default()).await {
            say(format_args!("{}", refusal.message));
            return;
        }
        // It may have been connected further while it was made.
        let endpoints: Vec<EndpointId> = removed.endpoints.iter().map(|e| e.id).collect();
        drop(self.dismiss(&mut control, &endpoints));
    }

    async fn start_node(
        self: &Arc<Self>,
        id: Id,
        place: &Place,
        (made, doors): (Vec<wires::MadeWire>, Vec<MadeDoors>),
        warnings: Vec<String>,
    ) -> Result<NodeCreated, Refusal> {
        let mut control = self.control.lock().await;
        let new = control.topology.clone();
        self.commit_wired(&mut control, new, made, doors).await?;
        let node = control.topology.node_by_id(id).filter(|node| node.running()).cloned();
        let node = node.ok_or_else(|| internal("the node was removed while it was made"))?;
        self.watch_node(&mut control, id, place);
        self.events.tell_of_node(Action::Create, &node, &[]);
        for endpoint in &node.endpoints {
            self.tell_between(&control.topology, Action::Connect, endpoint.network, &node);
        }
        self.events.tell_of_node(Action::Start, &node, &[]);
        // The answer is one message of limited size; thousands of ports would not fit, and nobody reads them there.
        let bare = Node { publications: Vec::new(), ..Node::clone(&node) };
        Ok(NodeCreated::Ready {
            node: Box::new(control.topology.node_detail(&bare)),
            etc: control.topology.etc_files(&node),
            warnings,
        })
    }

    /// Has the keeper hold what the node is known by, and follows its process.
    pub(super) fn watch_node(self: &Arc<Self>, control: &mut Control, id: Id, place: &Place) {
        let process = match place {
            Place::Process(pidfd) => Arc::clone(pidfd),
            Place::Netns(_) => {
                control.nodes.insert(id, LiveNode::default());
                return;
            }
        };
        self.keeping.hold(&node_key(id), String::new(), &[process.as_fd()]);
        let (daemon, pidfd) = (Arc::clone(self), Arc::clone(&process));
        let watch = tokio::spawn(async move {
            if wait_for_end(&pidfd).await.is_ok() {
                // On a task of its own: this one is stopped when the node is forgotten.
                tokio::spawn(async move { daemon.process_ended(id).await });
            }
        });
        let (process, watch) = (Some(process), Some(watch.abort_handle()));
        control.nodes.insert(id, LiveNode { process, watch, ..LiveNode::default() });
    }

    /// A node's process is gone. How a program ended is its runner's to say, which has a moment for that.
    async fn process_ended(self: &Arc<Self>, id: Id) {
        for _ in 0..REPORT_LOOKS {
            let control = self.control.lock().await;
            let node = control.topology.node_by_id(id);
            if !node.is_some_and(|node| node.running() && node.kind == NodeKind::Run) {
                break;
            }
            drop(control);
            tokio::time::sleep(REPORT_PAUSE).await;
        }
        self.node_ended(id, None).await;
    }

    /// A node's process is gone: its endpoints, addresses, names and ports are free when this returns, also where somebody else
    /// was the first to see its end. An attached node goes with it.
    pub(super) async fn node_ended(self: &Arc<Self>, id: Id, code: Option<i32>) {
        self.end_node(id, code).await;
        self.until_doors_are_closed().await;
    }

    async fn end_node(self: &Arc<Self>, id: Id, code: Option<i32>) {
        let mut control = self.control.lock().await;
        let Some(node) = control.topology.node_by_id(id).cloned() else { return };
        if !node.running() {
            return;
        }
        let mut new = control.topology.clone();
        if new.exited(id, code.unwrap_or(KILLED), clock::now()).is_err() {
            return;
        }
        let remove = node.auto_remove || node.kind == NodeKind::Attach;
        let removed = if remove { new.remove_node(&id.to_string(), true).ok() } else { None };
        if let Err(refusal) = self.commit(&mut control, new, Opening::default()).await {
            say(format_args!("{}", refusal.message));
            return;
        }
        let cut = self.forget(&mut control, &node);
        drop(control);
        let code = code.unwrap_or(KILLED).to_string();
        self.events.tell_of_node(Action::Die, &node, &[("exitCode", &code)]);
        if removed.is_some() {
            self.finish_removal(&node);
        }
        let _ = cut.await;
    }

    /// Takes down what is live about a node whose endpoints are gone from the desired state.
    fn forget(self: &Arc<Self>, control: &mut Control, node: &Node) -> Cut {
        let endpoints: Vec<EndpointId> = node.endpoints.iter().map(|e| e.id).collect();
        let cut = self.dismiss(control, &endpoints);
        self.keeping.release(vec![node_key(node.id)]);
        if let Some(LiveNode { watch: Some(watch), .. }) = control.nodes.remove(&node.id) {
            watch.abort();
        }
        for endpoint in &node.endpoints {
            self.tell_between(&control.topology, Action::Disconnect, endpoint.network, node);
        }
        cut
    }

    fn finish_removal(&self, node: &Node) {
        if let Some(log) = &node.log_path
            && log.starts_with(&self.options.state)
        {
            let _ = std::fs::remove_file(log);
            let _ = std::fs::remove_file(log.with_added_extension("1"));
        }
        self.events.tell_of_node(Action::Destroy, node, &[]);
    }

    /// The runner tells how its program ended.
    pub async fn exited(self: &Arc<Self>, name: &str, code: i32) -> Result<(), Refusal> {
        let id = self.control.lock().await.topology.node(name)?.id;
        self.node_ended(id, Some(code)).await;
        // The pidfd tells at the same moment; where it came first, the code is not known yet.
        let mut control = self.control.lock().await;
        let known = |node: &Arc<Node>| matches!(node.status, NodeStatus::Exited { code: known, .. } if known == code);
        if control.topology.node_by_id(id).is_none_or(known) {
            return Ok(());
        }
        let mut new = control.topology.clone();
        new.set_exit_code(id, code);
        self.commit(&mut control, new, Opening::default()).await
    }

    /// Removes a node; a running one is killed first, with `force`.
    pub async fn remove_node(self: &Arc<Self>, name: &str, force: bool) -> Result<(), Refusal> {
        let (node, process) = self.find(name).await?;
        if node.running() {
            if !force {
                let message =
                    format!("node {} is running: stop it first, or remove it with -f", node.name);
                return Err(Refusal::new(RefusalKind::Conflict, message));
            }
            if node.kind == NodeKind::Attach {
                return self.detach(name).await;
            }
            if let Some(process) = process {
                end_process(&process, libc::SIGKILL, KILL_WAIT).await?;
            }
            self.node_ended(node.id, None).await;
        }
        let mut control = self.control.lock().await;
        let mut new = control.topology.clone();
        match new.remove_node(&node.id.to_string(), true) {
            // Its own end may have removed it already.
            Err(refusal) if refusal.kind == RefusalKind::NotFound && node.running() => {
                return Ok(());
            }
            other => other?,
        };
        self.commit(&mut control, new, Opening::default()).await?;
        self.finish_removal(&node);
        Ok(())
    }

    /// Takes our wires out of a foreign namespace.
    pub async fn detach(self: &Arc<Self>, name: &str) -> Result<(), Refusal> {
        let (node, _) = self.find(name).await?;
        if node.kind != NodeKind::Attach {
            let message = format!(
                "node {} was started by `portolan run`: use `portolan stop` or `rm -f`",
                node.name
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        self.node_ended(node.id, Some(0)).await;
        Ok(())
    }

    /// Asks a program to end, and kills it after a while.
    pub async fn stop_node(
        self: &Arc<Self>,
        name: &str,
        patience: Duration,
    ) -> Result<(), Refusal> {
        let (node, process) = self.find(name).await?;
        if node.kind == NodeKind::Attach {
            let message = format!("node {} is not ours to stop: use `portolan detach`", node.name);
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let Some(process) = process.filter(|_| node.running()) else { return Ok(()) };
        if end_process(&process, libc::SIGTERM, patience).await.is_err() {
            end_process(&process, libc::SIGKILL, KILL_WAIT).await?;
        }
        self.process_ended(node.id).await;
        self.events.tell_of_node(Action::Stop, &node, &[]);
        Ok(())
    }

    /// Gives a node another name, in DNS too.
    pub async fn rename(&self, old: &str, name: &str) -> Result<(), Refusal> {
        let mut control = self.control.lock().await;
        let mut new = control.topology.clone();
        let before = Arc::clone(new.node(old)?);
        new.rename(old, name)?;
        self.commit(&mut control, new, Opening::default()).await?;
        if let Some(node) = control.topology.node_by_id(before.id) {
            self.events.tell_of_node(Action::Rename, node, &[("oldName", &before.name)]);
        }
        Ok(())
    }

    /// Joins a running node to a network; what the user should know.
    pub async fn connect(
        self: &Arc<Self>,
        network: &str,
        node: &str,
        asked: EndpointCreate,
    ) -> Result<Vec<String>, Refusal> {
        let (endpoint, mut warnings, wanted, place, of) = {
            let mut control = self.control.lock().await;
            let mut new = control.topology.clone();
            self.learn_leases(&mut new, network).await?;
            let (endpoint, warnings) = new.connect(network, node, &asked, &mut control.random)?;
            let (of, place) = (new.node(node)?.id, place_again(&control, new.node(node)?)?);
            let wanted = wires::wire_spec(&new, endpoint).map(|spec| (endpoint, spec));
            self.commit(&mut control, new, Opening::default()).await?;
            (endpoint, warnings, wanted, place, of)
        };
        let made = wires::make(place, wanted.into_iter().collect()).await;
        let mut control = self.control.lock().await;
        let mut new = control.topology.clone();
        match made {
            Ok(made) => self.commit_wired(&mut control, new, made, Vec::new()).await?,
            Err(error) => {
                // By ids: the names may mean something else by now.
                if let Some(network) = new.endpoint(endpoint).map(|(_, gone)| gone.network) {
                    new.disconnect(&network.to_string(), &of.to_string(), true)?;
                    self.commit(&mut control, new, Opening::default()).await?;
                }
                return Err(internal(error));
            }
        }
        let Some((node, joined)) = control.topology.endpoint(endpoint) else {
            let message = "the node ended, or was disconnected, while it was connected";
            return Err(Refusal::new(RefusalKind::Conflict, message));
        };
        self.tell_between(&control.topology, Action::Connect, joined.network, node);
        drop(control);
        self.refresh(of).await;
        warnings.extend(self.settle_doors(of).await);
        Ok(warnings)
    }

    /// Takes a node off a network; with `force` also where it is not on it any more. What the user should know.
    pub async fn disconnect(
        self: &Arc<Self>,
        network: &str,
        node: &str,
        force: bool,
    ) -> Result<Vec<String>, Refusal> {
        let mut control = self.control.lock().await;
        let mut new = control.topology.clone();
        let gone = new.disconnect(network, node, force)?;
        let warnings = new.node(node).ok().and_then(|n| new.why_paused(n)).into_iter().collect();
        self.commit(&mut control, new, Opening::default()).await?;
        let Some(gone) = gone else { return Ok(Vec::new()) };
        let cut = self.dismiss(&mut control, &[gone.id]);
        let node = Arc::clone(control.topology.node(node)?);
        self.tell_between(&control.topology, Action::Disconnect, gone.network, &node);
        drop(control);
        let node = node.id;
        let _ = cut.await;
        self.refresh(node).await;
        self.settle_doors(node).await;
        Ok(warnings)
    }

    /// Brings the default routes and the files of /etc up to date inside a node. What fails there is the guest's doing (its
    /// root owns both), so it is logged and no more. The guest may also make it last (its /etc may be a FUSE of its own), so
    /// nobody else waits for it.
    async fn refresh(&self, node: Id) {
        let turn = {
            let control = self.control.lock().await;
            let Some(live) = control.nodes.get(&node) else { return };
            Arc::clone(&live.refreshing)
        };
        // One at a time, and each with the state of its own turn: what is written last is what is true.
        let _turn = turn.lock().await;
        let (node, place, specs, etc) = {
            let control = self.control.lock().await;
            let Some(node) = control.topology.node_by_id(node).cloned() else { return };
            let Ok(place) = place_again(&control, &node) else { return };
            let specs = control.topology.wire_specs(&node);
            let etc = control.topology.etc_files(&node);
            (node, place, specs, etc)
        };
        let v4 = specs.iter().find_map(|spec| Some((spec.ifname.clone(), spec.gateway4?)));
        let v6 = specs.iter().find_map(|spec| Some((spec.ifname.clone(), spec.gateway6?)));
        let routes: DefaultRoutes = (v4, v6);
        if let Err(error) = wires::route(place.clone(), routes).await {
            say(format_args!("routes of {}: {error}", node.name));
        }
        if let (NodeKind::Run, Place::Process(process)) = (node.kind, place) {
            let write = move || wire::write_etc(process.as_fd(), &etc);
            let writing = tokio::task::spawn_blocking(write);
            match tokio::time::timeout(ETC_WAIT, writing).await {
                Ok(Ok(Err(error))) => say(format_args!("{error}")),
                Err(_) => say(format_args!("/etc of {} does not take its new files", node.name)),
                Ok(_) => {}
            }
        }
    }

    async fn find(&self, name: &str) -> Result<(Arc<Node>, Option<Arc<OwnedFd>>), Refusal> {
        let control = self.control.lock().await;
        let node = Arc::clone(control.topology.node(name)?);
        let process = control.nodes.get(&node.id).and_then(|live| live.process.clone());
        Ok((node, process))
    }
}

/// The namespace that was handed in, and the process in it as this PID namespace counts.
fn place_of(spec: &NodeCreate, inside: OwnedFd) -> Result<(Place, Option<u32>), Refusal> {
    let invalid = |message: &str| Refusal::new(RefusalKind::Invalid, message);
    if let Some(path) = &spec.netns {
        if !user::is_network_namespace(&inside) {
            return Err(invalid(&format!(
                "{} is no network namespace: give a path like /run/netns/NAME or /proc/PID/ns/net",
                path.display()
            )));
        }
        return Ok((Place::Netns(Arc::new(inside)), None));
    }
    let pid = user::pid_of(&inside)
        .map_err(|_| invalid("the process has ended, or is no process of this host"))?;
    Ok((Place::Process(Arc::new(inside)), Some(pid)))
}

/// The namespace of a node that runs. One that is still being made is left alone: its maker wires it and opens its ports.
pub(super) fn place_again(control: &Control, node: &Node) -> Result<Place, Refusal> {
    let Some(live) = control.nodes.get(&node.id) else {
        let message = format!("node {} is just being made, or has ended: try again", node.name);
        return Err(Refusal::new(RefusalKind::Conflict, message));
    };
    if let Some(process) = &live.process {
        return Ok(Place::Process(Arc::clone(process)));
    }
    match &node.netns {
        Some(path) => match std::fs::File::open(path) {
            Ok(file) => Ok(Place::Netns(Arc::new(file.into()))),
            Err(error) => Err(internal(format!("cannot open {}: {error}", path.display()))),
        },
        None => {
            Err(Refusal::new(RefusalKind::Conflict, format!("node {} is not running", node.name)))
        }
    }
}

async fn wait_for_end(process: &Arc<OwnedFd>) -> std::io::Result<()> {
    let process = readable(process.try_clone()?)?;
    process.readable().await.map(drop)
}

/// Sends a signal and waits for the end. No process but the one meant can be hit: a pidfd names it.
async fn end_process(
    process: &Arc<OwnedFd>,
    signal: libc::c_int,
    patience: Duration,
) -> Result<(), Refusal> {
    match user::signal(process, signal) {
        // It has ended by itself meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        other => {
            other.map_err(|error| internal(format!("cannot signal the program: {error}")))?;
        }
    }
    match tokio::time::timeout(patience, wait_for_end(process)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(internal("the program does not end")),
    }
}
