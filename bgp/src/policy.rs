//! Import and export policy: ordered terms of conditions and actions, plain data, judged without side effects.
//!
//! A policy sees one route at a time. Its terms are tried in order; a term all of whose conditions hold applies its actions
//! and, if it has a verdict, ends the walk. What no term decides falls to the policy's default.

mod judge;

pub use judge::{Candidate, Changes, Judgement};

use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Prefix rules in one set; more is a configuration error (a linear walk must stay cheap).
pub const PREFIX_RULES_MAX: usize = 1024;
/// LOCAL_PREF of a route that carries none.
pub const LOCAL_PREF_DEFAULT: u32 = 100;
/// Terms in one policy.
pub const TERMS_MAX: usize = 1024;

/// An ordered policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The terms, tried in order.
    pub terms: Vec<Term>,
    /// What happens to a route that no term decided.
    pub default: Verdict,
}

/// Whether a route passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The route passes, changed by the actions of the terms that matched.
    Accept,
    /// The route does not pass.
    Reject,
}

/// One term: if all conditions hold, the actions apply, and the verdict, if any, is final.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// Names the term for people (`explain`, logs).
    pub name: String,
    /// All must hold; an empty list always does.
    pub when: Vec<Condition>,
    /// Applied in order when the term matches.
    pub then: Vec<Action>,
    /// `None` goes on with the next term.
    pub verdict: Option<Verdict>,
}

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
    /// The route carries at least one of these large communities (RFC 8092).
    LargeCommunity(Vec<LargeCommunity>),
    /// LOCAL_PREF lies within these bounds; a route without one counts as 100.
    LocalPref {
        /// The least.
        least: u32,
        /// The greatest.
        most: u32,
    },
    /// The AS path begins with these AS numbers.
    AsPathPrefix(Vec<u32>),
}

/// A large community (RFC 8092): a global administrator and two numbers of its own.
pub type LargeCommunity = [u32; 3];

/// The kind of a session (RFC 4271 section 1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SessionType {
    /// The peer is in another AS.
    Ebgp,
    /// The peer is in our AS.
    Ibgp,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LearnedFrom {
    /// Originated here.
    Local,
    /// Learned from an internal peer.
    Ibgp,
    /// Learned from an external peer.
    Ebgp,
}

/// A change to a route that a term makes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sets LOCAL_PREF.
    LocalPref(u32),
    /// Sets MULTI_EXIT_DISC, or removes it.
    Med(Option<u32>),
    /// Adds communities; those present stay.
    AddCommunities(Vec<u32>),
    /// Adds large communities; those present stay.
    AddLargeCommunities(Vec<LargeCommunity>),
    /// Removes communities.
    RemoveCommunities(Vec<u32>),
    /// Puts this AS number in front of the path so many times (at most 32 are applied).
    Prepend {
        /// The AS number; zero is never prepended.
        asn: u32,
        /// How often.
        times: u8,
    },
    /// Decides the next hop.
    NextHop(NextHop),
}

/// What becomes of the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// It stays as received; our own routes get our address.
    Keep,
    /// It becomes our address on the session.
    SelfAddress,
    /// It stays if it lies in the subnet that we share with the peer, else it becomes our address (RFC 4271 section 5.1.3).
    ThirdParty,
    /// It becomes this address; a route of the other family keeps its own.
    Address(IpAddr),
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
}

impl Policy {
    /// Lets everything through unchanged.
    #[must_use]
    pub fn accept_all() -> Arc<Self> {
        Arc::new(Self {
            terms: Vec::new(),
            default: Verdict::Accept,
        })
    }

    /// Lets nothing through.
    #[must_use]
    pub fn reject_all() -> Arc<Self> {
        Arc::new(Self {
            terms: Vec::new(),
            default: Verdict::Reject,
        })
    }

    /// Whether two routes with the same attributes and source may be judged differently.
    #[must_use]
    pub fn looks_at_prefixes(&self) -> bool {
        let by_prefix = |c: &Condition| matches!(c, Condition::Prefix(_) | Condition::NotPrefix(_));
        self.terms.iter().any(|t| t.when.iter().any(by_prefix))
    }
}

impl Term {
    /// A term that rejects what its conditions match.
    pub fn reject(name: impl Into<String>, when: Vec<Condition>) -> Self {
        Self {
            name: name.into(),
            when,
            then: Vec::new(),
            verdict: Some(Verdict::Reject),
        }
    }

    /// A term that accepts what its conditions match and applies the actions.
    pub fn accept(name: impl Into<String>, when: Vec<Condition>, then: Vec<Action>) -> Self {
        Self {
            name: name.into(),
            when,
            then,
            verdict: Some(Verdict::Accept),
        }
    }

    /// A term that changes what its conditions match and goes on.
    pub fn change(name: impl Into<String>, when: Vec<Condition>, then: Vec<Action>) -> Self {
        Self {
            name: name.into(),
            when,
            then,
            verdict: None,
        }
    }
}

impl Policy {
    /// Whether terms and prefix sets keep their bounds.
    #[must_use]
    pub fn within_bounds(&self) -> bool {
        let small = |c: &Condition| match c {
            Condition::Prefix(set) | Condition::NotPrefix(set) => set.rules.len() <= PREFIX_RULES_MAX,
            _ => true,
        };
        self.terms.len() <= TERMS_MAX && self.terms.iter().all(|t| t.when.iter().all(small))
    }
}
