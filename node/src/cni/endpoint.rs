//! Whose interface a request is about, and the WorkloadEndpoint that stands for it. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use twill_model::key::ResourceKey;
use twill_model::names;
use twill_model::resources::{WorkloadEndpoint, WorkloadEndpointSpec};
use twill_model::{Kind, ObjectMeta, Resource};
use twill_proto::cni::{Add, Attachment};

use super::{CniError, code};

/// The gateways that every pod has, as Calico's plugin gives them.
pub(super) const GATEWAYS: [&str; 2] = ["169.254.1.1", "fe80::1"];
/// The pod's first interface, which alone carries the pod's name in IPAM: kube-controllers frees addresses with a pod's
/// name that the pod does not list.
const FIRST_IFNAME: &str = "eth0";
/// Kubernetes' bound on a label's value; longer names of service accounts are left out, readers take the spec's.
const LABEL_VALUE_MAX: usize = 63;
const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";
/// On endpoints of further interfaces, so that policy can tell them apart. Calico's endpoints have none.
const NETWORK_LABEL: &str = "projectcalico.org/network";
const INTERFACE_LABEL: &str = "projectcalico.org/network-interface";
const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// An attachment with its names worked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) key: ResourceKey,
    /// Of the host's side.
    pub(super) interface: String,
    pub(super) handle: String,
    /// For IPAM.
    pub(super) attributes: BTreeMap<String, String>,
    /// Orchestrator, node, container, pod, endpoint and profiles; addresses and MAC come later.
    spec: WorkloadEndpointSpec,
}

impl Workload {
    /// # Errors
    /// A name that makes no name of an endpoint: code 4.
    pub(super) fn new(node: &str, prefix: &str, a: &Attachment, now: &str) -> Result<Self, CniError> {
        let k8s = !a.k8s_pod.is_empty() && !a.k8s_namespace.is_empty();
        let mut spec = WorkloadEndpointSpec {
            orchestrator: if k8s {
                names::ORCHESTRATOR_K8S
            } else {
                names::ORCHESTRATOR_CNI
            }
            .to_owned(),
            node: node.to_owned(),
            container_id: a.container_id.clone(),
            endpoint: a.ifname.clone(),
            ..WorkloadEndpointSpec::default()
        };
        if k8s {
            spec.pod.clone_from(&a.k8s_pod);
        }
        let invalid = |what: &dyn std::fmt::Display| CniError::new(code::INVALID_ENVIRONMENT, what);
        let name = names::endpoint_name(&spec).map_err(|e| invalid(&e))?;
        let namespace = if k8s { a.k8s_namespace.as_str() } else { "default" };
        if namespace.contains('/') || name.contains('/') {
            return Err(invalid(&format_args!(
                "K8S_POD_NAMESPACE {namespace:?} or K8S_POD_NAME {:?} has a '/'",
                a.k8s_pod
            )));
        }
        let first = a.ifname == FIRST_IFNAME;
        let interface = match (k8s, first) {
            (true, true) => names::pod_interface(prefix, namespace, &a.k8s_pod),
            (true, false) => names::pod_interface(prefix, namespace, &format!("{}.{}", a.k8s_pod, a.ifname)),
            (false, true) => names::container_interface(prefix, &a.container_id),
            (false, false) => names::pod_interface(prefix, &a.container_id, &a.ifname),
        };
        spec.interface_name.clone_from(&interface);
        let mut attributes = BTreeMap::from([
            ("node".to_owned(), node.to_owned()),
            ("timestamp".to_owned(), now.to_owned()),
        ]);
        if k8s && first {
            attributes.insert("namespace".to_owned(), namespace.to_owned());
            attributes.insert("pod".to_owned(), a.k8s_pod.clone());
        }
        Ok(Self {
            key: ResourceKey::namespaced(Kind::WorkloadEndpoint, namespace, name),
            interface,
            handle: names::handle_id(&a.network, &a.container_id),
            attributes,
            spec,
        })
    }

    pub(super) fn is_k8s(&self) -> bool {
        self.spec.orchestrator == names::ORCHESTRATOR_K8S
    }

    pub(super) fn container(&self) -> &str {
        &self.spec.container_id
    }

    fn namespace(&self) -> &str {
        self.key.namespace.as_deref().unwrap_or_default()
    }

