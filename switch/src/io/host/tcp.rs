//! Connections: what each call does with the socket of one.
//!
//! Bytes on their way to a guest stay in the socket until the guest has acknowledged them, so they are looked at (peeked)
//! at some offset and later thrown away unread. A kernel that remembers the offset of the last look (SO_PEEK_OFF) goes on
//! from there by itself; with an older one, what lies before is copied to a place where nobody reads it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;
use libc::c_int;
use portolan_nat::sockets::host::{Failure, SendRoom};

use super::address::Name;
use super::failure::{self, failure, last};
use crate::io::options::{get_option, set_option};

/// Parts of one send. More are for the next one.
const PARTS_MAX: usize = 128;

/// States of a connection, as the kernel counts them.
const TCP_SYN_SENT: u8 = 2;
const TCP_CLOSE: u8 = 7;

/// SO_MEMINFO, which libc does not name everywhere, and what of it is of interest: the send buffer's size, and the bytes
/// charged to it.
const SO_MEMINFO: c_int = 55;
const MEMINFO_SNDBUF: usize = 3;
const MEMINFO_WMEM_QUEUED: usize = 5;

/// Of a send buffer's free bytes, one in so many is kept for what the kernel charges beside the payload: some 1.3 KB for each
/// buffer of up to 64 KiB that one send fills.
const OVERHEAD_PART: usize = 8;

/// Of a send buffer, one in so many bytes is left free. The kernel calls a connection writable again when two thirds of its buffer are
/// left to be acknowledged. Over a long path what fills the free third in an instant is acknowledged a round trip later, as
/// one; filled to the brim, by more than a third since acknowledgements go on meanwhile, the buffer would then stay just above
/// those two thirds until the next such burst is acknowledged, with one burst less on its way.
const RESERVE_PART: usize = 16;

/// Room that is told at most, bytes. The sender that fills it is a guest on this machine, an instant away, so more would make
/// nothing faster: it would only let more come at once than the ring of its port holds. It is less than half of [`UNSENT_MAX`], so
/// that the kernel calls no connection writable, and so fails to tell when it is, that has less than half of this for what is
/// unsent.
const ROOM_MAX: usize = 256 * 1024;

/// Bytes that a connection may hold unsent: to somebody who does not read, a guest gets rid of no more than this and what that one's
/// window takes. It is more than a third of the largest buffer that Linux lets grow by default: where this ended a burst, and not
/// the buffer, the kernel would not tell when that has been sent, since it still waits for the third to be free.
const UNSENT_MAX: usize = 1536 * 1024;

/// The request that tells how much is unsent; libc has no name for it.
const SIOCOUTQNSD: libc::Ioctl = 0x894b;

/// How a stream is peeked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Peeking {
    /// The kernel remembers where; so do we. None before the first look.
    Offset(Option<usize>),
    /// From the start each time.
    FromStart,
}

/// Sets what every connection has. A listener's are inherited by those it accepts.
pub(super) fn prepare(socket: BorrowedFd<'_>) -> io::Result<()> {
    // The guest's TCP has decided what goes in one segment.
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
    set_option(
        socket,
        libc::IPPROTO_TCP,
        libc::TCP_NOTSENT_LOWAT,
        &c_int::try_from(UNSENT_MAX).unwrap_or(c_int::MAX),
    )?;
    // A guest that vanished without a word leaves a connection that only this ends.
    set_option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1)?;
    // Urgent data stays in its place in the stream.
    set_option(socket, libc::SOL_SOCKET, libc::SO_OOBINLINE, &1)?;
    // A process that dies leaves its sockets to be closed by the kernel: the peer must not take that for the end of the stream.
    end_abruptly(socket, true)
}

/// Begins a connection.
pub(super) fn connect(socket: BorrowedFd<'_>, mut to: Name) -> Result<(), Failure> {
    let (at, len) = (to.as_ptr(), to.len);
    // SAFETY: the kernel reads `len` bytes from `to`, which is that long.
    match unsafe { libc::connect(socket.as_raw_fd(), at.cast(), len) } {
        0 => Ok(()),
        _ => match last() {
            Failure::WouldBlock => Ok(()),
            other => Err(other),
        },
    }
}

/// How a connection that was begun stands; takes its pending error.
pub(super) fn connected(socket: BorrowedFd<'_>) -> Result<(), Failure> {
    let pending: c_int = get_option(socket, libc::SOL_SOCKET, libc::SO_ERROR)
        .map_err(|error| failure::of(&error))?;
    if pending != 0 {
        return Err(failure(pending));
    }
    let state: u8 = get_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO)
        .map_err(|error| failure::of(&error))?;
    match state {
        TCP_SYN_SENT => Err(Failure::WouldBlock),
        TCP_CLOSE => Err(Failure::Reset),
        _ => Ok(()),
    }
}

/// Takes one connection, and who made it.
pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Name), Failure> {
    let mut name = Name::room();
    let (at, len) = (name.as_ptr().cast(), &raw mut name.len);
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes at most `len` bytes to `name`, which has room for as many.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), at, len, flags) };
    super::own(fd).map(|socket| (socket, name))
}

/// Sends the parts, as far as there is room.
pub(super) fn send(socket: BorrowedFd<'_>, parts: &[&[u8]]) -> Result<usize, Failure> {
    let mut vectors: ArrayVec<libc::iovec, PARTS_MAX> =
        parts.iter().take(PARTS_MAX).map(|part| lend(part)).collect();
    let message = message(&mut vectors);
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the message points to `vectors`, and they to `parts`, all of which outlive the call; it only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent).map_err(|_| last())
}

