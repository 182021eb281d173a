//! Calico's selector language: an expression over labels, as it stands in policies, pools and peers.
//!
//! Syntax, meaning, canonical text and unique id are those of Calico v3.32.1; `tests/calico/selector.rs` replays
//! what its parser answers. The text travels through four steps, each in a file of its own:
//!
//! | step | file |
//! |---|---|
//! | text to tokens | `token` |
//! | tokens to an expression ([`Node`]) | `parse`, `ast` |
//! | expression to text and unique id | `canonical` |
//! | expression against [`Labels`] | `eval` |
//! | what must hold of one label, for an index ([`Restriction`]) | `restrict` |
//! | selectors of policies and rules, over the endpoints of all namespaces ([`scope`]) | `scope` |
//!
//! ```
//! use std::collections::BTreeMap;
//! use twill_model::selector::Selector;
//!
//! let selector = Selector::parse("app == 'web' && tier not in {'test'}").unwrap();
//! assert_eq!(selector.canonical(), r#"(app == "web" && tier not in {"test"})"#);
//! assert!(selector.matches(&BTreeMap::from([("app", "web")])));
//! ```

mod ast;
mod canonical;
mod eval;
mod parse;
mod restrict;
pub mod scope;
mod token;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

pub use ast::{Compare, Membership, Node};
pub use eval::Labels;
pub use restrict::{Restriction, Restrictions};

/// The longest selector, in bytes, that is parsed: two thirds of what etcd takes in one request by default
/// (1.5 MiB), so no object in a store holds a longer one that anybody wrote on purpose. A parsed selector takes at
/// most about 24 times its text.
pub const TEXT_MAX: usize = 1024 * 1024;

/// How deep parentheses may nest. Evaluation, printing and dropping recurse three levels a parenthesis; people write
/// three or four, and Calico itself sets no bound.
pub const DEPTH_MAX: usize = 128;

/// The longest label name, in bytes, in a selector (Calico's tokenizer).
pub const LABEL_MAX: usize = 512;

/// A parsed selector. Equal, ordered and hashed by its canonical text, as in Calico.
#[derive(Clone)]
pub struct Selector {
    root: Node,
    canonical: Box<str>,
}

impl Selector {
    /// Parses a selector. The empty text, and one of nothing but blanks, is `all()`.
    ///
    /// # Errors
    /// The first thing that Calico's parser would refuse, with its place; also text beyond [`TEXT_MAX`] and nesting
    /// beyond [`DEPTH_MAX`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::selector(text).map(Self::new)
    }

    /// The selector that matches everything.
    #[must_use]
    pub fn all() -> Self {
        Self::new(Node::All)
    }

    fn new(root: Node) -> Self {
        let canonical = canonical::text(&root).into_boxed_str();
        Self { root, canonical }
    }

    /// Whether these labels satisfy the selector.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        eval::matches(&self.root, labels)
    }

    /// The canonical text: single blanks, double quotes unless the value holds one, parentheses around each `&&` and
    /// `||` group, sets sorted without duplicates.
    ///
    /// It parses to an equivalent selector, and to an equal one unless a negation stands directly under another
    /// (`!(!has(a))` prints as `!!has(a)`, which parses as `has(a)`; Calico does the same).
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Calico's unique id of the selector: `s:` and the unpadded URL-safe base64 of SHA-224 over `s:` and the
    /// canonical text.
    #[must_use]
    pub fn unique_id(&self) -> String {
        canonical::unique_id(&self.canonical)
    }

    /// The expression.
    #[must_use]
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// What must hold of single labels for the selector to match: necessary, not sufficient.
    #[must_use]
    pub fn restrictions(&self) -> Restrictions<'_> {
        restrict::restrictions(&self.root)
    }

    /// The same selector with `prefix` before each label name (`pcns.`, `pcsa.`), negations of negations resolved.
    #[must_use]
    pub fn prefixed(&self, prefix: &str) -> Self {
        let mut root = self.root.clone();
        root.prefix_labels(prefix);
        root.collapse_negations();
        Self::new(root)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({})", self.canonical)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for Selector {}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> Ordering {
        self.canonical.cmp(&other.canonical)
    }
}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

/// Why a text is no selector. `at` counts characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Something else stands where the grammar wants `expected`.
    #[error("selector, character {at}: expected {expected}, found {found}")]
    Unexpected {
        /// Where.
        at: usize,
        /// What the grammar wants here.
        expected: &'static str,
        /// What stands there, shortened.
        found: String,
    },
    /// A string without its closing quote. There are no escapes.
    #[error("selector, character {at}: this string lacks its closing {quote}")]
    UnterminatedString {
        /// Where the string opens.
        at: usize,
        /// The quote that opened it.
        quote: char,
    },
    /// A label name beyond [`LABEL_MAX`].
    #[error("selector, character {at}: label name of {length} characters, at most {LABEL_MAX} are allowed")]
    LabelTooLong {
        /// Where the name begins.
        at: usize,
        /// Its length.
        length: usize,
    },
    /// Parentheses nest deeper than [`DEPTH_MAX`].
    #[error("selector, character {at}: parentheses nest deeper than {DEPTH_MAX} levels")]
    TooDeep {
        /// Where the parenthesis opens that is one too many.
        at: usize,
    },
    /// The text is longer than [`TEXT_MAX`].
    #[error("selector of {length} bytes, at most {TEXT_MAX} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A name that a selector would have to hold has both kinds of quotes, so no text can express it.
    #[error("{name:?} holds both kinds of quotes, which no selector can express")]
    Unquotable {
        /// The name.
        name: String,
    },
}

#[cfg(test)]
mod tests;
