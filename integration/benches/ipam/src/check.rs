//! Invariants I1 to I10 of address management, checked from the whole history of the store and the workers' journals. It shares
//! no code with the allocator: blocks, handles and affinities are read as plain JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::history::Change;
use crate::journal::Line;
use crate::world::{self, PoolSpec};

const BLOCKS: [&str; 2] = [
    "/calico/ipam/v2/assignment/ipv4/block/",
    "/calico/ipam/v2/assignment/ipv6/block/",
];
const HANDLES: &str = "/calico/ipam/v2/handle/";
const AFFINITIES: &str = "/calico/ipam/v2/host/";

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An address has at most one holder at any revision.
    I1,
    /// What was answered is stored, with that handle, at the revision that the answer names or before.
    I2,
    /// What was answered stays until its release is asked for.
    I3,
    /// In the end: what is allocated is what is up, and all objects tell the same story.
    I4,
    /// A block has one owner; its affinity key and its own field agree.
    I5,
    /// Asking again gives the same; deleting frees nothing of others.
    I6,
    /// No address outside the pool, reserved, or of a disabled pool.
    I7,
    /// No gave-up by contention.
    I10,
}

/// A rule broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// When; 0 if it is about the end.
    pub revision: u64,
    /// What happened.
    pub what: String,
}

/// What a run amounts to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Rules broken, in order of time.
    pub violations: Vec<Violation>,
    /// Fresh assignments that callers were told of.
    pub assignments: usize,
    /// Revisions looked at.
    pub revisions: usize,
    /// Errors that callers were told of, by name.
    pub failures: BTreeMap<String, usize>,
    /// Times of fresh assignments in microseconds, sorted.
    pub micros: Vec<u64>,
}

/// From when to when a handle held an address.
#[derive(Clone, Debug)]
struct Span {
    address: IpAddr,
    from: u64,
    to: Option<u64>,
}

struct Block {
    affinity: Option<String>,
    held: BTreeMap<IpAddr, String>,
}

/// The store as it was at the revision that has been reached.
#[derive(Default)]
struct Replay {
    blocks: BTreeMap<String, Block>,
    affinities: BTreeMap<(String, String), String>,
    handles: BTreeMap<String, BTreeMap<String, i64>>,
    spans: BTreeMap<String, Vec<Span>>,
    holders: BTreeMap<IpAddr, String>,
    violations: Vec<Violation>,
}

/// Checks a run. `dead` names nodes whose pods were given up with them.
#[must_use]
pub fn check(
    history: &[Change],
    journals: &BTreeMap<String, Vec<Line>>,
    pools: &[PoolSpec],
    dead: &BTreeSet<String>,
) -> Verdict {
    let mut replay = Replay::default();
    let mut at = 0;
    let mut revisions = 0;
    while let Some(first) = history.get(at) {
        let revision = first.revision;
        let mut end = at;
        while history.get(end).is_some_and(|c| c.revision == revision) {
            end += 1;
        }
        replay.revision(history.get(at..end).unwrap_or_default(), revision, pools);
        revisions += 1;
        at = end;
    }
    let mut verdict = Verdict {
        revisions,
        ..Verdict::default()
    };
    let mut live: BTreeMap<IpAddr, String> = BTreeMap::new();
    for (node, lines) in journals.iter().filter(|(node, _)| !dead.contains(*node)) {
        replay.journal(node, lines, &mut verdict, &mut live);
    }
    replay.end(&live);
    verdict.violations = replay.violations;
    verdict.violations.sort_by_key(|v| v.revision);
    verdict.micros.sort_unstable();
    verdict
}

impl Replay {
    fn report(&mut self, rule: Rule, revision: u64, what: String) {
        self.violations.push(Violation { rule, revision, what });
    }

