//! The host's sockets on loopback, against the standard library's at the other end.

#![allow(
    clippy::disallowed_methods,
    reason = "what waits for a real kernel needs a deadline by a real clock"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use portolan_nat::sockets::host::QUOTE_MAX;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::io::tests::{alone_as, ip};

const PATIENCE: Duration = Duration::from_secs(5);
const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A host, and the poll its sockets are watched by.
struct Bench {
    poll: Poll,
    host: HostSockets,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Features::probe())
    }

    fn without(words: &str) -> Bench {
        Bench::with(Features::probe().without(words).unwrap())
    }

    fn with(features: Features) -> Bench {
        let poll = Poll::new().unwrap();
        let host = HostSockets::new(poll.registry().try_clone().unwrap(), features);
        Bench { poll, host }
    }

    /// Takes what there is to be told, waiting at most so long for something.
    fn listen(&mut self, patience: Duration) {
        let mut events = Events::with_capacity(16);
        self.poll.poll(&mut events, Some(patience)).unwrap();
        for event in &events {
            let id = socket_of(event.token()).expect("only sockets are watched");
            let ready = Ready {
                readable: event.is_readable() || event.is_read_closed(),
                writable: event.is_writable() || event.is_write_closed(),
                error: event.is_error(),
            };
            self.host.tell(id, ready);
        }
    }

    /// Does it again whenever something was told, until it is done.
    fn until<T>(&mut self, mut step: impl FnMut(&mut HostSockets) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(done) = step(&mut self.host) {
                return done;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing came of it");
            self.listen(left);
        }
    }

    /// As [`Bench::until`], of a call that says itself that it must wait.
    fn wait<T>(
        &mut self,
        mut call: impl FnMut(&mut HostSockets) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.until(|host| match call(host) {
            Err(Failure::WouldBlock) => None,
            done => Some(done),
        })
    }

    /// The socket's news, once it has some of that kind.
    fn news(&mut self, id: SocketId, wanted: fn(Ready) -> bool) {
        self.until(|host| {
            while let Some((told, ready)) = host.next() {
                if told == id && wanted(ready) {
                    return Some(());
                }
            }
            None
        });
    }

    /// A connection, and its other end.
    fn pair(&mut self, ipv6: bool) -> (SocketId, TcpStream) {
        let listener = TcpListener::bind(any(ipv6)).unwrap();
        let id = self.host.connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.set_write_timeout(Some(PATIENCE)).unwrap();
        self.wait(|host| host.connected(id)).unwrap();
        (id, peer)
    }

    /// What lies in the stream behind `skip`, as much as there is room for, once so much has come.
    fn peek_all(&mut self, id: SocketId, skip: usize, len: usize) -> Vec<u8> {
        let mut room = vec![0; len];
        self.until(|host| match host.peek(id, skip, &mut room) {
            Ok(count) if count == len => Some(()),
            Ok(_) | Err(Failure::WouldBlock) => None,
            Err(failure) => panic!("{failure:?}"),
        });
        room
    }
}

fn any(ipv6: bool) -> SocketAddr {
    let ip: IpAddr = if ipv6 { Ipv6Addr::LOCALHOST.into() } else { LOCAL.into() };
    (ip, 0).into()
}

