//! BGP filters.

use super::Check;
use super::bgp::{COMMUNITY, is_community};
use crate::resources::bgpfilter::{BgpFilterSpec, FilterRule, Operation};

/// Operations of one rule.
const OPERATIONS_MAX: usize = 10;
/// What a route's metric may be: 2147483647 less it is its LOCAL_PREF.
const PRIORITIES: std::ops::RangeInclusive<i64> = 1..=2_147_483_646;
const PRIORITY: &str = "must be from 1 to 2147483646";

pub(super) fn check(check: &mut Check, spec: &BgpFilterSpec) {
    check.each("exportV4", &spec.export_v4, |check, r| rule(check, r, true));
    check.each("importV4", &spec.import_v4, |check, r| rule(check, r, true));
    check.each("exportV6", &spec.export_v6, |check, r| rule(check, r, false));
    check.each("importV6", &spec.import_v6, |check, r| rule(check, r, false));
}

fn rule(check: &mut Check, rule: &FilterRule, v4: bool) {
    prefix(check, rule, v4);
    check.text(
        "interface",
        &rule.interface,
        is_pattern,
        "a pattern of interface names: at most 15 of letters, digits and _.*-",
    );
    if let Some(communities) = &rule.communities {
        check.field("communities", |check| {
            check.refuse(
                communities.values.len() != 1,
                "values",
                "must hold exactly one community",
            );
            check.each("values", &communities.values, |check, value| {
                if !is_community(value) {
                    check.wrong(format!("{value:?} is not {COMMUNITY}"));
                }
            });
        });
    }
    let reserved = rule.as_path_prefix.iter().any(|asn| asn.0 == 0);
    check.refuse(reserved, "asPathPrefix", "holds AS 0, which no path does");
    let wrong = rule.priority.is_some_and(|p| !PRIORITIES.contains(&p));
    check.refuse(wrong, "priority", PRIORITY);
    let accepts = rule.action == "Accept";
    if !accepts && rule.action != "Reject" {
        check.wrong_field(
            "action",
            format!("{:?} is neither Accept nor Reject", rule.action),
        );
    }
    check.refuse(
        !accepts && !rule.operations.is_empty(),
        "operations",
        "stand only beside action Accept",
    );
    check.refuse(
        rule.operations.len() > OPERATIONS_MAX,
        "operations",
        "has more than 10 entries",
    );
    check.each("operations", &rule.operations, operation);
}

fn prefix(check: &mut Check, rule: &FilterRule, v4: bool) {
    let given = !rule.cidr.is_empty();
    let net = rule.prefix();
    let right = net.is_some_and(|net| net.addr().is_ipv4() == v4 && net.trunc() == net);
    check.refuse(
        given && !right,
        "cidr",
        "must be a prefix of this IP version without host bits",
    );
    check.refuse(
        given && rule.match_operator.is_none(),
        "matchOperator",
        "must be set beside cidr",
    );
    check.refuse(
        !given && rule.match_operator.is_some(),
        "cidr",
        "must be set beside matchOperator",
    );
    let Some(length) = &rule.prefix_length else {
        return;
    };
    check.refuse(!given, "cidr", "must be set beside prefixLength");
    let most = if v4 { 32 } else { 128 };
    check.field("prefixLength", |check| {
        for (name, bound) in [("min", length.min), ("max", length.max)] {
            if bound.is_some_and(|b| !(0..=most).contains(&b)) {
                check.wrong_field(name, format!("must be from 0 to {most}"));
            }
        }
    });
}

fn is_pattern(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"_.*-".contains(&b);
    (1..=15).contains(&text.len()) && text.bytes().all(legal)
}

fn operation(check: &mut Check, operation: &Operation) {
    let set = [
        operation.add_community.is_some(),
        operation.prepend_as_path.is_some(),
        operation.set_priority.is_some(),
    ];
    if set.iter().filter(|set| **set).count() != 1 {
        check.wrong("must have exactly one of addCommunity, prependASPath and setPriority");
    }
    if let Some(add) = &operation.add_community {
        let right = add.value.as_deref().is_some_and(is_community);
        check.field("addCommunity", |check| check.refuse(!right, "value", COMMUNITY));
    }
    if let Some(prepend) = &operation.prepend_as_path {
        let right = !prepend.prefix.is_empty() && prepend.prefix.iter().all(|asn| asn.0 != 0);
        check.field("prependASPath", |check| {
            check.refuse(!right, "prefix", "must hold AS numbers, and not 0");
        });
    }
    if let Some(set) = &operation.set_priority {
        let right = set.value.is_some_and(|value| PRIORITIES.contains(&value));
        check.field("setPriority", |check| check.refuse(!right, "value", PRIORITY));
    }
}