    fn revision(&mut self, changes: &[Change], revision: u64, pools: &[PoolSpec]) {
        let mut touched: BTreeSet<String> = BTreeSet::new();
        let mut taken: Vec<(IpAddr, String)> = Vec::new();
        for change in changes {
            if let Some(name) = BLOCKS.iter().find_map(|prefix| change.key.strip_prefix(prefix)) {
                touched.insert(name.to_owned());
                self.block(name, change, &mut taken);
            } else if let Some(rest) = change.key.strip_prefix(AFFINITIES) {
                let split = |version| rest.split_once(version);
                if let Some((host, block)) = split("/ipv4/block/").or_else(|| split("/ipv6/block/")) {
                    touched.insert(block.to_owned());
                    self.affinity(host, block, change);
                }
            } else if let Some(id) = change.key.strip_prefix(HANDLES) {
                match change.value.as_deref().and_then(counts) {
                    Some(counts) => drop(self.handles.insert(id.to_owned(), counts)),
                    None => drop(self.handles.remove(id)),
                }
            }
        }
        for (address, handle) in taken {
            if let Some(holder) = self.holders.get(&address) {
                let what = format!("{address} was given to {handle} while {holder} held it in another block");
                self.report(Rule::I1, revision, what);
            }
            self.judge_address(address, revision, pools);
            self.holders.insert(address, handle.clone());
            self.spans.entry(handle).or_default().push(Span {
                address,
                from: revision,
                to: None,
            });
        }
        self.ownership(&touched, revision);
    }

    /// A block as it is from now on: what left it is free, what came into it is taken.
    fn block(&mut self, name: &str, change: &Change, taken: &mut Vec<(IpAddr, String)>) {
        let revision = change.revision;
        let new = match change.value.as_deref().map(parse_block).transpose() {
            Ok(new) => new,
            Err(e) => {
                self.report(Rule::I4, revision, format!("block {name} cannot be read: {e}"));
                return;
            }
        };
        let before = self.blocks.remove(name).map(|b| b.held).unwrap_or_default();
        let after = new.as_ref().map(|b| b.held.clone()).unwrap_or_default();
        for (address, handle) in &before {
            if after.get(address) != Some(handle) {
                self.close(handle, *address, revision);
            }
        }
        for (address, handle) in after {
            match before.get(&address) {
                Some(same) if *same == handle => {}
                Some(other) => {
                    let what = format!("{address} went from {other} to {handle} without being free");
                    self.report(Rule::I1, revision, what);
                    taken.push((address, handle));
                }
                None => taken.push((address, handle)),
            }
        }
        if let Some(block) = new {
            self.blocks.insert(name.to_owned(), block);
        }
    }

    fn affinity(&mut self, host: &str, block: &str, change: &Change) {
        let key = (host.to_owned(), block.to_owned());
        let value = change.value.as_deref();
        match value.and_then(|v| serde_json::from_slice::<Value>(v).ok()) {
            Some(value) => {
                let state = value["state"].as_str().unwrap_or_default().to_owned();
                self.affinities.insert(key, state);
            }
            None => drop(self.affinities.remove(&key)),
        }
    }

    fn close(&mut self, handle: &str, address: IpAddr, revision: u64) {
        self.holders.remove(&address);
        let spans = self.spans.entry(handle.to_owned()).or_default();
        if let Some(span) = spans
            .iter_mut()
            .rev()
            .find(|s| s.address == address && s.to.is_none())
        {
            span.to = Some(revision);
        }
    }

    fn judge_address(&mut self, address: IpAddr, revision: u64, pools: &[PoolSpec]) {
        if !pools.iter().any(|pool| pool.cidr.contains(&address)) {
            self.report(Rule::I7, revision, format!("{address} is outside the pool"));
        }
        if pools
            .iter()
            .any(|pool| pool.reserved.iter().any(|net| net.contains(&address)))
        {
            self.report(Rule::I7, revision, format!("{address} is reserved"));
        }
    }

