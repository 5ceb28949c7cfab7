//! Owners of wires that are killed, and their heirs.

use std::io::Read;
use std::os::fd::RawFd;
use std::process::{Child, Stdio};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;

const OWNER_OF: &str = "PORTOLAN_TEST_OWNER_OF";
const TEST: &str = "io::tests::takeover::takeover_after_sigkill_neither_repeats_nor_reorders";

fn alone(test: &str, body: fn()) {
    alone_as(&format!("io::tests::takeover::{test}"), body);
}

#[test]
fn takeover_after_sigkill_neither_repeats_nor_reorders() {
    if let Ok(fds) = std::env::var(OWNER_OF) {
        own(&fds);
    }
    alone_as(TEST, || {
        wires();
        let shape = RingShape { slots: 32, ..SMALL };
        let wires = [open("s0", shape), open("s1", shape)];
        let fds: Vec<OwnedFd> =
            wires.iter().map(|w| w.socket().try_clone_to_owned().unwrap()).collect();
        drop(wires);
        std::thread::scope(|scope| {
            // Dropped by a panic too, which else would wait for the sender.
            let (going, stopped) = mpsc::channel::<()>();
            let sender = scope.spawn(move || {
                pin(0);
                let guest = Guest::new("g0", 64);
                let mut sent = 0;
                while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    sent += 1;
                    guest.send(&numbered(0, 1, sent, 100)).unwrap();
                    // Bursts of a few ring lengths, so that takeovers meet empty, part-filled and full rings.
                    if sent % 256 == 0 {
                        std::thread::sleep(Duration::from_micros(sent % 1024));
                    }
                }
                sent
            });
            let received = receive_across_kills(&fds);
            drop(going);
            let sent = sender.join().unwrap();
            println!("{KILLS} kills, {received} of {sent} frames arrived, each once and in order");
        });
    });
}

const KILLS: u64 = 300;

/// Kills one owner of the wires after the other while frames arrive at the second guest, whose numbers must rise.
fn receive_across_kills(fds: &[OwnedFd]) -> u64 {
    let mut guest = Guest::new("g1", 8192);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut last, mut received) = (0, 0);
    let mut check = |guest: &mut Guest| {
        let mut fresh = 0;
        for (_, frame) in guest.receive() {
            assert!(number(&frame) > last, "{} after {last}", number(&frame));
            last = number(&frame);
            fresh += 1;
        }
        received += fresh;
        fresh
    };
    for kill in 0..=KILLS {
        let mut owner = spawn_owner(fds);
        let started = Instant::now();
        // What an owner before has sent is all here; so the next frame is this one's.
        while check(&mut guest) == 0 {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "nothing arrives after kill {kill}"
            );
        }
        let until = Instant::now() + Duration::from_micros(u64::from(random.next_u32() % 4000));
        while Instant::now() < until {
            check(&mut guest);
        }
        owner.kill().unwrap();
        owner.wait().unwrap();
        while check(&mut guest) > 0 {}
    }
    received
}

/// Starts this test again as the process that owns the wires. It dies with its standard input.
fn spawn_owner(fds: &[OwnedFd]) -> Child {
    let numbers: Vec<String> = fds.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    for fd in fds {
        // SAFETY: changes a flag of a descriptor of ours: the child shall inherit it.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) };
    }
    // Not by its path: whoever builds anew meanwhile has put another program there, or none yet.
    Process::new("/proc/self/exe")
        .args([TEST, "--exact", "--nocapture"])
        .env(OWNER_OF, numbers.join(","))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The child's part: adopts the wires and serves them until it is killed.
fn own(fds: &str) -> ! {
    pin(1);
    let shape = RingShape { slots: 32, ..SMALL };
    let wires = fds.split(',').map(|fd| {
        let fd: RawFd = fd.parse().unwrap();
        // SAFETY: the parent left this descriptor to us, and names it once.
        PacketWire::adopt(unsafe { OwnedFd::from_raw_fd(fd) }, shape).unwrap()
    });
    let wires: Vec<PacketWire> = wires.collect();
    let _bench = Bench::new(wires.try_into().unwrap());
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0);
}

/// Ties this thread, and those it starts, to one processor: veth keeps frames in order on one, not across two.
fn pin(cpu: usize) {
    // SAFETY: a cpu_set_t is plain data, and the kernel reads it to its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        // Fails where there is one processor only, and then there is nothing to tie.
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

#[test]
fn noise_in_place_of_an_index_is_refused() {
    alone("noise_in_place_of_an_index_is_refused", || {
        wires();
        let wire = open("s0", SMALL);
        wire.ring.store_next(SMALL.slots);
        let copy = wire.socket().try_clone_to_owned().unwrap();
        assert!(PacketWire::adopt(copy, SMALL).is_err());
        let copy = wire.socket().as_fd().try_clone_to_owned().unwrap();
        let other = RingShape { slots: 32, ..SMALL };
        assert!(PacketWire::adopt(copy, other).is_err(), "the shape must be the ring's own");
    });
}
