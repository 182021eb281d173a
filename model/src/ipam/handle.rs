//! A handle: which blocks hold how many addresses of one container, tunnel or service.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{IpamDecodeError, decode, null_is_default};

/// `/calico/ipam/v2/handle/<id>` (`model.IPAMHandle`): the reverse index from a handle to its blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Addresses held in each block, by the block's CIDR. Always an object: `null` would crash Calico's allocator.
    #[serde(default, deserialize_with = "null_is_default")]
    pub block: BTreeMap<String, i64>,
    /// A marker of the Kubernetes backend; always `false` in etcd.
    #[serde(default)]
    pub deleted: bool,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Handle {
    /// Decodes a stored handle.
    ///
    /// # Errors
    /// If the value is not the JSON of a handle.
    pub fn decode(bytes: &[u8]) -> Result<Self, IpamDecodeError> {
        decode(bytes)
    }

    /// The blocks named, leaving out what is not a CIDR.
    pub fn blocks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.block.keys().filter_map(|cidr| cidr.parse().ok())
    }

    /// How many addresses the handle says it holds in `cidr`.
    #[must_use]
    pub fn count(&self, cidr: &IpNet) -> i64 {
        self.block.get(&cidr.to_string()).copied().unwrap_or(0)
    }

    /// Sets the count for `cidr`; zero or less removes the entry.
    pub fn set(&mut self, cidr: &IpNet, count: i64) {
        if count > 0 {
            self.block.insert(cidr.to_string(), count);
        } else {
            self.block.remove(&cidr.to_string());
        }
    }
}
