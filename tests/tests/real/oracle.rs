//! What the kernel bridge does with a frame, the switch does: one table of frames, played to both.
//!
//! Stations are packet sockets in network namespaces. To know that a frame did *not* come to a station without waiting for
//! nothing, every station of a LAN in turn floods a marker after the frame. A port keeps the order of its frames, so what
//! was to come before the markers has come when all of them are there.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns};

use crate::harness::{Netns, World, eventually};

/// An EtherType for experiments (IEEE 802, clause 9.2.3) that neither side looks behind.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// The 802.1Q tag protocol.
const TAGGED: u16 = 0x8100;

/// A VLAN. Both sides carry tags as they are; a bridge without VLAN filtering, which many kernels lack, learns for all
/// VLANs at once where we learn for each, so a tagged station is always heard of with its tag before it is sent to.
const VLAN: u16 = 7;

type Mac = [u8; 6];

const fn host(number: u8) -> Mac {
    [2, 0, 0, 0, 1, number]
}

const BROADCAST: Mac = [0xff; 6];
const GROUP: Mac = [0x01, 0x00, 0x5e, 0, 0, 5];
const GROUP6: Mac = [0x33, 0x33, 0, 0, 0, 5];
const PAUSE: Mac = [0x01, 0x80, 0xc2, 0, 0, 1];
const SPANNING_TREE: Mac = [0x01, 0x80, 0xc2, 0, 0, 0];
const LLDP: Mac = [0x01, 0x80, 0xc2, 0, 0, 0x0e];

/// Two LANs: stations 0, 1, 2 on the first, 3 and 4 on the second.
const LANS: [&[usize]; 2] = [&[0, 1, 2], &[3, 4]];
const STATIONS: usize = 5;

/// One frame of the table.
struct Step {
    what: &'static str,
    from: usize,
    src: Mac,
    dst: Mac,
    tag: Option<u16>,
    /// The stations that must see it, once each.
    to: &'static [usize],
}

const fn step(
    what: &'static str,
    from: usize,
    src: Mac,
    dst: Mac,
    tag: Option<u16>,
    to: &'static [usize],
) -> Step {
    Step { what, from, src, dst, tag, to }
}

/// The hosts 1, 2, 3 start behind the stations 0, 1, 2.
const TABLE: &[Step] = &[
    step("an unknown station: flooded", 0, host(1), host(2), None, &[1, 2]),
    step("a station that was learned", 1, host(2), host(1), None, &[0]),
    step("and the other way", 0, host(1), host(2), None, &[1]),
    step("broadcast", 2, host(3), BROADCAST, None, &[0, 1]),
    step("the source of a broadcast was learned", 1, host(2), host(3), None, &[2]),
    step("an IPv4 group", 0, host(1), GROUP, None, &[1, 2]),
    step("an IPv6 group", 0, host(1), GROUP6, None, &[1, 2]),
    step("a station moves", 2, host(1), host(2), None, &[1]),
    step("and is found where it is", 1, host(2), host(1), None, &[2]),
    step("it moves back", 0, host(1), host(2), None, &[1]),
    step("and is found there", 1, host(2), host(1), None, &[0]),
    step("to oneself: not returned", 0, host(1), host(1), None, &[]),
    step("to a neighbour on one's own port: not returned", 0, host(4), host(1), None, &[]),
    step("a group is no source", 0, GROUP, host(2), None, &[]),
    step("and was not learned", 1, host(2), GROUP, None, &[0, 2]),
    step("a pause frame stays on its link", 0, host(1), PAUSE, None, &[]),
    step("so does LLDP", 0, host(1), LLDP, None, &[]),
    step("spanning tree passes where nobody speaks it", 0, host(1), SPANNING_TREE, None, &[1, 2]),
    step("a tagged broadcast", 0, host(1), BROADCAST, Some(VLAN), &[1, 2]),
    step("back to its source with the tag", 1, host(2), host(1), Some(VLAN), &[0]),
    step("with a priority", 0, host(1), host(2), Some(5 << 13 | VLAN), &[1]),
    step("without a tag all is as before", 1, host(2), host(1), None, &[0]),
    step("the same address on another LAN", 3, host(1), host(2), None, &[4]),
    step("is another station", 1, host(2), host(1), None, &[0]),
    step("a broadcast stays on its LAN", 4, host(5), BROADCAST, None, &[3]),
    step("a station of another LAN is unknown", 0, host(1), host(5), None, &[1, 2]),
];

