//! NetworkPolicy and GlobalNetworkPolicy: ordered rules for the endpoints that they select.

use crate::go::{go_struct, words};
use crate::number::Order;
use crate::resource::Resource;
use crate::rule::{PolicyType, Rule};

/// A policy for the endpoints of its namespace.
pub type NetworkPolicy = Resource<NetworkPolicySpec>;

/// A policy for endpoints of every namespace and of hosts.
pub type GlobalNetworkPolicy = Resource<GlobalNetworkPolicySpec>;

words! {
    /// Hints that trade memory for speed.
    pub enum PerformanceHint {
        /// Keep the policy's sets programmed on every node.
        AssumeNeededOnEveryNode = "AssumeNeededOnEveryNode",
    }
}

go_struct! {
    /// Whom a policy selects and its rules.
    #[derive(Default)]
    pub struct NetworkPolicySpec {
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
        /// The directions it governs, also those without rules. Empty in an old object is both.
        pub types: Vec<PolicyType> = "types" omitempty,
        /// Narrows `selector` to endpoints that run under these service accounts.
        pub service_account_selector: String = "serviceAccountSelector" omitempty,
        /// Hints that trade memory for speed.
        pub performance_hints: Vec<PerformanceHint> = "performanceHints" omitempty,
    }
}

go_struct! {
    /// Whom a policy selects and its rules.
    #[derive(Default)]
    pub struct GlobalNetworkPolicySpec {
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
        /// The directions it governs, also those without rules. Empty in an old object is both.
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
