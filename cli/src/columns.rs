//! The columns of each kind, calicoctl's headings, from a resource's JSON.

use serde_json::Value;
use twill_model::Kind;

/// What a long list in a cell is cut to.
const LIST_CHARS_MAX: usize = 80;

/// How much a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Narrow,
    Wide,
}

/// Headings of a kind's table.
pub(crate) fn headings(kind: Kind, width: Width) -> Vec<&'static str> {
    let (narrow, wide) = match kind {
        Kind::BgpConfiguration => ("NAME LOGSEVERITY MESHENABLED ASNUMBER", ""),
        Kind::BgpPeer => ("NAME PEERIP NODE ASN", ""),
        Kind::BgpSessionPolicy => (
            "NAME STRICTIMPORT MAXPREFIXES HOLDTIME",
            "NAME STRICTIMPORT MAXPREFIXES HOLDTIME BGPPEERS NODESELECTOR",
        ),
        Kind::BgpFilter => ("NAME NUMEXPORTV4 NUMIMPORTV4 NUMEXPORTV6 NUMIMPORTV6", ""),
        Kind::IpPool => (
            "NAME CIDR SELECTOR",
            "NAME CIDR NAT IPIPMODE VXLANMODE DISABLED DISABLEBGPEXPORT SELECTOR ASSIGNMENTMODE",
        ),
        Kind::IpReservation => ("NAME", "NAME CIDRS"),
        Kind::IpamConfiguration => (
            "NAME STRICTAFFINITY AUTOALLOCATEBLOCKS",
            "NAME STRICTAFFINITY AUTOALLOCATEBLOCKS MAXBLOCKSPERHOST",
        ),
        Kind::Node => ("NAME", "NAME ASN IPV4 IPV6"),
        Kind::HostEndpoint => ("NAME NODE", "NAME NODE INTERFACE IPS PROFILES"),
        Kind::WorkloadEndpoint => (
            "WORKLOAD NODE NETWORKS INTERFACE",
            "NAME WORKLOAD NODE NETWORKS INTERFACE PROFILES NATS",
        ),
        Kind::NetworkPolicy
        | Kind::GlobalNetworkPolicy
        | Kind::StagedNetworkPolicy
        | Kind::StagedGlobalNetworkPolicy => ("NAME TIER", "NAME TIER ORDER SELECTOR"),
        Kind::StagedKubernetesNetworkPolicy => ("NAME", "NAME PODSELECTOR"),
        Kind::Tier => ("NAME ORDER", ""),
        Kind::NetworkSet | Kind::GlobalNetworkSet => ("NAME", "NAME NETS"),
        Kind::Profile => ("NAME", "NAME LABELS"),
        Kind::ClusterInformation => ("NAME CLUSTERGUID CLUSTERTYPE CALICOVERSION DATASTOREREADY", ""),
        Kind::CalicoNodeStatus => ("NAME NODE", "NAME NODE CLASSES"),
        _ => ("NAME", ""),
    };
    // Where there is nothing more to say, wide is narrow.
    let shown = if width == Width::Wide && !wide.is_empty() {
        wide
    } else {
        narrow
    };
    shown.split(' ').collect()
}

/// Headings that can be asked for by name: those of the widest table, and a few that no table shows by itself.
pub(crate) fn known(kind: Kind) -> Vec<&'static str> {
    let mut all = headings(kind, Width::Wide);
    if kind.is_namespaced() {
        all.push("NAMESPACE");
    }
    if kind == Kind::WorkloadEndpoint {
        all.push("ORCHESTRATOR");
    }
    all
}

