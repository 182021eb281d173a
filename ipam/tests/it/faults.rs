//! Allocators of three nodes on a store in memory that loses requests and replies, delays and fails: no address is given
//! twice, none is lost. Time is virtual.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::timeout;
use twill_datastore::mem::Fault;
use twill_ipam::{Client, Error};

use crate::support::*;

const SEEDS: u64 = 40;
const WORKERS: usize = 4;
const PODS: usize = 12;

/// What pods hold, as they were told: handle to addresses.
type Live = Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>;

/// One fault in six transactions.
fn fault(rng: &mut SmallRng) -> Option<Fault> {
    match rng.random_range(0..36) {
        0..2 => Some(Fault::LoseReply),
        2 => Some(Fault::LoseRequest),
        3 => Some(Fault::FailBefore),
        4..6 => Some(Fault::Delay(Duration::from_millis(rng.random_range(1..400)))),
        _ => None,
    }
}

/// A pod's life, over and over, by a runtime that sometimes does not wait.
async fn worker(client: Client, node: &'static str, id: usize, seed: u64, live: Live) {
    let mut rng = SmallRng::seed_from_u64(seed * 1000 + id as u64);
    for i in 0..PODS {
        let handle = format!("{node}.w{id}.{i}");
        let patience = Duration::from_millis(if rng.random_range(0..4) == 0 { 50 } else { 60_000 });
        match timeout(patience, client.assign(pod(node, &handle))).await {
            Ok(Ok(assigned)) => {
                let mut live = live.lock().unwrap();
                let taken: Vec<&IpAddr> = live.values().flatten().collect();
                assert!(
                    !taken.contains(&&assigned.addresses[0]),
                    "seed {seed}: {handle} got {assigned:?}"
                );
                live.insert(handle.clone(), assigned.addresses);
            }
            Ok(Err(Error::Datastore { .. } | Error::Exhausted { .. })) | Err(_) => {
                delete(&client, &handle).await
            }
            Ok(Err(error)) => panic!("seed {seed}: {handle}: {error}"),
        }
        if rng.random() && live.lock().unwrap().remove(&handle).is_some() {
            delete(&client, &handle).await;
        }
    }
}

/// As a runtime does: until it succeeds.
async fn delete(client: &Client, handle: &str) {
    loop {
        match client.release(release(handle)).await {
            Ok(_) => return,
            Err(Error::Datastore { .. }) => {}
            Err(error) => panic!("{handle}: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn faults_neither_lose_addresses_nor_give_them_twice() {
    let (mut lost, mut undone) = (0, 0);
    for seed in 0..SEEDS {
        println!("seed {seed}");
        // Fewer addresses than pods at times: exhaustion and borrowing are part of it.
        let mut cluster = Cluster::with_block_size("10.244.0.0/26", 29).await;
        let mut clients = Vec::new();
        for node in ["n1", "n2", "n3"] {
            clients.push((node, cluster.node(node).await));
        }
        let mut rng = SmallRng::seed_from_u64(seed);
        cluster.store.faults().rule(move |_| fault(&mut rng));
        let live = Live::default();
        let mut workers = JoinSet::new();
        for (node, client) in &clients {
            for id in 0..WORKERS {
                workers.spawn(worker(client.clone(), node, id, seed, Arc::clone(&live)));
            }
        }
        timeout(Duration::from_secs(3600), workers.join_all())
            .await
            .unwrap();
        cluster.store.faults().clear();
        for (_, client) in &clients {
            // Served behind whatever is still to be undone.
            client.release(release("none")).await.unwrap();
            lost += client.counters().lost_replies.value();
            undone += client.counters().undone.value();
        }
        let contents = cluster.contents().await;
        let live = live.lock().unwrap().clone();
        contents.assert_consistent(&live);
        assert_eq!(contents.endpoints.len(), live.len(), "seed {seed}");
        cluster.stop().await;
    }
    assert!(
        lost > 100 && undone > 10,
        "{lost} lost replies and {undone} undone: too few to mean anything"
    );
}
