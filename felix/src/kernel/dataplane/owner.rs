//! The thread that owns the kernel's objects: one turn after the other.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::watch;

use super::events::{Dirt, Events};
use super::hops::Hops;
use super::status::{EndpointStatus, Status};
use super::{BGP_PREFIXES_MAX, Inbox, Shared};
use crate::kernel::foreign::Reader;
use crate::kernel::links::{LinkTable, LinkWriter, LinksApplied, node_settings};
use crate::kernel::netlink::{NetlinkError, poll_readable};
use crate::kernel::nft::{Applied, ApplyError, Foreign, Mode, Writer};
use crate::kernel::routes::{RouteWriter, Sweep};
use crate::plan::nft::Table;
use crate::plan::routes::{PROTOCOL_LOCAL, Route, Routes, resolve};
use crate::plan::{Desired, IfName};

/// Everything is compared with the kernel this often, also when no notification came.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);
/// First wait before what failed is tried again; doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest wait before what failed is tried again.
const RETRY_LONGEST: Duration = Duration::from_secs(10);
/// Repairs of what others change happen at most this often, so that somebody who fights us costs little.
const REPAIR_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of wake-ups taken at once.
const WAKE_BYTES: usize = 256;

pub(super) struct Owner {
    woken: UnixStream,
    events: Events,
    table: Writer,
    links: LinkWriter,
    routes: RouteWriter,
    base: Table,

    /// The latest desired state.
    desired: Option<Desired>,
    /// The latest whose table is in the kernel: links and routes of workloads follow this one.
    enforced: Option<Desired>,
    bgp: Routes,
    bgp_synced: bool,
    hops: Hops,
    foreign: Reader,
    /// The routes of others may have changed since they were read.
    underlay_stale: bool,
    link_table: LinkTable,
    /// Routes may differ from what is held: something changed on either side.
    routes_pending: bool,
    links_failed: LinksApplied,
    /// Links that have had a carrier, with their index.
    ran: BTreeMap<IfName, u32>,
    retry: Option<(Instant, Duration)>,
    repair_after: Instant,
    next_resync: Instant,
    dirt: Dirt,
    status: Status,
}

impl Owner {
    pub(super) fn open(woken: UnixStream) -> Result<Self, NetlinkError> {
        // Listening begins before the first reading: nothing falls between.
        let events = Events::open()?;
        let now = Instant::now();
        Ok(Self {
            woken,
            events,
            table: Writer::open()?,
            links: LinkWriter::open()?,
            routes: RouteWriter::open()?,
            base: Table::default(),
            desired: None,
            enforced: None,
            bgp: Routes::new(),
            bgp_synced: false,
            hops: Hops::default(),
            foreign: Reader::default(),
            underlay_stale: true,
            link_table: LinkTable::default(),
            routes_pending: true,
            links_failed: LinksApplied::default(),
            ran: BTreeMap::new(),
            retry: None,
            repair_after: now,
            next_resync: now + RESYNC_INTERVAL,
            dirt: Dirt {
                links: true,
                ..Dirt::default()
            },
            status: Status::default(),
        })
    }

    /// Makes the base table unless there is one.
    pub(super) fn close_at_birth(&mut self, base: &Table) -> Result<(), ApplyError> {
        self.base = base.clone();
        let applied = self.table.apply(base, Mode::Additive)?;
        if applied.operations > 0 {
            tracing::info!(
                operations = applied.operations,
                "made the base table: workload interfaces pass nothing yet"
            );
        }
        Ok(())
    }

