//! The programs that the demo's nodes run: a server that asks the next tier by its name, and what asks it. The demo has the
//! same server on the host, in its own process.
//!
//! They are this binary, so that the demo needs nothing else on the machine; names go through `getaddrinfo` and the node's
//! own /etc/resolv.conf, as any program's do. By TCP they speak HTTP; by UDP the question is a path alone, and the answer is
//! one datagram. Asked for [`WHO`], a server says by which address it sees the client.

mod frames;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use clap::Args;
use portolan::api::client::Failure;

use super::output;

pub use self::frames::Frames;

/// Exit code of a fetch that found no way: the name is unknown, or nobody answers.
pub const UNREACHABLE: i32 = 4;

/// The path that asks a server by which address it sees the client.
pub const WHO: &str = "/who";

/// What stands between a server's name and the client's address in an answer to [`WHO`].
pub const SEES: &str = ": you are ";

/// A request or a reply by TCP has at most this many bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// A request or a reply by UDP has at most this many bytes.
const DATAGRAM_MAX: usize = 1024;

/// How long a tier waits for the next one, and for a slow client.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause before a server that has not begun to listen is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// How long a datagram's answer may take before another is sent.
const SEND_AGAIN: Duration = Duration::from_millis(500);

/// How many ports of TCP are tried until one is free for UDP too.
const PORTS_TRIED: usize = 8;

#[derive(Args, Debug)]
pub struct Serve {
    /// How it calls itself
    name: String,
    /// Where it listens
    port: u16,
    /// Whom it asks, as http://NAME:PORT/
    upstream: Option<String>,
}

impl Serve {
    pub fn act(self) -> Result<i32, Failure> {
        let all = |ip: IpAddr| Ears::open(SocketAddr::new(ip, self.port));
        let ears = all(Ipv6Addr::UNSPECIFIED.into())
            .or_else(|_| all(Ipv4Addr::UNSPECIFIED.into()))
            .map_err(|e| Failure::new(format!("cannot listen on port {}: {e}", self.port)))?;
        ears.serve(Tier { name: self.name, upstream: self.upstream });
        loop {
            std::thread::park();
        }
    }
}

/// Serves as `name` on a free port of `address`, TCP and UDP, while this process lives; where.
pub fn serve_here(name: &str, address: IpAddr) -> io::Result<SocketAddr> {
    let any = SocketAddr::new(address, 0);
    let mut opened = Ears::open(any);
    for _ in 1..PORTS_TRIED {
        opened = opened.or_else(|_| Ears::open(any));
    }
    let ears = opened?;
    let place = ears.tcp.local_addr()?;
    ears.serve(Tier { name: name.to_owned(), upstream: None });
    Ok(place)
}

/// The sockets of a server: the same port of TCP and UDP.
struct Ears {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Ears {
    fn open(place: SocketAddr) -> io::Result<Ears> {
        let tcp = TcpListener::bind(place)?;
        let udp = UdpSocket::bind(tcp.local_addr()?)?;
        Ok(Ears { tcp, udp })
    }

    /// Serves from now on, on threads of its own. A client that goes away early ends only its own conversation.
    fn serve(self, tier: Tier) {
        let Ears { tcp, udp } = self;
        let tier = Arc::new(tier);
        let other = Arc::clone(&tier);
        std::thread::spawn(move || {
            loop {
                let _ = tcp.accept().and_then(|(client, _)| tier.answer(client));
            }
        });
        std::thread::spawn(move || {
            loop {
                let _ = other.answer_datagram(&udp);
            }
        });
    }
}

/// What a server says.
struct Tier {
    name: String,
    upstream: Option<String>,
}

impl Tier {
    fn answer(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        let path = read_request(&client)?;
        let body = self.reply(&path, client.peer_addr()?);
        let head = format!(
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}",
            body.len()
        );
        client.write_all(format!("{head}\r\n\r\n{body}").as_bytes())
    }

    fn answer_datagram(&self, socket: &UdpSocket) -> io::Result<()> {
        let mut question = [0; DATAGRAM_MAX];
        let (size, client) = socket.recv_from(&mut question)?;
        let path = String::from_utf8_lossy(question.get(..size).unwrap_or_default());
        socket.send_to(self.reply(&path, client).as_bytes(), client)?;
        Ok(())
    }

