//! The replies are read back with hickory's decoder, which shares nothing with the code that writes them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{ANSWERS_MAX, OFFERED_UDP_SIZE, Reaction, TTL_SECONDS, Transport, answer, react};
use crate::dns::zone::{Directory, HostKey, Lodger, Outlook, ZoneKey};

const APP: ZoneKey = ZoneKey(1);
const OTHER: ZoneKey = ZoneKey(2);
const DOTTED: ZoneKey = ZoneKey(3);
const BRIDGE: ZoneKey = ZoneKey(4);

/// On `app` alone.
const WEB: HostKey = HostKey(10);
/// On `app` and `other`, `other` first.
const BOTH: HostKey = HostKey(11);
/// On `br.net1`, and on `app` after it.
const INNER: HostKey = HostKey(12);
/// On the network that has no names.
const PLAIN: HostKey = HostKey(13);
/// On nothing.
const STRANGER: HostKey = HostKey(99);

const DB: HostKey = HostKey(20);
const UDP: Transport = Transport::Udp { limit: 1472 };

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn directory() -> Directory {
    let mut all = Directory::new();
    all.add_zone(APP, Some("App"));
    all.add_zone(OTHER, Some("other"));
    all.add_zone(DOTTED, Some("br.net1"));
    all.add_zone(BRIDGE, None);
    let db = names(&["db", "Primary", "0123456789ab", "dbhost"]);
    all.set_host(APP, DB, &db, &addresses(&["172.18.0.2"]));
    let web = addresses(&["172.18.0.3", "fd00:1::3"]);
    all.set_host(APP, WEB, &names(&["web"]), &web);
    all.set_host(APP, HostKey(21), &names(&["six"]), &addresses(&["fd00:1::4"]));
    all.set_host(OTHER, HostKey(22), &names(&["db", "only"]), &addresses(&["172.19.0.2"]));
    all.set_host(DOTTED, HostKey(23), &names(&["c1.net1"]), &addresses(&["172.20.0.2"]));
    all.set_host(BRIDGE, HostKey(24), &names(&["quiet"]), &addresses(&["172.17.0.2"]));
    for (key, last) in [(30, 11), (31, 12), (32, 13)] {
        let own = format!("api-{last}");
        let address = format!("172.18.0.{last}");
        all.set_host(APP, HostKey(key), &names(&[&own, "api"]), &addresses(&[&address]));
    }
    all.set_view(WEB, vec![APP]);
    all.set_view(BOTH, vec![OTHER, ZoneKey(77), APP]);
    all.set_view(INNER, vec![DOTTED, APP]);
    all.set_view(PLAIN, vec![BRIDGE]);
    all
}

/// A query as a resolver sends it: id 0x5a5a, RD set.
fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::new(0x5a5a, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

fn send(all: &Directory, asker: HostKey, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    answer(all, asker, query, transport, &mut ChaCha8Rng::seed_from_u64(1))
}

fn exchange(all: &Directory, asker: HostKey, query: &Message, transport: Transport) -> Message {
    let reply = send(all, asker, &query.to_vec().unwrap(), transport).unwrap();
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.message_type, MessageType::Response);
    assert_eq!(reply.metadata.id, query.metadata.id);
    assert!(reply.metadata.recursion_available);
    assert_eq!(reply.metadata.recursion_desired, query.metadata.recursion_desired);
    reply
}

fn ask(asker: HostKey, name: &str, kind: RecordType) -> Message {
    exchange(&directory(), asker, &query(name, kind), UDP)
}

fn data(reply: &Message) -> Vec<String> {
    reply.answers.iter().map(|record| record.data.to_string()).collect()
}

#[track_caller]
fn assert_answer(reply: &Message, expected: &[&str]) {
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert!(reply.metadata.authoritative);
    assert!(!reply.metadata.truncation);
    assert_eq!(data(reply), expected);
    assert!(reply.answers.iter().all(|record| record.ttl == TTL_SECONDS));
    assert!(reply.answers.iter().all(|record| record.name.eq_case(&reply.queries[0].name)));
    assert_eq!(reply.authorities, []);
}

/// That the reply is negative, and that it says so for the zone `apex`.
#[track_caller]
fn assert_negative(reply: &Message, code: ResponseCode, apex: &str) {
    assert_eq!(reply.metadata.response_code, code);
    assert!(reply.metadata.authoritative);
    assert_eq!(reply.answers, []);
    let [soa] = &reply.authorities[..] else { panic!("{:?}", reply.authorities) };
    assert_eq!(soa.name, Name::from_ascii(apex).unwrap());
    assert_eq!(soa.ttl, TTL_SECONDS);
    let RData::SOA(fields) = &soa.data else { panic!("{soa:?}") };
    assert_eq!(fields.minimum, TTL_SECONDS);
    assert_eq!(fields.rname.to_string(), "nobody.invalid.");
}

