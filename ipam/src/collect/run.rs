//! The shell around the collector: reads, writes, and the election that makes it one in the cluster.
//!
//! ```text
//!   Runner::run (one task of the daemon's) ── lease on COLLECTOR_KEY, renewed each BEAT
//!        └─ pass: scan ─▶ observe ─▶ sweeps, at most SWEEPS_AT_ONCE tasks of its own, all joined before the pass ends
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twill_datastore::{
    Compare, Consistency, KeyRange, LeaseId, Op, OpReply, Pager, Revision, Store, StoreError, Txn,
};
use twill_model::{Key, ResourceKey, kind::Kind};

use super::{Collector, Leak, Scan, Scanner};
use crate::allocator::Clock;
use crate::keys;
use crate::now::Now;
use crate::sweep::{Context, Round, Sweep};

/// Whoever holds this key collects. Its lease ends with its holder.
pub const COLLECTOR_KEY: &str = "/twill/ipam/collector";
/// How long the election outlives a collector that has stopped.
const LEASE_TTL: Duration = Duration::from_secs(30);
/// How often the lease is renewed, and the election tried.
const BEAT: Duration = Duration::from_secs(10);
/// The grace period where none is configured: Calico's.
const GRACE_DEFAULT_MS: u64 = 15 * 60 * 1000;
/// The longest time between two passes, as in Calico.
const PERIOD_MAX_MS: u64 = 5 * 60 * 1000;
/// Sweeps under way at once: etcd answers more than this no sooner.
const SWEEPS_AT_ONCE: usize = 16;
/// How often a round is planned again when somebody else writes its block.
const ATTEMPTS_MAX: usize = 10;
/// Handles deleted in one transaction.
const HANDLES_AT_ONCE: usize = 60;

/// Whether a pass writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It only says what it would free.
    DryRun,
    /// It frees.
    Collect,
}

/// What a pass did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// The revision that was looked at.
    pub revision: Revision,
    /// Leaks seen, confirmed or not.
    pub seen: usize,
    /// Addresses freed.
    pub freed: Vec<IpAddr>,
    /// Addresses that were somebody's again when it came to it, and why.
    pub kept: Vec<(IpAddr, String)>,
    /// Handles without addresses that were deleted.
    pub handles: Vec<String>,
    /// Blocks given up for nodes that are gone, or tidied.
    pub blocks: Vec<IpNet>,
    /// Keys that could not be read.
    pub unreadable: Vec<(String, String)>,
}

impl Pass {
    /// What freeing `leaks` would do.
    #[must_use]
    pub fn of(scan: &Scan, leaks: &[Leak]) -> Self {
        let mut pass = Self {
            revision: scan.revision,
            seen: scan.leaks.len(),
            unreadable: scan.unreadable.clone(),
            ..Self::default()
        };
        for leak in leaks {
            match leak {
                Leak::Address { address, .. } => pass.freed.push(*address),
                Leak::Handle { id, .. } => pass.handles.push(id.clone()),
                Leak::Ownership { block, .. } | Leak::Idle { block, .. } => pass.blocks.push(*block),
            }
        }
        pass
    }
}

/// Looks at everything at one revision. The nodes `removed` count as gone.
///
/// # Errors
/// If the store fails, or compacts the revision away meanwhile (call again).
pub async fn scan(store: &impl Store, now: Now, removed: BTreeSet<String>) -> Result<Scan, StoreError> {
    let mut scanner = Scanner::new(now, removed);
    let mut revision = 0;
    for prefix in Scanner::prefixes() {
        let range = KeyRange::prefix(prefix);
        let mut pager = match revision {
            0 => Pager::new(range, Consistency::Linearised),
            at => Pager::at(range, at),
        };
        while let Some(request) = pager.request() {
            match store.range(request).await {
                Ok(page) => pager.page(page).iter().for_each(|kv| scanner.take(kv)),
                Err(error) => pager.failed(error)?,
            }
        }
        revision = pager.revision();
    }
    Ok(scanner.finish(revision))
}

