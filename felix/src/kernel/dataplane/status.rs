//! What the owner tells: which revision is in the kernel, what failed and why, counters.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::plan::IfName;

/// The state of the kernel after the owner's last turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Revision of the desired state whose table is in the kernel. 0: only the base table, or what was found.
    pub revision: u64,
    /// That state was in sync, so that what it does not hold was removed.
    pub in_sync: bool,
    /// Each endpoint of that state by the host side of its link.
    pub endpoints: BTreeMap<IfName, EndpointStatus>,
    /// Why the table of a later state is not in the kernel.
    pub table_error: Option<String>,
    /// Routes that failed, and why. They are tried again.
    pub failed_routes: BTreeMap<IpNet, String>,
    /// Routes that are kept back because their next hop is not reached. A notification of the kernel ends this.
    pub withheld: Withheld,
    /// How the addresses of [`super::Handle::track`] and the next hops of routes are reached.
    pub reach: Arc<BTreeMap<IpAddr, Reach>>,
    /// Whatever else failed in the last turn.
    pub error: Option<String>,
    /// Counters since the start.
    pub counters: Counters,
}

/// Routes learned by BGP that are not in the kernel because none of their next hops is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withheld {
    /// How many.
    pub routes: usize,
    /// Why, by next hop; the first [`UNREACHED_TOLD_MAX`].
    pub next_hops: BTreeMap<IpAddr, String>,
}

/// Next hops that a status names: enough for people.
pub const UNREACHED_TOLD_MAX: usize = 32;

/// How an address is reached by routes that are not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is a neighbour on the interface with this index.
    OnLink(u32),
    /// It is behind gateways on the interfaces with these indexes.
    Via(Vec<u32>),
    /// It is not.
    Unreached(String),
}

/// One endpoint in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointStatus {
    /// Policy, link and routes are in place.
    Programmed,
    /// Its interface is not there yet, or has no carrier yet. A notification of the kernel ends this.
    Waiting(String),
    /// Something was refused. It is tried again.
    Failed(String),
}

/// Counters since the start; all only grow, but for the last durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Turns of the owner.
    pub turns: u64,
    /// Batches that changed the table.
    pub table_batches: u64,
    /// Of these, batches of elements only.
    pub table_element_batches: u64,
    /// Of these, replacements of the whole table.
    pub table_rebuilds: u64,
    /// Operations in all batches.
    pub table_operations: u64,
    /// Attempts to write the table that failed.
    pub table_failures: u64,
    /// Duration of the last batch.
    pub table_last: Duration,
    /// Routes added or replaced.
    pub routes_written: u64,
    /// Routes deleted.
    pub routes_deleted: u64,
    /// BGP routes refused because of the bound on prefixes.
    pub bgp_routes_refused: u64,
    /// Settings, neighbours and addresses of links that were written.
    pub links_written: u64,
    /// Changes by others in what is ours, noticed and repaired.
    pub repairs: u64,
    /// Full comparisons with the kernel.
    pub resyncs: u64,
    /// Duration of the last turn.
    pub turn_last: Duration,
}

impl Status {
    /// What is missing for an endpoint to be programmed as of a revision; `None` when nothing is.
    #[must_use]
    pub fn missing(&self, link: &IfName, revision: u64) -> Option<String> {
        if self.revision < revision {
            let now = format!(
                "the kernel is at revision {}, not yet at {revision}",
                self.revision
            );
            return Some(match &self.table_error {
                Some(error) => format!("{now}: {error}"),
                None => now,
            });
        }
        match self.endpoints.get(link) {
            Some(EndpointStatus::Programmed) => None,
            Some(EndpointStatus::Failed(reason) | EndpointStatus::Waiting(reason)) => Some(reason.clone()),
            None => Some(format!(
                "revision {} holds no endpoint of this node with this interface",
                self.revision
            )),
        }
    }

    /// Whether everything that is known to be desired is in the kernel.
    #[must_use]
    pub fn healthy(&self) -> bool {
        let up = |e: &EndpointStatus| !matches!(e, EndpointStatus::Failed(_));
        self.table_error.is_none()
            && self.error.is_none()
            && self.failed_routes.is_empty()
            && self.endpoints.values().all(up)
    }
}
