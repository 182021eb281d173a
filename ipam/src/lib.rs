//! Calico-compatible address management: pure plans and an allocator that runs them.
//!
//! | module | holds |
//! |---|---|
//! | [`block`] | what is done to a block: assign, release, thaw. Pure |
//! | [`Pool`] | which pools may serve a request. Pure |
//! | [`State`] | what an allocator knows, fed by whoever watches the store |
//! | [`Assign`], [`Release`], [`Error`] | what is asked and answered |
//! | [`plan`] | state and requests to one transaction, or to what must be read first. Pure |
//! | [`Allocator`] | the task that runs plans against the store |
//! | [`check`] | what is wrong in the store, and how full pools and blocks are |
//! | [`collect`] | what nobody has any more: seen twice, then freed |
//! | [`sweep`] | taking addresses out of a block, exactly as they were found. Pure |
//! | [`admin`] | what operators ask for: release from reports, remove a node, split a pool, change the settings |
//! | [`tunnel`] | the addresses of a node's tunnel devices. Pure |
//! | [`keys`] | the keys in the store |
//!
//! Nothing here knows endpoints: a request carries opaque *riders*, which are compared and written in the same
//! transaction.

pub mod admin;
mod allocator;
pub mod block;
pub mod check;
pub mod collect;
mod error;
pub mod keys;
mod now;
pub mod plan;
mod pool;
mod request;
mod resources;
mod state;
pub mod sweep;
pub mod tunnel;

pub use allocator::{Allocator, Client, Clock, Counter, Counters, QUEUE_MAX, system_clock};

pub use error::Error;
pub use now::Now;
pub use pool::{Choice, Encapsulation, Family, Pool, select};
pub use request::{
    Assign, Assigned, BuildRiders, Chore, RIDERS_MAX, Release, ReleaseTarget, Released, Reply, Request,
    Riders, Undo, WANTS_MAX, Want, Work,
};
pub use state::{Observed, State, UNFINISHED_GRACE_MS};
