//! Anything in any order: nothing panics, no byte is delivered in the wrong place, and nothing is left in the end.

use proptest::prelude::*;

use super::*;

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// The inside says something near where it is.
    Segment {
        flags: u8,
        seq: i16,
        ack: i16,
        window: u16,
        len: u16,
        options: Vec<u8>,
    },
    /// As it should be.
    InOrder {
        flags: u8,
        len: u16,
    },
    Flush,
    Connected(Option<Failure>),
    Arrives(u16),
    Ends,
    Dies(Failure),
    Room(u32),
    Sends(Result<u16, Failure>),
    Ready(bool, bool, bool),
    Pass(u32),
    TurnRoom(usize),
    Complaint {
        seq: i16,
        mtu: Option<u16>,
    },
    ComesIn,
    Gone,
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(Failure::Reset),
        Just(Failure::TimedOut),
        Just(Failure::NoBuffers),
        Just(Failure::Other(71)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let flags = prop_oneof![Just(SYN), Just(ACK), Just(FIN_ACK), Just(RST), any::<u8>()];
    let near = prop_oneof![3 => Just(0i16), 2 => -3..3i16, 1 => any::<i16>()];
    let short = prop_oneof![Just(0u16), 0..20u16, 0..3000u16];
    let options = prop_oneof![
        Just(OPTIONS.to_vec()),
        Just(PERMITS.to_vec()),
        prop::collection::vec(any::<[u8; 4]>(), 0..6).prop_map(|words| words.concat()),
    ];
    let segment = (flags, near.clone(), near.clone(), any::<u16>(), short.clone(), options);
    prop_oneof![
        6 => segment.prop_map(|(flags, seq, ack, window, len, options)| {
            Event::Segment { flags, seq, ack, window, len, options }
        }),
        10 => (prop_oneof![4 => Just(ACK), 1 => Just(FIN_ACK), 1 => Just(SYN)], short.clone())
            .prop_map(|(flags, len)| Event::InOrder { flags, len }),
        8 => Just(Event::Flush),
        4 => prop::option::weighted(0.1, failure()).prop_map(Event::Connected),
        6 => any::<u16>().prop_map(Event::Arrives),
        1 => Just(Event::Ends),
        1 => failure().prop_map(Event::Dies),
        2 => (0..200_000u32).prop_map(Event::Room),
        1 => prop_oneof![(1..2000u16).prop_map(Ok), failure().prop_map(Err)].prop_map(Event::Sends),
        4 => any::<(bool, bool, bool)>().prop_map(|(r, w, e)| Event::Ready(r, w, e)),
        3 => prop_oneof![0..300u32, any::<u32>()].prop_map(Event::Pass),
        2 => prop_oneof![0..3usize, Just(1000usize)].prop_map(Event::TurnRoom),
        1 => (near, prop::option::of(any::<u16>()))
            .prop_map(|(seq, mtu)| Event::Complaint { seq, mtu }),
        2 => Just(Event::ComesIn),
        1 => Just(Event::Gone),
    ]
}

