//! Virtual time; servers are numbers, and clients are numbers.

use std::collections::BTreeSet;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::dns::query::{Reaction, Transport, react};
use crate::dns::zone::Directory;

const HOST: HostKey = HostKey(1);
const UDP: Transport = Transport::Udp { limit: 1472 };

struct Bench {
    forwarder: Forwarder<u8, u32>,
    now: Duration,
    random: ChaCha8Rng,
}

/// What the bench was told to do, attempts left out.
#[derive(PartialEq, Debug)]
enum Told {
    Asked(u8, Over),
    Answered(u32, Vec<u8>),
}

struct Sent {
    attempt: Attempt,
    server: u8,
    over: Over,
    message: Vec<u8>,
}

impl Bench {
    fn new() -> Bench {
        let random = ChaCha8Rng::seed_from_u64(3);
        Bench { forwarder: Forwarder::default(), now: Duration::from_secs(100), random }
    }

    fn ask_of(
        &mut self,
        host: HostKey,
        client: u32,
        query: &[u8],
        transport: Transport,
        list: &[u8],
    ) {
        let servers = Servers { own: false, list: list.to_vec() };
        let question = outward(query, transport);
        self.forwarder.ask(host, client, question, &servers, self.now, &mut self.random);
    }

    fn ask(&mut self, client: u32, query: &[u8]) {
        self.ask_of(HOST, client, query, UDP, &[1, 2, 3]);
    }

    fn reply(&mut self, sent: &Sent, reply: &[u8]) -> bool {
        self.forwarder.reply(sent.attempt, reply, self.now, &mut self.random)
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.forwarder.handle_timeout(self.now, &mut self.random);
    }

    /// The one server that is asked now.
    #[track_caller]
    fn asked(&mut self) -> Sent {
        let mut asked = None;
        while let Some(action) = self.forwarder.poll_action() {
            match action {
                Action::Ask { attempt, server, over, message } => {
                    assert!(asked.is_none(), "two are asked at once");
                    asked = Some(Sent { attempt, server, over, message });
                }
                Action::Leave(_) => {}
                Action::Answer { client, .. } => panic!("{client} is answered"),
            }
        }
        asked.expect("a server is asked")
    }

    fn told(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(action) = self.forwarder.poll_action() {
            match action {
                Action::Ask { server, over, .. } => told.push(Told::Asked(server, over)),
                Action::Leave(_) => {}
                Action::Answer { client, message } => told.push(Told::Answered(client, message)),
            }
        }
        told
    }

    /// The one reply that was given, as an independent decoder reads it.
    #[track_caller]
    fn answered(&mut self) -> (u32, Message) {
        let mut told = self.told();
        assert_eq!(told.len(), 1, "{told:?}");
        let Some(Told::Answered(client, bytes)) = told.pop() else { panic!("nobody is answered") };
        (client, Message::from_vec(&bytes).unwrap())
    }
}

fn outward(query: &[u8], transport: Transport) -> Outward {
    let all = Directory::new();
    match react(&all, HOST, query, transport, &mut ChaCha8Rng::seed_from_u64(1)) {
        Some(Reaction::Elsewhere { question, .. }) => question,
        other => panic!("not for elsewhere: {other:?}"),
    }
}

fn query(id: u16, name: &str) -> Message {
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    query
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

/// A reply to what was sent, without records.
fn reply_to(sent: &Sent, code: ResponseCode) -> Message {
    let asked = Message::from_vec(&sent.message).unwrap();
    let mut reply = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.response_code = code;
    reply.add_queries(asked.queries.iter().cloned());
    reply
}

fn with_addresses(mut reply: Message, count: u8) -> Message {
    let name = reply.queries[0].name.clone();
    for last in 0..count {
        let address = RData::A(A::new(192, 0, 2, last));
        reply.add_answer(Record::from_rdata(name.clone(), 300, address));
    }
    reply
}

fn with_soa(mut reply: Message, minimum: u32) -> Message {
    let name = Name::from_ascii("example.com.").unwrap();
    let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, minimum);
    reply.add_authority(Record::from_rdata(name, 3600, RData::SOA(soa)));
    reply
}

