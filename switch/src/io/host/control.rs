//! Control messages: what goes and comes beside a datagram's payload.
//!
//! A control message is a header (length, level, type) with its data behind it, each message aligned to a word. Here they
//! are read and written as bytes, so that nothing the kernel says can lead outside of the buffer.

use std::mem::{offset_of, size_of};

use libc::c_int;
use portolan_nat::packet::bytes_at;

/// Bytes of a header.
const HEADER: usize = size_of::<libc::cmsghdr>();

/// Room for all that one call sends or receives: the largest is an extended error (16 bytes) with an IPv6 address beside
/// address, hop limit, class and segment size.
const ROOM: usize = 256;

/// To what messages are aligned.
const WORD: usize = size_of::<usize>();

/// A buffer of control messages.
#[repr(C, align(8))]
pub(super) struct Control {
    bytes: [u8; ROOM],
    /// Bytes that count.
    pub len: usize,
}

impl Control {
    /// Without messages, to be written.
    pub fn new() -> Control {
        Control { bytes: [0; ROOM], len: 0 }
    }

    /// Room for the kernel to write to: [`Control::len`] is how much.
    pub fn room() -> Control {
        Control { bytes: [0; ROOM], len: ROOM }
    }

    /// Where the messages start.
    pub fn as_ptr(&mut self) -> *mut libc::c_void {
        self.bytes.as_mut_ptr().cast()
    }

    /// Adds a message. All that one call needs has room.
    pub fn push(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let message = &mut self.bytes[self.len..][..(HEADER + data.len()).next_multiple_of(WORD)];
        self.len += message.len();
        message[offset_of!(libc::cmsghdr, cmsg_len)..][..WORD]
            .copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        message[offset_of!(libc::cmsghdr, cmsg_level)..][..4].copy_from_slice(&level.to_ne_bytes());
        message[offset_of!(libc::cmsghdr, cmsg_type)..][..4].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER..][..data.len()].copy_from_slice(data);
    }

    /// The messages: level, type and data.
    pub fn messages(&self) -> impl Iterator<Item = (c_int, c_int, &[u8])> {
        let mut rest = self.bytes.get(..self.len).unwrap_or_default();
        std::iter::from_fn(move || {
            let len = usize::from_ne_bytes(bytes_at(rest, offset_of!(libc::cmsghdr, cmsg_len))?);
            let level =
                c_int::from_ne_bytes(bytes_at(rest, offset_of!(libc::cmsghdr, cmsg_level))?);
            let kind = c_int::from_ne_bytes(bytes_at(rest, offset_of!(libc::cmsghdr, cmsg_type))?);
            let data = rest.get(HEADER..len)?;
            rest = len.checked_next_multiple_of(WORD).and_then(|at| rest.get(at..)).unwrap_or(&[]);
            Some((level, kind, data))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let mut control = Control::new();
        control.push(1, 2, &[3]);
        control.push(4, 5, &[6; 20]);
        control.push(7, 8, &[]);
        let all: Vec<_> = control.messages().collect();
        let expected: [(c_int, c_int, &[u8]); 3] = [(1, 2, &[3]), (4, 5, &[6; 20]), (7, 8, &[])];
        assert_eq!(all, expected);
        assert_eq!(control.len % WORD, 0);
    }

    #[test]
    fn a_message_that_leads_outside_ends_the_list() {
        let mut control = Control::new();
        control.push(1, 2, &[3; 8]);
        control.push(1, 2, &[3; 8]);
        for len in [0, HEADER - 1, 1000, usize::MAX] {
            let at = control.len / 2 + offset_of!(libc::cmsghdr, cmsg_len);
            control.bytes[at..at + WORD].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(control.messages().count(), 1, "{len}");
        }
        control.len = 1000;
        assert_eq!(control.messages().count(), 0);
    }
}
