//! Whether a pod's link still is what was made: read from both sides, and each difference told in words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{PodError, PodLink, step};
use crate::kernel::links::{GATEWAY_V6, LinkState};
use crate::kernel::netlink::{NetlinkError, Socket};
use crate::kernel::{rtnl as r, wire};
use crate::plan::name::{IfName, Mac};
use crate::plan::routes::GATEWAY_V4;

/// What a link is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Names, link-layer address, addresses, and the MTU unless it is 0.
    pub link: PodLink,
    /// Destination and gateway of routes that the pod should have through this link, in whatever table.
    pub routes: Vec<(IpNet, IpAddr)>,
}

/// A route of a namespace, as far as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PodRoute {
    /// `None` for a default route.
    pub(super) dst: Option<IpNet>,
    pub(super) via: Option<IpAddr>,
    pub(super) device: u32,
    pub(super) table: u32,
}

/// Compares a pod's link with what it should be: links up and paired, link-layer addresses, MTU, addresses, routes and the
/// permanent neighbour inside; the route to each address on the host. An empty list means that nothing differs.
///
/// # Errors
/// The kernel does not let something be read.
pub fn inspect(host: &mut Socket, pod: &mut Socket, want: &Expected) -> Result<Vec<String>, PodError> {
    let read = |socket: &mut Socket, name: IfName| {
        LinkState::read(socket, name).map_err(step(format!("reading {name}")))
    };
    let (ours, theirs) = (read(host, want.link.host)?, read(pod, want.link.pod)?);
    let mut out = Vec::new();
    match ours {
        None => out.push(format!("{} is gone from the host", want.link.host)),
        Some(ours) => {
            side(want.link.host, &ours, Mac::HOST_SIDE, 0, &mut out);
            reached(host, want, ours.index, &mut out)?;
        }
    }
    match theirs {
        None => out.push(format!("{} is gone from the pod", want.link.pod)),
        Some(theirs) => {
            side(want.link.pod, &theirs, want.link.mac, want.link.mtu, &mut out);
            inside(pod, want, theirs.index, &mut out)?;
        }
    }
    if let (Some(ours), Some(theirs)) = (ours, theirs)
        && (ours.peer != Some(theirs.index) || theirs.peer != Some(ours.index))
    {
        out.push(format!(
            "{} in the pod is not the other side of {}",
            want.link.pod, want.link.host
        ));
    }
    Ok(out)
}

fn side(name: IfName, link: &LinkState, mac: Mac, mtu: u32, out: &mut Vec<String>) {
    if !link.up {
        out.push(format!("{name} is down"));
    }
    if let Some(found) = link.mac.filter(|found| *found != mac) {
        out.push(format!("{name} has the link-layer address {found}, not {mac}"));
    }
    if mtu != 0 && link.mtu != mtu {
        out.push(format!("{name} has MTU {}, not {mtu}", link.mtu));
    }
}

/// The host's way to each address is our link.
fn reached(host: &mut Socket, want: &Expected, index: u32, out: &mut Vec<String>) -> Result<(), PodError> {
    for ip in &want.link.addresses {
        let device = way_to(host, *ip).map_err(step(format!("asking for the route to {ip}")))?;
        if device != Some(index) {
            out.push(format!(
                "the host's route to {ip} does not lead to {}",
                want.link.host
            ));
        }
    }
    Ok(())
}

