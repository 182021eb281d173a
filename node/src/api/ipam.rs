//! The service of addresses: how full, and how sound. Both from one pass over the store at one revision.

use ipnet::IpNet;
use tonic::{Request, Response, Status};
use twill_datastore::Store;
use twill_ipam::check::{Report, check};
use twill_proto::api::ipam_server::Ipam as Service;
use twill_proto::api::{CheckReply, CheckRequest, Grouping, Problem, ShowReply, ShowRequest, Usage};

use super::Api;

pub(super) struct Ipam<S> {
    store: S,
}

impl<S: Store> Ipam<S> {
    pub(super) fn new(api: Api<S>) -> Self {
        Self { store: api.store }
    }

    async fn report(&self) -> Result<Report, Status> {
        check(&self.store)
            .await
            .map_err(|e| Status::unavailable(e.to_string()))
    }
}

#[tonic::async_trait]
impl<S: Store> Service for Ipam<S> {
    async fn show(&self, request: Request<ShowRequest>) -> Result<Response<ShowReply>, Status> {
        let report = self.report().await?;
        Ok(Response::new(ShowReply {
            usage: lines(&report, request.into_inner().blocks),
        }))
    }

    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckReply>, Status> {
        let report = self.report().await?;
        let problem = |p: &twill_ipam::check::Problem| Problem {
            kind: p.kind.as_str().to_owned(),
            key: p.key.clone(),
            message: p.reason.clone(),
        };
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Ok(Response::new(CheckReply {
            revision: i64::try_from(report.revision).unwrap_or(i64::MAX),
            blocks: count(report.usage.blocks.len()),
            allocations: count(report.usage.blocks.iter().map(|b| b.used).sum()),
            problems: report.problems.iter().map(problem).collect(),
        }))
    }
}

/// One line for each pool and, if asked for, one for each of its blocks behind it.
fn lines(report: &Report, with_blocks: bool) -> Vec<Usage> {
    let mut lines = Vec::new();
    for pool in &report.usage.pools {
        lines.push(line(
            Grouping::IpPool,
            pool.cidr,
            pool.total,
            pool.used,
            pool.reserved,
        ));
        let inside = report
            .usage
            .blocks
            .iter()
            .filter(|b| with_blocks && pool.cidr.contains(&b.cidr));
        let wide = |n: usize| u128::try_from(n).unwrap_or(u128::MAX);
        lines.extend(inside.map(|b| {
            line(
                Grouping::Block,
                b.cidr,
                wide(b.total),
                wide(b.used),
                wide(b.reserved),
            )
        }));
    }
    lines
}

fn line(grouping: Grouping, cidr: IpNet, total: u128, used: u128, reserved: u128) -> Usage {
    Usage {
        grouping: grouping.into(),
        cidr: cidr.to_string(),
        total: total.to_string(),
        in_use: used.to_string(),
        reserved: reserved.to_string(),
        free: total.saturating_sub(used).saturating_sub(reserved).to_string(),
    }
}
