//! An object as it is stored: kind, version, metadata, spec and, for some kinds, status.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::go::{Extra, Field, Name, NameSeed, Nullable, Path};
use crate::gojson;
use crate::key::ResourceKey;
use crate::kind::Kind;
use crate::meta::ObjectMeta;
use crate::resources::node::NodeStatus;
use crate::resources::tier::TierStatus;
use crate::resources::{
    bgpconfiguration, bgpfilter, bgppeer, bgpsessionpolicy, caliconodestatus, clusterinformation,
    felixconfiguration, hostendpoint, ipamconfiguration, ippool, ipreservation, kubecontrollersconfiguration,
    networkset, node, policy, profile, stagedkubernetespolicy, stagedpolicy, tier, workloadendpoint,
};

/// Most bytes that a stored object may have: etcd's default limit on a request.
pub const OBJECT_BYTES_MAX: usize = 3 << 19;

/// What makes a struct the spec of a kind.
pub trait Spec: Clone + fmt::Debug + Eq + Hash + Field + Serialize + DeserializeOwned + 'static {
    /// The kind.
    const KIND: Kind;
    /// Its status: `Option<Value>` for the kinds without one that concerns us.
    type Status: Clone + fmt::Debug + Eq + Hash + Default + Field + Serialize + DeserializeOwned;
    /// True if Calico stores the status even when it is empty.
    const STATUS_ALWAYS: bool = false;

    /// The object as one of any kind.
    fn wrap(resource: Arc<Resource<Self>>) -> AnyResource;

    /// The object, if `any` is of this kind.
    fn unwrap(any: &AnyResource) -> Option<&Arc<Resource<Self>>>;
}

/// An object of the kind whose spec is `S`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource<S: Spec> {
    /// Who it is.
    pub metadata: ObjectMeta,
    /// What it should be.
    pub spec: S,
    /// What it is.
    pub status: S::Status,
    /// Fields beside these that this version does not know.
    pub extra: Extra,
}

const FIELDS: &[&str] = &["kind", "apiVersion", "metadata", "spec", "status"];

impl<S: Spec> Resource<S> {
    /// An object without status.
    #[must_use]
    pub fn new(metadata: ObjectMeta, spec: S) -> Self {
        Self {
            metadata,
            spec,
            status: S::Status::default(),
            extra: Extra::default(),
        }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        S::KIND
    }

    /// Reads a stored object.
    ///
    /// # Errors
    /// If it is too large, is not JSON, or a field has the wrong type; the error names the field.
    pub fn decode(json: &[u8]) -> Result<Self, DecodeError> {
        decode(json)
    }

    /// The object as Calico would store it. `resourceVersion` and `selfLink` are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if self.metadata.resource_version.is_empty() && self.metadata.self_link.is_empty() {
            return encode(self);
        }
        let mut stored = self.clone();
        stored.metadata.resource_version.clear();
        stored.metadata.self_link.clear();
        encode(&stored)
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    gojson::to_vec(value).expect("all maps here have strings as keys, and orders are finite")
}

fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    if json.len() > OBJECT_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: json.len() });
    }
    serde_json::from_slice(json).map_err(|_| {
        // Only an object that cannot be read pays for the path of the field that is wrong.
        let mut reader = serde_json::Deserializer::from_slice(json);
        match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Err(error) => DecodeError::Json {
                path: error.path().to_string(),
                reason: error.inner().to_string(),
            },
            Ok(_) => DecodeError::Json {
                path: String::new(),
                reason: "something follows the end of the object".to_owned(),
            },
        }
    })
}

fn from_value<T: DeserializeOwned>(json: Value) -> Result<T, DecodeError> {
    serde_path_to_error::deserialize(json).map_err(|error| DecodeError::Json {
        path: error.path().to_string(),
        reason: error.inner().to_string(),
    })
}

