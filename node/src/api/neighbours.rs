//! What a write must be checked against beside the object itself: pools that would overlap, a tier that is not empty.
//!
//! Calico's client does the same, by reading first: two writes at one moment can still slip past each other.

use ipnet::IpNet;
use tonic::Status;
use twill_datastore::Store;
use twill_datastore::client::Client;
use twill_model::resources::IpPoolSpec;
use twill_model::{AnyResource, Kind, Resource, ResourceKey};

/// Kinds whose objects live in a tier.
const TIERED: [Kind; 5] = [
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::StagedKubernetesNetworkPolicy,
];

/// Refuses a pool whose CIDR overlaps another pool's.
///
/// # Errors
/// Which pool is in the way, or that the store cannot be read.
pub(super) async fn no_overlap<S: Store>(client: &Client<S>, resource: &AnyResource) -> Result<(), Status> {
    let AnyResource::IpPool(pool) = resource else {
        return Ok(());
    };
    let pools = client.list(Kind::IpPool, None).await;
    let pools = pools.map_err(|e| super::resources::status(e.into()))?;
    let others = pools.items.iter().filter_map(|stored| match &stored.object {
        AnyResource::IpPool(other) => Some(other.as_ref()),
        _ => None,
    });
    overlap(pool, others).map_or(Ok(()), |reason| Err(Status::invalid_argument(reason)))
}

/// In calicoctl's words.
fn overlap<'a>(
    pool: &Resource<IpPoolSpec>,
    others: impl Iterator<Item = &'a Resource<IpPoolSpec>>,
) -> Option<String> {
    let meets = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let cidr = pool.spec.cidr.masked();
    let mut others = others.filter(|other| other.metadata.name != pool.metadata.name);
    let other = others.find(|other| meets(&cidr, &other.spec.cidr.masked()))?;
    Some(format!(
        "spec.cidr: IPPool({}) CIDR {cidr} overlaps with IPPool({}) CIDR {}",
        pool.metadata.name,
        other.metadata.name,
        other.spec.cidr.masked()
    ))
}

/// Refuses to delete a tier that still holds policies.
///
/// # Errors
/// One of the policies, or that the store cannot be read.
pub(super) async fn tier_is_empty<S: Store>(client: &Client<S>, key: &ResourceKey) -> Result<(), Status> {
    if key.kind != Kind::Tier {
        return Ok(());
    }
    for kind in TIERED {
        let policies = client.list(kind, None).await;
        let policies = policies.map_err(|e| super::resources::status(e.into()))?;
        let inside = policies
            .items
            .iter()
            .find(|stored| stored.object.tier() == Some(key.name.as_str()));
        if let Some(stored) = inside {
            // In calicoctl's words, and which policy it is.
            return Err(Status::failed_precondition(format!(
                "operation delete is not supported on {}: Cannot delete a non-empty tier: it holds {}",
                key.name, stored.key
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_model::ObjectMeta;

    fn pool(name: &str, cidr: &str) -> Resource<IpPoolSpec> {
        let json = format!(r#"{{"cidr":"{cidr}"}}"#);
        Resource::new(ObjectMeta::named(name), serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn a_pool_inside_around_or_equal_to_another_is_refused_by_name() {
        let held = [pool("a", "10.244.0.0/16"), pool("b", "fd00::/64")];
        let check = |name, cidr| overlap(&pool(name, cidr), held.iter());
        for cidr in ["10.244.128.0/17", "10.0.0.0/8", "10.244.0.0/16"] {
            assert!(
                check("c", cidr)
                    .unwrap()
                    .contains("overlaps with IPPool(a) CIDR 10.244.0.0/16")
            );
        }
        assert!(check("c", "fd00::/80").unwrap().contains("IPPool(b)"));
        assert_eq!(check("c", "10.245.0.0/16"), None);
        assert_eq!(check("a", "10.244.0.0/16"), None, "a pool is no rival of itself");
    }
}