/// The byte of the inside with that number.
fn inside_byte(seq: u32) -> u8 {
    (seq.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// The byte of the outside at that place.
fn outside_byte(at: u32) -> u8 {
    (at.wrapping_mul(0x85eb_ca6b) >> 23) as u8
}

struct Chaos {
    bed: Bed,
    /// Where streams of the inside may start.
    starts: Vec<u32>,
}

impl Chaos {
    fn live(&self) -> Vec<SocketId> {
        let conns = self.bed.host.conns.iter();
        let live = conns
            .filter(|(socket, conn)| conn.gone.is_none() && self.bed.roles.get(**socket).is_some());
        live.map(|(socket, _)| *socket).collect()
    }

    fn conn(&mut self) -> Option<&mut Conn> {
        let socket = *self.live().last()?;
        self.bed.host.conns.get_mut(&socket)
    }

    fn segment(&mut self, seg: Seg) {
        let payload_at = seg.seq.wrapping_add(u32::from(seg.flags & SYN != 0));
        if seg.flags & SYN != 0 {
            self.starts.push(payload_at);
        }
        let len = seg.payload.len() as u32;
        let payload: Vec<u8> =
            (0..len).map(|at| inside_byte(payload_at.wrapping_add(at))).collect();
        let packet = self.bed.packet(&seg.with(&payload));
        let _ = self.bed.step(|tcp, desk| tcp.outbound(&packet, desk));
    }

    fn listen(&mut self) {
        for seg in self.bed.rooms.made.split_off(0) {
            if seg.ip().protocol != protocol::TCP {
                continue;
            }
            let seg = self.bed.read(&seg);
            let flow = self.bed.tcp.flows.iter().flatten().find(|flow| flow.socket.is_some());
            if let Some(flow) = flow {
                let conn = &self.bed.host.conns[&flow.socket.unwrap()];
                let taken = conn.discarded as u32 + flow.undiscarded;
                let start = taken.wrapping_add(seg.seq.wrapping_sub(flow.una.0));
                for (n, byte) in seg.payload.iter().enumerate() {
                    let at = start.wrapping_add(n as u32);
                    assert_eq!(*byte, outside_byte(at), "the outside's byte {at}");
                }
            }
            if seg.flags & RST == 0 {
                let syn = u32::from(seg.flags & SYN != 0);
                self.bed.ack = seg.seq.wrapping_add(seg.payload.len() as u32 + syn);
                self.bed.seq = seg.ack;
            }
        }
        for conn in self.bed.host.conns.values() {
            let is_from = |start: &u32| {
                let from = |at: usize| inside_byte(start.wrapping_add(at as u32));
                conn.got.iter().enumerate().all(|(at, byte)| *byte == from(at))
            };
            assert!(self.starts.iter().any(is_from) || conn.got.is_empty(), "in order");
        }
    }

    fn step(&mut self, event: Event) {
        let empty = |len: u16| vec![0; usize::from(len)];
        if !matches!(event, Event::Segment { .. } | Event::InOrder { .. }) {
            // A batch ends before anything else is done.
            self.bed.step(|tcp, desk| tcp.flush(desk));
            self.listen();
        }
        let (seq, ack) = (self.bed.seq, self.bed.ack);
        match event {
            Event::Segment { flags, seq: dseq, ack: dack, window, len, options } => {
                let seq = seq.wrapping_add_signed(dseq.into());
                let ack = ack.wrapping_add_signed(dack.into());
                let seg = seg(flags, seq, ack).window(window).options(&options);
                self.segment(seg.with(&empty(len)));
            }
            Event::InOrder { flags, len } => {
                self.segment(seg(flags, seq, ack).with(&empty(len)));
                self.bed.seq = seq.wrapping_add(len.into());
            }
            Event::Flush => {}
            Event::Connected(failure) => {
                if let Some(conn) = self.conn() {
                    conn.made = Some(failure.map_or(Ok(()), Err));
                }
                self.ready(Ready { writable: true, ..Ready::default() });
            }
            Event::Arrives(count) => {
                let Some(conn) = self.conn().filter(|conn| !conn.ended) else { return };
                let start = conn.discarded + conn.has.len();
                let more = (0..usize::from(count)).map(|at| outside_byte((start + at) as u32));
                conn.has.extend(more);
                self.ready(Ready { readable: true, ..Ready::default() });
            }
            Event::Ends => {
                if let Some(conn) = self.conn() {
                    conn.ended = true;
                }
                self.ready(Ready { readable: true, ..Ready::default() });
            }
            Event::Dies(failure) => {
                if let Some(conn) = self.conn() {
                    conn.died = Some(failure);
                }
                self.ready(Ready { readable: true, writable: true, error: true });
            }
            Event::Room(bytes) => {
                if let Some(conn) = self.conn() {
                    conn.room.bytes = bytes as usize;
                }
            }
            Event::Sends(result) => {
                if let Some(conn) = self.conn() {
                    conn.most = Some(result.map(usize::from));
                }
            }
            Event::Ready(readable, writable, error) => {
                self.ready(Ready { readable, writable, error });
            }
            Event::Pass(millis) => self.pass(Duration::from_millis(millis.into())),
            Event::TurnRoom(room) => self.bed.rooms.room = room,
            Event::Complaint { seq: dseq, mtu } => {
                let ends = (self.bed.outside, self.bed.inside);
                let seq = ack.wrapping_add_signed(dseq.into());
                let what = mtu.map_or(Objection::Unreachable, |mtu| Objection::TooBig(mtu.into()));
                let _ = self.bed.step(|tcp, desk| tcp.complaint(ZONE, ends, seq, what, desk));
            }
            Event::ComesIn => {
                let socket = self.bed.host.put(None);
                let peer = self.bed.outside;
                let (entry, accepted) = (self.bed.entry(), Accepted { socket, peer });
                self.bed.step(|tcp, desk| tcp.inbound(&entry, accepted, desk));
            }
            Event::Gone => self.bed.tcp.end(Ending::Address(ZONE, self.bed.inside.ip())),
        }
    }

    fn ready(&mut self, ready: Ready) {
        if let Some(socket) = self.live().last() {
            self.bed.ready(*socket, ready);
        }
    }

    /// As [`Bed::pass`], but a turn without room gets no further than a few tries.
    fn pass(&mut self, span: Duration) {
        let end = self.bed.now + span;
        for _ in 0..50 {
            let due = self.bed.tcp.next_timeout().filter(|due| *due <= end);
            let Some(due) = due else { break };
            self.bed.now = self.bed.now.max(due);
            self.bed.step(|tcp, desk| tcp.handle_timeout(desk));
            self.listen();
        }
        self.bed.now = self.bed.now.max(end);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn nothing_is_delivered_in_the_wrong_place_and_nothing_is_left(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut chaos = Chaos { bed: Bed::new(), starts: vec![] };
        for event in events {
            chaos.step(event);
            chaos.listen();
        }
        let mut bed = chaos.bed;
        bed.step(|tcp, desk| tcp.flush(desk));
        bed.rooms.room = 1000;
        bed.tcp.end(Ending::Address(ZONE, bed.inside.ip()));
        bed.now = bed.now + Duration::from_secs(1);
        bed.step(|tcp, desk| tcp.handle_timeout(desk));
        prop_assert_eq!(bed.tcp.len(), 0);
        prop_assert_eq!(bed.tcp.next_timeout(), None);
        for (socket, conn) in &bed.host.conns {
            prop_assert!(conn.gone.is_some(), "{:?} is left", socket);
            prop_assert_eq!(bed.roles.get(*socket), None);
        }
    }
}
