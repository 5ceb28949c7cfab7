//! Connections as fast as they come: each is made, one byte is asked and answered, and the asker closes it.
//!
//! `burst serve PORT COUNT` answers on COUNT ports from PORT on; `burst ask ADDRESS PORT COUNT SECONDS` asks, by sixteen at a
//! time, and prints how many connections a second were served and how many failed. Many ports, so that closed connections that
//! linger are in nobody's way. `burst hold ADDRESS PORT COUNT NUMBER` makes NUMBER connections, says so and holds them.

#![allow(clippy::disallowed_methods, reason = "it measures, and waits")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Who ask at the same time.
const ASKERS: usize = 16;

/// Who answer on each port.
const ANSWERERS: usize = 2;

/// A connection that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

fn answer(listener: &TcpListener) {
    let mut byte = [0];
    while let Ok((mut client, _)) = listener.accept() {
        // A client that goes away early is the client's affair.
        let _ = client.set_read_timeout(Some(PATIENCE));
        if client.read_exact(&mut byte).is_ok() && client.write_all(&byte).is_ok() {
            let _ = client.read(&mut byte);
        }
    }
}

fn serve(port: u16, count: u16) -> io::Result<()> {
    let mut threads = Vec::new();
    for port in port..port + count {
        let listener = TcpListener::bind(("0.0.0.0", port))?;
        for _ in 0..ANSWERERS {
            let listener = listener.try_clone()?;
            threads.push(std::thread::spawn(move || answer(&listener)));
        }
    }
    println!("ready");
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn one(to: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect_timeout(&to, PATIENCE)?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.write_all(b"?")?;
    server.read_exact(&mut [0])
}

fn ask(address: IpAddr, port: u16, count: u16, seconds: u64) {
    let (made, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for asker in 0..ASKERS {
            let (made, failed) = (&made, &failed);
            scope.spawn(move || {
                let mut number = asker * 7;
                while begin.elapsed() < Duration::from_secs(seconds) {
                    number += 1;
                    let to = SocketAddr::new(address, port + (number % usize::from(count)) as u16);
                    let counter = if one(to).is_ok() { made } else { failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let rate = made.into_inner() as f64 / begin.elapsed().as_secs_f64();
    println!("{rate:.0} {}", failed.into_inner());
}

fn hold(address: IpAddr, port: u16, count: u16, number: usize) -> io::Result<()> {
    let mut held = Vec::new();
    for n in 0..number {
        held.push(TcpStream::connect((address, port + (n % usize::from(count)) as u16))?);
    }
    println!("held {}", held.len());
    loop {
        std::thread::park();
    }
}

fn number<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse().map_err(|_| io::Error::other(format!("`{word}` is no number, or no address")))
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", port, count] => serve(number(port)?, number(count)?),
        ["ask", address, port, count, seconds] => {
            ask(number(address)?, number(port)?, number(count)?, number(seconds)?);
            Ok(())
        }
        ["hold", address, port, count, how_many] => {
            hold(number(address)?, number(port)?, number(count)?, number(how_many)?)
        }
        _ => Err(io::Error::other("usage: burst serve|ask|hold ...; see the head of its source")),
    }
}
