//! Arbitrary bytes as the messages that one parser reads, without a switch around it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use portolan_dhcp::dns::forward::{Action, Forwarder, Servers};
use portolan_dhcp::dns::query::{Reaction, Transport, react};
use portolan_dhcp::dns::zone::{Directory, HostKey, Outlook, ZoneKey};
use portolan_switch::frame::{Checksum, Frame, HEADROOM, Offload};
use portolan_switch::offload::{
    VNET_LEN, complete, parse_vnet, segments_of, wire_bytes, write_vnet,
};
use portolan_switch::segment::segment;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Script;

/// A virtio_net_hdr and a frame. What is taken for sound must be writable, be read back as the same, and be cut into as many
/// frames, of as many bytes, as it is counted for; tags that come and go must leave it so.
pub fn vnet(data: &[u8]) {
    let mut script = Script(data);
    let mut header = [0; VNET_LEN];
    let given = script.bytes(VNET_LEN);
    header[..given.len()].copy_from_slice(given);
    let shape = script.byte();
    let mut bytes = script.0.to_vec();
    if shape & 1 != 0 {
        // A superframe's payload need not be in the script.
        bytes.resize(bytes.len() + usize::from(shape >> 1) * 256, 7);
    }
    let Ok(offload) = parse_vnet(&header, &bytes) else { return };
    let again = parse_vnet(&write_vnet(&offload), &bytes);
    let told = match offload.csum {
        // That a guest says so is not passed on.
        Checksum::Verified => Offload { csum: Checksum::Unverified, ..offload },
        _ => offload,
    };
    assert_eq!(again, Ok(told), "{header:?}");
    let (mut frames, mut sent) = (0, 0);
    let mut scratch = vec![0; 1 << 17];
    let counted = segment(&bytes, &offload, &mut scratch, |frame| {
        frames += 1;
        sent += frame.len() as u64;
    });
    assert_eq!(counted, Ok(frames));
    assert_eq!(
        (segments_of(bytes.len(), &offload), wire_bytes(bytes.len(), &offload)),
        (frames, sent)
    );
    // A scratch too short is refused before anything is emitted.
    let mut emitted = false;
    let short = segment(&bytes, &offload, &mut [0; 20], |_| emitted = true);
    assert!(short.is_ok() || !emitted, "emitted before it was refused: {short:?}");
    let mut whole = offload;
    complete(&mut bytes.clone(), &mut whole);

    let mut buffer = vec![0; HEADROOM];
    buffer.extend(&bytes);
    let len = bytes.len();
    let mut frame = Frame::new(&mut buffer, HEADROOM, len);
    frame.offload = offload;
    if frame.open_gap(12, 4) {
        frame.bytes_mut()[12..16].copy_from_slice(&[0x81, 0, 0, 10]);
        assert!(frame.close_gap(12, 4));
        assert_eq!(frame.bytes(), bytes);
    }
}

/// A query for names, some of which we know, and replies of any bytes to what is passed on.
pub fn dns(data: &[u8]) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let directory = directory();
    let mut script = Script(data);
    let mut forwarder: Forwarder<u8, u16> = Forwarder::default();
    let servers = Servers { list: vec![1, 2], own: false };
    let mut now = Duration::ZERO;
    for number in 0..50 {
        if script.0.is_empty() {
            break;
        }
        let shape = script.byte();
        let len = usize::from(script.byte()) * if shape & 1 == 0 { 1 } else { 8 };
        let mut query = script.bytes(len).to_vec();
        if shape & 2 != 0 {
            // A head of one plain question, so that the script is spent on the question.
            query.splice(0..0, [shape, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, shape >> 7]);
        }
        let transport =
            if shape & 4 == 0 { Transport::Udp { limit: 1232 } } else { Transport::Tcp };
        match react(&directory, HostKey(u32::from(shape >> 3 & 1)), &query, transport, &mut random)
        {
            Some(Reaction::Reply(reply)) => {
                let limit = if shape & 4 == 0 { 1232 } else { usize::from(u16::MAX) };
                assert!(reply.len() <= limit, "{} bytes", reply.len());
            }
            Some(Reaction::Elsewhere { question, .. }) => {
                forwarder.ask(HostKey(0), number, question, &servers, now, &mut random);
            }
            None => {}
        }
        serve(&mut forwarder, &mut script, shape, now, &mut random);
        now += Duration::from_millis(u64::from(shape) * 10);
        forwarder.handle_timeout(now, &mut random);
    }
    now += Duration::from_secs(1000);
    for _ in 0..100 {
        while forwarder.poll_action().is_some() {}
        match forwarder.poll_timeout() {
            Some(due) => forwarder.handle_timeout(now.max(due), &mut random),
            None => break,
        }
        now += Duration::from_secs(1000);
    }
    assert!(forwarder.is_empty(), "a question waits for ever");
}

/// Two networks, one of them leading out, and names of which some are shared.
fn directory() -> Directory {
    let mut directory = Directory::new();
    let v4 = |last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
    for (zone, domain) in [(ZoneKey(0), "app"), (ZoneKey(1), "db.example")] {
        directory.add_zone(zone, Some(domain));
        directory.set_shared_domains(zone, &["corp.example".to_owned(), "app".to_owned()]);
        directory.set_outlook(zone, Outlook { leads_out: zone.0 == 0, ..Outlook::default() });
        for host in 0..3 {
            let names = [format!("n{host}"), "all".to_owned(), "a.b".to_owned()];
            let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host as u16);
            directory.set_host(zone, HostKey(host), &names, &[v4(host as u8), v6.into()]);
        }
    }
    directory.set_view(HostKey(0), vec![ZoneKey(0), ZoneKey(1)]);
    directory.set_view(HostKey(1), vec![ZoneKey(1)]);
    directory
}

/// Does what the forwarder wants done: servers reply with what the script says, to the question asked or another.
fn serve(
    forwarder: &mut Forwarder<u8, u16>,
    script: &mut Script<'_>,
    shape: u8,
    now: Duration,
    random: &mut ChaCha8Rng,
) {
    for _ in 0..8 {
        let Some(action) = forwarder.poll_action() else { return };
        let Action::Ask { attempt, message, .. } = action else { continue };
        match shape >> 4 & 3 {
            0 => forwarder.failed(attempt, now, random),
            1 => {}
            kind => {
                let len = usize::from(script.byte()) * 4;
                let mut reply = script.bytes(len).to_vec();
                if kind == 2 {
                    // The question comes first, as it was asked.
                    let mut whole = message.clone();
                    whole[2] |= 0x80;
                    let counts = reply.len().min(6);
                    whole[6..6 + counts].copy_from_slice(&reply[..counts]);
                    whole.extend(reply.drain(counts..));
                    reply = whole;
                }
                forwarder.reply(attempt, &reply, now, random);
            }
        }
    }
}
