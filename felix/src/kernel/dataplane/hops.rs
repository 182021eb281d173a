//! Next hops of BGP's routes: how each is reached, looked up once, and what becomes of the routes that lean on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::status::{Reach, UNREACHED_TOLD_MAX, Withheld};
use crate::kernel::links::LinkTable;
use crate::plan::IfName;
use crate::plan::routes::{NextHop, Route, Routes};
use crate::plan::underlay::{Reached, Underlay, Unreached};

/// Next hops that are remembered at least before those that no route has are looked for: about 100 bytes each.
const SPARE: usize = 4096;

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// What is known of next hops.
#[derive(Debug, Default)]
pub(super) struct Hops {
    underlay: Underlay,
    /// Addresses that somebody wants to know about.
    tracked: Arc<BTreeSet<IpAddr>>,
    known: BTreeMap<IpAddr, Result<Reached, Unreached>>,
    /// How many of them were in use when that was last looked at.
    used: usize,
    told: Arc<BTreeMap<IpAddr, Reach>>,
    told_stale: bool,
}

impl Hops {
    /// The routes of others are these now; whether a next hop that was looked up is reached another way.
    pub(super) fn set_underlay(&mut self, underlay: Underlay) -> bool {
        self.told_stale = true;
        if self.underlay == underlay {
            return false;
        }
        self.underlay = underlay;
        let mut news = false;
        for (hop, was) in &mut self.known {
            let is = self.underlay.reach(*hop);
            news |= *was != is;
            *was = is;
        }
        news
    }

    pub(super) fn track(&mut self, addresses: Arc<BTreeSet<IpAddr>>) {
        self.tracked = addresses;
        self.told_stale = true;
    }

    fn reach(&mut self, address: IpAddr) -> &Result<Reached, Unreached> {
        let underlay = &self.underlay;
        self.known
            .entry(address)
            .or_insert_with(|| underlay.reach(address))
    }

    /// BGP's routes as the kernel can take them. A route has those of its next hops that are reached; one that has none is
    /// kept back.
    pub(super) fn resolve(&mut self, learned: &Routes) -> (Routes, Withheld) {
        let mut withheld = Withheld::default();
        let mut ready = Routes::new();
        for (dst, route) in learned {
            let Route::Bgp(hops) = route else { continue };
            if let Some(route) = self.resolve_one(hops) {
                ready.insert(*dst, route);
                continue;
            }
            withheld.routes += 1;
            for hop in hops {
                if withheld.next_hops.len() < UNREACHED_TOLD_MAX
                    && let Some(reason) = self.unreached(hop.via)
                {
                    withheld.next_hops.insert(hop.via, reason);
                }
            }
        }
        (ready, withheld)
    }

    /// One route as the kernel can take it; `None` while none of its next hops is reached.
    pub(super) fn resolve_one(&mut self, hops: &[NextHop]) -> Option<Route> {
        let mut resolved = Vec::with_capacity(hops.len());
        for hop in hops {
            // A link-local gateway is a neighbour on the link that comes with it, and on no other.
            if hop.dev.is_some() && is_link_local(hop.via) {
                resolved.push(hop.clone());
            } else if let Ok(reached) = self.reach(hop.via) {
                resolved.extend(reached.resolve(hop));
            }
        }
        Route::bgp(resolved)
    }

    /// Why a next hop is not reached; `None` if it is.
    pub(super) fn unreached(&mut self, hop: IpAddr) -> Option<String> {
        self.reach(hop).as_ref().err().map(Unreached::to_string)
    }

    /// How the tracked addresses are reached; the same allocation while nothing changes.
    pub(super) fn told(&mut self, links: &LinkTable) -> Arc<BTreeMap<IpAddr, Reach>> {
        if !std::mem::take(&mut self.told_stale) {
            return Arc::clone(&self.told);
        }
        let tracked = Arc::clone(&self.tracked);
        let index = |dev: &IfName| links.index(dev).unwrap_or_default();
        let told: BTreeMap<IpAddr, Reach> = tracked
            .iter()
            .map(|address| {
                let reach = match self.reach(*address) {
                    Ok(Reached::OnLink(dev)) => Reach::OnLink(index(dev)),
                    Ok(Reached::Via(hops)) => {
                        let links: BTreeSet<u32> = hops.iter().map(|hop| index(&hop.dev)).collect();
                        Reach::Via(links.into_iter().collect())
                    }
                    Err(reason) => Reach::Unreached(reason.to_string()),
                };
                (*address, reach)
            })
            .collect();
        if *self.told != told {
            self.told = Arc::new(told);
        }
        Arc::clone(&self.told)
    }

    /// Forgets next hops that no route has and nobody wants to know about.
    pub(super) fn forget_unused(&mut self, learned: &Routes) {
        let hops = |route: &Route| match route {
            Route::Bgp(hops) => hops.iter().map(|hop| hop.via).collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        let used: BTreeSet<IpAddr> = learned.values().flat_map(hops).collect();
        let tracked = Arc::clone(&self.tracked);
        self.known
            .retain(|hop, _| used.contains(hop) || tracked.contains(hop));
        self.used = self.known.len();
    }

    /// Whether so many next hops came by since unused ones were forgotten that it is time to do so again.
    pub(super) fn crowded(&self) -> bool {
        self.known.len() > 2 * self.used + SPARE
    }
}
