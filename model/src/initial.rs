//! The objects that a cluster needs before anything else: created where absent, never overwritten.

use serde_json::json;

use crate::defaults::with_defaults;
use crate::duration::GoDuration;
use crate::gojson;
use crate::kind::Kind;
use crate::meta::ObjectMeta;
use crate::number::Order;
use crate::resource::{AnyResource, Resource};
use crate::resources::ipamconfiguration::Switch;
use crate::resources::kubecontrollersconfiguration::{
    AutoHostEndpoint, ControllersConfig, LoadBalancerController, MigrationController, NodeController,
    Reconciler,
};
use crate::resources::{
    BgpConfigurationSpec, ClusterInformationSpec, FelixConfigurationSpec, IpamConfigurationSpec,
    KubeControllersConfigurationSpec, TierSpec,
};
use crate::rule::Action;

/// Name of the objects that hold for the whole cluster.
pub const DEFAULT: &str = "default";

/// The name of the configuration of one node.
#[must_use]
pub fn node_config_name(node: &str) -> String {
    format!("node.{node}")
}

/// `clusterinformations/default` with a new GUID from 16 random bytes. It carries `datastoreReady`, without which
/// Calico's plugin crashes, and no version, because calicoctl refuses to work with another than its own.
#[must_use]
pub fn cluster_information(guid: u128) -> AnyResource {
    let spec = ClusterInformationSpec {
        cluster_guid: format!("{guid:032x}"),
        datastore_ready: Some(true),
        ..Default::default()
    };
    Resource::new(ObjectMeta::named(DEFAULT), spec).into()
}

/// The three tiers that always exist, lowest order first.
#[must_use]
pub fn tiers() -> [AnyResource; 3] {
    let tier = |name: &str, order: u32, action| {
        let spec = TierSpec {
            order: Some(Order::from(order)),
            default_action: Some(action),
            ..Default::default()
        };
        Resource::new(ObjectMeta::named(name), spec).into()
    };
    [
        tier("kube-admin", 1_000, Action::Pass),
        tier("default", crate::defaults::TIER_ORDER, Action::Deny),
        tier("kube-baseline", 10_000_000, Action::Pass),
    ]
}

/// `bgpconfigurations/default`.
#[must_use]
pub fn bgp_configuration() -> AnyResource {
    with_defaults(Resource::new(
        ObjectMeta::named(DEFAULT),
        BgpConfigurationSpec::default(),
    ))
}

/// `felixconfigurations/default`.
#[must_use]
pub fn felix_configuration() -> AnyResource {
    let spec = FelixConfigurationSpec {
        log_severity_screen: "Info".to_owned(),
        reporting_interval: Some(GoDuration::default()),
        ..Default::default()
    };
    with_defaults(Resource::new(ObjectMeta::named(DEFAULT), spec))
}

/// `ipamconfigurations/default`, which users see; the allocator obeys [`crate::Key::IpamConfig`].
#[must_use]
pub fn ipam_configuration() -> AnyResource {
    let spec = IpamConfigurationSpec {
        auto_allocate_blocks: true,
        kubevirt_vm_address_persistence: Some(Switch::Enabled),
        ..Default::default()
    };
    Resource::new(ObjectMeta::named(DEFAULT), spec).into()
}

/// `kubecontrollersconfigurations/default`, which `calicoctl ipam check` reads.
#[must_use]
pub fn kube_controllers_configuration() -> AnyResource {
    let every_five_minutes = Some(GoDuration::from_secs(300));
    let reconciler = || {
        Some(Reconciler {
            reconciler_period: every_five_minutes,
            ..Reconciler::default()
        })
    };
    let node = NodeController {
        reconciler_period: every_five_minutes,
        sync_labels: Some(Switch::Enabled),
        host_endpoint: Some(AutoHostEndpoint {
            auto_create: Some(Switch::Disabled),
            create_default_host_endpoint: Some(Switch::Enabled),
            ..AutoHostEndpoint::default()
        }),
        ..NodeController::default()
    };
    let spec = KubeControllersConfigurationSpec {
        log_severity_screen: "Info".to_owned(),
        etcd_v3_compaction_period: Some(GoDuration::from_secs(600)),
        controllers: ControllersConfig {
            node: Some(node),
            policy: reconciler(),
            workload_endpoint: reconciler(),
            service_account: reconciler(),
            namespace: reconciler(),
            load_balancer: Some(LoadBalancerController::default()),
            migration: Some(MigrationController::default()),
            ..ControllersConfig::default()
        },
        ..Default::default()
    };
    with_defaults(Resource::new(ObjectMeta::named(DEFAULT), spec))
}

