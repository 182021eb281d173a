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
use super::learned::Learned;
use super::status::{Reach, Withheld};
use crate::kernel::foreign::Reader;
use crate::kernel::links::{LinkTable, LinkWriter};
use crate::kernel::netlink::NetlinkError;
use crate::kernel::routes::{Held, RouteWriter, RoutesApplied};
use crate::plan::IfName;
use crate::plan::routes::Route;

/// The kernel's main table, as far as BGP has routes in it (protocol 81).
#[derive(Debug)]
pub struct Fib {
    events: Events,
    links: LinkWriter,
    link_table: LinkTable,
    routes: RouteWriter,
    foreign: Reader,
    hops: Hops,
    learned: Learned,
    dirt: Dirt,
    underlay_stale: bool,
}

/// What a turn did.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// Routes written and deleted, and those that the kernel refused this time.
    pub applied: RoutesApplied,
    /// Routes that the kernel refused and that were not tried again since, with these.
    pub refused: usize,
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
            learned: Learned::default(),
            dirt: Dirt::default(),
            underlay_stale: true,
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
            self.learned.learn(dst, route);
        }
    }

    /// Forgets all routes: the next turn that may delete empties the table of them.
    pub fn clear(&mut self) {
        self.learned.clear();
    }

    /// What the kernel refused is tried again by the next turn.
    pub fn retry(&mut self) {
        self.learned.retry();
    }

    /// Somebody wants to know how these addresses are reached.
    pub fn track(&mut self, addresses: Arc<BTreeSet<IpAddr>>) {
        self.hops.track(addresses);
    }

    /// Makes the kernel hold what was learned. With `sweep` also what an earlier process left and nobody taught again goes.
    /// Costs what changed since the last turn, unless anything may have.
    ///
    /// # Errors
    /// When a socket fails; the next turn then compares everything. A route that the kernel refuses is told in
    /// [`Turn::applied`], and tried again after [`Fib::retry`], or when something came that may let it succeed.
    pub fn turn(&mut self, sweep: bool) -> Result<Turn, NetlinkError> {
        self.hear()?;
        if self.underlay_stale {
            let underlay = self.routes.underlay(&mut self.foreign, &self.link_table)?;
            self.underlay_stale = false;
            if self.hops.set_underlay(underlay) {
                self.learned.doubt_all();
            }
        }
        let reach = self.hops.told(&self.link_table);
        if self.routes.held().is_none() {
            self.learned.doubt_all();
        }
        let held = self.routes.held_or_read(&self.link_table)?;
        let changes = self.learned.changes(&mut self.hops, held, sweep);
        let applied = self.routes.write(changes, &self.link_table);
        let applied = applied.inspect_err(|_| self.learned.doubt_all())?;
        self.learned.applied(&applied);
        if self.hops.crowded() {
            self.hops.forget_unused(self.learned.routes());
        }
        Ok(Turn {
            applied,
            refused: self.learned.failed().len(),
            withheld: self.learned.withheld(&mut self.hops),
            reach,
        })
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
            // A link that came may be one that a route waits for.
            if table != self.link_table {
                self.learned.retry();
            }
            self.link_table = table;
        }
        if routes {
            self.routes.forget();
        }
        if dirt.hope {
            self.learned.retry();
        }
        Ok(())
    }
}

impl AsFd for Fib {
    /// Readable when the kernel tells of something that a turn should look at.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.fd()
    }
}

#[cfg(test)]
mod tests;
