//! OPEN (RFC 4271 section 4.2) with optional parameters (RFC 5492, extended length RFC 9072).

use super::capability::{self, Capabilities};
use super::header::{MessageType, message};
use super::notification::Notification;
use crate::config::AS_TRANS_16;
use std::net::Ipv4Addr;

const VERSION: u8 = 4;
const CAPABILITIES_PARAMETER: u8 = 2;
const EXTENDED_LENGTH: u8 = 255;

/// Hold Time of an OPEN: zero, or at least three seconds (RFC 4271 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldTime(u16);

impl TryFrom<u16> for HoldTime {
    type Error = OpenError;

    fn try_from(secs: u16) -> Result<Self, OpenError> {
        match secs {
            1 | 2 => Err(OpenError::UnacceptableHoldTime(secs)),
            _ => Ok(Self(secs)),
        }
    }
}

impl HoldTime {
    /// The time in seconds; 0 is none.
    #[must_use]
    pub const fn secs(self) -> u16 {
        self.0
    }
}

/// An OPEN whose every field may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS number: that of the four-octet capability where present.
    pub asn: u32,
    /// The Hold Time it offers.
    pub hold_time: HoldTime,
    /// Its BGP Identifier; not zero.
    pub router_id: Ipv4Addr,
    /// What it offers.
    pub capabilities: Capabilities,
}

/// Why an OPEN is refused: NOTIFICATION code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not version 4.
    #[error("unsupported version {0}")]
    UnsupportedVersion(u8),
    /// AS 0 or, by the FSM, not the AS configured.
    #[error("bad peer AS {0}")]
    BadPeerAs(u32),
    /// Zero, or our own within our AS (RFC 6286).
    #[error("bad BGP identifier {0}")]
    BadIdentifier(Ipv4Addr),
    /// One or two seconds.
    #[error("unacceptable hold time {0} s")]
    UnacceptableHoldTime(u16),
    /// A parameter other than capabilities; RFC 4271's authentication (1) was deprecated.
    #[error("optional parameter {0} is not supported")]
    UnsupportedParameter(u8),
    /// Lengths that do not add up: 2/0, since BIRD answers 2/4 by dropping all capabilities.
    #[error("malformed optional parameters")]
    Malformed,
}

impl OpenError {
    /// What goes back to the peer.
    #[must_use]
    pub fn notification(&self) -> Notification {
        match self {
            Self::UnsupportedVersion(_) => Notification::with(2, 1, &[0, VERSION]),
            Self::BadPeerAs(_) => Notification::new(2, 2),
            Self::BadIdentifier(_) => Notification::new(2, 3),
            Self::UnsupportedParameter(_) => Notification::new(2, 4),
            Self::UnacceptableHoldTime(_) => Notification::new(2, 6),
            Self::Malformed => Notification::new(2, 0),
        }
    }
}

impl Open {
    /// Reads the body of a message. Capabilities that we do not know are passed over.
    ///
    /// # Errors
    /// [`OpenError`]: the connection ends with its NOTIFICATION.
    pub fn decode(body: &[u8]) -> Result<Self, OpenError> {
        let [
            version,
            as_high,
            as_low,
            hold_high,
            hold_low,
            a,
            b,
            c,
            d,
            ref rest @ ..,
        ] = *body
        else {
            return Err(OpenError::Malformed);
        };
        if version != VERSION {
            return Err(OpenError::UnsupportedVersion(version));
        }
        let two_octet_as = u32::from(u16::from_be_bytes([as_high, as_low]));
        let hold_time = HoldTime::try_from(u16::from_be_bytes([hold_high, hold_low]))?;
        let router_id = Ipv4Addr::new(a, b, c, d);
        if router_id.is_unspecified() {
            return Err(OpenError::BadIdentifier(router_id));
        }
        let mut capabilities = Capabilities::default();
        parameters(rest, &mut capabilities)?;
        let asn = capabilities.four_octet_as.unwrap_or(two_octet_as);
        if asn == 0 {
            return Err(OpenError::BadPeerAs(asn));
        }
        Ok(Self {
            asn,
            hold_time,
            router_id,
            capabilities,
        })
    }

    /// Appends the message. All capabilities go into one parameter; they always fit the classic form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut triples = Vec::new();
        for capability in self.capabilities.list() {
            triples.push(capability.code);
            triples.push(u8::try_from(capability.value.len()).unwrap_or(0));
            triples.extend_from_slice(&capability.value);
        }
        message(out, MessageType::Open, |out| {
            out.push(VERSION);
            out.extend_from_slice(&u16::try_from(self.asn).unwrap_or(AS_TRANS_16).to_be_bytes());
            out.extend_from_slice(&self.hold_time.secs().to_be_bytes());
            out.extend_from_slice(&self.router_id.octets());
            match u8::try_from(triples.len()) {
                Ok(len @ 1..=253) => {
                    out.extend_from_slice(&[len + 2, CAPABILITIES_PARAMETER, len]);
                    out.extend_from_slice(&triples);
                }
                _ => out.push(0),
            }
        });
    }
}

