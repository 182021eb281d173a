//! Step 3: daemons register, a pool is applied, everybody peers with everybody.

use super::Scene;
use crate::bird;
use crate::lab::Lab;
use crate::netns;
use crate::run::{self, wait_for};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Both sides retry a connection within seconds.
const PEER_TIMEOUT: Duration = Duration::from_secs(20);
/// The BGP port.
const BGP_PORT: u16 = 179;

/// # Errors
/// When a node does not register or a session does not come up.
pub fn peer(scene: &mut Scene) -> Result<String> {
    let lab = scene.lab_mut()?;
    lab.start_nodes()?;
    registered(lab)?;
    lab.configure()?;
    let (mesh, external) = sessions_up(lab)?;
    Ok(format!(
        "{} nodes ready and registered, pool {} applied; on port {BGP_PORT}: {mesh} iBGP ends, {external} eBGP sessions",
        lab.state.topology.nodes.len(),
        lab.state.topology.pool.cidr
    ))
}

fn registered(lab: &Lab) -> Result<()> {
    let nodes = &lab.state.topology.nodes;
    let first = nodes.first().context("a lab has a node")?;
    let objects = lab.ctl(&first.name)?.objects(&["get", "nodes"])?;
    for node in nodes {
        let object = objects
            .iter()
            .find(|o| o["metadata"]["name"] == node.name.as_str());
        let object = object.with_context(|| format!("twillctl get nodes does not list {}", node.name))?;
        let address = object["spec"]["bgp"]["ipv4Address"].as_str().unwrap_or_default();
        ensure!(
            address.split('/').next() == Some(&node.address.to_string()),
            "{} is registered with {address:?}, not {}",
            node.name,
            node.address
        );
    }
    Ok(())
}

/// Waits until every BIRD says Established for every session and every node holds a connection on the BGP port to every peer.
///
/// # Errors
/// At the deadline, with the first session that is not up.
pub fn sessions_up(lab: &Lab) -> Result<(usize, usize)> {
    let topology = &lab.state.topology;
    let mut external = 0;
    for router in &topology.routers {
        external += wait_for("eBGP sessions", PEER_TIMEOUT, || {
            bird::check_sessions(&lab.state, &router.name)
        })?;
    }
    let mut mesh = 0;
    for node in &topology.nodes {
        let peers: BTreeSet<_> = topology
            .nodes
            .iter()
            .filter(|n| n.name != node.name)
            .map(|n| n.address)
            .collect();
        mesh += peers.len();
        wait_for(&format!("iBGP sessions of {}", node.name), PEER_TIMEOUT, || {
            let text = run::output(
                netns::command(&lab.ns(&node.name), "ss").args(["-tnH", "state", "established"]),
                b"",
            )?;
            let connected: BTreeSet<_> = text.lines().filter_map(bgp_peer).collect();
            let missing: Vec<_> = peers.difference(&connected).map(ToString::to_string).collect();
            ensure!(
                missing.is_empty(),
                "{} has no connection on port {BGP_PORT} to {}",
                node.name,
                missing.join(", ")
            );
            Ok(())
        })?;
    }
    Ok((mesh, external))
}

/// The peer's address when a line of `ss` is a connection with the BGP port at either end.
fn bgp_peer(line: &str) -> Option<std::net::Ipv4Addr> {
    let ends: Vec<SocketAddr> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    let [local, peer] = ends.as_slice() else {
        return None;
    };
    let bgp = local.port() == BGP_PORT || peer.port() == BGP_PORT;
    match peer.ip() {
        std::net::IpAddr::V4(address) if bgp => Some(address),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_by_its_bgp_port_at_either_end() {
        let peer = |line| bgp_peer(line).map(|a| a.to_string());
        assert_eq!(
            peer("0 0 172.31.0.1:40000 172.31.0.2:179").as_deref(),
            Some("172.31.0.2")
        );
        assert_eq!(
            peer("0 0 172.31.0.1:179 172.31.0.3:51000").as_deref(),
            Some("172.31.0.3")
        );
        assert_eq!(peer("0 0 172.31.0.1:40000 172.31.0.250:2379"), None);
    }
}
