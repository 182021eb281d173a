//! Our requests as etcd's, and etcd's replies as ours.

use etcd_client::{
    Compare as EtcdCompare, CompareOp, DeleteOptions, GetOptions, GetResponse, KeyValue as EtcdKeyValue,
    PutOptions, ResponseHeader, Txn as EtcdTxn, TxnOp, TxnOpResponse, TxnResponse,
};

use crate::{
    Bytes, Commit, Compare, Consistency, KeyRange, KeyValue, Op, OpReply, RangeReply, RangeRequest, Revision,
    StoreError, Target, Txn, TxnReply,
};

/// etcd's start and end of a range: "\0" means the first key as a start, and no bound as an end.
pub(super) fn bounds(range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
    let start = if range.start().is_empty() {
        vec![0]
    } else {
        range.start().to_vec()
    };
    let end = range.end().map_or_else(|| vec![0], |end| end.to_vec());
    (start, end)
}

/// Revisions are positive and below 2^63.
pub(super) fn revision_to_etcd(revision: Revision) -> Result<i64, StoreError> {
    i64::try_from(revision).map_err(|_| StoreError::invalid(format!("revision {revision} cannot exist")))
}

/// For numbers that need no error: beyond what etcd counts, nothing matches.
fn saturating(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn header_revision(header: Option<&ResponseHeader>) -> Result<Revision, StoreError> {
    header
        .and_then(|header| Revision::try_from(header.revision()).ok())
        .ok_or_else(|| StoreError::Other {
            reason: "a reply without a revision".to_owned(),
            commit: Commit::Unknown,
        })
}

pub(super) fn range(request: &RangeRequest) -> (Vec<u8>, GetOptions) {
    let (start, end) = bounds(&request.effective_range());
    let mut options = GetOptions::new()
        .with_range(end)
        .with_limit(i64::from(request.limit));
    if let Some(revision) = request.revision {
        options = options.with_revision(saturating(revision));
    }
    if request.keys_only {
        options = options.with_keys_only();
    }
    if request.consistency == Consistency::Serialisable {
        options = options.with_serializable();
    }
    (start, options)
}

pub(super) fn range_reply(mut reply: GetResponse) -> Result<RangeReply, StoreError> {
    let revision = header_revision(reply.header())?;
    let more = reply.more();
    let kvs = reply.take_kvs().into_iter().map(key_value).collect();
    Ok(RangeReply { revision, kvs, more })
}

pub(super) fn key_value(kv: EtcdKeyValue) -> KeyValue {
    let (mod_revision, create_revision, version) = (kv.mod_revision(), kv.create_revision(), kv.version());
    let (key, value) = kv.into_key_value();
    KeyValue {
        key: Bytes::from(key),
        value: Bytes::from(value),
        mod_revision: number(mod_revision),
        create_revision: number(create_revision),
        version: number(version),
    }
}

pub(super) fn txn(txn: &Txn) -> EtcdTxn {
    EtcdTxn::new()
        .when(txn.compares.iter().map(compare).collect::<Vec<_>>())
        .and_then(txn.then.iter().map(op).collect::<Vec<_>>())
        .or_else(txn.otherwise.iter().map(op).collect::<Vec<_>>())
}

fn compare(compare: &Compare) -> EtcdCompare {
    let (start, end) = bounds(&compare.range);
    match &compare.target {
        Target::ModRevision(revision) => {
            EtcdCompare::mod_revision(start, CompareOp::Equal, saturating(*revision))
        }
        Target::Version(version) => EtcdCompare::version(start, CompareOp::Equal, saturating(*version)),
        Target::Present => EtcdCompare::version(start, CompareOp::Greater, 0),
        Target::Value(value) => EtcdCompare::value(start, CompareOp::Equal, value.to_vec()),
    }
    .with_range(end)
}

fn op(op: &Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            TxnOp::put(key.to_vec(), value.to_vec(), options)
        }
        Op::Delete { range: doomed } => {
            let (start, end) = bounds(doomed);
            TxnOp::delete(start, Some(DeleteOptions::new().with_range(end)))
        }
        Op::Range(request) => {
            let (start, options) = range(request);
            TxnOp::get(start, Some(options))
        }
    }
}

pub(super) fn txn_reply(reply: &TxnResponse) -> Result<TxnReply, StoreError> {
    let revision = header_revision(reply.header())?;
    let responses = reply.op_responses().into_iter().map(|response| match response {
        TxnOpResponse::Put(_) => Ok(OpReply::Put),
        TxnOpResponse::Delete(delete) => Ok(OpReply::Delete {
            deleted: number(delete.deleted()),
        }),
        TxnOpResponse::Get(mut get) => {
            let kvs = get.take_kvs().into_iter().map(key_value).collect();
            Ok(OpReply::Range(RangeReply {
                revision,
                more: get.more(),
                kvs,
            }))
        }
        TxnOpResponse::Txn(_) => Err(StoreError::Other {
            reason: "a reply to a nested transaction that was not asked for".to_owned(),
            commit: Commit::Unknown,
        }),
    });
    Ok(TxnReply {
        succeeded: reply.succeeded(),
        revision,
        responses: responses.collect::<Result<_, _>>()?,
    })
}
