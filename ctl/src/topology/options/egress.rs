//! What a network's options say of the way out.

use portolan_switch::command::Filtering;

use super::{Key, NetworkOptions, one_of};
use crate::topology::refusal::Faults;

const HOST_ACCESS: &str = "portolan.host_access";
const METADATA: &str = "portolan.metadata";

const FILTERINGS: [(&str, Filtering); 3] = [
    ("address-dependent", Filtering::AddressDependent),
    ("endpoint-independent", Filtering::EndpointIndependent),
    ("address-and-port-dependent", Filtering::AddressAndPortDependent),
];

pub(super) const KEYS: &[Key<NetworkOptions>] = &[
    Key {
        name: HOST_ACCESS,
        read: |draft, value| {
            draft.egress.host_access = truth(value)?;
            Ok(())
        },
    },
    Key {
        name: METADATA,
        read: |draft, value| {
            draft.egress.metadata = truth(value)?;
            Ok(())
        },
    },
    Key {
        name: "portolan.filtering",
        read: |draft, value| {
            draft.egress.filtering = one_of(value, &FILTERINGS)?;
            Ok(())
        },
    },
];

fn truth(value: &str) -> Result<bool, String> {
    super::on(value).map_err(|_| "true or false is needed".into())
}

pub(super) fn conflicts(draft: &NetworkOptions, faults: &mut Faults) {
    let egress = draft.egress;
    for (name, open) in [(HOST_ACCESS, egress.host_access), (METADATA, egress.metadata)] {
        if open && egress.internal {
            faults.invalid(format!(
                "{name}=true has nothing to open on an internal network: drop it or --internal"
            ));
        }
    }
}
