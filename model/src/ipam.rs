//! What Calico stores for address management, byte for byte: [`Block`], [`BlockAffinity`], [`Handle`] and
//! [`IpamConfig`].
//!
//! These are not `projectcalico.org/v3` resources: they have no metadata, live under `/calico/ipam/v2/` and are
//! written by every allocator in the cluster, ours and Calico's, at once. Field order, `null` against absent, and
//! sorted map keys follow Go's `encoding/json` on the structs of libcalico-go v3.32.1 (`lib/backend/model`).
//! Fields that a later Calico adds are kept in `extra` and written back behind the known ones.

mod affinity;
mod block;
mod config;
mod handle;
mod view;

pub use affinity::{AffinityState, BlockAffinity};
pub use block::{Attribute, BLOCK_ADDRESSES_MAX, Block};
pub use config::IpamConfig;
pub use handle::Handle;
pub use view::{AttributeView, BlockView, HandleView, OwnerView};

use serde::{Deserialize, Deserializer};

/// Longest value that is decoded, in bytes. The largest legal block (4,096 addresses, long node and pod names)
/// is about 1.3 MB; etcd itself refuses requests above 1.5 MiB by default.
pub const VALUE_BYTES_MAX: usize = 4 << 20;

/// Why a stored IPAM object cannot be used. It says what is wrong, not where: whoever knows the key adds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamDecodeError {
    /// The value is not the JSON that Calico writes.
    #[error("not valid JSON for this kind: {0}")]
    Json(String),
    /// The value is longer than [`VALUE_BYTES_MAX`].
    #[error("{0} bytes long, more than {VALUE_BYTES_MAX}")]
    TooLong(usize),
    /// The `cidr` in the value is another one than the key names.
    #[error("cidr is {found}, but the key says {key}")]
    CidrMismatch {
        /// What the value says.
        found: String,
        /// What the key says.
        key: String,
    },
    /// The block spans more than [`BLOCK_ADDRESSES_MAX`] addresses.
    #[error("{0} spans more than {BLOCK_ADDRESSES_MAX} addresses")]
    TooLarge(String),
    /// `allocations` must have exactly one entry for each address of the block.
    #[error("allocations has {found} entries, the block has {expected} addresses")]
    AllocationsLength {
        /// Entries found.
        found: usize,
        /// Addresses of the block.
        expected: usize,
    },
    /// An entry of `allocations` points beyond `attributes`.
    #[error("ordinal {ordinal} points to attribute {index}, but there are {attributes}")]
    AttributeIndex {
        /// Which address of the block.
        ordinal: usize,
        /// Where it points.
        index: u32,
        /// How many attributes there are.
        attributes: usize,
    },
    /// An entry of `unallocated` is not an ordinal of this block.
    #[error("unallocated lists ordinal {0}, which is outside the block")]
    UnallocatedOutside(u32),
    /// An ordinal stands in `unallocated` twice, so that it could be handed out twice.
    #[error("unallocated lists ordinal {0} twice")]
    UnallocatedTwice(u32),
    /// An ordinal is both allocated and free.
    #[error("ordinal {0} is allocated and listed in unallocated")]
    UnallocatedInUse(u32),
}

/// Decodes `bytes` with serde after the length check that all kinds here share.
fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, IpamDecodeError> {
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(IpamDecodeError::TooLong(bytes.len()));
    }
    serde_json::from_slice(bytes).map_err(|e| IpamDecodeError::Json(e.to_string()))
}

/// Go's decoder leaves a field at its zero value when the JSON says `null`.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
