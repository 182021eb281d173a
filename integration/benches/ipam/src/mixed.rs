//! Twill's allocators and Calico's on one pool that is kept 95 % full: each node fills up and empties in turns, so that blocks become
//! empty and are taken over by the other side. Judged by [`check`](crate::check) from the whole history.
//!
//! Calico's side is the emulation of its steps ([`crate::calico`]), or the real libcalico-go in a program of its own that is called as
//! `PROGRAM ENDPOINTS churn OPERATIONS BUDGET`: nodes `c0` and so on, each pod's line of the journal as one line of JSON,
//! `{"node":"c0","line":{"what":"added",...}}`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twill_datastore::etcd::EtcdStore;
use twill_datastore::{Consistency, KeyRange, Store};
use twill_ipam::{Client, Clock, Error, Now, system_clock};

use crate::calico::CalicoNode;
use crate::check::{self, Rule, Verdict};
use crate::etcd::Etcd;
use crate::history::{self, Change};
use crate::journal::Line;
use crate::twill::Twill;
use crate::world::{self, PoolSpec, Stack};

/// 64 blocks of 16 addresses.
const POOL: &str = "10.0.0.0/22";
const BLOCK_SIZE: u8 = 28;
const ADDRESSES: usize = 1024;
/// Nodes of each side.
const NODES: u64 = 4;
/// Pods of each side at most: both sides are never quite full at once, and so 95 % of the pool are in use at the fullest.
const BUDGET: usize = ADDRESSES * 98 / 100 / 2;
/// Twill's nodes do so many operations for one of Calico's, which takes longer.
const TWILL_PACE: u64 = 6;
/// Pods of one node at most: fifteen blocks, below the twenty at which a node claims no more.
const NODE_MOST: usize = 240;
/// Operations until a node fills up or empties.
const PHASE: u64 = 60;
/// Twill's clock runs so many times as fast, so that the minute that a claimed block is left alone is over soon.
const HASTE: u64 = 240;
/// How long the end may take to settle.
const PATIENCE: Duration = Duration::from_secs(60);
const BLOCKS: &str = "/calico/ipam/v2/assignment/ipv4/block/";

/// How to run it.
#[derive(Args, Clone, Debug)]
pub struct MixedArgs {
    /// Operations of each of Calico's nodes beyond the first fill
    #[arg(long, default_value_t = 400)]
    pub operations: u64,
    /// Of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A program around libcalico-go's own allocator in place of the emulated steps
    #[arg(long)]
    pub reference: Option<PathBuf>,
}

/// What a run amounts to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Rules broken.
    pub verdict: Verdict,
    /// Most addresses in use at once, of all in the pool.
    pub fullest: usize,
    /// Blocks that went from a node of Calico's to one of Twill's, and the other way.
    pub handed_over: [usize; 2],
    /// Blocks that belonged to nobody in the end.
    pub ownerless: Vec<String>,
    /// Fresh assignments of Twill's and Calico's.
    pub assignments: [usize; 2],
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.fullest as f64 / ADDRESSES as f64;
        writeln!(
            f,
            "{} assignments by Twill, {} by Calico, {} revisions; at the fullest {share:.1} % of the pool",
            self.assignments[0], self.assignments[1], self.verdict.revisions
        )?;
        writeln!(
            f,
            "blocks handed over: {} from Calico to Twill, {} from Twill to Calico; without owner in the end: {}",
            self.handed_over[0],
            self.handed_over[1],
            self.ownerless.len()
        )?;
        writeln!(f, "refused: {:?}", self.verdict.failures)?;
        write!(f, "violations: {}", self.verdict.violations.len())?;
        for violation in self.verdict.violations.iter().take(20) {
            let (rule, at, what) = (violation.rule, violation.revision, &violation.what);
            write!(f, "\n  {rule:?} at {at}: {what}")?;
        }
        Ok(())
    }
}

/// Whoever assigns.
enum Side {
    Twill(Client),
    Calico(Box<CalicoNode<EtcdStore>>),
}

/// One node with its pods.
struct Worker {
    node: String,
    side: Side,
    store: EtcdStore,
    budget: Arc<Semaphore>,
    held: VecDeque<(String, OwnedSemaphorePermit)>,
    journal: Vec<Line>,
    rng: SmallRng,
}

impl Worker {
    async fn run(mut self, operations: u64) -> Result<(String, Vec<Line>)> {
        let mut next = 0;
        // The first fill, a fair share each, and then turns.
        for _ in 0..BUDGET / usize::try_from(NODES)? {
            let permit = Arc::clone(&self.budget).acquire_owned().await?;
            self.add(next, permit).await?;
            next += 1;
        }
        let mut target = NODE_MOST;
        for operation in 0..operations {
            if operation % PHASE == 0 {
                let empties = self.rng.random_bool(0.5);
                target = if empties { 0 } else { NODE_MOST };
            }
            let permit = Arc::clone(&self.budget).try_acquire_owned();
            match permit.ok().filter(|_| self.held.len() < target) {
                Some(permit) => {
                    self.add(next, permit).await?;
                    next += 1;
                }
                None => self.delete().await?,
            }
        }
        if let Side::Calico(node) = &mut self.side {
            node.settle().await?;
        }
        Ok((self.node, self.journal))
    }

