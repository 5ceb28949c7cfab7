//! Strangers, from being lent an address until they give it back.

use super::*;

#[test]
fn a_stranger_is_lent_an_address_that_nobody_answers_for() {
    let mut server = server();
    assert_eq!(ask(&mut server, stranger(2), &solicit(1), at(0)), "nothing");
    let probed = probes(&mut server, at(0));
    assert_eq!(probed.len(), 1);
    assert_eq!(server.lending.next_timeout(), Some(PROBE_GAP));
    assert_eq!(server.run_out(at(0)), None, "too early");
    let reply = only(&mut server, at(0));
    assert_eq!(reply.to, stranger(2));
    let lent = format!("ia1(1500,2400)[ {} 3000/4000]", probed[0]);
    assert_eq!(line(&reply.message), format!("Advertise {lent} preference=255"));
    let request = to_us(kind::REQUEST, ia(1, &probed));
    assert_eq!(ask(&mut server, stranger(2), &request, at(1)), format!("Reply {lent}"));
    assert_eq!(changes(&mut server), [(Happened::Given, probed[0])]);
    let renew = to_us(kind::RENEW, ia(1, &probed));
    assert_eq!(ask(&mut server, stranger(2), &renew, at(2000)), format!("Reply {lent}"));
    assert_eq!(changes(&mut server), [(Happened::Renewed, probed[0])]);
    assert_eq!(server.lending.next_timeout(), Some(at(6000)));
    let rows = server.rows(None, 9);
    assert_eq!((rows.len(), rows[0].until), (1, Some(at(6000))));
    assert_eq!(&*rows[0].client.name, DUID);
    assert_eq!(server.run_out(at(6000)), None);
    assert_eq!(changes(&mut server), [(Happened::Ended, probed[0])]);
    assert_eq!(server.lending.next_timeout(), None);
}

#[test]
fn an_address_that_somebody_answers_for_is_lent_to_nobody() {
    let mut server = server();
    ask(&mut server, stranger(2), &solicit(1), at(0));
    let [taken] = probes(&mut server, at(0))[..] else { panic!("one is asked for") };
    server.lending.heard(taken, 2, stranger(2).hardware, at(0));
    assert_eq!(server.lending.next_timeout(), Some(PROBE_GAP), "its own voice does not count");
    server.lending.heard(taken, 3, [2, 6, 6, 6, 6, 6], at(0));
    assert_eq!(server.run_out(at(0)), None);
    let [other] = probes(&mut server, at(0))[..] else { panic!("another one is asked for") };
    assert_ne!(other, taken);
    let reply = only(&mut server, at(0));
    let lent = format!("Advertise ia1(1500,2400)[ {other} 3000/4000] preference=255");
    assert_eq!(line(&reply.message), lent);
}

#[test]
fn several_associations_of_a_stranger_get_an_address_each() {
    let mut server = server();
    let two = message(kind::SOLICIT, &[client_id(), ia(1, &[]), ia(2, &[ip(0x1f)]), wanting(&[])]);
    assert_eq!(ask(&mut server, stranger(2), &two, at(0)), "nothing");
    let probed = probes(&mut server, at(0));
    assert_eq!((probed.len(), probed[1]), (2, ip(0x1f)), "what it wants is free");
    let said = unanswered(&mut server, at(0));
    let [(PROBE_WAIT, reply)] = &said[..] else { panic!("one answer to one question: {said:?}") };
    let lent = |id, address| format!("ia{id}(1500,2400)[ {address} 3000/4000]");
    let both = format!("{} {}", lent(1, probed[0]), lent(2, probed[1]));
    assert_eq!(line(&reply.message), format!("Advertise {both} preference=255"));
}

