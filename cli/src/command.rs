//! One module a verb or family of verbs.

pub(crate) mod bgp;
mod change;
pub(crate) mod datastore;
pub(crate) mod delete;
pub(crate) mod drain;
pub(crate) mod get;
pub(crate) mod ipam;
pub(crate) mod label;
pub(crate) mod node;
pub(crate) mod patch;
pub(crate) mod validate;
pub(crate) mod version;
pub(crate) mod write;
