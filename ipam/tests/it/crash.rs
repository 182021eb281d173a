//! Every step at which a process can die, one by one: before a call is carried out, after it but before its answer, or long
//! before a call that still arrives. Each with nobody else at work, with a rival node, and with a releaser of Calico's kind.
//! Afterwards the node starts again, the runtime repeats what it was not told of, and one collection leaves nothing behind.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twill_datastore::mem::{Fault, Hold};
use twill_datastore::{Compare, Op, Store, Txn};
use twill_ipam::check::check;
use twill_ipam::collect::{Mode, Runner};
use twill_ipam::{Allocator, Assign, Client, Family, Want};
use twill_model::{AffinityOwner, Key};

use crate::collect::Hand;
use crate::support::*;

/// What happens to the call at which the process dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    /// It was never sent.
    Before,
    /// It was carried out.
    After,
    /// It arrives when the process has started again.
    Late,
}

/// Who else is at work between death and return.
#[derive(Clone, Copy, Debug)]
enum Others {
    Nobody,
    Rival,
    Releaser,
}

/// What the process was doing.
#[derive(Clone, Copy, Debug)]
enum Doing {
    AddFromOwnBlock,
    AddWithClaim,
    AddWithTakeOver,
    AddByBorrowing,
    AddSpecific,
    AddDualStack,
    AddAgain,
    Del,
    DelLastOfBlock,
    DelByAddress,
    Confirm,
    Collect,
}

const ALL: [Doing; 12] = [
    Doing::AddFromOwnBlock,
    Doing::AddWithClaim,
    Doing::AddWithTakeOver,
    Doing::AddByBorrowing,
    Doing::AddSpecific,
    Doing::AddDualStack,
    Doing::AddAgain,
    Doing::Del,
    Doing::DelLastOfBlock,
    Doing::DelByAddress,
    Doing::Confirm,
    Doing::Collect,
];
/// More calls than any of these makes.
const CALLS_MAX: usize = 12;
const GRACE: u64 = 15 * 60 * 1000;

struct World {
    cluster: Cluster,
    hand: Hand,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::with_block_size("10.244.0.0/29", 30).await;
        put_pool(&cluster.store, "six", "fd00::/124", "\"blockSize\":126").await;
        let hand = Hand::default();
        hand.forward(1_000_000);
        Self {
            cluster,
            hand,
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Starts the node that is to die.
    async fn start(&mut self) -> Client {
        self.stop = CancellationToken::new();
        let store = self.cluster.store.clone();
        store.put(node_key("n1"), node_json("n1")).await.unwrap();
        let (allocator, client) = Allocator::new(store.clone(), "n1", self.hand.clock());
        self.tasks.spawn(allocator.run(self.stop.clone()));
        self.tasks
            .spawn(feed(store, "n1".to_owned(), client.clone(), self.stop.clone()));
        client
    }

    async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }

    async fn pods(&self, client: &Client, node: &str, handles: &[&str]) {
        for handle in handles {
            client.assign(pod(node, handle)).await.unwrap();
        }
    }
}

fn request(doing: Doing) -> Assign {
    let mut assign = pod("n1", "net.x");
    match doing {
        Doing::AddSpecific => assign.wants = vec![Want::Address("10.244.0.6".parse().unwrap())],
        Doing::AddDualStack => assign.wants = vec![Want::any(Family::V4), Want::any(Family::V6)],
        _ => {}
    }
    assign
}

/// What is there before; the handles that are up.
async fn prepare(world: &mut World, doing: Doing, n1: &Client) -> Vec<&'static str> {
    let mut up = match doing {
        Doing::AddWithClaim | Doing::AddSpecific | Doing::AddDualStack => vec![],
        Doing::AddFromOwnBlock => vec!["net.a"],
        Doing::AddAgain | Doing::Del | Doing::DelByAddress => vec!["net.a", "net.x"],
        Doing::DelLastOfBlock | Doing::Confirm | Doing::Collect => vec!["net.x"],
        Doing::AddWithTakeOver | Doing::AddByBorrowing => vec!["net.a", "net.b", "net.c", "net.d"],
    };
    world.pods(n1, "n1", &up).await;
    if matches!(doing, Doing::AddWithTakeOver | Doing::AddByBorrowing) {
        let n2 = world.cluster.node_at("n2", world.hand.clock()).await;
        world.pods(&n2, "n2", &["net.m"]).await;
        if matches!(doing, Doing::AddWithTakeOver) {
            n2.release(release("net.m")).await.unwrap();
            world.hand.forward(120_000);
        } else {
            up.push("net.m");
        }
    }
    up
}