#[test]
fn an_answer_comes_back_under_the_id_and_the_spelling_it_was_asked_with() {
    let mut bench = Bench::new();
    bench.ask(7, &bytes(&query(0x1234, "WwW.Example.com.")));
    let sent = bench.asked();
    assert_eq!((sent.server, sent.over), (1, Over::Datagrams));
    assert_ne!(sent.message[..2], [0x12, 0x34]);
    let mut lower = bytes(&with_addresses(reply_to(&sent, ResponseCode::NoError), 1));
    lower[12..32].make_ascii_lowercase();
    assert!(bench.reply(&sent, &lower));
    let (client, answer) = bench.answered();
    assert_eq!(client, 7);
    assert_eq!(answer.metadata.id, 0x1234);
    assert_eq!(answer.queries[0].name.to_ascii(), "WwW.Example.com.");
    assert_eq!(answer.answers.len(), 1);
    assert!(bench.forwarder.is_empty());
    assert_eq!(bench.forwarder.poll_timeout(), None);
}

#[test]
fn what_is_no_reply_to_the_question_is_passed_over() {
    let mut bench = Bench::new();
    bench.ask(7, &bytes(&query(1, "www.example.com.")));
    let sent = bench.asked();
    let good = bytes(&with_addresses(reply_to(&sent, ResponseCode::NoError), 1));
    let mut other_id = good.clone();
    other_id[0] ^= 1;
    let mut a_query = good.clone();
    a_query[2] &= 0x7f;
    let mut other_name = good.clone();
    other_name[13] = b'x';
    let mut other_type = good.clone();
    other_type[30] = 28;
    for stray in [&other_id, &a_query, &other_name, &other_type, &good[..11].to_vec(), &Vec::new()]
    {
        assert!(!bench.reply(&sent, stray), "{stray:?}");
        assert_eq!(bench.told(), []);
    }
    assert!(bench.reply(&sent, &good));
    assert!(!bench.reply(&sent, &good), "the attempt is over");
}

#[test]
fn failure_refusal_silence_and_trouble_of_the_host_move_on_to_the_next() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        let mut bench = Bench::new();
        bench.ask(7, &bytes(&query(1, "www.example.com.")));
        let first = bench.asked();
        assert!(bench.reply(&first, &bytes(&reply_to(&first, code))));
        let second = bench.asked();
        assert_eq!(second.server, 2);
        assert_ne!(second.message[..2], first.message[..2]);
        bench.forwarder.failed(second.attempt, bench.now, &mut bench.random);
        assert_eq!(bench.asked().server, 3);
        bench.pass(Duration::from_millis(1999));
        assert_eq!(bench.told(), []);
        bench.pass(Duration::from_millis(1));
        let (_, answer) = bench.answered();
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(bench.forwarder.poll_timeout(), None);
    }
}

#[test]
fn a_reply_that_cannot_be_read_is_a_failure() {
    let mut bench = Bench::new();
    bench.ask(7, &bytes(&query(1, "www.example.com.")));
    let first = bench.asked();
    let mut cut = bytes(&with_addresses(reply_to(&first, ResponseCode::NoError), 1));
    cut.pop();
    assert!(bench.reply(&first, &cut));
    assert_eq!(bench.asked().server, 2);
}

#[test]
fn whatever_is_left_of_a_reply_the_question_is_answered_once() {
    let question = bytes(&query(1, "www.example.com."));
    let whole = |sent: &Sent| bytes(&with_addresses(reply_to(sent, ResponseCode::NoError), 3));
    let asked = |bench: &mut Bench| {
        bench.ask(7, &question);
        bench.asked()
    };
    let length = whole(&asked(&mut Bench::new())).len();
    for len in 0..length {
        let mut bench = Bench::new();
        let first = asked(&mut bench);
        let is_taken = bench.reply(&first, &whole(&first)[..len]);
        assert_eq!(is_taken, len >= question.len(), "{len}: a reply to the question, or none");
        if is_taken {
            let second = bench.asked();
            assert_eq!(second.server, 2, "{len}");
            assert!(bench.reply(&second, &whole(&second)));
            assert!(!bench.reply(&second, &whole(&second)), "a second time");
        } else {
            assert!(bench.reply(&first, &whole(&first)), "{len}: it is waited for still");
        }
        assert!(!bench.reply(&first, &whole(&first)), "too late");
        assert_eq!(bench.answered().1.answers.len(), 3, "{len}");
        assert!(bench.forwarder.is_empty());
    }
}