    /// I5 for the blocks that a revision touched.
    fn ownership(&mut self, touched: &BTreeSet<String>, revision: u64) {
        let mut found = Vec::new();
        for name in touched {
            let owner = self.blocks.get(name).and_then(|b| b.affinity.clone());
            let owner = owner.as_deref().and_then(|a| a.strip_prefix("host:"));
            if let Some(owner) = owner
                && !self.affinities.contains_key(&(owner.to_owned(), name.clone()))
            {
                found.push(format!("block {name} is {owner}'s, who has no affinity for it"));
            }
            for ((host, block), state) in &self.affinities {
                if block == name && state == "confirmed" && owner != Some(host) {
                    found.push(format!(
                        "{host} has a confirmed affinity for {name}, which is {owner:?}'s"
                    ));
                }
            }
        }
        for what in found {
            self.report(Rule::I5, revision, what);
        }
    }

    /// I2, I3, I6 and I10 for one node.
    fn journal(
        &mut self,
        node: &str,
        lines: &[Line],
        verdict: &mut Verdict,
        live: &mut BTreeMap<IpAddr, String>,
    ) {
        let mut up: BTreeMap<&str, (&[IpAddr], u64)> = BTreeMap::new();
        let mut asked: BTreeMap<&str, u64> = BTreeMap::new();
        for line in lines {
            match line {
                Line::Added {
                    handle,
                    addresses,
                    revision,
                    fresh,
                    micros,
                } => {
                    if let Some((had, _)) = up.get(handle.as_str())
                        && *had != addresses.as_slice()
                    {
                        let what = format!("a repeated ADD of {handle} gave {addresses:?}, it had {had:?}");
                        self.report(Rule::I6, *revision, what);
                    }
                    self.is_stored(handle, addresses, *revision);
                    up.insert(handle, (addresses, *revision));
                    if *fresh {
                        verdict.assignments += 1;
                        verdict.micros.push(*micros);
                    }
                }
                Line::Deleting { handle, revision } => {
                    up.remove(handle.as_str());
                    asked.entry(handle).or_insert(*revision);
                }
                Line::Failed { error, handle } => {
                    *verdict.failures.entry(error.clone()).or_default() += 1;
                    if error == "contended" {
                        self.report(
                            Rule::I10,
                            0,
                            format!("{node} gave {handle} up after too many attempts"),
                        );
                    }
                }
                Line::Adding { .. } | Line::Deleted { .. } => {}
            }
        }
        for line in lines {
            let Line::Added {
                handle,
                addresses,
                fresh: true,
                ..
            } = line
            else {
                continue;
            };
            self.is_kept(handle, addresses, asked.get(handle.as_str()).copied());
        }
        for (handle, (addresses, _)) in up {
            for address in addresses {
                if let Some(other) = live.insert(*address, handle.to_owned()) {
                    let what = format!("{address} is up as {other} and as {handle}");
                    self.report(Rule::I3, 0, what);
                }
            }
        }
    }

    fn is_stored(&mut self, handle: &str, addresses: &[IpAddr], revision: u64) {
        for address in addresses {
            let spans = self.spans.get(handle).map(Vec::as_slice).unwrap_or_default();
            let holds =
                |s: &Span| s.address == *address && s.from <= revision && s.to.is_none_or(|to| to > revision);
            if !spans.iter().any(holds) {
                let what = format!("{handle} was told of {address}, which it did not hold then");
                self.report(Rule::I2, revision, what);
            }
        }
    }

    /// Freed only after its release was asked for, and by nobody before.
    fn is_kept(&mut self, handle: &str, addresses: &[IpAddr], asked: Option<u64>) {
        for address in addresses {
            let spans = self.spans.get(handle).map(Vec::as_slice).unwrap_or_default();
            let ended = spans
                .iter()
                .filter(|s| s.address == *address)
                .filter_map(|s| s.to)
                .max();
            let wrong = match (ended, asked) {
                (Some(_), None) => Some("though nobody asked for its release"),
                (Some(to), Some(asked)) if to <= asked => Some("before its release was asked for"),
                _ => None,
            };
            if let (Some(to), Some(why)) = (ended, wrong) {
                self.report(Rule::I3, to, format!("{address} of {handle} was freed {why}"));
            }
        }
    }

