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

#[test]
fn allocator_objects_are_typed_and_come_out_as_they_went_in() {
    let cidr = "10.244.0.0/30".parse().unwrap();
    let block = Bytes::from_static(br#"{"cidr":"10.244.0.0/30","affinity":"host:n1","allocations":[null,null,null,null],"unallocated":[0,1,2,3],"attributes":null,"sequenceNumber":1787405600000000000,"sequenceNumberForAllocation":{},"deleted":false}"#);
    let value = Value::decode(&Key::Block(cidr), &block).unwrap();
    assert_eq!(value.block().unwrap().host(), Some("n1"));
    assert_eq!(value.encode(), block);
    let handle = Bytes::from_static(br#"{"block":{"10.244.0.0/30":1},"deleted":false}"#);
    assert_eq!(
        Value::decode(&Key::Handle("a.b".into()), &handle)
            .unwrap()
            .encode(),
        handle
    );
    let short = Bytes::from_static(br#"{"cidr":"10.244.0.0/30","affinity":null,"allocations":[null],"unallocated":[0],"attributes":null,"sequenceNumber":1,"sequenceNumberForAllocation":{},"deleted":false}"#);
    let error = Value::decode(&Key::Block(cidr), &short).unwrap_err();
    assert!(error.to_string().contains("allocations has 1"), "{error}");
}
