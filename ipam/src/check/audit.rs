//! The comparison itself, key by key.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use twill_datastore::Revision;
use twill_model::ipam::{AffinityState, Block, BlockAffinity, Handle};
use twill_model::kind::Kind;
use twill_model::{AffinityOwner, Key, ResourceKey};

use super::{BlockUsage, Problem, ProblemKind, Report, Usage};
use crate::keys;
use crate::pool::Pool;
use crate::resources;

/// Compares what it is shown. Show pools, reservations and endpoints first, then blocks, then handles and affinities:
/// [`check`](super::check) does.
#[derive(Debug, Default)]
pub struct Audit {
    problems: Vec<Problem>,
    pools: BTreeMap<String, Pool>,
    reserved: Vec<IpNet>,
    /// Addresses of endpoints, with the endpoint's key; those found allocated are taken out.
    endpoints: HashMap<IpAddr, Box<str>>,
    /// For each handle the blocks in which it holds addresses, and how many. Taken out when its handle is shown.
    held: HashMap<Box<str>, Vec<(IpNet, i64)>>,
    /// Blocks that have an owner whose affinity was not shown yet.
    owned: HashMap<IpNet, Box<str>>,
    blocks: HashSet<IpNet>,
    usage: Vec<BlockUsage>,
}

impl Audit {
    /// Takes in one key with its value.
    pub fn take(&mut self, key: &[u8], value: &[u8]) {
        let text = keys::text(key);
        let result = match Key::parse(&text) {
            Key::Block(cidr) => {
                self.blocks.insert(cidr);
                Block::decode(cidr, value)
                    .map(|block| self.block(&text, &block))
                    .map_err(|e| e.to_string())
            }
            Key::Handle(id) => Handle::decode(value)
                .map(|h| self.handle(&text, &id, &h))
                .map_err(|e| e.to_string()),
            Key::BlockAffinity(key) => BlockAffinity::decode(value)
                .map(|affinity| self.affinity(&text, &key.owner, key.block, &affinity.state))
                .map_err(|e| e.to_string()),
            Key::Resource(key) => self.resource(&text, &key, value),
            Key::IpamConfig => Ok(()),
            Key::Other(_) if text.starts_with(twill_model::key::IPAM) => {
                Err("no key of Calico's IPAM looks like this".to_owned())
            }
            Key::Other(_) => Ok(()),
        };
        if let Err(reason) = result {
            self.report(
                &text,
                ProblemKind::Unreadable,
                None,
                format!("cannot be read: {reason}"),
            );
        }
    }

    fn report(&mut self, key: &str, kind: ProblemKind, address: Option<IpAddr>, reason: String) {
        self.problems.push(Problem {
            key: key.to_owned(),
            kind,
            address,
            reason,
        });
    }

