//! The allocator: what a pod costs, what a burst costs, and that nothing is lost or given twice when replies are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tokio::task::JoinSet;
use tokio::time::timeout;
use twill_datastore::Store;
use twill_datastore::mem::Fault;
use twill_ipam::{Assigned, Error, Family, Release, ReleaseTarget, Riders, Want};

use crate::support::*;

type Live = BTreeMap<String, Vec<IpAddr>>;

#[tokio::test]
async fn a_pod_costs_one_transaction_and_no_read() {
    let mut cluster = Cluster::new("10.244.0.0/16").await;
    let client = cluster.node("n1").await;
    // Ready: the fence against an earlier process is up.
    client.release(release("none")).await.unwrap();
    // The first claims a block, in the same one transaction.
    for i in 0..5 {
        let before = cluster.store.calls();
        let assigned = client.assign(pod("n1", &format!("h{i}"))).await.unwrap();
        let after = cluster.store.calls();
        assert!(assigned.fresh);
        assert_eq!(after.txns - before.txns, 1, "pod {i}");
        if i > 0 {
            assert_eq!(after.ranges, before.ranges, "pod {i}");
        }
    }
    for i in 0..5 {
        let before = cluster.store.calls();
        client.release(release(&format!("h{i}"))).await.unwrap();
        let after = cluster.store.calls();
        assert_eq!(
            (after.txns - before.txns, after.ranges),
            (1, before.ranges),
            "release {i}"
        );
    }
    cluster.contents().await.assert_consistent(&Live::new());
    cluster.stop().await;
}

#[tokio::test]
async fn a_hundred_and_ten_pods_at_once_cost_three_commits() {
    let mut cluster = Cluster::new("10.244.0.0/16").await;
    let client = cluster.node("n1").await;
    client.assign(pod("n1", "first")).await.unwrap();
    let before = cluster.store.calls();
    let live = burst(&client, "n1", 110).await;
    let txns = cluster.store.calls().txns - before.txns;
    assert!(txns <= 3, "{txns} transactions");
    assert_eq!(client.counters().reads.value(), 0);
    let contents = cluster.contents().await;
    assert_eq!(
        (live.len(), contents.blocks.len(), contents.endpoints.len()),
        (110, 2, 111)
    );
    cluster.stop().await;
}

/// So many pods, asked for at the same time.
async fn burst(client: &twill_ipam::Client, node: &str, pods: usize) -> Live {
    let mut asking = JoinSet::new();
    for i in 0..pods {
        let (client, handle) = (client.clone(), format!("{node}.b{i}"));
        let request = pod(node, &handle);
        asking.spawn(async move { (handle, client.assign(request).await.unwrap().addresses) });
    }
    asking.join_all().await.into_iter().collect()
}

#[tokio::test]
async fn add_and_del_are_idempotent_by_handle() {
    let mut cluster = Cluster::new("10.244.0.0/16").await;
    let client = cluster.node("n1").await;
    let first = client.assign(pod("n1", "h")).await.unwrap();
    for _ in 0..3 {
        let again = client.assign(pod("n1", "h")).await.unwrap();
        assert_eq!(
            again,
            Assigned {
                fresh: false,
                ..first.clone()
            }
        );
    }
    let freed = client.release(release("h")).await.unwrap();
    assert_eq!(freed.addresses, first.addresses);
    for _ in 0..2 {
        assert!(client.release(release("h")).await.unwrap().addresses.is_empty());
    }
    cluster.contents().await.assert_consistent(&Live::new());
    cluster.stop().await;
}

