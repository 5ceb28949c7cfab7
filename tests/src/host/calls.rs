//! The calls that the core makes.

use std::net::SocketAddr;
use std::time::Duration;

use portolan_nat::sockets::host::{
    Accepted, Complaint, Failure, Host, Incoming, Outgoing, SendRoom, SocketId,
};

use super::datagram::{self, Arrived, Kind};
use super::faults::{self, Call};
use super::peer::{Answer, Closing, Mail, Peer};
use super::stream::{Happening, Later, Stream};
use super::{Due, SimHost, Socket, WAY, host_of, listens};

impl Host for SimHost {
    fn connect(&mut self, to: SocketAddr) -> Result<SocketId, Failure> {
        self.check_target(to.ip());
        self.strike(Call::Connect)?;
        self.check_descriptors()?;
        let ends = (SocketAddr::new(host_of(to.is_ipv6()), self.port()), to);
        let listener = self.sockets.values().any(|socket| match socket {
            Socket::Listener { local, .. } => listens(*local, to),
            _ => false,
        });
        let own = host_of(to.is_ipv6()) == to.ip() || to.ip().is_loopback();
        let nobody = Peer::that_answers(if own { Answer::Refuse } else { Answer::Never });
        let peer = self.peers.get(&to).or(self.anybody.as_ref()).cloned().unwrap_or(nobody);
        let id = if listener && own {
            let half = Peer { closing: Closing::Never, buffer: self.buffers.1, ..Peer::default() };
            let near = self.new_stream(half.clone(), ends);
            let far = self.new_stream(half, (to, ends.0));
            self.halves.insert(near, far);
            self.halves.insert(far, near);
            self.note(WAY, Due::Comes(far));
            near
        } else {
            self.new_stream(peer, ends)
        };
        self.connects.push((to, id));
        let after = self.streams[&id].answers_after();
        self.note(after, Due::Stream(id, Happening::Answered));
        Ok(self.open(Socket::Stream(id)))
    }

    fn connected(&mut self, socket: SocketId) -> Result<(), Failure> {
        self.stream_of(socket);
        self.strike_at(Call::Connected, socket)?;
        self.stream_of(socket).1.connected()
    }

    fn accept(&mut self, listener: SocketId) -> Result<Accepted, Failure> {
        self.strike_at(Call::Accept, listener)?;
        let Some(Socket::Listener { waiting, .. }) = self.sockets.get_mut(&listener) else {
            panic!("{listener:?} is no listener");
        };
        let id = waiting.front().copied().ok_or(Failure::WouldBlock)?;
        if self.sockets.len() >= self.descriptors {
            return Err(Failure::TooManyFiles);
        }
        let Some(Socket::Listener { waiting, .. }) = self.sockets.get_mut(&listener) else {
            unreachable!("found above");
        };
        waiting.pop_front();
        let socket = self.open(Socket::Stream(id));
        let stream = &self.streams[&id];
        Ok(Accepted { socket, peer: stream.remote })
    }

    fn send(&mut self, socket: SocketId, parts: &[&[u8]]) -> Result<usize, Failure> {
        self.stream_of(socket);
        self.strike_at(Call::Send, socket)?;
        let bytes = parts.concat();
        assert!(!bytes.is_empty(), "nothing is sent to {socket:?}");
        let len = faults::shortened(bytes.len(), self.faults.short_sends, &mut self.random);
        let mut later = Later::new();
        let (id, stream) = self.stream_of(socket);
        let sent = stream.send(&bytes[..len], &mut later);
        if len < bytes.len() {
            stream.wait_for_room();
            self.note(Duration::from_millis(2), Due::Wake(socket));
        }
        self.note_stream(id, later);
        sent
    }

    fn send_room(&mut self, socket: SocketId) -> SendRoom {
        self.calls += 1;
        let (bytes, buffer) = self.stream_of(socket).1.ask_room();
        let small = faults::shortened(bytes, self.faults.small_rooms, &mut self.random);
        if small < bytes {
            self.stream_of(socket).1.wait_for_room();
            self.note(Duration::from_millis(2), Due::Wake(socket));
        }
        SendRoom { bytes: small, buffer }
    }

    fn peek(&mut self, socket: SocketId, skip: usize, room: &mut [u8]) -> Result<usize, Failure> {
        self.stream_of(socket);
        assert!(!room.is_empty(), "no room to read {socket:?} into");
        self.strike_at(Call::Peek, socket)?;
        let len = faults::shortened(room.len(), self.faults.short_peeks, &mut self.random);
        self.stream_of(socket).1.peek(skip, &mut room[..len])
    }