/// All of them, in the order in which to create them.
#[must_use]
pub fn objects(guid: u128) -> Vec<AnyResource> {
    let mut all = vec![cluster_information(guid)];
    all.extend(tiers());
    all.extend([
        bgp_configuration(),
        felix_configuration(),
        ipam_configuration(),
        kube_controllers_configuration(),
    ]);
    all
}

/// True for the profile that every client and syncer makes up by itself and that must never be stored.
#[must_use]
pub fn is_synthetic(resource: &AnyResource) -> bool {
    resource.kind() == Kind::Profile && resource.metadata().name == DEFAULT_ALLOW_PROFILE
}

/// Name of the profile that allows everything both ways and is never stored.
pub const DEFAULT_ALLOW_PROFILE: &str = "projectcalico-default-allow";

/// The allocator's settings as Calico first stores them, byte for byte.
#[must_use]
pub fn ipam_config_bytes() -> Vec<u8> {
    let config = json!({ "auto_allocate_blocks": true, "kubeVirtVMAddressPersistence": "Enabled" });
    gojson::to_vec(&config).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Validate;

    fn text(any: &AnyResource) -> String {
        String::from_utf8(any.encode()).unwrap()
    }

    #[test]
    fn the_cluster_is_open_and_carries_no_version() {
        assert_eq!(
            text(&cluster_information(0xab)),
            r#"{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{"name":"default"},"spec":{"clusterGUID":"000000000000000000000000000000ab","datastoreReady":true}}"#
        );
    }

    #[test]
    fn the_tiers_are_calicos() {
        let [admin, default, baseline] = tiers().map(|tier| text(&tier));
        assert!(
            admin
                .contains(r#""name":"kube-admin"},"spec":{"order":1000,"defaultAction":"Pass"},"status":{}"#)
        );
        assert!(
            default
                .contains(r#""name":"default"},"spec":{"order":1000000,"defaultAction":"Deny"},"status":{}"#)
        );
        assert!(baseline.contains(r#""spec":{"order":10000000,"defaultAction":"Pass"},"status":{}"#));
    }

    #[test]
    fn all_initial_objects_are_valid_and_stand_under_their_own_keys() {
        let all = objects(1);
        assert_eq!(all.len(), 8);
        for any in all {
            assert_eq!(any.validate(), Ok(()), "{}", any.key());
            assert_eq!(AnyResource::decode(any.kind(), &any.encode()), Ok(any.clone()));
            assert!(!is_synthetic(&any));
        }
    }

    #[test]
    fn the_configurations_are_those_of_the_contract() {
        assert!(
            text(&bgp_configuration()).contains(
                r#""spec":{"logSeverityScreen":"Info","serviceLoadBalancerAggregation":"Enabled"}"#
            )
        );
        assert!(text(&felix_configuration()).contains(
            r#""spec":{"logSeverityScreen":"Info","reportingInterval":"0s","nftablesMode":"Auto","bpfLogLevel":"","bpfConnectTimeLoadBalancing":"TCP","bpfHostNetworkedNATWithoutCTLB":"Enabled","floatingIPs":"Disabled"}"#
        ));
        assert!(text(&ipam_configuration()).contains(
            r#""spec":{"strictAffinity":false,"autoAllocateBlocks":true,"kubeVirtVMAddressPersistence":"Enabled"}"#
        ));
        assert_eq!(
            ipam_config_bytes(),
            br#"{"auto_allocate_blocks":true,"kubeVirtVMAddressPersistence":"Enabled"}"#
        );
    }
}
