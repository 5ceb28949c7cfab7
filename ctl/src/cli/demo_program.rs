//! The programs that the demo's nodes run: a web server that asks the next tier by its name, and what fetches from it.
//!
//! They are this binary, so that the demo needs nothing else on the machine; names go through `getaddrinfo` and the node's
//! own /etc/resolv.conf, as any program's do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Args;
use portolan::api::client::Failure;

use super::output;

/// Exit code of a fetch that found no way: the name is unknown, or nobody answers.
pub const UNREACHABLE: i32 = 4;

/// A request or a reply has at most this many bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// How long a tier waits for the next one, and for a slow client.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause before a server that has not begun to listen is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

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
        let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.port)))
            .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port))))
            .map_err(|e| Failure::new(format!("cannot listen on port {}: {e}", self.port)))?;
        loop {
            // A client that goes away early ends only its own conversation.
            let _ = listener.accept().and_then(|(client, _)| self.answer(client));
        }
    }

    fn answer(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        read_head(&client)?;
        let body = match self.upstream.as_deref().map(|url| fetch(url, PATIENCE)) {
            None => format!("{}: 3 charts in stock", self.name),
            Some(Ok(answer)) => format!("{} <- {answer}", self.name),
            Some(Err(error)) => format!("{} <- nothing: {error}", self.name),
        };
        let head = format!(
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}",
            body.len()
        );
        client.write_all(format!("{head}\r\n\r\n{body}").as_bytes())
    }
}

/// Reads a request up to its empty line: what is left unread when a socket closes would reset the reply.
fn read_head(client: &TcpStream) -> io::Result<()> {
    let lines = BufReader::new(client.take(BYTES_MAX)).lines();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    Ok(())
}

#[derive(Args, Debug)]
pub struct Fetch {
    /// What to fetch, as http://NAME:PORT/
    url: String,
    /// Seconds until it gives up
    #[arg(long, default_value_t = 5)]
    timeout: u64,
}

impl Fetch {
    pub fn act(self) -> Result<i32, Failure> {
        match fetch(&self.url, Duration::from_secs(self.timeout)) {
            Ok(body) => output::line(&body),
            Err(error) => return Err(Failure { message: error, code: UNREACHABLE }),
        }
        Ok(0)
    }
}

/// The body that `url` answers with.
fn fetch(url: &str, patience: Duration) -> Result<String, String> {
    let rest = url.strip_prefix("http://").ok_or("not an http:// address")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let deadline = now() + patience;
    let addresses = resolve(authority, patience)?;
    let mut stream = connect(&addresses, deadline)?;
    let talk = |stream: &mut TcpStream| -> io::Result<String> {
        stream.set_read_timeout(Some(left(deadline)))?;
        let request = format!("GET /{path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        stream.take(BYTES_MAX).read_to_end(&mut reply)?;
        Ok(String::from_utf8_lossy(&reply).into_owned())
    };
    let reply = talk(&mut stream).map_err(|e| format!("no answer: {}", plain(&e)))?;
    let (head, body) = reply.split_once("\r\n\r\n").ok_or("the answer is no HTTP")?;
    if head.contains(" 200 ") { Ok(body.to_owned()) } else { Err("the answer is no 200".into()) }
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

/// Connects to the first address that answers. One that refuses may only be slow to start.
fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, String> {
    let mut why = String::from("it has no address");
    loop {
        for address in addresses {
            if left(deadline) <= ASK_AGAIN {
                return Err(why);
            }
            match TcpStream::connect_timeout(address, left(deadline)) {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    why = format!("{} does not answer: {}", shown(address.ip()), plain(&error))
                }
            }
            if !why.ends_with("refused") {
                return Err(why);
            }
        }
        std::thread::sleep(ASK_AGAIN.min(left(deadline)));
    }
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

/// What is left until `deadline`; never zero, which sockets take for "for ever".
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(now()).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_answers_with_what_the_next_one_said() {
        let db = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = TcpListener::bind("127.0.0.1:0").unwrap();
        let (db_at, app_at) = (db.local_addr().unwrap(), app.local_addr().unwrap());
        let tiers = std::thread::spawn(move || {
            let upstream = Some(format!("http://{db_at}/"));
            let app_tier = Serve { name: "app".into(), port: 0, upstream };
            let db_tier = Serve { name: "db".into(), port: 0, upstream: None };
            let below = std::thread::spawn(move || db_tier.answer(db.accept().unwrap().0).unwrap());
            app_tier.answer(app.accept().unwrap().0).unwrap();
            below.join().unwrap();
        });
        let body = fetch(&format!("http://{app_at}/"), PATIENCE).unwrap();
        tiers.join().unwrap();
        assert_eq!(body, "app <- db: 3 charts in stock");
    }

    #[test]
    fn a_fetch_says_why_it_failed() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = fetch(&format!("http://{closed}/"), Duration::from_millis(60)).unwrap_err();
        assert_eq!(error, "127.0.0.1 does not answer: refused");
        assert_eq!(fetch("ftp://x/", PATIENCE).unwrap_err(), "not an http:// address");
    }
}
