//! Calico-compatible address management: pure plans and an allocator that runs them.
//!
//! | module | holds |
//! |---|---|
//! | [`block`] | what is done to a block: assign, release, thaw. Pure |
//! | [`pool`] | which pools may serve a request. Pure |
//! | [`State`] | what an allocator knows, fed by whoever watches the store |
//! | [`request`] | what is asked and answered |
//! | [`plan`] | state and requests to one transaction, or to what must be read first. Pure |
//! | [`Allocator`] | the task that runs plans against the store |
//! | [`keys`] | the keys in the store |
//!
//! Nothing here knows endpoints: a request carries opaque *riders*, which are compared and written in the same
//! transaction.

mod allocator;
pub mod block;
mod error;
pub mod keys;
pub mod plan;
pub mod pool;
pub mod request;
mod resources;
mod state;

pub use allocator::{Allocator, Client, Clock, Counters, QUEUE_MAX, system_clock};
pub use error::Error;
pub use state::{Observed, State, UNFINISHED_GRACE_MS};
