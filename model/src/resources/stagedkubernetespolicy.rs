//! StagedKubernetesNetworkPolicy: a policy of Kubernetes' form that is looked at and not yet enforced.

use std::collections::BTreeMap;

use serde_json::Value;

use super::stagedpolicy::StagedAction;
use crate::go::go_struct;
use crate::resource::Resource;

/// A policy of Kubernetes' form, not enforced.
pub type StagedKubernetesNetworkPolicy = Resource<StagedKubernetesNetworkPolicySpec>;

go_struct! {
    /// What is staged: an action, and the policy.
    #[derive(Default)]
    pub struct StagedKubernetesNetworkPolicySpec {
        /// What would become of the policy of the same name.
        pub staged_action: Option<StagedAction> = "stagedAction" omitempty,
        /// The pods of the namespace that it selects; empty is all.
        pub pod_selector: LabelSelector = "podSelector" always,
        /// Who may send to them; without any nobody.
        pub ingress: Vec<IngressRule> = "ingress" omitempty,
        /// To whom they may send.
        pub egress: Vec<EgressRule> = "egress" omitempty,
        /// The directions it governs: `Ingress` and `Egress`.
        pub policy_types: Vec<String> = "policyTypes" omitempty,
    }
}

go_struct! {
    /// Who may send, and to which ports.
    #[derive(Default)]
    pub struct IngressRule {
        /// Ports of the pods; none is all.
        pub ports: Vec<RulePort> = "ports" omitempty,
        /// Senders; none is all.
        pub from: Vec<RulePeer> = "from" omitempty,
    }
}

go_struct! {
    /// Who may be sent to, and on which ports.
    #[derive(Default)]
    pub struct EgressRule {
        /// Ports; none is all.
        pub ports: Vec<RulePort> = "ports" omitempty,
        /// Receivers; none is all.
        pub to: Vec<RulePeer> = "to" omitempty,
    }
}

go_struct! {
    /// A port, or a range of them.
    #[derive(Default)]
    pub struct RulePort {
        /// TCP, UDP or SCTP; TCP by default.
        pub protocol: String = "protocol" omitempty,
        /// A number or a name; all by default.
        pub port: Option<Value> = "port" omitempty,
        /// The last of a range that begins with `port`.
        pub end_port: Option<i32> = "endPort" omitempty,
    }
}

go_struct! {
    /// One side of a rule.
    #[derive(Default)]
    pub struct RulePeer {
        /// These pods.
        pub pod_selector: Option<LabelSelector> = "podSelector" omitempty,
        /// Of these namespaces.
        pub namespace_selector: Option<LabelSelector> = "namespaceSelector" omitempty,
        /// Or these addresses.
        pub ip_block: Option<IpBlock> = "ipBlock" omitempty,
    }
}

go_struct! {
    /// Addresses.
    #[derive(Default)]
    pub struct IpBlock {
        /// A prefix.
        pub cidr: String = "cidr" always,
        /// Without these.
        pub except: Vec<String> = "except" omitempty,
    }
}

go_struct! {
    /// Labels that all must be so. Empty selects everything.
    #[derive(Default)]
    pub struct LabelSelector {
        /// Labels with their values.
        pub match_labels: BTreeMap<String, String> = "matchLabels" omitempty,
        /// Further requirements.
        pub match_expressions: Vec<LabelRequirement> = "matchExpressions" omitempty,
    }
}

go_struct! {
    /// One requirement.
    #[derive(Default)]
    pub struct LabelRequirement {
        /// The label.
        pub key: String = "key" always,
        /// How it is compared: `In`, `NotIn`, `Exists` or `DoesNotExist`.
        pub operator: String = "operator" always,
        /// With what.
        pub values: Vec<String> = "values" omitempty,
    }
}
