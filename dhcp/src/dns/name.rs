//! Domain names in the form they are looked up in.
//!
//! The form is the wire's (RFC 1035, section 3.1): each label behind its length, without the zero byte of the root.
//! Folding to lower case can treat lengths and text alike: a length is at most 63, below every letter. A suffix of a
//! name is a suffix of its bytes that begins where a label begins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest label, in bytes (RFC 1035, section 2.3.4).
const LABEL_MAX: usize = 63;

/// The longest name without the zero byte of the root, in bytes: 255 on the wire (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 254;

/// The wire form of a dotted name, its case preserved; a trailing dot is ignored. `None` if the wire cannot carry it:
/// an empty label, a label of more than 63 bytes, more than 253 bytes in all.
pub(super) fn wire_form(text: &str) -> Option<Box<[u8]>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.len() >= NAME_MAX {
        return None;
    }
    let mut wire = Vec::with_capacity(text.len() + 1);
    for label in text.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if label.is_empty() || label.len() > LABEL_MAX {
            return None;
        }
        wire.push(length);
        wire.extend_from_slice(label.as_bytes());
    }
    Some(wire.into_boxed_slice())
}

/// A search list as DHCPv6 and router advertisements carry it (RFC 8415, section 10): one name behind the other, as many in order
/// as find room in `max` bytes. What the wire cannot carry is left out.
pub(crate) fn search_list(domains: &[String], max: usize) -> Vec<u8> {
    let mut list = Vec::new();
    for domain in domains.iter().filter_map(|domain| wire_form(domain)) {
        if list.len() + domain.len() + 1 > max {
            break;
        }
        list.extend_from_slice(&domain);
        list.push(0);
    }
    list
}

/// `name` below `domain`, or `None` if both together are longer than a name may be.
pub(super) fn join(name: &[u8], domain: &[u8]) -> Option<Box<[u8]>> {
    (name.len() + domain.len() <= NAME_MAX).then(|| [name, domain].concat().into_boxed_slice())
}

/// A name that is asked for, folded to lower case.
pub(super) struct Folded {
    octets: Vec<u8>,
    /// Where each label begins, left to right.
    starts: Vec<usize>,
}