/// Frees `leaks`, which `scan` found, under `guards`. Every transaction also compares that the datastore is as it was (not
/// locked meanwhile), and that nodes taken for gone are.
///
/// # Errors
/// If the store fails; what was freed until then is freed.
pub async fn pass<S: Store>(
    store: &S,
    scan: &Scan,
    leaks: &[Leak],
    guards: &Guards,
    clock: &Arc<Clock>,
) -> Result<Pass, StoreError> {
    let mut done = Pass {
        revision: scan.revision,
        seen: scan.leaks.len(),
        unreadable: scan.unreadable.clone(),
        ..Pass::default()
    };
    let gone = Collector::gone_nodes(leaks);
    let mut compares = guards.compares.clone();
    compares.push(Compare::mod_revision(
        keys::cluster(),
        scan.facts.cluster_revision,
    ));
    let mut waiting = Collector::plan(leaks).into_iter();
    let mut running: JoinSet<Result<Swept, StoreError>> = JoinSet::new();
    loop {
        while running.len() < SWEEPS_AT_ONCE
            && let Some(sweep) = waiting.next()
        {
            let mut compares = compares.clone();
            let nodes = gone.get(&sweep.block).into_iter().flatten();
            compares.extend(
                nodes
                    .filter(|node| !guards.removed.contains(*node))
                    .map(|node| Compare::absent(ResourceKey::cluster(Kind::Node, node).path())),
            );
            let context = Context {
                guards: compares,
                cooling: scan.facts.cooling,
                now: Now::default(),
            };
            running.spawn(carry_out(store.clone(), sweep, context, Arc::clone(clock)));
        }
        let Some(swept) = running.join_next().await else {
            break;
        };
        // A sweep that panicked says so here, where it is seen.
        let swept = match swept {
            Ok(swept) => swept?,
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        };
        done.freed.extend(swept.freed);
        done.kept.extend(swept.kept);
        done.blocks.extend(swept.block);
    }
    done.handles = drop_handles(store, leaks, &compares).await?;
    done.freed.sort_unstable();
    done.blocks.sort_unstable();
    Ok(done)
}

/// What a pass relies on beside what it finds.
#[derive(Clone, Debug, Default)]
pub struct Guards {
    /// What must hold, the election for one.
    pub compares: Vec<Compare>,
    /// Nodes that are to be removed although they have a resource.
    pub removed: BTreeSet<String>,
}

#[derive(Default)]
struct Swept {
    freed: Vec<IpAddr>,
    kept: Vec<(IpAddr, String)>,
    block: Option<IpNet>,
}

async fn carry_out<S: Store>(
    store: S,
    sweep: Sweep,
    mut context: Context,
    clock: Arc<Clock>,
) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    for round in sweep.rounds() {
        context.now = clock();
        one(&store, &round, &context, &mut swept).await?;
    }
    Ok(swept)
}