#[track_caller]
fn assert_code(reply: &Message, code: ResponseCode) {
    assert_eq!(reply.metadata.response_code, code);
    assert!(!reply.metadata.authoritative);
    assert_eq!((&reply.answers[..], &reply.authorities[..]), (&[][..], &[][..]));
}

fn v4_pointer(address: &str) -> String {
    let mut octets: Vec<_> = address.split('.').collect();
    octets.reverse();
    octets.join(".") + ".in-addr.arpa."
}

#[test]
fn a_name_brought_along_takes_it_from_no_host_on_another_network() {
    let mut all = directory();
    let (to, lent) = (Lodger(7, [2; 6]), "fd00:2::9".parse().unwrap());
    assert!(all.lend(OTHER, "six", to, lent));
    let told = |name| exchange(&all, BOTH, &query(name, RecordType::AAAA), Transport::Tcp);
    assert_eq!(data(&told("six")), ["fd00:1::4"]);
    assert_eq!(data(&told("six.other")), ["fd00:2::9"]);
}

#[test]
fn dns_answers_every_name_of_a_host_short_and_below_the_network() {
    for name in ["db", "Primary", "0123456789ab", "dbhost"] {
        assert_answer(&ask(WEB, name, RecordType::A), &["172.18.0.2"]);
        assert_answer(&ask(WEB, &format!("{name}.app"), RecordType::A), &["172.18.0.2"]);
    }
    assert_answer(&ask(WEB, "web", RecordType::AAAA), &["fd00:1::3"]);
    assert_answer(&ask(WEB, "web.app", RecordType::AAAA), &["fd00:1::3"]);
}

#[test]
fn dns_ignores_case_and_repeats_the_question_as_it_was_asked() {
    let reply = ask(WEB, "dB.aPP.", RecordType::A);
    assert_answer(&reply, &["172.18.0.2"]);
    assert_eq!(reply.queries[0].name.to_ascii(), "dB.aPP.");
}

#[test]
fn dns_answers_from_the_first_network_that_knows_the_name() {
    assert_answer(&ask(BOTH, "db", RecordType::A), &["172.19.0.2"]);
    assert_answer(&ask(BOTH, "db.app", RecordType::A), &["172.18.0.2"]);
    assert_answer(&ask(BOTH, "web", RecordType::A), &["172.18.0.3"]);
}

#[test]
fn dns_never_unites_networks_for_the_other_family() {
    let mut all = directory();
    all.set_host(APP, DB, &names(&["db"]), &addresses(&["fd00:1::2"]));
    let reply = exchange(&all, BOTH, &query("db", RecordType::AAAA), UDP);
    assert_negative(&reply, ResponseCode::NoError, ".");
}

#[test]
fn dns_keeps_networks_out_of_view_apart() {
    assert_negative(&ask(WEB, "only", RecordType::A), ResponseCode::NXDomain, ".");
    let foreign = ask(WEB, "only.other", RecordType::A);
    assert_negative(&foreign, ResponseCode::NXDomain, "other.");
    assert_answer(&ask(BOTH, "only.other", RecordType::A), &["172.19.0.2"]);
}

#[test]
fn dns_resolves_names_and_networks_that_contain_dots() {
    assert_answer(&ask(INNER, "c1.net1", RecordType::A), &["172.20.0.2"]);
    assert_answer(&ask(INNER, "c1.net1.br.net1", RecordType::A), &["172.20.0.2"]);
    let mut all = directory();
    all.add_zone(ZoneKey(5), Some("net1"));
    all.set_host(ZoneKey(5), DB, &names(&["c2.br", "c1"]), &addresses(&["172.21.0.2"]));
    all.set_host(DOTTED, HostKey(25), &names(&["c2"]), &addresses(&["172.20.0.3"]));
    all.set_view(INNER, vec![DOTTED, ZoneKey(5)]);
    let a = |name| exchange(&all, INNER, &query(name, RecordType::A), UDP);
    // The longest name below the shortest domain is tried first, a whole name before either.
    assert_answer(&a("c2.br.net1"), &["172.21.0.2"]);
    assert_answer(&a("c1.net1"), &["172.20.0.2"]);
}

#[test]
fn dns_compares_labels_and_not_text() {
    let mut bytes = query("db.app", RecordType::A).to_vec().unwrap();
    bytes.splice(12..20, *b"\x06db.app\x00");
    let reply = Message::from_vec(&send(&directory(), WEB, &bytes, UDP).unwrap()).unwrap();
    assert_negative(&reply, ResponseCode::NXDomain, ".");
}

