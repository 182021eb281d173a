//! The configuration file of `twilld bgp`: YAML with exactly these keys, whatever else stands there is an error that names
//! line, column and key. Its defaults are those of a daemon under an operator's hand: both policies accept, no prefix limit,
//! no penalty after errors.

mod monitor;
mod policy;

use super::{
    AddPath, Config, ConfigError, GracefulRestart, LocalAs, NextHopMode, Origination, PeerConfig,
    RANGE_PEERS_MAX, RangeConfig, RemovePrivate, Secret, Timers,
};
use crate::family::{Families, Family};
use crate::policy::Policy;
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Longest file: room for [`super::PEERS_MAX`] peers with every key.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Prefixes that one file may originate.
pub const NETWORKS_MAX: usize = 65_536;
/// The BGP port (RFC 4271 section 8).
const PORT: u16 = 179;

/// A configuration file that was read and found to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The speaker's configuration.
    pub config: Config,
    /// What it announces by itself.
    pub networks: BTreeMap<IpNet, Origination>,
    /// Where best paths go.
    pub fib: FibKind,
}

/// Where best paths go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FibKind {
    /// Nowhere: a route server or reflector. Every next hop counts as reachable.
    #[default]
    None,
    /// Into the kernel's main table.
    Kernel,
}

/// Why a file is not a configuration.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Longer than [`FILE_BYTES_MAX`].
    #[error("the file has {0} octets, {FILE_BYTES_MAX} are possible")]
    TooLong(usize),
    /// Not YAML, or not these keys and values: says line, column and key.
    #[error("{0}")]
    Yaml(String),
    /// An entry of `peers` without what it needs, or with what it cannot have.
    #[error("peers[{place}]{who}: {what}")]
    Peer {
        /// Its place in the list, from 0.
        place: usize,
        /// Its address, if it has one.
        who: String,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry of `policies` that cannot be one.
    #[error("policies.{name}: {what}")]
    Policy {
        /// Its name.
        name: String,
        /// What is wrong.
        what: crate::wire::community::InvalidCommunity,
    },
    /// More than [`NETWORKS_MAX`] networks.
    #[error("networks: {0} prefixes, {NETWORKS_MAX} are possible")]
    TooManyNetworks(usize),
    /// Well-formed, but no speaker could live with it.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    as_number: u32,
    router_id: Ipv4Addr,
    #[serde(default = "everywhere")]
    listen: Vec<Listen>,
    route_reflector: Option<RouteReflector>,
    #[serde(default)]
    fib: FibKind,
    #[serde(default)]
    networks: Vec<IpNet>,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    peers: Vec<Peer>,
    #[serde(default)]
    bmp: Vec<monitor::Bmp>,
    #[serde(default)]
    mrt: monitor::Mrt,
    #[serde(default)]
    policies: BTreeMap<String, policy::PolicyEntry>,
    #[serde(default)]
    graceful_shutdown: bool,
    multipath: Option<Multipath>,
}

