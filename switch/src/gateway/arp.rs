//! ARP (RFC 826): who has the gateway's IPv4 addresses.

use std::net::Ipv4Addr;

use crate::drops::DropReason;
use crate::headers::{Layout, bytes_at, ethertype};
use crate::ids::MacAddr;

use super::Call;
use super::services::moment;

/// Bytes of a message for Ethernet and IPv4.
pub(super) const MESSAGE_LEN: usize = 28;

/// Hardware type, protocol type and both address lengths, for Ethernet and IPv4.
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// The address that a message for Ethernet and IPv4 is about.
pub(super) fn target(message: &[u8]) -> Option<Ipv4Addr> {
    let message = message.first_chunk::<MESSAGE_LEN>()?;
    message.starts_with(&HEAD).then(|| address_at(message, 24))
}

/// Writes a request for an address.
pub(super) fn request(message: &mut [u8], mac: MacAddr, from: Ipv4Addr, wanted: Ipv4Addr) {
    message[..6].copy_from_slice(&HEAD);
    message[6..8].copy_from_slice(&REQUEST);
    message[8..14].copy_from_slice(&mac.0);
    message[14..18].copy_from_slice(&from.octets());
    message[24..28].copy_from_slice(&wanted.octets());
}

fn address_at(message: &[u8; MESSAGE_LEN], at: usize) -> Ipv4Addr {
    let mut octets = [0; 4];
    octets.copy_from_slice(&message[at..at + 4]);
    octets.into()
}

impl Call<'_, '_, '_> {
    /// Answers a request for one of the gateway's addresses from its subnet, or from one who probes whether the address is
    /// free (RFC 5227). An announcement or a reply about it is heard and changes nothing: there is no table to poison. But whoever
    /// speaks with an address that DHCP is about to lend has it already.
    pub(super) fn arp(&mut self, layout: &Layout) -> Result<(), DropReason> {
        let message = self.bytes().get(layout.l3..).and_then(<[u8]>::first_chunk);
        let message: [u8; MESSAGE_LEN] = *message.ok_or(DropReason::Malformed)?;
        let sender = address_at(&message, 14);
        let wanted = address_at(&message, 24);
        if let Some(server) = self.asker.services.dhcp4_mut() {
            let hardware = bytes_at(&message, 8).unwrap_or_default();
            server.lending.heard(sender, self.asker.port.id().0, hardware, moment(self.now));
        }
        let net = self.gateway.v4.iter().find(|net| net.addr() == wanted);
        let near = net.is_some_and(|net| net.contains(&sender)) || sender.is_unspecified();
        if message[6..8] != REQUEST || sender == wanted || !near {
            return Ok(());
        }
        let own = self.gateway.mac();
        self.send(self.asker.mac, ethertype::ARP, MESSAGE_LEN, |_, reply| {
            reply[..6].copy_from_slice(&HEAD);
            reply[6..8].copy_from_slice(&REPLY);
            reply[8..14].copy_from_slice(&own.0);
            reply[14..18].copy_from_slice(&wanted.octets());
            reply[18..28].copy_from_slice(&message[8..18]);
        })
    }
}
