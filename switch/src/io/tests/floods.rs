//! Floods to more ports than the loop sends to itself.

use super::*;

const PORTS: u32 = 300;

#[test]
fn floods_reach_the_last_of_many_ports() {
    let body = || {
        wires();
        let (a, mut b) = (Guest::new("g0", 64), Guest::new("g1", 64));
        let bench = Bench::empty(Features::probe());
        bench.command(Command::CreateNetwork(network()));
        let attach = |i| Down::Command(Command::AttachPort(attached(i)));
        let mut effect: Vec<Down> = (0..PORTS).map(attach).collect();
        effect.push(Down::Command(Command::Commit(1)));
        for (port, name) in [(0, "s0"), (PORTS - 1, "s1")] {
            effect.push(Down::Open(PortId(port), Port::Packet(open(name, SMALL))));
        }
        bench.send(Down::Together(effect));
        assert_eq!(bench.counters(0).drops.nonzero().count(), 0, "all of it has taken effect");

        let sent: Vec<_> = (0..20).map(|number| numbered(0, 0xff, number, 100)).collect();
        for frame in &sent {
            a.send(frame).unwrap();
        }
        let mut received = Vec::new();
        while received.len() < sent.len() {
            received.extend(b.wait());
        }
        assert_eq!(received, sent.into_iter().map(|frame| (None, frame)).collect::<Vec<_>>());
        let started = Instant::now();
        while bench.counters(PORTS - 1).tx_frames != 20 {
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", bench.counters(PORTS - 1));
        }
        assert_eq!(bench.counters(1).drops.get(DropReason::TxDown), 20, "it has no wire");
        let row = bench.counters(PORTS - 1);
        assert_eq!((row.tx_frames, row.tx_bytes, row.drops.nonzero().count()), (20, 2000, 0));

        bench.send(Down::Close(PortId(PORTS - 1)));
        assert!(matches!(bench.next(), Up::Closed(PortId(port), _) if port == PORTS - 1));
        a.send(&numbered(0, 0xff, 20, 100)).unwrap();
        bench.wait_for_drops(PORTS - 1, DropReason::TxDown, 1);
    };
    alone_as("io::tests::floods::floods_reach_the_last_of_many_ports", body);
}
