//! Keys with all their versions since the last compaction, and the log of what each revision changed.
//!
//! A plain struct: no lock, no clock, no task. Its semantics are etcd's (3.4), down to what a compare over an empty range means;
//! the conformance suite runs both side by side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use crate::{
    Batch, Compare, KeyRange, KeyValue, LeaseId, Op, OpReply, RangeReply, RangeRequest, Revision, StoreError,
    Target, Txn, TxnReply, WatchEvent, WatchRequest,
};

/// The most revisions that are kept. Beyond it the older half is compacted, so that a long simulation stays small.
pub const HISTORY_REVISIONS_MAX: usize = 100_000;

/// What a key was from one revision on.
#[derive(Clone, Debug)]
struct Version {
    kv: KeyValue,
    live: bool,
    lease: Option<LeaseId>,
}

/// The data of a store and its history.
#[derive(Debug)]
pub(super) struct Mvcc {
    revision: Revision,
    /// Reads below it are refused; 0 = never compacted.
    compacted: Revision,
    /// Versions by key, oldest first, none empty.
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// One batch per revision after `compacted`, without gaps: the last is `revision`.
    log: VecDeque<Batch>,
    leases: BTreeMap<LeaseId, BTreeSet<Bytes>>,
    last_lease: i64,
}

impl Default for Mvcc {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            leases: BTreeMap::new(),
            last_lease: 0,
        }
    }
}

impl Mvcc {
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The first batch at or after `from` that is wanted, cut down to what is. The caller has checked for compaction.
    pub(super) fn batch_from(&self, from: Revision, request: &WatchRequest) -> Option<Batch> {
        let first = self.log.partition_point(|batch| batch.revision < from);
        self.log.range(first..).find_map(|batch| {
            let wanted = |event: &&WatchEvent| request.wants(event.key(), batch.revision);
            let events: Vec<_> = batch.events.iter().filter(wanted).cloned().collect();
            (!events.is_empty()).then_some(Batch {
                revision: batch.revision,
                events,
            })
        })
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeReply, StoreError> {
        let at = request.revision.unwrap_or(self.revision);
        if at > self.revision {
            return Err(StoreError::invalid(format!(
                "revision {at} lies in the future of {}",
                self.revision
            )));
        }
        if at < self.compacted {
            return Err(StoreError::Compacted {
                oldest: Some(self.compacted),
            });
        }
        Ok(self.read(request, at, self.revision))
    }

    fn read(&self, request: &RangeRequest, at: Revision, reported: Revision) -> RangeReply {
        let range = request.effective_range();
        let mut found = self.live(&range, at);
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let mut kvs: Vec<KeyValue> = found
            .by_ref()
            .take(limit)
            .map(|version| version.kv.clone())
            .collect();
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeReply {
            revision: reported,
            more: found.next().is_some(),
            kvs,
        }
    }

    /// The keys of a range that were there at a revision.
    fn live(&self, range: &KeyRange, at: Revision) -> impl Iterator<Item = &Version> {
        let start = Bound::Included(range.start().clone());
        let end = range
            .end()
            .map_or(Bound::Unbounded, |end| Bound::Excluded(end.clone()));
        // BTreeMap::range panics on a backward range.
        let keys = (!range.is_empty()).then(|| self.keys.range((start, end)));
        keys.into_iter().flatten().filter_map(move |(_, versions)| {
            let upto = versions.partition_point(|version| version.kv.mod_revision <= at);
            versions[..upto].last().filter(|version| version.live)
        })
    }

    pub(super) fn txn(&mut self, txn: &Txn) -> Result<TxnReply, StoreError> {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.then } else { &txn.otherwise };
        for op in ops {
            if let Op::Put {
                lease: Some(lease), ..
            } = op
            {
                self.lease_exists(*lease)?;
            }
        }
        let next = self.revision + 1;
        let mut events = Vec::new();
        let mut responses: Vec<OpReply> = ops.iter().map(|op| self.apply(op, next, &mut events)).collect();
        self.commit(next, events);
        for response in &mut responses {
            if let OpReply::Range(reply) = response {
                reply.revision = self.revision;
            }
        }
        Ok(TxnReply {
            succeeded,
            revision: self.revision,
            responses,
        })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut any = false;
        for version in self.live(&compare.range, self.revision) {
            any = true;
            let kv = &version.kv;
            let equal = match &compare.target {
                Target::ModRevision(revision) => kv.mod_revision == *revision,
                Target::Version(version) => kv.version == *version,
                Target::Present => true,
                Target::Value(value) => kv.value == *value,
            };
            if !equal {
                return false;
            }
        }
        any || matches!(compare.target, Target::ModRevision(0) | Target::Version(0))
    }

