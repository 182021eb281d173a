//! The etcd keys that an allocator reads and writes.

use ipnet::IpNet;
use twill_datastore::Bytes;
use twill_model::kind::Kind;
use twill_model::{AffinityOwner, Key, ResourceKey};

/// The key of the object that says whether the datastore is locked.
#[must_use]
pub fn cluster() -> Bytes {
    ResourceKey::cluster(Kind::ClusterInformation, "default")
        .path()
        .into()
}

/// The key of the block `cidr`.
#[must_use]
pub fn block(cidr: &IpNet) -> Bytes {
    Key::block(*cidr).path().into()
}

/// The key of `owner`'s affinity for the block `cidr`.
#[must_use]
pub fn affinity(owner: &AffinityOwner, cidr: &IpNet) -> Bytes {
    Key::affinity(owner.clone(), *cidr).path().into()
}

/// The key of the handle `id`.
#[must_use]
pub fn handle(id: &str) -> Bytes {
    Key::Handle(id.to_owned()).path().into()
}

/// The key of the pool `name`.
#[must_use]
pub fn pool(name: &str) -> Bytes {
    ResourceKey::cluster(Kind::IpPool, name).path().into()
}

/// The key of `node`'s fence. Every transaction of an allocator compares it, and it is written before anything is decided
/// after a lost reply: a transaction that was still on its way can then never be carried out.
#[must_use]
pub fn fence(node: &str) -> Bytes {
    format!("/twill/ipam/fence/{node}").into()
}

/// What the key names, `None` if it is not text.
#[must_use]
pub fn parse(key: &[u8]) -> Option<Key> {
    std::str::from_utf8(key).ok().map(Key::parse)
}

/// The prefixes that an allocator on `node` must be shown: what [`crate::State::observe`] takes in, but for handles, which
/// it reads when it needs them.
#[must_use]
pub fn watched(node: &str) -> Vec<String> {
    vec![
        twill_model::key::BLOCKS.to_owned(),
        AffinityOwner::Host(node.to_owned()).prefix(),
        twill_model::key::IPAM_CONFIG.to_owned(),
        ResourceKey::prefix(Kind::IpPool),
        ResourceKey::prefix(Kind::IpReservation),
        ResourceKey::cluster(Kind::Node, node).path(),
        ResourceKey::cluster(Kind::ClusterInformation, "default").path(),
        format!("/twill/ipam/fence/{node}"),
    ]
}

/// The key as people read it.
pub(crate) fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// The least network that begins where `cidr` begins, for searches in ordered maps.
pub(crate) fn first_in(cidr: &IpNet) -> IpNet {
    IpNet::new(cidr.network(), 0).unwrap_or(*cidr)
}
