//! UPDATE, decoded (RFC 4271 section 4.3, RFC 4760, RFC 7606): the routes go to a flat batch, what was wrong to a list of
//! verdicts, and only what makes the rest unreadable is an error.

mod attributes;
mod decoder;
mod next_hop;

pub use decoder::Decoder;

use super::attr::AttrSet;
use super::nlri::{self, PathIds};
use super::notification::Notification;
use crate::family::{Families, Family, PerFamily};
use crate::link;
use crate::policy::SessionType;
use crate::prefix::{V4, V6};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

pub use super::nlri::Nlri;

/// What a session agreed on, as far as decoding an UPDATE needs it.
#[derive(Clone, Debug)]
pub struct UpdateContext {
    /// Internal or external.
    pub session: SessionType,
    /// The peer's AS number.
    pub peer_asn: u32,
    /// AS numbers are of four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Families agreed on; routes of others are ignored.
    pub families: Families,
    /// Families for which the peer sends path identifiers.
    pub path_ids: PerFamily<PathIds>,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// The first AS must be the peer's.
    pub enforce_first_as: bool,
    /// Our own addresses: no next hop. A link-local one with its link ([`crate::link`]) says where link-local next hops are.
    pub own_addresses: Vec<IpAddr>,
}

impl UpdateContext {
    /// The link that the session is on; 0 if it is not on one alone.
    pub(super) fn link(&self) -> u32 {
        let links = self.own_addresses.iter().map(|a| link::of(*a));
        links.max().unwrap_or(0)
    }

    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.own_addresses.contains(&address)
    }

    /// The peer is on this very host: loopback addresses lead to it.
    pub(super) fn is_on_loopback(&self) -> bool {
        self.own_addresses.iter().any(IpAddr::is_loopback)
    }
}

/// One operation of a batch; ranges lie in the batch's vector of that family.
#[derive(Clone, Debug)]
pub enum Op {
    /// These prefixes now have these attributes.
    Announce(Family, Arc<AttrSet>, Range<usize>),
    /// These prefixes are gone.
    Withdraw(Family, Range<usize>),
    /// End-of-RIB (RFC 4724 section 2).
    EndOfRib(Family),
}

/// What UPDATEs said, in order: one batch holds as many as one read from the socket gave.
#[derive(Debug, Default)]
pub struct Routes {
    /// The operations.
    pub ops: Vec<Op>,
    /// IPv4 prefixes of the operations.
    pub v4: Vec<Nlri<V4>>,
    /// IPv6 prefixes of the operations.
    pub v6: Vec<Nlri<V6>>,
}

impl Routes {
    /// No operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    fn read(
        &mut self,
        family: Family,
        field: &[u8],
        ids: PathIds,
    ) -> Result<(Range<usize>, u32), UpdateError> {
        let start = self.filled(family);
        let read = match family {
            Family::Ipv4Unicast => nlri::read(field, ids, &mut self.v4),
            Family::Ipv6Unicast => nlri::read(field, ids, &mut self.v6),
        };
        let read = read.map_err(|_| UpdateError::InvalidNetworkField)?;
        Ok((start..self.filled(family), read.martians))
    }

    fn filled(&self, family: Family) -> usize {
        match family {
            Family::Ipv4Unicast => self.v4.len(),
            Family::Ipv6Unicast => self.v6.len(),
        }
    }
}

/// One thing that was wrong and did not end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The attribute, where it was one.
    pub attribute: Option<u8>,
    /// What was done.
    pub action: Action,
    /// Why.
    pub reason: &'static str,
}

/// What RFC 7606 has done about an error; the strongest of an UPDATE wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Only the thing itself was passed over.
    Ignore,
    /// The attribute was dropped.
    AttributeDiscard,
    /// All routes of the UPDATE count as withdrawn.
    TreatAsWithdraw,
}

/// What ends the session: NOTIFICATION code 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Lengths of withdrawn routes and attributes exceed the message, or an MP attribute stands twice.
    #[error("malformed attribute list")]
    MalformedAttributeList,
    /// A prefix length is beyond its family's, or octets run out.
    #[error("invalid network field")]
    InvalidNetworkField,
    /// MP_REACH or MP_UNREACH cannot be read.
    #[error("MP_REACH_NLRI or MP_UNREACH_NLRI cannot be read")]
    OptionalAttribute,
    /// An attribute calls for treat-as-withdraw, but the UPDATE shows no route to withdraw (RFC 7606 section 5.2).
    #[error("{0}, and no route to treat as withdrawn")]
    NothingToWithdraw(&'static str, u8),
}

impl UpdateError {
    /// What goes back to the peer.
    #[must_use]
    pub const fn notification(self) -> Notification {
        match self {
            Self::MalformedAttributeList => Notification::new(3, 1),
            Self::InvalidNetworkField => Notification::new(3, 10),
            Self::OptionalAttribute => Notification::new(3, 9),
            Self::NothingToWithdraw(_, subcode) => Notification::new(3, subcode),
        }
    }
}

#[cfg(test)]
mod tests;