    pub(super) fn run(mut self, shared: &Shared, publish: &watch::Sender<Arc<Status>>) {
        loop {
            let inbox = std::mem::take(&mut *shared.inbox());
            if inbox.stop {
                return;
            }
            let before = self.status.clone();
            self.turn(inbox);
            log_changes(&before, &self.status);
            publish.send_replace(Arc::new(self.status.clone()));
            if let Err(e) = self.wait() {
                // Without its notifications the owner still repairs at every resync; a socket that fails for good is worth an exit.
                tracing::error!(error = %e, "waiting for the kernel failed; the kernel thread ends");
                return;
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self) -> Result<(), NetlinkError> {
        loop {
            let now = Instant::now();
            // What comes new is looked at now; what a stranger undid may wait its interval.
            let links = self.dirt.links || !self.dirt.changed.is_empty();
            let news = links || (self.dirt.hope && !self.status.failed_routes.is_empty());
            let dirt = if news {
                Some(now)
            } else {
                let slow = self.dirt.repairs() || !self.dirt.underlay.is_empty();
                slow.then_some(self.repair_after)
            };
            let due = [Some(self.next_resync), self.retry.map(|(at, _)| at), dirt];
            let due = due.into_iter().flatten().min().unwrap_or(self.next_resync);
            if due <= now {
                return Ok(());
            }
            let fds = [self.woken.as_fd(), self.table.monitor(), self.events.fd()];
            let [woken, table, links] = poll_readable(fds, (due - now).max(Duration::from_millis(1)))?;
            if table || links {
                self.hear()?;
            }
            if woken {
                while self
                    .woken
                    .read(&mut [0; WAKE_BYTES])
                    .is_ok_and(|n| n == WAKE_BYTES)
                {}
                return Ok(());
            }
        }
    }

    /// Takes all notifications that wait. Those of a link that was made before a desired state was handed over are among them.
    fn hear(&mut self) -> Result<(), NetlinkError> {
        if self.table.drain(&self.base.name)? == Foreign::Touched {
            self.dirt.table = true;
        }
        self.events
            .drain([self.routes.port(), self.links.port()], &mut self.dirt)
    }

    fn turn(&mut self, inbox: Inbox) {
        let begun = Instant::now();
        self.status.counters.turns += 1;
        self.take(inbox);
        let mut error = None;
        note(&mut error, self.hear());
        if begun >= self.next_resync || self.dirt.lost {
            self.next_resync = begun + RESYNC_INTERVAL;
            self.resync(&mut error);
        }
        self.look_again(begun, &mut error);
        let table = self.write_table();
        note(&mut error, self.write_links());
        note(&mut error, self.read_underlay());
        note(&mut error, self.write_routes());
        self.status.error = error;
        self.report();
        let failed = table.is_err() || !self.status.healthy();
        self.retry = match (failed, self.retry) {
            (false, _) => None,
            (true, Some((at, wait))) if at > begun => Some((at, wait)),
            (true, Some((_, wait))) => {
                let wait = (wait * 2).min(RETRY_LONGEST);
                Some((begun + wait, wait))
            }
            (true, None) => Some((begun + RETRY_FIRST, RETRY_FIRST)),
        };
        self.status.counters.turn_last = begun.elapsed();
    }

    fn take(&mut self, inbox: Inbox) {
        // What is not in sync may lack the policy that denies: none of it goes to the kernel.
        if let Some(desired) = inbox.desired.filter(|d| d.in_sync) {
            self.desired = Some(desired);
        }
        if let Some(addresses) = inbox.track {
            self.hops.track(addresses);
        }
        self.bgp_synced |= inbox.bgp_synced;
        self.routes_pending |= inbox.bgp_synced || !inbox.bgp.is_empty();
        let mut refused = inbox.bgp_refused;
        for (dst, route) in inbox.bgp {
            match route {
                Some(route @ Route::Bgp(_))
                    if self.bgp.len() < BGP_PREFIXES_MAX || self.bgp.contains_key(&dst) =>
                {
                    self.bgp.insert(dst, route);
                }
                Some(_) => refused += 1,
                None => drop(self.bgp.remove(&dst)),
            }
        }
        self.status.counters.bgp_routes_refused += refused;
        if inbox.resync {
            self.next_resync = Instant::now();
        }
    }

    /// Compares everything with the kernel.
    fn resync(&mut self, error: &mut Option<String>) {
        self.status.counters.resyncs += 1;
        self.dirt = Dirt {
            links: true,
            ..Dirt::default()
        };
        self.links.forget();
        self.foreign.forget();
        self.underlay_stale = true;
        self.hops.forget_unused(&self.bgp);
        match self.links.table() {
            Ok(table) => self.link_table = table,
            Err(e) => note::<NetlinkError>(error, Err(e)),
        }
        if let Some(desired) = &self.desired {
            match self.table.resync(&desired.table) {
                Ok(drifted) => self.status.counters.repairs += u64::from(drifted),
                Err(e) => note::<NetlinkError>(error, Err(e)),
            }
        } else {
            self.table.forget();
        }
        match self.routes.resync(&self.link_table) {
            Ok(drifted) => self.status.counters.repairs += u64::from(drifted),
            Err(e) => note::<NetlinkError>(error, Err(e)),
        }
        self.routes_pending = true;
    }

    /// Forgets what others may have changed, so that it is read again.
    fn look_again(&mut self, now: Instant, error: &mut Option<String>) {
        if !self.dirt.any() {
            return;
        }
        let dirt = std::mem::take(&mut self.dirt);
        if dirt.repairs() || !dirt.underlay.is_empty() {
            self.repair_after = now + REPAIR_INTERVAL;
        }
        if dirt.table {
            self.table.forget();
            self.status.counters.repairs += 1;
        }
        for index in &dirt.settings {
            if let Some(name) = self.link_table.name(*index) {
                self.links.forget_one(&name);
            }
        }
        let mut routes = dirt.routes;
        self.foreign.saw(&dirt.underlay);
        self.underlay_stale |= !dirt.underlay.is_empty();
        if dirt.links || !dirt.changed.is_empty() {
            let table = if dirt.links {
                self.links.table()
            } else {
                let mut table = self.link_table.clone();
                dirt.changed
                    .into_iter()
                    .for_each(|(index, link)| table.put(index, link));
                Ok(table)
            };
            match table {
                Ok(table) => {
                    // The kernel drops routes of a link that goes down or away without a word.
                    let lost = self.link_table.lost_to(&table);
                    routes |= lost;
                    self.underlay_stale |= lost || self.foreign.missed();
                    self.routes_pending |= table != self.link_table;
                    self.link_table = table;
                }
                Err(e) => {
                    self.dirt.links = true;
                    note::<NetlinkError>(error, Err(e));
                }
            }
        }
        if routes {
            self.routes.forget();
        }
        self.routes_pending |= routes || (dirt.hope && !self.status.failed_routes.is_empty());
    }

    fn write_table(&mut self) -> Result<(), ()> {
        let Some(desired) = &self.desired else {
            // Until there is something to enforce, the node stays closed, or as its former life left it.
            let base = self.table.apply(&self.base, Mode::Additive);
            self.status.table_error = base.map_err(|e| e.to_string()).err();
            return if self.status.table_error.is_none() {
                Ok(())
            } else {
                Err(())
            };
        };
        let counters = &mut self.status.counters;
        match self.table.apply(&desired.table, Mode::Exact) {
            Ok(applied) => {
                count(counters, &applied);
                self.status.revision = desired.revision;
                self.status.in_sync = desired.in_sync;
                self.status.table_error = None;
                let same = self
                    .enforced
                    .as_ref()
                    .is_some_and(|e| Arc::ptr_eq(&e.routes, &desired.routes));
                self.routes_pending |= !same;
                self.enforced = Some(desired.clone());
                Ok(())
            }
            Err(e) => {
                counters.table_failures += 1;
                self.status.table_error = Some(e.to_string());
                Err(())
            }
        }
    }

    fn write_links(&mut self) -> Result<(), String> {
        let Some(enforced) = &self.enforced else {
            return Ok(());
        };
        let settings = node_settings(enforced.node).map_err(|e| format!("settings of the node: {e}"));
        let applied = self
            .links
            .apply(&enforced.links, &self.link_table)
            .map_err(|e| format!("links: {e}"))?;
        self.status.counters.links_written += applied.written as u64;
        if applied.written > 0 {
            // A link that was set up: its routes can be written now, and the table must know.
            for name in &applied.touched {
                let link = self.links.link(*name).map_err(|e| format!("links: {e}"))?;
                if let Some(index) = link.map(|l| l.index).or_else(|| self.link_table.index(name)) {
                    self.link_table.put(index, link.map(|l| (*name, l)));
                }
            }
            self.routes_pending = true;
        }
        self.links_failed = applied;
        settings.map(drop)
    }

    /// Looks at the routes of others again if they may have changed, and says how next hops are reached.
    fn read_underlay(&mut self) -> Result<(), String> {
        if self.underlay_stale {
            let read = self.routes.underlay(&mut self.foreign, &self.link_table);
            let underlay = read.map_err(|e| format!("routes of others: {e}"))?;
            self.underlay_stale = false;
            self.routes_pending |= self.hops.set_underlay(underlay);
        }
        self.status.reach = self.hops.told(&self.link_table);
        Ok(())
    }

    fn write_routes(&mut self) -> Result<(), String> {
        if !self.routes_pending && self.status.failed_routes.is_empty() {
            return Ok(());
        }
        let none = Routes::new();
        let (own, in_sync) = self
            .enforced
            .as_ref()
            .map_or((&none, false), |e| (&*e.routes, e.in_sync));
        // A route to a link that is not there would only fail: the link's coming brings us back here.
        let there = |route: &Route| !matches!(route, Route::Workload { link } if self.link_table.link(link).is_none());
        let own = own
            .iter()
            .filter(|(_, r)| there(r))
            .map(|(dst, r)| (*dst, r.clone()))
            .collect();
        let (learned, withheld) = self.hops.resolve(&self.bgp);
        let mut desired = resolve(own, &learned);
        if self.enforced.is_none() {
            // Nobody has said yet what is this node's own: what a former life held counts as that.
            if self.routes.held().is_none() {
                let read = self.routes.resync(&self.link_table);
                read.map_err(|e| format!("routes: {e}"))?;
            }
            let held = self.routes.held();
            let own = |dst: &IpNet| {
                let routes = held.and_then(|held| held.get(dst));
                routes.is_some_and(|r| r.iter().any(|h| h.protocol == PROTOCOL_LOCAL))
            };
            desired.retain(|dst, _| !own(dst));
        }
        let sweep = Sweep {
            own: in_sync,
            bgp: self.bgp_synced,
        };
        let applied = self
            .routes
            .apply(&desired, &self.link_table, sweep)
            .map_err(|e| format!("routes: {e}"))?;
        self.routes_pending = false;
        self.status.withheld = withheld;
        self.status.counters.routes_written += applied.written as u64;
        self.status.counters.routes_deleted += applied.deleted as u64;
        self.status.failed_routes = applied.failed;
        Ok(())
    }

    /// Each endpoint: what failed of its link or routes, if anything.
    fn report(&mut self) {
        let Some(enforced) = &self.enforced else { return };
        let mut endpoints = BTreeMap::new();
        self.ran.retain(|name, _| enforced.links.contains_key(name));
        for name in enforced.links.keys() {
            let link = self.link_table.link(name);
            if let Some(link) = link.filter(|l| l.running) {
                self.ran.insert(*name, link.index);
            }
            let status = match (self.links_failed.failed.get(name), link) {
                (Some(reason), _) => EndpointStatus::Failed(reason.clone()),
                (None, None) => EndpointStatus::Waiting("the interface is not there".to_owned()),
                // A pod that sets its side down later is none of our business.
                (None, Some(link)) if self.ran.get(name) != Some(&link.index) => {
                    EndpointStatus::Waiting("the interface has no carrier yet".to_owned())
                }
                (None, Some(_)) => EndpointStatus::Programmed,
            };
            endpoints.insert(*name, status);
        }
        for (dst, reason) in &self.status.failed_routes {
            if let Some(Route::Workload { link }) = enforced.routes.get(dst)
                && let Some(status @ EndpointStatus::Programmed) = endpoints.get_mut(link)
            {
                *status = EndpointStatus::Failed(format!("route to {dst}: {reason}"));
            }
        }
        if let Some(error) = &self.status.error {
            endpoints
                .values_mut()
                .for_each(|e| *e = EndpointStatus::Failed(error.clone()));
        }
        self.status.endpoints = endpoints;
    }
}

fn count(counters: &mut super::Counters, applied: &Applied) {
    if applied.operations > 0 {
        counters.table_batches += 1;
        counters.table_element_batches += u64::from(applied.elements_only);
        counters.table_rebuilds += u64::from(applied.rebuilt);
        counters.table_operations += applied.operations as u64;
        counters.table_last = applied.took;
    }
}

/// Keeps the first error of a turn.
fn note<E: ToString>(first: &mut Option<String>, result: Result<(), E>) {
    if let Err(e) = result {
        first.get_or_insert_with(|| e.to_string());
    }
}

/// Tells the operator what changed, once.
fn log_changes(before: &Status, now: &Status) {
    if now.in_sync && !before.in_sync {
        tracing::info!(
            revision = now.revision,
            endpoints = now.endpoints.len(),
            "the kernel is in sync with the datastore"
        );
    }
    for (what, was, is) in [
        ("table", &before.table_error, &now.table_error),
        ("dataplane", &before.error, &now.error),
    ] {
        match (was, is) {
            (_, Some(error)) if was != is => {
                tracing::warn!(what, %error, "programming the kernel failed; it is tried again")
            }
            (Some(_), None) => tracing::info!(what, "programming the kernel works again"),
            _ => {}
        }
    }
    for (next_hop, reason) in &now.withheld.next_hops {
        if before.withheld.next_hops.get(next_hop) != Some(reason) {
            tracing::warn!(%next_hop, %reason, routes = now.withheld.routes, "routes are kept back: their next hop is not reached");
        }
    }
    if before.withheld.routes > 0 && now.withheld.routes == 0 {
        tracing::info!("every next hop is reached");
    }
    for (dst, reason) in now
        .failed_routes
        .iter()
        .filter(|(dst, _)| !before.failed_routes.contains_key(dst))
    {
        tracing::warn!(%dst, %reason, "a route cannot be programmed; it is tried again");
    }
    if now.counters.repairs > before.counters.repairs {
        tracing::warn!(
            repairs = now.counters.repairs,
            "somebody else changed what is ours in the kernel; repaired"
        );
    }
}
