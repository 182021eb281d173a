use super::*;
use bytes::Bytes;
use twill_model::Kind;

fn put(fabric: &mut Fabric, key: Key, json: &str) -> Touched {
    let value = Value::decode(&key, &Bytes::copy_from_slice(json.as_bytes())).unwrap();
    fabric.apply(
        "n1",
        &Update {
            key,
            value: Some(value),
            revision: 7,
        },
    )
}

fn endpoint(node: &str) -> String {
    format!(
        r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"w","namespace":"ns"}},"spec":{{"node":"{node}"}}}}"#
    )
}

#[test]
fn only_endpoints_of_this_node_are_kept_with_their_revision() {
    let key = || Key::namespaced(Kind::WorkloadEndpoint, "ns", "w");
    let mut fabric = Fabric::default();
    assert_eq!(put(&mut fabric, key(), &endpoint("n1")), Touched::default());
    assert_eq!(fabric.own_endpoints[&("ns".to_owned(), "w".to_owned())].1, 7);
    put(&mut fabric, key(), &endpoint("n2"));
    assert!(fabric.own_endpoints.is_empty());
    put(&mut fabric, key(), &endpoint("n1"));
    fabric.apply(
        "n1",
        &Update {
            key: key(),
            value: None,
            revision: 8,
        },
    );
    assert!(fabric.own_endpoints.is_empty());
}

#[test]
fn a_setting_of_the_node_wins_over_the_clusters() {
    let mut fabric = Fabric::default();
    for (name, prefix) in [("default", "cali"), ("node.n1", "tw"), ("node.n2", "xx")] {
        let json = format!(
            r#"{{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{"interfacePrefix":"{prefix}"}}}}"#
        );
        assert!(put(&mut fabric, Key::cluster(Kind::FelixConfiguration, name), &json).felix);
    }
    let prefix = |node| {
        fabric
            .felix_setting(node, |s| Some(s.interface_prefix.clone()))
            .unwrap()
    };
    assert_eq!((prefix("n1"), prefix("n3")), ("tw".to_owned(), "cali".to_owned()));
}

#[test]
fn the_store_is_locked_only_if_somebody_says_so() {
    let mut fabric = Fabric::default();
    assert!(!fabric.is_locked());
    for (ready, locked) in [("true", false), ("false", true)] {
        let json = format!(
            r#"{{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{{"name":"default"}},"spec":{{"datastoreReady":{ready}}}}}"#
        );
        let key = Key::cluster(Kind::ClusterInformation, "default");
        let value = Value::decode(&key, &Bytes::from(json)).unwrap();
        fabric.apply(
            "n1",
            &Update {
                key,
                value: Some(value),
                revision: 1,
            },
        );
        assert_eq!(fabric.is_locked(), locked);
    }
}
