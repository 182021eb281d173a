use serde::de::DeserializeOwned;

use super::*;
use crate::gojson;

fn check<T: DeserializeOwned + Serialize>(json: &str, written: &str) {
    let value: T = serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}"));
    assert_eq!(gojson::to_string(&value).unwrap(), written);
}

fn refuse<T: DeserializeOwned + fmt::Debug>(json: &str) {
    assert!(serde_json::from_str::<T>(json).is_err(), "{json}");
}

#[test]
fn as_numbers_are_read_dotted_and_written_plain() {
    check::<AsNumber>("64512", "64512");
    check::<AsNumber>("\"4294967295\"", "4294967295");
    check::<AsNumber>("\"1.10\"", "65546");
    for json in [
        "-1",
        "4294967296",
        "\"1.2.3\"",
        "\"65536.1\"",
        "\"\"",
        "1.5",
        "true",
    ] {
        refuse::<AsNumber>(json);
    }
}

#[test]
fn ports_are_numbers_ranges_or_names() {
    check::<Port>("8080", "8080");
    check::<Port>("\"80\"", "80");
    check::<Port>("\"80:90\"", "\"80:90\"");
    check::<Port>("\"80:80\"", "80");
    check::<Port>("\"http\"", "\"http\"");
    for json in [
        "65536",
        "\"65536\"",
        "\"90:80\"",
        "\"a b\"",
        "\"\"",
        "-1",
        "\"1:\"",
        "\"1:x\"",
    ] {
        refuse::<Port>(json);
    }
}

#[test]
fn protocols_are_names_or_numbers() {
    check::<Protocol>("\"TCP\"", "\"TCP\"");
    check::<Protocol>("\"icmpv6\"", "\"ICMPv6\"");
    check::<Protocol>("6", "6");
    check::<Protocol>("\"17\"", "17");
    for json in ["256", "\"tcpp\"", "\"\"", "-1"] {
        refuse::<Protocol>(json);
    }
    assert!(Protocol::Number(6).supports_ports() && !Protocol::UdpLite.supports_ports());
}

#[test]
fn orders_compare_as_numbers_and_print_without_fraction() {
    check::<Order>("1000000", "1000000");
    check::<Order>("0.1", "0.1");
    assert!(Order::from(1) < Order::new(1.5).unwrap());
    assert_eq!(Order::new(-0.0), Order::new(0.0));
    assert_eq!(Order::new(f64::NAN), None);
}
