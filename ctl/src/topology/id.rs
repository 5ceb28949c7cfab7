//! The ids that users see: 64 hexadecimal digits, of which 12 are enough for people.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};

/// Digits of the short form.
const SHORT_DIGITS: usize = 12;

/// The id of a network, a node or an endpoint, drawn at random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(pub [u8; 32]);

impl Id {
    /// A new id. Its short form is never made of decimal digits alone: as a hostname that would be read as an IPv4
    /// address (inet_aton takes a bare number).
    pub fn random(random: &mut dyn Rng) -> Id {
        let mut octets = [0; 32];
        random.fill_bytes(&mut octets);
        let decimal = |octet: &u8| octet >> 4 < 10 && octet & 0xf < 10;
        if octets[..SHORT_DIGITS / 2].iter().all(decimal) {
            octets[0] |= 0xa0;
        }
        Id(octets)
    }

    /// The first 12 digits.
    pub fn short(self) -> String {
        let mut text = self.to_string();
        text.truncate(SHORT_DIGITS);
        text
    }

    /// The first and the last id that start with these digits; none where they are no digits of an id.
    pub fn range_of_prefix(digits: &str) -> Option<RangeInclusive<Id>> {
        if digits.is_empty() || digits.len() > 64 {
            return None;
        }
        let (mut low, mut high) = ([0u8; 32], [0xffu8; 32]);
        for (place, digit) in digits.bytes().enumerate() {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            let (octet, shift) = (place / 2, if place % 2 == 0 { 4 } else { 0 });
            low[octet] |= value << shift;
            high[octet] &= !(0xf << shift) | value << shift;
        }
        Some(Id(low)..=Id(high))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Id, String> {
        Id::range_of_prefix(text)
            .filter(|_| text.len() == 64)
            .map(|range| *range.start())
            .ok_or_else(|| format!("{text:?} is not an id of 64 hexadecimal digits"))
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Id, String> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_round_trips_and_prefix_spans_what_starts_with_it() {
        let mut octets = [7; 32];
        octets[0] = 0xab;
        octets[1] = 0xcd;
        let id = Id(octets);
        assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
        assert_eq!(id.short(), "abcd07070707");
        for good in ["a", "ab", "abc", "abcd07", &id.to_string()] {
            assert!(Id::range_of_prefix(good).unwrap().contains(&id), "{good}");
        }
        for other in ["b", "ac", "abd"] {
            assert!(!Id::range_of_prefix(other).unwrap().contains(&id), "{other}");
        }
        for bad in ["", "xyz", "AB", "ab-"] {
            assert!(Id::range_of_prefix(bad).is_none(), "{bad}");
        }
        assert!("abcd".parse::<Id>().is_err());
    }

    #[test]
    fn short_id_is_never_a_number() {
        struct Zeros;
        impl rand::TryRng for Zeros {
            type Error = std::convert::Infallible;
            fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
                Ok(0)
            }
            fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
                Ok(0)
            }
            fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
                dst.fill(0);
                Ok(())
            }
        }
        assert_eq!(Id::random(&mut Zeros).short(), "a00000000000");
    }
}
