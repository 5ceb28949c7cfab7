//! What the daemon tells whoever reads its log.

use std::fmt::Arguments;
use std::io::Write;

/// Writes one line to standard error. A line that cannot be written is lost: the pipe's reader may have gone, or the disk may be
/// full, and neither is a reason to stop.
pub fn say(line: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "portolan: {line}");
}
