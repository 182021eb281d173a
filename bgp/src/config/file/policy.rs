//! Policies as they stand in the file: named lists of terms, each with what it matches, what it changes and what it decides.

use crate::policy::{
    Action, Condition, LearnedFrom, NextHop, Origin, Policy, PrefixRule, PrefixSet, Term, Verdict,
};
use crate::wire::community::{self, ExtendedCommunity, InvalidCommunity, LargeCommunity};
use ipnet::IpNet;
use serde::Deserialize;
use std::net::IpAddr;
use std::sync::Arc;

/// One entry of `policies`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyEntry {
    #[serde(default)]
    terms: Vec<TermEntry>,
    default: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TermEntry {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "match")]
    when: Match,
    #[serde(default)]
    set: Set,
    then: Option<Verdict>,
}

/// All that is given must hold; of a list, one.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Match {
    prefixes: Option<Vec<PrefixEntry>>,
    not_prefixes: Option<Vec<PrefixEntry>>,
    from: Option<Vec<FromName>>,
    communities: Option<Vec<String>>,
    extended_communities: Option<Vec<String>>,
    large_communities: Option<Vec<String>>,
    as_path_prefix: Option<Vec<u32>>,
    as_path_contains: Option<Vec<u32>>,
    as_path_origin: Option<Vec<u32>>,
    as_path_length: Option<Bounds>,
    next_hop: Option<Vec<IpNet>>,
    med: Option<Bounds>,
    local_pref: Option<Bounds>,
    origin: Option<Vec<Origin>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrefixEntry {
    prefix: IpNet,
    ge: Option<u8>,
    le: Option<u8>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bounds {
    #[serde(default)]
    ge: u32,
    #[serde(default = "unbounded")]
    le: u32,
}

const fn unbounded() -> u32 {
    u32::MAX
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FromName {
    Local,
    Internal,
    External,
}

/// What changes, in this order.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Set {
    local_pref: Option<u32>,
    med: Option<u32>,
    origin: Option<Origin>,
    communities: Option<Vec<String>>,
    add_communities: Option<Vec<String>>,
    remove_communities: Option<Vec<String>>,
    extended_communities: Option<Vec<String>>,
    add_extended_communities: Option<Vec<String>>,
    remove_extended_communities: Option<Vec<String>>,
    large_communities: Option<Vec<String>>,
    add_large_communities: Option<Vec<String>>,
    remove_large_communities: Option<Vec<String>>,
    prepend: Option<Prepend>,
    next_hop: Option<NextHopEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Prepend {
    as_number: u32,
    #[serde(default = "once")]
    times: u8,
}

const fn once() -> u8 {
    1
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", untagged)]
enum NextHopEntry {
    Address(IpAddr),
    Named(NextHopName),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum NextHopName {
    Keep,
    #[serde(rename = "self")]
    SelfAddress,
}

impl PolicyEntry {
    /// The policy that is meant.
    ///
    /// # Errors
    /// [`InvalidCommunity`].
    pub(super) fn policy(self) -> Result<Arc<Policy>, InvalidCommunity> {
        let terms: Result<Vec<Term>, InvalidCommunity> =
            self.terms.into_iter().map(TermEntry::term).collect();
        Ok(Arc::new(Policy {
            terms: terms?,
            default: self.default,
        }))
    }
}

impl TermEntry {
    fn term(self) -> Result<Term, InvalidCommunity> {
        Ok(Term {
            name: self.name,
            when: self.when.conditions()?,
            then: self.set.actions()?,
            verdict: self.then,
        })
    }
}

impl Match {
    fn conditions(self) -> Result<Vec<Condition>, InvalidCommunity> {
        let mut when = Vec::new();
        when.extend(self.prefixes.map(|p| Condition::Prefix(set(&p))));
        when.extend(self.not_prefixes.map(|p| Condition::NotPrefix(set(&p))));
        when.extend(self.from.map(|from| {
            let from = from.into_iter().map(|f| match f {
                FromName::Local => LearnedFrom::Local,
                FromName::Internal => LearnedFrom::Ibgp,
                FromName::External => LearnedFrom::Ebgp,
            });
            Condition::LearnedFrom(from.collect())
        }));
        when.extend(standard(self.communities)?.map(Condition::Community));
        when.extend(extended(self.extended_communities)?.map(Condition::ExtendedCommunity));
        when.extend(large(self.large_communities)?.map(Condition::LargeCommunity));
        when.extend(self.as_path_prefix.map(Condition::AsPathPrefix));
        when.extend(self.as_path_contains.map(Condition::AsPathContains));
        when.extend(self.as_path_origin.map(Condition::AsPathOrigin));
        let length = |Bounds { ge: least, le: most }| Condition::AsPathLength { least, most };
        when.extend(self.as_path_length.map(length));
        when.extend(
            self.next_hop
                .map(|nets| Condition::NextHop(PrefixSet::within(nets))),
        );
        let med = |Bounds { ge: least, le: most }| Condition::Med { least, most };
        when.extend(self.med.map(med));
        let local_pref = |Bounds { ge: least, le: most }| Condition::LocalPref { least, most };
        when.extend(self.local_pref.map(local_pref));
        when.extend(self.origin.map(Condition::Origin));
        Ok(when)
    }
}

impl Set {
    fn actions(self) -> Result<Vec<Action>, InvalidCommunity> {
        let mut then = Vec::new();
        then.extend(self.local_pref.map(Action::LocalPref));
        then.extend(self.med.map(|med| Action::Med(Some(med))));
        then.extend(self.origin.map(Action::Origin));
        then.extend(standard(self.communities)?.map(Action::SetCommunities));
        then.extend(standard(self.add_communities)?.map(Action::AddCommunities));
        then.extend(standard(self.remove_communities)?.map(Action::RemoveCommunities));
        then.extend(extended(self.extended_communities)?.map(Action::SetExtendedCommunities));
        then.extend(extended(self.add_extended_communities)?.map(Action::AddExtendedCommunities));
        then.extend(extended(self.remove_extended_communities)?.map(Action::RemoveExtendedCommunities));
        then.extend(large(self.large_communities)?.map(Action::SetLargeCommunities));
        then.extend(large(self.add_large_communities)?.map(Action::AddLargeCommunities));
        then.extend(large(self.remove_large_communities)?.map(Action::RemoveLargeCommunities));
        then.extend(self.prepend.map(|p| Action::Prepend {
            asn: p.as_number,
            times: p.times,
        }));
        then.extend(self.next_hop.map(|hop| {
            Action::NextHop(match hop {
                NextHopEntry::Address(address) => NextHop::Address(address),
                NextHopEntry::Named(NextHopName::Keep) => NextHop::Keep,
                NextHopEntry::Named(NextHopName::SelfAddress) => NextHop::SelfAddress,
            })
        }));
        Ok(then)
    }
}

/// Without bounds a prefix matches itself alone; with `ge` alone everything inside it from that length on.
fn set(entries: &[PrefixEntry]) -> Arc<PrefixSet> {
    let rule = |e: &PrefixEntry| {
        let net = e.prefix.trunc();
        let inside = e.ge.map_or(net.prefix_len(), |_| net.max_prefix_len());
        PrefixRule {
            net,
            ge: e.ge.unwrap_or(net.prefix_len()),
            le: e.le.unwrap_or(inside),
        }
    };
    Arc::new(PrefixSet {
        rules: entries.iter().map(rule).collect(),
    })
}

fn each<T>(
    texts: Option<Vec<String>>,
    read: impl Fn(&str) -> Result<T, InvalidCommunity>,
) -> Result<Option<Vec<T>>, InvalidCommunity> {
    let read = |texts: Vec<String>| texts.iter().map(|t| read(t)).collect();
    texts.map(read).transpose()
}

fn standard(texts: Option<Vec<String>>) -> Result<Option<Vec<u32>>, InvalidCommunity> {
    each(texts, community::standard)
}

fn extended(texts: Option<Vec<String>>) -> Result<Option<Vec<ExtendedCommunity>>, InvalidCommunity> {
    each(texts, str::parse)
}

fn large(texts: Option<Vec<String>>) -> Result<Option<Vec<LargeCommunity>>, InvalidCommunity> {
    each(texts, community::large)
}
