//! The typed side of the syncer: keys and values of the store as the model knows them.
//!
//! Everything in the store is untrusted. A value that cannot be read is reported with its key and stops nothing: the key keeps
//! its last good value, its next change is read again, and the list of what is unreadable now is there for health.

mod unreadable;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;
use twill_model::{Event, Key, Update, Value, update::Unreadable};

pub use unreadable::{UNREADABLE_SHOWN_MAX, UnreadableKey, UnreadableList};

use crate::syncer::{Change, Receiver, State, SyncBatch};
use crate::{Bytes, Revision};
use unreadable::{LogBudget, Register};

/// So many values are read before other tasks get their turn: a few milliseconds of blocks or endpoints.
const DECODE_CHUNK: usize = 500;

/// What has changed since the consumer last looked, typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateBatch {
    /// All changes up to this revision are in this batch or were in one before.
    pub revision: Revision,
    /// At most one per key, in order of revision.
    pub updates: Vec<Update>,
    /// The same and what cannot be read, as stored.
    pub raw: Vec<Change>,
    /// Values that cannot be read; nothing else is said of their keys.
    pub unreadable: Vec<Unreadable>,
    /// A full pass has ended, now or earlier. Once true it stays true.
    pub in_sync: bool,
    /// The first full pass has ended with this batch.
    pub became_in_sync: bool,
    /// The store was put back to an older state: every key is told anew, and revisions begin again below those known.
    pub restored: bool,
}

impl UpdateBatch {
    /// The same as events: updates, then what is unreadable, then [`Event::InSync`] if the first pass ended.
    #[must_use]
    pub fn into_events(self) -> Vec<Event> {
        let mut events = Vec::with_capacity(2 + self.unreadable.len());
        if !self.updates.is_empty() {
            events.push(Event::Updates(self.updates));
        }
        events.extend(self.unreadable.into_iter().map(Event::Unreadable));
        events.extend(self.became_in_sync.then_some(Event::InSync));
        events
    }
}

/// Takes a syncer's changes and reads them.
#[derive(Debug)]
pub struct Updates {
    receiver: Receiver,
    /// A batch that is being read: kept here, so that dropping [`Updates::recv`] half-way loses nothing.
    work: Option<(std::vec::IntoIter<Change>, UpdateBatch)>,
    register: Register,
    list: watch::Sender<UnreadableList>,
    log: LogBudget,
    in_sync: bool,
}

impl Updates {
    /// Reads what comes from a syncer.
    #[must_use]
    pub fn new(receiver: Receiver) -> Self {
        Self {
            receiver,
            work: None,
            register: Register::default(),
            list: watch::Sender::default(),
            log: LogBudget::new(Instant::now()),
            in_sync: false,
        }
    }

    /// Waits until something has changed and takes all of it. `None` once the syncer is gone and everything has been taken.
    /// Cancel-safe.
    pub async fn recv(&mut self) -> Option<UpdateBatch> {
        loop {
            if self.work.is_none() {
                let batch = self.receiver.recv().await?;
                self.begin(batch);
            }
            if let Some(batch) = self.read_some() {
                return Some(batch);
            }
            tokio::task::yield_now().await;
        }
    }

    /// How the copy stands, for health.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.receiver.state()
    }

    /// What cannot be read now, for health.
    #[must_use]
    pub fn unreadable(&self) -> watch::Receiver<UnreadableList> {
        self.list.subscribe()
    }

    fn begin(&mut self, batch: SyncBatch) {
        let became_in_sync = batch.in_sync && !self.in_sync;
        self.in_sync = batch.in_sync;
        let SyncBatch {
            revision,
            changes,
            in_sync,
            restored,
        } = batch;
        let read = UpdateBatch {
            revision,
            in_sync,
            became_in_sync,
            restored,
            ..UpdateBatch::default()
        };
        self.work = Some((changes.into_iter(), read));
    }

    /// Reads the next chunk; the batch, when that was the last.
    fn read_some(&mut self) -> Option<UpdateBatch> {
        let (mut changes, mut batch) = self.work.take()?;
        for change in changes.by_ref().take(DECODE_CHUNK) {
            self.read(&change, &mut batch);
            batch.raw.push(change);
        }
        if changes.len() > 0 {
            self.work = Some((changes, batch));
            return None;
        }
        if let Some(list) = self.register.changed_list() {
            self.list.send_replace(list);
        }
        Some(batch)
    }

    fn read(&mut self, change: &Change, batch: &mut UpdateBatch) {
        let Some(key) = parse(&change.key) else { return };
        let revision = i64::try_from(change.revision).unwrap_or(i64::MAX);
        let value = match change
            .value
            .as_ref()
            .map(|kv| Value::decode(&key, &kv.value))
            .transpose()
        {
            Ok(value) => value,
            Err(error) => {
                if let Some(suppressed) = self.log.spend(Instant::now()) {
                    warn!(%key, revision, %error, suppressed, "a stored value cannot be read; its last good value stays");
                }
                self.register.insert(&change.key, change.revision, &error);
                batch.unreadable.push(Unreadable { key, revision, error });
                return;
            }
        };
        self.register.remove(&change.key);
        batch.updates.push(Update { key, value, revision });
    }
}

/// The key, if it is text. What is not is nobody's that we know.
fn parse(key: &Bytes) -> Option<Key> {
    std::str::from_utf8(key).ok().map(Key::parse)
}

#[cfg(test)]
mod tests;
