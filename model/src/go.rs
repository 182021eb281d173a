//! Structs that read and write JSON as Go structs do, without losing what they do not know.
//!
//! Go writes the fields of a struct in the order of their declaration, leaves out the empty ones that say so, reads
//! `null` as "no value" and drops what it does not know. [`go_struct!`] makes types that do the same, but keep unknown
//! fields *and their place* in an [`Extra`], so that reading and writing an object changes no byte of what a newer
//! Calico component put there.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::de::{DeserializeSeed, Deserializer, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Fields of an object that this version does not know, in stored order, each with its place among the known ones.
/// Equal if names and values are, wherever they stand.
#[derive(Clone, Default)]
#[expect(
    clippy::box_collection,
    reason = "one word in the normal case, which is that there are none"
)]
pub struct Extra(Option<Box<Vec<ExtraField>>>);

#[derive(Clone)]
struct ExtraField {
    /// How many of the struct's fields, in order of declaration, stand before this one.
    place: u16,
    name: String,
    value: Value,
}

impl Extra {
    /// True if there is no unknown field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|fields| fields.is_empty())
    }

    /// The unknown fields in stored order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0
            .iter()
            .flat_map(|fields| fields.iter())
            .map(|f| (f.name.as_str(), &f.value))
    }

    /// The value of the unknown field `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// Puts or replaces a field; a new one goes to the end.
    pub fn insert(&mut self, name: &str, value: Value) {
        self.push(u16::MAX, name.to_owned(), value);
    }

    /// Gives the field `name` another value and leaves it in its place; does nothing if there is none.
    pub fn replace(&mut self, name: &str, value: Value) {
        if let Some(field) = self
            .0
            .iter_mut()
            .flat_map(|fields| fields.iter_mut())
            .find(|f| f.name == name)
        {
            field.value = value;
        }
    }

    /// Takes the field `name` out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let fields = self.0.as_mut()?;
        let at = fields.iter().position(|f| f.name == name)?;
        Some(fields.remove(at).value)
    }

    /// Keeps a field that was read after `place` known ones. As in Go, a repeated name overwrites.
    pub(crate) fn push(&mut self, place: u16, name: String, value: Value) {
        let fields = self.0.get_or_insert_default();
        match fields.iter_mut().find(|f| f.name == name) {
            Some(field) => field.value = value,
            None => fields.push(ExtraField { place, name, value }),
        }
    }

    /// Writes the fields that belong between known field `place - 1` and known field `place`.
    pub(crate) fn write<M: SerializeMap>(&self, map: &mut M, place: u16) -> Result<(), M::Error> {
        self.write_where(map, |p| p == place)
    }

    /// Writes the fields that belong at `place` or behind it.
    pub(crate) fn write_rest<M: SerializeMap>(&self, map: &mut M, place: u16) -> Result<(), M::Error> {
        self.write_where(map, |p| p >= place)
    }

    fn write_where<M: SerializeMap>(&self, map: &mut M, here: impl Fn(u16) -> bool) -> Result<(), M::Error> {
        let Some(fields) = &self.0 else { return Ok(()) };
        fields
            .iter()
            .filter(|f| here(f.place))
            .try_for_each(|f| map.serialize_entry(&f.name, &f.value))
    }
}

impl PartialEq for Extra {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Extra {}

impl Hash for Extra {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.iter().for_each(|field| field.hash(state));
    }
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Where in an object something is, written as Calico's users write it: `spec.ingress[0].source.nets[2]`.
#[derive(Clone, Debug, Default)]
pub struct Path(String);

impl Path {
    /// Calls `f` with the path of the field `name` below this one.
    pub fn field<T>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.0.len();
        if len > 0 {
            self.0.push('.');
        }
        self.0.push_str(name);
        let result = f(self);
        self.0.truncate(len);
        result
    }

    /// Calls `f` with the path of element `index` of this list.
    pub fn index<T>(&mut self, index: usize, f: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.0.len();
        self.0.push_str(&format!("[{index}]"));
        let result = f(self);
        self.0.truncate(len);
        result
    }

    /// Calls `f` with the path of entry `key` of this map.
    pub fn entry<T>(&mut self, key: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.0.len();
        self.0.push_str(&format!("[{key:?}]"));
        let result = f(self);
        self.0.truncate(len);
        result
    }

    /// The path as text; empty for the object itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A value of a field of a Go struct.
pub trait Field {
    /// True for what Go's `omitempty` (for a struct: `omitzero`) leaves out.
    fn is_zero(&self) -> bool;

    /// Adds the path of every field below that this version does not know.
    fn unknown(&self, path: &mut Path, found: &mut Vec<String>) {
        let _ = (path, found);
    }
}

/// Implements [`Field`] for types without fields of their own, whose default is their zero.
macro_rules! scalar_fields {
    ($($ty:ty),* $(,)?) => { $(
        impl $crate::go::Field for $ty {
            fn is_zero(&self) -> bool { *self == <$ty>::default() }
        }
    )* };
}
pub(crate) use scalar_fields;

/// Implements [`Field`] for types without fields of their own that have no zero: they are always written.
macro_rules! whole_fields {
    ($($ty:ty),* $(,)?) => { $(
        impl $crate::go::Field for $ty {
            fn is_zero(&self) -> bool { false }
        }
    )* };
}
pub(crate) use whole_fields;

scalar_fields!(bool, u8, u16, u32, u64, i32, i64, String);
whole_fields!(Value);

impl<T: Field> Field for Option<T> {
    fn is_zero(&self) -> bool {
        self.is_none()
    }

