//! Random sequences of operations, run on the store in memory and on etcd side by side.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use twill_datastore::etcd::EtcdStore;
use twill_datastore::mem::MemStore;
use twill_datastore::testing::EtcdServer;
use twill_datastore::{
    Batch, Bytes, Compare, KeyRange, Op, RangeRequest, Revision, Store, StoreError, Target, Txn, Watch,
    WatchItem, WatchRequest,
};

use crate::world::{PATIENCE, etcd_store, within};

/// Few keys, so that operations meet. `{d}` is the directory of the case.
const KEYS: [&str; 6] = ["a", "b", "b/1", "b/2", "c", "\u{ff}"];

#[derive(Clone, Debug)]
enum Step {
    Txn(Txn),
    Range(RangeRequest),
    /// Compact at so many revisions back.
    Compact(u64),
}

fn key() -> impl Strategy<Value = Bytes> {
    (0..KEYS.len()).prop_map(|at| Bytes::from(format!("/x/{}", KEYS[at])))
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::key),
        2 => key().prop_map(KeyRange::prefix),
        1 => Just(KeyRange::prefix("/x/")),
        1 => (key(), key()).prop_map(|(a, b)| KeyRange::span(a, b)),
    ]
}

fn request() -> impl Strategy<Value = RangeRequest> {
    (range(), 1..4u32, any::<bool>(), proptest::option::of(key())).prop_map(
        |(range, limit, keys_only, after)| RangeRequest {
            limit,
            keys_only,
            after,
            ..RangeRequest::new(range)
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (key(), "[xy]{0,2}").prop_map(|(key, value)| Op::put(key, value)),
        2 => range().prop_map(|range| Op::Delete { range }),
        2 => request().prop_map(Op::Range),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        (0..30u64).prop_map(Target::ModRevision),
        (0..4u64).prop_map(Target::Version),
        Just(Target::Present),
        "[xy]{0,2}".prop_map(|value| Target::Value(value.into())),
    ];
    (range(), target).prop_map(|(range, target)| Compare { range, target })
}

fn step() -> impl Strategy<Value = Step> {
    let ops = || proptest::collection::vec(op(), 0..4);
    let txn =
        (proptest::collection::vec(compare(), 0..3), ops(), ops()).prop_map(|(compares, then, otherwise)| {
            Step::Txn(Txn {
                compares,
                then,
                otherwise,
            })
        });
    let old = proptest::option::of(0..12u64);
    let read =
        (request(), old).prop_map(|(request, revision)| Step::Range(RangeRequest { revision, ..request }));
    prop_oneof![8 => txn, 3 => read, 1 => (0..5u64).prop_map(Step::Compact)]
}

/// What a step answered, with revisions as seen from the beginning of the case, and errors by kind.
#[derive(Debug, PartialEq)]
struct Seen(String);

fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Compacted { .. } => "compacted",
        StoreError::Invalid { .. } => "invalid",
        StoreError::TooLarge { .. } => "too large",
        _ => "failed",
    }
}

async fn run(store: &impl Store, step: &Step) -> Seen {
    let seen = match step {
        Step::Txn(txn) => store.txn(txn.clone()).await.map(|reply| format!("{reply:?}")),
        Step::Range(request) => store
            .range(request.clone())
            .await
            .map(|reply| format!("{reply:?}")),
        Step::Compact(back) => match store.progress().await {
            Ok(now) => store
                .compact(now.saturating_sub(*back).max(1))
                .await
                .map(|()| "done".to_owned()),
            Err(error) => Err(error),
        },
    };
    Seen(seen.unwrap_or_else(|error| kind(&error).to_owned()))
}

/// All batches up to a revision, from wherever the history begins.
async fn history(store: &impl Store, upto: Revision) -> (Revision, Vec<Batch>) {
    let mut from = 2;
    let mut batches = vec![];
    let mut watch = store
        .watch(WatchRequest::new([KeyRange::prefix("/x/")], from))
        .await
        .unwrap();
    while batches.last().is_none_or(|batch: &Batch| batch.revision < upto) && from <= upto {
        match within("history", watch.next()).await {
            WatchItem::Events(batch) => batches.push(batch),
            WatchItem::Compacted { oldest } => {
                from = oldest;
                watch = store
                    .watch(WatchRequest::new([KeyRange::prefix("/x/")], from))
                    .await
                    .unwrap();
            }
            WatchItem::Alive | WatchItem::Progress { .. } => {}
            WatchItem::Disconnected(error) => panic!("{error}"),
        }
    }
    (from, batches)
}

async fn compare_stores(steps: &[Step]) -> Result<(), TestCaseError> {
    // A fresh etcd for each case, so that revisions are the same.
    let server = EtcdServer::start();
    let etcd: EtcdStore = etcd_store(&server).await;
    let mem = MemStore::new();
    for (at, step) in steps.iter().enumerate() {
        let (here, there) = (run(&mem, step).await, run(&etcd, step).await);
        prop_assert_eq!(here, there, "step {}: {:?}", at, step);
    }
    let revision = etcd.progress().await.unwrap();
    prop_assert_eq!(mem.progress().await.unwrap(), revision);
    prop_assert_eq!(history(&mem, revision).await, history(&etcd, revision).await);
    Ok(())
}

#[test]
fn store_in_memory_answers_as_etcd_does() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Long sequences rather than many: each case starts a server.
    let mut runner = TestRunner::new(Config {
        cases: 12,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Config::default()
    });
    let steps = proptest::collection::vec(step(), 150..300);
    let result = runner.run(&steps, |steps| {
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, compare_stores(&steps))
                .await
                .unwrap()
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
