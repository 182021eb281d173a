//! Rules: which fields go together.

use std::collections::BTreeSet;

use super::{Check, metadata, text};
use crate::net::Net;
use crate::number::{Port, Protocol};
use crate::rule::{Action, EntityRule, HttpMatch, Icmp, IpVersion, Rule};

/// Most prefixes in one list of a rule.
const NETS_MAX: usize = 256;
/// Most ports in one list of a rule.
const PORTS_MAX: usize = 50;
/// Most methods or paths of an HTTP match.
const HTTP_MAX: usize = 20;
/// Most bytes of an HTTP path.
const HTTP_PATH_BYTES_MAX: usize = 1024;

/// The direction that a list of rules is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

pub(super) fn check(check: &mut Check, rule: &Rule, direction: Direction) {
    check.refuse(
        rule.protocol == Some(Protocol::Number(0)),
        "protocol",
        "0 is no protocol, 1 to 255 are",
    );
    check.refuse(
        rule.not_protocol == Some(Protocol::Number(0)),
        "notProtocol",
        "0 is no protocol, 1 to 255 are",
    );
    icmp(check, rule);
    if let Some(http) = &rule.http {
        check.field("http", |check| http_match(check, rule, http, direction));
    }
    if let Some(metadata) = &rule.metadata {
        check.field("metadata", |check| {
            metadata::annotations(check, &metadata.annotations)
        });
    }
    for (name, end) in [("source", &rule.source), ("destination", &rule.destination)] {
        check.field(name, |check| {
            entity(check, end);
            ports(check, rule.protocol, end);
        });
    }
    services(check, rule, direction);
    families(check, rule);
}

fn icmp(check: &mut Check, rule: &Rule) {
    let is_icmp = matches!(rule.protocol, Some(Protocol::Icmp | Protocol::IcmpV6));
    check.refuse(
        rule.icmp.is_some() && !is_icmp,
        "icmp",
        "needs protocol ICMP or ICMPv6",
    );
    for (name, icmp) in [("icmp", &rule.icmp), ("notICMP", &rule.not_icmp)] {
        if let Some(Icmp { icmp_type, code, .. }) = icmp {
            check.field(name, |check| {
                check.refuse(
                    *icmp_type == Some(255),
                    "type",
                    "255 is reserved, 0 to 254 can be matched",
                );
                check.refuse(code.is_some() && icmp_type.is_none(), "code", "needs a type");
            });
        }
    }
    for (protocol, version, reason) in [
        (Protocol::Icmp, IpVersion::V4, "must be 4 with protocol ICMP"),
        (Protocol::IcmpV6, IpVersion::V6, "must be 6 with protocol ICMPv6"),
    ] {
        let named = [rule.protocol, rule.not_protocol].contains(&Some(protocol));
        check.refuse(
            named && rule.ip_version.is_some_and(|v| v != version),
            "ipVersion",
            reason,
        );
    }
}

fn http_match(check: &mut Check, rule: &Rule, http: &HttpMatch, direction: Direction) {
    let tcp = matches!(rule.protocol, None | Some(Protocol::Tcp));
    if !tcp {
        check.wrong("needs protocol TCP or none");
    }
    if rule.action != Action::Allow {
        check.wrong("stands only in rules whose action is Allow");
    }
    if direction == Direction::Egress {
        check.wrong("stands only in ingress rules");
    }
    let distinct: BTreeSet<_> = http.methods.iter().collect();
    check.refuse(
        distinct.len() < http.methods.len(),
        "methods",
        "holds a method twice",
    );
    check.refuse(http.methods.len() > HTTP_MAX, "methods", "holds more than 20");
    check.refuse(http.paths.len() > HTTP_MAX, "paths", "holds more than 20");
    check.each("paths", &http.paths, |check, path| {
        match (path.exact.as_str(), path.prefix.as_str()) {
            ("", "") => check.wrong("must have exact or prefix"),
            (path, "") | ("", path) => {
                if !path.starts_with('/')
                    || path.contains(['?', ' ', '#'])
                    || path.len() > HTTP_PATH_BYTES_MAX
                {
                    check
                        .wrong("must begin with '/', hold no '?', '#' or space, and have at most 1024 bytes");
                }
            }
            _ => check.wrong("must not have both exact and prefix"),
        }
    });
}

