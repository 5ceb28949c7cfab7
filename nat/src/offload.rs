//! What the sender of a packet left for a device to do.

/// Who owes the transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// The sender left it to the device: the one's complement sum from `start` to the end of the frame is still to be
    /// stored at `start + offset`; the field holds the pseudo header's sum. Both count from the first byte of the slice that the packet lies in.
    Partial {
        /// Where summing starts.
        start: u16,
        /// Where the sum goes, from `start`.
        offset: u16,
    },
    /// Somebody below has verified it.
    Verified,
    /// It is in the frame, and nobody has looked.
    #[default]
    Unverified,
}

/// What kind of superframe this is, and so how it is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either: every segment is a datagram of its own.
    UdpL4,
}

/// A superframe: one frame that stands for many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gso {
    /// How it is cut.
    pub kind: GsoKind,
    /// Transport payload bytes of each segment but the last, never 0.
    pub size: u16,
    /// Bytes of all headers, which each segment repeats; counts from the first byte of the slice that the packet lies in.
    pub hdr_len: u16,
    /// TCP only: the CWR flag belongs to the first segment alone (RFC 3168).
    pub ecn: bool,
}

/// What the sender left for a device to do. From a guest it is input like any other: only
/// the switch's reader of virtio_net_hdr makes one of a virtio_net_hdr, and it checks every field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// Who owes the transport checksum.
    pub csum: Checksum,
    /// Whether this is a superframe.
    pub gso: Option<Gso>,
}
