//! `twillctl ipam check`: calicoctl's account of addresses, then what else is wrong, with the key in etcd that is.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tonic::transport::Channel;
use twill_proto::api::ipam_client::IpamClient;
use twill_proto::api::report_reply::Fact;
use twill_proto::api::{
    CheckReply, CheckRequest, HandleState, ReportAddress, ReportBlock, ReportHandle, ReportRequest,
    ReportSummary,
};

use super::report::Report;
use super::said;
use crate::args::Check;
use crate::client;
use crate::config;
use crate::output::out;

/// Nodes that are listed by their number of addresses.
const NODES_SHOWN: usize = 20;

pub(super) async fn run(daemon: &config::Target, asked: &Check) -> Result<ExitCode> {
    let mut client = IpamClient::new(client::connect(daemon).await?);
    if asked.json && asked.output.is_none() {
        let reply = problems(&mut client).await?;
        out!(ln
            "{}",
            serde_json::to_string_pretty(&as_json(&reply)).context("printing JSON")?
        );
        return Ok(verdict(&reply));
    }
    let account = account(&mut client).await?;
    let reply = problems(&mut client).await?;
    if asked.json {
        out!(ln
            "{}",
            serde_json::to_string_pretty(&as_json(&reply)).context("printing JSON")?
        );
    } else {
        account.print(asked);
        out!(ln "Checked IPAM at revision {}.", reply.revision);
        for problem in &reply.problems {
            out!(ln "  {}: {}: {}", problem.kind, problem.key, problem.message);
        }
        out!(ln "Check complete; found {} problems.", reply.problems.len());
    }
    if let Some(file) = &asked.output {
        account.report().write(file)?;
    }
    Ok(verdict(&reply))
}

async fn problems(client: &mut IpamClient<Channel>) -> Result<CheckReply> {
    let reply = client.check(CheckRequest {}).await.map_err(|e| said(&e));
    Ok(reply.context("checking addresses")?.into_inner())
}

