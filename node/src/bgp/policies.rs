//! The policies of the fabric's sessions, as data: what comes in and what goes out.
//! One policy of each kind for all peers, shared, so that the speaker builds its UPDATEs once for all of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use twill_bgp::policy::{
    Action, Condition, LearnedFrom, PREFIX_RULES_MAX, Policy, PrefixRule, PrefixSet, SessionType, Term,
    Verdict,
};

use crate::fabric::Fabric;

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

/// The shared policies, and what did not fit into them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policies {
    pub(super) import_external: Arc<Policy>,
    pub(super) import_internal: Arc<Policy>,
    pub(super) export: Arc<Policy>,
    pub(super) warnings: Vec<String>,
}

impl Policies {
    pub(super) fn new(fabric: &Fabric, ours: &BTreeSet<IpNet>) -> Self {
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
        let pools = bounded(
            "IPPools",
            fabric.pools.values().map(|p| p.spec.cidr.masked()).collect(),
        );
        let hidden = fabric.pools.values().filter(|p| p.spec.disable_bgp_export);
        let hidden = bounded(
            "IPPools with disableBGPExport",
            hidden.map(|p| p.spec.cidr.masked()).collect(),
        );
        let blocks = ours.iter().filter(|net| net.prefix_len() < net.max_prefix_len());
        let blocks = bounded("own blocks", blocks.copied().collect());
        Self {
            import_external: import_external(&pools),
            import_internal: import_internal(),
            export: export(&pools, &hidden, &blocks),
            warnings,
        }
    }
}

/// Everything but martians and prefixes inside our own pools: nobody outside may draw pods' traffic to himself.
fn import_external(pools: &[IpNet]) -> Arc<Policy> {
    let inside_pools = PrefixSet::within(pools.iter().copied());
    Arc::new(Policy {
        terms: vec![
            Term::reject("martians", vec![Condition::Prefix(martians())]),
            Term::reject("inside our pools", vec![Condition::Prefix(inside_pools)]),
        ],
        default: Verdict::Accept,
    })
}

/// Other nodes are trusted, as Calico's are.
fn import_internal() -> Arc<Policy> {
    let terms = vec![Term::reject("martians", vec![Condition::Prefix(martians())])];
    Arc::new(Policy {
        terms,
        default: Verdict::Accept,
    })
}

/// Own blocks and borrowed addresses, nothing more specific inside own blocks, and what others announce inside pools:
/// that is how a router behind one node learns of all. The speaker itself never sends one internal peer's routes to another.
fn export(pools: &[IpNet], hidden: &[IpNet], own_blocks: &[IpNet]) -> Arc<Policy> {
    let inside_blocks = own_blocks.iter().map(|b| PrefixRule {
        ge: b.prefix_len() + 1,
        ..PrefixRule::within(*b)
    });
    let inside_blocks = Arc::new(PrefixSet {
        rules: inside_blocks.collect(),
    });
    let local = || Condition::LearnedFrom(vec![LearnedFrom::Local]);
    let inside_pools = Condition::Prefix(PrefixSet::within(pools.iter().copied()));
    Arc::new(Policy {
        terms: vec![
            Term::reject(
                "pools with disableBGPExport",
                vec![Condition::Prefix(PrefixSet::within(hidden.iter().copied()))],
            ),
            Term::reject("inside our blocks", vec![Condition::Prefix(inside_blocks)]),
            Term::accept("ours", vec![local()], vec![]),
            Term::change(
                "another node's",
                vec![
                    Condition::Session(SessionType::Ebgp),
                    Condition::LearnedFrom(vec![LearnedFrom::Ibgp]),
                ],
                vec![Action::Med(Some(MED_PASSED_ON))],
            ),
            Term::accept("inside pools", vec![inside_pools], vec![]),
        ],
        default: Verdict::Reject,
    })
}

fn martians() -> Arc<PrefixSet> {
    PrefixSet::within(MARTIANS.iter().filter_map(|net| net.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a policy does with a route, its changes aside.
    fn verdict(policy: &Policy, prefix: &str, from: LearnedFrom) -> Verdict {
        let prefix: IpNet = prefix.parse().unwrap();
        let holds = |condition: &Condition| match condition {
            Condition::Prefix(set) => set.contains(prefix),
            Condition::LearnedFrom(kinds) => kinds.contains(&from),
            Condition::Session(_) => true,
            other => panic!("{other:?} is not used here"),
        };
        let decided = policy
            .terms
            .iter()
            .filter(|term| term.when.iter().all(holds))
            .find_map(|term| term.verdict);
        decided.unwrap_or(policy.default)
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn every_martian_is_a_prefix() {
        assert_eq!(martians().rules.len(), MARTIANS.len());
    }

    #[test]
    fn outsiders_bring_everything_but_martians_and_our_pools() {
        let policy = import_external(&nets(&["10.244.0.0/16", "fd00:10::/48"]));
        let check =
            |prefix, expected| assert_eq!(verdict(&policy, prefix, LearnedFrom::Ebgp), expected, "{prefix}");
        for good in ["0.0.0.0/0", "192.0.2.0/24", "10.0.0.0/8", "::/0", "2001:db8::/32"] {
            check(good, Verdict::Accept);
        }
        for bad in [
            "10.244.0.0/16",
            "10.244.3.64/26",
            "10.244.1.1/32",
            "127.0.0.0/8",
            "0.0.0.0/8",
            "224.1.0.0/16",
            "fe80::/64",
            "fd00:10::/64",
        ] {
            check(bad, Verdict::Reject);
        }
    }

    #[test]
    fn own_blocks_go_out_whole_and_nothing_inside_them_does() {
        let policy = export(
            &nets(&["10.244.0.0/16", "10.245.0.0/16"]),
            &nets(&["10.245.0.0/16"]),
            &nets(&["10.244.0.0/26"]),
        );
        let check = |prefix, from, expected| {
            assert_eq!(verdict(&policy, prefix, from), expected, "{prefix} {from:?}")
        };
        check("10.244.0.0/26", LearnedFrom::Local, Verdict::Accept);
        check("10.244.9.7/32", LearnedFrom::Local, Verdict::Accept);
        check("10.244.0.5/32", LearnedFrom::Ibgp, Verdict::Reject);
        check("10.244.0.5/32", LearnedFrom::Local, Verdict::Reject);
        check("10.244.1.0/26", LearnedFrom::Ibgp, Verdict::Accept);
        check("192.0.2.0/24", LearnedFrom::Ebgp, Verdict::Reject);
        check("10.245.0.0/26", LearnedFrom::Local, Verdict::Reject);
    }
}
