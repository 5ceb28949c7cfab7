//! What happens to nodes once they exist.

use std::sync::Arc;

use portolan_switch::ids::PortId;

use super::model::{Endpoint, Form, Node, NodeStatus, PastEndpoint, RemovedNode};
use super::names::check_node_name;
use super::refusal::Faults;
use super::{EndpointId, Id, Moment, Refusal, RefusalKind, Topology};

impl Topology {
    /// Who is on a network, in order of their ids.
    pub fn members(&self, network: Id) -> impl Iterator<Item = (&Arc<Node>, &Endpoint)> {
        self.nodes.values().filter_map(move |node| Some((node, node.endpoint_on(network)?)))
    }

    /// Takes a node off a network. The endpoint it had is handed back for its port to be taken down; none where the node
    /// had ended, or with `force` where there is no such node.
    ///
    /// # Errors
    /// No such network or node, or the node is not on the network.
    pub fn disconnect(
        &mut self,
        network: &str,
        node: &str,
        force: bool,
    ) -> Result<Option<Endpoint>, Refusal> {
        let network = Arc::clone(self.network(network)?);
        let node = match self.node(node) {
            Err(refusal) if force && refusal.kind == RefusalKind::NotFound => return Ok(None),
            found => Arc::clone(found?),
        };
        if let Some(endpoint) = self.drop_endpoint(node.id, network.id) {
            return Ok(Some(endpoint));
        }
        if node.past.iter().any(|past| past.network == network.id) {
            self.edit(node.id, |node| node.past.retain(|past| past.network != network.id));
            return Ok(None);
        }
        if network.form != Form::Bridge && network.form == node.form {
            let message = format!(
                "node {} cannot be disconnected from network {}: it has no other",
                node.name, network.name
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let message = format!("node {} is not connected to network {}", node.name, network.name);
        Err(Refusal::new(RefusalKind::Conflict, message))
    }

    /// Gives a node another name, at once on all its networks.
    ///
    /// # Errors
    /// No such node, or the name is malformed or taken.
    pub fn rename(&mut self, old: &str, new: &str) -> Result<Vec<String>, Refusal> {
        let node = Arc::clone(self.node(old)?);
        let (mut faults, mut warnings) = (Faults::default(), Vec::new());
        if node.name == new {
            faults.invalid(format!("node {new} has this name already: choose another"));
        } else {
            check_node_name(new, &mut faults, &mut warnings);
            self.check_node_name_free(new, &mut faults, &mut warnings);
        }
        faults.settle()?;
        self.edit(node.id, |node| node.name = new.to_string());
        Ok(warnings)
    }

    /// A node has ended: its endpoints, addresses and names on networks are free. The endpoints it had are handed back for
    /// their ports to be taken down; none where it had ended before.
    ///
    /// # Errors
    /// No such node.
    pub fn exited(&mut self, id: Id, code: i32, now: Moment) -> Result<Vec<Endpoint>, Refusal> {
        let Some(node) = self.nodes.get(&id) else {
            let message = format!("node {} not found: it may have been removed", id.short());
            return Err(Refusal::new(RefusalKind::NotFound, message));
        };
        if !node.running() {
            return Ok(Vec::new());
        }
        let endpoints = node.endpoints.clone();
        self.release(&endpoints);
        self.edit(id, |node| {
            node.status = NodeStatus::Exited { code, at: now };
            node.pid = None;
            node.past =
                std::mem::take(&mut node.endpoints).into_iter().map(PastEndpoint::from).collect();
            for mapping in &mut node.publications {
                mapping.runs.clear();
                mapping.open.clear();
                mapping.fault = None;
            }
        });
        Ok(endpoints)
    }

    /// Removes a node. With `force` it may be one that has not ended; its process is the caller's to end.
    ///
    /// # Errors
    /// No such node, or it runs and is not forced.
    pub fn remove_node(&mut self, wanted: &str, force: bool) -> Result<RemovedNode, Refusal> {
        let node = Arc::clone(self.node(wanted)?);
        if node.running() && !force {
            let message =
                format!("node {} is running: stop it first, or remove it with -f", node.name);
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        self.release(&node.endpoints);
        self.nodes.remove(&node.id);
        let Node { id, ref name, ref log_path, ref endpoints, .. } = *node;
        let (name, log_path) = (name.clone(), log_path.clone());
        Ok(RemovedNode { id, name, log_path, endpoints: endpoints.clone() })
    }

    /// Notes the port that wires an endpoint, or that none does any more. Nothing happens where the endpoint is gone.
    pub fn wired(&mut self, endpoint: EndpointId, port: Option<PortId>) {
        let Some(node) = self.endpoint(endpoint).map(|(node, _)| node.id) else { return };
        self.edit(node, |node| {
            if let Some(endpoint) = node.endpoints.iter_mut().find(|e| e.id == endpoint) {
                endpoint.port = port;
            }
        });
    }

    /// Which process a node's number means: it tells a later process of the same number apart.
    pub fn set_process(&mut self, node: Id, process: String) {
        self.edit(node, |node| node.process = Some(process));
    }

    /// The exit code of a node that has ended, where it became known later.
    pub fn set_exit_code(&mut self, node: Id, exit_code: i32) {
        self.edit(node, |node| {
            if let NodeStatus::Exited { code, .. } = &mut node.status {
                *code = exit_code;
            }
        });
    }

    /// Takes an endpoint off a node that there is.
    pub(super) fn drop_endpoint(&mut self, node: Id, network: Id) -> Option<Endpoint> {
        let endpoint = self.nodes.get(&node)?.endpoint_on(network)?.clone();
        self.release(std::slice::from_ref(&endpoint));
        self.edit(node, |node| node.endpoints.retain(|e| e.network != network));
        Some(endpoint)
    }

    fn release(&mut self, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            if let Some(taken) = self.taken.get_mut(&endpoint.network) {
                Arc::make_mut(taken).release(endpoint);
            }
        }
    }

    pub(super) fn edit(&mut self, node: Id, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(&node) {
            change(Arc::make_mut(node));
        }
    }
}
