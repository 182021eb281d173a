//! The daemon: every subsystem, in order of start. Stop goes the other way round.
//!
//! ```text
//! felix-kernel (thread)   closed at birth, before anything is known
//! syncer, ipam, hub       the datastore's copy and who is fed by it
//! collector               elected in the cluster: frees what nobody has
//! registrar               what must exist, this node's resource
//! tunnels                 the addresses of this node's tunnel devices
//! forgetting              connections of endpoints that somebody else deleted
//! bgp                     sessions
//! cni, spool              pods, once in sync and reconciled
//! install-cni             the plugin on this host, once pods are served
//! api, http               questions
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use twill_datastore::etcd::EtcdStore;
use twill_datastore::syncer::Syncer;
use twill_datastore::updates::Updates;
use twill_felix::calc::Graph;
use twill_felix::kernel;
use twill_felix::plan::base;
use twill_ipam::collect::Runner;
use twill_ipam::{Allocator, system_clock};

use crate::api::{self, Api};
use crate::bgp::{Bgp, Intent, cache};
use crate::bootstrap::Bootstrap;
use crate::cni::{self, Memory, Pods};
use crate::dataplane::Dataplane;
use crate::fabric::SharedFabric;
use crate::handover;
use crate::health::{Component, Health};
use crate::http::{self, Endpoints};
use crate::hub::{self, Fallback, Hub};
use crate::install;
use crate::metrics::Metrics;
use crate::register::{self, Registered};
use crate::retire::{self, Retired};
use crate::supervisor::Supervisor;
use crate::tunnels::{self, Place};

/// How soon registration is tried again while the datastore is away.
const REGISTER_RETRY: Duration = Duration::from_secs(1);

/// Runs until `stop` resolves.
///
/// # Errors
/// Something that the daemon cannot do without could not be had, or ended by itself.
#[expect(
    clippy::too_many_lines,
    reason = "one list of all subsystems, in order of start"
)]
pub(crate) async fn run(bootstrap: Bootstrap, stop: impl Future<Output = ()>) -> Result<()> {
    let (health, metrics) = (Health::default(), Metrics::default());
    let store = EtcdStore::connect(bootstrap.etcd.clone()).await.context("etcd")?;
    let taken_over = bootstrap.take_over && handover::adopt(&store).await?;
    let left = crate::host::left_in_kernel().context("reading this node's routes")?;
    let base = base::table(&base::BaseConfig::default());
    let (owner, kernel) = kernel::Dataplane::start((!taken_over).then_some(&base))?;
    let fabric = SharedFabric::default();
    let (intent_tx, intent) = watch::channel(Intent::default());
    let (places_tx, places) = watch::channel(Endpoints::default());
    let (in_sync_tx, in_sync) = watch::channel(false);
    let (snapshots_tx, snapshots) = watch::channel(None);
    let (place_tx, place) = watch::channel(Place::default());
    let (orders_tx, orders) = retire::channel();
    let (allocator, ipam) = Allocator::new(store.clone(), &bootstrap.node_name, system_clock());
    let (syncer, changes) = Syncer::new(
        store.clone(),
        hub::ranges(&bootstrap.node_name),
        seed(&bootstrap.node_name),
    );
    let syncer = syncer.compare_every(bootstrap.etcd_compare_every);
    let (bgp, speaker) = Bgp::new(intent, kernel.clone(), health.clone(), left.families);
    let dataplane = Dataplane::new(kernel.clone());
    let hub = Hub {
        node: bootstrap.node_name.clone(),
        fabric: fabric.clone(),
        graph: Graph::new(&bootstrap.node_name),
        ipam: ipam.clone(),
        kernel: kernel.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
        intent: intent_tx,
        places: places_tx,
        in_sync: in_sync_tx,
        secrets: crate::bgp::secrets::Secrets::new(bootstrap.bgp_secrets_dir.clone()),
        ours: Arc::new(BTreeSet::new()),
        warned: Vec::new(),
        refused: BTreeMap::new(),
        unreadable: None,
        snapshots: snapshots_tx,
        fallback: Some(Fallback {
            file: bootstrap.bgp_cache(),
            announced: left.announced,
        }),
        orders,
        retired: Retired::default(),
        dataplane: dataplane.clone(),
        place: place_tx,
    };
    let (node, spool) = (bootstrap.node_name.clone(), bootstrap.cni_spool());
    let (forgetting, tunnels) = (dataplane.clone(), ipam.clone());
    let pods = Arc::new(Pods {
        node,
        store: store.clone(),
        ipam,
        dataplane,
        fabric,
        spool,
        memory: Memory::default(),
        orders: orders_tx,
    });
    let api = Api {
        store: store.clone(),
        speaker: speaker.clone(),
        health: health.clone(),
        node: bootstrap.node_name.clone(),
        started_unix_secs: unix_secs(),
    };

    let mut supervisor = Supervisor::default();
    if bootstrap.take_over {
        let kernel = kernel.clone();
        supervisor.start("take-over", |stop| handover::replace_rules(kernel, stop));
    }
    supervisor.start("dataplane", |stop| watch_kernel(kernel, health.clone(), stop));
    supervisor.start("syncer", |stop| until_stopped(syncer.run(), stop));
    supervisor.start("ipam", |stop| async move {
        allocator.run(stop).await;
        Ok(())
    });
    supervisor.start("hub", |stop| hub.run(Updates::new(changes), stop));
    let collector = Runner::new(store.clone(), &bootstrap.node_name, system_clock());
    supervisor.start("collector", |stop| async move {
        collector.run(stop).await;
        Ok(())
    });
    let registered = (store.clone(), bootstrap.clone(), place.clone());
    supervisor.start("registrar", |stop| {
        let (store, bootstrap, place) = registered;
        registrar(store, bootstrap, place, stop)
    });
    let tunnels = tunnels::keep(store, tunnels, bootstrap.node_name.clone(), place);
    supervisor.start("tunnels", |stop| async move {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = tunnels => match ended? {},
        }
    });
    supervisor.start(
        "forgetting",
        |stop| async move { forgetting.forget_noted(stop).await },
    );
    let (cache, cache_node) = (bootstrap.bgp_cache(), bootstrap.node_name.clone());
    supervisor.start("bgp-cache", |stop| {
        cache::keep(cache, cache_node, snapshots, stop)
    });
    supervisor.start("bgp", |stop| bgp.run(stop));
    let (cni_socket, cni_pods) = (bootstrap.cni_socket(), pods.clone());
    let (cni_health, cni_metrics) = (health.clone(), metrics.clone());
    supervisor.start("cni", |stop| {
        serve_pods(cni_pods, cni_socket, cni_health, cni_metrics, in_sync, stop)
    });
    if let Some(wanted) = bootstrap.install.clone() {
        supervisor.start("install-cni", |stop| install::daemon::keep(wanted, stop));
    }
    supervisor.start("spool", |stop| cni::replay(pods, bootstrap.cni_spool(), stop));
    if let Some(tcp) = bootstrap.tcp_api.clone() {
        let api = api.clone();
        supervisor.start("api-tcp", |stop| api::serve_tcp(api, tcp, stop));
    }
    supervisor.start("api", |stop| api::serve(api, bootstrap.api_socket(), stop));
    supervisor.start("http", |stop| http::serve(health, metrics, speaker, places, stop));
    tracing::info!(
        node = bootstrap.node_name,
        version = env!("CARGO_PKG_VERSION"),
        "started"
    );
    let ended = supervisor.run_until(stop).await;
    // The thread's last turn blocks; the kernel stays as it is.
    let _ = tokio::task::spawn_blocking(move || owner.stop()).await;
    ended
}

