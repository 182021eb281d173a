//! The configuration file of `twilld bgp`: YAML with exactly these keys, whatever else stands there is an error that names
//! line, column and key. Its defaults are those of a daemon under an operator's hand: both policies accept, no prefix limit,
//! no penalty after errors.

mod monitor;
mod peer;
mod policy;

use super::{
    Config, ConfigError, GracefulRestart, Limits, Origination, PeerConfig, RANGE_PEERS_MAX, RangeConfig,
};
use crate::family::{Families, Family};
use crate::policy::Policy;
use ipnet::IpNet;
use peer::Peer;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

/// Longest file: room for [`super::PEERS_MAX`] peers with every key.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Prefixes that one file may originate.
pub const NETWORKS_MAX: usize = 65_536;
/// The BGP port (RFC 4271 section 8).
const PORT: u16 = 179;
/// Where metrics are served if only the address is said: the port of Calico's Felix, which `twilld run` has, too.
const METRICS_PORT: u16 = 9091;

/// A configuration file that was read and found to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The speaker's configuration.
    pub config: Config,
    /// What it announces by itself.
    pub networks: BTreeMap<IpNet, Origination>,
    /// Where best paths go.
    pub fib: FibKind,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
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
    /// An entry of `groups` that cannot be one.
    #[error(
        "groups.{0}: a group says what its peers are like, not who they are: no address, range, interface or group"
    )]
    Group(String),
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
    groups: BTreeMap<String, Peer>,
    #[serde(default)]
    peers: Vec<Peer>,
    #[serde(default)]
    limits: LimitsEntry,
    metrics: Option<MetricsEntry>,
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

/// Bounds over all peers.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LimitsEntry {
    routes: Option<u32>,
    attribute_octets: Option<u64>,
    unknown_attribute_octets: Option<u64>,
    pending_neighbours: Option<u32>,
    pending_per_host: Option<NonZeroU32>,
}

impl LimitsEntry {
    fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            routes: self.routes.unwrap_or(default.routes),
            attribute_octets: self.attribute_octets.unwrap_or(default.attribute_octets),
            unknown_octets: self.unknown_attribute_octets.unwrap_or(default.unknown_octets),
            pending: self.pending_neighbours.unwrap_or(default.pending),
            pending_per_host: self
                .pending_per_host
                .map_or(default.pending_per_host, NonZeroU32::get),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsEntry {
    address: IpAddr,
    #[serde(default = "metrics_port")]
    port: u16,
}

const fn metrics_port() -> u16 {
    METRICS_PORT
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
        config.limits = self.limits.limits();
        let context = Context {
            policies: policies(self.policies)?,
            groups: self.groups,
            defaults: self.defaults,
        };
        if let Some((name, _)) = context.groups.iter().find(|(_, g)| g.names_somebody()) {
            return Err(FileError::Group(name.clone()));
        }
        for (place, peer) in self.peers.into_iter().enumerate() {
            let who = match (&peer.address, &peer.range, &peer.interface) {
                (Some(address), ..) => format!(" ({address})"),
                (None, Some(net), _) => format!(" ({net})"),
                (None, None, Some(interface)) => format!(" ({interface})"),
                (None, None, None) => String::new(),
            };
            context
                .add(peer, &mut config)
                .map_err(|what| FileError::Peer { place, who, what })?;
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
            metrics: self.metrics.map(|m| SocketAddr::new(m.address, m.port)),
        })
    }
}

/// What entries of `peers` refer to.
struct Context {
    policies: BTreeMap<String, Arc<Policy>>,
    groups: BTreeMap<String, Peer>,
    defaults: Defaults,
}

impl Context {
    fn policy(&self, name: Option<&String>) -> Option<Arc<Policy>> {
        match name {
            Some(name) => self.policies.get(name).map(Arc::clone),
            None => Some(Policy::accept_all()),
        }
    }

    /// Adds the peer or range that an entry means; what is wrong with it otherwise.
    fn add(&self, peer: Peer, config: &mut Config) -> Result<(), &'static str> {
        let peer = match &peer.group {
            None => peer,
            Some(name) => {
                let group = self.groups.get(name).ok_or("group names no entry of groups")?;
                peer.or(group)
            }
        };
        let asn = peer
            .as_number
            .map(|number| number.0)
            .ok_or("it needs an asNumber, of its own or of its group")?;
        let unknown = "import or export names no entry of policies";
        let import = self.policy(peer.import.as_ref()).ok_or(unknown)?;
        let export = self.policy(peer.export.as_ref()).ok_or(unknown)?;
        let Some(net) = peer.range else {
            if peer.max_peers.is_some() && peer.group.is_none() {
                return Err("maxPeers is for a range");
            }
            let mut entry = peer.entry(peer.somebody(asn)?, &self.defaults, &config.listen);
            entry.passive = peer.passive.unwrap_or(false);
            (entry.import, entry.export) = (import, export);
            config.peers.push(entry);
            return Ok(());
        };
        if peer.address.is_some() {
            return Err("it has both address and range");
        }
        if peer.interface.is_some() {
            return Err("it has both interface and range");
        }
        if peer.passive == Some(false) || peer.port.is_some() {
            return Err("the peers of a range are passive: nobody knows who is there to dial");
        }
        let mut range = RangeConfig::new(net, asn);
        range.peers_max = peer.max_peers.unwrap_or(RANGE_PEERS_MAX);
        range.template = PeerConfig {
            passive: true,
            import,
            export,
            ..peer.entry(range.template, &self.defaults, &config.listen)
        };
        config.ranges.push(range);
        Ok(())
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
