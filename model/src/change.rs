//! What creating, replacing and applying do to an object before it is stored.
//!
//! Pure: the caller brings the clock, the random UUID and the stored object, and commits what comes back under a
//! compare of the revision that it read.

use crate::initial;
use crate::meta::{ObjectMeta, Timestamp};
use crate::resource::AnyResource;
use crate::validate::{Invalid, Validate};

/// What a new object gets: both stay for ever, and Calico's clients refuse to update an object without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// A random UUID in lower case with dashes.
    pub uid: String,
    /// Now.
    pub at: Timestamp,
}

/// A change that must not be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A field cannot change after creation.
    #[error("{0}")]
    Immutable(Invalid),
    /// The object is none that may be stored.
    #[error("{0} is provided by Calico and cannot be created, changed or deleted")]
    Provided(String),
}

/// The object to store for a new one: defaults filled in, checked, with a uid and a creation time, and for policies
/// with the annotation that keeps their name. Of the metadata that came with it name, namespace, labels and
/// annotations stay.
///
/// # Errors
/// If a field is wrong, or the object is one that is never stored.
pub fn create(new: &AnyResource, birth: &Birth) -> Result<AnyResource, ChangeError> {
    let given = new.metadata().clone();
    let metadata = ObjectMeta {
        name: given.name,
        generate_name: given.generate_name,
        namespace: given.namespace,
        labels: given.labels,
        annotations: given.annotations,
        uid: birth.uid.clone(),
        creation_timestamp: Some(birth.at),
        ..ObjectMeta::default()
    };
    finish(new, metadata)
}

/// The object to store in place of `stored`: spec, labels and annotations of the new one, all other metadata of the
/// stored one, and its status where the new one brings none. An object that was stored without uid or creation time
/// gets them from `birth`.
///
/// # Errors
/// If a field is wrong, or one changes that cannot.
pub fn replace(new: &AnyResource, stored: &AnyResource, birth: &Birth) -> Result<AnyResource, ChangeError> {
    let given = new.metadata();
    let mut metadata = stored.metadata().clone();
    metadata.labels = given.labels.clone();
    metadata.annotations = given.annotations.clone();
    if metadata.uid.is_empty() {
        metadata.uid = birth.uid.clone();
    }
    metadata.creation_timestamp.get_or_insert(birth.at);
    let mut next = finish(new, metadata)?;
    next.keep_status(stored);
    check_immutable(&next, stored)?;
    Ok(next)
}

/// [`replace`] if there is something to replace, else [`create`].
///
/// # Errors
/// As these.
pub fn apply(
    new: &AnyResource,
    stored: Option<&AnyResource>,
    birth: &Birth,
) -> Result<AnyResource, ChangeError> {
    match stored {
        Some(stored) => replace(new, stored, birth),
        None => create(new, birth),
    }
}

fn finish(new: &AnyResource, metadata: ObjectMeta) -> Result<AnyResource, ChangeError> {
    if initial::is_synthetic(new) {
        return Err(ChangeError::Provided(new.key().to_string()));
    }
    let mut next = new.clone();
    *next.metadata_mut() = metadata;
    next.metadata_mut().self_link.clear();
    next.metadata_mut().resource_version.clear();
    next.apply_defaults();
    next.validate()?;
    next.annotate_name();
    Ok(next)
}

impl AnyResource {
    /// Takes over the status of `stored` where this object has none.
    fn keep_status(&mut self, stored: &Self) {
        match (self, stored) {
            (Self::IpPool(next), Self::IpPool(stored)) if next.status.is_none() => {
                std::sync::Arc::make_mut(next).status.clone_from(&stored.status);
            }
            (Self::Node(next), Self::Node(stored)) if next.status == Default::default() => {
                std::sync::Arc::make_mut(next).status.clone_from(&stored.status);
            }
            (Self::Tier(next), Self::Tier(stored)) if next.status == Default::default() => {
                std::sync::Arc::make_mut(next).status.clone_from(&stored.status);
            }
            (Self::CalicoNodeStatus(next), Self::CalicoNodeStatus(stored))
                if next.status == Default::default() =>
            {
                std::sync::Arc::make_mut(next).status.clone_from(&stored.status);
            }
            (Self::KubeControllersConfiguration(next), Self::KubeControllersConfiguration(stored))
                if next.status == Default::default() =>
            {
                std::sync::Arc::make_mut(next).status.clone_from(&stored.status);
            }
            (Self::Opaque(next), Self::Opaque(stored)) if next.body.get("status").is_none() => {
                if let Some(status) = stored.body.get("status") {
                    std::sync::Arc::make_mut(next)
                        .body
                        .insert("status", status.clone());
                }
            }
            _ => {}
        }
    }
}

fn check_immutable(next: &AnyResource, stored: &AnyResource) -> Result<(), ChangeError> {
    let (AnyResource::IpPool(next), AnyResource::IpPool(stored)) = (next, stored) else {
        return Ok(());
    };
    let mut old = stored.spec.clone();
    old.apply_defaults();
    let mut invalid = Invalid::default();
    let hint = "cannot change; make a new pool and move the workloads";
    if next.spec.cidr.masked() != old.cidr.masked() {
        invalid.push("spec.cidr", format!("{} {hint}", old.cidr));
    }
    if next.spec.block_size != old.block_size {
        invalid.push("spec.blockSize", format!("{} {hint}", old.block_size));
    }
    let load_balancer = crate::resources::ippool::AllowedUse::LoadBalancer;
    if old.allowed_uses.contains(&load_balancer) && !next.spec.allowed_uses.contains(&load_balancer) {
        invalid.push("spec.allowedUses", "a LoadBalancer pool stays one".to_owned());
    }
    if invalid.is_empty() {
        Ok(())
    } else {
        Err(ChangeError::Immutable(invalid))
    }
}

#[cfg(test)]
mod tests;
