//! From what is known and what is asked to one transaction. Pure: no store, no clock, no waiting.
//!
//! [`plan`] walks the requests in order. Each is answered at once, joins the transaction that is being drafted,
//! names keys that must be read first, or waits for the next round (because the transaction is full or an earlier
//! request of the same handle is in it). The transaction compares everything that it relies on: the blocks, their
//! affinities, the handles, the pools, the datastore's lock and the riders' own compares; its else-branch reads
//! the same keys, so that a refusal says at once whose compare failed ([`Commit::refused`]).
//!
//! Legal transactions beside Calico's own allocators: `docs/design/ipam.md`.

mod assign;
mod chore;
mod commit;
mod draft;
mod held;
mod release;
mod search;
mod specific;

pub use commit::Commit;

use twill_datastore::Bytes;
use twill_model::resources::ippool::AllowedUse;

use crate::error::Error;
use crate::now::Now;
use crate::request::{RIDERS_MAX, Reply, Request, WANTS_MAX, Work};
use crate::state::State;
use draft::Draft;

/// Most requests in one transaction. Sixty pods with a block each way stay below etcd's 128 compares and 128
/// operations, and the value of the block (20 kB full) is written once for all of them.
pub const GROUP_MAX: usize = 60;
/// Most operations, and most compares, that the requests of one transaction bring together. The rest up to
/// etcd's 128 is for blocks, affinities, pools and the lock.
pub const GROUP_OPS_MAX: usize = 120;

/// What to do next.
#[derive(Debug, Default)]
pub struct Plan {
    /// Requests that are done without a write, by id.
    pub answers: Vec<(u64, Result<Reply, Error>)>,
    /// The transaction for as many of the others as fit.
    pub commit: Option<Commit>,
    /// Keys to be read for requests that could not be planned, with the request's id.
    pub reads: Vec<(u64, Vec<Bytes>)>,
}

/// What becomes of one request.
enum Verdict {
    /// It is part of the drafted transaction.
    Joined,
    /// It is done.
    Answer(Result<Reply, Error>),
    /// These keys are needed first.
    Read(Vec<Bytes>),
    /// Not in this transaction.
    Later,
}

/// Why a request did not join.
enum Stop {
    Fail(Error),
    Read(Vec<Bytes>),
    Later,
    Done(Reply),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Fail(error)
    }
}

impl From<Stop> for Verdict {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Fail(error) => Self::Answer(Err(error)),
            Stop::Read(keys) => Self::Read(keys),
            Stop::Later => Self::Later,
            Stop::Done(reply) => Self::Answer(Ok(reply)),
        }
    }
}

/// Plans the next step for `requests`, in their order.
#[must_use]
pub fn plan<'r>(state: &State, requests: impl IntoIterator<Item = &'r Request>, now: Now) -> Plan {
    let mut plan = Plan::default();
    let mut draft = Draft::new(state, now);
    for request in requests {
        match judge(state, &mut draft, request) {
            Verdict::Joined | Verdict::Later => {}
            Verdict::Answer(answer) => plan.answers.push((request.id, answer)),
            Verdict::Read(keys) => {
                draft.block_handle(request);
                plan.reads.push((request.id, keys));
            }
        }
    }
    plan.commit = draft.finish();
    plan
}

fn judge(state: &State, draft: &mut Draft<'_>, request: &Request) -> Verdict {
    if draft.is_blocked(request) {
        return Verdict::Later;
    }
    if let Err(error) = check(state, request) {
        return Verdict::Answer(Err(error));
    }
    let joined = match &request.work {
        Work::Assign(assign) => assign::join(state, draft, request, assign),
        Work::Release(release) => release::join(state, draft, request, release),
        Work::Undo(undo) => release::undo(state, draft, request, undo),
        Work::Chore(chore) => chore::join(state, draft, request, *chore),
    };
    match joined {
        Ok(()) => Verdict::Joined,
        Err(stop) => {
            // Whatever waits must not be overtaken by a later request of the same handle.
            if matches!(stop, Stop::Later) {
                draft.block_handle(request);
            }
            stop.into()
        }
    }
}

/// What holds for every request.
fn check(state: &State, request: &Request) -> Result<(), Error> {
    match &state.cluster {
        None => return Err(Error::NoCluster),
        Some(cluster) if !cluster.value.is_ready => return Err(Error::Locked),
        Some(_) => {}
    }
    if let Some(riders) = request.work.riders()
        && (riders.ops > RIDERS_MAX || riders.compares.len() > RIDERS_MAX)
    {
        return Err(Error::BadRiders { limit: RIDERS_MAX });
    }
    if let Work::Assign(assign) = &request.work
        && (assign.handle.is_empty() || assign.wants.is_empty() || assign.wants.len() > WANTS_MAX)
    {
        return Err(Error::BadRequest { limit: WANTS_MAX });
    }
    if let Work::Assign(assign) = &request.work {
        let is_virtual = state.owner().host().is_none();
        if (assign.purpose == AllowedUse::LoadBalancer) != is_virtual {
            return Err(Error::WrongAllocator {
                purpose: assign.purpose,
                owner: state.owner().to_string(),
            });
        }
    }
    Ok(())
}

/// The keys of `wanted` that were not read for `request` before; an error if all of them were.
fn look(request: &Request, wanted: Vec<Bytes>) -> Stop {
    let keys: Vec<Bytes> = wanted
        .into_iter()
        .filter(|key| !request.looked.contains(key))
        .collect();
    if keys.is_empty() {
        return Stop::Fail(Error::Contended { attempts: 1 });
    }
    Stop::Read(keys)
}

#[cfg(test)]
mod tests;
