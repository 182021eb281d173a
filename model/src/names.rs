//! Names that are made from other names: of endpoints, of their interfaces, of profiles.

use sha1::{Digest, Sha1};

use crate::resources::WorkloadEndpointSpec;

/// Orchestrator of endpoints of Kubernetes pods.
pub const ORCHESTRATOR_K8S: &str = "k8s";
/// Orchestrator of endpoints of containers that CNI is not told a pod for.
pub const ORCHESTRATOR_CNI: &str = "cni";
/// Hexadecimal digits of the hash in an interface name: with `cali` it fits the 15 characters that Linux allows.
const HASH_DIGITS: usize = 11;

/// A field from which a name cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field spec.{field}: {reason}")]
pub struct NameError {
    /// The field's name in the spec.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The name that an endpoint must have: `<node>-k8s-<pod>-<interface>`, `<node>-cni-<container>-<interface>`,
/// `<node>-libnetwork-libnetwork-<interface>` or `<node>-<orchestrator>-<workload>-<interface>`, dashes within a part
/// doubled.
///
/// # Errors
/// If a part is empty or begins or ends with a dash.
pub fn endpoint_name(spec: &WorkloadEndpointSpec) -> Result<String, NameError> {
    let third = match spec.orchestrator.as_str() {
        ORCHESTRATOR_K8S => ("pod", &spec.pod),
        ORCHESTRATOR_CNI => ("containerID", &spec.container_id),
        "libnetwork" => ("orchestrator", &spec.orchestrator),
        _ => ("workload", &spec.workload),
    };
    let parts = [
        ("node", &spec.node),
        ("orchestrator", &spec.orchestrator),
        third,
        ("endpoint", &spec.endpoint),
    ];
    let escaped: Result<Vec<String>, NameError> = parts
        .into_iter()
        .map(|(field, part)| escape(field, part))
        .collect();
    Ok(escaped?.join("-"))
}

fn escape(field: &'static str, part: &str) -> Result<String, NameError> {
    let reason = match part {
        "" => "must be set, it is part of the name",
        _ if part.starts_with('-') => "must not begin with a dash, it is part of the name",
        _ if part.ends_with('-') => "must not end with a dash, it is part of the name",
        _ => return Ok(part.replace('-', "--")),
    };
    Err(NameError { field, reason })
}

/// The four parts of an endpoint's name, or `None` if there are not four.
#[must_use]
pub fn endpoint_parts(name: &str) -> Option<[String; 4]> {
    let mut parts = vec![String::new()];
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '-' && parts.last().is_some_and(|part| !part.is_empty()) && chars.next_if_eq(&'-').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
        .try_into()
        .ok()
        .filter(|parts: &[String; 4]| parts.iter().all(|part| !part.is_empty()))
}

/// The interface of a pod: `prefix` (`cali` by default; of a list the first) and 11 digits of the SHA-1 of
/// `<namespace>.<pod>`.
#[must_use]
pub fn pod_interface(prefix: &str, namespace: &str, pod: &str) -> String {
    let prefix = prefix
        .split(',')
        .next()
        .filter(|first| !first.is_empty())
        .unwrap_or("cali");
    let hash = Sha1::digest(format!("{namespace}.{pod}"));
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let digits: String = hex.chars().take(HASH_DIGITS).collect();
    format!("{prefix}{digits}")
}

/// The interface of a container that CNI is not told a pod for: `prefix` and the first 11 characters of its id.
#[must_use]
pub fn container_interface(prefix: &str, container_id: &str) -> String {
    let prefix = prefix
        .split(',')
        .next()
        .filter(|first| !first.is_empty())
        .unwrap_or("cali");
    format!(
        "{prefix}{}",
        container_id.chars().take(HASH_DIGITS).collect::<String>()
    )
}

/// The IPAM handle of a container: `<network>.<container id>`, in exactly this case.
#[must_use]
pub fn handle_id(network: &str, container_id: &str) -> String {
    format!("{network}.{container_id}")
}

/// The profile of a Kubernetes namespace.
#[must_use]
pub fn namespace_profile(namespace: &str) -> String {
    format!("kns.{namespace}")
}

/// The profile of a Kubernetes service account.
#[must_use]
pub fn service_account_profile(namespace: &str, account: &str) -> String {
    format!("ksa.{namespace}.{account}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(orchestrator: &str, node: &str, third: &str) -> WorkloadEndpointSpec {
        WorkloadEndpointSpec {
            orchestrator: orchestrator.into(),
            node: node.into(),
            pod: third.into(),
            container_id: third.into(),
            workload: third.into(),
            endpoint: "eth0".into(),
            ..Default::default()
        }
    }

    #[test]
    fn endpoints_are_named_by_their_orchestrator() {
        for (orchestrator, name) in [
            ("k8s", "n1-k8s-web--0-eth0"),
            ("cni", "n1-cni-web--0-eth0"),
            ("libnetwork", "n1-libnetwork-libnetwork-eth0"),
            ("open-stack", "n1-open--stack-web--0-eth0"),
        ] {
            assert_eq!(endpoint_name(&spec(orchestrator, "n1", "web-0")).unwrap(), name);
        }
    }

    #[test]
    fn a_part_that_makes_no_name_is_named() {
        assert_eq!(endpoint_name(&spec("k8s", "", "p")).unwrap_err().field, "node");
        assert_eq!(
            endpoint_name(&spec("cni", "n1", "")).unwrap_err().field,
            "containerID"
        );
        assert_eq!(endpoint_name(&spec("k8s", "n1", "-p")).unwrap_err().field, "pod");
        assert_eq!(endpoint_name(&spec("k8s", "n1", "p-")).unwrap_err().field, "pod");
    }

    #[test]
    fn interfaces_are_named_as_calico_names_them() {
        // sha1sum of "namespace.podname" begins with 84e6e9f8c5e.
        assert_eq!(pod_interface("cali", "default", "web-0"), "cali0d7763386da");
        assert_eq!(pod_interface("", "default", "web-0"), "cali0d7763386da");
        assert_eq!(pod_interface("eni,cali", "default", "web-0"), "eni0d7763386da");
        assert_eq!(container_interface("cali", "0123456789abcdef"), "cali0123456789a");
        assert_eq!(container_interface("cali", "01"), "cali01");
    }

    proptest! {
        #[test]
        fn the_parts_of_a_name_can_be_read_back(
            node in "[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?", pod in "[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?"
        ) {
            let name = endpoint_name(&spec("k8s", &node, &pod)).unwrap();
            prop_assert_eq!(endpoint_parts(&name), Some([node, "k8s".into(), pod, "eth0".into()]));
        }
    }
}
