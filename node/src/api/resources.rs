//! The service of resources: one request, one compare-and-swap in the store.

use std::pin::Pin;

use futures_util::stream::{self, Stream};
use tonic::{Request, Response, Status};
use twill_datastore::Store;
use twill_datastore::client::{Client, ClientError, Cursor, Stored};
use twill_model::key::ResourceKey;
use twill_model::{AnyResource, Kind};
use twill_proto::api::resources_server::Resources as Service;
use twill_proto::api::{
    DeleteReply, DeleteRequest, GetRequest, ListReply, ListRequest, Resource, WriteReply, WriteRequest,
};

use super::{departed, neighbours};

pub(super) struct Resources<S: Store> {
    client: Client<S>,
}

impl<S: Store> Resources<S> {
    pub(super) fn new(store: S) -> Self {
        Self {
            client: Client::new(store),
        }
    }

    async fn reply(&self, stored: &Stored) -> WriteReply {
        let warning = match stored.key.kind {
            Kind::IpamConfiguration => super::ipam::config::warning(self.client.store()).await,
            _ => None,
        };
        WriteReply {
            resource: Some(message(stored)),
            warnings: warning.into_iter().collect(),
        }
    }
}

#[tonic::async_trait]
impl<S: Store> Service for Resources<S> {
    type ListStream = Pin<Box<dyn Stream<Item = Result<ListReply, Status>> + Send>>;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let ListRequest { kind, namespace } = request.into_inner();
        let listing = Listing {
            kind: parse_kind(&kind)?,
            namespace,
            next: Next::First,
        };
        let client = self.client.clone();
        // One page is read when the one before it has been taken.
        let pages = stream::try_unfold(listing, move |listing| {
            let client = client.clone();
            async move { listing.page(&client).await }
        });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Resource>, Status> {
        let GetRequest {
            kind,
            namespace,
            name,
        } = request.into_inner();
        let key = key(parse_kind(&kind)?, &namespace, &name)?;
        if let Some(synthetic) = synthetic(&key) {
            return Ok(Response::new(synthetic));
        }
        self.client
            .get(&key)
            .await
            .map(|stored| Response::new(message(&stored)))
            .map_err(status)
    }

    async fn create(&self, request: Request<WriteRequest>) -> Result<Response<WriteReply>, Status> {
        let write = Write::parse(request, "create or apply")?;
        neighbours::no_overlap(&self.client, &write.resource).await?;
        let stored = self.client.create(&write.resource).await.map_err(status)?;
        audit("created", &write.resource.key());
        Ok(Response::new(self.reply(&stored).await))
    }

    async fn apply(&self, request: Request<WriteRequest>) -> Result<Response<WriteReply>, Status> {
        let write = Write::parse(request, "apply or replace")?;
        neighbours::no_overlap(&self.client, &write.resource).await?;
        let stored = self
            .client
            .apply(&write.resource, write.expected)
            .await
            .map_err(status)?;
        audit("applied", &write.resource.key());
        Ok(Response::new(self.reply(&stored).await))
    }

