//! A workload endpoint as the graph sees it: labels, profiles, addresses, and for those of this node the link.

use std::net::IpAddr;

use ipnet::IpNet;
use twill_model::ResourceKey;
use twill_model::net::Net;
use twill_model::resources::WorkloadEndpoint;
use twill_model::resources::workloadendpoint::EndpointPort;
use twill_model::selector::scope::{
    NAMESPACE_LABEL, NAMESPACE_PREFIX, SERVICE_ACCOUNT_LABEL, SERVICE_ACCOUNT_PREFIX,
};

use super::labels::LabelMap;
use super::sets::Contribution;
use crate::plan::{IfName, Mac};

/// Names an endpoint: its key in the datastore.
pub type EndpointId = ResourceKey;

/// A workload endpoint of any node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its own labels.
    pub labels: LabelMap,
    /// Its profiles, in order.
    pub profiles: Vec<String>,
    /// What it brings to the sets that it is in.
    pub brings: Contribution,
    /// Present for an endpoint of this node.
    pub local: Option<Local>,
}

/// The side of an endpoint that is on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The host side of its link.
    pub link: IfName,
    /// The MAC inside the workload.
    pub mac: Mac,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
    /// Networks that it may send from besides, where the node allows that (`workloadSourceSpoofing`). Disjoint.
    pub spoofs: Vec<IpNet>,
}

impl Endpoint {
    /// Reads a stored endpoint. `Ok(None)` is one without addresses: it is invisible (compat: Felix skips it).
    ///
    /// # Errors
    /// An endpoint of this node whose interface name or MAC the kernel would refuse.
    pub fn read(stored: &WorkloadEndpoint, node: &str) -> Result<Option<Self>, String> {
        let spec = &stored.spec;
        let addrs: Vec<IpAddr> = spec
            .ip_networks
            .iter()
            .filter(|n| n.is_single())
            .map(Net::addr)
            .collect();
        if addrs.is_empty() {
            return Ok(None);
        }
        let local = if spec.node == node {
            let link = IfName::new(&spec.interface_name).map_err(|e| format!("spec.interfaceName: {e}"))?;
            let mac = spec.mac.parse().map_err(|e| format!("spec.mac: {e}"))?;
            Some(Local {
                link,
                mac,
                addrs: addrs.clone(),
                spoofs: IpNet::aggregate(
                    &spec
                        .allow_spoofed_source_prefixes
                        .iter()
                        .map(Net::masked)
                        .collect(),
                ),
            })
        } else {
            None
        };
        let port = |p: &EndpointPort| (p.name.clone(), p.protocol.number(), p.port);
        Ok(Some(Self {
            labels: labels(stored),
            profiles: spec.profiles.clone(),
            brings: Contribution {
                addrs,
                ports: spec.ports.iter().map(port).collect(),
            },
            local,
        }))
    }
}

/// The endpoint's own labels. Those that only a profile may give are taken out, and namespace and service account
/// are those of the object itself: a label cannot claim another's.
fn labels(stored: &WorkloadEndpoint) -> LabelMap {
    let inherited = |key: &str| key.starts_with(NAMESPACE_PREFIX) || key.starts_with(SERVICE_ACCOUNT_PREFIX);
    let own = stored.metadata.labels.iter().filter(|(key, _)| !inherited(key));
    let mut labels: LabelMap = own.map(|(k, v)| (k.clone(), v.clone())).collect();
    labels.insert(NAMESPACE_LABEL.into(), stored.metadata.namespace.clone());
    if !stored.spec.service_account_name.is_empty() {
        labels.insert(
            SERVICE_ACCOUNT_LABEL.into(),
            stored.spec.service_account_name.clone(),
        );
    }
    labels
}
