//! `ipam release --from-report`: frees what all of the given reports call leaked, if it is still as they say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use twill_datastore::{KeyRange, RangeRequest, Revision, Store, StoreError};
use twill_model::Key;
use twill_model::resources::clusterinformation::ClusterInformation;

use super::report::CheckReport;
use crate::allocator::Clock;
use crate::block::Cooling;
use crate::collect::{Facts, Guards, Leak, Pass, Scan, Why, pass};
use crate::keys;
use crate::resources;

/// What all reports agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaked {
    /// Addresses with handle and sequence number.
    pub addresses: BTreeMap<IpAddr, (Option<String>, Option<u64>)>,
    /// Handles with the revision that wrote them.
    pub handles: BTreeMap<String, Revision>,
}

/// What the caller insists on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Version of this tool; reports of another are refused without `force`.
    pub version: String,
    /// Release although the datastore is not locked, or a report is of another version.
    pub force: bool,
}

/// Why nothing is released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// No report.
    #[error("no report is given")]
    NoReport,
    /// A report of another cluster. `--force` does not help.
    #[error("report {index} is of cluster {found}, this is {expected}: refusing to release")]
    OtherCluster {
        /// Which report, from 1.
        index: usize,
        /// Its cluster.
        found: String,
        /// This cluster.
        expected: String,
    },
    /// Made by another version.
    #[error("report {index} was made by version {found}, this is {expected}: make a new one, or use --force")]
    OtherVersion {
        /// Which report, from 1.
        index: usize,
        /// Its version.
        found: String,
        /// This version.
        expected: String,
    },
    /// The datastore was locked or unlocked since.
    #[error("all reports are stale: at least one must be made while the datastore is locked as it is now")]
    Stale,
    /// Pods may come and go meanwhile.
    #[error("the datastore is not locked: lock it, make a new report, and release from both, or use --force")]
    NotLocked,
    /// `ClusterInformation` is missing or cannot be read.
    #[error("ClusterInformation default cannot be read: {0}")]
    Cluster(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Leaked {
    /// The addresses and handles that every report calls leaked, unchanged from the first to the last.
    #[must_use]
    pub fn agreed(reports: &[CheckReport]) -> Self {
        let mut agreed: Option<Self> = None;
        for report in reports {
            let mut this = Self::default();
            for allocation in report.allocations.values().flatten() {
                if allocation.in_use || allocation.cooling_down {
                    continue;
                }
                let Ok(address) = allocation.ip.parse() else {
                    continue;
                };
                let handle = Some(allocation.handle.clone()).filter(|h| !h.is_empty());
                this.addresses
                    .insert(address, (handle, allocation.sequence_number));
            }
            for handle in &report.leaked_handles {
                if let Ok(revision) = handle.revision.parse() {
                    this.handles.insert(handle.id.clone(), revision);
                }
            }
            if let Some(before) = agreed {
                this.addresses
                    .retain(|address, what| before.addresses.get(address) == Some(what));
                this.handles.retain(|id, at| before.handles.get(id) == Some(at));
            }
            agreed = Some(this);
        }
        agreed.unwrap_or_default()
    }
}

/// Frees what all `reports` call leaked. Each address is freed only if handle and sequence number are still the same.
///
/// # Errors
/// As [`ReleaseError`] says. If the store fails half-way, what was freed is freed; ask again with the same reports.
pub async fn release_leaked<S: Store>(
    store: &S,
    reports: &[CheckReport],
    terms: &Terms,
    clock: &Arc<Clock>,
) -> Result<Pass, ReleaseError> {
    let kv = store.get(keys::cluster()).await?;
    let kv = kv.ok_or_else(|| ReleaseError::Cluster("it does not exist".to_owned()))?;
    let cluster = ClusterInformation::decode(&kv.value).map_err(|e| ReleaseError::Cluster(e.to_string()))?;
    let is_ready = cluster.spec.datastore_ready != Some(false);
    judge(reports, terms, &cluster.spec.cluster_guid, kv.mod_revision)?;
    if is_ready && !terms.force {
        return Err(ReleaseError::NotLocked);
    }
    let config = store.get(twill_model::key::IPAM_CONFIG).await?;
    let secs = config
        .and_then(|kv| twill_model::ipam::IpamConfig::decode(&kv.value).ok())
        .map_or(0, |config| config.ip_cooldown_seconds);
    let leaked = Leaked::agreed(reports);
    let (leaks, lost) = locate(store, &leaked).await?;
    let scan = Scan {
        revision: kv.mod_revision,
        facts: Facts {
            cluster_revision: kv.mod_revision,
            is_ready,
            cluster_guid: cluster.spec.cluster_guid,
            cooling: Cooling {
                secs,
                is_stored: resources::stores_released_at(&cluster.spec.calico_version),
            },
            grace_ms: None,
        },
        leaks,
        ..Scan::default()
    };
    let mut done = pass(store, &scan, &scan.leaks, &Guards::default(), clock).await?;
    done.kept.extend(
        lost.into_iter()
            .map(|address| (address, "it is in no block any more".to_owned())),
    );
    Ok(done)
}

fn judge(reports: &[CheckReport], terms: &Terms, guid: &str, revision: Revision) -> Result<(), ReleaseError> {
    if reports.is_empty() {
        return Err(ReleaseError::NoReport);
    }
    for (index, report) in (1..).zip(reports) {
        if report.cluster_guid != guid {
            return Err(ReleaseError::OtherCluster {
                index,
                found: report.cluster_guid.clone(),
                expected: guid.to_owned(),
            });
        }
        if report.version != terms.version && !terms.force {
            return Err(ReleaseError::OtherVersion {
                index,
                found: report.version.clone(),
                expected: terms.version.clone(),
            });
        }
    }
    let now = revision.to_string();
    if reports.iter().all(|r| r.cluster_information_revision != now) {
        return Err(ReleaseError::Stale);
    }
    Ok(())
}

/// Finds the blocks of the addresses, by the keys of all blocks; addresses in no block are given back apart.
async fn locate<S: Store>(store: &S, leaked: &Leaked) -> Result<(Vec<Leak>, Vec<IpAddr>), StoreError> {
    let mut blocks: std::collections::BTreeSet<IpNet> = std::collections::BTreeSet::new();
    let mut request = RangeRequest::new(KeyRange::prefix(twill_model::key::BLOCKS)).keys_only();
    loop {
        let page = store.range(request.clone()).await?;
        for kv in &page.kvs {
            if let Some(Key::Block(cidr)) = keys::parse(&kv.key) {
                blocks.insert(cidr);
            }
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else {
            break;
        };
        request.after = Some(last.key.clone());
    }
    let (mut leaks, mut lost) = (Vec::new(), Vec::new());
    for (address, (handle, sequence)) in &leaked.addresses {
        let (longest, shortest) = if address.is_ipv4() { (32, 20) } else { (128, 116) };
        let mut nets = (shortest..=longest).filter_map(|len| IpNet::new(*address, len).ok());
        match nets.find_map(|net| blocks.get(&net.trunc())) {
            Some(block) => leaks.push(Leak::Address {
                address: *address,
                block: *block,
                handle: handle.clone(),
                sequence: *sequence,
                node: None,
                why: Why::NoEndpoint,
                guard: None,
                endpoint: None,
            }),
            None => lost.push(*address),
        }
    }
    let handle = |(id, revision): (&String, &Revision)| Leak::Handle {
        id: id.clone(),
        revision: *revision,
    };
    leaks.extend(leaked.handles.iter().map(handle));
    Ok((leaks, lost))
}