    async fn add(&mut self, number: u64, permit: OwnedSemaphorePermit) -> Result<()> {
        let handle = world::handle(&self.node, number);
        self.journal.push(Line::Adding {
            handle: handle.clone(),
        });
        let begun = Instant::now();
        let given: Result<(Vec<IpAddr>, u64), String> = match &mut self.side {
            Side::Twill(client) => match client.assign(world::pod(Stack::V4, &self.node, &handle)).await {
                Ok(assigned) => Ok((assigned.addresses, assigned.revision)),
                Err(Error::Contended { .. }) => Err("contended".to_owned()),
                Err(other) => Err(other.to_string()),
            },
            Side::Calico(node) => match node.assign_somehow(&handle).await? {
                Some(address) => Ok((vec![address], self.store.progress().await?)),
                None => Err("no room (Calico)".to_owned()),
            },
        };
        match given {
            Ok((addresses, revision)) => {
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.journal.push(Line::Added {
                    handle: handle.clone(),
                    addresses,
                    revision,
                    fresh: true,
                    micros,
                });
                self.held.push_back((handle, permit));
            }
            Err(error) => self.journal.push(Line::Failed { handle, error }),
        }
        Ok(())
    }

    async fn delete(&mut self) -> Result<()> {
        let Some((handle, permit)) = self.held.pop_front() else {
            tokio::task::yield_now().await;
            return Ok(());
        };
        let revision = self.store.progress().await?;
        self.journal.push(Line::Deleting {
            handle: handle.clone(),
            revision,
        });
        match &mut self.side {
            Side::Twill(client) => drop(client.release(world::gone(&self.node, &handle)).await?),
            Side::Calico(node) => node.release(&handle).await?,
        }
        self.journal.push(Line::Deleted { handle });
        drop(permit);
        Ok(())
    }
}

/// The machine's clock, running ahead.
fn hasty_clock() -> Clock {
    let clock = system_clock();
    let start = clock();
    Box::new(move || {
        let now = clock();
        let ahead_ms = (now.mono_ms - start.mono_ms) * (HASTE - 1);
        Now {
            unix_nanos: now.unix_nanos + ahead_ms * 1_000_000,
            ..now
        }
    })
}

/// Runs it.
///
/// # Errors
/// If etcd cannot be run, the reference fails, or the end does not settle. What breaks a rule is in the outcome.
pub async fn run(args: MixedArgs) -> Result<Outcome> {
    let etcd = Etcd::start(1).await?;
    let store = etcd.patient_store().await?;
    let pools = [PoolSpec {
        cidr: POOL.parse()?,
        block_size: BLOCK_SIZE,
        reserved: Vec::new(),
    }];
    let names: Vec<String> = (0..NODES)
        .flat_map(|i| [format!("t{i}"), format!("c{i}")])
        .collect();
    world::lay_out(&store, &pools, &names).await?;
    let (stop, upto) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let recorder = tokio::spawn(history::record(
        etcd.patient_store().await?,
        Arc::default(),
        Arc::clone(&upto),
        stop.clone(),
    ));
    let journals = churn(&args, &etcd, &store).await?;
    stop.cancel();
    upto.store(store.put("/calico/twill-rig/end", "{}").await?, Ordering::Relaxed);
    let history = tokio::time::timeout(PATIENCE, recorder)
        .await
        .context("the recorder stands still")???;
    let mut verdict = check::check(&history, &journals, &pools, &BTreeSet::new());
    // What a loser of a race leaves on a block of Calico's own, Calico's node repairs when it next uses that block.
    let is_calicos =
        |what: &str| what.starts_with('c') && what.contains("affinity for") && what.contains("is left");
    verdict
        .violations
        .retain(|v| !(args.reference.is_some() && v.rule == Rule::I4 && is_calicos(&v.what)));
    let of = |side: char| -> usize {
        let journals = journals.iter().filter(|(node, _)| node.starts_with(side));
        let lines = journals.flat_map(|(_, lines)| lines);
        lines.filter(|line| matches!(line, Line::Added { .. })).count()
    };
    let (handed_over, ownerless) = owners(&history);
    Ok(Outcome {
        assignments: [of('t'), of('c')],
        verdict,
        fullest: most_in_use(&history),
        handed_over,
        ownerless,
    })
}

