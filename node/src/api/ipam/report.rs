//! Everything that a check looks at, page by page at one revision: who uses addresses, then the blocks that give them,
//! then the handles, then what is left over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;
use tonic::Status;
use twill_datastore::{Consistency, KeyRange, KeyValue, Pager, Revision, Store};
use twill_model::ipam::Block;
use twill_model::net::Net;
use twill_model::resources::{ClusterInformation, IpPool, Node, WorkloadEndpoint};
use twill_model::{Key, Kind, ResourceKey};
use twill_proto::api::report_reply::Fact;
use twill_proto::api::{
    HandleState, ReportAddress, ReportBlock, ReportHandle, ReportReply, ReportSummary, StrayAddress,
};

/// Handle of the addresses that Calico keeps back on Windows nodes.
const WINDOWS_HANDLE: &str = "windows-reserved-ipam-handle";

/// A report under way. Holds who uses which address and the names of handles, about 200 bytes an address, and one page.
pub(super) struct Walk<S> {
    store: S,
    revision: Revision,
    users: BTreeMap<IpAddr, User>,
    handles_in_use: BTreeSet<String>,
    pools: Vec<IpNet>,
    summary: ReportSummary,
    phase: Phase,
}

#[derive(Default)]
struct User {
    owners: Vec<String>,
    allocated: bool,
}

enum Phase {
    Users,
    Blocks(Pager),
    Handles(Pager),
    Rest,
    Over,
}

impl<S: Store> Walk<S> {
    pub(super) fn new(store: S) -> Self {
        Self {
            store,
            revision: 0,
            users: BTreeMap::new(),
            handles_in_use: BTreeSet::new(),
            pools: Vec::new(),
            summary: ReportSummary::default(),
            phase: Phase::Users,
        }
    }

    /// The facts of the next page; `None` at the end.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn next(&mut self) -> Result<Option<VecDeque<ReportReply>>, Status> {
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
                Ok(Some(blocks.map(|b| fact(Fact::Block(b))).collect()))
            }
            Phase::Handles(mut pager) => {
                let Some(page) = page(&self.store, &mut pager).await? else {
                    self.phase = Phase::Rest;
                    return Ok(Some(VecDeque::new()));
                };
                self.phase = Phase::Handles(pager);
                let handles = page.iter().filter_map(|kv| self.handle(kv));
                Ok(Some(handles.map(|h| fact(Fact::Handle(h))).collect()))
            }
            Phase::Rest => Ok(Some(self.rest())),
            Phase::Over => Ok(None),
        }
    }

    async fn read_users(&mut self) -> Result<(), Status> {
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
        self.summary.revision = number(self.revision);
        self.summary.addresses_in_use = count(self.users.len());
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
                    self.summary.cluster_information_revision = number(kv.mod_revision);
                    self.summary.datastore_locked = cluster.spec.datastore_ready == Some(false);
                }
            }
            Kind::IpPool => {
                let Ok(pool) = IpPool::decode(&kv.value) else {
                    return;
                };
                if !pool.spec.disabled {
                    let cidr = pool.spec.cidr.masked();
                    self.summary.active_pools.push(cidr.to_string());
                    self.pools.push(cidr);
                }
            }
            Kind::Node => {
                let Ok(node) = Node::decode(&kv.value) else { return };
                for address in tunnels(&node) {
                    self.summary.node_tunnel_addresses += 1;
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

    fn block(&mut self, kv: &KeyValue) -> Option<ReportBlock> {
        let Key::Block(cidr) = Key::parse(std::str::from_utf8(&kv.key).ok()?) else {
            return None;
        };
        let block = Block::decode(cidr, &kv.value).ok()?;
        let taken = (0u32..)
            .zip(&block.allocations)
            .filter(|(_, index)| index.is_some());
        let addresses = taken
            .filter_map(|(ordinal, _)| self.address(&block, ordinal))
            .collect();
        Some(ReportBlock {
            cidr: cidr.to_string(),
            affinity: block.affinity.clone().unwrap_or_default(),
            addresses,
        })
    }

    fn address(&mut self, block: &Block, ordinal: u32) -> Option<ReportAddress> {
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
        let numbers = block.sequence_number_for_allocation.as_ref();
        Some(ReportAddress {
            address: address.to_string(),
            handle,
            sequence_number: numbers
                .and_then(|n| n.get(&ordinal.to_string()).copied())
                .unwrap_or(0),
            attributes: attribute.secondary.clone(),
            alternate_attributes: attribute.alternate_owner_attrs.clone(),
            borrowed: node != host,
            node,
            owners,
            released: attribute.released_at.is_some(),
        })
    }

    fn handle(&mut self, kv: &KeyValue) -> Option<ReportHandle> {
        let path = std::str::from_utf8(&kv.key).ok()?;
        let id = path.strip_prefix(twill_model::key::HANDLES)?.to_owned();
        let state = if self.handles_in_use.remove(&id) {
            HandleState::Used
        } else {
            HandleState::Leaked
        };
        Some(ReportHandle {
            id,
            revision: number(kv.mod_revision),
            state: state.into(),
        })
    }

    /// Handles that blocks name and nobody stored; who uses addresses that no block gives; the summary.
    fn rest(&mut self) -> VecDeque<ReportReply> {
        let missing = std::mem::take(&mut self.handles_in_use).into_iter().map(|id| {
            fact(Fact::Handle(ReportHandle {
                id,
                revision: 0,
                state: HandleState::Missing.into(),
            }))
        });
        let mut facts: VecDeque<_> = missing.collect();
        let mut summary = std::mem::take(&mut self.summary);
        let users = std::mem::take(&mut self.users);
        let strays = users.into_iter().filter(|(_, user)| !user.allocated);
        summary.strays = strays
            .map(|(address, user)| StrayAddress {
                address: address.to_string(),
                owners: user.owners,
                in_pool: self.pools.iter().any(|pool| pool.contains(&address)),
            })
            .collect();
        facts.push_back(fact(Fact::Summary(summary)));
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

async fn page<S: Store>(store: &S, pager: &mut Pager) -> Result<Option<Vec<KeyValue>>, Status> {
    while let Some(request) = pager.request() {
        match store.range(request).await {
            Ok(page) => return Ok(Some(pager.page(page))),
            Err(error) => pager
                .failed(error)
                .map_err(|e| Status::unavailable(e.to_string()))?,
        }
    }
    Ok(None)
}

fn fact(fact: Fact) -> ReportReply {
    ReportReply { fact: Some(fact) }
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
