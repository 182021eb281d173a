//! Socket options for which the libraries have no safe name: TCP MD5 keys (RFC 2385) and the least TTL (RFC 5082). The only
//! unsafe code of this crate.
#![expect(unsafe_code, reason = "setsockopt with structures that no safe wrapper knows")]

use crate::config::Secret;
use ipnet::IpNet;
use socket2::{SockAddr, SockRef};
use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `TCP_MD5SIG_MAXKEYLEN` of linux/tcp.h.
const KEY_MAX: usize = 80;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: i32,
    key: [u8; KEY_MAX],
}

/// `TCP_MD5SIG_EXT` of linux/tcp.h: as `TCP_MD5SIG`, but its flags count.
const TCP_MD5SIG_EXT: libc::c_int = 32;
/// `TCP_MD5SIG_FLAG_PREFIX` of linux/tcp.h: the key is for all addresses of a prefix; the longest one wins.
const FLAG_PREFIX: u8 = 1;

/// Sets, replaces or with `None` removes the key for connections with these addresses.
pub(super) fn set_md5_key(socket: BorrowedFd<'_>, peers: IpNet, key: Option<&Secret>) -> io::Result<()> {
    let octets = key.map_or(&[][..], |k| k.0.as_bytes());
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "a TCP MD5 key has at most 80 octets");
    let mut padded = [0; KEY_MAX];
    padded
        .get_mut(..octets.len())
        .ok_or_else(too_long)?
        .copy_from_slice(octets);
    let address = SockAddr::from(SocketAddr::new(peers.addr(), 0));
    // SAFETY: all of `sockaddr_storage` may be zero.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: both are at least `address.len()` octets: socket2 keeps its address in a `sockaddr_storage`, too; they do not
    // overlap, and octets have no alignment.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            (&raw mut storage).cast::<u8>(),
            address.len() as usize,
        );
    }
    let one = peers.prefix_len() == peers.max_prefix_len();
    let option = TcpMd5Sig {
        address: storage,
        flags: if one { 0 } else { FLAG_PREFIX },
        prefix_len: if one { 0 } else { peers.prefix_len() },
        key_len: u16::try_from(octets.len()).map_err(|_| too_long())?,
        interface: 0,
        key: padded,
    };
    let result = set(
        socket,
        libc::IPPROTO_TCP,
        if one { libc::TCP_MD5SIG } else { TCP_MD5SIG_EXT },
        &option,
    );
    match result {
        // Removing a key that is not there.
        Err(error) if key.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// The TTL of what we send.
pub(super) fn set_ttl(socket: BorrowedFd<'_>, v6: bool, ttl: u8) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    if v6 {
        socket.set_unicast_hops_v6(ttl.into())
    } else {
        socket.set_ttl_v4(ttl.into())
    }
}

/// The least TTL that a packet must come with; 0 takes all.
pub(super) fn set_ttl_min(socket: BorrowedFd<'_>, v6: bool, ttl: u8) -> io::Result<()> {
    let ttl = libc::c_int::from(ttl);
    if v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &ttl)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &ttl)
    }
}

/// `ICMPV6_FILTER` of linux/icmpv6.h.
const ICMPV6_FILTER: libc::c_int = 1;

/// Of a raw ICMPv6 socket: these types come in and no others.
pub(super) fn pass_icmp_v6(socket: BorrowedFd<'_>, types: &[u8]) -> io::Result<()> {
    // `struct icmp6_filter`: a set bit keeps a type out.
    let mut filter = [u32::MAX; 8];
    for kind in types {
        if let Some(word) = filter.get_mut(usize::from(kind / 32)) {
            *word &= !(1 << (kind % 32));
        }
    }
    set(socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &filter)
}

/// Of a listener: the kernel keeps the first segment of each connection until it is asked for.
pub(super) fn keep_syn(socket: BorrowedFd<'_>, keep: bool) -> io::Result<()> {
    set(
        socket,
        libc::IPPROTO_TCP,
        libc::TCP_SAVE_SYN,
        &libc::c_int::from(keep),
    )
}

/// The TTL or hop limit that the peer's first segment came with; `None` if the kernel kept none (a SYN cookie).
pub(super) fn syn_ttl(socket: BorrowedFd<'_>) -> Option<u8> {
    // Both headers: 60 octets each at most for IPv4; for IPv6 what goes beyond is refused by the kernel.
    let mut segment = [0_u8; 256];
    let mut len = libc::socklen_t::try_from(segment.len()).ok()?;
    // SAFETY: the descriptor is open for the borrow, and the kernel writes at most `len` octets, which `segment` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            segment.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    let segment = segment.get(..usize::try_from(len).ok()?)?;
    if result != 0 {
        return None;
    }
    match segment.first()? >> 4 {
        4 => segment.get(8).copied(),
        6 => segment.get(7).copied(),
        _ => None,
    }
}

fn set<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the borrow, and `value` is `len` octets that the kernel only reads.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), len) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
