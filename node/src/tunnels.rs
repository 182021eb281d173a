//! The addresses of this node's tunnel devices, kept as Calico's node keeps them: one for each encapsulation that an enabled pool of
//! this node has, in the Node resource and in the allocator, given back when the last such pool goes.
//!
//! Address and Node are written in one transaction, so that neither is ever without the other.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use twill_datastore::client::{Client as Resources, ClientError};
use twill_datastore::{Compare, Op, Store, Txn};
use twill_ipam::tunnel::{Step, Tunnel};
use twill_ipam::{Client, Error as IpamError, Pool, Riders, check};
use twill_model::net::Net;
use twill_model::resources::node::{NodeBgpSpec, NodeSpec, NodeWireguardSpec};
use twill_model::resources::{IpPool, Node};
use twill_model::{Kind, ResourceKey};

use crate::fabric::Fabric;

/// How soon it is tried again when the datastore or a pool has no answer.
const RETRY: Duration = Duration::from_secs(5);
/// How often the Node is written against others who write it, label syncers for one.
const ATTEMPTS_MAX: u32 = 20;

/// What decides about this node's own resource and its tunnel addresses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    /// The datastore was read: what is not here is not there.
    pub(crate) in_sync: bool,
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) pools: BTreeMap<String, Arc<IpPool>>,
}

impl Place {
    pub(crate) fn of(node: &str, fabric: &Fabric) -> Self {
        Self {
            in_sync: fabric.in_sync,
            node: fabric.nodes.get(node).cloned(),
            pools: fabric.pools.clone(),
        }
    }
}

/// Keeps the addresses right, for ever.
///
/// # Errors
/// The hub is gone.
pub(crate) async fn keep<S: Store>(
    store: S,
    ipam: Client,
    node: String,
    mut places: watch::Receiver<Place>,
) -> Result<Infallible> {
    let mut said = String::new();
    let mut keeper = Keeper {
        store,
        ipam,
        node,
        looked: false,
    };
    loop {
        let place = places.borrow_and_update().clone();
        let mut again = false;
        if place.in_sync && place.node.is_some() {
            match keeper.reconcile(&place).await {
                Ok(()) => said.clear(),
                Err(error) => {
                    again = true;
                    let error = format!("{error:#}");
                    if said != error {
                        tracing::warn!(error, "tunnel addresses of this node are not as they should be");
                        said = error;
                    }
                }
            }
        }
        tokio::select! {
            changed = places.changed() => changed.context("the hub is gone")?,
            () = tokio::time::sleep(RETRY), if again => {}
        }
    }
}

struct Keeper<S> {
    store: S,
    ipam: Client,
    node: String,
    /// Whether every handle was looked for once: an address may be left that no Node names.
    looked: bool,
}

