//! What a network's options say of the way out.

use std::collections::BTreeMap;

use portolan_switch::command::{Egress, Filtering};

use super::model::Network;
use super::refusal::Faults;

const HOST_ACCESS: &str = "portolan.host_access";
const METADATA: &str = "portolan.metadata";
const FILTERING: &str = "portolan.filtering";

/// The options about the way out.
pub(super) const KEYS: [&str; 3] = [HOST_ACCESS, METADATA, FILTERING];

const FILTERINGS: [(&str, Filtering); 3] = [
    ("address-dependent", Filtering::AddressDependent),
    ("endpoint-independent", Filtering::EndpointIndependent),
    ("address-and-port-dependent", Filtering::AddressAndPortDependent),
];

/// Takes one option, where it is about the way out; what is wrong with it, if anything is.
fn take(egress: &mut Egress, key: &str, value: &str) -> Option<Result<(), String>> {
    let switch = match key {
        HOST_ACCESS => &mut egress.host_access,
        METADATA => &mut egress.metadata,
        FILTERING => {
            let known = FILTERINGS.iter().find(|(word, _)| *word == value);
            return Some(match known {
                Some((_, filtering)) => {
                    egress.filtering = *filtering;
                    Ok(())
                }
                None => {
                    let words: Vec<&str> = FILTERINGS.iter().map(|(word, _)| *word).collect();
                    Err(format!("{key}={value}: one of {} is needed", words.join(", ")))
                }
            });
        }
        _ => return None,
    };
    match value {
        "true" => *switch = true,
        "false" => *switch = false,
        _ => return Some(Err(format!("{key}={value}: true or false is needed"))),
    }
    if *switch && egress.internal {
        return Some(Err(format!(
            "{key}=true has nothing to open on an internal network: drop it or --internal"
        )));
    }
    Some(Ok(()))
}

/// Notes what is wrong with an option about the way out; false where it is about something else.
pub(super) fn check(key: &str, value: &str, internal: bool, faults: &mut Faults) -> bool {
    let mut egress = Egress { internal, ..Egress::default() };
    match take(&mut egress, key, value) {
        Some(Err(fault)) => faults.invalid(fault),
        Some(Ok(())) => {}
        None => return false,
    }
    true
}

/// The way out of a network. Its options were checked when it was made.
pub(super) fn of(network: &Network) -> Egress {
    read(network.internal, &network.options)
}

fn read(internal: bool, options: &BTreeMap<String, String>) -> Egress {
    let mut egress = Egress { internal, ..Egress::default() };
    for (key, value) in options {
        let _ = take(&mut egress, key, value);
    }
    egress
}
