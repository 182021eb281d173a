//! The expression that a selector is.

/// One node of an expression. Sizes are bounded by the text it came from, depth by
/// [`DEPTH_MAX`](super::DEPTH_MAX).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// `all()`: always true.
    All,
    /// `global()`: always true here; as a namespace selector it means endpoints of no namespace
    /// ([`scope`](super::scope)).
    Global,
    /// `has(label)`.
    Has(Box<str>),
    /// A label against one string.
    Compare {
        /// The label's name.
        label: Box<str>,
        /// How.
        op: Compare,
        /// The string; never holds both kinds of quotes.
        value: Box<str>,
    },
    /// A label against a set of strings.
    Member {
        /// The label's name.
        label: Box<str>,
        /// In or not in.
        op: Membership,
        /// The set, sorted by bytes, without duplicates; may be empty.
        values: Box<[Box<str>]>,
    },
    /// `!operand`.
    Not(Box<Node>),
    /// All operands hold; two or more.
    And(Box<[Node]>),
    /// One operand holds at least; two or more.
    Or(Box<[Node]>),
}

/// How [`Node::Compare`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `==`: present and equal.
    Equal,
    /// `!=`: absent or different.
    NotEqual,
    /// `contains`: present and has the string as a part.
    Contains,
    /// `starts with`: present and begins so.
    StartsWith,
    /// `ends with`: present and ends so.
    EndsWith,
}

/// How [`Node::Member`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// `in`: present and one of the set.
    In,
    /// `not in`: absent or none of the set.
    NotIn,
}

impl Node {
    /// `label == "value"`.
    pub(super) fn equal(label: &str, value: &str) -> Self {
        Self::Compare {
            label: label.into(),
            op: Compare::Equal,
            value: value.into(),
        }
    }

    /// A membership test; sorts the values and drops duplicates.
    pub(super) fn member(label: &str, op: Membership, mut values: Vec<Box<str>>) -> Self {
        values.sort_unstable();
        values.dedup();
        Self::Member {
            label: label.into(),
            op,
            values: values.into_boxed_slice(),
        }
    }

    /// `left && right` as one group of two.
    pub(super) fn and(left: Self, right: Self) -> Self {
        Self::And(Box::new([left, right]))
    }

    /// Puts `prefix` before each label name.
    pub(super) fn prefix_labels(&mut self, prefix: &str) {
        self.visit(&mut |node| match node {
            Self::Has(label) | Self::Compare { label, .. } | Self::Member { label, .. } => {
                *label = format!("{prefix}{label}").into_boxed_str();
            }
            Self::All | Self::Global | Self::Not(_) | Self::And(_) | Self::Or(_) => {}
        });
    }

    /// Resolves negations that stand directly under a negation, as parsing the canonical text would.
    pub(super) fn collapse_negations(&mut self) {
        self.visit(&mut |node| {
            while let Self::Not(outer) = node
                && let Self::Not(inner) = outer.as_mut()
            {
                *node = std::mem::replace(inner, Self::All);
            }
        });
    }

    /// Calls `change` on each node, parents first.
    pub(super) fn visit(&mut self, change: &mut impl FnMut(&mut Self)) {
        change(self);
        match self {
            Self::Not(operand) => operand.visit(change),
            Self::And(operands) | Self::Or(operands) => operands.iter_mut().for_each(|o| o.visit(change)),
            Self::All | Self::Global | Self::Has(_) | Self::Compare { .. } | Self::Member { .. } => {}
        }
    }
}
