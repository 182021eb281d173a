//! Our routes in the kernel: the delta against what is held, pure, and the writer that applies it.
//!
//! Only routes of protocols 80 and 81 in the main table are ours. A destination that somebody else holds with our
//! metric is a conflict: reported, tried again, never overwritten.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::foreign::Reader;
use super::links::LinkTable;
use super::netlink::{Fill, NetlinkError, Protocol, Socket};
use super::rtnl as r;
use super::wire::{self, Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, Wire};
use crate::plan::name::IfName;
use crate::plan::routes::{METRIC, NextHop, PROTOCOL_BGP, PROTOCOL_LOCAL, Route, Routes, Weight};
use crate::plan::underlay::Underlay;

/// The protocols of our routes.
const OURS: [u8; 2] = [PROTOCOL_LOCAL, PROTOCOL_BGP];

/// Routes of ours as held by the kernel; normally one for each destination.
pub type Held = BTreeMap<IpNet, Vec<HeldRoute>>;

/// One route of ours in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRoute {
    /// 80 or 81.
    pub protocol: u8,
    /// Its metric; ours is always [`METRIC`].
    pub metric: u32,
    /// What it does; `None` when it has a form that we never make.
    pub route: Option<Route>,
}

/// Which routes may be deleted. Until then what is found of the kind stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Routes of protocol 80: after the datastore's in-sync.
    pub own: bool,
    /// Routes of protocol 81: after BGP's (End-of-RIB of all restarting peers, or the deferral timer).
    pub bgp: bool,
}

/// One change of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a route where none of ours is.
    Add(IpNet, Route),
    /// Replaces ours in place.
    Replace(IpNet, Route),
    /// Deletes one of ours, told by metric and protocol.
    Delete(IpNet, u32, u8),
}

impl Change {
    /// Its destination.
    #[must_use]
    pub fn dst(&self) -> IpNet {
        match self {
            Self::Add(dst, _) | Self::Replace(dst, _) | Self::Delete(dst, ..) => *dst,
        }
    }
}

/// What to do so that the kernel holds what is desired: additions and replacements first, deletions last.
#[must_use]
pub fn delta(desired: &Routes, held: &Held, sweep: Sweep) -> Vec<Change> {
    let gone = held.keys().filter(|dst| !desired.contains_key(dst));
    let gone = gone.map(|dst| (dst, None));
    let wanted = desired.iter().map(|(dst, route)| (dst, Some(route)));
    delta_at(wanted.chain(gone), held, sweep)
}

/// The same for single destinations: what each should hold, `None` for nothing.
pub(super) fn delta_at<'a>(
    wanted: impl IntoIterator<Item = (&'a IpNet, Option<&'a Route>)>,
    held: &Held,
    sweep: Sweep,
) -> Vec<Change> {
    let (mut changes, mut deletes) = (Vec::new(), Vec::new());
    let may_go = |h: &HeldRoute| {
        if h.protocol == PROTOCOL_BGP {
            sweep.bgp
        } else {
            sweep.own
        }
    };
    for (dst, route) in wanted {
        let found = held.get(dst).map(Vec::as_slice).unwrap_or_default();
        let kept = route.and_then(|route| {
            let right = found.iter().position(|h| h.holds(route));
            let replaced = right.or_else(|| found.iter().position(|h| h.metric == METRIC));
            match (right, replaced) {
                (Some(_), _) => {}
                (None, Some(_)) => changes.push(Change::Replace(*dst, route.clone())),
                (None, None) => changes.push(Change::Add(*dst, route.clone())),
            }
            replaced
        });
        let rest = found.iter().enumerate();
        let rest = rest.filter(|(i, h)| Some(*i) != kept && may_go(h));
        deletes.extend(rest.map(|(_, h)| Change::Delete(*dst, h.metric, h.protocol)));
    }
    changes.append(&mut deletes);
    changes
}

