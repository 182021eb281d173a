//! Calico's rules, one by one: whose blocks are taken over, what cools down, who may use which pool, what the last address
//! does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twill_datastore::{KeyRange, Store};
use twill_ipam::check::check;
use twill_ipam::tunnel::{Step, Tunnel};
use twill_ipam::{Allocator, Client, Error, Family, Now, Observed, Pool, Want};
use twill_model::AffinityOwner;
use twill_model::resources::ippool::AllowedUse;

use crate::support::*;

/// A clock whose wall time a test moves.
#[derive(Clone)]
struct Wall(Arc<AtomicU64>);

impl Wall {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_787_405_600)))
    }

    fn forward(&self, secs: u64) {
        self.0.fetch_add(secs, Ordering::Relaxed);
    }

    fn clock(&self) -> twill_ipam::Clock {
        let wall = self.0.clone();
        Box::new(move || {
            let secs = wall.load(Ordering::Relaxed);
            Now {
                unix_nanos: secs * 1_000_000_000,
                mono_ms: secs * 1000,
            }
        })
    }
}

/// Nodes on one store, with a clock of the test's.
struct Scene {
    cluster: Cluster,
    wall: Wall,
}

impl Scene {
    async fn new(pool: &str, block_size: u8) -> Self {
        Self {
            cluster: Cluster::with_block_size(pool, block_size).await,
            wall: Wall::new(),
        }
    }

    async fn node(&mut self, node: &str) -> Client {
        self.cluster.node_at(node, self.wall.clock()).await
    }

    async fn config(&self, json: &'static str) {
        self.cluster
            .store
            .put("/calico/ipam/v2/config", json)
            .await
            .unwrap();
    }

    async fn owners(&self) -> BTreeMap<String, String> {
        let contents = self.cluster.contents().await;
        let of = |block: &twill_model::ipam::Block| {
            (block.cidr.to_string(), block.affinity.clone().unwrap_or_default())
        };
        contents.blocks.values().map(of).collect()
    }

    async fn end(self) {
        assert_eq!(check(&self.cluster.store).await.unwrap().problems, []);
        self.cluster.stop().await;
    }
}

async fn fill(client: &Client, node: &str, from: usize, count: usize) -> Result<Vec<IpAddr>, Error> {
    let mut all = Vec::new();
    for i in from..from + count {
        all.extend(
            client
                .assign(pod(node, &format!("net.{node}-{i}")))
                .await?
                .addresses,
        );
    }
    Ok(all)
}

