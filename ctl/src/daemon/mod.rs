//! The daemon: it keeps what is wanted, makes the wires, and tells the dataplane.
//!
//! Theory of operation. There is one desired state ([`Topology`]), behind one lock. A change is worked out on a copy, saved,
//! turned into commands by the pure diff, sent down, and only then becomes the state; so what a client was told is on disk,
//! and the dataplane never acts on half a group of commands. Slow work (making a wire, opening or closing its ring) is done
//! outside the lock, on threads for blocking work.
//!
//! Every descriptor that must outlive this process is held by the keeper too ([`held`]): listeners, wires, pidfds. A daemon that
//! starts after another one died finds them again by their keys, and goes on where that one stopped.

pub mod capture;
pub mod clock;
mod doors;
mod doorway;
pub mod events;
mod explain;
mod growth;
pub mod held;
mod holder;
pub mod host;
pub mod keeper;
mod leases;
pub mod log;
mod metrics;
mod networks;
mod nodes;
pub mod place;
pub mod plane;
mod publications;
pub(crate) mod readiness;
mod reports;
pub mod resolvers;
mod start;
mod stats;
pub mod uplink;
mod wires;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use portolan_switch::command::Limits;
use portolan_switch::ids::PortId;
use portolan_switch::io::Features;
use rand_chacha::ChaCha20Rng;
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;

use crate::api::types::{FlowsMax, Info};
use crate::store::Store;
use crate::topology::{EndpointId, Id, Moment, Refusal, RefusalKind, Topology, plan};

use self::capture::Captures;
use self::events::Events;
use self::held::Keeping;
use self::keeper::DaemonOptions;
use self::plane::{Opening, Plane};
use self::uplink::Uplink;
use self::wires::WireNote;

pub use self::start::serve;

/// Handles of ports; many more than there are descriptors for wires.
const PORTS: u32 = 1 << 18;

/// The daemon, as the API sees it.
pub struct Daemon {
    options: DaemonOptions,
    /// How packets leave for the outside.
    uplink: Uplink,
    /// How many flows there may be.
    limits: Limits,
    /// What happens, for whoever listens.
    pub events: Events,
    plane: Arc<Plane>,
    captures: Captures,
    /// What the host's sockets can do.
    features: Features,
    keeping: Arc<Keeping>,
    control: Mutex<Control>,
    /// Held while published ports of nodes that run are opened or closed.
    publishing: Mutex<()>,
    /// How many groups of doors are being closed: their ports cannot be had yet.
    closing: watch::Sender<usize>,
    restarts: u64,
    /// When this process began to serve.
    started: Moment,
}

/// What the lock guards.
struct Control {
    topology: Topology,
    store: Store,
    random: ChaCha20Rng,
    wires: BTreeMap<EndpointId, LiveWire>,
    nodes: BTreeMap<Id, LiveNode>,
    /// The keeper's keys of the doors of each mapping.
    doors: BTreeMap<u32, Vec<String>>,
    last_port: u32,
    ring_budget: growth::Budget,
}

/// A wire that the dataplane serves.
struct LiveWire {
    port: PortId,
    netlink: Arc<OwnedFd>,
    note: WireNote,
    watch: AbortHandle,
    /// Held while its port is out of the dataplane's hands, or is taken from it for good.
    taking: Arc<Mutex<()>>,
    /// How many frames the guest's kernel had no room for, as the link last told.
    backlog: watch::Receiver<Option<u64>>,
}

/// A node whose process is watched; none where it is known by its namespace alone.
#[derive(Default)]
struct LiveNode {
    process: Option<Arc<OwnedFd>>,
    watch: Option<AbortHandle>,
    /// Held while its routes and files are brought up to date.
    refreshing: Arc<Mutex<()>>,
}

impl Control {
    /// The next handle that no wire bears. The dataplane's tables are as long as the largest, so they come round; one that was
    /// given back rests for a whole round, so its port is closed long before it means another.
    fn next_port(&mut self) -> PortId {
        loop {
            self.last_port = self.last_port % PORTS + 1;
            let port = PortId(self.last_port);
            if !self.wires.values().any(|wire| wire.port == port) {
                return port;
            }
        }
    }
}

impl Daemon {
    /// Makes `new` the desired state: saves it, sends the difference down, and then what comes into service with it. Doors that
    /// are not open in it any more are closed behind its back.
    async fn commit(
        &self,
        control: &mut Control,
        mut new: Topology,
        open: Opening,
    ) -> Result<(), Refusal> {
        new.shut_unreachable();
        control.store.save(&control.topology, &new).map_err(|error| Refusal {
            kind: RefusalKind::Internal,
            message: format!("cannot save the state: {error}"),
        })?;
        let commands = plan(&control.topology, &new);
        let shut = new.shut_since(&control.topology);
        self.captures.follow(&new);
        control.topology = new;
        self.plane.change(open, commands).await;
        self.close_doors(control, &shut);
        Ok(())
    }

    /// What there is to say about the daemon itself.
    pub async fn info(&self) -> Info {
        let control = self.control.lock().await;
        Info {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            keeper_pid: nix::unistd::getppid().as_raw().cast_unsigned(),
            state_dir: self.options.state.clone(),
            socket: self.options.api_socket(),
            uplink: self.uplink.to_string(),
            flows_max: flows_max(self.limits, |limits| limits.flows),
            node_flows_max: flows_max(self.limits, |limits| limits.owner_flows),
            networks: control.topology.networks().len(),
            nodes: control.topology.nodes().len(),
            kernel: host::kernel(),
            features: features_of(self.features),
            restarts: self.restarts,
            warnings: warnings_of(self.features, self.uplink),
        }
    }
}

/// Limits by transport, of all nodes or of one.
fn flows_max(limits: Limits, whose: impl Fn(Limits) -> usize) -> FlowsMax {
    FlowsMax {
        all: whose(limits),
        tcp: whose(limits.of_tcp()),
        udp: whose(limits.of_udp()),
        echo: whose(limits.of_echo()),
    }
}

/// The features by the words that [`uplink::WITHOUT`] takes.
fn features_of(features: Features) -> BTreeMap<String, bool> {
    features.words().into_iter().map(|(word, used)| (word.to_owned(), used)).collect()
}

/// What does not work here that users would expect to.
fn warnings_of(features: Features, uplink: Uplink) -> Vec<String> {
    let mut warnings = Vec::new();
    if uplink == Uplink::None {
        warnings.push(
            "nothing leads out of any network, by choice (portolan daemon --uplink none); published ports lead in".to_owned(),
        );
    } else if !features.ping_v4 {
        warnings.push(
            "this system has no ping sockets for you: nodes cannot ping the outside (portolan doctor tells the remedy)"
                .to_owned(),
        );
    }
    warnings
}

fn internal(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Internal, message)
}
