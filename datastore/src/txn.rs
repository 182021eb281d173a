//! Transactions: compares, and what to do at one revision when all of them hold, or when one does not.

use bytes::Bytes;

use crate::{KeyRange, RangeReply, RangeRequest, Revision, StoreError};

/// The most compares in one transaction (etcd's `--max-txn-ops`, default 128).
pub const COMPARES_MAX: usize = 128;
/// The most operations in either branch of one transaction (etcd's `--max-txn-ops`, default 128).
pub const OPS_MAX: usize = 128;

/// The most bytes of keys and values in one transaction, both branches together (etcd's `--max-request-bytes`, default 1.5 MiB,
/// less room for the framing of 384 operations).
pub const REQUEST_BYTES_MAX: usize = 1_500_000;

/// A lease: keys put under it vanish with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

/// What a compared key must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Last written at this revision; 0 = absent.
    ModRevision(Revision),
    /// Written so often since it was made; 0 = absent.
    Version(u64),
    /// There, whatever its value.
    Present,
    /// There, with exactly this value.
    Value(Bytes),
}

/// One condition of a transaction.
///
/// Over a range, it holds if it holds for every key in it; an empty range counts as one absent key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The keys compared.
    pub range: KeyRange,
    /// What each must be.
    pub target: Target,
}

impl Compare {
    /// The key was last written at `revision` (0: it is absent).
    #[must_use]
    pub fn mod_revision(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self {
            range: KeyRange::key(key),
            target: Target::ModRevision(revision),
        }
    }

    /// The key was written `version` times since it was made (0: it is absent).
    #[must_use]
    pub fn version(key: impl Into<Bytes>, version: u64) -> Self {
        Self {
            range: KeyRange::key(key),
            target: Target::Version(version),
        }
    }

    /// The key is not there.
    #[must_use]
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self::version(key, 0)
    }

    /// The key is there.
    #[must_use]
    pub fn present(key: impl Into<Bytes>) -> Self {
        Self {
            range: KeyRange::key(key),
            target: Target::Present,
        }
    }

    /// The key is there with exactly this value.
    #[must_use]
    pub fn value(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            range: KeyRange::key(key),
            target: Target::Value(value.into()),
        }
    }

    /// No key is in the range: "nothing under this prefix" as an atomic guard.
    #[must_use]
    pub fn none_in(range: KeyRange) -> Self {
        Self {
            range,
            target: Target::Version(0),
        }
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write a value.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The lease that it lives under.
        lease: Option<LeaseId>,
    },
    /// Delete every key in a range.
    Delete {
        /// The keys. The caller sees to it that they are at most [`DELETE_KEYS_MAX`](crate::DELETE_KEYS_MAX).
        range: KeyRange,
    },
    /// Read, as the operations before it left things. At no revision of its own.
    Range(RangeRequest),
}

impl Op {
    /// Writes a value.
    #[must_use]
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        }
    }

    /// Writes a value that vanishes with a lease.
    #[must_use]
    pub fn put_leased(key: impl Into<Bytes>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
            lease: Some(lease),
        }
    }

    /// Deletes one key.
    #[must_use]
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete {
            range: KeyRange::key(key),
        }
    }

    /// Reads one key.
    #[must_use]
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Range(RangeRequest::key(key))
    }
}

/// A transaction: if every compare holds `then` runs, otherwise `otherwise` does, all at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions, at most [`COMPARES_MAX`]. None of them always holds.
    pub compares: Vec<Compare>,
    /// What to do if they hold, at most [`OPS_MAX`].
    pub then: Vec<Op>,
    /// What to do if one does not, at most [`OPS_MAX`].
    pub otherwise: Vec<Op>,
}

impl Txn {
    /// A transaction with conditions and nothing to do yet.
    #[must_use]
    pub fn when(compares: Vec<Compare>) -> Self {
        Self {
            compares,
            ..Self::default()
        }
    }

    /// What to do if the conditions hold.
    #[must_use]
    pub fn then(mut self, ops: Vec<Op>) -> Self {
        self.then = ops;
        self
    }

