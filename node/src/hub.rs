//! Where the datastore's changes arrive and fan out: one task, one copy of each fact for everybody.
//!
//! ```text
//! Syncer --Updates--> hub --Update--> Fabric (shared view), felix::calc, ipam allocator
//!                      |--watch: Intent--> bgp
//!                      |--Desired (latest wins)--> felix::kernel
//!                      '--watch: Endpoints--> http
//! ```
//! Every hand-over is the newest whole state, never a queue.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use ipnet::IpNet;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use twill_datastore::syncer::{Health as StoreHealth, State};
use twill_datastore::updates::{UnreadableList, UpdateBatch, Updates};
use twill_datastore::{KeyRange, Revision};
use twill_felix::calc::Graph;
use twill_felix::kernel;
use twill_ipam::Observed;
use twill_model::meta::Timestamp;
use twill_model::{Key, Kind, Update};

use crate::bgp::Intent;
use crate::bgp::announce::announcements;
use crate::bgp::cache::{self, Snapshot};
use crate::bgp::config::bgp_config;
use crate::bgp::secrets::{RECHECK, Secrets};
use crate::dataplane::Dataplane;
use crate::fabric::{SharedFabric, Touched};
use crate::guard::guard;
use crate::health::{Component, Health};
use crate::host;
use crate::http::{self, Endpoints, FelixHttp};
use crate::metrics::Metrics;
use crate::retire::{Order, Retired};
use crate::tunnels::Place;

/// How long the first full pass may take before sessions are opened without it: much longer than an etcd that is there
/// needs, much shorter than any peer's restart time.
const FALL_BACK_AFTER: Duration = Duration::from_secs(2);

/// Everything the daemon follows. Handles are read when needed, and other nodes' affinities never.
pub(crate) fn ranges(node: &str) -> Vec<KeyRange> {
    let affinities = twill_model::AffinityOwner::Host(node.to_owned()).prefix();
    let prefixes = [
        twill_model::key::RESOURCES,
        twill_model::key::TWILL_RESOURCES,
        twill_model::key::BLOCKS,
        twill_model::key::IPAM_CONFIG,
        &affinities,
    ];
    prefixes
        .into_iter()
        .map(|prefix| KeyRange::prefix(prefix.to_owned()))
        .collect()
}

/// What the hub feeds.
pub(crate) struct Hub {
    pub(crate) node: String,
    pub(crate) fabric: SharedFabric,
    pub(crate) graph: Graph,
    pub(crate) ipam: twill_ipam::Client,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) intent: watch::Sender<Intent>,
    pub(crate) kernel: kernel::Handle,
    pub(crate) places: watch::Sender<Endpoints>,
    /// Becomes true when the first full pass is over.
    pub(crate) in_sync: watch::Sender<bool>,
    /// Keys of BGP sessions.
    pub(crate) secrets: Secrets,
    /// Prefixes that are ours to announce, as felix found last.
    pub(crate) ours: Arc<BTreeSet<IpNet>>,
    /// Sentences said already, so that each is logged once.
    pub(crate) warned: Vec<String>,
    /// Why objects are not used as they are, by name, for health.
    pub(crate) refused: BTreeMap<String, String>,
    /// What of the datastore cannot be read now, for health.
    pub(crate) unreadable: Option<watch::Receiver<UnreadableList>>,
    /// What sessions are derived from, for the next start without the datastore.
    pub(crate) snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// What to speak by while the datastore has never been heard.
    pub(crate) fallback: Option<Fallback>,
    /// Endpoints that felix is not to see, by order of the CNI side.
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) retired: Retired,
    /// Where endpoints are noted that somebody else deleted.
    pub(crate) dataplane: Dataplane,
    /// What decides about this node's own resource and its tunnel addresses.
    pub(crate) place: watch::Sender<Place>,
}

/// What an earlier process left for a start without the datastore.
#[derive(Debug)]
pub(crate) struct Fallback {
    /// What sessions were derived from.
    pub(crate) file: PathBuf,
    /// What it announced, as the kernel tells.
    pub(crate) announced: BTreeSet<IpNet>,
}

