//! DEL: policy and routes, link, connections, and then endpoint and addresses; what is gone already is fine.

use std::time::Duration;

use twill_datastore::{Compare, KeyValue, Op, Store, Txn};
use twill_ipam::{Error as IpamError, Release, ReleaseTarget, Riders};
use twill_model::resources::WorkloadEndpoint;
use twill_model::{Kind, ResourceKey};
use twill_proto::cni::{Attachment, Del, spool};

use super::super::endpoint::Workload;
use super::super::{CniError, code};
use super::{ATTEMPTS_MAX, Pods, attachment, handles, refusal};

/// How long a release may take before it goes to the spool.
const RELEASE_DEADLINE: Duration = Duration::from_secs(5);

/// What a handle held when it was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Addresses,
    Nothing,
}

impl<S: Store> Pods<S> {
    /// An ADD that failed after its commit: endpoint and addresses go together.
    pub(super) async fn take_back(&self, workload: &Workload) {
        self.detach(&workload.interface).await;
        let of_workload = |e: &WorkloadEndpoint| {
            e.spec.interface_name == workload.interface && e.spec.container_id == workload.container()
        };
        let is_it = |(key, e): (ResourceKey, &WorkloadEndpoint)| {
            workload.key == key && e.spec.container_id == workload.container()
        };
        let taken_back = match self.withdraw(&self.own(of_workload)).await {
            Ok(()) => self.release(&workload.handle, is_it).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = taken_back {
            tracing::warn!(
                handle = workload.handle,
                error = error.msg,
                "taking back a failed ADD; its DEL will"
            );
        }
    }

    /// DEL: policy and routes, link, connections; then endpoint and addresses in one transaction. What is gone already is fine. With
    /// the store away, or a kernel that refuses, it is noted and done later.
    ///
    /// # Errors
    /// The store is locked, or neither it nor the spool can be written.
    pub(in crate::cni) async fn del(&self, del: &Del) -> Result<(), CniError> {
        let attachment = attachment(del.attachment.as_ref())?;
        if !del.replayed
            && let Err(error) = self.serving()
        {
            return if self.fabric.read().is_locked() {
                Err(error)
            } else {
                self.note(attachment, &error)
            };
        }
        let ours = |e: &WorkloadEndpoint| {
            e.spec.container_id == attachment.container_id && e.spec.endpoint == attachment.ifname
        };
        let done = match self.withdraw(&self.own(ours)).await {
            Ok(()) => self.give_back(attachment, ours).await,
            Err(error) => Err(error),
        };
        let Err(error) = done else { return Ok(()) };
        if del.replayed || error.code != code::TRY_AGAIN || self.fabric.read().is_locked() {
            return Err(error);
        }
        self.note(attachment, &error)
    }

    /// The second half of a DEL, when nothing of the pod is in the kernel any more.
    async fn give_back(
        &self,
        attachment: &Attachment,
        ours: impl Fn(&WorkloadEndpoint) -> bool,
    ) -> Result<(), CniError> {
        self.memory.has_room();
        let release = self.release_attachment(attachment, ours);
        let released = tokio::time::timeout(RELEASE_DEADLINE, release).await;
        released.unwrap_or_else(|_| Err(CniError::try_again("the datastore does not answer")))
    }

    fn note(&self, attachment: &Attachment, why: &CniError) -> Result<(), CniError> {
        tracing::warn!(
            container = attachment.container_id,
            why = why.msg,
            "deletion noted for later"
        );
        spool::record(&self.spool, attachment).map_err(|e| {
            CniError::try_again(format_args!(
                "{}; noting the deletion for later failed too: {e}",
                why.msg
            ))
        })
    }

    /// Releases what one interface of a container holds, and deletes its endpoint.
    async fn release_attachment(
        &self,
        attachment: &Attachment,
        ours: impl Fn(&WorkloadEndpoint) -> bool,
    ) -> Result<(), CniError> {
        let [shared, own] = handles(attachment);
        let mut others = Vec::new();
        for address in self.addresses_of_others(attachment) {
            others.extend(self.holder_of(address).await?);
        }
        // What another interface of the container is on under the shared handle is not ours to free.
        let first = if others.contains(&shared) { &own } else { &shared };
        let released = self.release(first, |(_, e)| ours(e)).await?;
        if released == Held::Nothing && *first == shared {
            self.release(&own, |(_, e)| ours(e)).await?;
        }
        Ok(())
    }

    /// Releases a handle and, in the same transaction, deletes the endpoint that `is_ours` picks.
    async fn release(
        &self,
        handle: &str,
        is_ours: impl Fn((ResourceKey, &WorkloadEndpoint)) -> bool,
    ) -> Result<Held, CniError> {
        let mut found: Option<(ResourceKey, u64)> = self.pick(&is_ours);
        for _ in 0..ATTEMPTS_MAX {
            let riders = match &found {
                Some((key, revision)) => {
                    let compare = Compare::mod_revision(key.path(), *revision);
                    Riders::fixed(vec![compare], vec![Op::delete(key.path())])
                }
                None => Riders::default(),
            };
            let release = Release {
                target: ReleaseTarget::Handle(handle.to_owned()),
                riders,
            };
            match (self.ipam.release(release).await, found.take()) {
                // Nothing was held, so nothing was written: the endpoint goes alone.
                (Ok(released), Some((key, revision))) if released.addresses.is_empty() => {
                    let compare = Compare::mod_revision(key.path(), revision);
                    let txn = Txn::when(vec![compare])
                        .then(vec![Op::delete(key.path())])
                        .otherwise(vec![Op::get(key.path())]);
                    let reply = self.store.txn(txn).await.map_err(CniError::try_again)?;
                    let now = reply.responses.first().and_then(|r| r.kvs().first().cloned());
                    found = if reply.succeeded {
                        None
                    } else {
                        still_ours(&key, now, &is_ours)
                    };
                    if found.is_none() {
                        return Ok(Held::Nothing);
                    }
                }
                (Ok(released), _) if released.addresses.is_empty() => return Ok(Held::Nothing),
                (Ok(_), _) => return Ok(Held::Addresses),
                (Err(IpamError::RiderConflict { found: now, .. }), Some((key, _))) => {
                    found = still_ours(&key, now.map(|kv| *kv), &is_ours)
                }
                (Err(error), _) => return Err(refusal(error)),
            }
        }
        Err(CniError::try_again(format_args!(
            "others kept changing the endpoint of {handle}"
        )))
    }

    fn pick(
        &self,
        is_ours: &impl Fn((ResourceKey, &WorkloadEndpoint)) -> bool,
    ) -> Option<(ResourceKey, u64)> {
        let fabric = self.fabric.read();
        fabric
            .own_endpoints
            .iter()
            .find_map(|((namespace, name), (endpoint, revision))| {
                let key = ResourceKey::namespaced(Kind::WorkloadEndpoint, namespace, name);
                is_ours((key.clone(), endpoint)).then_some((key, u64::try_from(*revision).unwrap_or(0)))
            })
    }
}

fn still_ours(
    key: &ResourceKey,
    now: Option<KeyValue>,
    is_ours: &impl Fn((ResourceKey, &WorkloadEndpoint)) -> bool,
) -> Option<(ResourceKey, u64)> {
    let kv = now?;
    let endpoint = WorkloadEndpoint::decode(&kv.value).ok()?;
    is_ours((key.clone(), &endpoint)).then(|| (key.clone(), kv.mod_revision))
}