impl HeldRoute {
    /// Whether this is the desired route. A next hop without a device matches whatever device the kernel chose.
    #[must_use]
    pub fn holds(&self, desired: &Route) -> bool {
        if self.metric != METRIC || self.protocol != desired.protocol() {
            return false;
        }
        match (&self.route, desired) {
            (Some(Route::Bgp(held)), Route::Bgp(hops)) => {
                held.len() == hops.len() && held.iter().zip(hops).all(|(h, d)| same_hop(h, d))
            }
            (Some(held), desired) => held == desired,
            (None, _) => false,
        }
    }
}

/// Whether what is remembered is what was read, in which the kernel has filled in devices.
fn same(remembered: &Held, read: &Held) -> bool {
    let one = |a: &HeldRoute, b: &HeldRoute| a == b || a.route.as_ref().is_some_and(|r| b.holds(r));
    let all =
        |a: &[HeldRoute], b: &[HeldRoute]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| one(a, b));
    remembered.len() == read.len()
        && remembered
            .iter()
            .all(|(dst, held)| read.get(dst).is_some_and(|found| all(held, found)))
}

fn same_hop(held: &NextHop, desired: &NextHop) -> bool {
    held.via == desired.via
        && held.weight == desired.weight
        && held.onlink == desired.onlink
        && (desired.dev.is_none() || held.dev == desired.dev)
}

/// Outcome of an apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutesApplied {
    /// Routes added or replaced.
    pub written: usize,
    /// Routes deleted.
    pub deleted: usize,
    /// What failed, by destination, with the reason. Worth another try later.
    pub failed: BTreeMap<IpNet, String>,
}

/// The one writer of routes.
#[derive(Debug)]
pub struct RouteWriter {
    socket: Socket,
    held: Option<Held>,
}

impl RouteWriter {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open(Protocol::Route)?,
            held: None,
        })
    }

    /// By which notifications name this writer's changes.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// What the kernel holds of ours, as far as is known.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Forgets what is remembered: the next apply reads the routes again.
    pub fn forget(&mut self) {
        self.held = None;
    }

    /// Reads our routes from the kernel, and says whether they are other than what was remembered.
    ///
    /// # Errors
    /// When the kernel does not let them be read.
    pub fn resync(&mut self, links: &LinkTable) -> Result<bool, NetlinkError> {
        let now = dump(&mut self.socket, links, &OURS)?;
        let drifted = self.held.as_ref().is_some_and(|held| !same(held, &now));
        self.held = Some(now);
        Ok(drifted)
    }

    /// Reads the routes of others that next hops lean on.
    ///
    /// # Errors
    /// When the kernel does not let them be read.
    pub(super) fn underlay(
        &mut self,
        reader: &mut Reader,
        links: &LinkTable,
    ) -> Result<Underlay, NetlinkError> {
        reader.read(&mut self.socket, links)
    }

    /// Makes the kernel hold the desired routes.
    ///
    /// # Errors
    /// When the socket fails. A route that the kernel refuses is told in [`RoutesApplied::failed`].
    pub fn apply(
        &mut self,
        desired: &Routes,
        links: &LinkTable,
        sweep: Sweep,
    ) -> Result<RoutesApplied, NetlinkError> {
        let changes = delta(desired, self.held_or_read(links)?, sweep);
        self.write(changes, links)
    }

    /// What the kernel holds of ours; read again if that was forgotten.
    ///
    /// # Errors
    /// When the kernel does not let it be read.
    pub(super) fn held_or_read(&mut self, links: &LinkTable) -> Result<&Held, NetlinkError> {
        let held = match self.held.take() {
            Some(held) => held,
            None => dump(&mut self.socket, links, &OURS)?,
        };
        Ok(self.held.insert(held))
    }

    /// Makes these changes, in their order.
    ///
    /// # Errors
    /// When the socket fails: what the kernel holds is then unknown. A route that the kernel refuses is told in
    /// [`RoutesApplied::failed`].
    pub(super) fn write(
        &mut self,
        changes: Vec<Change>,
        links: &LinkTable,
    ) -> Result<RoutesApplied, NetlinkError> {
        let mut applied = RoutesApplied::default();
        let mut sent = Vec::new();
        let mut build: Vec<Fill> = Vec::new();
        for change in changes {
            match message(&change, links) {
                Ok(fill) => {
                    build.push(fill);
                    sent.push(change);
                }
                Err(reason) => drop(applied.failed.insert(change.dst(), reason)),
            }
        }
        let answers = self.socket.pipeline(build).inspect_err(|_| self.held = None)?;
        for (change, answer) in sent.into_iter().zip(answers) {
            note(&mut self.held, change, answer.result, &mut applied);
        }
        Ok(applied)
    }
}