#[test]
fn dns_answers_nodata_for_the_other_family() {
    assert_negative(&ask(WEB, "db", RecordType::AAAA), ResponseCode::NoError, ".");
    assert_negative(&ask(WEB, "db.app", RecordType::AAAA), ResponseCode::NoError, "app.");
    assert_negative(&ask(WEB, "six.app", RecordType::A), ResponseCode::NoError, "app.");
    let reply = ask(INNER, "c1.net1.br.net1", RecordType::AAAA);
    assert_negative(&reply, ResponseCode::NoError, "br.net1.");
}

#[test]
fn dns_answers_nodata_for_types_a_known_name_does_not_have() {
    use RecordType::{CNAME, HTTPS, MX, NS, PTR, SOA, SRV, TXT, Unknown};
    for kind in [MX, SRV, TXT, NS, SOA, CNAME, HTTPS, PTR, Unknown(65000)] {
        assert_negative(&ask(WEB, "db.app", kind), ResponseCode::NoError, "app.");
    }
}

#[test]
fn dns_answers_any_with_one_type_only() {
    assert_answer(&ask(WEB, "web", RecordType::ANY), &["172.18.0.3"]);
    assert_answer(&ask(WEB, "six", RecordType::ANY), &["fd00:1::4"]);
    assert_answer(&ask(WEB, &v4_pointer("172.18.0.2"), RecordType::ANY), &["db.App."]);
}

#[test]
fn dns_leads_addresses_back_to_the_first_name_below_the_network() {
    assert_answer(&ask(WEB, &v4_pointer("172.18.0.2"), RecordType::PTR), &["db.App."]);
    assert_answer(&ask(BOTH, &v4_pointer("172.18.0.11"), RecordType::PTR), &["api-11.App."]);
    let nibbles = format!("3.{}1.0.0.0.0.0.d.f.ip6.arpa.", "0.".repeat(23));
    assert_answer(&ask(WEB, &nibbles, RecordType::PTR), &["web.App."]);
    assert_answer(&ask(WEB, &nibbles.to_uppercase(), RecordType::PTR), &["web.App."]);
    let reply = ask(WEB, &v4_pointer("172.18.0.2"), RecordType::A);
    assert_negative(&reply, ResponseCode::NoError, "2.0.18.172.in-addr.arpa.");
}

#[test]
fn dns_refuses_addresses_that_are_unknown_or_out_of_view() {
    for address in ["172.18.0.99", "172.19.0.2", "172.17.0.2", "8.8.8.8"] {
        let reply = ask(WEB, &v4_pointer(address), RecordType::PTR);
        assert_code(&reply, ResponseCode::Refused);
    }
    assert_code(&ask(WEB, "0.18.172.in-addr.arpa.", RecordType::PTR), ResponseCode::Refused);
    assert_code(&ask(PLAIN, &v4_pointer("172.17.0.2"), RecordType::PTR), ResponseCode::Refused);
}

#[test]
fn dns_with_equal_subnets_leads_back_within_the_view() {
    let mut all = directory();
    all.set_host(OTHER, HostKey(22), &names(&["twin"]), &addresses(&["172.18.0.2"]));
    let pointer = query(&v4_pointer("172.18.0.2"), RecordType::PTR);
    assert_answer(&exchange(&all, WEB, &pointer, UDP), &["db.App."]);
    assert_answer(&exchange(&all, BOTH, &pointer, UDP), &["twin.other."]);
}

#[test]
fn dns_takes_a_mapped_address_as_the_ipv4_address_it_stands_for() {
    let mut all = directory();
    all.set_host(APP, DB, &names(&["db"]), &addresses(&["::ffff:172.18.0.2", "172.18.0.2"]));
    assert_answer(&exchange(&all, WEB, &query("db", RecordType::A), UDP), &["172.18.0.2"]);
    let reply = exchange(&all, WEB, &query("db", RecordType::AAAA), UDP);
    assert_negative(&reply, ResponseCode::NoError, ".");
    let nibbles = format!("2.0.0.0.2.1.c.a.f.f.f.f.{}ip6.arpa.", "0.".repeat(20));
    let pointer = query(&nibbles, RecordType::PTR);
    assert_answer(&exchange(&all, WEB, &pointer, UDP), &["db.App."]);
}

#[test]
fn dns_denies_unknown_names_inside_the_network() {
    assert_negative(&ask(WEB, "nobody.app", RecordType::A), ResponseCode::NXDomain, "app.");
    assert_negative(&ask(WEB, "x.y.APP", RecordType::AAAA), ResponseCode::NXDomain, "app.");
    assert_negative(&ask(INNER, "x.br.net1", RecordType::A), ResponseCode::NXDomain, "br.net1.");
}

#[test]
fn dns_says_of_a_network_itself_only_that_it_exists() {
    for kind in [RecordType::A, RecordType::AAAA, RecordType::SOA, RecordType::ANY] {
        assert_negative(&ask(WEB, "app", kind), ResponseCode::NoError, "app.");
    }
    assert_negative(&ask(INNER, "br.net1", RecordType::A), ResponseCode::NoError, "br.net1.");
}

