//! Connections.

use super::*;

/// How a stream is peeked at.
const BOTH: [&str; 2] = ["", "peek-off"];

#[test]
fn bytes_go_both_ways_and_an_end_is_seen() {
    for (without, ipv6) in [("", false), ("", true), ("peek-off", false), ("peek-off", true)] {
        let mut bench = Bench::without(without);
        let (id, mut peer) = bench.pair(ipv6);
        assert_eq!(bench.host.send(id, &[b"one ", b"", b"two"]), Ok(7));
        let mut said = [0; 7];
        peer.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"one two");

        assert_eq!(bench.host.peek(id, 0, &mut [0; 9]), Err(Failure::WouldBlock));
        peer.write_all(b"answer").unwrap();
        assert_eq!(bench.peek_all(id, 0, 6), b"answer");
        assert_eq!(bench.peek_all(id, 2, 3), b"swe");
        assert_eq!(bench.host.peek(id, 6, &mut [0; 9]), Err(Failure::WouldBlock));
        bench.host.discard(id, 4).unwrap();
        assert_eq!(bench.peek_all(id, 0, 2), b"er");
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(bench.wait(|host| host.peek(id, 2, &mut [0; 9])), Ok(0));
        assert_eq!(bench.peek_all(id, 0, 2), b"er");
        bench.host.discard(id, 2).unwrap();
        assert_eq!(bench.wait(|host| host.peek(id, 0, &mut [0; 9])), Ok(0));

        assert_eq!(bench.host.send(id, &[b"!"]), Ok(1));
        bench.host.finish(id).unwrap();
        assert_eq!(peer.read(&mut said).unwrap(), 1);
        assert_eq!(peer.read(&mut said).unwrap(), 0);
        assert_eq!(bench.host.send(id, &[b"?"]), Err(Failure::Reset));
    }
}

#[test]
fn peeking_anywhere_in_any_order_shows_the_stream() {
    let all = chance(300_000, 1);
    for without in BOTH {
        let mut bench = Bench::without(without);
        let (id, mut peer) = bench.pair(false);
        let mut chance = ChaCha8Rng::seed_from_u64(2);
        let mut below = |n: usize| chance.next_u64() as usize % n;
        // A queue that is never quite empty may keep the memory of what was taken out of it, and so be full soon: each round
        // ends with none left.
        for mut left in all.chunks(20_000) {
            peer.write_all(left).unwrap();
            bench.peek_all(id, 0, left.len());
            while !left.is_empty() {
                let skip = below(left.len() + 1);
                let mut room = vec![0; 1 + below(30_000)];
                let expected = &left[skip..left.len().min(skip + room.len())];
                match bench.host.peek(id, skip, &mut room) {
                    Ok(count) => assert_eq!(&room[..count], expected),
                    Err(Failure::WouldBlock) => assert!(expected.is_empty()),
                    Err(failure) => panic!("{failure:?}"),
                }
                let gone = below(left.len() + 1).min(4000);
                bench.host.discard(id, gone).unwrap();
                left = &left[gone..];
            }
        }
        assert_eq!(bench.host.peek(id, 0, &mut [0]), Err(Failure::WouldBlock));
    }
}

#[test]
fn what_was_peeked_last_is_gone_on_from_without_a_word_to_the_kernel() {
    let mut bench = Bench::new();
    if !bench.host.features.peek_off {
        return;
    }
    let (id, mut peer) = bench.pair(false);
    peer.write_all(&[7; 100]).unwrap();
    bench.peek_all(id, 0, 60);
    assert_eq!(*bench.host.connection(id).unwrap().1, Peeking::Offset(Some(60)));
    bench.host.discard(id, 20).unwrap();
    assert_eq!(*bench.host.connection(id).unwrap().1, Peeking::Offset(Some(40)));
    let offset: c_int = get_option(
        bench.host.connection(id).unwrap().0.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_PEEK_OFF,
    )
    .unwrap();
    assert_eq!(offset, 40);
    bench.peek_all(id, 40, 40);
    bench.host.discard(id, 80).unwrap();
    assert_eq!(*bench.host.connection(id).unwrap().1, Peeking::Offset(Some(0)));
}

#[test]
fn a_refused_connection_is_told() {
    for ipv6 in [false, true] {
        let mut bench = Bench::new();
        let nobody = TcpListener::bind(any(ipv6)).unwrap().local_addr().unwrap();
        let refused = match bench.host.connect(nobody) {
            Ok(id) => {
                bench.news(id, |ready| ready.writable && ready.error);
                bench.wait(|host| host.connected(id))
            }
            Err(failure) => Err(failure),
        };
        assert_eq!(refused, Err(Failure::Refused));
    }
}

#[test]
fn an_address_without_a_way_is_told() {
    alone_as("io::host::tests::streams::an_address_without_a_way_is_told", || {
        ip("link set lo up");
        let mut bench = Bench::new();
        for to in ["192.0.2.1:9", "[2001:db8::1]:9"] {
            let failed = bench.host.connect(to.parse().unwrap());
            assert_eq!(failed, Err(Failure::NetUnreachable));
        }
    });
}

