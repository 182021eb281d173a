//! What a watch of the store yields: batches of updates, and the news that the first pass is over.

use bytes::Bytes;

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
            _ => Ok(Self::Raw(bytes.clone())),
        }
    }

    /// The value as it is stored.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Resource(resource) => resource.encode().into(),
            Self::Raw(bytes) => bytes.clone(),
        }
    }

    /// The object, if it is one.
    #[must_use]
    pub fn resource(&self) -> Option<&AnyResource> {
        match self {
            Self::Resource(resource) => Some(resource),
            Self::Raw(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
