//! What the speaker shows: best paths for the FIB, peers and routes for people, events for both. Plain data, made on request.

pub use crate::bfd::table::BfdView;
use crate::config::{Limits, PeerConfig};
use crate::family::{Families, PerFamily};
use crate::policy::SessionType;
use crate::wire::community::{ExtendedCommunity, LargeCommunity};
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Why a prefix goes where it goes: the best path, as the FIB needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Best {
    /// Next hops of the best path and of those equal to it, ascending; never empty.
    pub next_hops: Vec<IpAddr>,
    /// The peer of the best path.
    pub source: IpAddr,
    /// Whether that peer is internal.
    pub session: SessionType,
    /// LOCAL_PREF of the best path; `None` where it has none (external peers; counts as 100).
    pub local_pref: Option<u32>,
    /// The peer is away and its route is kept until it is back (RFC 4724).
    pub stale: bool,
}

/// How an address is reached, as the owner's own routes say, never by routes that BGP taught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is in a subnet of this link.
    OnLink {
        /// The link's number: only equality counts.
        link: u32,
    },
    /// It is behind gateways on these links.
    Via {
        /// Their numbers.
        links: Vec<u32>,
    },
    /// No route leads there.
    Unreachable,
}

/// The state of a peer's FSM (RFC 4271 section 8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerState {
    /// Down, or held down after errors.
    Idle,
    /// Dialling.
    Connect,
    /// Waiting for the peer's connection or for the next attempt.
    Active,
    /// Our OPEN is out.
    OpenSent,
    /// Both OPENs are through.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// One peer as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer's address.
    pub address: IpAddr,
    /// From the configuration.
    pub description: String,
    /// The peer's AS number; `None` while a peer that may have any has not said which it has.
    pub asn: Option<u32>,
    /// Internal or external.
    pub session: SessionType,
    /// The state of its FSM.
    pub state: PeerState,
    /// How long it has been in this state.
    pub state_age: Duration,
    /// How often the session was established.
    pub established_count: u64,
    /// Prefix counts of each family.
    pub prefixes: PerFamily<PrefixCounts>,
    /// What ended the last session or attempt, from our side.
    pub last_error_sent: Option<String>,
    /// What ended the last session or attempt, from the peer's side (or the network's).
    pub last_error_received: Option<String>,
    /// What the running session agreed on.
    pub negotiated: Option<NegotiatedView>,
    /// Messages and updates.
    pub counters: Counters,
    /// What the peer's configuration says, in force or not.
    pub config: Box<PeerConfig>,
    /// The BFD session beside the running session.
    pub bfd: Option<BfdView>,
}

/// Something that has changed, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A session is established, or is no longer.
    Session {
        /// The peer's address.
        peer: IpAddr,
        /// [`PeerState::Established`], or [`PeerState::Idle`] when it is over.
        state: PeerState,
        /// Why it is over.
        why: Option<String>,
    },
    /// The best path of a prefix; `None` if no peer gives one any more.
    Best {
        /// The prefix.
        prefix: IpNet,
        /// Its best path.
        best: Option<Best>,
    },
}

/// Prefix counts of one peer and family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    /// In the Adj-RIB-In, stale ones included.
    pub received: u64,
    /// Of these, passed by import policy and free of loops.
    pub accepted: u64,
    /// Of these, kept from before the peer's restart.
    pub stale: u64,
    /// In the (virtual) Adj-RIB-Out.
    pub advertised: u64,
}

/// What two OPENs agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegotiatedView {
    /// The peer's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Our address on the session.
    pub local_address: IpAddr,
    /// Hold Time agreed, seconds; 0 is none.
    pub hold_secs: u16,
    /// Families both sides offered.
    pub families: Families,
    /// Four-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Route refresh (RFC 2918).
    pub route_refresh: bool,
    /// Families for which the peer does graceful restart (RFC 4724).
    pub graceful_restart: Families,
    /// The peer's restart time.
    pub restart_secs: u16,
    /// Both sides set the N bit (RFC 8538).
    pub notification_restart: bool,
    /// Enhanced route refresh (RFC 7313).
    pub enhanced_refresh: bool,
    /// The longest message (RFC 8654).
    pub message_max: usize,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Families in which the peer sends several paths (RFC 7911).
    pub add_path_in: Families,
    /// Families in which we do.
    pub add_path_out: Families,
    /// The peer's long-lived stale time (RFC 9494), seconds, where it gave one.
    pub long_lived_secs: PerFamily<Option<u32>>,
    /// Codes of all capabilities that the peer sent, ascending.
    pub capabilities: Vec<u8>,
    /// The capabilities that we sent, in words.
    pub described_sent: Vec<String>,
    /// The capabilities that the peer sent, in words.
    pub described_received: Vec<String>,
}

