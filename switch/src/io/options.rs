//! Socket options, typed.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_void, socklen_t};

/// Plain C data that the kernel may fill with any bytes.
pub(super) trait Plain: Copy {}
impl Plain for c_int {}
impl Plain for u8 {}
impl Plain for [u32; 9] {}
impl Plain for libc::linger {}
impl Plain for libc::tpacket_stats {}

/// Sets an option to `value`, all of its bytes.
pub(super) fn set_option<T>(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &T,
) -> io::Result<()> {
    let (at, len) = (std::ptr::from_ref(value).cast::<c_void>(), size_of::<T>() as socklen_t);
    // SAFETY: the kernel reads `len` bytes from `value`, which is that long.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, at, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads an option. Where the kernel has less to say than `T` holds, the rest is zero.
pub(super) fn get_option<T: Plain>(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
) -> io::Result<T> {
    // SAFETY: `Plain` types are valid with all bytes zero.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut len = size_of::<T>() as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, and any bytes are valid there.
    match unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut len)
    } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}
