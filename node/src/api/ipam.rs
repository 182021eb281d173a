//! The service of addresses: how full, and how sound. Both from one pass over the store at one revision.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::stream::{self, Stream};
use ipnet::IpNet;
use tonic::{Request, Response, Status};
use twill_datastore::{Store, StoreError};
use twill_ipam::admin::Walk;
use twill_ipam::check::{Report, check, holder};
use twill_proto::api::ipam_server::Ipam as Service;
use twill_proto::api::{
    CheckReply, CheckRequest, ConfigurationReply, ConfigurationRequest, ConfigureRequest, Grouping,
    HolderReply, HolderRequest, Problem, ReleaseReply, ReleaseRequest, ReportReply, ReportRequest, ShowReply,
    ShowRequest, SplitReply, SplitRequest, Usage,
};

use super::Api;

pub(super) mod config;
mod release;
mod report;
mod split;

pub(super) struct Ipam<S> {
    store: S,
}

pub(super) fn unavailable(error: StoreError) -> Status {
    if error.is_transient() {
        Status::unavailable(error.to_string())
    } else {
        Status::internal(error.to_string())
    }
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
    type ReportStream = Pin<Box<dyn Stream<Item = Result<ReportReply, Status>> + Send>>;

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<Self::ReportStream>, Status> {
        let walk = Walk::new(self.store.clone());
        // One page is read when the facts of the one before it have been taken.
        let facts = stream::try_unfold((walk, VecDeque::new()), |(mut walk, mut facts)| async move {
            loop {
                if let Some(fact) = facts.pop_front() {
                    return Ok(Some((report::message(fact), (walk, facts))));
                }
                match walk.next().await.map_err(unavailable)? {
                    Some(more) => facts = more,
                    None => return Ok(None),
                }
            }
        });
        Ok(Response::new(Box::pin(facts)))
    }

    async fn holder(&self, request: Request<HolderRequest>) -> Result<Response<HolderReply>, Status> {
        let text = request.into_inner().address;
        let address = text
            .parse()
            .map_err(|_| Status::invalid_argument(format!("{text:?} is not an IP address")))?;
        let found = holder(&self.store, address).await.map_err(unavailable)?;
        let attribute = found.and_then(|holder| holder.attribute);
        let attribute = attribute.filter(|a| a.released_at.is_none());
        let attribute = attribute.ok_or_else(|| Status::not_found("it is not assigned"))?;
        Ok(Response::new(HolderReply {
            handle: attribute.handle().unwrap_or_default().to_owned(),
            attributes: attribute.secondary,
            alternate_attributes: attribute.alternate_owner_attrs,
        }))
    }

    async fn configuration(
        &self,
        _: Request<ConfigurationRequest>,
    ) -> Result<Response<ConfigurationReply>, Status> {
        config::get(&self.store).await.map(Response::new)
    }

    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigurationReply>, Status> {
        config::set(&self.store, &request.into_inner())
            .await
            .map(Response::new)
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseReply>, Status> {
        release::carry_out(&self.store, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn split(&self, request: Request<SplitRequest>) -> Result<Response<SplitReply>, Status> {
        split::carry_out(&self.store, &request.into_inner())
            .await
            .map(Response::new)
    }

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
