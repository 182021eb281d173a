//! The syncer over the store in memory, in virtual time, and its machine by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::*;
use crate::mem::{Fault, MemStore};
use crate::{Bytes, Commit, Op, RangeReply, Revision, StoreError, Txn};

/// Virtual time: no test waits for it.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A consumer that keeps what it was told.
struct Copy {
    receiver: Receiver,
    kvs: BTreeMap<Bytes, Bytes>,
    /// All batches so far.
    told: Vec<SyncBatch>,
    task: JoinHandle<()>,
}

impl Copy {
    fn start(store: &MemStore) -> Self {
        let (syncer, receiver) = Syncer::new(store.clone(), vec![KeyRange::prefix("/c/")], 1);
        Self {
            receiver,
            kvs: BTreeMap::new(),
            told: vec![],
            task: tokio::spawn(syncer.run()),
        }
    }

    async fn recv(&mut self) -> &SyncBatch {
        let batch = tokio::time::timeout(PATIENCE, self.receiver.recv())
            .await
            .unwrap()
            .unwrap();
        for change in &batch.changes {
            match &change.value {
                Some(kv) => self.kvs.insert(change.key.clone(), kv.value.clone()),
                None => self.kvs.remove(&change.key),
            };
        }
        self.told.push(batch);
        self.told.last().unwrap()
    }

    async fn upto(&mut self, revision: Revision) {
        while self
            .told
            .last()
            .is_none_or(|batch| batch.revision < revision || !batch.in_sync)
        {
            self.recv().await;
        }
    }

    async fn health(&self, wanted: impl Fn(&Health) -> bool) {
        let mut state = self.receiver.state();
        tokio::time::timeout(PATIENCE, state.wait_for(|state| wanted(&state.health)))
            .await
            .unwrap()
            .unwrap();
    }

    async fn check(&mut self, store: &MemStore) {
        let listing = store
            .range_all(KeyRange::prefix("/c/"), crate::Consistency::Linearised)
            .await
            .unwrap();
        if listing
            .kvs
            .iter()
            .any(|kv| self.kvs.get(&kv.key) != Some(&kv.value))
            || listing.kvs.len() != self.kvs.len()
        {
            self.upto(listing.revision).await;
        }
        let stored = listing.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
        assert_eq!(self.kvs, stored);
    }

