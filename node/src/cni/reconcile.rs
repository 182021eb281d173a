//! At start: endpoints of this node whose link is gone (the host was rebooted, the container died unheard) hold addresses
//! that nobody uses, and nothing in Calico collects them.

use std::sync::Arc;

use anyhow::{Context, Result};
use twill_datastore::Store;
use twill_ipam::{Release, ReleaseTarget, Riders};
use twill_model::resources::WorkloadEndpoint;
use twill_model::{Kind, ResourceKey};

use super::Pods;

/// Releases what endpoints without a link hold, and deletes them.
///
/// # Errors
/// The store is away; what is left is tried at the next start.
pub(crate) async fn reconcile<S: Store>(pods: &Pods<S>) -> Result<()> {
    let orphans: Vec<(ResourceKey, WorkloadEndpoint, u64)> = {
        let fabric = pods.fabric.read();
        let without_link = fabric
            .own_endpoints
            .iter()
            .filter(|(_, (e, _))| !crate::host::has_interface(&e.spec.interface_name));
        let orphan = without_link.map(|((namespace, name), (endpoint, revision))| {
            let key = ResourceKey::namespaced(Kind::WorkloadEndpoint, namespace, name);
            (
                key,
                WorkloadEndpoint::clone(endpoint),
                u64::try_from(*revision).unwrap_or(0),
            )
        });
        orphan.collect()
    };
    if orphans.is_empty() {
        return Ok(());
    }
    for (key, endpoint, revision) in orphans {
        let endpoint = Arc::new(endpoint);
        let leaving = [(key.clone(), endpoint.clone())];
        let withdrawn = pods.withdraw(&leaving).await;
        withdrawn.map_err(|e| anyhow::anyhow!("{}", e.msg))?;
        let handle = handle_of(&pods.store, &endpoint).await?;
        let compare = twill_datastore::Compare::mod_revision(key.path(), revision);
        let delete = twill_datastore::Op::delete(key.path());
        tracing::info!(endpoint = %key, interface = endpoint.spec.interface_name, "link is gone, endpoint removed");
        match handle {
            Some(handle) => {
                let riders = Riders::fixed(vec![compare], vec![delete]);
                let release = Release {
                    target: ReleaseTarget::Handle(handle),
                    riders,
                };
                pods.ipam
                    .release(release)
                    .await
                    .with_context(|| format!("releasing {key}"))?;
            }
            None => {
                let txn = twill_datastore::Txn::when(vec![compare]).then(vec![delete]);
                pods.store
                    .txn(txn)
                    .await
                    .with_context(|| format!("deleting {key}"))?;
            }
        }
    }
    Ok(())
}

/// The handle that holds the endpoint's addresses, if it is its container's: the network's name stands nowhere else.
async fn handle_of<S: Store>(store: &S, endpoint: &WorkloadEndpoint) -> Result<Option<String>> {
    let suffix = format!(".{}", endpoint.spec.container_id);
    let own = format!("{suffix}.{}", endpoint.spec.endpoint);
    for net in &endpoint.spec.ip_networks {
        let holder = twill_ipam::check::holder(store, net.addr()).await?;
        let handle = holder.and_then(|h| h.attribute).and_then(|a| a.handle_id);
        let of_container = |h: &String| suffix.len() > 1 && (h.ends_with(&suffix) || h.ends_with(&own));
        if let Some(handle) = handle.filter(of_container) {
            return Ok(Some(handle));
        }
    }
    Ok(None)
}