#[test]
fn replies_in_another_order_than_their_questions_go_to_whoever_asked() {
    let mut bench = Bench::new();
    let sent: Vec<Sent> = (0..20)
        .map(|client| {
            bench.ask(client, &bytes(&query(1, &format!("n{client}.example.com."))));
            bench.asked()
        })
        .collect();
    for (client, sent) in (0..20).zip(&sent).rev() {
        let reply = bytes(&with_addresses(reply_to(sent, ResponseCode::NoError), 1));
        assert!(bench.reply(sent, &reply));
        let (told, answer) = bench.answered();
        assert_eq!(told, client);
        let name = answer.queries[0].name().to_ascii();
        assert_eq!(name, format!("n{client}.example.com."));
    }
    assert!(bench.forwarder.is_empty());
}

#[test]
fn a_server_that_was_silent_is_asked_last_for_a_while() {
    let mut bench = Bench::new();
    bench.ask(7, &bytes(&query(1, "a.example.com.")));
    bench.asked();
    bench.pass(DATAGRAM_WAIT);
    let second = bench.asked();
    bench.reply(&second, &bytes(&with_addresses(reply_to(&second, ResponseCode::NoError), 1)));
    bench.told();
    bench.ask(7, &bytes(&query(1, "b.example.com.")));
    assert_eq!(bench.asked().server, 2);
    bench.now += SHUNNED;
    bench.ask(7, &bytes(&query(1, "c.example.com.")));
    assert_eq!(bench.asked().server, 1);
}

#[test]
fn what_did_not_fit_is_asked_for_again_over_a_stream() {
    let mut bench = Bench::new();
    let mut asking = query(1, "www.example.com.");
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    asking.edns = Some(edns);
    bench.ask(7, &bytes(&asking));
    let first = bench.asked();
    let mut part = reply_to(&first, ResponseCode::NoError);
    part.metadata.truncation = true;
    assert!(bench.reply(&first, &bytes(&part)));
    let again = bench.asked();
    assert_eq!((again.server, again.over), (1, Over::Stream));
    let whole = with_addresses(reply_to(&again, ResponseCode::NoError), 60);
    assert!(bench.reply(&again, &bytes(&whole)));
    let (_, answer) = bench.answered();
    assert_eq!((answer.answers.len(), answer.metadata.truncation), (60, false));
}

#[test]
fn a_reply_longer_than_the_client_takes_is_empty_and_says_so() {
    let mut bench = Bench::new();
    bench.ask(7, &bytes(&query(1, "www.example.com.")));
    let sent = bench.asked();
    let mut whole = with_addresses(reply_to(&sent, ResponseCode::NoError), 40);
    whole.edns = Some(Edns::new());
    bench.reply(&sent, &bytes(&whole));
    let (_, answer) = bench.answered();
    assert!(answer.metadata.truncation);
    assert_eq!((answer.answers.len(), answer.queries.len()), (0, 1));
    assert!(answer.edns.is_some());

    bench.ask_of(HOST, 8, &bytes(&query(1, "www.example.com.")), Transport::Tcp, &[1]);
    let sent = bench.asked();
    bench.reply(&sent, &bytes(&with_addresses(reply_to(&sent, ResponseCode::NoError), 40)));
    assert_eq!(bench.answered().1.answers.len(), 40);
}

