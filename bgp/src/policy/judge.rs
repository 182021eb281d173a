//! Judging one route by a policy, and what the matching terms change in its attributes.

use super::{Changes, LearnedFrom, Policy, SessionType, Verdict};
use crate::wire::AttrSet;
use ipnet::IpNet;

/// A route before the policy.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its prefix.
    pub prefix: IpNet,
    /// Its attributes.
    pub attrs: &'a AttrSet,
    /// Where it comes from.
    pub from: LearnedFrom,
    /// The session that the policy belongs to.
    pub session: SessionType,
}

/// What a policy said: whether the route passes, and the places of the terms whose actions apply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Judgement {
    /// Whether it passes.
    pub verdict: Verdict,
    /// Terms that matched and have actions.
    pub terms: Vec<u16>,
}

impl Policy {
    /// Judges one route.
    #[must_use]
    pub fn judge(&self, route: &Candidate<'_>) -> Judgement {
        let mut terms = Vec::new();
        for (place, term) in self.terms.iter().enumerate() {
            if !term.when.iter().all(|c| c.holds(route)) {
                continue;
            }
            if !term.then.is_empty() {
                terms.push(u16::try_from(place).unwrap_or(u16::MAX));
            }
            if let Some(verdict) = term.verdict {
                return Judgement { verdict, terms };
            }
        }
        Judgement {
            verdict: self.default,
            terms,
        }
    }

    /// What the terms of a judgement change in a set of attributes.
    #[must_use]
    pub fn changes(&self, judgement: &Judgement, attrs: &AttrSet) -> Changes {
        let mut changes = Changes::default();
        let terms = judgement
            .terms
            .iter()
            .filter_map(|t| self.terms.get(usize::from(*t)));
        for action in terms.flat_map(|t| &t.then) {
            changes.add(action, attrs);
        }
        changes
    }
}
