//! What leases cost: thousands of strangers get an address from the DHCP server of one network, by the messages that they
//! would send, and renew it. Prints CPU time. `leases [COUNT]`, 5000 where it is not said.

#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use portolan_dhcp::lending::{PROBE_WAIT, UNDER_QUESTION_MAX};
use portolan_dhcp::service::Dhcp4;
use portolan_dhcp::v4::{Origin, Reply, Server};

/// Strangers behind one port: as many as one may have leases for.
const BEHIND_PORT: u32 = 64;

/// How long a machine waits before it asks again.
const PATIENCE: Duration = Duration::from_secs(15);

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// CPU time of this process so far.
fn cpu() -> Duration {
    let mut spent = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which outlives the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut spent) };
    assert_eq!(failed, 0, "the clock can be read");
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// A client's message as dhclient would send it.
fn message(number: u32, kind: u8, ciaddr: Option<Ipv4Addr>, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes[12..16].copy_from_slice(&ciaddr.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    bytes[28..34].copy_from_slice(&hardware(number));
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, kind]);
    let name = format!("machine-{number}");
    bytes.extend([12, u8::try_from(name.len()).unwrap_or(0)]);
    bytes.extend(name.as_bytes());
    bytes.extend([55, 9, 1, 28, 121, 3, 15, 6, 119, 12, 26]);
    bytes.extend(options);
    bytes.push(255);
    bytes
}

fn hardware(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 0, a, b, c, d]
}

fn origin(number: u32) -> Origin<'static> {
    Origin { port: 1 + number / BEHIND_PORT, hardware: hardware(number), hostname: None }
}

/// The address that a reply gives.
fn given(reply: &Reply) -> Ipv4Addr {
    let octets = reply.message.get(16..20).and_then(|octets| <[u8; 4]>::try_from(octets).ok());
    octets.unwrap_or_default().into()
}

fn main() -> ExitCode {
    let count: u32 = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(5000);
    let mut server = Server::new(Dhcp4 {
        subnet: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16),
        server: GATEWAY,
        leads_out: true,
        pool: vec![(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 255, 254))],
        lease: Duration::from_secs(3600),
        domain: Some("lan".into()),
        search: vec!["lan".into()],
        mtu: 1500,
        relay: false,
    });
    let mut now = Duration::from_secs(1);
    let mut lent = 0;
    let begin = cpu();
    for number in 0..count {
        let discover = message(number, 1, None, &[]);
        if server.receive(&discover, origin(number), now).is_err() {
            eprintln!("client {number} is refused");
        }
    }
    let (mut probes, mut addresses) = (0, vec![Ipv4Addr::UNSPECIFIED; count as usize]);
    // Machines in one queue, each of which asks again while it waits, and takes what it is offered.
    let end = now + PROBE_WAIT * (2 + count.div_ceil(UNDER_QUESTION_MAX as u32));
    let mut again = now + PATIENCE;
    while now <= end {
        while let Some(offer) = server.run_out(now) {
            let number = offer.message.get(4..8).and_then(|xid| <[u8; 4]>::try_from(xid).ok());
            let number = u32::from_be_bytes(number.unwrap_or_default());
            let [a, b, c, d] = given(&offer).octets();
            let [e, f, g, h] = GATEWAY.octets();
            let request = message(number, 3, None, &[54, 4, e, f, g, h, 50, 4, a, b, c, d]);
            if let Ok(Some(ack)) = server.receive(&request, origin(number), now) {
                addresses[number as usize] = given(&ack);
                lent += 1;
            }
        }
        probes += std::iter::from_fn(|| server.lending.next_probe(now)).count();
        if lent == count {
            break;
        }
        now = server.lending.next_timeout().unwrap_or(Duration::MAX).min(again);
        if now == again {
            again += PATIENCE;
            for number in (0..count).filter(|at| addresses[*at as usize].is_unspecified()) {
                let discover = message(number, 1, None, &[]);
                _ = server.receive(&discover, origin(number), now);
            }
        }
    }
    let leased = cpu() - begin;
    server.lending.take_changes();
    now += Duration::from_secs(1800);
    let begin = cpu();
    let mut renewed = 0;
    for (number, address) in (0..).zip(&addresses) {
        let request = message(number, 3, Some(*address), &[]);
        let reply = server.receive(&request, origin(number), now);
        renewed += u32::from(matches!(reply, Ok(Some(reply)) if given(&reply) == *address));
    }
    println!("{lent} leases after {probes} probes: {:.1} ms of CPU", leased.as_secs_f64() * 1e3);
    println!("{renewed} renewed: {:.1} ms of CPU", (cpu() - begin).as_secs_f64() * 1e3);
    if lent == count && renewed == count { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