/// Dies at call `k` of `doing`; false if it came to its end without that many calls.
async fn die(doing: Doing, k: usize, death: Death, others: Others) -> bool {
    let mut world = World::new().await;
    let n1 = world.start().await;
    let mut up = prepare(&mut world, doing, &n1).await;
    let store = world.cluster.store.clone();
    let hit = Arc::new(Notify::new());
    let late: Arc<Mutex<Option<Txn>>> = Arc::default();
    arm(&world, doing, k, death, &hit, &late);
    let mut runner = Runner::new(store.clone(), "n1", world.hand.clock());
    if matches!(doing, Doing::Collect) {
        store.faults().clear();
        leak(&world, "net.x").await;
        up.clear();
        runner.pass(Mode::Collect).await.unwrap();
        world.hand.forward(GRACE);
        arm(&world, doing, k, death, &hit, &late);
    }
    let ended = tokio::select! {
        biased;
        () = hit.notified() => false,
        () = act(&world, doing, &n1, &mut runner) => true,
    };
    store.faults().clear();
    if ended {
        world.kill().await;
        world.cluster.stop().await;
        return false;
    }
    world.kill().await;
    meanwhile(&mut world, others, &mut up).await;
    let n1 = world.start().await;
    // The first answer comes when the fence of the dead process is up.
    n1.release(bare_release("net.nothing")).await.unwrap();
    let arrived = late.lock().unwrap().take();
    if let Some(txn) = arrived {
        store.txn(txn).await.unwrap();
    }
    // The runtime was told of nothing: it deletes what it wanted added, and repeats its DEL.
    if !matches!(doing, Doing::Confirm | Doing::AddAgain) {
        n1.release(release("net.x")).await.unwrap();
        up.retain(|handle| *handle != "net.x");
    }
    finish(world, doing, &up).await;
    true
}

/// The `k`-th call of this node is its last: whatever it sends after it never leaves.
fn arm(
    world: &World,
    doing: Doing,
    k: usize,
    death: Death,
    hit: &Arc<Notify>,
    late: &Arc<Mutex<Option<Txn>>>,
) {
    let (hit, late) = (Arc::clone(hit), Arc::clone(late));
    let mut holds: Vec<Hold> = Vec::new();
    let mut seen = 0;
    world.cluster.store.faults().rule(move |txn| {
        if !is_ours(txn, doing) {
            return None;
        }
        seen += 1;
        if seen <= k {
            return None;
        }
        if seen == k + 1 {
            hit.notify_one();
            if death == Death::After {
                return Some(Fault::LoseReply);
            }
            if death == Death::Late {
                *late.lock().unwrap() = Some(txn.clone());
            }
        }
        let (fault, hold) = Fault::hold();
        holds.push(hold);
        Some(fault)
    });
}

/// Whether the dying process sent it: n1's allocator, or the collector. Tests' own writes compare nothing.
fn is_ours(txn: &Txn, doing: Doing) -> bool {
    let is_fence = |key: &[u8]| key.starts_with(b"/twill/ipam/fence/");
    let fences = txn.compares.iter().map(|c| c.range.start().clone());
    let puts = txn.then.iter().filter_map(|op| match op {
        Op::Put { key, .. } => Some(key.clone()),
        _ => None,
    });
    let fence = fences.chain(puts).find(|key| is_fence(key));
    let is_read = !txn.then.is_empty() && txn.then.iter().all(|op| matches!(op, Op::Range(_)));
    match (doing, fence) {
        (Doing::Collect, fence) => fence.is_none() && (is_read || !txn.compares.is_empty()),
        (_, Some(fence)) => fence.ends_with(b"/n1"),
        (_, None) => is_read,
    }
}

async fn leak(world: &World, handle: &str) {
    world
        .cluster
        .store
        .delete_prefix(endpoint_key(handle))
        .await
        .unwrap();
}

