//! Facts of this machine.

use std::collections::BTreeSet;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use twill_bgp::Families;
use twill_felix::kernel::links::{LinkState, LinkTable};
use twill_felix::kernel::routes::RouteWriter;
use twill_felix::kernel::{NetlinkError, Protocol, Socket};

/// The interface that carries one of the addresses.
pub(crate) fn interface_with(addresses: &[IpNet]) -> Option<String> {
    let interfaces = getifaddrs().ok()?;
    let ours = |address: &nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|a| std::net::IpAddr::from(a.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().into()));
        ip.is_some_and(|ip| addresses.iter().any(|net| net.addr() == ip))
    };
    interfaces
        .filter(|i| i.address.as_ref().is_some_and(ours))
        .map(|i| i.interface_name)
        .next()
}

/// MTU of the interface that carries one of the addresses.
pub(crate) fn uplink_mtu(addresses: &[IpNet]) -> Option<u32> {
    let name = interface_with(addresses)?.parse().ok()?;
    let mut socket = Socket::open(Protocol::Route).ok()?;
    LinkState::read(&mut socket, name).ok()?.map(|link| link.mtu)
}

/// Interfaces that carry an address by which this machine is spoken to: neither the loopback nor one with a link-local
/// address alone, as the host sides of pods' links.
pub(crate) fn addressed_interfaces() -> BTreeSet<String> {
    let carries = |address: &nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|a| a.ip());
        let v6 = address.as_sockaddr_in6().map(|a| a.ip());
        v4.is_some_and(|a| !a.is_loopback() && !a.is_link_local())
            || v6.is_some_and(|a| !a.is_loopback() && !a.is_unicast_link_local())
    };
    let all = getifaddrs().into_iter().flatten();
    all.filter(|i| i.address.as_ref().is_some_and(carries))
        .map(|i| i.interface_name)
        .filter(|name| name != "lo")
        .collect()
}

/// Whether an interface of this name is there, up or down.
pub(crate) fn has_interface(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

/// What an earlier process left in the kernel, and what still forwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Left {
    /// Families that it spoke for.
    pub(crate) families: Families,
    /// Prefixes that it announced.
    pub(crate) announced: BTreeSet<IpNet>,
}

/// Reads what an earlier process left.
///
/// # Errors
/// The kernel does not say.
pub(crate) fn left_in_kernel() -> Result<Left, NetlinkError> {
    let links = LinkTable::read(&mut Socket::open(Protocol::Route)?)?;
    let mut routes = RouteWriter::open()?;
    routes.resync(&links)?;
    let Some(held) = routes.held() else {
        return Ok(Left::default());
    };
    Ok(Left {
        families: crate::bgp::families(held.iter()),
        announced: crate::bgp::cache::announced(held),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_there_or_not() {
        assert!(has_interface("lo"));
        assert!(!has_interface("cali-none") && !has_interface("") && !has_interface("../net"));
    }

    #[test]
    fn the_loopbacks_mtu_is_that_of_its_address() {
        assert_eq!(uplink_mtu(&["127.0.0.1/8".parse().unwrap()]), Some(65_536));
        assert_eq!(uplink_mtu(&["192.0.2.213/24".parse().unwrap()]), None);
    }

    #[test]
    fn the_loopback_is_found_by_its_address_and_a_stranger_is_not() {
        assert_eq!(
            interface_with(&["127.0.0.1/8".parse().unwrap()]).as_deref(),
            Some("lo")
        );
        assert_eq!(interface_with(&["192.0.2.213/24".parse().unwrap()]), None);
    }
}
