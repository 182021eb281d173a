//! What each attribute must look like, and what happens when it does not (RFC 7606 section 7 and the attributes' own RFCs).

use super::as_path::{self, PathFault, Width};
use super::attr::{self, EXTENDED, OPTIONAL, TRANSITIVE, code};
use super::update::UpdateContext;
use crate::policy::SessionType;
use std::net::Ipv4Addr;

/// Communities of one kind on one route.
const COMMUNITIES_MAX: usize = 1000;
/// Octets of attributes that we do not know on one route; what is longer is discarded.
pub(super) const UNKNOWN_OCTETS_MAX: usize = 4096;

/// What becomes of one attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stays.
    Keep,
    /// It is well formed but not for us: dropped without a word.
    Drop,
    /// It is dropped, with a word (attribute discard).
    Discard(Fault),
    /// All routes of the UPDATE are treated as withdrawn.
    Withdraw(Fault),
}

/// Why, and the subcode of NOTIFICATION 3 should the session have to end for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// UPDATE message error subcode.
    pub subcode: u8,
    /// For people.
    pub reason: &'static str,
}

const fn fault(subcode: u8, reason: &'static str) -> Fault {
    Fault { subcode, reason }
}

const FLAGS: Fault = fault(4, "attribute flags contradict its type");
const LENGTH: Fault = fault(5, "attribute length is wrong");

/// Judges one attribute of an UPDATE; not MP_REACH and MP_UNREACH, whose errors reset.
pub(super) fn check(flags: u8, kind: u8, value: &[u8], context: &UpdateContext) -> Outcome {
    use Outcome::{Discard, Drop, Keep, Withdraw};
    let external = context.session == SessionType::Ebgp;
    match kind {
        code::LOCAL_PREF if external => return Discard(fault(5, "LOCAL_PREF from an external peer")),
        code::ORIGINATOR_ID | code::CLUSTER_LIST if external => {
            return Discard(fault(9, "reflection attribute from an external peer"));
        }
        code::AS4_PATH | code::AS4_AGGREGATOR if context.four_octet_as => {
            return Discard(fault(9, "AS4 attribute from a four-octet speaker"));
        }
        _ => {}
    }
    if !known(kind) {
        return unknown(flags, kind, value, external);
    }
    if flags & (OPTIONAL | TRANSITIVE) != attr::flags_of(kind) {
        return if matches!(kind, code::AS4_PATH | code::AS4_AGGREGATOR) {
            Discard(FLAGS)
        } else {
            Withdraw(FLAGS)
        };
    }
    let multiple = |unit: usize| {
        let lawful =
            !value.is_empty() && value.len().is_multiple_of(unit) && value.len() / unit <= COMMUNITIES_MAX;
        if lawful {
            Keep
        } else {
            Withdraw(fault(9, "list length is wrong"))
        }
    };
    let exactly = |len: usize| {
        if value.len() == len {
            Keep
        } else {
            Withdraw(LENGTH)
        }
    };
    match kind {
        code::ORIGIN => match value {
            [0..=2] => Keep,
            [_] => Withdraw(fault(6, "ORIGIN is above 2")),
            _ => Withdraw(LENGTH),
        },
        code::AS_PATH => path(value, context),
        code::NEXT_HOP => next_hop(value, context),
        code::MED | code::LOCAL_PREF | code::ORIGINATOR_ID | code::OTC => exactly(4),
        code::ATOMIC_AGGREGATE if !value.is_empty() => Discard(LENGTH),
        code::AGGREGATOR => aggregator(value, if context.four_octet_as { 4 } else { 2 }),
        code::AS4_AGGREGATOR => aggregator(value, 4),
        code::COMMUNITIES | code::CLUSTER_LIST => multiple(4),
        code::EXTENDED_COMMUNITIES => multiple(8),
        code::LARGE_COMMUNITIES => multiple(12),
        code::IPV6_EXTENDED_COMMUNITIES => multiple(20),
        code::AS4_PATH => match as_path::as4(value) {
            Some(_) => Keep,
            None => Discard(fault(9, "AS4_PATH is broken")),
        },
        // We are in no AIGP session (RFC 7311 section 3.1): dropped even when it is well formed.
        code::AIGP => {
            if aigp(value) {
                Drop
            } else {
                Discard(fault(9, "AIGP TLV is broken"))
            }
        }
        code::ATTR_SET => attr_set(value, context),
        _ => Keep,
    }
}

/// Attributes whose form is checked. All others are opaque, whatever their code.
const fn known(kind: u8) -> bool {
    matches!(
        kind,
        code::ORIGIN..=code::CLUSTER_LIST
            | code::EXTENDED_COMMUNITIES..=code::AS4_AGGREGATOR
            | code::IPV6_EXTENDED_COMMUNITIES
            | code::AIGP
            | code::LARGE_COMMUNITIES
            | code::OTC
            | code::ATTR_SET
    )
}