#[tokio::test]
async fn a_lost_reply_is_settled_by_reading_back() {
    for fault in [|| Fault::LoseReply, || Fault::LoseRequest, || Fault::FailBefore] {
        let mut cluster = Cluster::new("10.244.0.0/16").await;
        let client = cluster.node("n1").await;
        client.assign(pod("n1", "warm")).await.unwrap();
        cluster.store.faults().next_txn(fault());
        let assigned = client.assign(pod("n1", "h")).await.unwrap();
        assert!(assigned.fresh, "its riders are written: {:?}", fault());
        cluster.store.faults().next_txn(fault());
        let freed = client.release(release("warm")).await.unwrap();
        let contents = cluster.contents().await;
        contents.assert_consistent(&Live::from([("h".to_owned(), assigned.addresses)]));
        assert_eq!(contents.endpoints, [endpoint_key("h")], "{:?} {freed:?}", fault());
        cluster.stop().await;
    }
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_taken_back() {
    let mut cluster = Cluster::new("10.244.0.0/16").await;
    let client = cluster.node("n1").await;
    client.assign(pod("n1", "warm")).await.unwrap();
    let (fault, mut hold) = Fault::hold();
    cluster.store.faults().next_txn(fault);
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.assign(pod("n1", "gone")).await }
    });
    timeout(DEADLINE, hold.arrived()).await.unwrap();
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    drop(hold);
    // Anything asked afterwards is served behind the undo.
    client.release(release("warm")).await.unwrap();
    let again = client.assign(pod("n1", "gone")).await.unwrap();
    assert!(again.fresh);
    assert_eq!(client.counters().undone.value(), 1);
    cluster
        .contents()
        .await
        .assert_consistent(&Live::from([("gone".to_owned(), again.addresses)]));
    cluster.stop().await;
}

#[tokio::test]
async fn a_store_that_is_away_is_an_error_and_not_a_leak() {
    let mut cluster = Cluster::new("10.244.0.0/16").await;
    let client = cluster.node("n1").await;
    client.assign(pod("n1", "warm")).await.unwrap();
    // The commit stands, but neither its reply nor any of the read-backs arrives.
    cluster.store.faults().next_txn(Fault::LoseReply);
    for _ in 0..8 {
        cluster.store.faults().next_txn(Fault::FailBefore);
    }
    let error = client.assign(pod("n1", "h")).await.unwrap_err();
    assert!(matches!(error, Error::Datastore { .. }), "{error}");
    // Served when the store is back, behind the undo.
    let other = client.assign(pod("n1", "other")).await;
    cluster.store.faults().clear();
    let mut live = Live::new();
    if let Ok(other) = other {
        live.insert("other".into(), other.addresses);
    }
    client.release(release("warm")).await.unwrap();
    let contents = cluster.contents().await;
    contents.assert_consistent(&live);
    assert!(!contents.endpoints.contains(&endpoint_key("h")));
    cluster.stop().await;
}