/// Where the host would send a packet; `None` if nowhere.
fn way_to(host: &mut Socket, ip: IpAddr) -> Result<Option<u32>, NetlinkError> {
    let len = if ip.is_ipv4() { 32 } else { 128 };
    let body = [r::family(ip), len, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let found = host.query(
        r::RTM_GETROUTE,
        &body,
        |w| w.attr(r::RTA_DST, &r::octets(ip)),
        |out: &mut Option<u32>, m| {
            let attrs = m.payload.get(r::RTMSG_LEN..).unwrap_or_default();
            *out = wire::find(attrs, r::RTA_OIF).and_then(|i| wire::u32_at(i, 0));
        },
    );
    match found {
        Err(NetlinkError::Refused { .. }) => Ok(None),
        other => other,
    }
}

fn inside(pod: &mut Socket, want: &Expected, index: u32, out: &mut Vec<String>) -> Result<(), PodError> {
    let name = want.link.pod;
    let held = addresses(pod, index).map_err(step(format!("reading the addresses of {name}")))?;
    for ip in want.link.addresses.iter().filter(|ip| !held.contains(ip)) {
        out.push(format!("{name} does not have the address {ip}"));
    }
    let neighbours = neighbours(pod, index).map_err(step(format!("reading the neighbours on {name}")))?;
    for gateway in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        let used = want
            .link
            .addresses
            .iter()
            .any(|a| a.is_ipv4() == gateway.is_ipv4());
        if used && neighbours.get(&gateway) != Some(&Mac::HOST_SIDE) {
            out.push(format!(
                "the pod does not have the gateway {gateway} as permanent neighbour {}",
                Mac::HOST_SIDE
            ));
        }
    }
    for family_of in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        let wanted = want
            .routes
            .iter()
            .filter(|(_, via)| via.is_ipv4() == family_of.is_ipv4());
        let wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() {
            continue;
        }
        let found = routes(pod, family_of).map_err(step("reading the pod's routes"))?;
        for (dst, via) in wanted {
            let there = |r: &PodRoute| {
                r.device == index && r.via == Some(*via) && r.dst.map_or(dst.prefix_len() == 0, |d| d == *dst)
            };
            if !found.iter().any(there) {
                out.push(format!("the pod has no route to {dst} by {via} through {name}"));
            }
        }
    }
    Ok(())
}

fn addresses(pod: &mut Socket, index: u32) -> Result<Vec<IpAddr>, NetlinkError> {
    let mut all = Vec::new();
    for family in [r::AF_INET, r::AF_INET6] {
        let found = pod.dump(
            r::RTM_GETADDR,
            &[family, 0, 0, 0, 0, 0, 0, 0],
            |_| {},
            |out: &mut Vec<IpAddr>, m| {
                let attrs = m.payload.get(r::IFADDRMSG_LEN..).unwrap_or_default();
                let ip = wire::find(attrs, r::IFA_ADDRESS).and_then(r::address);
                if wire::u32_at(m.payload, 4) == Some(index) {
                    out.extend(ip);
                }
            },
        );
        all.extend(without_family(found)?);
    }
    Ok(all)
}

fn neighbours(pod: &mut Socket, index: u32) -> Result<BTreeMap<IpAddr, Mac>, NetlinkError> {
    pod.dump(
        r::RTM_GETNEIGH,
        &[0; r::NDMSG_LEN],
        |_| {},
        |out: &mut BTreeMap<IpAddr, Mac>, m| {
            let permanent = wire::u16_at(m.payload, 8).is_some_and(|s| s & r::NUD_PERMANENT != 0);
            let attrs = m.payload.get(r::NDMSG_LEN..).unwrap_or_default();
            let ip = wire::find(attrs, r::NDA_DST).and_then(r::address);
            let mac = wire::find(attrs, r::NDA_LLADDR).and_then(|b| b.try_into().ok());
            if let (true, Some(ip), Some(mac)) =
                (permanent && wire::u32_at(m.payload, 4) == Some(index), ip, mac)
            {
                out.insert(ip, Mac(mac));
            }
        },
    )
}

/// Routes of one family with a single next hop, of all tables.
pub(super) fn routes(socket: &mut Socket, family_of: IpAddr) -> Result<Vec<PodRoute>, NetlinkError> {
    let body = [r::family(family_of), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let found = socket.dump(
        r::RTM_GETROUTE,
        &body,
        |_| {},
        |out: &mut Vec<PodRoute>, m| out.extend(parse(m.payload)),
    );
    without_family(found)
}

fn parse(payload: &[u8]) -> Option<PodRoute> {
    let attrs = payload.get(r::RTMSG_LEN..)?;
    let (len, named) = (*payload.get(1)?, u32::from(*payload.get(4)?));
    let number = |kind| wire::find(attrs, kind).and_then(|v| wire::u32_at(v, 0));
    let dst = match wire::find(attrs, r::RTA_DST).and_then(r::address) {
        Some(ip) => Some(IpNet::new(ip, len).ok()?),
        None => None,
    };
    Some(PodRoute {
        dst,
        via: wire::find(attrs, r::RTA_GATEWAY).and_then(r::address),
        device: number(r::RTA_OIF)?,
        table: number(r::RTA_TABLE).unwrap_or(named),
    })
}

/// A kernel without a family has nothing of it.
fn without_family<T>(found: Result<Vec<T>, NetlinkError>) -> Result<Vec<T>, NetlinkError> {
    match found {
        Err(e) if matches!(e.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => Ok(Vec::new()),
        other => other,
    }
}