fn unknown(flags: u8, kind: u8, value: &[u8], external: bool) -> Outcome {
    match flags & (OPTIONAL | TRANSITIVE) {
        _ if external && filtered_at_edge(kind) => Outcome::Drop,
        0 | TRANSITIVE => Outcome::Withdraw(fault(2, "unrecognised well-known attribute")),
        OPTIONAL => Outcome::Drop,
        _ if value.len() > UNKNOWN_OCTETS_MAX => Outcome::Discard(fault(9, "unknown attribute is too long")),
        _ => Outcome::Keep,
    }
}

/// Attributes that mean something only inside a domain: neither taken from nor given to external peers.
#[must_use]
pub const fn filtered_at_edge(kind: u8) -> bool {
    matches!(
        kind,
        code::PMSI_TUNNEL | code::TUNNEL_ENCAP | code::BGP_LS | code::PREFIX_SID
    )
}

fn path(value: &[u8], context: &UpdateContext) -> Outcome {
    let width = if context.four_octet_as {
        Width::Four
    } else {
        Width::Two
    };
    let reason = match as_path::check(value, width) {
        Ok(()) => return first_as(value, width, context),
        Err(PathFault::Malformed) => "AS_PATH is malformed",
        Err(PathFault::AsZero) => "AS_PATH holds AS 0",
        Err(PathFault::Confederation) => "AS_PATH holds a confederation segment",
        Err(PathFault::TooLong) => "AS_PATH is too long",
    };
    Outcome::Withdraw(fault(11, reason))
}

fn first_as(value: &[u8], width: Width, context: &UpdateContext) -> Outcome {
    if context.session == SessionType::Ibgp || !context.enforce_first_as {
        return Outcome::Keep;
    }
    let first = match (width, value) {
        (Width::Four, &[2, _, a, b, c, d, ..]) => Some(u32::from_be_bytes([a, b, c, d])),
        (Width::Two, &[2, _, a, b, ..]) => Some(u32::from(u16::from_be_bytes([a, b]))),
        _ => None,
    };
    let expected = match width {
        Width::Four => context.peer_asn,
        Width::Two => u16::try_from(context.peer_asn).map_or(crate::config::AS_TRANS, u32::from),
    };
    if first == Some(expected) {
        Outcome::Keep
    } else {
        Outcome::Withdraw(fault(11, "the first AS of AS_PATH is not the peer's"))
    }
}

fn next_hop(value: &[u8], context: &UpdateContext) -> Outcome {
    match <[u8; 4]>::try_from(value) {
        Err(_) => Outcome::Withdraw(LENGTH),
        Ok(octets) if is_next_hop_v4(octets.into(), context) => Outcome::Keep,
        Ok(_) => Outcome::Withdraw(fault(8, "NEXT_HOP cannot be a next hop")),
    }
}

/// Neither `0/8`, multicast, class E nor ourselves; loopback only where the session itself runs over it.
pub(super) fn is_next_hop_v4(address: Ipv4Addr, context: &UpdateContext) -> bool {
    let [first, ..] = address.octets();
    let usual = first != 0 && first < 224 && (first != 127 || context.is_on_loopback());
    usual && !context.is_own(address.into())
}

fn aggregator(value: &[u8], asn_octets: usize) -> Outcome {
    if value.len() != asn_octets + 4 {
        return Outcome::Discard(LENGTH);
    }
    if value.iter().take(asn_octets).all(|o| *o == 0) {
        return Outcome::Discard(fault(9, "AGGREGATOR holds AS 0"));
    }
    Outcome::Keep
}

fn aigp(mut value: &[u8]) -> bool {
    while let &[_, high, low, ..] = value {
        let len = usize::from(u16::from_be_bytes([high, low]));
        match value.get(len..) {
            Some(rest) if len >= 3 => value = rest,
            _ => return false,
        }
    }
    value.is_empty()
}

/// ATTR_SET (RFC 6368): origin AS, then attributes, each of which must be sound by itself. It does not nest.
fn attr_set(value: &[u8], context: &UpdateContext) -> Outcome {
    let broken = Outcome::Withdraw(fault(9, "ATTR_SET is broken"));
    let Some((_, mut rest)) = value.split_first_chunk::<4>() else {
        return broken;
    };
    // Inside are the attributes of an internal session of its owner, AS numbers always of four octets.
    let inner = UpdateContext {
        session: SessionType::Ibgp,
        four_octet_as: true,
        ..context.clone()
    };
    while !rest.is_empty() {
        let Some((flags, kind, value, after)) = split(rest) else {
            return broken;
        };
        let nested = matches!(kind, code::ATTR_SET | code::MP_REACH | code::MP_UNREACH);
        if nested || matches!(check(flags, kind, value, &inner), Outcome::Withdraw(_)) {
            return broken;
        }
        rest = after;
    }
    Outcome::Keep
}

/// Flags, code and value of the first attribute, and what follows; `None` if it overruns.
pub(super) fn split(octets: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let (flags, kind, len, rest) = match *octets {
        [flags, kind, high, low, ref rest @ ..] if flags & EXTENDED != 0 => {
            (flags, kind, usize::from(u16::from_be_bytes([high, low])), rest)
        }
        [flags, kind, len, ref rest @ ..] if flags & EXTENDED == 0 => (flags, kind, usize::from(len), rest),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((flags, kind, value, rest))
}
