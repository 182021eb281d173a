//! Routes learned by BGP alone, for a node that has nothing else of ours: no table, no links of workloads, no routes of its own.
//!
//! The same reading of other routes, the same resolution of next hops and the same writer as in the owner of a whole node, but
//! without a thread: whoever has it calls [`Fib::turn`] when routes or [`Fib::as_fd`] say so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use ipnet::IpNet;

use super::events::{Dirt, Events};
use super::hops::Hops;
use super::status::{Reach, Withheld};
use crate::kernel::foreign::Reader;
use crate::kernel::links::{LinkTable, LinkWriter};
use crate::kernel::netlink::NetlinkError;
use crate::kernel::routes::{Held, RouteWriter, RoutesApplied, Sweep};
use crate::plan::IfName;
use crate::plan::routes::{Route, Routes};

/// The kernel's main table, as far as BGP has routes in it (protocol 81).
#[derive(Debug)]
pub struct Fib {
    events: Events,
    links: LinkWriter,
    link_table: LinkTable,
    routes: RouteWriter,
    foreign: Reader,
    hops: Hops,
    learned: Routes,
    dirt: Dirt,
    underlay_stale: bool,
    pending: bool,
    swept: bool,
    withheld: Withheld,
}

/// What a turn did.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// Routes written and deleted, and those that the kernel refused.
    pub applied: RoutesApplied,
    /// Routes that are kept back since no next hop of theirs is reached.
    pub withheld: Withheld,
    /// How tracked addresses are reached; the same allocation while nothing changes.
    pub reach: Arc<BTreeMap<IpAddr, Reach>>,
}

impl Fib {
    /// Opens sockets in the calling thread's network namespace, and reads what an earlier process left.
    ///
    /// # Errors
    /// When the kernel gives none, or does not let its routes be read.
    pub fn open() -> Result<Self, NetlinkError> {
        // Listening begins before the first reading: nothing falls between.
        let events = Events::open()?;
        let mut links = LinkWriter::open()?;
        let link_table = links.table()?;
        let mut routes = RouteWriter::open()?;
        routes.resync(&link_table)?;
        Ok(Self {
            events,
            links,
            link_table,
            routes,
            foreign: Reader::default(),
            hops: Hops::default(),
            learned: Routes::new(),
            dirt: Dirt::default(),
            underlay_stale: true,
            pending: true,
            swept: false,
            withheld: Withheld::default(),
        })
    }

    /// Routes of ours that the kernel holds, as far as is known.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.routes.held()
    }

    /// The name of a link, as of the last turn.
    #[must_use]
    pub fn link(&self, index: u32) -> Option<IfName> {
        self.link_table.name(index)
    }

    /// Takes routes, the newest state of each; `None` for one that is no more. Written by the next turn.
    pub fn learn(&mut self, changes: impl IntoIterator<Item = (IpNet, Option<Route>)>) {
        for (dst, route) in changes {
            let before = self.learned.get(&dst);
            if before == route.as_ref() {
                continue;
            }
            self.pending = true;
            match route {
                Some(route) => drop(self.learned.insert(dst, route)),
                None => drop(self.learned.remove(&dst)),
            }
        }
    }

    /// Forgets all routes: the next turn that may delete empties the table of them.
    pub fn clear(&mut self) {
        self.learned.clear();
        self.pending = true;
    }

    /// Somebody wants to know how these addresses are reached.
    pub fn track(&mut self, addresses: Arc<BTreeSet<IpAddr>>) {
        self.hops.track(addresses);
    }

    /// Makes the kernel hold what was learned. With `sweep` also what an earlier process left and nobody taught again goes.
    ///
    /// # Errors
    /// When a socket fails. A route that the kernel refuses is told in [`Turn::applied`], and tried again by the next turn.
    pub fn turn(&mut self, sweep: bool) -> Result<Turn, NetlinkError> {
        self.hear()?;
        if self.underlay_stale {
            let underlay = self.routes.underlay(&mut self.foreign, &self.link_table)?;
            self.underlay_stale = false;
            self.pending |= self.hops.set_underlay(underlay);
        }
        let mut turn = Turn {
            reach: self.hops.told(&self.link_table),
            ..Turn::default()
        };
        if self.pending || self.swept != sweep {
            let (resolved, withheld) = self.hops.resolve(&self.learned);
            let may = Sweep {
                own: false,
                bgp: sweep,
            };
            turn.applied = self.routes.apply(&resolved, &self.link_table, may)?;
            self.pending = !turn.applied.failed.is_empty();
            (self.swept, self.withheld) = (sweep, withheld);
        }
        turn.withheld = self.withheld.clone();
        Ok(turn)
    }

    /// Takes notifications in, and forgets what others may have changed.
    fn hear(&mut self) -> Result<(), NetlinkError> {
        self.events
            .drain([self.routes.port(), self.links.port()], &mut self.dirt)?;
        if !self.dirt.any() {
            return Ok(());
        }
        let dirt = std::mem::take(&mut self.dirt);
        let mut routes = dirt.routes || dirt.lost;
        self.foreign.saw(&dirt.underlay);
        self.underlay_stale |= !dirt.underlay.is_empty() || dirt.lost;
        if dirt.lost {
            self.foreign.forget();
        }
        if dirt.links || dirt.lost || !dirt.changed.is_empty() {
            let table = self.links.table()?;
            // The kernel drops routes of a link that goes down or away without a word.
            let lost = self.link_table.lost_to(&table);
            routes |= lost;
            self.underlay_stale |= lost || self.foreign.missed();
            self.pending |= table != self.link_table;
            self.link_table = table;
        }
        if routes {
            self.routes.forget();
        }
        self.pending |= routes || dirt.hope;
        self.hops.forget_unused(&self.learned);
        Ok(())
    }
}

impl AsFd for Fib {
    /// Readable when the kernel tells of something that a turn should look at.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.fd()
    }
}
