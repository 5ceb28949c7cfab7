//! Bytes arrive as they were sent, with the offloads of the guests on and off.

use std::process::{Command, Stdio};

use crate::harness::{Kept, Netns, World, eventually, said};

/// Takes one connection on port 9000 and prints how many bytes came and their digest. Arguments: none.
const TAKE: &str = "
import hashlib, socket
listener = socket.create_server(('', 9000))
client, _ = listener.accept()
digest, total, room = hashlib.sha256(), 0, memoryview(bytearray(1 << 20))
while count := client.recv_into(room):
    digest.update(room[:count])
    total += count
print(total, digest.hexdigest(), flush=True)
";

/// Sends a seeded stream and prints its length and digest. Arguments: the address, and how many MiB.
const SEND: &str = "
import hashlib, random, socket, sys
chance, digest, mebibytes = random.Random(1), hashlib.sha256(), int(sys.argv[2])
server = socket.create_connection((sys.argv[1], 9000), timeout=20)
server.settimeout(100)
for _ in range(mebibytes):
    block = chance.randbytes(1 << 20)
    digest.update(block)
    server.sendall(block)
server.shutdown(socket.SHUT_WR)
server.recv(1)
print(mebibytes << 20, digest.hexdigest())
";

/// What takes a stream, in a namespace of root's; it listens when this returns.
fn receiver_in(to: &Netns) -> Kept {
    let mut take = Command::new("ip");
    take.args(["netns", "exec", to.name(), "python3", "-c", TAKE]);
    take.stdin(Stdio::null()).stdout(Stdio::piped());
    let receiver = Kept::spawn(take);
    eventually("the receiver listens", 20, || {
        to.shell("ss -Hltn sport = :9000").out.contains(":9000")
    });
    receiver
}

/// Seconds for one transfer: a debug build on a busy machine takes its time.
const TRANSFER: u64 = 300;

#[test]
pub fn a_gibibyte_arrives_as_it_was_sent() {
    let world = World::user();
    world.ok("network create app");
    let take = ["run", "-d", "--name", "db", "--network", "app", "--", "python3", "-c", TAKE];
    world.portolan(take).ok();
    eventually("the receiver listens", 20, || {
        world.exec("db", "ss -Hltn sport = :9000").out.contains(":9000")
    });
    let send = ["run", "--rm", "--network", "app", "--", "python3", "-c", SEND, "db", "1024"];
    let sent = said(world.command(send), TRANSFER).ok();
    assert!(sent.starts_with("1073741824 "), "{sent}");
    eventually("the receiver has its digest", 20, || world.ok("logs db").contains(' '));
    assert_eq!(world.ok("logs db"), sent);
}

/// Without offloads every frame has to be made, checked and carried one by one.
#[test]
pub fn a_gibibyte_arrives_as_it_was_sent_without_offloads() {
    let world = World::root();
    let (from, to) = (Netns::new("from"), Netns::new("to"));
    world.ok("network create --subnet 10.1.0.0/24 app");
    for (netns, name) in [(&to, "to"), (&from, "from")] {
        world.ok(&format!("attach --netns {} --name {name} --network app", netns.path()));
        netns.shell("ethtool -K eth0 tx off tso off gso off").ok();
        let features = netns.shell("ethtool -k eth0").ok();
        for feature in
            ["tx-checksumming", "tcp-segmentation-offload", "generic-segmentation-offload"]
        {
            assert!(features.contains(&format!("{feature}: off")), "{features}");
        }
    }
    let mut receiver = receiver_in(&to);
    let mut send = Command::new("ip");
    send.args(["netns", "exec", from.name(), "python3", "-c", SEND]);
    send.args([&world.address("to", "app"), "1024"]);
    let sent = said(send, TRANSFER).ok();
    assert!(sent.starts_with("1073741824 "), "{sent}");
    assert!(receiver.wait(20).is_some_and(|status| status.success()));
    let taken = std::io::read_to_string(receiver.0.stdout.take().unwrap()).unwrap();
    assert_eq!(taken.trim_end(), sent);
}

/// One side makes superframes with partial checksums, the other one's interface trusts no checksum and joins nothing.
#[test]
pub fn superframes_arrive_at_a_guest_without_receive_offloads() {
    let world = World::root();
    let to = Netns::new("plain");
    world.ok("network create --subnet 10.1.0.0/24 app");
    world.ok(&format!("attach --netns {} --name to --network app", to.path()));
    to.shell("ethtool -K eth0 rx off gro off").ok();
    let mut receiver = receiver_in(&to);
    let send = ["run", "--rm", "--network", "app", "--", "python3", "-c", SEND, "to", "256"];
    let sent = said(world.command(send), TRANSFER).ok();
    assert!(receiver.wait(20).is_some_and(|status| status.success()));
    let taken = std::io::read_to_string(receiver.0.stdout.take().unwrap()).unwrap();
    assert_eq!(taken.trim_end(), sent);
}
