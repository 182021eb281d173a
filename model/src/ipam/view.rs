//! A block as those read it who do not write it: borrowed from the stored value, with what only a writer needs left out.
//!
//! Decoding a full [`Block`] makes some three hundred strings; whoever looks at all blocks of a cluster, to count or to compare,
//! needs none of them. Both accept the same values.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de};

use super::block::{address_at, check, host_of, problems_of};
use super::{IpamDecodeError, decode, null_is_default};

/// What [`Block`] says, but for sequence numbers and fields that nobody knows.
#[derive(Debug, Deserialize)]
pub struct BlockView<'a> {
    /// As [`Block::cidr`].
    pub cidr: IpNet,
    #[serde(borrow, default)]
    affinity: Option<Text<'a>>,
    #[serde(borrow, default)]
    affinity_claim_time: Option<Text<'a>>,
    /// As [`Block::allocations`].
    pub allocations: Vec<Option<u32>>,
    /// As [`Block::unallocated`].
    #[serde(default, deserialize_with = "null_is_default")]
    pub unallocated: Vec<u32>,
    #[serde(borrow, default)]
    attributes: Option<Vec<Object<AttributeView<'a>>>>,
    #[serde(default, rename = "sequenceNumber")]
    _sequence_number: u64,
    #[serde(default, rename = "sequenceNumberForAllocation")]
    _sequence_numbers: Option<Skipped<u64>>,
    #[serde(default, rename = "deleted")]
    _deleted: bool,
    #[serde(borrow, default, rename = "hostAffinity")]
    host_affinity: Option<Text<'a>>,
}

/// What [`Attribute`](super::Attribute) says of who holds an address now.
#[derive(Debug, Default, Deserialize)]
pub struct AttributeView<'a> {
    #[serde(borrow, default)]
    handle_id: Option<Text<'a>>,
    /// The active owner.
    #[serde(borrow, default, deserialize_with = "owner")]
    pub secondary: OwnerView<'a>,
    #[serde(default, rename = "alternateOwnerAttrs")]
    _alternate: Option<Skipped<String>>,
    #[serde(borrow, default, rename = "releasedAt")]
    released_at: Option<Text<'a>>,
}

/// Those of an owner's attributes that say what kind of owner it is.
#[derive(Debug, Default)]
pub struct OwnerView<'a> {
    node: Option<Text<'a>>,
    pod: Option<Text<'a>>,
    namespace: Option<Text<'a>>,
    kind: Option<Text<'a>>,
    service: Option<Text<'a>>,
}

/// A string, borrowed where it holds no escape.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> BlockView<'a> {
    /// As [`Block::decode`].
    ///
    /// # Errors
    /// As [`Block::decode`].
    pub fn decode(key: IpNet, bytes: &'a [u8]) -> Result<Self, IpamDecodeError> {
        let Object(block): Object<Self> = decode(bytes)?;
        if block.cidr != key {
            return Err(IpamDecodeError::CidrMismatch {
                found: block.cidr.to_string(),
                key: key.to_string(),
            });
        }
        check(
            &block.cidr,
            &block.allocations,
            &block.unallocated,
            block.attributes().len(),
        )?;
        Ok(block)
    }

    /// As [`Block::problems`].
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        problems_of(&self.allocations, &self.unallocated, self.attributes().len())
    }

    /// As [`Block::affinity`].
    #[must_use]
    pub fn affinity(&self) -> Option<&str> {
        text(self.affinity.as_ref())
    }

    /// As [`Block::affinity_claim_time`].
    #[must_use]
    pub fn affinity_claim_time(&self) -> Option<&str> {
        text(self.affinity_claim_time.as_ref())
    }

    /// As [`Block::host`].
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        host_of(self.affinity(), text(self.host_affinity.as_ref()))
    }

    /// As [`Block::attributes`].
    #[must_use]
    pub fn attributes(&self) -> impl ExactSizeIterator<Item = &AttributeView<'a>> {
        self.attributes
            .as_deref()
            .unwrap_or_default()
            .iter()
            .map(|Object(a)| a)
    }

    /// As [`Block::attribute`].
    #[must_use]
    pub fn attribute(&self, ordinal: u32) -> Option<&AttributeView<'a>> {
        let index = (*self.allocations.get(usize::try_from(ordinal).ok()?)?)?;
        let attributes = self.attributes.as_deref().unwrap_or_default();
        attributes.get(usize::try_from(index).ok()?).map(|Object(a)| a)
    }

    /// As [`Block::address`].
    #[must_use]
    pub fn address(&self, ordinal: u32) -> Option<IpAddr> {
        (usize::try_from(ordinal).ok()? < self.allocations.len()).then_some(())?;
        address_at(&self.cidr, ordinal)
    }

    /// How many addresses nobody holds and no cool-down keeps.
    #[must_use]
    pub fn free(&self) -> usize {
        self.unallocated.len()
    }
}

