//! What every store does, checked against each of them.

use std::time::Duration;

use twill_datastore::mem::MemStore;
use twill_datastore::testing::EtcdServer;
use twill_datastore::{
    Bytes, COMPARES_MAX, Commit, Compare, Consistency, KeyRange, OPS_MAX, Op, OpReply, REQUEST_BYTES_MAX,
    RangeRequest, Store, StoreError, Txn, Watch, WatchEvent, WatchItem, WatchRequest,
};

use crate::world::{etcd_store, next_batch, within};

/// Runs a claim against every kind of store, each fresh.
macro_rules! conformance {
    ($($name:ident),+ $(,)?) => {
        mod mem {
            $(#[tokio::test] async fn $name() { super::$name(super::MemStore::new()).await })+
        }
        mod etcd {
            $(#[tokio::test] async fn $name() {
                let server = super::EtcdServer::start();
                super::$name(super::etcd_store(&server).await).await
            })+
        }
    };
}

conformance!(
    put_raises_revision_and_version,
    delete_of_nothing_changes_nothing,
    failed_compare_runs_the_other_branch,
    compares_see_what_etcd_sees,
    transaction_reads_its_own_writes,
    bounds_are_checked_before_sending,
    impossible_requests_are_refused_and_change_nothing,
    pages_share_a_revision_while_others_write,
    old_revisions_can_be_read_until_compacted,
    delete_prefix_takes_many_keys_and_no_others,
    watch_tells_each_revision_whole_from_where_it_is_asked,
    watch_keeps_directories_apart_and_resumes_exactly,
    watch_begun_at_or_before_the_compaction_says_compacted,
    quiet_watch_answers_a_request_for_progress,
    lease_takes_its_keys_with_it,
    whole_store_is_the_empty_prefix,
);

async fn put_raises_revision_and_version(store: impl Store) {
    assert_eq!(store.progress().await.unwrap(), 1);
    assert_eq!(store.get("a").await.unwrap(), None);
    assert_eq!(store.put("a", "1").await.unwrap(), 2);
    assert_eq!(store.put("b", "1").await.unwrap(), 3);
    assert_eq!(store.put("a", "2").await.unwrap(), 4);
    let a = store.get("a").await.unwrap().unwrap();
    assert_eq!(
        (a.value, a.mod_revision, a.create_revision, a.version),
        (Bytes::from("2"), 4, 2, 2)
    );
    let reply = store
        .txn(Txn::default().then(vec![Op::delete("a"), Op::put("c", "")]))
        .await
        .unwrap();
    assert_eq!(
        (reply.revision, reply.responses),
        (5, vec![OpReply::Delete { deleted: 1 }, OpReply::Put])
    );
    store.put("a", "3").await.unwrap();
    let a = store.get("a").await.unwrap().unwrap();
    assert_eq!((a.mod_revision, a.create_revision, a.version), (6, 6, 1));
}

async fn delete_of_nothing_changes_nothing(store: impl Store) {
    let reply = store
        .txn(Txn::default().then(vec![Op::delete("a")]))
        .await
        .unwrap();
    assert_eq!((reply.succeeded, reply.revision), (true, 1));
    assert_eq!(reply.responses, [OpReply::Delete { deleted: 0 }]);
}

async fn failed_compare_runs_the_other_branch(store: impl Store) {
    store.put("a", "1").await.unwrap();
    let create = Txn::when(vec![Compare::absent("a"), Compare::absent("b")])
        .then(vec![Op::put("a", "2"), Op::put("b", "2")])
        .otherwise(vec![Op::get("a"), Op::get("b")]);
    let reply = store.txn(create).await.unwrap();
    assert_eq!((reply.succeeded, reply.revision), (false, 2));
    assert_eq!(reply.responses[0].kvs()[0].value, "1");
    assert_eq!(reply.responses[1].kvs(), []);
    assert_eq!(store.get("b").await.unwrap(), None);
}

