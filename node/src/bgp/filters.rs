//! The rules of BGPFilters as terms of the speaker's policies: same order, the first that matches decides.

use std::sync::Arc;

use ipnet::IpNet;
use twill_bgp::policy::{
    Action, Condition, LargeCommunity, LearnedFrom, PrefixRule, PrefixSet, SessionType, Term,
};
use twill_model::resources::BgpFilter;
use twill_model::resources::bgpfilter::{FilterPeerType, FilterRule, MatchOperator, MatchSource, Operation};
use twill_model::resources::ippool::EncapMode;

use super::policies::LOCAL_PREF_BASE;
use crate::fabric::Fabric;

/// Calico's names of the tunnel devices.
const IPIP_DEVICE: &str = "tunl0";
const VXLAN_DEVICES: [&str; 2] = ["vxlan.calico", "vxlan-v6.calico"];

/// Which way routes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Import,
    Export,
}

/// The terms of one filter.
///
/// # Errors
/// A rule that validation would have refused; the session must not run without it.
pub(super) fn terms(
    name: &str,
    filter: &BgpFilter,
    direction: Direction,
    fabric: &Fabric,
) -> Result<Vec<Term>, String> {
    let spec = &filter.spec;
    let (v4, v6) = match direction {
        Direction::Import => (&spec.import_v4, &spec.import_v6),
        Direction::Export => (&spec.export_v4, &spec.export_v6),
    };
    let mut terms = Vec::new();
    for (rules, field, whole) in [(v4, "V4", "0.0.0.0/0"), (v6, "V6", "::/0")] {
        let whole: IpNet = whole.parse().map_err(|_| "no such prefix".to_owned())?;
        for (place, rule) in rules.iter().enumerate() {
            let side = match direction {
                Direction::Import => "import",
                Direction::Export => "export",
            };
            let label = format!("BGPFilter {name} {side}{field}[{place}]");
            let made = rule_terms(&label, rule, whole, direction, fabric);
            terms.extend(made.map_err(|reason| format!("{label}: {reason}"))?);
        }
    }
    Ok(terms)
}

fn rule_terms(
    label: &str,
    rule: &FilterRule,
    whole: IpNet,
    direction: Direction,
    fabric: &Fabric,
) -> Result<Vec<Term>, String> {
    let mut when = vec![Condition::Prefix(PrefixSet::within([whole]))];
    when.extend(prefix(rule)?);
    match rule.peer_type {
        Some(FilterPeerType::Ebgp) => when.push(Condition::Session(SessionType::Ebgp)),
        Some(FilterPeerType::Ibgp) => when.push(Condition::Session(SessionType::Ibgp)),
        None => {}
    }
    if rule.source == Some(MatchSource::RemotePeers) {
        when.push(learned());
    }
    for value in rule.communities.iter().flat_map(|c| &c.values) {
        when.push(match community(value)? {
            Community::Standard(c) => Condition::Community(vec![c]),
            Community::Large(c) => Condition::LargeCommunity(vec![c]),
        });
    }
    if !rule.as_path_prefix.is_empty() {
        when.push(Condition::AsPathPrefix(
            rule.as_path_prefix.iter().map(|asn| asn.0).collect(),
        ));
    }
    if let Some(priority) = rule.priority {
        let value = local_pref(priority)?;
        when.push(Condition::LocalPref {
            least: value,
            most: value,
        });
    }
    let then = rule
        .operations
        .iter()
        .map(actions)
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let term = |when| match rule.action.as_str() {
        "Accept" => Ok(Term::accept(label, when, then.clone())),
        "Reject" => Ok(Term::reject(label, when)),
        other => Err(format!("action {other:?} is neither Accept nor Reject")),
    };
    if rule.interface.is_empty() {
        return Ok(vec![term(when)?]);
    }
    let places = match direction {
        // On import a route points to no interface yet: as in BIRD, the rule matches nothing.
        Direction::Import => Vec::new(),
        Direction::Export => behind(&rule.interface, fabric),
    };
    places
        .into_iter()
        .map(|place| term(when.iter().cloned().chain(place).collect()))
        .collect()
}

fn prefix(rule: &FilterRule) -> Result<Option<Condition>, String> {
    if rule.cidr.is_empty() {
        return Ok(None);
    }
    let net = rule
        .prefix()
        .ok_or_else(|| format!("cidr {:?} is no prefix", rule.cidr))?
        .trunc();
    let (ge, le) = rule.lengths(net);
    let set = Arc::new(PrefixSet {
        rules: vec![PrefixRule { net, ge, le }],
    });
    Ok(Some(match rule.match_operator {
        Some(MatchOperator::Equal | MatchOperator::In) => Condition::Prefix(set),
        Some(MatchOperator::NotEqual | MatchOperator::NotIn) => Condition::NotPrefix(set),
        None => return Err("cidr stands without matchOperator".to_owned()),
    }))
}

