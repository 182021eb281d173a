//! Policies as tables: which conditions hold, what actions leave.

use super::*;
use crate::wire::attr::{Attr, OPTIONAL, TRANSITIVE};
use crate::wire::community::{Community, ExtendedCommunity};
use crate::wire::{AttrSet, NextHopValue, as_path};
use std::net::Ipv4Addr;

const fn attr(flags: u8, code: u8, value: &[u8]) -> Attr<'_> {
    Attr { code, flags, value }
}

/// From 65001, originated by 65002, MED 20, one community of each kind.
fn attrs() -> AttrSet {
    let both = OPTIONAL | TRANSITIVE;
    AttrSet::new(
        NextHopValue::V4(Ipv4Addr::new(192, 0, 2, 1)),
        &[
            attr(TRANSITIVE, 1, &[0]),
            attr(TRANSITIVE, 2, &[2, 2, 0, 0, 0xfd, 0xe9, 0, 0, 0xfd, 0xea]),
            attr(OPTIONAL, 4, &[0, 0, 0, 20]),
            attr(both, 8, &[0xfd, 0xe9, 0, 7]),
            attr(both, 16, &[0, 2, 0xfd, 0xe9, 0, 0, 0, 7]),
            attr(both, 32, &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]),
        ],
    )
}

fn judge(policy: &Policy, prefix: &str) -> Judgement {
    policy.judge(&Candidate {
        prefix: prefix.parse().unwrap(),
        attrs: &attrs(),
        from: LearnedFrom::Ebgp,
        session: SessionType::Ibgp,
    })
}

fn set(net: &str, ge: u8, le: u8) -> Arc<PrefixSet> {
    let net = net.parse().unwrap();
    Arc::new(PrefixSet {
        rules: vec![PrefixRule { net, ge, le }],
    })
}

#[test]
fn the_first_term_with_a_verdict_ends_the_walk() {
    let policy = Policy {
        terms: vec![
            Term::change("mark", vec![], vec![Action::LocalPref(7)]),
            Term::reject("pool", vec![Condition::Prefix(set("10.244.0.0/16", 16, 32))]),
            Term::change("late", vec![], vec![Action::LocalPref(8)]),
        ],
        default: Verdict::Accept,
    };
    let check = |prefix, verdict, terms: &[u16]| {
        let terms = terms.to_vec();
        assert_eq!(judge(&policy, prefix), Judgement { verdict, terms });
    };
    check("10.244.1.0/26", Verdict::Reject, &[0]);
    check("10.0.0.0/8", Verdict::Accept, &[0, 2]);
    let passed = judge(&policy, "10.0.0.0/8");
    assert_eq!(policy.changes(&passed, &attrs()).local_pref, Some(8));
}

/// What a condition says of 10.0.0.0/24 with [`attrs`]; its negation must say the opposite.
fn check(condition: Condition, holds: bool) {
    let matched = |condition: Condition| {
        let policy = Policy {
            terms: vec![Term::reject("t", vec![condition])],
            default: Verdict::Accept,
        };
        judge(&policy, "10.0.0.0/24").verdict == Verdict::Reject
    };
    assert_eq!(matched(condition.clone()), holds, "{condition:?}");
    assert_eq!(
        matched(Condition::Not(Box::new(condition.clone()))),
        !holds,
        "not {condition:?}"
    );
}

#[test]
fn conditions_look_at_what_they_name() {
    use Condition as C;
    let large = |c| vec![[1, 2, c]];
    let extended = |text: &str| vec![text.parse::<ExtendedCommunity>().unwrap()];
    for (condition, holds) in [
        (C::Prefix(set("10.0.0.0/8", 24, 28)), true),
        (C::Prefix(set("10.0.0.0/8", 25, 28)), false),
        (C::Prefix(set("10.0.0.0/8", 8, 23)), false),
        (C::Prefix(set("11.0.0.0/8", 8, 32)), false),
        (C::NotPrefix(set("10.0.0.0/8", 24, 28)), false),
        (C::Session(SessionType::Ibgp), true),
        (C::Session(SessionType::Ebgp), false),
        (C::LearnedFrom(vec![LearnedFrom::Local, LearnedFrom::Ebgp]), true),
        (C::LearnedFrom(vec![LearnedFrom::Ibgp]), false),
        (C::Community(vec![1, 0xfde9_0007]), true),
        (C::Community(vec![1]), false),
        (C::LargeCommunity(large(3)), true),
        (C::LargeCommunity(large(4)), false),
        (C::ExtendedCommunity(extended("rt:65001:7")), true),
        (C::ExtendedCommunity(extended("soo:65001:7")), false),
        (C::AsPathPrefix(vec![65001]), true),
        (C::AsPathPrefix(vec![65001, 1]), false),
        (C::AsPathPrefix(vec![]), true),
        (C::AsPathContains(vec![1, 65002]), true),
        (C::AsPathContains(vec![65003]), false),
        (C::AsPathOrigin(vec![65002]), true),
        (C::AsPathOrigin(vec![65001]), false),
        (C::AsPathLength { least: 2, most: 2 }, true),
        (C::AsPathLength { least: 3, most: 9 }, false),
        (C::NextHop(set("192.0.2.0/24", 0, 0)), true),
        (C::NextHop(set("198.18.0.0/15", 0, 0)), false),
        (C::Med { least: 10, most: 20 }, true),
        (C::Med { least: 19, most: 19 }, false),
        (
            C::LocalPref {
                least: 100,
                most: 100,
            },
            true,
        ),
        (
            C::LocalPref {
                least: 101,
                most: u32::MAX,
            },
            false,
        ),
        (C::Origin(vec![Origin::Igp]), true),
        (C::Origin(vec![Origin::Egp, Origin::Incomplete]), false),
    ] {
        check(condition, holds);
    }
}

