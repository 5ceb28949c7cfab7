//! From an empty process to a daemon that serves: what the one before left is taken over first.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use portolan_switch::command::Command;
use rand::SeedableRng;
use rand::rngs::SysRng;
use rand_chacha::ChaCha20Rng;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Mutex, watch};

use super::capture::Captures;
use super::events::Events;
use super::growth::Budget;
use super::held::{Inheritance, Keeping};
use super::keeper::{self, DaemonOptions};
use super::nodes::{self, has_ended, node_key};
use super::plane::{News, Opening, Plane};
use super::publications;
use super::reports::Reporter;
use super::uplink::{self, Uplink};
use super::wires::{self, MadeWire, Place, wire_key};
use super::{Control, Daemon, clock, doorway, host, resolvers};
use crate::api::server;
use crate::daemon::log::say;
use crate::namespace::user;
use crate::namespace::wire::WireSpec;
use crate::store::Store;
use crate::topology::{EndpointId, Id, Node, Topology, plan};

/// Rings are mapped on this many threads at a time.
const ADOPTERS: usize = 16;

/// Threads for blocking work: making and closing wires waits for the kernel, not for a processor.
const BLOCKING_MAX: usize = 32;

/// How often, and how long apart, a lost wire is made again before its node is given up.
const REWIRE_TRIES: u32 = 50;
const REWIRE_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// Runs the daemon until it is asked to stop; the exit code. Its standard input is the channel to the keeper.
pub fn serve(options: DaemonOptions) -> u8 {
    keeper::name_process();
    // The keeper reads its signals from a descriptor, so they are blocked there, and a child inherits that.
    let _ = nix::sys::signal::SigSet::all().thread_unblock();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_MAX)
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(options));
            if result.is_ok() {
                // Closing hundreds of rings one after the other takes seconds; the kernel does it after the process.
                std::process::exit(0);
            }
            result
        }
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match result {
        Ok(()) => 0,
        Err(message) => {
            say(format_args!("{message}"));
            1
        }
    }
}

