use super::*;
use crate::gojson;

go_struct! {
    /// A struct of each flag.
    #[derive(Default)]
    struct Sample {
        first: String = "first" omitempty,
        list: Vec<Inner> = "list" omitempty,
        count: u64 = "count" always,
        last: Option<bool> = "last" omitempty,
    }
}

go_struct! {
    /// A struct with a required field.
    struct Inner {
        name: String = "name" required,
    }
}

fn round_trip(json: &str) -> String {
    let sample: Sample = serde_json::from_str(json).unwrap();
    String::from_utf8(gojson::to_vec(&sample).unwrap()).unwrap()
}

#[test]
fn unknown_fields_keep_their_place_at_every_level() {
    for json in [
        r#"{"zero":0,"first":"a","one":{"b":[1,null],"a":2},"list":[{"name":"x","more":true}],"count":3,"z":null,"last":false,"end":1}"#,
        r#"{"x":1,"count":0}"#,
        r#"{"count":18446744073709551615}"#,
    ] {
        assert_eq!(round_trip(json), json);
    }
}

#[test]
fn null_is_no_value_and_empty_fields_go() {
    assert_eq!(
        round_trip(r#"{"first":null,"list":null,"count":null,"last":null}"#),
        r#"{"count":0}"#
    );
    assert_eq!(round_trip(r#"{"first":"","list":[]}"#), r#"{"count":0}"#);
}

#[test]
fn a_missing_required_field_is_an_error_with_its_name() {
    let error = serde_json::from_str::<Sample>(r#"{"list":[{}]}"#).unwrap_err();
    assert!(error.to_string().contains("missing field `name`"), "{error}");
    assert!(serde_json::from_str::<Sample>(r#"{"list":[{"name":null}]}"#).is_err());
}

#[test]
fn the_last_of_two_fields_with_one_name_wins() {
    assert_eq!(
        round_trip(r#"{"count":1,"count":2,"x":1,"x":2}"#),
        r#"{"count":2,"x":2}"#
    );
}

#[test]
fn unknown_fields_are_found_with_their_path() {
    let sample: Sample =
        serde_json::from_str(r#"{"a":1,"list":[{"name":"x"},{"name":"y","b":1}],"count":1}"#).unwrap();
    let mut found = Vec::new();
    sample.unknown(&mut Path::default(), &mut found);
    assert_eq!(found, ["list[1].b", "a"]);
}

#[test]
fn extra_fields_can_be_put_and_taken() {
    let mut sample = Sample::default();
    sample.extra.insert("b", Value::from(1));
    sample.extra.insert("b", Value::from(2));
    assert_eq!(gojson::to_vec(&sample).unwrap(), br#"{"count":0,"b":2}"#);
    assert_eq!(sample.extra.get("b"), Some(&Value::from(2)));
    assert_eq!(sample.extra.remove("b"), Some(Value::from(2)));
    assert!(sample.extra.is_empty());
}
