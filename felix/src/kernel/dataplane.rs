//! The owner of everything of ours in the kernel: takes the latest desired state and makes it so.
//!
//! ```text
//! calc --Desired--> inbox (latest wins) --.
//! bgp  --routes --> inbox (by prefix)   --+--> thread "felix-kernel" --> nf_tables, links, routes
//! kernel notifications -------------------'          |
//!                                                    '--> Status (watch, latest) --> CNI ADD, health, metrics
//! ```
//!
//! One thread, because every call into the kernel here is a short blocking system call; the inbox is the only hand-over and
//! merges while the kernel is slow. The order of one turn: table, node settings, links, routes; within each, deletions last.
//! When the table cannot be written, no workload that is new gets a link or a route.
//!
//! Stopping, or losing the thread, leaves the kernel as it is: it goes on forwarding and enforcing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;

use super::netlink::NetlinkError;
use super::nft::ApplyError;
use crate::plan::nft::Table;
use crate::plan::routes::Route;
use crate::plan::{Desired, IfName};

mod events;
mod fib;
mod hops;
mod learned;
mod owner;
mod status;

pub use fib::{Fib, Turn};
pub use status::{Counters, EndpointStatus, Reach, Status, UNREACHED_TOLD_MAX, Withheld};

/// Prefixes that BGP may have in the kernel: about 300 bytes each on our side. More are refused and counted.
pub const BGP_PREFIXES_MAX: usize = 1 << 20;

/// Why the dataplane does not start. Nothing was taken away from the kernel.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A netlink socket could not be had.
    #[error("opening netlink sockets: {0}; the daemon needs CAP_NET_ADMIN in the node's network namespace")]
    Netlink(#[from] NetlinkError),
    /// The table that is closed at birth could not be made.
    #[error("making the base table: {0}")]
    BaseTable(#[from] ApplyError),
    /// The thread or its wake-up could not be made.
    #[error("starting the kernel thread: {0}")]
    Thread(#[from] io::Error),
}

/// An endpoint was not programmed in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotProgrammed {
    /// The time is over; the reason is the last known.
    #[error("endpoint {link} was not programmed within {waited:?}: {reason}")]
    TimedOut {
        /// Host side of its link.
        link: IfName,
        /// How long was waited.
        waited: Duration,
        /// What is missing.
        reason: String,
    },
    /// The dataplane is gone.
    #[error("the dataplane has stopped")]
    Stopped,
}

/// What waits for the owner.
#[derive(Debug, Default)]
struct Inbox {
    desired: Option<Desired>,
    /// Changes of BGP routes since the last turn; `None` withdraws.
    bgp: BTreeMap<IpNet, Option<Route>>,
    bgp_refused: u64,
    bgp_synced: bool,
    /// Addresses to say how they are reached; the latest set.
    track: Option<Arc<BTreeSet<IpAddr>>>,
    resync: bool,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: UnixStream,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // The inbox is plain data that is whole after every statement: a panic elsewhere does not spoil it.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the inbox and wakes the owner.
    fn put(&self, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.inbox());
        // A full pipe means that the owner has been woken already; a broken one that it is gone, which the status tells.
        let _ = (&self.wake).write(&[1]);
    }
}

/// The door to the owner; cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    status: watch::Receiver<Arc<Status>>,
}

impl Handle {
    /// Hands over the desired state. A state that was not yet applied is replaced by it. One that is not in sync is passed
    /// over: a part of the policy could allow what the whole denies.
    pub fn set(&self, desired: Desired) {
        self.shared.put(|inbox| inbox.desired = Some(desired));
    }

    /// Announces (`Some`, made by [`Route::bgp`]) or withdraws (`None`) routes learned by BGP. The latest for a prefix wins.
    pub fn bgp_routes(&self, changes: impl IntoIterator<Item = (IpNet, Option<Route>)>) {
        self.shared.put(|inbox| {
            for (dst, route) in changes {
                if inbox.bgp.len() < BGP_PREFIXES_MAX || inbox.bgp.contains_key(&dst) {
                    inbox.bgp.insert(dst, route);
                } else {
                    inbox.bgp_refused += 1;
                }
            }
        });
    }

    /// BGP is in sync (End-of-RIB from every restarting peer, or the deferral timer): routes of a former life that were not
    /// announced again may go.
    pub fn bgp_synced(&self) {
        self.shared.put(|inbox| inbox.bgp_synced = true);
    }

    /// Asks that the status says how these addresses are reached ([`Status::reach`]), now and whenever that changes.
    pub fn track(&self, addresses: Arc<BTreeSet<IpAddr>>) {
        self.shared.put(|inbox| inbox.track = Some(addresses));
    }

    /// Reads everything back from the kernel and repairs what differs, now.
    pub fn resync(&self) {
        self.shared.put(|inbox| inbox.resync = true);
    }

    /// What is in the kernel.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// The status as it changes. Its end (`changed` fails) means that the owner is gone, and the daemon should exit.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// Waits until policy, link and routes of an endpoint are in the kernel as of a datastore revision.
    ///
    /// # Errors
    /// [`NotProgrammed`] with what is missing when the time is over.
    pub async fn programmed(
        &self,
        link: IfName,
        revision: u64,
        limit: Duration,
    ) -> Result<(), NotProgrammed> {
        let mut status = self.status.clone();
        let done = status.wait_for(|s| s.missing(&link, revision).is_none());
        match tokio::time::timeout(limit, done).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(NotProgrammed::Stopped),
            Err(_) => match self.status().missing(&link, revision) {
                Some(reason) => Err(NotProgrammed::TimedOut {
                    link,
                    waited: limit,
                    reason,
                }),
                None => Ok(()),
            },
        }
    }

    /// Waits until an endpoint is no longer in the kernel as of a datastore revision.
    ///
    /// # Errors
    /// [`NotProgrammed`] with what is missing when the time is over.
    pub async fn removed(&self, link: IfName, revision: u64, limit: Duration) -> Result<(), NotProgrammed> {
        let gone = |s: &Status| s.revision >= revision && !s.endpoints.contains_key(&link);
        let mut status = self.status.clone();
        match tokio::time::timeout(limit, status.wait_for(|s| gone(s))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(NotProgrammed::Stopped),
            Err(_) => {
                let reason = format!("the kernel is at revision {}", self.status().revision);
                Err(NotProgrammed::TimedOut {
                    link,
                    waited: limit,
                    reason,
                })
            }
        }
    }
}

/// The running owner. Dropping it stops the thread and leaves the kernel as it is.
#[derive(Debug)]
pub struct Dataplane {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Dataplane {
    /// Makes sure that the base table exists (closed at birth, before anything else), then starts the owner, in the network
    /// namespace of the calling thread. A table of a former life is kept with all its policy until the first desired state
    /// that is in sync. Without a base table nothing is closed: on a node that is taken over, the rules of whoever had it enforce
    /// until ours are whole.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(base: Option<&Table>) -> Result<(Self, Handle), StartError> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let mut owner = owner::Owner::open(woken)?;
        if let Some(base) = base {
            owner.close_at_birth(base)?;
        }
        let (publish, status) = watch::channel(Arc::new(Status::default()));
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            wake,
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("felix-kernel".into())
                .spawn(move || owner.run(&shared, &publish))?
        };
        let handle = Handle {
            shared: Arc::clone(&shared),
            status,
        };
        Ok((
            Self {
                shared,
                thread: Some(thread),
            },
            handle,
        ))
    }

    /// Stops the owner and waits for its last turn. Blocks for as long as that takes.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.put(|inbox| inbox.stop = true);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the kernel thread had panicked; the kernel was left as it was");
        }
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests;