impl Hub {
    /// Takes in batches until cancelled.
    ///
    /// # Errors
    /// The syncer is gone.
    pub(crate) async fn run(mut self, mut changes: Updates, stop: CancellationToken) -> Result<()> {
        let mut state = changes.state();
        self.unreadable = Some(changes.unreadable());
        let mut recheck = tokio::time::interval(RECHECK);
        let fall_back = tokio::time::sleep(FALL_BACK_AFTER);
        tokio::pin!(fall_back);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                batch = changes.recv() => match batch {
                    Some(batch) => {
                        self.take(batch);
                        self.say_health(&state.borrow().clone());
                    }
                    None => bail!("the syncer is gone"),
                },
                Some(order) = self.orders.recv() => self.carry_out(order),
                _ = recheck.tick(), if !self.secrets.passwords().is_empty() => self.read_secrets(),
                () = &mut fall_back, if self.fallback.is_some() => self.fall_back().await,
                changed = state.changed() => match changed {
                    Ok(()) => self.say_health(&state.borrow_and_update().clone()),
                    Err(_) => bail!("the syncer is gone"),
                },
            }
        }
    }

    fn take(&mut self, batch: UpdateBatch) {
        let count = batch.raw.len();
        let mut touched = Touched::default();
        for mut update in batch.updates {
            self.judge(&mut update);
            let (gone, revision) = (self.gone(&update), u64::try_from(update.revision).unwrap_or(0));
            let news = self.fabric.write().apply(&self.node, &update);
            touched = touched.or(news);
            self.graph.update(&self.retired.shown(update));
            self.dataplane.note_gone(gone, revision);
        }
        let observed = batch.raw.into_iter().map(|change| match change.value {
            Some(kv) => kv.into(),
            None => Observed::Absent {
                key: change.key,
                at: change.revision,
            },
        });
        if batch.restored {
            self.ipam.restored(observed);
        } else {
            self.ipam.update(observed);
        }
        self.metrics.datastore(count, batch.unreadable.len());
        if batch.in_sync && !self.fabric.read().in_sync {
            tracing::info!(revision = batch.revision, "datastore in sync");
            self.fallback = None;
            self.fabric.write().in_sync = true;
            self.graph.in_sync();
            self.ipam.in_sync();
            self.in_sync.send_replace(true);
            touched = Touched {
                bgp: true,
                felix: true,
            };
        }
        self.hand_on(touched);
    }

    /// Addresses of an endpoint of this node that somebody else deletes.
    fn gone(&self, update: &Update) -> Vec<IpAddr> {
        let (Key::Resource(key), None) = (&update.key, &update.value) else {
            return Vec::new();
        };
        if key.kind != Kind::WorkloadEndpoint || self.retired.holds(key) {
            return Vec::new();
        }
        let fabric = self.fabric.read();
        let name = (key.namespace.clone().unwrap_or_default(), key.name.clone());
        let known = fabric.own_endpoints.get(&name);
        known.map_or_else(Vec::new, |(endpoint, _)| {
            endpoint.spec.ip_networks.iter().map(|net| net.addr()).collect()
        })
    }

    fn carry_out(&mut self, order: Order) {
        let (told, done) = self.retired.take(order, &self.fabric.read());
        if let Some(update) = told {
            self.graph.update(&update);
            self.hand_on(Touched::default());
        }
        // Whoever asked may have given up.
        let _ = done.send(());
    }

    /// Keeps what would close the node itself from everybody, and says so.
    fn judge(&mut self, update: &mut Update) {
        let Key::Resource(key) = &update.key else { return };
        if key.kind != Kind::FelixConfiguration {
            return;
        }
        let name = key.name.clone();
        let said = guard(
            &self.node,
            &self.fabric.read(),
            update,
            host::addressed_interfaces,
        );
        match &said {
            Some(said) => tracing::warn!("{said}"),
            None if self.refused.contains_key(&name) => {
                tracing::info!(object = name, "the FelixConfiguration can be used again");
            }
            None => {}
        }
        match said {
            Some(said) => drop(self.refused.insert(name, said)),
            None => drop(self.refused.remove(&name)),
        }
    }

    /// The datastore does not answer: speaks by what an earlier process knew. Peers keep this node's routes only so long.
    async fn fall_back(&mut self) {
        let Some(Fallback { file, announced }) = self.fallback.take() else {
            return;
        };
        let node = self.node.clone();
        let read = tokio::task::spawn_blocking(move || cache::read(&file, &node)).await;
        let fabric = match read {
            Ok(Ok(Some(fabric))) => fabric,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                let error = format!("{error:#}");
                tracing::warn!(
                    error,
                    "the datastore is away, and the BGP configuration kept from before cannot be used"
                );
                return;
            }
            // It was cancelled with the runtime, or panicked, which the supervisor's panic policy is about.
            Err(_) => return,
        };
        self.secrets.refresh(&fabric);
        let Some(derived) = bgp_config(&self.node, &fabric, &announced, self.secrets.passwords()) else {
            return;
        };
        tracing::warn!(
            peers = derived.config.peers.len(),
            blocks = announced.len(),
            "the datastore is away: speaking BGP by the configuration and the blocks kept from before"
        );
        self.intent.send_replace(Intent {
            derived: Some(Arc::new(derived)),
            announce: Arc::new(announcements(&self.node, &fabric, &announced)),
        });
    }

    /// A key that changed in its file changes its sessions.
    fn read_secrets(&mut self) {
        if self.secrets.refresh(&self.fabric.read()) {
            tracing::info!("keys of BGP sessions have changed");
            self.hand_on(Touched {
                bgp: true,
                ..Touched::default()
            });
        }
    }

    fn hand_on(&mut self, touched: Touched) {
        let mut announces = false;
        if let Some(output) = self.graph.flush() {
            announces = self.ours != output.announce;
            self.ours = output.announce;
            self.kernel.set(output.desired);
        }
        let fabric = self.fabric.read();
        if !fabric.in_sync {
            return;
        }
        if touched.felix {
            let places = http::endpoints(&http_settings(&fabric, &self.node));
            self.places
                .send_if_modified(|old| std::mem::replace(old, places) != places);
        }
        if !touched.bgp && !announces {
            return;
        }
        if touched.bgp {
            let place = Place::of(&self.node, &fabric);
            self.place
                .send_if_modified(|old| std::mem::replace(old, place.clone()) != place);
            self.snapshots.send_replace(Some(Arc::new(Snapshot::of(&fabric))));
        }
        self.secrets.refresh(&fabric);
        let derived = bgp_config(&self.node, &fabric, &self.ours, self.secrets.passwords());
        let warnings = derived.as_ref().map_or_else(Vec::new, |d| d.warnings.clone());
        let announce = announcements(&self.node, &fabric, &self.ours);
        drop(fabric);
        for warning in warnings.iter().filter(|w| !self.warned.contains(w)) {
            tracing::warn!("{warning}");
        }
        self.warned = warnings;
        let intent = Intent {
            derived: derived.map(Arc::new),
            announce: Arc::new(announce),
        };
        self.intent.send_if_modified(|old| {
            let changed = *old != intent;
            *old = intent;
            changed
        });
    }

    fn detail(&self, revision: Revision) -> String {
        let refused = self.refused.values().map(|why| format!("; {why}"));
        let refused = refused.collect::<String>();
        let list = self.unreadable.as_ref().map(|list| list.borrow().clone());
        let unreadable = list
            .filter(|list| list.total > 0)
            .map_or_else(String::new, |list| {
                let first = list.first.first().map_or("", |first| first.key.as_str());
                format!("; {} values cannot be read, such as {first}", list.total)
            });
        format!("revision {revision}{refused}{unreadable}")
    }

    fn say_health(&self, state: &State) {
        self.metrics.following(state);
        match &state.health {
            StoreHealth::Connected if state.in_sync => self.health.ready(
                Component::Datastore,
                format!("connected, {}", self.detail(state.revision)),
            ),
            StoreHealth::Connected | StoreHealth::Resyncing => self
                .health
                .not_ready(Component::Datastore, "resyncing: reading everything"),
            StoreHealth::StaleSince(since) => {
                let since = SystemTime::now()
                    .checked_sub(since.elapsed())
                    .unwrap_or(UNIX_EPOCH);
                self.health.not_ready(
                    Component::Datastore,
                    format!(
                        "stale since {}: no contact, what is known stays",
                        Timestamp::from(since)
                    ),
                );
            }
        }
    }
}

fn http_settings(fabric: &crate::fabric::Fabric, node: &str) -> FelixHttp {
    FelixHttp {
        health_enabled: fabric.felix_setting(node, |s| s.health_enabled),
        health_host: fabric.felix_setting(node, |s| s.health_host.clone()),
        health_port: fabric.felix_setting(node, |s| s.health_port),
        metrics_enabled: fabric.felix_setting(node, |s| s.prometheus_metrics_enabled),
        metrics_host: fabric.felix_setting(node, |s| {
            Some(s.prometheus_metrics_host.clone()).filter(|h| !h.is_empty())
        }),
        metrics_port: fabric.felix_setting(node, |s| s.prometheus_metrics_port),
    }
}
