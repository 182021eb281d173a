//! Every change of every key of Calico's, from revision 1, as a watch brings it. The recorder says how far it has come, so that whoever
//! compacts stays behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;
use twill_datastore::{KeyRange, Store, Watch, WatchEvent, WatchItem, WatchRequest};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision that made it.
    pub revision: u64,
    /// The key.
    pub key: String,
    /// The value; `None` if it was deleted.
    pub value: Option<Vec<u8>>,
}

/// Records until told to stop and until `upto` (0 while unknown) is reached.
///
/// # Errors
/// If a watch cannot be had, or history was compacted away before it was seen.
pub async fn record(
    store: impl Store,
    reached: Arc<AtomicU64>,
    upto: Arc<AtomicU64>,
    stop: CancellationToken,
) -> Result<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    let done = |at: u64| {
        let upto = upto.load(Ordering::Relaxed);
        stop.is_cancelled() && upto > 0 && at >= upto
    };
    loop {
        let from = reached.load(Ordering::Relaxed) + 1;
        let ranges = ["/calico/", "/twill/"].map(|prefix| (KeyRange::prefix(prefix), from));
        let mut watch = store
            .watch(WatchRequest {
                ranges: ranges.to_vec(),
            })
            .await?;
        loop {
            if done(reached.load(Ordering::Relaxed)) {
                return Ok(changes);
            }
            let item = tokio::select! {
                item = watch.next() => item,
                () = tokio::time::sleep(std::time::Duration::from_millis(50)) => continue,
            };
            match item {
                WatchItem::Events(batch) => {
                    for event in batch.events {
                        let (key, value, revision) = match event {
                            WatchEvent::Put(kv) => (kv.key, Some(kv.value.to_vec()), kv.mod_revision),
                            WatchEvent::Delete { key, mod_revision } => (key, None, mod_revision),
                        };
                        let key = String::from_utf8_lossy(&key).into_owned();
                        changes.push(Change { revision, key, value });
                    }
                    if let Some(last) = changes.last() {
                        reached.fetch_max(last.revision, Ordering::Relaxed);
                    }
                }
                WatchItem::Progress { .. } | WatchItem::Alive => {}
                WatchItem::Compacted { .. } => bail!("history was compacted away before it was recorded"),
                WatchItem::Disconnected(_) => break,
            }
        }
    }
}
