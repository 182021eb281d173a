//! UPDATE, decoded (RFC 4271 section 4.3, RFC 4760, RFC 7606): the routes go to a flat batch, what was wrong to a list of
//! verdicts, and only what makes the rest unreadable is an error.

use super::as_path;
use super::attr::{Attr, AttrSet, NextHopValue, OPTIONAL, PARTIAL, TRANSITIVE, code, hash_octets};
use super::check::{self, Fault, Outcome};
use super::nlri::{self, PathIds};
use super::notification::Notification;
use crate::family::{Families, Family, PerFamily};
use crate::policy::SessionType;
use crate::prefix::{V4, V6};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

pub use super::nlri::Nlri;

/// Attributes in one UPDATE; there are no more type codes.
const ATTRIBUTES_MAX: usize = 255;
/// Attribute lists that a decoder remembers: a peer that sends the same set again is not parsed again.
const CACHE_SLOTS: usize = 256;

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
    /// The first AS must be the peer's.
    pub enforce_first_as: bool,
    /// Our own addresses: no next hop.
    pub own_addresses: Vec<IpAddr>,
}

impl UpdateContext {
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.own_addresses.contains(&address)
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

/// Decodes the UPDATEs of one session.
#[derive(Debug)]
pub struct Decoder {
    context: UpdateContext,
    cache: Vec<Option<Remembered>>,
}

/// An attribute list as it was received, and the set it stands for.
#[derive(Clone, Debug)]
struct Remembered {
    list: Box<[u8]>,
    set: Arc<AttrSet>,
}

/// The parsed attribute list of one UPDATE.
#[derive(Default)]
struct Parsed<'a> {
    attrs: Vec<(u8, u8, Cow<'a, [u8]>)>,
    next_hop: Option<Ipv4Addr>,
    reach: Option<Reach<'a>>,
    unreach: Option<(Option<Family>, &'a [u8])>,
    as4_path: Option<&'a [u8]>,
    as4_aggregator: Option<&'a [u8]>,
    withdraw: Option<Fault>,
    verdicts: Vec<Verdict>,
}

struct Reach<'a> {
    family: Option<Family>,
    next_hop: &'a [u8],
    nlri: &'a [u8],
}

impl Decoder {
    /// A decoder for a session that agreed on this.
    #[must_use]
    pub fn new(context: UpdateContext) -> Self {
        Self {
            context,
            cache: vec![None; CACHE_SLOTS],
        }
    }

    /// Reads the body of an UPDATE and appends what it says to `routes`.
    ///
    /// # Errors
    /// [`UpdateError`] resets the session; `routes` then holds nothing of this UPDATE in its operations.
    pub fn decode(&mut self, body: &[u8], routes: &mut Routes) -> Result<Vec<Verdict>, UpdateError> {
        let (withdrawn, rest) = field(body).ok_or(UpdateError::MalformedAttributeList)?;
        let (list, nlri) = field(rest).ok_or(UpdateError::MalformedAttributeList)?;
        if withdrawn.is_empty() && list.is_empty() && nlri.is_empty() {
            if self.context.families.ipv4 {
                routes.ops.push(Op::EndOfRib(Family::Ipv4Unicast));
            }
            return Ok(Vec::new());
        }
        let ops = routes.ops.len();
        let result = self.routes(withdrawn, list, nlri, routes);
        if result.is_err() {
            routes.ops.truncate(ops);
        }
        result
    }

    fn routes(
        &mut self,
        withdrawn: &[u8],
        list: &[u8],
        nlri: &[u8],
        routes: &mut Routes,
    ) -> Result<Vec<Verdict>, UpdateError> {
        let mut verdicts = Vec::new();
        self.withdraw(Family::Ipv4Unicast, withdrawn, routes, &mut verdicts)?;
        if !nlri.is_empty()
            && let Some(set) = self.cached(list)
        {
            self.announce(Family::Ipv4Unicast, nlri, Some(set), routes, &mut verdicts)?;
            return Ok(verdicts);
        }
        let mut parsed = self.parse(list)?;
        self.mandatory(&mut parsed, nlri);
        verdicts.append(&mut parsed.verdicts);
        let multiprotocol = parsed.reach.is_some() || parsed.unreach.is_some();
        if let Some((family, field)) = parsed.unreach {
            self.unreach(family, field, routes, &mut verdicts)?;
        }
        let reach = parsed.reach.take();
        let reachable = !nlri.is_empty() || reach.as_ref().is_some_and(|r| !r.nlri.is_empty());
        if let Some(fault) = parsed.withdraw
            && !reachable
        {
            return Err(UpdateError::NothingToWithdraw(fault.reason, fault.subcode));
        }
        if let Some(reach) = reach {
            self.reach(&reach, &mut parsed, routes, &mut verdicts)?;
        }
        if !nlri.is_empty() {
            let set = match (parsed.withdraw, parsed.next_hop) {
                (None, Some(next_hop)) => Some(self.set(NextHopValue::V4(next_hop), &mut parsed)),
                _ => None,
            };
            if let Some(set) = &set
                && verdicts.is_empty()
                && !multiprotocol
            {
                self.remember(list, set);
            }
            self.announce(Family::Ipv4Unicast, nlri, set, routes, &mut verdicts)?;
        }
        Ok(verdicts)
    }

