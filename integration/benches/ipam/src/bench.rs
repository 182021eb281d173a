//! The numbers of docs/numbers.md: Twill's allocator against Calico's steps, in one run, on one etcd, with one client.
//! Counts are what is promised; times are to be compared within a run only.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use ipnet::IpNet;
use tokio::task::JoinSet;
use twill_datastore::etcd::EtcdStore;
use twill_datastore::{KeyRange, Store};
use twill_ipam::collect::{Guards, pass, scan};
use twill_ipam::{Counter, Counters, Family, system_clock};

use crate::audit;
use crate::calico::{CalicoNode, full_block};
use crate::etcd::Etcd;
use crate::twill::Twill;
use crate::world::{self, PoolSpec, Stack};

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// One node, one pod at a time
    Steady,
    /// 110 pods at once on one node
    Burst,
    /// 1,920 pods on 64 nodes
    Crowd,
    /// A claim and a check beside many full blocks
    Filled,
    /// Dead nodes
    Dead,
}

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Members of etcd: 1 or 3
    #[arg(long, default_value_t = 1)]
    pub members: usize,
    /// Pods one at a time
    #[arg(long, default_value_t = 200)]
    pub pods: usize,
    /// Blocks in the store for claim and check: 16384 hold a million addresses
    #[arg(long, default_value_t = 16_384)]
    pub blocks: u32,
    /// Dead nodes to collect
    #[arg(long, default_value_t = 250)]
    pub dead: u32,
    /// Leave the parts out that fill the store
    #[arg(long)]
    pub quick: bool,
    /// Only this part
    #[arg(long, value_enum)]
    pub only: Option<Part>,
    /// IP versions of the pods
    #[arg(long, value_enum, default_value_t = Stack::V4)]
    pub stack: Stack,
    /// A program around libcalico-go's own allocator, called as `PROGRAM ENDPOINTS steady|burst|crowd PODS`: it prints the median,
    /// or the whole time, in microseconds (docs/numbers.md says how to make one)
    #[arg(long)]
    pub reference: Option<PathBuf>,
}

/// Runs everything and prints it.
///
/// # Errors
/// If etcd cannot be run, or something that is measured fails.
pub async fn run(args: BenchArgs) -> Result<()> {
    println!(
        "etcd: {} member(s), data on disk; pods: {:?}",
        args.members, args.stack
    );
    let is_wanted = |part: Part| args.only.is_none_or(|only| only == part);
    if is_wanted(Part::Steady) {
        steady(&args).await?;
    }
    if is_wanted(Part::Burst) {
        burst(&args).await?;
    }
    if is_wanted(Part::Crowd) {
        crowd(&args).await?;
    }
    // The blocks that fill the store are IPv4's.
    let fills = !args.quick && args.stack == Stack::V4;
    if fills && is_wanted(Part::Filled) {
        filled(&args).await?;
    }
    if fills && is_wanted(Part::Dead) {
        dead(&args).await?;
    }
    Ok(())
}

/// A new etcd with pools of 16,384 blocks and more, and these nodes.
async fn fresh(args: &BenchArgs, nodes: &[String]) -> Result<(Etcd, EtcdStore)> {
    let etcd = Etcd::start(args.members).await?;
    let store = etcd.patient_store().await?;
    let mut pools = Vec::new();
    for family in args.stack.families() {
        let (cidr, block_size) = match family {
            Family::V4 => ("10.0.0.0/11", 26),
            Family::V6 => ("fd00:200::/107", 122),
        };
        pools.push(PoolSpec {
            cidr: cidr.parse()?,
            block_size,
            reserved: Vec::new(),
        });
    }
    world::lay_out(&store, &pools, nodes).await?;
    Ok((etcd, store))
}