async fn compares_see_what_etcd_sees(store: impl Store) {
    store.put("p/a", "1").await.unwrap();
    store.put("p/b", "1").await.unwrap();
    store.put("p/b", "1").await.unwrap();
    let holds = async |compare: Compare| store.txn(Txn::when(vec![compare])).await.unwrap().succeeded;
    let range = |prefix: &'static str| KeyRange::prefix(prefix);
    for (compare, expected) in [
        (Compare::mod_revision("p/a", 2), true),
        (Compare::mod_revision("p/a", 3), false),
        (Compare::mod_revision("none", 0), true),
        (Compare::version("p/b", 2), true),
        (Compare::version("p/b", 1), false),
        (Compare::absent("none"), true),
        (Compare::absent("p/a"), false),
        (Compare::present("p/a"), true),
        (Compare::present("none"), false),
        (Compare::value("p/a", "1"), true),
        (Compare::value("p/a", "2"), false),
        (Compare::value("none", ""), false),
        (Compare::none_in(range("none/")), true),
        (Compare::none_in(range("p/")), false),
        (
            Compare {
                range: range("p/"),
                ..Compare::value("", "1")
            },
            true,
        ),
        (
            Compare {
                range: range("p/"),
                ..Compare::version("", 1)
            },
            false,
        ),
        (
            Compare {
                range: range("none/"),
                ..Compare::value("", "")
            },
            false,
        ),
        (
            Compare {
                range: range("p/"),
                ..Compare::present("")
            },
            true,
        ),
        (
            Compare {
                range: range("none/"),
                ..Compare::present("")
            },
            false,
        ),
    ] {
        assert_eq!(holds(compare.clone()).await, expected, "{compare:?}");
    }
}

async fn transaction_reads_its_own_writes(store: impl Store) {
    store.put("p/old", "1").await.unwrap();
    let ops = vec![
        Op::put("p/new", "2"),
        Op::Range(RangeRequest::prefix("p/")),
        Op::delete("p/old"),
        Op::Range(RangeRequest::prefix("p/").keys_only()),
    ];
    let reply = store.txn(Txn::default().then(ops)).await.unwrap();
    let keys = |at: usize| {
        reply.responses[at]
            .kvs()
            .iter()
            .map(|kv| kv.key.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (keys(1), keys(3)),
        (vec!["p/new".into(), "p/old".into()], vec!["p/new".into()])
    );
    assert_eq!(reply.responses[3].kvs()[0].value, "");
    assert_eq!(reply.responses[1].kvs()[0].mod_revision, reply.revision);
}

async fn bounds_are_checked_before_sending(store: impl Store) {
    let puts = |count: usize| {
        (0..count)
            .map(|at| Op::put(format!("k{at:03}"), ""))
            .collect::<Vec<_>>()
    };
    let compares = |count: usize| {
        (0..count)
            .map(|at| Compare::absent(format!("k{at:03}")))
            .collect()
    };
    let full = Txn::when(compares(COMPARES_MAX))
        .then(puts(OPS_MAX))
        .otherwise(puts(OPS_MAX));
    assert!(store.txn(full).await.unwrap().succeeded);
    let large = Op::put("large", vec![0; REQUEST_BYTES_MAX - 5]);
    store.txn(Txn::default().then(vec![large])).await.unwrap();
    let revision = store.progress().await.unwrap();
    for txn in [
        Txn::when(compares(COMPARES_MAX + 1)),
        Txn::default().then(puts(OPS_MAX + 1)),
        Txn::default().otherwise(puts(OPS_MAX + 1)),
        Txn::default().then(vec![Op::put("large", vec![0; REQUEST_BYTES_MAX - 4])]),
    ] {
        let error = store.txn(txn).await.unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::TooLarge {
                    commit: Commit::No,
                    ..
                }
            ),
            "{error:?}"
        );
    }
    assert_eq!(store.progress().await.unwrap(), revision);
}

async fn impossible_requests_are_refused_and_change_nothing(store: impl Store) {
    let both = Op::Delete {
        range: KeyRange::prefix(""),
    };
    for ops in [
        vec![Op::put("", "1")],
        vec![Op::put("a", "1"), Op::put("b", "1"), Op::put("a", "2")],
        vec![Op::put("a", "1"), both],
        vec![Op::Range(RangeRequest::key("a").at(1))],
        vec![Op::put_leased("a", "1", twill_datastore::LeaseId(77))],
    ] {
        let error = store.txn(Txn::default().then(ops.clone())).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{ops:?}: {error:?}");
        assert_eq!(error.commit(), Commit::No);
    }
    for request in [
        RangeRequest::key("a").at(9),
        RangeRequest::key("a").at(0),
        RangeRequest::key("a").limit(0),
        RangeRequest::key("a").limit(501),
    ] {
        let error = store.range(request).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    }
    let a = KeyRange::prefix("a");
    for request in [
        WatchRequest::new([], 1),
        WatchRequest::new([a.clone()], 0),
        WatchRequest::new([a, KeyRange::prefix("ab")], 1),
    ] {
        assert!(matches!(
            store.watch(request).await.err(),
            Some(StoreError::Invalid { .. })
        ));
    }
    assert!(matches!(store.compact(9).await, Err(StoreError::Invalid { .. })));
    assert_eq!(store.progress().await.unwrap(), 1);
}