#[test]
fn a_reset_of_the_peer_comes_behind_what_it_had_sent() {
    for without in BOTH {
        let mut bench = Bench::without(without);
        let (id, mut peer) = bench.pair(false);
        peer.write_all(b"last words").unwrap();
        bench.peek_all(id, 0, 10);
        bench.listen(Duration::ZERO);
        while bench.host.next().is_some() {}
        tcp::end_abruptly(peer.as_fd(), true).unwrap();
        drop(peer);
        bench.news(id, |ready| ready.error);
        assert_eq!(bench.host.connected(id), Err(Failure::Reset));
        assert_eq!(bench.peek_all(id, 0, 10), b"last words");
        assert_eq!(bench.host.connected(id), Err(Failure::Reset));
        assert_eq!(bench.host.send(id, &[b"x"]), Err(Failure::Reset));
    }
}

#[test]
fn a_reset_of_ours_reaches_the_peer_and_a_close_delivers() {
    let mut bench = Bench::new();
    let (id, mut peer) = bench.pair(false);
    bench.host.reset(id);
    assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(bench.host.connected(id), Err(Failure::Other(libc::EBADF)));

    let (id, mut peer) = bench.pair(false);
    bench.host.send(id, &[b"bye"]).unwrap();
    bench.host.close(id);
    let mut said = Vec::new();
    peer.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"bye");
}

/// Whether closing the descriptor resets the connection.
fn ends_abruptly(bench: &mut Bench, id: SocketId) -> bool {
    let (socket, _) = bench.host.connection(id).unwrap();
    let linger: libc::linger =
        get_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER).unwrap();
    linger.l_onoff != 0 && linger.l_linger == 0
}

/// A connection that came to a listener, and its other end.
fn accepted(bench: &mut Bench) -> (SocketId, TcpStream) {
    let listener = TcpListener::bind(any(false)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    let door = bench.host.adopt(OwnedFd::from(listener)).unwrap();
    let peer = TcpStream::connect(at).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let accepted = bench.wait(|host| host.accept(door)).unwrap();
    bench.host.close(door);
    (accepted.socket, peer)
}

#[test]
fn a_connection_of_a_process_that_dies_is_reset() {
    for pair in [|bench: &mut Bench| bench.pair(false), accepted] {
        for peer_has_finished in [false, true] {
            let mut bench = Bench::new();
            let (id, mut peer) = pair(&mut bench);
            bench.host.send(id, &[b"half of"]).unwrap();
            let mut said = [0; 7];
            peer.read_exact(&mut said).unwrap();
            if peer_has_finished {
                peer.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!(bench.wait(|host| host.peek(id, 0, &mut [0])), Ok(0));
            }
            assert!(ends_abruptly(&mut bench, id));
            // What the kernel does for a process that is no more.
            drop(bench);
            let ended = peer.read(&mut said).unwrap_err();
            assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
        }
    }
}

#[test]
fn what_was_sent_before_the_end_is_delivered_whatever_becomes_of_the_process() {
    let bytes = chance(8 << 20, 3);
    for pair in [|bench: &mut Bench| bench.pair(false), accepted] {
        let mut bench = Bench::new();
        let (id, mut peer) = pair(&mut bench);
        let mut sent = 0;
        while let Ok(count) = bench.host.send(id, &[&bytes[sent..]]) {
            sent += count;
        }
        assert!(sent < bytes.len(), "some of it is on its way when the process dies");
        bench.host.finish(id).unwrap();
        assert!(!ends_abruptly(&mut bench, id));
        drop(bench);
        let mut said = Vec::new();
        peer.read_to_end(&mut said).unwrap();
        assert!(said == bytes[..sent], "{} of {sent} bytes came", said.len());
    }
}

#[test]
fn a_connection_that_is_closed_delivers_and_one_that_is_reset_does_not_whether_finished_or_not() {
    let bytes = chance(8 << 20, 4);
    for (finished, reset) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut bench = Bench::new();
        let (id, mut peer) = accepted(&mut bench);
        let mut sent = 0;
        while let Ok(count) = bench.host.send(id, &[&bytes[sent..]]) {
            sent += count;
        }
        if finished {
            bench.host.finish(id).unwrap();
        }
        if reset {
            bench.host.reset(id);
        } else {
            bench.host.close(id);
        }
        let mut said = Vec::new();
        let ended = peer.read_to_end(&mut said);
        if reset {
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        } else {
            assert_eq!(ended.unwrap(), sent);
            assert!(said == bytes[..sent]);
        }
    }
}

