//! What is asked of an allocator, and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use twill_datastore::{Bytes, Compare, Op, Revision};
use twill_model::resources::ippool::AllowedUse;

use crate::pool::Family;

/// Most addresses in one request: dual stack twice over.
pub const WANTS_MAX: usize = 4;
/// Most compares and most operations that the riders of one request may bring.
pub const RIDERS_MAX: usize = 8;

/// One address wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Any address of a family.
    Any {
        /// The family.
        family: Family,
        /// The pools to take it from, by name or CIDR; empty leaves the choice to the selectors.
        pools: Vec<String>,
    },
    /// This one.
    Address(IpAddr),
}

impl Want {
    /// Any address of `family`, from whatever pool selects the node.
    #[must_use]
    pub fn any(family: Family) -> Self {
        Self::Any {
            family,
            pools: Vec::new(),
        }
    }
}

/// Addresses for one handle. Asking again with the same handle gives the same addresses.
#[derive(Clone, Debug)]
pub struct Assign {
    /// `<network>.<containerID>` for a pod.
    pub handle: String,
    /// What is stored with each address: `node` always, `pod`, `namespace`, `timestamp` for a pod's first interface.
    pub attributes: BTreeMap<String, String>,
    /// The addresses, 1 to [`WANTS_MAX`].
    pub wants: Vec<Want>,
    /// What for.
    pub purpose: AllowedUse,
    /// Labels of the pod's namespace. Empty: those of the profile of the namespace that `attributes` name.
    pub namespace_labels: BTreeMap<String, String>,
    /// What is to be written with the addresses.
    pub riders: Riders,
}

/// Addresses to be given back.
#[derive(Clone, Debug)]
pub struct Release {
    /// Which.
    pub target: ReleaseTarget,
    /// What is to be written with the release.
    pub riders: Riders,
}

/// Which addresses to give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseTarget {
    /// All that a handle holds. Nothing held is a success.
    Handle(String),
    /// One address.
    Address {
        /// The address.
        address: IpAddr,
        /// Only if this handle holds it.
        handle: Option<String>,
        /// Only if it was assigned at this sequence number of its block.
        sequence: Option<u64>,
    },
}

/// What a request wants written in the same transaction, of which an allocator knows only the count.
#[derive(Clone, Default)]
pub struct Riders {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// How many operations `build` makes.
    pub ops: usize,
    /// Makes the operations from the addresses assigned (or released). Called once for each attempt. Each must write
    /// keys of this request alone.
    pub build: Option<BuildRiders>,
}

/// Makes a rider's operations from the addresses of the request.
pub type BuildRiders = Arc<dyn Fn(&[IpAddr]) -> Vec<Op> + Send + Sync>;

impl Riders {
    /// Operations that do not depend on the addresses.
    #[must_use]
    pub fn fixed(compares: Vec<Compare>, ops: Vec<Op>) -> Self {
        Self {
            compares,
            ops: ops.len(),
            build: Some(Arc::new(move |_| ops.clone())),
        }
    }

    /// Operations made from the addresses: exactly `ops` of them.
    #[must_use]
    pub fn new(
        compares: Vec<Compare>,
        ops: usize,
        build: impl Fn(&[IpAddr]) -> Vec<Op> + Send + Sync + 'static,
    ) -> Self {
        Self {
            compares,
            ops,
            build: Some(Arc::new(build)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ops == 0 && self.compares.is_empty()
    }

    pub(crate) fn build(&self, addresses: &[IpAddr]) -> Vec<Op> {
        self.build
            .as_ref()
            .map_or_else(Vec::new, |build| build(addresses))
    }
}

impl fmt::Debug for Riders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Riders({} compares, {} ops)", self.compares.len(), self.ops)
    }
}

/// Housekeeping on this node's own blocks that nobody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chore {
    /// The block is ours, but its affinity is missing or not `confirmed` (a releaser lost its race): confirm it.
    Confirm(IpNet),
    /// The affinity is ours, but the block is not, or is not there: delete the affinity.
    DropAffinity(IpNet),
    /// The block is ours and empty, and its pool no longer selects this node: give it up.
    GiveUp(IpNet),
}

impl Chore {
    /// The block concerned.
    #[must_use]
    pub fn block(&self) -> IpNet {
        match self {
            Self::Confirm(cidr) | Self::DropAffinity(cidr) | Self::GiveUp(cidr) => *cidr,
        }
    }
}

/// Takes an assignment back whose answer reached nobody. Nothing happens unless the handle was made after `since`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    /// The handle.
    pub handle: String,
    /// Newest revision known before the assignment was sent.
    pub since: Revision,
    /// What its riders put, and what goes with it if nobody has changed it since.
    pub keys: Vec<Bytes>,
}

/// What a request does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Give addresses.
    Assign(Assign),
    /// Take addresses back.
    Release(Release),
    /// Keep house.
    Chore(Chore),
    /// Take an assignment back.
    Undo(Undo),
}

impl Work {
    /// The handle by which requests are kept in order.
    #[must_use]
    pub fn handle(&self) -> Option<&str> {
        match self {
            Self::Assign(a) => Some(&a.handle),
            Self::Release(Release {
                target: ReleaseTarget::Handle(h),
                ..
            }) => Some(h),
            Self::Release(Release {
                target: ReleaseTarget::Address { handle, .. },
                ..
            }) => handle.as_deref(),
            Self::Undo(u) => Some(&u.handle),
            Self::Chore(_) => None,
        }
    }

    pub(crate) fn riders(&self) -> Option<&Riders> {
        match self {
            Self::Assign(a) => Some(&a.riders),
            Self::Release(r) => Some(&r.riders),
            Self::Chore(_) | Self::Undo(_) => None,
        }
    }
}

/// A request on its way through the plan.
#[derive(Clone, Debug)]
pub struct Request {
    /// Tells requests apart; the shell's choice.
    pub id: u64,
    /// What it does.
    pub work: Work,
    /// Keys that were read for it: none is asked for twice.
    pub looked: BTreeSet<Bytes>,
    /// Set when a commit with this request had an unknown outcome: the newest revision known before it was sent.
    pub unsettled_since: Option<Revision>,
}

impl Request {
    /// A request that was not tried yet.
    #[must_use]
    pub fn new(id: u64, work: Work) -> Self {
        Self {
            id,
            work,
            looked: BTreeSet::new(),
            unsettled_since: None,
        }
    }
}

/// A request served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The handle has its addresses.
    Assigned(Assigned),
    /// The addresses are free.
    Released(Released),
    /// The chore is done, or no longer needed.
    Done,
}

/// The addresses of a handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The addresses, in the order of the wants; all that the handle holds if it had them before.
    pub addresses: Vec<IpAddr>,
    /// Revision at which the handle was last known to hold them.
    pub revision: Revision,
    /// Whether they are new with this request, riders and all, or were held before and **no rider was written**.
    pub fresh: bool,
}

/// The addresses given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// The addresses; empty if nothing was held.
    pub addresses: Vec<IpAddr>,
    /// Revision of the commit; 0 if there was nothing to write.
    pub revision: Revision,
}
