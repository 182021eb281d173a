//! BGP messages on the wire (RFC 4271 section 4 and its extensions): octets in by nom, octets out into a `Vec<u8>`.
//!
//! Nothing here holds a session's state: what a session agreed on comes in as [`UpdateContext`]. Decoding an UPDATE gives the
//! routes *and* a list of RFC 7606 verdicts; only an `Err` resets the session.

pub mod as_path;
pub mod attr;
pub mod capability;
pub mod check;
pub mod community;
pub mod header;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod refresh;
pub mod update;

pub use attr::{AttrSet, NextHopValue};
pub use capability::{
    AddPathMode, Capabilities, Capability, LongLived, LongLivedCapability, RestartCapability,
};
pub use header::{HEADER_LEN, MESSAGE_MAX, MESSAGE_MAX_EXTENDED, MessageType};
pub use notification::Notification;
pub use open::{HoldTime, Open, OpenError};
pub use refresh::RouteRefresh;
pub use update::{Nlri, Op, Routes, UpdateContext, UpdateError, Verdict};
