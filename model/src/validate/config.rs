//! Settings of the data plane and of the allocator.

use super::{Check, text};
use crate::initial::DEFAULT;
use crate::net::Net;
use crate::number::Port;
use crate::resources::felixconfiguration::FelixConfiguration;
use crate::resources::{FelixConfigurationSpec, IpamConfigurationSpec};

/// Greatest metric of a route that still has a less preferred one.
const PRIORITY_MAX: i32 = i32::MAX - 1;
/// Most blocks that a node may be limited to.
const BLOCKS_MAX: i32 = 1_000_000;
/// Longest cool-down, in seconds.
const COOLDOWN_SECS_MAX: i32 = 1200;

pub(super) fn ipam(check: &mut Check, spec: &IpamConfigurationSpec) {
    let blocks = (0..=BLOCKS_MAX).contains(&spec.max_blocks_per_host);
    check.refuse(!blocks, "maxBlocksPerHost", "must be from 0 to 1000000");
    let cooldown = (0..=COOLDOWN_SECS_MAX).contains(&spec.ip_cooldown_seconds);
    check.refuse(!cooldown, "ipCooldownSeconds", "must be from 0 to 1200");
}

pub(super) fn felix(check: &mut Check, config: &FelixConfiguration) {
    let (spec, name) = (&config.spec, config.metadata.name.as_str());
    check.selector("nodeSelector", spec.node_selector.as_deref().unwrap_or(""));
    check.refuse(
        spec.node_selector.is_some() && (name == DEFAULT || name.starts_with("node.")),
        "nodeSelector",
        "cannot be set where the name says which nodes are meant",
    );
    words(check, spec);
    log_level(check, "logSeverityScreen", &spec.log_severity_screen);
    check.refuse(
        !is_log_prefix(&spec.log_prefix),
        "logPrefix",
        "may hold letters, digits, spaces and %:/_- only",
    );
    check.text(
        "prometheusMetricsHost",
        &spec.prometheus_metrics_host,
        text::is_metrics_host,
        "a host",
    );
    let zero = matches!(spec.nat_port_range, Some(Port::Range(0, _)));
    check.refuse(zero, "natPortRange", "0 is no port, 1 to 65535 are");
    addresses(check, spec);
    for (name, duration) in [
        ("routeRefreshInterval", spec.route_refresh_interval),
        ("interfaceRefreshInterval", spec.interface_refresh_interval),
        ("reportingInterval", spec.reporting_interval),
        ("reportingTTL", spec.reporting_ttl),
    ] {
        let negative = duration.is_some_and(|duration| duration.nanos() < 0);
        check.refuse(negative, name, "must not be negative");
    }
    for (name, metric) in [
        ("ipv4NormalRoutePriority", spec.ipv4_normal_route_priority),
        ("ipv4ElevatedRoutePriority", spec.ipv4_elevated_route_priority),
        ("ipv6NormalRoutePriority", spec.ipv6_normal_route_priority),
        ("ipv6ElevatedRoutePriority", spec.ipv6_elevated_route_priority),
    ] {
        priority(check, name, metric);
    }
}

fn is_log_prefix(prefix: &str) -> bool {
    prefix
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"%: /_-".contains(&b))
}

/// Fields that are one word of a list.
fn words(check: &mut Check, spec: &FelixConfigurationSpec) {
    check.one_of(
        "defaultEndpointToHostAction",
        &spec.default_endpoint_to_host_action,
        &["Drop", "Accept", "Return"],
    );
    check.one_of(
        "nftablesFilterAllowAction",
        &spec.nftables_filter_allow_action,
        &["Accept", "Return"],
    );
    check.one_of(
        "nftablesFilterDenyAction",
        &spec.nftables_filter_deny_action,
        &["Drop", "Reject"],
    );
    let known = ["", "calicoipam", "workloadips"].contains(&spec.route_source.to_ascii_lowercase().as_str());
    check.refuse(!known, "routeSource", "must be CalicoIPAM or WorkloadIPs");
    check.one_of(
        "serviceLoopPrevention",
        &spec.service_loop_prevention,
        &["Drop", "Reject", "Disabled"],
    );
    check.one_of(
        "workloadSourceSpoofing",
        &spec.workload_source_spoofing,
        &["Disabled", "Any"],
    );
    check.one_of("ipForwarding", &spec.ip_forwarding, &["Enabled", "Disabled"]);
    check.word(
        "nftablesMode",
        spec.nftables_mode.as_deref(),
        &["Auto", "Enabled", "Disabled"],
    );
    check.word(
        "floatingIPs",
        spec.floating_ips.as_deref(),
        &["Enabled", "Disabled"],
    );
    check.word(
        "bpfConnectTimeLoadBalancing",
        spec.bpf_connect_time_load_balancing.as_deref(),
        &["TCP", "Enabled", "Disabled"],
    );
    check.word(
        "bpfHostNetworkedNATWithoutCTLB",
        spec.bpf_host_networked_nat_without_ctlb.as_deref(),
        &["Enabled", "Disabled"],
    );
    check.word(
        "natOutgoingExclusions",
        spec.nat_outgoing_exclusions.as_deref(),
        &["IPPoolsOnly", "IPPoolsAndHostIPs"],
    );
    check.word(
        "programClusterRoutes",
        spec.program_cluster_routes.as_deref(),
        &["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"],
    );
}

fn addresses(check: &mut Check, spec: &FelixConfigurationSpec) {
    for (name, addr, v4) in [
        ("natOutgoingAddress", &spec.nat_outgoing_address, true),
        (
            "deviceRouteSourceAddress",
            &spec.device_route_source_address,
            true,
        ),
        (
            "deviceRouteSourceAddressIPv6",
            &spec.device_route_source_address_ipv6,
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
    for (name, ports) in [
        ("failsafeInboundHostPorts", &spec.failsafe_inbound_host_ports),
        ("failsafeOutboundHostPorts", &spec.failsafe_outbound_host_ports),
    ] {
        check.each(name, ports.as_deref().unwrap_or(&[]), |check, port| {
            let known = ["", "TCP", "UDP", "SCTP"].contains(&port.protocol.to_uppercase().as_str());
            check.refuse(!known, "protocol", "must be TCP, UDP or SCTP");
            let right = port.net.is_empty() || port.net.parse::<Net>().is_ok();
            check.refuse(!right, "net", "must be a CIDR");
        });
    }
    check.each(
        "externalNodesList",
        spec.external_nodes_list.as_deref().unwrap_or(&[]),
        |check, net| {
            if !net.parse().is_ok_and(|net: Net| net.is_ipv4()) {
                check.wrong(format!("{net:?} is not an IPv4 address or CIDR"));
            }
        },
    );
}

pub(super) fn log_level(check: &mut Check, name: &str, level: &str) {
    check.one_of(
        name,
        level,
        &["Trace", "Debug", "Info", "Warning", "Error", "Fatal"],
    );
}

pub(super) fn priority(check: &mut Check, name: &str, priority: Option<i32>) {
    let wrong = priority.is_some_and(|priority| !(1..=PRIORITY_MAX).contains(&priority));
    check.refuse(wrong, name, "must be from 1 to 2147483646");
}
