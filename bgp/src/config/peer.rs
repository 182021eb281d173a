//! One peer, as its owner wants it.

use super::{AS_TRANS, AddPath, LocalAs, RemovePrivate};
use crate::bfd;
use crate::family::Families;
use crate::link;
use crate::policy::{Policy, SessionType};
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// Which AS number a peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAs {
    /// This one.
    Number(u32),
    /// Any but ours: `remote-as external` elsewhere. It is known once the peer has said it.
    External,
    /// The one that we have towards it: `remote-as internal`.
    Internal,
}

impl From<u32> for PeerAs {
    fn from(asn: u32) -> Self {
        Self::Number(asn)
    }
}

impl fmt::Display for PeerAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(asn) => write!(f, "AS {asn}"),
            Self::External => f.write_str("any AS but ours"),
            Self::Internal => f.write_str("our AS"),
        }
    }
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The peer's address; it identifies the peer, its BGP Identifier does not. Of a peer on a link, [`link::identity`].
    pub address: IpAddr,
    /// The port to dial.
    pub port: u16,
    /// For people.
    pub description: String,
    /// The peer's AS number, or which it may have; that we have towards it makes the session internal.
    pub asn: PeerAs,
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
    /// The interface of a peer with a link-local address, known or to be found there.
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
    pub fn new(address: IpAddr, asn: impl Into<PeerAs>) -> Self {
        Self {
            address,
            port: 179,
            description: String::new(),
            asn: asn.into(),
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

    /// A peer on a link: with this link-local address, or else whoever is the neighbour there. Both families, IPv4 over IPv6
    /// next hops (RFC 8950).
    #[must_use]
    pub fn on_link(interface: &str, address: Option<Ipv6Addr>, asn: impl Into<PeerAs>) -> Self {
        Self {
            families: Families::BOTH,
            interface: Some(interface.to_owned()),
            ..Self::new(link::identity(interface, address), asn)
        }
    }

    /// The address that packets to the peer go to; `None` while it is to be found on its link.
    #[must_use]
    pub fn host(&self) -> Option<IpAddr> {
        match (self.address, &self.interface) {
            (IpAddr::V6(identity), Some(_)) => link::named(identity).map(IpAddr::V6),
            (address, _) => Some(address),
        }
    }

    /// What people call the peer: its address, `fe80::1%eth0`, or the interface alone.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.interface, self.host()) {
            (None, _) => self.address.to_string(),
            (Some(interface), None) => interface.clone(),
            (Some(interface), Some(host)) => format!("{host}%{interface}"),
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
        let internal = match self.asn {
            PeerAs::Number(asn) => asn == self.local_asn(own_asn),
            PeerAs::External => false,
            PeerAs::Internal => true,
        };
        if internal {
            SessionType::Ibgp
        } else {
            SessionType::Ebgp
        }
    }

    /// Whether the peer may say this AS number in its OPEN. 0 and AS_TRANS are nobody's (RFC 7607, RFC 6793); external is who
    /// has none of ours.
    #[must_use]
    pub fn admits(&self, asn: u32, own_asn: u32) -> bool {
        match self.asn {
            PeerAs::Number(number) => asn == number,
            PeerAs::Internal => asn == self.local_asn(own_asn),
            PeerAs::External => ![0, AS_TRANS, own_asn, self.local_asn(own_asn)].contains(&asn),
        }
    }

    /// The peer's AS number, if it is known before the peer has said it.
    #[must_use]
    pub fn known_asn(&self, own_asn: u32) -> Option<u32> {
        match self.asn {
            PeerAs::Number(asn) => Some(asn),
            PeerAs::Internal => Some(self.local_asn(own_asn)),
            PeerAs::External => None,
        }
    }
}

impl PeerConfig {
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
