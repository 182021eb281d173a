//! What the owner wants of the speaker, as data. A new [`Config`] replaces the old one whole and is applied live: sessions of
//! peers whose entry did not change in anything that an OPEN carries stay up.

mod check;
mod file;
pub mod limits;
pub mod monitor;
pub mod options;
mod peer;
mod range;

pub use check::ConfigError;
pub use file::{FILE_BYTES_MAX, FibKind, File, FileError, NETWORKS_MAX};
pub use limits::Limits;
pub use monitor::{BMP_MAX, BmpConfig, MrtConfig};
pub use options::{ADD_PATHS_MAX, AddPath, LocalAs, RemovePrivate};
pub use peer::{GracefulRestart, NextHopMode, PeerAs, PeerConfig, Secret, Timers};
pub use range::{RANGE_PEERS_MAX, RangeConfig};

use crate::family::Families;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Peers of one speaker: the fabric's scale is a thousand nodes.
pub const PEERS_MAX: usize = 4096;
/// Ranges of dynamic neighbours of one speaker: each is looked at for every connection of a stranger.
pub const RANGES_MAX: usize = 256;
/// AS_TRANS (RFC 6793): stands for an AS number that does not fit two octets.
pub const AS_TRANS_16: u16 = 23456;
/// [`AS_TRANS_16`] as AS numbers are kept.
pub const AS_TRANS: u32 = AS_TRANS_16 as u32;

/// The whole configuration of a speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our AS number.
    pub asn: u32,
    /// Our BGP Identifier; not zero (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Where to listen; empty means that no connection is ever accepted.
    pub listen: Vec<SocketAddr>,
    /// Our cluster ID as a route reflector; `None` uses the router id (RFC 4456 section 7).
    pub cluster_id: Option<Ipv4Addr>,
    /// The peers; each address once.
    pub peers: Vec<PeerConfig>,
    /// Where peers may come from that have no entry of their own; the longest range that has an address counts.
    pub ranges: Vec<RangeConfig>,
    /// Whether this process continues an earlier one (graceful restart, RFC 4724).
    pub restart: Restart,
    /// At most so many next hops for one prefix are handed to the FIB; 1 turns multipath off.
    pub paths_max: u8,
    /// What the speaker may take of the machine.
    pub limits: Limits,
    /// Collectors that are told everything (RFC 7854); at most [`BMP_MAX`].
    pub bmp: Vec<BmpConfig>,
    /// Dumps into files (RFC 6396).
    pub mrt: MrtConfig,
    /// Paths over different AS paths of the same length count as equal for multipath; otherwise the AS paths must be the same.
    pub multipath_relaxed: bool,
    /// This speaker is being drained (RFC 8326): everything it sends carries GRACEFUL_SHUTDOWN, to internal peers with
    /// LOCAL_PREF 0.
    pub graceful_shutdown: bool,
    /// The owner says how next hops are reached, and until it has said that one is not, it is. Without, every next hop counts
    /// as reachable.
    pub track_next_hops: bool,
    /// With tracked next hops: what is forwarded back to an external peer's link is not announced to that peer.
    pub split_horizon: bool,
}

/// What was kept over a restart of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restart {
    /// The process was running here before: OPENs carry the Restart State bit until selection is no longer deferred.
    pub restarting: bool,
    /// Families whose routes stayed in the kernel: their Forwarding State bit is set.
    pub forwarding_preserved: Families,
    /// How long selection waits for End-of-RIB of all peers at most (RFC 4724 section 4.1, Selection_Deferral_Timer).
    pub deferral: Duration,
}

impl Config {
    /// A speaker without peers that listens nowhere.
    #[must_use]
    pub fn new(asn: u32, router_id: Ipv4Addr) -> Self {
        let restart = Restart {
            deferral: Duration::from_secs(120),
            ..Restart::default()
        };
        Self {
            asn,
            router_id,
            listen: Vec::new(),
            cluster_id: None,
            peers: Vec::new(),
            ranges: Vec::new(),
            restart,
            paths_max: 16,
            limits: Limits::default(),
            bmp: Vec::new(),
            mrt: MrtConfig::default(),
            multipath_relaxed: true,
            graceful_shutdown: false,
            track_next_hops: false,
            split_horizon: true,
        }
    }
}

impl Config {
    /// Whether what would be forwarded straight back is not announced.
    pub(crate) const fn keeps_horizon(&self) -> bool {
        self.track_next_hops && self.split_horizon
    }

    /// The range that an address without an entry of its own is a neighbour of.
    #[must_use]
    pub fn range_of(&self, address: IpAddr) -> Option<&RangeConfig> {
        let covers = |r: &&RangeConfig| r.net.contains(&address);
        self.ranges
            .iter()
            .filter(covers)
            .max_by_key(|r| r.net.prefix_len())
    }
}

/// What a speaker announces by itself for one prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origination {
    /// The next hop; `None` is our address on each session.
    pub next_hop: Option<IpAddr>,
    /// LOCAL_PREF towards internal peers; `None` is 100. The fabric gives 2147483647 - metric, as Calico does.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, if any.
    pub med: Option<u32>,
    /// Communities (RFC 1997).
    pub communities: Vec<u32>,
}

#[cfg(test)]
mod tests;
