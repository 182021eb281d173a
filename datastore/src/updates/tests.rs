//! Typed updates over the store in memory.

use std::time::Duration;

use tokio::task::JoinSet;

use super::*;
use crate::mem::MemStore;
use crate::syncer::Syncer;
use crate::{KeyRange, Op, Store, Txn};

const POOL: &str = "/calico/resources/v3/projectcalico.org/ippools/";

fn pool(name: &str, cidr: &str) -> Vec<u8> {
    format!(
        r#"{{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{"cidr":"{cidr}"}}}}"#
    )
    .into_bytes()
}

fn start(store: &MemStore) -> (Updates, JoinSet<()>) {
    let (syncer, receiver) = Syncer::new(store.clone(), vec![KeyRange::prefix("/calico/")], 1);
    let mut tasks = JoinSet::new();
    tasks.spawn(syncer.run());
    (Updates::new(receiver), tasks)
}

async fn recv(updates: &mut Updates) -> UpdateBatch {
    tokio::time::timeout(Duration::from_secs(3600), updates.recv())
        .await
        .unwrap()
        .unwrap()
}

fn keys(batch: &UpdateBatch) -> Vec<(String, bool)> {
    batch
        .updates
        .iter()
        .map(|update| (update.key.to_string(), update.value.is_some()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn unreadable_values_are_named_and_stop_nothing() {
    let store = MemStore::new();
    store
        .put(format!("{POOL}good"), pool("good", "10.0.0.0/16"))
        .await
        .unwrap();
    let bad = [("bad", "{"), ("empty", ""), ("other", r#"{"kind":"Node"}"#)];
    for (name, value) in bad {
        store.put(format!("{POOL}{name}"), value).await.unwrap();
    }
    store
        .put(format!("{POOL}misplaced"), pool("good", "10.0.0.0/16"))
        .await
        .unwrap();
    store.put(b"/calico/\xff\xfe".to_vec(), "nobody's").await.unwrap();
    let (mut updates, _tasks) = start(&store);
    let batch = recv(&mut updates).await;
    assert!(batch.in_sync && batch.became_in_sync);
    assert_eq!(keys(&batch), [(format!("{POOL}good"), true)]);
    let named: Vec<_> = batch.unreadable.iter().map(|bad| bad.key.to_string()).collect();
    assert_eq!(
        named,
        ["bad", "empty", "other", "misplaced"].map(|name| format!("{POOL}{name}"))
    );
    let list = updates.unreadable().borrow().clone();
    assert_eq!((list.total, list.first[0].key.clone()), (4, format!("{POOL}bad")));
    assert!(matches!(
        batch.into_events()[..],
        [Event::Updates(_), .., Event::Unreadable(_), Event::InSync]
    ));
}

#[tokio::test(start_paused = true)]
async fn last_good_value_stays_until_a_good_one_or_the_end_of_the_key() {
    let store = MemStore::new();
    for name in ["a", "b"] {
        store
            .put(format!("{POOL}{name}"), pool(name, "10.0.0.0/16"))
            .await
            .unwrap();
    }
    let (mut updates, _tasks) = start(&store);
    assert_eq!(keys(&recv(&mut updates).await).len(), 2);
    let spoil = ["a", "b"].map(|name| Op::put(format!("{POOL}{name}"), "{"));
    store.txn(Txn::default().then(spoil.into())).await.unwrap();
    let batch = recv(&mut updates).await;
    assert_eq!(
        (
            batch.updates.len(),
            batch.unreadable.len(),
            batch.in_sync,
            batch.became_in_sync
        ),
        (0, 2, true, false)
    );
    assert_eq!(updates.unreadable().borrow().total, 2);
    let mend = vec![
        Op::put(format!("{POOL}a"), pool("a", "10.1.0.0/16")),
        Op::delete(format!("{POOL}b")),
    ];
    store.txn(Txn::default().then(mend)).await.unwrap();
    let batch = recv(&mut updates).await;
    assert_eq!(
        keys(&batch),
        [(format!("{POOL}a"), true), (format!("{POOL}b"), false)]
    );
    assert_eq!(updates.unreadable().borrow().total, 0);
}

#[tokio::test(start_paused = true)]
async fn batch_that_is_dropped_half_read_is_not_lost() {
    let store = MemStore::new();
    for at in 0..2 * DECODE_CHUNK + 1 {
        store
            .put(
                format!("{POOL}p{at:04}"),
                pool(&format!("p{at:04}"), "10.0.0.0/16"),
            )
            .await
            .unwrap();
    }
    let (mut updates, _tasks) = start(&store);
    let mut state = updates.state();
    state.wait_for(|state| state.in_sync).await.unwrap();
    for _ in 0..2 {
        // Polled once, which reads one chunk, then dropped.
        tokio::select! {
            biased;
            batch = updates.recv() => panic!("one poll read everything: {}", batch.unwrap().updates.len()),
            () = std::future::ready(()) => {}
        }
    }
    assert_eq!(recv(&mut updates).await.updates.len(), 2 * DECODE_CHUNK + 1);
}
