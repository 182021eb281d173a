//! A node's process: the allocator and its feed as the daemon runs them, and workers that play the container runtime.
//!
//! ```text
//!   syncer task ──▶ feed task ──▶ allocator task ◀── WORKERS worker tasks ──▶ journal
//! ```
//!
//! A runtime repeats DEL for what it was never told of; so does a node that starts again after SIGKILL, from its journal.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twill_datastore::etcd::{EtcdConfig, EtcdStore};
use twill_datastore::syncer::Syncer;
use twill_ipam::{Allocator, Client, Error, system_clock};

use crate::journal::{self, Journal, Line};
use crate::world;

/// Workers of a node.
const WORKERS: u64 = 8;
/// How often DEL is repeated for a pod while the store is away: the runtime never gives up, a rig must end.
const DELETES_MAX: u32 = 600;
/// Pause between two attempts.
const AGAIN: Duration = Duration::from_millis(100);
/// How long an ADD is waited for, as a runtime does (shorter, to see more of it given up).
const ADD_DEADLINE: Duration = Duration::from_secs(4);

/// How a node's process is started.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// Its name
    #[arg(long)]
    pub node: String,
    /// URL of etcd, as this node reaches it
    #[arg(long)]
    pub etcd: String,
    /// Where it journals
    #[arg(long)]
    pub journal: PathBuf,
    /// Fresh assignments after which it rests, those of earlier processes included
    #[arg(long)]
    pub assignments: u64,
    /// Pods that it has at most at once
    #[arg(long)]
    pub pods: usize,
    /// Seed of its workers
    #[arg(long)]
    pub seed: u64,
    /// IP versions of its pods
    #[arg(long, value_enum, default_value_t = world::Stack::V4)]
    pub stack: world::Stack,
}

struct Shared {
    args: NodeArgs,
    client: Client,
    journal: Journal,
    /// Fresh assignments so far.
    assigned: AtomicU64,
    /// The newest revision that an answer named.
    revision: AtomicU64,
    /// Handles are numbered by process and worker, so that none is used twice.
    next: AtomicU64,
}

/// Runs a node until it has made its assignments.
///
/// # Errors
/// If it cannot write its journal, or etcd is away for longer than any fault lasts.
pub async fn run(args: NodeArgs) -> Result<()> {
    // A rig that dies must not leave nodes behind.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let before = journal::read(&args.journal)?;
    let store = connect(&args.etcd).await?;
    let (allocator, client) = Allocator::new(store.clone(), &args.node, system_clock());
    let (syncer, changes) = Syncer::new(store, world::ranges(&args.node), args.seed);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(allocator.run(stop.clone()));
    tasks.spawn(syncer.run());
    tasks.spawn(world::feed(changes, client.clone()));
    let fresh = before
        .iter()
        .filter(|l| matches!(l, Line::Added { fresh: true, .. }))
        .count();
    let started = u64::try_from(before.len())?;
    let shared = Arc::new(Shared {
        journal: Journal::open(&args.journal)?,
        client,
        assigned: AtomicU64::new(u64::try_from(fresh)?),
        revision: AtomicU64::new(0),
        next: AtomicU64::new(started * 1000),
        args,
    });
    let (live, unfinished) = inherited(&before);
    for handle in unfinished {
        shared.delete(&handle).await?;
    }
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let mine = live
            .iter()
            .enumerate()
            .filter(|(i, _)| *i as u64 % WORKERS == worker);
        let mine: BTreeMap<String, Vec<IpAddr>> = mine.map(|(_, (h, a))| (h.clone(), a.clone())).collect();
        workers.spawn(work(Arc::clone(&shared), worker, mine));
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    stop.cancel();
    tasks.shutdown().await;
    Ok(())
}

async fn connect(url: &str) -> Result<EtcdStore> {
    let mut config: EtcdConfig = url.parse()?;
    // Shorter than the faults, so that they are felt.
    config.call_timeout = Duration::from_secs(2);
    Ok(EtcdStore::connect(config).await?)
}