#[tokio::test]
async fn a_locked_datastore_refuses_add_and_del_at_once() {
    let mut cluster = Cluster::new("10.244.0.0/16").await;
    let client = cluster.node("n1").await;
    client.assign(pod("n1", "h")).await.unwrap();
    // The allocator has not heard of it when it commits: the compare stops it.
    cluster.store.put(CLUSTER, cluster_json(false)).await.unwrap();
    assert_eq!(client.assign(pod("n1", "h2")).await, Err(Error::Locked));
    assert_eq!(client.release(release("h")).await, Err(Error::Locked));
    cluster.store.put(CLUSTER, cluster_json(true)).await.unwrap();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while client.release(release("h")).await == Err(Error::Locked) {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    cluster.contents().await.assert_consistent(&Live::new());
    cluster.stop().await;
}

use crate::support::cluster as cluster_json;

#[tokio::test]
async fn a_pool_disabled_meanwhile_stops_the_commit() {
    let mut cluster = Cluster::new("10.244.0.0/16").await;
    let client = cluster.node("n1").await;
    client.assign(pod("n1", "h")).await.unwrap();
    put_pool(&cluster.store, "default", "10.244.0.0/16", "\"disabled\":true").await;
    let error = client.assign(pod("n1", "h2")).await.unwrap_err();
    assert_eq!(
        error,
        Error::NoPool {
            family: Family::V4,
            purpose: twill_model::resources::ippool::AllowedUse::Workload
        }
    );
    cluster.stop().await;
}

#[tokio::test]
async fn an_exhausted_pool_is_a_clear_error_and_recovers() {
    let mut cluster = Cluster::with_block_size("10.244.0.0/29", 30).await;
    let (n1, n2) = (cluster.node("n1").await, cluster.node("n2").await);
    let mut live = burst(&n1, "n1", 6).await;
    live.extend(burst(&n2, "n2", 2).await);
    for (node, client) in [("n1", &n1), ("n2", &n2)] {
        let error = client.assign(pod(node, "late")).await.unwrap_err();
        assert!(
            matches!(&error, Error::Exhausted { strict: false, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("10.244.0.0/29"), "{error}");
    }
    n1.release(release("n1.b0")).await.unwrap();
    live.remove("n1.b0");
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let late = loop {
        match n2.assign(pod("n2", "late")).await {
            Ok(assigned) => break assigned,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    live.insert("late".into(), late.addresses);
    cluster.contents().await.assert_consistent(&live);
    cluster.stop().await;
}

#[tokio::test]
async fn a_specific_address_is_given_once() {
    let mut cluster = Cluster::new("10.244.0.0/16").await;
    let (n1, n2) = (cluster.node("n1").await, cluster.node("n2").await);
    let address: IpAddr = "10.244.7.9".parse().unwrap();
    let want = Want::Address(address);
    let assigned = n1.assign(bare("n1", "h", want.clone())).await.unwrap();
    assert_eq!(assigned.addresses, [address]);
    let error = n2.assign(bare("n2", "i", want.clone())).await.unwrap_err();
    assert_eq!(
        error,
        Error::AddressInUse {
            address,
            holder: "h".into()
        }
    );
    let outside = "192.0.2.1".parse().unwrap();
    let error = n1
        .assign(bare("n1", "o", Want::Address(outside)))
        .await
        .unwrap_err();
    assert_eq!(error, Error::OutsidePools { address: outside });
    // Another node borrows from the block.
    let neighbour = Want::Address("10.244.7.10".parse().unwrap());
    n2.assign(bare("n2", "b", neighbour)).await.unwrap();
    for (target, want) in [
        (
            ReleaseTarget::Address {
                address,
                handle: Some("x".into()),
                sequence: None,
            },
            false,
        ),
        (
            ReleaseTarget::Address {
                address,
                handle: None,
                sequence: Some(1),
            },
            false,
        ),
        (
            ReleaseTarget::Address {
                address,
                handle: Some("h".into()),
                sequence: None,
            },
            true,
        ),
        (ReleaseTarget::Handle("b".into()), true),
    ] {
        let result = n2
            .release(Release {
                target: target.clone(),
                riders: Riders::default(),
            })
            .await;
        assert_eq!(
            result.as_ref().is_ok_and(|r| r.addresses.len() == 1),
            want,
            "{target:?}: {result:?}"
        );
    }
    cluster.contents().await.assert_consistent(&Live::new());
    cluster.stop().await;
}

#[tokio::test]
async fn a_rider_conflict_is_told_to_its_request_alone() {
    let mut cluster = Cluster::new("10.244.0.0/16").await;
    let client = cluster.node("n1").await;
    client.assign(pod("n1", "warm")).await.unwrap();
    cluster
        .store
        .put(endpoint_key("n1.b3"), "someone's")
        .await
        .unwrap();
    let mut asking = JoinSet::new();
    for i in 0..10 {
        let (client, handle) = (client.clone(), format!("n1.b{i}"));
        asking.spawn(async move { (i, client.assign(pod("n1", &handle)).await) });
    }
    for (i, result) in asking.join_all().await {
        match result {
            Err(Error::RiderConflict { key, found }) => {
                assert_eq!((i, key), (3, endpoint_key("n1.b3").into()));
                assert_eq!(found.unwrap().value, "someone's");
            }
            result => assert!(i != 3 && result.is_ok(), "{i}: {result:?}"),
        }
    }
    cluster.stop().await;
}
