//! Addresses, handle and endpoint, in one transaction.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use twill_datastore::client::{self, ClientError};
use twill_datastore::{Compare, KeyValue, Op, Store, Txn};
use twill_ipam::{Assign, Assigned, Error as IpamError, Release, ReleaseTarget, Riders};
use twill_model::ResourceKey;
use twill_model::resources::WorkloadEndpoint;
use twill_model::resources::ippool::AllowedUse;
use twill_proto::cni::{Add, Attachment};

use super::wants::{mac, wants};
use crate::cni::annotations::Annotations;
use crate::cni::endpoint::{Workload, with_addresses};
use crate::cni::pods::{ATTEMPTS_MAX, Pods, attachment, handles, refusal};
use crate::cni::{CniError, code};

/// How long the datastore may take to commit an ADD: it takes milliseconds, a burst a second. A runtime asks again.
const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// An endpoint in the store.
#[derive(Clone, Debug)]
pub(in crate::cni::pods) struct Existing {
    pub(in crate::cni::pods) endpoint: Arc<WorkloadEndpoint>,
    revision: u64,
}

impl<S: Store> Pods<S> {
    /// Addresses, handle and endpoint in one transaction.
    pub(super) async fn commit(
        &self,
        add: &Add,
        workload: &mut Workload,
        wishes: &Annotations,
        fresh: &str,
    ) -> Result<(Assigned, WorkloadEndpoint), CniError> {
        let attachment = attachment(add.attachment.as_ref())?;
        let mut existing = self.known_endpoint(&workload.key);
        let mut gave_way = false;
        for _ in 0..ATTEMPTS_MAX {
            let mac = mac(
                add,
                wishes,
                existing.as_ref().map(|e| e.endpoint.as_ref()),
                workload,
                fresh,
            )?;
            let endpoint = workload.endpoint(add, existing.as_ref().map(|e| e.endpoint.as_ref()), &mac);
            let mut endpoint = identified(endpoint);
            endpoint
                .spec
                .allow_spoofed_source_prefixes
                .clone_from(&wishes.source_prefixes);
            if !wishes.unmanaged.is_empty() {
                match self
                    .put_unmanaged(workload, &endpoint, existing.as_ref(), wishes)
                    .await?
                {
                    Some(committed) => return Ok(committed),
                    None => existing = self.stored_endpoint(&workload.key).await?,
                }
                continue;
            }
            let assign = Assign {
                handle: workload.handle.clone(),
                attributes: workload.attributes.clone(),
                wants: wants(add, wishes)?,
                purpose: AllowedUse::Workload,
                namespace_labels: BTreeMap::new(),
                riders: put_endpoint(&workload.key, &endpoint, existing.as_ref()),
            };
            // Dropped at the deadline, an assignment takes itself back.
            let assigned = tokio::time::timeout(STORE_DEADLINE, self.ipam.assign(assign)).await;
            match assigned.unwrap_or_else(|_| Err(unanswered())) {
                Ok(assigned) if assigned.fresh => {
                    let endpoint = with_addresses(&endpoint, &assigned.addresses);
                    return Ok((assigned, endpoint));
                }
                Ok(assigned) if self.is_of_another(attachment, &assigned.addresses) => {
                    // Another interface of the container joined the same network before.
                    let [_, own] = handles(attachment);
                    workload.handle = own;
                }
                Ok(assigned) => {
                    let endpoint = with_addresses(&endpoint, &assigned.addresses);
                    return self.again(assigned, endpoint, workload).await;
                }
                Err(IpamError::RiderConflict { found, .. }) => {
                    existing = found_endpoint(&workload.key, found.map(|kv| *kv))?
                }
                Err(IpamError::AddressInUse { holder, .. })
                    if !gave_way && former(attachment, existing.as_ref()).contains(&holder) =>
                {
                    gave_way = true;
                    self.free(holder).await?;
                }
                Err(error) => return Err(refusal(error)),
            }
        }
        Err(CniError::try_again(format_args!(
            "others kept changing {}",
            workload.key
        )))
    }

    /// Whether addresses are those of another interface of the same container.
    fn is_of_another(&self, attachment: &Attachment, addresses: &[IpAddr]) -> bool {
        let others = self.addresses_of_others(attachment);
        addresses.iter().any(|a| others.contains(a))
    }

    /// A pod that asks for its address again, in a new sandbox, before the old one was deleted: the old one gives way.
    async fn free(&self, handle: String) -> Result<(), CniError> {
        tracing::info!(
            handle,
            "address asked for again by the same pod, taken from its former container"
        );
        let release = Release {
            target: ReleaseTarget::Handle(handle),
            riders: Riders::default(),
        };
        self.ipam.release(release).await.map(drop).map_err(refusal)
    }

    /// `ipAddrsNoIpam`: the endpoint alone. `None` when somebody changed it meanwhile.
    async fn put_unmanaged(
        &self,
        workload: &Workload,
        endpoint: &WorkloadEndpoint,
        existing: Option<&Existing>,
        wishes: &Annotations,
    ) -> Result<Option<(Assigned, WorkloadEndpoint)>, CniError> {
        let endpoint = with_addresses(endpoint, &wishes.unmanaged);
        let riders = put_endpoint(&workload.key, &endpoint, existing);
        let put = Op::put(workload.key.path(), endpoint.encode());
        let txn = Txn::when(riders.compares).then(vec![put]);
        let reply = self.store.txn(txn).await.map_err(CniError::try_again)?;
        let assigned = Assigned {
            addresses: wishes.unmanaged.clone(),
            revision: reply.revision,
            fresh: true,
        };
        Ok(reply.succeeded.then_some((assigned, endpoint)))
    }

