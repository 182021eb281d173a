//! The speaker's configuration as a function of Node, BGPConfiguration, BGPPeer and IPPool resources: who peers with
//! whom (calico-node's confd semantics, 4.1), with which policies. Pure: same resources, same sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use twill_bgp::config::LocalAs;
use twill_bgp::{Config, PeerConfig};
use twill_model::resources::bgpconfiguration::BindMode;
use twill_model::resources::{BgpConfiguration, Node};

use super::policies::{self, Policies};
use super::secrets::Passwords;
use super::session::Session;
use super::tuning::Tuning;
use crate::fabric::Fabric;

/// The cluster's AS if no resource says.
pub(crate) const DEFAULT_AS: u32 = 64512;
/// Where BGP listens if no resource says (RFC 4271 section 8).
pub(crate) const BGP_PORT: u16 = 179;
/// On a Node: `true` asks its peers to go elsewhere (RFC 8326). `twillctl node drain` sets it.
const DRAIN: &str = "twill.net/drain";
/// Metric of routes if no resource says, as Calico.
const NORMAL_ROUTE_PRIORITY: u32 = 1024;

/// Why a peer exists, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerType {
    /// The node-to-node mesh.
    Mesh,
    /// A BGPPeer without node or nodeSelector.
    Global,
    /// A BGPPeer for this node.
    Node,
}

/// Where a peer's configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) kind: PeerType,
    /// Name of the BGPPeer, or of the other Node.
    pub(crate) name: String,
}

/// The speaker's configuration, what each peer stands for, and what could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Derived {
    pub(crate) config: Config,
    pub(crate) sources: BTreeMap<IpAddr, Source>,
    /// Gateways to peers, by the route to the peer (`reachableBy`).
    pub(crate) gateways: BTreeMap<IpNet, IpAddr>,
    /// One sentence each, naming the resource.
    pub(crate) warnings: Vec<String>,
    /// All pools: what strangers announce there is worth a warning.
    pub(crate) pools: Vec<IpNet>,
    /// AS numbers of the fabric's nodes.
    pub(crate) asns: BTreeSet<u32>,
}

/// What concerns this node as a whole.
#[derive(Debug)]
pub(super) struct Local<'a> {
    pub(super) name: &'a str,
    pub(super) node: &'a Node,
    pub(super) asn: u32,
    pub(super) fabric: &'a Fabric,
    pub(super) passwords: &'a Passwords,
}

impl Local<'_> {
    /// Our cluster ID, if we reflect routes.
    pub(super) fn cluster_id(&self) -> Option<Ipv4Addr> {
        cluster_id(self.node)
    }

    /// Our address with its subnet, in the family of `peer`.
    pub(super) fn address_towards(&self, peer: IpAddr) -> Option<IpNet> {
        addresses(self.node)
            .into_iter()
            .find(|net| net.addr().is_ipv4() == peer.is_ipv4())
    }
}

/// A node's cluster ID, if it reflects routes.
pub(super) fn cluster_id(node: &Node) -> Option<Ipv4Addr> {
    let bgp = node.spec.bgp.as_ref();
    bgp.and_then(|b| b.route_reflector_cluster_id).map(|id| id.0)
}

/// Derives the configuration of node `own`, which announces `ours` and has read `passwords`. `None` while the node has no
/// address to speak from: there is nobody to be.
pub(crate) fn bgp_config(
    own: &str,
    fabric: &Fabric,
    ours: &BTreeSet<IpNet>,
    passwords: &Passwords,
) -> Option<Derived> {
    let node = fabric.nodes.get(own)?;
    let addresses = addresses(node);
    let asn = as_number(node, fabric);
    let mut config = Config::new(asn, router_id(own, &addresses)?);
    config.listen = listen(own, fabric, &addresses);
    config.track_next_hops = true;
    config.cluster_id = cluster_id(node);
    config.graceful_shutdown = node.metadata.annotations.get(DRAIN).is_some_and(|v| v == "true");
    let local = Local {
        name: own,
        node,
        asn,
        fabric,
        passwords,
    };
    let mut policies = Policies::new(&local, ours);
    let (mut sources, mut gateways, mut warnings) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let tunings = super::tuning::here(&local, &mut warnings);
    for session in super::peers::sessions(&local, &mut warnings) {
        let (address, source) = (session.address, session.source.clone());
        let gateway = session.reachable_by;
        let tuning = Tuning::of(&tunings, &source);
        match peer_config(&local, &mut policies, &tuning, session) {
            Ok(peer) => config.peers.push(peer),
            Err(reason) => {
                warnings.push(format!(
                    "the session with {address} ({}) is not opened: {reason}",
                    source.name
                ));
                continue;
            }
        }
        sources.insert(address, source);
        gateways.extend(gateway.map(|gateway| (IpNet::from(address), gateway)));
    }
    warnings.append(&mut policies.warnings);
    warnings.sort();
    warnings.dedup();
    Some(Derived {
        config,
        sources,
        gateways,
        warnings,
        pools: local
            .fabric
            .pools
            .values()
            .map(|p| p.spec.cidr.masked())
            .collect(),
        asns: policies::own_asns(&local),
    })
}

