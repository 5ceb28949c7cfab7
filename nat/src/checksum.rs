//! The Internet checksum (RFC 1071), and the CRC of SCTP.
//!
//! A sum here is a one's complement sum folded to 16 bits, in host order and not yet inverted; [`finish`] makes a checksum
//! of it. Sums of parts add up with [`add`], provided that each part but the last has an even length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes summed at once: eight lanes of four, which the compiler keeps in vector registers.
const STRIDE: usize = 32;

/// The sum of `bytes`; an odd last byte counts as if a zero followed.
pub fn sum(bytes: &[u8]) -> u16 {
    // Whole words are added as they lie in memory: the byte order of a one's complement sum can be set right at the end
    // (RFC 1071, section 2 (B)). A lane of 64 bits takes four thousand million additions to overflow.
    let mut lanes = [0u64; STRIDE / 4];
    let (strides, rest) = bytes.as_chunks::<STRIDE>();
    for stride in strides {
        let (words, _) = stride.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut total = lanes.into_iter().map(fold).map(u64::from).sum::<u64>();
    let (words, rest) = rest.as_chunks::<2>();
    total += words.iter().map(|word| u64::from(u16::from_ne_bytes(*word))).sum::<u64>();
    if let [last] = rest {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u16::from_be(fold(total))
}

/// Folds a long sum to 16 bits.
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The one's complement sum of two sums.
pub fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // After a carry the sum is at most 0xfffe.
    sum + u16::from(carry)
}

/// Takes `b` away from the sum `a`.
pub fn sub(a: u16, b: u16) -> u16 {
    add(a, !b)
}

/// The sum of a number of 32 bits.
pub fn of_u32(number: u32) -> u16 {
    add((number >> 16) as u16, number as u16)
}

/// The checksum that belongs to a sum.
pub fn finish(sum: u16) -> u16 {
    !sum
}

/// As [`finish`] for UDP, where a zero would mean that there is no checksum (RFC 768).
pub fn finish_udp(sum: u16) -> u16 {
    match finish(sum) {
        0 => 0xffff,
        check => check,
    }
}

/// The sum of the IPv4 pseudo header (RFC 9293, section 3.1); `len` is that of transport header and payload.
pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u32) -> u16 {
    let addresses = add(of_u32(src.to_bits()), of_u32(dst.to_bits()));
    add(addresses, add(u16::from(protocol), of_u32(len)))
}

/// The sum of the IPv6 pseudo header (RFC 8200, section 8.1); `len` is that of transport header and payload.
pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, len: u32) -> u16 {
    let addresses = add(sum(&src.octets()), sum(&dst.octets()));
    add(addresses, add(u16::from(protocol), of_u32(len)))
}

/// The sum of the pseudo header of either family; none where the families differ.
pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> Option<u16> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Some(pseudo_v4(src, dst, protocol, len)),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Some(pseudo_v6(src, dst, protocol, len)),
        _ => None,
    }
}

/// The checksum after a word under it changed from `old` to `new` (RFC 1624, equation 3).
pub fn update(check: u16, old: u16, new: u16) -> u16 {
    !add(add(!check, !old), new)
}

/// As [`update`] for any bytes that lie at an even offset under the checksum.
pub fn update_bytes(check: u16, old: &[u8], new: &[u8]) -> u16 {
    update(check, sum(old), sum(new))
}

/// CRC32c as SCTP stores it: in the order of the bytes it is sent in (RFC 9260, appendix A). `parts` are taken as one.
pub fn crc32c(parts: &[&[u8]]) -> [u8; 4] {
    let crc = parts
        .iter()
        .copied()
        .flatten()
        .fold(u32::MAX, |crc, byte| (crc >> 8) ^ CRC32C[usize::from(crc as u8 ^ byte)]);
    (!crc).to_le_bytes()
}

/// The remainders of all bytes by the Castagnoli polynomial, bits reversed.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 word by word.
    fn naive(bytes: &[u8]) -> u16 {
        bytes.chunks(2).fold(0, |sum, pair| {
            let word = u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            let sum = u32::from(sum) + word;
            ((sum & 0xffff) + (sum >> 16)) as u16
        })
    }

    #[test]
    fn the_rfc_1071_example_sums_as_printed() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(finish(0xddf2), 0x220d);
        assert_eq!(finish_udp(0xffff), 0xffff);
    }

    #[test]
    fn the_rfc_1624_example_updates_as_printed() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_long_run_of_ones_does_not_overflow() {
        assert_eq!(sum(&vec![0xff; 1 << 20]), 0xffff);
        assert_eq!(of_u32(u32::MAX), 0xffff);
    }

    #[test]
    fn crc32c_of_the_nine_digits_is_the_known_one() {
        assert_eq!(crc32c(&[b"1234", b"56789"]), 0xe306_9283_u32.to_le_bytes());
    }

    proptest! {
        #[test]
        fn the_fast_sum_is_the_plain_one(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(sum(&bytes), naive(&bytes));
        }

        #[test]
        fn sums_of_parts_add_up(
            words in prop::collection::vec(any::<[u8; 2]>(), 0..100),
            rest in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut all = words.concat();
            let first = sum(&all);
            all.extend_from_slice(&rest);
            prop_assert_eq!(add(first, sum(&rest)), sum(&all));
            // Zero has two forms here.
            prop_assert_eq!(sub(sum(&all), first) % 0xffff, sum(&rest) % 0xffff);
        }

        #[test]
        fn an_update_is_the_checksum_of_the_changed_bytes(
            mut bytes in prop::collection::vec(any::<u8>(), 20..60),
            new in any::<[u8; 4]>(),
            at in 0..8usize,
        ) {
            let before = finish(sum(&bytes));
            let field = &mut bytes[at * 2..at * 2 + 4];
            let old = field.to_vec();
            field.copy_from_slice(&new);
            prop_assume!(bytes.iter().any(|byte| *byte != 0));
            prop_assert_eq!(update_bytes(before, &old, &new), finish(sum(&bytes)));
        }

        #[test]
        fn the_pseudo_header_sums_like_its_bytes(
            a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), protocol: u8, len: u32,
        ) {
            let tail = [&len.to_be_bytes()[..], &[0, 0, 0, protocol]].concat();
            let six = naive(&[&a[..], &b, &tail].concat());
            prop_assert_eq!(pseudo(a.into(), b.into(), protocol, len), Some(six));
            let (a, b) = ([a[0], a[1], a[2], a[3]], [b[0], b[1], b[2], b[3]]);
            let four = naive(&[&a[..], &b, &tail].concat());
            prop_assert_eq!(pseudo(a.into(), b.into(), protocol, len), Some(four));
        }
    }
}
