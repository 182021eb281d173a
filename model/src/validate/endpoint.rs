//! Endpoints of workloads and of hosts.

use std::net::IpAddr;

use super::{Check, rule, text};
use crate::names;
use crate::net::Net;
use crate::resources::workloadendpoint::{EndpointPort, IpNat};
use crate::resources::{HostEndpointSpec, WorkloadEndpoint, WorkloadEndpointSpec};

pub(super) fn check(check: &mut Check, endpoint: &WorkloadEndpoint) {
    let spec = &endpoint.spec;
    match names::endpoint_name(spec) {
        Err(error) => check.wrong_field(error.field, error.reason),
        Ok(name) if name != endpoint.metadata.name => {
            check.wrong(format!(
                "asks for the name {name}, not {}",
                endpoint.metadata.name
            ));
        }
        Ok(_) => {}
    }
    for (field, value) in [
        ("orchestrator", &spec.orchestrator),
        ("workload", &spec.workload),
        ("node", &spec.node),
        ("pod", &spec.pod),
        ("endpoint", &spec.endpoint),
        ("serviceAccountName", &spec.service_account_name),
    ] {
        check.name(field, value);
    }
    check.text(
        "containerID",
        &spec.container_id,
        text::is_container_id,
        "a container's id",
    );
    if !text::is_interface(&spec.interface_name) {
        check.wrong_field(
            "interfaceName",
            format!("{:?} is not the name of an interface", spec.interface_name),
        );
    }
    check.text("mac", &spec.mac, text::is_mac, "a MAC address");
    rule::names(check, "profiles", &spec.profiles);
    addresses(check, spec);
    check.each("ports", &spec.ports, port);
}

pub(super) fn host(check: &mut Check, spec: &HostEndpointSpec) {
    check.refuse(spec.node.is_empty(), "node", "must be set");
    check.name("node", &spec.node);
    check.refuse(
        spec.node.len() > text::NAME_BYTES_MAX,
        "node",
        "has more than 253 bytes",
    );
    check.refuse(
        spec.interface_name.is_empty() && spec.expected_ips.is_empty(),
        "interfaceName",
        "must be set where expectedIPs is not",
    );
    check.text(
        "interfaceName",
        &spec.interface_name,
        text::is_interface,
        "the name of an interface",
    );
    check.each("expectedIPs", &spec.expected_ips, |check, ip| {
        if !text::is_address(ip, true) && !text::is_address(ip, false) {
            check.wrong(format!("{ip:?} is not an address"));
        }
    });
    rule::names(check, "profiles", &spec.profiles);
    check.each("ports", &spec.ports, |check, port| {
        check.refuse(
            !text::is_port_name(&port.name),
            "name",
            "must be the name of a port",
        );
        check.refuse(port.port == 0, "port", "0 is no port, 1 to 65535 are");
        check.refuse(
            !port.protocol.supports_ports(),
            "protocol",
            "must be TCP, UDP or SCTP",
        );
    });
}

fn addresses(check: &mut Check, spec: &WorkloadEndpointSpec) {
    check.each("ipNetworks", &spec.ip_networks, |check, net| {
        if !net.is_single() {
            check.wrong(format!("{net} holds more than one address"));
        }
    });
    for (field, gateway, v4) in [
        ("ipv4Gateway", &spec.ipv4_gateway, true),
        ("ipv6Gateway", &spec.ipv6_gateway, false),
    ] {
        let right = text::is_address(gateway, v4);
        check.refuse(
            !gateway.is_empty() && !right,
            field,
            "is no address of this IP version",
        );
    }
    check.each("ipNATs", &spec.ip_nats, |check, nat| {
        ip_nat(check, nat, &spec.ip_networks)
    });
}

fn ip_nat(check: &mut Check, nat: &IpNat, own: &[Net]) {
    let (inside, outside) = (
        nat.internal_ip.parse::<IpAddr>(),
        nat.external_ip.parse::<IpAddr>(),
    );
    check.refuse(inside.is_err(), "internalIP", "must be an address");
    check.refuse(outside.is_err(), "externalIP", "must be an address");
    if let (Ok(inside), Ok(outside)) = (inside, outside) {
        check.refuse(
            inside.is_ipv4() != outside.is_ipv4(),
            "externalIP",
            "is of another IP version",
        );
        let mine = own.iter().any(|net| net.masked().contains(&inside));
        check.refuse(!mine, "internalIP", "is none of the endpoint's addresses");
    }
}

fn port(check: &mut Check, port: &EndpointPort) {
    check.text("name", &port.name, text::is_port_name, "the name of a port");
    check.refuse(
        port.name.is_empty() && port.host_port == 0,
        "name",
        "must be set where hostPort is not",
    );
    check.refuse(port.port == 0, "port", "0 is no port, 1 to 65535 are");
    check.refuse(
        !port.protocol.supports_ports(),
        "protocol",
        "must be TCP, UDP or SCTP",
    );
    let right = port.host_ip.parse().is_ok_and(|net: Net| net.is_masked());
    check.refuse(!port.host_ip.is_empty() && !right, "hostIP", "must be an address");
}
