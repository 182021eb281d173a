//! ROUTE-REFRESH (RFC 2918) with the subtypes of RFC 7313.

use super::header::{HEADER_LEN, MessageType, message};
use super::notification::Notification;
use crate::family::Family;

/// What a ROUTE-REFRESH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteRefresh {
    /// Send everything of this family again.
    Request(Family),
    /// What follows is a repetition of everything (RFC 7313 BoRR).
    Begin(Family),
    /// The repetition is complete (RFC 7313 EoRR).
    End(Family),
    /// Another family, another subtype, or ORF entries: ignored (RFC 2918 section 4, RFC 7313 section 5).
    Ignored,
}

impl RouteRefresh {
    /// Reads the body of a message. Octets beyond four are ORF entries (RFC 5291), which we never asked for.
    ///
    /// # Errors
    /// NOTIFICATION 7/1 when the length is wrong (RFC 7313 section 5); its data is the whole message.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let [a, b, subtype, safi, ref orf @ ..] = *body else {
            let mut whole = Vec::with_capacity(HEADER_LEN + body.len());
            message(&mut whole, MessageType::RouteRefresh, |out| {
                out.extend_from_slice(body)
            });
            return Err(Notification::with(7, 1, &whole));
        };
        let Some(family) = Family::of(u16::from_be_bytes([a, b]), safi) else {
            return Ok(Self::Ignored);
        };
        Ok(match subtype {
            _ if !orf.is_empty() => Self::Ignored,
            0 => Self::Request(family),
            1 => Self::Begin(family),
            2 => Self::End(family),
            _ => Self::Ignored,
        })
    }

    /// Appends the message; [`RouteRefresh::Ignored`] appends nothing.
    pub fn encode(self, out: &mut Vec<u8>) {
        let (subtype, family) = match self {
            Self::Request(family) => (0, family),
            Self::Begin(family) => (1, family),
            Self::End(family) => (2, family),
            Self::Ignored => return,
        };
        message(out, MessageType::RouteRefresh, |out| {
            out.extend_from_slice(&family.afi().to_be_bytes());
            out.extend_from_slice(&[subtype, family.safi()]);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back() {
        for said in [
            RouteRefresh::Request(Family::Ipv6Unicast),
            RouteRefresh::Begin(Family::Ipv4Unicast),
        ] {
            let mut out = Vec::new();
            said.encode(&mut out);
            assert_eq!(RouteRefresh::decode(&out[HEADER_LEN..]), Ok(said));
        }
    }

    #[test]
    fn orf_and_foreign_families_are_ignored_but_a_short_one_is_an_error() {
        // CVE-2010-2948, CVE-2023-41360: ORF entries in a ROUTE-REFRESH.
        assert_eq!(
            RouteRefresh::decode(&[0, 1, 0, 1, 1, 64, 0, 5, 0]),
            Ok(RouteRefresh::Ignored)
        );
        assert_eq!(RouteRefresh::decode(&[0, 25, 0, 70]), Ok(RouteRefresh::Ignored));
        assert_eq!(RouteRefresh::decode(&[0, 1, 0]).unwrap_err().code, 7);
    }
}