/// A stored value that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Larger than etcd takes by default.
    #[error("the value has {bytes} bytes, more than {OBJECT_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON, or a field that is missing or has a wrong type.
    #[error("field {path}: {reason}")]
    Json {
        /// The field: `spec.ingress[0].action`, or `.` for the value as a whole.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The object's name or namespace is not that of its key.
    #[error("field metadata.{field}: {found:?} is not {expected:?}, as the key says")]
    Misplaced {
        /// `name` or `namespace`.
        field: &'static str,
        /// In the object.
        found: String,
        /// In the key.
        expected: String,
    },
    /// An object of the allocator.
    #[error(transparent)]
    Ipam(#[from] crate::ipam::IpamDecodeError),
}

impl<S: Spec> Field for Resource<S> {
    fn is_zero(&self) -> bool {
        false
    }

    fn unknown(&self, path: &mut Path, found: &mut Vec<String>) {
        path.field("metadata", |path| self.metadata.unknown(path, found));
        path.field("spec", |path| self.spec.unknown(path, found));
        path.field("status", |path| self.status.unknown(path, found));
        found.extend(self.extra.iter().map(|(name, _)| name.to_owned()));
    }
}

impl<S: Spec> Serialize for Resource<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.extra.write(&mut map, 0)?;
        map.serialize_entry("kind", &S::KIND)?;
        self.extra.write(&mut map, 1)?;
        map.serialize_entry("apiVersion", S::KIND.api_version())?;
        self.extra.write(&mut map, 2)?;
        map.serialize_entry("metadata", &self.metadata)?;
        self.extra.write(&mut map, 3)?;
        map.serialize_entry("spec", &self.spec)?;
        self.extra.write(&mut map, 4)?;
        if S::STATUS_ALWAYS || !self.status.is_zero() {
            map.serialize_entry("status", &self.status)?;
        }
        self.extra.write_rest(&mut map, 5)?;
        map.end()
    }
}

impl<'de, S: Spec> Deserialize<'de> for Resource<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<S>(PhantomData<S>);

impl<'de, S: Spec> Visitor<'de> for ObjectVisitor<S> {
    type Value = Resource<S>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of kind {}", S::KIND)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Resource<S>, A::Error> {
        let (mut metadata, mut spec, mut status) = (None, None, None);
        let mut extra = Extra::default();
        let mut place = 0;
        while let Some(name) = map.next_key_seed(NameSeed(FIELDS))? {
            match name {
                Name::Known(at) => {
                    match at {
                        0 => map.next_value_seed(Exactly(S::KIND.as_str()))?,
                        1 => map.next_value_seed(Exactly(S::KIND.api_version()))?,
                        2 => metadata = Some(map.next_value::<ObjectMeta>()?),
                        3 => spec = Some(map.next_value::<S>()?),
                        4 => status = Some(map.next_value::<Nullable<S::Status>>()?.0),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                    place = at + 1;
                }
                Name::Unknown(name) => extra.push(place, name, map.next_value()?),
            }
        }
        Ok(Resource {
            metadata: metadata.ok_or_else(|| A::Error::missing_field("metadata"))?,
            spec: spec.ok_or_else(|| A::Error::missing_field("spec"))?,
            status: status.unwrap_or_default(),
            extra,
        })
    }
}

/// Reads a string that has to be the one given.
struct Exactly(&'static str);

impl<'de> DeserializeSeed<'de> for Exactly {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Exactly {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }

    fn visit_str<E: serde::de::Error>(self, found: &str) -> Result<(), E> {
        match found == self.0 {
            true => Ok(()),
            false => Err(E::custom(format_args!("{found:?} is not {:?}", self.0))),
        }
    }
}

/// An object of a kind that Twill only passes through, without loss.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Opaque {
    /// Its kind.
    pub kind: Kind,
    /// Who it is.
    pub metadata: ObjectMeta,
    /// Everything else, such as spec and status.
    pub body: Extra,
}

impl Opaque {
    /// An object with a spec.
    #[must_use]
    pub fn new(kind: Kind, metadata: ObjectMeta, spec: Value) -> Self {
        let mut body = Extra::default();
        body.insert("spec", spec);
        Self { kind, metadata, body }
    }

    fn from_parts(kind: Kind, parts: OpaqueParts) -> Result<Self, DecodeError> {
        let wrong = |path: &str, reason: String| DecodeError::Json {
            path: path.to_owned(),
            reason,
        };
        match parts.kind {
            Some(found) if found != kind.as_str() => {
                Err(wrong("kind", format!("{found:?} is not {:?}", kind.as_str())))
            }
            _ if parts
                .api_version
                .as_deref()
                .is_some_and(|version| version != kind.api_version()) =>
            {
                Err(wrong(
                    "apiVersion",
                    format!("this is not {:?}", kind.api_version()),
                ))
            }
            _ => Ok(Self {
                kind,
                metadata: parts.metadata,
                body: parts.extra,
            }),
        }
    }
}

crate::go::go_struct! {
    /// What an opaque object is read as.
    struct OpaqueParts {
        kind: Option<String> = "kind" omitempty,
        api_version: Option<String> = "apiVersion" omitempty,
        metadata: ObjectMeta = "metadata" required,
    }
}

