//! The syncer over stores that fail: a random script of writes and faults in memory, and etcd killed under it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::task::JoinSet;
use twill_datastore::etcd::EtcdStore;
use twill_datastore::mem::{Fault, MemStore};
use twill_datastore::syncer::{Health, Receiver, SyncBatch, Syncer};
use twill_datastore::testing::EtcdServer;
use twill_datastore::{
    Bytes, Consistency, KeyRange, Op, Revision, Store, StoreError, Txn, Watch, WatchItem, WatchRequest,
};

use crate::world::{etcd_store, within};

/// A copy that checks each batch as it comes.
struct Copy {
    receiver: Receiver,
    kvs: BTreeMap<Bytes, (Revision, Bytes)>,
    told: usize,
    in_sync: bool,
    restored: bool,
    revision: Revision,
}

impl Copy {
    fn new(receiver: Receiver) -> Self {
        Self {
            receiver,
            kvs: BTreeMap::new(),
            told: 0,
            in_sync: false,
            restored: false,
            revision: 0,
        }
    }

    fn apply(&mut self, batch: SyncBatch) {
        assert!(batch.in_sync || !self.in_sync, "in-sync was taken back");
        self.in_sync = batch.in_sync;
        self.revision = batch.revision;
        self.restored |= batch.restored;
        for change in batch.changes {
            self.told += 1;
            let old = match change.value {
                Some(kv) => self.kvs.insert(change.key.clone(), (kv.mod_revision, kv.value)),
                None => Some(
                    self.kvs
                        .remove(&change.key)
                        .expect("only what was told is deleted"),
                ),
            };
            assert!(
                batch.restored || old.is_none_or(|(old, _)| old < change.revision),
                "told twice or backwards: {:?}",
                change.key
            );
        }
        // Every writer of these tests writes the pair in one transaction.
        let value = |key: &'static str| self.kvs.get(&Bytes::from(key)).map(|(_, value)| value);
        if self.in_sync {
            assert_eq!(
                value("/c/pair/1"),
                value("/c/pair/2"),
                "half a transaction at {}",
                self.revision
            );
        }
    }

    async fn catch_up(&mut self, store: &impl Store) {
        let listing = within(
            "listing",
            store.range_all(KeyRange::prefix("/c/"), Consistency::Linearised),
        )
        .await;
        let stored: BTreeMap<_, _> = listing
            .unwrap()
            .kvs
            .into_iter()
            .map(|kv| (kv.key, (kv.mod_revision, kv.value)))
            .collect();
        while self.kvs != stored || !self.in_sync {
            let batch = within("the next batch", self.receiver.recv()).await.unwrap();
            self.apply(batch);
        }
    }
}

fn pair(value: &str) -> Txn {
    Txn::default().then(vec![
        Op::put("/c/pair/1", value.to_owned()),
        Op::put("/c/pair/2", value.to_owned()),
    ])
}

fn start<S: Store>(tasks: &mut JoinSet<()>, store: S) -> Copy {
    let (syncer, receiver) = Syncer::new(store, vec![KeyRange::prefix("/c/")], 7);
    tasks.spawn(syncer.run());
    Copy::new(receiver)
}

#[derive(Clone, Debug)]
enum Step {
    Pair(u8),
    Put(u8),
    Delete(u8),
    Disconnect,
    Compact,
    FailRange,
    FailWatch,
    /// Lets the syncer run.
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Pair),
        6 => (0..20u8).prop_map(Step::Put),
        4 => (0..20u8).prop_map(Step::Delete),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Compact),
        1 => Just(Step::FailRange),
        1 => Just(Step::FailWatch),
        6 => Just(Step::Look),
    ]
}

