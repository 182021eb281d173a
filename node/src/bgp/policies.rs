//! The policies of the fabric's sessions, as data: what comes in and what goes out, in calico-node's order (confd's BIRD
//! templates). Sessions with the same filters share one policy, so that the speaker builds its UPDATEs once for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use twill_bgp::policy::{
    Action, Condition, LearnedFrom, PREFIX_RULES_MAX, Policy, PrefixRule, PrefixSet, SessionType, TERMS_MAX,
    Term, Verdict,
};

use super::config::{Local, as_number, default_configuration, local_pref, node_configuration};
use super::filters::{self, Community, Direction, community};

/// LOCAL_PREF of a route is this less its metric.
pub(super) const LOCAL_PREF_BASE: u32 = i32::MAX.unsigned_abs();

/// Prefixes that no peer may send into a fabric: no route to them makes sense (RFC 6890, RFC 1122, RFC 4291). The default
/// route is none of them: only what lies *inside* 0.0.0.0/8 is.
const MARTIANS: [&str; 9] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::1/128",
    "::ffff:0:0/96",
    "fe80::/10",
    "ff00::/8",
];

/// MED of another node's block that we pass on to an external peer: the owner's own announcement, which has none, is then
/// the peer's best path, and the peer does not send the owner its own block back.
const MED_PASSED_ON: u32 = 1;

/// What all sessions of the node have in common, and the policies made so far.
#[derive(Debug)]
pub(super) struct Policies<'a> {
    local: &'a Local<'a>,
    /// The terms behind the filters.
    export: Vec<Term>,
    /// What comes in under strict import, behind the filters; nothing else does.
    strict: Vec<Term>,
    made: BTreeMap<(Vec<String>, bool), Pair>,
    pub(super) warnings: Vec<String>,
}

/// The two policies of a session.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) import: Arc<Policy>,
    pub(super) export: Arc<Policy>,
}

impl<'a> Policies<'a> {
    pub(super) fn new(local: &'a Local<'a>, ours: &BTreeSet<IpNet>) -> Self {
        let mut warnings = Vec::new();
        let mut bounded = |what: &str, mut nets: Vec<IpNet>| {
            if nets.len() > PREFIX_RULES_MAX {
                warnings.push(format!(
                    "{} {what}: only the first {PREFIX_RULES_MAX} are used in BGP policy",
                    nets.len()
                ));
                nets.truncate(PREFIX_RULES_MAX);
            }
            nets
        };
        let pools = &local.fabric.pools;
        let all = bounded("IPPools", pools.values().map(|p| p.spec.cidr.masked()).collect());
        let hidden = pools.values().filter(|p| p.spec.disable_bgp_export);
        let hidden = bounded(
            "IPPools with disableBGPExport",
            hidden.map(|p| p.spec.cidr.masked()).collect(),
        );
        let blocks = ours.iter().filter(|net| net.prefix_len() < net.max_prefix_len());
        let blocks = bounded("own blocks", blocks.copied().collect());
        let strict = strict(local, &all);
        let mut export = export(local, &all, &hidden, &blocks);
        let communities = communities(local, &mut warnings);
        // Behind what hides pools, in front of what decides.
        export.splice(1..1, communities);
        Self {
            local,
            export,
            strict,
            made: BTreeMap::new(),
            warnings,
        }
    }

    /// The policies of a session with these filters.
    ///
    /// # Errors
    /// Why the session must not run: a filter that cannot be obeyed.
    pub(super) fn of(&mut self, names: &[String], strict: bool) -> Result<Pair, String> {
        let key = (names.to_vec(), strict);
        if let Some(pair) = self.made.get(&key) {
            return Ok(pair.clone());
        }
        let fabric = self.local.fabric;
        let (mut import, mut export) = (Vec::new(), Vec::new());
        for name in names {
            // As in calico-node, one that does not exist filters nothing.
            let Some(filter) = fabric.bgp_filters.get(name) else {
                self.warnings.push(format!(
                    "BGPFilter {name} is named by a BGPPeer and does not exist"
                ));
                continue;
            };
            import.extend(filters::terms(name, filter, Direction::Import, fabric)?);
            export.extend(filters::terms(name, filter, Direction::Export, fabric)?);
        }
        // As with calico-node everybody is trusted with the rest, unless a BGPSessionPolicy says otherwise.
        let rest = if strict {
            import.extend(self.strict.iter().cloned());
            Verdict::Reject
        } else {
            Verdict::Accept
        };
        export.extend(self.export.iter().cloned());
        // Martians go first: no filter makes a route of them.
        import.insert(0, Term::reject("martians", vec![Condition::Prefix(martians())]));
        let policy = |terms: Vec<Term>, default| {
            let policy = Policy { terms, default };
            if policy.within_bounds() {
                Ok(Arc::new(policy))
            } else {
                Err(format!(
                    "its filters make more than {TERMS_MAX} terms, or one of more than {PREFIX_RULES_MAX} prefixes"
                ))
            }
        };
        let pair = Pair {
            import: policy(import, rest)?,
            export: policy(export, Verdict::Reject)?,
        };
        self.made.insert(key, pair.clone());
        Ok(pair)
    }
}

/// AS numbers of the fabric's nodes.
pub(super) fn own_asns(local: &Local<'_>) -> BTreeSet<u32> {
    let nodes = local.fabric.nodes.values();
    nodes.map(|node| as_number(node, local.fabric)).collect()
}