#[test]
fn a_part_is_better_than_nothing_for_who_can_ask_again() {
    for (transport, code) in
        [(UDP, ResponseCode::NoError), (Transport::Tcp, ResponseCode::ServFail)]
    {
        let mut bench = Bench::new();
        bench.ask_of(HOST, 7, &bytes(&query(1, "www.example.com.")), transport, &[1]);
        let first = bench.asked();
        let mut part = with_addresses(reply_to(&first, ResponseCode::NoError), 1);
        part.metadata.truncation = true;
        bench.reply(&first, &bytes(&part));
        bench.asked();
        bench.pass(STREAM_WAIT);
        let (_, answer) = bench.answered();
        assert_eq!(answer.metadata.response_code, code);
        assert_eq!(answer.metadata.truncation, transport == UDP);
    }
}

#[test]
fn options_that_nobody_here_knows_pass_both_ways() {
    let mut bench = Bench::new();
    let mut asking = query(1, "www.example.com.");
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true).set_max_payload(1400);
    edns.options_mut().insert(EdnsOption::Unknown(65_001, vec![1, 2, 3]));
    asking.edns = Some(edns.clone());
    let asking = bytes(&asking);
    bench.ask(7, &asking);
    let sent = bench.asked();
    assert_eq!(sent.message[2..], asking[2..]);
    let mut reply = with_addresses(reply_to(&sent, ResponseCode::NoError), 1);
    reply.edns = Some(edns.clone());
    bench.reply(&sent, &bytes(&reply));
    assert_eq!(bench.answered().1.edns, Some(edns));
}

#[test]
fn the_lack_of_something_is_remembered_as_long_as_the_zone_allows_but_half_a_minute_at_most() {
    for (code, minimum, span) in [
        (ResponseCode::NXDomain, 5, 5),
        (ResponseCode::NoError, 5, 5),
        (ResponseCode::NXDomain, 86_400, 30),
    ] {
        let mut bench = Bench::new();
        bench.ask(7, &bytes(&query(1, "Nothing.example.com.")));
        let sent = bench.asked();
        bench.reply(&sent, &bytes(&with_soa(reply_to(&sent, code), minimum)));
        bench.told();
        bench.pass(Duration::from_millis(span * 1000 - 1));
        bench.ask_of(HostKey(2), 8, &bytes(&query(2, "nothing.EXAMPLE.com.")), UDP, &[1]);
        let (client, answer) = bench.answered();
        assert_eq!((client, answer.metadata.id, answer.metadata.response_code), (8, 2, code));
        assert_eq!(u64::from(answer.authorities[0].ttl), 3600 - (span - 1));
        bench.pass(Duration::from_millis(1));
        bench.ask(9, &bytes(&query(3, "nothing.example.com.")));
        bench.asked();
    }
}

#[test]
fn answers_are_not_kept_and_other_servers_are_asked_anew() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.ask(7, &bytes(&query(1, "www.example.com.")));
        let sent = bench.asked();
        bench.reply(&sent, &bytes(&with_addresses(reply_to(&sent, ResponseCode::NoError), 1)));
        bench.told();
    }
    for _ in 0..2 {
        bench.ask(7, &bytes(&query(1, "no.example.com.")));
        let sent = bench.asked();
        bench.reply(&sent, &bytes(&with_soa(reply_to(&sent, ResponseCode::NXDomain), 60)));
        bench.told();
        bench.forwarder.change_servers();
    }
}

#[test]
fn a_failure_is_remembered_for_a_moment() {
    let mut bench = Bench::new();
    bench.ask_of(HOST, 7, &bytes(&query(1, "www.example.com.")), UDP, &[1]);
    bench.asked();
    bench.pass(DATAGRAM_WAIT);
    bench.told();
    bench.ask_of(HOST, 7, &bytes(&query(2, "www.example.com.")), UDP, &[1]);
    assert_eq!(bench.answered().1.metadata.response_code, ResponseCode::ServFail);
    bench.pass(FAILURE);
    bench.ask_of(HOST, 7, &bytes(&query(3, "www.example.com.")), UDP, &[1]);
    bench.asked();
}