impl Serialize for Opaque {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.body.write(&mut map, 0)?;
        map.serialize_entry("kind", &self.kind)?;
        self.body.write(&mut map, 1)?;
        map.serialize_entry("apiVersion", self.kind.api_version())?;
        self.body.write(&mut map, 2)?;
        map.serialize_entry("metadata", &self.metadata)?;
        self.body.write_rest(&mut map, 3)?;
        map.end()
    }
}

/// Declares [`AnyResource`] over the kinds that have a type.
macro_rules! any_resource {
    ($( $variant:ident = $spec:ty, status $status:ty, $always:literal; )*) => {
        /// An object of any kind. Cheap to clone; `Arc::make_mut` changes one.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum AnyResource {
            $(
                #[doc = concat!("A ", stringify!($variant), ".")]
                $variant(Arc<Resource<$spec>>),
            )*
            /// An object of another kind.
            Opaque(Arc<Opaque>),
        }

        $(
            impl Spec for $spec {
                const KIND: Kind = Kind::$variant;
                type Status = $status;
                const STATUS_ALWAYS: bool = $always;

                fn wrap(resource: Arc<Resource<Self>>) -> AnyResource {
                    AnyResource::$variant(resource)
                }

                fn unwrap(any: &AnyResource) -> Option<&Arc<Resource<Self>>> {
                    match any {
                        AnyResource::$variant(resource) => Some(resource),
                        _ => None,
                    }
                }
            }
        )*

        impl AnyResource {
            /// Reads a stored object of a kind.
            ///
            /// # Errors
            /// If it is too large, is not JSON, is of another kind, or a field has the wrong type; the error names
            /// the field.
            pub fn decode(kind: Kind, json: &[u8]) -> Result<Self, DecodeError> {
                match kind {
                    $( Kind::$variant => Resource::<$spec>::decode(json).map(Self::from), )*
                    _ => Opaque::from_parts(kind, decode(json)?).map(|o| Self::Opaque(Arc::new(o))),
                }
            }

            /// Reads an object of a kind from a JSON value.
            ///
            /// # Errors
            /// As [`AnyResource::decode`].
            pub fn from_value(kind: Kind, json: Value) -> Result<Self, DecodeError> {
                match kind {
                    $( Kind::$variant => from_value::<Resource<$spec>>(json).map(Self::from), )*
                    _ => Opaque::from_parts(kind, from_value(json)?).map(|o| Self::Opaque(Arc::new(o))),
                }
            }

            /// The object as Calico would store it. `resourceVersion` and `selfLink` are left out.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $( Self::$variant(resource) => resource.encode(), )*
                    Self::Opaque(opaque) => {
                        let mut stored = Opaque::clone(opaque);
                        stored.metadata.resource_version.clear();
                        stored.metadata.self_link.clear();
                        encode(&stored)
                    }
                }
            }

            /// The kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self {
                    $( Self::$variant(_) => Kind::$variant, )*
                    Self::Opaque(opaque) => opaque.kind,
                }
            }

            /// Who it is.
            #[must_use]
            pub fn metadata(&self) -> &ObjectMeta {
                match self {
                    $( Self::$variant(resource) => &resource.metadata, )*
                    Self::Opaque(opaque) => &opaque.metadata,
                }
            }

            /// Who it is, to be changed.
            pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
                match self {
                    $( Self::$variant(resource) => &mut Arc::make_mut(resource).metadata, )*
                    Self::Opaque(opaque) => &mut Arc::make_mut(opaque).metadata,
                }
            }

            /// The paths of the fields that this version does not know, but for those of FelixConfiguration that are
            /// Calico's and that Twill does not read. Of an opaque object only metadata is known so well.
            #[must_use]
            pub fn unknown_fields(&self) -> Vec<String> {
                let mut found = Vec::new();
                match self {
                    $( Self::$variant(resource) => resource.unknown(&mut Path::default(), &mut found), )*
                    Self::Opaque(opaque) => Path::default()
                        .field("metadata", |path| opaque.metadata.unknown(path, &mut found)),
                }
                if matches!(self, Self::FelixConfiguration(_)) {
                    let passed = felixconfiguration::FelixConfigurationSpec::PASSED_THROUGH;
                    found.retain(|path| path.strip_prefix("spec.").is_none_or(|name| !passed.contains(&name)));
                }
                found
            }
        }

        impl Serialize for AnyResource {
            fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
                match self {
                    $( Self::$variant(resource) => resource.serialize(serializer), )*
                    Self::Opaque(opaque) => opaque.serialize(serializer),
                }
            }
        }
    };
}

