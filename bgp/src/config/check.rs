//! What no session could live with, and why a configuration is refused.

use super::{ADD_PATHS_MAX, AS_TRANS, BMP_MAX, Config, PEERS_MAX, PeerAs, PeerConfig, RANGES_MAX};
use crate::family::Families;
use crate::link::{self, NAME_OCTETS_MAX};
use crate::policy::{PREFIX_RULES_MAX, SessionType, TERMS_MAX};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

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
    /// No interface has such a name.
    #[error("peer {0}: an interface has a name of 1 to {NAME_OCTETS_MAX} octets without / and white space")]
    InterfaceName(String),
    /// A key is for an address, which is not known.
    #[error("peer {0}: a TCP MD5 key needs the peer's address beside its interface")]
    PasswordOnLink(String),
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

impl PeerConfig {
    fn check(&self, own_asn: u32) -> Result<(), ConfigError> {
        let peer = self.address;
        if let PeerAs::Number(asn) = self.asn {
            reserved_asn(asn, || format!("peer {peer}"))?;
        }
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
        self.check_link()?;
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
}

impl PeerConfig {
    fn check_link(&self) -> Result<(), ConfigError> {
        let link_local = matches!(self.address, IpAddr::V6(a) if a.is_unicast_link_local());
        let Some(interface) = &self.interface else {
            return if link_local {
                Err(ConfigError::Interface(self.address))
            } else {
                Ok(())
            };
        };
        let unusual = |c: char| c == '/' || c.is_whitespace() || c.is_control();
        if interface.is_empty() || interface.len() > NAME_OCTETS_MAX || interface.contains(unusual) {
            return Err(ConfigError::InterfaceName(interface.clone()));
        }
        let named = match self.address {
            IpAddr::V6(identity) => link::named(identity),
            IpAddr::V4(_) => None,
        };
        if !link_local || self.address != link::identity(interface, named) {
            return Err(ConfigError::Interface(self.address));
        }
        if self.password.is_some() && named.is_none() {
            return Err(ConfigError::PasswordOnLink(interface.clone()));
        }
        Ok(())
    }
}

fn reserved_asn(asn: u32, whose: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if asn == 0 || asn == AS_TRANS {
        return Err(ConfigError::ReservedAsn { whose: whose(), asn });
    }
    Ok(())
}
