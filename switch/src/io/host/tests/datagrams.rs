//! Datagrams, echo requests, and what comes back for them.

use super::*;

/// Takes one datagram.
fn receive(bench: &mut Bench, id: SocketId) -> (Incoming, Vec<u8>) {
    let mut room = vec![0; 65_536];
    let incoming = bench.wait(|host| host.receive_from(id, &mut room)).unwrap();
    room.truncate(incoming.len);
    (incoming, room)
}

/// A published socket, bound to an address of the host.
fn door(bench: &mut Bench, at: SocketAddr) -> (SocketId, SocketAddr) {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_nonblocking(true).unwrap();
    let local = socket.local_addr().unwrap();
    (bench.host.adopt(OwnedFd::from(socket)).unwrap(), local)
}

#[test]
fn a_datagram_keeps_all_that_belongs_to_it() {
    for ipv6 in [false, true] {
        let mut bench = Bench::new();
        let (door, at) = door(&mut bench, any(ipv6));
        let sender = bench.host.datagrams(ipv6).unwrap();
        let outgoing = Outgoing { hop_limit: 7, traffic_class: 0xb9, ..plain(at) };
        bench.host.send_to(sender, &outgoing, b"question").unwrap();
        let (question, payload) = receive(&mut bench, door);
        assert_eq!(payload, b"question");
        assert_eq!((question.to, question.len), (at.ip(), 8));
        assert_eq!((question.hop_limit, question.traffic_class), (Some(7), 0xb9));
        assert_eq!((question.segment, question.truncated), (None, false));
        bench.host.send_to(door, &plain(question.from), b"").unwrap();
        let (answer, payload) = receive(&mut bench, sender);
        assert_eq!((answer.from, answer.len, payload), (at, 0, Vec::new()));
        assert_eq!(bench.host.receive_from(sender, &mut [0]), Err(Failure::WouldBlock));
    }
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let mut bench = Bench::new();
    for (bound, asked) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "127.0.0.2"), ("[::]:0", "::1")] {
        let (door, local) = door(&mut bench, bound.parse().unwrap());
        let asked = SocketAddr::new(asked.parse().unwrap(), local.port());
        let client = udp(asked.is_ipv6());
        client.send_to(b"?", asked).unwrap();
        let (question, _) = receive(&mut bench, door);
        assert_eq!(question.to, asked.ip());
        assert_eq!(question.from, client.local_addr().unwrap());
        let outgoing = Outgoing { from: Some(question.to), ..plain(question.from) };
        bench.host.send_to(door, &outgoing, b"!").unwrap();
        let mut room = [0; 2];
        assert_eq!(client.recv_from(&mut room).unwrap(), (1, asked));
    }
    let sender = bench.host.datagrams(false).unwrap();
    let from = Some(IpAddr::from([192, 0, 2, 1]));
    let outgoing = Outgoing { from, ..plain(closed_port(false)) };
    assert!(bench.host.send_to(sender, &outgoing, b"?").is_err(), "not an address of this host");
}

#[test]
fn room_that_does_not_suffice_is_told() {
    let mut bench = Bench::new();
    let (door, at) = door(&mut bench, any(false));
    udp(false).send_to(b"more than four", at).unwrap();
    let mut room = [0; 4];
    let incoming = bench.wait(|host| host.receive_from(door, &mut room)).unwrap();
    assert_eq!((&room, incoming.len, incoming.truncated), (b"more", 4, true));
}

#[test]
fn a_train_is_one_call_or_many_and_arrives_whole() {
    let payload = chance(100 * 600 + 77, 3);
    for without in ["", "udp-gso", "udp-gro", "udp-gso,udp-gro"] {
        for ipv6 in [false, true] {
            let mut bench = Bench::without(without);
            let (door, at) = door(&mut bench, any(ipv6));
            let sender = bench.host.datagrams(ipv6).unwrap();
            let outgoing = Outgoing { segment: Some(600), ..plain(at) };
            bench.host.send_to(sender, &outgoing, &payload).unwrap();
            let (mut all, mut largest) = (Vec::new(), 0);
            while all.len() < payload.len() {
                let (incoming, part) = receive(&mut bench, door);
                assert!(part.len() <= 600 || incoming.segment == Some(600));
                largest = largest.max(part.len());
                all.extend(part);
            }
            assert_eq!(all, payload);
            let features = bench.host.features;
            let trains = features.udp_gso && features.udp_gro;
            assert_eq!(largest, if trains { 64 * 600 } else { 600 }, "without {without:?}");
        }
    }
}

#[test]
fn a_train_that_the_way_does_not_take_together_goes_one_by_one() {
    alone_as(
        "io::host::tests::datagrams::a_train_that_the_way_does_not_take_together_goes_one_by_one",
        || {
            ip("link set lo up mtu 1500");
            let mut bench = Bench::new();
            let (door, at) = door(&mut bench, any(false));
            let sender = bench.host.datagrams(false).unwrap();
            let payload = chance(3 * 2000, 4);
            let outgoing = Outgoing { segment: Some(2000), dont_fragment: false, ..plain(at) };
            bench.host.send_to(sender, &outgoing, &payload).unwrap();
            for part in payload.chunks(2000) {
                assert_eq!(receive(&mut bench, door).1, part);
            }
            let whole = Outgoing { dont_fragment: true, ..outgoing };
            assert_eq!(bench.host.send_to(sender, &whole, &payload), Err(Failure::TooBig));
        },
    );
}

