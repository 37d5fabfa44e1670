//! What the tests of this crate share: a STOMP client of a few lines, and a look at sockets and processes.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rabbitmq_node::Vhost;

const LIMIT: Duration = Duration::from_secs(20);

/// A STOMP connection that is told what to write.
pub struct Stomp {
    socket: TcpStream,
    receipts: u32,
}

impl Stomp {
    /// Connects as the administrator and reads CONNECTED.
    pub fn connect(vhost: &Vhost) -> Self {
        let mut stomp = Self::open(vhost, vhost.user(), vhost.password());
        let answer = stomp.read_frame();
        assert!(answer.starts_with("CONNECTED\n"), "{answer}");
        stomp
    }

    /// Sends CONNECT and leaves the answer to be read.
    pub fn open(vhost: &Vhost, user: &str, password: &str) -> Self {
        let socket =
            TcpStream::connect_timeout(&vhost.stomp_addr(), LIMIT).expect("the STOMP listener accepts");
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        let mut stomp = Self { socket, receipts: 0 };
        let vhost = vhost.name();
        stomp.write(&format!(
            "CONNECT\naccept-version:1.2\nhost:{vhost}\nlogin:{user}\npasscode:{password}\n\n\0"
        ));
        stomp
    }

    pub fn write(&mut self, frame: &str) {
        self.socket.write_all(frame.as_bytes()).unwrap();
    }

    /// Sends a persistent message and reads its RECEIPT.
    pub fn send_and_await_receipt(&mut self, destination: &str, body: &str) {
        self.receipts += 1;
        let receipt = format!("r-{}", self.receipts);
        self.write(&format!(
            "SEND\ndestination:{destination}\npersistent:true\nreceipt:{receipt}\n\n{body}\0"
        ));
        let answer = self.read_frame();
        assert!(
            answer.starts_with("RECEIPT\n") && answer.contains(&format!("receipt-id:{receipt}\n")),
            "{answer}"
        );
    }

    /// The next frame without the NUL at its end and the line feeds before it; empty when the broker has closed.
    pub fn read_frame(&mut self) -> String {
        let mut frame = Vec::new();
        let mut octet = [0];
        loop {
            match self.socket.read(&mut octet) {
                Ok(0) => break,
                Ok(_) if octet[0] == 0 => break,
                Ok(_) if frame.is_empty() && octet[0] == b'\n' => {}
                Ok(_) => frame.push(octet[0]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("no frame came: {error}"),
            }
        }
        String::from_utf8(frame).unwrap()
    }
}

/// Waits for a condition.
#[track_caller]
pub fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process runs. One that has ended but was not reaped by its parent does not.
pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    !state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

/// The addresses on which processes listen for TCP.
pub fn listening(pids: &[u32]) -> Vec<SocketAddr> {
    let inodes: Vec<String> = pids.iter().flat_map(|pid| socket_inodes(*pid)).collect();
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            const LISTEN: &str = "0A";
            if fields[3] == LISTEN && inodes.iter().any(|inode| inode == fields[9]) {
                found.push(parse_address(fields[1]));
            }
        }
    }
    found
}

fn socket_inodes(pid: u32) -> Vec<String> {
    let descriptors = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    descriptors
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

/// `0100007F:1F90` is 127.0.0.1:8080: words of four octets in the machine's order, here taken as little endian.
fn parse_address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').unwrap();
    let octets: Vec<u8> = ip
        .as_bytes()
        .chunks(8)
        .flat_map(|word| u32::from_str_radix(std::str::from_utf8(word).unwrap(), 16).unwrap().to_le_bytes())
        .collect();
    let ip: IpAddr = match <[u8; 4]>::try_from(&*octets) {
        Ok(octets) => Ipv4Addr::from(octets).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(&*octets).unwrap()).into(),
    };
    SocketAddr::new(ip, u16::from_str_radix(port, 16).unwrap())
}
