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

/// The key of a node's fence. Every transaction of an allocator compares it, and it is written before anything is decided
/// after a lost reply: a transaction that was still on its way can then never be carried out.
#[must_use]
pub fn fence(node: &str) -> Bytes {
    fence_of(&AffinityOwner::Host(node.to_owned()))
}

/// The key of an owner's fence; a virtual owner's name is written with its kind, as `virtual:load-balancer`.
#[must_use]
pub fn fence_of(owner: &AffinityOwner) -> Bytes {
    match owner {
        AffinityOwner::Host(node) => format!("/twill/ipam/fence/{node}").into(),
        AffinityOwner::Virtual(_) => format!("/twill/ipam/fence/{owner}").into(),
    }
}

/// What the key names, `None` if it is not text.
#[must_use]
pub fn parse(key: &[u8]) -> Option<Key> {
    std::str::from_utf8(key).ok().map(Key::parse)
}

/// The prefixes that an allocator on `node` must be shown: what [`crate::State::observe`] takes in, but for handles and
/// other owners' affinities, which it reads when it needs them.
#[must_use]
pub fn watched(node: &str) -> Vec<String> {
    watched_by(&AffinityOwner::Host(node.to_owned()))
}

/// As [`watched`], for any owner.
#[must_use]
pub fn watched_by(owner: &AffinityOwner) -> Vec<String> {
    let mut prefixes = vec![
        twill_model::key::BLOCKS.to_owned(),
        owner.prefix(),
        twill_model::key::IPAM_CONFIG.to_owned(),
        ResourceKey::prefix(Kind::IpPool),
        ResourceKey::prefix(Kind::IpReservation),
        ResourceKey::prefix(Kind::Profile),
        ResourceKey::cluster(Kind::ClusterInformation, "default").path(),
        text(&fence_of(owner)),
    ];
    prefixes.extend(
        owner
            .host()
            .map(|node| ResourceKey::cluster(Kind::Node, node).path()),
    );
    prefixes
}

/// The key as people read it.
pub(crate) fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// The least network that begins where `cidr` begins, for searches in ordered maps.
pub(crate) fn first_in(cidr: &IpNet) -> IpNet {
    IpNet::new(cidr.network(), 0).unwrap_or(*cidr)
}