    /// Reads the attribute list. An overrun makes the rest unreadable but leaves the NLRI known (RFC 7606 section 4).
    fn parse<'a>(&self, mut list: &'a [u8]) -> Result<Parsed<'a>, UpdateError> {
        let mut parsed = Parsed {
            attrs: Vec::with_capacity(8),
            ..Parsed::default()
        };
        let mut seen = [false; ATTRIBUTES_MAX + 1];
        while !list.is_empty() {
            let Some((flags, kind, value, rest)) = check::split(list) else {
                parsed.treat_as_withdraw(
                    None,
                    Fault {
                        subcode: 1,
                        reason: "attribute list overruns",
                    },
                );
                break;
            };
            list = rest;
            let twice = seen
                .get_mut(usize::from(kind))
                .is_some_and(|s| std::mem::replace(s, true));
            match kind {
                code::MP_REACH | code::MP_UNREACH if twice => {
                    return Err(UpdateError::MalformedAttributeList);
                }
                _ if twice => parsed.say(kind, Action::AttributeDiscard, "attribute stands twice"),
                code::MP_REACH | code::MP_UNREACH => self.multiprotocol(flags, kind, value, &mut parsed)?,
                _ => match check::check(flags, kind, value, &self.context) {
                    Outcome::Keep => self.keep(flags, kind, value, &mut parsed),
                    Outcome::Drop => {}
                    Outcome::Discard(fault) => parsed.say(kind, Action::AttributeDiscard, fault.reason),
                    Outcome::Withdraw(fault) => parsed.treat_as_withdraw(Some(kind), fault),
                },
            }
        }
        Ok(parsed)
    }

    fn keep<'a>(&self, flags: u8, kind: u8, value: &'a [u8], parsed: &mut Parsed<'a>) {
        match kind {
            code::NEXT_HOP => parsed.next_hop = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from),
            code::AS4_PATH => parsed.as4_path = Some(value),
            code::AS4_AGGREGATOR => parsed.as4_aggregator = Some(value),
            code::AS_PATH if !self.context.four_octet_as => {
                parsed
                    .attrs
                    .push((kind, TRANSITIVE, as_path::widen(value).into()));
            }
            code::AGGREGATOR if !self.context.four_octet_as => {
                parsed
                    .attrs
                    .push((kind, OPTIONAL | TRANSITIVE, [&[0, 0], value].concat().into()));
            }
            _ => {
                let known = super::attr::is_recognised(kind);
                let partial = if known { flags & PARTIAL } else { PARTIAL };
                let flags = (flags & (OPTIONAL | TRANSITIVE))
                    | if flags & OPTIONAL != 0 && flags & TRANSITIVE != 0 {
                        partial
                    } else {
                        0
                    };
                parsed.attrs.push((kind, flags, value.into()));
            }
        }
    }

    /// MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760): what cannot be read resets (RFC 7606 section 5.3).
    fn multiprotocol<'a>(
        &self,
        flags: u8,
        kind: u8,
        value: &'a [u8],
        parsed: &mut Parsed<'a>,
    ) -> Result<(), UpdateError> {
        let &[a, b, safi, ref rest @ ..] = value else {
            return Err(UpdateError::OptionalAttribute);
        };
        let family = Family::of(u16::from_be_bytes([a, b]), safi).filter(|f| self.context.families.has(*f));
        if flags & (OPTIONAL | TRANSITIVE) != OPTIONAL {
            parsed.treat_as_withdraw(
                Some(kind),
                Fault {
                    subcode: 4,
                    reason: "attribute flags contradict its type",
                },
            );
        }
        if family.is_none() {
            parsed.say(kind, Action::Ignore, "address family is not agreed on");
        }
        if kind == code::MP_UNREACH {
            parsed.unreach = Some((family, rest));
            return Ok(());
        }
        let (&len, rest) = rest.split_first().ok_or(UpdateError::OptionalAttribute)?;
        // The next hop is followed by one reserved octet.
        let (next_hop, rest) = rest
            .split_at_checked(len.into())
            .ok_or(UpdateError::OptionalAttribute)?;
        let (_, nlri) = rest.split_first().ok_or(UpdateError::OptionalAttribute)?;
        if family.is_some() {
            parsed.reach = Some(Reach {
                family,
                next_hop,
                nlri,
            });
        }
        Ok(())
    }

    fn mandatory(&self, parsed: &mut Parsed<'_>, nlri: &[u8]) {
        let reachable = !nlri.is_empty() || parsed.reach.as_ref().is_some_and(|r| !r.nlri.is_empty());
        if !reachable || parsed.withdraw.is_some() {
            return;
        }
        let has = |code: u8| parsed.attrs.iter().any(|(c, ..)| *c == code);
        let missing = |reason| Fault { subcode: 3, reason };
        if !has(code::ORIGIN) {
            parsed.treat_as_withdraw(Some(code::ORIGIN), missing("ORIGIN is missing"));
        } else if !has(code::AS_PATH) {
            parsed.treat_as_withdraw(Some(code::AS_PATH), missing("AS_PATH is missing"));
        } else if !nlri.is_empty() && parsed.next_hop.is_none() {
            parsed.treat_as_withdraw(Some(code::NEXT_HOP), missing("NEXT_HOP is missing"));
        }
    }

    fn unreach(
        &self,
        family: Option<Family>,
        field: &[u8],
        routes: &mut Routes,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), UpdateError> {
        let Some(family) = family else { return Ok(()) };
        if field.is_empty() {
            routes.ops.push(Op::EndOfRib(family));
            return Ok(());
        }
        self.withdraw(family, field, routes, verdicts)
    }

    fn reach(
        &mut self,
        reach: &Reach<'_>,
        parsed: &mut Parsed<'_>,
        routes: &mut Routes,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), UpdateError> {
        let Some(family) = reach.family else { return Ok(()) };
        let next_hop = mp_next_hop(family, reach.next_hop)?;
        if parsed.withdraw.is_none() && !self.lawful(next_hop) {
            let reason = "next hop of MP_REACH_NLRI cannot be one";
            verdicts.push(Verdict {
                attribute: Some(code::MP_REACH),
                action: Action::TreatAsWithdraw,
                reason,
            });
            return self.announce(family, reach.nlri, None, routes, verdicts);
        }
        let set = if parsed.withdraw.is_none() {
            Some(self.set(next_hop, parsed))
        } else {
            None
        };
        self.announce(family, reach.nlri, set, routes, verdicts)
    }

    fn lawful(&self, next_hop: NextHopValue) -> bool {
        match next_hop {
            NextHopValue::SelfAddress => false,
            NextHopValue::V4(a) => check::lawful_v4(a) && !self.context.is_own(a.into()),
            NextHopValue::V6(a, _) => {
                !a.is_unspecified() && !a.is_loopback() && !a.is_multicast() && !self.context.is_own(a.into())
            }
        }
    }

    /// Announces the prefixes of a field, or, without attributes, treats them as withdrawn.
    fn announce(
        &self,
        family: Family,
        field: &[u8],
        set: Option<Arc<AttrSet>>,
        routes: &mut Routes,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), UpdateError> {
        if !self.context.families.has(family) {
            return Ok(());
        }
        let (range, martians) = routes.read(family, field, *self.context.path_ids.at(family))?;
        say_martians(martians, verdicts);
        if !range.is_empty() {
            routes.ops.push(match set {
                Some(set) => Op::Announce(family, set, range),
                None => Op::Withdraw(family, range),
            });
        }
        Ok(())
    }

    fn withdraw(
        &self,
        family: Family,
        field: &[u8],
        routes: &mut Routes,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), UpdateError> {
        if field.is_empty() {
            Ok(())
        } else {
            self.announce(family, field, None, routes, verdicts)
        }
    }

    fn set(&self, next_hop: NextHopValue, parsed: &mut Parsed<'_>) -> Arc<AttrSet> {
        parsed.merge_as4();
        if !parsed.attrs.is_sorted_by_key(|(code, ..)| *code) {
            parsed.attrs.sort_by_key(|(code, ..)| *code);
        }
        let attrs: Vec<Attr<'_>> = parsed
            .attrs
            .iter()
            .map(|(code, flags, value)| Attr {
                code: *code,
                flags: *flags,
                value,
            })
            .collect();
        Arc::new(AttrSet::new(next_hop, &attrs))
    }

    fn slot(list: &[u8]) -> usize {
        usize::try_from(hash_octets(list) % CACHE_SLOTS as u64).unwrap_or(0)
    }

    fn cached(&self, list: &[u8]) -> Option<Arc<AttrSet>> {
        let known = self.cache.get(Self::slot(list))?.as_ref()?;
        (*known.list == *list).then(|| Arc::clone(&known.set))
    }

    /// Only lists whose parsing had nothing to say may be remembered: verdicts are counted each time.
    fn remember(&mut self, list: &[u8], set: &Arc<AttrSet>) {
        if let Some(slot) = self.cache.get_mut(Self::slot(list)) {
            *slot = Some(Remembered {
                list: list.into(),
                set: Arc::clone(set),
            });
        }
    }
}

