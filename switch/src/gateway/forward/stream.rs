//! A question over a connection of the host.

use portolan_nat::sockets::host::{Failure, Host, SocketId};

use crate::gateway::dns_tcp::{PREFIX_LEN, framed_len};

/// A question on a connection.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) socket: SocketId,
    made: bool,
    /// What is to be sent, its length first, and how much of it was.
    query: Vec<u8>,
    sent: usize,
    /// What has come of the reply, its length first.
    reply: Vec<u8>,
}

impl Stream {
    /// A connection that has been begun, to ask `query`, its length first.
    pub(super) fn new(socket: SocketId, query: Vec<u8>) -> Stream {
        Stream { socket, made: false, query, sent: 0, reply: Vec::new() }
    }

    /// Goes on as far as it can; the reply once it is whole.
    pub(super) fn proceed(&mut self, host: &mut dyn Host) -> Result<Option<Vec<u8>>, Failure> {
        let waits = |failure| if failure == Failure::WouldBlock { Ok(None) } else { Err(failure) };
        if !self.made {
            if let Err(failure) = host.connected(self.socket) {
                return waits(failure);
            }
            self.made = true;
        }
        while let Some(rest) = self.query.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match host.send(self.socket, &[rest]) {
                Ok(0) => return Err(Failure::Reset),
                Ok(sent) => self.sent += sent,
                Err(Failure::WouldBlock) => break,
                Err(failure) => return Err(failure),
            }
        }
        loop {
            let wanted = framed_len(&self.reply);
            let held = self.reply.len();
            if held >= PREFIX_LEN && held == wanted {
                return Ok(Some(self.reply.split_off(PREFIX_LEN)));
            }
            self.reply.resize(wanted, 0);
            let read = host.peek(self.socket, 0, &mut self.reply[held..]);
            let count = *read.as_ref().unwrap_or(&0);
            self.reply.truncate(held + count);
            match read {
                Ok(0) => return Err(Failure::Reset),
                Ok(count) => host.discard(self.socket, count)?,
                Err(failure) => return waits(failure),
            }
        }
    }
}
