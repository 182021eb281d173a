//! Sockets as BGP wants them.

use crate::config::PeerConfig;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that wait to be accepted on one address.
const BACKLOG: i32 = 256;

/// Listens on an address; an IPv6 one takes IPv6 only.
///
/// # Errors
/// What the system says.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects to a peer, from the local address configured.
///
/// # Errors
/// What the system says.
pub(super) async fn dial(config: &PeerConfig) -> io::Result<TcpStream> {
    let socket = if config.address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(local) = config.local_address {
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(local, 0))?;
    }
    let stream = socket
        .connect(SocketAddr::new(config.address, config.port))
        .await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
