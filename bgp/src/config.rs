//! What the owner wants of the speaker, as data. A new [`Config`] replaces the old one whole and is applied live: sessions of
//! peers whose entry did not change in anything that an OPEN carries stay up.

mod file;
pub mod monitor;
pub mod options;
mod range;

pub use file::{FILE_BYTES_MAX, FibKind, File, FileError, NETWORKS_MAX};
pub use monitor::{BMP_MAX, BmpConfig, MrtConfig};
pub use options::{ADD_PATHS_MAX, AddPath, LocalAs, RemovePrivate};
pub use range::{RANGE_PEERS_MAX, RangeConfig};

use crate::bfd;
use crate::family::Families;
use crate::policy::{PREFIX_RULES_MAX, Policy, SessionType, TERMS_MAX};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
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
    /// Collectors that are told everything (RFC 7854); at most [`BMP_MAX`].
    pub bmp: Vec<BmpConfig>,
    /// Dumps into files (RFC 6396).
    pub mrt: MrtConfig,
    /// Paths over different AS paths of the same length count as equal for multipath; otherwise the AS paths must be the same.
    pub multipath_relaxed: bool,
    /// This speaker is being drained (RFC 8326): everything it sends carries GRACEFUL_SHUTDOWN, to internal peers with
    /// LOCAL_PREF 0.
    pub graceful_shutdown: bool,
    /// The owner says how next hops are reached, and until it has said that one is not, it is; what is forwarded back to an
    /// external peer's link is then not announced to that peer. Without, every next hop counts as reachable.
    pub track_next_hops: bool,
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

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The peer's address; it identifies the peer, its BGP Identifier does not.
    pub address: IpAddr,
    /// The port to dial.
    pub port: u16,
    /// For people.
    pub description: String,
    /// The peer's AS number; equal to ours for an internal session.
    pub asn: u32,
    /// The address to dial from.
    pub local_address: Option<IpAddr>,
    /// The subnet that we share with the peer, if any: third-party next hops inside it are kept for it.
    pub shared_subnet: Option<IpNet>,
    /// Our next hop for IPv4 routes where the session's own address is IPv6.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our next hop for IPv6 routes where the session's own address is IPv4.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Never dials; waits for the peer's connection.
    pub passive: bool,
    /// The families offered.
    pub families: Families,
    /// Timers of the session.
    pub timers: Timers,
    /// Graceful restart towards this peer.
    pub graceful_restart: GracefulRestart,
    /// The peer is our route-reflector client (RFC 4456); internal peers only.
    pub route_reflector_client: bool,
    /// Default treatment of next hops on export, before policy: see [`NextHopMode`].
    pub next_hop: NextHopMode,
    /// Judges what the peer sends.
    pub import: Arc<Policy>,
    /// Judges what the peer is sent.
    pub export: Arc<Policy>,
    /// Prefixes accepted per family before the session ends with Cease 6/1; `None` is without limit.
    pub prefixes_max: Option<u32>,
    /// At so many percent of [`PeerConfig::prefixes_max`] a warning is given, once until the count falls below again; 0 or
    /// 100 and more give none.
    pub prefixes_warn_percent: u8,
    /// After too many prefixes the peer is held down so long; `None`: a minute under [`PeerConfig::idle_hold`], else not at all.
    pub prefixes_restart: Option<Duration>,
    /// The first AS of a path from an external peer must be the peer's (RFC 4271 section 6.3).
    pub enforce_first_as: bool,
    /// How often our own AS may stand in a received path.
    pub own_as_allowed: u8,
    /// After a protocol error the peer is held in Idle, 1 s doubling to 60 s, and its connections are refused.
    pub idle_hold: bool,
    /// TCP MD5 key (RFC 2385), at most 80 octets.
    pub password: Option<Secret>,
    /// Accept only packets with TTL >= 256 - n (RFC 5082).
    pub ttl_security_hops: Option<u8>,
    /// Several paths for one prefix (RFC 7911).
    pub add_path: AddPath,
    /// Offer messages of up to 65,535 octets (RFC 8654).
    pub extended_messages: bool,
    /// Offer IPv4 routes with IPv6 next hops (RFC 8950); offered only over IPv6 transport and with the IPv4 family.
    pub extended_next_hop: bool,
    /// Another AS number of ours towards this peer.
    pub local_as: Option<LocalAs>,
    /// The peer's AS number becomes ours in paths that it is sent: sites that share one number then hear of each other.
    pub as_override: bool,
    /// Private AS numbers in paths that the peer is sent.
    pub remove_private: RemovePrivate,
    /// This session is being drained (RFC 8326): what it is sent carries GRACEFUL_SHUTDOWN.
    pub graceful_shutdown: bool,
    /// Routes of an external peer with GRACEFUL_SHUTDOWN get LOCAL_PREF 0 (RFC 8326).
    pub honour_graceful_shutdown: bool,
    /// The interface of a peer with a link-local address.
    pub interface: Option<String>,
    /// The peer shall be down; the text goes out with the Cease (RFC 9003).
    pub shutdown: Option<String>,
    /// BFD beside the session: it ends with Cease 6/10 (RFC 9384) when BFD was up and the path fails.
    pub bfd: Option<bfd::Params>,
}

