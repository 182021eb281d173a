//! The store in memory: what etcd does, in one process, for tests and simulations.
//!
//! [`mvcc`] is the data and its history, a plain struct; this file puts it behind a lock and the [`Store`] trait; [`Faults`]
//! makes it fail as a real store does: a reply lost after the commit, a call that never arrived, a watch cut off, history
//! compacted away. Reads and writes take no time of their own. Expiry of leases is by hand ([`MemStore::expire_lease`]).

mod faults;
mod mvcc;
#[cfg(test)]
mod tests;
mod watcher;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch::Sender;

pub use faults::{Fault, Faults, Hold};
pub use mvcc::HISTORY_REVISIONS_MAX;
pub use watcher::MemWatch;

use crate::{LeaseId, RangeReply, RangeRequest, Revision, Store, StoreError, Txn, TxnReply, WatchRequest};
use faults::Call;
use mvcc::Mvcc;
use watcher::Signal;

/// How many calls of each kind a store has carried out, failed ones included: what a test of "one transaction, no read" asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Transactions.
    pub txns: u64,
    /// Reads of a range, by pages.
    pub ranges: u64,
    /// Watches opened.
    pub watches: u64,
}

/// A store in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemStore {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    data: Mutex<Mvcc>,
    calls: Mutex<Calls>,
    faults: Faults,
    signal: Sender<Signal>,
}

impl Shared {
    fn data(&self) -> MutexGuard<'_, Mvcc> {
        // A panic in the middle of an operation would leave half a transaction: none of them can panic.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, count: impl FnOnce(&mut Calls)) {
        count(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Runs a write under the faults, and tells the watches.
    async fn write<T>(
        &self,
        call: Call<'_>,
        act: impl FnOnce(&mut Mvcc) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        let after = self.faults.before(call).await?;
        let (reply, revision) = {
            let mut data = self.data();
            (act(&mut data), data.revision())
        };
        self.signal.send_modify(|signal| signal.revision = revision);
        let reply = reply?;
        after.finish().await?;
        Ok(reply)
    }

    async fn read<T>(
        &self,
        call: Call<'_>,
        act: impl FnOnce(&Mvcc) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        let after = self.faults.before(call).await?;
        let reply = act(&self.data())?;
        after.finish().await?;
        Ok(reply)
    }
}

impl MemStore {
    /// An empty store at revision 1.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The switchboard of faults.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// How often it was called so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        *self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every open watch with [`WatchItem::Disconnected`](crate::WatchItem::Disconnected). Events not yet read are lost to it.
    pub fn disconnect_watches(&self) {
        self.shared.signal.send_modify(|signal| signal.cut += 1);
    }

    /// Compacts away everything before the current revision.
    pub fn compact_now(&self) {
        let mut data = self.shared.data();
        let revision = data.revision();
        // Compacting twice at one revision is refused, and changes nothing.
        let _ = data.compact(revision);
    }

    /// Lets a lease run out: its keys are gone. False if there is no such lease.
    pub fn expire_lease(&self, lease: LeaseId) -> bool {
        let (found, revision) = {
            let mut data = self.shared.data();
            (data.revoke(lease).is_ok(), data.revision())
        };
        self.shared
            .signal
            .send_modify(|signal| signal.revision = revision);
        found
    }
}

impl Store for MemStore {
    type Watch = MemWatch;

    async fn txn(&self, txn: Txn) -> Result<TxnReply, StoreError> {
        txn.check()?;
        self.shared.count(|calls| calls.txns += 1);
        self.shared.write(Call::Txn(&txn), |data| data.txn(&txn)).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeReply, StoreError> {
        request.check()?;
        self.shared.count(|calls| calls.ranges += 1);
        self.shared.read(Call::Range, |data| data.range(&request)).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<MemWatch, StoreError> {
        request.check()?;
        self.shared.count(|calls| calls.watches += 1);
        self.shared.faults.before(Call::Watch).await?.finish().await?;
        Ok(MemWatch::new(Arc::clone(&self.shared), request))
    }

    async fn progress(&self) -> Result<Revision, StoreError> {
        self.shared.read(Call::Other, |data| Ok(data.revision())).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared
            .write(Call::Other, |data| data.compact(revision))
            .await
    }

    async fn grant_lease(&self, _ttl: Duration) -> Result<LeaseId, StoreError> {
        self.shared.write(Call::Other, |data| Ok(data.grant())).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared
            .read(Call::Other, |data| data.lease_exists(lease))
            .await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared.write(Call::Other, |data| data.revoke(lease)).await
    }
}
