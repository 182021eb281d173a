//! The handle: how the rest of the program talks to the running speaker. Cheap to clone; every call is one message to the
//! RIB task and, where it asks something, one answer.

use crate::config::{Config, ConfigError, Origination};
use crate::view::{Best, Converged, Event, Notice, PeerStatus, Reach, RouteQuery, RouteView, Totals};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Commands waiting for the RIB task; callers wait beyond.
const COMMANDS_MAX: usize = 64;

/// The speaker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the BGP speaker has stopped")]
pub struct Closed;

/// Why a configuration was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// It is not valid; the old one stays.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address could not be listened on; everything else is applied.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The speaker has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// What to do with a session on an operator's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reset {
    /// End it with Cease 6/4; it comes back by itself.
    Hard {
        /// For the other operator (RFC 9003); cut at 255 octets.
        text: String,
    },
    /// Ask the peer for its routes again (RFC 2918) and send ours again.
    Soft,
}

/// A message from a handle to the RIB task.
#[derive(Debug)]
pub(crate) enum Command {
    Configure(Box<Config>, oneshot::Sender<Result<(), ConfigureError>>),
    Originate(BTreeMap<IpNet, Origination>),
    OwnRoutesKnown,
    NextHops(BTreeMap<IpAddr, Reach>),
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    Routes(RouteQuery, oneshot::Sender<Vec<RouteView>>),
    Events(IpAddr, oneshot::Sender<Vec<Event>>),
    Reset(IpAddr, Reset, oneshot::Sender<bool>),
    Subscribe,
    Watch(oneshot::Sender<broadcast::Receiver<Notice>>),
    Totals(oneshot::Sender<Totals>),
    /// Waits until there are some.
    BestChanges(oneshot::Sender<BTreeMap<IpNet, Option<Best>>>),
    /// Does not wait; forgets who did.
    BestChangesNow(oneshot::Sender<BTreeMap<IpNet, Option<Best>>>),
    /// Close all connections, the graceful-restart way.
    Stop,
    /// End all sessions with Cease 6/2 and this text (RFC 9003).
    Shutdown(String),
}

/// The daemon's hold on a running speaker.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    converged: watch::Receiver<Converged>,
    next_hops: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
}

impl Handle {
    pub(crate) fn new(
        converged: watch::Receiver<Converged>,
        next_hops: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    ) -> (Self, mpsc::Receiver<Command>) {
        let (commands, rx) = mpsc::channel(COMMANDS_MAX);
        let handle = Self {
            commands,
            converged,
            next_hops,
        };
        (handle, rx)
    }

    async fn tell(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).await.map_err(|_| Closed)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Closed> {
        let (tx, rx) = oneshot::channel();
        self.tell(command(tx)).await?;
        rx.await.map_err(|_| Closed)
    }

    /// Replaces the whole configuration, live: peers come, go and change; sessions of unchanged peers stay up.
    ///
    /// # Errors
    /// [`ConfigureError`]: the configuration is not valid (nothing is applied), or an address cannot be listened on.
    pub async fn configure(&self, config: Config) -> Result<(), ConfigureError> {
        self.ask(|tx| Command::Configure(Box::new(config), tx)).await?
    }

    /// Replaces the whole set of prefixes that we announce by ourselves.
    ///
    /// # Errors
    /// [`Closed`] when the speaker has ended; so for all calls below.
    pub async fn originate(&self, routes: BTreeMap<IpNet, Origination>) -> Result<(), Closed> {
        self.tell(Command::Originate(routes)).await
    }

