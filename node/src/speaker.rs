//! `twilld bgp`: the speaker alone, as an ordinary BGP daemon. No datastore, no containers; its configuration is a file.
//!
//! ```text
//! SIGHUP --> file --configure, originate--> twill_bgp::net --best paths--> fib (with `fib: kernel`)
//! twillctl bgp --gRPC on --api-socket-----------^
//! ```

mod fib;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twill_bgp::Families;
use twill_bgp::config::{FILE_BYTES_MAX, FibKind, File};
use twill_bgp::net::{ConfigureError, Handle, bind};

use crate::api;
use crate::bgp::config::Derived;
use crate::bgp::{Intent, Speaker};
use crate::http;
use fib::KernelFib;

/// Flags of `twilld bgp`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SpeakerFlags {
    /// The configuration (YAML); docs/bgp.md has its keys. Read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Serve `twillctl bgp ...` on this unix socket.
    #[arg(long, value_name = "PATH")]
    api_socket: Option<PathBuf>,
    /// Serve Prometheus metrics here, at `/metrics`; wins over the file's `metrics`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
}

/// What the speaker is told, and what those who ask are shown.
struct Standalone {
    handle: Handle,
    shown: watch::Sender<Intent>,
    metrics: watch::Sender<Option<SocketAddr>>,
    /// From the command line: the file cannot move them.
    metrics_fixed: Option<SocketAddr>,
    preserved: Families,
    fib: FibKind,
}

/// Speaks until SIGTERM or SIGINT.
///
/// # Errors
/// The configuration is not one, an address cannot be listened on, the socket or the kernel's routes cannot be had.
pub(crate) async fn run(flags: SpeakerFlags) -> Result<()> {
    // Before anything else: a signal during the start must not be lost, and must not kill.
    let mut hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let file = read(&flags.config)?;
    let kernel = match file.fib {
        FibKind::None => None,
        FibKind::Kernel => Some(KernelFib::open()?),
    };
    let preserved = kernel.as_ref().map_or(Families::NONE, KernelFib::preserved);
    let (handle, server) = bind(with_restart(&file, preserved))?;
    let (shown, intent) = watch::channel(shown_as(&file));
    let (metrics, metrics_at) = watch::channel(flags.metrics.or(file.metrics));
    let standalone = Standalone {
        handle: handle.clone(),
        shown,
        metrics,
        metrics_fixed: flags.metrics,
        preserved,
        fib: file.fib,
    };
    let stop = CancellationToken::new();
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    tasks.spawn(async move {
        server.run().await;
        Ok(())
    });
    if let Some(kernel) = kernel {
        tasks.spawn(kernel.run(handle.clone(), stop.clone()));
    }
    let speaker = Speaker::alone(handle.clone(), intent);
    if let Some(socket) = flags.api_socket {
        tasks.spawn(api::serve_bgp(speaker.clone(), socket, stop.clone()));
    }
    tasks.spawn(http::serve_bgp(speaker, metrics_at, stop.clone()));
    handle.originate(file.networks.clone()).await?;
    handle.own_routes_known().await?;
    tracing::info!(
        asn = file.config.asn,
        router_id = %file.config.router_id,
        peers = file.config.peers.len(),
        ranges = file.config.ranges.len(),
        version = env!("CARGO_PKG_VERSION"),
        "BGP speaker begins"
    );
    let ended = tokio::select! {
        ended = tasks.join_next() => Some(ended),
        () = standalone.reload_on(&mut hangup, &flags.config) => None,
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    match ended {
        Some(Some(ended)) => {
            ended.context("a task of the speaker")??;
            bail!("the BGP speaker ended by itself")
        }
        Some(None) => bail!("the BGP speaker ended by itself"),
        None => {}
    }
    tracing::info!("stopping: every session ends with Cease, Administrative Shutdown");
    // Closed already is as good as shut down.
    let _ = handle.shutdown("").await;
    drop((handle, standalone));
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended.context("a task of the speaker").flatten() {
            tracing::warn!(error = format!("{error:#}"), "while stopping");
        }
    }
    Ok(())
}

impl Standalone {
    /// Reads the file again whenever asked to. What cannot be is said, and the old stays.
    async fn reload_on(&self, hangup: &mut Signal, path: &Path) {
        while hangup.recv().await.is_some() {
            match self.reload(path).await {
                Ok(peers) => tracing::info!(peers, file = %path.display(), "configuration reloaded"),
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "configuration not reloaded, the old one stays"
                ),
            }
        }
        std::future::pending().await
    }

    async fn reload(&self, path: &Path) -> Result<usize> {
        let file = read(path)?;
        if file.fib != self.fib {
            bail!("fib: a running speaker cannot change where its routes go; restart it");
        }
        match self.handle.configure(with_restart(&file, self.preserved)).await {
            Ok(()) => {}
            // Everything else of it holds already.
            Err(error @ ConfigureError::Listen { .. }) => {
                tracing::error!(%error, "one address of the new configuration cannot be listened on");
            }
            Err(error) => return Err(error.into()),
        }
        self.handle.originate(file.networks.clone()).await?;
        let peers = file.config.peers.len();
        self.shown.send_replace(shown_as(&file));
        let metrics = self.metrics_fixed.or(file.metrics);
        self.metrics
            .send_if_modified(|at| std::mem::replace(at, metrics) != metrics);
        Ok(peers)
    }
}

fn read(path: &Path) -> Result<File> {
    let whence = || format!("reading {}", path.display());
    let size = std::fs::metadata(path).with_context(whence)?.len();
    if size > FILE_BYTES_MAX as u64 {
        bail!(
            "{} has {size} bytes, {FILE_BYTES_MAX} are possible",
            path.display()
        );
    }
    let text = std::fs::read_to_string(path).with_context(whence)?;
    File::parse(&text).with_context(|| format!("in {}", path.display()))
}

fn with_restart(file: &File, preserved: Families) -> twill_bgp::Config {
    let mut config = file.config.clone();
    config.restart.restarting = preserved != Families::NONE;
    config.restart.forwarding_preserved = preserved;
    config.track_next_hops = file.fib == FibKind::Kernel;
    // An ordinary daemon says what it knows to all its peers.
    config.split_horizon = false;
    config
}

fn shown_as(file: &File) -> Intent {
    Intent {
        derived: Some(Arc::new(Derived {
            config: file.config.clone(),
            sources: std::collections::BTreeMap::new(),
            gateways: std::collections::BTreeMap::new(),
            warnings: Vec::new(),
            pools: Vec::new(),
            asns: std::collections::BTreeSet::new(),
        })),
        announce: Arc::new(file.networks.clone()),
    }
}