    /// The endpoint as it should be stored, but for its addresses. What others wrote on an endpoint that exists stays.
    pub(super) fn endpoint(
        &self,
        add: &Add,
        existing: Option<&WorkloadEndpoint>,
        mac: &str,
    ) -> WorkloadEndpoint {
        let fresh = || {
            Resource::new(
                ObjectMeta::namespaced(self.namespace(), &self.key.name),
                WorkloadEndpointSpec::default(),
            )
        };
        let mut endpoint = existing.cloned().unwrap_or_else(fresh);
        let account = match (self.is_k8s(), add.service_account.as_str()) {
            (false, _) => "",
            (true, "") => "default",
            (true, account) => account,
        };
        let mut labels = if self.is_k8s() {
            add.labels.clone()
        } else {
            BTreeMap::new()
        };
        labels.insert(NAMESPACE_LABEL.into(), self.namespace().to_owned());
        labels.insert(ORCHESTRATOR_LABEL.into(), self.spec.orchestrator.clone());
        if !account.is_empty() && account.len() < LABEL_VALUE_MAX {
            labels.insert(SERVICE_ACCOUNT_LABEL.into(), account.to_owned());
        }
        if let Some(a) = add.attachment.as_ref().filter(|a| a.ifname != FIRST_IFNAME) {
            for (label, value) in [(NETWORK_LABEL, &a.network), (INTERFACE_LABEL, &a.ifname)] {
                if is_label_value(value) {
                    labels.insert(label.into(), value.clone());
                }
            }
        }
        endpoint.metadata.labels = labels;
        if self.is_k8s()
            && let Some((stem, _)) = self.spec.pod.rsplit_once('-')
        {
            endpoint.metadata.generate_name = format!("{stem}-");
        }
        let spec = &mut endpoint.spec;
        let ours = self.spec.clone();
        spec.orchestrator = ours.orchestrator;
        spec.node = ours.node;
        spec.container_id = ours.container_id;
        spec.pod = ours.pod;
        spec.endpoint = ours.endpoint;
        spec.interface_name = ours.interface_name;
        account.clone_into(&mut spec.service_account_name);
        spec.profiles = self.profiles(add, account);
        mac.clone_into(&mut spec.mac);
        spec.ip_networks = Vec::new();
        endpoint
    }

    /// `policy.type: k8s` means the namespace's and the account's; without, the network is one profile.
    fn profiles(&self, add: &Add, account: &str) -> Vec<String> {
        if self.is_k8s() && add.policy_type == "k8s" {
            let namespace = self.namespace();
            return vec![
                names::namespace_profile(namespace),
                names::service_account_profile(namespace, account),
            ];
        }
        vec![
            add.attachment
                .as_ref()
                .map_or_else(String::new, |a| a.network.clone()),
        ]
    }
}

/// Kubernetes' rule: letters, digits, `-`, `_`, `.`, a letter or digit first and last.
fn is_label_value(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= LABEL_VALUE_MAX
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || matches!(c, '-' | '_' | '.'))
}