#[test]
fn after_a_restart_who_renews_goes_on_unless_somebody_else_has_the_address() {
    for (kind, head) in
        [(kind::RENEW, vec![client_id(), server_id()]), (kind::REBIND, vec![client_id()])]
    {
        let mut server = server();
        let keep = message(kind, &[head, vec![ia(1, &[ip(0x15)]), wanting(&[])]].concat());
        assert_eq!(ask(&mut server, stranger(2), &keep, at(0)), "nothing");
        assert_eq!(probes(&mut server, at(0)), [ip(0x15)]);
        server.lending.heard(ip(0x15), 2, stranger(2).hardware, at(0));
        let reply = only(&mut server, at(0));
        assert_eq!(line(&reply.message), "Reply ia1(1500,2400)[ fd00::15 3000/4000]");
        assert_eq!(changes(&mut server), [(Happened::Given, ip(0x15))]);
        let from_elsewhere = ask_patiently(&mut server, stranger(3), &keep, at(1));
        assert_eq!(from_elsewhere, "Reply ia1(0,0)[ fd00::15 0/0]");
    }
    let mut server = server();
    let keep = to_us(kind::RENEW, ia(1, &[ip(0x15)]));
    ask(&mut server, stranger(2), &keep, at(0));
    server.lending.heard(ip(0x15), 3, [2, 6, 6, 6, 6, 6], at(0));
    let reply = server.run_out(at(0)).unwrap();
    assert_eq!(line(&reply.message), "Reply ia1(0,0)[ fd00::15 0/0]");
    let unknown = to_us(kind::RENEW, ia(1, &[]));
    assert_eq!(ask(&mut server, stranger(2), &unknown, at(1)), "Reply ia1(0,0)[ NoBinding]");
}

#[test]
fn after_a_restart_whoever_was_heard_at_an_address_keeps_it_though_others_were_offered_it_first() {
    let old = Origin { hardware: [2, 0, 0, 0, 0, 7], ..stranger(3) };
    for speaks in [true, false] {
        let mut server = server();
        let wants = message(kind::SOLICIT, &[client_id(), ia(1, &[ip(0x15)])]);
        assert_eq!(ask(&mut server, stranger(2), &wants, at(0)), "nothing");
        assert_eq!(probes(&mut server, at(0)), [ip(0x15)]);
        let renew = message(kind::REBIND, &[client_id(), ia(1, &[ip(0x15)]), wanting(&[])]);
        if speaks {
            server.lending.heard(ip(0x15), 3, old.hardware, at(0));
        } else {
            assert_eq!(ask(&mut server, old, &renew, at(0)), "nothing", "it is not settled yet");
        }
        assert_eq!(server.run_out(at(0)), None);
        assert_eq!(probes(&mut server, at(0)).len(), 1, "another one is looked for");
        assert_eq!(ask(&mut server, old, &renew, at(1)), "nothing");
        let said = unanswered(&mut server, at(1));
        let [(_, other), (_, reply)] = <[_; 2]>::try_from(said).unwrap();
        assert_eq!(other.to, stranger(2));
        assert_eq!(
            (line(&reply.message), reply.to),
            ("Reply ia1(1500,2400)[ fd00::15 3000/4000]".into(), old)
        );
    }
}

#[test]
fn what_is_released_is_free_and_what_is_declined_is_not() {
    let mut server = server();
    let take = |server: &mut Server, port| {
        let asked = ask_patiently(server, stranger(port), &solicit(1), at(0));
        let address: Ipv6Addr = asked.split([' ', '[']).nth(3).unwrap().parse().unwrap();
        ask(server, stranger(port), &to_us(kind::REQUEST, ia(1, &[address])), at(0));
        assert_eq!(changes(server), [(Happened::Given, address)]);
        address
    };
    let first = take(&mut server, 2);
    let wrong = to_us(kind::RELEASE, ia(1, &[ip(0x1e)]));
    let unbound = "Reply ia1(0,0)[ NoBinding] Success";
    assert_eq!(ask(&mut server, stranger(2), &wrong, at(1)), unbound);
    let release = to_us(kind::RELEASE, ia(1, &[first]));
    assert_eq!(ask(&mut server, stranger(3), &release, at(1)), unbound, "it is another's");
    assert_eq!(ask(&mut server, stranger(2), &release, at(1)), "Reply Success");
    assert_eq!(changes(&mut server), [(Happened::Released, first)]);
    assert_eq!(ask(&mut server, stranger(2), &release, at(1)), unbound, "once");
    assert_eq!(take(&mut server, 2), first, "who comes back finds his own");
    let decline = to_us(kind::DECLINE, ia(1, &[first]));
    assert_eq!(ask(&mut server, stranger(2), &decline, at(1)), "Reply Success");
    assert_eq!(changes(&mut server), [(Happened::Declined, first)]);
    assert_ne!(take(&mut server, 2), first);
    assert_eq!(server.lending.bound(), 1);
}