impl<'a> Parsed<'a> {
    fn say(&mut self, kind: u8, action: Action, reason: &'static str) {
        self.verdicts.push(Verdict {
            attribute: Some(kind),
            action,
            reason,
        });
    }

    fn treat_as_withdraw(&mut self, attribute: Option<u8>, fault: Fault) {
        self.verdicts.push(Verdict {
            attribute,
            action: Action::TreatAsWithdraw,
            reason: fault.reason,
        });
        self.withdraw.get_or_insert(fault);
    }

    /// Puts AS4_PATH and AS4_AGGREGATOR where they belong (RFC 6793 section 4.2.3). An AGGREGATOR with a true AS says that
    /// a two-octet speaker changed the route: both are then ignored.
    fn merge_as4(&mut self) {
        let (as4_path, as4_aggregator) = (self.as4_path.take(), self.as4_aggregator.take());
        let aggregator = self.attrs.iter().position(|(c, ..)| *c == code::AGGREGATOR);
        let trans = aggregator.and_then(|i| self.attrs.get(i)).is_none_or(|(.., v)| {
            v.first_chunk::<4>()
                .is_some_and(|asn| u32::from_be_bytes(*asn) == crate::config::AS_TRANS)
        });
        if !trans {
            return;
        }
        if let (Some(i), Some(value)) = (aggregator, as4_aggregator)
            && let Some((.., to)) = self.attrs.get_mut(i)
        {
            *to = value.into();
        }
        if let Some(as4_path) = as4_path
            && let Some((.., path)) = self.attrs.iter_mut().find(|(c, ..)| *c == code::AS_PATH)
        {
            *path = as_path::merge(path, as4_path).into();
        }
    }
}

