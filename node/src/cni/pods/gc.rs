//! GC: what a runtime no longer knows goes, of its own network only. An endpoint does not say its network, but the handle
//! that holds its addresses begins with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use twill_datastore::{Consistency, KeyRange, Op, Pager, Store, Txn};
use twill_ipam::{Release, ReleaseTarget, Riders};
use twill_model::ipam::BlockView;
use twill_model::resources::WorkloadEndpoint;
use twill_model::{AffinityOwner, Key};
use twill_proto::cni::{Attachment, Del, Gc};

use super::super::CniError;
use super::{Pods, handles, refusal};

/// Blocks read at once: a block of 64 addresses is 10 kB or so.
const BLOCKS_AT_ONCE: usize = 32;

/// The attachments that stay.
type Valid<'a> = BTreeSet<(&'a str, &'a str)>;
/// Handles with the addresses that each holds.
type HeldBy = BTreeMap<String, BTreeSet<IpAddr>>;

impl<S: Store> Pods<S> {
    /// GC: every attachment of this network on this node that is not in the list goes, endpoint, link and addresses, and
    /// so do addresses of this network whose endpoint went before. What an ADD is making at the moment stays.
    ///
    /// # Errors
    /// The first deletion that failed; the others were tried.
    pub(in crate::cni) async fn gc(&self, gc: &Gc) -> Result<(), CniError> {
        self.serving()?;
        let pairs = gc
            .valid
            .iter()
            .map(|v| (v.container_id.as_str(), v.ifname.as_str()));
        let valid: Valid<'_> = pairs.collect();
        let mut outcome = Ok(());
        for attachment in self.stale(&gc.network, &valid).await? {
            tracing::info!(
                network = gc.network,
                container = attachment.container_id,
                ifname = attachment.ifname,
                "attachment is no longer known to the runtime, collected"
            );
            let deleted = self
                .del(&Del {
                    attachment: Some(attachment),
                    replayed: true,
                })
                .await;
            outcome = outcome.and(deleted);
        }
        for (handle, addresses) in self.abandoned(&gc.network, &valid).await? {
            tracing::info!(
                network = gc.network,
                handle,
                "addresses without an endpoint, collected"
            );
            self.forget(&addresses).await?;
            let release = Release {
                target: ReleaseTarget::Handle(handle),
                riders: Riders::default(),
            };
            let released = self.ipam.release(release).await.map(drop).map_err(refusal);
            outcome = outcome.and(released);
        }
        outcome
    }

    /// Attachments of the network that have an endpoint and are not valid.
    async fn stale(&self, network: &str, valid: &Valid<'_>) -> Result<Vec<Attachment>, CniError> {
        let candidates: Vec<_> = {
            let fabric = self.fabric.read();
            let all = fabric.own_endpoints.values().map(|(e, _)| e.clone());
            all.filter(|e| !e.spec.container_id.is_empty() && !is_valid(valid, e))
                .collect()
        };
        let mut stale = Vec::new();
        for endpoint in candidates {
            let attachment = Attachment {
                container_id: endpoint.spec.container_id.clone(),
                ifname: endpoint.spec.endpoint.clone(),
                network: network.to_owned(),
                ..Attachment::default()
            };
            if self.is_in(&attachment, &endpoint).await? {
                stale.push(attachment);
            }
        }
        Ok(stale)
    }

    /// Whether an endpoint belongs to the network: by the holder of its addresses, or, when nobody holds them, by the
    /// profile that only this network gives.
    async fn is_in(&self, attachment: &Attachment, endpoint: &WorkloadEndpoint) -> Result<bool, CniError> {
        let ours = handles(attachment);
        if ours.iter().any(|h| self.memory.is_adding(h)) {
            return Ok(false);
        }
        let mut held = false;
        for net in &endpoint.spec.ip_networks {
            if let Some(holder) = self.holder_of(net.addr()).await? {
                held = true;
                if ours.contains(&holder) {
                    return Ok(true);
                }
            }
        }
        Ok(!held && endpoint.spec.profiles == [attachment.network.as_str()])
    }

    /// Handles of the network with addresses of this node and neither endpoint nor valid attachment.
    async fn abandoned(&self, network: &str, valid: &Valid<'_>) -> Result<HeldBy, CniError> {
        let (mut known, containers): (BTreeSet<String>, BTreeSet<&str>) = (
            BTreeSet::new(),
            valid.iter().map(|(container, _)| *container).collect(),
        );
        {
            let fabric = self.fabric.read();
            for (endpoint, _) in fabric.own_endpoints.values() {
                let attachment = Attachment {
                    container_id: endpoint.spec.container_id.clone(),
                    ifname: endpoint.spec.endpoint.clone(),
                    network: network.to_owned(),
                    ..Attachment::default()
                };
                known.extend(handles(&attachment));
            }
        }
        let prefix = format!("{network}.");
        let is_abandoned = |handle: &String| {
            let Some(rest) = handle.strip_prefix(&prefix) else {
                return false;
            };
            let is_valid = containers
                .iter()
                .any(|c| rest == *c || rest.strip_prefix(c).is_some_and(|r| r.starts_with('.')));
            !is_valid && !known.contains(handle) && !self.memory.is_adding(handle)
        };
        let held = self.held_here().await?;
        Ok(held
            .into_iter()
            .filter(|(handle, _)| is_abandoned(handle))
            .collect())
    }

    /// Handles that hold addresses in this node's blocks for this node, and which.
    async fn held_here(&self) -> Result<HeldBy, CniError> {
        let prefix = AffinityOwner::Host(self.node.clone()).prefix();
        let mut pager = Pager::new(KeyRange::prefix(prefix), Consistency::Linearised);
        let mut blocks = Vec::new();
        while let Some(request) = pager.request() {
            let page = self.store.range(request).await.map_err(CniError::try_again)?;
            blocks.extend(pager.page(page).into_iter().filter_map(|kv| {
                match Key::parse(&String::from_utf8_lossy(&kv.key)) {
                    Key::BlockAffinity(key) => Some(key.block),
                    _ => None,
                }
            }));
        }
        let mut handles = HeldBy::new();
        for some in blocks.chunks(BLOCKS_AT_ONCE) {
            let ops = some
                .iter()
                .map(|cidr| Op::get(Key::block(*cidr).path()))
                .collect();
            let txn = Txn::default().then(ops);
            let reply = self.store.txn(txn).await.map_err(CniError::try_again)?;
            for (cidr, response) in some.iter().zip(&reply.responses) {
                let kv = response.kvs().first();
                if let Some(block) = kv.and_then(|kv| BlockView::decode(*cidr, &kv.value).ok()) {
                    self.held_in(&block, &mut handles);
                }
            }
        }
        Ok(handles)
    }

    fn held_in(&self, block: &BlockView<'_>, handles: &mut HeldBy) {
        for ordinal in (0u32..).take(block.allocations.len()) {
            let attribute = block.attribute(ordinal);
            let here = attribute.filter(|a| a.secondary.node() == Some(self.node.as_str()));
            let (Some(handle), Some(address)) = (here.and_then(|a| a.handle()), block.address(ordinal))
            else {
                continue;
            };
            handles.entry(handle.to_owned()).or_default().insert(address);
        }
    }
}

fn is_valid(valid: &Valid<'_>, endpoint: &WorkloadEndpoint) -> bool {
    valid.contains(&(
        endpoint.spec.container_id.as_str(),
        endpoint.spec.endpoint.as_str(),
    ))
}
