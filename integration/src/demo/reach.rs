//! Step 5: everybody reaches everybody, and the routes are those that a fabric of this kind has, and no others.

use super::Scene;
use crate::bird;
use crate::lab::Lab;
use crate::netns;
use crate::probe::{self, Kind, Seen};
use crate::routes::{self, Route};
use crate::run::{self, wait_for};
use crate::state::Pod;
use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// A new block is at every peer well within this, also on a machine that is busy.
const CONVERGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pods' gateway, answered for by proxy-ARP.
const GATEWAY: &str = "169.254.1.1";
/// MAC of the host's end of every pod's veth.
const HOST_MAC: &str = "ee:ee:ee:ee:ee:ee";
/// An ARP reply that waits for the kernel's `proxy_delay` comes after up to 800 ms; one that does not, in well under this.
const ARP_LIMIT_MS: f64 = 10.0;
/// A machine that is busy may be late now and then, but not every time.
const ARP_TRIES: usize = 10;

/// # Errors
/// Names the first thing that is not so.
pub fn prove(scene: &mut Scene) -> Result<String> {
    let lab = scene.lab()?;
    let blocks = own_blocks(lab)?;
    wait_for("the routers' tables", CONVERGE_TIMEOUT, || {
        router_tables(lab, &blocks)
    })?;
    wait_for("the nodes' tables", CONVERGE_TIMEOUT, || {
        node_tables(lab, &blocks)
    })?;
    let probes = probe::full_mesh(&scene.endpoints, &[Kind::Icmp, Kind::Tcp]);
    let seen = wait_for("everybody reaches everybody", CONVERGE_TIMEOUT, || {
        all_echo(probe::run(&probes)?)
    })?;
    let arp = lab
        .state
        .topology
        .nodes
        .iter()
        .map(|node| proxy_arp(lab, &node.name))
        .collect::<Result<Vec<_>>>()?;
    let looked = routes::check_makers(&lab.state)?;
    Ok(format!(
        "{} of {} probes answered (ICMP and TCP, {} endpoints); {} blocks at the router with their owners as next hop; arping \
         {:.1} ms at most; {looked} pool routes, all Twill's or BIRD's",
        seen.len(),
        probes.len(),
        scene.endpoints.len(),
        blocks.len(),
        arp.into_iter().fold(0.0, f64::max)
    ))
}

/// # Errors
/// Names the first probes without an echo.
pub fn all_echo(seen: Vec<Seen>) -> Result<Vec<Seen>> {
    let silent: Vec<_> = seen
        .iter()
        .filter(|s| s.echo.is_err())
        .map(ToString::to_string)
        .collect();
    ensure!(
        silent.is_empty(),
        "{} of {} probes without an echo: {}",
        silent.len(),
        seen.len(),
        silent.iter().take(6).cloned().collect::<Vec<_>>().join("; ")
    );
    Ok(seen)
}

/// The blocks of each node, by the blackhole routes on it. Every local pod must be inside one.
///
/// # Errors
/// When a pod is in no block of its node, or a block has the wrong length.
pub fn own_blocks(lab: &Lab) -> Result<BTreeMap<Ipv4Net, (String, Ipv4Addr)>> {
    let topology = &lab.state.topology;
    let mut blocks = BTreeMap::new();
    for node in &topology.nodes {
        let mut own = Vec::new();
        for route in routes::all(&lab.ns(&node.name))?
            .iter()
            .filter(|r| r.kind == "blackhole")
        {
            if routes::overlaps(topology.pool.cidr, route.to) {
                ensure!(
                    route.to.prefix_len() == topology.pool.block_size && route.protocol == routes::LOCAL,
                    "{}: {route} is not a block of ours",
                    node.name
                );
                own.push(route.to);
                let other = blocks.insert(route.to, (node.name.clone(), node.address));
                ensure!(other.is_none(), "{} is a block of two nodes", route.to);
            }
        }
        for pod in lab.state.pods.iter().filter(|p| p.node == node.name) {
            let address = v4(pod)?;
            ensure!(
                own.iter().any(|b| b.contains(&address)),
                "{} ({address}) is in no blackhole block of {}",
                pod.name,
                node.name
            );
        }
    }
    Ok(blocks)
}

fn router_tables(lab: &Lab, blocks: &BTreeMap<Ipv4Net, (String, Ipv4Addr)>) -> Result<()> {
    let topology = &lab.state.topology;
    for router in &topology.routers {
        let segment_of = |name: &str| topology.node(name).map(|n| n.segment.clone());
        let paths = bird::paths(&lab.state, &router.name)?;
        let kernel = routes::all(&lab.ns(&router.name))?;
        for (block, (owner, address)) in blocks {
            let segment = segment_of(owner)?;
            if !router.links.iter().any(|l| l.segment == segment) {
                continue;
            }
            let hops = paths.get(block).map(Vec::as_slice).unwrap_or_default();
            let expected = topology.nodes.iter().filter(|n| n.segment == segment).count();
            ensure!(
                hops.len() >= expected,
                "{}: {block} of {owner} has {} paths, not one from each of {expected} nodes",
                router.name,
                hops.len()
            );
            let wrong = hops.iter().find(|hop| *hop != address);
            if let Some(hop) = wrong {
                bail!(
                    "{}: a path of {block} has next hop {hop}, its owner {owner} is {address}",
                    router.name
                );
            }
            let installed = kernel.iter().any(|r| r.to == *block && r.via == Some(*address));
            ensure!(
                installed,
                "{}: {block} via {address} is not in the kernel",
                router.name
            );
        }
        let specific = paths.keys().find(|net| {
            routes::overlaps(topology.pool.cidr, **net) && net.prefix_len() != topology.pool.block_size
        });
        if let Some(net) = specific {
            bail!("{}: {net} is not a block of the pool", router.name);
        }
    }
    Ok(())
}