/// All nodes of both sides, until each has done its operations and Twill's have settled; what they were told.
async fn churn(args: &MixedArgs, etcd: &Etcd, store: &EtcdStore) -> Result<BTreeMap<String, Vec<Line>>> {
    let budgets = [(); 2].map(|()| Arc::new(Semaphore::new(BUDGET)));
    let (mut twills, mut workers) = (Vec::new(), JoinSet::new());
    let mut seed = args.seed;
    let mut worker = |node: String, side: Side, budget: &Arc<Semaphore>| {
        seed += 1;
        Worker {
            node,
            side,
            store: store.clone(),
            budget: Arc::clone(budget),
            held: VecDeque::new(),
            journal: Vec::new(),
            rng: SmallRng::seed_from_u64(seed),
        }
    };
    for i in 0..NODES {
        let node = format!("t{i}");
        // libcalico-go goes by the machine's clock, and so does whoever stands beside it.
        let clock = if args.reference.is_some() {
            system_clock()
        } else {
            hasty_clock()
        };
        let twill = Twill::start_at(store, &node, clock).await?;
        let side = Side::Twill(twill.client.clone());
        workers.spawn(worker(node, side, &budgets[0]).run(args.operations * TWILL_PACE));
        twills.push(twill);
        if args.reference.is_none() {
            let node = format!("c{i}");
            let side = Side::Calico(Box::new(CalicoNode::new(store.clone(), &node, Stack::V4)));
            workers.spawn(worker(node, side, &budgets[1]).run(args.operations));
        }
    }
    let mut journals = match &args.reference {
        Some(program) => reference(program.clone(), etcd.endpoints(), args.operations).await?,
        None => BTreeMap::new(),
    };
    while let Some(ended) = workers.join_next().await {
        let (node, journal) = ended??;
        journals.insert(node, journal);
    }
    settled(store).await?;
    for twill in twills {
        twill.end().await;
    }
    Ok(journals)
}

/// Waits until Twill's nodes have put right what was left on blocks of theirs.
async fn settled(store: &EtcdStore) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let range = KeyRange::prefix("/calico/ipam/v2/host/t");
        let found = store.range_all(range, Consistency::Linearised).await?;
        let is_confirmed = |value: &[u8]| {
            let value: Value = serde_json::from_slice(value).unwrap_or_default();
            value["state"] == "confirmed"
        };
        let left: Vec<_> = found.kvs.iter().filter(|kv| !is_confirmed(&kv.value)).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("affinities are left unconfirmed: {left:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One line that the program around libcalico-go prints.
#[derive(Deserialize)]
struct Told {
    node: String,
    line: Line,
}

async fn reference(
    program: PathBuf,
    endpoints: String,
    operations: u64,
) -> Result<BTreeMap<String, Vec<Line>>> {
    let mut command = std::process::Command::new(&program);
    command.args([&endpoints, "churn", &operations.to_string(), &BUDGET.to_string()]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(
        output.status.success(),
        "{}: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut journals: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let told: Told =
            serde_json::from_str(line).with_context(|| format!("the reference said {line:?}"))?;
        journals.entry(told.node).or_default().push(told.line);
    }
    Ok(journals)
}

/// The node that a block belongs to after each change, and the addresses in use in it.
fn block(change: &Change) -> Option<(&str, Option<String>, usize)> {
    let name = change.key.strip_prefix(BLOCKS)?;
    let value: Value = serde_json::from_slice(change.value.as_deref().unwrap_or(b"null")).ok()?;
    let owner = value["affinity"].as_str().map(|a| a.replacen("host:", "", 1));
    let all = value["allocations"].as_array().map_or(0, Vec::len);
    let free = value["unallocated"].as_array().map_or(0, Vec::len);
    Some((name, owner, all - free.min(all)))
}

/// How often blocks went from side to side, and which belong to nobody in the end.
fn owners(history: &[Change]) -> ([usize; 2], Vec<String>) {
    let (mut last, mut now) = (BTreeMap::new(), BTreeMap::new());
    let mut handed_over = [0, 0];
    for change in history {
        let Some((name, owner, _)) = block(change) else {
            continue;
        };
        if let Some(owner) = &owner
            && let Some(before) = last.insert(name, owner.clone())
        {
            match (before.starts_with('c'), owner.starts_with('c')) {
                (true, false) => handed_over[0] += 1,
                (false, true) => handed_over[1] += 1,
                _ => {}
            }
        }
        match change.value {
            Some(_) => drop(now.insert(name, owner)),
            None => drop(now.remove(name)),
        }
    }
    let ownerless = now.iter().filter(|(_, owner)| owner.is_none());
    (
        handed_over,
        ownerless.map(|(name, _)| (*name).to_owned()).collect(),
    )
}

/// The most addresses in use at once.
fn most_in_use(history: &[Change]) -> usize {
    let (mut used, mut sum, mut most) = (BTreeMap::new(), 0, 0);
    for (name, _, count) in history.iter().filter_map(block) {
        sum += count;
        sum -= used.insert(name, count).unwrap_or(0);
        most = most.max(sum);
    }
    most
}
