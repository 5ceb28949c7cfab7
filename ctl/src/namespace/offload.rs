//! Offloads of an interface, by the ethtool ioctl.
//!
//! What a node hands to its interface arrives on our packet socket with a virtio-net header. That header can say "TCP or
//! UDP segments of this size" and "checksum missing here", and nothing else: a superframe inside a tunnel, an SCTP
//! checksum or an ESP segment cannot be told. So the interface must not promise them to the node's stack.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// SIOCETHTOOL (linux/sockios.h).
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// ETHTOOL_GSSET_INFO, ETHTOOL_GSTRINGS, ETHTOOL_SFEATURES (linux/ethtool.h).
const GET_SET_INFO: u32 = 0x37;
const GET_STRINGS: u32 = 0x1b;
const SET_FEATURES: u32 = 0x3b;
/// ETH_SS_FEATURES: the set of feature names.
const SET_OF_FEATURES: u32 = 4;
/// ETH_GSTRING_LEN: bytes of a name.
const NAME_BYTES: usize = 32;
/// More features than any kernel has.
const FEATURES_MAX: usize = 512;

/// What the header cannot express.
const INEXPRESSIBLE: [&str; 14] = [
    "tx-checksum-sctp",
    "tx-sctp-segmentation",
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-gso-partial",
    "tx-tunnel-remcsum-segmentation",
    "tx-esp-segmentation",
    "tx-gso-list",
    "esp-hw-offload",
    "esp-tx-csum-hw-offload",
];

/// UDP superframes: a packet socket can express them since Linux 6.2.
const UDP_SUPERFRAMES: &str = "tx-udp-segmentation";

/// Turns off, on the interface `name` of this thread's network namespace, what the vnet header cannot express, and where
/// `udp` is false UDP segmentation too. Features that this kernel does not have are none to turn off.
pub fn only_expressible(name: &str, udp: bool) -> io::Result<()> {
    let control = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let names = feature_names(&control, name)?;
    let blocks = names.len().div_ceil(32);
    let mut command = words(&[SET_FEATURES, blocks as u32]);
    for block in 0..blocks {
        let unwanted = (0..32).filter(|bit| {
            let feature = names.get(block * 32 + bit).map_or("", String::as_str);
            INEXPRESSIBLE.contains(&feature) || (!udp && feature == UDP_SUPERFRAMES)
        });
        let mask: u32 = unwanted.map(|bit| 1 << bit).sum();
        command.extend(words(&[mask, 0]));
    }
    ethtool(&control, name, &mut command)
}

fn feature_names(control: &impl AsRawFd, name: &str) -> io::Result<Vec<String>> {
    // struct ethtool_sset_info: cmd, reserved, sset_mask (u64), data[].
    let mut info = words(&[GET_SET_INFO, 0]);
    info.extend((1u64 << SET_OF_FEATURES).to_ne_bytes());
    info.extend([0; 4]);
    ethtool(control, name, &mut info)?;
    let count = info
        .get(16..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u32::from_ne_bytes(*word));
    let count = (count as usize).min(FEATURES_MAX);
    let mut strings = words(&[GET_STRINGS, SET_OF_FEATURES, count as u32]);
    // The kernel writes as many names as it has, whatever the length says: the room is for the most there can be.
    strings.resize(12 + FEATURES_MAX * NAME_BYTES, 0);
    ethtool(control, name, &mut strings)?;
    let names = strings[12..].chunks_exact(NAME_BYTES).take(count);
    Ok(names
        .map(|raw| {
            String::from_utf8_lossy(raw.split(|byte| *byte == 0).next().unwrap_or(raw)).into_owned()
        })
        .collect())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn ethtool(control: &impl AsRawFd, name: &str, command: &mut [u8]) -> io::Result<()> {
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        data: *mut u8,
        rest: [u8; 16],
    }
    let mut request =
        Request { name: [0; libc::IFNAMSIZ], data: command.as_mut_ptr(), rest: [0; 16] };
    let length = name.len().min(libc::IFNAMSIZ - 1);
    request.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    // SAFETY: `request` is laid out as struct ifreq and lives through the call; `data` points to a buffer that is as long as
    // the command in it says (for the names: as long as the kernel can fill).
    let result = unsafe { libc::ioctl(control.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
