//! Judging one route by a policy, and what the matching terms change in its attributes.

use super::{
    Action, Condition, LOCAL_PREF_DEFAULT, LargeCommunity, LearnedFrom, NextHop, Policy, SessionType, Verdict,
};
use crate::wire::attr::code;
use crate::wire::{AttrSet, NextHopValue, as_path};
use ipnet::IpNet;

/// How often one action prepends at most.
const PREPEND_MAX: u8 = 32;

/// A route before the policy.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its prefix.
    pub prefix: IpNet,
    /// Its attributes.
    pub attrs: &'a AttrSet,
    /// Where it comes from.
    pub from: LearnedFrom,
    /// The session that the policy belongs to.
    pub session: SessionType,
}

/// What a policy said: whether the route passes, and the places of the terms whose actions apply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Judgement {
    /// Whether it passes.
    pub verdict: Verdict,
    /// Terms that matched and have actions.
    pub terms: Vec<u16>,
}

/// The changes that the matching terms add up to; later ones win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// LOCAL_PREF to set.
    pub local_pref: Option<u32>,
    /// MED to set, or with `Some(None)` to remove.
    pub med: Option<Option<u32>>,
    /// The communities become these.
    pub communities: Option<Vec<u32>>,
    /// The large communities become these.
    pub large_communities: Option<Vec<LargeCommunity>>,
    /// Prepended to the path, in order.
    pub prepend: Vec<(u32, u8)>,
    /// The next hop.
    pub next_hop: Option<NextHop>,
}

impl Policy {
    /// Judges one route.
    #[must_use]
    pub fn judge(&self, route: &Candidate<'_>) -> Judgement {
        let mut terms = Vec::new();
        for (place, term) in self.terms.iter().enumerate() {
            if !term.when.iter().all(|c| c.holds(route)) {
                continue;
            }
            if !term.then.is_empty() {
                terms.push(u16::try_from(place).unwrap_or(u16::MAX));
            }
            if let Some(verdict) = term.verdict {
                return Judgement { verdict, terms };
            }
        }
        Judgement {
            verdict: self.default,
            terms,
        }
    }

    /// What the terms of a judgement change in a set of attributes.
    #[must_use]
    pub fn changes(&self, judgement: &Judgement, attrs: &AttrSet) -> Changes {
        let mut changes = Changes::default();
        let terms = judgement
            .terms
            .iter()
            .filter_map(|t| self.terms.get(usize::from(*t)));
        for action in terms.flat_map(|t| &t.then) {
            changes.add(action, attrs);
        }
        changes
    }
}

impl Condition {
    fn holds(&self, route: &Candidate<'_>) -> bool {
        match self {
            Self::Prefix(set) => set.contains(route.prefix),
            Self::NotPrefix(set) => !set.contains(route.prefix),
            Self::Session(session) => *session == route.session,
            Self::LearnedFrom(from) => from.contains(&route.from),
            Self::Community(any) => route.attrs.communities().any(|c| any.contains(&c)),
            Self::LargeCommunity(any) => route.attrs.large_communities().any(|c| any.contains(&c)),
            Self::LocalPref { least, most } => {
                let value = route.attrs.rank().local_pref.unwrap_or(LOCAL_PREF_DEFAULT);
                (*least..=*most).contains(&value)
            }
            Self::AsPathPrefix(asns) => {
                let mut path = as_path::segments(route.attrs.as_path()).flat_map(as_path::Segment::asns);
                asns.iter().all(|asn| path.next() == Some(*asn))
            }
        }
    }
}

impl Changes {
    fn add(&mut self, action: &Action, attrs: &AttrSet) {
        match action {
            Action::LocalPref(value) => self.local_pref = Some(*value),
            Action::Med(value) => self.med = Some(*value),
            Action::AddCommunities(add) => self.communities(attrs).extend(add),
            Action::AddLargeCommunities(add) => self
                .large_communities
                .get_or_insert_with(|| attrs.large_communities().collect())
                .extend(add),
            Action::RemoveCommunities(remove) => self.communities(attrs).retain(|c| !remove.contains(c)),
            Action::Prepend { asn, times } if *asn != 0 => {
                self.prepend.push((*asn, (*times).min(PREPEND_MAX)))
            }
            Action::Prepend { .. } => {}
            Action::NextHop(next_hop) => self.next_hop = Some(*next_hop),
        }
    }

