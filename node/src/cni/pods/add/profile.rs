//! The profile of a network whose policy is not Kubernetes'.

use twill_datastore::Store;
use twill_model::{AnyResource, Kind, ResourceKey};

use crate::cni::pods::Pods;
use crate::cni::{CniError, code};

impl<S: Store> Pods<S> {
    /// A network without `policy.type: k8s` is one profile, made if absent: all may leave; in come all, or without
    /// Kubernetes those of the same network.
    pub(super) async fn ensure_network_profile(&self, network: &str, k8s: bool) -> Result<(), CniError> {
        let key = ResourceKey::cluster(Kind::Profile, network);
        if self.fabric.read().profiles.contains(network) {
            return Ok(());
        }
        let source = if k8s {
            serde_json::json!({})
        } else {
            serde_json::json!({"selector": format!("has({network})")})
        };
        let object = serde_json::json!({
            "kind": "Profile", "apiVersion": twill_model::kind::API_VERSION, "metadata": {"name": network},
            "spec": {
                "ingress": [{"action": "Allow", "source": source, "destination": {}}],
                "egress": [{"action": "Allow", "source": {}, "destination": {}}],
                "labelsToApply": {network: ""}
            }
        });
        let profile = AnyResource::decode(Kind::Profile, object.to_string().as_bytes()).map_err(|e| {
            CniError::new(
                code::INVALID_CONFIG,
                format_args!("profile of network {network}: {e}"),
            )
        })?;
        self.client()
            .ensure(&profile)
            .await
            .map_err(|e| CniError::try_again(format_args!("creating {key}: {e}")))?;
        Ok(())
    }
}