#[tokio::test]
async fn an_empty_block_is_taken_over_only_when_no_other_is_left_and_its_owner_had_it_a_minute() {
    let mut scene = Scene::new("10.244.0.0/29", 30).await;
    let (n1, n2) = (scene.node("n1").await, scene.node("n2").await);
    fill(&n1, "n1", 0, 1).await.unwrap();
    n1.release(release("net.n1-0")).await.unwrap();
    fill(&n2, "n2", 0, 4).await.unwrap();
    assert_eq!(scene.owners().await.len(), 2);
    // Young: borrowed from, not taken.
    let borrowed = fill(&n2, "n2", 4, 1).await.unwrap();
    assert_eq!(
        scene.owners().await.values().filter(|o| *o == "host:n1").count(),
        1
    );
    n2.release(release("net.n2-4")).await.unwrap();
    scene.wall.forward(60);
    let taken = fill(&n2, "n2", 5, 1).await.unwrap();
    assert_eq!(
        scene.owners().await.values().filter(|o| *o == "host:n2").count(),
        2
    );
    assert_eq!(borrowed[0].is_ipv4(), taken[0].is_ipv4());
    // The former owner lives on: it borrows, as it has no block any more.
    fill(&n1, "n1", 9, 1).await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn a_block_in_use_is_never_taken_over_and_strict_affinity_forbids_to_borrow_from_it() {
    let mut scene = Scene::new("10.244.0.0/30", 30).await;
    scene
        .config("{\"strict_affinity\":true,\"auto_allocate_blocks\":true}")
        .await;
    let (n1, n2) = (scene.node("n1").await, scene.node("n2").await);
    fill(&n1, "n1", 0, 1).await.unwrap();
    scene.wall.forward(3600);
    let error = fill(&n2, "n2", 0, 1).await.unwrap_err();
    assert!(matches!(error, Error::Exhausted { strict: true, .. }), "{error}");
    n1.release(release("net.n1-0")).await.unwrap();
    fill(&n2, "n2", 1, 1).await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn a_cool_down_is_stored_outlives_the_allocator_and_ends() {
    let mut scene = Scene::new("10.244.0.0/30", 30).await;
    scene
        .config("{\"auto_allocate_blocks\":true,\"ipCooldownSeconds\":60}")
        .await;
    let n1 = scene.node("n1").await;
    let all = fill(&n1, "n1", 0, 4).await.unwrap();
    n1.release(release("net.n1-2")).await.unwrap();
    let contents = scene.cluster.contents().await;
    let block = contents.blocks.values().next().unwrap();
    let released: Vec<&str> = block
        .attributes()
        .iter()
        .filter_map(|a| a.released_at.as_deref())
        .collect();
    assert_eq!(released, ["2026-08-22T13:33:20Z"]);
    assert!(!contents.handles.contains_key("net.n1-2"));
    assert_eq!(block.problems(), Vec::<String>::new());
    // Another allocator, which has no memory of it, honours it.
    let n2 = scene.node("n2").await;
    assert!(matches!(
        fill(&n2, "n2", 0, 1).await,
        Err(Error::Exhausted { .. })
    ));
    assert!(matches!(
        fill(&n1, "n1", 5, 1).await,
        Err(Error::Exhausted { .. })
    ));
    scene.wall.forward(61);
    assert_eq!(fill(&n1, "n1", 6, 1).await.unwrap(), [all[2]]);
    scene.end().await;
}

#[tokio::test]
async fn beside_a_calico_that_does_not_know_cool_downs_they_are_kept_in_memory_only() {
    let mut scene = Scene::new("10.244.0.0/30", 30).await;
    let old = cluster(true).replace("\"clusterGUID\"", "\"calicoVersion\":\"v3.32.1\",\"clusterGUID\"");
    scene.cluster.store.put(CLUSTER, old).await.unwrap();
    scene
        .config("{\"auto_allocate_blocks\":true,\"ipCooldownSeconds\":60}")
        .await;
    let n1 = scene.node("n1").await;
    fill(&n1, "n1", 0, 4).await.unwrap();
    n1.release(release("net.n1-2")).await.unwrap();
    let contents = scene.cluster.contents().await;
    let block = contents.blocks.values().next().unwrap();
    assert!(block.attributes().iter().all(|a| a.released_at.is_none()));
    assert!(fill(&n1, "n1", 5, 1).await.is_err());
    scene.wall.forward(61);
    fill(&n1, "n1", 6, 1).await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn namespaces_are_selected_by_the_labels_of_their_profiles() {
    let mut scene = Scene::new("10.244.0.0/24", 28).await;
    let store = scene.cluster.store.clone();
    put_pool(
        &store,
        "default",
        "10.244.0.0/24",
        "\"blockSize\":28,\"namespaceSelector\":\"team == 'a'\"",
    )
    .await;
    let n1 = scene.node("n1").await;
    let refused = fill(&n1, "n1", 0, 1).await.unwrap_err();
    assert!(matches!(refused, Error::NoPool { .. }), "{refused}");
    let profile = r#"{"kind":"Profile","apiVersion":"projectcalico.org/v3","metadata":{"name":"kns.default"},"spec":{"labelsToApply":{"pcns.team":"a"}}}"#;
    store
        .put(
            "/calico/resources/v3/projectcalico.org/profiles/kns.default",
            profile,
        )
        .await
        .unwrap();
    let served = async || fill(&n1, "n1", 1, 1).await.is_ok();
    eventually(served).await;
    scene.end().await;
}

/// Waits for what a watch has to bring first.
async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
}

#[tokio::test]
async fn a_load_balancers_address_comes_from_a_block_of_its_virtual_owner_alone() {
    let mut scene = Scene::new("10.244.0.0/24", 28).await;
    let store = scene.cluster.store.clone();
    put_pool(&store, "lb", "10.9.0.0/24", "\"blockSize\":28").await;
    let lb = pool_json("lb", "10.9.0.0/24", "\"blockSize\":28")
        .replace("\"Workload\",\"Tunnel\"", "\"LoadBalancer\"");
    store.put(pool_key("lb"), lb).await.unwrap();
    let owner = AffinityOwner::Virtual("load-balancer".to_owned());
    let (allocator, client) = Allocator::of(store.clone(), owner.clone(), scene.wall.clock());
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    tasks.spawn(allocator.run(stop.clone()));
    for prefix in twill_ipam::keys::watched_by(&owner) {
        let found = store
            .range_all(KeyRange::prefix(prefix), twill_datastore::Consistency::Linearised)
            .await
            .unwrap();
        client.update(found.kvs.into_iter().map(Observed::from));
    }
    client.in_sync();
    let mut service = bare("lb", "lb-4a5b", Want::any(Family::V4));
    service.purpose = AllowedUse::LoadBalancer;
    service.attributes = BTreeMap::from([("service".to_owned(), "web".to_owned())]);
    let got = client.assign(service.clone()).await.unwrap();
    assert!(
        "10.9.0.0/24"
            .parse::<ipnet::IpNet>()
            .unwrap()
            .contains(&got.addresses[0])
    );
    assert_eq!(
        scene.owners().await.into_values().collect::<Vec<_>>(),
        ["virtual:load-balancer"]
    );
    assert!(
        scene
            .cluster
            .contents()
            .await
            .affinities
            .keys()
            .all(|(o, _)| o == "virtual:load-balancer")
    );
    // A node assigns none, and the virtual owner nothing else.
    let n1 = scene.node("n1").await;
    assert!(matches!(
        n1.assign(service.clone()).await,
        Err(Error::WrongAllocator { .. })
    ));
    service.handle = "other".to_owned();
    service.purpose = AllowedUse::Workload;
    assert!(matches!(
        client.assign(service).await,
        Err(Error::WrongAllocator { .. })
    ));
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    scene.end().await;
}

fn pool_of(name: &str, cidr: &str, mode: &str) -> Pool {
    let json = pool_json(name, cidr, mode);
    Pool::decode(name, json.as_bytes()).unwrap()
}

#[tokio::test]
async fn tunnels_get_an_address_while_a_pool_of_their_kind_selects_the_node_and_keep_it() {
    let (ipip, vxlan) = (
        pool_of("a", "10.1.0.0/24", "\"ipipMode\":\"CrossSubnet\""),
        pool_of("b", "10.2.0.0/24", "\"vxlanMode\":\"Always\""),
    );
    let pools = [&ipip, &vxlan];
    let labels = BTreeMap::new();
    assert_eq!(Tunnel::Ipip.pools(&pools, &labels), ["a"]);
    assert_eq!(Tunnel::Vxlan.pools(&pools, &labels), ["b"]);
    assert_eq!(Tunnel::Wireguard.pools(&pools, &labels), ["a", "b"]);
    assert_eq!(Tunnel::VxlanV6.pools(&pools, &labels), Vec::<String>::new());
    let step = |current: Option<&str>, chosen: &[String]| {
        let current = current.map(|a| a.parse().unwrap());
        Tunnel::Ipip.step("n1", current, &pools, chosen)
    };
    let chosen = Tunnel::Ipip.pools(&pools, &labels);
    assert!(matches!(step(Some("10.1.0.7"), &chosen), Step::Keep));
    assert!(matches!(step(Some("10.2.0.7"), &chosen), Step::Release(_)));
    assert!(matches!(step(Some("10.1.0.7"), &[]), Step::Release(_)));
    assert!(matches!(step(None, &[]), Step::Keep));
    let Step::Assign(assign) = step(None, &chosen) else {
        panic!("an address is wanted");
    };
    assert_eq!(assign.handle, "ipip-tunnel-addr-n1");
    assert_eq!(assign.attributes["type"], "ipipTunnelAddress");

    let mut scene = Scene::new("10.3.0.0/24", 28).await;
    put_pool(
        &scene.cluster.store,
        "a",
        "10.1.0.0/24",
        "\"blockSize\":28,\"ipipMode\":\"Always\"",
    )
    .await;
    let n1 = scene.node("n1").await;
    let got = n1.assign(assign.clone()).await.unwrap();
    assert_eq!(n1.assign(assign).await.unwrap().addresses, got.addresses);
    assert!(
        "10.1.0.0/24"
            .parse::<ipnet::IpNet>()
            .unwrap()
            .contains(&got.addresses[0])
    );
    n1.release(Tunnel::Ipip.release("n1")).await.unwrap();
    scene.end().await;
}

/// 64 nodes, 64 blocks of 16, and a few nodes that want most of it.
#[tokio::test]
async fn a_pool_of_as_many_blocks_as_nodes_is_used_to_the_last_address_and_recovers() {
    const NODES: usize = 64;
    const ADDRESSES: usize = 1024;
    let mut scene = Scene::new("10.244.0.0/22", 28).await;
    scene
        .cluster
        .store
        .put("/calico/ipam/v2/config", "{\"auto_allocate_blocks\":true}")
        .await
        .unwrap();
    let mut clients = Vec::new();
    for i in 0..NODES {
        clients.push(scene.node(&format!("n{i}")).await);
    }
    let mut given = 0;
    let mut refusal = None;
    'fill: for round in 0.. {
        for (i, client) in clients.iter().enumerate() {
            // Node 0 wants 64 times what node 63 wants.
            if round > 0 && round % (i + 1) != 0 {
                continue;
            }
            match client
                .assign(pod(&format!("n{i}"), &format!("net.{i}-{round}")))
                .await
            {
                Ok(_) => given += 1,
                Err(error) => {
                    refusal = Some(error);
                    break 'fill;
                }
            }
        }
    }
    assert!(
        given * 100 >= ADDRESSES * 95,
        "refused at {given} of {ADDRESSES}: {refusal:?}"
    );
    // A node at its cap of 20 blocks is refused by the cap; others fill the pool to its end.
    for (i, client) in clients.iter().enumerate().skip(1) {
        let name = format!("n{i}");
        while let Ok(got) = client.assign(pod(&name, &format!("net.{i}-x{given}"))).await {
            given += got.addresses.len();
        }
    }
    assert_eq!(given, ADDRESSES);
    let error = clients[7].assign(pod("n7", "net.last")).await.unwrap_err();
    assert!(matches!(error, Error::Exhausted { .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("no free IPv4 address in the pools default (10.244.0.0/22)"),
        "{error}"
    );
    // One address comes free on another node; whoever asks next gets it.
    clients[3].release(release("net.3-0")).await.unwrap();
    eventually(async || clients[7].assign(pod("n7", "net.last")).await.is_ok()).await;
    scene.end().await;
}
