//! The listening sockets: one per worker, all on the same port.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// One bound socket per worker, and the address they share (of interest when the port was 0). They do not listen yet.
///
/// With `SO_REUSEPORT` the kernel would let any process of the same user join the port. Unless `share_port` allows
/// that, the address is first bound without it, which fails if somebody listens there already.
pub(super) fn bind(
    address: SocketAddr,
    workers: usize,
    share_port: bool,
) -> io::Result<(Vec<TcpSocket>, SocketAddr)> {
    if !share_port && address.port() != 0 {
        drop(bound(address, false)?);
    }
    let first = bound(address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(bound(address, true)?);
    }
    Ok((sockets, address))
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of an earlier process in TIME_WAIT do not keep the port.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(address)?;
    Ok(socket)
}