    fn reply(&self, path: &str, client: SocketAddr) -> String {
        let name = &self.name;
        if path == WHO {
            return format!("{name}{SEES}{}", canonical(client));
        }
        match self.upstream.as_deref().map(|url| fetch(url, &Trying::until(now() + PATIENCE))) {
            None => format!("{name}: 3 charts in stock"),
            Some(Ok(answer)) => format!("{name} <- {}", answer.body),
            Some(Err(error)) => format!("{name} <- nothing: {error}"),
        }
    }
}

/// The path that is asked for. Reads up to the empty line: what is left unread when a socket closes would reset the reply.
fn read_request(client: &TcpStream) -> io::Result<String> {
    let mut path = None;
    for line in BufReader::new(client.take(BYTES_MAX)).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        path.get_or_insert_with(|| line.split(' ').nth(1).unwrap_or_default().to_owned());
    }
    Ok(path.unwrap_or_default())
}

#[derive(Args, Debug)]
pub struct Fetch {
    /// What to fetch, as http://NAME:PORT/ or udp://NAME:PORT/
    url: String,
    /// Seconds until it gives up
    #[arg(long, default_value_t = 5)]
    timeout: u64,
    /// Take a refusal for an answer: do not wait for a server that may only be slow to start
    #[arg(long)]
    once: bool,
    /// Show on a second line from which address and port it asked
    #[arg(long)]
    own: bool,
}

impl Fetch {
    pub fn act(self) -> Result<i32, Failure> {
        let deadline = now() + Duration::from_secs(self.timeout);
        let answer = fetch(&self.url, &Trying { deadline, once: self.once })
            .map_err(|message| Failure { message, code: UNREACHABLE })?;
        output::line(&answer.body);
        if self.own {
            output::line(&answer.own.to_string());
        }
        Ok(0)
    }
}

/// How long a fetch tries.
struct Trying {
    deadline: Instant,
    /// Whether it takes a refusal for an answer.
    once: bool,
}

impl Trying {
    fn until(deadline: Instant) -> Trying {
        Trying { deadline, once: false }
    }

    /// What is left until the deadline; never zero, which sockets take for "for ever".
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(now()).max(Duration::from_millis(1))
    }

    /// What the first address gives that answers. One that refuses may only be slow to start, and a datagram may be lost.
    fn each<T>(
        &self,
        addresses: &[SocketAddr],
        attempt: impl Fn(SocketAddr) -> io::Result<T>,
    ) -> Result<T, String> {
        use io::ErrorKind::{ConnectionRefused, TimedOut, WouldBlock};
        let mut why = String::from("it has no address");
        loop {
            let mut may_change = false;
            for address in addresses {
                if self.left() <= ASK_AGAIN {
                    return Err(why);
                }
                match attempt(*address) {
                    Ok(done) => return Ok(done),
                    Err(error) => {
                        may_change |=
                            matches!(error.kind(), ConnectionRefused | TimedOut | WouldBlock);
                        why = format!("{} does not answer: {}", shown(address.ip()), plain(&error));
                    }
                }
            }
            if self.once || !may_change {
                return Err(why);
            }
            std::thread::sleep(ASK_AGAIN.min(self.left()));
        }
    }
}

/// What a server said, and from where it was asked.
struct Answer {
    body: String,
    own: SocketAddr,
}

/// What `url` answers with.
fn fetch(url: &str, trying: &Trying) -> Result<Answer, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let addresses = || resolve(authority, trying.left());
    match scheme {
        "http" => fetch_page(&addresses()?, authority, path, trying),
        "udp" => trying.each(&addresses()?, |server| ask(server, path, trying)),
        _ => Err("neither an http:// nor a udp:// address".into()),
    }
}

