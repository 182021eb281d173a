//! Nodes, and what is asked of them.

use std::collections::BTreeSet;

use super::{Check, text};
use crate::net::Net;
use crate::resources::node::NodeBgpSpec;
use crate::resources::{CalicoNodeStatusSpec, NodeSpec};

/// Longest time between two answers to a CalicoNodeStatus: a day.
const STATUS_PERIOD_SECS_MAX: u32 = 86_400;

pub(super) fn check(check: &mut Check, node: &NodeSpec) {
    if let Some(bgp) = &node.bgp {
        check.refuse(
            *bgp == NodeBgpSpec::default(),
            "bgp",
            "must not be empty; leave it out",
        );
        check.field("bgp", |check| {
            family(check, "ipv4Address", bgp.ipv4_address.as_ref(), Net::is_ipv4);
            family(check, "ipv6Address", bgp.ipv6_address.as_ref(), Net::is_ipv6);
            bare(
                check,
                "ipv4IPIPTunnelAddr",
                bgp.ipv4_ipip_tunnel_addr.as_ref(),
                Net::is_ipv4,
            );
        });
    }
    bare(
        check,
        "ipv4VXLANTunnelAddr",
        node.ipv4_vxlan_tunnel_addr.as_ref(),
        Net::is_ipv4,
    );
    bare(
        check,
        "ipv6VXLANTunnelAddr",
        node.ipv6_vxlan_tunnel_addr.as_ref(),
        Net::is_ipv6,
    );
    check.text(
        "vxlanTunnelMACAddr",
        &node.vxlan_tunnel_mac_addr,
        text::is_mac,
        "a MAC address",
    );
    check.text(
        "vxlanTunnelMACAddrV6",
        &node.vxlan_tunnel_mac_addr_v6,
        text::is_mac,
        "a MAC address",
    );
    if let Some(wireguard) = &node.wireguard {
        check.field("wireguard", |check| {
            bare(
                check,
                "interfaceIPv4Address",
                wireguard.interface_ipv4_address.as_ref(),
                Net::is_ipv4,
            );
            bare(
                check,
                "interfaceIPv6Address",
                wireguard.interface_ipv6_address.as_ref(),
                Net::is_ipv6,
            );
        });
    }
    check.each("addresses", &node.addresses, |check, address| {
        let right = address.address.parse::<Net>().is_ok();
        check.refuse(
            !right,
            "address",
            "must be an address, with or without prefix length",
        );
        check.one_of(
            "type",
            &address.address_type,
            &["CalicoNodeIP", "InternalIP", "ExternalIP"],
        );
    });
}

/// An address of one IP version, with or without prefix length.
fn family(check: &mut Check, name: &str, net: Option<&Net>, right: fn(&Net) -> bool) {
    let mapped = |net: &Net| net.addr().to_canonical() != net.addr();
    if let Some(net) = net.filter(|net| !right(net) || mapped(net)) {
        check.wrong_field(name, format!("{net} is of another IP version"));
    }
}

/// An address of one IP version without prefix length.
fn bare(check: &mut Check, name: &str, net: Option<&Net>, right: fn(&Net) -> bool) {
    family(check, name, net, right);
    if let Some(net) = net.filter(|net| net.has_prefix_len()) {
        check.wrong_field(name, format!("{net} must be an address without prefix length"));
    }
}

pub(super) fn status(check: &mut Check, spec: &CalicoNodeStatusSpec) {
    check.refuse(spec.node.is_empty(), "node", "must be set");
    check.name("node", &spec.node);
    check.refuse(
        spec.classes.is_empty(),
        "classes",
        "must name Agent, BGP or Routes",
    );
    let classes: BTreeSet<_> = spec.classes.iter().collect();
    check.refuse(
        classes.len() < spec.classes.len(),
        "classes",
        "holds a class twice",
    );
    let within = spec
        .update_period_seconds
        .is_some_and(|secs| secs <= STATUS_PERIOD_SECS_MAX);
    check.refuse(!within, "updatePeriodSeconds", "must be from 0 to 86400");
}