#[test]
fn dns_denies_unknown_single_labels_and_refuses_the_outside() {
    assert_negative(&ask(WEB, "nobody", RecordType::A), ResponseCode::NXDomain, ".");
    assert_negative(&ask(STRANGER, "db", RecordType::A), ResponseCode::NXDomain, ".");
    for name in ["example.com", "db.app.example.com", "app.example", "."] {
        assert_code(&ask(WEB, name, RecordType::A), ResponseCode::Refused);
    }
}

#[test]
fn dns_has_no_names_on_a_network_without_them() {
    assert_negative(&ask(PLAIN, "quiet", RecordType::A), ResponseCode::NXDomain, ".");
    assert_negative(&ask(PLAIN, "db", RecordType::A), ResponseCode::NXDomain, ".");
    assert_code(&ask(PLAIN, "quiet.bridge", RecordType::A), ResponseCode::Refused);
}

#[test]
fn dns_answers_a_shared_name_with_all_addresses_each_first_at_times() {
    let all = directory();
    let bytes = query("api", RecordType::A).to_vec().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut first = BTreeSet::new();
    for _ in 0..30 {
        let reply = answer(&all, WEB, &bytes, UDP, &mut random).unwrap();
        let reply = data(&Message::from_vec(&reply).unwrap());
        first.insert(reply[0].clone());
        let reply: BTreeSet<_> = reply.into_iter().collect();
        assert_eq!(Vec::from_iter(reply), ["172.18.0.11", "172.18.0.12", "172.18.0.13"]);
    }
    assert_eq!(first.len(), 3);
}

#[test]
fn dns_names_an_address_once_however_many_hosts_share_it() {
    let mut all = directory();
    all.set_host(APP, HostKey(31), &names(&["api"]), &addresses(&["172.18.0.11"]));
    all.remove_host(APP, HostKey(32));
    assert_answer(&exchange(&all, WEB, &query("api", RecordType::A), UDP), &["172.18.0.11"]);
}

#[test]
fn dns_forgets_a_removed_host_at_once() {
    let mut all = directory();
    all.remove_host(APP, HostKey(31));
    let mut left = data(&exchange(&all, WEB, &query("api", RecordType::A), UDP));
    left.sort();
    assert_eq!(left, ["172.18.0.11", "172.18.0.13"]);
    let pointer = query(&v4_pointer("172.18.0.12"), RecordType::PTR);
    assert_code(&exchange(&all, WEB, &pointer, UDP), ResponseCode::Refused);
    let gone = exchange(&all, WEB, &query("api-12", RecordType::A), UDP);
    assert_negative(&gone, ResponseCode::NXDomain, ".");
    all.remove_zone(APP);
    let gone = exchange(&all, BOTH, &query("web.app", RecordType::A), UDP);
    assert_code(&gone, ResponseCode::Refused);
    all.remove_view(BOTH);
    let gone = exchange(&all, BOTH, &query("db.other", RecordType::A), UDP);
    assert_negative(&gone, ResponseCode::NXDomain, "other.");
}

#[test]
fn dns_replaces_the_names_of_a_host() {
    let mut all = directory();
    all.set_host(APP, DB, &names(&["store"]), &addresses(&["172.18.0.7"]));
    let a = |name| exchange(&all, WEB, &query(name, RecordType::A), UDP);
    assert_answer(&a("store"), &["172.18.0.7"]);
    assert_negative(&a("db"), ResponseCode::NXDomain, ".");
    let pointer = query(&v4_pointer("172.18.0.2"), RecordType::PTR);
    assert_code(&exchange(&all, WEB, &pointer, UDP), ResponseCode::Refused);
}

#[test]
fn dns_skips_names_the_wire_cannot_carry() {
    let mut all = directory();
    let long = "x".repeat(64);
    all.set_host(APP, DB, &names(&["", "a..b", &long, "db"]), &addresses(&["172.18.0.2"]));
    assert_answer(&exchange(&all, WEB, &query("db", RecordType::A), UDP), &["172.18.0.2"]);
    let pointer = query(&v4_pointer("172.18.0.2"), RecordType::PTR);
    assert_answer(&exchange(&all, WEB, &pointer, UDP), &["db.App."]);
}

#[test]
fn dns_serves_short_names_where_the_domain_does_not_fit_the_wire() {
    let mut all = directory();
    all.add_zone(OTHER, Some(&"x".repeat(64)));
    all.set_host(OTHER, DB, &names(&["alone"]), &addresses(&["172.19.0.2"]));
    assert_answer(&exchange(&all, BOTH, &query("alone", RecordType::A), UDP), &["172.19.0.2"]);
    let pointer = query(&v4_pointer("172.19.0.2"), RecordType::PTR);
    assert_code(&exchange(&all, BOTH, &pointer, UDP), ResponseCode::Refused);
}

