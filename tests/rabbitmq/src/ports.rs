//! Ports that no other node takes, and that stay this node's while it is down.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::error::Error;

/// Blocks lie below the range from which systems pick the local ports of outgoing connections (32768 and up on Linux,
/// 49152 and up elsewhere). A port inside that range could be taken by any client while the node is down, and a client
/// that retries towards it on loopback can even connect to itself.
const FIRST: u16 = 20_000;
const BLOCKS: u16 = 1_200;
const BLOCK: u16 = 10;
const ATTEMPTS: u32 = 200;

/// A block of ports on 127.0.0.1.
///
/// The first port of the block is held open as a sign to other processes that the block is taken; the sign disappears
/// with this process.
#[derive(Debug)]
pub(crate) struct Ports {
    _sign: TcpListener,
    base: u16,
}

impl Ports {
    /// Takes a free block.
    pub(crate) fn reserve() -> Result<Self, Error> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let base = FIRST + BLOCK * fastrand::u16(..BLOCKS);
            match TcpListener::bind(loopback(base)) {
                Ok(sign) => {
                    let ports = Self { _sign: sign, base };
                    if ports.all_free() {
                        return Ok(ports);
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        let source = last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into());
        Err(Error::Io { action: format!("find {BLOCK} free ports in a row from {FIRST}"), source })
    }

    pub(crate) fn amqp(&self) -> SocketAddr {
        loopback(self.base + 1)
    }

    pub(crate) fn stomp(&self) -> SocketAddr {
        loopback(self.base + 2)
    }

    pub(crate) fn management(&self) -> SocketAddr {
        loopback(self.base + 3)
    }

    pub(crate) fn distribution(&self) -> SocketAddr {
        loopback(self.base + 4)
    }

    pub(crate) fn epmd(&self) -> SocketAddr {
        loopback(self.base + 5)
    }

    pub(crate) fn stomp_tls(&self) -> SocketAddr {
        loopback(self.base + 6)
    }

    pub(crate) fn web_stomp(&self) -> SocketAddr {
        loopback(self.base + 7)
    }

    pub(crate) fn web_stomp_tls(&self) -> SocketAddr {
        loopback(self.base + 8)
    }

    fn all_free(&self) -> bool {
        (1..BLOCK).all(|offset| TcpListener::bind(loopback(self.base + offset)).is_ok())
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
