//! Plumbing of a pod's link: a veth pair, made with its other end already inside the pod's network namespace.
//!
//! The CNI plugin opens the namespace and a netlink socket inside it and hands both over, so that this process never
//! enters a namespace. The table that is closed at birth lets nothing pass until the endpoint's policy is in the kernel,
//! so the link is set up here already: its carrier settles while the endpoint is being written to the datastore. The host
//! side goes first, because then the kernel activates it last, and one that runs means that the pod's side does too.
//!
//! Inside the pod (Calico's model): each address as /32 or /128, route to 169.254.1.1 by the link, default by it, and the
//! gateway as a permanent neighbour at ee:ee:ee:ee:ee:ee. IPv6 goes by `fe80::1`. A pod that has a default route already (a
//! further interface) keeps it: what is sent from the new interface's addresses, and only that, goes by a table of its own.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;

use super::links::{GATEWAY_V6, LinkState, add_neighbour};
use super::netlink::{NetlinkError, Socket};
use super::rtnl as r;
use super::wire::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Wire};
use crate::plan::name::{IfName, Mac};
use crate::plan::routes::GATEWAY_V4;

mod inspect;

pub use inspect::{Expected, inspect};

/// Most addresses of one pod: one or two are usual.
pub const ADDRESSES_MAX: usize = 16;

/// What a pod's link should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// Name of the host side, such as `cali1234567890a`.
    pub host: IfName,
    /// Name inside the pod, as the runtime asks: `eth0`.
    pub pod: IfName,
    /// Link-layer address inside the pod.
    pub mac: Mac,
    /// MTU of both sides.
    pub mtu: u32,
    /// The pod's addresses, at most [`ADDRESSES_MAX`].
    pub addresses: Vec<IpAddr>,
}

/// The link that an attach left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Index of the host side.
    pub host_index: u32,
    /// Index inside the pod.
    pub pod_index: u32,
    /// Whether the pair was made now, or was found as it should be.
    pub made: Made,
    /// By which table the pod's packets leave.
    pub routing: Routing,
}

/// By which routing table packets leave a pod through one of its interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// The interface holds the pod's default route.
    Main,
    /// Another one does: a rule sends what comes from this interface's addresses to this table.
    Own(u32),
}

/// Number of an interface's own routing table, less its index inside the pod: above the 255 that the system names.
const OWN_TABLE_BASE: u32 = 1000;
/// Place of the rules that lead there: before the main table's 32766, after whatever a user puts first.
const RULE_PRIORITY: u32 = 10_000;

/// Whether a pair is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// Made by this call.
    Now,
    /// Left by an earlier one.
    Before,
}

/// Why a pod has no link.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The pod has an interface of that name which is not the other side of ours.
    #[error(
        "the pod has an interface {0} already, which is not the other side of {1}: remove it or ask for another name"
    )]
    NameTaken(IfName, IfName),
    /// More addresses than [`ADDRESSES_MAX`].
    #[error("{0} addresses for one pod, at most {ADDRESSES_MAX} are taken")]
    TooManyAddresses(usize),
    /// The kernel refused one step.
    #[error("{step}: {source}")]
    Step {
        /// What was being done.
        step: String,
        /// The kernel's answer.
        source: NetlinkError,
    },
    /// The pair was made and is not there.
    #[error("{0} is not there although it was just made: somebody removed it")]
    Vanished(IfName),
}

fn step(what: impl Into<String>) -> impl FnOnce(NetlinkError) -> PodError {
    let step = what.into();
    |source| PodError::Step { step, source }
}

/// Makes the pod's link, or completes one that an earlier call left.
///
/// `host` is a socket in the node's namespace, `pod` one in the pod's, `netns` the pod's namespace itself.
///
/// # Errors
/// See [`PodError`]. A pair made by this call is removed again when a later step fails.
pub fn attach(
    host: &mut Socket,
    pod: &mut Socket,
    netns: impl AsFd,
    want: &PodLink,
) -> Result<Attached, PodError> {
    if want.addresses.len() > ADDRESSES_MAX {
        return Err(PodError::TooManyAddresses(want.addresses.len()));
    }
    let v6 = want.addresses.iter().any(IpAddr::is_ipv6);
    let ready = prepare(host, pod, netns, want, v6)?;
    address(pod, want, ready).inspect_err(|_| take_back(host, want, ready.made))
}

