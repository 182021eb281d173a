//! An nf_tables ruleset as typed data: tables, base chains, chains, rules, sets, maps and verdict maps.
//!
//! Only named sets exist here (an anonymous one cannot be changed by elements alone), and everything is ordered,
//! so that rendering and encoding are deterministic. Element keys are kept as the bytes that an nf_tables register
//! holds: what the kernel dumps compares with them directly. [`render`] gives the text that `nft list` would.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub mod expr;
mod key;
mod render;

pub use expr::{CtState, Field, Kind, LogLevel, Op, Per, Rate, Reject, Stmt, Value, Verdict};
pub use key::{Atom, Key, merge_intervals};

/// Longest name of a chain or set. The kernel takes 255 (NFT_NAME_MAXLEN less NUL); shorter keeps listings readable.
pub const NAME_MAX: usize = 63;
/// Longest comment of a rule (the `nft` tool refuses longer ones).
pub const COMMENT_MAX: usize = 127;

/// Name of a chain, set or map: 1 to 63 bytes, a letter or `_` first, then letters, digits, `_`, `-`, `.` or `/`
/// (what the `nft` tool parses without quotes).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// A text that is no name of an nf_tables object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name of a chain or set: a letter first, then up to 62 of a-z A-Z 0-9 _ - . /")]
pub struct BadName(String);

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// [`BadName`] when the text is empty, too long or holds other characters.
    pub fn new(name: &str) -> Result<Self, BadName> {
        let tail = |b: u8| b.is_ascii_alphanumeric() || b"_-./".contains(&b);
        let mut bytes = name.bytes();
        let head = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !head || name.len() > NAME_MAX || !bytes.all(tail) {
            return Err(BadName(name.escape_debug().to_string()));
        }
        Ok(Self(name.into()))
    }

    /// A name fixed in the source.
    ///
    /// # Panics
    /// When the literal is not a name: a mistake in this program, found by the first test that runs it.
    #[must_use]
    pub fn fixed(name: &'static str) -> Self {
        Self::new(name).expect("a literal name is well formed")
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6 together. A rule that reads an address must test [`Field::NfProto`] first.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

/// A table with all its chains and sets. Whatever is found in the kernel's table and not here is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: Name,
    /// Chains by name.
    pub chains: BTreeMap<Name, Arc<Chain>>,
    /// Sets, maps and verdict maps by name: they share one space of names.
    pub sets: BTreeMap<Name, Arc<Set>>,
}

impl Default for Table {
    /// An empty `table inet twill`.
    fn default() -> Self {
        Self {
            family: Family::Inet,
            name: Name::fixed("twill"),
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
        }
    }
}

impl Table {
    /// Chains and sets that something here refers to and that are not here: always none in a table that may go
    /// to the kernel. Sorted, without duplicates.
    #[must_use]
    pub fn dangling(&self) -> Vec<Name> {
        let mut missing = std::collections::BTreeSet::new();
        let mut chain = |v: &Verdict| match v {
            Verdict::Jump(c) | Verdict::Goto(c) if !self.chains.contains_key(c) => {
                missing.insert(c.clone());
            }
            _ => {}
        };
        for datum in self.sets.values().flat_map(|s| s.elements.values()) {
            if let Datum::Verdict(v) = datum {
                chain(v);
            }
        }
        let stmts = || self.chains.values().flat_map(|c| &c.rules).flat_map(|r| &r.stmts);
        for stmt in stmts() {
            if let Stmt::Verdict(v) = stmt {
                chain(v);
            }
        }
        missing.extend(
            stmts()
                .filter_map(Stmt::set)
                .filter(|s| !self.sets.contains_key(s.as_str()))
                .cloned(),
        );
        missing.into_iter().collect()
    }
}

/// Where a base chain hooks in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// For this host.
    Input,
    /// Routed through.
    Forward,
    /// From this host.
    Output,
    /// After the routing decision.
    Postrouting,
}

/// Type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    /// Filtering.
    Filter,
    /// Sees only the first packet of a flow; may translate addresses.
    Nat,
}

/// What a base chain does with a packet that no rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Lets it pass.
    Accept,
    /// Drops it.
    Drop,
}

/// A chain's anchor in the network stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Type.
    pub kind: ChainType,
    /// Hook.
    pub hook: Hook,
    /// Order among the chains of the hook, lower first.
    pub priority: i32,
    /// Verdict at the end.
    pub policy: Policy,
}

