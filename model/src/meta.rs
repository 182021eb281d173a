//! `metadata` of an object: who it is, when it was made, how it is labelled.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::go::{go_struct, whole_fields};

/// Labels or annotations, sorted as Go sorts the keys of a map.
pub type StringMap = BTreeMap<String, String>;

go_struct! {
    /// Kubernetes' `ObjectMeta`, in its stored order.
    ///
    /// `resource_version` and `self_link` are for people and clients: they are never stored.
    #[derive(Default)]
    pub struct ObjectMeta {
        /// Unique within kind and namespace.
        pub name: String = "name" omitempty,
        /// The prefix from which a name was made.
        pub generate_name: String = "generateName" omitempty,
        /// Empty for the kinds of cluster scope.
        pub namespace: String = "namespace" omitempty,
        /// Not stored.
        pub self_link: String = "selfLink" omitempty,
        /// A random UUID in lower case, set at creation and kept for ever.
        pub uid: String = "uid" omitempty,
        /// Not stored: the key's `mod_revision` in decimal.
        pub resource_version: String = "resourceVersion" omitempty,
        /// A count of changes that Kubernetes keeps.
        pub generation: i64 = "generation" omitempty,
        /// Set at creation and kept for ever.
        pub creation_timestamp: Option<Timestamp> = "creationTimestamp" omitempty,
        /// When deletion was asked for.
        pub deletion_timestamp: Option<Timestamp> = "deletionTimestamp" omitempty,
        /// How long deletion may take.
        pub deletion_grace_period_seconds: Option<i64> = "deletionGracePeriodSeconds" omitempty,
        /// What selectors see.
        pub labels: StringMap = "labels" omitempty,
        /// Notes of tools.
        pub annotations: StringMap = "annotations" omitempty,
        /// Objects whose end is this object's end.
        pub owner_references: Vec<Value> = "ownerReferences" omitempty,
        /// Who must agree before the object goes.
        pub finalizers: Vec<String> = "finalizers" omitempty,
        /// Kubernetes' record of who wrote which field.
        pub managed_fields: Vec<Value> = "managedFields" omitempty,
    }
}

impl ObjectMeta {
    /// Metadata with a name and nothing else.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Metadata with a namespace and a name.
    #[must_use]
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            ..Self::default()
        }
    }
}

/// A point in time in whole seconds, written in UTC: `2026-08-22T13:33:20Z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// From seconds since 1970; `None` outside the years -9999 to 9999.
    #[must_use]
    pub fn from_unix_secs(secs: i64) -> Option<Self> {
        jiff::Timestamp::from_second(secs).ok().map(Self)
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn unix_secs(self) -> i64 {
        self.0.as_second()
    }
}

impl From<jiff::Timestamp> for Timestamp {
    /// Drops the fraction of the second.
    fn from(at: jiff::Timestamp) -> Self {
        // A whole second of a valid timestamp is a valid timestamp.
        Self(jiff::Timestamp::from_second(at.as_second()).unwrap_or(at))
    }
}

impl From<std::time::SystemTime> for Timestamp {
    /// Drops the fraction of the second; what lies outside the years -9999 to 9999 is 1970.
    fn from(at: std::time::SystemTime) -> Self {
        jiff::Timestamp::try_from(at).unwrap_or_default().into()
    }
}

/// Text that is not a time of RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time such as \"2026-08-22T13:33:20Z\"")]
pub struct TimestampError(pub String);

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        text.parse::<jiff::Timestamp>()
            .map(Self::from)
            .map_err(|_| TimestampError(text.to_owned()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

whole_fields!(Timestamp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_and_whole_seconds() {
        for (text, written) in [
            ("2026-08-22T13:33:20Z", "2026-08-22T13:33:20Z"),
            ("2026-08-22T15:33:20.9+02:00", "2026-08-22T13:33:20Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), written);
        }
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn a_null_creation_time_is_none() {
        let meta: ObjectMeta = serde_json::from_str(r#"{"name":"a","creationTimestamp":null}"#).unwrap();
        assert_eq!(meta, ObjectMeta::named("a"));
    }
}
