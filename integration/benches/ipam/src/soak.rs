//! Everything together: nodes, faults, collection, and the verdict.
//!
//! ```text
//!  soak ── etcd x 3 ◀── proxy per node ◀── node process x 8 (8 workers each)
//!     │        ▲
//!     │        ├── recorder (every change from revision 1)
//!     │        └── collector, as the daemon runs it
//!     └── faults, spread evenly over the progress that the journals show
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;
use twill_datastore::Store;
use twill_datastore::etcd::EtcdStore;
use twill_ipam::collect::{Mode, Pass, Runner};
use twill_ipam::{Family, system_clock};

use crate::check::{self, Verdict};
use crate::etcd::Etcd;
use crate::history::{self, Change};
use crate::journal::{self, Line};
use crate::proxy::Proxy;
use crate::world::{self, PoolSpec, Stack};

/// How long a run may stand still before it is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// The grace period of the collector that runs beside the load: short, so that it is tempted.
const GRACE: Duration = Duration::from_secs(3);
/// How often a run says how far it is.
const REPORTS: Duration = Duration::from_secs(5);

/// How big a run is.
#[derive(Args, Clone, Debug)]
pub struct SoakArgs {
    /// Fresh assignments, over all nodes
    #[arg(long, default_value_t = 100_000)]
    pub assignments: u64,
    /// Faults, spread over the run
    #[arg(long, default_value_t = 1000)]
    pub faults: u64,
    /// Nodes
    #[arg(long, default_value_t = 8)]
    pub nodes: u64,
    /// Members of etcd: 1 or 3
    #[arg(long, default_value_t = 3)]
    pub members: usize,
    /// Seed of faults and workers
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// IP versions of the pods
    #[arg(long, value_enum, default_value_t = Stack::V4)]
    pub stack: Stack,
}

/// What a run showed.
#[derive(Debug)]
pub struct Outcome {
    /// What the checker says.
    pub verdict: Verdict,
    /// Faults, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// What the one collection after the run freed.
    pub collected: Pass,
    /// Every change.
    pub history: Vec<Change>,
    /// What workers were told, by node.
    pub journals: BTreeMap<String, Vec<Line>>,
    /// The pools.
    pub pools: Vec<PoolSpec>,
    /// Nodes that were given up with all that they held.
    pub dead: BTreeSet<String>,
    /// How long the load took.
    pub took: Duration,
}

struct Node {
    name: String,
    proxy: Proxy,
    journal: PathBuf,
    child: Child,
    stopped_until: Option<Instant>,
}

struct Rig {
    args: SoakArgs,
    program: PathBuf,
    etcd: Etcd,
    store: EtcdStore,
    nodes: Vec<Node>,
    rng: SmallRng,
    faults: BTreeMap<&'static str, u64>,
    recorded: Arc<AtomicU64>,
}

/// Pools in which the load takes up to 95 of 100 addresses.
fn pools(nodes: u64, stack: Stack) -> Result<(Vec<PoolSpec>, usize)> {
    // Eight nodes: 512 addresses in blocks of 16.
    let size = (nodes * 64).next_power_of_two();
    let bits = u8::try_from(size.trailing_zeros())?;
    let pool = |family: &Family| -> Result<PoolSpec> {
        let (cidr, block_size, reserved) = match family {
            Family::V4 => (
                format!("10.200.0.0/{}", 32 - bits),
                28,
                ["10.200.0.5/32", "10.200.0.32/30"],
            ),
            Family::V6 => (
                format!("fd00:200::/{}", 128 - bits),
                124,
                ["fd00:200::5/128", "fd00:200::20/126"],
            ),
        };
        Ok(PoolSpec {
            cidr: cidr.parse()?,
            block_size,
            reserved: reserved.map(str::parse).into_iter().collect::<Result<_, _>>()?,
        })
    };
    let pools = stack.families().iter().map(pool).collect::<Result<_>>()?;
    let pods = usize::try_from(size * 95 / 100 / nodes)?;
    Ok((pools, pods))
}

