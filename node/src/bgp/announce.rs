//! What this node announces by itself: its own confirmed blocks whole, single addresses that it borrows, and the ranges of
//! service addresses that BGPConfiguration names.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use twill_bgp::config::Origination;
use twill_model::resources::ipamconfiguration::Switch;

use super::config::{default_configuration, local_pref};
use crate::fabric::Fabric;

/// A node with this label announces no service addresses (Kubernetes' name).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What goes out for the prefixes that felix found to be ours, and for services.
pub(crate) fn announcements(
    own: &str,
    fabric: &Fabric,
    ours: &BTreeSet<IpNet>,
) -> BTreeMap<IpNet, Origination> {
    let origination = |net: &IpNet| Origination {
        local_pref: Some(local_pref(fabric, net)),
        ..Origination::default()
    };
    let excluded = fabric
        .nodes
        .get(own)
        .is_some_and(|node| node.metadata.labels.get(EXCLUDED).is_some_and(|v| v == "true"));
    let services = if excluded { Vec::new() } else { services(fabric) };
    ours.iter()
        .chain(&services)
        .map(|net| (*net, origination(net)))
        .collect()
}

/// Ranges that every node announces. A range of one address is announced where the service is, and single services with
/// `serviceLoadBalancerAggregation: Disabled`: both need the services themselves, which come with Kubernetes.
fn services(fabric: &Fabric) -> Vec<IpNet> {
    let Some(config) = default_configuration(fabric) else {
        return Vec::new();
    };
    let spec = &config.spec;
    let aggregated = spec.service_load_balancer_aggregation != Some(Switch::Disabled);
    let balancers = spec.service_load_balancer_ips.iter().filter(|_| aggregated);
    let whole = spec.service_external_ips.iter().chain(balancers);
    let whole = whole
        .filter_map(|block| block.cidr.as_ref())
        .filter(|net| !net.is_single());
    let cluster = spec
        .service_cluster_ips
        .iter()
        .filter_map(|block| block.cidr.as_ref());
    whole.chain(cluster).map(|net| net.masked()).collect()
}

/// Ranges inside which a route reflector passes on what it learned.
pub(super) fn service_ranges(fabric: &Fabric) -> Vec<IpNet> {
    let Some(config) = default_configuration(fabric) else {
        return Vec::new();
    };
    let spec = &config.spec;
    let blocks = spec
        .service_load_balancer_ips
        .iter()
        .chain(&spec.service_external_ips);
    blocks
        .filter_map(|block| block.cidr.as_ref())
        .map(|net| net.masked())
        .collect()
}

/// Every range of services: those of [`service_ranges`], and those of cluster addresses.
pub(super) fn all_service_ranges(fabric: &Fabric) -> Vec<IpNet> {
    let mut ranges = service_ranges(fabric);
    if let Some(config) = default_configuration(fabric) {
        let blocks = config.spec.service_cluster_ips.iter();
        ranges.extend(
            blocks
                .filter_map(|block| block.cidr.as_ref())
                .map(|net| net.masked()),
        );
    }
    ranges
}