impl Folded {
    /// The name made of `labels`. They come from a decoder that has checked the lengths.
    pub(super) fn new<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Folded {
        let mut folded = Folded { octets: Vec::with_capacity(64), starts: Vec::with_capacity(8) };
        for label in labels {
            folded.starts.push(folded.octets.len());
            folded.octets.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            folded.octets.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        folded
    }

    /// The whole name.
    pub(super) fn whole(&self) -> &[u8] {
        &self.octets
    }

    /// Where the root begins: behind the last label.
    pub(super) fn root(&self) -> usize {
        self.octets.len()
    }

    /// Where each label begins, left to right.
    pub(super) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Where `domain`, folded, begins in this name, if this is it or below it.
    pub(super) fn below(&self, domain: &[u8]) -> Option<usize> {
        let apex = self.octets.len().checked_sub(domain.len())?;
        let aligned = self.starts.contains(&apex);
        (aligned && self.octets.get(apex..) == Some(domain)).then_some(apex)
    }

    /// The prefix that a reverse name stands for, by address and length: one address where all its labels are there, and
    /// also where more stand before them.
    pub(super) fn reversed_prefix(&self) -> Option<(IpAddr, u8)> {
        let labels = |apex: usize| {
            let before = self.starts.iter().rev().filter(move |&&start| start < apex);
            before.map_while(|&start| {
                let len = usize::from(*self.octets.get(start)?);
                str::from_utf8(self.octets.get(start + 1..start + 1 + len)?).ok()
            })
        };
        if let Some(apex) = self.below(b"\x07in-addr\x04arpa") {
            let mut address = [0; 4];
            let octets = labels(apex).map_while(|label| label.parse().ok());
            let count = address.iter_mut().zip(octets).map(|(to, octet)| *to = octet).count();
            return Some((Ipv4Addr::from(address).into(), u8::try_from(count * 8).ok()?));
        }
        let apex = self.below(b"\x03ip6\x04arpa")?;
        let digits = labels(apex).map_while(|label| match label.len() {
            1 => u128::from_str_radix(label, 16).ok(),
            _ => None,
        });
        let (mut address, mut len) = (0u128, 0);
        for digit in digits.take(32) {
            len += 4;
            address |= digit << (128 - len);
        }
        Some((Ipv6Addr::from(address).into(), u8::try_from(len).ok()?))
    }

    /// The address whose reverse name this is (RFC 1035, section 3.5; RFC 3596, section 2.5); `None` for every other
    /// name, one that covers a range of addresses included.
    pub(super) fn reversed_address(&self) -> Option<IpAddr> {
        if let Some(octets) = self.octets.strip_suffix(b"\x07in-addr\x04arpa") {
            return reversed_v4(octets).map(IpAddr::V4);
        }
        let nibbles = self.octets.strip_suffix(b"\x03ip6\x04arpa")?;
        reversed_v6(nibbles).map(IpAddr::V6)
    }
}

fn reversed_v4(mut wire: &[u8]) -> Option<Ipv4Addr> {
    let mut address = [0; 4];
    for octet in address.iter_mut().rev() {
        let (&length, rest) = wire.split_first()?;
        let (digits, rest) = rest.split_at_checked(usize::from(length))?;
        let canonical = matches!(digits, [b'0'] | [b'1'..=b'9', ..]);
        if !canonical || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        *octet = str::from_utf8(digits).ok()?.parse().ok()?;
        wire = rest;
    }
    wire.is_empty().then(|| Ipv4Addr::from(address))
}

fn reversed_v6(wire: &[u8]) -> Option<Ipv6Addr> {
    let (labels, rest) = wire.as_chunks::<2>();
    if labels.len() != 32 || !rest.is_empty() {
        return None;
    }
    let mut address = 0u128;
    for &[length, digit] in labels.iter().rev() {
        if length != 1 {
            return None;
        }
        address = address << 4 | u128::from(char::from(digit).to_digit(16)?);
    }
    Some(Ipv6Addr::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> Folded {
        Folded::new(text.split('.').map(str::as_bytes))
    }

    #[test]
    fn wire_form_keeps_case_and_ignores_a_trailing_dot() {
        assert_eq!(wire_form("Db.App.").unwrap().as_ref(), b"\x02Db\x03App");
        assert_eq!(wire_form("Db.App"), wire_form("Db.App."));
    }

    #[test]
    fn wire_form_refuses_what_the_wire_cannot_carry() {
        for text in ["", ".", "..", "a..b", ".a", "a..", &"x".repeat(64)] {
            assert_eq!(wire_form(text), None, "{text:?}");
        }
        assert_eq!(wire_form(&"x.".repeat(127)).unwrap().len(), NAME_MAX);
        assert_eq!(wire_form(&"x.".repeat(128)), None);
        assert_eq!(wire_form(&"x".repeat(63)).unwrap().len(), 64);
        let longest = ["x".repeat(63), "x".repeat(63), "x".repeat(63), "x".repeat(61)].join(".");
        assert_eq!(wire_form(&longest).unwrap().len(), NAME_MAX);
        assert_eq!(wire_form(&format!("{longest}x")), None);
    }

    #[test]
    fn join_stops_at_the_longest_name() {
        let name = wire_form(&["x".repeat(63), "x".repeat(63), "x".repeat(63)].join(".")).unwrap();
        assert_eq!(join(&name, &wire_form(&"x".repeat(61)).unwrap()).unwrap().len(), NAME_MAX);
        assert_eq!(join(&name, &wire_form(&"x".repeat(62)).unwrap()), None);
    }

    #[test]
    fn only_canonical_reverse_names_are_addresses() {
        let v4 = |text: &str| folded(text).reversed_address();
        assert_eq!(v4("4.3.20.10.in-addr.arpa"), Some("10.20.3.4".parse().unwrap()));
        assert_eq!(v4("0.0.0.10.IN-ADDR.ARPA"), Some("10.0.0.0".parse().unwrap()));
        for text in [
            "in-addr.arpa",
            "10.in-addr.arpa",
            "5.4.3.2.1.in-addr.arpa",
            "04.3.2.1.in-addr.arpa",
            "256.3.2.1.in-addr.arpa",
            "+4.3.2.1.in-addr.arpa",
            "a.3.2.1.in-addr.arpa",
            "4.3.2.1.in-addr.arpa.app",
            "ip6.arpa",
            "1.ip6.arpa",
        ] {
            assert_eq!(v4(text), None, "{text}");
        }
        let nibbles = format!("{}{}", "1.".to_owned() + &"0.".repeat(27), "0.0.D.f.ip6.arpa");
        assert_eq!(v4(&nibbles), Some("fd00::1".parse().unwrap()));
        assert_eq!(v4(&nibbles.replacen("1.", "g.", 1)), None);
        assert_eq!(v4(&nibbles.replacen("1.", "11.", 1)), None);
    }

    #[test]
    fn a_reverse_name_stands_for_a_prefix_whatever_stands_before_it() {
        let prefix = |text: &str| folded(text).reversed_prefix();
        let v4 = |text: &str, len| Some((text.parse().unwrap(), len));
        assert_eq!(prefix("4.3.20.10.in-addr.arpa"), v4("10.20.3.4", 32));
        assert_eq!(prefix("_x.4.3.20.10.in-addr.arpa"), v4("10.20.3.4", 32));
        assert_eq!(prefix("20.10.IN-ADDR.arpa"), v4("10.20.0.0", 16));
        assert_eq!(prefix("x.10.in-addr.arpa"), v4("10.0.0.0", 8));
        assert_eq!(prefix("in-addr.arpa"), v4("0.0.0.0", 0));
        assert_eq!(prefix("0.0.d.f.ip6.arpa"), Some(("fd00::".parse().unwrap(), 16)));
        assert_eq!(prefix("4.3.2.1.example.com"), None);
        let whole = format!("x.{}{}", "1.".to_owned() + &"0.".repeat(27), "0.0.d.f.ip6.arpa");
        assert_eq!(prefix(&whole), Some(("fd00::1".parse().unwrap(), 128)));
    }

    #[test]
    fn a_name_is_below_a_domain_at_a_label_only() {
        let below = |text: &str| folded(text).below(b"\x05local");
        assert_eq!(below("local"), Some(0));
        assert_eq!(below("printer.Local"), Some(8));
        assert_eq!(below("nonlocal"), None);
        assert_eq!(below("a.local.b"), None);
    }

    #[test]
    fn a_suffix_inside_a_label_is_not_a_reverse_name() {
        let label: &[u8] = b"\x014\x013\x012\x011\x07in-addr\x04arpa";
        assert_eq!(Folded::new([label].into_iter()).reversed_address(), None);
    }
}
