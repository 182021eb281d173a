//! The collector frees what nobody has, and nothing else, whatever happens between its looks and its writes.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use twill_datastore::mem::MemStore;
use twill_datastore::{Op, Store, Txn};
use twill_ipam::check::check;
use twill_ipam::collect::{COLLECTOR_KEY, Mode, Pass, Runner};
use twill_ipam::{Client, Clock, Now};

use crate::support::*;

const GRACE: u64 = 15 * 60 * 1000;
const CONTROLLERS: &str = "/calico/resources/v3/projectcalico.org/kubecontrollersconfigurations/default";

/// A clock that a test moves.
#[derive(Clone, Default)]
pub(crate) struct Hand(Arc<AtomicU64>);

impl Hand {
    pub(crate) fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) fn clock(&self) -> Clock {
        let hand = self.0.clone();
        Box::new(move || {
            let mono_ms = hand.load(Ordering::Relaxed);
            Now {
                unix_nanos: 1_787_405_600_000_000_000 + mono_ms * 1_000_000,
                mono_ms,
            }
        })
    }
}

struct Bench {
    cluster: Cluster,
    client: Client,
    hand: Hand,
    runner: Runner<MemStore>,
}

async fn bench(pods: &[&str]) -> Bench {
    let mut cluster = Cluster::with_block_size("10.244.0.0/16", 28).await;
    let client = cluster.node("n1").await;
    for handle in pods {
        client.assign(pod("n1", handle)).await.unwrap();
    }
    let hand = Hand::default();
    let runner = Runner::new(cluster.store.clone(), "n1", hand.clock());
    Bench {
        cluster,
        client,
        hand,
        runner,
    }
}

impl Bench {
    async fn lose_endpoint(&self, handle: &str) {
        let txn = Txn::default().then(vec![Op::delete(endpoint_key(handle))]);
        self.cluster.store.txn(txn).await.unwrap();
    }

    /// Two passes a grace period apart.
    async fn collect(&mut self) -> Pass {
        let first = self.runner.pass(Mode::Collect).await.unwrap();
        assert_eq!((first.freed.len(), first.handles.len()), (0, 0), "{first:?}");
        self.hand.forward(GRACE);
        self.runner.pass(Mode::Collect).await.unwrap()
    }

    async fn problems(&self) -> usize {
        check(&self.cluster.store).await.unwrap().problems.len()
    }
}

#[tokio::test]
async fn an_address_without_endpoint_is_freed_after_the_grace_period_and_no_other() {
    let mut bench = bench(&["net.a", "net.b", "net.c"]).await;
    bench.lose_endpoint("net.b").await;
    let done = bench.collect().await;
    assert_eq!(done.freed.len(), 1, "{done:?}");
    let contents = bench.cluster.contents().await;
    let mut handles: Vec<&str> = contents.handles.keys().map(String::as_str).collect();
    handles.sort_unstable();
    assert_eq!(handles, ["net.a", "net.c"]);
    assert_eq!(bench.problems().await, 0);
    // The allocator that owns the block goes on with it.
    bench.client.assign(pod("n1", "net.d")).await.unwrap();
    bench.cluster.stop().await;
}

