//! Policies of Kubernetes' form. Calico looks at little of them: Kubernetes would refuse the rest.

use serde_json::Value;

use super::{Check, policy};
use crate::resources::StagedKubernetesNetworkPolicySpec;
use crate::resources::stagedkubernetespolicy::RulePort;
use crate::resources::stagedpolicy::StagedAction;

pub(super) fn staged(check: &mut Check, spec: &StagedKubernetesNetworkPolicySpec) {
    if spec.staged_action == Some(StagedAction::Delete) {
        let bare = StagedKubernetesNetworkPolicySpec {
            staged_action: spec.staged_action,
            ..StagedKubernetesNetworkPolicySpec::default()
        };
        check.refuse(*spec != bare, "stagedAction", policy::DELETES_NOTHING_ELSE);
        return;
    }
    check.each("ingress", &spec.ingress, |check, rule| {
        check.each("ports", &rule.ports, port);
    });
    check.each("egress", &spec.egress, |check, rule| {
        check.each("ports", &rule.ports, port);
    });
}

fn port(check: &mut Check, port: &RulePort) {
    let fits = |n: &Value| n.as_u64().is_some_and(|n| n <= u64::from(u16::MAX));
    let wrong = port.port.as_ref().is_some_and(|n| !n.is_string() && !fits(n));
    check.refuse(wrong, "port", "must be a name, or a number from 0 to 65535");
}
