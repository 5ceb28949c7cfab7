//! Descriptors in the runtime's poll.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The descriptor, to be waited for until it is readable.
pub(super) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the result owns the descriptor, so the number stays that of this open file for as long as it is polled.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
