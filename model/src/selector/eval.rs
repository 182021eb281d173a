//! An expression against labels. What a missing label means is the language's one surprise: `!=` and `not in` hold,
//! all other tests do not.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

use super::{Compare, Membership, Node};

/// Where a selector finds labels. An endpoint that inherits labels answers with its own first, then with its
/// profiles', without copying any.
pub trait Labels {
    /// The value of the label `key`; `None` if there is none.
    fn label(&self, key: &str) -> Option<&str>;
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

impl<K: std::borrow::Borrow<str> + Ord, V: AsRef<str>> Labels for BTreeMap<K, V> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(AsRef::as_ref)
    }
}

impl<K: std::borrow::Borrow<str> + Eq + Hash, V: AsRef<str>, S: BuildHasher> Labels for HashMap<K, V, S> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(AsRef::as_ref)
    }
}

/// Pairs in any order; the first of a name counts.
impl<K: AsRef<str>, V: AsRef<str>> Labels for [(K, V)] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter()
            .find(|(name, _)| name.as_ref() == key)
            .map(|(_, value)| value.as_ref())
    }
}

/// Whether the labels satisfy the expression.
pub(super) fn matches<L: Labels + ?Sized>(node: &Node, labels: &L) -> bool {
    match node {
        Node::All | Node::Global => true,
        Node::Has(label) => labels.label(label).is_some(),
        Node::Compare { label, op, value } => compare(*op, labels.label(label), value),
        Node::Member { label, op, values } => {
            let found = labels
                .label(label)
                .is_some_and(|have| values.binary_search_by(|value| (**value).cmp(have)).is_ok());
            found == (*op == Membership::In)
        }
        Node::Not(operand) => !matches(operand, labels),
        Node::And(operands) => operands.iter().all(|operand| matches(operand, labels)),
        Node::Or(operands) => operands.iter().any(|operand| matches(operand, labels)),
    }
}

fn compare(op: Compare, have: Option<&str>, value: &str) -> bool {
    match op {
        Compare::Equal => have == Some(value),
        Compare::NotEqual => have != Some(value),
        Compare::Contains => have.is_some_and(|have| have.contains(value)),
        Compare::StartsWith => have.is_some_and(|have| have.starts_with(value)),
        Compare::EndsWith => have.is_some_and(|have| have.ends_with(value)),
    }
}