#[test]
fn dns_answers_the_longest_name_and_its_reverse() {
    let label = "y".repeat(63);
    let host = format!("{label}.{label}.{label}.{}", "y".repeat(57));
    let mut all = directory();
    all.set_host(APP, DB, &names(&[&host]), &addresses(&["172.18.0.2"]));
    let full = format!("{host}.App.");
    assert_eq!(full.len(), 254);
    assert_answer(&exchange(&all, WEB, &query(&full, RecordType::A), UDP), &["172.18.0.2"]);
    let pointer = query(&v4_pointer("172.18.0.2"), RecordType::PTR);
    assert_answer(&exchange(&all, WEB, &pointer, UDP), &[&full]);
    let nodata = exchange(&all, WEB, &query(&full, RecordType::MX), UDP);
    assert_negative(&nodata, ResponseCode::NoError, "app.");
}

/// `count` hosts on `app` that share the name `many`.
fn crowd(count: u32) -> Directory {
    let mut all = directory();
    for key in 0..count {
        let address = IpAddr::from((0x0a00_0000 + key).to_be_bytes());
        all.set_host(APP, HostKey(1000 + key), &names(&[&format!("m{key}"), "many"]), &[address]);
    }
    all
}

fn with_edns(mut query: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    query.set_edns(edns);
    query
}

#[test]
fn dns_cuts_whole_records_to_512_bytes_without_edns() {
    let reply = send(&crowd(100), WEB, &query("many", RecordType::A).to_vec().unwrap(), UDP);
    let reply = reply.unwrap();
    // 12 bytes of header, 10 of question, then 16 a record.
    assert_eq!(reply.len(), 22 + 30 * 16);
    let reply = Message::from_vec(&reply).unwrap();
    assert!(reply.metadata.truncation);
    assert_eq!(reply.answers.len(), 30);
    assert_eq!(reply.edns, None);
}

#[test]
fn dns_honours_the_size_of_edns_within_the_limit_of_the_network() {
    let all = crowd(200);
    for (size, limit, fits) in [
        (0, 1472, 29),
        (512, 1472, 29),
        (1232, 1472, 74),
        (4096, 1472, 89),
        (65535, 1232, 74),
        (4096, 552, 32),
    ] {
        let query = with_edns(query("many", RecordType::A), 4096);
        let mut bytes = query.to_vec().unwrap();
        let opt = bytes.len() - 11;
        bytes[opt + 3..opt + 5].copy_from_slice(&u16::to_be_bytes(size));
        let reply = send(&all, WEB, &bytes, Transport::Udp { limit }).unwrap();
        assert!(reply.len() <= limit);
        let reply = Message::from_vec(&reply).unwrap();
        assert!(reply.metadata.truncation);
        assert_eq!((size, reply.answers.len()), (size, fits));
        assert_eq!(reply.edns.unwrap().max_payload(), OFFERED_UDP_SIZE);
    }
}

#[test]
fn dns_says_nothing_where_not_even_the_question_fits() {
    let bytes = query("db.app", RecordType::A).to_vec().unwrap();
    for limit in 0..60 {
        let reply = send(&directory(), WEB, &bytes, Transport::Udp { limit });
        assert_eq!(reply.is_some(), limit >= bytes.len(), "{limit}");
        let Some(reply) = reply else { continue };
        assert!(reply.len() <= limit);
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.metadata.truncation, limit < bytes.len() + 16);
    }
}

#[test]
fn dns_over_tcp_answers_in_full() {
    let reply = exchange(&crowd(500), WEB, &query("many", RecordType::A), Transport::Tcp);
    assert!(!reply.metadata.truncation);
    assert_eq!(data(&reply).into_iter().collect::<BTreeSet<_>>().len(), 500);
}

#[test]
fn dns_bounds_the_addresses_of_one_answer() {
    let reply = exchange(&crowd(1000), WEB, &query("many", RecordType::A), Transport::Tcp);
    assert!(!reply.metadata.truncation);
    assert_eq!(data(&reply).into_iter().collect::<BTreeSet<_>>().len(), ANSWERS_MAX);
}

#[test]
fn dns_answers_edns_with_edns_and_copies_the_dnssec_flag() {
    let all = directory();
    for dnssec_ok in [false, true] {
        let mut query = with_edns(query("db", RecordType::A), 1232);
        query.edns.as_mut().unwrap().set_dnssec_ok(dnssec_ok);
        let reply = exchange(&all, WEB, &query, UDP);
        assert_answer(&reply, &["172.18.0.2"]);
        let edns = reply.edns.unwrap();
        assert_eq!((edns.version(), edns.rcode_high()), (0, 0));
        assert_eq!(edns.flags().dnssec_ok, dnssec_ok);
    }
    let refused = exchange(&all, WEB, &with_edns(query("a.example", RecordType::A), 1232), UDP);
    assert_code(&refused, ResponseCode::Refused);
    assert!(refused.edns.is_some());
}

