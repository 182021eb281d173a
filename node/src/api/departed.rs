//! What goes with a Node, as with Calico's clients: the addresses, blocks and endpoints that it holds, and the objects that
//! concern it alone.

use std::sync::Arc;

use tonic::Status;
use twill_datastore::Store;
use twill_datastore::client::{Client, ClientError};
use twill_ipam::admin::remove_node;
use twill_ipam::collect::Mode;
use twill_ipam::system_clock;
use twill_model::{AnyResource, Kind, ResourceKey, initial};

use super::resources::status;

/// Takes away all that `node` has, but for its own object. What is gone stays gone when something fails; asking again goes on.
///
/// # Errors
/// The store fails.
pub(super) async fn clear<S: Store>(client: &Client<S>, node: &str) -> Result<(), Status> {
    let clock = Arc::new(system_clock());
    let freed = remove_node(client.store(), node, Mode::Collect, &clock).await;
    let freed = freed.map_err(super::ipam::unavailable)?;
    tracing::info!(
        node,
        addresses = freed.freed.len(),
        blocks = freed.blocks.len(),
        "what a deleted node held was freed"
    );
    for kind in [Kind::WorkloadEndpoint, Kind::BgpPeer, Kind::HostEndpoint] {
        let listed = client.list(kind, None).await.map_err(|e| status(e.into()))?;
        let its = listed
            .items
            .iter()
            .filter(|stored| node_of(&stored.object) == Some(node));
        for stored in its {
            delete(client, &stored.key).await?;
        }
    }
    for kind in [Kind::FelixConfiguration, Kind::BgpConfiguration] {
        delete(
            client,
            &ResourceKey::cluster(kind, initial::node_config_name(node)),
        )
        .await?;
    }
    Ok(())
}

fn node_of(object: &AnyResource) -> Option<&str> {
    match object {
        AnyResource::WorkloadEndpoint(endpoint) => Some(&endpoint.spec.node),
        AnyResource::BgpPeer(peer) => Some(&peer.spec.node),
        AnyResource::HostEndpoint(endpoint) => Some(&endpoint.spec.node),
        _ => None,
    }
}

async fn delete<S: Store>(client: &Client<S>, key: &ResourceKey) -> Result<(), Status> {
    match client.delete(key, None).await {
        Ok(_) | Err(ClientError::NotFound(_)) => Ok(()),
        Err(error) => Err(status(error)),
    }
}
