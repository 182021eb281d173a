use proptest::prelude::*;

use super::*;

fn check<T: Serialize + ?Sized>(value: &T, json: &str) {
    assert_eq!(to_string(value).unwrap(), json);
}

#[test]
fn strings_are_escaped_as_in_go() {
    check("app == 'c' && !has(x)", r#""app == 'c' \u0026\u0026 !has(x)""#);
    check("<>&", r#""\u003c\u003e\u0026""#);
    check("a\u{2028}b\u{2029}", r#""a\u2028b\u2029""#);
    check("\"\\/\n\r\t\u{8}\u{c}", r#""\"\\/\n\r\t\b\f""#);
    check("\u{0}\u{1f}\u{7f}", "\"\\u0000\\u001f\u{7f}\"");
    check("naïve ☂ 🦀", "\"naïve ☂ 🦀\"");
    check(
        &std::collections::BTreeMap::from([("a<b", 1)]),
        r#"{"a\u003cb":1}"#,
    );
}

#[test]
fn floats_are_written_as_in_go() {
    for (value, json) in [
        (1_000_000.0, "1000000"),
        (0.0, "0"),
        (-0.0, "-0"),
        (0.5, "0.5"),
        (-12.25, "-12.25"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (0.000_001, "0.000001"),
        (0.000_000_9, "9e-7"),
        (1e-10, "1e-10"),
        (-1.25e-7, "-1.25e-7"),
        (f64::MAX, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
    ] {
        check(&value, json);
    }
}

#[test]
fn whole_numbers_keep_all_their_digits() {
    check(&u64::MAX, "18446744073709551615");
    check(&i64::MIN, "-9223372036854775808");
}

proptest! {
    #[test]
    fn what_is_written_reads_back(text in any::<String>(), number in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
        let json = to_string(&(&text, number)).unwrap();
        let bare = json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']);
        prop_assert!(!bare, "{}", json);
        let (back_text, back_number): (String, f64) = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(back_text, text);
        prop_assert_eq!(back_number.to_bits(), number.to_bits());
    }
}
