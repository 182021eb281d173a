//! The lock of the whole datastore: while ClusterInformation's `datastoreReady` is false, nobody attaches or detaches pods.

use tonic::{Request, Response, Status};
use twill_datastore::Store;
use twill_datastore::client::{Client, ClientError};
use twill_model::key::ResourceKey;
use twill_model::{AnyResource, Kind, initial};
use twill_proto::api::datastore_server::Datastore as Service;
use twill_proto::api::{LockReply, LockRequest, UnlockRequest};

use super::Api;
use super::resources::status;

/// How often the flag is written against others who write the object.
const ATTEMPTS_MAX: u32 = 20;

pub(super) struct Datastore<S: Store> {
    client: Client<S>,
}

impl<S: Store> Datastore<S> {
    pub(super) fn new(api: Api<S>) -> Self {
        Self {
            client: Client::new(api.store),
        }
    }
}

#[tonic::async_trait]
impl<S: Store> Service for Datastore<S> {
    async fn lock(&self, _: Request<LockRequest>) -> Result<Response<LockReply>, Status> {
        set_ready(&self.client, false).await.map(Response::new)
    }

    async fn unlock(&self, _: Request<UnlockRequest>) -> Result<Response<LockReply>, Status> {
        set_ready(&self.client, true).await.map(Response::new)
    }
}

/// Writes the flag, and nothing if it is so already.
pub(super) async fn set_ready<S: Store>(client: &Client<S>, ready: bool) -> Result<LockReply, Status> {
    let key = ResourceKey::cluster(Kind::ClusterInformation, initial::DEFAULT);
    for _ in 0..ATTEMPTS_MAX {
        let stored = client.get(&key).await.map_err(|e| match e {
            ClientError::NotFound(_) => Status::not_found(
                "error retrieving ClusterInformation: it does not exist; a twilld makes it when it starts",
            ),
            other => status(other),
        })?;
        let mut object = stored.object.clone();
        let AnyResource::ClusterInformation(cluster) = &mut object else {
            return Err(Status::data_loss("ClusterInformation is something else"));
        };
        if cluster.spec.datastore_ready == Some(ready) {
            return Ok(LockReply { unchanged: true });
        }
        std::sync::Arc::make_mut(cluster).spec.datastore_ready = Some(ready);
        match client.replace(&object, Some(stored.revision)).await {
            Ok(_) => {
                let word = if ready { "unlocked" } else { "locked" };
                tracing::warn!("datastore {word} for the command line");
                return Ok(LockReply { unchanged: false });
            }
            Err(ClientError::Conflict(_)) => {}
            Err(error) => return Err(status(error)),
        }
    }
    Err(Status::aborted(
        "others keep changing ClusterInformation; try again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use twill_datastore::mem::MemStore;

    #[tokio::test]
    async fn the_flag_is_written_once_and_all_else_kept() {
        let client = Client::new(MemStore::new());
        assert!(set_ready(&client, false).await.is_err());
        client.create(&initial::cluster_information(7)).await.unwrap();
        assert!(!set_ready(&client, false).await.unwrap().unchanged);
        assert!(set_ready(&client, false).await.unwrap().unchanged);
        let key = ResourceKey::cluster(Kind::ClusterInformation, "default");
        let AnyResource::ClusterInformation(cluster) = client.get(&key).await.unwrap().object else {
            panic!("a ClusterInformation")
        };
        assert_eq!(cluster.spec.datastore_ready, Some(false));
        assert!(cluster.spec.cluster_guid.ends_with('7') && cluster.spec.calico_version.is_empty());
        assert!(!set_ready(&client, true).await.unwrap().unchanged);
    }
}
