//! Messages with descriptors over a SEQPACKET socket: one JSON value a message, descriptors beside it.
//!
//! The descriptors of a message that is not understood are closed with it, so a hostile or broken peer cannot fill our
//! table.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// The most descriptors that travel with a message from a client.
pub const DESCRIPTORS_MAX: usize = 8;

/// The most that the kernel lets travel (SCM_MAX_FD), as between daemon and keeper. With room for fewer, those that fit would
/// come, but could not be found and closed.
pub const BATCH_MAX: usize = 253;

/// How often, and how long apart, descriptors are sent again that are too many in flight: the peer takes them meanwhile.
const FLIGHT_TRIES: u32 = 1000;
const FLIGHT_PAUSE: Duration = Duration::from_millis(2);

/// Two connected SEQPACKET sockets, closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one value and its descriptors, or fails; never a part.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    value: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    if bytes.len() > MESSAGE_BYTES_MAX || descriptors.len() > BATCH_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let control = if raw.is_empty() { vec![] } else { vec![ControlMessage::ScmRights(&raw)] };
    let mut tries = 0;
    loop {
        let sent = sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            &control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Err(Errno::EINTR) => {}
            Err(Errno::ETOOMANYREFS) if tries < FLIGHT_TRIES => {
                tries += 1;
                std::thread::sleep(FLIGHT_PAUSE);
            }
            Err(errno) => return Err(errno.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives one value and its descriptors; `UnexpectedEof` where the peer has gone, `TimedOut` after `limit`.
pub fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    limit: Option<Duration>,
) -> io::Result<(T, Vec<OwnedFd>)> {
    receive_with(socket, limit, DESCRIPTORS_MAX)
}

/// As [`receive`], with as many descriptors as can travel.
pub fn receive_batch<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<(T, Vec<OwnedFd>)> {
    receive_with(socket, None, BATCH_MAX)
}

fn receive_with<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    limit: Option<Duration>,
    descriptors_max: usize,
) -> io::Result<(T, Vec<OwnedFd>)> {
    if let Some(limit) = limit {
        wait_readable(socket, limit)?;
    }
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = nix::cmsg_space!([RawFd; BATCH_MAX]);
    let (length, descriptors, flags) = loop {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let got = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let message = match got {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut descriptors = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                for fd in raw {
                    // SAFETY: the kernel has just put this descriptor into our table for this message; nobody else knows it.
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        break (message.bytes, descriptors, message.flags);
    };
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if flags.contains(MsgFlags::MSG_TRUNC) || descriptors.len() > descriptors_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    // Not serde's own conversion: for it a value cut short is an end of file, which here means a peer that has gone.
    let value = serde_json::from_slice(&bytes[..length])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((value, descriptors))
}

#[expect(clippy::disallowed_methods, reason = "a limit in real time on a real peer")]
fn wait_readable(socket: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout =
            PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_message_carries_its_descriptors() {
        let (a, b) = pair().unwrap();
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        send(a.as_fd(), &("word".to_string(), 7u32), &[file.as_fd()]).unwrap();
        let ((word, number), fds) = receive::<(String, u32)>(b.as_fd(), None).unwrap();
        assert_eq!((word.as_str(), number, fds.len()), ("word", 7, 1));
        assert_eq!(
            nix::sys::stat::fstat(&fds[0]).unwrap().st_ino,
            nix::sys::stat::fstat(&file).unwrap().st_ino
        );
    }

    #[test]
    fn a_silent_peer_is_given_up() {
        let (_a, b) = pair().unwrap();
        let error = receive::<u32>(b.as_fd(), Some(Duration::from_millis(10))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_gone_peer_is_the_end() {
        let (a, b) = pair().unwrap();
        drop(a);
        assert_eq!(
            receive::<u32>(b.as_fd(), None).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn descriptors_beyond_the_limit_are_closed() {
        let (a, b) = pair().unwrap();
        let (sent, other_end) = pair().unwrap();
        let raw = [sent.as_raw_fd(); DESCRIPTORS_MAX + 1];
        let control = [ControlMessage::ScmRights(&raw)];
        let slices = [IoSlice::new(b"7")];
        sendmsg::<()>(a.as_raw_fd(), &slices, &control, MsgFlags::empty(), None).unwrap();
        assert!(receive::<u32>(b.as_fd(), None).is_err());
        drop(sent);
        assert_eq!(nix::unistd::read(&other_end, &mut [0]), Ok(0));
    }

    #[test]
    fn noise_is_refused() {
        let (a, b) = pair().unwrap();
        for noise in [b"\x00\xff not json".as_slice(), b"\"cut sho"] {
            nix::unistd::write(&a, noise).unwrap();
            let error = receive::<String>(b.as_fd(), None).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