/// Equal paths for the FIB.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Multipath {
    max_paths: Option<u8>,
    relax_as_path: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddPathEntry {
    #[serde(default)]
    receive: bool,
    #[serde(default)]
    send: u8,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalAsEntry {
    as_number: u32,
    #[serde(default)]
    prepend_received: bool,
    #[serde(default)]
    replace: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RemovePrivateName {
    #[default]
    Never,
    All,
    Replace,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listen {
    address: IpAddr,
    #[serde(default = "port")]
    port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RouteReflector {
    cluster_id: Ipv4Addr,
}

/// What peers have unless they say otherwise.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Defaults {
    hold_time: u16,
    connect_retry: u16,
    families: Vec<FamilyName>,
    graceful_restart: bool,
    restart_time: u16,
}

impl Default for Defaults {
    fn default() -> Self {
        let restart = GracefulRestart::default();
        Self {
            hold_time: 90,
            connect_retry: 1,
            families: vec![FamilyName::Ipv4Unicast, FamilyName::Ipv6Unicast],
            graceful_restart: restart.enabled,
            restart_time: restart.restart_secs,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FamilyName {
    Ipv4Unicast,
    Ipv6Unicast,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Peer {
    address: Option<IpAddr>,
    range: Option<IpNet>,
    max_peers: Option<u32>,
    port: Option<u16>,
    as_number: u32,
    passive: Option<bool>,
    password: Option<String>,
    ttl_security_hops: Option<u8>,
    max_prefixes: Option<u32>,
    #[serde(default)]
    route_reflector_client: bool,
    #[serde(default)]
    next_hop_self: bool,
    local_address: Option<IpAddr>,
    #[serde(default)]
    description: String,
    hold_time: Option<u16>,
    connect_retry: Option<u16>,
    send_hold_time: Option<u16>,
    families: Option<Vec<FamilyName>>,
    graceful_restart: Option<bool>,
    restart_time: Option<u16>,
    #[serde(default)]
    allow_own_as: u8,
    enforce_first_as: Option<bool>,
    bfd: Option<monitor::Bfd>,
    max_prefixes_warn_percent: Option<u8>,
    max_prefixes_restart: Option<u16>,
    delay_open: Option<u16>,
    long_lived_time: Option<u32>,
    add_path: Option<AddPathEntry>,
    extended_messages: Option<bool>,
    extended_next_hop: Option<bool>,
    local_as: Option<LocalAsEntry>,
    #[serde(default)]
    as_override: bool,
    #[serde(default)]
    remove_private: RemovePrivateName,
    #[serde(default)]
    graceful_shutdown: bool,
    honour_graceful_shutdown: Option<bool>,
    interface: Option<String>,
    shutdown: Option<String>,
    import: Option<String>,
    export: Option<String>,
}

fn everywhere() -> Vec<Listen> {
    let listen = |address| Listen { address, port: PORT };
    vec![
        listen(Ipv4Addr::UNSPECIFIED.into()),
        listen(Ipv6Addr::UNSPECIFIED.into()),
    ]
}

impl Listen {
    const fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

const fn port() -> u16 {
    PORT
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// [`FileError`] names what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(FileError::TooLong(text.len()));
        }
        let mut path = None;
        let read = serde_saphyr::with_deserializer_from_str_with_options(text, yaml(), |yaml| {
            serde_path_to_error::deserialize::<_, Document>(yaml).map_err(|error| {
                path = Some(error.path().to_string());
                error.into_inner()
            })
        });
        let named = |error: serde_saphyr::Error| match &path {
            Some(path) if path != "." => format!("{path}: {}", error.render()),
            _ => error.render(),
        };
        read.map_err(|error| FileError::Yaml(named(error)))?.file()
    }
}

/// No excerpts of the file in errors: it has passwords.
fn yaml() -> serde_saphyr::Options {
    serde_saphyr::options! { with_snippet: false }
}

impl Document {
    fn file(self) -> Result<File, FileError> {
        if self.networks.len() > NETWORKS_MAX {
            return Err(FileError::TooManyNetworks(self.networks.len()));
        }
        let mut config = Config::new(self.as_number, self.router_id);
        config.listen = self.listen.iter().map(Listen::socket).collect();
        config.cluster_id = self.route_reflector.map(|r| r.cluster_id);
        config.bmp = self.bmp.iter().map(monitor::Bmp::config).collect();
        config.mrt = self.mrt.config();
        config.graceful_shutdown = self.graceful_shutdown;
        if let Some(multipath) = self.multipath {
            config.paths_max = multipath.max_paths.unwrap_or(config.paths_max);
            config.multipath_relaxed = multipath.relax_as_path.unwrap_or(config.multipath_relaxed);
        }
        let policies = policies(self.policies)?;
        for (place, peer) in self.peers.into_iter().enumerate() {
            let who = match (peer.address, peer.range) {
                (Some(address), _) => format!(" ({address})"),
                (None, Some(net)) => format!(" ({net})"),
                (None, None) => String::new(),
            };
            let refused = |what| FileError::Peer { place, who, what };
            let known = |name: &Option<String>| match name {
                Some(name) => policies.get(name).map(Arc::clone),
                None => Some(Policy::accept_all()),
            };
            let (Some(import), Some(export)) = (known(&peer.import), known(&peer.export)) else {
                return Err(refused("import or export names no entry of policies"));
            };
            match (peer.address, peer.range) {
                (Some(address), None) => {
                    if peer.max_peers.is_some() {
                        return Err(refused("maxPeers is for a range"));
                    }
                    let mut entry = peer.entry(address, &self.defaults, &config.listen);
                    entry.passive = peer.passive.unwrap_or(false);
                    (entry.import, entry.export) = (import, export);
                    config.peers.push(entry);
                }
                (None, Some(net)) => {
                    if peer.passive == Some(false) || peer.port.is_some() {
                        return Err(refused(
                            "the peers of a range are passive: nobody knows who is there to dial",
                        ));
                    }
                    let mut range = RangeConfig::new(net, peer.as_number);
                    range.peers_max = peer.max_peers.unwrap_or(RANGE_PEERS_MAX);
                    range.template = PeerConfig {
                        passive: true,
                        import,
                        export,
                        ..peer.entry(range.template.address, &self.defaults, &config.listen)
                    };
                    config.ranges.push(range);
                }
                (Some(_), Some(_)) => return Err(refused("it has both address and range")),
                (None, None) => return Err(refused("it has neither address nor range")),
            }
        }
        config.check()?;
        let networks = self
            .networks
            .into_iter()
            .map(|net| (net.trunc(), Origination::default()));
        Ok(File {
            config,
            networks: networks.collect(),
            fib: self.fib,
        })
    }
}

impl Peer {
    fn entry(&self, address: IpAddr, defaults: &Defaults, listen: &[SocketAddr]) -> PeerConfig {
        let own = |v4: bool| {
            let of_family = |a: &IpAddr| a.is_ipv4() == v4 && !a.is_unspecified();
            self.local_address
                .into_iter()
                .chain(listen.iter().map(SocketAddr::ip))
                .find(of_family)
        };
        let secs = |s: u16| Duration::from_secs(s.into());
        PeerConfig {
            port: self.port.unwrap_or(PORT),
            description: self.description.clone(),
            local_address: self.local_address,
            next_hop_v4: own(true).and_then(|a| match a {
                IpAddr::V4(a) => Some(a),
                IpAddr::V6(_) => None,
            }),
            next_hop_v6: own(false).and_then(|a| match a {
                IpAddr::V6(a) => Some(a),
                IpAddr::V4(_) => None,
            }),
            families: families(self.families.as_ref().unwrap_or(&defaults.families)),
            timers: Timers {
                hold_secs: self.hold_time.unwrap_or(defaults.hold_time),
                connect_retry: secs(self.connect_retry.unwrap_or(defaults.connect_retry)),
                send_hold: self.send_hold_time.map(secs),
                delay_open: self.delay_open.map(secs),
                ..Timers::default()
            },
            graceful_restart: GracefulRestart {
                enabled: self.graceful_restart.unwrap_or(defaults.graceful_restart),
                restart_secs: self.restart_time.unwrap_or(defaults.restart_time),
                long_lived_secs: self.long_lived_time,
                ..GracefulRestart::default()
            },
            route_reflector_client: self.route_reflector_client,
            next_hop: if self.next_hop_self {
                NextHopMode::SelfAddress
            } else {
                NextHopMode::Auto
            },
            prefixes_max: self.max_prefixes,
            enforce_first_as: self.enforce_first_as.unwrap_or(true),
            own_as_allowed: self.allow_own_as,
            idle_hold: false,
            password: self.password.clone().map(Secret),
            ttl_security_hops: self.ttl_security_hops,
            bfd: self.bfd.as_ref().and_then(monitor::Bfd::params),
            prefixes_warn_percent: self.max_prefixes_warn_percent.unwrap_or(80),
            prefixes_restart: self.max_prefixes_restart.map(secs),
            add_path: self.add_path(defaults),
            extended_messages: self.extended_messages.unwrap_or(true),
            extended_next_hop: self.extended_next_hop.unwrap_or(true),
            local_as: self.local_as.map(|l| LocalAs {
                asn: l.as_number,
                prepend_received: l.prepend_received,
                replace: l.replace,
            }),
            as_override: self.as_override,
            remove_private: match self.remove_private {
                RemovePrivateName::Never => RemovePrivate::Never,
                RemovePrivateName::All => RemovePrivate::All,
                RemovePrivateName::Replace => RemovePrivate::Replace,
            },
            graceful_shutdown: self.graceful_shutdown,
            honour_graceful_shutdown: self.honour_graceful_shutdown.unwrap_or(true),
            interface: self.interface.clone(),
            shutdown: self.shutdown.clone(),
            ..PeerConfig::new(address, self.as_number)
        }
    }
}

impl Peer {
    /// In all families of the session.
    fn add_path(&self, defaults: &Defaults) -> AddPath {
        let all = families(self.families.as_ref().unwrap_or(&defaults.families));
        self.add_path.map_or_else(AddPath::default, |a| AddPath {
            receive: if a.receive { all } else { Families::NONE },
            send: if a.send > 0 { all } else { Families::NONE },
            send_max: a.send,
        })
    }
}

fn policies(
    entries: BTreeMap<String, policy::PolicyEntry>,
) -> Result<BTreeMap<String, Arc<Policy>>, FileError> {
    let read = |(name, entry): (String, policy::PolicyEntry)| match entry.policy() {
        Ok(policy) => Ok((name, policy)),
        Err(what) => Err(FileError::Policy { name, what }),
    };
    entries.into_iter().map(read).collect()
}

fn families(names: &[FamilyName]) -> Families {
    let mut families = Families::NONE;
    for name in names {
        *families.at_mut(match name {
            FamilyName::Ipv4Unicast => Family::Ipv4Unicast,
            FamilyName::Ipv6Unicast => Family::Ipv6Unicast,
        }) = true;
    }
    families
}

#[cfg(test)]
mod tests;
