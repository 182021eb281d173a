//! BGP configuration and peers.

use std::net::IpAddr;

use super::{Check, rule, text};
use crate::initial::DEFAULT;
use crate::net::Net;
use crate::resources::bgpconfiguration::{BgpConfiguration, CidrBlock};
use crate::resources::bgppeer::BgpPeerSpec;

pub(super) fn configuration(check: &mut Check, config: &BgpConfiguration) {
    let spec = &config.spec;
    cluster_wide(check, config);
    super::config::log_level(check, "logSeverityScreen", &spec.log_severity_screen);
    for (name, blocks) in [
        ("serviceLoadBalancerIPs", &spec.service_load_balancer_ips),
        ("serviceExternalIPs", &spec.service_external_ips),
        ("serviceClusterIPs", &spec.service_cluster_ips),
    ] {
        check.each(name, blocks, block);
    }
    communities(check, config);
    check.each("ignoredInterfaces", &spec.ignored_interfaces, |check, pattern| {
        if !text::is_interface_pattern(pattern) {
            check.wrong(format!("{pattern:?} is not a pattern of interface names"));
        }
    });
    for (name, addr, v4) in [
        (
            "localWorkloadPeeringIPV4",
            &spec.local_workload_peering_ipv4,
            true,
        ),
        (
            "localWorkloadPeeringIPV6",
            &spec.local_workload_peering_ipv6,
            false,
        ),
    ] {
        let right = text::is_address(addr, v4);
        check.refuse(
            !addr.is_empty() && !right,
            name,
            "is no address of this IP version",
        );
    }
    check.word(
        "programClusterRoutes",
        spec.program_cluster_routes.as_deref(),
        &["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"],
    );
    super::config::priority(check, "ipv4NormalRoutePriority", spec.ipv4_normal_route_priority);
    super::config::priority(check, "ipv6NormalRoutePriority", spec.ipv6_normal_route_priority);
}

/// Some fields stand only in `default`, some only beside others.
fn cluster_wide(check: &mut Check, config: &BgpConfiguration) {
    let spec = &config.spec;
    if config.metadata.name != DEFAULT {
        let reason = "can only be set in the BGPConfiguration named default";
        check.refuse(
            spec.node_to_node_mesh_enabled.is_some(),
            "nodeToNodeMeshEnabled",
            reason,
        );
        check.refuse(spec.as_number.is_some(), "asNumber", reason);
        check.refuse(
            !spec.service_load_balancer_ips.is_empty(),
            "serviceLoadBalancerIPs",
            reason,
        );
        check.refuse(
            !spec.service_external_ips.is_empty(),
            "serviceExternalIPs",
            reason,
        );
        check.refuse(!spec.service_cluster_ips.is_empty(), "serviceClusterIPs", reason);
        check.refuse(spec.node_mesh_password.is_some(), "nodeMeshPassword", reason);
        check.refuse(
            spec.node_mesh_max_restart_time.is_some(),
            "nodeMeshMaxRestartTime",
            reason,
        );
    }
    let no_mesh = spec.node_to_node_mesh_enabled == Some(false);
    let reason = "cannot be set while nodeToNodeMeshEnabled is false";
    check.refuse(
        no_mesh && spec.node_mesh_password.is_some(),
        "nodeMeshPassword",
        reason,
    );
    check.refuse(
        no_mesh && spec.node_mesh_max_restart_time.is_some(),
        "nodeMeshMaxRestartTime",
        reason,
    );
}

fn block(check: &mut Check, block: &CidrBlock) {
    let right = block.cidr.as_ref().is_none_or(is_prefix);
    check.refuse(!right, "cidr", "must be a CIDR without host bits");
}

fn is_prefix(net: &Net) -> bool {
    net.has_prefix_len() && net.is_masked()
}