fn chance(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Runs `body` in a process of its own, since it changes what all threads have.
fn apart(test: &str, body: fn()) {
    const APART: &str = "PORTOLAN_TEST_APART";
    if std::env::var_os(APART).is_some() {
        return body();
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([&format!("io::host::tests::{test}"), "--exact", "--nocapture"])
        .env(APART, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its process");
}

/// A plain datagram to somebody.
fn plain(to: SocketAddr) -> Outgoing {
    Outgoing { to, from: None, hop_limit: 64, traffic_class: 0, dont_fragment: true, segment: None }
}

fn udp(ipv6: bool) -> UdpSocket {
    let socket = UdpSocket::bind(any(ipv6)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A port on which nobody listens. Whoever might take it meanwhile would have to be given it by chance.
fn closed_port(ipv6: bool) -> SocketAddr {
    UdpSocket::bind(any(ipv6)).unwrap().local_addr().unwrap()
}

mod datagrams;
mod streams;

#[test]
fn an_id_is_never_given_out_twice_and_news_of_the_closed_are_forgotten() {
    let mut bench = Bench::new();
    let first = bench.host.datagrams(false).unwrap();
    bench.host.tell(first, Ready { readable: true, ..Ready::default() });
    bench.host.close(first);
    let second = bench.host.datagrams(false).unwrap();
    assert_eq!(place(first), place(second));
    assert_ne!(first, second);
    bench.host.tell(first, Ready { readable: true, ..Ready::default() });
    assert_eq!(bench.host.next(), None);
    assert_eq!(
        bench.host.send_to(first, &plain(any(false)), b"x"),
        Err(Failure::Other(libc::EBADF))
    );
    bench.host.close(first);
    bench.host.tell(second, Ready { error: true, ..Ready::default() });
    bench.host.tell(second, Ready { writable: true, ..Ready::default() });
    let both = Ready { writable: true, error: true, ..Ready::default() };
    assert_eq!(bench.host.next(), Some((second, both)));
    assert_eq!(bench.host.next(), None);
}

#[test]
fn a_call_on_a_socket_of_another_kind_fails() {
    let mut bench = Bench::new();
    let datagrams = bench.host.datagrams(false).unwrap();
    let wrong = Failure::Other(libc::EBADF);
    assert_eq!(bench.host.peek(datagrams, 0, &mut [0]), Err(wrong));
    assert_eq!(bench.host.accept(datagrams), Err(wrong));
    assert_eq!(bench.host.send_room(datagrams).buffer, 0);
    let (connection, _peer) = bench.pair(false);
    assert_eq!(bench.host.receive_from(connection, &mut [0]), Err(wrong));
    assert_eq!(bench.host.complaint(connection), None);
}

#[test]
fn without_ipv6_its_sockets_are_refused() {
    let mut bench = Bench::without("ipv6");
    assert_eq!(bench.host.connect(any(true)), Err(Failure::Unsupported));
    assert_eq!(bench.host.datagrams(true), Err(Failure::Unsupported));
    assert_eq!(bench.host.pings(true), Err(Failure::Forbidden));
}

#[test]
fn out_of_descriptors_whoever_waits_is_turned_away_and_the_rest_goes_on() {
    apart("out_of_descriptors_whoever_waits_is_turned_away_and_the_rest_goes_on", || {
        let mut bench = Bench::new();
        let listener = TcpListener::bind(any(false)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        let door = bench.host.adopt(OwnedFd::from(listener)).unwrap();
        let mut clients: Vec<_> = (0..2).map(|_| TcpStream::connect(at).unwrap()).collect();
        let mut held = Vec::new();
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: the kernel reads the limit, which lives across the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        while let Ok(file) = std::fs::File::open("/dev/null") {
            held.push(file);
        }
        assert_eq!(bench.wait(|host| host.accept(door)), Err(Failure::TooManyFiles));
        let ended = clients[0].read(&mut [0]).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(bench.host.connect(at), Err(Failure::TooManyFiles));
        assert_eq!(bench.host.datagrams(false), Err(Failure::TooManyFiles));
        bench.host.spare = None;
        held.push(std::fs::File::open("/dev/null").unwrap());
        assert_eq!(
            bench.host.accept(door),
            Err(Failure::TooManyFiles),
            "nobody can be sent away either, and whoever waits will not be told of again"
        );
        held.truncate(held.len() - 2);
        let accepted = bench.wait(|host| host.accept(door)).unwrap();
        assert_eq!(accepted.peer, clients[1].local_addr().unwrap());
        assert_eq!(bench.host.accept(door), Err(Failure::WouldBlock));
        bench.host.send(accepted.socket, &[b"hello"]).unwrap();
        let mut said = [0; 5];
        clients[1].read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
    });
}
