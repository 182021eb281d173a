//! Sockets as BGP wants them.

use super::sockopt;
use crate::config::{PeerConfig, RangeConfig, Secret};
use ipnet::IpNet;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
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
    // Before the first segment: the peer's answer must be signed and near already.
    protect(&socket, config)?;
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

/// What a peer's configuration asks of its own socket: the MD5 key (RFC 2385), TTL security (RFC 5082).
///
/// # Errors
/// What the system says.
pub(super) fn protect(socket: &impl AsFd, config: &PeerConfig) -> io::Result<()> {
    if let Some(key) = &config.password {
        sockopt::set_md5_key(socket.as_fd(), config.address.into(), Some(key))?;
    }
    if let Some(hops) = config.ttl_security_hops {
        sockopt::set_ttl(socket.as_fd(), config.address.is_ipv6(), 255)?;
        sockopt::set_ttl_min(socket.as_fd(), config.address.is_ipv6(), u8::MAX - (hops - 1))?;
    }
    Ok(())
}

/// What a listener owes its peers: their MD5 keys, so that the handshake is protected; TTL 255 in answers if one of them asks
/// for it; and TTL security itself only if all of them do, for others come from farther away. `keyed` is what was set before.
///
/// # Errors
/// What the system says.
pub(super) fn protect_listener(
    listener: &TcpListener,
    v6: bool,
    peers: &[PeerConfig],
    ranges: &[RangeConfig],
    keyed: &mut BTreeMap<IpNet, Secret>,
) -> io::Result<()> {
    let all = || {
        let peers = peers.iter().map(|p| (IpNet::from(p.address), p));
        peers.chain(ranges.iter().map(|r| (r.net, &r.template)))
    };
    let mine = || all().map(|(_, p)| p).filter(|p| p.address.is_ipv6() == v6);
    let wanted: BTreeMap<IpNet, Secret> = all()
        .filter(|(_, p)| p.address.is_ipv6() == v6)
        .filter_map(|(net, p)| Some((net, p.password.clone()?)))
        .collect();
    for net in keyed.keys().filter(|net| !wanted.contains_key(*net)) {
        sockopt::set_md5_key(listener.as_fd(), *net, None)?;
    }
    for (net, key) in wanted.iter().filter(|(net, k)| keyed.get(*net) != Some(*k)) {
        sockopt::set_md5_key(listener.as_fd(), *net, Some(key))?;
    }
    *keyed = wanted;
    if mine().any(|p| p.ttl_security_hops.is_some()) {
        sockopt::set_ttl(listener.as_fd(), v6, 255)?;
    }
    let farthest = mine()
        .map(|p| p.ttl_security_hops)
        .min()
        .flatten()
        .and(mine().filter_map(|p| p.ttl_security_hops).max());
    sockopt::set_ttl_min(
        listener.as_fd(),
        v6,
        farthest.map_or(0, |hops| u8::MAX - (hops - 1)),
    )
}
