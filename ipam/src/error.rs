//! Why a request failed, told to the person who runs the pod: what happened, to what, and what to do.

use std::net::IpAddr;

use ipnet::IpNet;
use twill_datastore::{Bytes, KeyValue};
use twill_model::resources::ippool::AllowedUse;

use crate::pool::Family;

/// Why a request was not served. Nothing was written for it, unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No free address in any pool that may serve the request.
    #[error(
        "no free {family} address in the pools {}: add a pool, or release addresses that are no longer used \
         (twillctl ipam check shows leaked ones){}",
        .pools.join(", "),
        if *.strict { "; strictAffinity keeps this node from borrowing out of other nodes' blocks" } else { "" }
    )]
    Exhausted {
        /// The family wanted.
        family: Family,
        /// The pools tried.
        pools: Vec<String>,
        /// Whether borrowing was ruled out.
        strict: bool,
    },
    /// The node owns as many blocks as it may, and all are full.
    #[error(
        "this node's blocks are full and it may not claim more than {limit}: raise maxBlocksPerHost in the IPAM \
         configuration, or move pods to other nodes"
    )]
    BlockLimit {
        /// The cap.
        limit: usize,
    },
    /// A new block is needed but `auto_allocate_blocks` is off.
    #[error(
        "this node's blocks are full and autoAllocateBlocks is off: turn it on in the IPAM configuration \
         (an absent auto_allocate_blocks in {} means off), or assign a block to the node",
        twill_model::key::IPAM_CONFIG
    )]
    AutoAllocateOff,
    /// The datastore is locked for a migration or a repair.
    #[error(
        "the datastore is locked (ClusterInformation default has datastoreReady: false): wait until the migration is \
         over, or unlock it with calicoctl datastore migrate unlock"
    )]
    Locked,
    /// `ClusterInformation` is missing, so whether the datastore is locked is unknown.
    #[error(
        "ClusterInformation default does not exist: the datastore is not initialised; start a twilld with write access"
    )]
    NoCluster,
    /// The node has no resource, so selectors of pools cannot be judged.
    #[error(
        "this node has no Node resource, so pool selectors cannot be judged: is twilld's registration failing?"
    )]
    NoNode,
    /// No pool may serve the request.
    #[error(
        "no enabled {family} pool allows {} addresses for this node and namespace: create an IPPool, or check \
         nodeSelector, namespaceSelector, allowedUses, assignmentMode and disabled of those that exist",
        .purpose.as_str()
    )]
    NoPool {
        /// The family wanted.
        family: Family,
        /// What for.
        purpose: AllowedUse,
    },
    /// A pool asked for does not exist.
    #[error(
        "the {family} pool {pool} that was asked for does not exist: check the pod's ipv4pools/ipv6pools annotation"
    )]
    NoSuchPool {
        /// As asked for: a name or a CIDR.
        pool: String,
        /// The family wanted.
        family: Family,
    },
    /// A pool asked for is disabled.
    #[error("the pool {pool} is disabled: enable it, or ask for another")]
    PoolDisabled {
        /// Its name.
        pool: String,
    },
    /// A selector of a pool cannot be parsed.
    #[error("{field} of pool {pool} is not a selector: {reason}: correct the pool")]
    BadSelector {
        /// The pool's name.
        pool: String,
        /// The field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The address asked for belongs to someone else.
    #[error("{address} is in use by {holder}: ask for another address, or release that one first")]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// The handle that holds it.
        holder: String,
    },
    /// The address asked for is in no enabled pool.
    #[error("{address} is in no enabled pool: ask for an address inside a pool, or create one")]
    OutsidePools {
        /// The address.
        address: IpAddr,
    },
    /// Services' addresses come from blocks of `virtual:load-balancer`, all others from nodes' blocks.
    #[error(
        "{owner} does not assign {} addresses: those of load balancers are virtual:load-balancer's, all others the nodes'",
        .purpose.as_str()
    )]
    WrongAllocator {
        /// What for.
        purpose: AllowedUse,
        /// Who was asked.
        owner: String,
    },
    /// The pool of the address does not allow the use.
    #[error("{address} is in pool {pool}, which does not allow {}: see allowedUses", .purpose.as_str())]
    UseNotAllowed {
        /// The address.
        address: IpAddr,
        /// The pool's name.
        pool: String,
        /// What for.
        purpose: AllowedUse,
    },
    /// The address is in a block of another node and strict affinity forbids borrowing.
    #[error(
        "{address} is in block {block} of {owner} and strictAffinity forbids borrowing: run the pod there, or turn strictAffinity off"
    )]
    StrictAffinity {
        /// The address.
        address: IpAddr,
        /// Its block.
        block: IpNet,
        /// Whose block.
        owner: String,
    },
    /// The address to be released is held by another handle or was given anew since the caller looked.
    #[error("{address} is no longer what the request says ({reason}): nothing was released; look again")]
    Stale {
        /// The address.
        address: IpAddr,
        /// What differs.
        reason: String,
    },
    /// A rider's compare did not hold. Build the rider anew from what is there now and ask again.
    #[error("{} was changed by someone else meanwhile", .key.escape_ascii())]
    RiderConflict {
        /// The key whose compare failed.
        key: Bytes,
        /// What is there now.
        found: Option<Box<KeyValue>>,
    },
    /// The riders are more, or others, than the request announced.
    #[error(
        "a request may carry at most {limit} compares and operations beside its own and must build as many as it announced"
    )]
    BadRiders {
        /// The bound.
        limit: usize,
    },
    /// The request names nothing to do, or too much.
    #[error("a request must want 1 to {limit} addresses and name a handle")]
    BadRequest {
        /// The bound.
        limit: usize,
    },
    /// An object that the request needs cannot be read.
    #[error(
        "{key} holds something that is not usable: {reason}: repair it (twillctl ipam check lists such keys)"
    )]
    Unreadable {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Others changed the same objects again and again.
    #[error("gave up after {attempts} attempts, because others kept changing the same objects: try again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// Too many requests wait already.
    #[error("{limit} requests wait already: try again")]
    Busy {
        /// The bound of the queue.
        limit: usize,
    },
    /// The datastore failed or could not be reached in time. If a write was under way, its outcome is unknown and is
    /// undone when the datastore answers again; asking again with the same handle is safe.
    #[error("{reason}: try again when the datastore is reachable")]
    Datastore {
        /// What the store said.
        reason: String,
    },
    /// The allocator is shutting down.
    #[error("the allocator has stopped")]
    Stopped,
}