#[test]
fn what_our_own_link_does_not_take_is_told_at_once_and_by_one_complaint() {
    alone_as(
        "io::host::tests::datagrams::what_our_own_link_does_not_take_is_told_at_once_and_by_one_complaint",
        || {
            ip("link set lo up mtu 1400");
            for (ipv6, kind) in [(false, (3, 4)), (true, (2, 0))] {
                let mut bench = Bench::new();
                let (door, at) = door(&mut bench, any(ipv6));
                let sender = bench.host.datagrams(ipv6).unwrap();
                let payload = chance(1500, 5);
                let sent = bench.host.send_to(sender, &plain(at), &payload);
                assert_eq!(sent, Err(Failure::TooBig));
                bench.news(sender, |ready| ready.error);
                let complaint = bench.host.complaint(sender).unwrap();
                assert_eq!((complaint.to, complaint.from), (at, None));
                assert_eq!((complaint.kind, complaint.mtu), (kind, 1400));
                assert_eq!(&complaint.quote[..], &payload[..QUOTE_MAX]);
                assert_eq!(bench.host.complaint(sender), None);

                let outgoing = Outgoing { dont_fragment: false, ..plain(at) };
                bench.host.send_to(sender, &outgoing, &payload).unwrap();
                assert_eq!(receive(&mut bench, door).1, payload);
                assert_eq!(bench.host.complaint(sender), None);
            }
        },
    );
}

#[test]
fn a_complaint_tells_of_whom_and_what_and_the_next_datagram_goes_out() {
    for ipv6 in [false, true] {
        let mut bench = Bench::new();
        let (door, at) = door(&mut bench, any(ipv6));
        let sender = bench.host.datagrams(ipv6).unwrap();
        let nobody = closed_port(ipv6);
        let payload = chance(300, 6);
        bench.host.send_to(sender, &plain(nobody), &payload).unwrap();
        bench.news(sender, |ready| ready.error);
        bench.host.send_to(sender, &plain(at), b"unharmed").unwrap();
        assert_eq!(receive(&mut bench, door).1, b"unharmed");
        bench.news(sender, |ready| ready.error);
        let complaint = bench.host.complaint(sender).unwrap();
        assert_eq!((complaint.to, complaint.from), (nobody, Some(nobody.ip())));
        assert_eq!((complaint.kind, complaint.mtu), (if ipv6 { (1, 4) } else { (3, 3) }, 0));
        assert_eq!(&complaint.quote[..], &payload[..QUOTE_MAX]);
        assert_eq!(bench.host.complaint(sender), None);
    }
}

#[test]
fn complaints_are_neither_mixed_up_nor_met_by_a_receiver() {
    let mut bench = Bench::new();
    let sender = bench.host.datagrams(false).unwrap();
    let nobodies = [closed_port(false), closed_port(false), closed_port(false)];
    for (n, nobody) in (0..).zip(nobodies) {
        bench.host.send_to(sender, &plain(nobody), &[n]).unwrap();
    }
    assert_eq!(bench.host.receive_from(sender, &mut [0]), Err(Failure::WouldBlock));
    for (n, nobody) in (0..).zip(nobodies) {
        let complaint = bench.until(|host| host.complaint(sender));
        assert_eq!((complaint.to, &complaint.quote[..]), (nobody, &[n][..]));
    }
    assert_eq!(bench.host.complaint(sender), None);
}

#[test]
fn only_so_many_complaints_are_kept() {
    let mut bench = Bench::new();
    let sender = bench.host.datagrams(false).unwrap();
    let nobody = closed_port(false);
    for n in 0..100 {
        bench.host.send_to(sender, &plain(nobody), &[n]).unwrap();
    }
    bench.host.send_to(sender, &plain(udp(false).local_addr().unwrap()), &[]).unwrap();
    let all: Vec<_> = std::iter::from_fn(|| bench.host.complaint(sender)).collect();
    assert!((1..=100).contains(&all.len()));
    assert!(all.iter().all(|complaint| complaint.kind == (3, 3)));
}

#[test]
fn echo_requests_are_answered_where_they_are_allowed() {
    alone_as(
        "io::host::tests::datagrams::echo_requests_are_answered_where_they_are_allowed",
        || {
            let mut forbidden = Bench::new();
            assert_eq!(forbidden.host.pings(false), Err(Failure::Forbidden));
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
            ip("link set lo up");
            let mut bench = Bench::new();
            for (ipv6, [request, reply]) in [(false, [8, 0]), (true, [128, 129])] {
                let pings = bench.host.pings(ipv6).unwrap();
                let echo = [request, 0, 0, 0, 0x12, 0x34, 0, 9, b'p', b'i'];
                let outgoing = Outgoing { hop_limit: 3, ..plain(any(ipv6)) };
                bench.host.send_to(pings, &outgoing, &echo).unwrap();
                let (incoming, answer) = receive(&mut bench, pings);
                assert_eq!(incoming.from.ip(), any(ipv6).ip());
                assert_eq!((answer[0], &answer[6..]), (reply, &echo[6..]));
                assert_eq!(incoming.hop_limit, Some(64));
                let wrong = [request, 1, 0, 0, 0, 0, 0, 0];
                let refused = bench.host.send_to(pings, &outgoing, &wrong);
                assert_eq!(refused, Err(Failure::Other(libc::EINVAL)));
            }
        },
    );
}

#[test]
fn an_error_of_any_bytes_is_survived() {
    let mut bytes = chance(4000, 7);
    bytes.extend([0; 100]);
    for at in 0..4000 {
        let said = &bytes[at..at + at % 60];
        let _ = datagram::trouble(None, said, Default::default());
    }
}
