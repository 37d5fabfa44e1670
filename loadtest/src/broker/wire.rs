//! Octets on the wire: what the kernel counts for this process's own connections to a port, through `sock_diag(7)`.
//!
//! So no proxy and no wrapper stands in the way of what is measured, and every client library is counted alike, those
//! too that open their sockets themselves. The figures are those of TCP's payload (`tcpi_bytes_acked` and
//! `tcpi_bytes_received`): what was sent again, and headers of TCP and IP, are not in them.

use std::{collections::HashSet, fs};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// A dump of the kernel comes in pieces of at most 32 KiB.
const PIECE: usize = 32 << 10;
/// Pieces of an answer; a machine with more sockets than fit is not one to measure on.
const MOST_PIECES: usize = 1024;

/// Octets and packets of this process's connections to one port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Octets that the peers have acknowledged.
    pub(crate) sent: u64,
    /// Octets that have come from them.
    pub(crate) received: u64,
}

impl Traffic {
    /// Reads the counters of connections that are open now; `None` where the kernel does not tell.
    pub(crate) fn to_port(port: u16) -> Option<Self> {
        let ours = own_sockets()?;
        let mut sum = Self::default();
        for family in [AF_INET, AF_INET6] {
            for response in sockets(family)? {
                let header = &response.header;
                if header.socket_id.destination_port != port || !ours.contains(&u64::from(header.inode)) {
                    continue;
                }
                for nla in &response.nlas {
                    if let Nla::TcpInfo(info) = nla {
                        sum.sent += info.bytes_acked;
                        sum.received += info.bytes_received;
                    }
                }
            }
        }
        Some(sum)
    }
}

/// The inodes of this process's sockets.
fn own_sockets() -> Option<HashSet<u64>> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    Some(entries.flatten().filter_map(inode).collect())
}

/// TCP sockets of one family, with their counters.
fn sockets(family: u8) -> Option<Vec<InetResponse>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).ok()?;
    socket.bind_auto().ok()?;
    socket.connect(&SocketAddr::new(0, 0)).ok()?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states: StateFlags::ESTABLISHED,
        socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    socket.send(&octets, 0).ok()?;

    let mut found = Vec::new();
    for _ in 0..MOST_PIECES {
        let (piece, _) = socket.recv_from_full().ok()?;
        let mut rest = &piece[..piece.len().min(PIECE.max(piece.len()))];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).ok()?;
            let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    found.push(*response);
                }
                NetlinkPayload::Done(_) => return Some(found),
                NetlinkPayload::Error(_) => return None,
                _ => {}
            }
            if length == 0 {
                return None;
            }
            rest = &rest[length..];
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn every_octet_of_ours_is_counted_and_nobody_elses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let Some(before) = Traffic::to_port(port) else {
            eprintln!("SKIPPED: this kernel has no sock_diag for TCP");
            return;
        };
        assert_eq!(before, Traffic::default());
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1; 100_000]).unwrap();
        server.read_exact(&mut vec![0; 100_000]).unwrap();
        server.write_all(&[2; 5_000]).unwrap();
        client.read_exact(&mut vec![0; 5_000]).unwrap();
        // The answer carries the acknowledgement of what it answers. Opening a connection counts as an octet.
        let Traffic { sent, received } = Traffic::to_port(port).unwrap();
        assert!((100_000..=100_001).contains(&sent), "{sent}");
        assert_eq!(received, 5_000);
    }
}
