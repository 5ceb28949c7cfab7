//! Every form of `-p`.

use portolan_switch::command::Transport;

use super::super::ports::{HostPorts, PortWish};

fn wish(text: &str) -> PortWish {
    text.parse().unwrap()
}

#[test]
fn dockers_forms_are_read_and_written_back() {
    for (text, canonical) in [
        ("80", "80/tcp"),
        ("80/udp", "80/udp"),
        ("80/UDP", "80/udp"),
        ("80/", "80/tcp"),
        ("8080:80", "8080:80/tcp"),
        (":80", "80/tcp"),
        ("::80", "80/tcp"),
        ("0:80", "80/tcp"),
        ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
        ("127.0.0.1::80", "127.0.0.1::80/tcp"),
        ("0.0.0.0:8080:80", "0.0.0.0:8080:80/tcp"),
        ("[::1]:8080:80", "[::1]:8080:80/tcp"),
        ("[::1]::80/udp", "[::1]::80/udp"),
        ("::1:8080:80", "[::1]:8080:80/tcp"),
        ("2001:db8::68::333", "[2001:db8::68]::333/tcp"),
        ("[::ffff:192.0.2.1]:1:1", "192.0.2.1:1:1/tcp"),
        ("8000-8010:80-90", "8000-8010:80-90/tcp"),
        ("8000-8010:80", "8000-8010:80/tcp"),
        ("80-90", "80-90/tcp"),
        ("80-80", "80/tcp"),
        ("127.0.0.1:8000-8001:80-81/udp", "127.0.0.1:8000-8001:80-81/udp"),
        ("1-65535:1-65535", "1-65535:1-65535/tcp"),
        ("published=8080,target=80", "8080:80/tcp"),
        (
            "target=53,published=8053,protocol=udp,host_ip=127.0.0.1,mode=host",
            "127.0.0.1:8053:53/udp",
        ),
        ("target=80", "80/tcp"),
    ] {
        let read = wish(text);
        assert_eq!(read.to_string(), canonical, "{text}");
        assert_eq!(wish(canonical), read, "{text}");
    }
}

#[test]
fn a_range_for_one_port_means_one_of_it() {
    assert_eq!(wish("8000-8010:80").host, HostPorts::OneOf(8000, 8010));
    assert_eq!(wish("8000-8010:80").count, 1);
    assert_eq!(wish("8000-8000:80").host, HostPorts::From(8000));
    let all = wish("8000-8010:80-90/udp");
    assert_eq!((all.host, all.count, all.transport), (HostPorts::From(8000), 11, Transport::Udp));
    assert_eq!(wish("80-90").host, HostPorts::Any);
}

#[test]
fn what_is_wrong_with_a_port_is_said() {
    for (text, why) in [
        ("", "the node's port is missing"),
        ("8080:", "the node's port is missing"),
        ("a", "\"a\" is not a port of 1 to 65535"),
        (
            "127.0.0.1:80",
            "behind an address comes the host's port, which may be empty: 127.0.0.1::80",
        ),
        ("[::1]:80", "behind an address comes the host's port, which may be empty: [::1]::80"),
        ("+80", "\"+80\" is not a port of 1 to 65535"),
        ("65536", "\"65536\" is not a port of 1 to 65535"),
        ("8080:0", "there is no port 0"),
        ("0-5:80-85", "there is no port 0"),
        ("90-80", "the range 90-80 ends before it begins"),
        ("8000-8010:80-85", "8000-8010 and 80-85 are not equally many ports"),
        ("8000:80-85", "8000 and 80-85 are not equally many ports"),
        ("80/sctp", "sctp cannot be published: sockets of the host carry tcp and udp"),
        ("80/icmp", "\"icmp\" is neither tcp nor udp"),
        ("localhost:80:80", "\"localhost\" is not an address of the host"),
        ("1.2.3:80:80", "\"1.2.3\" is not an address of the host"),
        ("[::1:80:80", "the bracket of its address is not closed before a colon"),
        ("224.0.0.1:80:80", "224.0.0.1 is the address of a group"),
        ("[fe80::1]:80:80", "fe80::1 is link-local: give another address of the host, or none"),
        ("published=80", "target= is missing: the node's port"),
        ("target=80,x=1", "\"x=1\" is none of target, published, protocol, host_ip, mode"),
        ("target=80,udp", "\"udp\" is not of the form KEY=VALUE"),
    ] {
        let told = text.parse::<PortWish>().unwrap_err();
        assert_eq!(told, format!("invalid port {text:?}: {why}"));
    }
}

#[test]
fn ports_clash_where_they_share_address_number_and_transport() {
    for (a, b, clash) in [
        ("8080:80", "8080:81", true),
        ("8080:80", "8080:80/udp", false),
        ("8080:80", "127.0.0.1:8080:80", true),
        ("8080:80", "[::1]:8080:80", true),
        ("0.0.0.0:8080:80", "[::]:8080:80", false),
        ("0.0.0.0:8080:80", "127.0.0.1:8080:80", true),
        ("127.0.0.1:8080:80", "127.0.0.2:8080:80", false),
        ("8000-8010:80-90", "8010-8020:80-90", true),
        ("8000-8010:80-90", "8011-8020:80-89", false),
        ("8000-8010:80", "8000:80", false),
        ("80", "80", false),
    ] {
        assert_eq!(wish(a).clashes(&wish(b)), clash, "{a} {b}");
        assert_eq!(wish(b).clashes(&wish(a)), clash, "{b} {a}");
    }
}
