//! Resources in the store: read, create, replace and delete as Calico's clients do it (`resourceVersion` is the key's mod_revision).
//!
//! Create compares that the key is absent, replace and delete compare the revision that was read. A reply that is lost is no
//! puzzle for the caller: the same compare is sent again, and when it fails because the first one went through, the stored
//! bytes say so. What a write does to an object beforehand (uid, creation time, defaults, validation, a policy's annotation) is
//! [`twill_model::change`]'s.

mod attempt;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use twill_model::change::{self, Birth, ChangeError};
use twill_model::meta::Timestamp;
use twill_model::{AnyResource, DecodeError, Key, Kind, ResourceKey, policyname};

use crate::{
    Bytes, Compare, KeyRange, KeyValue, Op, OpReply, RangeRequest, Revision, Store, StoreError, Txn,
};
use attempt::Ended;

/// How often a write that compares no revision of the caller's is tried against others who write the same object.
pub const ATTEMPTS_MAX: u32 = 20;

/// A resource, where it is stored, and the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its key. Of a policy in an old store its name differs from the one that people see.
    pub key: ResourceKey,
    /// The object as stored.
    pub object: AnyResource,
    /// Its revision.
    pub revision: Revision,
}

impl Stored {
    /// The object as people see it: with its `resourceVersion`, and a policy under the name that was given to it.
    #[must_use]
    pub fn presented(&self) -> AnyResource {
        self.object
            .presented(i64::try_from(self.revision).unwrap_or(i64::MAX))
    }
}

/// Part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of keys.
    pub items: Vec<Stored>,
    /// What could not be read, by key, and why.
    pub unreadable: Vec<(String, String)>,
    /// Where the next page begins.
    pub next: Option<Cursor>,
    /// The revision that all pages of the listing are of.
    pub revision: Revision,
}

/// Where a listing goes on: all pages are of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    revision: Revision,
    after: Bytes,
}

