//! An allocator as the daemon runs it, in this process.

use anyhow::Result;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twill_datastore::etcd::EtcdStore;
use twill_datastore::syncer::Syncer;
use twill_ipam::{Allocator, Client, Clock, system_clock};

use crate::world;

/// An allocator with its feed.
pub(crate) struct Twill {
    pub(crate) client: Client,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// What tells it of the store's changes.
    pub(crate) followers: JoinSet<()>,
}

impl Twill {
    pub(crate) async fn start(store: &EtcdStore, node: &str) -> Result<Self> {
        Self::start_at(store, node, system_clock()).await
    }

    /// As [`Twill::start`], by another clock.
    pub(crate) async fn start_at(store: &EtcdStore, node: &str, clock: Clock) -> Result<Self> {
        let (allocator, client) = Allocator::new(store.clone(), node, clock);
        let (syncer, changes) = Syncer::new(store.clone(), world::ranges(node), 1);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(allocator.run(stop.clone()));
        let mut followers = JoinSet::new();
        followers.spawn(syncer.run());
        followers.spawn(world::feed(changes, client.clone()));
        Ok(Self {
            client,
            stop,
            tasks,
            followers,
        })
    }

    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        self.followers.shutdown().await;
        self.tasks.shutdown().await;
    }
}