fn entity(check: &mut Check, end: &EntityRule) {
    nets(check, "nets", &end.nets);
    nets(check, "notNets", &end.not_nets);
    for (name, list) in [("nets", &end.nets), ("notNets", &end.not_nets)] {
        if list.len() > NETS_MAX {
            check.wrong_field(
                name,
                format!("holds {} prefixes, at most {NETS_MAX} are allowed", list.len()),
            );
        }
        check.each(name, list, |check, net| {
            if !net.has_prefix_len() {
                check.wrong(format!("{net} must be a CIDR, such as {}", net.as_written()));
            }
        });
    }
    check.each("notNets", &end.not_nets, |check, net| {
        if net.prefix_len() == 0 {
            check.wrong(format!(
                "{net} excludes every address, so the rule would match nothing"
            ));
        }
    });
    check.local_selector("selector", &end.selector);
    check.selector("notSelector", &end.not_selector);
    check.selector("namespaceSelector", &end.namespace_selector);
    let mixed = end.namespace_selector.contains("global(") && !is_global(&end.namespace_selector);
    check.refuse(
        mixed,
        "namespaceSelector",
        "global() cannot be combined with anything else",
    );
    if let Some(accounts) = &end.service_accounts {
        check.field("serviceAccounts", |check| {
            check.selector("selector", &accounts.selector)
        });
    }
}

fn is_global(selector: &str) -> bool {
    selector.trim_matches([' ', '\t']) == "global()"
}

/// A list of prefixes whose host bits must be clear.
pub(super) fn nets(check: &mut Check, name: &str, nets: &[Net]) {
    check.each(name, nets, |check, net| {
        if !net.is_masked() {
            check.wrong(format!("{net} has host bits set, {} is meant?", net.masked()));
        }
    });
}

fn ports(check: &mut Check, protocol: Option<Protocol>, end: &EntityRule) {
    for (name, ports) in [("ports", &end.ports), ("notPorts", &end.not_ports)] {
        if ports.len() > PORTS_MAX {
            check.wrong_field(
                name,
                format!("holds {} ports, at most {PORTS_MAX} are allowed", ports.len()),
            );
        }
        let allowed = match protocol {
            None => ports.iter().all(|port| matches!(port, Port::Named(_))),
            Some(protocol) => protocol.supports_ports() || ports.is_empty(),
        };
        check.refuse(!allowed, name, "needs protocol TCP, UDP or SCTP");
        check.each(name, ports, |check, port| match port {
            Port::Range(0, _) => check.wrong("0 is no port, 1 to 65535 are"),
            Port::Named(name) if !text::is_port_name(name) => {
                check.wrong(format!("{name:?} is not the name of a port"));
            }
            Port::Range(..) | Port::Named(_) => {}
        });
    }
}

fn services(check: &mut Check, rule: &Rule, direction: Direction) {
    for (name, end) in [("source", &rule.source), ("destination", &rule.destination)] {
        let Some(services) = &end.services else { continue };
        check.field(name, |check| {
            check.field("services", |check| {
                check.name("name", &services.name);
                check.name("namespace", &services.namespace);
                check.refuse(services.name.is_empty(), "name", "must be set");
                let others = !end.namespace_selector.is_empty()
                    || !end.selector.is_empty()
                    || !end.not_selector.is_empty()
                    || end.service_accounts.is_some()
                    || !end.nets.is_empty()
                    || !end.not_nets.is_empty();
                if others {
                    check.wrong("cannot stand beside selectors, service accounts or nets");
                }
                if (name == "source") != (direction == Direction::Ingress) {
                    check.wrong("stands only in the source of ingress and the destination of egress rules");
                }
                if name == "destination" && !(end.ports.is_empty() && end.not_ports.is_empty()) {
                    check.wrong("cannot stand beside ports: the service's own are meant");
                }
            });
        });
    }
}

/// A rule is of one IP version: its nets must agree with each other and with `ipVersion`.
fn families(check: &mut Check, rule: &Rule) {
    let lists = [
        ("source", "nets", &rule.source.nets),
        ("source", "notNets", &rule.source.not_nets),
        ("destination", "nets", &rule.destination.nets),
        ("destination", "notNets", &rule.destination.not_nets),
    ];
    let mut seen = None;
    for (end, name, list) in lists {
        for net in list {
            let version = if net.is_ipv4() {
                IpVersion::V4
            } else {
                IpVersion::V6
            };
            let agrees = *seen.get_or_insert(version) == version;
            let right = rule.ip_version.is_none_or(|wanted| wanted == version);
            check.field(end, |check| {
                check.refuse(!agrees, name, "mixes IPv4 and IPv6; write a rule for each");
                check.refuse(!right, name, "is not of the rule's ipVersion");
            });
            if !agrees || !right {
                break;
            }
        }
    }
}

/// The names of a list of service accounts or profiles.
pub(super) fn names(check: &mut Check, field: &str, names: &[String]) {
    check.each(field, names, |check, name| {
        if !text::is_subdomain(name) {
            check.wrong(format!("{name:?} is not {}", text::SUBDOMAIN));
        }
    });
}
