use super::*;
use crate::kind::Kind;
use crate::policyname::METADATA_ANNOTATION;

fn birth(uid: &str) -> Birth {
    Birth {
        uid: uid.into(),
        at: "2026-08-22T13:33:20Z".parse().unwrap(),
    }
}

fn object(kind: Kind, json: &str) -> AnyResource {
    AnyResource::decode(kind, json.as_bytes()).unwrap()
}

fn policy(labels: &str) -> AnyResource {
    object(
        Kind::NetworkPolicy,
        &format!(
            r#"{{"metadata":{{"name":"a","namespace":"default","uid":"given","resourceVersion":"7","labels":{labels}}},"spec":{{}}}}"#
        ),
    )
}

#[test]
fn a_new_object_gets_uid_time_defaults_and_the_annotation() {
    let stored = create(&policy("{}"), &birth("u1")).unwrap();
    assert_eq!(
        String::from_utf8(stored.encode()).unwrap(),
        r#"{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"a","namespace":"default","uid":"u1","creationTimestamp":"2026-08-22T13:33:20Z","labels":{"projectcalico.org/tier":"default"},"annotations":{"projectcalico.org/metadata":"{\"name\":\"a\"}"}},"spec":{"tier":"default","types":["Ingress"]}}"#
    );
}

#[test]
fn replacing_keeps_who_it_is_and_replaces_its_labels() {
    let stored = create(&policy(r#"{"old":"1"}"#), &birth("u1")).unwrap();
    let next = replace(&policy(r#"{"new":"1"}"#), &stored, &birth("u2")).unwrap();
    let meta = next.metadata();
    assert_eq!(meta.uid, "u1");
    assert!(meta.labels.contains_key("new") && !meta.labels.contains_key("old"));
    assert!(meta.annotations.contains_key(METADATA_ANNOTATION));
    assert_eq!(meta.resource_version, "");
}

#[test]
fn what_was_stored_without_uid_gets_one() {
    let old = object(Kind::Profile, r#"{"metadata":{"name":"a"},"spec":{}}"#);
    let next = replace(&old, &old, &birth("u3")).unwrap();
    assert_eq!(next.metadata().uid, "u3");
    assert!(next.metadata().creation_timestamp.is_some());
}

#[test]
fn applying_creates_or_replaces() {
    let stored = apply(&policy("{}"), None, &birth("u1")).unwrap();
    assert_eq!(apply(&policy("{}"), Some(&stored), &birth("u2")), Ok(stored));
}

#[test]
fn status_stays_where_none_is_given() {
    let with = object(
        Kind::Node,
        r#"{"metadata":{"name":"n"},"spec":{},"status":{"wireguardPublicKey":"k"}}"#,
    );
    let without = object(Kind::Node, r#"{"metadata":{"name":"n"},"spec":{},"status":{}}"#);
    let next = replace(&without, &with, &birth("u")).unwrap();
    let AnyResource::Node(node) = next else { panic!() };
    assert_eq!(node.status.wireguard_public_key, "k");
}

#[test]
fn a_pool_keeps_its_range_and_block_size() {
    let pool = |spec: &str| {
        object(
            Kind::IpPool,
            &format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#),
        )
    };
    let stored = create(&pool(r#"{"cidr":"10.0.0.0/16"}"#), &birth("u")).unwrap();
    assert!(
        replace(
            &pool(r#"{"cidr":"10.0.0.0/16","blockSize":26,"disabled":true}"#),
            &stored,
            &birth("u")
        )
        .is_ok()
    );
    for spec in [
        r#"{"cidr":"10.1.0.0/16"}"#,
        r#"{"cidr":"10.0.0.0/16","blockSize":27}"#,
    ] {
        let error = replace(&pool(spec), &stored, &birth("u")).unwrap_err();
        assert!(matches!(error, ChangeError::Immutable(_)), "{error}");
    }
}

#[test]
fn the_synthetic_profile_is_never_stored() {
    let profile = object(
        Kind::Profile,
        r#"{"metadata":{"name":"projectcalico-default-allow"},"spec":{}}"#,
    );
    assert!(matches!(
        create(&profile, &birth("u")),
        Err(ChangeError::Provided(_))
    ));
}
