//! One write under a compare, with lost replies settled: the same compare is sent again; if it then fails, what is stored says
//! whether the first one went through.

use twill_model::ResourceKey;

use super::first_read;
use crate::{Bytes, Commit, Compare, KeyValue, Op, Revision, Store, StoreError, Txn};

/// How often a write is sent whose reply was lost.
const SENDS_MAX: u32 = 3;

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is stored, at this revision.
    Written(Revision),
    /// A compare failed; this is what is under the key.
    Refused(Option<KeyValue>),
}

/// Puts a value. One that is found in place of a lost reply counts as ours: a new object holds a random uid, and of two equal
/// replacements of one revision it does not matter whose was first.
pub(super) async fn put<S: Store>(
    store: &S,
    key: &ResourceKey,
    compares: Vec<Compare>,
    value: Bytes,
) -> Result<Ended, StoreError> {
    let txn = Txn::when(compares)
        .then(vec![Op::put(key.path(), value.clone())])
        .otherwise(vec![Op::get(key.path())]);
    send(store, txn, |found| {
        found.filter(|kv| kv.value == value).map(|kv| kv.mod_revision)
    })
    .await
}

/// Deletes a key that was read at a revision. Absence in place of a lost reply counts as ours.
pub(super) async fn delete<S: Store>(
    store: &S,
    key: &ResourceKey,
    revision: Revision,
) -> Result<Ended, StoreError> {
    let txn = Txn::when(vec![Compare::mod_revision(key.path(), revision)])
        .then(vec![Op::delete(key.path())])
        .otherwise(vec![Op::get(key.path())]);
    send(store, txn, |found| found.is_none().then_some(revision)).await
}

async fn send<S: Store>(
    store: &S,
    txn: Txn,
    is_ours: impl Fn(Option<&KeyValue>) -> Option<Revision>,
) -> Result<Ended, StoreError> {
    let mut lost: Option<StoreError> = None;
    for _ in 0..SENDS_MAX {
        match store.txn(txn.clone()).await {
            Ok(reply) if reply.succeeded => return Ok(Ended::Written(reply.revision)),
            Ok(reply) => {
                let found = first_read(&reply.responses);
                let ours = lost.as_ref().and_then(|_| is_ours(found.as_ref()));
                return match (ours, lost) {
                    (Some(revision), _) => Ok(Ended::Written(revision)),
                    (None, None) => Ok(Ended::Refused(found)),
                    // Somebody else has written: before us, or over us. Only the caller can judge.
                    (None, Some(lost)) => Err(lost),
                };
            }
            Err(error) if error.commit() == Commit::Unknown => lost = lost.or(Some(error)),
            // That this one did not happen says nothing of the one before.
            Err(error) => return Err(lost.unwrap_or(error)),
        }
    }
    Err(lost.unwrap_or_else(|| StoreError::Other {
        reason: "no attempt was made".to_owned(),
        commit: Commit::No,
    }))
}
