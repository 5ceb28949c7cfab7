//! What is told besides, and who is refused.

use super::*;

#[test]
fn who_is_in_a_hurry_is_bound_at_once() {
    let mut server = server();
    let hurry = option(code::RAPID_COMMIT, &[]);
    let ask = message(kind::SOLICIT, &[client_id(), hurry.clone(), ia(1, &[]), wanting(&[])]);
    let line = ask_patiently(&mut server, stranger(2), &ask, at(0));
    let given = changes(&mut server);
    assert_eq!(given.len(), 1);
    assert_eq!(line, format!("Reply ia1(1500,2400)[ {} 3000/4000] rapid", given[0].1));
    let nothing = option(code::IA_TA, &[0; 4]);
    let ask = message(kind::SOLICIT, &[client_id(), hurry, nothing, wanting(&[])]);
    let line = ask_patiently(&mut server, stranger(2), &ask, at(0));
    assert_eq!(line, "Advertise 4 preference=255", "there is nothing to be bound to");
}

#[test]
fn temporary_addresses_and_prefixes_are_refused_by_their_status() {
    let mut server = server();
    let temporary = option(code::IA_TA, &[0, 0, 0, 5]);
    let prefix = option(code::IA_PD, &[0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (kind, head, temporary_status, prefix_status) in [
        (kind::SOLICIT, vec![client_id()], 2, 6),
        (kind::REQUEST, vec![client_id(), server_id()], 2, 6),
        (kind::RENEW, vec![client_id(), server_id()], 3, 3),
        (kind::RELEASE, vec![client_id(), server_id()], 3, 3),
    ] {
        let options = [head, vec![temporary.clone(), prefix.clone(), wanting(&[])]].concat();
        let reply = server.receive(&message(kind, &options), stranger(2), at(0)).unwrap().unwrap();
        let in_ta = option(code::IA_TA, &[0, 0, 0, 5, 0, 13, 0, 2, 0, temporary_status]);
        let in_pd = [&[0, 0, 0, 6][..], &[0; 8], &[0, 13, 0, 2, 0, prefix_status]].concat();
        let in_pd = option(code::IA_PD, &in_pd);
        for part in [in_ta, in_pd] {
            assert!(reply.message.windows(part.len()).any(|at| at == part), "{kind} {part:?}");
        }
    }
}

#[test]
fn an_address_of_another_link_is_refused_by_name() {
    let elsewhere = "fd99::5".parse().unwrap();
    let mut server = server();
    let request = to_us(kind::REQUEST, ia(1, &[elsewhere]));
    assert_eq!(ask(&mut server, stranger(2), &request, at(0)), "Reply ia1(0,0)[ NotOnLink]");
    let confirm =
        |address: &[Ipv6Addr]| message(kind::CONFIRM, &[client_id(), ia(1, address), wanting(&[])]);
    let mut says =
        |addresses: &[Ipv6Addr]| ask(&mut server, stranger(2), &confirm(addresses), at(0));
    assert_eq!(says(&[ip(5), ip(0x10)]), "Reply Success");
    assert_eq!(says(&[ip(5), elsewhere]), "Reply NotOnLink");
    assert_eq!(says(&[]), "nothing");
}

#[test]
fn options_are_told_to_whoever_wants_them() {
    let mut server = server();
    let inform = |options: &[Vec<u8>]| message(kind::INFORMATION_REQUEST, options);
    let all = "dns=[fd00::1] search=lan";
    let ask_all = inform(&[client_id(), wanting(&[23, 24, 32, 82, 83])]);
    let line = ask(&mut server, stranger(2), &ask_all, at(0));
    assert_eq!(line, format!("Reply {all}. 32 82 83"));
    let one = inform(&[client_id(), wanting(&[23])]);
    assert_eq!(ask(&mut server, stranger(2), &one, at(0)), "Reply dns=[fd00::1]");
    let nameless = inform(&[wanting(&[24])]);
    assert_eq!(ask(&mut server, stranger(2), &nameless, at(0)), "Reply search=lan.");
    let mut reply = |options: &[Vec<u8>]| ask(&mut server, stranger(2), &inform(options), at(0));
    assert_eq!(reply(&[client_id(), option(2, &[0, 3, 0, 1, 9])]), "nothing", "another server's");
    assert_eq!(reply(&[client_id(), ia(1, &[])]), "nothing", "RFC 8415, section 16.12");
    let solicit = message(kind::SOLICIT, &[client_id(), ia(1, &[]), wanting(&[23, 82])]);
    let line = ask(&mut server, endpoint(), &solicit, at(0));
    assert!(line.ends_with("preference=255 dns=[fd00::1] 82"), "{line}");
}

#[test]
fn a_stateless_server_tells_the_rest_and_gives_nothing() {
    let mut server = Server::new(Dhcp6 { stateful: false, ..spec() }, [2, 0, 0, 0, 0, 1]);
    server.lending.attach(1, MAC, vec![ip(0x100)]);
    assert_eq!(ask(&mut server, endpoint(), &solicit(1), at(0)), "nothing");
    assert_eq!(ask(&mut server, stranger(2), &solicit(1), at(0)), "nothing");
    let inform = message(kind::INFORMATION_REQUEST, &[wanting(&[23])]);
    assert_eq!(ask(&mut server, stranger(2), &inform, at(0)), "Reply dns=[fd00::1]");
    assert_eq!(server.lending.next_timeout(), None);
}

#[test]
fn messages_that_are_not_for_this_server_are_discarded() {
    let mut server = server();
    let other = option(code::SERVER_ID, &[0, 3, 0, 1, 9, 9, 9, 9, 9, 9]);
    let body = || vec![ia(1, &[ip(0x100)])];
    let with = |kind, head: &[Vec<u8>]| message(kind, &[head, &body()].concat());
    for kind in [kind::SOLICIT, kind::CONFIRM, kind::REBIND] {
        assert_eq!(ask(&mut server, endpoint(), &with(kind, &[]), at(0)), "nothing");
        let named = with(kind, &[client_id(), server_id()]);
        assert_eq!(ask(&mut server, endpoint(), &named, at(0)), "nothing");
    }
    for kind in [kind::REQUEST, kind::RENEW, kind::RELEASE, kind::DECLINE] {
        for head in [vec![], vec![client_id()], vec![server_id()], vec![client_id(), other.clone()]]
        {
            assert_eq!(ask(&mut server, endpoint(), &with(kind, &head), at(0)), "nothing");
        }
    }
    for kind in [0, kind::ADVERTISE, kind::REPLY, 10, 12, 13, 255] {
        let named = with(kind, &[client_id(), server_id()]);
        assert_eq!(ask(&mut server, endpoint(), &named, at(0)), "nothing", "{kind}");
    }
    assert_eq!((server.lending.next_timeout(), server.rows(None, 9)), (None, vec![]));
}

#[test]
fn an_exhausted_pool_is_told_by_its_status() {
    let mut server = Server::new(Dhcp6 { pool: vec![], ..spec() }, [2, 0, 0, 0, 0, 1]);
    let none = "Advertise ia1(0,0)[ NoAddrsAvail] preference=255";
    assert_eq!(ask(&mut server, stranger(2), &solicit(1), at(0)), none);
    let request = to_us(kind::REQUEST, ia(1, &[ip(0x10)]));
    assert_eq!(ask(&mut server, stranger(2), &request, at(0)), "Reply ia1(0,0)[ NoAddrsAvail]");
}

#[test]
fn the_first_label_of_a_clients_name_is_its_hostname() {
    let mut server = server();
    let fqdn = option(code::FQDN, b"\x01\x06Laptop\x04home\x00");
    let ask_for = message(kind::SOLICIT, &[client_id(), option(14, &[]), ia(1, &[]), fqdn]);
    assert_eq!(server.receive(&ask_for, stranger(2), at(0)), Ok(None));
    only(&mut server, at(0));
    let change = server.lending.take_changes().remove(0);
    assert_eq!(change.lease.client.hostname.as_deref(), Some("laptop"));
}

#[test]
fn the_longest_answer_fits_a_packet_of_any_link() {
    let mut server = server();
    let own = (0..40).map(|n| ip(0x200 + n)).collect();
    server.lending.attach(1, MAC, own);
    let search = (0..99).map(|n| format!("{}{n}.example", "x".repeat(40))).collect();
    server.spec.search = search;
    let duid = option(code::CLIENT_ID, &[7; 130]);
    let addresses: Vec<_> = (0..16).map(ip).collect();
    let request = message(kind::RENEW, &[duid, server_id(), ia(1, &addresses)]);
    let reply = server.receive(&request, endpoint(), at(0)).unwrap().unwrap();
    assert!(reply.message.len() <= 1280 + 512, "{}", reply.message.len());
}
