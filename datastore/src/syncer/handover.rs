//! The slot between the syncer and its consumer: one change per key, merged while the consumer is away.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::changes::{Change, Changes};
use super::state::State;
use crate::{Bytes, Revision};

/// What has changed since the consumer last looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncBatch {
    /// All changes up to this revision are in this batch or were in one before.
    pub revision: Revision,
    /// At most one change per key, by revision, then key.
    pub changes: Vec<Change>,
    /// A full pass has ended, now or earlier: what has been told is all there is. Once true it stays true.
    pub in_sync: bool,
    /// The store was put back to an older state: every key is told anew, and revisions begin again below those known.
    pub restored: bool,
}

#[derive(Debug, Default)]
struct Slot {
    /// At most one entry for every key of the ranges; taken whole.
    pending: BTreeMap<Bytes, Change>,
    revision: Revision,
    in_sync: bool,
    restored: bool,
    /// `in_sync` became true and the consumer has not been told.
    news: bool,
}

#[derive(Debug)]
struct Shared {
    slot: Mutex<Slot>,
    wake: Notify,
    state: watch::Sender<State>,
    /// Both ends hold one of its receivers' or senders' lives; dropping the sender's tells the consumer, and the reverse.
    syncer_gone: watch::Sender<bool>,
    consumer_gone: watch::Sender<bool>,
}

impl Shared {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        // Merging and taking cannot panic half-way.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn channel(state: State) -> (Sender, Receiver) {
    let shared = Arc::new(Shared {
        slot: Mutex::default(),
        wake: Notify::new(),
        state: watch::Sender::new(state),
        syncer_gone: watch::Sender::new(false),
        consumer_gone: watch::Sender::new(false),
    });
    (
        Sender {
            shared: Arc::clone(&shared),
        },
        Receiver { shared },
    )
}

/// The syncer's end.
#[derive(Debug)]
pub(super) struct Sender {
    shared: Arc<Shared>,
}

impl Sender {
    /// Adds a unit of changes. Later ones of the same key replace earlier ones.
    pub(super) fn merge(&self, changes: Changes) {
        {
            let mut slot = self.shared.slot();
            for change in changes.changes {
                merge(&mut slot.pending, change);
            }
            slot.revision = if changes.restored {
                changes.revision
            } else {
                slot.revision.max(changes.revision)
            };
            slot.restored |= changes.restored;
            slot.news |= changes.restored || (changes.in_sync && !slot.in_sync);
            slot.in_sync |= changes.in_sync;
        }
        self.shared.wake.notify_one();
    }

    pub(super) fn state(&self, state: State) {
        self.shared.state.send_replace(state);
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.shared.consumer_gone.borrow()
    }

    pub(super) async fn closed(&self) {
        // The sender of the flag lives in `shared`: waiting cannot fail.
        let _ = self.shared.consumer_gone.subscribe().wait_for(|gone| *gone).await;
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.syncer_gone.send_replace(true);
        self.shared.wake.notify_one();
    }
}

fn merge(pending: &mut BTreeMap<Bytes, Change>, change: Change) {
    match pending.entry(change.key.clone()) {
        Entry::Vacant(entry) => {
            entry.insert(change);
        }
        // The consumer never heard of the key: there is nothing to delete.
        Entry::Occupied(entry) if entry.get().fresh && change.value.is_none() => {
            entry.remove();
        }
        Entry::Occupied(mut entry) => {
            let fresh = entry.get().fresh;
            entry.insert(Change { fresh, ..change });
        }
    }
}

/// The consumer's end. Dropping it ends the syncer.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
}

impl Receiver {
    /// Waits until something has changed, or the first full pass has ended, and takes all of it. `None` once the syncer is gone and
    /// everything has been taken. Cancel-safe.
    pub async fn recv(&mut self) -> Option<SyncBatch> {
        loop {
            if let Some(batch) = self.try_recv() {
                return Some(batch);
            }
            if *self.shared.syncer_gone.borrow() {
                return self.try_recv();
            }
            self.shared.wake.notified().await;
        }
    }

