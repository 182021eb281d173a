//! KubeControllersConfiguration: what kube-controllers, or the cluster's collector here, keep doing.

use std::collections::BTreeMap;

use crate::duration::GoDuration;
use crate::go::{go_struct, words};
use crate::resource::Resource;
use crate::resources::ipamconfiguration::Switch;

/// Settings of the controllers, named `default`.
pub type KubeControllersConfiguration = Resource<KubeControllersConfigurationSpec>;

words! {
    /// Which services of type LoadBalancer get an address.
    pub enum AssignIps {
        /// Every one.
        AllServices = "AllServices",
        /// Those that ask for it by annotation.
        RequestedServicesOnly = "RequestedServicesOnly",
    }
}

go_struct! {
    /// Settings of the controllers.
    #[derive(Default)]
    pub struct KubeControllersConfigurationSpec {
        /// What is logged.
        pub log_severity_screen: String = "logSeverityScreen" omitempty,
        /// Whether health is served.
        pub health_checks: Option<Switch> = "healthChecks" omitempty,
        /// How often etcd is compacted; zero is never.
        pub etcd_v3_compaction_period: Option<GoDuration> = "etcdV3CompactionPeriod" omitempty,
        /// TCP port of the metrics; 0 is none.
        pub prometheus_metrics_port: Option<u16> = "prometheusMetricsPort" omitempty,
        /// The controllers that run.
        pub controllers: ControllersConfig = "controllers" always,
        /// TCP port of the profiles; none by default.
        pub debug_profile_port: Option<u16> = "debugProfilePort" omitempty,
    }
}

go_struct! {
    /// The controllers that run; an absent one does not.
    #[derive(Default)]
    pub struct ControllersConfig {
        /// Cleans up after nodes, and collects leaked addresses.
        pub node: Option<NodeController> = "node" omitempty,
        /// Converts Kubernetes' policies.
        pub policy: Option<Reconciler> = "policy" omitempty,
        /// Follows pods' labels.
        pub workload_endpoint: Option<Reconciler> = "workloadEndpoint" omitempty,
        /// Makes profiles of service accounts.
        pub service_account: Option<Reconciler> = "serviceAccount" omitempty,
        /// Makes profiles of namespaces.
        pub namespace: Option<Reconciler> = "namespace" omitempty,
        /// Gives addresses to services of type LoadBalancer.
        pub load_balancer: Option<LoadBalancerController> = "loadBalancer" omitempty,
        /// Renames policies that 3.31 and older stored.
        pub migration: Option<MigrationController> = "policyMigration" omitempty,
    }
}

go_struct! {
    /// A controller with one setting.
    #[derive(Default)]
    pub struct Reconciler {
        /// How often everything is compared.
        pub reconciler_period: Option<GoDuration> = "reconcilerPeriod" omitempty,
    }
}

go_struct! {
    /// The controller of nodes.
    #[derive(Default)]
    pub struct NodeController {
        /// How often everything is compared.
        pub reconciler_period: Option<GoDuration> = "reconcilerPeriod" omitempty,
        /// Whether Kubernetes' labels are copied to Nodes.
        pub sync_labels: Option<Switch> = "syncLabels" omitempty,
        /// Host endpoints that are made for nodes.
        pub host_endpoint: Option<AutoHostEndpoint> = "hostEndpoint" omitempty,
        /// How long an address must have leaked before it is collected; zero is never.
        pub leak_grace_period: Option<GoDuration> = "leakGracePeriod" omitempty,
    }
}

go_struct! {
    /// Host endpoints that are made for nodes.
    #[derive(Default)]
    pub struct AutoHostEndpoint {
        /// Whether any are.
        pub auto_create: Option<Switch> = "autoCreate" omitempty,
        /// Whether each node gets one for all its interfaces.
        pub create_default_host_endpoint: Option<Switch> = "createDefaultHostEndpoint" omitempty,
        /// Further ones.
        pub templates: Vec<HostEndpointTemplate> = "templates" omitempty,
    }
}

go_struct! {
    /// A host endpoint to be made for each node that it selects.
    #[derive(Default)]
    pub struct HostEndpointTemplate {
        /// End of the host endpoint's name.
        pub generate_name: String = "generateName" omitempty,
        /// Addresses of the node outside these are left out.
        pub interface_cidrs: Vec<String> = "interfaceCIDRs" omitempty,
        /// One for each interface whose name matches: a regular expression of Go's.
        pub interface_pattern: String = "interfacePattern" omitempty,
        /// Labels that win over the node's.
        pub labels: BTreeMap<String, String> = "labels" omitempty,
        /// The nodes; empty is all.
        pub node_selector: String = "nodeSelector" omitempty,
    }
}

go_struct! {
    /// The controller of services of type LoadBalancer.
    #[derive(Default)]
    pub struct LoadBalancerController {
        /// Which services get an address.
        pub assign_ips: Option<AssignIps> = "assignIPs" omitempty,
    }
}

go_struct! {
    /// The controller of stored names.
    #[derive(Default)]
    pub struct MigrationController {
        /// Whether it runs.
        pub policy_name_migrator: Option<Switch> = "enabled" omitempty,
    }
}

go_struct! {
    /// What the controllers say. Always stored, also when empty.
    #[derive(Default)]
    pub struct KubeControllersConfigurationStatus {
        /// What holds, environment included.
        pub running_config: Option<KubeControllersConfigurationSpec> = "runningConfig" omitempty,
        /// The environment that changed something.
        pub environment_vars: BTreeMap<String, String> = "environmentVars" omitempty,
    }
}
