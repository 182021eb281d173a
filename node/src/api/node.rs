//! The service of the node: who it is and how it fares.

use tonic::{Request, Response, Status};
use twill_datastore::Store;
use twill_proto::api::node_server::Node as Service;
use twill_proto::api::{Component, StatusReply, StatusRequest};

use super::Api;
use crate::health::Health;

pub(super) struct Node {
    health: Health,
    node: String,
    started_unix_secs: i64,
}

impl Node {
    pub(super) fn new<S: Store>(api: Api<S>) -> Self {
        Self {
            health: api.health,
            node: api.node,
            started_unix_secs: api.started_unix_secs,
        }
    }
}

#[tonic::async_trait]
impl Service for Node {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let states = self.health.states();
        let component = |(component, state): (crate::health::Component, crate::health::State)| Component {
            name: component.as_str().to_owned(),
            ready: state.ready,
            detail: state.detail,
        };
        Ok(Response::new(StatusReply {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_secs: self.started_unix_secs,
            ready: self.health.is_ready(),
            components: states.into_iter().map(component).collect(),
        }))
    }
}