    /// What to do if one does not.
    #[must_use]
    pub fn otherwise(mut self, ops: Vec<Op>) -> Self {
        self.otherwise = ops;
        self
    }

    /// True if neither branch writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.then
            .iter()
            .chain(&self.otherwise)
            .all(|op| matches!(op, Op::Range(_)))
    }

    /// Refuses what no store would carry out. Stores call it before they send.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] above [`COMPARES_MAX`], [`OPS_MAX`] or [`REQUEST_BYTES_MAX`]; [`StoreError::Invalid`] if a key is empty, if one branch puts a
    /// key twice or puts and deletes it, or if a read is itself impossible or names a revision.
    pub fn check(&self) -> Result<(), StoreError> {
        let too_many = |what: &str, count: usize, limit: usize| StoreError::TooLarge {
            reason: format!("{count} {what} in one transaction, {limit} are possible"),
            commit: crate::Commit::No,
        };
        if self.compares.len() > COMPARES_MAX {
            return Err(too_many("compares", self.compares.len(), COMPARES_MAX));
        }
        for branch in [&self.then, &self.otherwise] {
            if branch.len() > OPS_MAX {
                return Err(too_many("operations", branch.len(), OPS_MAX));
            }
            check_branch(branch)?;
        }
        let bytes = self.bytes();
        if bytes > REQUEST_BYTES_MAX {
            Err(too_many("bytes", bytes, REQUEST_BYTES_MAX))
        } else {
            Ok(())
        }
    }

    /// The bytes of all keys and values in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let compares = self.compares.iter().map(|compare| {
            let value = if let Target::Value(value) = &compare.target {
                value.len()
            } else {
                0
            };
            compare.range.bytes() + value
        });
        let ops = self.then.iter().chain(&self.otherwise).map(|op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { range } | Op::Range(RangeRequest { range, .. }) => range.bytes(),
        });
        compares.chain(ops).sum()
    }
}

fn check_branch(ops: &[Op]) -> Result<(), StoreError> {
    let mut puts: Vec<&Bytes> = Vec::with_capacity(ops.len());
    for op in ops {
        match op {
            Op::Put { key, .. } if key.is_empty() => {
                return Err(StoreError::invalid("a put of the empty key"));
            }
            Op::Put { key, .. } => puts.push(key),
            Op::Range(request) if request.revision.is_some() => {
                return Err(StoreError::invalid("a read at a revision inside a transaction"));
            }
            Op::Range(request) => request.check()?,
            Op::Delete { .. } => {}
        }
    }
    puts.sort_unstable();
    if let Some(twice) = puts.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(StoreError::invalid(format!(
            "{} is put twice in one transaction",
            twice[0].escape_ascii()
        )));
    }
    let deletes = ops.iter().filter_map(|op| {
        if let Op::Delete { range } = op {
            Some(range)
        } else {
            None
        }
    });
    for range in deletes {
        let first = puts.partition_point(|key| *key < range.start());
        if let Some(key) = puts.get(first).filter(|key| range.contains(key)) {
            let key = key.escape_ascii();
            return Err(StoreError::invalid(format!(
                "{key} is put and deleted in one transaction"
            )));
        }
    }
    Ok(())
}

/// What one operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpReply {
    /// The value is written.
    Put,
    /// So many keys are gone.
    Delete {
        /// How many there were.
        deleted: u64,
    },
    /// What was read.
    Range(RangeReply),
}

impl OpReply {
    /// The keys read; empty for what is no read.
    #[must_use]
    pub fn kvs(&self) -> &[crate::KeyValue] {
        match self {
            Self::Range(reply) => &reply.kvs,
            Self::Put | Self::Delete { .. } => &[],
        }
    }
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnReply {
    /// Which branch ran: true = every compare held and `then` ran.
    pub succeeded: bool,
    /// The store's revision afterwards: the mod_revision of all that was put.
    pub revision: Revision,
    /// One reply per operation of the branch that ran, in order.
    pub responses: Vec<OpReply>,
}
