//! Who this node peers with: the mesh, and BGPPeers that concern it from either end.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use twill_bgp::config::NextHopMode as SpeakerNextHop;
use twill_model::resources::bgppeer::{NextHopMode, ReversePeering, SourceAddress};
use twill_model::resources::{BgpPeer, Node};
use twill_model::selector::Selector;

use super::config::{
    BGP_PORT, Local, PeerType, Source, addresses, as_number, default_configuration, listen_port,
};

/// RFC 4724: the restart time has twelve bits.
const RESTART_SECS_MAX: u64 = 4095;

/// One session that resources ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) asn: u32,
    pub(super) passive: bool,
    pub(super) source: Source,
    pub(super) from_node_address: bool,
    pub(super) next_hop: SpeakerNextHop,
    pub(super) own_as_allowed: u8,
    pub(super) ttl_security_hops: Option<u8>,
    pub(super) restart_secs: Option<u16>,
    pub(super) route_reflector_client: bool,
}

/// All sessions of this node by address. Where several resources name one address, global BGPPeers win over those for
/// nodes, in order of name, and both over the mesh: they say more.
pub(super) fn sessions(local: &Local<'_>, warnings: &mut Vec<String>) -> Vec<Session> {
    let mut by_address: BTreeMap<IpAddr, Session> = BTreeMap::new();
    let (global, scoped): (Vec<_>, Vec<_>) = local
        .fabric
        .bgp_peers
        .iter()
        .partition(|(_, p)| p.spec.node.is_empty() && p.spec.node_selector.is_empty());
    for (name, peer) in global.into_iter().chain(scoped) {
        match of_peer(local, name, peer) {
            Ok(sessions) => {
                for session in sessions {
                    by_address.entry(session.address).or_insert(session);
                }
            }
            Err(reason) => warnings.push(format!("BGPPeer {name} is not used: {reason}")),
        }
    }
    for session in mesh(local) {
        by_address.entry(session.address).or_insert(session);
    }
    by_address.into_values().collect()
}

/// Every other node, unless it or we reflect routes or the mesh is off.
fn mesh(local: &Local<'_>) -> Vec<Session> {
    let config = default_configuration(local.fabric);
    let enabled = config
        .and_then(|c| c.spec.node_to_node_mesh_enabled)
        .unwrap_or(true);
    if !enabled || cluster_id(local.node).is_some() {
        return Vec::new();
    }
    let restart = config.and_then(|c| c.spec.node_mesh_max_restart_time);
    let others = local
        .fabric
        .nodes
        .iter()
        .filter(|(name, node)| *name != local.name && cluster_id(node).is_none());
    let sessions = others.flat_map(|(name, node)| {
        let source = Source {
            kind: PeerType::Mesh,
            name: name.clone(),
        };
        addresses(node)
            .into_iter()
            .map(move |net| (net.addr(), source.clone(), as_number(node, local.fabric)))
    });
    let session = |(address, source, asn): (IpAddr, Source, u32)| {
        let ours = local.address_towards(address)?;
        let port = listen_port(&source.name, local.fabric);
        let passive = is_passive(ours.addr(), address);
        let restart_secs = restart.map(|r| restart_secs(r.to_std().as_secs()));
        Some(Session {
            passive,
            restart_secs,
            ..plain(address, port, asn, source)
        })
    };
    sessions
        .filter_map(session)
        .filter(|s| !is_own(local, s.address))
        .collect()
}

/// The sessions that one BGPPeer asks of us, as its local or as its remote side.
fn of_peer(local: &Local<'_>, name: &str, peer: &BgpPeer) -> Result<Vec<Session>, String> {
    let spec = &peer.spec;
    let here = local_side(local, peer)?;
    let reverse = spec.reverse_peering != Some(ReversePeering::Manual);
    if !spec.local_workload_selector.is_empty() {
        return refuse(
            here.contains_key(local.name),
            "localWorkloadSelector is not supported yet",
        );
    }
    let global = spec.node.is_empty() && spec.node_selector.is_empty();
    let source = Source {
        kind: if global { PeerType::Global } else { PeerType::Node },
        name: name.to_owned(),
    };
    let mut sessions = Vec::new();
    if spec.peer_selector.is_empty() {
        let (address, port) = peer_address(&spec.peer_ip)?;
        let owner = local
            .fabric
            .nodes
            .iter()
            .find(|(_, n)| addresses(n).iter().any(|net| net.addr() == address));
        if here.contains_key(local.name) && !is_own(local, address) {
            let listens = owner.map_or(BGP_PORT, |(name, _)| listen_port(name, local.fabric));
            let passive = owner.is_some()
                && local
                    .address_towards(address)
                    .is_some_and(|o| is_passive(o.addr(), address));
            let session = plain(address, port.unwrap_or(listens), spec.as_number.0, source.clone());
            let client = owner.is_some_and(|(_, n)| is_client(local, n, session.asn))
                || owner.is_none() && cluster_id(local.node).is_some() && session.asn == local.asn;
            sessions.push(Session {
                passive,
                route_reflector_client: client,
                ..session
            });
        }
        if reverse && owner.is_some_and(|(name, _)| name == local.name) {
            sessions.extend(towards_nodes(local, here.into_iter(), &source));
        }
    } else {
        let there = selected(local, "peerSelector", &spec.peer_selector)?;
        if here.contains_key(local.name) {
            sessions.extend(towards_nodes(local, there.clone().into_iter(), &source));
        }
        if reverse && there.contains_key(local.name) {
            sessions.extend(towards_nodes(local, here.into_iter(), &source));
        }
    }
    if sessions.is_empty() {
        return Ok(sessions);
    }
    unsupported(peer)?;
    sessions.iter_mut().for_each(|session| settings(session, peer));
    Ok(sessions)
}