    /// Takes what there is.
    pub fn try_recv(&mut self) -> Option<SyncBatch> {
        let mut slot = self.shared.slot();
        if slot.pending.is_empty() && !slot.news {
            return None;
        }
        slot.news = false;
        let mut changes: Vec<Change> = std::mem::take(&mut slot.pending).into_values().collect();
        changes.sort_by_key(|change| change.revision);
        Some(SyncBatch {
            revision: slot.revision,
            changes,
            in_sync: slot.in_sync,
            restored: std::mem::take(&mut slot.restored),
        })
    }

    /// How the copy stands, for health. The newest value only; it may run ahead of what has been taken.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.consumer_gone.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &'static str, revision: Revision, live: bool, fresh: bool) -> Change {
        let value = live.then(|| crate::KeyValue {
            key: key.into(),
            value: "v".into(),
            mod_revision: revision,
            create_revision: revision,
            version: 1,
        });
        Change {
            key: key.into(),
            revision,
            value,
            fresh,
        }
    }

    fn state() -> State {
        State {
            revision: 0,
            in_sync: false,
            health: super::super::Health::Resyncing,
            counts: super::super::Counts::default(),
        }
    }

    fn told(receiver: &mut Receiver) -> Vec<(Bytes, Revision, bool)> {
        let changes = receiver.try_recv().map(|batch| batch.changes).unwrap_or_default();
        changes
            .into_iter()
            .map(|change| (change.key, change.revision, change.value.is_some()))
            .collect()
    }

    fn deliver(sender: &Sender, changes: Vec<Change>) {
        sender.merge(Changes {
            revision: 9,
            changes,
            in_sync: false,
            restored: false,
        });
    }

    #[test]
    fn last_change_of_a_key_wins_while_the_consumer_is_away() {
        let (sender, mut receiver) = channel(state());
        deliver(
            &sender,
            vec![change("a", 2, true, true), change("b", 2, true, true)],
        );
        deliver(&sender, vec![change("a", 3, true, false)]);
        assert_eq!(
            told(&mut receiver),
            [("b".into(), 2, true), ("a".into(), 3, true)]
        );
        assert_eq!(told(&mut receiver), []);
    }

    #[test]
    fn key_that_came_and_went_unseen_is_not_told() {
        let (sender, mut receiver) = channel(state());
        deliver(&sender, vec![change("a", 2, true, true)]);
        deliver(&sender, vec![change("a", 3, true, false)]);
        deliver(&sender, vec![change("a", 4, false, false)]);
        assert_eq!(told(&mut receiver), []);
    }

    #[test]
    fn deletion_of_a_key_that_was_seen_is_told() {
        let (sender, mut receiver) = channel(state());
        deliver(&sender, vec![change("a", 2, true, true)]);
        assert_eq!(told(&mut receiver).len(), 1);
        deliver(&sender, vec![change("a", 3, true, false)]);
        deliver(&sender, vec![change("a", 4, false, false)]);
        deliver(&sender, vec![change("a", 5, true, true)]);
        deliver(&sender, vec![change("a", 6, false, false)]);
        assert_eq!(told(&mut receiver), [("a".into(), 6, false)]);
    }

    #[tokio::test]
    async fn end_of_the_first_pass_wakes_the_consumer_without_a_change_and_then_stays_true() {
        let (sender, mut receiver) = channel(state());
        sender.merge(Changes {
            revision: 5,
            changes: vec![],
            in_sync: true,
            restored: false,
        });
        let batch = receiver.recv().await.unwrap();
        assert_eq!((batch.revision, batch.in_sync, batch.changes.len()), (5, true, 0));
        assert_eq!(receiver.try_recv(), None);
        deliver(&sender, vec![change("a", 9, true, true)]);
        assert!(receiver.recv().await.unwrap().in_sync);
        drop(sender);
        assert_eq!(receiver.recv().await, None);
    }
}
