//! What the root of a node may do: Docker's default set, with more or less of it.
//!
//! Capabilities of a node count in its own user namespace only; they still decide what its programs can do to its network
//! (rename interfaces, sniff) and to each other.

use std::io;

use capctl::caps::{Cap, CapSet, CapState, ambient, bounding};

/// What Docker leaves a container.
const DEFAULT: [Cap; 14] = [
    Cap::CHOWN,
    Cap::DAC_OVERRIDE,
    Cap::FSETID,
    Cap::FOWNER,
    Cap::MKNOD,
    Cap::NET_RAW,
    Cap::SETGID,
    Cap::SETUID,
    Cap::SETFCAP,
    Cap::SETPCAP,
    Cap::NET_BIND_SERVICE,
    Cap::SYS_CHROOT,
    Cap::KILL,
    Cap::AUDIT_WRITE,
];

/// The set that `--privileged`, `--cap-add` and `--cap-drop` ask for. Names come with or without `CAP_`, in any case, or
/// are `ALL`; one name added wins over `ALL` dropped, and one name dropped over `ALL` added, as in Docker.
pub fn resolve(privileged: bool, add: &[String], drop: &[String]) -> Result<CapSet, String> {
    if privileged {
        return Ok(CapSet::from_iter(Cap::iter()));
    }
    let (add_all, add) = parse(add)?;
    let (drop_all, drop) = parse(drop)?;
    let mut set = match (add_all, drop_all) {
        (true, _) => CapSet::from_iter(Cap::iter()),
        (false, true) => CapSet::empty(),
        (false, false) => CapSet::from_iter(DEFAULT),
    };
    set |= add;
    Ok(set - drop)
}

fn parse(names: &[String]) -> Result<(bool, CapSet), String> {
    let mut all = false;
    let mut set = CapSet::empty();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" {
            all = true;
            continue;
        }
        let cap = format!("CAP_{short}").parse::<Cap>();
        set.add(cap.map_err(|_| {
            format!("unknown capability {name:?}; see capabilities(7), or use ALL")
        })?);
    }
    Ok((all, set))
}

/// Takes everything but `set` out of the bounding set, for good: of this process and of all that it starts.
pub fn bound(set: CapSet) -> io::Result<()> {
    for cap in Cap::iter().filter(|cap| !set.has(*cap)) {
        bounding::ensure_dropped(cap).map_err(os)?;
    }
    if CapSet::from_iter(Cap::iter()) != set {
        bounding::clear_unknown().map_err(os)?;
    }
    Ok(())
}

/// Makes `set` what this process may do, less what it could not do anyway; its children inherit nothing beyond.
pub fn limit(set: CapSet) -> io::Result<()> {
    if ambient::is_supported() {
        ambient::clear().map_err(os)?;
    }
    let mut state = CapState::get_current().map_err(os)?;
    state.permitted &= set;
    state.effective = state.permitted;
    state.inheritable = CapSet::empty();
    state.set_current().map_err(os)
}

/// The bounding set of a process: what its node was allowed.
pub fn bounding_of(pid: u32) -> io::Result<CapSet> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    bounding_in(&status).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn bounding_in(status: &str) -> Option<CapSet> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    let bits = u64::from_str_radix(hex.trim(), 16).ok()?;
    Some(CapSet::from_iter(Cap::iter().filter(|cap| bits >> (*cap as u8) & 1 == 1)))
}

fn os(error: capctl::Error) -> io::Error {
    io::Error::from_raw_os_error(error.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_is_dockers() {
        let set = resolve(false, &[], &[]).unwrap();
        assert_eq!(set.size(), 14);
        assert!(set.has(Cap::NET_RAW) && !set.has(Cap::NET_ADMIN) && !set.has(Cap::SYS_ADMIN));
    }

    #[test]
    fn names_come_in_any_dress() {
        let set =
            resolve(false, &names(&["net_admin", "CAP_SYS_TIME"]), &names(&["Cap_Chown"])).unwrap();
        assert!(set.has(Cap::NET_ADMIN) && set.has(Cap::SYS_TIME) && !set.has(Cap::CHOWN));
        assert_eq!(set.size(), 15);
    }

    #[test]
    fn a_single_name_wins_over_all() {
        let one = resolve(false, &names(&["NET_RAW"]), &names(&["ALL"])).unwrap();
        assert_eq!(one, CapSet::from_iter([Cap::NET_RAW]));
        let most = resolve(false, &names(&["ALL"]), &names(&["SYS_ADMIN"])).unwrap();
        assert!(!most.has(Cap::SYS_ADMIN) && most.has(Cap::NET_ADMIN));
    }

    #[test]
    fn unknown_names_are_told() {
        let error = resolve(false, &names(&["FLY"]), &[]).unwrap_err();
        assert!(error.starts_with("unknown capability \"FLY\""), "{error}");
    }

    #[test]
    fn the_bounding_set_is_read_from_the_kernels_words() {
        let set = bounding_in("Name:\tx\nCapBnd:\t00000000a80425fb\nCapAmb:\t0\n").unwrap();
        assert_eq!(set, resolve(false, &[], &[]).unwrap());
    }
}