/// A packet socket on the `eth0` of a namespace.
struct Station {
    socket: OwnedFd,
}

/// What a station saw: the addresses, the tag, and what follows them.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    dst: Mac,
    src: Mac,
    tag: Option<u16>,
    body: Vec<u8>,
}

impl Station {
    /// A socket keeps the namespace it was made in, so only a thread has to go there.
    fn new(netns: &Netns) -> Station {
        let path = netns.path();
        let opened = std::thread::spawn(move || {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            open("eth0")
        });
        Station { socket: opened.join().unwrap() }
    }

    fn send(&self, step: &Seen) {
        let mut frame = [step.dst, step.src].concat();
        if let Some(tag) = step.tag {
            frame.extend(TAGGED.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(EXPERIMENT);
        frame.extend(&step.body);
        let sent = nix::sys::socket::sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&frame)],
            &[],
            nix::sys::socket::MsgFlags::empty(),
            None,
        );
        assert_eq!(sent, Ok(frame.len()));
    }

    /// The next frame of the experiment; it must come.
    fn next(&self) -> Seen {
        loop {
            let ready = poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], 10_000u16);
            assert_eq!(ready, Ok(1), "no frame came");
            if let Some(seen) = self.receive() {
                return seen;
            }
        }
    }

    /// One frame, if it is of the experiment. The kernel takes the tag out of a frame and tells it beside (packet(7)).
    fn receive(&self) -> Option<Seen> {
        let mut bytes = [0; 2048];
        let mut control = [0u64; 16];
        let mut slices = [IoSliceMut::new(&mut bytes)];
        // SAFETY: all zero is a valid msghdr, which says that there is nothing.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = slices.as_mut_ptr().cast();
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        // SAFETY: the header points to one buffer and to aligned room for control messages, both alive.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &mut header, 0) };
        let length = usize::try_from(length).expect("the socket lives");
        // SAFETY: the kernel has filled the header and the room it points to.
        let first = unsafe { libc::CMSG_FIRSTHDR(&header) };
        assert!(!first.is_null(), "auxiliary data was asked for");
        // SAFETY: the one message that was asked for holds a tpacket_auxdata.
        let beside =
            unsafe { libc::CMSG_DATA(first).cast::<libc::tpacket_auxdata>().read_unaligned() };
        let tag =
            (beside.tp_status & libc::TP_STATUS_VLAN_VALID != 0).then_some(beside.tp_vlan_tci);
        let frame = &bytes[..length];
        let of_experiment = length > 14 && frame[12..14] == EXPERIMENT;
        of_experiment.then(|| Seen {
            dst: frame[..6].try_into().unwrap(),
            src: frame[6..12].try_into().unwrap(),
            tag,
            body: frame[14..].to_vec(),
        })
    }
}