/// Pods that are up, and handles whose ADD or DEL was never answered.
fn inherited(lines: &[Line]) -> (BTreeMap<String, Vec<IpAddr>>, Vec<String>) {
    let (mut live, mut open) = (BTreeMap::new(), BTreeMap::new());
    for line in lines {
        match line {
            Line::Adding { handle } | Line::Failed { handle, .. } => {
                // A repeated ADD of a pod that is up says nothing new.
                if !live.contains_key(handle) {
                    open.insert(handle.clone(), ());
                }
            }
            Line::Added {
                handle, addresses, ..
            } => {
                open.remove(handle);
                live.insert(handle.clone(), addresses.clone());
            }
            Line::Deleting { handle, .. } => {
                live.remove(handle);
                open.insert(handle.clone(), ());
            }
            Line::Deleted { handle } => {
                live.remove(handle);
                open.remove(handle);
            }
        }
    }
    (live, open.into_keys().collect())
}

async fn work(shared: Arc<Shared>, worker: u64, mut live: BTreeMap<String, Vec<IpAddr>>) -> Result<()> {
    let mut rng = SmallRng::seed_from_u64(shared.args.seed ^ (worker << 32));
    let cap = shared.args.pods / usize::try_from(WORKERS)?;
    let mut gone: Option<String> = None;
    while shared.assigned.load(Ordering::Relaxed) < shared.args.assignments {
        match rng.random_range(0..100) {
            0..60 if live.len() < cap => {
                let number = shared.next.fetch_add(1, Ordering::Relaxed);
                let handle = world::handle(&shared.args.node, number);
                match shared.add(&handle).await? {
                    Some(addresses) => drop(live.insert(handle, addresses)),
                    // Refused or given up: the runtime deletes it.
                    None => shared.delete(&handle).await?,
                }
            }
            0..90 => {
                let Some(handle) = live.keys().choose(&mut rng).cloned() else {
                    continue;
                };
                live.remove(&handle);
                shared.delete(&handle).await?;
                gone = Some(handle);
            }
            90..95 => {
                let Some((handle, had)) = live.iter().choose(&mut rng) else {
                    continue;
                };
                if let Some(now) = shared.add(handle).await? {
                    ensure!(
                        now == *had,
                        "a repeated ADD of {handle} gave {now:?}, it had {had:?}"
                    );
                }
            }
            _ => {
                if let Some(handle) = &gone {
                    shared.delete(handle).await?;
                }
            }
        }
    }
    Ok(())
}

impl Shared {
    /// ADD; `None` if it failed.
    async fn add(&self, handle: &str) -> Result<Option<Vec<IpAddr>>> {
        self.journal.write(&Line::Adding {
            handle: handle.to_owned(),
        })?;
        let begun = Instant::now();
        let asked = self
            .client
            .assign(world::pod(self.args.stack, &self.args.node, handle));
        let error = match tokio::time::timeout(ADD_DEADLINE, asked).await {
            Ok(Ok(assigned)) => {
                self.journal.write(&Line::Added {
                    handle: handle.to_owned(),
                    addresses: assigned.addresses.clone(),
                    revision: assigned.revision,
                    fresh: assigned.fresh,
                    micros: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
                })?;
                self.revision.fetch_max(assigned.revision, Ordering::Relaxed);
                self.assigned
                    .fetch_add(u64::from(assigned.fresh), Ordering::Relaxed);
                return Ok(Some(assigned.addresses));
            }
            Ok(Err(error)) => name(&error).to_owned(),
            Err(_) => "given up".to_owned(),
        };
        self.journal.write(&Line::Failed {
            handle: handle.to_owned(),
            error,
        })?;
        Ok(None)
    }

    /// DEL, until it succeeds.
    async fn delete(&self, handle: &str) -> Result<()> {
        self.journal.write(&Line::Deleting {
            handle: handle.to_owned(),
            revision: self.revision.load(Ordering::Relaxed),
        })?;
        for _ in 0..DELETES_MAX {
            match self.client.release(world::gone(&self.args.node, handle)).await {
                Ok(released) => {
                    self.revision.fetch_max(released.revision, Ordering::Relaxed);
                    return self.journal.write(&Line::Deleted {
                        handle: handle.to_owned(),
                    });
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
        bail!("DEL of {handle} never succeeded");
    }
}

/// The error's name, for counting.
fn name(error: &Error) -> &'static str {
    match error {
        Error::Exhausted { .. } => "exhausted",
        Error::BlockLimit { .. } => "block limit",
        Error::Contended { .. } => "contended",
        Error::Datastore { .. } => "datastore",
        Error::Busy { .. } => "busy",
        Error::RiderConflict { .. } => "rider conflict",
        _ => "other",
    }
}
