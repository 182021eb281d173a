//! `ipam split`: one pool becomes 2, 4, 8 ... pools of equal size, blocks and addresses staying as they are.

use ipnet::IpNet;
use twill_datastore::{Compare, KeyValue, Op, Revision, Store, StoreError, Txn};
use twill_model::change::{self, Birth, ChangeError};
use twill_model::kind::Kind;
use twill_model::resources::clusterinformation::ClusterInformation;
use twill_model::resources::ippool::IpPool;
use twill_model::{AnyResource, ObjectMeta, Resource, ResourceKey};

use crate::keys;
use crate::resources;

/// Most parts: with the pool and the lock they fit one transaction.
pub const PARTS_MAX: u32 = 64;
/// Longest name of a resource; Calico cuts the pool's name to leave room for the number.
const NAME_MAX: usize = 253;
const NAME_CUT: usize = 245;

/// Why a pool is not split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Nodes would claim blocks in the middle of it.
    #[error("datastore is not locked. Run the `twillctl datastore lock` command in order split the IP pools")]
    NotLocked,
    /// No such pool.
    #[error("unable to find an IP pool with the specified name or CIDR: {0}")]
    NoPool(String),
    /// Not 2, 4, 8 ... 64.
    #[error(
        "number to split CIDR into is not a valid power of 2: {0}. At most {PARTS_MAX} parts are made at once: split the parts again"
    )]
    Parts(u32),
    /// The parts would be smaller than a block.
    #[error(
        "the CIDR {pool} is not large enough to be split into {parts} parts: each must hold a block of /{block_size}"
    )]
    TooSmall {
        /// The pool's CIDR.
        pool: IpNet,
        /// How many were asked for.
        parts: u32,
        /// Prefix length of its blocks.
        block_size: u8,
    },
    /// The pool, or ClusterInformation, cannot be read.
    #[error("{key} cannot be read: {reason}")]
    Unreadable {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
    /// A part exists already, or somebody changed the pool meanwhile.
    #[error(
        "nothing was split: pool {0}, the lock or one of the new names was changed by someone else; try again"
    )]
    Conflict(String),
    /// A part would not be valid.
    #[error(transparent)]
    Invalid(#[from] ChangeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A pool about to be split.
#[derive(Clone, Debug)]
pub struct Split {
    /// The pool's name.
    pub pool: String,
    /// Names and CIDRs of the parts.
    pub parts: Vec<(String, IpNet)>,
    /// The transaction: the old pool goes and the parts come at one revision, so that no reader sees the addresses in no pool
    /// or in two.
    pub txn: Txn,
}

/// Plans a split of the pool `stored` into `parts`. `births` gives each part a uid.
///
/// # Errors
/// As [`SplitError`] says.
pub fn split(
    name: &str,
    stored: &KeyValue,
    cluster_revision: Revision,
    parts: u32,
    mut births: impl FnMut() -> Birth,
) -> Result<Split, SplitError> {
    if !parts.is_power_of_two() || !(2..=PARTS_MAX).contains(&parts) {
        return Err(SplitError::Parts(parts));
    }
    let unreadable = |reason: String| SplitError::Unreadable {
        key: keys::text(&stored.key),
        reason,
    };
    let old = IpPool::decode(&stored.value).map_err(|e| unreadable(e.to_string()))?;
    let pool = resources::pool(name, &stored.value).map_err(unreadable)?;
    let bits = u8::try_from(parts.trailing_zeros()).unwrap_or(u8::MAX);
    let length = pool.cidr.prefix_len().saturating_add(bits);
    let too_small = SplitError::TooSmall {
        pool: pool.cidr,
        parts,
        block_size: pool.block_size,
    };
    if length > pool.block_size {
        return Err(too_small);
    }
    let cidrs = pool.cidr.subnets(length).map_err(|_| too_small)?;
    let mut compares = vec![
        Compare::mod_revision(keys::cluster(), cluster_revision),
        Compare::mod_revision(stored.key.clone(), stored.mod_revision),
    ];
    let mut ops = vec![Op::delete(stored.key.clone())];
    let mut made = Vec::new();
    for (index, cidr) in cidrs.enumerate() {
        let name = part_name(name, index);
        let mut spec = old.spec.clone();
        spec.cidr = cidr.into();
        spec.disabled = false;
        let meta = ObjectMeta {
            name: name.clone(),
            labels: old.metadata.labels.clone(),
            annotations: old.metadata.annotations.clone(),
            ..ObjectMeta::default()
        };
        let part: AnyResource = Resource::new(meta, spec).into();
        let part = change::create(&part, &births())?;
        let key = ResourceKey::cluster(Kind::IpPool, &name).path();
        compares.push(Compare::absent(key.clone()));
        ops.push(Op::put(key, part.encode()));
        made.push((name, cidr));
    }
    Ok(Split {
        pool: name.to_owned(),
        parts: made,
        txn: Txn::when(compares).then(ops),
    })
}

fn part_name(pool: &str, index: usize) -> String {
    let name = format!("split-{pool}-{index}");
    if name.len() <= NAME_MAX {
        return name;
    }
    let cut: String = pool.chars().take(NAME_CUT).collect();
    format!("split-{cut}-{index}")
}

/// Splits the pool that `wanted` names, or whose CIDR it is. The datastore must be locked.
///
/// # Errors
/// As [`SplitError`] says.
pub async fn split_pool(
    store: &impl Store,
    wanted: &str,
    parts: u32,
    births: impl FnMut() -> Birth + Send,
) -> Result<Split, SplitError> {
    let cluster = store.get(keys::cluster()).await?;
    let revision = cluster.as_ref().map_or(0, |kv| kv.mod_revision);
    let is_locked = match &cluster {
        Some(kv) => {
            let cluster = ClusterInformation::decode(&kv.value).map_err(|e| SplitError::Unreadable {
                key: keys::text(&kv.key),
                reason: e.to_string(),
            })?;
            cluster.spec.datastore_ready == Some(false)
        }
        None => false,
    };
    if !is_locked {
        return Err(SplitError::NotLocked);
    }
    let prefix = ResourceKey::prefix(Kind::IpPool);
    let range = twill_datastore::KeyRange::prefix(prefix.clone());
    let pools = store
        .range_all(range, twill_datastore::Consistency::Linearised)
        .await?;
    let cidr: Option<IpNet> = wanted.parse().ok();
    let found = pools.kvs.into_iter().find_map(|kv| {
        let name = keys::text(&kv.key).strip_prefix(&prefix)?.to_owned();
        let is_it = name == wanted
            || cidr.is_some_and(|cidr| resources::pool(&name, &kv.value).is_ok_and(|p| p.cidr == cidr));
        is_it.then_some((name, kv))
    });
    let (name, stored) = found.ok_or_else(|| SplitError::NoPool(wanted.to_owned()))?;
    let split = split(&name, &stored, revision, parts, births)?;
    if store.txn(split.txn.clone()).await?.succeeded {
        Ok(split)
    } else {
        Err(SplitError::Conflict(name))
    }
}
