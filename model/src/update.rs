//! What a watch of the store yields: batches of updates, and the news that the first pass is over.

use std::sync::Arc;

use bytes::Bytes;

use crate::gojson;
use crate::ipam::{Block, BlockAffinity, Handle, IpamConfig};
use crate::key::Key;
use crate::resource::{AnyResource, DecodeError};

/// One key's new state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The key.
    pub key: Key,
    /// Its value; `None` once it is deleted.
    pub value: Option<Value>,
    /// etcd's `mod_revision` of the value, or the revision of the deletion.
    pub revision: i64,
}

/// A stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// An object of `projectcalico.org/v3`.
    Resource(AnyResource),
    /// An allocation block.
    Block(Arc<Block>),
    /// The state of a block affinity.
    BlockAffinity(Arc<BlockAffinity>),
    /// The addresses of a handle.
    Handle(Arc<Handle>),
    /// The allocator's settings.
    IpamConfig(Arc<IpamConfig>),
    /// A value that this version has no type for, as it is.
    Raw(Bytes),
}

/// News from a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Keys that changed, in order of revision. A key occurs at most once in a batch.
    Updates(Vec<Update>),
    /// Every key that existed when the watch began has been reported. Comes once after each full pass.
    InSync,
    /// A value cannot be read. The key keeps the last value that could.
    Unreadable(Unreadable),
}

/// A value that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} at revision {revision} cannot be read, its last good value stays: {error}")]
pub struct Unreadable {
    /// Its key.
    pub key: Key,
    /// Its revision.
    pub revision: i64,
    /// What is wrong with it.
    pub error: DecodeError,
}

impl Value {
    /// Reads the value of a key.
    ///
    /// # Errors
    /// If it is too large, is not JSON, has a field of a wrong type, or is an object of another name, namespace or
    /// kind than its key says.
    pub fn decode(key: &Key, bytes: &Bytes) -> Result<Self, DecodeError> {
        match key {
            Key::Resource(key) => {
                let resource = AnyResource::decode(key.kind, bytes)?;
                resource.check_key(key)?;
                Ok(Self::Resource(resource))
            }
            Key::Block(cidr) => Ok(Self::Block(Block::decode(*cidr, bytes)?.into())),
            Key::BlockAffinity(_) => Ok(Self::BlockAffinity(BlockAffinity::decode(bytes)?.into())),
            Key::Handle(_) => Ok(Self::Handle(Handle::decode(bytes)?.into())),
            Key::IpamConfig => Ok(Self::IpamConfig(IpamConfig::decode(bytes)?.into())),
            Key::Other(_) => Ok(Self::Raw(bytes.clone())),
        }
    }

    /// The value as it is stored.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        const WHY: &str = "all maps in allocator objects have strings as keys, and no number is a float";
        match self {
            Self::Resource(resource) => resource.encode().into(),
            Self::Block(block) => gojson::to_vec(block.as_ref()).expect(WHY).into(),
            Self::BlockAffinity(affinity) => gojson::to_vec(affinity.as_ref()).expect(WHY).into(),
            Self::Handle(handle) => gojson::to_vec(handle.as_ref()).expect(WHY).into(),
            Self::IpamConfig(config) => gojson::to_vec(config.as_ref()).expect(WHY).into(),
            Self::Raw(bytes) => bytes.clone(),
        }
    }

    /// The object, if it is one.
    #[must_use]
    pub fn resource(&self) -> Option<&AnyResource> {
        match self {
            Self::Resource(resource) => Some(resource),
            _ => None,
        }
    }

    /// The block, if it is one.
    #[must_use]
    pub fn block(&self) -> Option<&Arc<Block>> {
        match self {
            Self::Block(block) => Some(block),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
