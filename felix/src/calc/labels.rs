//! Which items do which selectors match, kept up to date as either side changes.
//!
//! An item (an endpoint, a network set) has labels of its own and inherits those of its parents (its
//! profiles, in order); its own label wins over a parent's, an earlier parent's over a later one's, as
//! in Calico. A parent that is not known yet contributes nothing until it is: dangling references are
//! ordinary here, and what comes out depends on the present state alone, never on the order of arrival.
//!
//! Cost: a change of an item evaluates every active selector on it, a change of a parent does so for its
//! children, a new selector visits every item. Active are only the selectors of policies that govern an
//! endpoint of this node, so the product stays small where the cluster is large.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twill_model::selector::{Labels, Selector};

/// Labels by key.
pub type LabelMap = BTreeMap<String, String>;

/// One change of the relation between selectors and items.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change<S, I> {
    /// The selector.
    pub selector: S,
    /// The item.
    pub item: I,
    /// Whether the selector matches the item from now on.
    pub matches: Matches,
}

/// Whether a match begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matches {
    /// It ends.
    Stopped,
    /// It begins.
    Started,
}

#[derive(Debug)]
struct Item<S> {
    labels: LabelMap,
    parents: Vec<String>,
    matched: BTreeSet<S>,
}

#[derive(Debug)]
struct Parent<I> {
    labels: LabelMap,
    children: BTreeSet<I>,
}

// By hand: the derive would ask `I: Default` for nothing.
impl<I> Default for Parent<I> {
    fn default() -> Self {
        Self {
            labels: LabelMap::new(),
            children: BTreeSet::new(),
        }
    }
}

#[derive(Debug)]
struct Active<I> {
    selector: Arc<Selector>,
    items: BTreeSet<I>,
}

/// The relation between selectors `S` and items `I`.
#[derive(Debug)]
pub struct LabelIndex<S, I> {
    items: BTreeMap<I, Item<S>>,
    parents: BTreeMap<String, Parent<I>>,
    selectors: BTreeMap<S, Active<I>>,
}

impl<S, I> Default for LabelIndex<S, I> {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            parents: BTreeMap::new(),
            selectors: BTreeMap::new(),
        }
    }
}

/// The labels of an item as selectors see them.
struct Inherited<'a, I> {
    own: &'a LabelMap,
    parents: &'a [String],
    all: &'a BTreeMap<String, Parent<I>>,
}

impl<I> Labels for Inherited<'_, I> {
    fn label(&self, key: &str) -> Option<&str> {
        let inherited = || {
            self.parents
                .iter()
                .filter_map(|p| self.all.get(p))
                .find_map(|p| p.labels.get(key))
        };
        self.own.get(key).or_else(inherited).map(String::as_str)
    }
}

impl<S: Ord + Clone, I: Ord + Clone> LabelIndex<S, I> {
    /// Adds an item or replaces its labels and parents.
    pub fn set_item(&mut self, id: &I, labels: LabelMap, parents: Vec<String>, out: &mut Vec<Change<S, I>>) {
        let matched = match self.items.remove(id) {
            Some(old) => {
                self.unlink(id, &old.parents);
                old.matched
            }
            None => BTreeSet::new(),
        };
        for parent in &parents {
            self.parents
                .entry(parent.clone())
                .or_default()
                .children
                .insert(id.clone());
        }
        self.items.insert(
            id.clone(),
            Item {
                labels,
                parents,
                matched,
            },
        );
        self.rematch(id, out);
    }

    /// Removes an item; removing what is not there is nothing.
    pub fn remove_item(&mut self, id: &I, out: &mut Vec<Change<S, I>>) {
        let Some(old) = self.items.remove(id) else { return };
        self.unlink(id, &old.parents);
        for selector in old.matched {
            if let Some(active) = self.selectors.get_mut(&selector) {
                active.items.remove(id);
            }
            out.push(Change {
                selector,
                item: id.clone(),
                matches: Matches::Stopped,
            });
        }
    }

    /// Sets the labels that the children of a parent inherit; an empty map is as good as none.
    pub fn set_parent(&mut self, name: &str, labels: LabelMap, out: &mut Vec<Change<S, I>>) {
        let parent = self.parents.entry(name.to_owned()).or_default();
        if parent.labels == labels {
            self.forget_unused(name);
            return;
        }
        parent.labels = labels;
        let children: Vec<I> = parent.children.iter().cloned().collect();
        for child in &children {
            self.rematch(child, out);
        }
        self.forget_unused(name);
    }

    /// Begins to track a selector under a name; a name that is tracked already is left as it is, so
    /// the name must determine the selector.
    pub fn add_selector(&mut self, id: &S, selector: Arc<Selector>, out: &mut Vec<Change<S, I>>) {
        if self.selectors.contains_key(id) {
            return;
        }
        let mut items = BTreeSet::new();
        for (item, state) in &mut self.items {
            let view = Inherited {
                own: &state.labels,
                parents: &state.parents,
                all: &self.parents,
            };
            if selector.matches(&view) {
                state.matched.insert(id.clone());
                items.insert(item.clone());
                out.push(Change {
                    selector: id.clone(),
                    item: item.clone(),
                    matches: Matches::Started,
                });
            }
        }
        self.selectors.insert(id.clone(), Active { selector, items });
    }

    /// Ends the tracking of a selector. Says nothing of the matches that end with it: whoever drops a
    /// selector drops what it kept for it.
    pub fn remove_selector(&mut self, id: &S) {
        let Some(active) = self.selectors.remove(id) else {
            return;
        };
        for item in active.items {
            if let Some(item) = self.items.get_mut(&item) {
                item.matched.remove(id);
            }
        }
    }

    /// The selectors that match an item now.
    pub fn selectors_of(&self, item: &I) -> impl Iterator<Item = &S> {
        self.items.get(item).into_iter().flat_map(|i| &i.matched)
    }

    /// The items that a selector matches now.
    pub fn items_of(&self, selector: &S) -> impl Iterator<Item = &I> {
        self.selectors.get(selector).into_iter().flat_map(|s| &s.items)
    }

    fn rematch(&mut self, id: &I, out: &mut Vec<Change<S, I>>) {
        let Some(item) = self.items.get_mut(id) else {
            return;
        };
        let view = Inherited {
            own: &item.labels,
            parents: &item.parents,
            all: &self.parents,
        };
        for (name, active) in &mut self.selectors {
            let matches = match (active.selector.matches(&view), item.matched.contains(name)) {
                (true, false) => Matches::Started,
                (false, true) => Matches::Stopped,
                _ => continue,
            };
            if matches == Matches::Started {
                item.matched.insert(name.clone());
                active.items.insert(id.clone());
            } else {
                item.matched.remove(name);
                active.items.remove(id);
            }
            out.push(Change {
                selector: name.clone(),
                item: id.clone(),
                matches,
            });
        }
    }

    fn unlink(&mut self, id: &I, parents: &[String]) {
        for name in parents {
            if let Some(parent) = self.parents.get_mut(name) {
                parent.children.remove(id);
            }
            self.forget_unused(name);
        }
    }

    fn forget_unused(&mut self, name: &str) {
        if self
            .parents
            .get(name)
            .is_some_and(|p| p.labels.is_empty() && p.children.is_empty())
        {
            self.parents.remove(name);
        }
    }
}