/// Runs it. `program` is this binary, which is also the nodes'. Call it from the main thread.
///
/// # Errors
/// If the rig itself fails or stands still; what the allocator does wrong is in the verdict.
pub async fn run(args: SoakArgs, program: &Path) -> Result<Outcome> {
    let directory = tempfile::Builder::new().prefix("twill-ipam-soak-").tempdir()?;
    let etcd = Etcd::start(args.members).await?;
    let store = etcd.store().await?;
    let (pools, pods) = pools(args.nodes, args.stack)?;
    let names: Vec<String> = (1..=args.nodes).map(|i| format!("n{i}")).collect();
    let mut all = names.clone();
    all.push("dead".to_owned());
    world::lay_out(&store, &pools, &all).await?;
    let (stop, upto) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let recorded = Arc::new(AtomicU64::new(0));
    let recorder = tokio::spawn(history::record(
        etcd.store().await?,
        Arc::clone(&recorded),
        Arc::clone(&upto),
        stop.clone(),
    ));
    let mut rig = Rig {
        rng: SmallRng::seed_from_u64(args.seed),
        program: program.to_owned(),
        etcd,
        store,
        nodes: Vec::new(),
        faults: BTreeMap::new(),
        recorded,
        args,
    };
    rig.strew().await?;
    let began = Instant::now();
    for name in &names {
        rig.add_node(name, directory.path(), pods).await?;
    }
    let collector = Runner::new(rig.store.clone(), "collector", system_clock());
    let collector = tokio::spawn(tempt(collector, stop.clone()));
    rig.load(pods).await?;
    let took = began.elapsed();
    stop.cancel();
    collector.await??;
    let collected = collect(&rig.store).await?;
    // The last change of all, so that the recorder knows when it has seen everything.
    upto.store(
        rig.store.put("/calico/twill-rig/end", "{}").await?,
        Ordering::Relaxed,
    );
    let history = tokio::time::timeout(PATIENCE, recorder)
        .await
        .context("the recorder stands still")???;
    let mut journals = BTreeMap::new();
    for node in &rig.nodes {
        journals.insert(node.name.clone(), journal::read(&node.journal)?);
    }
    let dead = BTreeSet::from(["dead".to_owned()]);
    let verdict = check::check(&history, &journals, &pools, &dead);
    Ok(Outcome {
        verdict,
        faults: rig.faults,
        collected,
        history,
        journals,
        pools,
        dead,
        took,
    })
}

/// Passes of a collector beside the load, with a grace period that is far too short.
async fn tempt(mut runner: Runner<EtcdStore>, stop: CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        // It fails while etcd has no leader: there will be a next time.
        let _ = runner.pass(Mode::Collect).await;
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(GRACE / 2) => {}
        }
    }
    Ok(())
}

/// One collection: two looks, a grace period apart.
async fn collect(store: &EtcdStore) -> Result<Pass> {
    let mut runner = Runner::new(store.clone(), "rig", system_clock());
    runner.pass(Mode::Collect).await?;
    tokio::time::sleep(GRACE).await;
    Ok(runner.pass(Mode::Collect).await?)
}

impl Rig {
    /// Leaks of every kind, which one collection must find: handles without addresses and a node that dies with its pods.
    async fn strew(&mut self) -> Result<()> {
        let grace = format!(
            "\"controllers\":{{\"node\":{{\"leakGracePeriod\":\"{}s\"}}}}",
            GRACE.as_secs()
        );
        let key = "/calico/resources/v3/projectcalico.org/kubecontrollersconfigurations/default";
        self.store
            .put(
                key,
                world::object("KubeControllersConfiguration", "default", &grace),
            )
            .await?;
        for i in 0..20 {
            let handle = r#"{"block":{"10.200.0.0/28":1},"deleted":false}"#;
            self.store
                .put(
                    format!("/calico/ipam/v2/handle/k8s-pod-network.leaked{i}"),
                    handle,
                )
                .await?;
        }
        let (allocator, client) = twill_ipam::Allocator::new(self.store.clone(), "dead", system_clock());
        let (syncer, changes) =
            twill_datastore::syncer::Syncer::new(self.store.clone(), world::ranges("dead"), 0);
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(allocator.run(stop.clone()));
        tasks.spawn(syncer.run());
        tasks.spawn(world::feed(changes, client.clone()));
        for i in 0..20 {
            client
                .assign(world::pod(self.args.stack, "dead", &world::handle("dead", i)))
                .await?;
        }
        tasks.shutdown().await;
        self.store.delete_prefix(world::node_key("dead")).await?;
        Ok(())
    }

    async fn add_node(&mut self, name: &str, directory: &Path, pods: usize) -> Result<()> {
        let proxy = Proxy::start(self.etcd.ports.clone()).await?;
        let journal = directory.join(name);
        let child = self.spawn(name, proxy.port, &journal, pods)?;
        self.nodes.push(Node {
            name: name.to_owned(),
            proxy,
            journal,
            child,
            stopped_until: None,
        });
        Ok(())
    }