#[test]
fn what_a_hosts_own_servers_say_is_for_that_host() {
    let mut bench = Bench::new();
    let own = Servers { own: true, list: vec![9] };
    let asking = bytes(&query(1, "no.example.com."));
    bench.forwarder.ask(HOST, 7, outward(&asking, UDP), &own, bench.now, &mut bench.random);
    let sent = bench.asked();
    bench.reply(&sent, &bytes(&with_soa(reply_to(&sent, ResponseCode::NXDomain), 60)));
    bench.told();
    bench.forwarder.ask(HOST, 7, outward(&asking, UDP), &own, bench.now, &mut bench.random);
    bench.answered();
    bench.forwarder.ask(HostKey(2), 7, outward(&asking, UDP), &own, bench.now, &mut bench.random);
    bench.asked();
    bench.ask(7, &asking);
    bench.asked();
}

#[test]
fn without_servers_the_reply_is_a_failure_at_once() {
    let mut bench = Bench::new();
    let mut asking = query(0x77, "www.example.com.");
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true);
    asking.edns = Some(edns);
    bench.ask_of(HOST, 7, &bytes(&asking), UDP, &[]);
    let (client, answer) = bench.answered();
    assert_eq!((client, answer.metadata.id), (7, 0x77));
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    assert_eq!(answer.queries, asking.queries);
    assert!(answer.edns.is_some());
}

#[test]
fn the_same_question_of_one_host_is_asked_once() {
    let mut bench = Bench::new();
    let asking = |id| bytes(&query(id, "www.example.com."));
    bench.ask(7, &asking(1));
    let sent = bench.asked();
    bench.ask(7, &asking(1));
    bench.ask(8, &asking(2));
    assert_eq!(bench.told(), []);
    bench.reply(&sent, &bytes(&with_addresses(reply_to(&sent, ResponseCode::NoError), 1)));
    let told = bench.told();
    let to = |told: &Told| match told {
        Told::Answered(client, reply) => (*client, reply[1]),
        Told::Asked(..) => panic!("asked again"),
    };
    assert_eq!(told.iter().map(to).collect::<Vec<_>>(), [(7, 1), (8, 2)]);
}

#[test]
fn what_is_beyond_the_limits_fails_at_once() {
    let mut bench = Bench::new();
    let ask = |bench: &mut Bench, host, n: usize| {
        bench.ask_of(HostKey(host), 7, &bytes(&query(1, &format!("n{n}.example.com."))), UDP, &[1]);
        bench.told()
    };
    for n in 0..HOST_QUESTIONS_MAX {
        assert_eq!(ask(&mut bench, 1, n), [Told::Asked(1, Over::Datagrams)]);
    }
    assert!(matches!(ask(&mut bench, 1, 1000)[..], [Told::Answered(7, _)]));
    for n in HOST_QUESTIONS_MAX..QUESTIONS_MAX {
        let host = u32::try_from(2 + n / HOST_QUESTIONS_MAX).unwrap();
        assert_eq!(ask(&mut bench, host, n), [Told::Asked(1, Over::Datagrams)]);
    }
    // All have as many, and one more would be too many for them.
    assert!(matches!(ask(&mut bench, 3, 1000)[..], [Told::Answered(7, _)]));
    bench.pass(DATAGRAM_WAIT);
    assert_eq!(bench.told().len(), QUESTIONS_MAX);
    assert_eq!(bench.forwarder.shares, BTreeMap::new());
    for n in 0..2 * REMEMBERED_MAX {
        ask(&mut bench, 1, 2000 + n);
        bench.pass(DATAGRAM_WAIT);
        bench.told();
    }
    assert_eq!(bench.forwarder.memories.len(), bench.forwarder.fading.len());
    assert!(bench.forwarder.memories.len() <= REMEMBERED_MAX);
}