#[test]
fn one_release_ends_all_associations_that_it_names() {
    let mut server = server();
    let both = [ia(1, &[ip(0x10)]), ia(2, &[ip(0x11)])].concat();
    let rapid = [client_id(), both.clone(), option(code::RAPID_COMMIT, &[]), wanting(&[])];
    ask_patiently(&mut server, stranger(2), &message(kind::SOLICIT, &rapid), at(0));
    assert_eq!(server.lending.bound(), 2);
    changes(&mut server);
    let release = to_us(kind::RELEASE, both);
    assert_eq!(ask(&mut server, stranger(2), &release, at(2)), "Reply Success");
    assert_eq!(
        changes(&mut server),
        [(Happened::Released, ip(0x10)), (Happened::Released, ip(0x11))]
    );
    assert_eq!((server.lending.bound(), server.rows(None, 9)), (0, vec![]));
}

#[test]
fn machines_of_one_image_behind_one_port_get_an_address_each() {
    let mut server = server();
    let clone = Origin { hardware: [2, 0, 0, 0, 1, 2], ..stranger(2) };
    let one = ask_patiently(&mut server, stranger(2), &solicit(1), at(0));
    let two = ask_patiently(&mut server, clone, &solicit(1), at(0));
    assert_ne!(one, two);
}

#[test]
fn a_port_that_takes_leases_and_gives_them_back_without_end_is_slowed_down() {
    let mut server = server();
    let rapid = message(
        kind::SOLICIT,
        &[client_id(), ia(1, &[ip(0x10)]), option(code::RAPID_COMMIT, &[]), wanting(&[])],
    );
    ask_patiently(&mut server, stranger(2), &rapid, at(0));
    let release = to_us(kind::RELEASE, ia(1, &[ip(0x10)]));
    let mut ended = 0;
    for millis in 1000..2000 {
        let now = Duration::from_millis(millis);
        ask(&mut server, stranger(2), &release, now);
        let changes = changes(&mut server);
        ended += changes.iter().filter(|(happened, _)| *happened == Happened::Released).count();
        ask(&mut server, stranger(2), &rapid, now);
    }
    assert_eq!(ended, 10);
}

#[test]
fn a_flood_of_spoofed_names_stops_at_the_ports_limit_and_others_are_still_served() {
    let mut server = server();
    let mut refused = 0;
    for n in 0..200u8 {
        let duid = option(code::CLIENT_ID, &[0, 3, 0, 1, 6, 6, 6, 6, 6, n]);
        let ask_for = message(kind::SOLICIT, &[duid, ia(1, &[])]);
        if let Ok(Some(reply)) = server.receive(&ask_for, stranger(2), at(0)) {
            let read = wire::Message::from_bytes(&reply.message).unwrap();
            let Some(DhcpOption::IANA(ia)) = read.opts().get(wire::OptionCode::IANA) else {
                panic!()
            };
            assert!(ia.opts.get(wire::OptionCode::StatusCode).is_some());
            refused += 1;
        }
    }
    assert_eq!((refused, probes(&mut server, at(0)).len()), (192, 8), "half of the pool");
    assert_eq!(ask(&mut server, stranger(3), &solicit(1), at(0)), "nothing");
    let replies = unanswered(&mut server, at(0)).into_iter().map(|(_, reply)| reply);
    let others: Vec<_> = replies.filter(|reply| reply.to == stranger(3)).collect();
    assert_eq!(others.len(), 1);
    assert!(line(&others[0].message).contains("3000/4000"));
    while server.run_out(at(31)).is_some() {}
    assert_eq!(server.lending.next_timeout(), None, "nothing is left of it");
}

#[test]
fn a_port_that_goes_takes_its_leases_along() {
    let mut server = server();
    ask_patiently(&mut server, stranger(2), &solicit(1), at(0));
    let probed = to_us(kind::REQUEST, ia(1, &[]));
    ask(&mut server, stranger(2), &probed, at(0));
    let [(Happened::Given, lent)] = changes(&mut server)[..] else { panic!("one is lent") };
    ask(&mut server, stranger(2), &solicit(2), at(0));
    server.lending.detach(2);
    assert_eq!(changes(&mut server), [(Happened::Ended, lent)]);
    assert_eq!(
        (probes(&mut server, at(0)), server.lending.next_timeout(), server.lending.bound()),
        (vec![], None, 0)
    );
}