    fn discard(&mut self, socket: SocketId, count: usize) -> Result<(), Failure> {
        self.stream_of(socket);
        self.strike_at(Call::Discard, socket)?;
        let mut later = Later::new();
        let (id, stream) = self.stream_of(socket);
        let result = stream.discard(count, &mut later);
        self.note_stream(id, later);
        result
    }

    fn finish(&mut self, socket: SocketId) -> Result<(), Failure> {
        self.stream_of(socket);
        self.strike_at(Call::Finish, socket)?;
        let mut later = Later::new();
        let (id, stream) = self.stream_of(socket);
        let result = stream.finish(&mut later);
        self.note_stream(id, later);
        result
    }

    fn reset(&mut self, socket: SocketId) {
        self.stream_of(socket);
        self.end(socket, Stream::abort);
    }

    fn close(&mut self, socket: SocketId) {
        let listens = matches!(self.sockets.get(&socket), Some(Socket::Listener { .. }));
        self.end(socket, if listens { Stream::abort } else { Stream::close });
    }

    fn datagrams(&mut self, ipv6: bool) -> Result<SocketId, Failure> {
        self.strike(Call::Datagrams)?;
        self.new_datagrams(Kind::Udp, ipv6)
    }

    fn pings(&mut self, ipv6: bool) -> Result<SocketId, Failure> {
        self.strike(Call::Pings)?;
        self.new_datagrams(Kind::Ping, ipv6)
    }

    fn send_to(
        &mut self,
        socket: SocketId,
        outgoing: &Outgoing,
        payload: &[u8],
    ) -> Result<(), Failure> {
        self.check_target(outgoing.to.ip());
        self.strike_at(Call::SendTo, socket)?;
        let Some(Socket::Datagrams(datagrams)) = self.sockets.get(&socket) else {
            panic!("{socket:?} takes no datagrams");
        };
        datagrams.takes(outgoing, payload)?;
        let (ipv6, port, kind) = (datagrams.ipv6, datagrams.port, datagrams.kind);
        let size = outgoing.segment.map_or(payload.len().max(1), usize::from);
        let headers = if ipv6 { 48 } else { 28 };
        if outgoing.dont_fragment && size.min(payload.len()) + headers > self.path_mtu {
            let kind = if ipv6 { (2, 0) } else { (3, 4) };
            let mtu = self.path_mtu as u32;
            let said = datagram::complaint(outgoing.to, None, (kind, mtu), payload);
            self.note(Duration::ZERO, Due::Complaint(socket, said));
            return Err(Failure::TooBig);
        }
        let from = SocketAddr::new(outgoing.from.unwrap_or(host_of(ipv6)), port);
        let one = |payload: &[u8]| Mail {
            from,
            to: outgoing.to,
            hop_limit: outgoing.hop_limit,
            traffic_class: outgoing.traffic_class,
            dont_fragment: outgoing.dont_fragment,
            payload: payload.to_vec(),
        };
        let mail: Vec<Mail> = match payload {
            [] => vec![one(payload)],
            _ => payload.chunks(size).map(one).collect(),
        };
        // What is sent to the host's own address arrives there.
        if kind == Kind::Udp && outgoing.to.ip() == host_of(ipv6) {
            let arrived = Arrived {
                from,
                to: outgoing.to.ip(),
                segment: outgoing.segment,
                payload: payload.to_vec(),
            };
            let port = outgoing.to.port();
            self.note(WAY, Due::Datagram { ipv6, port, kind, arrived });
        } else {
            self.answer(socket, outgoing, &mail, payload);
        }
        self.mail.extend(mail);
        Ok(())
    }

    fn receive_from(&mut self, socket: SocketId, room: &mut [u8]) -> Result<Incoming, Failure> {
        self.strike_at(Call::ReceiveFrom, socket)?;
        match self.sockets.get_mut(&socket) {
            Some(Socket::Datagrams(datagrams)) => datagrams.receive(room),
            other => panic!("{socket:?} takes no datagrams: {other:?}"),
        }
    }

    fn complaint(&mut self, socket: SocketId) -> Option<Complaint> {
        match self.sockets.get_mut(&socket) {
            Some(Socket::Datagrams(datagrams)) => datagrams.complaints.pop_front(),
            other => panic!("{socket:?} takes no datagrams: {other:?}"),
        }
    }
}
