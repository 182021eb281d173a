//! The way to ask an allocator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::Job;
use super::feed::Feed;
use crate::error::Error;
use crate::request::{Assign, Assigned, Release, Released, Reply, Work};
use crate::state::Observed;

/// Most requests that wait for an allocator. A node has 110 pods by default and 250 at most in practice; more at once
/// is a runaway.
pub const QUEUE_MAX: usize = 1024;

/// Asks an allocator. Clones ask the same one; when the last is dropped the allocator ends.
#[derive(Clone)]
pub struct Client {
    jobs: mpsc::Sender<Job>,
    feed: Arc<Feed>,
    counters: Arc<Counters>,
}

impl Client {
    pub(super) fn new(jobs: mpsc::Sender<Job>, feed: Arc<Feed>, counters: Arc<Counters>) -> Self {
        Self { jobs, feed, counters }
    }

    /// Gets the addresses of a handle. Asking again with the same handle gives the same.
    ///
    /// Dropping the future takes the assignment back, should it have been made; put a deadline of your own around
    /// it. Drop it only before it is ready: what it has answered is yours.
    ///
    /// # Errors
    /// As [`Error`] says. After [`Error::Datastore`] the addresses may have been assigned for a moment; that is undone.
    pub async fn assign(&self, assign: Assign) -> Result<Assigned, Error> {
        match self.ask(Work::Assign(assign)).await? {
            Reply::Assigned(assigned) => Ok(assigned),
            Reply::Released(_) | Reply::Done => Err(Error::Stopped),
        }
    }

    /// Gives addresses back. A handle that holds nothing is a success.
    ///
    /// # Errors
    /// As [`Error`] says. After [`Error::Datastore`] the outcome is unknown: ask again.
    pub async fn release(&self, release: Release) -> Result<Released, Error> {
        match self.ask(Work::Release(release)).await? {
            Reply::Released(released) => Ok(released),
            Reply::Assigned(_) | Reply::Done => Err(Error::Stopped),
        }
    }

    async fn ask(&self, work: Work) -> Result<Reply, Error> {
        let (answer, reply) = oneshot::channel();
        self.jobs
            .try_send(Job {
                work,
                answer: Some(answer),
            })
            .map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => Error::Busy { limit: QUEUE_MAX },
                mpsc::error::TrySendError::Closed(_) => Error::Stopped,
            })?;
        reply.await.unwrap_or(Err(Error::Stopped))
    }

    /// Tells the allocator of keys as they are in the store. Keys that do not concern it are ignored; never waits.
    pub fn update(&self, seen: impl IntoIterator<Item = Observed>) {
        self.feed.add(seen);
    }

    /// Tells the allocator that the store was put back to an older state: what it knows is void, and this is all there is.
    pub fn restored(&self, seen: impl IntoIterator<Item = Observed>) {
        self.feed.restored(seen);
    }

    /// Tells the allocator that [`update`](Self::update) has shown everything once: it begins to serve.
    pub fn in_sync(&self) {
        self.feed.set_in_sync();
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// What an allocator has done, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Transactions sent.
    pub commits: Counter,
    /// Of these, refused because someone else had changed something.
    pub conflicts: Counter,
    /// Of these, with an unknown outcome.
    pub lost_replies: Counter,
    /// Reads before a transaction.
    pub reads: Counter,
    /// Calls that failed.
    pub failures: Counter,
    /// Assignments taken back because nobody was there to hear of them.
    pub undone: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}
