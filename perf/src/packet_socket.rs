//! Packet sockets as the forwarders of the benchmark use them: plain calls, so that nothing of Portolan is in the baseline.

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::RawFd;

use libc::{c_int, c_void};

/// The result of a call, or what failed and why where it is negative.
pub fn check(result: c_int, what: &str) -> io::Result<c_int> {
    if result < 0 {
        let error = io::Error::last_os_error();
        return Err(io::Error::new(error.kind(), format!("{what}: {error}")));
    }
    Ok(result)
}

/// Sets an option.
pub fn set<T>(socket: RawFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let (at, len) = (std::ptr::from_ref(value).cast::<c_void>(), size_of::<T>() as u32);
    // SAFETY: the kernel reads `len` bytes from `value`, which is that long.
    check(unsafe { libc::setsockopt(socket, level, option, at, len) }, "setsockopt").map(drop)
}

/// Binds a packet socket to the device of that name, for frames of every kind.
pub fn bind(socket: RawFd, name: &str) -> io::Result<()> {
    let text = CString::new(name)?;
    // SAFETY: `text` is a C string; a sockaddr_ll may be all zero and is read by the kernel to its length.
    unsafe {
        let mut address: libc::sockaddr_ll = zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = check(libc::if_nametoindex(text.as_ptr()) as c_int, name)?;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        check(libc::bind(socket, (&raw const address).cast(), len), "bind")?;
    }
    Ok(())
}
