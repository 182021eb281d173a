//! What the tests share: stores to run against, and waiting with a deadline.

use std::time::Duration;

use twill_datastore::etcd::EtcdStore;
use twill_datastore::testing::EtcdServer;
use twill_datastore::{Batch, Watch, WatchItem};

/// The longest that anything here may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

pub(crate) async fn etcd_store(server: &EtcdServer) -> EtcdStore {
    EtcdStore::connect(server.endpoint().parse().unwrap())
        .await
        .unwrap()
}

/// The next batch, past signs of life.
pub(crate) async fn next_batch(watch: &mut impl Watch) -> Batch {
    loop {
        match within("a batch", watch.next()).await {
            WatchItem::Events(batch) => return batch,
            WatchItem::Alive | WatchItem::Progress { .. } => {}
            other => panic!("a batch was expected, not {other:?}"),
        }
    }
}
