//! How large the terminal is that stdout leads to.

use std::io::{IsTerminal, stdout};
use std::os::fd::AsRawFd;

/// Columns and rows of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Characters in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

/// The size of the terminal; none where stdout is none, or it does not tell.
pub fn size() -> Option<Size> {
    let out = stdout();
    if !out.is_terminal() {
        return None;
    }
    let mut told = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open as long as the process, and the kernel fills in no more than a winsize.
    let done = unsafe { libc::ioctl(out.as_raw_fd(), libc::TIOCGWINSZ, &raw mut told) };
    let size = Size { columns: told.ws_col.into(), rows: told.ws_row.into() };
    (done == 0 && size.columns > 0 && size.rows > 0).then_some(size)
}
