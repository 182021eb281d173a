//! Routes of others, as far as next hops lean on them: read from the kernel, never written.
//!
//! The first reading takes everything. Later ones ask only for the protocols that were seen, ours left out, so that a node
//! that learned many routes by BGP does not read them all whenever its underlay moves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::links::LinkTable;
use super::netlink::{NetlinkError, Socket};
use super::rtnl as r;
use super::wire::{self, Message};
use crate::plan::routes::{PROTOCOL_BGP, PROTOCOL_LOCAL, Weight};
use crate::plan::underlay::{Forward, Hop, UNDERLAY_MAX, Underlay};

/// Route flags of a way that forwards nothing now.
const RTNH_F_DEAD: u8 = 1;

/// Who reads the underlay.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Protocols of others that were seen; empty before the first reading.
    protocols: BTreeSet<u8>,
    /// The last reading met an interface that it did not know yet.
    missed: bool,
}

/// What one message says.
enum Said {
    Route(u8, IpNet, u32, Forward),
    Missed,
    Own(IpAddr),
}

impl Reader {
    /// The next reading takes everything.
    pub(super) fn forget(&mut self) {
        self.protocols.clear();
    }

    /// A notification spoke of routes of these protocols.
    pub(super) fn saw(&mut self, protocols: &BTreeSet<u8>) {
        if !self.protocols.is_empty() {
            self.protocols.extend(protocols);
        }
    }

    /// Whether the last reading met an interface that it did not know yet.
    pub(super) fn missed(&self) -> bool {
        self.missed
    }

    /// Reads the underlay.
    ///
    /// # Errors
    /// When the kernel does not let it be read.
    pub(super) fn read(&mut self, socket: &mut Socket, links: &LinkTable) -> Result<Underlay, NetlinkError> {
        let mut underlay = Underlay::default();
        self.missed = false;
        // Protocol 0 asks for all.
        let protocols = if self.protocols.is_empty() {
            BTreeSet::from([0])
        } else {
            self.protocols.clone()
        };
        for family in [r::AF_INET, r::AF_INET6] {
            let tables = protocols.iter().map(|protocol| (r::RT_TABLE_MAIN, *protocol));
            for (table, protocol) in tables.chain([(r::RT_TABLE_LOCAL, 0)]) {
                let body = [family, 0, 0, 0, table, protocol, 0, 0, 0, 0, 0, 0];
                let found = socket.dump(
                    r::RTM_GETROUTE,
                    &body,
                    |_| {},
                    |out: &mut Vec<Said>, m| {
                        if out.len() < UNDERLAY_MAX {
                            out.extend(parse(&m, links));
                        }
                    },
                );
                match found {
                    Ok(found) => found.into_iter().for_each(|said| self.take(&mut underlay, said)),
                    // A kernel without IPv6.
                    Err(e) if matches!(e.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {}
                    // A kernel that filters strictly says so when there is no such table.
                    Err(e) if e.errno() == Some(libc::ENOENT) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(underlay)
    }

    fn take(&mut self, underlay: &mut Underlay, said: Said) {
        match said {
            Said::Own(address) => underlay.add_own(address),
            Said::Missed => self.missed = true,
            Said::Route(protocol, dst, metric, forward) => {
                self.protocols.insert(protocol);
                underlay.add(dst, metric, forward);
            }
        }
    }
}

/// A route of others in the main table, or an address of this node.
fn parse(message: &Message<'_>, links: &LinkTable) -> Option<Said> {
    let body = message.payload.get(..r::RTMSG_LEN)?;
    let attrs = message.payload.get(r::RTMSG_LEN..)?;
    let [family, dst_len, _, tos, table, protocol, _, kind, flags, ..] = *body else {
        return None;
    };
    if message.kind != r::RTM_NEWROUTE || tos != 0 {
        return None;
    }
    let dst = wire::find(attrs, r::RTA_DST).and_then(r::address);
    if table == r::RT_TABLE_LOCAL {
        return dst
            .filter(|_| kind == r::RTN_LOCAL)
            .filter(|d| !is_link_local(*d))
            .map(Said::Own);
    }
    if table != r::RT_TABLE_MAIN || is_ours(protocol) || dst.is_some_and(is_link_local) {
        return None;
    }
    let any = || r::address([0; 16].get(..if family == r::AF_INET { 4 } else { 16 })?);
    let dst = IpNet::new(dst.or_else(any)?, dst_len).ok()?;
    let metric = wire::find(attrs, r::RTA_PRIORITY).and_then(|p| wire::u32_at(p, 0));
    let forward = match kind {
        r::RTN_UNICAST => match ways(attrs, flags, links) {
            Ok(hops) => Forward::Hops(hops).filled(),
            Err(UnknownLink) => return Some(Said::Missed),
        },
        _ => Forward::Refuse,
    };
    Some(Said::Route(protocol, dst, metric.unwrap_or_default(), forward))
}

impl Forward {
    /// A route without a way that lives forwards nothing.
    fn filled(self) -> Self {
        match self {
            Self::Hops(hops) if hops.is_empty() => Self::Refuse,
            other => other,
        }
    }
}

/// A way leads over an interface that the table does not know yet.
struct UnknownLink;

fn ways(attrs: &[u8], flags: u8, links: &LinkTable) -> Result<Vec<Hop>, UnknownLink> {
    let Some(mut list) = wire::find(attrs, r::RTA_MULTIPATH) else {
        let oif = wire::find(attrs, r::RTA_OIF).and_then(|p| wire::u32_at(p, 0));
        return Ok(way(attrs, flags, oif, Weight::ONE, links)?.into_iter().collect());
    };
    let mut hops = Vec::new();
    while let Some(len) = wire::u16_at(list, 0).map(usize::from).filter(|l| *l >= 8) {
        let (Some(flags), Some(weight)) = (list.get(2), list.get(3)) else {
            break;
        };
        let nested = list.get(8..len).unwrap_or_default();
        let weight = Weight::from_rtnh_hops(*weight);
        hops.extend(way(nested, *flags, wire::u32_at(list, 4), weight, links)?);
        list = list.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(hops)
}

fn way(
    attrs: &[u8],
    flags: u8,
    oif: Option<u32>,
    weight: Weight,
    links: &LinkTable,
) -> Result<Option<Hop>, UnknownLink> {
    // A gateway of another family than the destination's (RTA_VIA) carries none of our next hops.
    if flags & RTNH_F_DEAD != 0 || wire::find(attrs, r::RTA_VIA).is_some() {
        return Ok(None);
    }
    let Some(oif) = oif else { return Ok(None) };
    Ok(Some(Hop {
        via: wire::find(attrs, r::RTA_GATEWAY).and_then(r::address),
        dev: links.name(oif).ok_or(UnknownLink)?,
        onlink: flags & r::RTNH_F_ONLINK != 0,
        weight,
    }))
}

fn is_ours(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_LOCAL | PROTOCOL_BGP)
}

/// Nothing that BGP teaches leans on these, and every pod's link has some.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
    }
}

/// The protocol of a route that next hops may lean on, out of a notification; `None` if they do not.
pub(super) fn concerns(message: &Message<'_>) -> Option<u8> {
    let (table, protocol) = (*message.payload.get(4)?, *message.payload.get(5)?);
    let attrs = message.payload.get(r::RTMSG_LEN..)?;
    let dst = wire::find(attrs, r::RTA_DST).and_then(r::address);
    let here = matches!(table, r::RT_TABLE_MAIN | r::RT_TABLE_LOCAL);
    (here && !is_ours(protocol) && !dst.is_some_and(is_link_local)).then_some(protocol)
}