fn peer_config(
    local: &Local<'_>,
    policies: &mut Policies<'_>,
    tuning: &Tuning<'_>,
    session: Session,
) -> Result<PeerConfig, String> {
    let mut peer = PeerConfig::new(session.address, session.asn);
    let ours = local.address_towards(session.address);
    peer.port = session.port;
    peer.description = session.source.name;
    peer.local_address = ours.map(|net| net.addr()).filter(|_| session.from_node_address);
    peer.shared_subnet = ours
        .map(|net| net.trunc())
        .filter(|net| net.contains(&session.address));
    peer.passive = session.passive;
    peer.next_hop = session.next_hop;
    peer.own_as_allowed = session.own_as_allowed;
    peer.ttl_security_hops = session.ttl_security_hops;
    peer.route_reflector_client = session.route_reflector_client;
    if let Some(secs) = session.restart_secs {
        peer.graceful_restart.restart_secs = secs;
    }
    // As BIRD's `local as`: to this peer we are that AS and no other.
    peer.local_as = session.local_asn.map(|asn| LocalAs {
        asn,
        prepend_received: false,
        replace: true,
    });
    peer.timers.keepalive = session.keepalive;
    peer.password = session.password;
    let pair = policies.of(&session.filters, tuning.is_strict())?;
    (peer.import, peer.export) = (pair.import, pair.export);
    tuning.apply(&mut peer);
    // One that the speaker refuses must not take the others with it.
    let mut alone = Config::new(local.asn, Ipv4Addr::LOCALHOST);
    alone.peers.push(peer.clone());
    alone.check().map_err(|error| error.to_string())?;
    Ok(peer)
}

/// A node's BGP addresses with their subnets, IPv4 first.
pub(crate) fn addresses(node: &Node) -> Vec<IpNet> {
    let Some(bgp) = &node.spec.bgp else {
        return Vec::new();
    };
    [&bgp.ipv4_address, &bgp.ipv6_address]
        .into_iter()
        .flatten()
        .map(|net| net.as_written())
        .collect()
}

/// A node's AS number: its own, or the cluster's.
pub(super) fn as_number(node: &Node, fabric: &Fabric) -> u32 {
    let own = node.spec.bgp.as_ref().and_then(|b| b.as_number);
    let cluster = || default_configuration(fabric).and_then(|c| c.spec.as_number);
    own.or_else(cluster).map_or(DEFAULT_AS, |asn| asn.0)
}

/// The port that a node listens on: its own, or the cluster's.
pub(super) fn listen_port(node: &str, fabric: &Fabric) -> u16 {
    let of = |c: Option<&Arc<BgpConfiguration>>| c.map_or(0, |c| c.spec.listen_port);
    [
        of(node_configuration(node, fabric)),
        of(default_configuration(fabric)),
    ]
    .into_iter()
    .find(|port| *port != 0)
    .unwrap_or(BGP_PORT)
}

/// LOCAL_PREF of what we announce: 2147483647 - metric, as Calico 3.32 and later, so that neither side's copy of a
/// prefix wins by accident.
pub(super) fn local_pref(fabric: &Fabric, net: &IpNet) -> u32 {
    let of = |c: &BgpConfiguration| match net {
        IpNet::V4(_) => c.spec.ipv4_normal_route_priority,
        IpNet::V6(_) => c.spec.ipv6_normal_route_priority,
    };
    let priority = default_configuration(fabric)
        .and_then(|c| of(c))
        .and_then(|p| u32::try_from(p).ok());
    policies::LOCAL_PREF_BASE - priority.unwrap_or(NORMAL_ROUTE_PRIORITY)
}

pub(super) fn default_configuration(fabric: &Fabric) -> Option<&Arc<BgpConfiguration>> {
    fabric.bgp_configurations.get("default")
}

pub(super) fn node_configuration<'a>(node: &str, fabric: &'a Fabric) -> Option<&'a Arc<BgpConfiguration>> {
    fabric.bgp_configurations.get(&format!("node.{node}"))
}

/// The IPv4 address; on a node without one, four octets of a hash of its name, as confd's `hash` does, kept out of the
/// multicast and zero ranges.
fn router_id(own: &str, addresses: &[IpNet]) -> Option<Ipv4Addr> {
    if let Some(IpAddr::V4(v4)) = addresses.iter().map(IpNet::addr).find(IpAddr::is_ipv4) {
        return Some(v4);
    }
    addresses.first()?;
    let hash = own.bytes().fold(0x811c_9dc5_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    Some(Ipv4Addr::from(hash & 0x7fff_ffff | 0x0100_0000))
}

fn listen(own: &str, fabric: &Fabric, addresses: &[IpNet]) -> Vec<SocketAddr> {
    let port = listen_port(own, fabric);
    let mode = [node_configuration(own, fabric), default_configuration(fabric)]
        .into_iter()
        .flatten()
        .find_map(|c| c.spec.bind_mode);
    let bound = |net: &IpNet| match (&mode, net) {
        (Some(BindMode::NodeIp), net) => net.addr(),
        (_, IpNet::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (_, IpNet::V6(_)) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    addresses
        .iter()
        .map(|net| SocketAddr::new(bound(net), port))
        .collect()
}

#[cfg(test)]
mod tests;
