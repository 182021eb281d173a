//! The numbers of docs/numbers.md: Twill's allocator against Calico's steps, in one run, on one etcd, with one client.
//! Counts are what is promised; times are to be compared within a run only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use ipnet::IpNet;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twill_datastore::etcd::EtcdStore;
use twill_datastore::syncer::Syncer;
use twill_datastore::{KeyRange, Store};
use twill_ipam::check::check;
use twill_ipam::collect::{Guards, pass, scan};
use twill_ipam::{Allocator, Client, system_clock};

use crate::calico::{CalicoNode, full_block};
use crate::etcd::Etcd;
use crate::world::{self, PoolSpec};

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
}

/// An allocator with its feed.
struct Twill {
    client: Client,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Twill {
    async fn start(store: &EtcdStore, node: &str) -> Result<Self> {
        let (allocator, client) = Allocator::new(store.clone(), node, system_clock());
        let (syncer, changes) = Syncer::new(store.clone(), world::ranges(node), 1);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(allocator.run(stop.clone()));
        tasks.spawn(syncer.run());
        tasks.spawn(world::feed(changes, client.clone()));
        Ok(Self { client, stop, tasks })
    }

    async fn end(mut self) {
        self.stop.cancel();
        self.tasks.shutdown().await;
    }
}

/// Runs everything and prints it.
///
/// # Errors
/// If etcd cannot be run, or something that is measured fails.
pub async fn run(args: BenchArgs) -> Result<()> {
    println!("etcd: {} member(s), data on disk", args.members);
    steady(&args).await?;
    burst(&args).await?;
    crowd(&args).await?;
    if !args.quick {
        filled(&args).await?;
        dead(&args).await?;
    }
    Ok(())
}

async fn fresh(members: usize, cidr: &str, nodes: &[String]) -> Result<(Etcd, EtcdStore)> {
    let etcd = Etcd::start(members).await?;
    let store = etcd.patient_store().await?;
    let pool = PoolSpec {
        cidr: cidr.parse()?,
        block_size: 26,
        reserved: Vec::new(),
    };
    world::lay_out(&store, &pool, nodes).await?;
    Ok((etcd, store))
}

fn line(what: &str, calico: Duration, twill: Duration) {
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    println!(
        "{what}: Calico's way {:.2} ms, Twill {:.2} ms, ratio 1/{:.1}",
        ms(calico),
        ms(twill),
        calico.as_secs_f64() / twill.as_secs_f64().max(1e-9)
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// One node, one pod at a time, turn about.
async fn steady(args: &BenchArgs) -> Result<()> {
    let nodes = ["calico".to_owned(), "twill".to_owned()];
    let (_etcd, store) = fresh(args.members, "10.0.0.0/12", &nodes).await?;
    let mut calico = CalicoNode::new(store.clone(), "calico");
    let twill = Twill::start(&store, "twill").await?;
    // Half-full blocks, as in the reference.
    for i in 0..32 {
        calico.assign(&world::handle("calico", i)).await?;
        twill
            .client
            .assign(world::pod("twill", &world::handle("twill", i)))
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
            .assign(world::pod("twill", &world::handle("twill", i)))
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
    line("assign p50, one pod at a time", median(theirs), median(ours));
    twill.end().await;
    Ok(())
}

/// 110 pods at once on one node.
async fn burst(args: &BenchArgs) -> Result<()> {
    const PODS: u64 = 110;
    let nodes = ["calico".to_owned(), "twill".to_owned()];
    let (_etcd, store) = fresh(args.members, "10.0.0.0/12", &nodes).await?;
    let mut calico = CalicoNode::new(store.clone(), "calico");
    let begun = Instant::now();
    for i in 0..PODS {
        calico.assign(&world::handle("calico", i)).await?;
    }
    let theirs = begun.elapsed();
    let twill = Twill::start(&store, "twill").await?;
    // Its first pod claims the first block, as the node's own tunnel or daemons' pods do.
    twill
        .client
        .assign(world::pod("twill", &world::handle("twill", 9999)))
        .await?;
    let commits = twill.client.counters().commits.value();
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for i in 0..PODS {
        let client = twill.client.clone();
        all.spawn(async move {
            client
                .assign(world::pod("twill", &world::handle("twill", i)))
                .await
        });
    }
    let mut given = BTreeSet::new();
    while let Some(ended) = all.join_next().await {
        given.extend(ended??.addresses);
    }
    let ours = begun.elapsed();
    ensure!(given.len() == 110, "{} addresses for 110 pods", given.len());
    let commits = twill.client.counters().commits.value() - commits;
    println!("110 pods at once on one node: {commits} commits, the claim of a second block in one of them");
    line("110 pods at once on one node", theirs, ours);
    twill.end().await;
    Ok(())
}

/// 64 nodes, 30 pods each.
async fn crowd(args: &BenchArgs) -> Result<()> {
    const NODES: usize = 64;
    const PODS: u64 = 30;
    let names: Vec<String> = (0..NODES)
        .flat_map(|i| [format!("c{i}"), format!("t{i}")])
        .collect();
    let (_etcd, store) = fresh(args.members, "10.0.0.0/12", &names).await?;
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for i in 0..NODES {
        let name = format!("c{i}");
        let mut node = CalicoNode::new(store.clone(), &name);
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
    let mut twills = Vec::new();
    for i in 0..NODES {
        twills.push(Twill::start(&store, &format!("t{i}")).await?);
    }
    // In sync before the clock starts: one pod each, taken back.
    for (i, twill) in twills.iter().enumerate() {
        let name = format!("t{i}");
        let handle = world::handle(&name, 9999);
        twill.client.assign(world::pod(&name, &handle)).await?;
        twill.client.release(world::gone(&name, &handle)).await?;
    }
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for (i, twill) in twills.iter().enumerate() {
        for pod in 0..PODS {
            let (client, name) = (twill.client.clone(), format!("t{i}"));
            all.spawn(async move { client.assign(world::pod(&name, &world::handle(&name, pod))).await });
        }
    }
    while let Some(ended) = all.join_next().await {
        ended??;
    }
    line("1,920 pods on 64 nodes", theirs, begun.elapsed());
    for twill in twills {
        twill.end().await;
    }
    Ok(())
}

/// A million addresses: claim of one more block, and a check of all of it.
async fn filled(args: &BenchArgs) -> Result<()> {
    let nodes = ["calico".to_owned(), "twill".to_owned()];
    let (_etcd, store) = fresh(args.members, "10.0.0.0/11", &nodes).await?;
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
            .assign(world::pod("twill", &world::handle("twill", round)))
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
            all.spawn(async move { client.assign(world::pod("twill", &handle)).await });
        }
        while let Some(ended) = all.join_next().await {
            ended??;
        }
    }
    let mut calico = CalicoNode::new(store.clone(), "calico");
    let begun = Instant::now();
    calico.claim().await?;
    line(
        &format!("claim a block with {} in the pool", args.blocks),
        begun.elapsed(),
        median(taken),
    );
    twill.end().await;
    let before = rss_peak();
    let begun = Instant::now();
    let report = check(&store).await?;
    let addresses: usize = report.usage.blocks.iter().map(|b| b.used).sum();
    println!(
        "check of {addresses} addresses at revision {}: {:.2} s, {} problems, peak memory of the process {} MB (before: {} MB)",
        report.revision,
        begun.elapsed().as_secs_f64(),
        report.problems.len(),
        rss_peak() / 1024,
        before / 1024
    );
    Ok(())
}

/// Nodes without resource, 64 addresses each.
async fn dead(args: &BenchArgs) -> Result<()> {
    let (_etcd, store) = fresh(args.members, "10.0.0.0/11", &["n1".to_owned()]).await?;
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

/// The most memory that this process ever had, in KiB.
fn rss_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
