//! Endpoints, which are told their own addresses.

use super::*;

#[test]
fn an_endpoint_is_told_its_own_addresses_whatever_it_calls_itself() {
    let mut server = server();
    let own = "ia7(1500,2400)[ fd00::100 3000/4000 fd00::101 3000/4000]";
    for duid in [DUID.to_vec(), [0; 130].to_vec(), vec![9; 3]] {
        let ask = message(kind::SOLICIT, &[option(code::CLIENT_ID, &duid), ia(7, &[])]);
        let reply = server.receive(&ask, endpoint(), at(0)).unwrap().unwrap();
        let read = wire::Message::from_bytes(&reply.message).unwrap();
        assert_eq!(read.opts().get(wire::OptionCode::ClientId), Some(&DhcpOption::ClientId(duid)));
    }
    let advertised = ask(&mut server, endpoint(), &solicit(7), at(0));
    assert_eq!(advertised, format!("Advertise {own} preference=255"));
    assert_eq!(server.rows(None, 9), [], "it was only offered");
    let request = to_us(kind::REQUEST, ia(7, &[ip(0x100), ip(0x101)]));
    assert_eq!(ask(&mut server, endpoint(), &request, at(0)), format!("Reply {own}"));
    let renew = to_us(kind::RENEW, ia(7, &[ip(0x100), ip(0x101), ip(0x10)]));
    let ended = "ia7(1500,2400)[ fd00::100 3000/4000 fd00::101 3000/4000 fd00::10 0/0]";
    assert_eq!(ask(&mut server, endpoint(), &renew, at(0)), format!("Reply {ended}"));
    let rows = server.rows(None, 9);
    let listed: Vec<_> = rows.iter().map(|row| (row.address, row.until)).collect();
    assert_eq!(listed, [(ip(0x100), None), (ip(0x101), None)]);
    assert_eq!(&*rows[0].client.name, DUID);
    assert_eq!(changes(&mut server), []);
    assert_eq!((server.lending.next_timeout(), server.lending.bound()), (None, 0));
}

#[test]
fn an_endpoint_has_its_addresses_in_one_association() {
    let two = message(kind::SOLICIT, &[client_id(), ia(1, &[]), ia(2, &[]), wanting(&[])]);
    let line = ask(&mut server(), endpoint(), &two, at(0));
    let first = "ia1(1500,2400)[ fd00::100 3000/4000 fd00::101 3000/4000]";
    assert_eq!(line, format!("Advertise {first} ia2(0,0)[ NoAddrsAvail] preference=255"));
}

#[test]
fn an_endpoint_cannot_lose_its_own_addresses() {
    let mut server = server();
    for kind in [kind::RELEASE, kind::DECLINE] {
        let ask_for = to_us(kind, ia(1, &[ip(0x100)]));
        assert_eq!(ask(&mut server, endpoint(), &ask_for, at(0)), "Reply Success");
        let other = to_us(kind, ia(1, &[ip(0x10)]));
        assert_eq!(
            ask(&mut server, endpoint(), &other, at(0)),
            "Reply ia1(0,0)[ NoBinding] Success"
        );
    }
    assert_eq!(changes(&mut server), [(Happened::Declined, ip(0x100))]);
    assert!(ask(&mut server, endpoint(), &solicit(1), at(0)).contains("fd00::100"));
}

#[test]
fn an_endpoint_that_declines_its_own_address_is_told_of() {
    let mut server = server();
    let decline = to_us(kind::DECLINE, ia(1, &[ip(0x100), ip(0x10)]));
    for _ in 0..5 {
        assert_eq!(ask(&mut server, endpoint(), &decline, at(0)), "Reply Success");
    }
    assert_eq!(changes(&mut server), [(Happened::Declined, ip(0x100))]);
}