/// Remembers what a change did.
pub(super) fn note(
    memory: &mut Option<Held>,
    change: Change,
    result: Result<(), NetlinkError>,
    out: &mut RoutesApplied,
) {
    let Some(held) = memory.as_mut() else { return };
    let gone = matches!(&result, Err(e) if e.errno() == Some(libc::ESRCH));
    match (change, result) {
        (Change::Add(dst, route) | Change::Replace(dst, route), Ok(())) => {
            out.written += 1;
            let slot = held.entry(dst).or_default();
            slot.retain(|h| h.metric != METRIC);
            slot.push(HeldRoute {
                protocol: route.protocol(),
                metric: METRIC,
                route: Some(route),
            });
        }
        (Change::Delete(dst, metric, protocol), result) if result.is_ok() || gone => {
            out.deleted += 1;
            if let Some(slot) = held.get_mut(&dst) {
                slot.retain(|h| (h.metric, h.protocol) != (metric, protocol));
                if slot.is_empty() {
                    held.remove(&dst);
                }
            }
        }
        (change, Err(e)) => {
            let reason = match e.errno() {
                Some(libc::EEXIST) => {
                    format!("a route of somebody else holds it with our metric {METRIC}")
                }
                _ => e.to_string(),
            };
            out.failed.insert(change.dst(), reason);
            // The kernel may hold something else than we believe.
            if gone {
                *memory = None;
            }
        }
        (Change::Delete(..), Ok(())) => {}
    }
}

/// The message of a change, or why there is none yet (a link that is not there).
fn message(change: &Change, links: &LinkTable) -> Result<Fill, String> {
    let mut attrs = Wire::default();
    let (kind, flags, body) = match change {
        Change::Delete(dst, metric, protocol) => {
            destination(&mut attrs, *dst);
            attrs.attr_u32(r::RTA_PRIORITY, *metric);
            (
                r::RTM_DELROUTE,
                0,
                r::rtmsg(*dst, *protocol, r::RT_SCOPE_NOWHERE, 0),
            )
        }
        Change::Add(dst, route) => (
            r::RTM_NEWROUTE,
            NLM_F_CREATE | NLM_F_EXCL,
            encode(&mut attrs, *dst, route, links)?,
        ),
        Change::Replace(dst, route) => (
            r::RTM_NEWROUTE,
            NLM_F_CREATE | NLM_F_REPLACE,
            encode(&mut attrs, *dst, route, links)?,
        ),
    };
    Ok(Box::new(move |w, seq| {
        let open = w.message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, seq, &body);
        w.raw(attrs.as_bytes());
        w.end_message(open);
    }))
}

fn destination(w: &mut Wire, dst: IpNet) {
    w.attr(r::RTA_DST, &r::octets(dst.addr()));
}

