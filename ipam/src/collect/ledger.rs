//! What was seen when, and what follows from it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use twill_model::AffinityOwner;

use super::{Leak, LeakId, Scan, Why};
use crate::sweep::{Sweep, Take};

/// Remembers leaks from one observation to the next.
#[derive(Clone, Debug)]
pub struct Collector {
    grace_ms: u64,
    first_seen: BTreeMap<LeakId, u64>,
}

impl Collector {
    /// A collector that has seen nothing and waits so long before it believes what it sees.
    #[must_use]
    pub fn new(grace_ms: u64) -> Self {
        Self {
            grace_ms,
            first_seen: BTreeMap::new(),
        }
    }

    /// How long a leak must stand.
    #[must_use]
    pub fn grace_ms(&self) -> u64 {
        self.grace_ms
    }

    /// Changes how long a leak must stand. What was seen already counts from when it was.
    pub fn set_grace(&mut self, grace_ms: u64) {
        self.grace_ms = grace_ms;
    }

    /// How many leaks wait for their second observation.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.first_seen.len()
    }

    /// Takes in what was read at `began_ms` (the time before the read was sent, so that nothing seems older than it is) and says
    /// what has been so for the grace period. What is not there any more is forgotten.
    ///
    /// A handle's addresses are collected together or not at all.
    pub fn observe(&mut self, scan: &Scan, began_ms: u64) -> Vec<Leak> {
        let before = std::mem::take(&mut self.first_seen);
        let mut confirmed = Vec::new();
        let mut young: BTreeSet<&str> = BTreeSet::new();
        for leak in &scan.leaks {
            let id = leak.id();
            let since = before.get(&id).copied();
            let stood = since.is_some_and(|since| began_ms.saturating_sub(since) >= self.grace_ms);
            self.first_seen.insert(id, since.unwrap_or(began_ms));
            if stood {
                confirmed.push(leak.clone());
            } else {
                young.extend(handle_of(leak));
            }
        }
        confirmed.retain(|leak| handle_of(leak).is_none_or(|h| !young.contains(h)));
        confirmed
    }

    /// What to do about leaks: one sweep for each block, blocks in order.
    #[must_use]
    pub fn plan(leaks: &[Leak]) -> Vec<Sweep> {
        let mut sweeps: BTreeMap<IpNet, Sweep> = BTreeMap::new();
        for leak in leaks {
            let (Some(block), take, owner) = parts(leak) else {
                continue;
            };
            let sweep = sweeps.entry(block).or_insert_with(|| Sweep {
                block,
                take: Vec::new(),
                disown: None,
            });
            sweep.take.extend(take);
            if owner.is_some() {
                sweep.disown = owner;
            }
        }
        sweeps.into_values().collect()
    }

    /// Whether a sweep relies on a node's being gone: which.
    #[must_use]
    pub fn gone_nodes(leaks: &[Leak]) -> BTreeMap<IpNet, BTreeSet<String>> {
        let mut gone: BTreeMap<IpNet, BTreeSet<String>> = BTreeMap::new();
        for leak in leaks {
            match leak {
                Leak::Address {
                    block,
                    node: Some(node),
                    why: Why::NodeGone,
                    ..
                } => drop(gone.entry(*block).or_default().insert(node.clone())),
                Leak::Ownership { owner, block } => {
                    if let Some(host) = owner.host() {
                        gone.entry(*block).or_default().insert(host.to_owned());
                    }
                }
                _ => {}
            }
        }
        gone
    }
}

fn handle_of(leak: &Leak) -> Option<&str> {
    match leak {
        Leak::Address { handle, .. } => handle.as_deref(),
        _ => None,
    }
}

fn parts(leak: &Leak) -> (Option<IpNet>, Option<Take>, Option<AffinityOwner>) {
    match leak {
        Leak::Address {
            address,
            block,
            handle,
            sequence,
            guard,
            endpoint,
            ..
        } => {
            let take = Take {
                address: *address,
                handle: handle.clone(),
                sequence: *sequence,
                guard: guard.clone(),
                endpoint: endpoint.clone(),
            };
            (Some(*block), Some(take), None)
        }
        Leak::Ownership { owner, block } => (Some(*block), None, Some(owner.clone())),
        Leak::Idle { block, .. } => (Some(*block), None, None),
        Leak::Handle { .. } => (None, None, None),
    }
}