    fn spawn(&self, name: &str, port: u16, journal: &Path, pods: usize) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args([
            "node",
            "--node",
            name,
            "--etcd",
            &format!("http://127.0.0.1:{port}"),
        ]);
        command.arg("--journal").arg(journal);
        let share = self.args.assignments.div_ceil(self.args.nodes);
        command.args(["--assignments", &share.to_string(), "--pods", &pods.to_string()]);
        command.args(["--seed", &self.args.seed.to_string()]);
        let stack = clap::ValueEnum::to_possible_value(&self.args.stack);
        command.args(stack.iter().flat_map(|value| ["--stack", value.get_name()]));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))
    }

    /// Watches the journals grow, and strikes.
    async fn load(&mut self, pods: usize) -> Result<()> {
        let (mut struck, mut best, mut moved) = (0, 0, Instant::now());
        let (began, mut reported) = (moved, moved);
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.wake()?;
            let done = self.progress()?;
            if done > best {
                (best, moved) = (done, Instant::now());
            }
            if reported.elapsed() >= REPORTS {
                reported = Instant::now();
                eprintln!(
                    "soak: about {done} of {} assignments, {struck} of {} faults, {} s",
                    self.args.assignments,
                    self.args.faults,
                    began.elapsed().as_secs()
                );
            }
            ensure!(
                moved.elapsed() < PATIENCE,
                "stands still at {best} of {} assignments; faults so far: {:?}",
                self.args.assignments,
                self.faults
            );
            let due = done * self.args.faults / self.args.assignments.max(1);
            if struck < due.min(self.args.faults) && self.strike(pods).await? {
                struck += 1;
            }
            let mut running = 0;
            for node in &mut self.nodes {
                match node.child.try_wait()? {
                    None => running += 1,
                    Some(status) if status.success() => {}
                    Some(status) => bail!("{} ended with {status}", node.name),
                }
            }
            if running == 0 {
                return Ok(());
            }
            if struck >= self.args.faults {
                self.nodes.iter().for_each(|n| n.proxy.fate.be_kind());
            }
        }
    }

    fn progress(&self) -> Result<u64> {
        let mut lines = 0;
        for node in &self.nodes {
            // Reading whole journals each time would be quadratic; their size tells enough for pacing.
            lines += std::fs::metadata(&node.journal).map_or(0, |m| m.len()) / BYTES_PER_ASSIGNMENT;
        }
        Ok(lines.min(self.args.assignments))
    }

    /// Lets processes go on whose time is over.
    fn wake(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if node.stopped_until.is_some_and(|at| Instant::now() >= at) {
                node.stopped_until = None;
                signal(&node.child, rustix::process::Signal::CONT)?;
            }
        }
        Ok(())
    }

    /// One fault, of a kind and on a running node that chance picks: three in ten lose a reply.
    /// Says whether it came to pass: a stopped process cannot be stopped again.
    async fn strike(&mut self, pods: usize) -> Result<bool> {
        let Some(at) = self.victim() else {
            return Ok(false);
        };
        let kind = match self.rng.random_range(0..100) {
            0..30 => "reply lost",
            30..40 => "SIGKILL",
            40..50 => "SIGSTOP",
            50..53 => "leader moved",
            53..55 => "compaction",
            55..75 => "connections cut",
            75..90 => "silence",
            _ => "slowness",
        };
        let time = Duration::from_millis(self.rng.random_range(100..3000));
        let happened = match kind {
            "SIGKILL" => self.kill(at, pods)?,
            "SIGSTOP" => self.freeze(at, time)?,
            "leader moved" => self.etcd.move_leader().await.is_ok(),
            // Behind the recorder, who needs it all; refused when somebody compacted so far already.
            "compaction" => {
                let upto = self.recorded.load(Ordering::Relaxed);
                self.store.compact(upto).await.is_ok()
            }
            _ => self.disturb(at, kind, time),
        };
        if happened {
            *self.faults.entry(kind).or_default() += 1;
        }
        Ok(happened)
    }

    /// The place of a node whose process still runs.
    fn victim(&mut self) -> Option<usize> {
        let mut running = Vec::new();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if matches!(node.child.try_wait(), Ok(None)) {
                running.push(at);
            }
        }
        (!running.is_empty()).then(|| running.swap_remove(self.rng.random_range(0..running.len())))
    }

    fn kill(&mut self, at: usize, pods: usize) -> Result<bool> {
        let Some(node) = self.nodes.get_mut(at) else {
            return Ok(false);
        };
        // The old one is gone before the new one reads its journal.
        node.child.kill()?;
        node.child.wait()?;
        node.stopped_until = None;
        let (name, port, journal) = (node.name.clone(), node.proxy.port, node.journal.clone());
        let child = self.spawn(&name, port, &journal, pods)?;
        if let Some(node) = self.nodes.get_mut(at) {
            node.child = child;
        }
        Ok(true)
    }

    fn freeze(&mut self, at: usize, time: Duration) -> Result<bool> {
        let Some(node) = self.nodes.get_mut(at).filter(|n| n.stopped_until.is_none()) else {
            return Ok(false);
        };
        signal(&node.child, rustix::process::Signal::STOP)?;
        node.stopped_until = Some(Instant::now() + time);
        Ok(true)
    }

    /// What the proxy between a node and etcd can do.
    fn disturb(&self, at: usize, kind: &str, time: Duration) -> bool {
        let Some(node) = self.nodes.get(at) else {
            return false;
        };
        match kind {
            "reply lost" => node.proxy.fate.lose_reply(),
            "connections cut" => node.proxy.fate.cut(),
            "silence" => node.proxy.hold(time),
            _ => node.proxy.fate.delay(u64::from(time.subsec_millis() % 50)),
        }
        true
    }
}

/// What an assignment with its share of deletions and repetitions takes in a journal, roughly: paces the faults.
const BYTES_PER_ASSIGNMENT: u64 = 540;

impl Drop for Node {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id())?).context("a process id")?;
    rustix::process::kill_process(pid, signal)?;
    Ok(())
}
