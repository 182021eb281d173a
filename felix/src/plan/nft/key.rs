//! Keys of set elements: one exact value or range per field, kept as register bytes.

use super::expr::{Kind, Value};

/// One field of an element's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atom {
    /// Exactly this.
    Is(Value),
    /// From the first to the second, both included. Only in sets that take intervals.
    Range(Value, Value),
}

impl Atom {
    /// The kind of its value.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Is(v) | Self::Range(v, _) => v.kind(),
        }
    }

    /// All addresses of a network.
    #[must_use]
    pub fn net(net: ipnet::IpNet) -> Self {
        let (from, to) = match net {
            ipnet::IpNet::V4(n) => (Value::Ipv4(n.network()), Value::Ipv4(n.broadcast())),
            ipnet::IpNet::V6(n) => (Value::Ipv6(n.network()), Value::Ipv6(n.broadcast())),
        };
        if from == to {
            Self::Is(from)
        } else {
            Self::Range(from, to)
        }
    }
}

impl<T: Into<Value>> From<T> for Atom {
    fn from(value: T) -> Self {
        Self::Is(value.into())
    }
}

/// An element's key: lowest and highest register content that it covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    from: Box<[u8]>,
    /// Empty when the key is one exact value: most are.
    to: Box<[u8]>,
}

impl Key {
    /// The key made of these fields. One field stands unpadded, several are padded to 32 bits each.
    #[must_use]
    pub fn new(atoms: &[Atom]) -> Self {
        let (mut from, mut to, mut exact) = (Vec::new(), Vec::new(), true);
        for atom in atoms {
            let (a, b) = match atom {
                Atom::Is(v) => (v, v),
                Atom::Range(a, b) => (a, b),
            };
            exact &= a == b;
            from.extend_from_slice(&a.bytes());
            to.extend_from_slice(&b.bytes());
            if atoms.len() > 1 {
                from.resize(from.len().next_multiple_of(4), 0);
                to.resize(to.len().next_multiple_of(4), 0);
            }
        }
        if exact {
            to.clear();
        }
        Self {
            from: from.into(),
            to: to.into(),
        }
    }

    /// A key out of register bytes, as the kernel dumps them. Equal ends make an exact key.
    #[must_use]
    pub fn from_bytes(from: &[u8], to: &[u8]) -> Self {
        let to = if from == to { &[] } else { to };
        Self {
            from: from.into(),
            to: to.into(),
        }
    }

    /// The lowest content covered.
    #[must_use]
    pub fn from(&self) -> &[u8] {
        &self.from
    }

    /// The content right after all that is covered; `None` when it reaches the end of the space.
    #[must_use]
    pub fn after(&self) -> Option<Vec<u8>> {
        successor(self.to())
    }

    /// The highest content covered.
    #[must_use]
    pub fn to(&self) -> &[u8] {
        if self.to.is_empty() { &self.from } else { &self.to }
    }
}

/// Joins overlapping and adjacent ranges of one kind, because the kernel refuses overlapping elements.
/// Returned in ascending order. Values of other kinds than the first's are left out.
#[must_use]
pub fn merge_intervals(atoms: impl IntoIterator<Item = Atom>) -> Vec<Atom> {
    let mut ends: Vec<_> = atoms
        .into_iter()
        .map(|a| match a {
            Atom::Is(v) => (v, v),
            Atom::Range(a, b) => (a, b),
        })
        .collect();
    ends.sort_by_key(|(a, b)| (a.bytes(), b.bytes()));
    let mut merged: Vec<(Value, Value)> = Vec::with_capacity(ends.len());
    for (a, b) in ends {
        match merged.last_mut() {
            Some((_, end)) if end.kind() != a.kind() => {}
            Some((_, end)) if a.bytes() <= end.bytes() || follows(end, &a) => {
                if b.bytes() > end.bytes() {
                    *end = b;
                }
            }
            _ => merged.push((a, b)),
        }
    }
    merged
        .into_iter()
        .map(|(a, b)| if a == b { Atom::Is(a) } else { Atom::Range(a, b) })
        .collect()
}

/// Whether `next` is the value right after `end`, both in network order.
fn follows(end: &Value, next: &Value) -> bool {
    successor(&end.bytes()).is_some_and(|s| s == next.bytes())
}

/// The register content one higher, or `None` after all ones.
fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for b in next.iter_mut().rev() {
        let (sum, carry) = b.overflowing_add(1);
        *b = sum;
        if !carry {
            return Some(next);
        }
    }
    None
}
