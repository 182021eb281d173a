//! A whole copy of some ranges of the store, kept up to date: list at one revision, then watch.
//!
//! ```text
//!   Store --pages, items--> Syncer::run (one task of the caller's) --merges--> Slot (key -> latest) --recv--> Receiver
//!                             Machine: what to do next                  one change a key, no queue
//! ```
//!
//! [`Machine`] decides and knows neither store nor clock; [`Syncer::run`] carries its wishes out; the slot between
//! producer and consumer holds one change per key, so that a consumer that is away costs latency, never more memory than
//! the keys themselves take.
//!
//! What holds: all wanted ranges are listed at **one** revision; then the changes of one revision arrive as a unit (within one
//! top-level directory, see [`crate::WatchItem::Events`]), whole or not at all. Nothing is ever deleted because the store went away. After a
//! compaction everything is listed again and only differences are told, deletions that were missed included. Every few minutes a full
//! listing is compared with the copy all the same: a difference that the watch should have told is counted, logged and repaired. A
//! store whose revision went back was restored from a backup: everything in it is told anew.

mod changes;
mod handover;
mod machine;
mod state;
#[cfg(test)]
mod tests;

use std::time::Instant;

pub use changes::{Change, Changes};
pub use handover::{Receiver, SyncBatch};
pub use machine::{BACKOFF_MAX, BACKOFF_MIN, COMPARE_EVERY, Machine, Output, PROGRESS_AFTER, SILENCE_MAX};
pub use state::{Counts, Health, State};

use crate::{KeyRange, RangeRequest, Store, Watch, WatchItem, WatchRequest};

/// Keeps a copy of ranges of the store.
#[derive(Debug)]
pub struct Syncer<S: Store> {
    store: S,
    machine: Machine,
    sender: handover::Sender,
}

/// What the shell is about to do for the machine.
enum Work {
    List(RangeRequest),
    Open(WatchRequest),
}

impl<S: Store> Syncer<S> {
    /// A syncer of some ranges, and the end from which its changes are taken. `seed` jitters the back-off: each
    /// node should have its own.
    #[must_use]
    pub fn new(store: S, ranges: Vec<KeyRange>, seed: u64) -> (Self, Receiver) {
        let machine = Machine::new(now(), ranges, seed);
        let (sender, receiver) = handover::channel(machine.state().clone());
        (
            Self {
                store,
                machine,
                sender,
            },
            receiver,
        )
    }

    /// How often everything is listed and compared with the copy, [`COMPARE_EVERY`] unless said otherwise; zero is never.
    #[must_use]
    pub fn compare_every(mut self, every: std::time::Duration) -> Self {
        self.machine.compare_every(now(), every);
        self
    }

    /// Lists and watches until the receiver is dropped. Cancel it by dropping the future.
    pub async fn run(mut self) {
        let mut watch: Option<S::Watch> = None;
        while !self.sender.is_closed() {
            match self.carry_out(&mut watch).await {
                Some(Work::List(request)) => {
                    let reply = self.store.range(request).await;
                    self.machine.page(now(), reply);
                }
                Some(Work::Open(request)) => match self.store.watch(request).await {
                    Ok(opened) => {
                        watch = Some(opened);
                        self.machine.opened(now());
                    }
                    Err(error) => self.machine.open_failed(now(), error),
                },
                None => self.wait(&mut watch).await,
            }
        }
    }

    /// Does what the machine wants at once, and says what will take time.
    async fn carry_out(&mut self, watch: &mut Option<S::Watch>) -> Option<Work> {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::List(request) => return Some(Work::List(request)),
                Output::Watch(request) => return Some(Work::Open(request)),
                Output::CloseWatch => *watch = None,
                Output::AskProgress => {
                    if let Some(watch) = watch {
                        watch.request_progress().await;
                    }
                }
                Output::Deliver(changes) => self.sender.merge(changes),
                Output::State(state) => self.sender.state(state),
            }
        }
        None
    }

    async fn wait(&mut self, watch: &mut Option<S::Watch>) {
        let deadline = self.machine.deadline();
        let item = tokio::select! {
            item = next(watch) => Some(item),
            () = until(deadline) => None,
            () = self.sender.closed() => return,
        };
        let resume = watch.as_ref().map(Watch::resume);
        match item {
            Some(item) => self.machine.item(now(), item, resume),
            None => self.machine.tick(now(), resume),
        }
    }
}

async fn next<W: Watch>(watch: &mut Option<W>) -> WatchItem {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// tokio's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