/// Says how the kernel fares, and ends the daemon when felix's thread is gone.
async fn watch_kernel(kernel: kernel::Handle, health: Health, stop: CancellationToken) -> Result<()> {
    let mut status = kernel.watch();
    drop(kernel);
    loop {
        let now = status.borrow_and_update().clone();
        match (&now.table_error, now.in_sync) {
            (Some(error), _) => health.not_ready(Component::Dataplane, error.clone()),
            (None, false) => health.not_ready(Component::Dataplane, "waiting for the datastore"),
            (None, true) => {
                let failed = now.failed_routes.len();
                let mut detail = if failed == 0 {
                    String::new()
                } else {
                    format!(", {failed} routes refused by the kernel")
                };
                if let Some((next_hop, reason)) = now.withheld.next_hops.first_key_value() {
                    let routes = now.withheld.routes;
                    detail += &format!(", {routes} routes kept back: next hop {next_hop}: {reason}");
                }
                health.ready(Component::Dataplane, format!("revision {}{detail}", now.revision));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = status.changed() => changed.context("felix's kernel thread has ended")?,
        }
    }
}

/// Work that ends by itself ends well only while its consumers stop before it; at any other time the supervisor objects.
async fn until_stopped(work: impl Future<Output = ()>, stop: CancellationToken) -> Result<()> {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
    Ok(())
}

/// Registers this node as soon as the datastore can be reached, and again whenever somebody deletes it: a node that runs is there, and
/// without its resource its pods' addresses would be collected under them.
async fn registrar(
    store: EtcdStore,
    bootstrap: Bootstrap,
    mut place: watch::Receiver<Place>,
    stop: CancellationToken,
) -> Result<()> {
    let mut said = String::new();
    loop {
        let tried = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            tried = register::register(&store, &bootstrap) => tried?,
        };
        match tried {
            Registered::Done => {
                said.clear();
                // What was written is on its way here; only a deletion after that is one.
                for is_there in [true, false] {
                    let turn = place.wait_for(|p| p.in_sync && p.node.is_some() == is_there);
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        turned = turn => drop(turned.context("the hub is gone")?),
                    }
                }
                tracing::warn!(
                    node = bootstrap.node_name,
                    "this node was deleted while it runs: registering it again; to remove a node, stop its daemon first"
                );
            }
            Registered::Later(error) => {
                if said != error {
                    tracing::warn!(error, "cannot register this node yet");
                    said = error;
                }
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(REGISTER_RETRY) => {}
                }
            }
        }
    }
}

/// Pods are served once the datastore has been read and what died unheard is cleared away.
async fn serve_pods(
    pods: Arc<Pods<EtcdStore>>,
    socket: std::path::PathBuf,
    health: Health,
    metrics: Metrics,
    mut in_sync: watch::Receiver<bool>,
    stop: CancellationToken,
) -> Result<()> {
    health.not_ready(Component::Cni, "waiting for the datastore");
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        synced = in_sync.wait_for(|synced| *synced) => drop(synced.context("the hub is gone")?),
    }
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        reconciled = cni::reconcile(&pods) => {
            if let Err(error) = reconciled {
                tracing::warn!(error = format!("{error:#}"), "clearing endpoints without a link; the next start tries again");
            }
        }
    }
    cni::serve(pods, socket, health, metrics, stop).await
}

fn unix_secs() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Spreads the nodes' reconnects: FNV-1a of the name.
fn seed(node: &str) -> u64 {
    node.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}
