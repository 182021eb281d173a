//! The time as the pure parts are told it.

/// The time, handed in by the shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since the UNIX epoch: goes into new objects, decides nothing but ages of stored time stamps.
    pub unix_nanos: u64,
    /// Milliseconds of a clock that never steps back: decides how long something has been so.
    pub mono_ms: u64,
}

impl Now {
    /// Whole seconds since the UNIX epoch.
    #[must_use]
    pub fn unix_secs(&self) -> i64 {
        i64::try_from(self.unix_nanos / 1_000_000_000).unwrap_or(i64::MAX)
    }

    /// RFC 3339 with seconds, as Kubernetes' `metav1.Time` prints.
    #[must_use]
    pub fn rfc3339(&self) -> String {
        let secs = i64::try_from(self.unix_nanos / 1_000_000_000).unwrap_or(0);
        jiff::Timestamp::from_second(secs).unwrap_or_default().to_string()
    }

    /// As Go prints a UTC time: the `timestamp` attribute of an allocation.
    #[must_use]
    pub fn go_string(&self) -> String {
        let ts = jiff::Timestamp::from_nanosecond(i128::from(self.unix_nanos)).unwrap_or_default();
        let text = ts.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let nanos = format!("{:09}", self.unix_nanos % 1_000_000_000);
        match nanos.trim_end_matches('0') {
            "" => format!("{text} +0000 UTC"),
            fraction => format!("{text}.{fraction} +0000 UTC"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_go_prints_them() {
        let at = |unix_nanos| Now {
            unix_nanos,
            mono_ms: 0,
        };
        let now = at(1_787_405_601_123_456_789);
        assert_eq!(now.rfc3339(), "2026-08-22T13:33:21Z");
        assert_eq!(now.go_string(), "2026-08-22 13:33:21.123456789 +0000 UTC");
        assert_eq!(
            at(1_787_405_601_120_000_000).go_string(),
            "2026-08-22 13:33:21.12 +0000 UTC"
        );
        assert_eq!(
            at(1_787_405_601_000_000_000).go_string(),
            "2026-08-22 13:33:21 +0000 UTC"
        );
    }
}
