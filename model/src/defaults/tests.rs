use super::*;
use crate::kind::Kind;
use crate::meta::ObjectMeta;
use crate::resources::WorkloadEndpointSpec;

fn defaulted(kind: Kind, spec: &str) -> String {
    let json = format!(r#"{{"metadata":{{"name":"a"}},"spec":{spec}}}"#);
    let mut any = AnyResource::decode(kind, json.as_bytes()).unwrap();
    any.apply_defaults();
    let once = String::from_utf8(any.encode()).unwrap();
    any.apply_defaults();
    assert_eq!(
        String::from_utf8(any.encode()).unwrap(),
        once,
        "defaults are filled in once"
    );
    once[once.find("\"metadata\"").unwrap()..once.len() - 1].to_owned()
}

#[test]
fn types_follow_the_rules_of_a_policy() {
    let rule = [Rule::new(Action::Allow)];
    assert_eq!(policy_types(&[], &[]), [PolicyType::Ingress]);
    assert_eq!(policy_types(&rule, &[]), [PolicyType::Ingress]);
    assert_eq!(policy_types(&[], &rule), [PolicyType::Egress]);
    assert_eq!(
        policy_types(&rule, &rule),
        [PolicyType::Ingress, PolicyType::Egress]
    );
}

#[test]
fn a_policy_gets_tier_label_and_types() {
    assert_eq!(
        defaulted(
            Kind::GlobalNetworkPolicy,
            r#"{"egress":[{"action":"Deny"}],"ingress":[]}"#
        ),
        r#""metadata":{"name":"a","labels":{"projectcalico.org/tier":"default"}},"spec":{"tier":"default","egress":[{"action":"Deny","source":{},"destination":{}}],"types":["Egress"]}"#
    );
    assert_eq!(
        defaulted(Kind::NetworkPolicy, r#"{"tier":"t","types":["Egress"]}"#),
        r#""metadata":{"name":"a","labels":{"projectcalico.org/tier":"t"}},"spec":{"tier":"t","types":["Egress"]}"#
    );
    assert_eq!(
        defaulted(Kind::StagedNetworkPolicy, r#"{"egress":[{"action":"Deny"}]}"#),
        r#""metadata":{"name":"a","labels":{"projectcalico.org/tier":"default"}},"spec":{"stagedAction":"Set","tier":"default","egress":[{"action":"Deny","source":{},"destination":{}}],"types":["Egress"]}"#
    );
    // What deletes a policy governs nothing.
    assert_eq!(
        defaulted(
            Kind::StagedNetworkPolicy,
            r#"{"stagedAction":"Delete","types":["Egress"]}"#
        ),
        r#""metadata":{"name":"a","labels":{"projectcalico.org/tier":"default"}},"spec":{"stagedAction":"Delete","tier":"default"}"#
    );
}

#[test]
fn a_pool_gets_everything_that_allocation_needs() {
    assert_eq!(
        defaulted(Kind::IpPool, r#"{"cidr":"10.244.0.0/16"}"#),
        r#""metadata":{"name":"a"},"spec":{"cidr":"10.244.0.0/16","vxlanMode":"Never","ipipMode":"Never","blockSize":26,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}"#
    );
    assert!(
        defaulted(Kind::IpPool, r#"{"cidr":"FD00::/48","ipipMode":"Never"}"#)
            .contains(r#""cidr":"fd00::/48""#)
    );
    assert!(defaulted(Kind::IpPool, r#"{"cidr":"fd00::/48"}"#).contains(r#""blockSize":122"#));
}

#[test]
fn a_tier_gets_order_and_action() {
    assert!(
        defaulted(Kind::Tier, "{}")
            .contains(r#""spec":{"order":1000000,"defaultAction":"Deny"},"status":{}"#)
    );
    assert!(
        defaulted(Kind::Tier, r#"{"order":1,"defaultAction":"Pass"}"#)
            .contains(r#"{"order":1,"defaultAction":"Pass"}"#)
    );
}

#[test]
fn an_endpoint_gets_its_name_and_two_labels() {
    let mut meta = ObjectMeta::namespaced("web", "");
    meta.labels.insert(NAMESPACE_LABEL.into(), "lie".into());
    let spec = WorkloadEndpointSpec {
        orchestrator: "k8s".into(),
        node: "n-1".into(),
        pod: "p".into(),
        endpoint: "eth0".into(),
        ..Default::default()
    };
    let any = with_defaults(Resource::new(meta, spec));
    assert_eq!(any.metadata().name, "n--1-k8s-p-eth0");
    assert_eq!(any.metadata().labels[NAMESPACE_LABEL], "web");
    assert_eq!(any.metadata().labels[ORCHESTRATOR_LABEL], "k8s");
}
