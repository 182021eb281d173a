//! Communities of the three kinds (RFC 1997, RFC 4360, RFC 8092) as policy and people name them.

use std::fmt;
use std::str::FromStr;

/// Not to external peers (RFC 1997).
pub const NO_EXPORT: u32 = 0xffff_ff01;
/// To nobody (RFC 1997).
pub const NO_ADVERTISE: u32 = 0xffff_ff02;
/// Not to other ASes of a confederation (RFC 1997); without confederations as [`NO_EXPORT`].
pub const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
/// The sender is about to go (RFC 8326).
pub const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;
/// Kept although its speaker has long been away (RFC 9494).
pub const LLGR_STALE: u32 = 0xffff_0006;
/// Not to be kept that long (RFC 9494).
pub const NO_LLGR: u32 = 0xffff_0007;

/// A large community (RFC 8092): a global administrator and two numbers of its own.
pub type LargeCommunity = [u32; 3];

/// An extended community (RFC 4360): its eight octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtendedCommunity(pub u64);

/// A text that is no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no {1} community")]
pub struct InvalidCommunity(String, &'static str);

/// A community as it stands in its attribute.
pub trait Community: Copy + Ord + 'static {
    /// The type code of the attribute that carries it.
    const CODE: u8;
    /// Octets of one.
    const OCTETS: usize;

    /// The community of exactly [`Community::OCTETS`] octets.
    fn read(octets: &[u8]) -> Option<Self>;
    /// Appends it.
    fn write(self, out: &mut Vec<u8>);
}

impl Community for u32 {
    const CODE: u8 = super::attr::code::COMMUNITIES;
    const OCTETS: usize = 4;

    fn read(octets: &[u8]) -> Option<Self> {
        octets.try_into().ok().map(Self::from_be_bytes)
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl Community for ExtendedCommunity {
    const CODE: u8 = super::attr::code::EXTENDED_COMMUNITIES;
    const OCTETS: usize = 8;

    fn read(octets: &[u8]) -> Option<Self> {
        octets.try_into().ok().map(|o| Self(u64::from_be_bytes(o)))
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }
}

impl Community for LargeCommunity {
    const CODE: u8 = super::attr::code::LARGE_COMMUNITIES;
    const OCTETS: usize = 12;

    fn read(octets: &[u8]) -> Option<Self> {
        let (words, []) = octets.as_chunks::<4>() else {
            return None;
        };
        let [a, b, c] = *words else { return None };
        Some([a, b, c].map(u32::from_be_bytes))
    }

    fn write(self, out: &mut Vec<u8>) {
        self.into_iter().for_each(|word| word.write(out));
    }
}

/// A standard community from `65000:100`, a number, or its name (`no-export`, `graceful-shutdown`, ...).
///
/// # Errors
/// [`InvalidCommunity`].
pub fn standard(text: &str) -> Result<u32, InvalidCommunity> {
    let named = match text {
        "no-export" => Some(NO_EXPORT),
        "no-advertise" => Some(NO_ADVERTISE),
        "no-export-subconfed" => Some(NO_EXPORT_SUBCONFED),
        "graceful-shutdown" => Some(GRACEFUL_SHUTDOWN),
        "llgr-stale" => Some(LLGR_STALE),
        "no-llgr" => Some(NO_LLGR),
        _ => None,
    };
    let pair = || {
        let (high, low) = text.split_once(':')?;
        let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
        Some(u32::from(high) << 16 | u32::from(low))
    };
    named
        .or_else(pair)
        .or_else(|| text.parse().ok())
        .ok_or_else(|| InvalidCommunity(text.into(), "standard"))
}

/// A large community from `65000:1:2`.
///
/// # Errors
/// [`InvalidCommunity`].
pub fn large(text: &str) -> Result<LargeCommunity, InvalidCommunity> {
    let mut parts = text.split(':').map(str::parse::<u32>);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(a)), Some(Ok(b)), Some(Ok(c)), None) => Ok([a, b, c]),
        _ => Err(InvalidCommunity(text.into(), "large")),
    }
}

/// `rt:65000:100`, `soo:65000:100` (two- or four-octet AS), or `0x` and sixteen digits.
impl FromStr for ExtendedCommunity {
    type Err = InvalidCommunity;

    fn from_str(text: &str) -> Result<Self, InvalidCommunity> {
        let raw = || u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let named = || {
            let (kind, rest) = text.split_once(':')?;
            let subtype = match kind {
                "rt" => 2u64,
                "soo" => 3,
                _ => return None,
            };
            let (asn, number) = rest.split_once(':')?;
            let (asn, number): (u32, u32) = (asn.parse().ok()?, number.parse().ok()?);
            Some(match (u16::try_from(asn), u16::try_from(number)) {
                (Ok(asn), _) => subtype << 48 | u64::from(asn) << 32 | u64::from(number),
                (Err(_), Ok(number)) => 2 << 56 | subtype << 48 | u64::from(asn) << 16 | u64::from(number),
                (Err(_), Err(_)) => return None,
            })
        };
        raw()
            .or_else(named)
            .map(Self)
            .ok_or_else(|| InvalidCommunity(text.into(), "extended"))
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 >> 48 & 0xff {
            2 => "rt",
            3 => "soo",
            _ => return write!(f, "{:#018x}", self.0),
        };
        match self.0 >> 56 {
            0 => write!(f, "{name}:{}:{}", self.0 >> 32 & 0xffff, self.0 & 0xffff_ffff),
            2 => write!(f, "{name}:{}:{}", self.0 >> 16 & 0xffff_ffff, self.0 & 0xffff),
            _ => write!(f, "{:#018x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_are_read_as_people_write_them() {
        assert_eq!(standard("65000:100"), Ok(0xfde8_0064));
        assert_eq!(standard("no-export"), Ok(NO_EXPORT));
        assert_eq!(standard("4294901760"), Ok(GRACEFUL_SHUTDOWN));
        for wrong in ["65536:1", "1:65536", "1:2:3", "", "no-such"] {
            assert!(standard(wrong).is_err(), "{wrong}");
        }
        assert_eq!(large("1:2:3"), Ok([1, 2, 3]));
        assert!(large("1:2").is_err() && large("1:2:3:4").is_err() && large("1:2:4294967296").is_err());
    }

    #[test]
    fn extended_communities_come_back_as_written() {
        for text in ["rt:65000:100", "soo:4200000000:7", "0x4300000000000001"] {
            assert_eq!(text.parse::<ExtendedCommunity>().unwrap().to_string(), text);
        }
        for wrong in ["rt:4200000000:65536", "xx:1:2", "rt:1", "0xzz"] {
            assert!(wrong.parse::<ExtendedCommunity>().is_err(), "{wrong}");
        }
    }
}
