//! `ipam release`: addresses and handles named by somebody, each freed only if it is still as named.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use twill_datastore::{KeyRange, RangeRequest, Revision, Store, StoreError};
use twill_model::Key;
use twill_model::ipam::IpamConfig;
use twill_model::resources::clusterinformation::ClusterInformation;

use crate::allocator::Clock;
use crate::block::Cooling;
use crate::collect::{Facts, Guards, Leak, Pass, Scan, Why, pass};
use crate::keys;
use crate::resources;

/// What is to be freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Addresses, each with the handle and the sequence number that it must still have; `None` is any.
    pub addresses: BTreeMap<IpAddr, (Option<String>, Option<u64>)>,
    /// Handles with the revision that must still hold.
    pub handles: BTreeMap<String, Revision>,
}

/// Why nothing is released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// `ClusterInformation` is missing or cannot be read.
    #[error("ClusterInformation default cannot be read: {0}")]
    Cluster(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Frees what is `named`, whether the datastore is locked or not; should it be locked or unlocked meanwhile, the rest stays.
/// A configured cool-down holds for these addresses as for others.
///
/// # Errors
/// As [`ReleaseError`] says. If the store fails half-way, what was freed is freed; asking again frees the rest.
pub async fn release<S: Store>(store: &S, named: &Named, clock: &Arc<Clock>) -> Result<Pass, ReleaseError> {
    let kv = store.get(keys::cluster()).await?;
    let kv = kv.ok_or_else(|| ReleaseError::Cluster("it does not exist".to_owned()))?;
    let cluster = ClusterInformation::decode(&kv.value).map_err(|e| ReleaseError::Cluster(e.to_string()))?;
    let config = store.get(twill_model::key::IPAM_CONFIG).await?;
    let secs = config
        .and_then(|kv| IpamConfig::decode(&kv.value).ok())
        .map_or(0, |config| config.ip_cooldown_seconds);
    let (leaks, lost) = locate(store, named).await?;
    let scan = Scan {
        revision: kv.mod_revision,
        facts: Facts {
            cluster_revision: kv.mod_revision,
            is_ready: cluster.spec.datastore_ready != Some(false),
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

/// Finds the blocks of the addresses; addresses in no block, or free already, are given back apart.
async fn locate<S: Store>(store: &S, named: &Named) -> Result<(Vec<Leak>, Vec<IpAddr>), StoreError> {
    let blocks = match named.addresses.values().all(|(handle, _)| handle.is_none()) {
        true => BTreeSet::new(),
        false => blocks(store).await?,
    };
    let (mut leaks, mut lost) = (Vec::new(), Vec::new());
    for (address, (handle, sequence)) in &named.addresses {
        let found = match handle {
            Some(handle) => in_one_of(&blocks, *address).map(|block| (block, Some(handle.clone()))),
            // Whoever has it now: the transaction compares that it is still he.
            None => held(store, *address).await?,
        };
        match found {
            Some((block, handle)) => leaks.push(Leak::Address {
                address: *address,
                block,
                handle,
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
    leaks.extend(named.handles.iter().map(handle));
    Ok((leaks, lost))
}

/// The CIDRs of all blocks, by their keys.
async fn blocks<S: Store>(store: &S) -> Result<BTreeSet<IpNet>, StoreError> {
    let mut blocks = BTreeSet::new();
    let mut request = RangeRequest::new(KeyRange::prefix(twill_model::key::BLOCKS)).keys_only();
    loop {
        let page = store.range(request.clone()).await?;
        for kv in &page.kvs {
            if let Some(Key::Block(cidr)) = keys::parse(&kv.key) {
                blocks.insert(cidr);
            }
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else {
            return Ok(blocks);
        };
        request.after = Some(last.key.clone());
    }
}

fn in_one_of(blocks: &BTreeSet<IpNet>, address: IpAddr) -> Option<IpNet> {
    let (longest, shortest) = if address.is_ipv4() { (32, 20) } else { (128, 116) };
    let mut nets = (shortest..=longest).filter_map(|len| IpNet::new(address, len).ok());
    nets.find_map(|net| blocks.get(&net.trunc()).copied())
}

/// The block and the handle that an address is held by; `None` if it is free.
async fn held<S: Store>(store: &S, address: IpAddr) -> Result<Option<(IpNet, Option<String>)>, StoreError> {
    let holder = crate::check::holder(store, address).await?;
    Ok(holder.and_then(|holder| {
        let Key::Block(block) = Key::parse(&holder.key) else {
            return None;
        };
        let attribute = holder.attribute.filter(|a| a.released_at.is_none())?;
        Some((block, attribute.handle().map(str::to_owned)))
    }))
}
