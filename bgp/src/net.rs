//! The tokio shell: sockets, timers and channels around the sans-IO core, and the handle that the daemon holds.
//!
//! ```text
//! listener (1 an address) --accepted, 64--> RIB task <--commands, 64-- Handle (any number)
//!                                            |    ^
//!            commands and batches, 64 a peer |    | events, 64 in all; a permit is held before a socket is read
//!                                            v    |
//!                                       peer task (1 a peer): Peer FSM, up to three connections
//! ```
//! All tasks belong to [`Server::run`] and end with it. Nothing waits for a peer task: what it is sent is bounded by the
//! speaker's window.

mod advert;
mod bfd;
mod dial;
mod handle;
mod hosts;
mod link;
mod listener;
mod monitor;
mod peer_task;
mod permit;
mod report;
mod rib_task;
mod server;
mod sockopt;
mod watchers;

/// For the runtime that a speaker runs on (`tokio::runtime::Builder::event_interval`): look at clocks and sockets after so many
/// turns of tasks. A turn under load takes up to ten milliseconds, and tokio's own 61 of them would keep a KEEPALIVE waiting.
pub const EVENT_INTERVAL: u32 = 3;

pub use handle::{BestChanges, Closed, ConfigureError, Handle, Reset};
pub use server::{Server, bind};