    fn communities(&mut self, attrs: &AttrSet) -> &mut Vec<u32> {
        self.communities
            .get_or_insert_with(|| attrs.communities().collect())
    }

    /// The communities to carry, if they change: ascending, each once, `None` inside for none at all.
    #[must_use]
    pub fn community_octets(&self) -> Option<Option<Vec<u8>>> {
        let mut list = self.communities.clone()?;
        list.sort_unstable();
        list.dedup();
        Some((!list.is_empty()).then(|| list.iter().flat_map(|c| c.to_be_bytes()).collect()))
    }

    /// The large communities to carry, if they change: ascending, each once.
    #[must_use]
    pub fn large_community_octets(&self) -> Option<Vec<u8>> {
        let mut list = self.large_communities.clone()?;
        list.sort_unstable();
        list.dedup();
        Some(list.iter().flatten().flat_map(|c| c.to_be_bytes()).collect())
    }

    /// The path with everything prepended, if something is.
    #[must_use]
    pub fn prepended(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.prepend.iter().fold(None, |path_so_far, (asn, times)| {
            let mut out = Vec::new();
            as_path::prepend(path_so_far.as_deref().unwrap_or(path), *asn, *times, &mut out);
            Some(out)
        })
    }

    /// The attributes after an import policy.
    #[must_use]
    pub fn apply(&self, attrs: &AttrSet) -> AttrSet {
        let word = |v: u32| v.to_be_bytes().to_vec();
        let mut list = Vec::new();
        if let Some(value) = self.local_pref {
            list.push((code::LOCAL_PREF, Some(word(value))));
        }
        if let Some(value) = self.med {
            list.push((code::MED, value.map(word)));
        }
        if let Some(octets) = self.community_octets() {
            list.push((code::COMMUNITIES, octets));
        }
        if let Some(octets) = self.large_community_octets() {
            list.push((code::LARGE_COMMUNITIES, Some(octets)));
        }
        if let Some(path) = self.prepended(attrs.as_path()) {
            list.push((code::AS_PATH, Some(path)));
        }
        let next_hop = match (self.next_hop, attrs.next_hop()) {
            (Some(NextHop::Address(new)), old)
                if old.address().is_some_and(|o| o.is_ipv4() == new.is_ipv4()) =>
            {
                NextHopValue::from(new)
            }
            (_, old) => old,
        };
        attrs.with(next_hop, &list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PrefixRule, PrefixSet, Term};
    use crate::wire::attr::{Attr, OPTIONAL, TRANSITIVE};
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    fn attrs() -> AttrSet {
        let hop = NextHopValue::V4(Ipv4Addr::new(192, 0, 2, 1));
        AttrSet::new(
            hop,
            &[
                Attr {
                    code: 1,
                    flags: TRANSITIVE,
                    value: &[0],
                },
                Attr {
                    code: 2,
                    flags: TRANSITIVE,
                    value: &[2, 1, 0, 0, 0xfd, 0xe9],
                },
                Attr {
                    code: 8,
                    flags: OPTIONAL | TRANSITIVE,
                    value: &[0xfd, 0xe9, 0, 7],
                },
            ],
        )
    }

    fn judge(policy: &Policy, prefix: &str) -> Judgement {
        let attrs = attrs();
        let prefix = prefix.parse().unwrap();
        let route = Candidate {
            prefix,
            attrs: &attrs,
            from: LearnedFrom::Ebgp,
            session: SessionType::Ibgp,
        };
        policy.judge(&route)
    }

    #[test]
    fn the_first_term_with_a_verdict_ends_the_walk() {
        let pool = PrefixSet::within(["10.244.0.0/16".parse().unwrap()]);
        let policy = Policy {
            terms: vec![
                Term::change("mark", vec![], vec![Action::LocalPref(7)]),
                Term::reject("pool", vec![Condition::Prefix(pool)]),
                Term::change("late", vec![], vec![Action::LocalPref(8)]),
            ],
            default: Verdict::Accept,
        };
        assert_eq!(
            judge(&policy, "10.244.1.0/26"),
            Judgement {
                verdict: Verdict::Reject,
                terms: vec![0]
            }
        );
        let passed = judge(&policy, "10.0.0.0/8");
        assert_eq!(
            passed,
            Judgement {
                verdict: Verdict::Accept,
                terms: vec![0, 2]
            }
        );
        assert_eq!(policy.changes(&passed, &attrs()).local_pref, Some(8));
    }

    #[test]
    fn conditions_look_at_what_they_name() {
        let holds = |c: Condition| {
            let policy = Policy {
                terms: vec![Term::reject("t", vec![c])],
                default: Verdict::Accept,
            };
            judge(&policy, "10.0.0.0/24").verdict == Verdict::Reject
        };
        let rule = PrefixRule {
            net: "10.0.0.0/8".parse().unwrap(),
            ge: 24,
            le: 28,
        };
        assert!(holds(Condition::Prefix(Arc::new(PrefixSet {
            rules: vec![rule]
        }))));
        assert!(!holds(Condition::NotPrefix(Arc::new(PrefixSet {
            rules: vec![rule]
        }))));
        assert!(!holds(Condition::Prefix(Arc::new(PrefixSet {
            rules: vec![PrefixRule { ge: 25, ..rule }]
        }))));
        assert!(holds(Condition::Community(vec![0xfde9_0007])) && !holds(Condition::Community(vec![1])));
        assert!(
            holds(Condition::AsPathPrefix(vec![65001])) && !holds(Condition::AsPathPrefix(vec![65001, 1]))
        );
        assert!(holds(Condition::LearnedFrom(vec![
            LearnedFrom::Local,
            LearnedFrom::Ebgp
        ])));
        assert!(!holds(Condition::Session(SessionType::Ebgp)));
    }

    #[test]
    fn large_communities_are_matched_and_added_and_local_pref_has_bounds() {
        let add = Term::change("t", vec![], vec![Action::AddLargeCommunities(vec![[1, 2, 3]])]);
        let pref = Condition::LocalPref {
            least: 100,
            most: 100,
        };
        let carries = |c| Term::reject("t", vec![Condition::LargeCommunity(vec![c])]);
        let policy = |term| Policy {
            terms: vec![term],
            default: Verdict::Accept,
        };
        let adds = policy(add);
        let changes = adds.changes(&judge(&adds, "10.0.0.0/8"), &attrs());
        let changed = changes.apply(&attrs());
        assert_eq!(changed.large_communities().collect::<Vec<_>>(), [[1, 2, 3]]);
        let verdict = |term: Term| {
            let prefix = "10.0.0.0/8".parse().unwrap();
            let route = Candidate {
                prefix,
                attrs: &changed,
                from: LearnedFrom::Ebgp,
                session: SessionType::Ebgp,
            };
            policy(term).judge(&route).verdict
        };
        assert_eq!(verdict(carries([1, 2, 3])), Verdict::Reject);
        assert_eq!(verdict(carries([1, 2, 4])), Verdict::Accept);
        assert_eq!(verdict(Term::reject("t", vec![pref])), Verdict::Reject);
        let more = Condition::LocalPref {
            least: 101,
            most: u32::MAX,
        };
        assert_eq!(verdict(Term::reject("t", vec![more])), Verdict::Accept);
    }

    #[test]
    fn actions_change_the_attributes_and_nothing_else() {
        let policy = Policy {
            terms: vec![Term::change(
                "t",
                vec![],
                vec![
                    Action::LocalPref(200),
                    Action::Med(Some(5)),
                    Action::AddCommunities(vec![1, 0xfde9_0007]),
                    Action::Prepend { asn: 65009, times: 2 },
                ],
            )],
            default: Verdict::Accept,
        };
        let changed = policy
            .changes(&judge(&policy, "10.0.0.0/8"), &attrs())
            .apply(&attrs());
        assert_eq!(
            (changed.rank().local_pref, changed.rank().med),
            (Some(200), Some(5))
        );
        assert_eq!(changed.communities().collect::<Vec<_>>(), [1, 0xfde9_0007]);
        assert_eq!(as_path::text(changed.as_path()), "65009 65009 65001");
        assert_eq!(Changes::default().apply(&attrs()), attrs());
    }
}
