//! What a walker is to do.

/// How it opens its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// By a SYN of its own.
    Active,
    /// It waits for one.
    Passive,
    /// It sends one, but only once it has seen that of the other side, as if the two had met on the way.
    Simultaneous,
    /// It refuses whoever comes.
    Refusing,
}

/// What it is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How it begins.
    pub opening: Opening,
    /// What it says.
    pub say: Vec<u8>,
    /// Whether it closes once it has said all; else after the other side.
    pub closes_first: bool,
    /// Resets the connection once it has said and heard so many bytes.
    pub resets_at: Option<u64>,
    /// Falls silent for good once it has said and heard so many bytes.
    pub silent_at: Option<u64>,
    /// Bytes it takes before it reads.
    pub buffer: usize,
    /// The largest segment it says it takes; none where it does not say.
    pub mss: Option<u16>,
    /// By how much it scales windows; none where it does not offer to.
    pub scale: Option<u8>,
    /// Whether it sends superframes.
    pub superframes: bool,
    /// Whether it sends segments that nobody should take.
    pub strays: bool,
    /// And SYNs among them.
    pub stray_syns: bool,
}