/// A chain: rules in order, hooked into the stack or jumped to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// `None` for a chain that others jump to.
    pub base: Option<Base>,
    /// Rules in order of evaluation.
    pub rules: Vec<Rule>,
}

/// A rule: its statements are evaluated in order until a match fails or a verdict is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Matches, look-ups, actions and verdicts.
    pub stmts: Vec<Stmt>,
    /// For people who read the listing; at most [`COMMENT_MAX`] bytes reach the kernel.
    pub comment: Option<String>,
}

impl Rule {
    /// A rule of these statements.
    #[must_use]
    pub fn new(stmts: impl Into<Vec<Stmt>>) -> Self {
        Self {
            stmts: stmts.into(),
            comment: None,
        }
    }

    /// The same rule with a comment.
    #[must_use]
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.comment = Some(text.into());
        self
    }
}

/// What a set holds for each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing: a plain set.
    Keys,
    /// A verdict: a verdict map.
    Verdicts,
    /// A value of this kind: a map.
    Values(Kind),
}

/// A named set, map or verdict map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Kinds of the key's fields; several make a concatenation.
    pub key: Vec<Kind>,
    /// What each key maps to.
    pub holds: Holds,
    /// Keys may be ranges. Costs: one field 34 us per change at 1k elements, concatenated milliseconds; a plain
    /// hash 7 us whatever its size. Ranges must not overlap ([`merge_intervals`]).
    pub interval: bool,
    /// The elements.
    pub elements: Arc<BTreeMap<Key, Datum>>,
}

/// What an element maps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datum {
    /// Nothing.
    None,
    /// A verdict.
    Verdict(Verdict),
    /// A value, as the bytes of a register.
    Value(Box<[u8]>),
}

impl Set {
    /// An empty set of keys.
    #[must_use]
    pub fn of(key: &[Kind]) -> Self {
        Self {
            key: key.to_vec(),
            holds: Holds::Keys,
            interval: false,
            elements: Arc::default(),
        }
    }

    /// An empty verdict map.
    #[must_use]
    pub fn vmap(key: &[Kind]) -> Self {
        Self {
            holds: Holds::Verdicts,
            ..Self::of(key)
        }
    }

    /// An empty map to values of a kind.
    #[must_use]
    pub fn map(key: &[Kind], value: Kind) -> Self {
        Self {
            holds: Holds::Values(value),
            ..Self::of(key)
        }
    }

    /// The same set, taking ranges as keys.
    #[must_use]
    pub fn interval(mut self) -> Self {
        self.interval = true;
        self
    }

    /// Adds a key to a plain set. Returns whether it is new.
    pub fn insert(&mut self, atoms: &[Atom]) -> bool {
        self.put(atoms, Datum::None)
    }

    /// Adds a key with its verdict to a verdict map, replacing the key's former verdict. Returns whether the key is new.
    pub fn insert_verdict(&mut self, atoms: &[Atom], verdict: Verdict) -> bool {
        self.put(atoms, Datum::Verdict(verdict))
    }

    /// Adds a key with its value to a map. Returns whether the key is new.
    pub fn insert_value(&mut self, atoms: &[Atom], value: Value) -> bool {
        self.put(atoms, Datum::Value(value.bytes().into()))
    }

    fn put(&mut self, atoms: &[Atom], datum: Datum) -> bool {
        debug_assert!(
            atoms.len() == self.key.len(),
            "{atoms:?} for a key of {:?}",
            self.key
        );
        debug_assert!(
            atoms.iter().zip(&self.key).all(|(a, k)| a.kind() == *k),
            "{atoms:?} for {:?}",
            self.key
        );
        Arc::make_mut(&mut self.elements)
            .insert(Key::new(atoms), datum)
            .is_none()
    }

    /// Bytes of a key: fields of a concatenation are padded to whole 32-bit registers.
    #[must_use]
    pub fn key_len(&self) -> usize {
        match self.key.as_slice() {
            [one] => one.len(),
            several => several.iter().map(|k| k.len().next_multiple_of(4)).sum(),
        }
    }

    /// Whether this and another set differ in more than their elements, so that one cannot be made the other in place.
    #[must_use]
    pub fn same_shape(&self, other: &Self) -> bool {
        self.key == other.key && self.holds == other.holds && self.interval == other.interval
    }
}

#[cfg(test)]
mod tests;