impl<S: Store> Keeper<S> {
    async fn reconcile(&mut self, place: &Place) -> Result<()> {
        // One that cannot be used was named by the allocator.
        let pools = place.pools.iter();
        let pools: Vec<Pool> = pools
            .filter_map(|(name, pool)| Pool::of(name, &pool.spec).ok())
            .collect();
        let pools: Vec<&Pool> = pools.iter().collect();
        let mut first_error = None;
        for tunnel in Tunnel::ALL {
            let kept = self.one(tunnel, &pools).await;
            if let Err(error) = kept.with_context(|| format!("the {} of {}", tunnel.attribute(), self.node)) {
                first_error.get_or_insert(error);
            }
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        self.looked = true;
        Ok(())
    }

    async fn one(&self, tunnel: Tunnel, pools: &[&Pool]) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            let Some((node, revision)) = self.stored().await? else {
                return Ok(());
            };
            let chosen = if runs(tunnel, &node) {
                tunnel.pools(pools, &node.metadata.labels)
            } else {
                Vec::new()
            };
            let named = slot(&mut node.clone(), tunnel).clone().map(|net| net.addr());
            let current = self.held(tunnel, named).await?;
            let step = match (current, chosen.is_empty()) {
                // Nothing to have: an address that is named, or was left by a node without memory, goes.
                (_, true) if named.is_some() || !self.looked => Step::Release(tunnel.release(&self.node)),
                (None, true) => Step::Keep,
                _ => tunnel.step(&self.node, current, pools, &chosen),
            };
            if self.carry_out(tunnel, step, &node, revision).await? {
                return Ok(());
            }
        }
        bail!("others kept changing this node's resource");
    }

    async fn stored(&self) -> Result<Option<(Node, u64)>> {
        let key = ResourceKey::cluster(Kind::Node, &self.node);
        match Resources::new(self.store.clone()).get(&key).await {
            Ok(stored) => match stored.object.downcast::<NodeSpec>() {
                Some(node) => Ok(Some((Node::clone(node), stored.revision))),
                None => bail!("{key} is of another kind"),
            },
            Err(ClientError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The address that the Node names, if the allocator says that it is this tunnel's.
    async fn held(&self, tunnel: Tunnel, named: Option<IpAddr>) -> Result<Option<IpAddr>> {
        let Some(address) = named else { return Ok(None) };
        let holder = check::holder(&self.store, address).await?;
        let attribute = holder.and_then(|h| h.attribute);
        let is_ours = attribute.is_some_and(|a| {
            let says = |key: &str, value: &str| a.secondary.get(key).is_some_and(|v| v == value);
            a.released_at.is_none() && says("type", tunnel.attribute()) && says("node", &self.node)
        });
        Ok(is_ours.then_some(address))
    }

    /// One transaction. False: somebody changed the Node, or there is more to do; look again.
    async fn carry_out(&self, tunnel: Tunnel, step: Step, node: &Node, revision: u64) -> Result<bool> {
        match step {
            Step::Keep => Ok(true),
            Step::Assign(mut assign) => {
                let key = node_path(node);
                let (compare, unnamed) = (Compare::mod_revision(key.clone(), revision), node.clone());
                assign.riders = Riders::new(vec![compare], 1, move |addresses| {
                    let named = with(&unnamed, tunnel, addresses.first().copied());
                    vec![Op::put(key.clone(), named.encode())]
                });
                match self.ipam.assign(assign).await {
                    Ok(assigned) if assigned.fresh => {
                        tracing::info!(address = ?assigned.addresses, kind = tunnel.attribute(), "tunnel address assigned");
                        Ok(true)
                    }
                    // It had one that the Node did not name.
                    Ok(assigned) => {
                        let named = with(node, tunnel, assigned.addresses.first().copied());
                        self.put(&named, revision).await?;
                        Ok(false)
                    }
                    Err(IpamError::RiderConflict { .. }) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
            Step::Release(mut release) => {
                let bare = with(node, tunnel, None);
                let key = node_path(node);
                let is_named = bare != *node;
                if is_named {
                    release.riders = Riders::fixed(
                        vec![Compare::mod_revision(key.clone(), revision)],
                        vec![Op::put(key, bare.encode())],
                    );
                }
                match self.ipam.release(release).await {
                    // Nothing was held, so nothing was written: the Node alone.
                    Ok(released) if released.addresses.is_empty() => {
                        if is_named {
                            self.put(&bare, revision).await?;
                        }
                        Ok(!is_named)
                    }
                    Ok(released) => {
                        tracing::info!(address = ?released.addresses, kind = tunnel.attribute(), "tunnel address released");
                        Ok(false)
                    }
                    Err(IpamError::RiderConflict { .. }) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Writes the Node alone, if it is as it was.
    async fn put(&self, node: &Node, revision: u64) -> Result<()> {
        let key = node_path(node);
        let compare = Compare::mod_revision(key.clone(), revision);
        let txn = Txn::when(vec![compare]).then(vec![Op::put(key, node.encode())]);
        self.store.txn(txn).await?;
        Ok(())
    }
}

fn node_path(node: &Node) -> String {
    ResourceKey::cluster(Kind::Node, &node.metadata.name).path()
}

/// WireGuard's device has an address while the node reports a key; others need a pool alone.
fn runs(tunnel: Tunnel, node: &Node) -> bool {
    match tunnel {
        Tunnel::Wireguard => !node.status.wireguard_public_key.is_empty(),
        Tunnel::WireguardV6 => !node.status.wireguard_public_key_v6.is_empty(),
        Tunnel::Ipip | Tunnel::Vxlan | Tunnel::VxlanV6 => true,
    }
}

/// The node with this address for the tunnel, or with none. Objects that would be empty then go: Calico refuses them.
fn with(node: &Node, tunnel: Tunnel, address: Option<IpAddr>) -> Node {
    let mut node = node.clone();
    *slot(&mut node, tunnel) = address.map(Net::from);
    tidy(&mut node);
    node
}

fn tidy(node: &mut Node) {
    node.spec.bgp = node.spec.bgp.take().filter(|bgp| *bgp != NodeBgpSpec::default());
    let wireguard = node.spec.wireguard.take();
    node.spec.wireguard = wireguard.filter(|w| *w != NodeWireguardSpec::default());
}

fn slot(node: &mut Node, tunnel: Tunnel) -> &mut Option<Net> {
    let spec = &mut node.spec;
    match tunnel {
        Tunnel::Ipip => &mut spec.bgp.get_or_insert_default().ipv4_ipip_tunnel_addr,
        Tunnel::Vxlan => &mut spec.ipv4_vxlan_tunnel_addr,
        Tunnel::VxlanV6 => &mut spec.ipv6_vxlan_tunnel_addr,
        Tunnel::Wireguard => &mut spec.wireguard.get_or_insert_default().interface_ipv4_address,
        Tunnel::WireguardV6 => &mut spec.wireguard.get_or_insert_default().interface_ipv6_address,
    }
}

#[cfg(test)]
mod tests;