/// A pair that is up on both sides and has no addresses yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Index of the host side.
    pub host_index: u32,
    /// Index inside the pod.
    pub pod_index: u32,
    /// Whether the pair was made now, or was found.
    pub made: Made,
}

/// The part of [`attach`] that needs no addresses: makes the pair and sets it up, so that its carrier settles while the
/// addresses are still being asked for. `v6` says whether IPv6 addresses will be among them.
///
/// # Errors
/// See [`PodError`]. A pair made by this call is removed again when a later step fails.
pub fn prepare(
    host: &mut Socket,
    pod: &mut Socket,
    netns: impl AsFd,
    want: &PodLink,
    v6: bool,
) -> Result<Prepared, PodError> {
    let made = pair(host, pod, netns, want)?;
    bring_up(host, pod, want, made, v6).inspect_err(|_| take_back(host, want, made))
}

fn take_back(host: &mut Socket, want: &PodLink, made: Made) {
    if made == Made::Now {
        // What matters is the first error; a pair that stays is found by the next attach.
        let _ = detach(host, want.host);
    }
}

/// Removes the pod's link by its host side. Nothing to remove is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn detach(host: &mut Socket, name: IfName) -> Result<(), PodError> {
    let gone = host.request(r::RTM_DELLINK, 0, &r::ifinfomsg(0, 0, 0), |w| {
        w.attr_str(r::IFLA_IFNAME, name.as_str())
    });
    match gone {
        Err(e) if e.errno() == Some(libc::ENODEV) => Ok(()),
        other => other.map_err(step(format!("removing {name}"))),
    }
}

fn pair(host: &mut Socket, pod: &mut Socket, netns: impl AsFd, want: &PodLink) -> Result<Made, PodError> {
    let there = |socket: &mut Socket, name: &IfName| -> Result<Option<LinkState>, PodError> {
        LinkState::read(socket, *name).map_err(step(format!("reading {name}")))
    };
    let (ours, theirs) = (there(host, &want.host)?, there(pod, &want.pod)?);
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours.peer == Some(theirs.index) && theirs.peer == Some(ours.index) => {
            return Ok(Made::Before);
        }
        (_, Some(_)) => return Err(PodError::NameTaken(want.pod, want.host)),
        // Left by a pod that is gone, or half an attach.
        (Some(_), None) => detach(host, want.host)?,
        (None, None) => {}
    }
    let fd = netns.as_fd().as_raw_fd();
    let making = format!("making {} with {} in the pod", want.host, want.pod);
    host.request(
        r::RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        &r::ifinfomsg(0, 0, 0),
        |w| veth(w, want, fd),
    )
    .map_err(step(making))?;
    Ok(Made::Now)
}

fn veth(w: &mut Wire, want: &PodLink, netns: i32) {
    let side = |w: &mut Wire, name: IfName, mac: Mac| {
        w.attr_str(r::IFLA_IFNAME, name.as_str());
        w.attr(r::IFLA_ADDRESS, &mac.0);
        w.attr_u32(r::IFLA_MTU, want.mtu);
    };
    side(w, want.host, Mac::HOST_SIDE);
    w.nested(r::IFLA_LINKINFO, |w| {
        w.attr_str(r::IFLA_INFO_KIND, "veth");
        w.nested(r::IFLA_INFO_DATA, |w| {
            w.nested(r::VETH_INFO_PEER, |w| {
                w.raw(&r::ifinfomsg(0, 0, 0));
                side(w, want.pod, want.mac);
                w.attr(r::IFLA_NET_NS_FD, &netns.to_ne_bytes());
            });
        });
    });
}