/// A key that does not print itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The default treatment of next hops towards a peer, before export policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NextHopMode {
    /// RFC 4271 section 5.1.3: unchanged to internal peers; to external peers unchanged if the next hop lies in
    /// [`PeerConfig::shared_subnet`], else our address.
    #[default]
    Auto,
    /// Always our address; routes reflected between internal peers keep theirs (RFC 4456 section 10).
    SelfAddress,
    /// Never changed, but for our own routes.
    Keep,
}

/// Timers of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Offered Hold Time in seconds: 0 (none) or 3 to 65535.
    pub hold_secs: u16,
    /// Time between attempts to connect.
    pub connect_retry: Duration,
    /// Time between KEEPALIVEs; three tenths of the agreed Hold Time if that is less, or if `None`.
    pub keepalive: Option<Duration>,
    /// How long the peer may take nothing from us before the session ends (RFC 9687); `None`: twice the hold time, at least 8 min.
    pub send_hold: Option<Duration>,
    /// Wait so long for the peer's OPEN before ours is sent (RFC 4271 section 8.1.1, DelayOpen); `None`: not at all.
    pub delay_open: Option<Duration>,
}

impl Timers {
    /// How long to be silent at most, with this Hold Time agreed: a little less than a third of it, for a busy machine.
    #[must_use]
    pub fn keepalive_of(&self, hold: Duration) -> Duration {
        let most = hold * 3 / 10;
        self.keepalive.map_or(most, |own| own.min(most))
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            hold_secs: 90,
            connect_retry: Duration::from_secs(5),
            keepalive: None,
            send_hold: None,
            delay_open: None,
        }
    }
}

/// Graceful restart towards one peer (RFC 4724, RFC 8538, RFC 9494).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// The capability is offered, and the peer's routes are kept while it restarts.
    pub enabled: bool,
    /// How long the peer shall wait for us; 12 bits, seconds.
    pub restart_secs: u16,
    /// The N bit (RFC 8538): NOTIFICATIONs and hold-timer expiry keep routes, too.
    pub notification: bool,
    /// Long-lived graceful restart (RFC 9494): how long the peer shall keep our routes after the restart time, 24 bits,
    /// seconds. 0 offers to keep the peer's only; `None` offers nothing.
    pub long_lived_secs: Option<u32>,
}

impl Default for GracefulRestart {
    fn default() -> Self {
        Self {
            enabled: true,
            restart_secs: 120,
            notification: true,
            long_lived_secs: None,
        }
    }
}