fn encode(w: &mut Wire, dst: IpNet, route: &Route, links: &LinkTable) -> Result<[u8; r::RTMSG_LEN], String> {
    let index = |name: &IfName| {
        links
            .index(name)
            .ok_or_else(|| format!("there is no interface {name}"))
    };
    destination(w, dst);
    w.attr_u32(r::RTA_PRIORITY, METRIC);
    let (scope, kind) = match route {
        Route::Workload { link } => {
            w.attr_u32(r::RTA_OIF, index(link)?);
            (r::RT_SCOPE_LINK, r::RTN_UNICAST)
        }
        Route::ProxyArpGateway => {
            w.attr_u32(r::RTA_OIF, index(&IfName::fixed("lo"))?);
            (r::RT_SCOPE_LINK, r::RTN_UNICAST)
        }
        Route::Blackhole => (r::RT_SCOPE_UNIVERSE, r::RTN_BLACKHOLE),
        Route::Bgp(hops) => {
            next_hops(w, dst, hops, index)?;
            (r::RT_SCOPE_UNIVERSE, r::RTN_UNICAST)
        }
    };
    let mut body = r::rtmsg(dst, route.protocol(), scope, kind);
    // A single next hop has its flags in the route's own, low byte first.
    if let Route::Bgp(hops) = route
        && let [only] = hops.as_slice()
        && only.onlink
        && let Some(flags) = body.get_mut(8..12)
    {
        flags.copy_from_slice(&u32::from(r::RTNH_F_ONLINK).to_ne_bytes());
    }
    Ok(body)
}

/// A gateway of the destination's family, or of IPv6 for IPv4.
fn gateway(w: &mut Wire, dst: IpNet, via: IpAddr) -> Result<(), String> {
    match (dst.addr(), via) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            w.attr(r::RTA_GATEWAY, &r::octets(via));
        }
        (IpAddr::V4(_), IpAddr::V6(v6)) => {
            let family = u16::from(r::AF_INET6).to_ne_bytes();
            w.attr(r::RTA_VIA, &[&family[..], &v6.octets()].concat());
        }
        (IpAddr::V6(_), IpAddr::V4(_)) => {
            return Err(format!("the kernel takes no IPv4 gateway {via} for IPv6"));
        }
    }
    Ok(())
}

/// What [`gateway`] wrote.
fn read_gateway(attrs: &[u8]) -> Option<IpAddr> {
    let other = || {
        let (_, octets) = wire::find(attrs, r::RTA_VIA)?.split_first_chunk::<2>()?;
        r::address(octets)
    };
    wire::find(attrs, r::RTA_GATEWAY)
        .and_then(r::address)
        .or_else(other)
}

fn next_hops(
    w: &mut Wire,
    dst: IpNet,
    hops: &[NextHop],
    index: impl Fn(&IfName) -> Result<u32, String>,
) -> Result<(), String> {
    let oif = |hop: &NextHop| hop.dev.as_ref().map(&index).transpose();
    if let [only] = hops {
        gateway(w, dst, only.via)?;
        if let Some(oif) = oif(only)? {
            w.attr_u32(r::RTA_OIF, oif);
        }
        return Ok(());
    }
    let mut list = Vec::new();
    for hop in hops {
        let mut nested = Wire::default();
        gateway(&mut nested, dst, hop.via)?;
        let len = u16::try_from(8 + nested.len()).unwrap_or(u16::MAX);
        list.extend_from_slice(&len.to_ne_bytes());
        list.push(if hop.onlink { r::RTNH_F_ONLINK } else { 0 });
        list.push(hop.weight.rtnh_hops());
        list.extend_from_slice(&oif(hop)?.unwrap_or_default().to_ne_bytes());
        list.extend_from_slice(nested.as_bytes());
    }
    w.attr(r::RTA_MULTIPATH, &list);
    Ok(())
}

