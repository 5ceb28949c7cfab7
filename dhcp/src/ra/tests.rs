use proptest::prelude::*;

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn advert() -> Advert {
    Advert {
        prefixes: vec!["fd00:1::/64".parse().unwrap()],
        autonomous: false,
        managed: true,
        other: true,
        leads_out: true,
        mtu: 1500,
        dns: vec!["fd00:1::1".parse().unwrap()],
        search: vec!["lan.example".into()],
        routes: vec![],
    }
}

/// The options of an advertisement, each with its type.
fn options(message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &message[ADVERTISEMENT_LEN..];
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (option, behind) = rest.split_at(usize::from(rest[1]) * 8);
        all.push((option[0], option.to_vec()));
        rest = behind;
    }
    all
}

#[test]
fn an_advertisement_is_written_byte_by_byte_as_the_rfcs_have_it() {
    let mut expected = vec![134, 0, 0, 0, 64, 0xc0, 0x23, 0x28, 0, 0, 0, 0, 0, 0, 0, 0];
    expected.extend([1, 1, 2, 0, 0, 0, 0, 1]);
    expected.extend([5, 1, 0, 0, 0, 0, 0x05, 0xdc]);
    expected.extend([3, 4, 64, 0x80, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0]);
    expected.extend([0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([25, 3, 0, 0, 0, 0, 0x23, 0x28]);
    expected.extend([0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    expected.extend([31, 3, 0, 0, 0, 0, 0x23, 0x28]);
    expected.extend(b"\x03lan\x07example\0\0\0\0");
    assert_eq!(advertisement(&advert(), MAC), expected);
}

#[test]
fn who_does_not_lead_out_is_no_default_router() {
    let internal = Advert { leads_out: false, ..advert() };
    assert_eq!(advertisement(&internal, MAC)[6..8], [0, 0]);
}

#[test]
fn flags_say_what_dhcpv6_gives() {
    for (managed, other, flags) in [(false, false, 0), (false, true, 0x40), (true, true, 0xc0)] {
        let message = advertisement(&Advert { managed, other, ..advert() }, MAC);
        assert_eq!(message[5], flags);
    }
}

#[test]
fn hosts_make_addresses_of_prefixes_of_64_bits_alone() {
    let prefixes = ["fd00:1::/64", "fd00:2::/80", "fd00:3::/48"];
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
    let message = advertisement(&Advert { autonomous: true, prefixes, ..advert() }, MAC);
    let flags = options(&message).into_iter().filter(|(kind, _)| *kind == option::PREFIX);
    let flags: Vec<(u8, u8)> = flags.map(|(_, option)| (option[2], option[3])).collect();
    assert_eq!(flags, [(64, 0xc0), (80, 0x80), (48, 0x80)]);
}

#[test]
fn routes_take_as_many_bytes_as_their_prefix_needs() {
    let routes = ["::/0", "fd00:9::/32", "fd00:9::/64", "fd00:9::8/125"];
    let routes = routes.iter().map(|route| route.parse().unwrap()).collect();
    let message = advertisement(&Advert { routes, ..advert() }, MAC);
    let routes = options(&message).into_iter().filter(|(kind, _)| *kind == option::ROUTE);
    let routes: Vec<Vec<u8>> = routes.map(|(_, option)| option).collect();
    let lifetime = [0, 0, 0x23, 0x28];
    let half = [0xfd, 0, 0, 9, 0, 0, 0, 0];
    assert_eq!(routes[0], [&[24, 1, 0, 0][..], &lifetime].concat());
    assert_eq!(routes[1], [&[24, 2, 32, 0][..], &lifetime, &half].concat());
    assert_eq!(routes[2], [&[24, 2, 64, 0][..], &lifetime, &half].concat());
    let rest = [0, 0, 0, 0, 0, 0, 0, 8];
    assert_eq!(routes[3], [&[24, 3, 125, 0][..], &lifetime, &half, &rest].concat());
}

#[test]
fn what_is_not_there_makes_no_option() {
    let bare = Advert { prefixes: vec![], dns: vec![], search: vec![], ..advert() };
    let kinds = options(&advertisement(&bare, MAC)).into_iter().map(|(kind, _)| kind);
    assert_eq!(kinds.collect::<Vec<_>>(), [option::SOURCE_LINK_LAYER, option::MTU]);
    let impossible = Advert { search: vec!["a..b".into(), "x".repeat(64)], ..advert() };
    let has_search = options(&advertisement(&impossible, MAC)).iter().any(|(kind, _)| *kind == 31);
    assert!(!has_search);
}

#[test]
fn however_much_is_to_be_told_the_message_fits_every_link() {
    let many = Advert {
        prefixes: (0..20)
            .map(|n| Ipv6Net::new(Ipv6Addr::new(0xfd00, n, 0, 0, 0, 0, 0, 0), 64).unwrap())
            .collect(),
        dns: (0..200).map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)).collect(),
        search: (0..200).map(|n| format!("{}.{n}", "x".repeat(60))).collect(),
        routes: (0..200)
            .map(|n| Ipv6Net::new(Ipv6Addr::new(0xfd01, n, 0, 0, 0, 0, 0, 0), 128).unwrap())
            .collect(),
        ..advert()
    };
    let message = advertisement(&many, MAC);
    assert!(message.len() <= MESSAGE_MAX, "{}", message.len());
    let count = |wanted| options(&message).iter().filter(|(kind, _)| *kind == wanted).count();
    assert_eq!((count(option::PREFIX), count(option::DNS_SERVERS)), (20, 1));
}

#[test]
fn a_solicitation_is_taken_whole_or_not_at_all() {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    let plain = [133, 0, 1, 2, 0, 0, 0, 0];
    let named = [&plain[..], &[1, 1, 2, 0, 0, 0, 0, 9]].concat();
    assert!(is_solicitation(&plain, link_local));
    assert!(is_solicitation(&plain, Ipv6Addr::UNSPECIFIED));
    assert!(is_solicitation(&named, link_local));
    // Who has no address yet must not name his hardware (RFC 4861, section 6.1.1).
    assert!(!is_solicitation(&named, Ipv6Addr::UNSPECIFIED));
    assert!(!is_solicitation(&named, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)));
    for len in (0..named.len()).filter(|len| *len != 8) {
        assert!(!is_solicitation(&named[..len], link_local), "{len}");
    }
    for (at, byte) in [(0, 134), (1, 1), (9, 0), (9, 2)] {
        let mut broken = named.clone();
        broken[at] = byte;
        assert!(!is_solicitation(&broken, link_local), "{at} {byte}");
    }
}

proptest! {
    #[test]
    fn no_bytes_upset_whoever_looks_for_a_solicitation(
        mut message in prop::collection::vec(any::<u8>(), 0..64), from: u128,
    ) {
        if let Some(kind) = message.first_mut() {
            *kind = SOLICITATION;
        }
        is_solicitation(&message, Ipv6Addr::from_bits(from));
    }
}