impl PeerConfig {
    /// A peer with the defaults of the fabric: both policies accept, the family of the address, graceful restart on.
    #[must_use]
    pub fn new(address: IpAddr, asn: u32) -> Self {
        Self {
            address,
            port: 179,
            description: String::new(),
            asn,
            local_address: None,
            shared_subnet: None,
            next_hop_v4: None,
            next_hop_v6: None,
            passive: false,
            families: if address.is_ipv4() {
                Families::IPV4
            } else {
                Families::IPV6
            },
            timers: Timers::default(),
            graceful_restart: GracefulRestart::default(),
            route_reflector_client: false,
            next_hop: NextHopMode::Auto,
            import: Policy::accept_all(),
            export: Policy::accept_all(),
            prefixes_max: None,
            enforce_first_as: true,
            own_as_allowed: 0,
            idle_hold: true,
            password: None,
            ttl_security_hops: None,
            prefixes_warn_percent: 80,
            prefixes_restart: None,
            add_path: AddPath::default(),
            extended_messages: true,
            extended_next_hop: true,
            local_as: None,
            as_override: false,
            remove_private: RemovePrivate::Never,
            graceful_shutdown: false,
            honour_graceful_shutdown: true,
            interface: None,
            shutdown: None,
            bfd: None,
        }
    }

    /// The AS number that we have towards this peer.
    #[must_use]
    pub fn local_asn(&self, own_asn: u32) -> u32 {
        self.local_as.map_or(own_asn, |l| l.asn)
    }

    /// Internal if the peer's AS number is the one that we have towards it.
    #[must_use]
    pub fn session_type(&self, own_asn: u32) -> SessionType {
        if self.asn == self.local_asn(own_asn) {
            SessionType::Ibgp
        } else {
            SessionType::Ebgp
        }
    }
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
            bmp: Vec::new(),
            mrt: MrtConfig::default(),
            multipath_relaxed: true,
            graceful_shutdown: false,
            track_next_hops: false,
        }
    }
}

/// Why a configuration was refused; nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// AS 0 (RFC 7607) or AS_TRANS as somebody's number.
    #[error("{whose}: AS number {asn} is reserved")]
    ReservedAsn {
        /// Whose number it is.
        whose: String,
        /// The number.
        asn: u32,
    },
    /// A zero BGP Identifier (RFC 6286).
    #[error("the router id must not be 0.0.0.0")]
    ZeroRouterId,
    /// Two entries for one peer.
    #[error("peer {0} is configured twice")]
    DuplicatePeer(IpAddr),
    /// Two entries for one range.
    #[error("range {0} is configured twice")]
    DuplicateRange(IpNet),
    /// More than [`RANGES_MAX`] ranges.
    #[error("{0} ranges are configured, the limit is {RANGES_MAX}")]
    TooManyRanges(usize),
    /// More than [`PEERS_MAX`] peers.
    #[error("{0} peers are configured, the limit is {PEERS_MAX}")]
    TooManyPeers(usize),
    /// One or two seconds (RFC 4271 section 4.2).
    #[error("peer {peer}: hold time {secs} s is not 0 and below 3")]
    HoldTime {
        /// The peer.
        peer: IpAddr,
        /// The time.
        secs: u16,
    },
    /// Does not fit the capability's 12 bits.
    #[error("peer {peer}: restart time {secs} s is above 4095")]
    RestartTime {
        /// The peer.
        peer: IpAddr,
        /// The time.
        secs: u16,
    },
    /// Does not fit the capability's 24 bits.
    #[error("peer {peer}: long-lived stale time {secs} s is above 16777215")]
    LongLivedTime {
        /// The peer.
        peer: IpAddr,
        /// The time.
        secs: u32,
    },
    /// Add-path is to be sent, but not how many.
    #[error("peer {0}: add-path sends 1 to {ADD_PATHS_MAX} paths")]
    AddPath(IpAddr),
    /// A link-local address says nothing without its interface, and no other address needs one.
    #[error("peer {0}: a link-local address needs an interface, and only such a one")]
    Interface(IpAddr),
    /// No family is offered.
    #[error("peer {0}: no address family is enabled")]
    NoFamily(IpAddr),
    /// A route-reflector client in another AS.
    #[error("peer {0}: only an internal peer can be a route-reflector client")]
    ExternalClient(IpAddr),
    /// A key that the kernel does not take.
    #[error("peer {0}: a TCP MD5 key has 1 to 80 octets")]
    Password(IpAddr),
    /// No packet has a TTL of 256.
    #[error("peer {0}: TTL security is for 1 to 255 hops")]
    TtlSecurity(IpAddr),
    /// More than [`BMP_MAX`] collectors, one twice, or one that wants no view at all.
    #[error("bmp: at most {BMP_MAX} collectors, each once, each with a view")]
    Bmp,
    /// Shorter than a second.
    #[error("mrt: the table is dumped once a second at most")]
    MrtInterval,
    /// Intervals or a multiplier that no BFD session can have.
    #[error("peer {0}: BFD intervals are 10 ms to 60 s and the multiplier is 1 to 255")]
    Bfd(IpAddr),
    /// A policy beyond the bounds of [`crate::policy`].
    #[error(
        "peer {0}: the policy has more than {TERMS_MAX} terms or more than {PREFIX_RULES_MAX} rules in a prefix set"
    )]
    PolicyTooLarge(IpAddr),
}

