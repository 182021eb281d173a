//! One look at everything, at one revision: what seems to belong to no one.
//!
//! The scanner is shown keys in a fixed order (settings, nodes, endpoints, blocks, handles, affinities) and keeps 20 bytes for
//! each endpoint's address, 8 for each held handle, and the leaks themselves.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use ipnet::IpNet;
use twill_datastore::{Bytes, KeyValue, Revision};
use twill_model::ipam::{Attribute, Block, Handle, IpamConfig};
use twill_model::kind::Kind;
use twill_model::resources::clusterinformation::ClusterInformation;
use twill_model::{AffinityOwner, Key, ResourceKey, names};

use super::{Leak, Why};
use crate::block::{self, Cooling};
use crate::keys;
use crate::now::Now;
use crate::resources;

/// Most leaks that one scan holds, about 500 bytes each. What is beyond is found by the next pass.
pub const LEAKS_MAX: usize = 100_000;
/// Calico's marker of addresses that Windows keeps for itself in each block.
const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";
/// How long after its cool-down an address is left to its block's owner, who frees it by the way.
const IDLE_SECS: i64 = 60;

/// What a collector must know of the cluster beside the leaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `ClusterInformation`'s revision, 0 if there is none.
    pub cluster_revision: Revision,
    /// Whether the datastore is open for changes.
    pub is_ready: bool,
    /// The cluster's id.
    pub cluster_guid: String,
    /// What becomes of freed addresses.
    pub cooling: Cooling,
    /// `leakGracePeriod` of the controllers' settings, in milliseconds; 0: do not collect. `None`: not configured.
    pub grace_ms: Option<u64>,
}

/// The outcome of one look.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// The revision that everything was read at.
    pub revision: Revision,
    /// What was found about the cluster.
    pub facts: Facts,
    /// What seems to belong to no one.
    pub leaks: Vec<Leak>,
    /// How many leaks did not fit.
    pub left_off: usize,
    /// Keys that could not be read, with the reason. What they hold is left alone.
    pub unreadable: Vec<(String, String)>,
    /// Addresses held.
    pub held: usize,
}

/// Takes keys in and finds leaks.
#[derive(Debug)]
pub struct Scanner {
    now: Now,
    /// Treated as gone whether they have a resource or not.
    removed: BTreeSet<String>,
    nodes: BTreeSet<String>,
    endpoints: HashSet<IpAddr>,
    /// Endpoints of nodes that are gone, by address.
    orphans: HashMap<IpAddr, Bytes>,
    /// Hashes of handles that hold something, and of those that hold something that is not leaked.
    holders: HashSet<u64>,
    live: HashSet<u64>,
    hasher: RandomState,
    scan: Scan,
    /// Owners and blocks that are among the leaks.
    disowned: BTreeSet<(AffinityOwner, IpNet)>,
    /// An endpoint could not be read: no address may be said to have none.
    is_blind: bool,
}

impl Scanner {
    /// A scanner that takes the nodes `removed` for gone whatever the store says.
    #[must_use]
    pub fn new(now: Now, removed: BTreeSet<String>) -> Self {
        let mut scan = Scan::default();
        scan.facts.is_ready = true;
        Self {
            now,
            removed,
            nodes: BTreeSet::new(),
            endpoints: HashSet::new(),
            orphans: HashMap::new(),
            holders: HashSet::new(),
            live: HashSet::new(),
            hasher: RandomState::new(),
            scan,
            disowned: BTreeSet::new(),
            is_blind: false,
        }
    }

    /// The ranges to be shown, in this order.
    #[must_use]
    pub fn prefixes() -> Vec<String> {
        vec![
            ResourceKey::cluster(Kind::ClusterInformation, "default").path(),
            ResourceKey::cluster(Kind::KubeControllersConfiguration, "default").path(),
            twill_model::key::IPAM_CONFIG.to_owned(),
            ResourceKey::prefix(Kind::Node),
            ResourceKey::prefix(Kind::WorkloadEndpoint),
            twill_model::key::BLOCKS.to_owned(),
            twill_model::key::HANDLES.to_owned(),
            twill_model::key::HOST_AFFINITIES.to_owned(),
        ]
    }

