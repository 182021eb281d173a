use super::*;
use crate::resources::{NetworkPolicy, Node, Tier};

const POLICY: &str = r#"{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"allow-web","namespace":"default","uid":"0f3f1a57-3e62-4a0e-9d44-6c9f6f0f7a10","creationTimestamp":"2026-08-22T13:33:20Z","labels":{"projectcalico.org/tier":"default"},"annotations":{"projectcalico.org/metadata":"{\"name\":\"allow-web\"}"}},"spec":{"tier":"default","order":0.5,"ingress":[{"action":"Allow","protocol":"TCP","source":{"selector":"app == 'c' \u0026\u0026 !has(x)"},"destination":{"ports":[8080,"1:2","http"]}}],"selector":"app == 'web'","types":["Ingress"]}}"#;

fn round_trip(kind: Kind, json: &str) {
    let object = AnyResource::decode(kind, json.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(object.encode()).unwrap(), json);
}

#[test]
fn stored_objects_are_written_as_they_were_read() {
    round_trip(Kind::NetworkPolicy, POLICY);
    round_trip(
        Kind::Tier,
        r#"{"kind":"Tier","apiVersion":"projectcalico.org/v3","metadata":{"name":"default"},"spec":{"order":1000000,"defaultAction":"Deny"},"status":{}}"#,
    );
    round_trip(
        Kind::Node,
        r#"{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1"},"spec":{"bgp":{"ipv4Address":"192.0.2.11/24","ipv4IPIPTunnelAddr":"10.244.0.1","routeReflectorClusterID":"244.0.0.1"},"interfaces":[{"name":"eth0","addresses":["192.0.2.11"]}]},"status":{}}"#,
    );
    round_trip(
        Kind::WorkloadEndpoint,
        r#"{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1-k8s-web--0-eth0","namespace":"default"},"spec":{"orchestrator":"k8s","ipNetworks":["10.244.0.0/32"],"ports":[{"name":"http","protocol":"TCP","port":8080,"hostPort":0,"hostIP":""}]}}"#,
    );
    round_trip(
        Kind::FelixConfiguration,
        r#"{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{"name":"default"},"spec":{"usageReportingEnabled":true,"logSeverityScreen":"Info","reportingInterval":"0s","nftablesMode":"Auto","bpfLogLevel":"","bpfMapSizeRoute":5,"floatingIPs":"Disabled"}}"#,
    );
    round_trip(
        Kind::BgpFilter,
        r#"{"kind":"BGPFilter","apiVersion":"projectcalico.org/v3","metadata":{"name":"f"},"spec":{"exportV4":[{"action":"Accept","z":1,"a":2}]},"more":1.5}"#,
    );
    round_trip(
        Kind::LiveMigration,
        r#"{"kind":"LiveMigration","apiVersion":"projectcalico.org/v3","metadata":{"name":"f"},"spec":{"node":"n","z":1,"a":2},"status":null,"more":1.5}"#,
    );
}

#[test]
fn resource_version_is_not_stored() {
    let mut policy = AnyResource::decode(Kind::NetworkPolicy, POLICY.as_bytes()).unwrap();
    policy.metadata_mut().resource_version = "17".into();
    assert_eq!(policy.encode(), POLICY.as_bytes());
}

#[test]
fn typed_access_needs_no_detour() {
    let any = AnyResource::decode(Kind::NetworkPolicy, POLICY.as_bytes()).unwrap();
    let AnyResource::NetworkPolicy(policy) = &any else {
        panic!("{any:?}")
    };
    assert_eq!(policy.spec.ingress[0].source.selector, "app == 'c' && !has(x)");
    assert!(any.downcast::<crate::resources::NodeSpec>().is_none());
    assert_eq!(
        any.key(),
        ResourceKey::namespaced(Kind::NetworkPolicy, "default", "allow-web")
    );
}

#[test]
fn a_wrong_field_is_named() {
    let check = |kind, json: &str, path: &str, reason: &str| match AnyResource::decode(kind, json.as_bytes())
    {
        Err(DecodeError::Json { path: p, reason: r }) => {
            assert_eq!(p, path, "{r}");
            assert!(r.contains(reason), "{r}");
        }
        other => panic!("{other:?}"),
    };
    check(
        Kind::NetworkPolicy,
        &POLICY.replace("Allow\"", "Alow\""),
        "spec.ingress[0].action",
        "unknown variant `Alow`",
    );
    check(
        Kind::NetworkPolicy,
        &POLICY.replace("8080", "80800"),
        "spec.ingress[0].destination.ports[0]",
        "not a port",
    );
    check(
        Kind::NetworkPolicy,
        &POLICY[..POLICY.len() - 3],
        "spec.types",
        "EOF",
    );
    check(Kind::NetworkPolicy, &format!("{POLICY} x"), "", "follows the end");
    check(Kind::NetworkPolicy, "{}", ".", "missing field `metadata`");
    check(Kind::Tier, POLICY, "kind", "is not \"Tier\"");
    check(Kind::BgpFilter, POLICY, "kind", "is not \"BGPFilter\"");
    check(
        Kind::NetworkPolicy,
        &POLICY.replace("org/v3", "org/v4"),
        "apiVersion",
        "is not \"projectcalico.org/v3\"",
    );
    check(
        Kind::IpPool,
        r#"{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/33"}}"#,
        "spec.cidr",
        "neither an IP address",
    );
}

#[test]
fn hostile_values_are_refused() {
    let deep = format!("{}{}", r#"{"metadata":{},"spec":"#, "[".repeat(100_000));
    assert!(matches!(
        Node::decode(deep.as_bytes()),
        Err(DecodeError::Json { .. })
    ));
    let large = vec![b' '; OBJECT_BYTES_MAX + 1];
    assert_eq!(
        Tier::decode(&large),
        Err(DecodeError::TooLarge { bytes: large.len() })
    );
}

#[test]
fn an_object_under_another_key_is_refused() {
    let policy = AnyResource::decode(Kind::NetworkPolicy, POLICY.as_bytes()).unwrap();
    let key = |namespace: &str, name: &str| ResourceKey::namespaced(Kind::NetworkPolicy, namespace, name);
    assert_eq!(policy.check_key(&key("default", "allow-web")), Ok(()));
    assert_eq!(policy.check_key(&key("default", "default.allow-web")), Ok(()));
    assert!(matches!(
        policy.check_key(&key("default", "x")),
        Err(DecodeError::Misplaced { field: "name", .. })
    ));
    assert!(matches!(
        policy.check_key(&key("x", "allow-web")),
        Err(DecodeError::Misplaced {
            field: "namespace",
            ..
        })
    ));
}

#[test]
fn a_new_object_is_written_whole() {
    let policy = NetworkPolicy::new(
        ObjectMeta::namespaced("a", "b"),
        crate::resources::NetworkPolicySpec::default(),
    );
    assert_eq!(
        String::from_utf8(policy.encode()).unwrap(),
        r#"{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"b","namespace":"a"},"spec":{}}"#
    );
}