impl Config {
    /// Refuses what no session could live with.
    ///
    /// # Errors
    /// The first [`ConfigError`] found, peers in the order given.
    pub fn check(&self) -> Result<(), ConfigError> {
        reserved_asn(self.asn, || "the local AS".into())?;
        if self.router_id.is_unspecified() {
            return Err(ConfigError::ZeroRouterId);
        }
        if self.peers.len() > PEERS_MAX {
            return Err(ConfigError::TooManyPeers(self.peers.len()));
        }
        if self.ranges.len() > RANGES_MAX {
            return Err(ConfigError::TooManyRanges(self.ranges.len()));
        }
        let mut ranges = BTreeSet::new();
        for range in &self.ranges {
            if !ranges.insert(range.net) {
                return Err(ConfigError::DuplicateRange(range.net));
            }
            range.template.check(self.asn)?;
        }
        self.check_monitor()?;
        let mut seen = BTreeSet::new();
        for peer in &self.peers {
            if !seen.insert(peer.address) {
                return Err(ConfigError::DuplicatePeer(peer.address));
            }
            peer.check(self.asn)?;
        }
        Ok(())
    }
}

impl Config {
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

impl PeerConfig {
    fn check(&self, own_asn: u32) -> Result<(), ConfigError> {
        let peer = self.address;
        reserved_asn(self.asn, || format!("peer {peer}"))?;
        if matches!(self.timers.hold_secs, 1 | 2) {
            return Err(ConfigError::HoldTime {
                peer,
                secs: self.timers.hold_secs,
            });
        }
        if self.graceful_restart.restart_secs > 4095 {
            return Err(ConfigError::RestartTime {
                peer,
                secs: self.graceful_restart.restart_secs,
            });
        }
        if self.families == Families::NONE {
            return Err(ConfigError::NoFamily(peer));
        }
        if let Some(local) = self.local_as {
            reserved_asn(local.asn, || format!("local AS towards {peer}"))?;
        }
        if let Some(secs) = self.graceful_restart.long_lived_secs.filter(|s| *s > 0x00ff_ffff) {
            return Err(ConfigError::LongLivedTime { peer, secs });
        }
        if self.add_path.send != Families::NONE && !(1..=ADD_PATHS_MAX).contains(&self.add_path.send_max) {
            return Err(ConfigError::AddPath(peer));
        }
        if matches!(peer, IpAddr::V6(a) if a.is_unicast_link_local()) != self.interface.is_some() {
            return Err(ConfigError::Interface(peer));
        }
        if self.route_reflector_client && self.session_type(own_asn) == SessionType::Ebgp {
            return Err(ConfigError::ExternalClient(peer));
        }
        if self
            .password
            .as_ref()
            .is_some_and(|p| !(1..=80).contains(&p.0.len()))
        {
            return Err(ConfigError::Password(peer));
        }
        if self.ttl_security_hops == Some(0) {
            return Err(ConfigError::TtlSecurity(peer));
        }
        if self.bfd.is_some_and(|bfd| !bfd.within_bounds()) {
            return Err(ConfigError::Bfd(peer));
        }
        if [&self.import, &self.export]
            .into_iter()
            .any(|p| !p.within_bounds())
        {
            return Err(ConfigError::PolicyTooLarge(peer));
        }
        Ok(())
    }

