//! StagedNetworkPolicy and StagedGlobalNetworkPolicy: policies that are looked at and not yet enforced.

use super::policy::{GlobalNetworkPolicySpec, NetworkPolicySpec, PerformanceHint};
use crate::go::{go_struct, words};
use crate::number::Order;
use crate::resource::Resource;
use crate::rule::{PolicyType, Rule};

/// A policy for the endpoints of its namespace, not enforced.
pub type StagedNetworkPolicy = Resource<StagedNetworkPolicySpec>;

/// A policy for endpoints of every namespace and of hosts, not enforced.
pub type StagedGlobalNetworkPolicy = Resource<StagedGlobalNetworkPolicySpec>;

words! {
    /// What would become of the policy of the same name.
    pub enum StagedAction {
        /// It would be made, or replaced.
        Set = "Set",
        /// It would go.
        Delete = "Delete",
        /// A recommendation.
        Learn = "Learn",
        /// Nothing.
        Ignore = "Ignore",
    }
}

go_struct! {
    /// What is staged: an action, and the policy.
    #[derive(Default)]
    pub struct StagedNetworkPolicySpec {
        /// What would become of the policy of the same name.
        pub staged_action: Option<StagedAction> = "stagedAction" omitempty,
        /// The tier it belongs to; empty is `default`.
        pub tier: String = "tier" omitempty,
        /// Lower first; none is last.
        pub order: Option<Order> = "order" omitempty,
        /// Rules for packets to the endpoint.
        pub ingress: Vec<Rule> = "ingress" omitempty,
        /// Rules for packets from the endpoint.
        pub egress: Vec<Rule> = "egress" omitempty,
        /// Whom it selects; empty is all endpoints of the namespace.
        pub selector: String = "selector" omitempty,
        /// The directions it governs.
        pub types: Vec<PolicyType> = "types" omitempty,
        /// Narrows `selector` to endpoints that run under these service accounts.
        pub service_account_selector: String = "serviceAccountSelector" omitempty,
        /// Hints that trade memory for speed.
        pub performance_hints: Vec<PerformanceHint> = "performanceHints" omitempty,
    }
}

impl StagedNetworkPolicySpec {
    /// The policy as it would be.
    #[must_use]
    pub fn enforced(&self) -> NetworkPolicySpec {
        let staged = self.clone();
        NetworkPolicySpec {
            tier: staged.tier,
            order: staged.order,
            ingress: staged.ingress,
            egress: staged.egress,
            selector: staged.selector,
            types: staged.types,
            service_account_selector: staged.service_account_selector,
            performance_hints: staged.performance_hints,
            extra: staged.extra,
        }
    }
}

go_struct! {
    /// What is staged: an action, and the policy.
    #[derive(Default)]
    pub struct StagedGlobalNetworkPolicySpec {
        /// What would become of the policy of the same name.
        pub staged_action: Option<StagedAction> = "stagedAction" omitempty,
        /// The tier it belongs to; empty is `default`.
        pub tier: String = "tier" omitempty,
        /// Lower first; none is last.
        pub order: Option<Order> = "order" omitempty,
        /// Rules for packets to the endpoint.
        pub ingress: Vec<Rule> = "ingress" omitempty,
        /// Rules for packets from the endpoint.
        pub egress: Vec<Rule> = "egress" omitempty,
        /// Whom it selects; empty is all endpoints.
        pub selector: String = "selector" omitempty,
        /// The directions it governs.
        pub types: Vec<PolicyType> = "types" omitempty,
        /// Acts before connection tracking, on hosts only.
        pub do_not_track: bool = "doNotTrack" omitempty,
        /// Acts before destination NAT, on hosts only.
        pub pre_dnat: bool = "preDNAT" omitempty,
        /// Acts also on what hosts forward.
        pub apply_on_forward: bool = "applyOnForward" omitempty,
        /// Narrows `selector` to endpoints that run under these service accounts.
        pub service_account_selector: String = "serviceAccountSelector" omitempty,
        /// Narrows `selector` to endpoints of these namespaces.
        pub namespace_selector: String = "namespaceSelector" omitempty,
        /// Hints that trade memory for speed.
        pub performance_hints: Vec<PerformanceHint> = "performanceHints" omitempty,
    }
}

impl StagedGlobalNetworkPolicySpec {
    /// The policy as it would be.
    #[must_use]
    pub fn enforced(&self) -> GlobalNetworkPolicySpec {
        let staged = self.clone();
        GlobalNetworkPolicySpec {
            tier: staged.tier,
            order: staged.order,
            ingress: staged.ingress,
            egress: staged.egress,
            selector: staged.selector,
            types: staged.types,
            do_not_track: staged.do_not_track,
            pre_dnat: staged.pre_dnat,
            apply_on_forward: staged.apply_on_forward,
            service_account_selector: staged.service_account_selector,
            namespace_selector: staged.namespace_selector,
            performance_hints: staged.performance_hints,
            extra: staged.extra,
        }
    }
}
