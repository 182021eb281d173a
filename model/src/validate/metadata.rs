//! Names, namespaces, labels and annotations.

use super::Check;
use super::text::{self, LABEL_BYTES_MAX, NAME_BYTES_MAX};
use crate::defaults::NAMESPACE_LABEL;
use crate::initial::DEFAULT;
use crate::kind::Kind;
use crate::meta::StringMap;
use crate::resource::AnyResource;

/// Most bytes of all annotations of an object or rule, keys included, as in Kubernetes.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;

pub(super) fn check(check: &mut Check, any: &AnyResource) {
    let (kind, meta) = (any.kind(), any.metadata());
    check.field("metadata", |check| {
        check.field("name", |check| name(check, kind, &meta.name));
        namespace(check, kind, &meta.namespace);
        labels(check, "labels", &meta.labels);
        annotations(check, &meta.annotations);
        let reserved = matches!(kind, Kind::NetworkSet | Kind::GlobalNetworkSet)
            && meta.labels.contains_key(NAMESPACE_LABEL);
        check.refuse(
            reserved,
            "labels",
            "projectcalico.org/namespace is set by the namespace alone",
        );
    });
}

fn name(check: &mut Check, kind: Kind, name: &str) {
    if name.is_empty() {
        return check.wrong("must be set");
    }
    let max = if kind == Kind::Tier {
        LABEL_BYTES_MAX
    } else {
        NAME_BYTES_MAX
    };
    if name.len() > max {
        return check.wrong(format!("has {} bytes, at most {max} are allowed", name.len()));
    }
    let (right, wanted) = match kind {
        Kind::Tier => (
            text::is_label(name),
            "a tier's name: lower-case letters, digits and '-', no '.'",
        ),
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy => (
            is_policy_name(name) || is_converted(name),
            "a policy's name: lower-case letters, digits and '-', at most one '.'",
        ),
        Kind::GlobalNetworkPolicy | Kind::StagedGlobalNetworkPolicy => (
            is_policy_name(name),
            "a policy's name: lower-case letters, digits and '-', at most one '.'",
        ),
        Kind::ClusterInformation | Kind::IpamConfiguration | Kind::KubeControllersConfiguration => {
            (name == DEFAULT, "\"default\", the only name of this kind")
        }
        _ => (text::is_subdomain(name), text::SUBDOMAIN),
    };
    if !right {
        check.wrong(format!("{name:?} is not {wanted}"));
    }
}

fn is_policy_name(name: &str) -> bool {
    text::is_subdomain(name) && name.matches('.').count() <= 1
}

/// The name of a policy that was made from one of Kubernetes or OpenStack.
fn is_converted(name: &str) -> bool {
    ["knp.default.", "ossg.default."]
        .iter()
        .any(|prefix| name.strip_prefix(prefix).is_some_and(text::is_subdomain))
}

fn namespace(check: &mut Check, kind: Kind, namespace: &str) {
    match (kind.is_namespaced(), namespace.is_empty()) {
        (true, true) => check.wrong_field("namespace", format!("must be set, a {kind} lives in one")),
        (false, false) => {
            check.wrong_field(
                "namespace",
                format!("must not be set, a {kind} is of the whole cluster"),
            );
        }
        _ => check.name("namespace", namespace),
    }
}

pub(super) fn labels(check: &mut Check, field: &str, labels: &StringMap) {
    check.field(field, |check| {
        for (key, value) in labels {
            if !text::is_label_key(key) {
                check.wrong(format!("{key:?} is not a key of a label"));
            }
            if !text::is_label_value(value) {
                check.wrong(format!("{value:?} is not a value of a label, as {key:?} has it"));
            }
        }
    });
}

pub(super) fn annotations(check: &mut Check, annotations: &StringMap) {
    check.field("annotations", |check| {
        for key in annotations.keys() {
            if !text::is_label_key(&key.to_lowercase()) {
                check.wrong(format!("{key:?} is not a key of an annotation"));
            }
        }
        let bytes: usize = annotations
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if bytes > ANNOTATION_BYTES_MAX {
            check.wrong(format!(
                "have {bytes} bytes, at most {ANNOTATION_BYTES_MAX} are allowed"
            ));
        }
    });
}
