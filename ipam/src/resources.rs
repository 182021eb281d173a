//! The few fields of Calico's resources that decide about addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use twill_model::net::Net;
use twill_model::resources::clusterinformation::ClusterInformation;
use twill_model::resources::ippool::{AllowedUse, AssignmentMode, EncapMode, IpPool, IpPoolSpec};
use twill_model::resources::ipreservation::IpReservation;
use twill_model::resources::kubecontrollersconfiguration::KubeControllersConfiguration;
use twill_model::resources::node::Node;
use twill_model::resources::profile::Profile;
use twill_model::resources::workloadendpoint::WorkloadEndpoint;
use twill_model::selector::Selector;

use crate::pool::{Encapsulation, Pool};
use crate::state::Cluster;

/// Reads an `IPPool`, filling in Calico's defaults, and refuses what would make blocks that Calico cannot read.
pub(crate) fn pool(name: &str, bytes: &[u8]) -> Result<Pool, String> {
    pool_of(name, &IpPool::decode(bytes).map_err(|e| e.to_string())?.spec)
}

/// As [`pool`], from the decoded object.
pub(crate) fn pool_of(name: &str, spec: &IpPoolSpec) -> Result<Pool, String> {
    let cidr = spec.cidr.masked();
    let (default, range) = if cidr.addr().is_ipv4() {
        (26, 20..=32)
    } else {
        (122, 116..=128)
    };
    let block_size = if spec.block_size == 0 {
        default
    } else {
        spec.block_size
    };
    if !range.contains(&block_size) || block_size < cidr.prefix_len() {
        return Err(format!("blockSize {block_size} does not suit {cidr}"));
    }
    let mut allowed_uses = spec.allowed_uses.clone();
    if allowed_uses.is_empty() {
        allowed_uses = vec![AllowedUse::Workload, AllowedUse::Tunnel];
    }
    let is_on = |mode: Option<EncapMode>| mode.is_some_and(|mode| mode != EncapMode::Never);
    let encapsulation = match (is_on(spec.ipip_mode), is_on(spec.vxlan_mode)) {
        (true, _) => Encapsulation::Ipip,
        (false, true) => Encapsulation::Vxlan,
        (false, false) => Encapsulation::None,
    };
    Ok(Pool {
        name: name.to_owned(),
        cidr,
        block_size,
        node_selector: spec.node_selector.clone(),
        namespace_selector: spec.namespace_selector.clone(),
        allowed_uses,
        automatic: spec.assignment_mode != Some(AssignmentMode::Manual),
        disabled: spec.disabled,
        encapsulation,
    })
}

/// Reads the CIDRs of an `IPReservation`; a bare address reserves itself.
pub(crate) fn reservation(bytes: &[u8]) -> Result<Vec<IpNet>, String> {
    let spec = IpReservation::decode(bytes).map_err(|e| e.to_string())?.spec;
    Ok(spec.reserved_cidrs.iter().map(Net::masked).collect())
}

/// Reads the labels of a `Node`.
pub(crate) fn node_labels(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    Ok(Node::decode(bytes).map_err(|e| e.to_string())?.metadata.labels)
}

/// Reads whether the datastore is open for changes (absent means open, as for Felix), and who shares it.
pub(crate) fn cluster(bytes: &[u8]) -> Result<Cluster, String> {
    let spec = ClusterInformation::decode(bytes).map_err(|e| e.to_string())?.spec;
    Ok(Cluster {
        is_ready: spec.datastore_ready.unwrap_or(true),
        stores_released_at: stores_released_at(&spec.calico_version),
    })
}

/// Reads the labels of a namespace from its profile, where each has a prefix.
pub(crate) fn namespace_labels(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let profile = Profile::decode(bytes).map_err(|e| e.to_string())?;
    let labels = profile.spec.labels_to_apply.into_iter();
    let own = labels.filter_map(|(key, value)| Some((key.strip_prefix("pcns.")?.to_owned(), value)));
    Ok(own.collect())
}

/// Whether `releasedAt` may be written beside Calico components of `calico_version`: 3.33 or later, or none at all. The
/// newest calico-node to start writes the version.
pub(crate) fn stores_released_at(calico_version: &str) -> bool {
    let mut parts = calico_version.trim_start_matches('v').split(['.', '-']);
    let mut number = || parts.next().and_then(|n| n.parse::<u32>().ok());
    match (number(), number()) {
        (Some(major), Some(minor)) => (major, minor) >= (3, 33),
        // A build without a number is a development build of the newest.
        _ => true,
    }
}

/// Reads `leakGracePeriod` of the node controller, in milliseconds; `None` if it is not set. Zero means: do not collect.
pub(crate) fn leak_grace_ms(bytes: &[u8]) -> Result<Option<u64>, String> {
    let spec = KubeControllersConfiguration::decode(bytes)
        .map_err(|e| e.to_string())?
        .spec;
    let grace = spec.controllers.node.and_then(|node| node.leak_grace_period);
    Ok(grace.map(|grace| u64::try_from(grace.to_std().as_millis()).unwrap_or(u64::MAX)))
}

/// What of a `WorkloadEndpoint` says where it is: there are as many as pods, and the rest of each is several times as long.
#[derive(Deserialize)]
struct Place {
    spec: Option<PlaceSpec>,
}

#[derive(Default, Deserialize)]
struct PlaceSpec {
    node: Option<String>,
    #[serde(rename = "ipNetworks")]
    ip_networks: Option<Vec<Net>>,
}

/// Reads the node and the addresses of a `WorkloadEndpoint`.
pub(crate) fn endpoint_place(bytes: &[u8]) -> Result<(String, Vec<IpAddr>), String> {
    let is_object = bytes.trim_ascii_start().first() == Some(&b'{');
    let Some(place) = serde_json::from_slice::<Place>(bytes).ok().filter(|_| is_object) else {
        // The whole object says what is wrong, and where.
        let endpoint = WorkloadEndpoint::decode(bytes).map_err(|e| e.to_string())?;
        let held = endpoint.spec.ip_networks.iter().map(Net::addr).collect();
        return Ok((endpoint.spec.node.clone(), held));
    };
    let spec = place.spec.unwrap_or_default();
    let held = spec.ip_networks.unwrap_or_default();
    Ok((
        spec.node.unwrap_or_default(),
        held.iter().map(Net::addr).collect(),
    ))
}

/// Reads the addresses of a `WorkloadEndpoint`.
pub(crate) fn endpoint_addresses(bytes: &[u8]) -> Result<Vec<IpAddr>, String> {
    endpoint_place(bytes).map(|(_, held)| held)
}

/// Whether `labels` satisfy `selector`.
pub(crate) fn selects(selector: &str, labels: &BTreeMap<String, String>) -> Result<bool, String> {
    let selector = Selector::parse(selector).map_err(|e| e.to_string())?;
    Ok(selector.matches(labels))
}