/// The nodes that a BGPPeer is for.
fn local_side<'a>(local: &Local<'a>, peer: &BgpPeer) -> Result<BTreeMap<&'a str, &'a Node>, String> {
    let spec = &peer.spec;
    if !spec.node.is_empty() {
        let named = local.fabric.nodes.get_key_value(&spec.node);
        return Ok(named
            .map(|(name, node)| (name.as_str(), node.as_ref()))
            .into_iter()
            .collect());
    }
    if spec.node_selector.is_empty() {
        return Ok(local
            .fabric
            .nodes
            .iter()
            .map(|(name, node)| (name.as_str(), node.as_ref()))
            .collect());
    }
    selected(local, "nodeSelector", &spec.node_selector)
}

fn selected<'a>(local: &Local<'a>, field: &str, text: &str) -> Result<BTreeMap<&'a str, &'a Node>, String> {
    let selector = Selector::parse(text).map_err(|e| format!("{field}: {e}"))?;
    let nodes = local
        .fabric
        .nodes
        .iter()
        .filter(|(_, node)| selector.matches(&node.metadata.labels));
    Ok(nodes.map(|(name, node)| (name.as_str(), node.as_ref())).collect())
}

/// Both sides of selected nodes are active: collisions are what the FSM is for.
fn towards_nodes<'a>(
    local: &Local<'a>,
    nodes: impl Iterator<Item = (&'a str, &'a Node)>,
    source: &Source,
) -> Vec<Session> {
    let mut sessions = Vec::new();
    for (name, node) in nodes.filter(|(name, _)| *name != local.name) {
        let asn = as_number(node, local.fabric);
        let port = listen_port(name, local.fabric);
        for net in addresses(node)
            .into_iter()
            .filter(|net| local.address_towards(net.addr()).is_some())
        {
            let session = plain(net.addr(), port, asn, source.clone());
            sessions.push(Session {
                route_reflector_client: is_client(local, node, asn),
                ..session
            });
        }
    }
    sessions
}

fn plain(address: IpAddr, port: u16, asn: u32, source: Source) -> Session {
    Session {
        address,
        port,
        asn,
        passive: false,
        source,
        from_node_address: true,
        next_hop: SpeakerNextHop::Auto,
        own_as_allowed: 0,
        ttl_security_hops: None,
        restart_secs: None,
        route_reflector_client: false,
    }
}

fn settings(session: &mut Session, peer: &BgpPeer) {
    let spec = &peer.spec;
    session.next_hop = match &spec.next_hop_mode {
        Some(NextHopMode::Self_) => SpeakerNextHop::SelfAddress,
        Some(NextHopMode::Keep) => SpeakerNextHop::Keep,
        _ if spec.keep_original_next_hop => SpeakerNextHop::Keep,
        _ => SpeakerNextHop::Auto,
    };
    session.from_node_address = spec.source_address != Some(SourceAddress::None);
    session.own_as_allowed = spec
        .num_allowed_local_as_numbers
        .map_or(0, |n| u8::try_from(n).unwrap_or(if n < 0 { 0 } else { u8::MAX }));
    session.ttl_security_hops = spec.ttl_security.filter(|hops| *hops > 0);
    session.restart_secs = spec.max_restart_time.map(|t| restart_secs(t.to_std().as_secs()));
}

/// What would make a session another one than was asked for: better none than an open one.
fn unsupported(peer: &BgpPeer) -> Result<(), String> {
    let spec = &peer.spec;
    let password = spec
        .password
        .is_some()
        .then_some("password: secrets cannot be read yet");
    let local_as = spec
        .local_as_number
        .is_some()
        .then_some("localASNumber is not supported yet");
    let filters = (!spec.filters.is_empty()).then_some("filters: BGPFilter is not supported yet");
    let gateway = (!spec.reachable_by.is_empty()).then_some("reachableBy is not supported yet");
    match [password, local_as, filters, gateway]
        .into_iter()
        .flatten()
        .next()
    {
        Some(reason) => Err(reason.to_owned()),
        None => Ok(()),
    }
}

fn refuse(concerns_us: bool, reason: &str) -> Result<Vec<Session>, String> {
    if concerns_us {
        Err(reason.to_owned())
    } else {
        Ok(Vec::new())
    }
}

/// `ip`, `ip:port` or `[ipv6]:port`.
fn peer_address(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    let socket: SocketAddr = text
        .parse()
        .map_err(|_| format!("peerIP {text:?} is no address, with or without port"))?;
    Ok((socket.ip(), Some(socket.port())))
}

/// The side whose peer's address is the greater *string* waits, as Calico's nodes do it, so that exactly one dials.
fn is_passive(ours: IpAddr, peer: IpAddr) -> bool {
    peer.to_string() > ours.to_string()
}

fn is_own(local: &Local<'_>, address: IpAddr) -> bool {
    addresses(local.node).iter().any(|net| net.addr() == address)
}

fn cluster_id(node: &Node) -> Option<std::net::Ipv4Addr> {
    node.spec
        .bgp
        .as_ref()
        .and_then(|b| b.route_reflector_cluster_id)
        .map(|id| id.0)
}

/// RFC 4456: an internal peer of ours that is no reflector of our own cluster.
fn is_client(local: &Local<'_>, peer: &Node, asn: u32) -> bool {
    let ours = cluster_id(local.node);
    ours.is_some() && asn == local.asn && cluster_id(peer) != ours
}

fn restart_secs(secs: u64) -> u16 {
    u16::try_from(secs.min(RESTART_SECS_MAX)).unwrap_or(u16::MAX)
}