fn say_martians(martians: u32, verdicts: &mut Vec<Verdict>) {
    if martians > 0 {
        verdicts.push(Verdict {
            attribute: None,
            action: Action::Ignore,
            reason: "prefix is a martian",
        });
    }
}

/// A field of two octets of length and what they cover, and the rest.
fn field(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = input.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// The next hop of MP_REACH_NLRI: 4 octets for IPv4 (or IPv6's forms, RFC 8950), 16 or 32 for IPv6 (RFC 2545).
fn mp_next_hop(family: Family, octets: &[u8]) -> Result<NextHopValue, UpdateError> {
    if let (Family::Ipv4Unicast, Ok(v4)) = (family, <[u8; 4]>::try_from(octets)) {
        return Ok(NextHopValue::V4(v4.into()));
    }
    let (first, second) = octets
        .split_first_chunk::<16>()
        .ok_or(UpdateError::OptionalAttribute)?;
    let first = Ipv6Addr::from(*first);
    match (family, second) {
        (Family::Ipv6Unicast, []) => Ok(NextHopValue::V6(first, None)),
        (Family::Ipv6Unicast, second) => {
            let second = <[u8; 16]>::try_from(second).map_err(|_| UpdateError::OptionalAttribute)?;
            Ok(NextHopValue::V6(
                first,
                Some(second.into()).filter(|a: &Ipv6Addr| !a.is_unspecified()),
            ))
        }
        // RFC 8950 was not offered.
        (Family::Ipv4Unicast, _) => Err(UpdateError::OptionalAttribute),
    }
}

#[cfg(test)]
mod tests;
