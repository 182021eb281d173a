//! What Twill creates first in an empty store, against what Calico v3.32.1 creates.

use serde::Deserialize;
use twill_model::meta::Timestamp;
use twill_model::{AnyResource, Key, ObjectMeta, initial};

#[derive(Deserialize)]
struct Object {
    key: String,
    value: String,
}

/// Checks that `ours`, with the recorded uid and time, is stored under the same key as the same bytes.
fn check(ours: &AnyResource, recorded: &str) {
    let object: Object = serde_json::from_str(recorded).expect("a recorded value");
    let Key::Resource(key) = Key::parse(&object.key) else {
        panic!("{}", object.key)
    };
    assert_eq!(ours.key(), key);
    let theirs = AnyResource::decode(key.kind, object.value.as_bytes()).expect("it decodes");
    let mut ours = ours.clone();
    let born =
        |meta: &ObjectMeta| -> (String, Option<Timestamp>) { (meta.uid.clone(), meta.creation_timestamp) };
    let (uid, at) = born(theirs.metadata());
    ours.metadata_mut().uid = uid;
    ours.metadata_mut().creation_timestamp = at;
    assert_eq!(String::from_utf8_lossy(&ours.encode()), object.value);
}

#[test]
fn tiers_and_configurations_are_calicos_byte_for_byte() {
    let [admin, default, baseline] = initial::tiers();
    check(&admin, include_str!("v3.32.1/system-init-tiers-kube-admin.json"));
    check(&default, include_str!("v3.32.1/system-init-tiers-default.json"));
    check(
        &baseline,
        include_str!("v3.32.1/system-init-tiers-kube-baseline.json"),
    );
    check(
        &initial::bgp_configuration(),
        include_str!("v3.32.1/system-node-start-bgpconfigurations-default.json"),
    );
    check(
        &initial::felix_configuration(),
        include_str!("v3.32.1/system-node-start-felixconfigurations-default.json"),
    );
    check(
        &initial::kube_controllers_configuration(),
        include_str!("v3.32.1/system-controllers-start-kubecontrollersconfigurations-default.json"),
    );
}

/// Of ClusterInformation Twill leaves out Calico's version, which is not its own to claim, and the cluster's type.
#[test]
fn the_cluster_is_described_without_a_version() {
    let object: Object = serde_json::from_str(include_str!(
        "v3.32.1/system-init-clusterinformations-default.json"
    ))
    .unwrap();
    let Key::Resource(key) = Key::parse(&object.key) else {
        panic!("{}", object.key)
    };
    let theirs = AnyResource::decode(key.kind, object.value.as_bytes()).unwrap();
    let AnyResource::ClusterInformation(theirs) = theirs else {
        panic!("{theirs:?}")
    };
    let guid = u128::from_str_radix(&theirs.spec.cluster_guid, 16).unwrap();
    let AnyResource::ClusterInformation(ours) = initial::cluster_information(guid) else {
        panic!()
    };
    let mut expected = theirs.spec.clone();
    expected.calico_version.clear();
    expected.cluster_type.clear();
    assert_eq!(ours.spec, expected);
}
