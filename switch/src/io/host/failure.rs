//! What an errno means to whoever called.

use std::io;

use portolan_nat::sockets::host::Failure;

/// Every errno that a call on a socket gives, as what it means.
pub(super) fn failure(errno: i32) -> Failure {
    match errno {
        libc::EAGAIN | libc::EINPROGRESS | libc::EALREADY | libc::EINTR => Failure::WouldBlock,
        libc::ECONNREFUSED => Failure::Refused,
        libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN | libc::ESHUTDOWN => {
            Failure::Reset
        }
        libc::ETIMEDOUT => Failure::TimedOut,
        libc::ENETUNREACH | libc::ENETDOWN | libc::ENONET => Failure::NetUnreachable,
        libc::EHOSTUNREACH | libc::EHOSTDOWN => Failure::HostUnreachable,
        libc::EPERM | libc::EACCES => Failure::Forbidden,
        libc::EMSGSIZE => Failure::TooBig,
        libc::EMFILE | libc::ENFILE => Failure::TooManyFiles,
        libc::ENOBUFS | libc::ENOMEM => Failure::NoBuffers,
        libc::EADDRINUSE | libc::EADDRNOTAVAIL => Failure::NoAddress,
        libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT => Failure::Unsupported,
        other => Failure::Other(other),
    }
}

/// As [`failure`], of an error that a call came back with.
pub(super) fn of(error: &io::Error) -> Failure {
    failure(error.raw_os_error().unwrap_or(libc::EIO))
}

/// As [`failure`], of the call made last on this thread.
pub(super) fn last() -> Failure {
    of(&io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_errno_means_what_the_trait_says() {
        let table = [
            (libc::EAGAIN, Failure::WouldBlock),
            (libc::EINPROGRESS, Failure::WouldBlock),
            (libc::EALREADY, Failure::WouldBlock),
            (libc::EINTR, Failure::WouldBlock),
            (libc::ECONNREFUSED, Failure::Refused),
            (libc::ECONNRESET, Failure::Reset),
            (libc::EPIPE, Failure::Reset),
            (libc::ECONNABORTED, Failure::Reset),
            (libc::ENOTCONN, Failure::Reset),
            (libc::ESHUTDOWN, Failure::Reset),
            (libc::ETIMEDOUT, Failure::TimedOut),
            (libc::ENETUNREACH, Failure::NetUnreachable),
            (libc::ENETDOWN, Failure::NetUnreachable),
            (libc::ENONET, Failure::NetUnreachable),
            (libc::EHOSTUNREACH, Failure::HostUnreachable),
            (libc::EHOSTDOWN, Failure::HostUnreachable),
            (libc::EPERM, Failure::Forbidden),
            (libc::EACCES, Failure::Forbidden),
            (libc::EMSGSIZE, Failure::TooBig),
            (libc::EMFILE, Failure::TooManyFiles),
            (libc::ENFILE, Failure::TooManyFiles),
            (libc::ENOBUFS, Failure::NoBuffers),
            (libc::ENOMEM, Failure::NoBuffers),
            (libc::EADDRINUSE, Failure::NoAddress),
            (libc::EADDRNOTAVAIL, Failure::NoAddress),
            (libc::EAFNOSUPPORT, Failure::Unsupported),
            (libc::EPROTONOSUPPORT, Failure::Unsupported),
            (libc::ESOCKTNOSUPPORT, Failure::Unsupported),
            (libc::EINVAL, Failure::Other(libc::EINVAL)),
            (libc::EBADF, Failure::Other(libc::EBADF)),
        ];
        for (errno, means) in table {
            assert_eq!(failure(errno), means, "errno {errno}");
        }
    }
}