    /// Takes in one key.
    pub fn take(&mut self, kv: &KeyValue) {
        let text = keys::text(&kv.key);
        let result = match Key::parse(&text) {
            Key::Block(cidr) => Block::decode(cidr, &kv.value)
                .map(|block| self.block(&block, kv.mod_revision))
                .map_err(|e| e.to_string()),
            Key::Handle(id) => Handle::decode(&kv.value)
                .map(|_| self.handle(id, kv.mod_revision))
                .map_err(|e| e.to_string()),
            Key::BlockAffinity(key) => {
                self.affinity(key.owner, key.block);
                Ok(())
            }
            Key::IpamConfig => IpamConfig::decode(&kv.value)
                .map(|config| self.scan.facts.cooling.secs = config.ip_cooldown_seconds)
                .map_err(|e| e.to_string()),
            Key::Resource(key) => self.resource(&key, kv),
            Key::Other(_) => Ok(()),
        };
        if let Err(reason) = result {
            self.scan.unreadable.push((text, reason));
        }
    }

    fn resource(&mut self, key: &ResourceKey, kv: &KeyValue) -> Result<(), String> {
        match key.kind {
            Kind::Node => drop(self.nodes.insert(key.name.clone())),
            Kind::WorkloadEndpoint => {
                let (node, held) =
                    resources::endpoint_place(&kv.value).inspect_err(|_| self.is_blind = true)?;
                let is_gone = self.is_gone(&node);
                for address in held {
                    if is_gone {
                        self.orphans.insert(address, kv.key.clone());
                    } else {
                        self.endpoints.insert(address);
                    }
                }
            }
            Kind::ClusterInformation => {
                let spec = ClusterInformation::decode(&kv.value)
                    .map_err(|e| e.to_string())?
                    .spec;
                let facts = &mut self.scan.facts;
                facts.cluster_revision = kv.mod_revision;
                facts.is_ready = spec.datastore_ready.unwrap_or(true);
                facts.cooling.is_stored = resources::stores_released_at(&spec.calico_version);
                facts.cluster_guid = spec.cluster_guid;
            }
            Kind::KubeControllersConfiguration => {
                self.scan.facts.grace_ms = resources::leak_grace_ms(&kv.value)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn is_gone(&self, node: &str) -> bool {
        !node.is_empty() && (self.removed.contains(node) || !self.nodes.contains(node))
    }

    fn push(&mut self, leak: Leak) {
        if self.scan.leaks.len() < LEAKS_MAX {
            self.scan.leaks.push(leak);
        } else {
            self.scan.left_off += 1;
        }
    }

    fn hash(&self, handle: &str) -> u64 {
        self.hasher.hash_one(handle)
    }

    fn block(&mut self, block: &Block, revision: Revision) {
        let mut is_idle = true;
        for ordinal in (0u32..).take(block.allocations.len()) {
            let (Some(attribute), Some(address)) = (block.attribute(ordinal), block.address(ordinal)) else {
                continue;
            };
            if attribute.released_at.is_some() {
                continue;
            }
            is_idle = false;
            self.scan.held += 1;
            let handle = attribute.handle().map(str::to_owned);
            if let Some(handle) = &handle {
                let hash = self.hash(handle);
                self.holders.insert(hash);
            }
            match self.judge(attribute, address) {
                Some(why) => {
                    let gone = why == Why::NodeGone;
                    self.push(Leak::Address {
                        address,
                        block: block.cidr,
                        sequence: block::sequence_of(block, ordinal),
                        node: attribute.secondary.get("node").cloned(),
                        why,
                        guard: guard(attribute).filter(|_| !gone),
                        endpoint: self.orphans.get(&address).cloned().filter(|_| gone),
                        handle,
                    });
                }
                None => {
                    if let Some(handle) = handle {
                        let hash = self.hash(&handle);
                        self.live.insert(hash);
                    }
                }
            }
        }
        self.ownership(block, revision, is_idle);
    }

    fn ownership(&mut self, block: &Block, revision: Revision, is_idle: bool) {
        let cidr = block.cidr;
        if let Some(host) = block.host().filter(|host| self.is_gone(host)) {
            let owner = AffinityOwner::Host(host.to_owned());
            self.disowned.insert((owner.clone(), cidr));
            self.push(Leak::Ownership { owner, block: cidr });
            return;
        }
        let secs = self.now.unix_secs();
        let cooldown = self.scan.facts.cooling.secs.saturating_add(IDLE_SECS);
        let is_cold = is_idle && block::is_empty_at(block, secs, cooldown);
        let is_nobodys = block.affinity.is_none() && block.host().is_none();
        if is_cold && (is_nobodys || !block::is_empty(block)) {
            self.push(Leak::Idle {
                block: cidr,
                revision,
            });
        }
    }

    /// Why nobody has the address, if so.
    fn judge(&self, attribute: &Attribute, address: IpAddr) -> Option<Why> {
        let secondary = &attribute.secondary;
        let handle = attribute.handle().unwrap_or_default();
        // Services' addresses are known to those who assign them alone.
        if handle.eq_ignore_ascii_case(WINDOWS_RESERVED) || secondary.contains_key("service") {
            return None;
        }
        if secondary.get("node").is_some_and(|node| self.is_gone(node)) {
            return Some(Why::NodeGone);
        }
        // A tunnel's address lives as long as its node.
        if secondary.contains_key("type") || self.endpoints.contains(&address) || self.is_blind {
            return None;
        }
        // What is neither a pod's nor made by a CNI plugin (`<network>.<containerID>`) may be anybody's.
        let of_workload = secondary.contains_key("pod") || handle.contains('.');
        of_workload.then_some(Why::NoEndpoint)
    }

    fn handle(&mut self, id: String, revision: Revision) {
        if !self.holders.contains(&self.hash(&id)) {
            self.push(Leak::Handle { id, revision });
        }
    }

    fn affinity(&mut self, owner: AffinityOwner, block: IpNet) {
        let is_gone = owner.host().is_some_and(|host| self.is_gone(host));
        if is_gone && self.disowned.insert((owner.clone(), block)) {
            self.push(Leak::Ownership { owner, block });
        }
    }

    /// Everything has been shown, at `revision`.
    #[must_use]
    pub fn finish(mut self, revision: Revision) -> Scan {
        self.scan.revision = revision;
        let unreadable_blocks = self
            .scan
            .unreadable
            .iter()
            .any(|(key, _)| key.starts_with(twill_model::key::BLOCKS));
        let (live, hasher) = (self.live, self.hasher);
        self.scan.leaks.retain(|leak| match leak {
            // All of a handle's addresses or none.
            Leak::Address {
                handle: Some(handle), ..
            } => !live.contains(&hasher.hash_one(handle.as_str())),
            // A block that cannot be read may hold an address of any handle.
            Leak::Handle { .. } => !unreadable_blocks,
            _ => true,
        });
        self.scan
    }
}

/// What the keys of the endpoints of the allocation's workload begin with.
fn guard(attribute: &Attribute) -> Option<Bytes> {
    let value = |key: &str| attribute.secondary.get(key).filter(|v| !v.is_empty());
    let node = value("node")?;
    let part = |text: &str| text.replace('-', "--");
    let (namespace, middle) = match (value("namespace"), value("pod")) {
        (Some(namespace), Some(pod)) => (
            namespace.as_str(),
            format!("{}-{}", names::ORCHESTRATOR_K8S, part(pod)),
        ),
        _ => {
            let container = attribute.handle()?.split_once('.')?.1;
            (
                "default",
                format!("{}-{}", names::ORCHESTRATOR_CNI, part(container)),
            )
        }
    };
    let name = format!("{}-{middle}-", part(node));
    Some(
        ResourceKey::namespaced(Kind::WorkloadEndpoint, namespace, name)
            .path()
            .into(),
    )
}
