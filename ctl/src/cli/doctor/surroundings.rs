//! What the system around does that comes as a surprise: a runtime directory that goes at logout, and libraries that only some
//! commands load.

use std::path::Path;

use super::{Finding, State};
use crate::cli::capture;

/// What is looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Surroundings {
    /// The user, where sockets lie in a directory that systemd-logind removes when the user's last session ends.
    pub at_logout: Option<String>,
    /// Whether there is libpcap, for filters of captures.
    pub libpcap: bool,
}

impl Surroundings {
    /// Those of this process.
    pub fn look() -> Surroundings {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        let directory = std::env::var("XDG_RUNTIME_DIR").unwrap_or_default();
        Surroundings {
            at_logout: user.and_then(|user| {
                goes_at_logout(&directory, Path::new("/var/lib/systemd/linger"), &user.name)
                    .then_some(user.name)
            }),
            libpcap: capture::can_filter(),
        }
    }
}

/// Whether a runtime directory is one of systemd-logind's, and not kept for this user (loginctl(1), enable-linger).
fn goes_at_logout(directory: &str, lingering: &Path, user: &str) -> bool {
    directory.starts_with("/run/user/") && user != "root" && !lingering.join(user).exists()
}

/// The findings of it.
pub fn examine(surroundings: &Surroundings) -> [Finding; 2] {
    let finding = |check, state, finding: &str, remedy: String| Finding {
        check,
        state,
        finding: finding.into(),
        remedy,
    };
    let logout = match &surroundings.at_logout {
        None => finding("logout", State::Ok, "networks stay when you log out", String::new()),
        Some(user) => finding(
            "logout",
            State::Limited,
            "your runtime directory goes when you log out, and the daemon's sockets with it",
            format!("loginctl enable-linger {user}"),
        ),
    };
    let filters = if surroundings.libpcap {
        finding("filters", State::Ok, "captures can be filtered (libpcap)", String::new())
    } else {
        finding(
            "filters",
            State::Limited,
            "captures cannot be filtered: there is no libpcap",
            "as root: apt-get install libpcap0.8 (or libpcap0.8t64)".to_owned(),
        )
    };
    [logout, filters]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_of_logind_goes_and_only_where_nobody_lingers() {
        let lingering = tempfile::tempdir().unwrap();
        let goes = |directory, user| goes_at_logout(directory, lingering.path(), user);
        assert!(goes("/run/user/1000", "ann"));
        assert!(!goes("/tmp/ann", "ann") && !goes("", "ann") && !goes("/run/user/0", "root"));
        std::fs::write(lingering.path().join("ann"), "").unwrap();
        assert!(!goes("/run/user/1000", "ann") && goes("/run/user/1001", "bob"));
    }
}
