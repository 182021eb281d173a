//! A watch on the store in memory: a cursor into its log.

use std::sync::Arc;

use tokio::sync::watch::Receiver;

use super::Shared;
use crate::{Commit, Revision, StoreError, Watch, WatchItem, WatchRequest};

/// What wakes the watches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signal {
    /// The last revision written.
    pub(super) revision: Revision,
    /// How often all watches were cut.
    pub(super) cut: u64,
}

/// A watch on a [`MemStore`](super::MemStore). It holds no events: it reads the store's own log from where it stands.
#[derive(Debug)]
pub struct MemWatch {
    shared: Arc<Shared>,
    signal: Receiver<Signal>,
    request: WatchRequest,
    cut: u64,
    /// A sign of life was asked for.
    asked: bool,
    over: bool,
}

impl MemWatch {
    pub(super) fn new(shared: Arc<Shared>, request: WatchRequest) -> Self {
        let signal = shared.signal.subscribe();
        let cut = signal.borrow().cut;
        Self {
            shared,
            signal,
            request,
            cut,
            asked: false,
            over: false,
        }
    }

    fn ready(&mut self) -> Option<WatchItem> {
        if self.over || self.signal.borrow_and_update().cut != self.cut {
            self.over = true;
            let reason = "the watch was cut off".to_owned();
            return Some(WatchItem::Disconnected(StoreError::Unavailable {
                reason,
                commit: Commit::No,
            }));
        }
        let data = self.shared.data();
        let from = self
            .request
            .ranges
            .iter()
            .map(|(_, from)| *from)
            .min()
            .unwrap_or(0);
        if from <= data.compacted() {
            self.over = true;
            return Some(WatchItem::Compacted {
                oldest: data.compacted() + 1,
            });
        }
        if let Some(batch) = data.batch_from(from, &self.request) {
            advance(&mut self.request, batch.revision + 1);
            return Some(WatchItem::Events(batch));
        }
        if std::mem::take(&mut self.asked) {
            // All up to here has been told, since the log was read to its end.
            let revision = data.revision();
            advance(&mut self.request, revision + 1);
            return Some(WatchItem::Progress { revision });
        }
        None
    }
}

/// The cursor moves on in all ranges at once: the log is read in the order of revisions.
fn advance(request: &mut WatchRequest, next: Revision) {
    for (_, from) in &mut request.ranges {
        *from = (*from).max(next);
    }
}

impl Watch for MemWatch {
    async fn next(&mut self) -> WatchItem {
        loop {
            if let Some(item) = self.ready() {
                return item;
            }
            if self.signal.changed().await.is_err() {
                // The sender lives in `shared`, which this watch holds: it cannot go.
                self.over = true;
            }
        }
    }

    fn resume(&self) -> WatchRequest {
        self.request.clone()
    }

    async fn request_progress(&mut self) {
        self.asked = true;
    }
}
