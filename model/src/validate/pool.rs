//! IP pools.

use ipnet::IpNet;

use super::Check;
use crate::resources::ippool::{AllowedUse, EncapMode, IpPoolSpec};

pub(super) fn check(check: &mut Check, pool: &IpPoolSpec) {
    cidr(check, pool);
    encapsulation(check, pool);
    check.local_selector("nodeSelector", &pool.node_selector);
    check.local_selector("namespaceSelector", &pool.namespace_selector);
    let used = |what| pool.allowed_uses.contains(&what);
    let tunnel = used(AllowedUse::Tunnel);
    let reason = "cannot be set for a pool with allowed use Tunnel: tunnels have no namespace";
    check.refuse(
        tunnel && !pool.namespace_selector.is_empty(),
        "namespaceSelector",
        reason,
    );
    if used(AllowedUse::LoadBalancer) {
        let others = tunnel || used(AllowedUse::Workload);
        check.refuse(
            others,
            "allowedUses",
            "LoadBalancer cannot be combined with other uses",
        );
        check.refuse(
            pool.disable_bgp_export,
            "disableBGPExport",
            "cannot be true for a LoadBalancer pool",
        );
        let some = !matches!(pool.node_selector.as_str(), "" | "all()");
        check.refuse(some, "nodeSelector", "must be all() for a LoadBalancer pool");
    }
}

fn cidr(check: &mut Check, pool: &IpPoolSpec) {
    let cidr = &pool.cidr;
    let mapped = cidr.addr().to_canonical() != cidr.addr();
    check.refuse(mapped, "cidr", "maps IPv4 into IPv6; write it as IPv4");
    check.refuse(
        !cidr.has_prefix_len(),
        "cidr",
        "must have a prefix length, as in 10.244.0.0/16",
    );
    if !cidr.is_masked() {
        check.wrong_field(
            "cidr",
            format!("{cidr} has host bits set, {} is meant?", cidr.masked()),
        );
    }
    let (least, most) = if cidr.is_ipv4() { (20, 32) } else { (116, 128) };
    if pool.block_size != 0 && !(least..=most).contains(&pool.block_size) {
        check.wrong_field(
            "blockSize",
            format!("must be from {least} to {most} for this IP version"),
        );
    }
    let small = !pool.disabled && pool.block_size != 0 && cidr.prefix_len() > pool.block_size;
    check.refuse(
        small,
        "cidr",
        "is smaller than one block; make it larger, or blockSize longer",
    );
    for link_local in ["169.254.0.0/16", "fe80::/10"] {
        let net: IpNet = link_local.parse().expect("a constant that the tests read");
        let pool = cidr.masked();
        if pool.contains(&net) || net.contains(&pool) {
            check.wrong_field("cidr", format!("overlaps the link-local range {link_local}"));
        }
    }
}

fn encapsulation(check: &mut Check, pool: &IpPoolSpec) {
    let on = |mode: Option<EncapMode>| mode.is_some_and(|mode| mode != EncapMode::Never);
    let (ipip, vxlan) = (on(pool.ipip_mode), on(pool.vxlan_mode));
    check.refuse(ipip && vxlan, "vxlanMode", "cannot be on together with ipipMode");
    check.refuse(
        ipip && pool.cidr.is_ipv6(),
        "ipipMode",
        "must be Never for an IPv6 pool",
    );
    let balancer = pool.allowed_uses.contains(&AllowedUse::LoadBalancer);
    check.refuse(
        balancer && ipip,
        "ipipMode",
        "must be Never for a LoadBalancer pool",
    );
    check.refuse(
        balancer && vxlan,
        "vxlanMode",
        "must be Never for a LoadBalancer pool",
    );
}