async fn fill(store: &impl Store, prefix: &str, count: usize) {
    let keys: Vec<String> = (0..count).map(|at| format!("{prefix}{at:05}")).collect();
    for chunk in keys.chunks(OPS_MAX) {
        let ops = chunk
            .iter()
            .map(|key| Op::put(key.clone(), key.clone()))
            .collect();
        store.txn(Txn::default().then(ops)).await.unwrap();
    }
}

async fn pages_share_a_revision_while_others_write(store: impl Store) {
    fill(&store, "p/", 1001).await;
    let first = store.range(RangeRequest::prefix("p/").limit(400)).await.unwrap();
    assert_eq!((first.kvs.len(), first.more), (400, true));
    store.put("p/00999", "later").await.unwrap();
    store.put("p/00999x", "later").await.unwrap();
    let last = first.kvs.last().unwrap().key.clone();
    let next = RangeRequest::prefix("p/").at(first.revision).after(last);
    let second = store.range(next.clone()).await.unwrap();
    let third = store
        .range(next.after(second.kvs.last().unwrap().key.clone()))
        .await
        .unwrap();
    assert_eq!(
        (second.kvs.len(), second.more, third.kvs.len(), third.more),
        (500, true, 101, false)
    );
    assert_eq!(third.kvs[99].value, "p/00999");
    let listing = store
        .range_all(KeyRange::prefix("p/"), Consistency::Linearised)
        .await
        .unwrap();
    assert_eq!((listing.kvs.len(), listing.revision), (1002, first.revision + 2));
}

async fn old_revisions_can_be_read_until_compacted(store: impl Store) {
    store.put("a", "1").await.unwrap();
    store.put("a", "2").await.unwrap();
    store
        .txn(Txn::default().then(vec![Op::delete("a")]))
        .await
        .unwrap();
    store.put("b", "1").await.unwrap();
    let at = async |revision| {
        let reply = store.range(RangeRequest::key("a").at(revision)).await?;
        Ok(reply.kvs.into_iter().next().map(|kv| kv.value))
    };
    assert_eq!(at(2).await, Ok(Some("1".into())));
    assert_eq!(at(4).await, Ok(None));
    store.compact(3).await.unwrap();
    assert!(matches!(at(2).await, Err(StoreError::Compacted { .. })));
    assert_eq!(at(3).await, Ok(Some("2".into())));
    store.compact(4).await.unwrap();
    assert_eq!(at(4).await, Ok(None));
    assert!(matches!(
        store.compact(4).await,
        Err(StoreError::Compacted { .. })
    ));
    assert_eq!(store.get("b").await.unwrap().unwrap().version, 1);
}

async fn delete_prefix_takes_many_keys_and_no_others(store: impl Store) {
    fill(&store, "p/", 1203).await;
    fill(&store, "q/", 1).await;
    store.put("p", "not under it").await.unwrap();
    assert_eq!(store.delete_prefix("p/").await.unwrap(), 1203);
    assert_eq!(store.delete_prefix("p/").await.unwrap(), 0);
    let left = store.range(RangeRequest::prefix("")).await.unwrap().kvs;
    assert_eq!(
        left.into_iter().map(|kv| kv.key).collect::<Vec<_>>(),
        ["p", "q/00000"]
    );
}

async fn watch_tells_each_revision_whole_from_where_it_is_asked(store: impl Store) {
    store.put("/c/a", "1").await.unwrap();
    let ops = vec![
        Op::put("/c/a", "2"),
        Op::put("/c/b", "2"),
        Op::put("/c/other", "2"),
    ];
    store.txn(Txn::default().then(ops)).await.unwrap();
    let ranges = [KeyRange::key("/c/a"), KeyRange::key("/c/b")];
    let mut watch = store.watch(WatchRequest::new(ranges, 3)).await.unwrap();
    store.put("/c/other", "3").await.unwrap();
    store
        .txn(Txn::default().then(vec![Op::put("/c/b", "3"), Op::delete("/c/a")]))
        .await
        .unwrap();
    let batch = next_batch(&mut watch).await;
    let keys: Vec<_> = batch.events.iter().map(|event| event.key().clone()).collect();
    assert_eq!(
        (batch.revision, keys),
        (3, vec![Bytes::from("/c/a"), "/c/b".into()])
    );
    let batch = next_batch(&mut watch).await;
    assert_eq!(batch.revision, 5);
    let b = store.get("/c/b").await.unwrap().unwrap();
    assert_eq!(b.version, 2);
    assert_eq!(
        batch.events,
        [
            WatchEvent::Put(b),
            WatchEvent::Delete {
                key: "/c/a".into(),
                mod_revision: 5
            }
        ]
    );
}