/// Optional parameters: the length octet and what it covers, or RFC 9072's extended form (255, 255, two octets).
fn parameters(input: &[u8], into: &mut Capabilities) -> Result<(), OpenError> {
    let (extended, mut rest) = match *input {
        [EXTENDED_LENGTH, EXTENDED_LENGTH, high, low, ref rest @ ..] => {
            (true, exactly(rest, u16::from_be_bytes([high, low]).into())?)
        }
        [len, ref rest @ ..] => (false, exactly(rest, len.into())?),
        [] => return Err(OpenError::Malformed),
    };
    while !rest.is_empty() {
        let (kind, len, after) = match (extended, rest) {
            (false, &[kind, len, ref after @ ..]) => (kind, usize::from(len), after),
            (true, &[kind, high, low, ref after @ ..]) => {
                (kind, u16::from_be_bytes([high, low]).into(), after)
            }
            _ => return Err(OpenError::Malformed),
        };
        let (value, after) = after.split_at_checked(len).ok_or(OpenError::Malformed)?;
        if kind != CAPABILITIES_PARAMETER {
            return Err(OpenError::UnsupportedParameter(kind));
        }
        capability::read(value, into).map_err(|_| OpenError::Malformed)?;
        rest = after;
    }
    Ok(())
}

fn exactly(rest: &[u8], len: usize) -> Result<&[u8], OpenError> {
    if rest.len() == len {
        Ok(rest)
    } else {
        Err(OpenError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{Families, PerFamily};
    use crate::wire::capability::RestartCapability;
    use crate::wire::header::HEADER_LEN;

    fn open() -> Open {
        let capabilities = Capabilities {
            families: Some(Families::BOTH),
            route_refresh: true,
            enhanced_refresh: true,
            four_octet_as: Some(4_200_000_000),
            restart: Some(RestartCapability {
                restart_secs: 120,
                families: PerFamily {
                    ipv4: Some(true),
                    ipv6: None,
                },
                ..RestartCapability::default()
            }),
            codes: vec![1, 2, 64, 65, 70],
            ..Capabilities::default()
        };
        let router_id = Ipv4Addr::new(10, 0, 0, 1);
        Open {
            asn: 4_200_000_000,
            hold_time: HoldTime(90),
            router_id,
            capabilities,
        }
    }

    fn check(change: impl FnOnce(&mut Vec<u8>), expected: Result<Open, OpenError>) {
        let mut out = Vec::new();
        open().encode(&mut out);
        let mut body = out.split_off(HEADER_LEN);
        change(&mut body);
        assert_eq!(Open::decode(&body), expected);
    }

    #[test]
    fn it_comes_back_whole() {
        check(|_| (), Ok(open()));
    }

    #[test]
    fn unlawful_fields_carry_the_rfcs_subcodes() {
        check(|b| b[0] = 3, Err(OpenError::UnsupportedVersion(3)));
        check(|b| b[4] = 2, Err(OpenError::UnacceptableHoldTime(2)));
        check(
            |b| b[5..9].fill(0),
            Err(OpenError::BadIdentifier(Ipv4Addr::UNSPECIFIED)),
        );
        check(|b| b.truncate(20), Err(OpenError::Malformed));
        check(|b| b.truncate(9), Err(OpenError::Malformed));
        check(|b| b.push(0), Err(OpenError::Malformed));
        assert_eq!(
            OpenError::UnsupportedVersion(3).notification(),
            Notification::with(2, 1, &[0, 4])
        );
        assert_eq!(OpenError::Malformed.notification(), Notification::new(2, 0));
    }

    #[test]
    fn the_extended_form_is_read_and_its_truncations_refused() {
        // CVE-2022-40302, 40318, 43681: option 255 with fewer octets than its header.
        let extended = |b: &mut Vec<u8>| {
            let caps = b.split_off(12);
            b.truncate(9);
            let len = u16::try_from(caps.len()).unwrap() + 3;
            b.extend_from_slice(&[255, 255]);
            b.extend_from_slice(&len.to_be_bytes());
            b.push(2);
            b.extend_from_slice(&u16::try_from(caps.len()).unwrap().to_be_bytes());
            b.extend(caps);
        };
        check(extended, Ok(open()));
        for cut in 10..13 {
            check(|b| (extended(b), b.truncate(cut)).1, Err(OpenError::Malformed));
        }
        check(
            |b| (b.truncate(9), b.extend([255, 255, 0, 2, 2, 0])).1,
            Err(OpenError::Malformed),
        );
    }
}