#[test]
fn dns_answers_badvers_to_a_later_edns() {
    let mut query = with_edns(query("db", RecordType::A), 1232);
    query.edns.as_mut().unwrap().set_version(1);
    let bytes = send(&directory(), WEB, &query.to_vec().unwrap(), UDP).unwrap();
    let reply = Message::from_vec(&bytes).unwrap();
    assert_eq!((reply.edns.as_ref().unwrap().rcode_high(), bytes[3] & 0x0f), (1, 0));
    assert_eq!(reply.edns.unwrap().version(), 0);
    assert_eq!(reply.answers, []);
}

#[test]
fn dns_refuses_other_classes_and_transfers() {
    let mut chaos = query("db", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_code(&exchange(&directory(), WEB, &chaos, UDP), ResponseCode::Refused);
    for kind in [RecordType::AXFR, RecordType::IXFR, RecordType::OPT] {
        assert_code(&ask(WEB, "app", kind), ResponseCode::Refused);
    }
}

#[test]
fn dns_answers_notimp_to_other_opcodes() {
    let mut bytes = query("db", RecordType::A).to_vec().unwrap();
    for opcode in 1..16 {
        bytes[2] = opcode << 3;
        let reply = send(&directory(), WEB, &bytes, UDP).unwrap();
        assert_eq!(reply, [0x5a, 0x5a, 0x80 | opcode << 3, 0x84, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn dns_never_answers_a_response_or_zero_questions() {
    let bytes = query("db", RecordType::A).to_vec().unwrap();
    let mut response = bytes.clone();
    response[2] |= 0x80;
    assert_eq!(send(&directory(), WEB, &response, UDP), None);
    let mut none = bytes.clone();
    none[5] = 0;
    assert_eq!(send(&directory(), WEB, &none, UDP), None);
    assert_eq!(send(&directory(), WEB, &none[..12], UDP), None);
    assert_eq!(send(&directory(), WEB, &[], UDP), None);
}

#[track_caller]
fn assert_formerr(bytes: &[u8]) {
    let reply = send(&directory(), WEB, bytes, UDP).unwrap();
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.id, 0x5a5a);
    assert_code(&reply, ResponseCode::FormErr);
}

#[test]
fn dns_answers_formerr_to_several_questions() {
    let mut query = query("db", RecordType::A);
    query.add_query(Query::query(Name::from_ascii("web").unwrap(), RecordType::A));
    assert_formerr(&query.to_vec().unwrap());
}

#[test]
fn dns_answers_formerr_to_a_query_cut_anywhere() {
    let whole = with_edns(query("db.app", RecordType::A), 1232).to_vec().unwrap();
    for length in 0..12 {
        assert_eq!(send(&directory(), WEB, &whole[..length], UDP), None);
    }
    for length in 12..whole.len() {
        assert_formerr(&whole[..length]);
    }
}

#[test]
fn dns_answers_formerr_to_trailing_bytes() {
    let mut bytes = query("db", RecordType::A).to_vec().unwrap();
    bytes.push(0);
    assert_formerr(&bytes);
}

#[test]
fn dns_answers_formerr_to_a_bad_opt_record() {
    let plain = query("db", RecordType::A).to_vec().unwrap();
    let opt: &[u8] = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
    let with = |counts: [u8; 3], tail: &[u8]| {
        let mut bytes = plain.clone();
        [bytes[7], bytes[9], bytes[11]] = counts;
        bytes.extend_from_slice(tail);
        bytes
    };
    assert!(send(&directory(), WEB, &with([0, 0, 1], opt), UDP).unwrap()[3] & 0x0f == 0);
    assert_formerr(&with([0, 0, 2], &[opt, opt].concat()));
    assert_formerr(&with([1, 0, 0], opt));
    assert_formerr(&with([0, 1, 0], opt));
    assert_formerr(&with([0, 0, 1], &[b"\x01x", opt].concat()));
    assert_formerr(&with([0, 0, 1], &[b"\xc0\x0c", &opt[1..]].concat()));
    let option: &[u8] = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x05\x00\x0a\x00\x02x";
    assert_formerr(&with([0, 0, 1], option));
}

#[test]
fn dns_steps_over_records_it_does_not_care_for() {
    let mut query = with_edns(query("db", RecordType::A), 1232);
    let name = Name::from_ascii("db.app").unwrap();
    let record = Record::from_rdata(name, 1, RData::A("1.2.3.4".parse().unwrap()));
    query.add_additional(record.clone()).add_authority(record.clone()).add_answer(record);
    assert_answer(&exchange(&directory(), WEB, &query, UDP), &["172.18.0.2"]);
}

#[test]
fn dns_survives_compression_loops() {
    let head = &query("x", RecordType::A).to_vec().unwrap()[..12];
    for name in [
        &b"\xc0\x0c"[..],             // at itself
        b"\x01a\xc0\x0c",             // back to its own start
        b"\x01a\xc0\x0e",             // at itself, behind a label
        b"\xc0\x0e\xc0\x0c",          // at each other
        b"\xff\xff",                  // beyond the end
        b"\xc0",                      // cut
        b"\x40",                      // a reserved kind of label
        b"\x80\x00",                  // the other one
        b"\x3fxx\x00",                // longer than the message
        b"\x01a\xc0\x0c\x00\x01\x00", // cut behind the loop
    ] {
        assert_formerr(&[head, name, b"\x00\x01\x00\x01"].concat());
    }
    // A name in a record is never followed.
    let mut looped = query("db", RecordType::A).to_vec().unwrap();
    looped[11] = 1;
    let at = u8::try_from(looped.len()).unwrap();
    looped.extend_from_slice(&[0xc0, at, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    let reply = Message::from_vec(&send(&directory(), WEB, &looped, UDP).unwrap()).unwrap();
    assert_answer(&reply, &["172.18.0.2"]);
}

#[test]
fn dns_answers_formerr_to_a_name_of_255_labels() {
    let head = &query("x", RecordType::A).to_vec().unwrap()[..12];
    assert_formerr(&[head, &b"\x01a".repeat(255), b"\x00\x00\x01\x00\x01"].concat());
    // The most labels a name may have: 127.
    let most = [head, &b"\x01a".repeat(127), b"\x00\x00\x01\x00\x01"].concat();
    let reply = Message::from_vec(&send(&directory(), WEB, &most, UDP).unwrap()).unwrap();
    assert_code(&reply, ResponseCode::Refused);
    assert_formerr(&[head, &b"\x01a".repeat(128), b"\x00\x00\x01\x00\x01"].concat());
}

/// That a reply, if there is one, can be read, fits, and answers this query.
fn check_reply(query: &[u8], transport: Transport) -> Result<(), TestCaseError> {
    let Some(reply) = send(&directory(), BOTH, query, transport) else { return Ok(()) };
    let limit = match transport {
        Transport::Udp { limit } => limit,
        Transport::Tcp => 65535,
    };
    prop_assert!(reply.len() <= limit);
    let reply = Message::from_vec(&reply);
    prop_assert!(reply.is_ok(), "{reply:?}");
    let reply = reply.unwrap();
    prop_assert_eq!(reply.metadata.id.to_be_bytes(), [query[0], query[1]]);
    prop_assert_eq!(reply.metadata.message_type, MessageType::Response);
    Ok(())
}

fn any_transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Tcp), (0usize..2000).prop_map(|limit| Transport::Udp { limit })]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), transport in any_transport()) {
        check_reply(&bytes, transport)?;
    }

    #[test]
    fn a_header_over_arbitrary_bytes_never_panics(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..4, 0xbfu8..=0xc2], 0..120),
        records in 0u8..4,
        transport in any_transport(),
    ) {
        let head = [0x5a, 0x5a, 1, 0, 0, 1, 0, 0, 0, 0, 0, records];
        check_reply(&[&head, &bytes[..]].concat(), transport)?;
    }

    #[test]
    fn a_spoilt_query_never_panics(
        name in "(db|api|web|x{1,63})(\\.(app|other|y{1,63}|in-addr|arpa)){0,3}",
        kind in prop_oneof![Just(1u16), Just(28), Just(12), Just(255), any::<u16>()],
        size in any::<u16>(),
        spoil in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        transport in any_transport(),
    ) {
        let mut bytes = with_edns(query(&name, RecordType::from(kind)), size).to_vec().unwrap();
        for (index, byte) in spoil {
            let length = bytes.len();
            bytes[index.index(length)] = byte;
        }
        check_reply(&bytes, transport)?;
    }

    #[test]
    fn directories_take_any_names_and_answer_all_they_took(
        domain in prop::option::of("[a-zA-Z0-9_.-]{0,80}"),
        given in prop::collection::vec("\\PC{0,70}|[a-z.]{0,260}", 0..6),
    ) {
        let mut all = Directory::new();
        all.add_zone(APP, domain.as_deref());
        all.set_host(APP, DB, &given, &addresses(&["10.0.0.1"]));
        all.set_view(DB, vec![APP]);
        for name in &given {
            let Some(wire) = crate::dns::name::wire_form(name) else { continue };
            let bytes = [b"\x5a\x5a\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", &wire[..], b"\x00\x00\x01\x00\x01"];
            let reply = Message::from_vec(&send(&all, DB, &bytes.concat(), UDP).unwrap()).unwrap();
            prop_assert_eq!(reply.answers.len(), usize::from(domain.is_some()));
        }
        all.remove_host(APP, DB);
        all.add_zone(APP, Some("app"));
    }
}

