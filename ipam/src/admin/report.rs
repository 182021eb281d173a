//! `ipam check`'s facts: everything that it looks at, page by page at one revision: who uses addresses, then the blocks that give them,
//! then the handles, then what is left over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;
use twill_datastore::{Consistency, KeyRange, KeyValue, Pager, Revision, Store, StoreError};
use twill_model::ipam::Block;
use twill_model::net::Net;
use twill_model::resources::{ClusterInformation, IpPool, Node, WorkloadEndpoint};
use twill_model::{Key, Kind, ResourceKey};

use crate::block;
use crate::keys;

/// One thing that a report says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A block with its addresses.
    Block(ReportedBlock),
    /// A handle.
    Handle(ReportedHandle),
    /// What concerns everything; the last.
    Summary(Summary),
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedBlock {
    /// Its CIDR.
    pub cidr: IpNet,
    /// `host:<node>`, `virtual:<name>`, or empty.
    pub affinity: String,
    /// The addresses that are not free.
    pub addresses: Vec<ReportedAddress>,
}

/// An allocated address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedAddress {
    /// The address.
    pub address: IpAddr,
    /// Its handle; empty if none.
    pub handle: String,
    /// The sequence number at which it was assigned; 0 if none is known.
    pub sequence: u64,
    /// What the block says of its owner.
    pub attributes: BTreeMap<String, String>,
    /// The same of a virtual machine's other pod.
    pub alternate_attributes: BTreeMap<String, String>,
    /// The node that uses it, as far as known.
    pub node: String,
    /// Its node does not own the block.
    pub borrowed: bool,
    /// Who has it: `Workload(<namespace>/<name>)`, `Node(<name>)`. Nobody: it leaked.
    pub owners: Vec<String>,
    /// In its cool-down.
    pub released: bool,
}

/// A handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedHandle {
    /// Its id.
    pub id: String,
    /// The revision that wrote it; 0 if it is missing.
    pub revision: Revision,
    /// Whether it holds something.
    pub state: HandleState,
}

/// Whether a handle holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleState {
    /// It does.
    Used,
    /// No address has it.
    Leaked,
    /// Addresses have it, and it is not there.
    Missing,
}

/// What concerns everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The revision that everything was read at.
    pub revision: Revision,
    /// The cluster.
    pub cluster_guid: String,
    /// Its type.
    pub cluster_type: String,
    /// ClusterInformation's revision: it changes with every lock and unlock.
    pub cluster_information_revision: Revision,
    /// Whether the datastore is locked.
    pub is_locked: bool,
    /// CIDRs of the pools that are not disabled.
    pub active_pools: Vec<IpNet>,
    /// Tunnel addresses that Nodes name.
    pub tunnel_addresses: usize,
    /// Addresses of workload endpoints.
    pub workload_addresses: usize,
    /// Different ones among both.
    pub addresses_in_use: usize,
    /// In use and not allocated.
    pub strays: Vec<Stray>,
}

/// An address that somebody uses and no block gives him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The address.
    pub address: IpAddr,
    /// Who uses it.
    pub owners: Vec<String>,
    /// Inside a pool that is not disabled.
    pub in_pool: bool,
}

/// Handle of the addresses that Calico keeps back on Windows nodes.
const WINDOWS_HANDLE: &str = "windows-reserved-ipam-handle";

/// A report under way. Holds who uses which address and the names of handles, about 200 bytes an address, and one page.
#[derive(Debug)]
pub struct Walk<S> {
    store: S,
    revision: Revision,
    users: BTreeMap<IpAddr, User>,
    handles_in_use: BTreeSet<String>,
    summary: Summary,
    phase: Phase,
}

#[derive(Debug, Default)]
struct User {
    owners: Vec<String>,
    allocated: bool,
}

#[derive(Debug)]
enum Phase {
    Users,
    Blocks(Pager),
    Handles(Pager),
    Rest,
    Over,
}

