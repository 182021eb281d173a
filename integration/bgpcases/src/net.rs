//! The two network namespaces and the sockets of the peers. Both namespaces are nameless: they go with the last process in them,
//! however that ends.

use crate::roles::{self, Role};
use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::SetSockOpt;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The BGP port.
pub(crate) const PORT: u16 = 179;
/// How long a connection may take to come about; a refused one is told at once.
const CONNECT_WAIT: Duration = Duration::from_millis(700);

/// What the kernel holds for a peer that does not read.
const SLOW_OCTETS: usize = 4096;

/// `struct tcp_md5sig` of linux/tcp.h: address, flags, prefix length, key length, interface, key.
const MD5_OCTETS: usize = 128 + 8 + 80;

/// TCP MD5 (RFC 2385): nix has the way to set an option, but not this one.
#[derive(Clone, Copy)]
struct Md5Key;
nix::setsockopt_impl!(
    Md5Key,
    libc::IPPROTO_TCP,
    libc::TCP_MD5SIG,
    [u8; MD5_OCTETS],
    nix::sys::socket::sockopt::SetStruct<[u8; MD5_OCTETS]>
);

/// Moves this thread, and with it all threads that it starts from now on, into a namespace of its own with all peers' addresses.
pub(crate) fn enter() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of our own")
}

/// Joins the namespace of the daemon's process to ours, and gives both ends their addresses.
pub(crate) fn join(pid: u32) -> Result<()> {
    let mut lines = format!("link set lo up\nlink add cases type veth peer name dut netns {pid}\n");
    for role in roles::ALL {
        lines += &format!("addr add {}/16 dev cases\n", role.id());
        lines += &format!("addr add {}/64 dev cases nodad\n", role.v6());
    }
    lines += &format!("addr add {}/16 dev cases\n", Role::Dynamic.address());
    lines += "link set cases up\n";
    let mut ip = Command::new("ip");
    let mut child = ip.args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("stdin of ip")?;
    stdin.write_all(lines.as_bytes())?;
    drop(stdin);
    ensure!(child.wait()?.success(), "ip could not join the namespaces");
    Ok(())
}

/// What a connection shall have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Guard {
    pub(crate) key: Option<&'static str>,
    pub(crate) ttl: Option<u32>,
}

impl Guard {
    /// What the daemon asks of this peer.
    pub(crate) fn of(role: Role) -> Self {
        Self {
            key: (role == Role::Keyed).then_some(roles::KEY),
            ttl: (role == Role::Near).then_some(255),
        }
    }
}

/// Opens a connection from a peer's address to the daemon.
pub(crate) fn dial(role: Role, guard: Guard) -> Result<TcpStream> {
    let (from, to) = (role.address(), role.dut());
    let domain = if from.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if role == Role::Slow {
        socket.set_recv_buffer_size(SLOW_OCTETS)?;
    }
    if let Some(ttl) = guard.ttl {
        socket.set_ttl_v4(ttl)?;
    }
    if let Some(key) = guard.key {
        Md5Key.set(&socket, &md5(to, key)).context("TCP MD5 key")?;
    }
    socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
    socket
        .connect_timeout(&SockAddr::from(SocketAddr::new(to, PORT)), CONNECT_WAIT)
        .with_context(|| format!("connecting as {role:?}"))?;
    Ok(socket.into())
}

/// Where a peer waits for the daemon to dial.
pub(crate) fn listen(role: Role) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(SocketAddr::new(
        role.address(),
        roles::PORT_DIALLED,
    )))?;
    socket.listen(8)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn md5(peer: IpAddr, key: &str) -> [u8; MD5_OCTETS] {
    let mut out = [0; MD5_OCTETS];
    let address: Vec<u8> = match peer {
        // family in the machine's order, port, address
        IpAddr::V4(a) => [&libc::AF_INET.to_ne_bytes()[..2], &[0, 0], &a.octets()].concat(),
        IpAddr::V6(a) => [&libc::AF_INET6.to_ne_bytes()[..2], &[0; 6], &a.octets()].concat(),
    };
    for (to, from) in out.iter_mut().zip(address) {
        *to = from;
    }
    let (length, place) = (u16::try_from(key.len()).unwrap_or(80).to_ne_bytes(), 130);
    for (to, from) in out.iter_mut().skip(place).zip(length) {
        *to = from;
    }
    for (to, from) in out.iter_mut().skip(136).zip(key.bytes()) {
        *to = from;
    }
    out
}
