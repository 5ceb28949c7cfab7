//! Names that are not ours: who is asked, when the next one is, and what is remembered.
//!
//! Theory of operation. A question comes with the servers that may be asked for it, in order, and becomes attempts, one after
//! the other: a server is asked over datagrams, once more over a stream where its reply did not fit, and the next one is asked
//! where it fails, refuses or keeps silent. Nothing is sent here: what is to be done is fetched by [`Forwarder::poll_action`],
//! and what came of it is told by [`Forwarder::reply`] and [`Forwarder::failed`]. The driver sends every attempt from a port
//! of its own that it has not chosen itself, and looks at who replies; here the id is drawn, and the question compared
//! (RFC 5452). The query passes as it came, its EDNS options included, and so does the reply.
//!
//! Whoever asks gets a reply, whatever happens: where all servers failed, where there is none, or where too much is asked at
//! once, that is SERVFAIL. Where all hosts together ask too much, that is the oldest question of the host that has most, for a
//! host that has fewer even with one more: those who ask for names that nobody answers for leave room for everybody else.
//! The same question of one host, asked again while nobody has replied, joins the first.
//!
//! That nothing is there is remembered for half a minute at most, though the reply may allow more (RFC 2308); that nobody could
//! tell, for a moment (RFC 9520). Answers are not kept: the host's resolver does that.
//!
//! Times count from any start that is the same in all calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::Rng;

use super::message::{self, Kind};
use super::zone::HostKey;

/// Servers that are asked for one question, at most (resolv.conf(5): MAXNS).
pub const SERVERS_MAX: usize = 3;

/// Questions of one host under way at once.
pub const HOST_QUESTIONS_MAX: usize = 64;

/// Questions of all hosts under way at once; where there are so many, those of whoever has most give way to others'.
pub const QUESTIONS_MAX: usize = 512;

/// Clients that wait for one question.
const WAITERS_MAX: usize = 8;

/// Largest query that is passed on, bytes: what no path fragments (DNS flag day 2020).
const QUERY_MAX: usize = 1232;

/// How long a server may take over datagrams: so short that three are asked before resolvers give up.
const DATAGRAM_WAIT: Duration = Duration::from_secs(2);

/// How long it may take over a stream, the connection included.
const STREAM_WAIT: Duration = Duration::from_secs(4);

/// How long a server that kept silent is asked last.
const SHUNNED: Duration = Duration::from_secs(30);

/// Servers that are remembered to have been silent.
const SHUNNED_MAX: usize = 64;

/// The longest that the lack of something is remembered.
const NOTHING_MAX: Duration = Duration::from_secs(30);

/// How long a failure is remembered.
const FAILURE: Duration = Duration::from_secs(2);

/// Replies that are remembered, and the largest of them, bytes.
const REMEMBERED_MAX: usize = 512;
const REMEMBERED_LEN: usize = 1232;

/// A question that goes out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outward {
    query: Vec<u8>,
    question_end: usize,
    limit: usize,
}

impl Outward {
    /// The query as it came, whose only question ends at `question_end`; the reply may have `limit` bytes. None where
    /// it is too long, or its name is not spelled out.
    pub(super) fn new(query: &[u8], question_end: usize, limit: usize) -> Option<Outward> {
        let plain = message::plain_question_end(query) == Some(question_end);
        let fits = query.len() <= QUERY_MAX;
        (plain && fits).then(|| Outward { query: query.to_vec(), question_end, limit })
    }

    fn failure(&self) -> Vec<u8> {
        message::failure(&self.query, self.question_end)
    }

    fn reply(&self, reply: &[u8]) -> Vec<u8> {
        message::addressed(reply, &self.query, self.question_end, self.limit)
    }

    fn essence(&self) -> Vec<u8> {
        message::essence(&self.query, self.question_end)
    }

    fn id(&self) -> Option<&[u8]> {
        self.query.get(..2)
    }
}

/// Names one attempt at a question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attempt {
    question: u64,
    turn: u32,
}

/// How a server is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// By a datagram.
    Datagrams,
    /// By a stream; the length of two bytes before each message is the driver's.
    Stream,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action<S, C> {
    /// Ask a server, from a port that nothing else uses.
    Ask {
        /// To be named with what comes of it.
        attempt: Attempt,
        /// Whom.
        server: S,
        /// How.
        over: Over,
        /// What.
        message: Vec<u8>,
    },
    /// Nothing more is wanted of an attempt.
    Leave(Attempt),
    /// Send a reply to whoever asked.
    Answer {
        /// To whom.
        client: C,
        /// The reply, within its limit.
        message: Vec<u8>,
    },
}