/// Counters of one peer since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// UPDATE messages received.
    pub updates_in: u64,
    /// UPDATE messages handed to the connection.
    pub updates_out: u64,
    /// KEEPALIVE messages received.
    pub keepalives_in: u64,
    /// KEEPALIVE messages sent.
    pub keepalives_out: u64,
    /// NOTIFICATION messages received.
    pub notifications_in: u64,
    /// NOTIFICATION messages sent.
    pub notifications_out: u64,
    /// ROUTE-REFRESH messages received.
    pub refreshes_in: u64,
    /// Octets received.
    pub octets_in: u64,
    /// Octets handed to the connection.
    pub octets_out: u64,
    /// UPDATEs whose routes were treated as withdrawn (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Attributes discarded (RFC 7606).
    pub attributes_discarded: u64,
    /// Panics in the session's work; each ended the session with Cease 6/8 and held the peer down.
    pub panics: u64,
}

/// What is used of the bounds over all peers, and how often they were met since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The bounds.
    pub limits: Limits,
    /// Routes of all peers and families.
    pub routes: u64,
    /// Distinct attribute sets.
    pub attribute_sets: u64,
    /// Octets of these.
    pub attribute_octets: u64,
    /// Of these octets, those of attributes that we do not know.
    pub unknown_octets: u64,
    /// Announcements that were taken without their unknown attributes.
    pub unknown_stripped: u64,
    /// Sessions ended with Cease, Out of Resources.
    pub sessions_exhausted: u64,
    /// Dynamic neighbours that have connected and have no session yet.
    pub pending: u64,
    /// Connections closed before a byte was read: of strangers, or too many.
    pub refused: u64,
    /// Of these, connections of hosts that had too many without a session.
    pub refused_of_crowds: u64,
    /// Panics in the work of sessions.
    pub panics: u64,
    /// What operators should look at: a bound is near, or was met.
    pub alarms: Vec<String>,
}

/// One entry of a peer's event ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// How long ago.
    pub age: Duration,
    /// What happened, for people.
    pub what: String,
}

/// Which table to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTable {
    /// Everything in the Adj-RIBs-In.
    Received,
    /// What import policy let through.
    Accepted,
    /// All paths, also our own.
    All,
    /// The best path of each prefix.
    Best,
    /// What the peer of the query has been sent.
    Advertised,
}

/// A query for routes.
#[derive(Clone, Debug)]
pub struct RouteQuery {
    /// Which table.
    pub table: RouteTable,
    /// Only this peer's; needed for [`RouteTable::Advertised`].
    pub peer: Option<IpAddr>,
    /// Only this prefix.
    pub prefix: Option<IpNet>,
    /// At most so many routes come back.
    pub limit: usize,
}

/// One path as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteView {
    /// The prefix.
    pub prefix: IpNet,
    /// The peer it was learned from; `None` for our own.
    pub peer: Option<IpAddr>,
    /// Path identifier (RFC 7911), 0 without add-path.
    pub path_id: u32,
    /// The next hop; `None` for our own address.
    pub next_hop: Option<IpAddr>,
    /// The AS path as text, sets in braces.
    pub as_path: String,
    /// IGP, EGP or incomplete.
    pub origin: &'static str,
    /// LOCAL_PREF, if any.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, if any.
    pub med: Option<u32>,
    /// Communities.
    pub communities: Vec<u32>,
    /// Extended communities (RFC 4360).
    pub extended_communities: Vec<ExtendedCommunity>,
    /// Large communities (RFC 8092).
    pub large_communities: Vec<LargeCommunity>,
    /// It is the best path of its prefix.
    pub best: bool,
    /// It is among the equal paths handed to the FIB.
    pub multipath: bool,
    /// It is kept from before its peer's restart.
    pub stale: bool,
    /// Why it is or is not best: the step of the decision, or why it takes no part in it.
    pub why: &'static str,
}

/// Families for which route selection is settled: after a restart, once End-of-RIB of all peers came or the deferral timer
/// ran out; at once otherwise.
pub type Converged = PerFamily<bool>;