    async fn end(self) {
        drop(self.receiver);
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

fn stale(health: &Health) -> bool {
    matches!(health, Health::StaleSince(_))
}

async fn fill(store: &MemStore, count: usize) {
    for at in 0..count {
        store.put(format!("/c/{at:05}"), "1").await.unwrap();
    }
}

async fn delete(store: &MemStore, key: &'static str) -> Revision {
    store
        .txn(Txn::default().then(vec![Op::delete(key)]))
        .await
        .unwrap()
        .revision
}

#[tokio::test(start_paused = true)]
async fn listing_is_of_one_revision_and_what_is_written_meanwhile_follows() {
    let store = MemStore::new();
    fill(&store, 1200).await;
    let (fault, mut hold) = Fault::hold();
    // The first page passes, the second is held while the store changes under it; the watch is held until the listing was seen.
    store.faults().next_range(Fault::Delay(Duration::from_secs(1)));
    store.faults().next_range(fault);
    let (fault, watch_hold) = Fault::hold();
    store.faults().next_watch(fault);
    let mut copy = Copy::start(&store);
    hold.arrived().await;
    delete(&store, "/c/01199").await;
    let last = store.put("/c/00600", "2").await.unwrap();
    drop(hold);
    copy.upto(1201).await;
    assert_eq!(copy.told.last().unwrap().revision, 1201);
    assert_eq!(
        (copy.kvs.len(), &copy.kvs["/c/00600".as_bytes()][..]),
        (1200, &b"1"[..])
    );
    drop(watch_hold);
    copy.upto(last).await;
    copy.check(&store).await;
    copy.end().await;
}

#[tokio::test(start_paused = true)]
async fn empty_store_is_in_sync_too() {
    let store = MemStore::new();
    let mut copy = Copy::start(&store);
    let batch = copy.recv().await;
    assert!(batch.in_sync && batch.changes.is_empty());
    copy.end().await;
}

#[tokio::test(start_paused = true)]
async fn keys_of_one_transaction_arrive_together() {
    let store = MemStore::new();
    let mut copy = Copy::start(&store);
    copy.upto(1).await;
    store
        .txn(Txn::default().then(vec![
            Op::put("/c/a", "1"),
            Op::put("/d", "1"),
            Op::put("/c/b", "1"),
        ]))
        .await
        .unwrap();
    let keys: Vec<_> = copy
        .recv()
        .await
        .changes
        .iter()
        .map(|change| change.key.clone())
        .collect();
    assert_eq!(keys, ["/c/a", "/c/b"]);
    copy.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_while_the_store_is_away_and_nothing_is_told_twice_after() {
    let store = MemStore::new();
    fill(&store, 3).await;
    let mut copy = Copy::start(&store);
    copy.upto(4).await;
    let told = copy.told.len();
    store.put("/c/00001", "2").await.unwrap();
    copy.recv().await;
    store.faults().down(true);
    store.disconnect_watches();
    copy.health(stale).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(copy.receiver.try_recv(), None);
    store.faults().down(false);
    let last = store.put("/c/00002", "2").await.unwrap();
    copy.upto(last).await;
    copy.health(|health| *health == Health::Connected).await;
    let keys: Vec<_> = copy.told[told..]
        .iter()
        .flat_map(|batch| &batch.changes)
        .map(|c| c.key.clone())
        .collect();
    assert_eq!(keys, ["/c/00001", "/c/00002"]);
    copy.end().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_compaction_only_differences_are_told_and_missed_deletions_too() {
    let store = MemStore::new();
    fill(&store, 1100).await;
    let mut copy = Copy::start(&store);
    copy.upto(1101).await;
    let told = copy.told.len();
    store.faults().down(true);
    store.disconnect_watches();
    copy.health(stale).await;
    store.faults().down(false);
    store.faults().next_watch(Fault::FailBefore);
    store.put("/c/00500", "2").await.unwrap();
    store.put("/c/new", "1").await.unwrap();
    for gone in ["/c/00000", "/c/00499", "/c/01099"] {
        delete(&store, gone).await;
    }
    let last = store.put("/d", "1").await.unwrap();
    store.compact_now();
    copy.upto(last).await;
    copy.check(&store).await;
    let batches = &copy.told[told..];
    assert_eq!(batches.len(), 1, "one unit: {batches:?}");
    let mut changes: Vec<_> = batches[0]
        .changes
        .iter()
        .map(|c| (c.key.clone(), c.value.is_some()))
        .collect();
    changes.sort();
    let expected = [
        ("/c/00000", false),
        ("/c/00499", false),
        ("/c/00500", true),
        ("/c/01099", false),
        ("/c/new", true),
    ];
    assert_eq!(changes, expected.map(|(key, live)| (Bytes::from(key), live)));
    copy.end().await;
}

#[tokio::test(start_paused = true)]
async fn failed_first_pass_is_not_in_sync_and_is_begun_again() {
    let store = MemStore::new();
    fill(&store, 600).await;
    store.faults().next_range(Fault::FailBefore);
    store.faults().next_range(Fault::Delay(Duration::from_secs(1)));
    store.faults().next_range(Fault::FailBefore);
    let mut copy = Copy::start(&store);
    assert!(!copy.recv().await.in_sync);
    delete(&store, "/c/00000").await;
    copy.upto(602).await;
    copy.check(&store).await;
    assert!(!copy.kvs.contains_key(&Bytes::from("/c/00000")));
    copy.end().await;
}

#[tokio::test(start_paused = true)]
async fn slow_consumer_gets_the_latest_of_each_key() {
    let store = MemStore::new();
    let mut copy = Copy::start(&store);
    copy.upto(1).await;
    let mut last = 0;
    for round in 0..500 {
        last = store
            .put(format!("/c/{}", round % 5), format!("{round}"))
            .await
            .unwrap();
    }
    let mut state = copy.receiver.state();
    state.wait_for(|state| state.revision >= last).await.unwrap();
    let batch = copy.recv().await;
    assert_eq!((batch.changes.len(), batch.revision), (5, last));
    copy.check(&store).await;
    copy.end().await;
}

fn page(revision: Revision, keys: &[&'static str], more: bool) -> RangeReply {
    let kv = |key: &&'static str| crate::KeyValue {
        key: Bytes::from(*key),
        value: "v".into(),
        mod_revision: 2,
        create_revision: 2,
        version: 1,
    };
    RangeReply {
        revision,
        kvs: keys.iter().map(kv).collect(),
        more,
    }
}

fn wishes(machine: &mut Machine) -> Vec<Output> {
    std::iter::from_fn(|| machine.poll())
        .filter(|output| !matches!(output, Output::State(_)))
        .collect()
}

fn watching(now: Instant) -> Machine {
    let mut machine = Machine::new(now, vec![KeyRange::prefix("a")], 1);
    machine.page(now, Ok(page(7, &["a1", "a2"], false)));
    machine.opened(now);
    wishes(&mut machine);
    machine
}

#[test]
fn silent_watch_is_asked_and_then_opened_anew_where_it_stood() {
    let start = Instant::now();
    let mut machine = watching(start);
    let resume = WatchRequest::new([KeyRange::prefix("a")], 8);
    let asked = machine.deadline().unwrap();
    assert_eq!(asked, start + PROGRESS_AFTER);
    machine.tick(asked, Some(resume.clone()));
    assert_eq!(wishes(&mut machine), [Output::AskProgress]);
    let heard = asked + Duration::from_secs(1);
    machine.item(heard, WatchItem::Alive, Some(resume.clone()));
    machine.tick(heard + PROGRESS_AFTER, Some(resume.clone()));
    assert_eq!(wishes(&mut machine), [Output::AskProgress]);
    assert_eq!(machine.deadline(), Some(heard + SILENCE_MAX));
    machine.tick(heard + SILENCE_MAX, Some(resume.clone()));
    assert_eq!(wishes(&mut machine), [Output::CloseWatch]);
    assert_eq!(machine.state().health, Health::StaleSince(heard));
    let again = machine.deadline().unwrap();
    machine.tick(again, None);
    assert_eq!(wishes(&mut machine), [Output::Watch(resume)]);
}

#[test]
fn an_empty_listing_older_than_what_was_seen_is_refused() {
    let now = Instant::now();
    let mut machine = watching(now);
    machine.item(now, WatchItem::Compacted { oldest: 3 }, None);
    assert!(matches!(
        wishes(&mut machine)[..],
        [Output::CloseWatch, Output::List(_)]
    ));
    machine.page(now, Ok(page(6, &[], false)));
    assert_eq!(wishes(&mut machine), []);
    assert!(stale(&machine.state().health));
    machine.tick(machine.deadline().unwrap(), None);
    machine.page(now, Ok(page(7, &["a2"], false)));
    let wishes = wishes(&mut machine);
    let Some(Output::Deliver(changes)) = wishes.iter().find(|wish| matches!(wish, Output::Deliver(_))) else {
        panic!("nothing was delivered: {wishes:?}")
    };
    assert_eq!(
        changes.changes,
        [Change {
            key: "a1".into(),
            revision: 7,
            value: None,
            fresh: false
        }]
    );
}

#[test]
fn later_listing_is_told_as_one_unit_and_not_at_all_if_it_fails_half_way() {
    let now = Instant::now();
    let mut machine = watching(now);
    machine.item(now, WatchItem::Compacted { oldest: 3 }, None);
    machine.page(now, Ok(page(9, &["a0", "a1"], true)));
    machine.page(now, Err(StoreError::Compacted { oldest: Some(10) }));
    let delivered = |wishes: Vec<Output>| {
        let changes = wishes.into_iter().filter_map(|wish| match wish {
            Output::Deliver(changes) => Some(changes),
            _ => None,
        });
        changes.collect::<Vec<_>>()
    };
    assert_eq!(delivered(wishes(&mut machine)), []);
    machine.tick(machine.deadline().unwrap(), None);
    machine.page(now, Ok(page(11, &["a0"], true)));
    assert_eq!(delivered(wishes(&mut machine)), []);
    machine.page(now, Ok(page(12, &["a2", "a3"], false)));
    let [unit] = &delivered(wishes(&mut machine))[..] else {
        panic!("not one unit")
    };
    let keys: Vec<_> = unit
        .changes
        .iter()
        .map(|c| (&c.key[..], c.value.is_some()))
        .collect();
    assert_eq!(
        (unit.revision, keys),
        (11, vec![(&b"a0"[..], true), (b"a1", false), (b"a3", true)])
    );
}

#[test]
fn too_much_to_catch_up_with_means_to_list_again() {
    let now = Instant::now();
    let mut machine = watching(now);
    let large = StoreError::TooLarge {
        reason: "message".to_owned(),
        commit: Commit::No,
    };
    machine.item(
        now,
        WatchItem::Disconnected(large),
        Some(WatchRequest::new([KeyRange::prefix("a")], 8)),
    );
    assert!(matches!(
        wishes(&mut machine)[..],
        [Output::CloseWatch, Output::List(_)]
    ));
}

#[test]
fn back_off_doubles_to_its_bound_and_differs_by_seed() {
    let pauses = |seed: u64| {
        let now = Instant::now();
        let mut machine = Machine::new(now, vec![KeyRange::prefix("a")], seed);
        let down = || StoreError::Unavailable {
            reason: "down".to_owned(),
            commit: Commit::No,
        };
        let mut pauses = vec![];
        for _ in 0..12 {
            machine.page(now, Err(down()));
            let until = machine.deadline().unwrap();
            pauses.push(until - now);
            machine.tick(until, None);
        }
        pauses
    };
    let (one, two) = (pauses(1), pauses(2));
    assert_ne!(one, two);
    for (at, pause) in one.iter().enumerate() {
        let span = BACKOFF_MIN.saturating_mul(1 << at).min(BACKOFF_MAX);
        assert!(*pause >= span / 2 && *pause <= span, "{at}: {pause:?}");
    }
}

#[test]
fn overlapping_and_empty_ranges_become_disjoint_ones() {
    let now = Instant::now();
    let ranges = vec![
        KeyRange::prefix("b"),
        KeyRange::key("ab"),
        KeyRange::span("z", "y"),
        KeyRange::prefix("a"),
    ];
    let mut machine = Machine::new(now, ranges, 1);
    machine.page(now, Ok(page(7, &[], false)));
    machine.page(now, Ok(page(7, &[], false)));
    let ranges = [KeyRange::prefix("a"), KeyRange::prefix("b")];
    assert!(wishes(&mut machine).contains(&Output::Watch(WatchRequest::new(ranges, 8))));
}

fn kv(key: &'static str, revision: Revision) -> crate::KeyValue {
    crate::KeyValue {
        key: key.into(),
        value: "v".into(),
        mod_revision: revision,
        create_revision: revision,
        version: 1,
    }
}

/// What a machine wants next, and what it told on the way.
fn wish_and_news(machine: &mut Machine) -> (Option<Output>, Vec<Changes>) {
    let (mut last, mut told) = (None, vec![]);
    while let Some(output) = machine.poll() {
        match output {
            Output::Deliver(changes) => told.push(changes),
            Output::State(_) => {}
            other => last = Some(other),
        }
    }
    (last, told)
}

/// A machine that has listed `kvs` at `revision` and watches.
fn holding(now: Instant, kvs: Vec<crate::KeyValue>, revision: Revision) -> Machine {
    let mut machine = Machine::new(now, vec![KeyRange::prefix("/c/")], 1);
    machine.page(
        now,
        Ok(RangeReply {
            revision,
            kvs,
            more: false,
        }),
    );
    machine.opened(now);
    wish_and_news(&mut machine);
    machine
}

/// Lets time pass until the machine compares; hands it what the store then holds.
fn compare(
    machine: &mut Machine,
    from: Instant,
    kvs: Vec<crate::KeyValue>,
    revision: Revision,
) -> Vec<Changes> {
    let mut now = from;
    let resume = WatchRequest::new([KeyRange::prefix("/c/")], 1);
    for _ in 0..1000 {
        now = machine.deadline().unwrap();
        machine.tick(now, Some(resume.clone()));
        match wish_and_news(machine).0 {
            Some(Output::List(_)) => break,
            Some(Output::AskProgress) => machine.item(now, WatchItem::Alive, None),
            other => panic!("{other:?}"),
        }
    }
    assert!(now > from + COMPARE_EVERY / 5 * 4 - PROGRESS_AFTER && now <= from + COMPARE_EVERY);
    machine.page(
        now,
        Ok(RangeReply {
            revision,
            kvs,
            more: false,
        }),
    );
    wish_and_news(machine).1
}

#[test]
fn a_comparison_repairs_what_the_watch_did_not_tell_and_counts_it() {
    let now = Instant::now();
    let known = || vec![kv("/c/a", 3), kv("/c/b", 5)];
    let mut machine = holding(now, known(), 9);
    let told = compare(&mut machine, now, known(), 9);
    assert!(told.iter().all(|c| c.changes.is_empty()), "{told:?}");
    assert_eq!(
        (
            machine.state().counts.comparisons,
            machine.state().counts.mismatches
        ),
        (1, 0)
    );

    let mut machine = holding(now, known(), 9);
    // Changed at 8, of which the watch said nothing; what was written after 9 is merely new.
    let told = compare(
        &mut machine,
        now,
        vec![kv("/c/a", 8), kv("/c/b", 5), kv("/c/n", 12)],
        12,
    );
    let keys: Vec<_> = told
        .iter()
        .flat_map(|c| &c.changes)
        .map(|c| c.key.clone())
        .collect();
    assert_eq!(keys, ["/c/a", "/c/n"]);
    assert_eq!(machine.state().counts.mismatches, 1);
}

#[test]
fn a_comparison_that_fails_goes_on_with_the_watch() {
    let now = Instant::now();
    let mut machine = holding(now, vec![], 9);
    machine.compare_every(now, Duration::from_secs(1));
    let at = machine.deadline().unwrap();
    let resume = WatchRequest::new([KeyRange::prefix("/c/")], 10);
    machine.tick(at, Some(resume.clone()));
    let away = StoreError::Timeout {
        limit: Duration::ZERO,
        commit: Commit::No,
    };
    machine.page(at, Err(away));
    wish_and_news(&mut machine);
    machine.tick(machine.deadline().unwrap(), None);
    assert_eq!(wish_and_news(&mut machine).0, Some(Output::Watch(resume)));
}

#[test]
fn a_store_that_was_put_back_is_told_anew_as_a_whole() {
    let now = Instant::now();
    let mut machine = holding(now, vec![kv("/c/a", 3), kv("/c/b", 90)], 100);
    // Three watches in a row find it behind; a member that lags would have caught up.
    let mut at = now;
    for _ in 0..3 {
        let behind = StoreError::Behind { now: 50, seen: 100 };
        machine.item(
            at,
            WatchItem::Disconnected(behind.clone()),
            Some(WatchRequest::new([KeyRange::prefix("/c/")], 101)),
        );
        machine.open_failed(at, behind);
        wish_and_news(&mut machine);
        at = machine.deadline().unwrap();
        machine.tick(at, None);
    }
    let Some(Output::List(_)) = wish_and_news(&mut machine).0 else {
        panic!("a listing is wanted")
    };
    machine.page(
        at,
        Ok(RangeReply {
            revision: 50,
            kvs: vec![kv("/c/a", 3), kv("/c/z", 40)],
            more: false,
        }),
    );
    let (next, told) = wish_and_news(&mut machine);
    let [changes] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert!(changes.restored && changes.revision == 50);
    let keys: Vec<_> = changes
        .changes
        .iter()
        .map(|c| (c.key.clone(), c.value.is_some()))
        .collect();
    assert_eq!(
        keys,
        [
            ("/c/b".into(), false),
            ("/c/a".into(), true),
            ("/c/z".into(), true)
        ]
    );
    assert_eq!(
        next,
        Some(Output::Watch(WatchRequest::new([KeyRange::prefix("/c/")], 51)))
    );
    assert_eq!(
        (machine.state().revision, machine.state().counts.restores),
        (50, 1)
    );
}
