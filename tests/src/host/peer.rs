//! What sits outside: programs at the far ends of connections, and those that datagrams go to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What becomes of a connection that the host begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Answer {
    /// It is taken.
    #[default]
    Accept,
    /// It is refused.
    Refuse,
    /// No way leads to that network.
    NetUnreachable,
    /// No way leads to that host.
    HostUnreachable,
    /// Nothing comes back; the host gives up after two minutes.
    Never,
}

/// How a program reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reading {
    /// Whatever has come, at once.
    #[default]
    AtOnce,
    /// So many bytes at most, and so often.
    Slowly {
        /// At a time.
        bytes: usize,
        /// From one time to the next.
        every: Duration,
    },
}

/// When a program says that it has said all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Closing {
    /// Once it has.
    WhenSaid,
    /// Not before the other side did.
    #[default]
    AfterTheOther,
    /// Never.
    Never,
}

/// A program at the far end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Whether it can be reached.
    pub answer: Answer,
    /// How long it takes to answer, beyond what the way takes.
    pub after: Duration,
    /// What it says unasked.
    pub say: Vec<u8>,
    /// Whether it says what it hears.
    pub echoes: bool,
    /// How it reads.
    pub reading: Reading,
    /// When it closes.
    pub closing: Closing,
    /// Resets the connection once it has heard so many bytes.
    pub resets_at: Option<usize>,
    /// Bytes it may be sent before it reads.
    pub buffer: usize,
    /// How long the way takes, in one direction.
    pub delay: Duration,
}

impl Default for Peer {
    fn default() -> Peer {
        Peer {
            answer: Answer::Accept,
            after: Duration::ZERO,
            say: Vec::new(),
            echoes: false,
            reading: Reading::AtOnce,
            closing: Closing::AfterTheOther,
            resets_at: None,
            buffer: 1 << 17,
            delay: Duration::from_micros(200),
        }
    }
}

impl Peer {
    /// Hears everything and says nothing; closes after the other.
    pub fn sink() -> Peer {
        Peer::default()
    }

    /// Says what it hears.
    pub fn echo() -> Peer {
        Peer { echoes: true, ..Peer::default() }
    }

    /// Says this, and closes behind it.
    pub fn source(say: Vec<u8>) -> Peer {
        Peer { say, closing: Closing::WhenSaid, ..Peer::default() }
    }

    /// Answers a connection in this way.
    pub fn that_answers(answer: Answer) -> Peer {
        Peer { answer, ..Peer::default() }
    }
}

/// Who takes datagrams and echo requests at an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Talker {
    /// Sends them back.
    Echo,
    /// Sends them back, all that came as one train as one train.
    EchoTrain,
    /// Sends them back from another address and port.
    EchoFrom(SocketAddr),
    /// Says nothing.
    Silent,
    /// Somebody complains: the destination itself where there is no other, by ICMP type and code.
    Complains {
        /// Who.
        from: Option<IpAddr>,
        /// Type and code.
        kind: (u8, u8),
    },
    /// Answers each with these.
    Replies(Vec<Vec<u8>>),
}

/// One datagram that has left the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mail {
    /// The host's address and port; of an echo request, the id.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// Hops it may take.
    pub hop_limit: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Not to be fragmented.
    pub dont_fragment: bool,
    /// Its payload.
    pub payload: Vec<u8>,
}