async fn run(options: DaemonOptions) -> Result<(), String> {
    keeper::raise_descriptor_limit();
    let channel =
        std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("no keeper: {e}"))?;
    let (keeping, mut inheritance, restarts) = Keeping::inherit(channel).map_err(|error| {
        format!("this command is started by `portolan daemon`, not by hand ({error})")
    })?;
    // The state directory is taken for as long as either of the two lives.
    let _lock = inheritance.remove("lock");
    let mut listener = |key: &str| {
        inheritance
            .remove(key)
            .and_then(|mut held| held.descriptors.pop())
            .ok_or(format!("no {key} socket was handed over"))
    };
    let (api, wires) = (listener("api")?, listener("wires")?);
    let api = keeper::stream_listener(api)
        .and_then(tokio::net::UnixListener::from_std)
        .map_err(|error| format!("the API socket: {error}"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;

    let store =
        Store::open(&options.state.join("state.redb")).map_err(|error| error.to_string())?;
    let kept = store.load().map_err(|error| error.to_string())?;
    let mut random = ChaCha20Rng::try_from_rng(&mut SysRng)
        .map_err(|error| format!("no randomness: {error}"))?;
    let seed = rand::Rng::next_u64(&mut random);
    let features = uplink::features()?;
    let way_out = options.uplink.map_or_else(|| Uplink::kept(&options.state), Ok)?;
    let (plane, news) = Plane::start(seed, features, way_out)
        .map_err(|error| format!("cannot start the dataplane: {error}"))?;
    let log = options.log.clone();
    let limits = uplink::limits();
    let daemon = Arc::new(Daemon {
        options,
        uplink: way_out,
        limits,
        events: Events::default(),
        plane,
        captures: Captures::default(),
        features,
        keeping: Arc::new(keeping),
        control: Mutex::new(empty(store, random)),
        publishing: Mutex::new(()),
        closing: watch::Sender::new(0),
        restarts,
        started: clock::now(),
    });
    let limits = vec![Command::SetLimits(limits)];
    daemon.plane.change(Opening::default(), limits).await;
    daemon.restore(kept, inheritance).await?;
    if daemon.uplink == Uplink::Sockets {
        tokio::spawn(resolvers::follow(Arc::clone(&daemon.plane)));
    }

    tokio::spawn(follow(Arc::clone(&daemon), news));
    tokio::spawn(server::serve(api, Arc::clone(&daemon)));
    tokio::spawn(doorway::serve(wires, Arc::clone(&daemon)));
    daemon.keeping.ready();
    keeper::log_to(log.as_deref());
    terminate.recv().await;
    Ok(())
}

/// A control side that knows of nothing yet.
fn empty(store: Store, random: ChaCha20Rng) -> Control {
    Control {
        topology: Topology::default(),
        store,
        random,
        wires: BTreeMap::new(),
        nodes: BTreeMap::new(),
        doors: BTreeMap::new(),
        last_port: 0,
        ring_budget: Budget::of_host(),
    }
}

/// Hands on what the dataplane tells.
async fn follow(daemon: Arc<Daemon>, mut news: UnboundedReceiver<News>) {
    let mut reporter = Reporter::default();
    while let Some(news) = news.recv().await {
        match news {
            News::Died(port, why) => {
                // Each waits for a moment, and many may die at once.
                let daemon = Arc::clone(&daemon);
                tokio::spawn(async move { daemon.port_died(port, &why).await });
            }
            News::Overflowed(port) => {
                let daemon = Arc::clone(&daemon);
                tokio::spawn(async move { daemon.grow(port).await });
            }
            News::Unserved(publication, why) => {
                let daemon = Arc::clone(&daemon);
                tokio::spawn(async move { daemon.unserved(publication, &why).await });
            }
            News::Lost(count) => say(format_args!("{count} events of the dataplane were lost")),
            News::Event(event) => daemon.report(&mut reporter, &event).await,
        }
    }
}

impl Daemon {
    /// Makes the kept topology the present one: wires and processes that were handed over go on, what has ended meanwhile is
    /// told as ended, and nodes that live but lost their wires get new ones.
    async fn restore(
        self: &Arc<Self>,
        kept: Topology,
        mut inheritance: Inheritance,
    ) -> Result<(), String> {
        let mut control = self.control.lock().await;
        let mut new = kept.clone();
        for warning in new.predefined(&host::facts(), clock::now(), &mut control.random) {
            say(format_args!("{warning}"));
        }
        let mut bereft = Vec::new();
        for node in kept.nodes().filter(|node| node.running()) {
            match process_again(node, &mut inheritance) {
                Some(place) => {
                    self.watch_node(&mut control, node.id, &place);
                    bereft.push((Arc::clone(node), place));
                }
                None => {
                    end_quietly(&mut new, node);
                    self.keeping.release(vec![node_key(node.id)]);
                }
            }
        }
        let doors = publications::inherited(&mut inheritance);
        let (made, stale) = adopt_all(&new, inheritance).await;
        self.keeping.release(stale);
        let ports = self.enlist(&mut control, &mut new, made);
        let doors = self.adopt_doors(&mut control, &mut new, doors);
        control
            .store
            .save(&kept, &new)
            .map_err(|error| format!("cannot save the state: {error}"))?;
        let commands = plan(&control.topology, &new);
        control.topology = new;
        self.plane.change(Opening { ports, doors }, commands).await;
        drop(control);
        for (node, place) in bereft {
            let daemon = Arc::clone(self);
            tokio::spawn(async move {
                daemon.rewire(node.id, place).await;
                daemon.settle_doors(node.id).await;
            });
        }
        Ok(())
    }

    /// Makes the wires that a living node lacks.
    async fn rewire(self: &Arc<Self>, node: Id, place: Place) {
        let wanted: Vec<_> = {
            let control = self.control.lock().await;
            let Some(node) = control.topology.node_by_id(node) else { return };
            let unwired = node.endpoints.iter().filter(|endpoint| endpoint.port.is_none());
            unwired
                .filter_map(|e| Some((e.id, wires::wire_spec(&control.topology, e.id)?)))
                .collect()
        };
        if wanted.is_empty() {
            return;
        }
        let made = match make_patiently(&place, wanted).await {
            Ok(made) => made,
            Err(error) => {
                say(format_args!("cannot wire node {} again: {error}", node.short()));
                self.node_lost(node).await;
                return;
            }
        };
        let mut control = self.control.lock().await;
        let new = control.topology.clone();
        if let Err(refusal) = self.commit_wired(&mut control, new, made, Vec::new()).await {
            say(format_args!("{}", refusal.message));
        }
    }

    /// A foreign namespace that cannot be wired again is no node any more; a program of ours keeps running without a network.
    async fn node_lost(self: &Arc<Self>, node: Id) {
        let attached = {
            let control = self.control.lock().await;
            control
                .topology
                .node_by_id(node)
                .is_some_and(|node| node.kind == crate::api::types::NodeKind::Attach)
        };
        if attached {
            self.node_ended(node, None).await;
        }
    }
}

/// Makes wires where those before may not quite be gone: the kernel takes apart a namespace that nobody holds any more in its
/// own time, and until then the interface's name is taken.
async fn make_patiently(
    place: &Place,
    wanted: Vec<(EndpointId, WireSpec)>,
) -> Result<Vec<MadeWire>, String> {
    let mut tries = 0;
    loop {
        tries += 1;
        match wires::make(place.clone(), wanted.clone()).await {
            Err(_) if tries < REWIRE_TRIES && !place.is_gone() => {
                tokio::time::sleep(REWIRE_PAUSE).await
            }
            other => return other,
        }
    }
}

/// Where a node lives, if it still does: the pidfd that was handed over, the process by its number and its start, or the path of
/// its namespace.
fn process_again(node: &Node, inheritance: &mut Inheritance) -> Option<Place> {
    if let Some(mut held) = inheritance.remove(&node_key(node.id)) {
        let pidfd = Arc::new(held.descriptors.pop()?);
        return (!has_ended(&pidfd)).then_some(Place::Process(pidfd));
    }
    if let Some(pid) = node.pid {
        let pidfd = Arc::new(user::open_pidfd(pid).ok()?);
        let same = node.process.is_some() && host::process_start(pid) == node.process;
        return (same && !has_ended(&pidfd)).then_some(Place::Process(pidfd));
    }
    let path = node.netns.as_ref()?;
    Some(Place::Netns(Arc::new(std::fs::File::open(path).ok()?.into())))
}

/// A node that ended while nobody looked.
fn end_quietly(topology: &mut Topology, node: &Node) {
    let _ = topology.exited(node.id, nodes::KILLED, clock::now());
    if node.auto_remove || node.kind == crate::api::types::NodeKind::Attach {
        let _ = topology.remove_node(&node.id.to_string(), true);
    }
}

/// Takes over the wires of the endpoints there still are; and the keys of all else that is held.
async fn adopt_all(topology: &Topology, inheritance: Inheritance) -> (Vec<MadeWire>, Vec<String>) {
    let endpoints: Vec<EndpointId> = topology
        .nodes()
        .flat_map(|node| node.endpoints.iter().map(|endpoint| endpoint.id))
        .collect();
    let mut wanted: BTreeMap<String, EndpointId> =
        endpoints.into_iter().map(|id| (wire_key(id), id)).collect();
    let mut stale = Vec::new();
    let mut heirlooms: Vec<(EndpointId, String, Vec<OwnedFd>)> = Vec::new();
    for (key, held) in inheritance {
        match wanted.remove(&key) {
            Some(endpoint) => heirlooms.push((endpoint, held.note, held.descriptors)),
            None => stale.push(key),
        }
    }
    let work = move || adopt_in_parallel(heirlooms);
    let results = tokio::task::spawn_blocking(work).await.unwrap_or_default();
    let mut made = Vec::new();
    for (endpoint, result) in results {
        match result {
            Ok(wire) => made.push(wire),
            Err(error) => {
                say(format_args!("cannot take over wire {}: {error}", endpoint.short()));
                stale.push(wire_key(endpoint));
            }
        }
    }
    (made, stale)
}

type Adopted = Vec<(EndpointId, Result<MadeWire, String>)>;

fn adopt_in_parallel(heirlooms: Vec<(EndpointId, String, Vec<OwnedFd>)>) -> Adopted {
    let share = heirlooms.len().div_ceil(ADOPTERS).max(1);
    let mut shares: Vec<Vec<_>> = Vec::new();
    for heirloom in heirlooms {
        match shares.last_mut() {
            Some(last) if last.len() < share => last.push(heirloom),
            _ => shares.push(vec![heirloom]),
        }
    }
    let adopt = |share: Vec<(EndpointId, String, Vec<OwnedFd>)>| -> Adopted {
        share.into_iter().map(|(id, note, fds)| (id, wires::adopt(id, &note, fds))).collect()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            shares.into_iter().map(|share| scope.spawn(move || adopt(share))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}
