//! One module a verb or family of verbs.

pub(crate) mod bgp;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod ipam;
pub(crate) mod node;
pub(crate) mod write;
