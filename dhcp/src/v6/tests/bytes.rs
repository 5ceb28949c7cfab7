//! Messages that no client has written, whole and in pieces.

use proptest::prelude::*;

use super::*;

/// Messages of every kind that are whole.
fn whole() -> Vec<Vec<u8>> {
    let fqdn = option(code::FQDN, b"\x00\x03pad");
    let rest = || vec![ia(1, &[ip(0x10)]), option(25, &[0; 12]), wanting(&[23, 24]), fqdn.clone()];
    let kinds = (0..=13).flat_map(|kind| {
        [vec![client_id()], vec![client_id(), server_id()], vec![]]
            .map(|head| message(kind, &[head, rest()].concat()))
    });
    kinds.collect()
}

#[test]
fn messages_cut_off_anywhere_repeated_and_out_of_order_upset_nothing() {
    let mut server = server();
    let now = |n: usize| Duration::from_millis(n as u64);
    for (n, message) in whole().iter().rev().chain(&whole()).chain(&whole()).enumerate() {
        for len in 0..=message.len() {
            for from in [endpoint(), stranger(2), stranger(3)] {
                if let Ok(Some(reply)) = server.receive(&message[..len], from, now(n)) {
                    wire::Message::from_bytes(&reply.message).unwrap();
                }
            }
        }
        server.run_out(now(n));
        probes(&mut server, now(n));
    }
    // What ends within an option, or within one in an association, is no message.
    let solicit = message(kind::SOLICIT, &[client_id(), ia(1, &[ip(0x100)])]);
    let answered = (0..=solicit.len())
        .filter(|len| matches!(server.receive(&solicit[..*len], endpoint(), at(9)), Ok(Some(_))));
    assert_eq!(answered.collect::<Vec<_>>(), [solicit.len()]);
}

#[test]
fn more_than_any_host_has_to_say_is_not_listened_to() {
    let mut server = server();
    let many = |n: u8| (0..n).map(|id| ia(id, &[])).collect::<Vec<_>>().concat();
    let said = |body: Vec<u8>| message(kind::SOLICIT, &[client_id(), body]);
    assert_ne!(ask(&mut server, endpoint(), &said(many(16)), at(0)), "nothing");
    for body in [
        many(17),
        ia(1, &[ip(0x10); 17]),
        [client_id(), ia(1, &[])].concat(),
        [ia(1, &[]), option(99, &[0; 1500])].concat(),
        [ia(1, &[]), option(code::SERVER_ID, &[1, 2])].concat(),
    ] {
        assert_eq!(ask(&mut server, endpoint(), &said(body), at(0)), "nothing");
    }
}

proptest! {
    #[test]
    fn no_bytes_upset_the_server(
        kind in 0..14u8,
        options in prop::collection::vec(
            (prop::sample::select(vec![1u16, 2, 3, 4, 5, 6, 7, 9, 13, 14, 25, 26, 39, 99]),
             prop::collection::vec(prop_oneof![any::<u8>(), 0..30u8], 0..60)),
            0..8,
        ),
        tail in prop::collection::vec(any::<u8>(), 0..5),
    ) {
        let mut server = server();
        let options: Vec<_> = options.iter().map(|(code, value)| option(*code, value)).collect();
        let bytes = [message(kind, &options), tail].concat();
        for from in [endpoint(), stranger(2)] {
            if let Ok(Some(reply)) = server.receive(&bytes, from, at(1)) {
                prop_assert!(wire::Message::from_bytes(&reply.message).is_ok());
            }
        }
        let with_names = [message(kind, &[client_id(), server_id()]), options.concat()].concat();
        if let Ok(Some(reply)) = server.receive(&with_names, stranger(2), at(1)) {
            prop_assert!(wire::Message::from_bytes(&reply.message).is_ok());
        }
        server.run_out(at(2));
    }
}