fn learned() -> Condition {
    Condition::LearnedFrom(vec![LearnedFrom::Ibgp, LearnedFrom::Ebgp])
}

/// Routes that point to an interface that the pattern matches, each as conditions of its own: addresses of local
/// workloads by their links, and what was learned and goes through a tunnel. By which physical interface a route goes is
/// not known here; only `*` matches it. A block of ours ends in a blackhole, which is no interface.
fn behind(pattern: &str, fabric: &Fabric) -> Vec<Vec<Condition>> {
    let matches = |name: &str| glob(pattern.as_bytes(), name.as_bytes());
    let of_workloads = fabric
        .own_endpoints
        .values()
        .filter(|(e, _)| matches(&e.spec.interface_name))
        .flat_map(|(e, _)| e.spec.ip_networks.iter().map(|net| net.masked()));
    let of_workloads = PrefixSet::within(of_workloads);
    let tunnelled = fabric.pools.values().filter(|pool| {
        let ipip = pool.spec.ipip_mode == Some(EncapMode::Always) && matches(IPIP_DEVICE);
        let vxlan =
            pool.spec.vxlan_mode == Some(EncapMode::Always) && VXLAN_DEVICES.iter().any(|d| matches(d));
        ipip || vxlan
    });
    let tunnelled = PrefixSet::within(tunnelled.map(|pool| pool.spec.cidr.masked()));
    let mut places = vec![
        vec![
            Condition::Prefix(of_workloads),
            Condition::LearnedFrom(vec![LearnedFrom::Local]),
        ],
        vec![Condition::Prefix(tunnelled), learned()],
    ];
    if pattern == "*" {
        places.push(vec![learned()]);
    }
    places
}

/// `*` stands for any characters, also none.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|at| text.get(at..).is_some_and(|t| glob(rest, t))),
        Some((c, rest)) => text
            .split_first()
            .is_some_and(|(t, tail)| t == c && glob(rest, tail)),
    }
}

fn actions(operation: &Operation) -> Result<Vec<Action>, String> {
    if let Some(add) = &operation.add_community {
        let value = add.value.as_deref().unwrap_or_default();
        return Ok(vec![match community(value)? {
            Community::Standard(c) => Action::AddCommunities(vec![c]),
            Community::Large(c) => Action::AddLargeCommunities(vec![c]),
        }]);
    }
    if let Some(prepend) = &operation.prepend_as_path {
        // Each goes in front of the one before: the last listed goes first.
        let one = |asn: &twill_model::number::AsNumber| Action::Prepend { asn: asn.0, times: 1 };
        return Ok(prepend.prefix.iter().rev().map(one).collect());
    }
    let Some(priority) = operation.set_priority.as_ref().and_then(|s| s.value) else {
        return Err("an operation has nothing to do".to_owned());
    };
    Ok(vec![Action::LocalPref(local_pref(priority)?)])
}

/// A metric as LOCAL_PREF.
fn local_pref(priority: i64) -> Result<u32, String> {
    let value = u32::try_from(priority)
        .ok()
        .and_then(|p| LOCAL_PREF_BASE.checked_sub(p));
    value.ok_or_else(|| format!("priority {priority} is not from 1 to 2147483646"))
}

/// A community as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Community {
    Standard(u32),
    Large(LargeCommunity),
}

/// `aa:nn` or `aa:nn:mm`.
pub(super) fn community(text: &str) -> Result<Community, String> {
    let parts: Option<Vec<u32>> = text.split(':').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some(&[a, b]) if a <= 0xffff && b <= 0xffff => Ok(Community::Standard(a << 16 | b)),
        Some(&[a, b, c]) => Ok(Community::Large([a, b, c])),
        _ => Err(format!("{text:?} is no community")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let check = |pattern: &str, text: &str| glob(pattern.as_bytes(), text.as_bytes());
        assert!(check("cali*", "cali1234") && check("*", "") && check("*.calico", "vxlan.calico"));
        assert!(check("eth0", "eth0") && !check("eth0", "eth01") && !check("cali*", "eth0"));
    }

    #[test]
    fn communities_are_two_numbers_or_three() {
        assert_eq!(community("65001:7"), Ok(Community::Standard(0xfde9_0007)));
        assert_eq!(
            community("4200000000:1:2"),
            Ok(Community::Large([4_200_000_000, 1, 2]))
        );
        for wrong in ["70000:1", "1", "a:b", "1:2:3:4", ""] {
            assert!(community(wrong).is_err(), "{wrong}");
        }
    }
}