#[tokio::test]
async fn one_observation_frees_nothing_and_a_shorter_time_than_the_grace_neither() {
    let mut bench = bench(&["net.a"]).await;
    bench.lose_endpoint("net.a").await;
    assert_eq!(bench.runner.pass(Mode::Collect).await.unwrap().seen, 1);
    bench.hand.forward(GRACE - 1);
    assert!(bench.runner.pass(Mode::Collect).await.unwrap().freed.is_empty());
    bench.hand.forward(1);
    assert_eq!(bench.runner.pass(Mode::Collect).await.unwrap().freed.len(), 1);
    bench.cluster.stop().await;
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_free_and_writes_nothing() {
    let mut bench = bench(&["net.a"]).await;
    bench.lose_endpoint("net.a").await;
    bench.runner.pass(Mode::DryRun).await.unwrap();
    bench.hand.forward(GRACE);
    let before = bench.cluster.store.progress().await.unwrap();
    let would = bench.runner.pass(Mode::DryRun).await.unwrap();
    assert_eq!(would.freed.len(), 1);
    assert_eq!(bench.cluster.store.progress().await.unwrap(), before);
    bench.cluster.stop().await;
}

/// A block of the balancer's, in which two handles hold an address: of `attributes` each.
async fn balanced(store: &MemStore, attributes: [&str; 2]) {
    let block = format!(
        r#"{{"cidr":"10.244.9.0/28","affinity":"virtual:load-balancer","affinity_claim_time":"2026-08-22T13:33:20Z","allocations":[0,1,{}],"unallocated":[2,3,4,5,6,7,8,9,10,11,12,13,14,15],"attributes":[{{"handle_id":"lb.one","secondary":{}}},{{"handle_id":"lb.two","secondary":{}}}],"sequenceNumber":3,"sequenceNumberForAllocation":{{"0":1,"1":2}},"deleted":false}}"#,
        ["null"; 14].join(","),
        attributes[0],
        attributes[1]
    );
    let counts = r#"{"block":{"10.244.9.0/28":1},"deleted":false}"#.to_owned();
    let pairs = [
        (
            "/calico/ipam/v2/assignment/ipv4/block/10.244.9.0-28".to_owned(),
            block,
        ),
        (
            "/calico/ipam/v2/virtual/load-balancer/ipv4/block/10.244.9.0-28".to_owned(),
            "{\"state\":\"confirmed\",\"deleted\":false}".to_owned(),
        ),
        ("/calico/ipam/v2/handle/lb.one".to_owned(), counts.clone()),
        ("/calico/ipam/v2/handle/lb.two".to_owned(), counts),
    ];
    for (key, value) in pairs {
        store.put(key, value).await.unwrap();
    }
}

#[tokio::test]
async fn the_address_of_a_service_stays_however_long_and_one_that_only_looks_like_it_goes() {
    let mut bench = bench(&[]).await;
    let service = r#"{"namespace":"shop","service":"web","type":"LoadBalancer"}"#;
    let alone = r#"{"namespace":"shop","service":"web"}"#;
    balanced(&bench.cluster.store, [service, alone]).await;
    for _ in 0..3 {
        let done = bench.collect().await;
        assert_eq!((done.freed.len(), done.blocks.len()), (0, 0), "{done:?}");
    }
    let handles = bench.cluster.contents().await.handles;
    assert!(handles.contains_key("lb.one") && handles.contains_key("lb.two"));
    // The same handle and block for a pod that is nowhere.
    balanced(
        &bench.cluster.store,
        [service, r#"{"namespace":"shop","pod":"web","node":"n1"}"#],
    )
    .await;
    let done = bench.collect().await;
    assert_eq!(done.freed.len(), 1, "{done:?}");
    let handles = bench.cluster.contents().await.handles;
    assert!(handles.contains_key("lb.one") && !handles.contains_key("lb.two"));
    bench.cluster.stop().await;
}

#[tokio::test]
async fn an_address_released_and_given_anew_between_two_looks_is_a_new_one() {
    let mut bench = bench(&["net.a"]).await;
    bench.lose_endpoint("net.a").await;
    bench.runner.pass(Mode::Collect).await.unwrap();
    bench.client.release(bare_release("net.a")).await.unwrap();
    bench.client.assign(pod("n1", "net.a")).await.unwrap();
    bench.lose_endpoint("net.a").await;
    bench.hand.forward(GRACE);
    assert!(bench.runner.pass(Mode::Collect).await.unwrap().freed.is_empty());
    bench.cluster.stop().await;
}

/// The collector stands still between its read and its write, as a stopped process does; meanwhile `change` happens.
async fn stopped_between(change: impl AsyncFnOnce(&Bench)) -> (Bench, Pass) {
    let mut bench = bench(&["net.a", "net.b"]).await;
    bench.lose_endpoint("net.a").await;
    bench.runner.pass(Mode::Collect).await.unwrap();
    bench.hand.forward(GRACE);
    let (fault, mut hold) = twill_datastore::mem::Fault::hold();
    let mut fault = Some(fault);
    // Its transactions that write are those with compares on the block.
    bench.cluster.store.faults().rule(move |txn| {
        let sweeps = txn
            .compares
            .iter()
            .any(|c| c.range.start().starts_with(b"/calico/ipam/v2/assignment/"));
        let fenced = txn
            .compares
            .iter()
            .any(|c| c.range.start().starts_with(b"/twill/ipam/fence/"));
        if sweeps && !fenced { fault.take() } else { None }
    });
    let store = bench.cluster.store.clone();
    let mut runner = std::mem::replace(&mut bench.runner, Runner::new(store, "n1", bench.hand.clock()));
    let pass = tokio::spawn(async move { runner.pass(Mode::Collect).await });
    hold.arrived().await;
    change(&bench).await;
    drop(hold);
    let done = pass.await.unwrap().unwrap();
    (bench, done)
}

#[tokio::test]
async fn a_collector_stopped_between_read_and_write_frees_only_what_is_still_leaked() {
    let (bench, done) = stopped_between(async |_| {}).await;
    assert_eq!(done.freed.len(), 1);
    bench.cluster.stop().await;
}

#[tokio::test]
async fn a_collector_stopped_between_read_and_write_frees_nothing_that_was_given_anew() {
    let (bench, done) = stopped_between(async |bench| {
        bench.client.release(bare_release("net.a")).await.unwrap();
        bench.client.assign(pod("n1", "net.z")).await.unwrap();
    })
    .await;
    assert_eq!(done.freed, Vec::<IpAddr>::new());
    let contents = bench.cluster.contents().await;
    assert!(contents.handles.contains_key("net.z") && !contents.handles.contains_key("net.a"));
    bench.cluster.stop().await;
}

#[tokio::test]
async fn a_collector_stopped_between_read_and_write_spares_a_pod_whose_endpoint_came_late() {
    let (bench, done) = stopped_between(async |bench| {
        // As a Calico node names it.
        let held = bench.cluster.contents().await.holders();
        let address = held.iter().find(|(_, handle)| *handle == "net.a").unwrap().0;
        let key = endpoint_key("n1-k8s-net.a-eth0");
        let json = endpoint_json("n1-k8s-net.a-eth0", &[*address]);
        bench.cluster.store.put(key, json).await.unwrap();
    })
    .await;
    assert_eq!(done.freed, Vec::<IpAddr>::new());
    assert_eq!(done.kept.len(), 1, "{done:?}");
    bench.cluster.stop().await;
}

#[tokio::test]
async fn a_node_that_is_gone_leaves_nothing_behind_but_what_others_borrow() {
    let mut bench = bench(&["net.a", "net.b"]).await;
    let n2 = bench.cluster.node("n2").await;
    n2.assign(pod("n2", "net.c")).await.unwrap();
    let borrowed = bare(
        "n2",
        "net.d",
        twill_ipam::Want::Address("10.244.0.9".parse().unwrap()),
    );
    let block = bench.cluster.contents().await;
    let of_n1 = block
        .blocks
        .values()
        .find(|b| b.host() == Some("n1"))
        .unwrap()
        .cidr;
    let wanted = of_n1.hosts().nth(9).unwrap();
    let borrowed = twill_ipam::Assign {
        wants: vec![twill_ipam::Want::Address(wanted)],
        ..borrowed
    };
    n2.assign(borrowed).await.unwrap();
    bench
        .cluster
        .store
        .put(endpoint_key("net.d"), endpoint_json("net.d", &[wanted]))
        .await
        .unwrap();
    bench.cluster.store.delete_prefix(node_key("n1")).await.unwrap();
    let done = bench.collect().await;
    assert_eq!(done.freed.len(), 2, "{done:?}");
    assert_eq!(done.blocks, [of_n1]);
    let contents = bench.cluster.contents().await;
    let left = &contents.blocks[&of_n1];
    assert_eq!(
        (left.affinity.as_deref(), left.affinity_claim_time.as_deref()),
        (None, None)
    );
    assert!(contents.affinities.keys().all(|(owner, _)| owner == "host:n2"));
    assert_eq!(contents.holders().len(), 2);
    bench.cluster.stop().await;
}

#[tokio::test]
async fn a_borrowed_address_without_endpoint_is_freed_and_the_block_stays_its_owners() {
    let mut bench = bench(&["net.a"]).await;
    let n2 = bench.cluster.node("n2").await;
    let of_n1 = *bench.cluster.contents().await.blocks.keys().next().unwrap();
    let wanted = of_n1.hosts().nth(9).unwrap();
    let borrowed = bare("n2", "net.d", twill_ipam::Want::Address(wanted));
    n2.assign(borrowed).await.unwrap();
    let done = bench.collect().await;
    assert_eq!((done.freed, done.blocks), (vec![wanted], vec![of_n1]));
    let contents = bench.cluster.contents().await;
    assert_eq!(contents.blocks[&of_n1].host(), Some("n1"));
    assert_eq!(contents.holders().into_values().collect::<Vec<_>>(), ["net.a"]);
    assert!(!contents.handles.contains_key("net.d"));
    bench.cluster.stop().await;
}

#[tokio::test]
async fn a_node_that_comes_back_within_the_grace_period_keeps_everything() {
    let mut bench = bench(&["net.a"]).await;
    bench.cluster.store.delete_prefix(node_key("n1")).await.unwrap();
    bench.runner.pass(Mode::Collect).await.unwrap();
    bench
        .cluster
        .store
        .put(node_key("n1"), node_json("n1"))
        .await
        .unwrap();
    bench.hand.forward(GRACE);
    let done = bench.runner.pass(Mode::Collect).await.unwrap();
    assert!(done.freed.is_empty() && done.blocks.is_empty(), "{done:?}");
    assert_eq!(bench.problems().await, 0);
    bench.cluster.stop().await;
}

#[tokio::test]
async fn handles_without_addresses_go_and_those_that_change_stay() {
    let mut bench = bench(&["net.a"]).await;
    let leaked = r#"{"block":{"10.244.9.0/28":1},"deleted":false}"#;
    for id in ["gone.1", "gone.2"] {
        bench
            .cluster
            .store
            .put(format!("/calico/ipam/v2/handle/{id}"), leaked)
            .await
            .unwrap();
    }
    bench.runner.pass(Mode::Collect).await.unwrap();
    bench
        .cluster
        .store
        .put("/calico/ipam/v2/handle/gone.2", leaked)
        .await
        .unwrap();
    bench.hand.forward(GRACE);
    let done = bench.runner.pass(Mode::Collect).await.unwrap();
    assert_eq!(done.handles, ["gone.1"]);
    bench.cluster.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_stops_nothing_but_conclusions_from_it() {
    let mut bench = bench(&["net.a", "net.b"]).await;
    bench.lose_endpoint("net.a").await;
    // An endpoint that cannot be read may be net.a's.
    bench
        .cluster
        .store
        .put(endpoint_key("garbled"), "{")
        .await
        .unwrap();
    let done = bench.collect().await;
    assert!(done.freed.is_empty());
    assert_eq!(done.unreadable.len(), 1);
    bench.cluster.stop().await;
}

#[tokio::test]
async fn a_grace_period_of_zero_turns_collection_off_and_a_locked_datastore_stops_it() {
    let mut bench = bench(&["net.a"]).await;
    bench.lose_endpoint("net.a").await;
    let config = |grace: &str| {
        format!(
            r#"{{"kind":"KubeControllersConfiguration","apiVersion":"projectcalico.org/v3","metadata":{{"name":"default"}},"spec":{{"controllers":{{"node":{{"leakGracePeriod":"{grace}"}}}}}},"status":{{}}}}"#
        )
    };
    bench.cluster.store.put(CONTROLLERS, config("0s")).await.unwrap();
    assert!(bench.collect().await.freed.is_empty());
    bench
        .cluster
        .store
        .put(CONTROLLERS, config("1m0s"))
        .await
        .unwrap();
    bench.cluster.store.put(CLUSTER, cluster(false)).await.unwrap();
    assert!(bench.collect().await.freed.is_empty());
    bench.cluster.store.put(CLUSTER, cluster(true)).await.unwrap();
    bench.runner.pass(Mode::Collect).await.unwrap();
    bench.hand.forward(60_000);
    assert_eq!(bench.runner.pass(Mode::Collect).await.unwrap().freed.len(), 1);
    bench.cluster.stop().await;
}

#[tokio::test]
async fn one_daemon_collects_and_another_takes_over_when_its_lease_ends() {
    let mut bench = bench(&["net.a"]).await;
    let mut other = Runner::new(bench.cluster.store.clone(), "n2", bench.hand.clock());
    assert!(bench.runner.beat().await.unwrap().is_some());
    assert!(other.beat().await.unwrap().is_none());
    let txn = Txn::default().then(vec![Op::delete(COLLECTOR_KEY)]);
    bench.cluster.store.txn(txn).await.unwrap();
    assert!(other.beat().await.unwrap().is_some());
    // Deposed: it neither looks nor writes.
    assert!(bench.runner.beat().await.unwrap().is_none());
    bench.cluster.stop().await;
}

#[tokio::test]
async fn two_hundred_and_fifty_dead_nodes_are_collected_in_one_pass() {
    let store = MemStore::new();
    store.put(CLUSTER, cluster(true)).await.unwrap();
    put_pool(&store, "default", "10.0.0.0/12", "\"blockSize\":26").await;
    dead_nodes(&store, 250).await;
    let hand = Hand::default();
    let mut runner = Runner::new(store.clone(), "n1", hand.clock());
    runner.pass(Mode::Collect).await.unwrap();
    hand.forward(GRACE);
    let done = runner.pass(Mode::Collect).await.unwrap();
    assert_eq!((done.freed.len(), done.blocks.len()), (250 * 64, 250));
    let contents = Contents::read(&store).await;
    assert!(contents.blocks.is_empty() && contents.handles.is_empty() && contents.affinities.is_empty());
}

/// Full blocks of nodes that have no resource.
async fn dead_nodes(store: &MemStore, count: u32) {
    for node in 0..count {
        let base = u32::from_be_bytes([10, 0, 0, 0]) + node * 64;
        let cidr = format!("{}/26", std::net::Ipv4Addr::from(base));
        let path = cidr.replace('/', "-");
        let handle = |i: u32| format!("net.{node}-{i}");
        let attributes: Vec<String> = (0..64)
            .map(|i| {
                format!(
                    r#"{{"handle_id":"{}","secondary":{{"namespace":"default","node":"dead{node}","pod":"p{i}"}}}}"#,
                    handle(i)
                )
            })
            .collect();
        let indexes: Vec<String> = (0..64).map(|i| i.to_string()).collect();
        let block = format!(
            r#"{{"cidr":"{cidr}","affinity":"host:dead{node}","allocations":[{}],"unallocated":[],"attributes":[{}],"sequenceNumber":65,"sequenceNumberForAllocation":{{}},"deleted":false}}"#,
            indexes.join(","),
            attributes.join(",")
        );
        let mut ops = vec![
            Op::put(format!("/calico/ipam/v2/assignment/ipv4/block/{path}"), block),
            Op::put(
                format!("/calico/ipam/v2/host/dead{node}/ipv4/block/{path}"),
                r#"{"state":"confirmed","deleted":false}"#,
            ),
        ];
        ops.extend((0..64).map(|i| {
            Op::put(
                format!("/calico/ipam/v2/handle/{}", handle(i)),
                format!(r#"{{"block":{{"{cidr}":1}},"deleted":false}}"#),
            )
        }));
        store.txn(Txn::default().then(ops)).await.unwrap();
    }
}
