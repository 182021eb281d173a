//! What the watcher of the store tells the allocator: the newest value of each key, merged while the task is busy,
//! so that a slow store costs memory for keys and not for changes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use twill_datastore::Bytes;

use crate::state::Observed;

#[derive(Default)]
pub(super) struct Feed {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    newest: BTreeMap<Bytes, Observed>,
    in_sync: bool,
    restored: bool,
}

/// What has come since the last time.
pub(super) struct Taken {
    pub(super) seen: Vec<Observed>,
    /// Everything has been told once.
    pub(super) in_sync: bool,
    /// What was known before is void.
    pub(super) restored: bool,
}

impl Feed {
    pub(super) fn add(&self, seen: impl IntoIterator<Item = Observed>) {
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            for observed in seen {
                let known = inner.newest.get(observed.key());
                if known.is_none_or(|known| known.revision() <= observed.revision()) {
                    inner.newest.insert(observed.key().clone(), observed);
                }
            }
        }
        self.changed.notify_one();
    }

    /// Forgets what was told before: the store was put back to an older state, and this is all that it holds.
    pub(super) fn restored(&self, seen: impl IntoIterator<Item = Observed>) {
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.newest = seen.into_iter().map(|o| (o.key().clone(), o)).collect();
            inner.restored = true;
        }
        self.changed.notify_one();
    }

    pub(super) fn set_in_sync(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).in_sync = true;
        self.changed.notify_one();
    }

    /// Takes what has come since the last time.
    pub(super) fn take(&self) -> Taken {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Taken {
            seen: std::mem::take(&mut inner.newest).into_values().collect(),
            in_sync: inner.in_sync,
            restored: std::mem::take(&mut inner.restored),
        }
    }

    /// Waits for something to take. Cancel-safe: a notification that nobody waited for is kept.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
