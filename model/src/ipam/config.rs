//! The allocator's own settings, which are not the resource `IPAMConfiguration`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{IpamDecodeError, decode, null_is_default};

/// `/calico/ipam/v2/config` (`model.IPAMConfig`): what every allocator obeys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamConfig {
    /// Only a block's owner assigns from it.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_false"
    )]
    pub strict_affinity: bool,
    /// Whether a node may claim blocks. **Absent means `false`** when the key exists.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_false"
    )]
    pub auto_allocate_blocks: bool,
    /// Most blocks of one IP family that a node may own; 0 means [`IpamConfig::BLOCKS_PER_HOST_DEFAULT`].
    #[serde(
        default,
        rename = "maxBlocksPerHost",
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_zero"
    )]
    pub max_blocks_per_host: i64,
    /// `Enabled` or `Disabled`: whether KubeVirt machines keep their addresses.
    #[serde(
        default,
        rename = "kubeVirtVMAddressPersistence",
        skip_serializing_if = "Option::is_none"
    )]
    pub kube_virt_vm_address_persistence: Option<String>,
    /// Seconds for which a released address is not given again.
    #[serde(
        default,
        rename = "ipCooldownSeconds",
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_zero"
    )]
    pub ip_cooldown_seconds: i64,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl IpamConfig {
    /// Calico's safeguard when no limit is configured.
    pub const BLOCKS_PER_HOST_DEFAULT: usize = 20;

    /// Decodes the stored settings.
    ///
    /// # Errors
    /// If the value is not the JSON of these settings.
    pub fn decode(bytes: &[u8]) -> Result<Self, IpamDecodeError> {
        decode(bytes)
    }

    /// The cap on a node's blocks of one IP family.
    #[must_use]
    pub fn blocks_per_host(&self) -> usize {
        match usize::try_from(self.max_blocks_per_host) {
            Ok(0) | Err(_) => Self::BLOCKS_PER_HOST_DEFAULT,
            Ok(n) => n,
        }
    }
}

impl Default for IpamConfig {
    /// What holds while the key does not exist.
    fn default() -> Self {
        Self {
            strict_affinity: false,
            auto_allocate_blocks: true,
            max_blocks_per_host: 0,
            kube_virt_vm_address_persistence: Some("Enabled".to_owned()),
            ip_cooldown_seconds: 0,
            extra: Map::new(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}
