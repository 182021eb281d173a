//! A block's affinity: the index by owner, and the signal between the owner and those who would take the block.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{IpamDecodeError, decode};

/// `/calico/ipam/v2/host/<node>/ipv{4,6}/block/<cidr>` (`model.BlockAffinity`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockAffinity {
    /// How far the claim or release has come.
    #[serde(default)]
    pub state: AffinityState,
    /// A marker of the Kubernetes backend; always `false` in etcd.
    #[serde(default)]
    pub deleted: bool,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl BlockAffinity {
    /// An affinity in `state`, as Calico would write it.
    #[must_use]
    pub fn new(state: AffinityState) -> Self {
        Self {
            state,
            deleted: false,
            extra: Map::new(),
        }
    }

    /// Decodes a stored affinity. An empty value, which very old Calico wrote, is a confirmed one.
    ///
    /// # Errors
    /// If the value is not the JSON of an affinity.
    pub fn decode(bytes: &[u8]) -> Result<Self, IpamDecodeError> {
        if bytes.is_empty() {
            Ok(Self::new(AffinityState::Unstated))
        } else {
            decode(bytes)
        }
    }
}

/// The state of an affinity (`model.BlockAffinityState`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AffinityState {
    /// The block is the owner's.
    Confirmed,
    /// A claim in progress: not owned yet.
    Pending,
    /// A release in progress.
    PendingDeletion,
    /// Empty, as very old Calico wrote it: means confirmed.
    #[default]
    Unstated,
    /// A state that this version does not know: treated as not confirmed.
    Other(String),
}

impl AffinityState {
    /// Whether the owner may use the block without confirming the affinity first.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        matches!(self, Self::Confirmed | Self::Unstated)
    }
}

impl From<String> for AffinityState {
    fn from(text: String) -> Self {
        match text.as_str() {
            "confirmed" => Self::Confirmed,
            "pending" => Self::Pending,
            "pendingDeletion" => Self::PendingDeletion,
            "" => Self::Unstated,
            _ => Self::Other(text),
        }
    }
}

impl From<AffinityState> for String {
    fn from(state: AffinityState) -> Self {
        match state {
            AffinityState::Confirmed => "confirmed".to_owned(),
            AffinityState::Pending => "pending".to_owned(),
            AffinityState::PendingDeletion => "pendingDeletion".to_owned(),
            AffinityState::Unstated => Self::new(),
            AffinityState::Other(text) => text,
        }
    }
}
