//! What our table holds in the kernel, as far as we compare it: read back by a dump, or remembered after an apply.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::consts;
use super::encode::rule_hash;
use crate::plan::nft::{Base, Chain, Datum, Holds, Key, Kind, Set, Table};

/// The content of our table. `None` in place of a state means that there is no table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Chains by name. Names are texts: a stranger may have put any into our table.
    pub chains: BTreeMap<String, ChainState>,
    /// Sets and maps by name.
    pub sets: BTreeMap<String, SetState>,
}

/// A chain that is held.
#[derive(Clone, Debug)]
pub struct ChainState {
    /// Its hook.
    pub base: Option<Base>,
    /// Hash of each rule in order; `None` for a rule that is not ours.
    pub rules: Vec<Option<u64>>,
    /// The desired chain that was applied, by which the next delta passes over it without a look.
    pub applied: Option<Arc<Chain>>,
}

impl PartialEq for ChainState {
    fn eq(&self, other: &Self) -> bool {
        self.base == other.base && self.rules == other.rules
    }
}

impl Eq for ChainState {}

/// A set or map that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetState {
    /// Its definition.
    pub shape: Shape,
    /// Its elements.
    pub elements: Arc<BTreeMap<Key, Datum>>,
}

/// Definition of a set as the kernel knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// NFT_SET_* flags.
    pub flags: u32,
    /// Data type of the key, as `nft` numbers it.
    pub key_type: u32,
    /// Bytes of the key.
    pub key_len: u32,
    /// Data type of the value, 0 for none.
    pub data_type: u32,
    /// Bytes of the value; 0 for none and for verdicts.
    pub data_len: u32,
}

impl Shape {
    /// The definition of a desired set.
    #[must_use]
    pub fn of(set: &Set) -> Self {
        let mut flags = 0;
        if set.interval {
            flags |= consts::NFT_SET_INTERVAL;
            if set.key.len() > 1 {
                flags |= consts::NFT_SET_CONCAT;
            }
        }
        let (data_type, data_len) = match set.holds {
            Holds::Keys => (0, 0),
            Holds::Verdicts => (consts::NFT_DATA_VERDICT, 0),
            Holds::Values(kind) => (type_id(kind), kind.len()),
        };
        if set.holds != Holds::Keys {
            flags |= consts::NFT_SET_MAP;
        }
        let key_type = set
            .key
            .iter()
            .fold(0, |id, kind| (id << consts::TYPE_BITS) | type_id(*kind));
        let width = |len| u32::try_from(len).unwrap_or(u32::MAX);
        Self {
            flags,
            key_type,
            key_len: width(set.key_len()),
            data_type,
            data_len: width(data_len),
        }
    }

    /// Whether elements are a start and an end of their own (one field, red-black tree) rather than one with both
    /// (concatenation) or none.
    #[must_use]
    pub fn is_tree(&self) -> bool {
        self.flags & consts::NFT_SET_INTERVAL != 0 && self.flags & consts::NFT_SET_CONCAT == 0
    }
}

/// Numbers of data types in the `nft` tool (its `enum datatypes`): the kernel only stores them, listings need them.
fn type_id(kind: Kind) -> u32 {
    match kind {
        Kind::NfProto => 2,
        Kind::Ipv4 => 7,
        Kind::Ipv6 => 8,
        Kind::Proto => 12,
        Kind::Service => 13,
        Kind::IcmpType => 14,
        Kind::Mark => 19,
        Kind::IfIndex => 20,
        Kind::CtState => 26,
        Kind::Icmpv6Type => 29,
        Kind::IcmpCode => 32,
        Kind::Icmpv6Code => 33,
        Kind::IfName => 41,
    }
}

impl State {
    /// The state that a table makes once it is applied.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        let chains = table
            .chains
            .iter()
            .map(|(n, c)| (n.as_str().to_owned(), ChainState::of(c)))
            .collect();
        let sets = table
            .sets
            .iter()
            .map(|(n, s)| (n.as_str().to_owned(), SetState::of(s)))
            .collect();
        Self { chains, sets }
    }
}

impl ChainState {
    /// The state that a chain makes.
    #[must_use]
    pub fn of(chain: &Arc<Chain>) -> Self {
        let rules = chain.rules.iter().map(|r| Some(rule_hash(r))).collect();
        Self {
            base: chain.base,
            rules,
            applied: Some(Arc::clone(chain)),
        }
    }

    /// Whether the chain is held as desired.
    #[must_use]
    pub fn holds(&self, chain: &Arc<Chain>) -> bool {
        if self.applied.as_ref().is_some_and(|a| Arc::ptr_eq(a, chain)) {
            return true;
        }
        self.base == chain.base
            && self.rules.len() == chain.rules.len()
            && self
                .rules
                .iter()
                .zip(&chain.rules)
                .all(|(held, rule)| *held == Some(rule_hash(rule)))
    }
}

impl SetState {
    /// The state that a set makes.
    #[must_use]
    pub fn of(set: &Set) -> Self {
        Self {
            shape: Shape::of(set),
            elements: Arc::clone(&set.elements),
        }
    }
}