/// Whether a question is one for others.
fn is_elsewhere(all: &Directory, asker: HostKey, name: &str, kind: RecordType) -> bool {
    let asking = query(name, kind).to_vec().unwrap();
    let reaction = react(all, asker, &asking, UDP, &mut ChaCha8Rng::seed_from_u64(1));
    matches!(reaction, Some(Reaction::Elsewhere { .. }))
}

#[test]
fn dns_knows_its_names_below_further_domains_and_leaves_the_rest_to_their_owners() {
    let mut all = directory();
    all.set_shared_domains(APP, &names(&["Corp.Example", "lab", "a..b"]));
    let lent = "172.18.0.99".parse().unwrap();
    assert!(all.lend(APP, "phone", Lodger(7, [2; 6]), lent));
    for name in ["db", "db.app", "DB.corp.example", "db.lab"] {
        let reply = exchange(&all, WEB, &query(name, RecordType::A), UDP);
        assert_answer(&reply, &["172.18.0.2"]);
    }
    let reply = exchange(&all, WEB, &query("phone.corp.example", RecordType::A), UDP);
    assert_answer(&reply, &["172.18.0.99"]);
    let reply = exchange(&all, WEB, &query("db.corp.example", RecordType::AAAA), UDP);
    assert_negative(&reply, ResponseCode::NoError, "corp.example.");
    for name in ["www.corp.example", "corp.example", "x.db.corp.example", "nobody.lab"] {
        assert!(is_elsewhere(&all, WEB, name, RecordType::A), "{name}");
    }
    assert!(!is_elsewhere(&all, WEB, "nobody.app", RecordType::A));
    // Whoever does not see the network knows nothing of it there.
    assert!(is_elsewhere(&all, PLAIN, "db.corp.example", RecordType::A));
    all.add_zone(APP, Some("app"));
    assert!(is_elsewhere(&all, WEB, "db.corp.example", RecordType::A));
}