impl<S: Store> Walk<S> {
    /// A report that has read nothing yet.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self {
            store,
            revision: 0,
            users: BTreeMap::new(),
            handles_in_use: BTreeSet::new(),
            summary: Summary::default(),
            phase: Phase::Users,
        }
    }

    /// The facts of the next page; `None` at the end.
    ///
    /// # Errors
    /// If the store fails, or compacts the revision away meanwhile (begin again).
    pub async fn next(&mut self) -> Result<Option<VecDeque<Fact>>, StoreError> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Users => {
                self.read_users().await?;
                let blocks = KeyRange::prefix(twill_model::key::BLOCKS);
                self.phase = Phase::Blocks(Pager::at(blocks, self.revision));
                Ok(Some(VecDeque::new()))
            }
            Phase::Blocks(mut pager) => {
                let Some(page) = page(&self.store, &mut pager).await? else {
                    let handles = KeyRange::prefix(twill_model::key::HANDLES);
                    self.phase = Phase::Handles(Pager::at(handles, self.revision));
                    return Ok(Some(VecDeque::new()));
                };
                self.phase = Phase::Blocks(pager);
                let blocks = page.iter().filter_map(|kv| self.block(kv));
                Ok(Some(blocks.map(Fact::Block).collect()))
            }
            Phase::Handles(mut pager) => {
                let Some(page) = page(&self.store, &mut pager).await? else {
                    self.phase = Phase::Rest;
                    return Ok(Some(VecDeque::new()));
                };
                self.phase = Phase::Handles(pager);
                let handles = page.iter().filter_map(|kv| self.handle(kv));
                Ok(Some(handles.map(Fact::Handle).collect()))
            }
            Phase::Rest => Ok(Some(self.rest())),
            Phase::Over => Ok(None),
        }
    }

    async fn read_users(&mut self) -> Result<(), StoreError> {
        for kind in [
            Kind::ClusterInformation,
            Kind::IpPool,
            Kind::Node,
            Kind::WorkloadEndpoint,
        ] {
            let range = KeyRange::prefix(ResourceKey::prefix(kind));
            let mut pager = match self.revision {
                0 => Pager::new(range, Consistency::Linearised),
                at => Pager::at(range, at),
            };
            while let Some(page) = page(&self.store, &mut pager).await? {
                for kv in &page {
                    self.take(kind, kv);
                }
            }
            self.revision = pager.revision();
        }
        self.summary.revision = self.revision;
        self.summary.addresses_in_use = self.users.len();
        Ok(())
    }

    /// What cannot be read is left out: the check names it.
    fn take(&mut self, kind: Kind, kv: &KeyValue) {
        match kind {
            Kind::ClusterInformation => {
                let Ok(cluster) = ClusterInformation::decode(&kv.value) else {
                    return;
                };
                if cluster.metadata.name == "default" {
                    self.summary.cluster_guid = cluster.spec.cluster_guid;
                    self.summary.cluster_type = cluster.spec.cluster_type;
                    self.summary.cluster_information_revision = kv.mod_revision;
                    self.summary.is_locked = cluster.spec.datastore_ready == Some(false);
                }
            }
            Kind::IpPool => {
                let Ok(pool) = IpPool::decode(&kv.value) else {
                    return;
                };
                if !pool.spec.disabled {
                    self.summary.active_pools.push(pool.spec.cidr.masked());
                }
            }
            Kind::Node => {
                let Ok(node) = Node::decode(&kv.value) else { return };
                for address in tunnels(&node) {
                    self.summary.tunnel_addresses += 1;
                    self.uses(address, format!("Node({})", node.metadata.name));
                }
            }
            _ => {
                let Ok(endpoint) = WorkloadEndpoint::decode(&kv.value) else {
                    return;
                };
                let (meta, spec) = (&endpoint.metadata, &endpoint.spec);
                for network in &spec.ip_networks {
                    self.summary.workload_addresses += 1;
                    self.uses(
                        network.addr(),
                        format!("Workload({}/{})", meta.namespace, meta.name),
                    );
                }
            }
        }
    }

    fn uses(&mut self, address: IpAddr, owner: String) {
        self.users.entry(address).or_default().owners.push(owner);
    }

    fn block(&mut self, kv: &KeyValue) -> Option<ReportedBlock> {
        let Some(Key::Block(cidr)) = keys::parse(&kv.key) else {
            return None;
        };
        let block = Block::decode(cidr, &kv.value).ok()?;
        let taken = (0u32..)
            .zip(&block.allocations)
            .filter(|(_, index)| index.is_some());
        let addresses = taken
            .filter_map(|(ordinal, _)| self.address(&block, ordinal))
            .collect();
        Some(ReportedBlock {
            cidr,
            affinity: block.affinity.clone().unwrap_or_default(),
            addresses,
        })
    }

    fn address(&mut self, block: &Block, ordinal: u32) -> Option<ReportedAddress> {
        let address = block.address(ordinal)?;
        let attribute = block.attribute(ordinal)?;
        let handle = attribute.handle().unwrap_or_default().to_owned();
        let user = self.users.get_mut(&address);
        let mut owners = user.map_or_else(Vec::new, |user| {
            user.allocated = true;
            user.owners.clone()
        });
        if handle == WINDOWS_HANDLE {
            owners.push("Reserved for Windows".to_owned());
        } else if !handle.is_empty() {
            self.handles_in_use.insert(handle.clone());
        }
        // Whether a Service has it only Kubernetes knows: such an address must never count as leaked here.
        if block
            .affinity
            .as_deref()
            .is_some_and(|a| a.starts_with("virtual:"))
        {
            owners.push("Service".to_owned());
        }
        let host = block.host().unwrap_or_default();
        let node = attribute.secondary.get("node").filter(|n| !n.is_empty());
        let node = node.map_or(host, String::as_str).to_owned();
        Some(ReportedAddress {
            address,
            handle,
            sequence: block::sequence_of(block, ordinal).unwrap_or(0),
            attributes: attribute.secondary.clone(),
            alternate_attributes: attribute.alternate_owner_attrs.clone(),
            borrowed: node != host,
            node,
            owners,
            released: attribute.released_at.is_some(),
        })
    }

    fn handle(&mut self, kv: &KeyValue) -> Option<ReportedHandle> {
        let path = std::str::from_utf8(&kv.key).ok()?;
        let id = path.strip_prefix(twill_model::key::HANDLES)?.to_owned();
        let state = if self.handles_in_use.remove(&id) {
            HandleState::Used
        } else {
            HandleState::Leaked
        };
        Some(ReportedHandle {
            id,
            revision: kv.mod_revision,
            state,
        })
    }

    /// Handles that blocks name and nobody stored; who uses addresses that no block gives; the summary.
    fn rest(&mut self) -> VecDeque<Fact> {
        let missing = std::mem::take(&mut self.handles_in_use).into_iter().map(|id| {
            Fact::Handle(ReportedHandle {
                id,
                revision: 0,
                state: HandleState::Missing,
            })
        });
        let mut facts: VecDeque<_> = missing.collect();
        let mut summary = std::mem::take(&mut self.summary);
        let users = std::mem::take(&mut self.users);
        let strays = users.into_iter().filter(|(_, user)| !user.allocated);
        let in_pool = |address| summary.active_pools.iter().any(|pool| pool.contains(&address));
        summary.strays = strays
            .map(|(address, user)| Stray {
                in_pool: in_pool(address),
                address,
                owners: user.owners,
            })
            .collect();
        facts.push_back(Fact::Summary(summary));
        facts
    }
}

fn tunnels(node: &Node) -> Vec<IpAddr> {
    let wireguard = node.spec.wireguard.as_ref();
    let all = [
        node.spec.ipv4_vxlan_tunnel_addr.as_ref(),
        node.spec.ipv6_vxlan_tunnel_addr.as_ref(),
        wireguard.and_then(|w| w.interface_ipv4_address.as_ref()),
        wireguard.and_then(|w| w.interface_ipv6_address.as_ref()),
        node.spec
            .bgp
            .as_ref()
            .and_then(|bgp| bgp.ipv4_ipip_tunnel_addr.as_ref()),
    ];
    all.into_iter().flatten().map(Net::addr).collect()
}

async fn page<S: Store>(store: &S, pager: &mut Pager) -> Result<Option<Vec<KeyValue>>, StoreError> {
    while let Some(request) = pager.request() {
        match store.range(request).await {
            Ok(page) => return Ok(Some(pager.page(page))),
            Err(error) => pager.failed(error)?,
        }
    }
    Ok(None)
}
