//! Durations as Go writes them: `15m0s`, `1.5s`, `90s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A signed length of time in nanoseconds, as Go's `time.Duration`: at most about 292 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoDuration(i64);

const NANOS_PER_SEC: i64 = 1_000_000_000;

impl GoDuration {
    /// From whole seconds; what does not fit becomes the greatest.
    #[must_use]
    pub fn from_secs(secs: u32) -> Self {
        Self(i64::from(secs).saturating_mul(NANOS_PER_SEC))
    }

    /// Nanoseconds.
    #[must_use]
    pub fn nanos(self) -> i64 {
        self.0
    }

    /// As a standard duration; a negative one is zero.
    #[must_use]
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let (unit, name) = match nanos {
            0 => return f.write_str("0s"),
            1..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
        let rest = if unit == 1_000_000_000 {
            nanos % 60_000_000_000
        } else {
            nanos
        };
        f.write_str(sign)?;
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        let (whole, fraction) = (rest / unit, rest % unit);
        if fraction == 0 {
            return write!(f, "{whole}{name}");
        }
        let width = unit.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        write!(f, "{whole}.{}{name}", digits.trim_end_matches('0'))
    }
}

/// Text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration such as \"90s\" or \"15m0s\"")]
pub struct DurationError(pub String);

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let error = || DurationError(text.to_owned());
        let (negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or("")),
            Some(b'+') => (false, text.get(1..).unwrap_or("")),
            _ => (false, text),
        };
        let nanos = if digits == "0" {
            0
        } else {
            parse_terms(digits).ok_or_else(error)?
        };
        let nanos = i64::try_from(nanos).map_err(|_| error())?;
        Ok(Self(if negative { -nanos } else { nanos }))
    }
}

/// Adds up terms such as `1h`, `2.5m`, `30s`.
fn parse_terms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, after) = split_unit(after)?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total
            .checked_add(whole.checked_mul(unit)?)?
            .checked_add(part_of(fraction, unit))?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    const UNITS: [(&str, u64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    UNITS
        .iter()
        .find_map(|(name, nanos)| text.strip_prefix(name).map(|rest| (*nanos, rest)))
}

/// `unit` times 0.`digits`, rounded down.
fn part_of(digits: &str, unit: u64) -> u64 {
    let mut scale = unit;
    let mut sum = 0;
    for digit in digits.bytes() {
        scale /= 10;
        sum += u64::from(digit - b'0') * scale;
    }
    sum
}

impl serde::Serialize for GoDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for GoDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

crate::go::scalar_fields!(GoDuration);

#[cfg(test)]
mod tests;
