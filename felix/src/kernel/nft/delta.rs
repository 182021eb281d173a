//! What must be done to a held table to make it the desired one. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::state::{ChainState, SetState, Shape, State};
use crate::plan::nft::{Chain, Datum, Key, Name, Rule, Set, Stmt, Table};

/// How far a delta may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything: what is held and not desired goes. Only after in-sync.
    Exact,
    /// Only what is missing is added; nothing that is held is changed or goes.
    Additive,
}

/// One step of a batch. The steps of a delta stand in the order in which the kernel must see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Removes the table and all in it.
    DelTable,
    /// Makes the table.
    NewTable,
    /// Empties a chain of rules.
    Flush(String),
    /// Removes elements.
    DelElements(String, Shape, Vec<(Key, Datum)>),
    /// Removes a set.
    DelSet(String),
    /// Removes an empty chain that nobody refers to.
    DelChain(String),
    /// Makes a chain, or changes the policy of a base chain in place.
    NewChain(Name, Arc<Chain>),
    /// Makes a set, without elements.
    NewSet(Name, Arc<Set>),
    /// Adds elements.
    AddElements(Name, Shape, Vec<(Key, Datum)>),
    /// Appends a rule to a chain.
    NewRule(Name, usize, Arc<Chain>),
}

impl Operation {
    /// Whether the operation leaves rules and chains alone: the kernel takes such batches in microseconds.
    #[must_use]
    pub fn elements_only(&self) -> bool {
        matches!(self, Self::AddElements(..) | Self::DelElements(..))
    }

    /// The rule that it appends.
    #[must_use]
    pub fn rule(&self) -> Option<&Rule> {
        match self {
            Self::NewRule(_, index, chain) => chain.rules.get(*index),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DelTable => write!(f, "delete table"),
            Self::NewTable => write!(f, "add table"),
            Self::Flush(chain) => write!(f, "flush chain {chain}"),
            Self::DelElements(set, _, elements) => write!(f, "delete {} elements of {set}", elements.len()),
            Self::DelSet(set) => write!(f, "delete set {set}"),
            Self::DelChain(chain) => write!(f, "delete chain {chain}"),
            Self::NewChain(chain, _) => write!(f, "add chain {chain}"),
            Self::NewSet(set, _) => write!(f, "add set {set}"),
            Self::AddElements(set, _, elements) => write!(f, "add {} elements to {set}", elements.len()),
            Self::NewRule(chain, index, c) => {
                write!(f, "add rule {index} of chain {chain}")?;
                c.rules.get(*index).map_or(Ok(()), |rule| write!(f, ": {rule}"))
            }
        }
    }
}

/// The operations that turn what is held into what is desired; none when it already is.
#[must_use]
pub fn delta(desired: &Table, held: Option<&State>, mode: Mode) -> Vec<Operation> {
    let none = State::default();
    let mut ops = Vec::new();
    if held.is_none() {
        ops.push(Operation::NewTable);
    }
    let held = held.unwrap_or(&none);
    let sets = sets(desired, held, mode);
    let chains = chains(desired, held, mode, &sets.remade);
    ops.extend(chains.flush.into_iter().map(Operation::Flush));
    ops.extend(sets.shrink);
    ops.extend(sets.remove.into_iter().map(Operation::DelSet));
    ops.extend(chains.remove.into_iter().map(Operation::DelChain));
    ops.extend(
        chains
            .make
            .into_iter()
            .map(|(n, c)| Operation::NewChain(n.clone(), Arc::clone(c))),
    );
    ops.extend(
        sets.make
            .into_iter()
            .map(|(n, s)| Operation::NewSet(n.clone(), Arc::clone(s))),
    );
    ops.extend(sets.grow);
    for (name, chain) in chains.fill {
        ops.extend((0..chain.rules.len()).map(|i| Operation::NewRule(name.clone(), i, Arc::clone(chain))));
    }
    ops
}

/// The operations that replace the whole table, in one batch like any other: for a held state that cannot be
/// changed step by step.
#[must_use]
pub fn rebuild(desired: &Table, held: Option<&State>) -> Vec<Operation> {
    let gone = held.map(|_| Operation::DelTable);
    gone.into_iter()
        .chain(delta(desired, None, Mode::Exact))
        .collect()
}

#[derive(Default)]
struct Sets<'a> {
    /// Names of sets that are removed and made anew, because their definition differs.
    remade: BTreeSet<&'a str>,
    shrink: Vec<Operation>,
    remove: Vec<String>,
    make: Vec<(&'a Name, &'a Arc<Set>)>,
    grow: Vec<Operation>,
}

