//! Calls that fail, by chance or in turn.

use portolan_nat::sockets::host::Failure;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A call that can be told to fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Call {
    /// Beginning a connection.
    Connect,
    /// Asking what became of it.
    Connected,
    /// Taking one from a listener.
    Accept,
    /// Sending on a connection.
    Send,
    /// Reading without taking.
    Peek,
    /// Taking what was read.
    Discard,
    /// Saying that nothing follows.
    Finish,
    /// A socket for datagrams.
    Datagrams,
    /// A socket for echo requests.
    Pings,
    /// Sending a datagram.
    SendTo,
    /// Taking one.
    ReceiveFrom,
}

impl Call {
    /// All of them.
    pub const ALL: [Call; 11] = [
        Call::Connect,
        Call::Connected,
        Call::Accept,
        Call::Send,
        Call::Peek,
        Call::Discard,
        Call::Finish,
        Call::Datagrams,
        Call::Pings,
        Call::SendTo,
        Call::ReceiveFrom,
    ];
}

/// Which calls fail, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Which call.
    pub call: Call,
    /// Why it fails.
    pub failure: Failure,
    /// Of a thousand calls.
    pub per_mille: u32,
    /// How often at most.
    pub left: u32,
}

/// What goes wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Tried in this order; the first that strikes decides.
    pub rules: Vec<Rule>,
    /// Sends cut short, of a thousand.
    pub short_sends: u32,
    /// Peeks cut short, of a thousand.
    pub short_peeks: u32,
    /// Answers about the room to send that say less than there is, of a thousand.
    pub small_rooms: u32,
    /// Calls that failed so.
    pub struck: u64,
}

impl Faults {
    /// Whether a call fails, and why.
    pub(super) fn strike(&mut self, call: Call, random: &mut ChaCha8Rng) -> Option<Failure> {
        let of_call = |rule: &&mut Rule| rule.call == call && rule.left > 0;
        for rule in self.rules.iter_mut().filter(of_call) {
            if random.random_ratio(rule.per_mille.min(1000), 1000) {
                rule.left -= 1;
                self.struck += 1;
                return Some(rule.failure);
            }
        }
        None
    }
}

/// `len`, or less of it where chance has it so; at least one.
pub(super) fn shortened(len: usize, per_mille: u32, random: &mut ChaCha8Rng) -> usize {
    if len > 1 && per_mille > 0 && random.random_ratio(per_mille, 1000) {
        random.random_range(1..len)
    } else {
        len
    }
}
