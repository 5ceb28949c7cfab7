//! Portolan's dataplane with two wires on one guarded network, and no daemon: `pair IFNAME IFNAME [SLOTS SLOT_KIB]`, as root
//! in the namespace that holds both devices. When its standard input ends it prints what was dropped, and leaves.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::mpsc;

use portolan_perf::{guest_address, guest_mac};
use portolan_switch::command::{Answer, Command, Egress, NetworkSpec, PortSpec, Query};
use portolan_switch::ids::{MacAddr, NetworkId, NodeId, PortId};
use portolan_switch::io::{
    Dataplane, Down, Features, Handle, PacketWire, Port, RingShape, Up, packet,
};

const NETWORK: NetworkId = NetworkId(0);

fn open(name: &str, shape: RingShape) -> io::Result<PacketWire> {
    let text = CString::new(name)?;
    // SAFETY: `text` is a C string; socket takes no pointers, and a fresh descriptor is nobody else's.
    let (ifindex, socket) = unsafe {
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        (libc::if_nametoindex(text.as_ptr()), OwnedFd::from_raw_fd(socket))
    };
    PacketWire::open(socket, ifindex, shape)
}

fn send(handle: &Handle, message: Down) -> io::Result<()> {
    handle.send(message).map_err(|_| io::Error::other("the dataplane takes no messages"))
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [first, second, rest @ ..] = words.as_slice() else {
        return Err(io::Error::other("usage: pair IFNAME IFNAME [SLOTS SLOT_KIB]"));
    };
    let numbers: Vec<u32> = rest.iter().filter_map(|word| word.parse().ok()).collect();
    let shape = match numbers.as_slice() {
        [slots, kib] => {
            RingShape { slots: *slots, slot_bytes: kib * 1024, block_bytes: 65536.max(kib * 1024) }
        }
        _ => packet::SHAPE,
    };
    let (tell, told) = mpsc::channel();
    let handle = Dataplane::spawn(
        1,
        Features::probe(),
        Box::new(move || {
            _ = tell.send(());
        }),
    )?;
    let network = NetworkSpec {
        id: NETWORK,
        zone: None,
        mac: MacAddr([2, 0x50, 0x4f, 0x52, 0x54, 0xff]),
        gateways: Vec::new(),
        mtu: 1500,
        guard: true,
        egress: Egress::default(),
        carriage: Default::default(),
        services: Default::default(),
    };
    send(&handle, Down::Command(Command::CreateNetwork(network)))?;
    for i in 0..2 {
        let (id, node) = (PortId(i.into()), NodeId(i.into()));
        let (mac, addresses) = (guest_mac(i), vec![guest_address(i)]);
        let port =
            PortSpec { id, network: NETWORK, node, mac, addresses, conduct: Default::default() };
        send(&handle, Down::Command(Command::AttachPort(port)))?;
    }
    send(&handle, Down::Command(Command::Commit(1)))?;
    for (i, name) in (0..).zip([first, second]) {
        send(&handle, Down::Open(PortId(i), Port::Packet(open(name, shape)?)))?;
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    send(&handle, Down::Query(1, Query::Counters(NETWORK)))?;
    while told.recv().is_ok() {
        while let Some(up) = handle.receive() {
            if let Up::Answer(1, Answer::Counters { ports, .. }) = up {
                for row in ports {
                    let drops: Vec<String> = row
                        .drops
                        .nonzero()
                        .map(|(why, count)| format!("{} {count}", why.name()))
                        .collect();
                    println!(
                        "port {}: {} in, {} out, dropped [{}]",
                        row.port.0,
                        row.rx_frames,
                        row.tx_frames,
                        drops.join(", ")
                    );
                }
                return Ok(());
            }
        }
    }
    Ok(())
}