    /// Whether a session under `self` must end for `new` to hold: something that an OPEN, a socket or the import side of a
    /// running session carries has changed. Policies, descriptions and limits change under a live session.
    #[must_use]
    pub fn needs_reset(&self, new: &Self) -> bool {
        let live = Self {
            description: new.description.clone(),
            port: new.port,
            passive: new.passive,
            import: new.import.clone(),
            export: new.export.clone(),
            prefixes_max: new.prefixes_max,
            prefixes_warn_percent: new.prefixes_warn_percent,
            prefixes_restart: new.prefixes_restart,
            own_as_allowed: new.own_as_allowed,
            as_override: new.as_override,
            remove_private: new.remove_private,
            graceful_shutdown: new.graceful_shutdown,
            honour_graceful_shutdown: new.honour_graceful_shutdown,
            shutdown: new.shutdown.clone(),
            next_hop: new.next_hop,
            shared_subnet: new.shared_subnet,
            next_hop_v4: new.next_hop_v4,
            next_hop_v6: new.next_hop_v6,
            idle_hold: new.idle_hold,
            timers: Timers {
                hold_secs: self.timers.hold_secs,
                ..new.timers
            },
            graceful_restart: new.graceful_restart,
            password: new.password.clone(),
            bfd: new.bfd,
            ..self.clone()
        };
        live != *new
    }
}

fn reserved_asn(asn: u32, whose: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if asn == 0 || asn == AS_TRANS {
        return Err(ConfigError::ReservedAsn { whose: whose(), asn });
    }
    Ok(())
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
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut PeerConfig)) -> Config {
        let mut peer = PeerConfig::new(Ipv4Addr::new(192, 0, 2, 1).into(), 65001);
        change(&mut peer);
        Config {
            peers: vec![peer],
            ..Config::new(65000, Ipv4Addr::new(192, 0, 2, 2))
        }
    }

    #[test]
    fn what_no_session_could_live_with_is_refused() {
        let peer = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(config(|_| ()).check(), Ok(()));
        assert_eq!(
            config(|p| p.timers.hold_secs = 2).check(),
            Err(ConfigError::HoldTime { peer, secs: 2 })
        );
        assert_eq!(config(|p| p.timers.hold_secs = 0).check(), Ok(()));
        assert_eq!(
            config(|p| p.families = Families::NONE).check(),
            Err(ConfigError::NoFamily(peer))
        );
        assert_eq!(
            config(|p| p.route_reflector_client = true).check(),
            Err(ConfigError::ExternalClient(peer))
        );
        assert_eq!(
            config(|p| p.graceful_restart.restart_secs = 4096).check(),
            Err(ConfigError::RestartTime { peer, secs: 4096 })
        );
        assert!(matches!(
            config(|p| p.asn = 0).check(),
            Err(ConfigError::ReservedAsn { .. })
        ));
        let mut twice = config(|_| ());
        twice.peers.push(twice.peers[0].clone());
        assert_eq!(twice.check(), Err(ConfigError::DuplicatePeer(peer)));
    }

    #[test]
    fn only_what_the_session_carries_needs_a_reset() {
        let old = config(|_| ()).peers.remove(0);
        let reset = |change: fn(&mut PeerConfig)| old.needs_reset(&config(change).peers[0]);
        assert!(!reset(|_| ()));
        assert!(!reset(|p| p.export = Policy::reject_all()));
        assert!(!reset(|p| p.description = "tor".into()));
        assert!(reset(|p| p.asn = 65002));
        assert!(reset(|p| p.timers.hold_secs = 30));
        assert!(reset(|p| p.families = Families::BOTH));
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        assert_eq!(format!("{:?}", Secret("hunter2".into())), "Secret(..)");
    }
}