    async fn replace(&self, request: Request<WriteRequest>) -> Result<Response<WriteReply>, Status> {
        let write = Write::parse(request, "apply or replace")?;
        let stored = self
            .client
            .replace(&write.resource, write.expected)
            .await
            .map_err(status)?;
        audit("replaced", &write.resource.key());
        Ok(Response::new(self.reply(&stored).await))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteReply>, Status> {
        let DeleteRequest {
            kind,
            namespace,
            name,
            resource_version,
        } = request.into_inner();
        let key = key(parse_kind(&kind)?, &namespace, &name)?;
        refuse_protected(&key, "delete")?;
        neighbours::tier_is_empty(&self.client, &key).await?;
        let expected = revision(&resource_version)?;
        if key.kind == Kind::Node {
            departed::clear(&self.client, &key.name).await?;
        }
        let deleted = self.client.delete(&key, expected).await.map_err(status)?;
        audit("deleted", &key);
        Ok(Response::new(DeleteReply {
            deleted: deleted.as_ref().map(message),
        }))
    }
}

/// Where a listing stands.
struct Listing {
    kind: Kind,
    namespace: String,
    next: Next,
}

enum Next {
    First,
    At(Cursor),
    Nothing,
}

impl Listing {
    async fn page<S: Store>(self, client: &Client<S>) -> Result<Option<(ListReply, Self)>, Status> {
        let cursor = match self.next {
            Next::First => None,
            Next::At(cursor) => Some(cursor),
            Next::Nothing => return Ok(None),
        };
        let namespace = (!self.namespace.is_empty()).then_some(self.namespace.as_str());
        let page = client
            .page(self.kind, namespace, cursor)
            .await
            .map_err(|e| status(e.into()))?;
        for (key, problem) in &page.unreadable {
            tracing::warn!(key, problem, "left out of a listing");
        }
        let mut items: Vec<Resource> = page.items.iter().map(message).collect();
        if page.next.is_none() {
            items.extend(synthetic(&ResourceKey::cluster(self.kind, DEFAULT_ALLOW)));
        }
        let next = page.next.map_or(Next::Nothing, Next::At);
        let revision = i64::try_from(page.revision).unwrap_or(i64::MAX);
        Ok(Some((ListReply { items, revision }, Self { next, ..self })))
    }
}

/// A write as it was asked for, checked as far as it can be without the store.
struct Write {
    resource: AnyResource,
    expected: Option<u64>,
}

impl Write {
    fn parse(request: Request<WriteRequest>, operation: &str) -> Result<Self, Status> {
        let asked = request
            .into_inner()
            .resource
            .ok_or_else(|| Status::invalid_argument("no resource given"))?;
        let kind = parse_kind(&asked.kind)?;
        let resource =
            AnyResource::decode(kind, &asked.json).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let key = key(kind, &asked.namespace, &asked.name)?;
        resource
            .check_key(&key)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        refuse_protected(&key, operation)?;
        Ok(Self {
            resource,
            expected: revision(&asked.resource_version)?,
        })
    }
}

/// The one profile that everybody knows and nobody stores.
const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

fn synthetic(key: &ResourceKey) -> Option<Resource> {
    if key.kind != Kind::Profile || key.name != DEFAULT_ALLOW {
        return None;
    }
    let json = format!(
        r#"{{"kind":"Profile","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{DEFAULT_ALLOW}"}},"spec":{{"ingress":[{{"action":"Allow","source":{{}},"destination":{{}}}}],"egress":[{{"action":"Allow","source":{{}},"destination":{{}}}}]}}}}"#
    );
    let (kind, name) = (key.kind.as_str().to_owned(), key.name.clone());
    Some(Resource {
        kind,
        namespace: String::new(),
        name,
        resource_version: "1".into(),
        json: json.into_bytes(),
    })
}

/// What users may not write, in calicoctl's words.
fn refuse_protected(key: &ResourceKey, operation: &str) -> Result<(), Status> {
    let refuse = |reason: &str| {
        let colon = if reason.is_empty() { "" } else { ": " };
        let name = &key.name;
        Err(Status::failed_precondition(format!(
            "operation {operation} is not supported on {name}{colon}{reason}"
        )))
    };
    match key.kind {
        Kind::ClusterInformation => refuse("ClusterInformation is read only"),
        Kind::NetworkPolicy if key.name.starts_with("knp.") => {
            refuse("kubernetes network policies must be managed through the kubernetes API")
        }
        Kind::Tier
            if operation == "delete"
                && ["default", "kube-admin", "kube-baseline"].contains(&key.name.as_str()) =>
        {
            refuse("it is always there")
        }
        Kind::Profile if key.name == DEFAULT_ALLOW => refuse("it is always there"),
        _ => Ok(()),
    }
}

fn parse_kind(text: &str) -> Result<Kind, Status> {
    text.parse()
        .map_err(|e: twill_model::kind::UnknownKind| Status::invalid_argument(e.to_string()))
}

fn key(kind: Kind, namespace: &str, name: &str) -> Result<ResourceKey, Status> {
    let whole = |part: &str| !part.is_empty() && !part.contains('/');
    if !whole(name) {
        return Err(Status::invalid_argument(format!(
            "{name:?} is no name of a {kind}"
        )));
    }
    match (kind.is_namespaced(), namespace) {
        (true, ns) if whole(ns) => Ok(ResourceKey::namespaced(kind, ns, name)),
        (true, ns) => Err(Status::invalid_argument(format!(
            "{ns:?} is no namespace for a {kind}"
        ))),
        (false, "") => Ok(ResourceKey::cluster(kind, name)),
        (false, _) => Err(Status::invalid_argument(format!("{kind} is not namespaced"))),
    }
}

fn revision(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| Status::invalid_argument(format!("metadata.resourceVersion {text:?} is no revision")))
}

fn message(stored: &Stored) -> Resource {
    let shown = stored.presented();
    let key = shown.key();
    Resource {
        kind: key.kind.as_str().to_owned(),
        namespace: key.namespace.unwrap_or_default(),
        name: key.name,
        resource_version: stored.revision.to_string(),
        json: shown.encode(),
    }
}

fn audit(what: &'static str, key: &ResourceKey) {
    tracing::info!(object = %key, "{what} for the command line");
}

pub(super) fn status(error: ClientError) -> Status {
    match error {
        // The command line has words of its own for these.
        ClientError::NotFound(_) => Status::not_found(""),
        ClientError::AlreadyExists(_) => Status::already_exists(""),
        ClientError::Conflict(_) => Status::aborted(error.to_string()),
        ClientError::Unreadable { .. } => Status::data_loss(error.to_string()),
        ClientError::NoTier { .. } | ClientError::ResourceVersion(_) | ClientError::Refused(_) => {
            Status::invalid_argument(error.to_string())
        }
        ClientError::Store(e) if e.is_transient() => Status::unavailable(e.to_string()),
        ClientError::Store(e) => Status::internal(e.to_string()),
    }
}

#[cfg(test)]
mod tests;