fn fetch_page(
    addresses: &[SocketAddr],
    authority: &str,
    path: &str,
    trying: &Trying,
) -> Result<Answer, String> {
    let mut stream =
        trying.each(addresses, |server| TcpStream::connect_timeout(&server, trying.left()))?;
    let talk = |stream: &mut TcpStream| -> io::Result<(String, SocketAddr)> {
        stream.set_read_timeout(Some(trying.left()))?;
        let request = format!("GET /{path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let own = stream.local_addr()?;
        let mut reply = Vec::new();
        stream.take(BYTES_MAX).read_to_end(&mut reply)?;
        Ok((String::from_utf8_lossy(&reply).into_owned(), own))
    };
    let (reply, own) = talk(&mut stream).map_err(|e| format!("no answer: {}", plain(&e)))?;
    let (head, body) = reply.split_once("\r\n\r\n").ok_or("the answer is no HTTP")?;
    if head.contains(" 200 ") {
        Ok(Answer { body: body.to_owned(), own })
    } else {
        Err("the answer is no 200".into())
    }
}

/// Sends one datagram and waits for its answer.
fn ask(server: SocketAddr, path: &str, trying: &Trying) -> io::Result<Answer> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(trying.left().min(SEND_AGAIN)))?;
    socket.send(format!("/{path}").as_bytes())?;
    let mut reply = [0; DATAGRAM_MAX];
    let size = socket.recv(&mut reply)?;
    let body = String::from_utf8_lossy(reply.get(..size).unwrap_or_default()).into_owned();
    Ok(Answer { body, own: socket.local_addr()? })
}

/// Asks the resolver on a thread of its own, since it keeps its own time.
fn resolve(authority: &str, patience: Duration) -> Result<Vec<SocketAddr>, String> {
    let (tell, told) = mpsc::channel();
    let owned = authority.to_owned();
    std::thread::spawn(move || {
        let _ = tell.send(owned.to_socket_addrs().map(Iterator::collect));
    });
    let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
    match told.recv_timeout(patience) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(_)) => Err(format!("the name {name} is not known here")),
        Err(_) => Err(format!("nobody knows the name {name} within {patience:?}")),
    }
}

/// An address of IPv4 as such, also where a socket of IPv6 tells it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn shown(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

/// What went wrong, in one or two words.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timed out".into(),
        io::ErrorKind::ConnectionRefused => "refused".into(),
        io::ErrorKind::HostUnreachable => "unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "no route".into(),
        _ => error.to_string(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a program of the demo lives in real time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Trying {
        Trying::until(now() + PATIENCE)
    }

    #[test]
    fn a_tier_answers_with_what_the_next_one_said() {
        let ears = Ears::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let app = ears.tcp.local_addr().unwrap();
        let db = serve_here("db", Ipv4Addr::LOCALHOST.into()).unwrap();
        ears.serve(Tier { name: "app".into(), upstream: Some(format!("http://{db}/")) });
        for scheme in ["http", "udp"] {
            let answer = fetch(&format!("{scheme}://{app}/"), &soon()).unwrap();
            assert_eq!(answer.body, "app <- db: 3 charts in stock");
        }
    }

    #[test]
    fn a_server_tells_by_which_address_it_sees_the_client() {
        let db = serve_here("db", Ipv4Addr::LOCALHOST.into()).unwrap();
        for scheme in ["http", "udp"] {
            let answer = fetch(&format!("{scheme}://{db}/who"), &soon()).unwrap();
            assert_eq!(answer.body, format!("db: you are {}", answer.own));
            assert!(answer.own.ip().is_loopback());
        }
        let mapped = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "192.0.2.1:80".parse().unwrap());
    }

    #[test]
    fn a_fetch_says_why_it_failed() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let short = || Trying::until(now() + Duration::from_millis(60));
        for scheme in ["http", "udp"] {
            let error = fetch(&format!("{scheme}://{closed}/"), &short()).err();
            assert_eq!(error.as_deref(), Some("127.0.0.1 does not answer: refused"));
        }
        let error = fetch("ftp://x/", &short()).err();
        assert_eq!(error.as_deref(), Some("neither an http:// nor a udp:// address"));
    }

    #[test]
    fn a_refusal_is_final_for_who_asks_once() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let start = now();
        let once = Trying { deadline: start + PATIENCE, once: true };
        assert!(fetch(&format!("http://{closed}/"), &once).is_err());
        assert!(start.elapsed() < PATIENCE / 2);
    }
}
