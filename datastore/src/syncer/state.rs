//! How a copy stands: what is told of it to health and metrics.

use std::time::Instant;

use crate::Revision;

/// What has happened so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Watches that broke and were opened again.
    pub reconnects: u64,
    /// Full listings, the first included.
    pub listings: u64,
    /// Of these, comparisons that nothing but time asked for.
    pub comparisons: u64,
    /// Keys that a comparison found other than the watch had told.
    pub mismatches: u64,
    /// Times that the store was found put back to an older state.
    pub restores: u64,
}

/// How well the copy follows the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// A watch is open.
    Connected,
    /// No contact since then: the copy is as it was, and may be old.
    StaleSince(Instant),
    /// Everything is being listed: at the start, or because history was compacted away.
    Resyncing,
}

/// How the copy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The newest revision that the copy has heard of.
    pub revision: Revision,
    /// A full pass has ended at some time.
    pub in_sync: bool,
    /// How well it follows.
    pub health: Health,
    /// What has happened so far.
    pub counts: Counts,
}