async fn watch_keeps_directories_apart_and_resumes_exactly(store: impl Store) {
    let ranges = [KeyRange::prefix("/c/"), KeyRange::prefix("/t/")];
    let mut watch = store.watch(WatchRequest::new(ranges, 2)).await.unwrap();
    let mut told = vec![];
    for round in 0..3 {
        for at in 0..4 {
            let key = if at % 3 == 0 { "/t/k" } else { "/c/k" };
            store.put(key, format!("{round}")).await.unwrap();
        }
        // Stops in the middle of the round, drops the watch, and goes on from there.
        for _ in 0..if round == 2 { 6 } else { 3 } {
            told.push(next_batch(&mut watch).await.revision);
        }
        watch = store.watch(watch.resume()).await.unwrap();
    }
    told.sort_unstable();
    assert_eq!(told, (2..=13).collect::<Vec<_>>());
}

async fn watch_begun_at_or_before_the_compaction_says_compacted(store: impl Store) {
    for _ in 0..3 {
        store.put("a", "1").await.unwrap();
    }
    store
        .txn(Txn::default().then(vec![Op::delete("a")]))
        .await
        .unwrap();
    store.compact(5).await.unwrap();
    store.put("a", "1").await.unwrap();
    for from in [2, 4, 5] {
        let mut watch = store
            .watch(WatchRequest::new([KeyRange::key("a")], from))
            .await
            .unwrap();
        let item = within("an item", watch.next()).await;
        assert_eq!(item, WatchItem::Compacted { oldest: 6 }, "from {from}");
        assert!(matches!(
            within("an end", watch.next()).await,
            WatchItem::Disconnected(_)
        ));
    }
    let mut watch = store
        .watch(WatchRequest::new([KeyRange::key("a")], 6))
        .await
        .unwrap();
    assert_eq!(next_batch(&mut watch).await.revision, 6);
}

async fn quiet_watch_answers_a_request_for_progress(store: impl Store) {
    let mut watch = store
        .watch(WatchRequest::new([KeyRange::prefix("/c/")], 2))
        .await
        .unwrap();
    watch.request_progress().await;
    let item = within("a sign of life", watch.next()).await;
    assert!(
        matches!(item, WatchItem::Alive | WatchItem::Progress { .. }),
        "{item:?}"
    );
}

async fn lease_takes_its_keys_with_it(store: impl Store) {
    let lease = store.grant_lease(Duration::from_secs(600)).await.unwrap();
    let ops = vec![
        Op::put_leased("a", "1", lease),
        Op::put_leased("b", "1", lease),
        Op::put("c", "1"),
    ];
    store.txn(Txn::default().then(ops)).await.unwrap();
    store.put("b", "no longer leased").await.unwrap();
    store.renew_lease(lease).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    let left = store.range(RangeRequest::prefix("")).await.unwrap().kvs;
    assert_eq!(left.into_iter().map(|kv| kv.key).collect::<Vec<_>>(), ["b", "c"]);
    assert!(matches!(
        store.renew_lease(lease).await,
        Err(StoreError::Invalid { .. })
    ));
    assert!(matches!(
        store.revoke_lease(lease).await,
        Err(StoreError::Invalid { .. })
    ));
}

async fn whole_store_is_the_empty_prefix(store: impl Store) {
    for key in ["\0", "a", "\u{7f}"] {
        store.put(key, "1").await.unwrap();
    }
    store.put(vec![0xff, 0xff], "1").await.unwrap();
    assert_eq!(store.range(RangeRequest::prefix("")).await.unwrap().kvs.len(), 4);
    assert_eq!(
        store
            .range(RangeRequest::prefix(vec![0xff]))
            .await
            .unwrap()
            .kvs
            .len(),
        1
    );
    assert_eq!(
        store
            .range(RangeRequest::prefix("").after("a"))
            .await
            .unwrap()
            .kvs
            .len(),
        2
    );
    assert_eq!(
        store
            .range(RangeRequest::new(KeyRange::span("b", "a")))
            .await
            .unwrap()
            .kvs,
        []
    );
    assert_eq!(store.delete_prefix("").await.unwrap(), 4);
}
