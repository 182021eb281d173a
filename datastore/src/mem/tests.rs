//! What the store in memory does beyond the conformance suite: its faults.

use super::*;
use crate::{Commit, Compare, KeyRange, Op, Watch, WatchItem};

fn put(key: &'static str, value: &'static str) -> Txn {
    Txn::default().then(vec![Op::put(key, value)])
}

#[tokio::test]
async fn lost_reply_commits_and_says_unknown() {
    let store = MemStore::new();
    store.faults().next_txn(Fault::LoseReply);
    let error = store.txn(put("a", "1")).await.unwrap_err();
    assert_eq!(error.commit(), Commit::Unknown);
    assert!(error.is_transient());
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "1");
}

#[tokio::test]
async fn failure_before_the_commit_writes_nothing_and_says_so() {
    let store = MemStore::new();
    store.faults().next_txn(Fault::FailBefore);
    store.faults().next_txn(Fault::LoseRequest);
    assert_eq!(store.txn(put("a", "1")).await.unwrap_err().commit(), Commit::No);
    assert_eq!(
        store.txn(put("a", "1")).await.unwrap_err().commit(),
        Commit::Unknown
    );
    assert_eq!(store.get("a").await.unwrap(), None);
    store.txn(put("a", "1")).await.unwrap();
    assert_eq!(
        store.calls(),
        Calls {
            txns: 3,
            ranges: 1,
            watches: 0
        }
    );
}

#[tokio::test]
async fn held_transaction_loses_to_the_one_that_overtakes_it() {
    let store = MemStore::new();
    let (fault, mut hold) = Fault::hold();
    store.faults().next_txn(fault);
    let slow = store.txn(Txn::when(vec![Compare::absent("a")]).then(vec![Op::put("a", "slow")]));
    let fast = async {
        hold.arrived().await;
        let reply = store
            .txn(Txn::when(vec![Compare::absent("a")]).then(vec![Op::put("a", "fast")]))
            .await;
        drop(hold);
        reply
    };
    let (slow, fast) = tokio::join!(slow, fast);
    assert!(fast.unwrap().succeeded);
    assert!(!slow.unwrap().succeeded);
}

#[tokio::test]
async fn store_that_is_down_fails_every_call_until_it_is_back() {
    let store = MemStore::new();
    store.faults().down(true);
    assert!(store.get("a").await.unwrap_err().is_transient());
    assert!(store.txn(put("a", "1")).await.unwrap_err().is_transient());
    store.faults().down(false);
    store.txn(put("a", "1")).await.unwrap();
}

#[tokio::test]
async fn rule_picks_the_transactions_that_fail() {
    let store = MemStore::new();
    store
        .faults()
        .rule(|txn| (txn.compares.len() == 1).then_some(Fault::FailBefore));
    store.txn(put("a", "1")).await.unwrap();
    let guarded = Txn::when(vec![Compare::present("a")]).then(vec![Op::delete("a")]);
    store.txn(guarded).await.unwrap_err();
}

#[tokio::test]
async fn cut_watch_stays_cut_and_a_new_one_resumes() {
    let store = MemStore::new();
    let request = WatchRequest::new([KeyRange::prefix("a")], 2);
    let mut watch = store.watch(request.clone()).await.unwrap();
    store.disconnect_watches();
    store.txn(put("a", "1")).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(watch.next().await, WatchItem::Disconnected(_)));
    }
    let mut watch = store.watch(request).await.unwrap();
    assert!(matches!(watch.next().await, WatchItem::Events(batch) if batch.revision == 2));
}

#[tokio::test]
async fn history_is_bounded() {
    let store = MemStore::new();
    for _ in 0..=HISTORY_REVISIONS_MAX {
        store.txn(put("a", "1")).await.unwrap();
    }
    let mut watch = store
        .watch(WatchRequest::new([KeyRange::key("a")], 2))
        .await
        .unwrap();
    let WatchItem::Compacted { oldest } = watch.next().await else {
        panic!("the history is still whole")
    };
    assert!(oldest > 2);
    assert_eq!(
        store.get("a").await.unwrap().unwrap().version,
        HISTORY_REVISIONS_MAX as u64 + 1
    );
}
