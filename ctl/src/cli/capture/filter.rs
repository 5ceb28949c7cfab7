//! Filters in libpcap's language, by libpcap itself.
//!
//! The library is looked for when a filter is asked for, and not before: so the program needs no C library to be built or
//! run, and one that parses what users type is never in the daemon.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;

use libloading::Library;
use portolan::api::client::Failure;

/// By which names the library is found.
const NAMES: [&str; 3] = ["libpcap.so.0.8", "libpcap.so.1", "libpcap.so"];

/// DLT_EN10MB of libpcap: Ethernet.
const ETHERNET: c_int = 1;

/// Bytes of a packet that a filter may look at.
const SNAPLEN: c_int = 262_144;

/// PCAP_NETMASK_UNKNOWN: `ip broadcast` is refused then.
const NETMASK_UNKNOWN: c_uint = u32::MAX;

/// `struct bpf_program` of libpcap.
#[repr(C)]
struct Program {
    len: c_uint,
    instructions: *mut c_void,
}

/// `struct pcap_pkthdr` of libpcap.
#[repr(C)]
struct PacketHeader {
    time: libc::timeval,
    captured: c_uint,
    len: c_uint,
}

type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut c_void;
type Compile =
    unsafe extern "C" fn(*mut c_void, *mut Program, *const c_char, c_int, c_uint) -> c_int;
type GetError = unsafe extern "C" fn(*mut c_void) -> *mut c_char;
type Close = unsafe extern "C" fn(*mut c_void);
type FreeCode = unsafe extern "C" fn(*mut Program);
type OfflineFilter = unsafe extern "C" fn(*const Program, *const PacketHeader, *const u8) -> c_int;

/// A filter that was compiled.
pub(super) struct Filter {
    program: Program,
    run: OfflineFilter,
    free: FreeCode,
    /// The functions above are in it.
    _library: Library,
}

/// The library, where it is installed.
pub(super) fn library() -> Option<Library> {
    // SAFETY: libpcap's initialisers only set up the library itself.
    NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok())
}

impl Filter {
    /// Compiles an expression.
    ///
    /// # Errors
    /// The library is missing, or says what is wrong with the expression.
    pub(super) fn new(expression: &str) -> Result<Filter, Failure> {
        let library = library().ok_or_else(|| {
            Failure::new("--filter needs libpcap, which is not installed: install libpcap0.8")
        })?;
        let wanted = CString::new(expression)
            .map_err(|_| Failure::new("the filter holds a zero byte, which no filter does"))?;
        let missing = |error: libloading::Error| {
            Failure::new(format!("--filter needs another libpcap than is installed: {error}"))
        };
        // SAFETY: the types are those that libpcap's manual gives these functions.
        let (open, compile, explain, close, free, run) = unsafe {
            (
                *library.get::<OpenDead>(b"pcap_open_dead\0").map_err(missing)?,
                *library.get::<Compile>(b"pcap_compile\0").map_err(missing)?,
                *library.get::<GetError>(b"pcap_geterr\0").map_err(missing)?,
                *library.get::<Close>(b"pcap_close\0").map_err(missing)?,
                *library.get::<FreeCode>(b"pcap_freecode\0").map_err(missing)?,
                *library.get::<OfflineFilter>(b"pcap_offline_filter\0").map_err(missing)?,
            )
        };
        let mut program = Program { len: 0, instructions: ptr::null_mut() };
        // SAFETY: the handle lives until it is closed below; the program and the expression live across the call, and what
        // went wrong is copied before the handle that holds it is closed. A program does not need its handle.
        let compiled = unsafe {
            let handle = open(ETHERNET, SNAPLEN);
            if handle.is_null() {
                return Err(Failure::new("no memory for a filter"));
            }
            let code = compile(handle, &raw mut program, wanted.as_ptr(), 1, NETMASK_UNKNOWN);
            let why =
                (code != 0).then(|| CStr::from_ptr(explain(handle)).to_string_lossy().into_owned());
            close(handle);
            why
        };
        match compiled {
            Some(why) => Err(Failure::new(format!("the filter {expression:?}: {why}"))),
            None => Ok(Filter { program, run, free, _library: library }),
        }
    }

    /// Whether a packet of `len` bytes that begins with `data` passes.
    pub(super) fn matches(&self, data: &[u8], len: u32) -> bool {
        let captured = c_uint::try_from(data.len()).unwrap_or(c_uint::MAX);
        let time = libc::timeval { tv_sec: 0, tv_usec: 0 };
        let header = PacketHeader { time, captured, len };
        // SAFETY: all three live across the call, which reads no more of the packet than the header says there is.
        unsafe { (self.run)(&raw const self.program, &raw const header, data.as_ptr()) != 0 }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // SAFETY: libpcap compiled the program, and it is not used any more.
        unsafe { (self.free)(&raw mut self.program) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ARP request and the start of an IPv4 packet, as far as a filter looks.
    fn ethernet(ethertype: u16) -> Vec<u8> {
        let mut frame = vec![0xff; 12];
        frame.extend(ethertype.to_be_bytes());
        frame.resize(60, 0);
        frame
    }

    #[test]
    fn a_filter_passes_what_it_names_and_no_more() {
        let filter = Filter::new("arp").unwrap();
        assert!(filter.matches(&ethernet(0x0806), 60));
        assert!(!filter.matches(&ethernet(0x0800), 60));
        let long = Filter::new("greater 1000").unwrap();
        assert!(long.matches(&ethernet(0x0800), 1000));
        assert!(!long.matches(&ethernet(0x0800), 999));
    }

    #[test]
    fn what_was_cut_off_does_not_match() {
        let frame = ethernet(0x0806);
        for len in 0..14 {
            assert!(!Filter::new("arp").unwrap().matches(&frame[..len], 60), "{len}");
        }
    }

    #[test]
    fn a_bad_expression_is_refused_in_the_words_of_the_library() {
        let said = Filter::new("tcp prot 80").err().unwrap().message;
        assert!(said.contains("syntax error"), "{said}");
        assert!(Filter::new("ho\0st").is_err());
    }
}
