//! What only a server can do: die, and stay away.

use twill_datastore::etcd::EtcdStore;
use twill_datastore::testing::EtcdServer;
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
