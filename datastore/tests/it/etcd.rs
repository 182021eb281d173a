//! What only servers can do: die, stay away, and lead one another.

use std::collections::BTreeMap;

use twill_datastore::etcd::EtcdStore;
use twill_datastore::syncer::Syncer;
use twill_datastore::testing::{EtcdCluster, EtcdServer};
use twill_datastore::{Commit, KeyRange, Store, StoreError, Watch, WatchItem, WatchRequest};

use crate::world::{etcd_store, next_batch, within};

#[tokio::test]
async fn calls_fail_at_once_while_etcd_is_away_and_work_again_on_the_same_store() {
    let mut server = EtcdServer::start();
    let store = etcd_store(&server).await;
    store.put("a", "1").await.unwrap();
    server.kill();
    // The first call may have been under way when the connection broke; the next finds no server to send to.
    let _ = store.put("a", "2").await;
    let error = store.put("a", "2").await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(error.commit(), Commit::No, "{error:?}");
    server.restart();
    let value = within("etcd to answer again", async {
        loop {
            if let Ok(Some(kv)) = store.get("a").await {
                break kv.value;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(value.await, "1");
}

#[tokio::test]
async fn one_dead_endpoint_of_two_costs_no_call() {
    let server = EtcdServer::start();
    let mut dead = EtcdServer::start();
    let config = format!("{},{}", dead.endpoint(), server.endpoint())
        .parse()
        .unwrap();
    dead.kill();
    let store = EtcdStore::connect(config).await.unwrap();
    for round in 0..20 {
        store.put("a", format!("{round}")).await.unwrap();
    }
    assert_eq!(store.get("a").await.unwrap().unwrap().version, 20);
}

#[tokio::test]
async fn watch_ends_when_etcd_dies_and_its_successor_loses_nothing() {
    let mut server = EtcdServer::start();
    let store = etcd_store(&server).await;
    let mut watch = store
        .watch(WatchRequest::new([KeyRange::prefix("/c/")], 2))
        .await
        .unwrap();
    store.put("/c/a", "1").await.unwrap();
    assert_eq!(next_batch(&mut watch).await.revision, 2);
    server.kill();
    let item = within("the end of the watch", watch.next()).await;
    assert!(
        matches!(&item, WatchItem::Disconnected(StoreError::Unavailable { .. })),
        "{item:?}"
    );
    server.restart();
    let other = etcd_store(&server).await;
    other.put("/c/a", "2").await.unwrap();
    let mut watch = within("a new watch", async {
        loop {
            if let Ok(watch) = store.watch(watch.resume()).await {
                break watch;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(next_batch(&mut watch).await.revision, 3);
}

/// Writes a key until it is written; a reply that was lost is written again.
async fn put_until_written(store: &EtcdStore, key: &str, value: &str) {
    within("a write", async {
        while let Err(error) = store.put(key.to_owned(), value.to_owned()).await {
            assert!(error.is_transient(), "{key}: {error:?}");
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn leader(cluster: &EtcdCluster) -> usize {
    let deadline = std::time::Instant::now() + crate::world::PATIENCE;
    loop {
        if let Some(leader) = cluster.leader() {
            return leader;
        }
        assert!(std::time::Instant::now() < deadline, "no member leads");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_and_a_dead_endpoint_stop_neither_writes_nor_the_copy_and_lose_nothing() {
    let mut cluster = EtcdCluster::start(3);
    let config = cluster.endpoints();
    let store = EtcdStore::connect(config.parse().unwrap()).await.unwrap();
    let (syncer, mut changes) = Syncer::new(store.clone(), vec![KeyRange::prefix("/c/")], 1);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(syncer.run());
    let first = leader(&cluster);
    let mut written = BTreeMap::new();
    for round in 0..60u32 {
        match round {
            // The leader goes; then it comes back, and so does the endpoint in use go, whoever leads: the first that lives.
            20 => cluster.members[first].kill(),
            40 => {
                cluster.members[first].restart();
                let second = leader(&cluster);
                cluster.members[second].kill();
            }
            _ => {}
        }
        let (key, value) = (format!("/c/{:02}", round % 50), round.to_string());
        put_until_written(&store, &key, &value).await;
        written.insert(key, value);
    }
    let mut copy = BTreeMap::new();
    within("the copy to be whole", async {
        while copy != written {
            let batch = changes.recv().await.expect("the syncer runs");
            for change in batch.changes {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let value = change.value.map(|kv| text(&kv.value));
                copy.insert(
                    text(&change.key),
                    value.expect("nothing was deleted, and nothing may look so"),
                );
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_written_and_with_it_everything_is_again() {
    let mut cluster = EtcdCluster::start(3);
    let store = EtcdStore::connect(cluster.endpoints().parse().unwrap())
        .await
        .unwrap();
    put_until_written(&store, "a", "1").await;
    cluster.members[0].kill();
    cluster.members[1].kill();
    let error = store.put("a", "2").await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    cluster.members[0].restart();
    put_until_written(&store, "a", "3").await;
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "3");
}
