//! Wires, from the process that wants one to the port that serves it, and their end.
//!
//! A wire's death has three signs, and all are needed: the dataplane's (its socket fails and the interface is gone), link events
//! from the netlink socket that came with it, and the node's pidfd. Whichever comes first ends the endpoint.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use portolan_switch::ids::PortId;
use portolan_switch::io::{PacketWire, Port, RingShape, TapWire, packet};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::plane::Opening;
use super::publications::MadeDoors;
use super::readiness::readable;
use super::{Control, Daemon, LiveWire};
use crate::api::events::Action;
use crate::daemon::log::say;
use crate::namespace::netlink::{delete_link_unanswered, tx_dropped};
use crate::namespace::wire::{self, Target, WireSpec};
use crate::topology::{EndpointId, Id, Node, Refusal, Topology, WireKind};

/// A process that has lost its namespaces is seen to have ended within this time.
const END_SETTLES: std::time::Duration = std::time::Duration::from_millis(100);

/// What an heir needs to know about the descriptors of a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct WireNote {
    pub(super) ifindex: u32,
    /// How its ring is laid out; none for a TAP, which has no ring.
    pub(super) shape: Option<RingShape>,
}

impl WireNote {
    /// As the keeper holds it.
    pub(super) fn text(self) -> String {
        serde_json::to_string(&self).expect("numbers serialize")
    }
}

/// A wire that is made, and not served yet.
pub(super) struct MadeWire {
    pub(super) endpoint: EndpointId,
    pub(super) port: Port,
    netlink: OwnedFd,
    note: WireNote,
}

/// A namespace to make wires into.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// That of a process, by its pidfd.
    Process(Arc<OwnedFd>),
    /// One that is bound to a path.
    Netns(Arc<OwnedFd>),
}

impl Place {
    /// Whether the process has ended; a bound namespace never does by itself.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Place::Process(pidfd) if super::nodes::has_ended(pidfd))
    }

    fn target(&self) -> Target<'_> {
        match self {
            Place::Process(pidfd) => Target::Process(pidfd.as_fd()),
            Place::Netns(fd) => Target::Netns(fd.as_fd()),
        }
    }
}

/// Where a default route leads, for each family that has one: the interface and the gateway.
pub(super) type DefaultRoutes = (Option<(String, Ipv4Addr)>, Option<(String, Ipv6Addr)>);

/// Done once the interfaces are gone.
pub(super) type Cut = tokio::task::JoinHandle<()>;

/// The keeper's key of a wire.
pub(super) fn wire_key(endpoint: EndpointId) -> String {
    format!("wire/{endpoint}")
}

/// What the step is to make of an endpoint.
pub(super) fn wire_spec(topology: &Topology, endpoint: EndpointId) -> Option<WireSpec> {
    let spec = topology.wire_spec(endpoint)?;
    Some(WireSpec {
        kind: spec.kind,
        ifname: spec.ifname,
        mac: spec.mac,
        addresses: spec.addresses,
        gateway4: spec.gateway4,
        gateway6: spec.gateway6,
        bare: spec.bare,
        ipv6: spec.ipv6,
        mtu: spec.mtu,
        gso_max_size: packet::GSO_MAX,
    })
}

/// Makes wires, one after the other. Blocks: a ring takes milliseconds. What was made before a failure is gone again.
pub(super) async fn make(
    place: Place,
    specs: Vec<(EndpointId, WireSpec)>,
) -> Result<Vec<MadeWire>, String> {
    let work = move || {
        specs.into_iter().map(|(endpoint, spec)| make_one(&place, endpoint, &spec)).collect()
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("making a wire: {error}"))?
}

fn make_one(place: &Place, endpoint: EndpointId, spec: &WireSpec) -> Result<MadeWire, String> {
    let made = wire::make(place.target(), spec)?;
    let (port, shape) = match spec.kind {
        WireKind::Veth => {
            let port = PacketWire::open(made.descriptor, made.ifindex, packet::SHAPE)
                .map_err(|error| format!("cannot set up the ring of {}: {error}", spec.ifname))?;
            (Port::Packet(port), Some(packet::SHAPE))
        }
        WireKind::Tap => {
            let port = TapWire::adopt(made.descriptor)
                .map_err(|error| format!("cannot serve {}: {error}", spec.ifname))?;
            (Port::Tap(port), None)
        }
    };
    let note = WireNote { ifindex: made.ifindex, shape };
    Ok(MadeWire { endpoint, port, netlink: made.netlink, note })
}

