//! The trait that every store implements, and what can be built from its few calls.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    Commit, Consistency, KeyRange, KeyValue, LeaseId, Op, OpReply, PAGE_KEYS_MAX, Pager, RangeReply,
    RangeRequest, Revision, StoreError, Txn, TxnReply, Watch, WatchRequest,
};

/// The most keys that [`Store::delete_prefix`] deletes in one request. etcd 3.4 copies a buffer of the size of the largest
/// write batch for each read from then on, so that one huge delete makes all later reads slow.
pub const DELETE_KEYS_MAX: u32 = PAGE_KEYS_MAX;

/// The most keys that [`Store::range_all`] holds in memory: more than a million endpoints with their handles need.
pub const LIST_KEYS_MAX: usize = 4_000_000;

/// A whole range at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The revision at which it was read.
    pub revision: Revision,
    /// The keys in byte order.
    pub kvs: Vec<KeyValue>,
}

/// A store of keys and values with transactions and watches. A handle: clones are cheap and reach the same store.
///
/// Every call has a deadline of the store's own; none retries. An error says by [`StoreError::commit`] whether the write may
/// have happened. Futures may be dropped at any point: a dropped write has an unknown outcome.
pub trait Store: Clone + Send + Sync + 'static {
    /// The store's watches.
    type Watch: Watch;

    /// Runs a transaction.
    ///
    /// # Errors
    /// What [`Txn::check`] refuses, before anything is sent; otherwise whatever befell the call.
    fn txn(&self, txn: Txn) -> impl Future<Output = Result<TxnReply, StoreError>> + Send;

    /// Reads one page of a range.
    ///
    /// # Errors
    /// What [`RangeRequest::check`] refuses; [`StoreError::Compacted`] if the revision is no longer kept;
    /// [`StoreError::Invalid`] if it lies in the future; otherwise whatever befell the call.
    fn range(&self, request: RangeRequest) -> impl Future<Output = Result<RangeReply, StoreError>> + Send;

    /// Starts to watch. A compacted start comes as an item, not as an error.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if there is no range or `from` is 0; otherwise whatever befell the call.
    fn watch(&self, request: WatchRequest) -> impl Future<Output = Result<Self::Watch, StoreError>> + Send;

    /// The store's current revision, linearised: a barrier for one's own watches.
    ///
    /// # Errors
    /// Whatever befell the call.
    fn progress(&self) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Forgets what was before `revision`. Reads and watches of older revisions then say so.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if that has happened already; [`StoreError::Invalid`] if the revision lies in the future; otherwise
    /// whatever befell the call.
    fn compact(&self, revision: Revision) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Makes a lease. The store may round the time up.
    ///
    /// # Errors
    /// Whatever befell the call.
    fn grant_lease(&self, ttl: Duration) -> impl Future<Output = Result<LeaseId, StoreError>> + Send;

    /// Gives a lease its whole time again.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the lease is gone; otherwise whatever befell the call.
    fn renew_lease(&self, lease: LeaseId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the lease is gone; otherwise whatever befell the call.
    fn revoke_lease(&self, lease: LeaseId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads one key, linearised.
    ///
    /// # Errors
    /// As [`Store::range`].
    fn get(
        &self,
        key: impl Into<Bytes> + Send,
    ) -> impl Future<Output = Result<Option<KeyValue>, StoreError>> + Send {
        let reply = self.range(RangeRequest::key(key));
        async move { Ok(reply.await?.kvs.pop()) }
    }

    /// Writes one key, whatever it was, and says the revision.
    ///
    /// # Errors
    /// As [`Store::txn`].
    fn put(
        &self,
        key: impl Into<Bytes> + Send,
        value: impl Into<Bytes> + Send,
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send {
        let reply = self.txn(Txn::default().then(vec![Op::put(key, value)]));
        async move { Ok(reply.await?.revision) }
    }

    /// Reads a whole range at one revision, page by page.
    ///
    /// # Errors
    /// As [`Store::range`], compaction between two pages included; [`StoreError::TooLarge`] above [`LIST_KEYS_MAX`] keys.
    fn range_all(
        &self,
        range: KeyRange,
        consistency: Consistency,
    ) -> impl Future<Output = Result<Listing, StoreError>> + Send {
        async move {
            let mut pager = Pager::new(range, consistency);
            let mut kvs = Vec::new();
            while let Some(request) = pager.request() {
                match self.range(request).await {
                    Ok(page) => kvs.append(&mut pager.page(page)),
                    Err(error) => pager.failed(error)?,
                }
                if kvs.len() > LIST_KEYS_MAX {
                    return Err(StoreError::TooLarge {
                        reason: format!("a listing of more than {LIST_KEYS_MAX} keys"),
                        commit: Commit::No,
                    });
                }
            }
            let revision = pager.revision();
            Ok(Listing { revision, kvs })
        }
    }

    /// Deletes every key under a prefix, in requests of at most [`DELETE_KEYS_MAX`], and says how many there were.
    /// Not atomic: an error leaves the rest, and keys put meanwhile may survive or not.
    ///
    /// # Errors
    /// As [`Store::range`] and [`Store::txn`].
    fn delete_prefix(
        &self,
        prefix: impl Into<Bytes> + Send,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send {
        let range = KeyRange::prefix(prefix);
        async move {
            let mut total = 0;
            let mut request = RangeRequest::new(range).limit(DELETE_KEYS_MAX).keys_only();
            loop {
                let page = self.range(request.clone()).await?;
                let (Some(first), Some(last)) = (page.kvs.first(), page.kvs.last()) else {
                    return Ok(total);
                };
                let chunk = KeyRange::span(first.key.clone(), KeyRange::key(last.key.clone()).end_bytes());
                let reply = self
                    .txn(Txn::default().then(vec![Op::Delete { range: chunk }]))
                    .await?;
                if let Some(OpReply::Delete { deleted }) = reply.responses.first() {
                    total += deleted;
                }
                if !page.more {
                    return Ok(total);
                }
                request.after = Some(last.key.clone());
            }
        }
    }
}