/// Why a resource was not read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// There is none.
    #[error("{0} does not exist")]
    NotFound(ResourceKey),
    /// There is one.
    #[error("{0} exists already")]
    AlreadyExists(ResourceKey),
    /// It is not at the revision that was named, or others kept changing it.
    #[error("{0} was changed by someone else; read it again and repeat the change")]
    Conflict(ResourceKey),
    /// A policy names a tier that does not exist.
    #[error("tier {tier:?} of {key} does not exist; create it first")]
    NoTier {
        /// The policy.
        key: ResourceKey,
        /// Its tier.
        tier: String,
    },
    /// `metadata.resourceVersion` is no revision.
    #[error("resourceVersion {0:?} is not a number that a read has returned")]
    ResourceVersion(String),
    /// The stored value is no such object.
    #[error("{key} in the datastore cannot be read: {error}")]
    Unreadable {
        /// Its key.
        key: ResourceKey,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The new object must not be stored.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads and writes resources.
#[derive(Clone, Debug)]
pub struct Client<S: Store> {
    store: S,
}

/// The revision that an object says it was read at.
///
/// # Errors
/// [`ClientError::ResourceVersion`] if it says something else.
pub fn expected_revision(object: &AnyResource) -> Result<Option<Revision>, ClientError> {
    let text = &object.metadata().resource_version;
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse().ok().filter(|revision| *revision > 0);
    parsed
        .map(Some)
        .ok_or_else(|| ClientError::ResourceVersion(text.clone()))
}

impl<S: Store> Client<S> {
    /// A client of a store.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self { store }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Reads one resource, linearised. A policy is found by the name that people see.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Unreadable`], or what befell the call.
    pub async fn get(&self, key: &ResourceKey) -> Result<Stored, ClientError> {
        let (key, kv) = self.find(key).await?;
        decode(key, &kv)
    }

    /// The key under which it is really stored, and what is there.
    async fn find(&self, key: &ResourceKey) -> Result<(ResourceKey, KeyValue), ClientError> {
        let names = policyname::stored_names(key.kind, policyname::DEFAULT_TIER, &key.name);
        let keys: Vec<_> = names
            .into_iter()
            .map(|name| ResourceKey { name, ..key.clone() })
            .collect();
        let ops = keys.iter().map(|key| Op::get(key.path())).collect();
        let reply = self.store.txn(Txn::default().then(ops)).await?;
        let found = reply.responses.iter().map(|response| response.kvs().first());
        let found = keys
            .into_iter()
            .zip(found)
            .find_map(|(key, kv)| Some((key, kv?.clone())));
        found.ok_or_else(|| ClientError::NotFound(key.clone()))
    }

    /// Reads one page of a kind, of one namespace or all, linearised: the first, or the one at `cursor`. A value that cannot be
    /// read does not stop the rest.
    ///
    /// # Errors
    /// What befell the call; [`StoreError::Compacted`] if the cursor is too old.
    pub async fn page(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        cursor: Option<Cursor>,
    ) -> Result<Page, StoreError> {
        let prefix = match namespace {
            Some(namespace) if kind.is_namespaced() => ResourceKey::namespace_prefix(kind, namespace),
            _ => ResourceKey::prefix(kind),
        };
        let mut request = RangeRequest::new(KeyRange::prefix(prefix));
        if let Some(Cursor { revision, after }) = cursor {
            request = request.at(revision).after(after);
        }
        let revision = request.revision;
        let reply = self.store.range(request).await?;
        let revision = revision.unwrap_or(reply.revision);
        let last = reply.kvs.last().filter(|_| reply.more);
        let next = last.map(|kv| Cursor {
            revision,
            after: kv.key.clone(),
        });
        let mut page = Page {
            next,
            revision,
            ..Page::default()
        };
        for kv in &reply.kvs {
            let path = String::from_utf8_lossy(&kv.key);
            match Key::parse(&path) {
                Key::Resource(key) => match decode(key, kv) {
                    Ok(stored) => page.items.push(stored),
                    Err(error) => page.unreadable.push((path.into_owned(), error.to_string())),
                },
                _ => page
                    .unreadable
                    .push((path.into_owned(), "this is no key of a resource".to_owned())),
            }
        }
        Ok(page)
    }

    /// Reads all of a kind, of one namespace or all, at one revision. Holds all of it: for kinds that are few.
    ///
    /// # Errors
    /// As [`Client::page`].
    pub async fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Page, StoreError> {
        let mut all = self.page(kind, namespace, None).await?;
        while let Some(cursor) = all.next.take() {
            let mut page = self.page(kind, namespace, Some(cursor)).await?;
            all.items.append(&mut page.items);
            all.unreadable.append(&mut page.unreadable);
            all.next = page.next;
        }
        Ok(all)
    }

    /// Creates a resource.
    ///
    /// # Errors
    /// [`ClientError::AlreadyExists`], [`ClientError::NoTier`], [`ClientError::Refused`], or what befell the call.
    pub async fn create(&self, new: &AnyResource) -> Result<Stored, ClientError> {
        let object = change::create(new, &birth())?;
        let key = object.key();
        // Calico's clients read the tier first; here the compare makes it exact.
        let tier = object
            .tier()
            .map(|tier| (tier.to_owned(), ResourceKey::cluster(Kind::Tier, tier).path()));
        let mut compares = vec![Compare::absent(key.path())];
        compares.extend(tier.iter().map(|(_, path)| Compare::present(path.clone())));
        match attempt::put(&self.store, &key, compares, object.encode().into()).await? {
            Ended::Written(revision) => Ok(Stored {
                key,
                object,
                revision,
            }),
            Ended::Refused(Some(_)) => Err(ClientError::AlreadyExists(key)),
            // The key is absent: it was the tier, or whoever had the key has deleted it since.
            Ended::Refused(None) => match tier {
                Some((tier, _)) => Err(ClientError::NoTier { key, tier }),
                None => Err(ClientError::Conflict(key)),
            },
        }
    }

    /// Creates a resource if there is none, never overwrites one, and says whether it did.
    ///
    /// # Errors
    /// As [`Client::create`], but for the existing one.
    pub async fn ensure(&self, new: &AnyResource) -> Result<bool, ClientError> {
        match self.create(new).await {
            Ok(_) => Ok(true),
            Err(ClientError::AlreadyExists(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Replaces a resource: at `expected` only, or whatever is there. What cannot be read is replaced as if it were new.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Conflict`], [`ClientError::Refused`], or what befell the call.
    pub async fn replace(
        &self,
        new: &AnyResource,
        expected: Option<Revision>,
    ) -> Result<Stored, ClientError> {
        for _ in 0..ATTEMPTS_MAX {
            let (key, old) = self.find(&new.key()).await?;
            if expected.is_some_and(|revision| revision != old.mod_revision) {
                return Err(ClientError::Conflict(key));
            }
            let object = match decode(key.clone(), &old) {
                Ok(stored) => change::replace(new, &under_its_shown_name(stored.object), &birth())?,
                Err(_) => change::create(new, &birth())?,
            };
            let compares = vec![Compare::mod_revision(key.path(), old.mod_revision)];
            match attempt::put(&self.store, &key, compares, object.encode().into()).await? {
                Ended::Written(revision) => {
                    return Ok(Stored {
                        key,
                        object,
                        revision,
                    });
                }
                Ended::Refused(_) => {}
            }
        }
        Err(ClientError::Conflict(new.key()))
    }

    /// Replaces a resource, or creates it if there is none. With `expected` there must be one.
    ///
    /// # Errors
    /// As [`Client::replace`] and [`Client::create`].
    pub async fn apply(&self, new: &AnyResource, expected: Option<Revision>) -> Result<Stored, ClientError> {
        for _ in 0..ATTEMPTS_MAX {
            match self.replace(new, expected).await {
                Err(ClientError::NotFound(_)) if expected.is_none() => {}
                other => return other,
            }
            match self.create(new).await {
                Err(ClientError::AlreadyExists(_)) => {}
                other => return other,
            }
        }
        Err(ClientError::Conflict(new.key()))
    }

    /// Deletes a resource, at `expected` only or whatever is there, and says what it was; `None` if that could not be read.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Conflict`], or what befell the call.
    pub async fn delete(
        &self,
        key: &ResourceKey,
        expected: Option<Revision>,
    ) -> Result<Option<Stored>, ClientError> {
        for _ in 0..ATTEMPTS_MAX {
            let (key, old) = self.find(key).await?;
            if expected.is_some_and(|revision| revision != old.mod_revision) {
                return Err(ClientError::Conflict(key));
            }
            match attempt::delete(&self.store, &key, old.mod_revision).await? {
                Ended::Written(_) => return Ok(decode(key, &old).ok()),
                Ended::Refused(_) => {}
            }
        }
        Err(ClientError::Conflict(key.clone()))
    }
}

/// A policy of an old store whose name carries its tier: from now on the annotation says the name.
fn under_its_shown_name(mut stored: AnyResource) -> AnyResource {
    let shown = stored.shown_name();
    stored.metadata_mut().name = shown;
    stored
}

fn decode(key: ResourceKey, kv: &KeyValue) -> Result<Stored, ClientError> {
    let object =
        AnyResource::decode(key.kind, &kv.value).and_then(|object| object.check_key(&key).map(|()| object));
    match object {
        Ok(object) => Ok(Stored {
            key,
            object,
            revision: kv.mod_revision,
        }),
        Err(error) => Err(ClientError::Unreadable { key, error }),
    }
}

/// The identity of an object that is made now.
#[must_use]
pub fn birth() -> Birth {
    Birth {
        uid: uuid::Uuid::new_v4().to_string(),
        at: Timestamp::from(SystemTime::now()),
    }
}

/// The first key that a branch has read.
fn first_read(responses: &[OpReply]) -> Option<KeyValue> {
    responses.iter().flat_map(OpReply::kvs).next().cloned()
}