/// Takes a wire over from the daemon before.
pub(super) fn adopt(
    endpoint: EndpointId,
    note: &str,
    mut descriptors: Vec<OwnedFd>,
) -> Result<MadeWire, String> {
    let note: WireNote =
        serde_json::from_str(note).map_err(|error| format!("its note: {error}"))?;
    let (Some(netlink), Some(descriptor)) = (descriptors.pop(), descriptors.pop()) else {
        return Err("its descriptors are missing".into());
    };
    let port = match note.shape {
        Some(shape) => PacketWire::adopt(descriptor, shape)
            .map(Port::Packet)
            .map_err(|error| format!("its ring: {error}"))?,
        None => TapWire::adopt(descriptor)
            .map(Port::Tap)
            .map_err(|error| format!("its device: {error}"))?,
    };
    if port.is_gone() {
        Err("its interface is gone".into())
    } else {
        Ok(MadeWire { endpoint, port, netlink, note })
    }
}

/// Replaces the default routes inside a namespace.
pub(super) async fn route(place: Place, (v4, v6): DefaultRoutes) -> Result<(), String> {
    let work = move || wire::route(place.target(), v4, v6);
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("setting routes: {error}"))?
}

impl Daemon {
    /// Makes `new` the desired state, with these wires and doors in service. Where that fails, they are gone.
    pub(super) async fn commit_wired(
        self: &Arc<Self>,
        control: &mut Control,
        mut new: Topology,
        made: Vec<MadeWire>,
        doors: Vec<MadeDoors>,
    ) -> Result<(), Refusal> {
        // While a wire is made its endpoint may go; nobody would ever take that wire down.
        let (made, unwanted): (Vec<_>, Vec<_>) =
            made.into_iter().partition(|wire| new.endpoint(wire.endpoint).is_some());
        tokio::task::spawn_blocking(move || drop(unwanted));
        let endpoints: Vec<EndpointId> = made.iter().map(|wire| wire.endpoint).collect();
        let ports = self.enlist(control, &mut new, made);
        let doors = self.enlist_doors(control, &mut new, doors);
        let mappings: Vec<u32> = doors.mappings;
        let open = Opening { ports, doors: doors.opened };
        let done = self.commit(control, new, open).await;
        if done.is_err() {
            self.release_doors(control, &mappings);
            // Their ports were not opened, so there is none to take back.
            for wire in endpoints.iter().filter_map(|id| control.wires.remove(id)) {
                wire.watch.abort();
            }
            self.keeping.release(endpoints.into_iter().map(wire_key).collect());
        }
        done
    }

    /// Takes made wires into service: the keeper holds them, the endpoints get their ports. The caller commits `new` with the
    /// ports that come back.
    pub(super) fn enlist(
        self: &Arc<Self>,
        control: &mut Control,
        new: &mut Topology,
        made: Vec<MadeWire>,
    ) -> Vec<(PortId, Port)> {
        made.into_iter().map(|wire| self.enlist_one(control, new, wire)).collect()
    }

    fn enlist_one(
        self: &Arc<Self>,
        control: &mut Control,
        new: &mut Topology,
        made: MadeWire,
    ) -> (PortId, Port) {
        let MadeWire { endpoint, port, netlink, note } = made;
        self.keeping.hold(&wire_key(endpoint), note.text(), &[port.descriptor(), netlink.as_fd()]);
        let id = control.next_port();
        new.wired(endpoint, Some(id));
        let netlink = Arc::new(netlink);
        let (tell, backlog) = watch::channel(None);
        let watch = self.watch_link(endpoint, Arc::clone(&netlink), note.ifindex, tell);
        let taking = Arc::default();
        let wire = LiveWire { port: id, netlink, note, watch, taking, backlog };
        control.wires.insert(endpoint, wire);
        (id, port)
    }

    /// Takes endpoints out of service, after the commands that detach them have gone down: the keeper forgets their wires, and
    /// the interfaces are deleted. Whoever awaits what comes back waits for that; closing the rings (24 ms each) happens behind
    /// everybody's back.
    pub(super) fn dismiss(
        self: &Arc<Self>,
        control: &mut Control,
        endpoints: &[EndpointId],
    ) -> Cut {
        let gone: Vec<LiveWire> =
            endpoints.iter().filter_map(|id| control.wires.remove(id)).collect();
        self.keeping.release(endpoints.iter().copied().map(wire_key).collect());
        let ports: Vec<_> = gone.iter().map(|wire| (wire.port, Arc::clone(&wire.taking))).collect();
        let cut = tokio::task::spawn_blocking(move || {
            for wire in gone {
                wire.watch.abort();
                // It may have gone by itself, which is the same.
                let elsewhere = wire.note.shape.is_none().then_some(wire::THEIRS);
                let _ = delete_link_unanswered(wire.netlink.as_fd(), wire.note.ifindex, elsewhere);
            }
        });
        let plane = Arc::clone(&self.plane);
        tokio::spawn(async move {
            for (id, taking) in ports {
                let _whole = taking.lock().await;
                let port = plane.close(id).await;
                tokio::task::spawn_blocking(move || drop(port));
            }
        });
        cut
    }

