//! The desired state of a node, as plain data.
//!
//! Everything that this daemon puts into the kernel is described here and nowhere else, and every kernel object
//! has one writer: the routes of protocols 80 and 81, the table `inet twill`, the host side of workload links.
//! Big parts are shared by `Arc`, so that handing over a whole [`Desired`] is cheap, and so that the delta
//! against the state applied last can skip what is the same allocation.

use std::collections::BTreeMap;
use std::sync::Arc;

pub mod base;
pub mod links;
pub mod name;
pub mod nft;
pub mod policy;
pub mod routes;
pub mod underlay;

pub use links::{Link, NodeSettings};
pub use name::{IfName, Mac, NameError};

/// All that the node should hold, except the routes learned by BGP, which arrive by their own door
/// (`kernel::Dataplane`), because their in-sync is another one (End-of-RIB, not the datastore's).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Datastore revision that this state reflects. Status reports name it, so that a CNI ADD can wait for its own write.
    pub revision: u64,
    /// The datastore's first full pass is over. Until then nothing is deleted from the kernel.
    pub in_sync: bool,
    /// The table `inet twill` whole: [`base::table`] with the policy added.
    pub table: Arc<nft::Table>,
    /// Host side of every workload interface of this node. An interface that is not here is none of ours to bring up.
    pub links: Arc<BTreeMap<IfName, Link>>,
    /// Routes to this node's own workloads and the blackholes of its own blocks.
    pub routes: Arc<routes::Routes>,
    /// Settings of the node as a whole.
    pub node: NodeSettings,
}