#[test]
fn hosts_that_ask_much_give_way_to_those_that_ask_little() {
    let mut bench = Bench::new();
    // For whom the answer is, is told by the client: host and number of the question.
    let ask = |bench: &mut Bench, host: u32, n: u32| {
        let name = format!("n{n}.example.com.");
        bench.ask_of(HostKey(host), host * 1000 + n, &bytes(&query(1, &name)), UDP, &[1]);
        let told = bench.told();
        told.iter()
            .map(|told| match told {
                Told::Asked(..) => None,
                Told::Answered(client, reply) => {
                    assert_eq!(reply[3] & 15, 2, "SERVFAIL");
                    Some(*client)
                }
            })
            .collect::<Vec<_>>()
    };
    for n in 0..64 {
        for host in 1..=8 {
            assert_eq!(ask(&mut bench, host, n), [None]);
        }
    }
    // One of whoever has most gives way, the oldest, and is told so, and the newcomer asks.
    assert_eq!(ask(&mut bench, 99, 0), [Some(8000), None]);
    assert_eq!(ask(&mut bench, 99, 1), [Some(7000), None]);
    assert_eq!(bench.forwarder.len(), QUESTIONS_MAX);
    assert_eq!(ask(&mut bench, 8, 0), [Some(8000)], "for the one that gave way none gives way");
    // That ends where all have their equal part.
    let gave_way = (2..64).filter(|n| ask(&mut bench, 99, *n).len() == 2).count();
    assert_eq!(bench.forwarder.shares[&HostKey(99)], 2 + gave_way);
    assert_eq!(bench.forwarder.shares[&HostKey(99)], QUESTIONS_MAX / 9);
    assert_eq!(bench.forwarder.shares.values().sum::<usize>(), QUESTIONS_MAX);
    assert_eq!(bench.forwarder.len(), QUESTIONS_MAX);
    bench.forwarder.set_most(9);
    bench.pass(DATAGRAM_WAIT);
    bench.told();
    for host in 1..=8 {
        assert_eq!(ask(&mut bench, host, 100), [None]);
    }
    assert_eq!(ask(&mut bench, 8, 101), [None]);
    assert_eq!(ask(&mut bench, 8, 102), [Some(8102)]);
    assert_eq!(ask(&mut bench, 99, 100), [Some(8100), None]);
    assert_eq!(ask(&mut bench, 98, 100), [Some(98_100)], "nobody has two");
}

#[test]
fn who_has_gone_is_forgotten_with_what_it_asked() {
    let mut bench = Bench::new();
    bench.ask(7, &bytes(&query(1, "a.example.com.")));
    bench.ask(8, &bytes(&query(2, "a.example.com.")));
    bench.forwarder.forget(|client| *client == 7);
    assert_eq!(bench.forwarder.len(), 1);
    bench.forwarder.forget(|client| *client == 8);
    assert!(bench.forwarder.is_empty());
    assert_eq!(bench.forwarder.poll_timeout(), None);
    assert!(bench.told().iter().all(|told| matches!(told, Told::Asked(..))));
}

#[test]
fn ids_do_not_repeat_in_order() {
    let mut bench = Bench::new();
    let mut ids = BTreeSet::new();
    for n in 0..50 {
        bench.ask(7, &bytes(&query(1, &format!("n{n}.example.com."))));
        ids.insert(bench.asked().message[..2].to_vec());
    }
    assert!(ids.len() > 45, "{}", ids.len());
    let near = ids.iter().zip(ids.iter().skip(1)).filter(|(a, b)| b[1] == a[1].wrapping_add(1));
    assert!(near.count() < 10);
}

proptest! {
    #[test]
    fn no_reply_makes_it_panic_and_whoever_asks_gets_one(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        flips in proptest::collection::vec((0usize..200, any::<u8>()), 0..6),
        is_noise in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        bench.ask(7, &bytes(&query(1, "www.example.com.")));
        let sent = bench.asked();
        let sound = with_soa(with_addresses(reply_to(&sent, ResponseCode::NoError), 3), 60);
        let mut reply = if is_noise { noise } else { bytes(&sound) };
        for (at, byte) in flips {
            if let Some(to) = reply.get_mut(at) {
                *to = byte;
            }
        }
        bench.reply(&sent, &reply);
        let mut answers = 0;
        for _ in 0..10 {
            for told in bench.told() {
                if let Told::Answered(client, message) = told {
                    prop_assert_eq!(client, 7);
                    prop_assert!(message.len() <= 512);
                    prop_assert_eq!(&message[..2], &[0, 1]);
                    answers += 1;
                }
            }
            bench.pass(STREAM_WAIT);
        }
        prop_assert_eq!(answers, 1);
        prop_assert!(bench.forwarder.is_empty());
    }
}