    fn unknown(&self, path: &mut Path, found: &mut Vec<String>) {
        if let Some(value) = self {
            value.unknown(path, found);
        }
    }
}

impl<T: Field> Field for Vec<T> {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn unknown(&self, path: &mut Path, found: &mut Vec<String>) {
        for (i, value) in self.iter().enumerate() {
            path.index(i, |path| value.unknown(path, found));
        }
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn unknown(&self, path: &mut Path, found: &mut Vec<String>) {
        for (key, value) in self {
            path.entry(key, |path| value.unknown(path, found));
        }
    }
}

/// A value where `null` stands for the default, as in Go.
pub(crate) struct Nullable<T>(pub(crate) T);

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Nullable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<T>::deserialize(deserializer).map(|value| Nullable(value.unwrap_or_default()))
    }
}

/// The name of a field: one of those known, by its place, or another.
pub(crate) enum Name {
    Known(u16),
    Unknown(String),
}

/// Reads the name of a field without copying it when it is known.
pub(crate) struct NameSeed(pub(crate) &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for NameSeed {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        let known = self
            .0
            .iter()
            .position(|n| *n == name)
            .and_then(|at| u16::try_from(at).ok());
        Ok(known.map_or_else(|| Name::Unknown(name.to_owned()), Name::Known))
    }
}

/// Writes one object the way Go does.
pub(crate) fn serialize_entry<M: SerializeMap, T: Serialize + ?Sized>(
    map: &mut M,
    name: &'static str,
    value: &T,
) -> Result<(), M::Error> {
    map.serialize_entry(name, value)
}

/// Declares a struct that reads and writes JSON as a Go struct of the same declaration would, and keeps unknown
/// fields. Each field ends in its JSON name and what Go's tag says: `omitempty` (left out when zero), `always`
/// (written even when zero), `required` (as `always`, and an error when absent).
macro_rules! go_struct {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[$fmeta:meta])* $fvis:vis $field:ident : $ty:ty = $key:literal $flag:ident ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        $vis struct $name {
            $( $(#[$fmeta])* $fvis $field: $ty, )*
            /// Fields that this version does not know; kept when the object is written again.
            pub extra: $crate::go::Extra,
        }

        impl $name {
            /// The JSON names of the fields, in stored order.
            pub(crate) const FIELDS: &'static [&'static str] = &[$($key),*];
        }

        impl $crate::go::Field for $name {
            fn is_zero(&self) -> bool {
                $( $crate::go::Field::is_zero(&self.$field) && )* self.extra.is_empty()
            }

            fn unknown(&self, path: &mut $crate::go::Path, found: &mut Vec<String>) {
                $( path.field($key, |path| $crate::go::Field::unknown(&self.$field, path, found)); )*
                for (name, _) in self.extra.iter() {
                    path.field(name, |path| found.push(path.as_str().to_owned()));
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let mut map = serializer.serialize_map(None)?;
                let mut place: u16 = 0;
                $(
                    self.extra.write(&mut map, place)?;
                    if $crate::go::go_struct!(@writes $flag self.$field) {
                        $crate::go::serialize_entry(&mut map, $key, &self.$field)?;
                    }
                    place += 1;
                )*
                self.extra.write_rest(&mut map, place)?;
                map.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[allow(non_camel_case_types, reason = "the names of the fields themselves")]
                enum Place { $( $field ),* }
                struct Fields;
                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        $( let mut $field: Option<$ty> = None; )*
                        let mut extra = $crate::go::Extra::default();
                        let mut place: u16 = 0;
                        while let Some(name) = map.next_key_seed($crate::go::NameSeed($name::FIELDS))? {
                            match name {
                                $( $crate::go::Name::Known(at) if at == Place::$field as u16 => {
                                    $field = Some($crate::go::go_struct!(@read $flag map $ty));
                                    place = at + 1;
                                } )*
                                $crate::go::Name::Known(_) => { map.next_value::<serde::de::IgnoredAny>()?; }
                                $crate::go::Name::Unknown(name) => extra.push(place, name, map.next_value()?),
                            }
                        }
                        Ok($name {
                            $( $field: $crate::go::go_struct!(@finish $flag $field $key), )*
                            extra,
                        })
                    }
                }
                deserializer.deserialize_map(Fields)
            }
        }
    };
    (@writes omitempty $value:expr) => { !$crate::go::Field::is_zero(&$value) };
    (@writes always $value:expr) => { true };
    (@writes required $value:expr) => { true };
    (@read omitempty $map:ident $ty:ty) => { $map.next_value::<$crate::go::Nullable<$ty>>()?.0 };
    (@read always $map:ident $ty:ty) => { $map.next_value::<$crate::go::Nullable<$ty>>()?.0 };
    (@read required $map:ident $ty:ty) => { $map.next_value::<$ty>()? };
    (@finish omitempty $field:ident $key:literal) => { $field.unwrap_or_default() };
    (@finish always $field:ident $key:literal) => { $field.unwrap_or_default() };
    (@finish required $field:ident $key:literal) => {
        $field.ok_or_else(|| <A::Error as serde::de::Error>::missing_field($key))?
    };
}
pub(crate) use go_struct;

/// Declares an enum of the words that Calico writes for a field.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $word:literal ),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        $vis enum $name { $( $(#[$vmeta])* #[serde(rename = $word)] $variant ),* }

        impl $name {
            /// The word as stored.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word ),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        $crate::go::whole_fields!($name);
    };
}
pub(crate) use words;

#[cfg(test)]
mod tests;
