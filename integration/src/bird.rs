//! Routers outside the fabric: BIRD 2, its configuration and what `birdc` tells.

use crate::child::{Child, Life};
use crate::run;
use crate::state::State;
use crate::topology::{Router, Topology};
use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

/// A session as `birdc show protocols` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The peer's name.
    pub peer: String,
    /// `Established` when it is up; otherwise what BIRD says.
    pub info: String,
}

/// BIRD's configuration for one router: a session to each node and each router that shares a segment with it, the networks behind
/// it announced, graceful restart on, everything learned put into its kernel.
///
/// # Errors
/// When the topology names a segment that it does not have.
pub fn config(topology: &Topology, router: &Router) -> Result<String> {
    let id = router.links.first().context("a router has a link")?.address;
    let mut text = format!(
        "log stderr all;\nrouter id {id};\nprotocol device {{ scan time 5; }}\nprotocol direct {{ ipv4; }}\n\
         protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n"
    );
    for link in &router.links {
        let subnet = topology.subnet(&link.segment)?;
        for node in topology.nodes.iter().filter(|n| n.segment == link.segment) {
            session(
                &mut text,
                router,
                link.address,
                &node.name,
                node.address,
                topology.as_number,
                subnet,
            )?;
        }
        for other in topology.routers.iter().filter(|o| o.name != router.name) {
            for far in other.links.iter().filter(|l| l.segment == link.segment) {
                session(
                    &mut text,
                    router,
                    link.address,
                    &other.name,
                    far.address,
                    other.as_number,
                    subnet,
                )?;
            }
        }
    }
    Ok(text)
}

fn session(
    text: &mut String,
    router: &Router,
    local: Ipv4Addr,
    peer: &str,
    address: Ipv4Addr,
    peer_as: u32,
    subnet: Ipv4Net,
) -> std::fmt::Result {
    // The peer sits on the segment already: announcing it would only fight with its own connected route.
    writeln!(
        text,
        "protocol bgp {peer} {{\n  local {local} as {};\n  neighbor {address} as {peer_as};\n  graceful restart on;\n  \
         connect delay time 1;\n  connect retry time 3;\n  error wait time 1, 10;\n  \
         ipv4 {{ import all; export where net != {subnet}; }};\n}}",
        router.as_number
    )
}

/// Starts the BIRD of a router.
///
/// # Errors
/// When its directory cannot be written or BIRD cannot be started.
pub fn start(state: &State, router: &Router, life: Life) -> Result<Child> {
    let dir = state.member_dir(&router.name);
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let conf = dir.join("bird.conf");
    std::fs::write(&conf, config(&state.topology, router)?)
        .with_context(|| format!("writing {}", conf.display()))?;
    let args = [
        "-f",
        "-c",
        &conf.to_string_lossy(),
        "-s",
        &dir.join("bird.ctl").to_string_lossy(),
    ]
    .map(str::to_owned);
    let role = format!("bird {}", router.name);
    Child::start(
        &role,
        &state.namespace(&router.name),
        Path::new("bird"),
        &args,
        &dir.join("bird.log"),
        life,
    )
}

/// Asks a router's BIRD.
///
/// # Errors
/// When it does not answer.
pub fn birdc(state: &State, router: &str, words: &[&str]) -> Result<String> {
    let socket = state.member_dir(router).join("bird.ctl");
    run::output(Command::new("birdc").arg("-s").arg(socket).args(words), b"")
}

/// The BGP sessions of a router.
///
/// # Errors
/// When BIRD does not answer.
pub fn sessions(state: &State, router: &str) -> Result<Vec<Session>> {
    Ok(parse_sessions(&birdc(state, router, &["show", "protocols"])?))
}

/// All paths in a router's table: prefix to next hops, one for each path.
///
/// # Errors
/// When BIRD does not answer.
pub fn paths(state: &State, router: &str) -> Result<BTreeMap<Ipv4Net, Vec<Ipv4Addr>>> {
    Ok(parse_paths(&birdc(state, router, &["show", "route"])?))
}

/// # Errors
/// Names the first session of a router that is not up.
pub fn check_sessions(state: &State, router: &str) -> Result<usize> {
    let sessions = sessions(state, router)?;
    for session in &sessions {
        ensure!(
            session.info == "Established",
            "{router}: session to {} is {}",
            session.peer,
            session.info
        );
    }
    Ok(sessions.len())
}

fn parse_sessions(text: &str) -> Vec<Session> {
    let rows = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(1) == Some(&"BGP"))
        // name, protocol, table, state, since, info
        .map(|row| Session {
            peer: row.first().unwrap_or(&"").to_string(),
            info: row.get(5..).map_or_else(String::new, |info| info.join(" ")),
        })
        .collect()
}

fn parse_paths(text: &str) -> BTreeMap<Ipv4Net, Vec<Ipv4Addr>> {
    let mut paths: BTreeMap<Ipv4Net, Vec<Ipv4Addr>> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if let Ok(net) = first.parse::<Ipv4Net>() {
            current = Some(net);
            paths.entry(net).or_default();
        } else if let ("via", Some(net)) = (first, current)
            && let Some(hop) = words.next().and_then(|w| w.parse().ok())
        {
            paths.entry(net).or_default().push(hop);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::TWO_RACKS;

    #[test]
    fn a_router_peers_with_the_nodes_of_its_rack_and_the_other_router() {
        let topology = Topology::parse(TWO_RACKS).unwrap();
        let text = config(&topology, &topology.routers[0]).unwrap();
        for peer in [
            "bgp n1",
            "bgp n2",
            "bgp tor2",
            "neighbor 172.31.255.2 as 64998",
            "router id 172.31.0.254",
        ] {
            assert!(text.contains(peer), "{peer} in\n{text}");
        }
        assert!(!text.contains("bgp n3"), "{text}");
    }

    #[test]
    fn every_path_of_a_prefix_is_read_with_its_next_hop() {
        let text = "BIRD 2.0.12 ready.\nTable master4:\n\
            10.244.0.0/26        unicast [n1 12:00:00.1] * (100) [AS64512i]\n\tvia 172.31.0.1 on eth0\n\
            \x20                    unicast [n2 12:00:00.2] (100) [AS64512i]\n\tvia 172.31.0.1 on eth0\n\
            192.0.2.0/24         unicast [direct1 12:00:00.0] * (240)\n\tdev eth1\n";
        let paths = parse_paths(text);
        assert_eq!(
            paths[&"10.244.0.0/26".parse().unwrap()],
            [Ipv4Addr::new(172, 31, 0, 1); 2]
        );
        assert!(paths[&"192.0.2.0/24".parse().unwrap()].is_empty());
    }

    #[test]
    fn sessions_are_read_with_what_keeps_them_down() {
        let text = "BIRD 2.0.12 ready.\nName       Proto      Table      State  Since         Info\n\
            device1    Device     ---        up     12:00:00.1\n\
            n1         BGP        ---        up     12:00:00.1  Established   \n\
            n2         BGP        ---        start  12:00:00.1  Active        Socket: Connection refused\n";
        let sessions = parse_sessions(text);
        assert_eq!(sessions.len(), 2);
        assert_eq!(sessions[0].info, "Established");
        assert_eq!(sessions[1].info, "Active Socket: Connection refused");
    }
}
