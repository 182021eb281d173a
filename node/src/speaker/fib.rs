//! `fib: kernel`: best paths into the kernel's main table, through felix's route layer (protocol 81). Nothing else of the
//! kernel is touched.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use twill_bgp::net::{BestChanges, Closed, Handle};
use twill_bgp::{Best, Families};
use twill_felix::kernel::NetlinkError;
use twill_felix::kernel::links::LinkWriter;
use twill_felix::kernel::routes::{RouteWriter, RoutesApplied, Sweep};
use twill_felix::plan::routes::Routes;

use crate::bgp::{families, route};

/// How soon a route that the kernel refused is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The writer and what it shall hold.
pub(super) struct KernelFib {
    writer: RouteWriter,
    links: LinkWriter,
    desired: Routes,
    /// Routes of an earlier process may go: selection is settled.
    settled: bool,
    preserved: Families,
}

impl KernelFib {
    /// Reads what an earlier process left.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let (mut writer, mut links) = (RouteWriter::open()?, LinkWriter::open()?);
        writer.resync(&links.table()?)?;
        let held = writer.held().into_iter().flatten();
        let preserved = families(held);
        Ok(Self {
            writer,
            links,
            desired: Routes::new(),
            settled: false,
            preserved,
        })
    }

    /// Families whose routes of an earlier process are in the kernel.
    pub(super) fn preserved(&self) -> Families {
        self.preserved
    }

    /// Follows the best paths until cancelled; then our routes go, for nobody speaks for them any more.
    ///
    /// # Errors
    /// The kernel can no longer be talked to.
    pub(super) async fn run(mut self, handle: Handle, stop: CancellationToken) -> Result<()> {
        let followed = tokio::select! {
            () = stop.cancelled() => Ok(()),
            followed = self.follow(&handle) => followed,
        };
        drop(handle);
        self.desired.clear();
        self.settled = true;
        self.apply().await?;
        followed
    }

    async fn follow(&mut self, handle: &Handle) -> Result<()> {
        let Ok(mut changes) = handle.best_changes().await else {
            return Ok(());
        };
        let mut converged = handle.converged();
        let mut retry = None;
        loop {
            if !self.settled && {
                let now = *converged.borrow_and_update();
                now.ipv4 && now.ipv6
            } {
                if self.drain(handle, &mut changes).await.is_err() {
                    return Ok(());
                }
                self.settled = true;
                retry = self.apply().await?;
            }
            tokio::select! {
                batch = changes.next() => match batch {
                    Ok(batch) => {
                        self.take(batch);
                        retry = self.apply().await?;
                    }
                    Err(Closed) => return Ok(()),
                },
                _ = converged.changed(), if !self.settled => {}
                () = tokio::time::sleep(RETRY), if retry.is_some() => retry = self.apply().await?,
            }
        }
    }

    /// Takes every change that is waiting: the speaker answers in order, so another answer says that none was left.
    async fn drain(&mut self, handle: &Handle, changes: &mut BestChanges) -> Result<(), Closed> {
        loop {
            tokio::select! {
                biased;
                batch = changes.next() => self.take(batch?),
                peers = handle.peers() => return peers.map(drop),
            }
        }
    }

    fn take(&mut self, batch: BTreeMap<IpNet, Option<Best>>) {
        for (net, best) in batch {
            match best.and_then(|best| route(&net, &best)) {
                Some(route) => drop(self.desired.insert(net, route)),
                None => drop(self.desired.remove(&net)),
            }
        }
    }

    /// Makes the kernel hold what it should; how many routes it refused, if any.
    async fn apply(&mut self) -> Result<Option<usize>> {
        let applied: RoutesApplied = tokio::task::block_in_place(|| -> Result<_, NetlinkError> {
            let sweep = Sweep {
                own: false,
                bgp: self.settled,
            };
            self.writer.apply(&self.desired, &self.links.table()?, sweep)
        })
        .context("writing the kernel's routes")?;
        let failed = applied.failed.len();
        if let Some((net, why)) = applied.failed.first_key_value() {
            tracing::debug!(failed, %net, why, "the kernel refused routes; they are tried again");
        }
        Ok(Some(failed).filter(|n| *n > 0))
    }
}