    /// I4: the end.
    fn end(&mut self, live: &BTreeMap<IpAddr, String>) {
        let mut found = Vec::new();
        for (address, handle) in &self.holders {
            if live.get(address) != Some(handle) {
                found.push(format!("{address} is leaked: {handle} holds it, nobody has it"));
            }
        }
        for (address, handle) in live {
            if self.holders.get(address) != Some(handle) {
                found.push(format!("{address} is up as {handle}, but is not allocated to it"));
            }
        }
        let mut wanted: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
        for (name, block) in &self.blocks {
            let cidr = name.replacen('-', "/", 1);
            for handle in block.held.values() {
                *wanted
                    .entry(handle.clone())
                    .or_default()
                    .entry(cidr.clone())
                    .or_default() += 1;
            }
        }
        for (id, counts) in &self.handles {
            if wanted.get(id) != Some(counts) {
                found.push(format!(
                    "handle {id} says {counts:?}, blocks say {:?}",
                    wanted.get(id)
                ));
            }
        }
        let missing = wanted.keys().filter(|id| !self.handles.contains_key(*id));
        found.extend(missing.map(|id| format!("handle {id} does not exist")));
        for ((host, block), state) in &self.affinities {
            if state != "confirmed" {
                found.push(format!("{host}'s affinity for {block} is left {state}"));
            }
        }
        for what in found {
            self.report(Rule::I4, 0, what);
        }
    }
}

fn counts(value: &[u8]) -> Option<BTreeMap<String, i64>> {
    let value: Value = serde_json::from_slice(value).ok()?;
    let blocks = value["block"].as_object()?;
    Some(
        blocks
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), v.as_i64()?)))
            .collect(),
    )
}

/// Who holds what in a block: from `allocations` and `attributes`, with the free list as cross-check.
fn parse_block(value: &[u8]) -> Result<Block, String> {
    let value: Value = serde_json::from_slice(value).map_err(|e| e.to_string())?;
    let cidr: IpNet = value["cidr"]
        .as_str()
        .and_then(|c| c.parse().ok())
        .ok_or("no cidr")?;
    let allocations = value["allocations"].as_array().ok_or("no allocations")?;
    let size = 1usize << (cidr.max_prefix_len() - cidr.prefix_len());
    if allocations.len() != size {
        return Err(format!("{} allocations for {size} addresses", allocations.len()));
    }
    let mut held = BTreeMap::new();
    let mut used = BTreeSet::new();
    let mut free = 0;
    for (ordinal, index) in (0u32..).zip(allocations) {
        let Some(index) = index.as_u64() else {
            free += 1;
            continue;
        };
        used.insert(index);
        let attribute = usize::try_from(index)
            .ok()
            .and_then(|i| value["attributes"].get(i));
        let attribute = attribute.ok_or_else(|| format!("ordinal {ordinal} points beyond the attributes"))?;
        if attribute.get("releasedAt").is_some() {
            continue;
        }
        let handle = attribute["handle_id"].as_str().unwrap_or("nobody").to_owned();
        held.insert(world::address_at(&cidr, ordinal), handle);
    }
    let unallocated = value["unallocated"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let distinct: BTreeSet<u64> = unallocated.iter().filter_map(Value::as_u64).collect();
    if distinct.len() != free || unallocated.len() != free {
        return Err(format!(
            "{free} ordinals are free, {} are listed as such",
            unallocated.len()
        ));
    }
    let attributes = value["attributes"].as_array().map_or(0, Vec::len);
    if attributes != used.len() {
        return Err(format!("{attributes} attributes, {} in use", used.len()));
    }
    Ok(Block {
        affinity: value["affinity"].as_str().map(str::to_owned),
        held,
    })
}
