//! Captures with a real dataplane behind them, in time that stands still but where everybody waits.

use portolan_switch::ids::{MacAddr, NetworkId};
use portolan_switch::io::Features;
use tokio::time::{Instant, sleep};

use super::super::uplink::Uplink;
use super::*;

const ID: CaptureId = CaptureId(1);

/// A capture of a network in which nothing happens; what it hands over is given by the test, but its end.
struct Bench {
    plane: Arc<Plane>,
    captures: Captures,
    end: Arc<Notify>,
    give: mpsc::UnboundedSender<Taken>,
    taken: mpsc::UnboundedReceiver<Taken>,
}

impl Bench {
    async fn new() -> Bench {
        let (plane, _news) = Plane::start(1, Features::probe(), Uplink::None).unwrap();
        let scope = Scope::Network(NetworkId(1));
        let mut from_plane = plane.capture(CaptureSpec { id: ID, scope, snaplen: 64 }).await;
        let (give, taken) = mpsc::unbounded_channel();
        let pass_on = give.clone();
        tokio::spawn(async move {
            while let Some(one) = from_plane.recv().await {
                pass_on.send(one).unwrap();
            }
        });
        let (captures, end) = (Captures::default(), Arc::new(Notify::new()));
        Bench { plane, captures, end, give, taken }
    }

    /// Runs the capture, whose client is `reader`, to its end: how long that took, and what was not read.
    async fn run(self, reader: impl AsyncFnOnce(&mut mpsc::Receiver<Bytes>)) -> (Duration, String) {
        // The header and the first of these find room; the second is what the task waits with.
        for _ in 0..CHUNKS_MAX {
            self.give.send(Taken::Buffer(CaptureBuffer::default())).unwrap();
        }
        let (chunks_in, mut chunks) = mpsc::channel(CHUNKS_MAX + 1);
        let time = portolan_switch::ids::Time::ZERO;
        let mut writer = Pcapng::begin(64, time, Duration::ZERO).unwrap();
        let interface = Interface { name: "db/eth0@app".into(), mac: MacAddr::default() };
        writer.describe(PortId(1), Some(&interface)).unwrap();
        let mut task = Task {
            plane: &self.plane,
            captures: &self.captures,
            id: ID,
            writer,
            end: self.end,
            ending: false,
            stalled: None,
        };
        let begun = Instant::now();
        let (done, ()) = tokio::join!(task.run(self.taken, &chunks_in), reader(&mut chunks));
        done.unwrap();
        drop(chunks_in);
        let took = begun.elapsed();
        let mut rest = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            rest.extend(chunk);
        }
        (took, String::from_utf8_lossy(&rest).into_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn a_capture_whose_client_takes_nothing_ends_after_half_a_minute_and_says_why() {
    let (took, rest) = Bench::new().await.run(async |_| ()).await;
    assert_eq!(took.as_secs(), 30);
    assert!(rest.contains("its reader took nothing for 30 s"), "{rest:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_capture_is_heard_while_its_client_takes_nothing() {
    let bench = Bench::new().await;
    let end = Arc::clone(&bench.end);
    let asks = async |_: &mut _| {
        sleep(Duration::from_secs(10)).await;
        end.notify_one();
    };
    let (took, rest) = bench.run(asks).await;
    assert_eq!(took.as_secs(), 15);
    assert!(rest.contains("its reader took nothing for 5 s"), "{rest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_on_once_its_capture_ends_is_sent_all_that_is_left() {
    let bench = Bench::new().await;
    let end = Arc::clone(&bench.end);
    let reads_on = async |chunks: &mut mpsc::Receiver<Bytes>| {
        sleep(Duration::from_secs(10)).await;
        end.notify_one();
        sleep(Duration::from_secs(4)).await;
        for _ in 0..CHUNKS_MAX {
            chunks.recv().await.unwrap();
        }
    };
    let (took, rest) = bench.run(reads_on).await;
    assert_eq!(took.as_secs(), 14);
    assert!(!rest.contains("took nothing"), "{rest:?}");
}
