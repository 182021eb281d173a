//! Forgetting connections in groups: a walk over the kernel's table costs the same for one address as for a hundred.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tokio::sync::Notify;
use twill_felix::kernel::conntrack;
use twill_felix::kernel::netlink::{Protocol, Socket};

/// Gathers addresses while a walk is under way; the next walk takes them all.
#[derive(Debug, Default)]
pub(super) struct Forgetter {
    waiting: Mutex<Waiting>,
    /// Held by whoever walks.
    walk: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Waiting {
    addresses: BTreeSet<IpAddr>,
    /// Number of the walk that will take them.
    next: u64,
    /// The last walk that succeeded.
    done: u64,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            addresses: BTreeSet::new(),
            next: 1,
            done: 0,
        }
    }
}

impl Forgetter {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Plain data, whole after every statement.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn forget(&self, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        self.forget_by(addresses, |all| async move {
            let walked = tokio::task::spawn_blocking(move || -> Result<usize> {
                let mut socket = Socket::open(Protocol::Netfilter).context("opening a netlink socket")?;
                Ok(conntrack::forget(&mut socket, &all)?)
            });
            walked.await.context("forgetting connections panicked")?
        })
        .await
    }

    async fn forget_by<F: Future<Output = Result<usize>>>(
        &self,
        addresses: &BTreeSet<IpAddr>,
        walk: impl FnOnce(BTreeSet<IpAddr>) -> F,
    ) -> Result<()> {
        if addresses.is_empty() {
            return Ok(());
        }
        let ours = {
            let mut waiting = self.waiting();
            waiting.addresses.extend(addresses);
            waiting.next
        };
        let _one = self.walk.lock().await;
        let (this, all) = {
            let mut waiting = self.waiting();
            if waiting.done >= ours {
                return Ok(());
            }
            let mut all = std::mem::take(&mut waiting.addresses);
            // Those of a walk that failed are not waiting any more; their askers walk themselves.
            all.extend(addresses);
            waiting.next += 1;
            (waiting.next - 1, all)
        };
        let entries = walk(all).await.context("forgetting connections")?;
        self.waiting().done = this;
        if entries > 0 {
            tracing::debug!(entries, "connections of addresses that come free are forgotten");
        }
        Ok(())
    }
}

/// Addresses to be forgotten later, merged until somebody takes them.
#[derive(Debug, Default)]
pub(super) struct Noted {
    waiting: Mutex<(BTreeSet<IpAddr>, u64)>,
    news: Notify,
}

impl Noted {
    pub(super) fn add(&self, addresses: impl IntoIterator<Item = IpAddr>, revision: u64) {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.0.extend(addresses);
            waiting.1 = waiting.1.max(revision);
        }
        self.news.notify_one();
    }

    /// Waits for something to take. Cancel-safe: a notification that nobody waited for is kept.
    pub(super) async fn wait(&self) {
        self.news.notified().await;
    }

    pub(super) fn take(&self) -> (BTreeSet<IpAddr>, u64) {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::oneshot;

    fn one(last: u8) -> BTreeSet<IpAddr> {
        BTreeSet::from([IpAddr::from([10, 0, 0, last])])
    }

    #[tokio::test]
    async fn those_who_wait_during_a_walk_share_the_next_one() {
        let forgetter = Arc::new(Forgetter::default());
        let walks = Arc::new(Mutex::new(Vec::new()));
        let (go, gone) = oneshot::channel::<()>();
        let first = {
            let (forgetter, walks) = (forgetter.clone(), walks.clone());
            tokio::spawn(async move {
                let walk = |all: BTreeSet<IpAddr>| async move {
                    walks.lock().unwrap().push(all.len());
                    gone.await?;
                    Ok(0)
                };
                forgetter.forget_by(&one(1), walk).await
            })
        };
        while forgetter.waiting().next == 1 {
            tokio::task::yield_now().await;
        }
        let mut rest = tokio::task::JoinSet::new();
        for last in 2..7 {
            let (forgetter, walks) = (forgetter.clone(), walks.clone());
            rest.spawn(async move {
                let walk = |all: BTreeSet<IpAddr>| async move {
                    walks.lock().unwrap().push(all.len());
                    Ok(0)
                };
                forgetter.forget_by(&one(last), walk).await
            });
        }
        while forgetter.waiting().addresses.len() < 5 {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        while let Some(ended) = rest.join_next().await {
            ended.unwrap().unwrap();
        }
        assert_eq!(*walks.lock().unwrap(), [1, 5]);
    }

    #[tokio::test]
    async fn a_walk_that_fails_is_nobodys_success() {
        let forgetter = Forgetter::default();
        let fails = forgetter
            .forget_by(&one(1), |_| async { anyhow::bail!("no") })
            .await;
        assert!(fails.is_err());
        let mut walked = 0;
        forgetter
            .forget_by(&one(1), |all| {
                walked = all.len();
                async { Ok(0) }
            })
            .await
            .unwrap();
        assert_eq!(walked, 1);
    }
}