/// Routes of these protocols in the main table, of both families.
pub(super) fn dump(socket: &mut Socket, links: &LinkTable, protocols: &[u8]) -> Result<Held, NetlinkError> {
    let mut all = Held::new();
    for family in [r::AF_INET, r::AF_INET6] {
        for &protocol in protocols {
            let body = [family, 0, 0, 0, r::RT_TABLE_MAIN, protocol, 0, 0, 0, 0, 0, 0];
            let found = socket.dump(
                r::RTM_GETROUTE,
                &body,
                |_| {},
                |out: &mut Vec<_>, m| {
                    out.extend(parse(&m, links).filter(|(_, h)| h.protocol == protocol));
                },
            );
            match found {
                Ok(found) => found
                    .into_iter()
                    .for_each(|(dst, h)| all.entry(dst).or_default().push(h)),
                // A kernel without IPv6.
                Err(e) if matches!(e.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(all)
}

/// A route of the main table. Cloned cache entries and other tables are passed over.
fn parse(message: &Message<'_>, links: &LinkTable) -> Option<(IpNet, HeldRoute)> {
    let body = message.payload.get(..r::RTMSG_LEN)?;
    let attrs = message.payload.get(r::RTMSG_LEN..)?;
    let [family, dst_len, _, _, table, protocol, _, kind, ..] = *body else {
        return None;
    };
    if message.kind != r::RTM_NEWROUTE || table != r::RT_TABLE_MAIN {
        return None;
    }
    let zero = if family == r::AF_INET {
        [0; 16].get(..4)
    } else {
        [0; 16].get(..)
    }
    .and_then(r::address)?;
    let dst = wire::find(attrs, r::RTA_DST).and_then(r::address).unwrap_or(zero);
    let dst = IpNet::new(dst, dst_len).ok()?;
    let metric = wire::find(attrs, r::RTA_PRIORITY)
        .and_then(|p| wire::u32_at(p, 0))
        .unwrap_or_default();
    let flags = wire::u32_at(body, 8).unwrap_or_default();
    let route = match kind {
        r::RTN_BLACKHOLE => Some(Route::Blackhole),
        r::RTN_UNICAST => unicast(
            attrs,
            flags.to_ne_bytes().first().copied().unwrap_or_default(),
            links,
        ),
        _ => None,
    };
    Some((
        dst,
        HeldRoute {
            protocol,
            metric,
            route,
        },
    ))
}

fn unicast(attrs: &[u8], flags: u8, links: &LinkTable) -> Option<Route> {
    let oif = wire::find(attrs, r::RTA_OIF).and_then(|p| wire::u32_at(p, 0));
    let dev = |index: Option<u32>| index.and_then(|i| links.name(i));
    if let Some(list) = wire::find(attrs, r::RTA_MULTIPATH) {
        return Route::bgp(multipath(list, links)?);
    }
    let onlink = flags & r::RTNH_F_ONLINK != 0;
    match read_gateway(attrs) {
        Some(via) => Route::bgp([NextHop {
            via,
            dev: dev(oif),
            onlink,
            weight: Weight::ONE,
        }]),
        None if dev(oif)?.as_str() == "lo" => Some(Route::ProxyArpGateway),
        None => Some(Route::Workload { link: dev(oif)? }),
    }
}

fn multipath(mut list: &[u8], links: &LinkTable) -> Option<Vec<NextHop>> {
    let mut hops = Vec::new();
    while let Some(len) = wire::u16_at(list, 0).map(usize::from).filter(|l| *l >= 8) {
        let (flags, weight) = (*list.get(2)?, *list.get(3)?);
        let via = read_gateway(list.get(8..len)?)?;
        hops.push(NextHop {
            via,
            dev: wire::u32_at(list, 4).and_then(|i| links.name(i)),
            onlink: flags & r::RTNH_F_ONLINK != 0,
            weight: Weight::from_rtnh_hops(weight),
        });
        list = list.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(hops)
}

/// Whether a notification is about a route that may concern us: one of our protocols in the main table.
pub(super) fn concerns(message: &Message<'_>) -> bool {
    let at = |i: usize| message.payload.get(i).copied().unwrap_or_default();
    let table = message
        .payload
        .get(r::RTMSG_LEN..)
        .and_then(|a| wire::find(a, r::RTA_TABLE));
    let main = table
        .and_then(|t| wire::u32_at(t, 0))
        .map_or(at(4) == r::RT_TABLE_MAIN, |t| t == u32::from(r::RT_TABLE_MAIN));
    main && matches!(at(5), PROTOCOL_LOCAL | PROTOCOL_BGP)
}

#[cfg(test)]
mod tests;