/// One cell. `inherited_as` is the cluster's AS number, shown in brackets for nodes without their own.
pub(crate) fn cell(kind: Kind, heading: &str, object: &Value, inherited_as: &str) -> String {
    let spec = |field: &str| text(object.pointer(&format!("/spec/{field}")));
    let list = |field: &str, max| joined(object.pointer(&format!("/spec/{field}")), max);
    let or = |value: String, default: &str| {
        if value.is_empty() {
            default.to_owned()
        } else {
            value
        }
    };
    match (kind, heading) {
        (_, "NAME") => text(object.pointer("/metadata/name")),
        (_, "NAMESPACE") => text(object.pointer("/metadata/namespace")),
        (Kind::BgpConfiguration, "LOGSEVERITY") => spec("logSeverityScreen"),
        (Kind::BgpConfiguration, "MESHENABLED") => or(spec("nodeToNodeMeshEnabled"), "-"),
        (Kind::BgpConfiguration, "ASNUMBER") => or(spec("asNumber"), "-"),
        (Kind::BgpPeer, "PEERIP") => spec("peerIP"),
        (Kind::BgpPeer, "NODE") => or(or(spec("node"), &spec("nodeSelector")), "(global)"),
        (Kind::BgpPeer, "ASN") => or(spec("asNumber"), "0"),
        (Kind::BgpSessionPolicy, "STRICTIMPORT") => or(spec("strictImport"), "false"),
        (Kind::BgpSessionPolicy, "MAXPREFIXES") => or(spec("maxPrefixes"), "-"),
        (Kind::BgpSessionPolicy, "HOLDTIME") => or(spec("holdTime"), "-"),
        (Kind::BgpSessionPolicy, "BGPPEERS") => list("bgpPeers", LIST_CHARS_MAX),
        (Kind::BgpSessionPolicy, "NODESELECTOR") => spec("nodeSelector"),
        (Kind::BgpFilter, "NUMEXPORTV4") => count(object, "/spec/exportV4"),
        (Kind::BgpFilter, "NUMIMPORTV4") => count(object, "/spec/importV4"),
        (Kind::BgpFilter, "NUMEXPORTV6") => count(object, "/spec/exportV6"),
        (Kind::BgpFilter, "NUMIMPORTV6") => count(object, "/spec/importV6"),
        (Kind::IpPool, "CIDR") => spec("cidr"),
        (Kind::IpPool, "SELECTOR") => spec("nodeSelector"),
        (Kind::IpPool, "NAT") => or(spec("natOutgoing"), "false"),
        (Kind::IpPool, "IPIPMODE") => or(spec("ipipMode"), "Never"),
        (Kind::IpPool, "VXLANMODE") => or(spec("vxlanMode"), "Never"),
        (Kind::IpPool, "DISABLED") => or(spec("disabled"), "false"),
        (Kind::IpPool, "DISABLEBGPEXPORT") => or(spec("disableBGPExport"), "false"),
        (Kind::IpPool, "ASSIGNMENTMODE") => spec("assignmentMode"),
        (Kind::IpReservation, "CIDRS") => list("reservedCIDRs", LIST_CHARS_MAX),
        (Kind::IpamConfiguration, "STRICTAFFINITY") => or(spec("strictAffinity"), "false"),
        (Kind::IpamConfiguration, "AUTOALLOCATEBLOCKS") => or(spec("autoAllocateBlocks"), "false"),
        (Kind::IpamConfiguration, "MAXBLOCKSPERHOST") => or(spec("maxBlocksPerHost"), "0"),
        (Kind::Node, "ASN") if object.pointer("/spec/bgp").is_none() => String::new(),
        (Kind::Node, "ASN") => or(spec("bgp/asNumber"), &format!("({inherited_as})")),
        (Kind::Node, "IPV4") => spec("bgp/ipv4Address"),
        (Kind::Node, "IPV6") => spec("bgp/ipv6Address"),
        (Kind::HostEndpoint | Kind::WorkloadEndpoint | Kind::CalicoNodeStatus, "NODE") => spec("node"),
        (Kind::HostEndpoint | Kind::WorkloadEndpoint, "INTERFACE") => spec("interfaceName"),
        (Kind::HostEndpoint | Kind::WorkloadEndpoint, "PROFILES") => list("profiles", usize::MAX),
        (Kind::HostEndpoint, "IPS") => list("expectedIPs", usize::MAX),
        (Kind::WorkloadEndpoint, "WORKLOAD") => or(spec("workload"), &spec("pod")),
        (Kind::WorkloadEndpoint, "NETWORKS") => list("ipNetworks", usize::MAX),
        (Kind::WorkloadEndpoint, "NATS") => list("ipNATs", usize::MAX),
        (_, "TIER") => spec("tier"),
        (Kind::WorkloadEndpoint, "ORCHESTRATOR") => spec("orchestrator"),
        (_, "ORDER") => object
            .pointer("/spec/order")
            .and_then(Value::as_f64)
            .map_or_else(|| "<nil>".to_owned(), go_float),
        (_, "SELECTOR") => spec("selector"),
        (_, "PODSELECTOR") => spec("podSelector"),
        (_, "NETS") => list("nets", LIST_CHARS_MAX),
        (Kind::Profile, "LABELS") => list("labelsToApply", usize::MAX),
        (_, "CLUSTERGUID") => spec("clusterGUID"),
        (_, "CLUSTERTYPE") => spec("clusterType"),
        (_, "CALICOVERSION") => spec("calicoVersion"),
        (_, "DATASTOREREADY") => or(spec("datastoreReady"), "<nil>"),
        (_, "CLASSES") => list("classes", usize::MAX),
        _ => String::new(),
    }
}