#[test]
fn whoever_comes_to_a_listener_is_shown_by_his_own_address() {
    let dual = |at: &str| TcpListener::bind(at).unwrap();
    for (listener, from) in [(dual("127.0.0.1:0"), LOCAL.into()), (dual("[::]:0"), LOCAL.into())]
        .into_iter()
        .chain([(dual("[::1]:0"), IpAddr::V6(Ipv6Addr::LOCALHOST))])
    {
        let mut bench = Bench::new();
        listener.set_nonblocking(true).unwrap();
        let at = SocketAddr::new(from, listener.local_addr().unwrap().port());
        let door = bench.host.adopt(OwnedFd::from(listener)).unwrap();
        assert_eq!(bench.host.accept(door), Err(Failure::WouldBlock));
        let mut client = TcpStream::connect(at).unwrap();
        let accepted = bench.wait(|host| host.accept(door)).unwrap();
        assert_eq!(accepted.peer, client.local_addr().unwrap());
        assert_eq!(bench.host.connected(accepted.socket), Ok(()));
        client.write_all(b"hi").unwrap();
        assert_eq!(bench.peek_all(accepted.socket, 0, 2), b"hi");
        let (socket, _) = bench.host.connection(accepted.socket).unwrap();
        for (level, option) in [
            (libc::IPPROTO_TCP, libc::TCP_NODELAY),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            (libc::SOL_SOCKET, libc::SO_OOBINLINE),
        ] {
            let value: c_int = get_option(socket.as_fd(), level, option).unwrap();
            assert_eq!(value, 1, "option {option} is inherited");
        }
        assert!(ends_abruptly(&mut bench, accepted.socket), "so is how it ends");
    }
}

#[test]
fn a_send_of_as_much_as_there_is_room_for_is_not_cut_short() {
    alone_as(
        "io::host::tests::streams::a_send_of_as_much_as_there_is_room_for_is_not_cut_short",
        || {
            for mtu in [65_536, 1500, 576] {
                ip(&format!("link set lo up mtu {mtu}"));
                for piece in [1, 100, 1448, 20_000, usize::MAX] {
                    send_what_there_is_room_for(piece);
                }
            }
        },
    );
}

fn send_what_there_is_room_for(piece: usize) {
    let mut bench = Bench::new();
    let (id, mut peer) = bench.pair(false);
    let bytes = vec![1; 8 << 20];
    let mut room = vec![0; 1 << 20];
    let mut sent = 0;
    for turn in 0..1000 {
        let space = bench.host.send_room(id);
        assert!(space.bytes <= space.buffer);
        let len = space.bytes.min(piece);
        if len > 0 {
            assert_eq!(bench.host.send(id, &[&bytes[..len]]), Ok(len), "behind {sent} bytes");
            sent += len;
        }
        if (len == 0 || turn % 5 == 0) && sent > 0 {
            sent -= peer.read(&mut room).unwrap();
        }
    }
}

#[test]
fn to_somebody_who_does_not_read_only_so_much_is_sent_ahead() {
    let mut bench = Bench::new();
    let (id, peer) = bench.pair(false);
    let small: c_int = 4096;
    set_option(peer.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, &small).unwrap();
    let bytes = vec![1; 1 << 20];
    let mut sent = 0;
    loop {
        let len = bench.host.send_room(id).bytes;
        if len == 0 {
            break;
        }
        assert_eq!(bench.host.send(id, &[&bytes[..len]]), Ok(len));
        sent += len;
    }
    assert!(sent < (2 << 20), "{sent} bytes were taken");
}

#[test]
fn a_full_connection_tells_when_there_is_room_again_and_its_buffer_grows() {
    let mut bench = Bench::new();
    let (id, mut peer) = bench.pair(false);
    let before = send_buffer(&mut bench, id);
    let bytes = vec![1; 1 << 20];
    let reader = std::thread::spawn(move || {
        let (mut all, mut room) = (0, vec![0; 1 << 20]);
        while let Ok(count @ 1..) = peer.read(&mut room) {
            all += count;
        }
        all
    });
    let mut sent = 0;
    while sent < 64 << 20 {
        let space = bench.host.send_room(id);
        let len = space.bytes.min(bytes.len());
        if space.bytes < space.buffer / 8 {
            while bench.host.next().is_some() {}
            // Only the edge that the asking has ordered can end this.
            let again = bench.host.send_room(id);
            if again.bytes < again.buffer / 8 {
                bench.news(id, |ready| ready.writable);
            }
            continue;
        }
        sent += bench.host.send(id, &[&bytes[..len]]).unwrap();
    }
    let after = send_buffer(&mut bench, id);
    bench.host.close(id);
    assert_eq!(reader.join().unwrap(), sent);
    assert!(after > before, "{after} bytes are no more than {before}");
}

/// The send buffer's size as the kernel has it, bytes.
fn send_buffer(bench: &mut Bench, id: SocketId) -> c_int {
    let (socket, _) = bench.host.connection(id).unwrap();
    get_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF).unwrap()
}

#[test]
fn sending_into_a_full_connection_is_refused_until_it_is_writable() {
    let mut bench = Bench::new();
    let (id, mut peer) = bench.pair(false);
    let bytes = vec![1; 1 << 20];
    let mut sent = 0;
    let refused = loop {
        match bench.host.send(id, &[&bytes]) {
            Ok(count) => sent += count,
            Err(failure) => break failure,
        }
    };
    assert_eq!(refused, Failure::WouldBlock);
    bench.listen(Duration::ZERO);
    while bench.host.next().is_some() {}
    let mut room = vec![0; sent];
    peer.read_exact(&mut room).unwrap();
    bench.news(id, |ready| ready.writable);
    assert_eq!(bench.host.send(id, &[b"more"]), Ok(4));
}