/// The endpoint with its addresses: what makes it visible.
pub(super) fn with_addresses(endpoint: &WorkloadEndpoint, addresses: &[IpAddr]) -> WorkloadEndpoint {
    let mut endpoint = endpoint.clone();
    endpoint.spec.ip_networks = addresses.iter().map(|a| IpNet::from(*a).into()).collect();
    endpoint
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(pod: &str, ifname: &str) -> Attachment {
        Attachment {
            container_id: "0123456789abcdef".into(),
            ifname: ifname.into(),
            network: "k8s-pod-network".into(),
            k8s_namespace: if pod.is_empty() {
                String::new()
            } else {
                "default".into()
            },
            k8s_pod: pod.into(),
            ..Attachment::default()
        }
    }

    fn workload(pod: &str, ifname: &str) -> Workload {
        Workload::new("n1", "cali", &attachment(pod, ifname), "now").unwrap()
    }

    fn add(policy_type: &str) -> Add {
        Add {
            attachment: Some(attachment("web-0", "eth0")),
            labels: BTreeMap::from([("app".into(), "web".into())]),
            policy_type: policy_type.into(),
            ..Add::default()
        }
    }

    #[test]
    fn a_further_interface_is_labelled_with_its_network_and_carries_no_pod_in_ipam() {
        let second = Add {
            attachment: Some(attachment("web-0", "net1")),
            ..add("k8s")
        };
        let labels = |add: &Add, ifname| workload("web-0", ifname).endpoint(add, None, "").metadata.labels;
        let of_second = labels(&second, "net1");
        assert_eq!(of_second["projectcalico.org/network"], "k8s-pod-network");
        assert_eq!(of_second["projectcalico.org/network-interface"], "net1");
        assert!(!labels(&add("k8s"), "eth0").keys().any(|k| k.contains("/network")));
        assert!(!workload("web-0", "net1").attributes.contains_key("pod"));
        assert!(workload("web-0", "eth0").attributes.contains_key("pod"));
        assert!(is_label_value("net-1") && !is_label_value("net_") && !is_label_value(&"n".repeat(64)));
    }

    #[test]
    fn a_pods_endpoint_is_byte_for_byte_calicos() {
        let workload = workload("web-0", "eth0");
        let mut endpoint = workload.endpoint(&add("k8s"), None, "ee:00:00:00:00:01");
        endpoint.metadata.uid = "u".into();
        let endpoint = with_addresses(&endpoint, &["10.244.0.0".parse().unwrap()]);
        assert_eq!(
            String::from_utf8(endpoint.encode()).unwrap(),
            concat!(
                r#"{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1-k8s-web--0-eth0","#,
                r#""generateName":"web-","namespace":"default","uid":"u","labels":{"app":"web","projectcalico.org/namespace":"default","#,
                r#""projectcalico.org/orchestrator":"k8s","projectcalico.org/serviceaccount":"default"}},"spec":{"orchestrator":"k8s","#,
                r#""node":"n1","containerID":"0123456789abcdef","pod":"web-0","endpoint":"eth0","serviceAccountName":"default","#,
                r#""ipNetworks":["10.244.0.0/32"],"profiles":["kns.default","ksa.default.default"],"interfaceName":"cali0d7763386da","#,
                r#""mac":"ee:00:00:00:00:01"}}"#
            )
        );
        assert_eq!(workload.handle, "k8s-pod-network.0123456789abcdef");
        assert_eq!(workload.attributes["pod"], "web-0");
    }

    #[test]
    fn without_a_pod_it_is_named_by_its_container_and_has_the_networks_profile() {
        let workload = workload("", "eth0");
        assert_eq!(workload.key.name, "n1-cni-0123456789abcdef-eth0");
        assert_eq!(workload.interface, "cali0123456789a");
        let endpoint = workload.endpoint(&add("k8s"), None, "m");
        assert_eq!(endpoint.spec.profiles, ["k8s-pod-network"]);
        assert_eq!(
            endpoint.metadata.labels.keys().collect::<Vec<_>>(),
            [NAMESPACE_LABEL, ORCHESTRATOR_LABEL]
        );
        assert!(!workload.attributes.contains_key("pod"));
    }

    #[test]
    fn a_second_interface_has_its_own_names_and_no_pod_in_ipam() {
        let (first, second) = (workload("web-0", "eth0"), workload("web-0", "net1"));
        assert_ne!(first.key, second.key);
        assert_ne!(first.interface, second.interface);
        assert!(!second.attributes.contains_key("pod") && second.attributes["node"] == "n1");
    }

    #[test]
    fn what_others_wrote_on_an_endpoint_stays() {
        let workload = workload("web-0", "eth0");
        let mut old = workload.endpoint(&add("k8s"), None, "m");
        old.metadata.uid = "u".into();
        old.spec.container_id = "old".into();
        old.spec.ipv4_gateway = "10.0.0.1".into();
        old.metadata.annotations.insert("k".into(), "v".into());
        let new = workload.endpoint(&add(""), Some(&old), "m2");
        assert_eq!(
            (new.metadata.uid.as_str(), new.spec.ipv4_gateway.as_str()),
            ("u", "10.0.0.1")
        );
        assert_eq!(new.metadata.annotations["k"], "v");
        assert_eq!(
            (new.spec.container_id.as_str(), new.spec.mac.as_str()),
            ("0123456789abcdef", "m2")
        );
        assert_eq!(new.spec.profiles, ["k8s-pod-network"]);
    }

    #[test]
    fn a_name_that_is_none_is_an_error_of_the_environment() {
        for pod in ["-a", "a-", "a/b"] {
            let error = Workload::new("n1", "cali", &attachment(pod, "eth0"), "").unwrap_err();
            assert_eq!(error.code, code::INVALID_ENVIRONMENT, "{pod}");
        }
    }
}