/// Strict import: nobody outside may draw the pods' traffic to himself. Inside the pools only what a node of the fabric
/// originated comes in from external peers, as it does where racks are ASes of their own; what lies neither in pools nor in
/// service ranges does not come in at all. A filter that accepts has decided before.
fn strict(local: &Local<'_>, pools: &[IpNet]) -> Vec<Term> {
    let by_a_node = Condition::AsPathOrigin(own_asns(local).into_iter().collect());
    let within = |nets: &[IpNet]| Condition::Prefix(PrefixSet::within(nets.iter().copied()));
    let services = super::announce::all_service_ranges(local.fabric);
    vec![
        Term::reject(
            "inside our pools",
            vec![
                Condition::LearnedFrom(vec![LearnedFrom::Ebgp]),
                within(pools),
                Condition::Not(Box::new(by_a_node)),
            ],
        ),
        Term::accept("strict: pools", vec![within(pools)], vec![]),
        Term::accept("strict: services", vec![within(&services)], vec![]),
    ]
}

/// Own blocks and borrowed addresses, nothing more specific inside own blocks but what overrides it, service prefixes, and
/// what others announce inside pools: that is how a router behind one node learns of all. The speaker itself never sends
/// one internal peer's routes to another, unless it reflects.
fn export(local: &Local<'_>, pools: &[IpNet], hidden: &[IpNet], own_blocks: &[IpNet]) -> Vec<Term> {
    let inside_blocks = own_blocks.iter().map(|b| PrefixRule {
        ge: b.prefix_len() + 1,
        ..PrefixRule::within(*b)
    });
    let inside_blocks = Arc::new(PrefixSet {
        rules: inside_blocks.collect(),
    });
    let ours = || Condition::LearnedFrom(vec![LearnedFrom::Local]);
    let within = |nets: &[IpNet]| Condition::Prefix(PrefixSet::within(nets.iter().copied()));
    let mut terms = vec![Term::reject("pools with disableBGPExport", vec![within(hidden)])];
    for (name, any) in [("elevated IPv4", "0.0.0.0/0"), ("elevated IPv6", "::/0")] {
        // An address on the move is announced from where it arrives, before the block's owner lets it go.
        let any: Vec<IpNet> = any.parse().into_iter().collect();
        let Some(normal) = any.first().map(|net| local_pref(local.fabric, net)) else {
            continue;
        };
        let elevated = Condition::LocalPref {
            least: normal.saturating_add(1),
            most: LOCAL_PREF_BASE,
        };
        let inside = Condition::Prefix(Arc::clone(&inside_blocks));
        terms.push(Term::accept(name, vec![within(&any), inside, elevated], vec![]));
    }
    terms.push(Term::reject(
        "inside our blocks",
        vec![Condition::Prefix(inside_blocks)],
    ));
    terms.push(Term::accept("ours", vec![ours()], vec![]));
    if local.cluster_id().is_some() {
        let services = super::announce::service_ranges(local.fabric);
        terms.push(Term::accept(
            "reflected services",
            vec![within(&services)],
            vec![],
        ));
    }
    terms.push(Term::change(
        "another node's",
        vec![
            Condition::Session(SessionType::Ebgp),
            Condition::LearnedFrom(vec![LearnedFrom::Ibgp]),
            within(pools),
        ],
        vec![Action::Med(Some(MED_PASSED_ON))],
    ));
    terms.push(Term::accept("inside pools", vec![within(pools)], vec![]));
    terms
}

/// Communities by `prefixAdvertisements`: the node's own if it has some, else the cluster's.
fn communities(local: &Local<'_>, warnings: &mut Vec<String>) -> Vec<Term> {
    let own = node_configuration(local.name, local.fabric);
    let config = own
        .filter(|c| !c.spec.prefix_advertisements.is_empty())
        .or_else(|| default_configuration(local.fabric));
    let Some(spec) = config.map(|c| &c.spec) else {
        return Vec::new();
    };
    let mut terms = Vec::new();
    for advertisement in &spec.prefix_advertisements {
        let Some(cidr) = &advertisement.cidr else { continue };
        let (mut standard, mut large) = (Vec::new(), Vec::new());
        for text in &advertisement.communities {
            let named = spec.communities.iter().find(|c| c.name == *text);
            match community(named.map_or(text, |c| &c.value)) {
                Ok(Community::Standard(value)) => standard.push(value),
                Ok(Community::Large(value)) => large.push(value),
                Err(reason) => {
                    warnings.push(format!("BGPConfiguration: prefixAdvertisements {cidr}: {reason}"))
                }
            }
        }
        let mut then = Vec::new();
        then.extend((!standard.is_empty()).then_some(Action::AddCommunities(standard)));
        then.extend((!large.is_empty()).then_some(Action::AddLargeCommunities(large)));
        let when = vec![Condition::Prefix(PrefixSet::within([cidr.masked()]))];
        terms.push(Term::change(format!("communities of {cidr}"), when, then));
    }
    if terms.len() > TERMS_MAX / 2 {
        warnings.push(format!(
            "BGPConfiguration: only the first {} of prefixAdvertisements are used",
            TERMS_MAX / 2
        ));
        terms.truncate(TERMS_MAX / 2);
    }
    terms
}

fn martians() -> Arc<PrefixSet> {
    PrefixSet::within(MARTIANS.iter().filter_map(|net| net.parse().ok()))
}

#[cfg(test)]
mod tests;
