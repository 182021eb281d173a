//! What is meant where nothing is written.
//!
//! Writers fill these in before they store, as Calico's clients do, and readers fill them in again, because stores
//! that older clients filled lack them.

use std::sync::Arc;

use crate::duration::GoDuration;
use crate::net::Net;
use crate::number::Order;
use crate::policyname::{DEFAULT_TIER, TIER_LABEL};
use crate::resource::{AnyResource, Resource};
use crate::resources::ipamconfiguration::Switch;
use crate::resources::ippool::{AllowedUse, AssignmentMode, EncapMode, IpPoolSpec};
use crate::resources::kubecontrollersconfiguration::AssignIps;
use crate::resources::policy::{GlobalNetworkPolicySpec, NetworkPolicySpec};
use crate::resources::stagedpolicy::StagedAction;
use crate::resources::{
    BgpConfigurationSpec, FelixConfigurationSpec, KubeControllersConfigurationSpec,
    StagedGlobalNetworkPolicySpec, StagedNetworkPolicySpec, TierSpec, WorkloadEndpoint,
};
use crate::rule::{Action, PolicyType, Rule};

/// The cluster's AS where BGPConfiguration names none.
pub const AS_NUMBER: u32 = 64512;
/// Prefix length of blocks of an IPv4 pool that names none.
pub const BLOCK_SIZE_V4: u8 = 26;
/// Prefix length of blocks of an IPv6 pool that names none.
pub const BLOCK_SIZE_V6: u8 = 122;
/// Order of the tier `default`, and of a tier that names none.
pub const TIER_ORDER: u32 = 1_000_000;

/// The directions of a policy that names none: those that it has rules for; ingress if it has none at all.
#[must_use]
pub fn policy_types(ingress: &[Rule], egress: &[Rule]) -> Vec<PolicyType> {
    match (ingress.is_empty(), egress.is_empty()) {
        (_, true) => vec![PolicyType::Ingress],
        (true, false) => vec![PolicyType::Egress],
        (false, false) => vec![PolicyType::Ingress, PolicyType::Egress],
    }
}

impl IpPoolSpec {
    /// A pool with all defaults.
    #[must_use]
    pub fn new(cidr: Net) -> Self {
        let mut spec = Self {
            cidr,
            vxlan_mode: None,
            ipip_mode: None,
            nat_outgoing: false,
            disabled: false,
            disable_bgp_export: false,
            block_size: 0,
            node_selector: String::new(),
            namespace_selector: String::new(),
            allowed_uses: Vec::new(),
            assignment_mode: None,
            extra: crate::Extra::default(),
        };
        spec.apply_defaults();
        spec
    }

    /// Fills in what is not written.
    pub fn apply_defaults(&mut self) {
        self.cidr = self.cidr.canonical();
        self.vxlan_mode.get_or_insert(EncapMode::Never);
        self.ipip_mode.get_or_insert(EncapMode::Never);
        if self.block_size == 0 {
            self.block_size = if self.cidr.is_ipv4() {
                BLOCK_SIZE_V4
            } else {
                BLOCK_SIZE_V6
            };
        }
        if self.node_selector.is_empty() {
            "all()".clone_into(&mut self.node_selector);
        }
        if self.allowed_uses.is_empty() {
            self.allowed_uses = vec![AllowedUse::Workload, AllowedUse::Tunnel];
        }
        self.assignment_mode.get_or_insert(AssignmentMode::Automatic);
    }
}

impl NetworkPolicySpec {
    /// Fills in what is not written.
    pub fn apply_defaults(&mut self) {
        default_tier(&mut self.tier);
        if self.types.is_empty() {
            self.types = policy_types(&self.ingress, &self.egress);
        }
    }
}

impl GlobalNetworkPolicySpec {
    /// Fills in what is not written.
    pub fn apply_defaults(&mut self) {
        default_tier(&mut self.tier);
        if self.types.is_empty() {
            self.types = policy_types(&self.ingress, &self.egress);
        }
    }
}

impl StagedNetworkPolicySpec {
    /// Fills in what is not written. What deletes a policy governs no direction.
    pub fn apply_defaults(&mut self) {
        default_tier(&mut self.tier);
        let action = *self.staged_action.get_or_insert(StagedAction::Set);
        default_staged_types(action, &mut self.types, &self.ingress, &self.egress);
    }
}

impl StagedGlobalNetworkPolicySpec {
    /// Fills in what is not written. What deletes a policy governs no direction.
    pub fn apply_defaults(&mut self) {
        default_tier(&mut self.tier);
        let action = *self.staged_action.get_or_insert(StagedAction::Set);
        default_staged_types(action, &mut self.types, &self.ingress, &self.egress);
    }
}

fn default_staged_types(
    action: StagedAction,
    types: &mut Vec<PolicyType>,
    ingress: &[Rule],
    egress: &[Rule],
) {
    if action == StagedAction::Delete {
        types.clear();
    } else if types.is_empty() {
        *types = policy_types(ingress, egress);
    }
}

/// TCP port of the controllers' metrics.
const CONTROLLERS_METRICS_PORT: u16 = 9094;
/// How long an address must have leaked before it is collected, in seconds.
const LEAK_GRACE_SECS: u32 = 15 * 60;