fn sets<'a>(desired: &'a Table, held: &State, mode: Mode) -> Sets<'a> {
    let mut out = Sets::default();
    for (name, set) in &desired.sets {
        let shape = Shape::of(set);
        match held.sets.get(name.as_str()) {
            Some(had) if had.shape == shape => {
                let (gone, new) = elements(&had.elements, &set.elements, mode);
                if !gone.is_empty() {
                    out.shrink
                        .push(Operation::DelElements(name.as_str().to_owned(), shape, gone));
                }
                if !new.is_empty() {
                    out.grow.push(Operation::AddElements(name.clone(), shape, new));
                }
                continue;
            }
            Some(_) if mode == Mode::Additive => continue,
            Some(had) => {
                out.remade.insert(name.as_str());
                release(&mut out, name.as_str(), had);
                out.remove.push(name.as_str().to_owned());
            }
            None => {}
        }
        out.make.push((name, set));
        if !set.elements.is_empty() {
            let all = set.elements.iter().map(|(k, d)| (k.clone(), d.clone())).collect();
            out.grow.push(Operation::AddElements(name.clone(), shape, all));
        }
    }
    if mode == Mode::Exact {
        for (name, had) in held
            .sets
            .iter()
            .filter(|(n, _)| !desired.sets.contains_key(n.as_str()))
        {
            release(&mut out, name, had);
            out.remove.push(name.clone());
        }
    }
    out
}

/// A verdict map that goes must let go of the chains that it names, which may go in the same batch.
fn release(out: &mut Sets<'_>, name: &str, had: &SetState) {
    let jumps = |d: &Datum| matches!(d, Datum::Verdict(_));
    if had.elements.values().any(jumps) {
        let all = had.elements.iter().map(|(k, d)| (k.clone(), d.clone())).collect();
        out.shrink
            .push(Operation::DelElements(name.to_owned(), had.shape, all));
    }
}

type Elements = Vec<(Key, Datum)>;

/// What goes and what comes, for one set.
fn elements(
    held: &Arc<BTreeMap<Key, Datum>>,
    desired: &Arc<BTreeMap<Key, Datum>>,
    mode: Mode,
) -> (Elements, Elements) {
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    if Arc::ptr_eq(held, desired) {
        return (gone, new);
    }
    for (key, datum) in held.iter().filter(|_| mode == Mode::Exact) {
        if desired.get(key) != Some(datum) {
            gone.push((key.clone(), datum.clone()));
        }
    }
    for (key, datum) in desired.iter() {
        match held.get(key) {
            Some(had) if had == datum || mode == Mode::Additive => {}
            _ => new.push((key.clone(), datum.clone())),
        }
    }
    (gone, new)
}

#[derive(Default)]
struct Chains<'a> {
    flush: Vec<String>,
    remove: Vec<String>,
    make: Vec<(&'a Name, &'a Arc<Chain>)>,
    fill: Vec<(&'a Name, &'a Arc<Chain>)>,
}

fn chains<'a>(desired: &'a Table, held: &State, mode: Mode, remade: &BTreeSet<&str>) -> Chains<'a> {
    let mut out = Chains::default();
    for (name, chain) in &desired.chains {
        match held.chains.get(name.as_str()) {
            Some(_) if mode == Mode::Additive => continue,
            Some(had) if had.holds(chain) && !looks_into(chain, remade) => continue,
            Some(had) => {
                out.flush.push(name.as_str().to_owned());
                if had.base != chain.base {
                    if !same_hook(had, chain) {
                        out.remove.push(name.as_str().to_owned());
                    }
                    out.make.push((name, chain));
                }
            }
            None => out.make.push((name, chain)),
        }
        out.fill.push((name, chain));
    }
    if mode == Mode::Exact {
        for name in held
            .chains
            .keys()
            .filter(|n| !desired.chains.contains_key(n.as_str()))
        {
            out.flush.push(name.clone());
            out.remove.push(name.clone());
        }
    }
    out
}

/// Only the policy of a base chain can change in place.
fn same_hook(had: &ChainState, chain: &Chain) -> bool {
    match (had.base, chain.base) {
        (Some(a), Some(b)) => (a.kind, a.hook, a.priority) == (b.kind, b.hook, b.priority),
        _ => false,
    }
}

fn looks_into(chain: &Chain, sets: &BTreeSet<&str>) -> bool {
    let mut named = chain.rules.iter().flat_map(|r| &r.stmts).filter_map(Stmt::set);
    !sets.is_empty() && named.any(|s| sets.contains(s.as_str()))
}