/// Keeps a link, still down, from giving itself a link-local address. The kernel takes this only for a link that exists.
fn no_autoconfigured_address(socket: &mut Socket, index: u32) -> Result<(), PodError> {
    let set = socket.request(r::RTM_NEWLINK, 0, &r::ifinfomsg(index, 0, 0), |w| {
        w.nested(r::IFLA_AF_SPEC, |w| {
            w.nested(u16::from(r::AF_INET6), |w| {
                w.attr_u8(r::IFLA_INET6_ADDR_GEN_MODE, r::IN6_ADDR_GEN_MODE_NONE)
            });
        });
    });
    match set {
        // A kernel without IPv6.
        Err(e) if e.errno() == Some(libc::EAFNOSUPPORT) => Ok(()),
        other => other.map_err(step("turning off autoconfigured IPv6 addresses")),
    }
}

fn bring_up(
    host: &mut Socket,
    pod: &mut Socket,
    want: &PodLink,
    made: Made,
    v6: bool,
) -> Result<Prepared, PodError> {
    let index = |socket: &mut Socket, name: IfName| -> Result<u32, PodError> {
        let link = LinkState::read(socket, name).map_err(step(format!("reading {name}")))?;
        link.map(|l| l.index).ok_or(PodError::Vanished(name))
    };
    let host_index = index(host, want.host)?;
    let pod_index = index(pod, want.pod)?;
    let up = |index| r::ifinfomsg(index, r::IFF_UP, r::IFF_UP);
    let lo = index(pod, IfName::fixed("lo"))?;
    pod.request(r::RTM_NEWLINK, 0, &up(lo), |_| {})
        .map_err(step("setting the pod's lo up"))?;
    if made == Made::Now {
        // All host sides have one MAC and would have one link-local address.
        no_autoconfigured_address(host, host_index)?;
    }
    host.request(r::RTM_NEWLINK, 0, &up(host_index), |_| {})
        .map_err(step(format!("setting {} up", want.host)))?;
    if v6 {
        // The link-local address is put on by hand later: no duplicate address detection delays the pod.
        no_autoconfigured_address(pod, pod_index)?;
    }
    pod.request(r::RTM_NEWLINK, 0, &up(pod_index), |_| {})
        .map_err(step(format!("setting {} up", want.pod)))?;
    Ok(Prepared {
        host_index,
        pod_index,
        made,
    })
}

fn address(pod: &mut Socket, want: &PodLink, ready: Prepared) -> Result<Attached, PodError> {
    let pod_index = ready.pod_index;
    let v6 = want.addresses.iter().any(IpAddr::is_ipv6);
    if v6 {
        add_address(pod, pod_index, IpAddr::V6(link_local(want.mac)), 64)?;
    }
    for ip in &want.addresses {
        add_address(pod, pod_index, *ip, if ip.is_ipv4() { 32 } else { 128 })?;
    }
    let mut routing = Routing::Main;
    for via in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        let same = |a: &&IpAddr| a.is_ipv4() == via.is_ipv4();
        let sources: Vec<IpAddr> = want.addresses.iter().filter(same).copied().collect();
        if !sources.is_empty() && gateway(pod, pod_index, via, &sources)? != Routing::Main {
            routing = Routing::Own(OWN_TABLE_BASE + pod_index);
        }
    }
    Ok(Attached {
        host_index: ready.host_index,
        pod_index,
        made: ready.made,
        routing,
    })
}

fn add_address(pod: &mut Socket, index: u32, ip: IpAddr, len: u8) -> Result<(), PodError> {
    let scope = if len == 64 {
        r::RT_SCOPE_LINK
    } else {
        r::RT_SCOPE_UNIVERSE
    };
    let body = r::ifaddrmsg(ip, len, scope, index);
    let added = pod.request(r::RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body, |w| {
        r::address_attrs(w, ip)
    });
    match added {
        // IPv4 has no replace for what is already there.
        Err(e) if e.errno() == Some(libc::EEXIST) => Ok(()),
        other => other.map_err(step(format!("address {ip} in the pod"))),
    }
}