impl KubeControllersConfigurationSpec {
    /// Fills in what is not written and is stored.
    pub fn apply_defaults(&mut self) {
        self.health_checks.get_or_insert(Switch::Enabled);
        self.prometheus_metrics_port
            .get_or_insert(CONTROLLERS_METRICS_PORT);
        if let Some(node) = &mut self.controllers.node {
            node.leak_grace_period
                .get_or_insert(GoDuration::from_secs(LEAK_GRACE_SECS));
        }
        if let Some(balancer) = &mut self.controllers.load_balancer {
            balancer.assign_ips.get_or_insert(AssignIps::AllServices);
        }
        if let Some(migration) = &mut self.controllers.migration {
            migration.policy_name_migrator.get_or_insert(Switch::Enabled);
        }
    }
}

fn default_tier(tier: &mut String) {
    if tier.is_empty() {
        DEFAULT_TIER.clone_into(tier);
    }
}

impl TierSpec {
    /// Fills in what is not written.
    pub fn apply_defaults(&mut self) {
        self.order.get_or_insert(Order::from(TIER_ORDER));
        self.default_action.get_or_insert(Action::Deny);
    }
}

impl BgpConfigurationSpec {
    /// Fills in what is not written and is stored.
    pub fn apply_defaults(&mut self) {
        if self.log_severity_screen.is_empty() {
            "Info".clone_into(&mut self.log_severity_screen);
        }
        self.service_load_balancer_aggregation
            .get_or_insert(Switch::Enabled);
    }
}

impl FelixConfigurationSpec {
    /// Fills in what is not written and is stored by every supported version of Calico.
    pub fn apply_defaults(&mut self) {
        self.nftables_mode.get_or_insert_with(|| "Auto".to_owned());
        self.floating_ips.get_or_insert_with(|| "Disabled".to_owned());
        let (load_balancing, nat) = match self.bpf_connect_time_load_balancing_enabled {
            None => ("TCP", "Enabled"),
            Some(enabled) => {
                // The old field decides over the new ones.
                self.bpf_connect_time_load_balancing = None;
                self.bpf_host_networked_nat_without_ctlb = None;
                (if enabled { "Enabled" } else { "Disabled" }, "Disabled")
            }
        };
        self.bpf_connect_time_load_balancing
            .get_or_insert_with(|| load_balancing.to_owned());
        self.bpf_host_networked_nat_without_ctlb
            .get_or_insert_with(|| nat.to_owned());
    }
}

/// Label of an endpoint that repeats its namespace.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// Label of an endpoint that repeats its orchestrator.
pub const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";

fn default_endpoint(endpoint: &mut WorkloadEndpoint) {
    if endpoint.metadata.name.is_empty() {
        // Where no name can be made, validation says why.
        endpoint.metadata.name = crate::names::endpoint_name(&endpoint.spec).unwrap_or_default();
    }
    let labels = &mut endpoint.metadata.labels;
    labels.insert(NAMESPACE_LABEL.to_owned(), endpoint.metadata.namespace.clone());
    labels.insert(ORCHESTRATOR_LABEL.to_owned(), endpoint.spec.orchestrator.clone());
}

impl AnyResource {
    /// Fills in what Calico's clients fill in before they store an object: see each spec, and the label of a policy's
    /// tier and the two labels of an endpoint.
    pub fn apply_defaults(&mut self) {
        match self {
            Self::IpPool(pool) => Arc::make_mut(pool).spec.apply_defaults(),
            Self::NetworkPolicy(policy) => Arc::make_mut(policy).spec.apply_defaults(),
            Self::GlobalNetworkPolicy(policy) => Arc::make_mut(policy).spec.apply_defaults(),
            Self::Tier(tier) => Arc::make_mut(tier).spec.apply_defaults(),
            Self::BgpConfiguration(config) => Arc::make_mut(config).spec.apply_defaults(),
            Self::FelixConfiguration(config) => Arc::make_mut(config).spec.apply_defaults(),
            Self::WorkloadEndpoint(endpoint) => default_endpoint(Arc::make_mut(endpoint)),
            Self::KubeControllersConfiguration(config) => Arc::make_mut(config).spec.apply_defaults(),
            Self::StagedNetworkPolicy(policy) => Arc::make_mut(policy).spec.apply_defaults(),
            Self::StagedGlobalNetworkPolicy(policy) => Arc::make_mut(policy).spec.apply_defaults(),
            Self::StagedKubernetesNetworkPolicy(policy) => {
                let spec = &mut Arc::make_mut(policy).spec;
                spec.staged_action.get_or_insert(StagedAction::Set);
            }
            _ => {}
        }
        if let Some(tier) = self.tier().map(str::to_owned) {
            self.metadata_mut().labels.insert(TIER_LABEL.to_owned(), tier);
        }
    }
}

/// A configuration object with all defaults, as a node creates it where it is absent.
#[must_use]
pub(crate) fn with_defaults<S: crate::resource::Spec>(resource: Resource<S>) -> AnyResource {
    let mut any = AnyResource::from(resource);
    any.apply_defaults();
    any
}

#[cfg(test)]
mod tests;
