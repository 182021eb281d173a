//! What a speaker tells those who watch it: [`bmp`] to collectors (RFC 7854), [`mrt`] into files (RFC 6396, RFC 8050). Pure
//! encoders over [`Event`]s and the table; the shell's `net::monitor` carries them.
//!
//! UPDATEs are encoded anew from what was understood of them, always with four-octet AS numbers: a malformed message, which
//! might hurt whoever reads it next, is never passed on.

pub mod bmp;
pub mod mrt;
mod update;

use crate::family::{Families, Family};
use crate::fsm::Cause;
use crate::wire::AttrSet;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

/// The OPENs of a session, whole messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opens {
    /// Ours.
    pub sent: Vec<u8>,
    /// The peer's.
    pub received: Vec<u8>,
}

/// A peer in session, as those who watch need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its address.
    pub address: IpAddr,
    /// Its AS number.
    pub asn: u32,
    /// Its BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Our end of the session.
    pub local_address: IpAddr,
    /// Our AS number towards it.
    pub local_asn: u32,
    /// Our port and its.
    pub ports: (u16, u16),
    /// Both OPENs.
    pub opens: Arc<Opens>,
    /// Families in which it sends path identifiers (RFC 7911).
    pub add_path_in: Families,
    /// Since when it is up.
    pub since: SystemTime,
}

/// Before or after import policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    /// As received.
    PrePolicy,
    /// As the decision sees it.
    PostPolicy,
}

/// Prefixes with their path identifiers (0 without add-path), and the attributes they have now; without, they are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// The family of all the prefixes.
    pub family: Family,
    /// Before or after import policy.
    pub view: View,
    /// The attributes.
    pub attrs: Option<Arc<AttrSet>>,
    /// The prefixes.
    pub nlri: Vec<(IpNet, u32)>,
}

/// Something that those who watch want to know.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session is up.
    Up(Arc<Watched>),
    /// A session is over, with all its routes.
    Down(Arc<Watched>, Cause),
    /// Routes of a peer have changed.
    Routes(Arc<Watched>, RouteChange),
    /// The peer has sent all it had of a family.
    EndOfRib(Arc<Watched>, Family),
}

/// One destination with its paths.
#[derive(Clone, Debug)]
pub struct TableEntry {
    /// The prefix.
    pub prefix: IpNet,
    /// Its paths.
    pub paths: Vec<TablePath>,
}

/// One path of a destination.
#[derive(Clone, Debug)]
pub struct TablePath {
    /// The peer; `None` for our own.
    pub peer: Option<IpAddr>,
    /// Path identifier, 0 without add-path.
    pub path_id: u32,
    /// Import policy let it through, and it is free of loops.
    pub accepted: bool,
    /// Import policy may have changed the attributes: they are not what was received.
    pub rewritten: bool,
    /// The attributes, after import policy.
    pub attrs: Arc<AttrSet>,
}

#[cfg(test)]
mod tests;
