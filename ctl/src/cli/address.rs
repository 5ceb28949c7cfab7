//! Addresses, prefixes and numbers as people type them. What is none is refused with what is wrong and what would be right;
//! whoever asks says of which option it is, and repeats what was typed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An IPv4 address.
pub fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| match text.parse::<Ipv6Addr>() {
        Ok(_) => "this is an IPv6 address, which goes to ip6".to_owned(),
        Err(_) => needed(text, "an IPv4 address like 10.1.0.5"),
    })
}

/// An IPv6 address.
pub fn ipv6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse().map_err(|_| match text.parse::<Ipv4Addr>() {
        Ok(_) => "this is an IPv4 address, which goes to ip".to_owned(),
        Err(_) => needed(text, "an IPv6 address like fd00:1::5"),
    })
}

/// An address of either family.
pub fn either(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| needed(text, "an address like 10.1.0.5 or fd00:1::5"))
}

fn needed(text: &str, what: &str) -> String {
    match text.split_once('/') {
        Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
            format!("{what} is needed, without the length of a prefix")
        }
        _ => format!("{what} is needed"),
    }
}

/// A prefix.
pub fn prefix(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| {
        let address = text.split_once('/').map_or(text, |(address, _)| address);
        let (most, usual) = match address.parse() {
            Ok(IpAddr::V4(_)) => (32, 24),
            Ok(IpAddr::V6(_)) => (128, 64),
            Err(_) => return "a subnet like 10.1.0.0/24 or fd00:1::/64 is needed".to_owned(),
        };
        format!(
            "a prefix length from 0 to {most} is needed behind a slash, as in {address}/{usual}"
        )
    })
}

/// A whole number, also below zero.
pub fn whole(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "a whole number is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be_one() {
        assert_eq!(ipv4("10.1.0.5"), Ok(Ipv4Addr::new(10, 1, 0, 5)));
        assert_eq!(either("fd00::1"), Ok("fd00::1".parse().unwrap()));
        let said = [
            (ipv4("10.1.0").err(), "an IPv4 address like 10.1.0.5 is needed"),
            (ipv4("").err(), "an IPv4 address like 10.1.0.5 is needed"),
            (
                ipv4("10.1.0.5/24").err(),
                "an IPv4 address like 10.1.0.5 is needed, without the length of a prefix",
            ),
            (ipv4("fd00::1").err(), "this is an IPv6 address, which goes to ip6"),
            (ipv6("10.1.0.5").err(), "this is an IPv4 address, which goes to ip"),
            (ipv6("fd00::x").err(), "an IPv6 address like fd00:1::5 is needed"),
            (either("gateway").err(), "an address like 10.1.0.5 or fd00:1::5 is needed"),
        ];
        for (said, expected) in said {
            assert_eq!(said.as_deref(), Some(expected));
        }
        assert_eq!((whole("-3"), whole("x")), (Ok(-3), Err("a whole number is needed".into())));
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_what_would_be_one() {
        assert_eq!(prefix("10.1.0.0/16"), Ok("10.1.0.0/16".parse().unwrap()));
        for (text, expected) in [
            (
                "10.1.0.0",
                "a prefix length from 0 to 32 is needed behind a slash, as in 10.1.0.0/24",
            ),
            (
                "10.1.0.0/33",
                "a prefix length from 0 to 32 is needed behind a slash, as in 10.1.0.0/24",
            ),
            (
                "10.1.0.0/",
                "a prefix length from 0 to 32 is needed behind a slash, as in 10.1.0.0/24",
            ),
            ("fd00::/x", "a prefix length from 0 to 128 is needed behind a slash, as in fd00::/64"),
            ("10.1/16", "a subnet like 10.1.0.0/24 or fd00:1::/64 is needed"),
            ("", "a subnet like 10.1.0.0/24 or fd00:1::/64 is needed"),
        ] {
            assert_eq!(prefix(text).unwrap_err(), expected, "{text}");
        }
    }
}
