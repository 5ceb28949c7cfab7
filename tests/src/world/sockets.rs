//! The host's sockets, as the IO edge and the control side bring them to the switch.

use std::net::SocketAddr;

use portolan_nat::sockets::host::SocketId;
use portolan_switch::command::PublicationId;
use portolan_switch::ids::PortId;

use super::World;

impl World {
    /// Tells the switch of the host's sockets, as the IO edge does: what has changed, and what was not done in one turn.
    pub(super) fn poll_sockets(&mut self) {
        self.host.advance(self.now);
        let mut news = std::mem::take(&mut self.again);
        news.extend(self.host.ready());
        for (socket, ready) in news {
            self.note(b'!', PortId(socket.0 as u32), &[]);
            let more =
                self.turn(|datapath, turn, now| datapath.handle_socket(socket, ready, turn, now));
            if more {
                self.again.push((socket, ready));
            }
        }
    }

    /// Puts a socket of the host behind a publication, as the control side does: a listener, or one for datagrams.
    pub fn open_door(&mut self, id: PublicationId, local: SocketAddr, udp: bool) -> SocketId {
        let socket = if udp { self.host.bind(local) } else { self.host.listen(local) };
        self.datapath.listen(id, socket, local);
        socket
    }
}
