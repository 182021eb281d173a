//! Keys that a Calico user's configuration has: those whose value decides something here are fields of
//! [`super::RawConf`]; the rest is named in this table with the reason why it is not needed, or refused by name.

use serde_json::{Map, Value};

use super::RawConf;
use crate::error::CniError;

/// Keys that are known and do nothing here, and why. A key that ends in `*` stands for all that begin so.
const IGNORED: [(&str, &str); 18] = [
    ("datastore_type", DATASTORE),
    ("etcd_*", DATASTORE),
    ("kubernetes", DATASTORE),
    ("calico_api_group", DATASTORE),
    ("qps", DATASTORE),
    ("burst", DATASTORE),
    ("nodename_file*", "the daemon knows its node's name"),
    ("hostname", "the daemon knows its node's name"),
    (
        "log_file_*",
        "the plugin logs to standard error and the daemon to its own log",
    ),
    ("endpoint_status_dir", READY),
    ("readiness_gates", READY),
    (
        "ipam_lock_file",
        "addresses are handed out by one daemon, without a lock",
    ),
    ("require_mtu_file", "the daemon reads the uplink's MTU itself"),
    (
        "include_default_routes",
        "a pod's first interface always has the default route",
    ),
    ("num_queues", "the pod's link has one queue"),
    ("dataplane_options", "they are for other dataplanes"),
    ("windows_*", "they are for Windows"),
    ("vxlan_*", "vxlanMode of the pool decides"),
];
const DATASTORE: &str = "the daemon alone speaks to the datastore";
const READY: &str = "ADD answers when the pod's policy is in the kernel, without files or gates";

/// What is asked for and not done, each with its reason, in the order of the configuration.
pub(super) fn ignored(conf: &Map<String, Value>) -> Vec<String> {
    let mut notes: Vec<String> = conf
        .keys()
        .filter_map(|key| {
            let (_, reason) = IGNORED.iter().find(|(known, _)| matches(known, key))?;
            Some(format!("{key}: {reason}"))
        })
        .collect();
    let text = |key: &str| conf.get(key).and_then(Value::as_str).unwrap_or_default();
    if !matches!(text("device_type"), "" | "veth") {
        notes.push("device_type: a pod's link is a veth pair, which Calico falls back to as well".into());
    }
    if !text("mode").is_empty() {
        notes.push("mode: ipipMode and vxlanMode of the pools decide".into());
    }
    if conf.get("ipMasq").and_then(Value::as_bool) == Some(true) {
        notes.push("ipMasq: natOutgoing of the pool decides".into());
    }
    notes
}

fn matches(known: &str, key: &str) -> bool {
    known
        .strip_suffix('*')
        .map_or(known == key, |stem| key.starts_with(stem))
}

/// Values that ask for something else than what would be done.
///
/// # Errors
/// Code 2 with key and value; code 7 for a number out of its range.
pub(super) fn refuse(raw: &RawConf) -> Result<(), CniError> {
    let kind = raw.ipam.kind.as_str();
    if !matches!(kind, "" | "twill" | "calico-ipam") {
        return Err(CniError::unsupported(
            "ipam.type",
            kind,
            "Twill hands out addresses itself: write \"calico-ipam\" or leave it out",
        ));
    }
    let policy = raw.policy.kind.as_str();
    if !matches!(policy, "" | "k8s") {
        return Err(CniError::unsupported(
            "policy.type",
            policy,
            "write \"k8s\", or leave it out for one profile a network",
        ));
    }
    if raw.policy_setup_timeout_seconds < 0 {
        return Err(CniError::config(format_args!(
            "policy_setup_timeout_seconds {} is negative",
            raw.policy_setup_timeout_seconds
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn notes(conf: &Value) -> Vec<String> {
        ignored(conf.as_object().unwrap())
    }

    #[test]
    fn what_does_nothing_here_is_named_with_its_reason() {
        let all = notes(
            &json!({"etcd_endpoints": "http://x", "kubernetes": {"kubeconfig": "/x"}, "datastore_type": "etcdv3",
            "nodename_file_optional": true, "log_file_path": "/x", "device_type": "netkit", "ipMasq": true}),
        );
        assert_eq!(all.len(), 7, "{all:?}");
        assert!(all.iter().any(|n| n.starts_with("etcd_endpoints: ")));
        assert!(
            all.iter()
                .all(|n| n.split_once(": ").is_some_and(|(_, why)| !why.is_empty()))
        );
    }

    #[test]
    fn what_is_honoured_or_the_runtimes_is_not_named() {
        let honoured = json!({"cniVersion": "1.0.0", "name": "n", "type": "calico", "mtu": 1400, "nodename": "n1",
            "policy": {"type": "k8s"}, "log_level": "info", "ipam": {"type": "calico-ipam"}, "container_settings": {},
            "feature_control": {}, "policy_setup_timeout_seconds": 3, "device_type": "veth", "ipMasq": false,
            "runtimeConfig": {}, "args": {}, "dns": {}, "capabilities": {}, "prevResult": {}});
        assert_eq!(notes(&honoured), Vec::<String>::new());
    }

    #[test]
    fn what_would_be_done_otherwise_is_refused_with_key_and_value() {
        let check = |conf: Value, code: u32, named: &[&str]| {
            let raw: RawConf = serde_json::from_value(conf).unwrap();
            let error = refuse(&raw).unwrap_err();
            assert_eq!(error.code, code, "{error:?}");
            assert!(named.iter().all(|n| error.msg.contains(n)), "{error:?}");
        };
        check(
            json!({"ipam": {"type": "host-local"}}),
            2,
            &["ipam.type", "host-local"],
        );
        check(json!({"policy": {"type": "none"}}), 2, &["policy.type", "none"]);
        check(
            json!({"policy_setup_timeout_seconds": -1}),
            7,
            &["policy_setup_timeout_seconds", "-1"],
        );
        for good in [json!({}), json!({"ipam": {"type": "calico-ipam"}})] {
            refuse(&serde_json::from_value(good).unwrap()).unwrap();
        }
    }
}