    /// Says that the set last given to [`Handle::originate`] is whole. Until then no End-of-RIB is sent: a peer that keeps
    /// our routes over our restart would delete them by it.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn own_routes_known(&self) -> Result<(), Closed> {
        self.tell(Command::OwnRoutesKnown).await
    }

    /// The addresses of which the speaker wants to know how they are reached; changes can be awaited. Empty unless
    /// [`Config::track_next_hops`].
    #[must_use]
    pub fn next_hops(&self) -> watch::Receiver<Arc<BTreeSet<IpAddr>>> {
        self.next_hops.clone()
    }

    /// Says how addresses of [`Handle::next_hops`] are reached. What is not spoken of stays as it was.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn next_hops_reached(&self, said: BTreeMap<IpAddr, Reach>) -> Result<(), Closed> {
        self.tell(Command::NextHops(said)).await
    }

    /// All peers, by address.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, Closed> {
        self.ask(Command::Peers).await
    }

    /// What is used of the bounds over all peers.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn totals(&self) -> Result<Totals, Closed> {
        self.ask(Command::Totals).await
    }

    /// Routes, by prefix and peer, with the step of the decision that made or unmade each path.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn routes(&self, query: RouteQuery) -> Result<Vec<RouteView>, Closed> {
        self.ask(|tx| Command::Routes(query, tx)).await
    }

    /// The event ring of a peer, oldest first; empty for a peer that is not configured.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn events(&self, peer: IpAddr) -> Result<Vec<Event>, Closed> {
        self.ask(|tx| Command::Events(peer, tx)).await
    }

    /// Resets a peer's session; `false` if there is no such peer.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn reset(&self, peer: IpAddr, how: Reset) -> Result<bool, Closed> {
        self.ask(|tx| Command::Reset(peer, how, tx)).await
    }

    /// Starts the stream of best-path changes, with the whole table as its first changes. One consumer: a second call
    /// starts over for both.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn best_changes(&self) -> Result<BestChanges, Closed> {
        self.tell(Command::Subscribe).await?;
        Ok(BestChanges {
            handle: self.clone(),
            asked: None,
        })
    }

    /// Sessions and best paths as they change from now on. A receiver that is too slow misses the oldest, and is told how
    /// many.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn watch(&self) -> Result<broadcast::Receiver<Notice>, Closed> {
        self.ask(Command::Watch).await
    }

    /// Whether route selection is settled, per family (see [`Converged`]); changes can be awaited. Only from then on may
    /// the owner delete kernel routes that no best path confirmed.
    #[must_use]
    pub fn converged(&self) -> watch::Receiver<Converged> {
        self.converged.clone()
    }

    /// Ends the speaker for a restart: connections are closed without NOTIFICATION (to peers that speak RFC 8538: with one
    /// that keeps the routes), so that peers keep our routes.
    ///
    /// # Errors
    /// [`Closed`] if it has ended already.
    pub async fn stop(&self) -> Result<(), Closed> {
        self.tell(Command::Stop).await
    }

    /// Ends the speaker for good: every session ends with Cease, Administrative Shutdown, and this text (at most 255 octets).
    ///
    /// # Errors
    /// [`Closed`] if it has ended already.
    pub async fn shutdown(&self, text: &str) -> Result<(), Closed> {
        self.tell(Command::Shutdown(text.to_owned())).await
    }
}

/// Best-path changes for the FIB, coalesced by prefix while nobody asks.
#[derive(Debug)]
pub struct BestChanges {
    handle: Handle,
    asked: Option<oneshot::Receiver<BTreeMap<IpNet, Option<Best>>>>,
}

impl BestChanges {
    /// The next changes, up to a bounded number of prefixes, the newest state of each: `None` for a prefix that no peer
    /// gives us any more (or that we originate ourselves). Waits until there are some. Cancel-safe: an answer that was
    /// being made is returned by the next call.
    ///
    /// # Errors
    /// [`Closed`] when the speaker has ended.
    pub async fn next(&mut self) -> Result<BTreeMap<IpNet, Option<Best>>, Closed> {
        let asked = match &mut self.asked {
            Some(asked) => asked,
            None => {
                let (tx, rx) = oneshot::channel();
                self.handle.tell(Command::BestChanges(tx)).await?;
                self.asked.insert(rx)
            }
        };
        let answer = asked.await;
        self.asked = None;
        answer.map_err(|_| Closed)
    }

    /// As [`BestChanges::next`], but what waits now, and nothing if nothing does: for who wants to see the end of what is
    /// known. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] when the speaker has ended.
    pub async fn waiting(&mut self) -> Result<BTreeMap<IpNet, Option<Best>>, Closed> {
        // Who asked before has his answer, or gives the question up: one after another, or older changes would come later.
        if let Some(mut asked) = self.asked.take() {
            asked.close();
            if let Ok(changes) = asked.try_recv() {
                return Ok(changes);
            }
        }
        let (tx, rx) = oneshot::channel();
        self.handle.tell(Command::BestChangesNow(tx)).await?;
        // Kept while it is waited for: dropped, it may have been answered already.
        let asked = self.asked.insert(rx);
        let answer = asked.await;
        self.asked = None;
        answer.map_err(|_| Closed)
    }
}
