//! Descriptors in the runtime's poll.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::log::say;

/// How long nobody is accepted after an attempt has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Tells why nobody could be accepted, and waits before the next attempt: out of descriptors, most likely, and what is there
/// must end before more can begin.
pub(crate) async fn not_accepted(who: &str, error: &io::Error) {
    say(format_args!("cannot accept {who}: {error}"));
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// The descriptor, to be waited for until it is readable.
pub(super) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the result owns the descriptor, so the number stays that of this open file for as long as it is polled.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
