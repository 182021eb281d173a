//! What must exist before anything else works: created if absent, never overwritten. And this node's
//! own Node resource, whose addresses are ours to keep right.

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use twill_datastore::client::{Client, ClientError};
use twill_datastore::{Compare, Op, Store, StoreError, Txn};
use twill_model::key::ResourceKey;
use twill_model::resources::Node;
use twill_model::resources::node::{NodeBgpSpec, NodeInterface, NodeSpec};
use twill_model::{Kind, ObjectMeta, Resource};

use crate::bootstrap::Bootstrap;

/// How often the Node is written against others who write it, label syncers for one.
const ATTEMPTS_MAX: u32 = 20;

/// How an attempt ended that found nothing wrong with this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// Everything is in place.
    Done,
    /// The datastore is away, says this.
    Later(String),
}

/// Creates what is missing and registers the node.
///
/// # Errors
/// This node has no address and nobody says which; another node has our address; the store refuses.
pub(crate) async fn register<S: Store>(store: &S, bootstrap: &Bootstrap) -> Result<Registered> {
    match attempt(store, bootstrap).await {
        Ok(()) => Ok(Registered::Done),
        Err(error) if is_transient(&error) => Ok(Registered::Later(format!("{error:#}"))),
        Err(error) => Err(error),
    }
}

fn is_transient(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let store = cause.downcast_ref::<StoreError>();
        let client = cause.downcast_ref::<ClientError>().and_then(|e| match e {
            ClientError::Store(e) => Some(e),
            _ => None,
        });
        store.or(client).is_some_and(StoreError::is_transient)
    })
}

async fn attempt<S: Store>(store: &S, bootstrap: &Bootstrap) -> Result<()> {
    let client = Client::new(store.clone());
    for object in twill_model::initial::objects(uuid::Uuid::new_v4().as_u128()) {
        let key = object.key();
        if client
            .ensure(&object)
            .await
            .with_context(|| format!("creating {key}"))?
        {
            tracing::info!(object = %key, "created");
        }
    }
    node(&client, bootstrap)
        .await
        .with_context(|| format!("registering node {}", bootstrap.node_name))
}

async fn node<S: Store>(client: &Client<S>, bootstrap: &Bootstrap) -> Result<()> {
    refuse_shared_address(client, bootstrap).await?;
    let key = ResourceKey::cluster(Kind::Node, &bootstrap.node_name);
    for _ in 0..ATTEMPTS_MAX {
        let stored = match client.get(&key).await {
            Ok(stored) => stored,
            Err(ClientError::NotFound(_)) => match client.create(&new_node(bootstrap)?.into()).await {
                Err(ClientError::AlreadyExists(_)) => continue,
                other => {
                    other?;
                    tracing::info!(node = bootstrap.node_name, "registered");
                    return Ok(());
                }
            },
            Err(e) => return Err(e.into()),
        };
        let Some(old) = stored.object.downcast::<NodeSpec>() else {
            bail!("{key} is of another kind")
        };
        let new = updated(old, bootstrap)?;
        if new == **old {
            return Ok(());
        }
        let compare = Compare::mod_revision(key.path(), stored.revision);
        let txn = Txn::when(vec![compare]).then(vec![Op::put(key.path(), new.encode())]);
        if client.store().txn(txn).await?.succeeded {
            tracing::info!(node = bootstrap.node_name, "addresses updated");
            return Ok(());
        }
    }
    bail!("others kept changing {key}: try again")
}

/// Two nodes with one address would each take the other's traffic and sessions.
async fn refuse_shared_address<S: Store>(client: &Client<S>, bootstrap: &Bootstrap) -> Result<()> {
    let mut at = None;
    loop {
        let page = client.page(Kind::Node, None, at).await?;
        for stored in &page.items {
            let Some(other) = stored.object.downcast::<NodeSpec>() else {
                continue;
            };
            let theirs = crate::bgp::config::addresses(other);
            let shared = bootstrap
                .node_ips
                .iter()
                .find(|ip| theirs.iter().any(|net| net.addr() == ip.addr()));
            if let (Some(shared), true) = (shared, other.metadata.name != bootstrap.node_name) {
                bail!(
                    "address {} belongs to node {} already: correct --node-ip here or delete that node",
                    shared.addr(),
                    other.metadata.name
                );
            }
        }
        at = page.next;
        if at.is_none() {
            return Ok(());
        }
    }
}

fn new_node(bootstrap: &Bootstrap) -> Result<Node> {
    if bootstrap.node_ips.is_empty() {
        bail!(
            "node {} is new here and has no address: give --node-ip",
            bootstrap.node_name
        );
    }
    let mut meta = ObjectMeta::named(&bootstrap.node_name);
    meta.labels
        .insert("kubernetes.io/hostname".into(), bootstrap.node_name.clone());
    updated(&Resource::new(meta, NodeSpec::default()), bootstrap)
}

/// The node with our addresses; everything that others wrote stays.
fn updated(old: &Node, bootstrap: &Bootstrap) -> Result<Node> {
    let mut node = old.clone();
    if bootstrap.node_ips.is_empty() {
        let known = node
            .spec
            .bgp
            .as_ref()
            .is_some_and(|b| b.ipv4_address.is_some() || b.ipv6_address.is_some());
        if !known {
            bail!("node {} has no address yet: give --node-ip", bootstrap.node_name);
        }
        return Ok(node);
    }
    let bgp = node.spec.bgp.get_or_insert_with(NodeBgpSpec::default);
    for ip in &bootstrap.node_ips {
        let slot = if matches!(ip, IpNet::V4(_)) {
            &mut bgp.ipv4_address
        } else {
            &mut bgp.ipv6_address
        };
        if slot.as_ref().map(|net| net.as_written()) != Some(*ip) {
            *slot = Some((*ip).into());
        }
    }
    if node.spec.interfaces.is_empty() {
        let addresses = bootstrap
            .node_ips
            .iter()
            .map(|ip| ip.addr().to_string())
            .collect();
        if let Some(name) = crate::host::interface_with(&bootstrap.node_ips) {
            node.spec.interfaces = vec![NodeInterface {
                name,
                addresses,
                ..NodeInterface::default()
            }];
        }
    }
    Ok(node)
}

#[cfg(test)]
mod tests;