/// Who may be asked, and who shares what is remembered of their replies: a host that has servers of its own shares with
/// nobody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Servers<S> {
    /// Whether they are the host's own.
    pub own: bool,
    /// In order; [`SERVERS_MAX`] are asked.
    pub list: Vec<S>,
}

/// A question under way.
#[derive(Debug)]
struct Question<S, C> {
    host: HostKey,
    own: bool,
    essence: Vec<u8>,
    waiters: Vec<(C, Outward)>,
    /// Who is asked now, and who after that, the last one first.
    server: S,
    others: Vec<S>,
    turn: u32,
    over: Over,
    id: u16,
    due: Duration,
    /// What came of a reply that did not fit.
    part: Option<Vec<u8>>,
}

impl<S, C> Question<S, C> {
    fn attempt(&self, number: u64) -> Attempt {
        Attempt { question: number, turn: self.turn }
    }

    fn scope(&self) -> Option<HostKey> {
        self.own.then_some(self.host)
    }
}

/// What is remembered of a question: by the host whose servers were asked, where they were its own.
type MemoryKey = (Option<HostKey>, Vec<u8>);

/// A reply that is remembered.
#[derive(Debug)]
struct Memory {
    reply: Vec<u8>,
    since: Duration,
    until: Duration,
}

/// All questions that went out. `S` is a server, `C` whom a reply is for.
#[derive(Debug)]
pub struct Forwarder<S, C> {
    questions: BTreeMap<u64, Question<S, C>>,
    asked: BTreeMap<(HostKey, bool, Vec<u8>), u64>,
    /// How many questions each host has, where it has any.
    shares: BTreeMap<HostKey, usize>,
    /// How many there may be.
    most: usize,
    due: BTreeSet<(Duration, u64)>,
    last: u64,
    memories: BTreeMap<MemoryKey, Memory>,
    fading: BTreeSet<(Duration, MemoryKey)>,
    shunned: BTreeMap<S, Duration>,
    actions: VecDeque<Action<S, C>>,
}

impl<S, C> Default for Forwarder<S, C> {
    fn default() -> Forwarder<S, C> {
        Forwarder {
            questions: BTreeMap::new(),
            asked: BTreeMap::new(),
            shares: BTreeMap::new(),
            most: QUESTIONS_MAX,
            due: BTreeSet::new(),
            last: 0,
            memories: BTreeMap::new(),
            fading: BTreeSet::new(),
            shunned: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }
}

impl<S: Copy + Ord, C: PartialEq> Forwarder<S, C> {
    /// At most so many questions are under way at once from now on, and [`QUESTIONS_MAX`] in any case.
    pub fn set_most(&mut self, questions: usize) {
        self.most = questions.min(QUESTIONS_MAX);
    }

    /// A host asks, and `client` is to get the reply.
    pub fn ask(
        &mut self,
        host: HostKey,
        client: C,
        question: Outward,
        servers: &Servers<S>,
        now: Duration,
        random: &mut dyn Rng,
    ) {
        let essence = question.essence();
        let key = (host, servers.own, essence);
        if let Some(asked) = self.asked.get(&key).and_then(|n| self.questions.get_mut(n)) {
            let again =
                |(other, known): &(C, Outward)| *other == client && known.id() == question.id();
            if asked.waiters.iter().any(again) {
                return;
            }
            if asked.waiters.len() < WAITERS_MAX {
                asked.waiters.push((client, question));
                return;
            }
            return self.answer(client, question.failure());
        }
        let (_, own, essence) = key;
        if let Some(reply) = self.recall(own.then_some(host), &essence, question.question_end, now)
        {
            return self.answer(client, question.reply(&reply));
        }
        let mut order = self.order(&servers.list, now);
        let Some(server) = order.pop().filter(|_| self.make_room(host)) else {
            return self.answer(client, question.failure());
        };
        self.last += 1;
        *self.shares.entry(host).or_default() += 1;
        self.asked.insert((host, own, essence.clone()), self.last);
        let asked = Question {
            host,
            own,
            essence,
            waiters: vec![(client, question)],
            server,
            others: order,
            turn: 0,
            over: Over::Datagrams,
            id: 0,
            due: now,
            part: None,
        };
        self.questions.insert(self.last, asked);
        self.attempt(self.last, now, random);
    }

