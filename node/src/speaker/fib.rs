//! `fib: kernel`: best paths into the kernel's main table, through felix's route layer (protocol 81), each by the way the
//! kernel's other routes lead to its next hops. Nothing else of the kernel is touched.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use twill_bgp::net::{BestChanges, Closed, Handle};
use twill_bgp::{Best, Families};
use twill_felix::kernel::{self, Fib};

use crate::bgp::{families, reach, route};

/// How soon a route that the kernel refused is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Answers of the speaker that are taken before the kernel is written to. The newest state of each prefix is written, so that
/// one that changes while a big table comes in is written once; and what waits between the two is no more than these.
const BATCHES_A_TURN: usize = 64;

async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

/// The table and what was said of it.
pub(super) struct KernelFib {
    fib: Fib,
    /// A copy of the descriptor by which the kernel tells of changes. It is only waited on; the routes' layer reads.
    heard: UdpSocket,
    /// Routes of an earlier process may go: selection is settled.
    settled: bool,
    preserved: Families,
    /// How next hops are reached, as the speaker was told.
    told: Arc<BTreeMap<IpAddr, kernel::Reach>>,
    /// Next hops that operators were told of.
    withheld: BTreeMap<IpAddr, String>,
}

impl KernelFib {
    /// Reads what an earlier process left. Must be called within a runtime.
    ///
    /// # Errors
    /// The kernel's routes cannot be had.
    pub(super) fn open() -> Result<Self> {
        let fib = Fib::open().context("reading the kernel's routes")?;
        let preserved = families(fib.held().into_iter().flatten());
        let heard = std::net::UdpSocket::from(fib.as_fd().try_clone_to_owned()?);
        heard.set_nonblocking(true)?;
        Ok(Self {
            fib,
            heard: UdpSocket::from_std(heard).context("waiting for the kernel's notifications")?,
            settled: false,
            preserved,
            told: Arc::default(),
            withheld: BTreeMap::new(),
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
        self.fib.clear();
        self.settled = true;
        self.turn()?;
        followed
    }

    async fn follow(&mut self, handle: &Handle) -> Result<()> {
        let Ok(mut changes) = handle.best_changes().await else {
            return Ok(());
        };
        let (mut converged, mut wanted) = (handle.converged(), handle.next_hops());
        let mut retry = None;
        loop {
            if !self.settled && {
                let now = *converged.borrow_and_update();
                now.ipv4 && now.ipv6
            } {
                while self.gather(&mut changes).await? {}
                self.settled = true;
                retry = self.write(handle, retry).await?;
            }
            tokio::select! {
                batch = changes.next() => match batch {
                    Ok(batch) => {
                        self.take(batch);
                        self.gather(&mut changes).await?;
                    }
                    Err(Closed) => return Ok(()),
                },
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.fib.track(Arc::clone(&wanted.borrow_and_update()));
                    // An address that was forgotten and asked for again between two looks must be spoken of again.
                    self.told = Arc::default();
                }
                ready = self.heard.readable() => {
                    ready.context("waiting for the kernel's notifications")?;
                    // What comes from now on wakes again; what has come is read below.
                    let _ = self.heard.try_io::<()>(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
                }
                _ = converged.changed(), if !self.settled => continue,
                () = until(retry), if retry.is_some() => {
                    retry = None;
                    self.fib.retry();
                }
            }
            retry = self.write(handle, retry).await?;
        }
    }

    /// Takes changes that are waiting; whether there may be more. A speaker that has ended has none.
    async fn gather(&mut self, changes: &mut BestChanges) -> Result<bool> {
        for _ in 0..BATCHES_A_TURN {
            match changes.waiting().await {
                Ok(batch) if !batch.is_empty() => self.take(batch),
                Ok(_) | Err(Closed) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn take(&mut self, batch: BTreeMap<IpNet, Option<Best>>) {
        let fib = &mut self.fib;
        let routes: Vec<_> = batch
            .into_iter()
            .map(|(net, best)| {
                (
                    net,
                    best.and_then(|best| route(&net, &best, |link| fib.link(link))),
                )
            })
            .collect();
        fib.learn(routes);
    }

    /// Makes the kernel hold what it should, and tells the speaker how next hops are reached; when routes that were refused are
    /// to be tried again, which a time that was set already stays.
    async fn write(&mut self, handle: &Handle, retry: Option<Instant>) -> Result<Option<Instant>> {
        let (refused, told) = self.turn()?;
        if !Arc::ptr_eq(&self.told, &told) {
            let news = reach::news(&self.told, &told);
            self.told = told;
            // Ended is as good as told.
            let _ = handle.next_hops_reached(news).await;
        }
        Ok(refused.then(|| retry.unwrap_or_else(|| Instant::now() + RETRY)))
    }

    fn turn(&mut self) -> Result<(bool, Arc<BTreeMap<IpAddr, kernel::Reach>>)> {
        let settled = self.settled;
        let fib = &mut self.fib;
        let turn =
            tokio::task::block_in_place(|| fib.turn(settled)).context("writing the kernel's routes")?;
        if let Some((net, why)) = turn.applied.failed.first_key_value() {
            tracing::debug!(refused = turn.refused, %net, why, "the kernel refused routes; they are tried again");
        }
        for (next_hop, reason) in &turn.withheld.next_hops {
            if self.withheld.get(next_hop) != Some(reason) {
                tracing::warn!(%next_hop, %reason, routes = turn.withheld.routes, "routes are kept back: their next hop is not reached");
            }
        }
        self.withheld = turn.withheld.next_hops;
        Ok((turn.refused > 0, turn.reach))
    }
}
