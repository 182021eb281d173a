//! What became of keys, told by events and found by comparing a listing with what is known.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::{Bytes, KeyRange, KeyValue, Revision, WatchEvent};

/// What became of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// The revision that changed it. Of a deletion that was missed: the revision at which the key was found gone.
    pub revision: Revision,
    /// Its value; `None` once it is gone.
    pub value: Option<KeyValue>,
    /// The key was not known before.
    pub fresh: bool,
}

impl From<Change> for WatchEvent {
    /// The change as an event; of a deletion that was missed with the revision at which it was found.
    fn from(change: Change) -> Self {
        let Change {
            key,
            revision: mod_revision,
            value,
            ..
        } = change;
        value.map_or(Self::Delete { key, mod_revision }, Self::Put)
    }
}

/// Changes that belong together: of one revision, or of one listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The revision up to which the copy is now complete.
    pub revision: Revision,
    /// The changes.
    pub changes: Vec<Change>,
    /// A full pass has ended.
    pub in_sync: bool,
    /// The store was put back to an older state, and these are all its keys.
    pub restored: bool,
}

/// What an event changes, if it is news.
pub(super) fn news_of(known: &BTreeMap<Bytes, Revision>, event: WatchEvent) -> Option<Change> {
    match event {
        WatchEvent::Put(kv) => put(known, kv),
        WatchEvent::Delete { key, mod_revision } => {
            let old = *known.get(&key)?;
            (old < mod_revision).then_some(Change {
                key,
                revision: mod_revision,
                value: None,
                fresh: false,
            })
        }
    }
}

fn put(known: &BTreeMap<Bytes, Revision>, kv: KeyValue) -> Option<Change> {
    let old = known.get(&kv.key);
    let is_news = old.is_none_or(|old| *old < kv.mod_revision);
    is_news.then(|| news(kv, old.is_none()))
}

fn news(kv: KeyValue, fresh: bool) -> Change {
    Change {
        key: kv.key.clone(),
        revision: kv.mod_revision,
        fresh,
        value: Some(kv),
    }
}

/// What a listing is compared with.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) keys: &'a BTreeMap<Bytes, Revision>,
    /// Whatever is listed is told, known or not.
    pub(super) all_is_news: bool,
}

/// Which part of the store one page of a listing shows.
pub(super) struct Page<'a> {
    pub(super) range: &'a KeyRange,
    /// Where the page before ended; `None`: the range's start.
    pub(super) from: Option<&'a Bytes>,
    /// Before where this one ended; `None`: the range's end.
    pub(super) to: Option<&'a Bytes>,
    pub(super) revision: Revision,
}

impl Known<'_> {
    /// Compares one page with what is known of its part of the store.
    pub(super) fn diff(self, page: &Page<'_>, kvs: Vec<KeyValue>, staged: &mut Vec<Change>) {
        let start = page.from.unwrap_or(page.range.start());
        let end = page.to.or(page.range.end());
        if end.is_some_and(|end| end <= start) {
            return;
        }
        let (start, end) = (
            Bound::Included(start),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let mut listed = kvs.iter().map(|kv| &kv.key).peekable();
        for (key, _) in self.keys.range::<Bytes, _>((start, end)) {
            while listed.next_if(|at| *at < key).is_some() {}
            if listed.next_if(|at| *at == key).is_none() {
                staged.push(Change {
                    key: key.clone(),
                    revision: page.revision,
                    value: None,
                    fresh: false,
                });
            }
        }
        staged.extend(kvs.into_iter().filter_map(|kv| {
            let fresh = !self.keys.contains_key(&kv.key);
            if self.all_is_news {
                return Some(news(kv, fresh));
            }
            // Another revision, also an older one: what was listed is what holds.
            (self.keys.get(&kv.key) != Some(&kv.mod_revision)).then(|| news(kv, fresh))
        }));
    }
}
