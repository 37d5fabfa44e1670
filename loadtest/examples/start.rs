//! T8: from starting the program to its first answered beacon.
//!
//! `cargo run --release -p loadtest --example start -- target/release/beacon-edge [ROUNDS]`: median, smallest and largest of
//! ROUNDS (default 11) starts, each with the embedded broker on a port of its own.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().ok_or("usage: start PROGRAM [ROUNDS]")?;
    let rounds: usize = arguments.next().map_or(Ok(11), |rounds| rounds.parse())?;
    let mut took = Vec::new();
    for _ in 0..rounds.max(1) {
        took.push(start(&program)?);
    }
    took.sort_unstable();
    let (first, last) = (took[0], took[took.len() - 1]);
    println!(
        "start to first answered beacon: median {:?} ({first:?} … {last:?}), {} starts",
        took[took.len() / 2],
        took.len()
    );
    Ok(())
}

fn start(program: &str) -> Result<Duration, Box<dyn std::error::Error>> {
    // Free now, and nobody else is asked for it in the next milliseconds.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let begin = Instant::now();
    let mut child = Command::new(program)
        .env("BEACON_EDGE__HTTP__LISTEN", address.to_string())
        .env("BEACON_EDGE__ADMIN__LISTEN", "127.0.0.1:0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let answered = loop {
        match beacon(address) {
            Ok(()) => break Ok(begin.elapsed()),
            Err(error) if begin.elapsed() > LIMIT => break Err(error),
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
    };
    child.kill()?;
    child.wait()?;
    Ok(answered?)
}

fn beacon(address: std::net::SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /b.gif?seq=1 HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}
