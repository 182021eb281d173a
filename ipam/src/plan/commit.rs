//! A transaction that is ready to be sent, and what its reply means for those who take part.

use std::collections::BTreeSet;
use std::net::IpAddr;

use twill_datastore::{Bytes, Compare, KeyValue, Op, OpReply, RangeRequest, Revision, Target, Txn, TxnReply};

use crate::error::Error;
use crate::now::Now;
use crate::request::{Assigned, Released, Reply};
use crate::state::{Observed, State};

/// One request in a transaction.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: u64,
    /// What it is told on success, without the revision.
    pub(super) reply: Reply,
    /// What must hold of its handle.
    pub(super) handle_compare: Option<Compare>,
    pub(super) rider_compares: Vec<Compare>,
    /// Keys that its riders put.
    pub(super) puts: Vec<Bytes>,
}

/// A transaction with its meaning.
#[derive(Clone, Debug)]
pub struct Commit {
    txn: Txn,
    /// The compares in the order in which the else-branch reads them.
    reads: Vec<Compare>,
    members: Vec<Member>,
}

impl Commit {
    pub(super) fn new(compares: Vec<Compare>, ops: Vec<Op>, members: Vec<Member>) -> Self {
        let mut ranges = BTreeSet::new();
        let reads: Vec<Compare> = compares
            .iter()
            .filter(|c| ranges.insert(c.range.clone()))
            .cloned()
            .collect();
        // A compare over a wide range fails by its first keys as well as by all.
        let otherwise = reads
            .iter()
            .map(|c| Op::Range(RangeRequest::new(c.range.clone()).limit(2)))
            .collect();
        Self {
            txn: Txn::when(compares).then(ops).otherwise(otherwise),
            reads,
            members,
        }
    }

    /// Nothing: to raise the fence at the start, against what an earlier process of this node may have under way.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Vec::new(), Vec::new(), Vec::new())
    }

    /// What to send.
    #[must_use]
    pub fn txn(&self) -> &Txn {
        &self.txn
    }

    /// The requests that take part, by id.
    pub fn members(&self) -> impl Iterator<Item = u64> + '_ {
        self.members.iter().map(|m| m.id)
    }

    /// The keys that the riders of request `id` put; none if it takes no part.
    #[must_use]
    pub fn puts_of(&self, id: u64) -> Vec<Bytes> {
        self.members
            .iter()
            .find(|m| m.id == id)
            .map(|m| m.puts.clone())
            .unwrap_or_default()
    }

    /// What to do when the reply was lost, before anything else: raises the fence, so that this transaction can no longer be
    /// carried out if it was not, and reads what it compared.
    #[must_use]
    pub fn fence(&self, state: &State) -> Txn {
        let mut ops = vec![Op::put(state.fence_key().clone(), "{}")];
        ops.extend(self.reads_but_fence(state).map(|(_, op)| op.clone()));
        Txn::default().then(ops)
    }

    fn reads_but_fence(&self, state: &State) -> impl Iterator<Item = (&Bytes, &Op)> {
        let fence = state.fence_key().clone();
        let keys = self.reads.iter().map(|c| c.range.start());
        keys.zip(&self.txn.otherwise)
            .filter(move |(key, _)| **key != fence)
    }

    /// Every compare held: takes the writes into `state` and says what each member is told.
    pub fn committed(&self, state: &mut State, revision: Revision, now: Now) -> Vec<(u64, Reply)> {
        for op in &self.txn.then {
            let seen = match op {
                Op::Put { key, value, .. } => {
                    // Only handles are judged by when they were made; those put here over an old one are known.
                    let created = state.created(key).unwrap_or(revision);
                    Observed::Put {
                        key: key.clone(),
                        value: value.clone(),
                        revision,
                        created,
                    }
                }
                Op::Delete { range } => Observed::Absent {
                    key: range.start().clone(),
                    at: revision,
                },
                Op::Range(_) => continue,
            };
            state.observe(&seen, now);
        }
        let mut freed: Vec<IpAddr> = Vec::new();
        let told = self.members.iter().map(|member| {
            let reply = match &member.reply {
                Reply::Assigned(a) => Reply::Assigned(Assigned {
                    revision,
                    ..a.clone()
                }),
                Reply::Released(r) => {
                    freed.extend(&r.addresses);
                    Reply::Released(Released {
                        revision,
                        ..r.clone()
                    })
                }
                Reply::Done => Reply::Done,
            };
            (member.id, reply)
        });
        let told = told.collect();
        state.cool(&freed, now);
        told
    }

    /// A compare did not hold, nothing was written: takes what the else-branch read into `state` and answers those
    /// whose own riders were to blame. All others can be planned again.
    pub fn refused(&self, state: &mut State, reply: &TxnReply, now: Now) -> Vec<(u64, Error)> {
        self.take_in(state, &reply.responses, reply.revision, now);
        let found = |range| {
            let at = self.reads.iter().position(|c| c.range == range);
            at.and_then(|at| reply.responses.get(at))
                .map_or(&[][..], OpReply::kvs)
        };
        let blamed = self.members.iter().filter_map(|member| {
            let failed = member
                .rider_compares
                .iter()
                .find(|c| !holds(c, found(c.range.clone())))?;
            let key = failed.range.start().clone();
            let found = found(failed.range.clone()).first().cloned().map(Box::new);
            Some((member.id, Error::RiderConflict { key, found }))
        });
        blamed.collect()
    }

    /// The fence is up: takes in what is there now, and for good. Planning the members again finds what they hold.
    pub fn fenced(&self, state: &mut State, reply: &TxnReply, now: Now) {
        let (fence, at) = (state.fence_key().clone(), reply.revision);
        let read: Vec<Bytes> = self.reads_but_fence(state).map(|(key, _)| key.clone()).collect();
        let up = Observed::Put {
            key: fence,
            value: Bytes::from_static(b"{}"),
            revision: at,
            created: at,
        };
        state.observe(&up, now);
        for (key, response) in read.into_iter().zip(reply.responses.iter().skip(1)) {
            let kv = response.kvs().iter().find(|kv| kv.key == key);
            state.observe(&Observed::read(key.clone(), kv, at), now);
        }
    }

    fn take_in(&self, state: &mut State, responses: &[OpReply], revision: Revision, now: Now) {
        for (compare, response) in self.reads.iter().zip(responses) {
            let key: &Bytes = compare.range.start();
            let kv = response.kvs().iter().find(|kv| kv.key == key);
            state.observe(&Observed::read(key.clone(), kv, revision), now);
        }
    }
}

/// Whether `compare` holds for the keys read from its range.
fn holds(compare: &Compare, found: &[KeyValue]) -> bool {
    let absent_is_fine = match &compare.target {
        Target::ModRevision(n) => *n == 0,
        Target::Version(n) => *n == 0,
        Target::Present | Target::Value(_) => false,
    };
    if found.is_empty() {
        return absent_is_fine;
    }
    found.iter().all(|kv| match &compare.target {
        Target::ModRevision(n) => kv.mod_revision == *n,
        Target::Version(n) => kv.version == *n,
        Target::Present => true,
        Target::Value(v) => kv.value == v,
    })
}
