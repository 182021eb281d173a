//! What the speaker's configuration was derived from, kept in the run directory, so that a daemon which starts while the
//! datastore is away speaks to its peers all the same: they keep this node's routes only so long.
//!
//! The file holds the BGP resources as the datastore has them (Calico's JSON, no keys of sessions: those are files of their
//! own), behind a line that names the version of the format and the node. It is written whole beside itself and renamed.
//! What is read from it is trusted no more than what is read from the datastore: the same decoder, the same bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use twill_felix::kernel::routes::HeldRoute;
use twill_felix::plan::routes::Route;
use twill_model::{AnyResource, Key, Update, Value};

use crate::fabric::Fabric;

/// The format; another one is not read.
const VERSION: u32 = 1;
/// Largest file: a thousand nodes with their addresses, labels and annotations are a few megabytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// A burst of changes is written once.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u32,
    node: String,
    resources: usize,
}

/// One of the lines behind it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    value: serde_json::Value,
}

/// The resources that sessions are derived from; cheap to make.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot(Vec<AnyResource>);

impl Snapshot {
    /// What a view holds now.
    pub(crate) fn of(fabric: &Fabric) -> Self {
        let nodes = fabric.nodes.values().cloned().map(AnyResource::Node);
        let pools = fabric.pools.values().cloned().map(AnyResource::IpPool);
        let configurations = fabric.bgp_configurations.values().cloned();
        let peers = fabric.bgp_peers.values().cloned().map(AnyResource::BgpPeer);
        let filters = fabric.bgp_filters.values().cloned().map(AnyResource::BgpFilter);
        let configurations = configurations.map(AnyResource::BgpConfiguration);
        let policies = fabric.bgp_session_policies.values().cloned();
        let policies = policies.map(AnyResource::BgpSessionPolicy);
        let all = nodes
            .chain(pools)
            .chain(configurations)
            .chain(peers)
            .chain(filters)
            .chain(policies);
        Self(all.collect())
    }

    fn write(&self, node: &str) -> Result<Vec<u8>> {
        let head = Head {
            version: VERSION,
            node: node.to_owned(),
            resources: self.0.len(),
        };
        let mut text = serde_json::to_vec(&head)?;
        for resource in &self.0 {
            text.push(b'\n');
            let line = Line {
                key: resource.key().path(),
                value: serde_json::from_slice(&resource.encode())?,
            };
            serde_json::to_writer(&mut text, &line)?;
        }
        text.push(b'\n');
        Ok(text)
    }
}

/// Reads a view out of the text of a file that node `own` wrote.
///
/// # Errors
/// Another version or node, or a line that is not a resource as the datastore would have it.
fn parse(own: &str, text: &str) -> Result<Fabric> {
    let mut lines = text.lines();
    let head: Head = serde_json::from_str(lines.next().unwrap_or_default()).context("line 1")?;
    ensure!(
        head.version == VERSION,
        "it is of version {}, this daemon reads {VERSION}",
        head.version
    );
    ensure!(head.node == own, "it is of node {:?}", head.node);
    let mut fabric = Fabric::default();
    let mut count = 0;
    for (at, line) in lines.enumerate() {
        let one = || -> Result<Update> {
            let line: Line = serde_json::from_str(line)?;
            let key = Key::parse(&line.key);
            ensure!(
                key.resource().is_some(),
                "{} is not the key of a resource",
                line.key
            );
            let bytes = bytes::Bytes::from(serde_json::to_vec(&line.value)?);
            let value = Some(Value::decode(&key, &bytes)?);
            Ok(Update {
                key,
                value,
                revision: 0,
            })
        };
        fabric.apply(own, &one().with_context(|| format!("line {}", at + 2))?);
        count += 1;
    }
    ensure!(
        count == head.resources,
        "it has {count} resources and speaks of {}",
        head.resources
    );
    Ok(fabric)
}

/// Reads the file of an earlier process; `None` if there is none.
///
/// # Errors
/// It cannot be read, or is not what this node would have written.
pub(crate) fn read(path: &Path, own: &str) -> Result<Option<Fabric>> {
    let file = match std::fs::File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("reading {}", path.display()))?,
    };
    let named = || path.display().to_string();
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let len = read.with_context(named)?;
    ensure!(
        u64::try_from(len).is_ok_and(|len| len <= FILE_BYTES_MAX),
        "{} has more than {FILE_BYTES_MAX} bytes",
        path.display()
    );
    parse(own, &text).with_context(named).map(Some)
}

/// Replaces the file.
fn replace(path: &Path, text: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(text)?;
        file.sync_data()?;
        std::fs::rename(&fresh, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Keeps the file as the hub's snapshots are, until cancelled.
pub(crate) async fn keep(
    path: PathBuf,
    node: String,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    stop: CancellationToken,
) -> Result<()> {
    let mut said = String::new();
    loop {
        let now = snapshots.borrow_and_update().clone();
        if let Some(snapshot) = now {
            let (path, node) = (path.clone(), node.clone());
            let written = tokio::task::spawn_blocking(move || {
                snapshot.write(&node).and_then(|text| replace(&path, &text))
            })
            .await
            .context("writing the BGP configuration")?;
            let error = written.err().map(|e| format!("{e:#}")).unwrap_or_default();
            if said != error && !error.is_empty() {
                tracing::warn!(
                    error,
                    "the BGP configuration is not kept: a start without the datastore will speak an older one, or none"
                );
            }
            said = error;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(WRITE_INTERVAL) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = snapshots.changed() => if changed.is_err() {
                // The hub has ended; the daemon is about to.
                stop.cancelled().await;
                return Ok(());
            },
        }
    }
}

/// The prefixes that an earlier process announced, by the routes that it left: blackholes of own blocks, and single
/// addresses of local pods outside them, which were borrowed.
pub(crate) fn announced(held: &BTreeMap<IpNet, Vec<HeldRoute>>) -> BTreeSet<IpNet> {
    let with = |is: fn(&Route) -> bool| {
        held.iter()
            .filter(move |(_, routes)| routes.iter().any(|h| h.route.as_ref().is_some_and(is)))
            .map(|(net, _)| *net)
    };
    let blocks: BTreeSet<IpNet> = with(|r| matches!(r, Route::Blackhole)).collect();
    let pods = with(|r| matches!(r, Route::Workload { .. }));
    let borrowed: Vec<IpNet> = pods
        .filter(|pod| !blocks.iter().any(|block| block.contains(pod)))
        .collect();
    blocks.into_iter().chain(borrowed).collect()
}

#[cfg(test)]
mod tests;
