use super::*;
use crate::kind::Kind;

#[test]
fn a_value_is_read_by_its_key() {
    let json = Bytes::from_static(br#"{"kind":"Tier","apiVersion":"projectcalico.org/v3","metadata":{"name":"a"},"spec":{},"status":{}}"#);
    let value = Value::decode(&Key::cluster(Kind::Tier, "a"), &json).unwrap();
    assert_eq!(value.resource().unwrap().kind(), Kind::Tier);
    assert_eq!(value.encode(), json);
    assert!(Value::decode(&Key::cluster(Kind::Tier, "b"), &json).is_err());
    assert!(Value::decode(&Key::cluster(Kind::Node, "a"), &json).is_err());
    let other = Key::Other("/calico/x".into());
    assert_eq!(Value::decode(&other, &json), Ok(Value::Raw(json)));
}

#[test]
fn an_unreadable_value_is_reported_with_key_and_field() {
    let key = Key::cluster(Kind::Tier, "a");
    let error = Value::decode(
        &key,
        &Bytes::from_static(br#"{"metadata":{"name":"a"},"spec":{"order":"x"}}"#),
    )
    .unwrap_err();
    let text = Unreadable {
        key,
        revision: 7,
        error,
    }
    .to_string();
    assert!(
        text.contains("tiers/a at revision 7") && text.contains("field spec.order"),
        "{text}"
    );
}
