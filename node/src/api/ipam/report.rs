//! The facts of a check as messages.

use twill_datastore::Revision;
use twill_ipam::admin::{Fact, HandleState, ReportedAddress, ReportedBlock, ReportedHandle, Stray, Summary};
use twill_proto::api;
use twill_proto::api::report_reply::Fact as Message;
use twill_proto::api::{ReportAddress, ReportBlock, ReportHandle, ReportReply, ReportSummary, StrayAddress};

pub(super) fn message(fact: Fact) -> ReportReply {
    let fact = match fact {
        Fact::Block(found) => Message::Block(block(found)),
        Fact::Handle(found) => Message::Handle(handle(found)),
        Fact::Summary(found) => Message::Summary(summary(found)),
    };
    ReportReply { fact: Some(fact) }
}

fn block(found: ReportedBlock) -> ReportBlock {
    ReportBlock {
        cidr: found.cidr.to_string(),
        affinity: found.affinity,
        addresses: found.addresses.into_iter().map(address).collect(),
    }
}

fn address(found: ReportedAddress) -> ReportAddress {
    ReportAddress {
        address: found.address.to_string(),
        handle: found.handle,
        sequence_number: found.sequence,
        attributes: found.attributes,
        alternate_attributes: found.alternate_attributes,
        node: found.node,
        borrowed: found.borrowed,
        owners: found.owners,
        released: found.released,
    }
}

fn handle(found: ReportedHandle) -> ReportHandle {
    let state = match found.state {
        HandleState::Used => api::HandleState::Used,
        HandleState::Leaked => api::HandleState::Leaked,
        HandleState::Missing => api::HandleState::Missing,
    };
    ReportHandle {
        id: found.id,
        revision: number(found.revision),
        state: state.into(),
    }
}

fn summary(found: Summary) -> ReportSummary {
    let stray = |stray: Stray| StrayAddress {
        address: stray.address.to_string(),
        owners: stray.owners,
        in_pool: stray.in_pool,
    };
    ReportSummary {
        revision: number(found.revision),
        cluster_guid: found.cluster_guid,
        cluster_type: found.cluster_type,
        cluster_information_revision: number(found.cluster_information_revision),
        datastore_locked: found.is_locked,
        active_pools: found.active_pools.iter().map(ToString::to_string).collect(),
        node_tunnel_addresses: count(found.tunnel_addresses),
        workload_addresses: count(found.workload_addresses),
        addresses_in_use: count(found.addresses_in_use),
        strays: found.strays.into_iter().map(stray).collect(),
    }
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