any_resource! {
    BgpConfiguration = bgpconfiguration::BgpConfigurationSpec, status Option<Value>, false;
    BgpFilter = bgpfilter::BgpFilterSpec, status Option<Value>, false;
    BgpPeer = bgppeer::BgpPeerSpec, status Option<Value>, false;
    BgpSessionPolicy = bgpsessionpolicy::BgpSessionPolicySpec, status Option<Value>, false;
    CalicoNodeStatus = caliconodestatus::CalicoNodeStatusSpec, status caliconodestatus::CalicoNodeStatusStatus, true;
    ClusterInformation = clusterinformation::ClusterInformationSpec, status Option<Value>, false;
    FelixConfiguration = felixconfiguration::FelixConfigurationSpec, status Option<Value>, false;
    GlobalNetworkPolicy = policy::GlobalNetworkPolicySpec, status Option<Value>, false;
    GlobalNetworkSet = networkset::GlobalNetworkSetSpec, status Option<Value>, false;
    HostEndpoint = hostendpoint::HostEndpointSpec, status Option<Value>, false;
    IpamConfiguration = ipamconfiguration::IpamConfigurationSpec, status Option<Value>, false;
    IpPool = ippool::IpPoolSpec, status Option<ippool::IpPoolStatus>, false;
    IpReservation = ipreservation::IpReservationSpec, status Option<Value>, false;
    KubeControllersConfiguration = kubecontrollersconfiguration::KubeControllersConfigurationSpec, status kubecontrollersconfiguration::KubeControllersConfigurationStatus, true;
    NetworkPolicy = policy::NetworkPolicySpec, status Option<Value>, false;
    NetworkSet = networkset::NetworkSetSpec, status Option<Value>, false;
    Node = node::NodeSpec, status NodeStatus, true;
    Profile = profile::ProfileSpec, status Option<Value>, false;
    StagedGlobalNetworkPolicy = stagedpolicy::StagedGlobalNetworkPolicySpec, status Option<Value>, false;
    StagedKubernetesNetworkPolicy = stagedkubernetespolicy::StagedKubernetesNetworkPolicySpec, status Option<Value>, false;
    StagedNetworkPolicy = stagedpolicy::StagedNetworkPolicySpec, status Option<Value>, false;
    Tier = tier::TierSpec, status TierStatus, true;
    WorkloadEndpoint = workloadendpoint::WorkloadEndpointSpec, status Option<Value>, false;
}

impl<S: Spec> From<Resource<S>> for AnyResource {
    fn from(resource: Resource<S>) -> Self {
        S::wrap(Arc::new(resource))
    }
}

impl AnyResource {
    /// The object as one of kind `S`, if it is.
    #[must_use]
    pub fn downcast<S: Spec>(&self) -> Option<&Arc<Resource<S>>> {
        S::unwrap(self)
    }
}

impl AnyResource {
    /// The key that the object belongs under.
    #[must_use]
    pub fn key(&self) -> ResourceKey {
        let (kind, meta) = (self.kind(), self.metadata());
        let namespace = kind.is_namespaced().then(|| meta.namespace.clone());
        ResourceKey {
            kind,
            namespace,
            name: meta.name.clone(),
        }
    }

    /// Compares name and namespace with those of a key.
    ///
    /// # Errors
    /// [`DecodeError::Misplaced`] if they differ.
    pub fn check_key(&self, key: &ResourceKey) -> Result<(), DecodeError> {
        let found = self.key();
        let misplaced = |field, found: &str, expected: &str| DecodeError::Misplaced {
            field,
            found: found.to_owned(),
            expected: expected.to_owned(),
        };
        // The name of a tiered policy in an old store is that of its key without the tier, or with it.
        let renamed = found.kind.is_tiered()
            && (key
                .name
                .split_once('.')
                .is_some_and(|(_, rest)| rest == found.name)
                || found
                    .name
                    .split_once('.')
                    .is_some_and(|(_, rest)| rest == key.name));
        if found.name != key.name && !renamed {
            return Err(misplaced("name", &found.name, &key.name));
        }
        if found.namespace != key.namespace {
            let text = |namespace: &Option<String>| namespace.clone().unwrap_or_default();
            return Err(misplaced(
                "namespace",
                &text(&found.namespace),
                &text(&key.namespace),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