#[test]
fn dns_lets_no_name_out_that_is_ours_or_nobodys() {
    let mut all = directory();
    let prefixes = addresses(&["172.18.0.0", "fd00:1::"]).into_iter().zip([16, 64]).collect();
    all.set_outlook(OTHER, Outlook { leads_out: true, prefixes, ..Outlook::default() });
    for name in [
        "db",
        "nobody.app",
        "a.b.other",
        "c9.net1.BR.net1",
        "printer.local",
        "app.localhost",
        "x.invalid",
        "abc.onion",
        "portolan.internal",
        "gateway.portolan.internal",
        "host.portolan.internal",
        "a.host.portolan.internal",
    ] {
        assert!(!is_elsewhere(&all, WEB, name, RecordType::A), "{name}");
        let code = exchange(&all, WEB, &query(name, RecordType::A), UDP).metadata.response_code;
        assert!(matches!(code, ResponseCode::NoError | ResponseCode::NXDomain), "{name}: {code}");
    }
    for name in [
        "7.0.0.127.in-addr.arpa",
        "9.0.18.172.in-addr.arpa",
        "18.172.in-addr.arpa",
        "_x.9.0.18.172.in-addr.arpa",
    ] {
        assert!(!is_elsewhere(&all, WEB, name, RecordType::PTR), "{name}");
    }
    for name in
        ["9.0.19.172.in-addr.arpa", "172.in-addr.arpa", "db.apps", "www.example.com", "net1.com"]
    {
        assert!(is_elsewhere(&all, WEB, name, RecordType::PTR), "{name}");
    }
    all.remove_zone(OTHER);
    assert!(is_elsewhere(&all, WEB, "a.b.other", RecordType::A));
    assert!(is_elsewhere(&all, WEB, "9.0.18.172.in-addr.arpa", RecordType::PTR));
}

#[test]
fn dns_knows_the_machine_where_a_network_opens_it() {
    let mut all = directory();
    let name = "Host.portolan.internal";
    assert_negative(
        &exchange(&all, WEB, &query(name, RecordType::A), UDP),
        ResponseCode::NXDomain,
        "portolan.internal.",
    );
    let machine = addresses(&["172.18.0.1", "fd00:1::1"]);
    all.set_outlook(APP, Outlook { machine, ..Outlook::default() });
    for (asker, kind, address) in
        [(WEB, RecordType::A, "172.18.0.1"), (BOTH, RecordType::AAAA, "fd00:1::1")]
    {
        assert_answer(&exchange(&all, asker, &query(name, kind), UDP), &[address]);
    }
    let mx = exchange(&all, WEB, &query(name, RecordType::MX), UDP);
    assert_negative(&mx, ResponseCode::NoError, "portolan.internal.");
    let hidden = exchange(&all, PLAIN, &query(name, RecordType::A), UDP);
    assert_negative(&hidden, ResponseCode::NXDomain, "portolan.internal.");
    assert!(!all.leads_out(WEB));
}
