//! What an operator asks for by name: release what reports agree on, remove a node, split a pool, change the settings.
//!
//! Each is a pure plan and a short function that carries it out. Validation and messages are those of `calicoctl ipam`.

mod configure;
mod release;
mod remove;
mod report;
mod split;

pub use configure::{Change, ConfigureError, configure, configured};
pub use release::{Leaked, ReleaseError, Terms, release_leaked};
pub use remove::remove_node;
pub use report::{CheckReport, HandleInfo, Reported, report};
pub use split::{PARTS_MAX, Split, SplitError, split, split_pool};
