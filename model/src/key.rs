//! Keys of the store, as text and as types. Every text is a key: what is nothing we know is [`Key::Other`].
//!
//! Both ways lose nothing: a path is parsed into a typed key only if that key is written exactly so.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use crate::kind::Kind;

/// Everything of Calico's is below this.
pub const CALICO: &str = "/calico/";
/// The resources of all kinds of Calico's.
pub const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
/// The resources of Twill's own kinds.
pub const TWILL_RESOURCES: &str = "/twill/resources/v1/twill.net/";
/// All of the allocator's keys.
pub const IPAM: &str = "/calico/ipam/v2/";
/// Blocks of both IP versions.
pub const BLOCKS: &str = "/calico/ipam/v2/assignment/";
/// Block affinities of hosts.
pub const HOST_AFFINITIES: &str = "/calico/ipam/v2/host/";
/// Block affinities of what is not a host.
pub const VIRTUAL_AFFINITIES: &str = "/calico/ipam/v2/virtual/";
/// Handles.
pub const HANDLES: &str = "/calico/ipam/v2/handle/";
/// The allocator's settings.
pub const IPAM_CONFIG: &str = "/calico/ipam/v2/config";

/// A key of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// An object of `projectcalico.org/v3`.
    Resource(ResourceKey),
    /// An allocation block, by its prefix.
    Block(IpNet),
    /// Whose block it is, from the owner's side.
    BlockAffinity(BlockAffinityKey),
    /// The addresses of a handle, by its id, exactly as written.
    Handle(String),
    /// The allocator's settings.
    IpamConfig,
    /// A key that means nothing to us.
    Other(String),
}

/// The key of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace: present exactly for the namespaced kinds.
    pub namespace: Option<String>,
    /// Its name in the key. Of a policy in an old store it is not the name that people see.
    pub name: String,
}

/// The key of a block affinity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockAffinityKey {
    /// Whose.
    pub owner: AffinityOwner,
    /// Which block.
    pub block: IpNet,
}

/// To whom a block belongs. Written `host:n1` or `virtual:load-balancer` in blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AffinityOwner {
    /// A node, by name.
    Host(String),
    /// Something that is not a node, such as `load-balancer`.
    Virtual(String),
}

impl AffinityOwner {
    /// The owner's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Host(name) | Self::Virtual(name) => name,
        }
    }

    /// The node's name, if a node.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Host(name) => Some(name),
            Self::Virtual(_) => None,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Virtual(_) => "virtual",
        }
    }

    /// What all affinity keys of the owner begin with, ending in `/`.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{IPAM}{}/{}/", self.word(), self.name())
    }
}

impl fmt::Display for AffinityOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.word(), self.name())
    }
}

/// Text that names no owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an owner of blocks such as \"host:n1\" or \"virtual:load-balancer\"")]
pub struct AffinityOwnerError(pub String);

impl FromStr for AffinityOwner {
    type Err = AffinityOwnerError;

    fn from_str(text: &str) -> Result<Self, AffinityOwnerError> {
        match text.split_once(':') {
            Some(("host", name)) if !name.is_empty() => Ok(Self::Host(name.to_owned())),
            Some(("virtual", name)) if !name.is_empty() => Ok(Self::Virtual(name.to_owned())),
            _ => Err(AffinityOwnerError(text.to_owned())),
        }
    }
}

