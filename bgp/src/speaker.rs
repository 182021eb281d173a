//! The speaker's core: the routes of all peers, the decision, and what each peer is sent. Sans-IO: calls and octets in,
//! [`Output`] out, [`Speaker::deadline`] says when to call [`Speaker::tick`], [`Speaker::work`] does a bounded slice of what is
//! left to do.
//!
//! ```text
//! routes(peer) -> import policy -> Table (one a family) -> best changed -> dirty set of each export group and of the FIB
//! work()       -> export group: dirty set -> current best -> export policy -> UPDATEs, once for all its members
//! ```

mod best;
mod chunk;
mod core;
mod export;
mod group;
mod import;
mod limits;
mod nexthop;
mod observe;
mod originate;
mod pace;
mod paths;
mod peers;
mod plane;
mod restart;
mod show;

pub use core::{Batch, Output, PeerChange, Speaker};
pub use observe::{Observed, TableSlice};

#[cfg(test)]
pub(crate) mod bench;
#[cfg(test)]
mod tests;
