//! Who this node peers with: the mesh, and BGPPeers that concern it from either end.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use twill_model::resources::bgppeer::ReversePeering;
use twill_model::resources::{BgpPeer, Node};
use twill_model::selector::Selector;

use super::config::{
    BGP_PORT, Local, PeerType, Source, addresses, as_number, cluster_id, default_configuration, listen_port,
};
use super::session::{Session, password, restart_secs};

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
    match mesh(local) {
        Ok(sessions) => {
            for session in sessions {
                by_address.entry(session.address).or_insert(session);
            }
        }
        Err(reason) => warnings.push(format!("the node-to-node mesh is not opened: {reason}")),
    }
    by_address.into_values().collect()
}

/// Every other node, unless it or we reflect routes or the mesh is off.
fn mesh(local: &Local<'_>) -> Result<Vec<Session>, String> {
    let config = default_configuration(local.fabric);
    let enabled = config
        .and_then(|c| c.spec.node_to_node_mesh_enabled)
        .unwrap_or(true);
    if !enabled || cluster_id(local.node).is_some() {
        return Ok(Vec::new());
    }
    let key = config.and_then(|c| c.spec.node_mesh_password.as_ref());
    let key = password("nodeMeshPassword", key, local.passwords)?;
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
        let restart_secs = restart.map(|r| restart_secs(r.to_std()));
        Some(Session {
            passive,
            restart_secs,
            password: key.clone(),
            ..Session::plain(address, port, asn, source)
        })
    };
    Ok(sessions
        .filter_map(session)
        .filter(|s| !is_own(local, s.address))
        .collect())
}

/// The sessions that one BGPPeer asks of us, as its local or as its remote side.
fn of_peer(local: &Local<'_>, name: &str, peer: &BgpPeer) -> Result<Vec<Session>, String> {
    let spec = &peer.spec;
    let here = local_side(local, peer)?;
    let reverse = spec.reverse_peering != Some(ReversePeering::Manual);
    let global = spec.node.is_empty() && spec.node_selector.is_empty();
    let source = Source {
        kind: if global { PeerType::Global } else { PeerType::Node },
        name: name.to_owned(),
    };
    let mut sessions = Vec::new();
    if !spec.local_workload_selector.is_empty() {
        if here.contains_key(local.name) {
            sessions = workloads(local, peer, &source)?;
        }
    } else if spec.peer_selector.is_empty() {
        let (address, port) = peer_address(&spec.peer_ip)?;
        let owner = owner(local, address);
        if here.contains_key(local.name) && !is_own(local, address) {
            sessions.push(towards_address(local, peer, &source, (address, port), owner)?);
        }
        let is_us = owner.is_some_and(|(name, node)| {
            let asn = as_number(node, local.fabric);
            // As in calico-node: with another number or port it is another speaker on this host.
            let same_asn = spec.as_number.0 == 0 || spec.as_number.0 == asn;
            name == local.name && same_asn && port.is_none_or(|p| p == listen_port(name, local.fabric))
        });
        if reverse && is_us {
            let near = here.into_iter().filter(|(name, _)| *name != local.name);
            let found = towards_nodes(local, near, &source);
            sessions.extend(
                found
                    .into_iter()
                    .filter(|s| s.address.is_ipv4() == address.is_ipv4()),
            );
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
    for session in &mut sessions {
        session.apply(local, peer)?;
        let internal = session.asn == session.own_asn(local);
        session.route_reflector_client &= internal;
    }
    Ok(sessions)
}

/// The node that has this address.
fn owner<'a>(local: &Local<'a>, address: IpAddr) -> Option<(&'a str, &'a Node)> {
    let has = |node: &Node| addresses(node).iter().any(|net| net.addr() == address);
    let mut nodes = local.fabric.nodes.iter();
    nodes
        .find(|(_, n)| has(n))
        .map(|(name, node)| (name.as_str(), node.as_ref()))
}

/// The session with one address, which may be a node's.
fn towards_address(
    local: &Local<'_>,
    peer: &BgpPeer,
    source: &Source,
    (address, port): (IpAddr, Option<u16>),
    owner: Option<(&str, &Node)>,
) -> Result<Session, String> {
    let spec = &peer.spec;
    let asn = match (spec.as_number.0, owner) {
        (0, Some((_, node))) => as_number(node, local.fabric),
        (0, None) => return Err("asNumber must be set: peerIP is no node's address".to_owned()),
        (asn, _) => asn,
    };
    let listens = owner.map_or(BGP_PORT, |(name, _)| listen_port(name, local.fabric));
    let passive = owner.is_some()
        && source.kind == PeerType::Global
        && local
            .address_towards(address)
            .is_some_and(|o| is_passive(o.addr(), address));
    // The peer's own cluster ID is known of nodes only; whoever has none, or another, is a client.
    let same = owner.is_some_and(|(_, n)| cluster_id(n) == local.cluster_id());
    Ok(Session {
        passive,
        route_reflector_client: local.cluster_id().is_some() && !same,
        ..Session::plain(address, port.unwrap_or(listens), asn, source.clone())
    })
}

/// The workloads of this node that the selector selects, each with all its addresses. They dial us; we answer on any of
/// our addresses.
fn workloads(local: &Local<'_>, peer: &BgpPeer, source: &Source) -> Result<Vec<Session>, String> {
    let spec = &peer.spec;
    let selector =
        Selector::parse(&spec.local_workload_selector).map_err(|e| format!("localWorkloadSelector: {e}"))?;
    if spec.as_number.0 == 0 {
        return Err("asNumber must be set beside localWorkloadSelector".to_owned());
    }
    let found = local
        .fabric
        .own_endpoints
        .values()
        .filter(|(e, _)| selector.matches(&e.metadata.labels));
    let found = found.flat_map(|(e, _)| e.spec.ip_networks.iter().map(|net| net.addr()));
    Ok(found
        .map(|address| Session {
            passive: true,
            from_node_address: false,
            route_reflector_client: local.cluster_id().is_some(),
            ..Session::plain(address, BGP_PORT, spec.as_number.0, source.clone())
        })
        .collect())
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
            let session = Session::plain(net.addr(), port, asn, source.clone());
            sessions.push(Session {
                route_reflector_client: is_client(local, node, asn),
                ..session
            });
        }
    }
    sessions
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

/// RFC 4456: an internal peer of ours that is no reflector of our own cluster.
fn is_client(local: &Local<'_>, peer: &Node, asn: u32) -> bool {
    let ours = local.cluster_id();
    ours.is_some() && asn == local.asn && cluster_id(peer) != ours
}
