//! A node that was Calico's, and one that becomes Calico's again.
//!
//! `twilld run --take-over` adopts the routes that calico-node left before anything else is written, and removes its rules
//! once ours enforce. `twilld hand-back`, with the daemon stopped, takes away what would mislead calico-node.

use anyhow::{Context, Result};
use clap::Args;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use twill_datastore::Store;
use twill_datastore::client::Client;
use twill_felix::kernel::{Handle, handover};
use twill_felix::plan::base;
use twill_model::{AnyResource, Kind};

/// Flags of `twilld hand-back`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Flags {
    /// Hand the node back although a daemon seems to run
    #[arg(long)]
    force: bool,
    /// The daemon's directory of sockets, as in `twilld run`
    #[arg(long, env = "TWILL_RUN_DIR", value_name = "DIR", default_value = "/run/twill")]
    run_dir: std::path::PathBuf,
}

/// Makes the routes of the departed calico-node ours. The pools say which are. Says whether there were any: then its rules
/// enforce until ours are whole, and otherwise nobody's do.
///
/// # Errors
/// The datastore or the kernel did not answer; nothing was taken away.
pub(crate) async fn adopt<S: Store>(store: &S) -> Result<bool> {
    let page = Client::new(store.clone())
        .list(Kind::IpPool, None)
        .await
        .context("reading the pools, which say what routes to take over")?;
    let pools: Vec<IpNet> = page
        .items
        .iter()
        .filter_map(|stored| match &stored.object {
            AnyResource::IpPool(pool) => Some(pool.spec.cidr.masked()),
            _ => None,
        })
        .collect();
    let adopted = tokio::task::spawn_blocking(move || handover::adopt_routes(&pools))
        .await?
        .context("taking over the routes of calico-node")?;
    tracing::info!(
        routes = adopted.routes,
        "took over the routes that calico-node left"
    );
    for (route, reason) in adopted.left {
        tracing::warn!(%route, reason, "a route that calico-node left stays as it is: remove it by hand");
    }
    Ok(adopted.routes > 0)
}

/// Removes Calico's rules as soon as ours are in the kernel.
///
/// # Errors
/// The kernel refuses, or felix's thread is gone.
pub(crate) async fn replace_rules(kernel: Handle, stop: CancellationToken) -> Result<()> {
    let mut status = kernel.watch();
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        there = status.wait_for(|s| s.in_sync && s.table_error.is_none()) => {
            there.context("felix's kernel thread has ended")?;
        }
    }
    tokio::task::spawn_blocking(handover::remove_tables)
        .await?
        .context("removing Calico's tables of rules")?;
    tracing::info!("Calico's tables of rules are gone, Twill's enforce");
    stop.cancelled().await;
    Ok(())
}

/// `twilld hand-back`.
///
/// # Errors
/// A daemon runs, or the kernel refuses.
pub(crate) fn hand_back(flags: &Flags) -> Result<()> {
    let socket = flags.run_dir.join("twill.sock");
    if !flags.force && std::os::unix::net::UnixStream::connect(&socket).is_ok() {
        anyhow::bail!(
            "a daemon answers on {}: stop it first, or it writes everything again",
            socket.display()
        );
    }
    handover::hand_back(&base::table(&base::BaseConfig::default()))
        .context("removing Twill's routes and rules")?;
    tracing::info!(
        "Twill's rules and routes are gone; links of pods and routes to them are left for calico-node"
    );
    Ok(())
}
