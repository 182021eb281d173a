use proptest::prelude::*;

use super::*;

#[test]
fn durations_read_and_write_as_in_go() {
    for (text, canonical) in [
        ("90s", "1m30s"),
        ("15m", "15m0s"),
        ("0", "0s"),
        ("0s", "0s"),
        ("1h", "1h0m0s"),
        ("1.5h", "1h30m0s"),
        ("1h1ns", "1h0m0.000000001s"),
        ("50ms", "50ms"),
        ("1500us", "1.5ms"),
        ("1.5µs", "1.5µs"),
        ("7ns", "7ns"),
        ("-1m", "-1m0s"),
        ("+.5s", "500ms"),
        ("120s", "2m0s"),
    ] {
        assert_eq!(
            text.parse::<GoDuration>().unwrap().to_string(),
            canonical,
            "{text}"
        );
    }
}

#[test]
fn what_is_no_duration_is_an_error() {
    for text in ["", "1", "s", ".s", "1x", "-", "1h-1m", "9999999999999h", "1 s"] {
        assert!(text.parse::<GoDuration>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn every_duration_round_trips(nanos in any::<i64>().prop_filter("Go's least has no positive", |n| *n != i64::MIN)) {
        let duration = GoDuration(nanos);
        prop_assert_eq!(duration.to_string().parse::<GoDuration>(), Ok(duration));
    }
}
