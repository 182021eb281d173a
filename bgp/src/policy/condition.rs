//! Conditions of a term: what a policy can ask of a route.

use super::{Candidate, LOCAL_PREF_DEFAULT, LearnedFrom, SessionType};
use crate::wire::as_path;
use crate::wire::community::{Community, ExtendedCommunity, LargeCommunity};
use ipnet::IpNet;
use serde::Deserialize;
use std::net::IpAddr;
use std::sync::Arc;

/// Conditions inside one [`Condition::Not`] chain: judging must not recurse without end.
const DEPTH_MAX: usize = 8;

/// One condition of a term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The prefix is in the set.
    Prefix(Arc<PrefixSet>),
    /// The prefix is not in the set.
    NotPrefix(Arc<PrefixSet>),
    /// The peer that the policy belongs to is internal or external.
    Session(SessionType),
    /// Where the route comes from is one of these.
    LearnedFrom(Vec<LearnedFrom>),
    /// The route carries at least one of these communities (RFC 1997).
    Community(Vec<u32>),
    /// The route carries at least one of these extended communities (RFC 4360).
    ExtendedCommunity(Vec<ExtendedCommunity>),
    /// The route carries at least one of these large communities (RFC 8092).
    LargeCommunity(Vec<LargeCommunity>),
    /// The AS path begins with these AS numbers.
    AsPathPrefix(Vec<u32>),
    /// At least one of these AS numbers stands somewhere in the AS path.
    AsPathContains(Vec<u32>),
    /// The AS path ends with one of these AS numbers: who originated the route.
    AsPathOrigin(Vec<u32>),
    /// The length of the AS path, sets as one.
    AsPathLength {
        /// The least.
        least: u32,
        /// The greatest.
        most: u32,
    },
    /// The next hop lies in the set; our own routes have none.
    NextHop(Arc<PrefixSet>),
    /// MULTI_EXIT_DISC; a route without one does not match.
    Med {
        /// The least.
        least: u32,
        /// The greatest.
        most: u32,
    },
    /// LOCAL_PREF; a route without one counts as 100.
    LocalPref {
        /// The least.
        least: u32,
        /// The greatest.
        most: u32,
    },
    /// ORIGIN is one of these.
    Origin(Vec<Origin>),
    /// The condition inside does not hold.
    Not(Box<Condition>),
}

/// ORIGIN (RFC 4271 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Value 0.
    Igp,
    /// Value 1.
    Egp,
    /// Value 2.
    Incomplete,
}

impl Origin {
    /// As it stands in the attribute.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Igp => 0,
            Self::Egp => 1,
            Self::Incomplete => 2,
        }
    }
}

/// A set of prefixes, each rule with bounds on the length.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PrefixSet {
    /// A prefix that matches one rule is in the set.
    pub rules: Vec<PrefixRule>,
}

/// A prefix and the lengths of those inside it that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixRule {
    /// What the candidate must lie in.
    pub net: IpNet,
    /// The least length that matches.
    pub ge: u8,
    /// The greatest length that matches.
    pub le: u8,
}

impl PrefixRule {
    /// The prefix itself and nothing else.
    #[must_use]
    pub fn exact(net: IpNet) -> Self {
        Self {
            net,
            ge: net.prefix_len(),
            le: net.prefix_len(),
        }
    }

    /// The prefix and everything inside it.
    #[must_use]
    pub fn within(net: IpNet) -> Self {
        Self {
            net,
            ge: net.prefix_len(),
            le: net.max_prefix_len(),
        }
    }

    /// Whether the candidate matches.
    #[must_use]
    pub fn matches(&self, candidate: IpNet) -> bool {
        (self.ge..=self.le).contains(&candidate.prefix_len()) && self.net.contains(&candidate)
    }
}

impl PrefixSet {
    /// A set of everything inside the given prefixes.
    #[must_use]
    pub fn within(nets: impl IntoIterator<Item = IpNet>) -> Arc<Self> {
        Arc::new(Self {
            rules: nets.into_iter().map(PrefixRule::within).collect(),
        })
    }

    /// Whether the candidate is in the set.
    #[must_use]
    pub fn contains(&self, candidate: IpNet) -> bool {
        self.rules.iter().any(|r| r.matches(candidate))
    }

    fn has_address(&self, address: IpAddr) -> bool {
        self.rules.iter().any(|r| r.net.contains(&address))
    }
}

impl Condition {
    pub(super) fn holds(&self, route: &Candidate<'_>) -> bool {
        match self {
            Self::Prefix(set) => set.contains(route.prefix),
            Self::NotPrefix(set) => !set.contains(route.prefix),
            Self::Session(session) => *session == route.session,
            Self::LearnedFrom(from) => from.contains(&route.from),
            Self::Community(any) => carries(any, route),
            Self::ExtendedCommunity(any) => carries(any, route),
            Self::LargeCommunity(any) => carries(any, route),
            Self::AsPathPrefix(asns) => {
                let mut path = asns_of(route);
                asns.iter().all(|asn| path.next() == Some(*asn))
            }
            Self::AsPathContains(asns) => asns_of(route).any(|asn| asns.contains(&asn)),
            Self::AsPathOrigin(asns) => asns_of(route).last().is_some_and(|asn| asns.contains(&asn)),
            Self::AsPathLength { least, most } => (*least..=*most).contains(&route.attrs.rank().path_len),
            Self::NextHop(set) => route
                .attrs
                .next_hop()
                .address()
                .is_some_and(|a| set.has_address(a)),
            Self::Med { least, most } => route
                .attrs
                .rank()
                .med
                .is_some_and(|med| (*least..=*most).contains(&med)),
            Self::LocalPref { least, most } => {
                let value = route.attrs.rank().local_pref.unwrap_or(LOCAL_PREF_DEFAULT);
                (*least..=*most).contains(&value)
            }
            Self::Origin(any) => any.iter().any(|o| o.code() == route.attrs.rank().origin),
            Self::Not(inner) => !inner.holds(route),
        }
    }

    pub(super) fn looks_at_prefix(&self) -> bool {
        match self {
            Self::Prefix(_) | Self::NotPrefix(_) => true,
            Self::Not(inner) => inner.looks_at_prefix(),
            _ => false,
        }
    }

    /// Whether sets and nesting keep their bounds.
    pub(super) fn within_bounds(&self) -> bool {
        let mut inner = self;
        for _ in 0..DEPTH_MAX {
            match inner {
                Self::Not(next) => inner = next,
                Self::Prefix(set) | Self::NotPrefix(set) | Self::NextHop(set) => {
                    return set.rules.len() <= super::PREFIX_RULES_MAX;
                }
                _ => return true,
            }
        }
        false
    }
}

fn asns_of<'a>(route: &Candidate<'a>) -> impl Iterator<Item = u32> + 'a {
    as_path::segments(route.attrs.as_path()).flat_map(as_path::Segment::asns)
}

fn carries<C: Community>(any: &[C], route: &Candidate<'_>) -> bool {
    route.attrs.communities_of::<C>().any(|c| any.contains(&c))
}
