//! Import and export policy: ordered terms of conditions and actions, plain data, judged without side effects.
//!
//! A policy sees one route at a time. Its terms are tried in order; a term all of whose conditions hold applies its actions
//! and, if it has a verdict, ends the walk. What no term decides falls to the policy's default.

mod action;
mod condition;
mod judge;

pub use crate::wire::community::LargeCommunity;
pub use action::{Action, Changes, NextHop};
pub use condition::{Condition, Origin, PrefixRule, PrefixSet};
pub use judge::{Candidate, Judgement};

use serde::Deserialize;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

    /// Whether some term changes attributes.
    #[must_use]
    pub fn rewrites(&self) -> bool {
        self.terms.iter().any(|t| !t.then.is_empty())
    }

    /// Whether two routes with the same attributes and source may be judged differently.
    #[must_use]
    pub fn looks_at_prefixes(&self) -> bool {
        self.terms
            .iter()
            .any(|t| t.when.iter().any(Condition::looks_at_prefix))
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
    /// Whether terms, prefix sets and nested conditions keep their bounds.
    #[must_use]
    pub fn within_bounds(&self) -> bool {
        let bounded = |t: &Term| t.when.iter().all(Condition::within_bounds);
        self.terms.len() <= TERMS_MAX && self.terms.iter().all(bounded)
    }
}

#[cfg(test)]
mod tests;