/// A packet socket that sees what arrives at an interface of this thread's namespace, and not what it sends itself.
fn open(interface: &str) -> OwnedFd {
    let every = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: a plain system call.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(raw >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it for us.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    for option in [libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
        let on: libc::c_int = 1;
        let size = size_of_val(&on) as u32;
        // SAFETY: the option is an int of that size.
        let set = unsafe {
            libc::setsockopt(raw, libc::SOL_PACKET, option, (&raw const on).cast(), size)
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: every,
        sll_ifindex: nix::net::if_::if_nametoindex(interface).unwrap() as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = size_of_val(&address) as u32;
    // SAFETY: a whole sockaddr_ll, as its family says.
    let bound = unsafe { libc::bind(raw, (&raw const address).cast(), size) };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    socket
}

/// Plays one frame and gives what every station saw of it.
fn play(stations: &[Station], number: usize, step: &Step) -> Vec<Vec<Seen>> {
    let mut body = vec![number as u8; 46];
    body[0] = 0;
    stations[step.from].send(&Seen { dst: step.dst, src: step.src, tag: step.tag, body });
    let mut seen = vec![Vec::new(); stations.len()];
    for lan in LANS {
        for &marker in lan {
            let mut body = vec![number as u8; 46];
            body[0] = 1 + marker as u8;
            let src = [2, 0, 0, 0, 2, marker as u8];
            let marker_frame = Seen { dst: BROADCAST, src, tag: None, body };
            stations[marker].send(&marker_frame);
            for &other in lan.iter().filter(|other| **other != marker) {
                loop {
                    let frame = stations[other].next();
                    if frame == marker_frame {
                        break;
                    }
                    seen[other].push(frame);
                }
            }
        }
    }
    seen
}

/// Plays the whole table, and gives the stations that saw each frame.
fn play_all(stations: &[Station]) -> Vec<(&'static str, Vec<usize>)> {
    let outcome = |(number, step): (usize, &Step)| {
        let mut to = Vec::new();
        for (station, frames) in play(stations, number, step).into_iter().enumerate() {
            for frame in frames {
                let facts = (frame.dst, frame.src, frame.tag);
                assert_eq!(facts, (step.dst, step.src, step.tag), "{}, at {station}", step.what);
                assert_eq!((frame.body[0], frame.body[1]), (0, number as u8), "{}", step.what);
                to.push(station);
            }
        }
        (step.what, to)
    };
    TABLE.iter().enumerate().map(outcome).collect()
}

fn expected() -> Vec<(&'static str, Vec<usize>)> {
    TABLE.iter().map(|step| (step.what, step.to.to_vec())).collect()
}

fn guests(word: &str) -> Vec<Netns> {
    (0..STATIONS).map(|station| Netns::new(&format!("{word}{station}"))).collect()
}

fn stations(guests: &[Netns]) -> Vec<Station> {
    guests.iter().map(Station::new).collect()
}

/// What the kernel's bridges do, one for each LAN.
fn kernel() -> Vec<(&'static str, Vec<usize>)> {
    let (host, guests) = (Netns::new("bridge"), guests("kernel"));
    for (number, lan) in LANS.iter().enumerate() {
        let add = format!("ip link add br{number} type bridge && ip link set br{number} up");
        host.shell(&add).ok();
        for &station in *lan {
            let guest = guests[station].name();
            let lines = [
                format!("ip link add port{station} type veth peer name eth0 netns {guest}"),
                format!("ip link set port{station} master br{number} up"),
            ];
            host.shell(&lines.join(" && ")).ok();
            guests[station].shell("ip link set eth0 up").ok();
        }
    }
    eventually("the bridges forward", 20, || {
        host.shell("bridge link show").ok().matches("state forwarding").count() == STATIONS
    });
    play_all(&stations(&guests))
}

/// What our switch does, with one open network for each LAN.
fn switch() -> Vec<(&'static str, Vec<usize>)> {
    let (world, guests) = (World::root(), guests("switch"));
    for (number, lan) in LANS.iter().enumerate() {
        let subnet = "--subnet 10.9.0.0/24 -o portolan.guard=off";
        world.ok(&format!("network create {subnet} lan{number}"));
        for &station in *lan {
            let netns = guests[station].path();
            world.ok(&format!("attach --netns {netns} --name s{station} --network lan{number}"));
        }
    }
    play_all(&stations(&guests))
}

#[test]
pub fn the_switch_does_with_every_frame_what_the_kernel_bridge_does() {
    let (kernel, switch) = (kernel(), switch());
    assert_eq!(kernel, expected(), "the kernel bridge");
    assert_eq!(switch, expected(), "the switch");
}
