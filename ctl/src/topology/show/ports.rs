//! Publications as users see them: in the shapes of `docker inspect`, `docker ps` and `docker port`.

use std::collections::BTreeMap;

use super::super::model::Node;
use super::super::ports::{HostPorts, bracketed, transport_word};
use crate::api::types::{PortBinding, PortRow};

/// What is open, one row for ports in a row at one address, in order of the node's ports.
pub fn port_rows(node: &Node) -> Vec<PortRow> {
    let mut rows = Vec::new();
    for mapping in &node.publications {
        for (run, ip) in
            mapping.runs.iter().flat_map(|run| mapping.open.iter().map(move |ip| (run, *ip)))
        {
            rows.push(PortRow {
                ip,
                private_port: run.node_port,
                public_port: run.host_port,
                count: run.count,
                transport: transport_word(mapping.wish.transport).into(),
            });
        }
    }
    let key = |row: &PortRow| (row.private_port, row.transport.clone(), row.ip, row.public_port);
    rows.sort_by_key(key);
    rows
}

/// `NetworkSettings.Ports`.
pub(super) fn open(node: &Node) -> BTreeMap<String, Vec<PortBinding>> {
    let mut all: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for row in port_rows(node) {
        for (offset, private) in (row.private_port..).take(usize::from(row.count)).enumerate() {
            let public = usize::from(row.public_port).saturating_add(offset);
            all.entry(format!("{private}/{}", row.transport))
                .or_default()
                .push(PortBinding { host_ip: row.ip.to_string(), host_port: public.to_string() });
        }
    }
    all
}

/// `HostConfig.PortBindings`.
pub(super) fn asked(node: &Node) -> BTreeMap<String, Vec<PortBinding>> {
    let mut all: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for wish in node.publications.iter().map(|mapping| mapping.wish) {
        let host_ip = wish.address.map_or_else(String::new, |address| address.to_string());
        for (offset, private) in (0u16..).zip(wish.node_ports()) {
            let host_port = match wish.host {
                HostPorts::Any => String::new(),
                HostPorts::From(first) => first.saturating_add(offset).to_string(),
                HostPorts::OneOf(first, last) => format!("{first}-{last}"),
            };
            let binding = PortBinding { host_ip: host_ip.clone(), host_port };
            let key = format!("{private}/{}", transport_word(wish.transport));
            all.entry(key).or_default().push(binding);
        }
    }
    all
}

/// Why what should be open is not.
pub(super) fn faults(node: &Node) -> Vec<String> {
    node.publications.iter().filter_map(|mapping| mapping.fault.clone()).collect()
}

/// The PORTS of `docker ps`: ranges in one piece, and closed ones behind.
pub(super) fn in_a_line(node: &Node) -> String {
    let span = |first: u16, count: u16| match count {
        0 | 1 => first.to_string(),
        _ => format!("{first}-{}", first.saturating_add(count.saturating_sub(1))),
    };
    let mut words: Vec<String> = Vec::new();
    for row in joined(port_rows(node)) {
        let (public, private) =
            (span(row.public_port, row.count), span(row.private_port, row.count));
        words.push(format!("{}:{public}->{private}/{}", bracketed(row.ip), row.transport));
    }
    let closed = node.publications.iter().filter(|_| node.running());
    let closed = closed.filter(|mapping| mapping.open.is_empty());
    words.extend(closed.map(|mapping| format!("{} (closed)", mapping.wish)));
    words.join(", ")
}

/// Rows that go on where another ends are one.
fn joined(rows: Vec<PortRow>) -> Vec<PortRow> {
    let mut joined: Vec<PortRow> = Vec::new();
    for row in rows {
        let goes_on = |last: &&mut PortRow| {
            let (count, ends) = (last.count, (last.private_port, last.public_port));
            last.ip == row.ip
                && last.transport == row.transport
                && ends.0.checked_add(count) == Some(row.private_port)
                && ends.1.checked_add(count) == Some(row.public_port)
        };
        match joined.iter_mut().find(goes_on) {
            Some(last) => last.count = last.count.saturating_add(row.count),
            None => joined.push(row),
        }
    }
    joined
}