fn node_tables(lab: &Lab, blocks: &BTreeMap<Ipv4Net, (String, Ipv4Addr)>) -> Result<()> {
    let topology = &lab.state.topology;
    for node in &topology.nodes {
        let table = routes::all(&lab.ns(&node.name))?;
        let has = |what: &str, is: &dyn Fn(&Route) -> bool| -> Result<()> {
            ensure!(table.iter().any(is), "{}: no {what}", node.name);
            Ok(())
        };
        for (block, (owner, address)) in blocks.iter().filter(|(_, (owner, _))| *owner != node.name) {
            let direct = topology.node(owner)?.segment == node.segment;
            has(
                &format!("route to {block} of {owner} with protocol {}", routes::BGP),
                &|r| r.to == *block && r.protocol == routes::BGP && (!direct || r.via == Some(*address)),
            )?;
        }
        for pod in lab.state.pods.iter().filter(|p| p.node == node.name) {
            let to = Ipv4Net::from(v4(pod)?);
            has(
                &format!(
                    "link route to {to} of {} with protocol {}",
                    pod.name,
                    routes::LOCAL
                ),
                &|r| {
                    r.to == to
                        && r.protocol == routes::LOCAL
                        && r.dev.as_ref().is_some_and(|d| d.starts_with("cali"))
                },
            )?;
        }
        for host in topology.hosts() {
            has(
                &format!(
                    "route to {} of {} learned by BGP",
                    host.address.trunc(),
                    host.name
                ),
                &|r| r.to == host.address.trunc() && r.protocol == routes::BGP,
            )?;
        }
        let default = table
            .iter()
            .any(|r| r.to.prefix_len() == 0 && r.kind == "unicast");
        ensure!(
            default == node.gateway.is_some(),
            "{}: a default route that nobody asked for",
            node.name
        );
    }
    Ok(())
}

/// Asks for the gateway's MAC from one pod of a node, its permanent neighbour taken away; returns the best time in milliseconds.
fn proxy_arp(lab: &Lab, node: &str) -> Result<f64> {
    let pod = lab
        .state
        .pods
        .iter()
        .find(|p| p.node == node)
        .with_context(|| format!("no pod on {node}"))?;
    let neighbour = |verb: &str| {
        let tail = if verb == "del" {
            String::new()
        } else {
            format!(" lladdr {HOST_MAC} nud permanent")
        };
        netns::ip(&pod.netns, &format!("neigh {verb} {GATEWAY} dev eth0{tail}\n"))
    };
    neighbour("del")
        .with_context(|| format!("{}: the permanent neighbour {GATEWAY} is missing", pod.name))?;
    let asked = ask_gateway(pod);
    neighbour("replace")?;
    asked.with_context(|| format!("{} on {node}: arping {GATEWAY}", pod.name))
}

fn ask_gateway(pod: &Pod) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..ARP_TRIES {
        let mut command = netns::command(&pod.netns, "arping");
        let text = run::output(command.args(["-c", "1", "-w", "2", "-I", "eth0", GATEWAY]), b"")?;
        let (mac, ms) = arp_reply(&text).with_context(|| format!("no reply in {text:?}"))?;
        ensure!(mac == HOST_MAC, "{mac} answered, not {HOST_MAC}");
        best = best.min(ms);
        if best <= ARP_LIMIT_MS {
            return Ok(best);
        }
    }
    bail!("answered after {best:.1} ms at best, more than {ARP_LIMIT_MS} ms")
}

/// MAC and time of a line such as `Unicast reply from 169.254.1.1 [EE:EE:EE:EE:EE:EE]  0.612ms`.
fn arp_reply(text: &str) -> Option<(String, f64)> {
    let line = text.lines().find(|line| line.contains("reply from"))?;
    let (_, rest) = line.split_once('[')?;
    let (mac, time) = rest.split_once(']')?;
    Some((
        mac.to_ascii_lowercase(),
        time.trim().strip_suffix("ms")?.parse().ok()?,
    ))
}

fn v4(pod: &Pod) -> Result<Ipv4Addr> {
    match pod.address {
        Some(IpAddr::V4(address)) => Ok(address),
        other => bail!("{} has no IPv4 address but {other:?}", pod.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arp_reply_is_read_with_its_mac_and_time() {
        let text = "ARPING 169.254.1.1 from 10.244.0.1 eth0\nUnicast reply from 169.254.1.1 [EE:EE:EE:EE:EE:EE]  0.612ms\n";
        assert_eq!(arp_reply(text), Some((HOST_MAC.to_owned(), 0.612)));
        assert_eq!(
            arp_reply("Sent 1 probes (1 broadcast(s))\nReceived 0 response(s)\n"),
            None
        );
    }
}
