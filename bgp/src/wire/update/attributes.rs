//! The attribute list of one UPDATE, read once: what is kept, and what RFC 7606 says of the rest.

use super::{Action, UpdateContext, UpdateError, Verdict};
use crate::family::Family;
use crate::wire::as_path;
use crate::wire::attr::{self, Attr, AttrSet, NextHopValue, OPTIONAL, PARTIAL, TRANSITIVE, code};
use crate::wire::check::{self, Fault, Outcome};
use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Attributes in one UPDATE; there are no more type codes.
const ATTRIBUTES_MAX: usize = 255;

/// The parsed attribute list of one UPDATE.
#[derive(Default)]
pub(super) struct Parsed<'a> {
    attrs: Vec<(u8, u8, Cow<'a, [u8]>)>,
    pub(super) next_hop: Option<Ipv4Addr>,
    pub(super) reach: Option<Reach<'a>>,
    pub(super) unreach: Option<(Option<Family>, &'a [u8])>,
    as4_path: Option<&'a [u8]>,
    as4_aggregator: Option<&'a [u8]>,
    unknown_octets: usize,
    pub(super) withdraw: Option<Fault>,
    pub(super) verdicts: Vec<Verdict>,
}

pub(super) struct Reach<'a> {
    pub(super) family: Option<Family>,
    pub(super) next_hop: &'a [u8],
    pub(super) nlri: &'a [u8],
}

impl<'a> Parsed<'a> {
    /// Reads the attribute list. An overrun makes the rest unreadable but leaves the NLRI known (RFC 7606 section 4).
    pub(super) fn read(mut list: &'a [u8], context: &UpdateContext) -> Result<Self, UpdateError> {
        let mut parsed = Self {
            attrs: Vec::with_capacity(8),
            ..Self::default()
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
                code::MP_REACH | code::MP_UNREACH => parsed.multiprotocol(flags, kind, value, context)?,
                _ => match check::check(flags, kind, value, context) {
                    Outcome::Keep if parsed.too_much_unknown(kind, value) => {
                        parsed.say(
                            kind,
                            Action::AttributeDiscard,
                            "unknown attributes are too long together",
                        );
                    }
                    Outcome::Keep => parsed.keep(flags, kind, value, context),
                    Outcome::Drop => {}
                    Outcome::Discard(fault) => parsed.say(kind, Action::AttributeDiscard, fault.reason),
                    Outcome::Withdraw(fault) => parsed.treat_as_withdraw(Some(kind), fault),
                },
            }
        }
        Ok(parsed)
    }

    /// Counts the octets that we do not know: one route carries only so many of them.
    fn too_much_unknown(&mut self, kind: u8, value: &[u8]) -> bool {
        if attr::is_recognised(kind) || matches!(kind, code::AS4_PATH | code::AS4_AGGREGATOR) {
            return false;
        }
        let together = self.unknown_octets + value.len();
        let fits = together <= check::UNKNOWN_OCTETS_MAX;
        if fits {
            self.unknown_octets = together;
        }
        !fits
    }

    fn keep(&mut self, flags: u8, kind: u8, value: &'a [u8], context: &UpdateContext) {
        match kind {
            code::NEXT_HOP => self.next_hop = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from),
            code::AS4_PATH => self.as4_path = Some(value),
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(value),
            code::AS_PATH if !context.four_octet_as => {
                self.attrs.push((kind, TRANSITIVE, as_path::widen(value).into()));
            }
            code::AGGREGATOR if !context.four_octet_as => {
                self.attrs
                    .push((kind, OPTIONAL | TRANSITIVE, [&[0, 0], value].concat().into()));
            }
            _ => {
                let known = attr::is_recognised(kind);
                let partial = if known { flags & PARTIAL } else { PARTIAL };
                let flags = (flags & (OPTIONAL | TRANSITIVE))
                    | if flags & OPTIONAL != 0 && flags & TRANSITIVE != 0 {
                        partial
                    } else {
                        0
                    };
                self.attrs.push((kind, flags, value.into()));
            }
        }
    }

    /// MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760): what cannot be read resets (RFC 7606 section 5.3).
    fn multiprotocol(
        &mut self,
        flags: u8,
        kind: u8,
        value: &'a [u8],
        context: &UpdateContext,
    ) -> Result<(), UpdateError> {
        let &[a, b, safi, ref rest @ ..] = value else {
            return Err(UpdateError::OptionalAttribute);
        };
        let family = Family::of(u16::from_be_bytes([a, b]), safi).filter(|f| context.families.has(*f));
        if flags & (OPTIONAL | TRANSITIVE) != OPTIONAL {
            self.treat_as_withdraw(
                Some(kind),
                Fault {
                    subcode: 4,
                    reason: "attribute flags contradict its type",
                },
            );
        }
        if family.is_none() {
            self.say(kind, Action::Ignore, "address family is not agreed on");
        }
        if kind == code::MP_UNREACH {
            self.unreach = Some((family, rest));
            return Ok(());
        }
        let (&len, rest) = rest.split_first().ok_or(UpdateError::OptionalAttribute)?;
        // The next hop is followed by one reserved octet.
        let (next_hop, rest) = rest
            .split_at_checked(len.into())
            .ok_or(UpdateError::OptionalAttribute)?;
        let (_, nlri) = rest.split_first().ok_or(UpdateError::OptionalAttribute)?;
        if family.is_some() {
            self.reach = Some(Reach {
                family,
                next_hop,
                nlri,
            });
        }
        Ok(())
    }

    pub(super) fn check_mandatory(&mut self, nlri: &[u8]) {
        let reachable = !nlri.is_empty() || self.reach.as_ref().is_some_and(|r| !r.nlri.is_empty());
        if !reachable || self.withdraw.is_some() {
            return;
        }
        let has = |code: u8| self.attrs.iter().any(|(c, ..)| *c == code);
        let missing = |reason| Fault { subcode: 3, reason };
        if !has(code::ORIGIN) {
            self.treat_as_withdraw(Some(code::ORIGIN), missing("ORIGIN is missing"));
        } else if !has(code::AS_PATH) {
            self.treat_as_withdraw(Some(code::AS_PATH), missing("AS_PATH is missing"));
        } else if !nlri.is_empty() && self.next_hop.is_none() {
            self.treat_as_withdraw(Some(code::NEXT_HOP), missing("NEXT_HOP is missing"));
        }
    }

    pub(super) fn set(&mut self, next_hop: NextHopValue) -> Arc<AttrSet> {
        self.merge_as4();
        if !self.attrs.is_sorted_by_key(|(code, ..)| *code) {
            self.attrs.sort_by_key(|(code, ..)| *code);
        }
        let attrs: Vec<Attr<'_>> = self
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
        if let Some(as4_path) = as4_path.and_then(as_path::as4)
            && let Some((.., path)) = self.attrs.iter_mut().find(|(c, ..)| *c == code::AS_PATH)
        {
            *path = as_path::merge(path, &as4_path).into();
        }
    }
}