/// What libcalico-go takes for the same on the same etcd, if there is a program to ask.
async fn reference(args: &BenchArgs, etcd: &Etcd, what: &str, pods: u64) -> Result<Option<Duration>> {
    let Some(program) = &args.reference else {
        return Ok(None);
    };
    let mut command = std::process::Command::new(program);
    command.args([&etcd.endpoints(), what, &pods.to_string()]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(
        output.status.success(),
        "{}: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let micros = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    Ok(Some(Duration::from_micros(micros)))
}

fn line(what: &str, calico: Duration, reference: Option<Duration>, twill: Duration) {
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    let ratio = |d: Duration| d.as_secs_f64() / twill.as_secs_f64().max(1e-9);
    let reference = reference.map_or_else(String::new, |d| {
        format!(", libcalico-go {:.2} ms (1/{:.1})", ms(d), ratio(d))
    });
    println!(
        "{what}: Twill {:.2} ms, Calico's way {:.2} ms (1/{:.1}){reference}",
        ms(twill),
        ms(calico),
        ratio(calico)
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// One node, one pod at a time, turn about.
async fn steady(args: &BenchArgs) -> Result<()> {
    let nodes = ["calico", "twill", "go"].map(str::to_owned);
    let (etcd, store) = fresh(args, &nodes).await?;
    let mut calico = CalicoNode::new(store.clone(), "calico", args.stack);
    let twill = Twill::start(&store, "twill").await?;
    // Half-full blocks, as in the reference.
    for i in 0..32 {
        calico.assign(&world::handle("calico", i)).await?;
        twill
            .client
            .assign(world::pod(args.stack, "twill", &world::handle("twill", i)))
            .await?;
    }
    let counters = twill.client.counters();
    let (commits, reads) = (counters.commits.value(), counters.reads.value());
    let (calls, writes) = (calico.calls, calico.writes);
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for i in 100..100 + args.pods as u64 {
        let begun = Instant::now();
        calico.assign(&world::handle("calico", i)).await?;
        theirs.push(begun.elapsed());
        let begun = Instant::now();
        twill
            .client
            .assign(world::pod(args.stack, "twill", &world::handle("twill", i)))
            .await?;
        ours.push(begun.elapsed());
    }
    let n = args.pods as f64;
    println!(
        "calls a pod: Calico's way {:.2} ({:.2} writes), Twill {:.2} transactions and {:.2} reads",
        (calico.calls - calls) as f64 / n,
        (calico.writes - writes) as f64 / n,
        (counters.commits.value() - commits) as f64 / n,
        (counters.reads.value() - reads) as f64 / n,
    );
    let go = reference(args, &etcd, "steady", args.pods as u64).await?;
    line("assign p50, one pod at a time", median(theirs), go, median(ours));
    twill.end().await;
    Ok(())
}

/// 110 pods at once on one node.
async fn burst(args: &BenchArgs) -> Result<()> {
    const PODS: u64 = 110;
    let nodes = ["calico", "twill", "go"].map(str::to_owned);
    let (etcd, store) = fresh(args, &nodes).await?;
    let mut calico = CalicoNode::new(store.clone(), "calico", args.stack);
    let begun = Instant::now();
    for i in 0..PODS {
        calico.assign(&world::handle("calico", i)).await?;
    }
    let theirs = begun.elapsed();
    let twill = Twill::start(&store, "twill").await?;
    // Its first pod claims the first block, as the node's own tunnel or daemons' pods do.
    twill
        .client
        .assign(world::pod(args.stack, "twill", &world::handle("twill", 9999)))
        .await?;
    let commits = twill.client.counters().commits.value();
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for i in 0..PODS {
        let (client, stack) = (twill.client.clone(), args.stack);
        all.spawn(async move {
            client
                .assign(world::pod(stack, "twill", &world::handle("twill", i)))
                .await
        });
    }
    let mut given = BTreeSet::new();
    while let Some(ended) = all.join_next().await {
        given.extend(ended??.addresses);
    }
    let ours = begun.elapsed();
    let wanted = 110 * args.stack.families().len();
    ensure!(given.len() == wanted, "{} addresses for 110 pods", given.len());
    let commits = twill.client.counters().commits.value() - commits;
    println!("110 pods at once on one node: {commits} commits, the claim of a second block in one of them");
    let go = reference(args, &etcd, "burst", PODS).await?;
    line("110 pods at once on one node", theirs, go, ours);
    twill.end().await;
    Ok(())
}

/// 64 nodes, 30 pods each.
async fn crowd(args: &BenchArgs) -> Result<()> {
    const NODES: usize = 64;
    const PODS: u64 = 30;
    let names: Vec<String> = (0..NODES)
        .flat_map(|i| [format!("c{i}"), format!("t{i}"), format!("g{i}")])
        .collect();
    let (etcd, store) = fresh(args, &names).await?;
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for i in 0..NODES {
        let name = format!("c{i}");
        let mut node = CalicoNode::new(store.clone(), &name, args.stack);
        all.spawn(async move {
            for pod in 0..PODS {
                node.assign(&world::handle(&name, pod)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = all.join_next().await {
        ended??;
    }
    let theirs = begun.elapsed();
    let go = reference(args, &etcd, "crowd", PODS).await?;
    let mut twills = Vec::new();
    for i in 0..NODES {
        twills.push(Twill::start(&store, &format!("t{i}")).await?);
    }
    // In sync before the clock starts: one pod each, taken back.
    for (i, twill) in twills.iter().enumerate() {
        let name = format!("t{i}");
        let handle = world::handle(&name, 9999);
        twill
            .client
            .assign(world::pod(args.stack, &name, &handle))
            .await?;
        twill.client.release(world::gone(&name, &handle)).await?;
    }
    let ours = crowd_round(args, &twills, 0, PODS).await?;
    line("1,920 pods on 64 nodes", theirs, go, ours);
    // Calico's way has nobody who follows the blocks beside it; here 64 nodes on one machine hear of every block.
    for twill in &mut twills {
        twill.followers.shutdown().await;
    }
    let ours = crowd_round(args, &twills, PODS, PODS).await?;
    line("1,920 more, while nobody follows the blocks", theirs, go, ours);
    for twill in twills {
        twill.end().await;
    }
    Ok(())
}

/// So many pods at once on each node.
async fn crowd_round(args: &BenchArgs, twills: &[Twill], first: u64, pods: u64) -> Result<Duration> {
    let sum = |of: fn(&Counters) -> &Counter| -> u64 {
        twills.iter().map(|t| of(t.client.counters()).value()).sum()
    };
    let counts = || [sum(|c| &c.commits), sum(|c| &c.conflicts), sum(|c| &c.reads)];
    let before = counts();
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for (i, twill) in twills.iter().enumerate() {
        for pod in first..first + pods {
            let (client, name, stack) = (twill.client.clone(), format!("t{i}"), args.stack);
            all.spawn(async move {
                let pod = world::pod(stack, &name, &world::handle(&name, pod));
                client.assign(pod).await
            });
        }
    }
    while let Some(ended) = all.join_next().await {
        ended??;
    }
    let took = begun.elapsed();
    let [commits, conflicts, reads] = counts();
    let commits = commits - before[0];
    println!(
        "{pods} pods on each of {} nodes: {commits} transactions, {} of them refused, {} reads",
        twills.len(),
        conflicts - before[1],
        reads - before[2]
    );
    ensure!(
        commits <= 3 * twills.len() as u64,
        "more than three transactions a node"
    );
    Ok(took)
}

/// A million addresses: claim of one more block, and a check of all of it.
async fn filled(args: &BenchArgs) -> Result<()> {
    let nodes = ["calico", "twill"].map(str::to_owned);
    let (etcd, store) = fresh(args, &nodes).await?;
    let begun = Instant::now();
    for i in 0..args.blocks {
        put_block(
            &store,
            i,
            &format!("ip-10-1-{}-{}.eu-central-1.compute.internal", i / 256, i % 256),
            true,
        )
        .await?;
    }
    println!(
        "({} full blocks written in {:.0} s)",
        args.blocks,
        begun.elapsed().as_secs_f64()
    );
    let twill = Twill::start(&store, "twill").await?;
    // The first answer waits for the copy of the store, which a daemon has at that time.
    let mut taken = Vec::new();
    for round in 0..8u64 {
        let commits = twill.client.counters().commits.value();
        let begun = Instant::now();
        // Fills a block of its own each time but the first: 64 addresses.
        twill
            .client
            .assign(world::pod(args.stack, "twill", &world::handle("twill", round)))
            .await?;
        if round > 0 {
            taken.push(begun.elapsed());
            ensure!(
                twill.client.counters().commits.value() == commits + 1,
                "more than one transaction"
            );
        }
        let mut all = JoinSet::new();
        for i in 0..63 {
            let client = twill.client.clone();
            let handle = world::handle("twill", (round + 1) * 1000 + i);
            let stack = args.stack;
            all.spawn(async move { client.assign(world::pod(stack, "twill", &handle)).await });
        }
        while let Some(ended) = all.join_next().await {
            ended??;
        }
    }
    let mut calico = CalicoNode::new(store.clone(), "calico", args.stack);
    let begun = Instant::now();
    calico.claim(Family::V4).await?;
    line(
        &format!(
            "claim a block and assign from it, {} blocks in the pool",
            args.blocks
        ),
        begun.elapsed(),
        None,
        median(taken),
    );
    twill.end().await;
    audited(&etcd).await
}

/// A check of everything, in a process of its own.
async fn audited(etcd: &Etcd) -> Result<()> {
    let program = std::env::current_exe()?;
    let etcds = || -> f64 {
        let pids = etcd.pids();
        pids.iter().map(|pid| audit::cpu_seconds(&pid.to_string())).sum()
    };
    let before = etcds();
    let took = audit::measure(&program, &etcd.endpoints()).await?;
    println!(
        "check of {} addresses at revision {}: {:.2} s, {} problems, peak memory {} MB, CPU {:.2} s of its own and {:.2} s of etcd's",
        took.addresses,
        took.revision,
        took.seconds,
        took.problems,
        took.peak_kib / 1024,
        took.cpu_seconds,
        etcds() - before,
    );
    Ok(())
}

/// Nodes without resource, 64 addresses each.
async fn dead(args: &BenchArgs) -> Result<()> {
    let (_etcd, store) = fresh(args, &["n1".to_owned()]).await?;
    for i in 0..args.dead {
        put_block(&store, i, &format!("dead{i}"), false).await?;
    }
    let clock = Arc::new(system_clock());
    let begun = Instant::now();
    let found = scan(&store, clock(), BTreeSet::new()).await?;
    let scanned = begun.elapsed();
    let done = pass(&store, &found, &found.leaks, &Guards::default(), &clock).await?;
    println!(
        "{} dead nodes: {} addresses and {} blocks collected in {:.2} s, of which {:.2} s to find them",
        args.dead,
        done.freed.len(),
        done.blocks.len(),
        begun.elapsed().as_secs_f64(),
        scanned.as_secs_f64()
    );
    let left = store
        .range_all(
            KeyRange::prefix("/calico/ipam/"),
            twill_datastore::Consistency::Linearised,
        )
        .await?;
    ensure!(left.kvs.is_empty(), "{} keys are left", left.kvs.len());
    Ok(())
}

/// A full block with affinity, handles and, if asked for, endpoints.
async fn put_block(store: &EtcdStore, index: u32, node: &str, with_endpoints: bool) -> Result<()> {
    let first = u32::from_be_bytes([10, 0, 0, 0]) + index * 64;
    let cidr = IpNet::new(std::net::Ipv4Addr::from(first).into(), 26)?;
    let name = cidr.to_string().replacen('/', "-", 1);
    let handle = |i: usize| world::handle("", u64::from(index) * 64 + i as u64);
    let mut pairs = vec![
        (
            format!("/calico/ipam/v2/assignment/ipv4/block/{name}"),
            full_block(&cidr, node, handle),
        ),
        (
            format!("/calico/ipam/v2/host/{node}/ipv4/block/{name}"),
            "{\"state\":\"confirmed\",\"deleted\":false}".to_owned(),
        ),
    ];
    for i in 0..64usize {
        let id = handle(i);
        pairs.push((
            format!("/calico/ipam/v2/handle/{id}"),
            format!("{{\"block\":{{\"{cidr}\":1}},\"deleted\":false}}"),
        ));
        if with_endpoints {
            let address = std::net::Ipv4Addr::from(first + u32::try_from(i)?);
            pairs.push((
                world::endpoint_key(node, &id),
                world::endpoint_json(node, &id, &[address.into()]),
            ));
        }
    }
    world::put_all(store, pairs).await
}