/// What room there is. Where it is little, the kernel is asked whether the socket is writable: to be told no is what makes
/// it tell when it is, and what makes it enlarge the buffer of a connection that could use more.
pub(super) fn send_room(socket: BorrowedFd<'_>) -> SendRoom {
    let Ok(memory) = get_option::<[u32; 9]>(socket, libc::SOL_SOCKET, SO_MEMINFO) else {
        return SendRoom::default();
    };
    let payload = |bytes: usize| (bytes - bytes / OVERHEAD_PART).min(ROOM_MAX);
    let size = memory[MEMINFO_SNDBUF] as usize;
    let free = (size - size / RESERVE_PART).saturating_sub(memory[MEMINFO_WMEM_QUEUED] as usize);
    let mut bytes = payload(free);
    // What is unsent is a part of what is queued.
    if bytes + memory[MEMINFO_WMEM_QUEUED] as usize > UNSENT_MAX {
        bytes = bytes.min(UNSENT_MAX.saturating_sub(unsent(socket)));
    }
    let room = SendRoom { bytes, buffer: payload(size) };
    if room.bytes < room.buffer / 2 {
        events(socket, libc::POLLOUT);
    }
    room
}

/// Bytes that were taken and have not been sent yet.
fn unsent(socket: BorrowedFd<'_>) -> usize {
    let mut count: c_int = 0;
    // SAFETY: the kernel writes one number, to `count`.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQNSD, &raw mut count) };
    if asked == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// Looks at what lies `skip` bytes behind the oldest byte.
pub(super) fn peek(
    socket: BorrowedFd<'_>,
    peeking: &mut Peeking,
    skip: usize,
    room: &mut [u8],
    nowhere: &mut [u8],
) -> Result<usize, Failure> {
    let Peeking::Offset(at) = peeking else {
        return peek_from_start(socket, skip, room, nowhere);
    };
    if *at != Some(skip) {
        let skip = c_int::try_from(skip).map_err(|_| Failure::Other(libc::EINVAL))?;
        set_option(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &skip)
            .map_err(|error| failure::of(&error))?;
    }
    *at = Some(skip);
    let count = receive(socket, &mut [take(room)], libc::MSG_PEEK)?;
    *at = Some(skip + count);
    Ok(count)
}

/// As [`peek`], where the kernel always starts from the oldest byte.
fn peek_from_start(
    socket: BorrowedFd<'_>,
    skip: usize,
    room: &mut [u8],
    nowhere: &mut [u8],
) -> Result<usize, Failure> {
    // The kernel takes 1024 vectors; the same place may stand in all of them.
    let whole = (skip / nowhere.len()).min(1000);
    let rest = if whole < 1000 { skip % nowhere.len() } else { 0 };
    let mut vectors = vec![take(nowhere); whole];
    vectors.push(take(&mut nowhere[..rest]));
    vectors.push(take(room));
    if whole * nowhere.len() + rest < skip {
        return Err(Failure::NoBuffers);
    }
    let mut look = || receive(socket, &mut vectors, libc::MSG_PEEK);
    let count = look()?;
    if count > skip {
        return Ok(count - skip);
    }
    // No more than what was skipped: either the stream ends there, or the rest has not come. Only what is seen after the
    // end was told of is the whole.
    if events(socket, libc::POLLRDHUP) & (libc::POLLRDHUP | libc::POLLHUP) == 0 {
        return Err(Failure::WouldBlock);
    }
    Ok(look()?.saturating_sub(skip))
}

/// Throws the oldest bytes away.
pub(super) fn discard(
    socket: BorrowedFd<'_>,
    peeking: &mut Peeking,
    mut count: usize,
) -> Result<(), Failure> {
    while count > 0 {
        let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
        // SAFETY: with MSG_TRUNC, TCP writes nothing to the buffer, which may then be none.
        let gone = unsafe { libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), count, flags) };
        let gone = usize::try_from(gone).map_err(|_| last())?;
        if gone == 0 {
            return Err(Failure::Reset);
        }
        count = count.saturating_sub(gone);
        if let Peeking::Offset(Some(at)) = peeking {
            *at = at.saturating_sub(gone);
        }
    }
    Ok(())
}

/// Ends what is sent. The socket must end in order by then.
pub(super) fn finish(socket: BorrowedFd<'_>) -> Result<(), Failure> {
    // SAFETY: shutdown takes no pointers.
    match unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) } {
        0 => Ok(()),
        _ => Err(last()),
    }
}

/// Settles what closing the socket does, whoever closes it: it sends a reset, and what was not sent yet is lost; or it ends the
/// stream behind that. Fails on no socket of TCP.
pub(super) fn end_abruptly(socket: BorrowedFd<'_>, abruptly: bool) -> io::Result<()> {
    let linger = libc::linger { l_onoff: abruptly.into(), l_linger: 0 };
    set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// Reads into the vectors, which point to memory that outlives the call and is nobody else's.
fn receive(
    socket: BorrowedFd<'_>,
    vectors: &mut [libc::iovec],
    flags: c_int,
) -> Result<usize, Failure> {
    let mut message = message(vectors);
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: the message points to `vectors`, and they to memory borrowed for as long by whoever called; the kernel writes
    // any bytes there, which are valid.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    usize::try_from(count).map_err(|_| last())
}

/// Which of these events there are now, and which that nobody asks for.
fn events(socket: BorrowedFd<'_>, wanted: i16) -> i16 {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: wanted, revents: 0 };
    // SAFETY: the kernel reads and writes the one pollfd, which lives across the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) };
    poll.revents
}

/// A message of these vectors and nothing else.
pub(super) fn message(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: a msghdr is plain data, valid with all bytes zero: no address, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len() as _;
    message
}

/// Bytes for the kernel to read.
pub(super) fn lend(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// Bytes for the kernel to write to.
pub(super) fn take(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}