fn verdict(reply: &CheckReply) -> ExitCode {
    if reply.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn as_json(reply: &CheckReply) -> Value {
    let problem = |p: &twill_proto::api::Problem| json!({"kind": p.kind, "key": p.key, "message": p.message});
    json!({
        "ok": reply.problems.is_empty(),
        "revision": reply.revision,
        "blocks": reply.blocks,
        "allocations": reply.allocations,
        "problems": reply.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}

/// All facts of one report.
#[derive(Debug, Default)]
struct Account {
    blocks: Vec<ReportBlock>,
    handles: Vec<ReportHandle>,
    summary: ReportSummary,
}

async fn account(client: &mut IpamClient<Channel>) -> Result<Account> {
    let mut stream = client
        .report(ReportRequest {})
        .await
        .map_err(|e| said(&e))?
        .into_inner();
    let mut account = Account::default();
    while let Some(reply) = stream.message().await.map_err(|e| said(&e))? {
        match reply.fact {
            Some(Fact::Block(block)) => account.blocks.push(block),
            Some(Fact::Handle(handle)) => account.handles.push(handle),
            Some(Fact::Summary(summary)) => account.summary = summary,
            None => {}
        }
    }
    Ok(account)
}

impl Account {
    fn addresses(&self) -> impl Iterator<Item = &ReportAddress> {
        self.blocks.iter().flat_map(|b| &b.addresses)
    }

    fn report(&self) -> Report {
        let mut report = Report::default();
        report.describe(&self.summary);
        self.addresses().for_each(|a| report.add(a));
        self.handles.iter().for_each(|h| report.add_handle(h));
        report
    }

    fn print(&self, asked: &Check) {
        out!(ln "Checking IPAM for inconsistencies...\n");
        self.print_blocks(asked);
        self.print_users(asked);
        self.print_nodes();
        self.print_strays(asked.show_all_ips || asked.show_problem_ips);
        self.print_handles(asked);
    }

    fn print_blocks(&self, asked: &Check) {
        out!(ln "Loading all IPAM blocks...");
        out!(ln "Found {} IPAM blocks.", self.blocks.len());
        for block in &self.blocks {
            let affinity = if block.affinity.is_empty() {
                "<none>"
            } else {
                &block.affinity
            };
            out!(ln " IPAM block {} affinity={affinity}:", block.cidr);
            for address in block.addresses.iter().filter(|_| asked.show_all_ips) {
                out!(ln "  {} allocated; attrs {}", address.address, attributes(address));
            }
        }
        out!(ln "IPAM blocks record {} allocations.\n", self.addresses().count());
        out!(ln "Loading all IPAM pools...");
        for pool in &self.summary.active_pools {
            out!(ln "  {pool}");
        }
        out!(ln "Found {} active IP pools.\n", self.summary.active_pools.len());
    }

    fn print_users(&self, asked: &Check) {
        out!(ln "Loading all nodes.");
        let say = |of: &str| {
            let owned = self.addresses().map(|a| (&a.address, &a.owners));
            let strays = self.summary.strays.iter().map(|s| (&s.address, &s.owners));
            for (address, owners) in owned.chain(strays).filter(|_| asked.show_all_ips) {
                for owner in owners.iter().filter(|o| o.starts_with(of)) {
                    out!(ln "  {address} belongs to {owner}");
                }
            }
        };
        say("Node(");
        out!(ln "Found {} node tunnel IPs.\n", self.summary.node_tunnel_addresses);
        out!(ln "Loading all workload endpoints.");
        say("Workload(");
        out!(ln "Found {} workload IPs.", self.summary.workload_addresses);
        out!(ln "Workloads and nodes are using {} IPs.\n", self.summary.addresses_in_use);
    }

    fn print_nodes(&self) {
        out!(ln "Looking for top (up to {NODES_SHOWN}) nodes by allocations...");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for address in self.addresses() {
            *counts.entry(&address.node).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (node, count) in counts.iter().take(NODES_SHOWN) {
            out!(ln "  {node} has {count} allocations");
        }
        if let (Some((_, most)), Some((_, median))) = (counts.first(), counts.get(counts.len() / 2)) {
            out!(ln "Node with most allocations has {most}; median is {median}");
        }
        out!(ln "");
    }

    fn print_strays(&self, shown: bool) {
        out!(ln "Scanning for IPs that are allocated but not actually in use...");
        let leaked: Vec<_> = self
            .addresses()
            .filter(|a| a.owners.is_empty() && !a.released)
            .collect();
        for address in leaked.iter().filter(|_| shown) {
            out!(ln "  {} leaked; attrs {}", address.address, attributes(address));
        }
        out!(ln
            "Found {} IPs that are allocated in IPAM but not actually in use.",
            leaked.len()
        );
        out!(ln "Scanning for IPs that are in use by a workload or node but not allocated in IPAM...");
        let strays = &self.summary.strays;
        for stray in strays.iter().filter(|_| shown) {
            for owner in &stray.owners {
                let how = if stray.in_pool {
                    "and in active IPAM pool but has no IPAM allocation."
                } else {
                    "is not in any active IP pool."
                };
                out!(ln "  {} in use by {owner} {how}", stray.address);
            }
        }
        let inside = strays.iter().filter(|s| s.in_pool).count();
        out!(ln
            "Found {} in-use IPs that are not in active IP pools.",
            strays.len() - inside
        );
        out!(ln "Found {inside} in-use IPs that are in active IP pools but have no corresponding IPAM allocation.\n");
    }

    fn print_handles(&self, asked: &Check) {
        let count = |state| self.handles.iter().filter(|h| h.state() == state).count();
        let say = |state, words: &str, shown: bool| {
            for handle in self.handles.iter().filter(|h| shown && h.state() == state) {
                out!(ln "  {} {words}", handle.id);
            }
        };
        let (leaked, used) = (count(HandleState::Leaked), count(HandleState::Used));
        out!(ln "Scanning for IPAM handles with no matching IPs...");
        say(
            HandleState::Leaked,
            "doesn't have any active IPs.",
            asked.show_all_ips,
        );
        out!(ln "Found {leaked} handles with no matching IPs (and {used} handles with matches).");
        out!(ln "Scanning for IPs with missing handle...");
        say(
            HandleState::Missing,
            "is in use in a block but doesn't exist.",
            asked.show_all_ips || asked.show_problem_ips,
        );
        out!(ln
            "Found {} handles mentioned in blocks with no matching handle resource.",
            count(HandleState::Missing)
        );
    }
}

fn attributes(address: &ReportAddress) -> String {
    let pairs = |map: &BTreeMap<String, String>| {
        let pairs = map.iter().map(|(k, v)| format!("{k}={v}"));
        pairs.collect::<Vec<_>>().join(",")
    };
    let main = if address.handle.is_empty() {
        "<none>"
    } else {
        &address.handle
    };
    let mut text = format!("Main:{main} Extra:{}", pairs(&address.attributes));
    if !address.alternate_attributes.is_empty() {
        text.push_str(" Alternate:");
        text.push_str(&pairs(&address.alternate_attributes));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_written_as_calicoctl_writes_them() {
        let mut address = ReportAddress::default();
        assert_eq!(attributes(&address), "Main:<none> Extra:");
        address.handle = "h".into();
        address.attributes = [("pod", "p"), ("node", "n")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        assert_eq!(attributes(&address), "Main:h Extra:node=n,pod=p");
    }
}
