//! Sockets as BGP wants them.

use super::sockopt;
use crate::config::{PeerConfig, RangeConfig, Secret};
use crate::link;
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
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

/// Our end of a connection; a link-local address with its link.
///
/// # Errors
/// What the system says.
pub(super) fn local_address(stream: &TcpStream) -> io::Result<IpAddr> {
    Ok(match stream.local_addr()? {
        SocketAddr::V6(a) => match a.ip().to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(link::scoped(v6, a.scope_id())),
            v4 @ IpAddr::V4(_) => v4,
        },
        SocketAddr::V4(a) => IpAddr::V4(*a.ip()),
    })
}

/// Where a peer is dialled; `neighbour` is who was found on its link.
///
/// # Errors
/// There is no such interface, or nobody was found there yet.
fn place(config: &PeerConfig, neighbour: Option<Ipv6Addr>) -> io::Result<SocketAddr> {
    let Some(interface) = &config.interface else {
        return Ok(SocketAddr::new(config.address, config.port));
    };
    let index = if_nametoindex(interface.as_str())
        .map_err(|_| io::Error::other(format!("there is no interface {interface}")))?;
    match config.host().or(neighbour.map(IpAddr::V6)) {
        Some(IpAddr::V6(host)) => Ok(SocketAddrV6::new(host, config.port, 0, index).into()),
        Some(IpAddr::V4(_)) | None => Err(io::Error::other(format!(
            "nobody advertises himself on {interface} yet"
        ))),
    }
}

/// Connects to a peer, from the local address configured.
///
/// # Errors
/// What the system says.
pub(super) async fn dial(config: &PeerConfig, neighbour: Option<Ipv6Addr>) -> io::Result<TcpStream> {
    let place = place(config, neighbour)?;
    let socket = if place.is_ipv4() {
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
    let stream = socket.connect(place).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What a peer's configuration asks of its own socket: the MD5 key (RFC 2385), TTL security (RFC 5082).
///
/// # Errors
/// What the system says.
pub(super) fn protect(socket: &impl AsFd, config: &PeerConfig) -> io::Result<()> {
    if let Some((key, host)) = config.password.as_ref().zip(config.host()) {
        sockopt::set_md5_key(socket.as_fd(), host.into(), Some(key))?;
    }
    if let Some(hops) = config.ttl_security_hops {
        sockopt::set_ttl(socket.as_fd(), config.address.is_ipv6(), 255)?;
        sockopt::set_ttl_min(socket.as_fd(), config.address.is_ipv6(), u8::MAX - (hops - 1))?;
    }
    Ok(())
}

/// Whether a connection comes from farther away than a peer with TTL security may be (RFC 5082). The listener, which others
/// use, too, let it in; from here on it would be deaf, and stand in the way of the true peer's.
pub(super) fn too_far(socket: &impl AsFd, config: &PeerConfig) -> bool {
    let (hops, ttl) = (config.ttl_security_hops, sockopt::syn_ttl(socket.as_fd()));
    hops.zip(ttl)
        .is_some_and(|(hops, ttl)| ttl < u8::MAX - (hops - 1))
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
        let host = |p: &PeerConfig| p.host().unwrap_or(p.address);
        let peers = peers.iter().map(move |p| (IpNet::from(host(p)), p));
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
    let secured = mine().any(|p| p.ttl_security_hops.is_some());
    if secured {
        sockopt::set_ttl(listener.as_fd(), v6, 255)?;
    }
    sockopt::keep_syn(listener.as_fd(), secured)?;
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
