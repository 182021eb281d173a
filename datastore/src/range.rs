//! Ranges of keys, and reading them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::StoreError;

/// A revision of the whole store: 1 is the empty store, each writing transaction adds one. 0 never occurs; where a revision is
/// compared or optional it means "none".
pub type Revision = u64;

/// The most keys that one request may read. More would make etcd 3.4's reads slow for everyone, and a reply of full IPAM
/// blocks (20 kB each) outgrow gRPC's message limits.
pub const PAGE_KEYS_MAX: u32 = 500;

/// A half-open range of keys, in byte order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyRange {
    start: Bytes,
    /// Exclusive; empty = no upper bound.
    end: Bytes,
}

impl KeyRange {
    /// The one key.
    #[must_use]
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let end = successor(&start);
        Self { start, end }
    }

    /// Every key that begins with `prefix`. The empty prefix is the whole store.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = prefix_end(&start);
        Self { start, end }
    }

    /// From `start` up to, not including, `end`. An empty `end` means no upper bound.
    #[must_use]
    pub fn span(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self {
            start: start.into(),
            end: end.into(),
        }
    }

    /// The first key that may be in the range.
    #[must_use]
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// The first key after the range; `None` if there is no upper bound.
    #[must_use]
    pub fn end(&self) -> Option<&Bytes> {
        (!self.end.is_empty()).then_some(&self.end)
    }

    /// The range's end as etcd wants it: empty if there is no upper bound.
    pub(crate) fn end_bytes(&self) -> Bytes {
        self.end.clone()
    }

    /// The bytes of its bounds.
    pub(crate) fn bytes(&self) -> usize {
        self.start.len() + self.end.len()
    }

    /// True if `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end().is_none_or(|end| key < &end[..])
    }

    /// True if the two ranges share a key that could exist.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.is_empty()
            && !other.is_empty()
            && self.end().is_none_or(|end| other.start < end)
            && other.end().is_none_or(|end| self.start < end)
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn cover(&self, other: &Self) -> Self {
        let start = (&self.start).min(&other.start).clone();
        let end = self
            .end()
            .zip(other.end())
            .map(|(a, b)| a.max(b).clone())
            .unwrap_or_default();
        Self { start, end }
    }

    /// The same keys in ranges that do not overlap, in order, none empty.
    #[must_use]
    pub fn disjoint(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.retain(|range| !range.is_empty());
        ranges.sort();
        let mut merged: Vec<Self> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut().filter(|last| last.overlaps(&range)) {
                Some(last) => *last = last.cover(&range),
                None => merged.push(range),
            }
        }
        merged
    }

    /// True if no key can lie in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end().is_some_and(|end| *end <= self.start)
    }

    /// The part of the range behind `key`.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> Self {
        let start = successor(key);
        Self {
            start: start.max(self.start.clone()),
            end: self.end.clone(),
        }
    }
}

/// The first key behind `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// The first key behind all that begin with `prefix`; empty if there is none.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let Some(last) = prefix.iter().rposition(|byte| *byte != 0xff) else {
        return Bytes::new();
    };
    let mut end = BytesMut::from(&prefix[..=last]);
    end[last] += 1;
    end.freeze()
}

/// A key, its value and its history in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty if only keys were asked for.
    pub value: Bytes,
    /// The revision that wrote this value: what an update compares, and a resource's `resourceVersion`.
    pub mod_revision: Revision,
    /// The revision that made the key after it was last absent.
    pub create_revision: Revision,
    /// How often the key was written since it was made; the first write gives 1.
    pub version: u64,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// The read sees every write that was answered before it began. For every decision.
    #[default]
    Linearised,
    /// Any member may answer from what it has, which may be old. For display.
    Serialisable,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// The keys.
    pub range: KeyRange,
    /// The most keys that the reply may hold, 1 to [`PAGE_KEYS_MAX`].
    pub limit: u32,
    /// The revision to read at; `None` = the current one.
    pub revision: Option<Revision>,
    /// Leave the values out.
    pub keys_only: bool,
    /// Begin behind this key: the last key of the page before.
    pub after: Option<Bytes>,
    /// How fresh.
    pub consistency: Consistency,
}

impl RangeRequest {
    /// Reads a range, at most [`PAGE_KEYS_MAX`] keys of it, at the current revision, linearised.
    #[must_use]
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            limit: PAGE_KEYS_MAX,
            revision: None,
            keys_only: false,
            after: None,
            consistency: Consistency::Linearised,
        }
    }

    /// Reads one key.
    #[must_use]
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::new(KeyRange::key(key))
    }

    /// Reads the keys under a prefix, at most [`PAGE_KEYS_MAX`] of them.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::new(KeyRange::prefix(prefix))
    }

    /// At most so many keys.
    #[must_use]
    pub fn limit(mut self, keys: u32) -> Self {
        self.limit = keys;
        self
    }

    /// As the store was at that revision.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    /// Without the values.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// Only keys behind this one.
    #[must_use]
    pub fn after(mut self, key: impl Into<Bytes>) -> Self {
        self.after = Some(key.into());
        self
    }

    /// A read that may be old.
    #[must_use]
    pub fn serialisable(mut self) -> Self {
        self.consistency = Consistency::Serialisable;
        self
    }

    /// The range that is left behind the cursor.
    #[must_use]
    pub fn effective_range(&self) -> KeyRange {
        self.after
            .as_ref()
            .map_or_else(|| self.range.clone(), |after| self.range.after(after))
    }

    /// Refuses what no store would carry out.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the limit is 0 or above [`PAGE_KEYS_MAX`], or the revision is 0.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.limit == 0 || self.limit > PAGE_KEYS_MAX {
            return Err(StoreError::invalid(format!(
                "a page of {} keys: 1 to {PAGE_KEYS_MAX} are possible",
                self.limit
            )));
        }
        if self.revision == Some(0) {
            return Err(StoreError::invalid("a read at revision 0: revisions begin at 1"));
        }
        Ok(())
    }
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeReply {
    /// The store's revision when it answered: the snapshot to read further pages at.
    pub revision: Revision,
    /// The keys in byte order.
    pub kvs: Vec<KeyValue>,
    /// There are more keys in the range than the limit let through.
    pub more: bool,
}
