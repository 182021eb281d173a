//! Numbers that Calico also accepts, or writes, as text: AS numbers, ports, protocols; and the order of policies.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::go::{scalar_fields, whole_fields};

/// An AS number: written as a number, read also as `"64512"` or in dotted notation, `"0.64512"` (RFC 5396 asdot+).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AsNumber(pub u32);

/// Text that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct NumberError {
    text: String,
    wanted: &'static str,
}

fn not(text: &str, wanted: &'static str) -> NumberError {
    NumberError {
        text: text.to_owned(),
        wanted,
    }
}

impl FromStr for AsNumber {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        const WANTED: &str = "an AS number: 1 to 4294967295, or two numbers up to 65535 joined by a dot";
        if let Ok(number) = text.parse() {
            return Ok(Self(number));
        }
        let (high, low) = text.split_once('.').ok_or_else(|| not(text, WANTED))?;
        match (high.parse::<u16>(), low.parse::<u16>()) {
            (Ok(high), Ok(low)) => Ok(Self(u32::from(high) << 16 | u32::from(low))),
            _ => Err(not(text, WANTED)),
        }
    }
}

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A port of a rule: a number, a range, or the name of a port of the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// From the first to the second, both included; a single port twice. The first is never the greater.
    Range(u16, u16),
    /// A named port: 1 to 128 of `[A-Za-z0-9_.-]`, not only digits.
    Named(String),
}

/// Longest name of a port that Calico reads.
const PORT_NAME_MAX: usize = 128;

impl From<u16> for Port {
    fn from(port: u16) -> Self {
        Self::Range(port, port)
    }
}

impl FromStr for Port {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        const WANTED: &str = "a port: a number up to 65535, a range as \"8000:8080\", or a name of letters, digits and \"_.-\"";
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if digits(text) {
            return text
                .parse()
                .map(|port: u16| port.into())
                .map_err(|_| not(text, WANTED));
        }
        if let Some((low, high)) = text
            .split_once(':')
            .filter(|(low, high)| digits(low) && digits(high))
        {
            return match (low.parse(), high.parse()) {
                (Ok(low), Ok(high)) if low <= high => Ok(Self::Range(low, high)),
                _ => Err(not(text, WANTED)),
            };
        }
        let named = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if named && (1..=PORT_NAME_MAX).contains(&text.len()) {
            return Ok(Self::Named(text.to_owned()));
        }
        Err(not(text, WANTED))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(low, high) if low == high => low.fmt(f),
            Self::Range(low, high) => write!(f, "{low}:{high}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// An IP protocol of a rule, by name or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names of the protocols")]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
    IcmpV6,
    Sctp,
    UdpLite,
    /// By number: unlike the name, 1 and 58 do not imply an IP version.
    Number(u8),
}

impl Protocol {
    const NAMES: [(Self, &str); 6] = [
        (Self::Tcp, "TCP"),
        (Self::Udp, "UDP"),
        (Self::Icmp, "ICMP"),
        (Self::IcmpV6, "ICMPv6"),
        (Self::Sctp, "SCTP"),
        (Self::UdpLite, "UDPLite"),
    ];

    /// The number in the IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::IcmpV6 => 58,
            Self::Sctp => 132,
            Self::UdpLite => 136,
            Self::Number(number) => number,
        }
    }

    /// True if a rule with this protocol may name ports: TCP, UDP and SCTP, by name or number.
    #[must_use]
    pub fn supports_ports(self) -> bool {
        matches!(self.number(), 6 | 17 | 132)
    }
}

/// Reads the names in any case, as old stores hold lower-case ones.
impl FromStr for Protocol {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        let named = Self::NAMES
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text));
        let wanted = "a protocol: TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number up to 255";
        named
            .map(|(protocol, _)| *protocol)
            .ok_or_else(|| not(text, wanted))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(protocol, _)| protocol == self) {
            Some((_, name)) => f.write_str(name),
            None => self.number().fmt(f),
        }
    }
}

/// Reads a number that fits `u32`, or text.
struct NumberOrText;

enum Read {
    Number(u32),
    Text(String),
}

impl Visitor<'_> for NumberOrText {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Read, E> {
        let fits = u32::try_from(number).map(Read::Number);
        fits.map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &"a number up to 4294967295"))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Read, E> {
        let fits = u32::try_from(number).map(Read::Number);
        fits.map_err(|_| E::invalid_value(Unexpected::Signed(number), &"a number from 0 to 4294967295"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Read, E> {
        Ok(Read::Text(text.to_owned()))
    }
}

/// Reads `T` from a number as if it were written as text.
fn read<'de, T: FromStr<Err = NumberError>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = match deserializer.deserialize_any(NumberOrText)? {
        Read::Number(number) => number.to_string(),
        Read::Text(text) => text,
    };
    text.parse().map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for AsNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl Serialize for AsNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Range(low, high) if low == high => serializer.serialize_u16(*low),
            _ => serializer.collect_str(self),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u8(*number),
            _ => serializer.collect_str(self),
        }
    }
}

/// The order of a policy or tier: any finite number, lower first. No order at all is `None` beside it, and last.
#[derive(Clone, Copy, Debug)]
pub struct Order(f64);

impl Order {
    /// `None` unless `value` is finite.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }
}

impl From<u32> for Order {
    fn from(value: u32) -> Self {
        Self(f64::from(value))
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    /// As numbers compare: the two zeros are equal.
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl Hash for Order {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0 + 0.0).to_bits().hash(state);
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Order {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        Self::new(value).ok_or_else(|| D::Error::custom("an order must be a finite number"))
    }
}

scalar_fields!(AsNumber);
whole_fields!(Port, Protocol, Order);

#[cfg(test)]
mod tests;
