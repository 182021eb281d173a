//! `twillctl ipam check`: clean after real pods, and each kind of damage reported with its key.

use crate::common::{Name, pods};
use serde_json::{Value, json};
use twill_lab::lab::Lab;

/// Runs the check; the problems as `key: message`.
fn problems(lab: &Lab) -> Vec<(String, String)> {
    let finished = lab.ctl("n2").unwrap().run(&["ipam", "check", "--json"]).unwrap();
    let report: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {}", finished.said()));
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(finished.status.success(), problems.is_empty(), "{report}");
    let text = |p: &Value, field: &str| p[field].as_str().unwrap().to_owned();
    problems
        .iter()
        .map(|p| (text(p, "key"), text(p, "message")))
        .collect()
}

/// Puts a forged value, expects a problem at `key` or naming it, and puts the old state back.
fn check(lab: &Lab, key: &str, forged: &Value) {
    let before = lab.etcdctl(&["get", key, "--print-value-only"]).unwrap();
    lab.etcdctl(&["put", key, &forged.to_string()]).unwrap();
    let found = problems(lab);
    assert!(
        found.iter().any(|(at, _)| at == key),
        "{key} is not among {found:?}"
    );
    match before.trim() {
        "" => lab.etcdctl(&["del", key]).unwrap(),
        value => lab.etcdctl(&["put", key, value]).unwrap(),
    };
    assert_eq!(problems(lab), []);
}

#[test]
fn every_damage_put_in_by_etcdctl_is_reported_with_its_key() {
    let name = Name::new();
    let scene = pods(&name);
    let lab = scene.lab().unwrap();
    assert_eq!(problems(lab), []);

    let handle = "/calico/ipam/v2/handle/k8s-pod-network.dead";
    check(
        lab,
        handle,
        &json!({"block": {"10.244.255.0/26": 1}, "deleted": false}),
    );

    let affinity = "/calico/ipam/v2/host/n1/ipv4/block/10.244.254.0-26";
    check(lab, affinity, &json!({"state": "confirmed", "deleted": false}));

    let keys = lab
        .etcdctl(&[
            "get",
            "--prefix",
            "--keys-only",
            "/calico/ipam/v2/assignment/ipv4/block/",
        ])
        .unwrap();
    let key = keys.lines().find(|k| !k.is_empty()).unwrap();
    let text = lab.etcdctl(&["get", key, "--print-value-only"]).unwrap();
    let mut block: Value = serde_json::from_str(&text).unwrap();
    leak(&mut block);
    check(lab, key, &block);
}

/// Takes the first free ordinal for a handle that does not exist.
fn leak(block: &mut Value) {
    let ordinal = block["unallocated"].as_array_mut().unwrap().remove(0);
    let attributes = block["attributes"].as_array_mut().unwrap();
    attributes.push(json!({"handle_id": "k8s-pod-network.gone", "secondary": {"node": "n1", "namespace": "demo", "pod": "gone"}}));
    let index = attributes.len() - 1;
    block["allocations"][usize::try_from(ordinal.as_u64().unwrap()).unwrap()] = json!(index);
    block["sequenceNumberForAllocation"][ordinal.to_string()] = block["sequenceNumber"].clone();
    block["sequenceNumber"] = json!(block["sequenceNumber"].as_u64().unwrap() + 1);
}
