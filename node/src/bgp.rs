//! From resources to the speaker, and from the speaker's best paths to felix.
//!
//! ```text
//! hub --watch: Intent--> feed --configure, originate--> twill_bgp::net
//!          felix::kernel <--routes-- learn <--best paths--'|
//!          felix::kernel <--next hops-- follow --how reached-'
//! ```
//! The speaker is made once this node's own resource is known, and with it how it continues an earlier process: the
//! routes found in the kernel decide the Restart State and Forwarding State bits (RFC 4724).

pub(crate) mod announce;
pub(crate) mod cache;
pub(crate) mod config;
mod filters;
mod gateways;
pub(crate) mod metrics;
mod peers;
mod policies;
pub(crate) mod reach;
mod routes;
pub(crate) mod secrets;
mod session;
mod sessions;
mod tuning;
pub(crate) mod warnings;

pub(crate) use routes::{families, route};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twill_bgp::Families;
use twill_bgp::config::Origination;
use twill_bgp::net::{ConfigureError, Handle, Server, bind};
use twill_felix::kernel;

use crate::health::{Component, Health};
use config::Derived;

/// How soon to try again when the port is taken or the configuration refused.
const RETRY: Duration = Duration::from_secs(2);

/// What the hub wants of the speaker; replaced whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intent {
    /// `None` while this node has no address to speak from.
    pub(crate) derived: Option<Arc<Derived>>,
    pub(crate) announce: Arc<BTreeMap<IpNet, Origination>>,
}

/// The speaker, once it runs, and what it was told, for those who ask.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    handle: watch::Receiver<Option<Handle>>,
    intent: watch::Receiver<Intent>,
}

impl Speaker {
    /// A speaker that runs without a fabric.
    pub(crate) fn alone(handle: Handle, intent: watch::Receiver<Intent>) -> Self {
        Self {
            handle: watch::channel(Some(handle)).1,
            intent,
        }
    }

    /// The running speaker.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.handle.borrow().clone()
    }

    /// The configuration derived last.
    pub(crate) fn derived(&self) -> Option<Arc<Derived>> {
        self.intent.borrow().derived.clone()
    }
}

/// The subsystem's own end of [`Speaker`].
pub(crate) struct Bgp {
    handle: watch::Sender<Option<Handle>>,
    intent: watch::Receiver<Intent>,
    kernel: kernel::Handle,
    health: Health,
    /// Families whose routes of an earlier process are in the kernel.
    preserved: Families,
}

impl Bgp {
    pub(crate) fn new(
        intent: watch::Receiver<Intent>,
        kernel: kernel::Handle,
        health: Health,
        preserved: Families,
    ) -> (Self, Speaker) {
        let (handle, seen) = watch::channel(None);
        let speaker = Speaker {
            handle: seen,
            intent: intent.clone(),
        };
        (
            Self {
                handle,
                intent,
                kernel,
                health,
                preserved,
            },
            speaker,
        )
    }

    /// Speaks until cancelled; sessions then close the graceful-restart way.
    ///
    /// # Errors
    /// The speaker ended by itself.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let begun = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            begun = self.begin() => begun,
        };
        let Some((handle, server)) = begun else {
            // Nobody will ever tell what to do.
            stop.cancelled().await;
            return Ok(());
        };
        self.handle.send_replace(Some(handle.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run());
        tasks.spawn(routes::learn(
            handle.clone(),
            self.kernel.clone(),
            self.intent.clone(),
        ));
        tasks.spawn(gateways::keep(
            self.intent.clone(),
            self.kernel.clone(),
            stop.clone(),
        ));
        tasks.spawn(reach::follow(handle.clone(), self.kernel.clone()));
        tasks.spawn(sessions::watch(
            handle.clone(),
            self.intent.clone(),
            self.health.clone(),
            stop.clone(),
        ));
        tasks.spawn(feed(
            handle.clone(),
            self.intent,
            self.health.clone(),
            self.preserved,
            stop.clone(),
        ));
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            ended = tasks.join_next() => {
                if let Some(ended) = ended {
                    ended.context("a task of the BGP subsystem")?;
                }
                bail!("the BGP speaker ended by itself");
            }
        }
        self.health.not_ready(Component::Bgp, "stopping");
        // Closed already is as good as stopped.
        let _ = handle.stop().await;
        drop(handle);
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    /// Waits for a configuration that the speaker takes.
    async fn begin(&mut self) -> Option<(Handle, Server)> {
        loop {
            let derived = self.intent.borrow_and_update().derived.clone();
            let Some(derived) = derived else {
                self.health
                    .not_ready(Component::Bgp, "this node has no address in the datastore yet");
                self.intent.changed().await.ok()?;
                continue;
            };
            match bind(with_restart(&derived, self.preserved)) {
                Ok(begun) => {
                    tracing::info!(
                        restarting = self.preserved != Families::NONE,
                        "BGP speaker begins"
                    );
                    return Some(begun);
                }
                Err(error) => {
                    self.health.not_ready(Component::Bgp, error.to_string());
                    // The next configuration may be better, or the port free.
                    let _ = tokio::time::timeout(RETRY, self.intent.changed()).await;
                }
            }
        }
    }
}

fn with_restart(derived: &Derived, preserved: Families) -> twill_bgp::Config {
    let mut config = derived.config.clone();
    config.restart.restarting = preserved != Families::NONE;
    config.restart.forwarding_preserved = preserved;
    config
}

/// Tells the speaker what the hub wants, again and again. The first announcements are whole: they come after in-sync.
async fn feed(
    handle: Handle,
    mut intent: watch::Receiver<Intent>,
    health: Health,
    preserved: Families,
    stop: CancellationToken,
) {
    let mut known = false;
    loop {
        let now = intent.borrow_and_update().clone();
        if let Some(derived) = &now.derived {
            match handle.configure(with_restart(derived, preserved)).await {
                Ok(()) => health.ready(Component::Bgp, format!("{} peers", derived.config.peers.len())),
                Err(ConfigureError::Closed(_)) => return,
                Err(error) => health.not_ready(Component::Bgp, error.to_string()),
            }
        }
        if handle.originate(BTreeMap::clone(&now.announce)).await.is_err() {
            return;
        }
        if !known {
            known = true;
            if handle.own_routes_known().await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = intent.changed() => if changed.is_err() {
                // The hub has ended; the daemon is about to.
                return stop.cancelled().await;
            },
        }
    }
}
