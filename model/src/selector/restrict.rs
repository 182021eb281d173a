//! What a selector demands of single labels, so that an index need only look at candidates. The demands are
//! necessary, never sufficient: whatever a restriction cannot express is left out.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::{Compare, Membership, Node};

/// Label name to what must hold of it; names without a demand are absent.
pub type Restrictions<'a> = BTreeMap<&'a str, Restriction<'a>>;

/// What must hold of one label for a selector to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restriction<'a> {
    /// The label must be there.
    pub present: bool,
    /// The label must not be there.
    pub absent: bool,
    /// If there is a set, the value must be one of it; the empty set can never be met.
    pub one_of: Option<BTreeSet<&'a str>>,
}

impl Restriction<'_> {
    /// Whether some labels could meet it: not so for a label that must be both present and absent, or one of nothing.
    #[must_use]
    pub fn satisfiable(&self) -> bool {
        !(self.present && self.absent) && self.one_of.as_ref().is_none_or(|values| !values.is_empty())
    }
}

/// The restrictions of an expression.
pub(super) fn restrictions(node: &Node) -> Restrictions<'_> {
    match node {
        Node::Has(label) => one(
            label,
            Restriction {
                present: true,
                ..Restriction::default()
            },
        ),
        Node::Compare { label, op, value } => match op {
            Compare::Equal => one(label, one_of([&**value])),
            Compare::Contains | Compare::StartsWith | Compare::EndsWith => one(
                label,
                Restriction {
                    present: true,
                    ..Restriction::default()
                },
            ),
            Compare::NotEqual => Restrictions::new(),
        },
        Node::Member {
            label,
            op: Membership::In,
            values,
        } => one(label, one_of(values.iter().map(|value| &**value))),
        Node::Not(operand) => match &**operand {
            Node::Has(label) => one(
                label,
                Restriction {
                    absent: true,
                    ..Restriction::default()
                },
            ),
            // The opposite of `a == 'b'` demands nothing of `a`.
            _ => Restrictions::new(),
        },
        Node::And(operands) => operands.iter().map(restrictions).fold(Restrictions::new(), both),
        Node::Or(operands) => operands
            .iter()
            .map(restrictions)
            .reduce(either)
            .unwrap_or_default(),
        Node::All
        | Node::Global
        | Node::Member {
            op: Membership::NotIn,
            ..
        } => Restrictions::new(),
    }
}

fn one<'a>(label: &'a str, restriction: Restriction<'a>) -> Restrictions<'a> {
    Restrictions::from([(label, restriction)])
}

fn one_of<'a>(values: impl IntoIterator<Item = &'a str>) -> Restriction<'a> {
    Restriction {
        present: true,
        absent: false,
        one_of: Some(values.into_iter().collect()),
    }
}

/// Both sides must match, so all demands hold.
fn both<'a>(mut left: Restrictions<'a>, right: Restrictions<'a>) -> Restrictions<'a> {
    for (label, demand) in right {
        let merged = left.entry(label).or_default();
        merged.present |= demand.present;
        merged.absent |= demand.absent;
        merged.one_of = match (merged.one_of.take(), demand.one_of) {
            (Some(a), Some(b)) => Some(a.intersection(&b).copied().collect()),
            (a, b) => a.or(b),
        };
    }
    left
}

/// Either side may match, so only what both demand holds.
fn either<'a>(left: Restrictions<'a>, mut right: Restrictions<'a>) -> Restrictions<'a> {
    let mut merged = Restrictions::new();
    for (label, a) in left {
        let Some(b) = right.remove(label) else { continue };
        let present = a.present && b.present;
        let absent = a.absent && b.absent;
        let one_of = match (a.one_of, b.one_of) {
            (Some(mut a), Some(b)) if present => {
                a.extend(b);
                Some(a)
            }
            _ => None,
        };
        if present || absent {
            merged.insert(
                label,
                Restriction {
                    present,
                    absent,
                    one_of,
                },
            );
        }
    }
    merged
}
