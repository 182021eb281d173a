//! The entries that targets call: the same files that the crates' own tests replay the corpora through.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::indexing_slicing,
    reason = "parts of other crates are included whole, and an entry that goes wrong shall panic"
)]

#[path = "../entries/bgp.rs"]
pub mod bgp;
#[cfg(feature = "model")]
#[path = "../entries/model.rs"]
pub mod model;
#[cfg(not(feature = "model"))]
mod model {
    pub const TARGETS: &[(&str, fn(&[u8]))] = &[];
}
#[path = "../entries/proto.rs"]
pub mod proto;

#[path = "../../cni/src/args.rs"]
mod args;
#[path = "../../cni/src/conf.rs"]
mod conf;
#[path = "../../cni/src/error.rs"]
mod error;
#[path = "../../felix/src/kernel/wire.rs"]
mod wire;

#[path = "../entries/cni.rs"]
mod cni;
#[path = "../entries/netlink.rs"]
mod netlink;

/// A target's entry by name.
#[must_use]
pub fn entry(target: &str) -> fn(&[u8]) {
    [bgp::TARGETS, model::TARGETS, proto::TARGETS, cni::TARGETS, netlink::TARGETS]
        .concat()
        .into_iter()
        .find(|(name, _)| *name == target)
        .map(|(_, entry)| entry)
        .expect("every target has an entry of its name")
}