async fn act(world: &World, doing: Doing, n1: &Client, runner: &mut Runner<twill_datastore::mem::MemStore>) {
    // A refusal is an answer too: what counts is what is left behind.
    match doing {
        Doing::Del | Doing::DelLastOfBlock => drop(n1.release(release("net.x")).await),
        Doing::DelByAddress => {
            let held = world.cluster.contents().await.holders();
            let address = *held.iter().find(|(_, h)| *h == "net.x").unwrap().0;
            let mut by_address = release("net.x");
            by_address.target = twill_ipam::ReleaseTarget::Address {
                address,
                handle: Some("net.x".to_owned()),
                sequence: None,
            };
            drop(n1.release(by_address).await);
        }
        Doing::Confirm => {
            let contents = world.cluster.contents().await;
            let cidr = *contents.blocks.keys().next().unwrap();
            let key = Key::affinity(AffinityOwner::Host("n1".to_owned()), cidr).path();
            let pending = "{\"state\":\"pendingDeletion\",\"deleted\":false}";
            world.cluster.store.put(key, pending).await.unwrap();
            loop {
                let contents = world.cluster.contents().await;
                if contents.affinities.values().all(|a| a.state.is_confirmed()) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
        Doing::Collect => drop(runner.pass(Mode::Collect).await),
        add => drop(n1.assign(request(add)).await),
    }
}

/// What others do while the process is dead.
async fn meanwhile(world: &mut World, others: Others, up: &mut Vec<&'static str>) {
    match others {
        Others::Nobody => {}
        Others::Rival => {
            let rival = world.cluster.node_at("n3", world.hand.clock()).await;
            if rival.assign(pod("n3", "net.r")).await.is_ok() {
                up.push("net.r");
            }
        }
        Others::Releaser => {
            // Affinity to pendingDeletion; then it finds the block in use, or takes it away, and stops half-way.
            let contents = world.cluster.contents().await;
            let Some((cidr, block)) = contents.blocks.iter().find(|(_, b)| b.host() == Some("n1")) else {
                return;
            };
            let affinity = Key::affinity(AffinityOwner::Host("n1".to_owned()), *cidr).path();
            let pending = "{\"state\":\"pendingDeletion\",\"deleted\":false}";
            let store = &world.cluster.store;
            store.put(affinity, pending).await.unwrap();
            if block.allocations.iter().all(Option::is_none) {
                let key = Key::block(*cidr).path();
                let at = store.get(key.clone()).await.unwrap().unwrap().mod_revision;
                let txn = Txn::when(vec![Compare::mod_revision(key.clone(), at)]).then(vec![Op::delete(key)]);
                store.txn(txn).await.unwrap();
            }
        }
    }
}

async fn finish(mut world: World, doing: Doing, up: &[&str]) {
    let store = world.cluster.store.clone();
    let mut collector = Runner::new(store.clone(), "n9", world.hand.clock());
    collector.pass(Mode::Collect).await.unwrap();
    world.hand.forward(GRACE);
    collector.pass(Mode::Collect).await.unwrap();
    let settled = async {
        loop {
            let report = check(&store).await.unwrap();
            let holders = world.cluster.contents().await.holders();
            let mut held: Vec<&str> = holders.values().map(String::as_str).collect();
            held.sort_unstable();
            let mut wanted = up.to_vec();
            wanted.sort_unstable();
            if report.problems.is_empty() && held == wanted {
                return;
            }
            // Chores wait for their grace period, by the hand's clock; the allocator looks each second.
            world.hand.forward(2000);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(std::time::Duration::from_secs(20), settled)
        .await
        .is_err()
    {
        let report = check(&store).await.unwrap();
        let holders = world.cluster.contents().await.holders();
        panic!(
            "{doing:?} left {:?}; held {holders:?}, up {up:?}",
            report.problems
        );
    }
    world.kill().await;
    world.cluster.stop().await;
}

async fn all(doing: Doing) -> usize {
    let mut points = 0;
    for death in [Death::Before, Death::After, Death::Late] {
        for others in [Others::Nobody, Others::Rival, Others::Releaser] {
            for k in 0..CALLS_MAX {
                if !die(doing, k, death, others).await {
                    break;
                }
                points += 1;
            }
        }
    }
    points
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_step_is_so_that_dying_at_it_loses_an_address_or_gives_one_twice() {
    let mut points = 0;
    let mut running = JoinSet::new();
    for doing in ALL {
        running.spawn(async move { (doing, all(doing).await) });
    }
    while let Some(ended) = running.join_next().await {
        let (doing, here) = ended.unwrap();
        println!("{doing:?}: {here} deaths");
        assert!(here >= 9, "{doing:?} died only {here} times");
        points += here;
    }
    println!("{points} deaths survived");
}
