//! The next hop of MP_REACH_NLRI (RFC 4760, RFC 2545, RFC 8950).

use super::{UpdateContext, UpdateError};
use crate::family::Family;
use crate::link;
use crate::wire::attr::NextHopValue;
use crate::wire::check;
use std::net::Ipv6Addr;

/// Reads it: 4 octets for IPv4, 16 or 32 for IPv6 and, where that was agreed on, for IPv4, too.
///
/// # Errors
/// [`UpdateError::OptionalAttribute`] for any other length (RFC 7606 section 7.11).
pub(super) fn read(
    family: Family,
    octets: &[u8],
    context: &UpdateContext,
) -> Result<NextHopValue, UpdateError> {
    if let (Family::Ipv4Unicast, Ok(v4)) = (family, <[u8; 4]>::try_from(octets)) {
        return Ok(NextHopValue::V4(v4.into()));
    }
    if family == Family::Ipv4Unicast && !context.extended_next_hop {
        return Err(UpdateError::OptionalAttribute);
    }
    let (first, second) = octets
        .split_first_chunk::<16>()
        .ok_or(UpdateError::OptionalAttribute)?;
    let first = Ipv6Addr::from(*first);
    let second = match second {
        [] => None,
        second => Some(<[u8; 16]>::try_from(second).map_err(|_| UpdateError::OptionalAttribute)?),
    };
    let second = second.map(Ipv6Addr::from).filter(Ipv6Addr::is_unicast_link_local);
    // Nobody says by an address which link it is on: that is known of the session, or not at all.
    let on_link = |a| link::scoped(a, context.link());
    let (first, second) = (on_link(first), second.map(on_link));
    Ok(match second {
        // Where the session itself is on a link, the neighbour is reached there, whatever else it is reached by.
        Some(link_local) if context.link() != 0 => NextHopValue::V6(link_local, None),
        // A speaker without a global address sends nothing but its link-local one in the second place.
        Some(link_local) if first.is_unspecified() => NextHopValue::V6(link_local, None),
        second => NextHopValue::V6(first, second.filter(|s| *s != first)),
    })
}

/// Whether traffic can be sent there: no martian, and not ourselves.
pub(super) fn is_lawful(next_hop: NextHopValue, context: &UpdateContext) -> bool {
    match next_hop {
        NextHopValue::SelfAddress => false,
        NextHopValue::V4(a) => check::is_next_hop_v4(a, context),
        NextHopValue::V6(a, _) => {
            let own = context.is_own(link::split(a).0.into());
            !a.is_unspecified() && !a.is_loopback() && !a.is_multicast() && !own
        }
    }
}
