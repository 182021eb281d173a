//! The tokio shell: sockets, timers and channels around the sans-IO core, and the handle that the daemon holds.

#[expect(dead_code, reason = "the RIB task that reads the commands follows")]
mod handle;

pub use handle::{BestChanges, Closed, ConfigureError, Handle, Reset};
