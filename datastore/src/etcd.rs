//! The store in etcd (3.4 and later), through `etcd-client`.
//!
//! A thin shell: requests are checked, translated ([`convert`]), sent under a deadline, and errors are read for what they say
//! of the write ([`status`]). One channel is balanced over all endpoints; calls and watches share its connections. A watch is one
//! stream that ends when its connection does; whoever holds it resumes, as the syncer does.

mod clients;
mod config;
mod convert;
mod status;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::LeaseGrantOptions;

pub use config::{ConfigError, Endpoint, EtcdConfig, Password, TlsFiles, User};
pub use watcher::EtcdWatch;

use crate::{
    Commit, LeaseId, RangeReply, RangeRequest, Revision, Store, StoreError, Txn, TxnReply, WatchRequest,
};
use clients::Source;
use status::store_error;

/// The largest message that is taken from etcd. Two orders above a page of full IPAM blocks is not needed: 500 of them are 10 MB;
/// pages of larger values are asked for again in halves.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// How often HTTP/2 asks whether the server is there. etcd cuts off clients that ask more often than every 5 s.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(6);
/// How long the answer may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A store in etcd. Clones share its connections.
#[derive(Clone)]
pub struct EtcdStore {
    source: Arc<Source>,
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore")
            .field("endpoints", &self.source.config().endpoints)
            .finish_non_exhaustive()
    }
}

/// A call under a deadline, tried again while it is certain that it was never sent: with one member of three down, one call
/// in three picks the dead connection first. Once per endpoint and once more, for a connection that has just come back.
macro_rules! call {
    ($self:ident, $client:ident, |$c:ident| $call:expr) => {{
        let limit = $self.source.config().call_timeout;
        let attempts = async {
            let mut left = $self.source.config().endpoints.len();
            loop {
                let mut $c = $self.source.clients().await?.$client;
                match $call.await.map_err(store_error) {
                    Err(error) if left > 0 && never_sent(&error) => left -= 1,
                    // A refused call has done nothing.
                    Err(StoreError::Auth { .. }) if left > 0 && $self.source.refused() => left -= 1,
                    result => return result,
                }
            }
        };
        let late = |_| StoreError::Timeout {
            limit,
            commit: Commit::Unknown,
        };
        tokio::time::timeout(limit, attempts).await.map_err(late)?
    }};
}

fn never_sent(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Unavailable {
            commit: Commit::No,
            ..
        }
    )
}

impl EtcdStore {
    /// Prepares connections to the endpoints. Nothing need be connected yet, so that this works while etcd is away.
    ///
    /// Must run inside a tokio runtime.
    ///
    /// # Errors
    /// A file with a certificate or password that cannot be used; [`StoreError::Invalid`] for an endpoint that is no URL;
    /// [`StoreError::Auth`] if etcd is there and refuses the user.
    pub async fn connect(config: EtcdConfig) -> Result<Self, StoreError> {
        let source = Arc::new(Source::new(config));
        match source.clients().await {
            Ok(_) => {}
            // The next call tries again.
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "the datastore cannot be reached yet");
            }
            Err(error) => return Err(error),
        }
        Ok(Self { source })
    }
}

impl Store for EtcdStore {
    type Watch = EtcdWatch;

    async fn txn(&self, txn: Txn) -> Result<TxnReply, StoreError> {
        txn.check()?;
        let reply = call!(self, kv, |kv| kv.txn(convert::txn(&txn)))?;
        convert::txn_reply(&reply)
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeReply, StoreError> {
        request.check()?;
        let reply = call!(self, kv, |kv| {
            let (key, options) = convert::range(&request);
            kv.get(key, Some(options))
        })?;
        convert::range_reply(reply)
    }

    async fn watch(&self, request: WatchRequest) -> Result<EtcdWatch, StoreError> {
        request.check()?;
        let groups = watcher::Groups::new(request);
        let stream = call!(self, watch, |watch| {
            let (key, options) = groups.first();
            watch.watch(key, Some(options))
        })?;
        groups.open(stream, self.source.config().call_timeout).await
    }

    async fn progress(&self) -> Result<Revision, StoreError> {
        // A linearised read that finds nothing: the header carries the revision.
        Ok(self
            .range(RangeRequest::key("\0").limit(1).keys_only())
            .await?
            .revision)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let revision = convert::revision_to_etcd(revision)?;
        call!(self, kv, |kv| kv.compact(revision, None))?;
        Ok(())
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let whole = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let secs = i64::try_from(whole).map_err(|_| StoreError::invalid("a lease without end"))?;
        let reply = call!(self, lease, |lease| lease
            .grant(secs, Some(LeaseGrantOptions::new())))?;
        Ok(LeaseId(reply.id()))
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        // Opens a stream for one renewal: leases are renewed every 30 s or so, which is not worth a task.
        match call!(self, lease, |client| client.keep_alive(lease.0)) {
            Err(StoreError::Other { reason, .. }) if reason.contains("lease not found") => {
                Err(StoreError::invalid("the lease is gone"))
            }
            other => other.map(|_| ()),
        }
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        call!(self, lease, |client| client.revoke(lease.0))?;
        Ok(())
    }
}