/// The attributes after one action.
fn after(actions: Vec<Action>) -> AttrSet {
    let policy = Policy {
        terms: vec![Term::change("t", vec![], actions)],
        default: Verdict::Accept,
    };
    let judgement = judge(&policy, "10.0.0.0/8");
    policy.changes(&judgement, &attrs()).apply(&attrs())
}

#[test]
fn actions_change_what_they_name_and_nothing_else() {
    assert_eq!(Changes::default().apply(&attrs()), attrs());
    let changed = |action| after(vec![action]);
    assert_eq!(changed(Action::LocalPref(200)).rank().local_pref, Some(200));
    assert_eq!(changed(Action::Med(Some(5))).rank().med, Some(5));
    assert_eq!(changed(Action::Med(None)).rank().med, None);
    assert_eq!(changed(Action::Origin(Origin::Incomplete)).rank().origin, 2);
    let path = |action| as_path::text(changed(action).as_path());
    assert_eq!(
        path(Action::Prepend { asn: 65009, times: 2 }),
        "65009 65009 65001 65002"
    );
    assert_eq!(
        path(Action::Prepend { asn: 0, times: 2 }),
        "65001 65002",
        "AS 0 is never prepended"
    );
    let new = "198.18.0.1".parse().unwrap();
    assert_eq!(
        changed(Action::NextHop(NextHop::Address(new)))
            .next_hop()
            .address(),
        Some(new)
    );
    // All of the above leave the other attributes as they were.
    let kept = changed(Action::LocalPref(200));
    assert_eq!(
        kept.iter().filter(|a| a.code != 5).collect::<Vec<_>>(),
        attrs().iter().collect::<Vec<_>>()
    );
}

#[test]
fn communities_of_all_kinds_are_added_removed_and_set() {
    fn of<C: Community>(actions: Vec<Action>) -> Vec<C> {
        after(actions).communities_of().collect()
    }
    let own = 0xfde9_0007;
    let standard = |action| of::<u32>(vec![action]);
    assert_eq!(
        standard(Action::AddCommunities(vec![1, own])),
        [1, own],
        "each once, ascending"
    );
    assert_eq!(standard(Action::RemoveCommunities(vec![own])), [0u32; 0]);
    assert_eq!(standard(Action::SetCommunities(vec![9, 3])), [3, 9]);
    assert!(
        after(vec![Action::RemoveCommunities(vec![own])])
            .value(8)
            .is_none(),
        "an empty list is no attribute"
    );
    let (a, b) = ([1, 2, 3], [0, 0, 9]);
    let large = |action| of::<LargeCommunity>(vec![action]);
    assert_eq!(large(Action::AddLargeCommunities(vec![b])), [b, a]);
    assert_eq!(large(Action::RemoveLargeCommunities(vec![a])), [[0u32; 3]; 0]);
    assert_eq!(large(Action::SetLargeCommunities(vec![b])), [b]);
    let rt: ExtendedCommunity = "rt:1:1".parse().unwrap();
    let old: ExtendedCommunity = "rt:65001:7".parse().unwrap();
    let extended = |action| of::<ExtendedCommunity>(vec![action]);
    assert_eq!(extended(Action::AddExtendedCommunities(vec![rt])), [rt, old]);
    assert_eq!(extended(Action::RemoveExtendedCommunities(vec![old])), []);
    assert_eq!(extended(Action::SetExtendedCommunities(vec![rt])), [rt]);
    // Later actions see what earlier ones left.
    let both = vec![
        Action::AddCommunities(vec![5]),
        Action::RemoveCommunities(vec![own]),
    ];
    assert_eq!(of::<u32>(both), [5]);
}

#[test]
fn policies_beyond_their_bounds_are_told() {
    let of = |condition| Policy {
        terms: vec![Term::reject("t", vec![condition])],
        default: Verdict::Accept,
    };
    let nested = |depth| (0..depth).fold(Condition::Community(vec![1]), |c, _| Condition::Not(Box::new(c)));
    assert!(of(nested(3)).within_bounds() && !of(nested(9)).within_bounds());
    let rule = PrefixRule::exact("10.0.0.0/8".parse().unwrap());
    let rules = |n| Arc::new(PrefixSet { rules: vec![rule; n] });
    assert!(of(Condition::Prefix(rules(PREFIX_RULES_MAX))).within_bounds());
    assert!(!of(Condition::NextHop(rules(PREFIX_RULES_MAX + 1))).within_bounds());
    let hidden = Condition::Not(Box::new(Condition::Prefix(rules(1))));
    assert!(of(hidden).looks_at_prefixes() && !of(nested(1)).looks_at_prefixes());
}