    fn resource(&mut self, text: &str, key: &ResourceKey, value: &[u8]) -> Result<(), String> {
        match key.kind {
            Kind::IpPool => {
                let pool = resources::pool(&key.name, value)?;
                self.pools.insert(key.name.clone(), pool);
            }
            Kind::IpReservation => self.reserved.extend(resources::reservation(value)?),
            Kind::WorkloadEndpoint => {
                for address in resources::endpoint_addresses(value)? {
                    self.endpoints.insert(address, text.into());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn block(&mut self, key: &str, block: &Block) {
        for reason in block.problems() {
            self.report(key, ProblemKind::BlockInvariant, None, reason);
        }
        let pool = self.pools.values().find(|p| p.cidr.contains(&block.cidr));
        self.usage.push(BlockUsage::of(block, pool, &self.reserved));
        if pool.is_none() {
            let reason = format!("block {} is in no IPPool", block.cidr);
            self.report(key, ProblemKind::OutsidePools, None, reason);
        }
        match &block.affinity {
            Some(owner) => drop(self.owned.insert(block.cidr, owner.as_str().into())),
            None => {
                if let Some(host) = block.host() {
                    self.owned.insert(block.cidr, format!("host:{host}").into());
                }
            }
        }
        for ordinal in (0u32..).take(block.allocations.len()) {
            let (Some(attribute), Some(address)) = (block.attribute(ordinal), block.address(ordinal)) else {
                continue;
            };
            if attribute.released_at.is_some() {
                continue;
            }
            let has_endpoint = self.endpoints.remove(&address).is_some();
            let Some(handle) = attribute.handle() else {
                let reason = format!("{address} (ordinal {ordinal}) is allocated to no handle");
                self.report(key, ProblemKind::NoHandle, Some(address), reason);
                continue;
            };
            match self.held.get_mut(handle) {
                Some(blocks) => match blocks.iter_mut().find(|(cidr, _)| *cidr == block.cidr) {
                    Some((_, count)) => *count += 1,
                    None => blocks.push((block.cidr, 1)),
                },
                None => drop(self.held.insert(handle.into(), vec![(block.cidr, 1)])),
            }
            // Tunnel addresses have a type, those of Services a service: neither has an endpoint.
            let of_workload = !["type", "service"]
                .iter()
                .any(|k| attribute.secondary.contains_key(*k));
            if of_workload && !has_endpoint {
                let reason = format!(
                    "{address} (ordinal {ordinal}) is allocated to {handle}, but no workload endpoint has it"
                );
                self.report(key, ProblemKind::NoEndpoint, Some(address), reason);
            }
        }
    }

    fn handle(&mut self, key: &str, id: &str, handle: &Handle) {
        let mut held = self.held.remove(id).unwrap_or_default();
        if handle.block.is_empty() {
            let reason = format!("handle {id} names no block");
            self.report(key, ProblemKind::HandleWithoutBlock, None, reason);
        }
        for (cidr, count) in &handle.block {
            let block = cidr.parse::<IpNet>().ok();
            let at = held.iter().position(|(known, _)| Some(*known) == block);
            match at.map(|at| held.remove(at).1) {
                Some(found) if found == *count => {}
                Some(found) => {
                    let reason =
                        format!("handle {id} counts {count} addresses in {cidr}, the block holds {found}");
                    self.report(key, ProblemKind::HandleCount, None, reason);
                }
                None => {
                    let known = block.is_some_and(|b| self.blocks.contains(&b));
                    let what = if known {
                        "which holds no address for it"
                    } else {
                        "which does not exist"
                    };
                    let reason = format!("handle {id} names block {cidr}, {what}");
                    self.report(key, ProblemKind::HandleWithoutBlock, None, reason);
                }
            }
        }
        for (cidr, found) in held {
            let reason =
                format!("handle {id} does not name block {cidr}, which holds {found} addresses for it");
            self.report(key, ProblemKind::HandleCount, None, reason);
        }
    }

    fn affinity(&mut self, key: &str, owner: &AffinityOwner, cidr: IpNet, state: &AffinityState) {
        let is_owner = self
            .owned
            .get(&cidr)
            .is_some_and(|known| **known == *owner.to_string());
        if is_owner {
            self.owned.remove(&cidr);
            if !state.is_confirmed() {
                let reason = format!(
                    "{owner} owns block {cidr}, but its affinity is {:?}",
                    String::from(state.clone())
                );
                self.report(key, ProblemKind::AffinityUnconfirmed, None, reason);
            }
            return;
        }
        let what = if self.blocks.contains(&cidr) {
            "belongs to someone else"
        } else {
            "does not exist"
        };
        let reason = format!("{owner} has an affinity for block {cidr}, which {what}");
        self.report(key, ProblemKind::AffinityWithoutBlock, None, reason);
    }

    /// Everything has been shown, at `revision`.
    #[must_use]
    pub fn finish(mut self, revision: Revision) -> Report {
        for (id, blocks) in std::mem::take(&mut self.held) {
            for (cidr, count) in blocks {
                let reason = format!("{count} addresses are allocated to handle {id}, which does not exist");
                self.report(&Key::block(cidr).path(), ProblemKind::MissingHandle, None, reason);
            }
        }
        for (cidr, owner) in std::mem::take(&mut self.owned) {
            let reason = format!("block {cidr} belongs to {owner}, who has no affinity for it");
            self.report(
                &Key::block(cidr).path(),
                ProblemKind::BlockWithoutAffinity,
                None,
                reason,
            );
        }
        for (address, key) in std::mem::take(&mut self.endpoints) {
            if self.pools.values().any(|p| p.cidr.contains(&address)) {
                let reason = format!("{address} is this endpoint's, but it is not allocated");
                self.report(&key, ProblemKind::NotAllocated, Some(address), reason);
            }
        }
        self.problems.sort();
        let usage = Usage::sum(&self.pools, self.usage, &self.reserved);
        Report {
            revision,
            problems: self.problems,
            usage,
        }
    }
}
