//! Policies, profiles and tiers.

use super::rule::{self, Direction};
use super::{Check, metadata};
use crate::number::Order;
use crate::resources::stagedpolicy::StagedAction;
use crate::resources::{
    GlobalNetworkPolicySpec, NetworkPolicySpec, ProfileSpec, StagedGlobalNetworkPolicySpec,
    StagedNetworkPolicySpec, TierSpec,
};
use crate::rule::{Action, PolicyType, Rule};

/// Why a staged deletion is refused.
pub(super) const DELETES_NOTHING_ELSE: &str = "Delete takes no other field, the tier excepted";
/// Most rules of a policy in one direction.
const RULES_MAX: usize = 1024;

pub(super) fn namespaced(check: &mut Check, spec: &NetworkPolicySpec) {
    check.name("tier", &spec.tier);
    rules(check, &spec.ingress, &spec.egress);
    types(check, &spec.types);
    hints(check, spec.performance_hints.len());
    check.local_selector("selector", &spec.selector);
    check.local_selector("serviceAccountSelector", &spec.service_account_selector);
}

/// There is one hint, and it can be given once.
fn hints(check: &mut Check, given: usize) {
    check.refuse(given > 1, "performanceHints", "holds a hint twice");
}

pub(super) fn global(check: &mut Check, spec: &GlobalNetworkPolicySpec) {
    check.name("tier", &spec.tier);
    rules(check, &spec.ingress, &spec.egress);
    types(check, &spec.types);
    hints(check, spec.performance_hints.len());
    check.local_selector("selector", &spec.selector);
    check.local_selector("serviceAccountSelector", &spec.service_account_selector);
    check.local_selector("namespaceSelector", &spec.namespace_selector);
    check.refuse(
        spec.do_not_track && spec.pre_dnat,
        "preDNAT",
        "cannot stand beside doNotTrack",
    );
    let early = spec.do_not_track || spec.pre_dnat;
    check.refuse(
        early && !spec.apply_on_forward,
        "applyOnForward",
        "must be true with doNotTrack or preDNAT",
    );
    if spec.pre_dnat {
        check.refuse(
            !spec.egress.is_empty(),
            "egress",
            "a preDNAT policy has no egress rules",
        );
        let egress = spec.types.contains(&PolicyType::Egress);
        check.refuse(egress, "types", "a preDNAT policy is not of type Egress");
    }
    let reason = "must be set: a global policy has no namespace of its own";
    check.each("ingress", &spec.ingress, |check, rule| {
        let unnamed = rule
            .source
            .services
            .as_ref()
            .is_some_and(|s| s.namespace.is_empty());
        check.refuse(unnamed, "source.services.namespace", reason);
    });
    check.each("egress", &spec.egress, |check, rule| {
        let unnamed = rule
            .destination
            .services
            .as_ref()
            .is_some_and(|s| s.namespace.is_empty());
        check.refuse(unnamed, "destination.services.namespace", reason);
    });
}

pub(super) fn staged(check: &mut Check, spec: &StagedNetworkPolicySpec) {
    let policy = spec.enforced();
    if spec.staged_action == Some(StagedAction::Delete) {
        let bare = NetworkPolicySpec {
            tier: policy.tier.clone(),
            ..NetworkPolicySpec::default()
        };
        check.name("tier", &spec.tier);
        check.refuse(policy != bare, "stagedAction", DELETES_NOTHING_ELSE);
    } else {
        namespaced(check, &policy);
    }
}

pub(super) fn staged_global(check: &mut Check, spec: &StagedGlobalNetworkPolicySpec) {
    let policy = spec.enforced();
    if spec.staged_action == Some(StagedAction::Delete) {
        let bare = GlobalNetworkPolicySpec {
            tier: policy.tier.clone(),
            ..GlobalNetworkPolicySpec::default()
        };
        check.name("tier", &spec.tier);
        check.refuse(policy != bare, "stagedAction", DELETES_NOTHING_ELSE);
    } else {
        global(check, &policy);
    }
}

pub(super) fn profile(check: &mut Check, spec: &ProfileSpec) {
    rules(check, &spec.ingress, &spec.egress);
    metadata::labels(check, "labelsToApply", &spec.labels_to_apply);
}

fn rules(check: &mut Check, ingress: &[Rule], egress: &[Rule]) {
    for (name, rules, direction) in [
        ("ingress", ingress, Direction::Ingress),
        ("egress", egress, Direction::Egress),
    ] {
        if rules.len() > RULES_MAX {
            check.wrong_field(
                name,
                format!("holds {} rules, at most {RULES_MAX} are allowed", rules.len()),
            );
        }
        check.each(name, rules, |check, rule| rule::check(check, rule, direction));
    }
}

fn types(check: &mut Check, types: &[PolicyType]) {
    for wanted in [PolicyType::Ingress, PolicyType::Egress] {
        let twice = types.iter().filter(|t| **t == wanted).count() > 1;
        check.refuse(twice, "types", &format!("holds {wanted} twice"));
    }
}

pub(super) fn tier(check: &mut Check, name: &str, spec: &TierSpec) {
    let fixed = match name {
        "default" => Some((crate::defaults::TIER_ORDER, Action::Deny)),
        "kube-admin" => Some((1_000, Action::Pass)),
        "kube-baseline" => Some((10_000_000, Action::Pass)),
        _ => None,
    };
    if let Some((order, action)) = fixed {
        let wrong = spec.order != Some(Order::from(order));
        check.refuse(wrong, "order", &format!("of tier {name} must be {order}"));
        let wrong = spec.default_action != Some(action);
        check.refuse(
            wrong,
            "defaultAction",
            &format!("of tier {name} must be {action}"),
        );
    }
    let wrong = !matches!(spec.default_action, None | Some(Action::Deny | Action::Pass));
    check.refuse(wrong, "defaultAction", "must be Deny or Pass");
}