    async fn stored_endpoint(&self, key: &ResourceKey) -> Result<Option<Existing>, CniError> {
        match self.client().get(key).await {
            Ok(stored) => Ok(stored.object.downcast().map(|endpoint| Existing {
                endpoint: endpoint.clone(),
                revision: stored.revision,
            })),
            Err(ClientError::NotFound(_)) => Ok(None),
            Err(error) => Err(CniError::try_again(error)),
        }
    }

    /// The handle had its addresses before: an ADD whose answer was lost. The endpoint may be there, or may not.
    async fn again(
        &self,
        mut assigned: Assigned,
        endpoint: WorkloadEndpoint,
        workload: &Workload,
    ) -> Result<(Assigned, WorkloadEndpoint), CniError> {
        for _ in 0..ATTEMPTS_MAX {
            let (compare, current) = match self.client().get(&workload.key).await {
                Ok(stored) => (
                    Compare::mod_revision(workload.key.path(), stored.revision),
                    stored.object.downcast().cloned(),
                ),
                Err(ClientError::NotFound(_)) => (Compare::absent(workload.key.path()), None),
                Err(error) => return Err(CniError::try_again(error)),
            };
            if let Some(current) =
                current.filter(|c: &Arc<WorkloadEndpoint>| c.spec.container_id == endpoint.spec.container_id)
            {
                return Ok((assigned, WorkloadEndpoint::clone(&current)));
            }
            let put = Op::put(workload.key.path(), endpoint.encode());
            let reply = self
                .store
                .txn(Txn::when(vec![compare]).then(vec![put]))
                .await
                .map_err(CniError::try_again)?;
            if reply.succeeded {
                assigned.revision = reply.revision;
                return Ok((assigned, endpoint));
            }
        }
        Err(CniError::try_again(format_args!(
            "others kept changing {}",
            workload.key
        )))
    }

    pub(in crate::cni::pods) fn known_endpoint(&self, key: &ResourceKey) -> Option<Existing> {
        let fabric = self.fabric.read();
        let namespace = key.namespace.clone().unwrap_or_default();
        let (endpoint, revision) = fabric.own_endpoints.get(&(namespace, key.name.clone()))?;
        Some(Existing {
            endpoint: endpoint.clone(),
            revision: u64::try_from(*revision).unwrap_or(0),
        })
    }
}

fn unanswered() -> IpamError {
    IpamError::Datastore {
        reason: format!("etcd did not answer within {} s", STORE_DEADLINE.as_secs()),
    }
}

fn found_endpoint(key: &ResourceKey, found: Option<KeyValue>) -> Result<Option<Existing>, CniError> {
    let Some(kv) = found else { return Ok(None) };
    match WorkloadEndpoint::decode(&kv.value) {
        Ok(endpoint) => Ok(Some(Existing {
            endpoint: Arc::new(endpoint),
            revision: kv.mod_revision,
        })),
        Err(e) => Err(CniError::new(
            code::IO,
            format_args!("{key} in the datastore cannot be read: {e}"),
        )),
    }
}

fn put_endpoint(key: &ResourceKey, endpoint: &WorkloadEndpoint, existing: Option<&Existing>) -> Riders {
    let path = key.path();
    let compare = match existing {
        Some(existing) => Compare::mod_revision(path.clone(), existing.revision),
        None => Compare::absent(path.clone()),
    };
    let endpoint = endpoint.clone();
    Riders::new(vec![compare], 1, move |addresses| {
        vec![Op::put(
            path.clone(),
            with_addresses(&endpoint, addresses).encode(),
        )]
    })
}

/// uid and creation time for an endpoint that has none.
fn identified(mut endpoint: WorkloadEndpoint) -> WorkloadEndpoint {
    let birth = client::birth();
    if endpoint.metadata.uid.is_empty() {
        endpoint.metadata.uid = birth.uid;
    }
    endpoint.metadata.creation_timestamp.get_or_insert(birth.at);
    endpoint
}

/// Handles of the container that an endpoint was made for before.
fn former(attachment: &Attachment, existing: Option<&Existing>) -> Vec<String> {
    let before = existing.map(|e| e.endpoint.spec.container_id.clone());
    let before = before.filter(|id| !id.is_empty() && *id != attachment.container_id);
    let as_then = |container_id| Attachment {
        container_id,
        ..attachment.clone()
    };
    before.map_or_else(Vec::new, |id| handles(&as_then(id)).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_former_container_of_the_same_endpoint_gives_way() {
        let attachment = Attachment {
            container_id: "c2".into(),
            ifname: "eth0".into(),
            network: "n".into(),
            ..Attachment::default()
        };
        let existing = |container: &str| {
            let text = serde_json::json!({"kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
                "metadata": {"name": "e", "namespace": "default"}, "spec": {"containerID": container}});
            Existing {
                endpoint: Arc::new(WorkloadEndpoint::decode(text.to_string().as_bytes()).unwrap()),
                revision: 1,
            }
        };
        assert_eq!(former(&attachment, Some(&existing("c1"))), ["n.c1", "n.c1.eth0"]);
        assert!(former(&attachment, Some(&existing("c2"))).is_empty());
        assert!(former(&attachment, None).is_empty());
    }
}