impl ResourceKey {
    /// The key of an object of cluster scope.
    #[must_use]
    pub fn cluster(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: None,
            name: name.into(),
        }
    }

    /// The key of an object in a namespace.
    #[must_use]
    pub fn namespaced(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: Some(namespace.into()),
            name: name.into(),
        }
    }

    /// The key as stored.
    #[must_use]
    pub fn path(&self) -> String {
        let prefix = Self::prefix(self.kind);
        match &self.namespace {
            Some(namespace) => format!("{prefix}{namespace}/{}", self.name),
            None => format!("{prefix}{}", self.name),
        }
    }

    /// What the keys of all objects of a kind begin with, ending in `/`.
    #[must_use]
    pub fn prefix(kind: Kind) -> String {
        let root = if kind.is_own() { TWILL_RESOURCES } else { RESOURCES };
        format!("{root}{}/", kind.plural())
    }

    /// What the keys of all objects of a kind in a namespace begin with, ending in `/`.
    #[must_use]
    pub fn namespace_prefix(kind: Kind, namespace: &str) -> String {
        format!("{}{namespace}/", Self::prefix(kind))
    }

    fn parse(rest: &str) -> Option<Self> {
        let (plural, rest) = rest.split_once('/')?;
        let kind = Kind::from_plural(plural)?;
        let (namespace, name) = match kind.is_namespaced() {
            true => rest
                .split_once('/')
                .map(|(namespace, name)| (Some(namespace), name))?,
            false => (None, rest),
        };
        let whole = |part: &str| !part.is_empty() && !part.contains('/');
        let sound = whole(name) && namespace.is_none_or(whole);
        sound.then(|| Self {
            kind,
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for ResourceKey {
    /// For people: `NetworkPolicy default/allow-web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl Key {
    /// The typed key of a path.
    #[must_use]
    pub fn parse(path: &str) -> Self {
        let other = || Self::Other(path.to_owned());
        let key = Self::parse_known(path).unwrap_or_else(other);
        // One key has one path: `…/block/10.0.0.1-30` is not a second name of `…/block/10.0.0.0-30`.
        if key.path() == path { key } else { other() }
    }

    fn parse_known(path: &str) -> Option<Self> {
        let resources = path.strip_prefix(RESOURCES);
        if let Some(rest) = resources.or_else(|| path.strip_prefix(TWILL_RESOURCES)) {
            return ResourceKey::parse(rest).map(Self::Resource);
        }
        let (section, rest) = match path.strip_prefix(IPAM)? {
            "config" => return Some(Self::IpamConfig),
            rest => rest.split_once('/')?,
        };
        match section {
            "assignment" => parse_block(rest).map(Self::Block),
            "handle" => Some(rest)
                .filter(|id| !id.is_empty() && !id.contains('/'))
                .map(|id| Self::Handle(id.into())),
            "host" => parse_affinity(rest, AffinityOwner::Host),
            "virtual" => parse_affinity(rest, AffinityOwner::Virtual),
            _ => None,
        }
    }

    /// The key as stored.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Resource(key) => key.path(),
            Self::Block(block) => format!("{BLOCKS}{}", block_path(*block)),
            Self::BlockAffinity(key) => format!("{}{}", key.owner.prefix(), block_path(key.block)),
            Self::Handle(id) => format!("{HANDLES}{id}"),
            Self::IpamConfig => IPAM_CONFIG.to_owned(),
            Self::Other(path) => path.clone(),
        }
    }

    /// The key of an object of cluster scope.
    #[must_use]
    pub fn cluster(kind: Kind, name: impl Into<String>) -> Self {
        Self::Resource(ResourceKey::cluster(kind, name))
    }

    /// The key of an object in a namespace.
    #[must_use]
    pub fn namespaced(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Resource(ResourceKey::namespaced(kind, namespace, name))
    }

    /// The key of a block affinity; host bits of `block` are dropped.
    #[must_use]
    pub fn affinity(owner: AffinityOwner, block: IpNet) -> Self {
        Self::BlockAffinity(BlockAffinityKey {
            owner,
            block: block.trunc(),
        })
    }

    /// The key of a block; host bits are dropped.
    #[must_use]
    pub fn block(block: IpNet) -> Self {
        Self::Block(block.trunc())
    }

    /// The key of an object, if it is one.
    #[must_use]
    pub fn resource(&self) -> Option<&ResourceKey> {
        match self {
            Self::Resource(key) => Some(key),
            _ => None,
        }
    }
}

impl From<ResourceKey> for Key {
    fn from(key: ResourceKey) -> Self {
        Self::Resource(key)
    }
}

impl fmt::Display for Key {
    /// The key as stored.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// `ipv4/block/10.244.0.0-30`
fn block_path(block: IpNet) -> String {
    let version = if matches!(block, IpNet::V4(_)) { 4 } else { 6 };
    format!("ipv{version}/block/{}-{}", block.addr(), block.prefix_len())
}

fn parse_block(rest: &str) -> Option<IpNet> {
    let (version, cidr) = rest.split_once("/block/")?;
    let (addr, len) = cidr.split_once('-')?;
    let block = IpNet::new(addr.parse().ok()?, len.parse().ok()?).ok()?;
    let right = matches!((version, block), ("ipv4", IpNet::V4(_)) | ("ipv6", IpNet::V6(_)));
    (right && block == block.trunc()).then_some(block)
}

fn parse_affinity(rest: &str, owner: fn(String) -> AffinityOwner) -> Option<Key> {
    let (name, rest) = rest.split_once('/')?;
    let block = parse_block(rest)?;
    (!name.is_empty()).then(|| {
        Key::BlockAffinity(BlockAffinityKey {
            owner: owner(name.to_owned()),
            block,
        })
    })
}

#[cfg(test)]
mod tests;
