//! Attaching and detaching pods, and answering for them.

mod add;
mod ahead;
mod check;
mod del;
mod gc;
mod memory;
mod mtu;

use std::net::IpAddr;
use std::path::PathBuf;

use twill_datastore::{Store, client};
use twill_ipam::{Client, Error as IpamError};
use twill_model::names;
use twill_model::resources::WorkloadEndpoint;
use twill_proto::cni::Attachment;

use super::{CniError, code};
use crate::dataplane::Dataplane;
use crate::fabric::SharedFabric;
pub(crate) use memory::Memory;

/// How often an endpoint that somebody else keeps changing is tried.
const ATTEMPTS_MAX: u32 = 10;

/// What attaches and detaches this node's pods. Shared by all requests; ordering by handle is the allocator's.
pub(crate) struct Pods<S> {
    pub(crate) node: String,
    pub(crate) store: S,
    pub(crate) ipam: Client,
    pub(crate) dataplane: Dataplane,
    pub(crate) fabric: SharedFabric,
    pub(crate) spool: PathBuf,
    pub(crate) memory: Memory,
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