    fn apply(&mut self, op: &Op, next: Revision, events: &mut Vec<WatchEvent>) -> OpReply {
        match op {
            Op::Put { key, value, lease } => {
                events.push(WatchEvent::Put(self.put(key, value, *lease, next)));
                OpReply::Put
            }
            Op::Delete { range } => {
                let doomed: Vec<Bytes> = self
                    .live(range, next)
                    .map(|version| version.kv.key.clone())
                    .collect();
                for key in &doomed {
                    self.delete(key, next);
                    events.push(WatchEvent::Delete {
                        key: key.clone(),
                        mod_revision: next,
                    });
                }
                OpReply::Delete {
                    deleted: doomed.len() as u64,
                }
            }
            Op::Range(request) => OpReply::Range(self.read(request, next, next)),
        }
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, lease: Option<LeaseId>, next: Revision) -> KeyValue {
        let versions = self.keys.entry(key.clone()).or_default();
        let before = versions.last().filter(|version| version.live);
        let kv = KeyValue {
            key: key.clone(),
            value: value.clone(),
            mod_revision: next,
            create_revision: before.map_or(next, |version| version.kv.create_revision),
            version: before.map_or(1, |version| version.kv.version + 1),
        };
        let old_lease = before.and_then(|version| version.lease);
        versions.push(Version {
            kv: kv.clone(),
            live: true,
            lease,
        });
        self.move_lease(key, old_lease, lease);
        kv
    }

    fn delete(&mut self, key: &Bytes, next: Revision) {
        let Some(versions) = self.keys.get_mut(key) else {
            return;
        };
        let old_lease = versions.last().and_then(|version| version.lease);
        let kv = KeyValue {
            key: key.clone(),
            value: Bytes::new(),
            mod_revision: next,
            create_revision: 0,
            version: 0,
        };
        versions.push(Version {
            kv,
            live: false,
            lease: None,
        });
        self.move_lease(key, old_lease, None);
    }

    fn move_lease(&mut self, key: &Bytes, from: Option<LeaseId>, to: Option<LeaseId>) {
        if let Some(keys) = from.and_then(|lease| self.leases.get_mut(&lease)) {
            keys.remove(key);
        }
        if let Some(keys) = to.and_then(|lease| self.leases.get_mut(&lease)) {
            keys.insert(key.clone());
        }
    }

    fn commit(&mut self, next: Revision, events: Vec<WatchEvent>) {
        if events.is_empty() {
            return;
        }
        self.revision = next;
        self.log.push_back(Batch {
            revision: next,
            events,
        });
        if self.log.len() > HISTORY_REVISIONS_MAX {
            let middle = self.log[HISTORY_REVISIONS_MAX / 2].revision;
            self.forget(middle);
        }
    }

    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::invalid(format!(
                "compaction at {revision}, in the future of {}",
                self.revision
            )));
        }
        if revision <= self.compacted {
            return Err(StoreError::Compacted {
                oldest: Some(self.compacted),
            });
        }
        self.forget(revision);
        Ok(())
    }

    fn forget(&mut self, revision: Revision) {
        self.compacted = revision;
        let gone = self.log.partition_point(|batch| batch.revision <= revision);
        self.log.drain(..gone);
        self.keys.retain(|_, versions| {
            let upto = versions.partition_point(|version| version.kv.mod_revision <= revision);
            // The newest of the old ones is what a read at `revision` sees; a deletion is seen by its absence.
            let keep_last = versions[..upto].last().is_some_and(|version| version.live);
            versions.drain(..upto - usize::from(keep_last));
            !versions.is_empty()
        });
    }

    pub(super) fn grant(&mut self) -> LeaseId {
        self.last_lease += 1;
        let lease = LeaseId(self.last_lease);
        self.leases.insert(lease, BTreeSet::new());
        lease
    }

    pub(super) fn lease_exists(&self, lease: LeaseId) -> Result<(), StoreError> {
        if self.leases.contains_key(&lease) {
            Ok(())
        } else {
            Err(StoreError::invalid("the lease is gone"))
        }
    }

    pub(super) fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        self.lease_exists(lease)?;
        let keys = self.leases.remove(&lease).unwrap_or_default();
        let next = self.revision + 1;
        let mut events = Vec::with_capacity(keys.len());
        for key in keys {
            self.delete(&key, next);
            events.push(WatchEvent::Delete {
                key,
                mod_revision: next,
            });
        }
        self.commit(next, events);
        Ok(())
    }
}