    fn watch_link(
        self: &Arc<Self>,
        endpoint: EndpointId,
        netlink: Arc<OwnedFd>,
        ifindex: u32,
        backlog: watch::Sender<Option<u64>>,
    ) -> AbortHandle {
        let daemon = Arc::clone(self);
        let watch = async move {
            let Ok(netlink) = netlink.try_clone().and_then(readable) else { return };
            while !link_is_gone(&netlink, ifindex, &backlog).await {}
            // On a task of its own: this one is stopped when the wire is dismissed.
            tokio::spawn(async move { daemon.wire_died(endpoint, "its link was deleted").await });
        };
        tokio::spawn(watch).abort_handle()
    }

    /// Ends an endpoint whose wire is gone while its node may live on.
    pub(super) async fn wire_died(self: &Arc<Self>, endpoint: EndpointId, why: &str) {
        // A process that ends loses its namespaces a moment before its pidfd tells; then all its endpoints go at once.
        tokio::time::sleep(END_SETTLES).await;
        let mut control = self.control.lock().await;
        let Some((node, ended)) = control.topology.endpoint(endpoint) else { return };
        let (node, network) = (Arc::clone(node), ended.network);
        if control
            .nodes
            .get(&node.id)
            .is_some_and(|live| live.process.as_ref().is_some_and(super::nodes::has_ended))
        {
            // The node's own end is on its way, and takes all its endpoints.
            return;
        }
        say(format_args!("the wire of {} on {} is gone: {why}", node.name, network.short()));
        let mut new = control.topology.clone();
        if new.disconnect(&network.to_string(), &node.id.to_string(), true).is_err() {
            return;
        }
        let last = new.node_by_id(node.id).is_some_and(|node| node.endpoints.is_empty());
        if self.commit(&mut control, new, Opening::default()).await.is_err() {
            return;
        }
        // Nobody waits for what is gone already.
        drop(self.dismiss(&mut control, &[endpoint]));
        self.tell_between(&control.topology, Action::Disconnect, network, &node);
        drop(control);
        self.settle_doors(node.id).await;
        if last && node.pid.is_none() {
            // Known by its namespace alone, and that went with its last wire.
            self.node_ended(node.id, None).await;
        }
    }

    /// As [`Daemon::wire_died`], where the dataplane says so.
    pub(super) async fn port_died(self: &Arc<Self>, port: PortId, why: &str) {
        let endpoint = {
            let control = self.control.lock().await;
            control.wires.iter().find(|(_, wire)| wire.port == port).map(|(id, _)| *id)
        };
        if let Some(endpoint) = endpoint {
            self.wire_died(endpoint, why).await;
        }
    }

    /// Tells that something happened between a network and a node.
    pub(super) fn tell_between(
        &self,
        topology: &Topology,
        action: Action,
        network: Id,
        node: &Node,
    ) {
        if let Some(network) = topology.network_by_id(network) {
            self.events.tell_of_network(action, network, Some(node), &[]);
        }
    }
}

/// Reads what there is to read; whether the link was deleted. What its figures say of the guest's backlog is handed on.
async fn link_is_gone(
    netlink: &AsyncFd<OwnedFd>,
    ifindex: u32,
    backlog: &watch::Sender<Option<u64>>,
) -> bool {
    let Ok(mut ready) = netlink.readable().await else { return true };
    let mut buffer = [0; 8192];
    let read = ready.try_io(|fd| {
        Ok(nix::sys::socket::recv(
            fd.as_raw_fd(),
            &mut buffer,
            nix::sys::socket::MsgFlags::MSG_DONTWAIT,
        )?)
    });
    match read {
        Ok(Ok(length)) => {
            let bytes = &buffer[..length];
            if let Some(frames) = tx_dropped(bytes, ifindex) {
                backlog.send_replace(Some(frames));
            }
            tells_of_deletion(bytes)
        }
        // Events were lost: the dataplane's own sign remains.
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Whether one of the netlink messages (netlink(7): length, type, ...) is RTM_DELLINK.
fn tells_of_deletion(mut messages: &[u8]) -> bool {
    while let Some(header) = messages.first_chunk::<16>() {
        let [a, b, c, d, e, f, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        if u16::from_ne_bytes([e, f]) == libc::RTM_DELLINK {
            return true;
        }
        let next = length.max(16).next_multiple_of(4);
        messages = messages.get(next..).unwrap_or_default();
    }
    false
}
