//! Addresses and handles freed by hand.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tonic::Status;
use twill_datastore::Store;
use twill_ipam::admin::{Named, ReleaseError, release};
use twill_ipam::system_clock;
use twill_proto::api::{ReleaseReply, ReleaseRequest};

/// Most addresses and handles of one request.
const MOST: usize = 10_000;

pub(super) async fn carry_out<S: Store>(store: &S, asked: ReleaseRequest) -> Result<ReleaseReply, Status> {
    if asked.addresses.len() > MOST || asked.handles.len() > MOST {
        return Err(Status::invalid_argument(format!(
            "at most {MOST} addresses and handles in one request"
        )));
    }
    let named = named(&asked)?;
    let done = release(store, &named, &Arc::new(system_clock())).await;
    let done = done.map_err(|error| match error {
        ReleaseError::Store(error) => super::unavailable(error),
        ReleaseError::Cluster(_) => Status::failed_precondition(error.to_string()),
    })?;
    let (released, handles) = (done.freed.len(), done.handles.len());
    tracing::info!(released, handles, "addresses freed for the command line");
    for (address, why) in &done.kept {
        tracing::info!(%address, why, "not freed for the command line");
    }
    let kept = named.addresses.keys().filter(|a| !done.freed.contains(a));
    Ok(ReleaseReply {
        released: count(released),
        not_released: kept.map(ToString::to_string).collect(),
        handles_deleted: count(handles),
        handles_skipped: count(named.handles.len().saturating_sub(handles)),
        errors: Vec::new(),
    })
}

fn named(asked: &ReleaseRequest) -> Result<Named, Status> {
    let mut addresses = BTreeMap::new();
    for one in &asked.addresses {
        let address: IpAddr = one
            .address
            .parse()
            .map_err(|_| Status::invalid_argument(format!("{:?} is not an IP address", one.address)))?;
        let handle = Some(one.handle.clone()).filter(|h| !h.is_empty());
        addresses.insert(address, (handle, one.sequence_number));
    }
    let handles = asked.handles.iter();
    let handles = handles.map(|h| (h.id.clone(), u64::try_from(h.revision).unwrap_or(0)));
    Ok(Named {
        addresses,
        handles: handles.collect(),
    })
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