async fn one<S: Store>(
    store: &S,
    round: &Round,
    context: &Context,
    swept: &mut Swept,
) -> Result<(), StoreError> {
    let mut lost: BTreeSet<IpAddr> = BTreeSet::new();
    let mut attempt = 0;
    loop {
        let reply = store.txn(round.read()).await?;
        let planned = round.plan(&reply, context);
        let Some(txn) = planned.txn else {
            // What a lost reply left free already was freed by us, or by its holder: free it is.
            let kept: BTreeSet<IpAddr> = planned.kept.iter().map(|(address, _)| *address).collect();
            swept.freed.extend(lost.difference(&kept));
            swept.kept.extend(planned.kept);
            return Ok(());
        };
        attempt += 1;
        match store.txn(txn).await {
            Ok(reply) if reply.succeeded => {
                swept.freed.extend(planned.freed);
                swept.kept.extend(planned.kept);
                swept.block = Some(round.block());
                return Ok(());
            }
            Ok(_) if attempt >= ATTEMPTS_MAX => {
                let why = "somebody else keeps changing its block, or the datastore was locked";
                swept
                    .kept
                    .extend(planned.freed.iter().map(|a| (*a, why.to_owned())));
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if error.is_transient() && attempt < ATTEMPTS_MAX => lost.extend(planned.freed),
            Err(error) => return Err(error),
        }
    }
}

/// Deletes handles that hold nothing, if they are as they were.
async fn drop_handles<S: Store>(
    store: &S,
    leaks: &[Leak],
    guards: &[Compare],
) -> Result<Vec<String>, StoreError> {
    let found = leaks.iter().filter_map(|leak| match leak {
        Leak::Handle { id, revision } => Some((id.clone(), *revision)),
        _ => None,
    });
    let found: Vec<(String, Revision)> = found.collect();
    let mut dropped = Vec::new();
    for chunk in found.chunks(HANDLES_AT_ONCE) {
        let mut left: BTreeMap<String, Revision> = chunk.iter().cloned().collect();
        for _ in 0..2 {
            let names: Vec<_> = left.keys().map(|id| keys::handle(id)).collect();
            let mut compares = guards.to_vec();
            compares.extend(
                left.iter()
                    .map(|(id, at)| Compare::mod_revision(keys::handle(id), *at)),
            );
            let txn = Txn::when(compares)
                .then(names.iter().cloned().map(Op::delete).collect())
                .otherwise(names.into_iter().map(Op::get).collect());
            let reply = store.txn(txn).await?;
            if reply.succeeded {
                dropped.extend(left.into_keys());
                break;
            }
            let now: BTreeMap<String, Revision> = reply
                .responses
                .iter()
                .flat_map(OpReply::kvs)
                .filter_map(|kv| match keys::parse(&kv.key)? {
                    Key::Handle(id) => Some((id, kv.mod_revision)),
                    _ => None,
                })
                .collect();
            left.retain(|id, at| now.get(id) == Some(at));
            if left.is_empty() {
                break;
            }
        }
    }
    Ok(dropped)
}

/// The collector of a cluster: every daemon runs one, and one of them at a time collects.
pub struct Runner<S> {
    store: S,
    node: String,
    clock: Arc<Clock>,
    collector: Collector,
    /// Lease and the revision of our election.
    elected: Option<(LeaseId, Revision)>,
    /// When the last pass began.
    last_ms: Option<u64>,
}

impl<S: Store> Runner<S> {
    /// A collector on `node`.
    #[must_use]
    pub fn new(store: S, node: &str, clock: Clock) -> Self {
        Self {
            store,
            node: node.to_owned(),
            clock: Arc::new(clock),
            collector: Collector::new(GRACE_DEFAULT_MS),
            elected: None,
            last_ms: None,
        }
    }

    /// Collects, when it is elected, until `stop` is cancelled.
    pub fn run(self, stop: CancellationToken) -> impl Future<Output = ()> + Send {
        // Said to be `Send` here, where the store is any: for etcd's own futures the compiler cannot see it.
        self.keep_on(stop)
    }

    async fn keep_on(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(BEAT) => {}
            }
            // A pass is never cut off in the middle of a write: it is short, and every call has a deadline.
            if let Err(error) = self.beat().await {
                tracing::debug!(%error, "collector waits for the datastore");
            }
        }
        if let Some((lease, _)) = self.elected.take() {
            // If it fails the lease ends by itself.
            let _ = self.store.revoke_lease(lease).await;
        }
    }

    /// Keeps the election alive, or tries to win it; makes a pass if one is due.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn beat(&mut self) -> Result<Option<Pass>, StoreError> {
        if !self.elect().await? {
            return Ok(None);
        }
        let now = (self.clock)().mono_ms;
        let period = (self.collector.grace_ms() / 2).min(PERIOD_MAX_MS);
        if self.last_ms.is_some_and(|last| now.saturating_sub(last) < period) {
            return Ok(None);
        }
        self.last_ms = Some(now);
        self.pass(Mode::Collect).await.map(Some)
    }

    /// One pass: looks, and frees what has been so for the grace period (or says what it would free).
    ///
    /// # Errors
    /// If the store fails.
    pub async fn pass(&mut self, mode: Mode) -> Result<Pass, StoreError> {
        let began = (self.clock)();
        let found = scan(&self.store, began, BTreeSet::new()).await?;
        match found.facts.grace_ms {
            Some(0) => return Ok(Pass::default()),
            grace => self.collector.set_grace(grace.unwrap_or(GRACE_DEFAULT_MS)),
        }
        if !found.facts.is_ready {
            return Ok(Pass {
                revision: found.revision,
                seen: found.leaks.len(),
                ..Pass::default()
            });
        }
        let confirmed = self.collector.observe(&found, began.mono_ms);
        if mode == Mode::DryRun {
            return Ok(Pass::of(&found, &confirmed));
        }
        let mut guards = Guards::default();
        if let Some((_, revision)) = self.elected {
            guards
                .compares
                .push(Compare::mod_revision(COLLECTOR_KEY, revision));
        }
        let done = pass(&self.store, &found, &confirmed, &guards, &self.clock).await?;
        if !done.freed.is_empty() || !done.handles.is_empty() || !done.blocks.is_empty() {
            tracing::info!(
                addresses = done.freed.len(),
                handles = done.handles.len(),
                blocks = done.blocks.len(),
                kept = done.kept.len(),
                "collected what nobody has any more"
            );
        }
        Ok(done)
    }

    /// Whether we are the one that collects.
    async fn elect(&mut self) -> Result<bool, StoreError> {
        if let Some((lease, revision)) = self.elected {
            let kv = self.store.get(COLLECTOR_KEY).await?;
            if kv.is_some_and(|kv| kv.mod_revision == revision) && self.store.renew_lease(lease).await.is_ok()
            {
                return Ok(true);
            }
            tracing::info!("no longer the cluster's collector");
            self.elected = None;
            // Somebody else has looked meanwhile: what we remember is not a second observation of anything.
            self.collector = Collector::new(self.collector.grace_ms());
            self.last_ms = None;
        }
        if self.store.get(COLLECTOR_KEY).await?.is_some() {
            return Ok(false);
        }
        let lease = self.store.grant_lease(LEASE_TTL).await?;
        let put = Op::put_leased(COLLECTOR_KEY, self.node.clone(), lease);
        let txn = Txn::when(vec![Compare::absent(COLLECTOR_KEY)]).then(vec![put]);
        let reply = self.store.txn(txn).await?;
        if !reply.succeeded {
            // If it fails the lease ends by itself.
            let _ = self.store.revoke_lease(lease).await;
            return Ok(false);
        }
        tracing::info!(node = self.node, "elected to collect leaked addresses");
        self.elected = Some((lease, reply.revision));
        Ok(true)
    }
}
