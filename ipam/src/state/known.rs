//! The parts of what an allocator knows: keys as they are observed, blocks, affinities, handles.

use std::collections::BTreeMap;
use std::sync::Arc;

use twill_datastore::{Bytes, KeyValue, Revision, WatchEvent};
use twill_model::ipam::{AttributeView, Block, BlockAffinity, BlockView, Handle};

use crate::now::Now;

/// How long an empty block is left to who claimed it: otherwise two nodes could take it from each other before either has
/// used it. Calico's number.
const RECLAIM_AGE_SECS: i64 = 60;

/// A key as it is, or is not, at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It was written.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The revision that wrote it.
        revision: Revision,
        /// The revision that made it.
        created: Revision,
    },
    /// It is not there.
    Absent {
        /// The key.
        key: Bytes,
        /// The revision that deleted it, or at which it was found missing.
        at: Revision,
    },
}

impl Observed {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Absent { key, .. } => key,
        }
    }

    /// The revision at which it was so.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { revision, .. } => *revision,
            Self::Absent { at, .. } => *at,
        }
    }

    /// What a read of `key` at revision `at` found.
    #[must_use]
    pub fn read(key: Bytes, found: Option<&KeyValue>, at: Revision) -> Self {
        found.cloned().map_or(Self::Absent { key, at }, Self::from)
    }
}

impl From<KeyValue> for Observed {
    fn from(kv: KeyValue) -> Self {
        Self::Put {
            key: kv.key,
            value: kv.value,
            revision: kv.mod_revision,
            created: kv.create_revision,
        }
    }
}

impl From<WatchEvent> for Observed {
    fn from(event: WatchEvent) -> Self {
        match event {
            WatchEvent::Put(kv) => kv.into(),
            WatchEvent::Delete { key, mod_revision } => Self::Absent {
                key,
                at: mod_revision,
            },
        }
    }
}

/// Whose a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Mine,
    Other(String),
    None,
    /// The value cannot be used, nor the CIDR be claimed.
    Unreadable(String),
}

#[derive(Clone, Debug)]
pub(crate) struct KnownBlock {
    pub(crate) revision: Revision,
    pub(crate) owner: Owner,
    pub(crate) free: usize,
    pub(crate) rest: Rest,
    /// Kept whole if it is ours or a guest.
    pub(crate) whole: Option<Arc<Block>>,
}

/// What a block holds besides free addresses, for those who would borrow from it or take it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Somebody holds an address. If others are in their cool-down: since when the first of them (UNIX seconds).
    Held(Option<i64>),
    /// Nobody holds any.
    Idle {
        /// When the owner claimed it (UNIX seconds); `None` if that was not recorded.
        claimed: Option<i64>,
        /// If addresses are in their cool-down, since when the last of them.
        cooling: Option<i64>,
    },
}

impl Rest {
    fn of(block: &BlockView<'_>) -> Self {
        let unix = |text: &str| Some(text.parse::<jiff::Timestamp>().ok()?.as_second());
        // A time that cannot be read never passes.
        let released = |a: &AttributeView<'_>| Some(unix(a.released_at()?).unwrap_or(i64::MAX));
        let times = block.attributes().filter_map(released);
        let mut taken = (0u32..)
            .take(block.allocations.len())
            .filter_map(|ordinal| block.attribute(ordinal));
        if taken.any(|attribute| attribute.released_at().is_none()) {
            return Self::Held(times.min());
        }
        Self::Idle {
            claimed: block.affinity_claim_time().and_then(unix),
            cooling: times.max(),
        }
    }

    /// Whether the block may be taken over: nobody holds anything, no cool-down runs, and the owner has had it for a while.
    pub(crate) fn is_reclaimable(&self, now: Now, cooldown_secs: i64) -> bool {
        let Self::Idle { claimed, cooling } = self else {
            return false;
        };
        let secs = now.unix_secs();
        claimed.is_none_or(|at| secs.saturating_sub(at) >= RECLAIM_AGE_SECS)
            && cooling.is_none_or(|at| at < secs.saturating_sub(cooldown_secs))
    }

    /// Whether an address whose cool-down is over may be in it.
    pub(crate) fn may_thaw(&self, now: Now, cooldown_secs: i64) -> bool {
        let since = match self {
            Self::Held(since) => *since,
            Self::Idle { cooling, .. } => *cooling,
        };
        since.is_some_and(|at| at < now.unix_secs().saturating_sub(cooldown_secs))
    }
}

impl KnownBlock {
    /// A block in a line; whoever wants it whole adds it.
    pub(super) fn of(block: &BlockView<'_>, owner: Owner, revision: Revision) -> Self {
        Self {
            revision,
            owner,
            free: block.free(),
            rest: Rest::of(block),
            whole: None,
        }
    }

    pub(super) fn unreadable(reason: String, revision: Revision) -> Self {
        Self {
            revision,
            owner: Owner::Unreadable(reason),
            free: 0,
            rest: Rest::Held(None),
            whole: None,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct KnownAffinity {
    pub(crate) revision: Revision,
    pub(crate) value: BlockAffinity,
    /// Since when it has been in this state, by [`Now::mono_ms`].
    pub(crate) since_ms: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct KnownHandle {
    pub(crate) revision: Revision,
    pub(crate) created: Revision,
    /// `None`: known to be absent.
    pub(crate) handle: Option<Handle>,
}

/// Something with the revision that wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Versioned<T> {
    pub(crate) revision: Revision,
    pub(crate) value: T,
}

/// Decodes what was seen; absent gives `None`.
pub(super) fn versioned<T, E: ToString>(
    seen: &Observed,
    decode: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<(Revision, Option<T>), String> {
    match seen {
        Observed::Absent { at, .. } => Ok((*at, None)),
        Observed::Put { value, revision, .. } => decode(value)
            .map(|value| (*revision, Some(value)))
            .map_err(|e| e.to_string()),
    }
}

pub(super) type New<T> = (Revision, Option<T>);

pub(super) fn replace<T>(slot: &mut Versioned<T>, (revision, value): New<T>, default: impl FnOnce() -> T) {
    if revision >= slot.revision {
        *slot = Versioned {
            revision: if value.is_some() { revision } else { 0 },
            value: value.unwrap_or_else(default),
        };
    }
}

pub(super) fn set<T>(slot: &mut Option<Versioned<T>>, (revision, value): New<T>) {
    if slot.as_ref().is_none_or(|known| revision >= known.revision) {
        *slot = value.map(|value| Versioned { revision, value });
    }
}

pub(super) fn insert<T>(map: &mut BTreeMap<String, Versioned<T>>, name: &str, (revision, value): New<T>) {
    if map.get(name).is_some_and(|known| known.revision > revision) {
        return;
    }
    match value {
        Some(value) => map.insert(name.to_owned(), Versioned { revision, value }),
        None => map.remove(name),
    };
}

/// Whether the datastore may be changed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Open for changes.
    pub(crate) is_ready: bool,
    /// Whether the time of a release may be stored with the address.
    pub(crate) stores_released_at: bool,
}
