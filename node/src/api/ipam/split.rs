//! One pool becomes several of equal size.

use tonic::Status;
use twill_datastore::Store;
use twill_datastore::client::birth;
use twill_ipam::admin::{SplitError, split_pool};
use twill_proto::api::{SplitPool, SplitReply, SplitRequest};

pub(super) async fn carry_out<S: Store>(store: &S, asked: &SplitRequest) -> Result<SplitReply, Status> {
    // A name wins over a CIDR, as with calicoctl.
    let wanted = if asked.name.is_empty() {
        &asked.cidr
    } else {
        &asked.name
    };
    let done = split_pool(store, wanted, asked.parts, birth)
        .await
        .map_err(status)?;
    tracing::info!(
        pool = done.pool,
        parts = done.parts.len(),
        "pool split for the command line"
    );
    let part = |(name, cidr): (String, ipnet::IpNet)| SplitPool {
        name,
        cidr: cidr.to_string(),
    };
    Ok(SplitReply {
        old_name: done.pool,
        pools: done.parts.into_iter().map(part).collect(),
    })
}

fn status(error: SplitError) -> Status {
    match error {
        SplitError::Store(error) => super::unavailable(error),
        SplitError::NotLocked => Status::failed_precondition(error.to_string()),
        SplitError::NoPool(_) => Status::not_found(error.to_string()),
        SplitError::Unreadable { .. } => Status::data_loss(error.to_string()),
        SplitError::Conflict(_) => Status::aborted(error.to_string()),
        _ => Status::invalid_argument(error.to_string()),
    }
}