/// The gateway as neighbour, the route to it and the default route by it; in a table of its own where another interface
/// has these routes.
fn gateway(pod: &mut Socket, index: u32, via: IpAddr, sources: &[IpAddr]) -> Result<Routing, PodError> {
    add_neighbour(pod, index, via, Mac::HOST_SIDE).map_err(step(format!("neighbour {via} in the pod")))?;
    let main = u32::from(r::RT_TABLE_MAIN);
    let taken = |e: &NetlinkError| {
        // Somebody else's route by which the gateway is not to be reached through our link is as good as a default route.
        matches!(
            e.errno(),
            Some(libc::EEXIST | libc::ENETUNREACH | libc::EHOSTUNREACH)
        )
    };
    if via.is_ipv4() {
        match route(pod, index, via.into(), None, main, NLM_F_EXCL) {
            Err(e) if taken(&e) => {}
            other => other.map_err(step(format!("route to {via} in the pod")))?,
        }
    }
    let any = default_of(via);
    match route(pod, index, any, Some(via), main, NLM_F_EXCL) {
        Ok(()) => return Ok(Routing::Main),
        Err(e) if taken(&e) => {}
        Err(e) => return Err(step(format!("route to {any} in the pod"))(e)),
    }
    let holder = default_device(pod, via).map_err(step("reading the pod's default route"))?;
    if holder == Some(index) {
        return Ok(Routing::Main);
    }
    let table = OWN_TABLE_BASE + index;
    if via.is_ipv4() {
        route(pod, index, via.into(), None, table, NLM_F_REPLACE)
            .map_err(step(format!("route to {via} in the pod's table {table}")))?;
    }
    route(pod, index, any, Some(via), table, NLM_F_REPLACE)
        .map_err(step(format!("route to {any} in the pod's table {table}")))?;
    for from in sources {
        rule(pod, *from, table).map_err(step(format!("rule for packets from {from} in the pod")))?;
    }
    Ok(Routing::Own(table))
}

fn default_of(ip: IpAddr) -> IpNet {
    let any: IpAddr = if ip.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0_u16; 8].into()
    };
    IpNet::new(any, 0).unwrap_or_else(|_| IpNet::from(any))
}

/// Adds a route of the pod: by the link alone, or by a gateway on it. `existing` says what a route in its place means.
fn route(
    pod: &mut Socket,
    index: u32,
    dst: IpNet,
    via: Option<IpAddr>,
    table: u32,
    existing: u16,
) -> Result<(), NetlinkError> {
    let scope = if via.is_some() {
        r::RT_SCOPE_UNIVERSE
    } else {
        r::RT_SCOPE_LINK
    };
    let mut body = r::rtmsg(dst, r::RTPROT_STATIC, scope, r::RTN_UNICAST);
    if let (Some(number), true) = (body.get_mut(4), table != u32::from(r::RT_TABLE_MAIN)) {
        *number = r::RT_TABLE_UNSPEC;
    }
    pod.request(r::RTM_NEWROUTE, NLM_F_CREATE | existing, &body, |w| {
        if dst.prefix_len() > 0 {
            w.attr(r::RTA_DST, &r::octets(dst.addr()));
        }
        if let Some(via) = via {
            w.attr(r::RTA_GATEWAY, &r::octets(via));
        }
        w.attr_u32(r::RTA_OIF, index);
        w.attr_u32(r::RTA_TABLE, table);
    })
}

fn rule(pod: &mut Socket, from: IpAddr, table: u32) -> Result<(), NetlinkError> {
    let body = r::fib_rule_hdr(from);
    let added = pod.request(r::RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &body, |w| {
        w.attr(r::FRA_SRC, &r::octets(from));
        w.attr_u32(r::FRA_PRIORITY, RULE_PRIORITY);
        w.attr_u32(r::FRA_TABLE, table);
    });
    match added {
        // Left by an earlier attach of the same interface.
        Err(e) if e.errno() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// Index of the interface of the pod's default route in the main table.
fn default_device(pod: &mut Socket, family_of: IpAddr) -> Result<Option<u32>, NetlinkError> {
    let routes = inspect::routes(pod, family_of)?;
    let default = routes
        .iter()
        .find(|r| r.table == u32::from(r::RT_TABLE_MAIN) && r.dst.is_none());
    Ok(default.map(|r| r.device))
}

/// The link-local address that a MAC makes (RFC 4291 appendix A, modified EUI-64).
fn link_local(mac: Mac) -> std::net::Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let bits = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    (0xfe80_u128 << 112 | u128::from(bits)).into()
}

#[cfg(test)]
mod tests;
