//! A node changes hands: what Calico left becomes ours without a packet lost, and what is ours goes when Calico comes back.
//!
//! ```text
//! taking over   adopt_routes (before the daemon writes) ── the daemon programs its own ── remove_tables
//! handing back  hand_back (the daemon has stopped) ── calico-node starts
//! ```
//!
//! Calico's rules stay until ours are there, so that no pod is without policy in between. Veths and their addresses are the
//! same on both sides and stay (running pods hold `ee:ee:ee:ee:ee:ee` as a permanent neighbour).

use ipnet::IpNet;

use super::links::{LinkTable, LinkWriter};
use super::netlink::{NetlinkError, Protocol, Socket};
use super::nft::{ApplyError, Writer};
use super::routes::{self, Change, HeldRoute, RouteWriter, Sweep};
use super::rtnl as r;
use super::wire::{NLM_F_CREATE, NLM_F_REPLACE};
use crate::plan::nft::{Family, Name, Table};
use crate::plan::routes::{METRIC, Route, Routes};

/// Who writes the routes of a Calico node beside protocol 80, which is ours too: workload routes (boot) and BIRD's.
const THEIR_PROTOCOLS: [u8; 2] = [r::RTPROT_BOOT, r::RTPROT_BIRD];
/// How the links of Calico's pods are named.
const POD_LINK: &str = "cali";
/// Calico's table of rules in nftables mode, one in each of two families.
const THEIR_TABLE: &str = "calico";

/// What was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Routes that are ours now.
    pub routes: usize,
    /// Routes that could not be adopted, with the reason; they stay as they are.
    pub left: Vec<(IpNet, String)>,
}

/// Makes the routes that Calico left inside the pools ours: same destination, same way, our protocol and metric. The daemon
/// then treats them as what an earlier run of its own left. Routes outside the pools are somebody else's.
///
/// # Errors
/// When the kernel does not let routes be read or written.
pub fn adopt_routes(pools: &[IpNet]) -> Result<Adopted, NetlinkError> {
    let mut socket = Socket::open(Protocol::Route)?;
    let links = LinkTable::read(&mut socket)?;
    let theirs = routes::dump(&mut socket, &links, &THEIR_PROTOCOLS)?;
    let mut adopted = Adopted::default();
    let (mut writes, mut deletes) = (Vec::new(), Vec::new());
    for (dst, held) in &theirs {
        if !pools.iter().any(|pool| pool.contains(dst)) {
            continue;
        }
        let mut written = false;
        // That of our metric first: it is replaced in place, and one route is enough.
        for metric_is_ours in [true, false] {
            for route in held.iter().filter(|h| (h.metric == METRIC) == metric_is_ours) {
                if !is_calicos(route) {
                    continue;
                }
                let Some(way) = &route.route else {
                    adopted
                        .left
                        .push((*dst, "it has a form that is never made here".to_owned()));
                    continue;
                };
                if !written {
                    writes.push(Change::Replace(*dst, way.clone()));
                    written = true;
                }
                if !metric_is_ours {
                    deletes.push(Change::Delete(*dst, route.metric, route.protocol));
                }
            }
        }
        adopted.routes += usize::from(written);
    }
    let mut writer = RouteWriter::open()?;
    writer.resync(&links)?;
    let failed = writer.write(writes, &links)?.failed;
    adopted.routes = adopted.routes.saturating_sub(failed.len());
    adopted.left.extend(failed);
    adopted.left.extend(writer.write(deletes, &links)?.failed);
    Ok(adopted)
}

/// A route of BIRD's, or one to a pod by Felix. Others use the same protocol numbers.
fn is_calicos(held: &HeldRoute) -> bool {
    match &held.route {
        Some(Route::Workload { link }) => link.as_str().starts_with(POD_LINK),
        _ => held.protocol == r::RTPROT_BIRD,
    }
}

/// Removes Calico's tables of rules (nftables mode), once ours enforce. None is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_tables() -> Result<(), ApplyError> {
    for family in [Family::Ip, Family::Ip6] {
        let table = Table {
            family,
            name: Name::fixed(THEIR_TABLE),
            ..Table::default()
        };
        Writer::open()?.remove(&table)?;
    }
    Ok(())
}

/// Removes our table and our routes, for handing the node back: the daemon must not run.
///
/// Routes to pods become Felix's (protocol boot, its metric), so that running pods are reached until and after it starts; all
/// others go, for BIRD would learn them and announce other nodes' blocks as its own.
///
/// # Errors
/// When the kernel refuses.
pub fn hand_back(table: &Table) -> Result<(), ApplyError> {
    let mut links = LinkWriter::open()?;
    let links = links.table()?;
    let mut writer = RouteWriter::open()?;
    writer.resync(&links)?;
    let held = writer.held().cloned().unwrap_or_default();
    let pods = held.iter().flat_map(|(dst, held)| {
        let to_pod = |h: &HeldRoute| match &h.route {
            Some(Route::Workload { link }) => Some(*link),
            _ => None,
        };
        held.iter().find_map(to_pod).map(|link| (*dst, link))
    });
    let mut socket = Socket::open(Protocol::Route)?;
    for (dst, link) in pods {
        // A link that went in between takes its route with it.
        let Some(index) = links.index(&link) else { continue };
        boot_route(&mut socket, dst, index)?;
    }
    writer.apply(&Routes::new(), &links, Sweep { own: true, bgp: true })?;
    Writer::open()?.remove(table)
}

/// A route to a pod as Felix writes it, in place of ours: its metric is the same, and BIRD takes a smaller one for a pod that
/// is to win over its block.
fn boot_route(socket: &mut Socket, dst: IpNet, link: u32) -> Result<(), NetlinkError> {
    let body = r::rtmsg(dst, r::RTPROT_BOOT, r::RT_SCOPE_LINK, r::RTN_UNICAST);
    socket.request(r::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body, |w| {
        w.attr(r::RTA_DST, &r::octets(dst.addr()));
        w.attr_u32(r::RTA_PRIORITY, METRIC);
        w.attr_u32(r::RTA_OIF, link);
    })
}

#[cfg(test)]
mod tests;
