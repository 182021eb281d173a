//! Attaching and detaching pods, and answering for them.

mod add;
mod ahead;
mod check;
mod del;
mod gc;
mod memory;
mod mtu;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use twill_datastore::{Store, client};
use twill_ipam::{Client, Error as IpamError};
use twill_model::resources::WorkloadEndpoint;
use twill_model::{Kind, ResourceKey, names};
use twill_proto::cni::Attachment;

use super::{CniError, code};
use crate::dataplane::Dataplane;
use crate::fabric::SharedFabric;
use crate::retire::Orders;
pub(crate) use memory::Memory;

/// How often an endpoint that somebody else keeps changing is tried.
const ATTEMPTS_MAX: u32 = 10;

/// How long felix may take to have an endpoint out of the kernel: an apply takes milliseconds, a resync a second.
const WITHDRAW_DEADLINE: Duration = Duration::from_secs(5);

/// What attaches and detaches this node's pods. Shared by all requests; ordering by handle is the allocator's.
pub(crate) struct Pods<S> {
    pub(crate) node: String,
    pub(crate) store: S,
    pub(crate) ipam: Client,
    pub(crate) dataplane: Dataplane,
    pub(crate) fabric: SharedFabric,
    pub(crate) spool: PathBuf,
    pub(crate) memory: Memory,
    pub(crate) orders: Orders,
}

impl<S: Store> Pods<S> {
    fn client(&self) -> client::Client<S> {
        client::Client::new(self.store.clone())
    }

    fn serving(&self) -> Result<(), CniError> {
        let fabric = self.fabric.read();
        if !fabric.in_sync {
            return Err(CniError::try_again("this node has not read the datastore yet"));
        }
        if fabric.is_locked() {
            return Err(CniError::try_again(IpamError::Locked));
        }
        Ok(())
    }

    /// Addresses of the same container's other interfaces on this node.
    fn addresses_of_others(&self, attachment: &Attachment) -> Vec<IpAddr> {
        let fabric = self.fabric.read();
        let other = |e: &WorkloadEndpoint| {
            e.spec.container_id == attachment.container_id && e.spec.endpoint != attachment.ifname
        };
        let others = fabric.own_endpoints.values().filter(|(e, _)| other(e));
        others
            .flat_map(|(e, _)| e.spec.ip_networks.iter().map(|net| net.addr()))
            .collect()
    }

    /// Endpoints of this node that are `wanted`, with their keys.
    fn own(&self, wanted: impl Fn(&WorkloadEndpoint) -> bool) -> Vec<(ResourceKey, Arc<WorkloadEndpoint>)> {
        let fabric = self.fabric.read();
        let found = fabric.own_endpoints.iter().filter(|(_, (e, _))| wanted(e));
        let keyed = found.map(|((namespace, name), (endpoint, _))| {
            let key = ResourceKey::namespaced(Kind::WorkloadEndpoint, namespace, name);
            (key, endpoint.clone())
        });
        keyed.collect()
    }

    /// Takes endpoints out of the kernel, before their addresses may be given again: policy, sets and routes by felix, the
    /// links, and what conntrack remembers of the addresses.
    ///
    /// # Errors
    /// Felix cannot apply, or the kernel refuses: the addresses must stay where they are.
    pub(super) async fn withdraw(
        &self,
        leaving: &[(ResourceKey, Arc<WorkloadEndpoint>)],
    ) -> Result<(), CniError> {
        for (key, endpoint) in leaving {
            self.orders.retire(key.clone(), &endpoint.spec.container_id).await;
        }
        let mut addresses = BTreeSet::new();
        for (key, endpoint) in leaving {
            let interface = &endpoint.spec.interface_name;
            let removed = self.dataplane.removed(interface, WITHDRAW_DEADLINE);
            let (removed, ()) = tokio::join!(removed, self.detach(interface));
            removed
                .map_err(|e| CniError::try_again(format_args!("taking {key} out of the kernel: {e:#}")))?;
            addresses.extend(endpoint.spec.ip_networks.iter().map(|net| net.addr()));
        }
        self.forget(&addresses).await
    }

    /// Forgets the connections of addresses that come free.
    async fn forget(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), CniError> {
        let forgotten = self.dataplane.forget(addresses).await;
        forgotten.map_err(|e| CniError::try_again(format_args!("{e:#}")))
    }

    async fn detach(&self, interface: &str) {
        if let Err(error) = self.dataplane.detach(interface).await {
            tracing::warn!(interface, error = format!("{error:#}"), "removing a link");
        }
    }
}

/// The handles that an attachment's addresses may be under: Calico's `<network>.<container>`, and, where another interface
/// of the container has joined the same network before, the same with the interface's name behind.
fn handles(a: &Attachment) -> [String; 2] {
    let shared = names::handle_id(&a.network, &a.container_id);
    let own = format!("{shared}.{}", a.ifname);
    [shared, own]
}

fn attachment(given: Option<&Attachment>) -> Result<&Attachment, CniError> {
    let missing = || CniError::new(code::INVALID_ENVIRONMENT, "the request names no container");
    given
        .filter(|a| !a.container_id.is_empty() && !a.ifname.is_empty() && !a.network.is_empty())
        .ok_or_else(missing)
}

/// An allocator's error in the runtime's words.
fn refusal(error: IpamError) -> CniError {
    let code = match &error {
        IpamError::Datastore { .. }
        | IpamError::Stopped
        | IpamError::Busy { .. }
        | IpamError::Contended { .. }
        | IpamError::Locked
        | IpamError::NoCluster
        | IpamError::NoNode
        | IpamError::RiderConflict { .. } => code::TRY_AGAIN,
        IpamError::Exhausted { .. }
        | IpamError::BlockLimit { .. }
        | IpamError::AutoAllocateOff
        | IpamError::NoPool { .. } => code::NO_ADDRESS,
        IpamError::NoSuchPool { .. }
        | IpamError::PoolDisabled { .. }
        | IpamError::BadSelector { .. }
        | IpamError::OutsidePools { .. }
        | IpamError::UseNotAllowed { .. }
        | IpamError::BadRequest { .. } => code::INVALID_CONFIG,
        _ => code::IO,
    };
    CniError::new(code, error)
}