async fn follow(steps: Vec<Step>) {
    let store = MemStore::new();
    let mut tasks = JoinSet::new();
    let mut copy = start(&mut tasks, store.clone());
    for (at, step) in steps.into_iter().enumerate() {
        match step {
            Step::Pair(value) => drop(store.txn(pair(&format!("{value}"))).await.unwrap()),
            Step::Put(key) => drop(store.put(format!("/c/{key}"), format!("{at}")).await.unwrap()),
            Step::Delete(key) => {
                store
                    .txn(Txn::default().then(vec![Op::delete(format!("/c/{key}"))]))
                    .await
                    .unwrap();
            }
            Step::Disconnect => store.disconnect_watches(),
            Step::Compact => store.compact_now(),
            Step::FailRange => store.faults().next_range(Fault::LoseReply),
            Step::FailWatch => store.faults().next_watch(Fault::FailBefore),
            Step::Look => {
                tokio::task::yield_now().await;
                while let Some(batch) = copy.receiver.try_recv() {
                    copy.apply(batch);
                }
            }
        }
    }
    store.faults().clear();
    copy.catch_up(&store).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn copy_equals_the_store_whatever_fails(steps in proptest::collection::vec(step(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(follow(steps));
    }
}

/// Writes until told to stop, through a client of its own; every key is one of 50, every tenth write is the pair.
async fn write_some(store: &EtcdStore, from: usize, count: usize) {
    for at in from..from + count {
        let txn = match at % 10 {
            0 => pair(&format!("{at}")),
            1..=2 => Txn::default().then(vec![Op::delete(format!("/c/{}", at * 7 % 50))]),
            _ => Txn::default().then(vec![Op::put(format!("/c/{}", at * 3 % 50), format!("{at}"))]),
        };
        // While etcd is away a write fails, with either outcome; what is stored in the end is what counts.
        let _ = store.txn(txn).await;
    }
}

#[tokio::test]
async fn etcd_killed_and_restarted_under_a_watch_loses_and_repeats_nothing() {
    let mut server = EtcdServer::start();
    let store = etcd_store(&server).await;
    let mut tasks = JoinSet::new();
    let mut copy = start(&mut tasks, store.clone());
    write_some(&store, 0, 200).await;
    for round in 1..=3 {
        copy.catch_up(&store).await;
        let before = copy.kvs.clone();
        server.kill();
        let mut state = copy.receiver.state();
        let gone = state.wait_for(|state| matches!(state.health, Health::StaleSince(_)));
        within("the loss to be noticed", gone).await.unwrap();
        assert_eq!((copy.receiver.try_recv(), &copy.kvs), (None, &before));
        server.restart();
        let writer = etcd_store(&server).await;
        write_some(&writer, round * 1000, 200).await;
        copy.catch_up(&writer).await;
        let back = state.wait_for(|state| state.health == Health::Connected);
        within("the connection to come back", back).await.unwrap();
    }
}

#[tokio::test]
async fn compaction_while_etcd_is_away_tells_differences_only() {
    let mut server = EtcdServer::start();
    let store = etcd_store(&server).await;
    for at in 0..600 {
        store.put(format!("/c/{at:03}"), "1").await.unwrap();
    }
    let mut tasks = JoinSet::new();
    let mut copy = start(&mut tasks, store.clone());
    copy.catch_up(&store).await;
    let told = copy.told;
    // The syncer's connections are cut and what it misses is compacted before it can come back: all of it happens
    // between the kill and the first answer of the server that it could reach, on another port.
    server.kill();
    let mut state = copy.receiver.state();
    within(
        "the loss to be noticed",
        state.wait_for(|state| matches!(state.health, Health::StaleSince(_))),
    )
    .await
    .unwrap();
    server.restart_elsewhere();
    let writer = etcd_store(&server).await;
    for key in ["/c/000", "/c/599"] {
        writer
            .txn(Txn::default().then(vec![Op::delete(key)]))
            .await
            .unwrap();
    }
    writer.put("/c/300", "2").await.unwrap();
    writer.put("/c/new", "1").await.unwrap();
    let revision = writer.put("/other", "1").await.unwrap();
    writer.compact(revision).await.unwrap();
    server.restart_at_home();
    copy.catch_up(&store).await;
    assert_eq!(copy.told - told, 4);
    assert_eq!(copy.revision, revision);
}

#[tokio::test]
async fn more_than_a_message_can_hold_is_listed_in_smaller_pages_and_listed_again_instead_of_caught_up_with()
{
    const VALUE_BYTES: usize = 1_400_000;
    let server = EtcdServer::start();
    let store = etcd_store(&server).await;
    // 70 MB, in a page of 500 keys and in one message of a watch that catches up: both are above the bound of 64 MiB.
    for at in 0..50 {
        store
            .put(format!("/c/{at:02}"), vec![b'x'; VALUE_BYTES])
            .await
            .unwrap();
    }
    let request = WatchRequest::new([KeyRange::prefix("/c/")], 2);
    let mut watch = store.watch(request).await.unwrap();
    let item = within("an end", watch.next()).await;
    assert!(
        matches!(item, WatchItem::Disconnected(StoreError::TooLarge { .. })),
        "{item:?}"
    );
    let mut tasks = JoinSet::new();
    let mut copy = start(&mut tasks, store.clone());
    copy.catch_up(&store).await;
    assert_eq!(copy.kvs.len(), 50);
}

#[tokio::test]
async fn an_etcd_put_back_to_a_backup_is_followed_without_a_restart() {
    let mut server = EtcdServer::start();
    let store = etcd_store(&server).await;
    let mut tasks = JoinSet::new();
    let mut copy = start(&mut tasks, store.clone());
    store.put("/c/kept", "1").await.unwrap();
    store.put("/c/deleted-later", "1").await.unwrap();
    copy.catch_up(&store).await;

    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("snapshot");
    let _ = server.etcdctl(&["snapshot", "save", snapshot.to_str().unwrap()]);
    store
        .txn(Txn::default().then(vec![Op::delete("/c/deleted-later")]))
        .await
        .unwrap();
    for round in 0..20 {
        store.put("/c/kept", format!("{round}")).await.unwrap();
    }
    store.put("/c/made-later", "1").await.unwrap();
    copy.catch_up(&store).await;
    assert!(!copy.kvs.contains_key("/c/deleted-later".as_bytes()));

    server.restore(&snapshot);
    within("the backup to be taken over", async {
        while !copy.restored {
            let batch = copy.receiver.recv().await.unwrap();
            copy.apply(batch);
        }
    })
    .await;
    copy.catch_up(&store).await;
    let keys: Vec<_> = copy.kvs.keys().cloned().collect();
    assert_eq!(keys, ["/c/deleted-later", "/c/kept"]);
    store.put("/c/kept", "after").await.unwrap();
    copy.catch_up(&store).await;
    let state = copy.receiver.state().borrow().clone();
    assert_eq!((state.health, state.counts.restores), (Health::Connected, 1));
}
