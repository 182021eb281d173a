//! Routes: attribute sets interned once, paths of twelve octets, prefixes in one table a family, and the decision process.
//!
//! There is no Adj-RIB-Out: what a group of peers was sent is one source number a prefix, kept by the group.

pub mod attr_table;
pub mod decision;
pub mod queue;
pub mod table;

pub use attr_table::{AttrId, AttrTable};
pub use decision::{PathSource, Sources, Step};
pub use queue::DirtySet;
pub use table::{Change, DestId, Numbered, Path, PeerId, Table};
