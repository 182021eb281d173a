//! Watching ranges of keys: what a store tells of its changes.

use bytes::Bytes;

use crate::{KeyRange, KeyValue, Revision, StoreError};

/// The most ranges in one watch.
pub const WATCH_RANGES_MAX: usize = 64;

/// What to watch, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// The ranges, none of which overlap, each with the first revision whose events are wanted.
    pub ranges: Vec<(KeyRange, Revision)>,
}

impl WatchRequest {
    /// Watches all ranges from one revision: one after the snapshot that was listed.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = KeyRange>, from: Revision) -> Self {
        Self {
            ranges: ranges.into_iter().map(|range| (range, from)).collect(),
        }
    }

    /// Refuses what no store would carry out. Stores call it before they send.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] without a range, with more than [`WATCH_RANGES_MAX`], with two that overlap, or from revision 0.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.ranges.is_empty() || self.ranges.len() > WATCH_RANGES_MAX {
            let count = self.ranges.len();
            return Err(StoreError::invalid(format!(
                "a watch of {count} ranges: 1 to {WATCH_RANGES_MAX} are possible"
            )));
        }
        if self.ranges.iter().any(|(_, from)| *from == 0) {
            return Err(StoreError::invalid(
                "a watch from revision 0: revisions begin at 1",
            ));
        }
        for (at, (range, _)) in self.ranges.iter().enumerate() {
            if self.ranges[..at].iter().any(|(other, _)| other.overlaps(range)) {
                return Err(StoreError::invalid("a watch of ranges that overlap"));
            }
        }
        Ok(())
    }

    /// True if an event at `revision` of `key` was asked for.
    pub(crate) fn wants(&self, key: &[u8], revision: Revision) -> bool {
        self.ranges
            .iter()
            .any(|(range, from)| *from <= revision && range.contains(key))
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The key was written.
    Put(KeyValue),
    /// The key was deleted.
    Delete {
        /// The key.
        key: Bytes,
        /// The revision that deleted it.
        mod_revision: Revision,
    },
}

impl WatchEvent {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }
}

/// All changes of one revision in the watched ranges, in the order of the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: Revision,
    /// The changes, at least one.
    pub events: Vec<WatchEvent>,
}

/// What a watch says next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// The changes of one revision, whole, and revisions only rise. Both hold within each top-level directory (`/calico/`,
    /// `/twill/`): a transaction that writes under two of them may come as two batches, with later ones of one of them between.
    Events(Batch),
    /// Everything up to this revision has been told, in all ranges.
    Progress {
        /// The revision.
        revision: Revision,
    },
    /// The stream is alive: the answer to [`Watch::request_progress`]. Says nothing of what has been told (etcd before 3.4.25
    /// lets it overtake events).
    Alive,
    /// The watch began, or fell, behind the oldest revision kept, and is over. List again.
    Compacted {
        /// The oldest revision that can still be watched from.
        oldest: Revision,
    },
    /// The stream broke and is over; nothing is known to have changed. Watch again from [`Watch::resume`].
    /// [`StoreError::TooLarge`] means that there is too much to catch up with: list again instead.
    Disconnected(StoreError),
}

/// A running watch. Dropping it ends it.
pub trait Watch: Send + 'static {
    /// The next item. Cancel-safe. After [`WatchItem::Compacted`] or [`WatchItem::Disconnected`] the watch is over and says
    /// `Disconnected` for ever.
    fn next(&mut self) -> impl Future<Output = WatchItem> + Send;

    /// The request that goes on exactly where this watch stands: nothing lost, nothing twice.
    fn resume(&self) -> WatchRequest;

    /// Asks the store for a sign of life, which comes as an item. If the stream is broken, that is what comes.
    fn request_progress(&mut self) -> impl Future<Output = ()> + Send;
}
