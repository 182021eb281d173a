//! What may be collected, and how it is recognised when it is seen again.

use std::net::IpAddr;

use ipnet::IpNet;
use twill_datastore::{Bytes, Revision};
use twill_model::AffinityOwner;

/// Something that seems to belong to no one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leak {
    /// An allocated address.
    Address {
        /// The address.
        address: IpAddr,
        /// Its block.
        block: IpNet,
        /// The handle that holds it.
        handle: Option<String>,
        /// The sequence number at which it was assigned.
        sequence: Option<u64>,
        /// The node that it was assigned on.
        node: Option<String>,
        /// Why nobody has it.
        why: Why,
        /// What the keys of its workload's endpoints would begin with.
        guard: Option<Bytes>,
        /// The endpoint that goes with it: of a node that is gone.
        endpoint: Option<Bytes>,
    },
    /// A handle that holds no address.
    Handle {
        /// Its id.
        id: String,
        /// The revision that wrote it.
        revision: Revision,
    },
    /// A block, or only an affinity, of a node that is gone.
    Ownership {
        /// The owner.
        owner: AffinityOwner,
        /// The block.
        block: IpNet,
    },
    /// A block without holders that nobody will write again: of no owner, or with nothing in it but addresses whose cool-down is
    /// over.
    Idle {
        /// The block.
        block: IpNet,
        /// The revision that wrote it.
        revision: Revision,
    },
}

/// Why an address seems to belong to no one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// No workload endpoint has it.
    NoEndpoint,
    /// Its node has no resource any more.
    NodeGone,
}

impl Why {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no workload endpoint has it",
            Self::NodeGone => "its node is gone",
        }
    }
}

/// What must be the same in two observations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeakId {
    /// Address, handle, sequence number.
    Address(IpAddr, Option<String>, Option<u64>),
    /// Handle and the revision that wrote it.
    Handle(String, Revision),
    /// Owner and block.
    Ownership(AffinityOwner, IpNet),
    /// Block and the revision that wrote it.
    Idle(IpNet, Revision),
}

impl Leak {
    /// What must be the same in two observations.
    #[must_use]
    pub fn id(&self) -> LeakId {
        match self {
            Self::Address {
                address,
                handle,
                sequence,
                ..
            } => LeakId::Address(*address, handle.clone(), *sequence),
            Self::Handle { id, revision } => LeakId::Handle(id.clone(), *revision),
            Self::Ownership { owner, block } => LeakId::Ownership(owner.clone(), *block),
            Self::Idle { block, revision } => LeakId::Idle(*block, *revision),
        }
    }
}