fn communities(check: &mut Check, config: &BgpConfiguration) {
    let spec = &config.spec;
    let unused = spec.prefix_advertisements.is_empty() && !spec.communities.is_empty();
    check.refuse(
        unused,
        "communities",
        "are used by no entry of prefixAdvertisements",
    );
    check.each("communities", &spec.communities, |check, community| {
        check.refuse(community.name.is_empty(), "name", "must be set");
        check.name("name", &community.name);
        check.refuse(!is_community(&community.value), "value", COMMUNITY);
    });
    check.each(
        "prefixAdvertisements",
        &spec.prefix_advertisements,
        |check, advertisement| {
            let right = advertisement.cidr.as_ref().is_some_and(is_prefix);
            check.refuse(!right, "cidr", "must be a CIDR without host bits");
            check.refuse(
                advertisement.communities.is_empty(),
                "communities",
                "must not be empty",
            );
            check.each("communities", &advertisement.communities, |check, community| {
                let named = spec.communities.iter().any(|c| c.name == *community);
                if !named && !is_community(community) {
                    check.wrong(format!(
                        "{community:?} is neither the name of a community nor {COMMUNITY}"
                    ));
                }
            });
        },
    );
}

/// Most characters of a selector of a peer.
const SELECTOR_MAX: usize = 4096;

pub(super) const COMMUNITY: &str = "a community: aa:nn of 16 bits each, or aa:nn:mm of 32 bits each";

pub(super) fn is_community(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let digits = parts
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let fits = match parts.len() {
        2 => parts.iter().all(|part| part.parse::<u16>().is_ok()),
        3 => parts.iter().all(|part| part.parse::<u32>().is_ok()),
        _ => false,
    };
    digits && fits
}

pub(super) fn peer(check: &mut Check, peer: &BgpPeerSpec) {
    scope(check, peer);
    rule::names(check, "filters", &peer.filters);
    let (node, ip) = (!peer.node.is_empty(), !peer.peer_ip.is_empty());
    let (selected, workloads) = (
        !peer.peer_selector.is_empty(),
        !peer.local_workload_selector.is_empty(),
    );
    let numbered = peer.as_number.0 != 0;
    check.refuse(
        node && !peer.node_selector.is_empty(),
        "node",
        "cannot stand beside nodeSelector",
    );
    check.refuse(ip && selected, "peerIP", "cannot stand beside peerSelector");
    check.refuse(
        ip && workloads,
        "peerIP",
        "cannot stand beside localWorkloadSelector",
    );
    check.refuse(
        selected && workloads,
        "peerSelector",
        "cannot stand beside localWorkloadSelector",
    );
    check.refuse(
        numbered && selected,
        "asNumber",
        "is that of the nodes that peerSelector selects; leave it out",
    );
    check.refuse(
        !numbered && workloads,
        "asNumber",
        "must be set with localWorkloadSelector",
    );
    check.refuse(
        !ip && !selected && !workloads,
        "peerIP",
        "must be set, or peerSelector, or localWorkloadSelector",
    );
    let addr = peer_address(&peer.peer_ip);
    check.refuse(
        ip && addr.is_none(),
        "peerIP",
        "must be an address, an IPv4 address:port or an [IPv6 address]:port",
    );
    if !peer.reachable_by.is_empty() {
        let gateway = peer.reachable_by.parse::<IpAddr>().ok();
        let right = gateway
            .zip(addr)
            .is_some_and(|(gateway, (peer, _))| gateway.is_ipv4() == peer.is_ipv4());
        check.refuse(
            !right,
            "reachableBy",
            "must be an address of the IP version of peerIP",
        );
    }
    let both = peer.keep_original_next_hop && peer.next_hop_mode.is_some();
    check.refuse(
        both,
        "keepOriginalNextHop",
        "cannot stand beside nextHopMode, which replaces it",
    );
}

/// Which nodes and which peers are meant.
fn scope(check: &mut Check, peer: &BgpPeerSpec) {
    check.name("node", &peer.node);
    check.refuse(
        peer.node.len() > text::NAME_BYTES_MAX,
        "node",
        "has more than 253 bytes",
    );
    for (name, selector) in [
        ("nodeSelector", &peer.node_selector),
        ("peerSelector", &peer.peer_selector),
        ("localWorkloadSelector", &peer.local_workload_selector),
    ] {
        check.selector(name, selector);
        check.refuse(
            selector.chars().count() > SELECTOR_MAX,
            name,
            "has more than 4096 characters",
        );
    }
}

/// The address and port of a peer: `ip`, `ipv4:port` or `[ipv6]:port`; no port is 0.
#[must_use]
pub(crate) fn peer_address(text: &str) -> Option<(IpAddr, u16)> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Some((addr, 0));
    }
    let addr: std::net::SocketAddr = text.parse().ok()?;
    (addr.port() != 0).then_some((addr.ip(), addr.port()))
}
