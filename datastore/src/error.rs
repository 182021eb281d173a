//! What can go wrong between a caller and the store, and whether a write may have happened all the same.

use std::time::Duration;

use crate::Revision;

/// What is known of a write whose call ended in an error.
///
/// A reply can be lost after the commit. Whoever gets [`Commit::Unknown`] reads back, linearised, before trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Commit {
    /// The write did not happen and never will.
    No,
    /// The write may have happened, or may still happen.
    Unknown,
}

/// A call to the store that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No member of the store could be reached, or the connection broke, or the store has no leader.
    #[error("the datastore cannot be reached: {reason}")]
    Unavailable {
        /// What the transport said.
        reason: String,
        /// Whether a write may have happened.
        commit: Commit,
    },
    /// The call's deadline passed.
    #[error("the datastore did not answer within {limit:?}")]
    Timeout {
        /// The deadline that the call had.
        limit: Duration,
        /// Whether a write may have happened.
        commit: Commit,
    },
    /// The revision asked for is no longer kept. List again at a current revision.
    #[error("the revision asked for has been compacted")]
    Compacted {
        /// The oldest revision that can still be read, when the store said.
        oldest: Option<Revision>,
    },
    /// The store is older than what was seen of it: a member that lags behind, or a store that was restored from a backup.
    #[error(
        "the datastore is at revision {now}, and revision {seen} was seen before: a member lags behind, or it was restored"
    )]
    Behind {
        /// Where it is.
        now: Revision,
        /// Where it was.
        seen: Revision,
    },
    /// The request or its reply is larger than a bound, the store's or ours.
    #[error("too large for the datastore: {reason}")]
    TooLarge {
        /// What was too large, and the bound.
        reason: String,
        /// Whether a write may have happened: yes when it was the reply that was too large.
        commit: Commit,
    },
    /// The request cannot be carried out by any store: it was refused before it was sent, or by the store's own checks.
    #[error("the datastore refused the request: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The store does not let this client do that.
    #[error("the datastore refused access: {reason}")]
    Auth {
        /// What the store said.
        reason: String,
    },
    /// Anything else.
    #[error("the datastore failed: {reason}")]
    Other {
        /// What the store said.
        reason: String,
        /// Whether a write may have happened.
        commit: Commit,
    },
}

impl StoreError {
    /// Whether the write of the failed call may have happened. Meaningless for reads.
    #[must_use]
    pub fn commit(&self) -> Commit {
        match self {
            Self::Unavailable { commit, .. }
            | Self::Timeout { commit, .. }
            | Self::TooLarge { commit, .. }
            | Self::Other { commit, .. } => *commit,
            Self::Compacted { .. } | Self::Behind { .. } | Self::Invalid { .. } | Self::Auth { .. } => {
                Commit::No
            }
        }
    }

    /// True if the same call may well succeed later: the store was away or slow, nothing is wrong with the request.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Timeout { .. } | Self::Behind { .. }
        )
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid {
            reason: reason.into(),
        }
    }
}