/// A number as Go's `%v` writes it: with an exponent from a million on and below a ten-thousandth.
fn go_float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    match exponent.parse::<i32>() {
        Ok(exponent) if number != 0.0 && !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => number.to_string(),
    }
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}

fn count(object: &Value, pointer: &str) -> String {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(0, Vec::len)
        .to_string()
}

/// The items of a list, or the `key=value` pairs of a map, with commas between, cut with `...` if longer than `max`.
fn joined(value: Option<&Value>, max: usize) -> String {
    let items: Vec<String> = match value {
        Some(Value::Array(items)) => items.iter().map(|v| text(Some(v))).collect(),
        Some(Value::Object(map)) => {
            let mut pairs: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k}={}", text(Some(v))))
                .collect();
            pairs.sort();
            pairs
        }
        other => vec![text(other)],
    };
    let whole = items.join(",");
    if whole.chars().count() <= max {
        return whole;
    }
    whole.chars().take(max.saturating_sub(3)).collect::<String>() + "..."
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(kind: Kind, width: Width, object: &Value) -> String {
        let cells = headings(kind, width)
            .into_iter()
            .map(|h| cell(kind, h, object, "64512"));
        cells.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn cells_show_what_calicoctl_shows() {
        let check = |kind, width, object: Value, expected| assert_eq!(row(kind, width, &object), expected);
        let node = |bgp: Value| json!({"metadata": {"name": "n1"}, "spec": {"bgp": bgp}});
        check(
            Kind::Node,
            Width::Wide,
            node(json!({"ipv4Address": "10.0.0.1/24"})),
            "n1|(64512)|10.0.0.1/24|",
        );
        check(
            Kind::Node,
            Width::Wide,
            node(json!({"asNumber": 65001})),
            "n1|65001||",
        );
        let peer = json!({"metadata": {"name": "p"}, "spec": {"peerIP": "10.0.0.9", "asNumber": 64999}});
        check(Kind::BgpPeer, Width::Narrow, peer, "p|10.0.0.9|(global)|64999");
        let pool =
            json!({"metadata": {"name": "p"}, "spec": {"cidr": "10.244.0.0/16", "nodeSelector": "all()"}});
        check(
            Kind::IpPool,
            Width::Wide,
            pool,
            "p|10.244.0.0/16|false|Never|Never|false|false|all()|",
        );
        let wep = json!({"metadata": {"name": "w"}, "spec": {"pod": "web-0", "node": "n1", "ipNetworks": ["10.0.0.1/32", "fd00::1/128"],
            "interfaceName": "cali1"}});
        check(
            Kind::WorkloadEndpoint,
            Width::Narrow,
            wep,
            "web-0|n1|10.0.0.1/32,fd00::1/128|cali1",
        );
        check(
            Kind::GlobalNetworkPolicy,
            Width::Wide,
            json!({"metadata": {"name": "g"}, "spec": {"tier": "t"}}),
            "g|t|<nil>|",
        );
    }

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (number, expected) in [
            (0.0, "0"),
            (1000.0, "1000"),
            (999_999.0, "999999"),
            (1_000_000.0, "1e+06"),
            (1_234_567.5, "1.2345675e+06"),
            (0.5, "0.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2_000_000.0, "-2e+06"),
        ] {
            assert_eq!(go_float(number), expected);
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let nets: Vec<String> = (0..40).map(|n| format!("10.0.{n}.0/24")).collect();
        let cut = cell(Kind::NetworkSet, "NETS", &json!({"spec": {"nets": nets}}), "");
        assert_eq!(cut.len(), LIST_CHARS_MAX);
        assert!(cut.ends_with("..."));
    }

    #[test]
    fn every_kind_has_columns_that_yield_something() {
        for kind in Kind::ALL {
            for width in [Width::Narrow, Width::Wide] {
                assert!(!headings(kind, width).is_empty(), "{kind}");
            }
        }
    }
}
