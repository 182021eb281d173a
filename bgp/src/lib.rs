//! A BGP-4 speaker that knows nothing of the rest of Twill.
//!
//! The core is sans-IO: [`wire`] turns octets into messages and back, [`fsm`] is the machine of one peer, [`rib`] holds
//! routes and decides, [`policy`] judges them, and [`speaker`] joins them for all peers. None of these reads a clock or a
//! socket. The tokio shell `net` (feature `net`) carries bytes and offers the daemon's handle.
#![warn(clippy::indexing_slicing)]

pub mod bfd;
pub mod config;
pub mod family;
pub mod fsm;
pub mod link;
pub mod monitor;
pub mod policy;
pub mod prefix;
pub mod rib;
pub mod speaker;
pub mod view;
pub mod wire;

#[cfg(feature = "net")]
pub mod net;

pub use config::{Config, PeerConfig};
pub use family::{Families, Family, PerFamily};
pub use view::{Best, PeerStatus, Reach, RouteView};
