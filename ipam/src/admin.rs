//! What an operator asks for by name: report, release what is named, remove a node, split a pool, change the settings.
//!
//! Each is a plan and a short function that carries it out. Validation and messages are those of `calicoctl ipam`.

mod configure;
mod release;
mod remove;
mod report;
mod split;

pub use configure::{Change, ConfigureError, Settings, configure, configured, settings};
pub use release::{Named, ReleaseError, release};
pub use remove::remove_node;
pub use report::{Fact, HandleState, ReportedAddress, ReportedBlock, ReportedHandle, Stray, Summary, Walk};
pub use split::{PARTS_MAX, Split, SplitError, split, split_pool};