    /// What came to the place an attempt was sent from, and from whom it was sent to. False where it is no reply to it: there
    /// may be one still.
    pub fn reply(
        &mut self,
        attempt: Attempt,
        reply: &[u8],
        now: Duration,
        random: &mut dyn Rng,
    ) -> bool {
        let Some(question) = self.present(attempt) else { return false };
        let Some((_, first)) = question.waiters.first() else { return false };
        let (end, over) = (first.question_end, question.over);
        match (message::judge(reply, &first.query, end, question.id), over) {
            (Kind::Stray, _) => return false,
            (Kind::Failure, _) => self.next(attempt, now, random),
            (Kind::Truncated, Over::Datagrams) => {
                question.part = Some(reply.to_vec());
                question.over = Over::Stream;
                self.actions.push_back(Action::Leave(attempt));
                self.attempt(attempt.question, now, random);
            }
            (Kind::Truncated | Kind::Answer, _) => self.settle(attempt.question, Some(reply)),
            (Kind::Nothing(seconds), _) => {
                let span = Duration::from_secs(seconds.into()).min(NOTHING_MAX);
                self.remember(attempt.question, reply.to_vec(), now, span);
                self.settle(attempt.question, Some(reply));
            }
        }
        true
    }

    /// An attempt came to nothing: it could not be sent, or the host or the way says that it will not be answered.
    pub fn failed(&mut self, attempt: Attempt, now: Duration, random: &mut dyn Rng) {
        if self.present(attempt).is_some() {
            self.shun(attempt, now);
            self.next(attempt, now, random);
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action<S, C>> {
        self.actions.pop_front()
    }

    /// When [`Forwarder::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Gives up what has waited for too long.
    pub fn handle_timeout(&mut self, now: Duration, random: &mut dyn Rng) {
        while let Some(&(_, number)) = self.due.first().filter(|(at, _)| *at <= now) {
            let Some(question) = self.questions.get(&number) else {
                self.due.pop_first();
                continue;
            };
            self.failed(question.attempt(number), now, random);
        }
    }

    /// Forgets clients that have gone, and what only they have asked.
    pub fn forget(&mut self, gone: impl Fn(&C) -> bool) {
        let mut over = Vec::new();
        for (number, question) in &mut self.questions {
            question.waiters.retain(|(client, _)| !gone(client));
            if question.waiters.is_empty() {
                over.push(*number);
            }
        }
        for number in over {
            self.settle(number, None);
        }
    }

    /// Forgets what was replied: others are asked from now on.
    pub fn change_servers(&mut self) {
        self.memories.clear();
        self.fading.clear();
        self.shunned.clear();
    }

    /// How many questions are under way.
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    fn answer(&mut self, client: C, message: Vec<u8>) {
        self.actions.push_back(Action::Answer { client, message });
    }

    fn present(&mut self, attempt: Attempt) -> Option<&mut Question<S, C>> {
        self.questions.get_mut(&attempt.question).filter(|question| question.turn == attempt.turn)
    }

    /// Whether a host may ask one more; for one that has few, another's question may have given way.
    fn make_room(&mut self, host: HostKey) -> bool {
        let mine = self.shares.get(&host).copied().unwrap_or(0);
        if mine >= HOST_QUESTIONS_MAX {
            return false;
        }
        if self.questions.len() < self.most {
            return true;
        }
        let greediest = self.shares.iter().max_by_key(|(_, questions)| **questions);
        let Some((&other, _)) = greediest.filter(|(_, theirs)| **theirs > mine + 1) else {
            return false;
        };
        let theirs = self.asked.range((other, false, Vec::new())..);
        let theirs = theirs.take_while(|((asker, ..), _)| *asker == other);
        let Some(oldest) = theirs.map(|(_, number)| *number).min() else { return false };
        self.settle(oldest, None);
        true
    }

    /// The servers to ask, the first one last: those that were silent lately after the others.
    fn order(&self, list: &[S], now: Duration) -> Vec<S> {
        let silent = |server: &S| self.shunned.get(server).is_some_and(|until| *until > now);
        let mut order: Vec<S> = list.iter().take(SERVERS_MAX).copied().collect();
        order.sort_by_key(silent);
        order.reverse();
        order
    }

    /// Asks a question's present server in its present way, under a new id.
    fn attempt(&mut self, number: u64, now: Duration, random: &mut dyn Rng) {
        let Some(question) = self.questions.get_mut(&number) else { return };
        let [.., i0, i1] = random.next_u32().to_be_bytes();
        question.id = u16::from_be_bytes([i0, i1]);
        question.turn += 1;
        self.due.remove(&(question.due, number));
        question.due = now
            + match question.over {
                Over::Datagrams => DATAGRAM_WAIT,
                Over::Stream => STREAM_WAIT,
            };
        self.due.insert((question.due, number));
        let mut message =
            question.waiters.first().map(|(_, asked)| asked.query.clone()).unwrap_or_default();
        if let Some(id) = message.get_mut(..2) {
            id.copy_from_slice(&[i0, i1]);
        }
        self.actions.push_back(Action::Ask {
            attempt: question.attempt(number),
            server: question.server,
            over: question.over,
            message,
        });
    }

    /// Gives up an attempt, and asks the next server.
    fn next(&mut self, attempt: Attempt, now: Duration, random: &mut dyn Rng) {
        let Some(question) = self.present(attempt) else { return };
        if let Some(server) = question.others.pop() {
            question.server = server;
            question.over = Over::Datagrams;
            self.actions.push_back(Action::Leave(attempt));
            return self.attempt(attempt.question, now, random);
        }
        if question.part.is_none()
            && let Some((_, asked)) = question.waiters.first()
        {
            let failure = asked.failure();
            self.remember(attempt.question, failure, now, FAILURE);
        }
        self.settle(attempt.question, None);
    }

    /// Ends a question: all who wait get the reply, or as much of one as there is.
    fn settle(&mut self, number: u64, reply: Option<&[u8]>) {
        let Some(question) = self.questions.remove(&number) else { return };
        self.due.remove(&(question.due, number));
        self.actions.push_back(Action::Leave(question.attempt(number)));
        let part = question.part;
        for (client, asked) in question.waiters {
            // A part is of use to those alone who can ask again for the whole.
            let part = part.as_deref().filter(|_| asked.limit < usize::from(u16::MAX));
            let message = match reply.or(part) {
                Some(reply) => asked.reply(reply),
                None => asked.failure(),
            };
            self.answer(client, message);
        }
        self.asked.remove(&(question.host, question.own, question.essence));
        if let Some(share) = self.shares.get_mut(&question.host) {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(&question.host);
            }
        }
    }

    fn shun(&mut self, attempt: Attempt, now: Duration) {
        let Some(server) = self.present(attempt).map(|question| question.server) else { return };
        if self.shunned.len() >= SHUNNED_MAX {
            self.shunned.clear();
        }
        self.shunned.insert(server, now + SHUNNED);
    }

    fn remember(&mut self, number: u64, reply: Vec<u8>, now: Duration, span: Duration) {
        let Some(question) = self.questions.get(&number) else { return };
        if reply.len() > REMEMBERED_LEN || span.is_zero() {
            return;
        }
        let key = (question.scope(), question.essence.clone());
        self.forget_memory(&key);
        while self.memories.len() >= REMEMBERED_MAX {
            let Some((_, oldest)) = self.fading.pop_first() else { break };
            self.memories.remove(&oldest);
        }
        let until = now + span;
        self.fading.insert((until, key.clone()));
        self.memories.insert(key, Memory { reply, since: now, until });
    }

    fn forget_memory(&mut self, key: &MemoryKey) {
        if let Some(memory) = self.memories.remove(key) {
            self.fading.remove(&(memory.until, key.clone()));
        }
    }

    fn recall(
        &mut self,
        scope: Option<HostKey>,
        essence: &[u8],
        end: usize,
        now: Duration,
    ) -> Option<Vec<u8>> {
        let key = (scope, essence.to_vec());
        let memory = self.memories.get(&key)?;
        if memory.until <= now {
            self.forget_memory(&key);
            return None;
        }
        let kept = now.saturating_sub(memory.since).as_secs();
        let mut reply = memory.reply.clone();
        message::age(&mut reply, end, u32::try_from(kept).unwrap_or(u32::MAX));
        Some(reply)
    }
}

#[cfg(test)]
mod tests;
