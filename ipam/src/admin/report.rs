//! The report of `ipam check -o FILE`, in calicoctl's JSON, so that either tool can release from the other's.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use twill_datastore::{KeyRange, KeyValue, Pager, Store, StoreError};
use twill_model::Key;
use twill_model::ipam::Block;
use twill_model::kind::Kind;
use twill_model::resources::clusterinformation::ClusterInformation;

use crate::block;
use crate::collect::{Leak, scan};
use crate::keys;
use crate::now::Now;

/// What a check found, for a later release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Version of the tool that made it.
    #[serde(default)]
    pub version: String,
    /// The cluster.
    #[serde(default, rename = "clusterGUID")]
    pub cluster_guid: String,
    /// Whether the datastore was locked.
    #[serde(default, rename = "datastoreLocked")]
    pub datastore_locked: bool,
    /// `ClusterInformation`'s revision, in decimal: it changes with every lock and unlock.
    #[serde(default, rename = "clusterInformationRevision")]
    pub cluster_information_revision: String,
    /// `ClusterInformation`'s type.
    #[serde(default, rename = "clusterType")]
    pub cluster_type: String,
    /// Allocations, by address.
    #[serde(default)]
    pub allocations: BTreeMap<String, Vec<Reported>>,
    /// Handles that hold nothing.
    #[serde(default, rename = "leakedHandles", skip_serializing_if = "Vec::is_empty")]
    pub leaked_handles: Vec<HandleInfo>,
}

/// One allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reported {
    /// The address.
    pub ip: String,
    /// Its handle.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub handle: String,
    /// The sequence number at which it was assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_number: Option<u64>,
    /// The pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The pod's namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// `ipipTunnelAddress` and its like.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// When it was assigned.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub creation_timestamp: String,
    /// False if nobody has it any more.
    #[serde(default)]
    pub in_use: bool,
    /// Whether its node does not own the block.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub borrowed: bool,
    /// Whether it was released and is not given again yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cooling_down: bool,
    /// Who has it.
    #[serde(default)]
    pub owners: Option<Vec<String>>,
}

/// A handle that holds nothing, as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandleInfo {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Kubernetes' uid: `null` in etcd.
    #[serde(default, rename = "UID")]
    pub uid: Option<String>,
    /// The revision that wrote it, in decimal.
    pub revision: String,
}

/// Makes a report of everything at one revision. Takes about 400 bytes for each address.
///
/// # Errors
/// If the store fails, or compacts the revision away meanwhile (call again).
pub async fn report(store: &impl Store, version: &str, now: Now) -> Result<CheckReport, StoreError> {
    let found = scan(store, now, std::collections::BTreeSet::new()).await?;
    let mut report = CheckReport {
        version: version.to_owned(),
        cluster_guid: found.facts.cluster_guid.clone(),
        datastore_locked: !found.facts.is_ready,
        cluster_information_revision: found.facts.cluster_revision.to_string(),
        ..CheckReport::default()
    };
    let mut leaked: HashSet<IpAddr> = HashSet::new();
    for leak in &found.leaks {
        match leak {
            Leak::Address { address, .. } => drop(leaked.insert(*address)),
            Leak::Handle { id, revision } => report.leaked_handles.push(HandleInfo {
                id: id.clone(),
                uid: None,
                revision: revision.to_string(),
            }),
            Leak::Ownership { .. } | Leak::Idle { .. } => {}
        }
    }
    let ranges = [
        KeyRange::key(keys::cluster()),
        KeyRange::prefix(twill_model::key::BLOCKS),
    ];
    for range in ranges {
        let mut pager = Pager::at(range, found.revision.max(1));
        while let Some(request) = pager.request() {
            match store.range(request).await {
                Ok(page) => pager.page(page).iter().for_each(|kv| report.take(kv, &leaked)),
                Err(error) => pager.failed(error)?,
            }
        }
    }
    Ok(report)
}

impl CheckReport {
    fn take(&mut self, kv: &KeyValue, leaked: &HashSet<IpAddr>) {
        match keys::parse(&kv.key) {
            Some(Key::Resource(key)) if key.kind == Kind::ClusterInformation => {
                if let Ok(cluster) = ClusterInformation::decode(&kv.value) {
                    self.cluster_type = cluster.spec.cluster_type;
                }
            }
            Some(Key::Block(cidr)) => {
                // One that cannot be read was named by the scan.
                if let Ok(block) = Block::decode(cidr, &kv.value) {
                    self.block(&block, leaked);
                }
            }
            _ => {}
        }
    }

    fn block(&mut self, block: &Block, leaked: &HashSet<IpAddr>) {
        for ordinal in (0u32..).take(block.allocations.len()) {
            let (Some(attribute), Some(address)) = (block.attribute(ordinal), block.address(ordinal)) else {
                continue;
            };
            let of = |key: &str| attribute.secondary.get(key).cloned().unwrap_or_default();
            let node = of("node");
            let cooling_down = attribute.released_at.is_some();
            let reported = Reported {
                ip: address.to_string(),
                handle: attribute.handle().unwrap_or_default().to_owned(),
                sequence_number: block::sequence_of(block, ordinal),
                pod: of("pod"),
                namespace: of("namespace"),
                kind: of("type"),
                creation_timestamp: of("timestamp"),
                in_use: !cooling_down && !leaked.contains(&address),
                borrowed: !node.is_empty() && block.host() != Some(node.as_str()),
                cooling_down,
                owners: None,
                node,
            };
            self.allocations
                .entry(address.to_string())
                .or_default()
                .push(reported);
        }
    }
}