impl AttributeView<'_> {
    /// As [`Attribute::handle`](super::Attribute::handle).
    #[must_use]
    pub fn handle(&self) -> Option<&str> {
        text(self.handle_id.as_ref()).map(|h| h.split('\r').next().unwrap_or_default())
    }

    /// As [`Attribute::released_at`](super::Attribute::released_at).
    #[must_use]
    pub fn released_at(&self) -> Option<&str> {
        text(self.released_at.as_ref())
    }
}

impl OwnerView<'_> {
    /// The node.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        text(self.node.as_ref())
    }

    /// The pod, if it is one's.
    #[must_use]
    pub fn pod(&self) -> Option<&str> {
        text(self.pod.as_ref())
    }

    /// The pod's namespace.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        text(self.namespace.as_ref())
    }

    /// The `type`: a tunnel's, a service's.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        text(self.kind.as_ref())
    }

    /// The service, if it is one's.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        text(self.service.as_ref())
    }
}

fn text<'t>(text: Option<&'t Text<'_>>) -> Option<&'t str> {
    text.map(|t| &*t.0)
}

/// A map of strings of which a few are kept; `null` is an empty one, as in Go.
fn owner<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OwnerView<'de>, D::Error> {
    struct Owner;
    impl<'de> Visitor<'de> for Owner {
        type Value = OwnerView<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of strings")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(OwnerView::default())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut owner = OwnerView::default();
            while let Some((key, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
                let slot = match &*key.0 {
                    "node" => &mut owner.node,
                    "pod" => &mut owner.pod,
                    "namespace" => &mut owner.namespace,
                    "type" => &mut owner.kind,
                    "service" => &mut owner.service,
                    _ => continue,
                };
                *slot = Some(value);
            }
            Ok(owner)
        }
    }
    deserializer.deserialize_any(Owner)
}

/// What [`Handle`](super::Handle) says, borrowed from the stored value.
#[derive(Debug, Deserialize)]
pub struct HandleView<'a> {
    #[serde(borrow, default)]
    block: Option<Counts<'a>>,
    #[serde(default, rename = "deleted")]
    _deleted: bool,
}

impl<'a> HandleView<'a> {
    /// As [`Handle::decode`](super::Handle::decode).
    ///
    /// # Errors
    /// As [`Handle::decode`](super::Handle::decode).
    pub fn decode(bytes: &'a [u8]) -> Result<Self, IpamDecodeError> {
        decode(bytes).map(|Object(handle)| handle)
    }

    /// Blocks by CIDR as written, and the addresses held in each.
    pub fn counts(&self) -> impl Iterator<Item = (&str, i64)> + Clone {
        let counts = self.block.iter().flat_map(|counts| &counts.0);
        counts.map(|(cidr, count)| (&*cidr.0, *count))
    }
}

#[derive(Debug)]
struct Counts<'a>(Vec<(Text<'a>, i64)>);

impl<'de: 'a, 'a> Deserialize<'de> for Counts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<'a>(PhantomData<Counts<'a>>);
        impl<'de: 'a, 'a> Visitor<'de> for Entries<'a> {
            type Value = Counts<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // A handle holds addresses in one block, or in two.
                let mut counts = Vec::with_capacity(1);
                while let Some(entry) = map.next_entry()? {
                    counts.push(entry);
                }
                Ok(Counts(counts))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// What stands in JSON as an object: a struct alone would be read from an array of its fields, too.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// A map whose values are checked and forgotten.
#[derive(Debug)]
struct Skipped<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Skipped<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Values<T> {
            type Value = Skipped<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, T>()?.is_some() {}
                Ok(Skipped(PhantomData))
            }
        }
        deserializer.deserialize_map(Values(PhantomData))
    }
}
