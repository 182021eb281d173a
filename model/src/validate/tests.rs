use super::*;
use crate::kind::Kind;

/// Checks an object with this spec, defaults filled in; `paths` are the fields that must be wrong.
fn check(kind: Kind, name: &str, spec: &str, paths: &[&str]) {
    let namespace = if kind.is_namespaced() {
        r#","namespace":"default""#
    } else {
        ""
    };
    check_object(
        kind,
        &format!(r#"{{"metadata":{{"name":"{name}"{namespace}}},"spec":{spec}}}"#),
        paths,
    );
}

fn check_object(kind: Kind, json: &str, paths: &[&str]) {
    let mut any = AnyResource::decode(kind, json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}"));
    any.apply_defaults();
    let invalid = any.validate().err().unwrap_or_default();
    let found: Vec<&str> = invalid.problems().map(|problem| problem.path.as_str()).collect();
    assert_eq!(found, paths, "{json}: {invalid}");
}

fn policy(rule: &str, paths: &[&str]) {
    let below: Vec<String> = paths
        .iter()
        .map(|path| format!("spec.ingress[0].{path}"))
        .collect();
    let below: Vec<&str> = below.iter().map(String::as_str).collect();
    check(
        Kind::NetworkPolicy,
        "a",
        &format!(r#"{{"ingress":[{rule}]}}"#),
        &below,
    );
}

#[test]
fn names_follow_their_kind() {
    check(Kind::Profile, "a.b.c", "{}", &[]);
    check(Kind::Profile, "A", "{}", &["metadata.name"]);
    check(Kind::Profile, "", "{}", &["metadata.name"]);
    check(Kind::Profile, &"a".repeat(254), "{}", &["metadata.name"]);
    check(Kind::Tier, "a.b", "{}", &["metadata.name"]);
    check(Kind::Tier, &"a".repeat(64), "{}", &["metadata.name"]);
    check(Kind::NetworkPolicy, "default.b", "{}", &[]);
    check(Kind::NetworkPolicy, "a.b.c", "{}", &["metadata.name"]);
    check(Kind::NetworkPolicy, "knp.default.b.c", "{}", &[]);
    check(
        Kind::GlobalNetworkPolicy,
        "knp.default.b.c",
        "{}",
        &["metadata.name"],
    );
    check(Kind::ClusterInformation, "other", "{}", &["metadata.name"]);
}

#[test]
fn namespaces_belong_to_namespaced_kinds() {
    check_object(
        Kind::NetworkPolicy,
        r#"{"metadata":{"name":"a"},"spec":{}}"#,
        &["metadata.namespace"],
    );
    check_object(
        Kind::Profile,
        r#"{"metadata":{"name":"a","namespace":"b"},"spec":{}}"#,
        &["metadata.namespace"],
    );
}

#[test]
fn labels_and_annotations_have_keys_and_bounds() {
    let object = |meta: &str| format!(r#"{{"metadata":{{"name":"a",{meta}}},"spec":{{}}}}"#);
    check_object(
        Kind::Profile,
        &object(r#""labels":{"k8s.io/a":"B_1","x":""}"#),
        &[],
    );
    check_object(
        Kind::Profile,
        &object(r#""labels":{"a b":"c"}"#),
        &["metadata.labels"],
    );
    check_object(
        Kind::Profile,
        &object(r#""labels":{"a":"c d"}"#),
        &["metadata.labels"],
    );
    check_object(
        Kind::Profile,
        &object(r#""annotations":{"Example.com/A":"any thing"}"#),
        &[],
    );
    check_object(
        Kind::Profile,
        &object(r#""annotations":{"a b":""}"#),
        &["metadata.annotations"],
    );
    let large = format!(r#""annotations":{{"a":"{}"}}"#, "x".repeat(256 << 10));
    check_object(Kind::Profile, &object(&large), &["metadata.annotations"]);
    let reserved = r#""labels":{"projectcalico.org/namespace":"x"}"#;
    check_object(Kind::GlobalNetworkSet, &object(reserved), &["metadata.labels"]);
}

#[test]
fn selectors_must_parse() {
    check(Kind::NetworkPolicy, "a", r#"{"selector":"a == 'b'"}"#, &[]);
    check(
        Kind::NetworkPolicy,
        "a",
        r#"{"selector":"a =="}"#,
        &["spec.selector"],
    );
    check(
        Kind::NetworkPolicy,
        "a",
        r#"{"selector":"global()"}"#,
        &["spec.selector"],
    );
    check(
        Kind::GlobalNetworkPolicy,
        "a",
        r#"{"namespaceSelector":"global()"}"#,
        &["spec.namespaceSelector"],
    );
    policy(
        r#"{"action":"Allow","source":{"selector":"(","notSelector":"all()"}}"#,
        &["source.selector"],
    );
    policy(
        r#"{"action":"Allow","source":{"namespaceSelector":" global() "}}"#,
        &[],
    );
    policy(
        r#"{"action":"Allow","source":{"namespaceSelector":"global() || has(a)"}}"#,
        &["source.namespaceSelector"],
    );
}

#[test]
fn ports_need_a_protocol_that_has_them() {
    policy(
        r#"{"action":"Allow","protocol":"TCP","destination":{"ports":[80,"1:2","http"],"notPorts":[1]}}"#,
        &[],
    );
    policy(r#"{"action":"Allow","destination":{"ports":["http"]}}"#, &[]);
    policy(
        r#"{"action":"Allow","destination":{"ports":[80]}}"#,
        &["destination.ports"],
    );
    policy(
        r#"{"action":"Allow","protocol":"ICMP","source":{"notPorts":["a"]}}"#,
        &["source.notPorts"],
    );
    policy(
        r#"{"action":"Allow","protocol":"UDP","source":{"ports":[0]}}"#,
        &["source.ports[0]"],
    );
    policy(r#"{"action":"Allow","protocol":0}"#, &["protocol"]);
    let many = (1..=51).map(|p| p.to_string()).collect::<Vec<_>>().join(",");
    policy(
        &format!(r#"{{"action":"Allow","protocol":6,"source":{{"ports":[{many}]}}}}"#),
        &["source.ports"],
    );
}

#[test]
fn icmp_needs_its_protocol_and_version() {
    policy(
        r#"{"action":"Allow","protocol":"ICMP","icmp":{"type":8,"code":0}}"#,
        &[],
    );
    policy(r#"{"action":"Allow","icmp":{"type":8}}"#, &["icmp"]);
    policy(
        r#"{"action":"Allow","protocol":"ICMP","icmp":{"code":0}}"#,
        &["icmp.code"],
    );
    policy(
        r#"{"action":"Allow","protocol":"ICMP","notICMP":{"type":255}}"#,
        &["notICMP.type"],
    );
    policy(
        r#"{"action":"Allow","protocol":"ICMP","ipVersion":6}"#,
        &["ipVersion"],
    );
    policy(
        r#"{"action":"Allow","notProtocol":"ICMPv6","ipVersion":4}"#,
        &["ipVersion"],
    );
}

#[test]
fn nets_are_masked_prefixes_of_one_version() {
    policy(
        r#"{"action":"Allow","source":{"nets":["10.0.0.0/8"],"notNets":["10.1.0.0/16"]}}"#,
        &[],
    );
    policy(
        r#"{"action":"Allow","source":{"nets":["10.0.0.1/8"]}}"#,
        &["source.nets[0]"],
    );
    policy(
        r#"{"action":"Allow","source":{"nets":["10.0.0.1"]}}"#,
        &["source.nets[0]"],
    );
    policy(
        r#"{"action":"Allow","source":{"notNets":["0.0.0.0/0"]}}"#,
        &["source.notNets[0]"],
    );
    policy(
        r#"{"action":"Allow","source":{"nets":["10.0.0.0/8","fd00::/8"]}}"#,
        &["source.nets"],
    );
    policy(
        r#"{"action":"Allow","source":{"nets":["10.0.0.0/8"]},"destination":{"nets":["fd00::/8"]}}"#,
        &["destination.nets"],
    );
    policy(
        r#"{"action":"Allow","ipVersion":6,"source":{"nets":["10.0.0.0/8"]}}"#,
        &["source.nets"],
    );
    check(
        Kind::GlobalNetworkSet,
        "a",
        r#"{"nets":["10.0.0.1","fd00::/8"]}"#,
        &[],
    );
    check(
        Kind::NetworkSet,
        "a",
        r#"{"nets":["10.0.0.1/8"]}"#,
        &["spec.nets[0]"],
    );
}

#[test]
fn services_stand_alone_and_on_their_side() {
    policy(r#"{"action":"Allow","source":{"services":{"name":"a"}}}"#, &[]);
    policy(
        r#"{"action":"Allow","source":{"services":{}}}"#,
        &["source.services.name"],
    );
    policy(
        r#"{"action":"Allow","source":{"services":{"name":"a"},"selector":"all()"}}"#,
        &["source.services"],
    );
    policy(
        r#"{"action":"Allow","destination":{"services":{"name":"a"}}}"#,
        &["destination.services"],
    );
    let egress = |rule: &str| format!(r#"{{"egress":[{rule}]}}"#);
    let with_ports =
        r#"{"action":"Allow","protocol":"TCP","destination":{"services":{"name":"a"},"ports":[1]}}"#;
    check(
        Kind::NetworkPolicy,
        "a",
        &egress(with_ports),
        &["spec.egress[0].destination.services"],
    );
    let unnamed = r#"{"action":"Allow","destination":{"services":{"name":"a"}}}"#;
    check(
        Kind::GlobalNetworkPolicy,
        "a",
        &egress(unnamed),
        &["spec.egress[0].destination.services.namespace"],
    );
}

#[test]
fn http_is_for_allowed_ingress_over_tcp() {
    policy(
        r#"{"action":"Allow","http":{"methods":["GET"],"paths":[{"exact":"/a"},{"prefix":"/b"}]}}"#,
        &[],
    );
    policy(r#"{"action":"Deny","http":{}}"#, &["http"]);
    policy(
        r#"{"action":"Allow","protocol":"UDP","http":{"methods":["A","A"]}}"#,
        &["http", "http.methods"],
    );
    policy(
        r#"{"action":"Allow","http":{"paths":[{},{"exact":"/a","prefix":"/"},{"exact":"a"},{"exact":"/a?b"}]}}"#,
        &["http.paths[0]", "http.paths[1]", "http.paths[2]", "http.paths[3]"],
    );
    check(
        Kind::NetworkPolicy,
        "a",
        r#"{"egress":[{"action":"Allow","http":{}}]}"#,
        &["spec.egress[0].http"],
    );
}

#[test]
fn host_policies_have_rules_of_their_own() {
    check(
        Kind::GlobalNetworkPolicy,
        "a",
        r#"{"doNotTrack":true,"applyOnForward":true}"#,
        &[],
    );
    check(
        Kind::GlobalNetworkPolicy,
        "a",
        r#"{"doNotTrack":true}"#,
        &["spec.applyOnForward"],
    );
    check(
        Kind::GlobalNetworkPolicy,
        "a",
        r#"{"doNotTrack":true,"preDNAT":true,"applyOnForward":true,"egress":[{"action":"Deny"}]}"#,
        &["spec.preDNAT", "spec.egress", "spec.types"],
    );
    check(
        Kind::GlobalNetworkPolicy,
        "a",
        r#"{"types":["Ingress","Ingress"]}"#,
        &["spec.types"],
    );
}

#[test]
fn tiers_that_always_exist_cannot_differ() {
    check(Kind::Tier, "mine", r#"{"order":5,"defaultAction":"Pass"}"#, &[]);
    check(
        Kind::Tier,
        "mine",
        r#"{"defaultAction":"Allow"}"#,
        &["spec.defaultAction"],
    );
    check(Kind::Tier, "default", r#"{"order":1000000}"#, &[]);
    check(
        Kind::Tier,
        "default",
        r#"{"order":1,"defaultAction":"Pass"}"#,
        &["spec.order", "spec.defaultAction"],
    );
    check(
        Kind::Tier,
        "kube-admin",
        r#"{"order":1000}"#,
        &["spec.defaultAction"],
    );
}

#[test]
fn pools_have_room_and_one_encapsulation() {
    let pool = |spec: &str, paths: &[&str]| check(Kind::IpPool, "p", spec, paths);
    pool(
        r#"{"cidr":"10.244.0.0/16","ipipMode":"Always","namespaceSelector":"a == 'b'","allowedUses":["Workload"]}"#,
        &[],
    );
    pool(r#"{"cidr":"10.244.0.1/16"}"#, &["spec.cidr"]);
    pool(r#"{"cidr":"10.244.0.0/27"}"#, &["spec.cidr"]);
    pool(r#"{"cidr":"10.244.0.0/27","disabled":true}"#, &[]);
    pool(r#"{"cidr":"10.244.0.0"}"#, &["spec.cidr", "spec.cidr"]);
    pool(r#"{"cidr":"10.244.0.0/16","blockSize":19}"#, &["spec.blockSize"]);
    pool(r#"{"cidr":"fd00::/112","blockSize":115}"#, &["spec.blockSize"]);
    pool(r#"{"cidr":"169.254.0.0/20"}"#, &["spec.cidr"]);
    pool(r#"{"cidr":"fe80::/64"}"#, &["spec.cidr"]);
    pool(
        r#"{"cidr":"10.244.0.0/16","ipipMode":"Always","vxlanMode":"Always"}"#,
        &["spec.vxlanMode"],
    );
    pool(
        r#"{"cidr":"fd00::/64","ipipMode":"CrossSubnet"}"#,
        &["spec.ipipMode"],
    );
    pool(
        r#"{"cidr":"10.244.0.0/16","namespaceSelector":"all()"}"#,
        &["spec.namespaceSelector"],
    );
    pool(
        r#"{"cidr":"10.244.0.0/16","nodeSelector":"global()"}"#,
        &["spec.nodeSelector"],
    );
    pool(
        r#"{"cidr":"10.244.0.0/16","allowedUses":["LoadBalancer","Workload"],"disableBGPExport":true,"nodeSelector":"has(a)","vxlanMode":"Always"}"#,
        &[
            "spec.vxlanMode",
            "spec.allowedUses",
            "spec.disableBGPExport",
            "spec.nodeSelector",
        ],
    );
}

#[test]
fn nodes_have_addresses_of_the_right_kind() {
    let node = |spec: &str, paths: &[&str]| check(Kind::Node, "n1", spec, paths);
    node(
        r#"{"bgp":{"ipv4Address":"192.0.2.1/24","ipv6Address":"fd00::1/64","ipv4IPIPTunnelAddr":"10.0.0.1"}}"#,
        &[],
    );
    node(r#"{"bgp":{}}"#, &["spec.bgp"]);
    node(r#"{"bgp":{"ipv4Address":"fd00::1"}}"#, &["spec.bgp.ipv4Address"]);
    node(
        r#"{"ipv4VXLANTunnelAddr":"10.0.0.1/32"}"#,
        &["spec.ipv4VXLANTunnelAddr"],
    );
    node(r#"{"vxlanTunnelMACAddr":"x"}"#, &["spec.vxlanTunnelMACAddr"]);
    node(
        r#"{"addresses":[{"address":"x","type":"Other"}]}"#,
        &["spec.addresses[0].address", "spec.addresses[0].type"],
    );
}

#[test]
fn endpoints_are_named_by_their_spec() {
    let good = r#""orchestrator":"k8s","node":"n1","pod":"p","endpoint":"eth0","interfaceName":"cali1","ipNetworks":["10.0.0.1/32"]"#;
    let endpoint = |more: &str, paths: &[&str]| {
        check(
            Kind::WorkloadEndpoint,
            "n1-k8s-p-eth0",
            &format!("{{{good}{more}}}"),
            paths,
        );
    };
    endpoint("", &[]);
    check(Kind::WorkloadEndpoint, "other", &format!("{{{good}}}"), &["spec"]);
    check(
        Kind::WorkloadEndpoint,
        "a",
        r#"{"interfaceName":"a"}"#,
        &["spec.node"],
    );
    endpoint(
        r#","mac":"x","containerID":"a_b","profiles":["A"]"#,
        &["spec.containerID", "spec.mac", "spec.profiles[0]"],
    );
    endpoint(r#","ipv4Gateway":"fd00::1""#, &["spec.ipv4Gateway"]);
    endpoint(
        r#","ipNATs":[{"internalIP":"10.0.0.2","externalIP":"1.1.1.1"}]"#,
        &["spec.ipNATs[0].internalIP"],
    );
    endpoint(
        r#","ports":[{"name":"","protocol":"ICMP","port":0}]"#,
        &[
            "spec.ports[0].name",
            "spec.ports[0].port",
            "spec.ports[0].protocol",
        ],
    );
    let wide = good.replace("/32", "/24");
    check(
        Kind::WorkloadEndpoint,
        "n1-k8s-p-eth0",
        &format!("{{{wide}}}"),
        &["spec.ipNetworks[0]"],
    );
}

#[test]
fn bgp_peers_are_who_they_can_be() {
    let peer = |spec: &str, paths: &[&str]| check(Kind::BgpPeer, "p", spec, paths);
    peer(r#"{"peerIP":"192.0.2.1","asNumber":64999}"#, &[]);
    peer(
        r#"{"peerIP":"[fd00::1]:1179","asNumber":1,"reachableBy":"fd00::2"}"#,
        &[],
    );
    peer(r#"{"peerSelector":"all()","nodeSelector":"has(rr)"}"#, &[]);
    peer("{}", &["spec.peerIP"]);
    peer(r#"{"peerIP":"192.0.2.1:0"}"#, &["spec.peerIP"]);
    peer(
        r#"{"peerIP":"192.0.2.1","reachableBy":"fd00::2"}"#,
        &["spec.reachableBy"],
    );
    peer(
        r#"{"peerIP":"192.0.2.1","node":"a","nodeSelector":"all()"}"#,
        &["spec.node"],
    );
    peer(
        r#"{"peerIP":"192.0.2.1","peerSelector":"all()","asNumber":1}"#,
        &["spec.peerIP", "spec.asNumber"],
    );
    peer(r#"{"localWorkloadSelector":"all()"}"#, &["spec.asNumber"]);
    peer(
        r#"{"peerIP":"192.0.2.1","keepOriginalNextHop":true,"nextHopMode":"Self"}"#,
        &["spec.keepOriginalNextHop"],
    );
}

#[test]
fn bgp_configurations_keep_to_their_node() {
    let bgp = |name: &str, spec: &str, paths: &[&str]| check(Kind::BgpConfiguration, name, spec, paths);
    bgp(
        "default",
        r#"{"asNumber":64512,"nodeToNodeMeshEnabled":true}"#,
        &[],
    );
    bgp("node.n1", r#"{"logSeverityScreen":"Debug"}"#, &[]);
    bgp("node.n1", r#"{"asNumber":64512}"#, &["spec.asNumber"]);
    bgp(
        "default",
        r#"{"nodeToNodeMeshEnabled":false,"nodeMeshMaxRestartTime":"2m"}"#,
        &["spec.nodeMeshMaxRestartTime"],
    );
    bgp(
        "default",
        r#"{"communities":[{"name":"a","value":"1:2"}]}"#,
        &["spec.communities"],
    );
    let used = r#""prefixAdvertisements":[{"cidr":"10.0.0.0/8","communities":["a","1:2:70000"]}]"#;
    bgp(
        "default",
        &format!(r#"{{"communities":[{{"name":"a","value":"1:2"}}],{used}}}"#),
        &[],
    );
    bgp(
        "default",
        &format!(r#"{{{used}}}"#),
        &["spec.prefixAdvertisements[0].communities[0]"],
    );
    bgp(
        "default",
        r#"{"ignoredInterfaces":["*"]}"#,
        &["spec.ignoredInterfaces[0]"],
    );
    bgp(
        "default",
        r#"{"ipv4NormalRoutePriority":0}"#,
        &["spec.ipv4NormalRoutePriority"],
    );
}

#[test]
fn settings_are_words_that_exist() {
    let felix = |spec: &str, paths: &[&str]| check(Kind::FelixConfiguration, "default", spec, paths);
    felix(
        r#"{"defaultEndpointToHostAction":"Return","failsafeInboundHostPorts":[{"protocol":"tcp","port":22}]}"#,
        &[],
    );
    felix(
        r#"{"defaultEndpointToHostAction":"RETURN"}"#,
        &["spec.defaultEndpointToHostAction"],
    );
    felix(
        r#"{"failsafeInboundHostPorts":[{"protocol":"ICMP","port":22,"net":"x"}]}"#,
        &[
            "spec.failsafeInboundHostPorts[0].protocol",
            "spec.failsafeInboundHostPorts[0].net",
        ],
    );
    felix(
        r#"{"natOutgoingAddress":"fd00::1"}"#,
        &["spec.natOutgoingAddress"],
    );
    let ipam = |spec: &str, paths: &[&str]| check(Kind::IpamConfiguration, "default", spec, paths);
    ipam(
        r#"{"maxBlocksPerHost":-1,"ipCooldownSeconds":1201}"#,
        &["spec.maxBlocksPerHost", "spec.ipCooldownSeconds"],
    );
}

#[test]
fn problems_are_bounded_and_readable() {
    let rules = vec![r#"{"action":"Allow","protocol":0}"#; 1025].join(",");
    let json = format!(r#"{{"metadata":{{"name":"a","namespace":"b"}},"spec":{{"ingress":[{rules}]}}}}"#);
    let any = AnyResource::decode(Kind::NetworkPolicy, json.as_bytes()).unwrap();
    let invalid = any.validate().unwrap_err();
    assert_eq!(invalid.problems().count(), PROBLEMS_MAX);
    assert!(
        invalid
            .to_string()
            .starts_with("field spec.ingress: holds 1025 rules, at most 1024 are allowed; field ")
    );
}

#[test]
fn bgp_filters_match_what_there_is_and_change_only_what_they_accept() {
    let rule = |rule: &str, paths: &[&str]| {
        check(
            Kind::BgpFilter,
            "f",
            &format!(r#"{{"exportV4":[{rule}]}}"#),
            paths,
        );
    };
    rule(r#"{"action":"Accept"}"#, &[]);
    rule(
        r#"{"cidr":"10.0.0.0/8","matchOperator":"In","prefixLength":{"min":16,"max":24},"interface":"cali*","source":"RemotePeers","peerType":"eBGP","communities":{"values":["1:2:3"]},"asPathPrefix":[1],"priority":512,"action":"Accept","operations":[{"addCommunity":{"value":"1:2"}},{"prependASPath":{"prefix":[1,2]}},{"setPriority":{"value":100}}]}"#,
        &[],
    );
    rule(r#"{"action":"Pass"}"#, &["spec.exportV4[0].action"]);
    rule(
        r#"{"cidr":"10.0.0.0/8","action":"Reject"}"#,
        &["spec.exportV4[0].matchOperator"],
    );
    rule(
        r#"{"matchOperator":"In","action":"Reject"}"#,
        &["spec.exportV4[0].cidr"],
    );
    rule(
        r#"{"cidr":"10.0.0.1/8","matchOperator":"In","action":"Reject"}"#,
        &["spec.exportV4[0].cidr"],
    );
    rule(
        r#"{"cidr":"fd00::/8","matchOperator":"In","action":"Reject"}"#,
        &["spec.exportV4[0].cidr"],
    );
    rule(
        r#"{"cidr":"10.0.0.0/8","matchOperator":"In","prefixLength":{"max":33},"action":"Reject"}"#,
        &["spec.exportV4[0].prefixLength.max"],
    );
    rule(
        r#"{"action":"Reject","operations":[{"setPriority":{"value":1}}]}"#,
        &["spec.exportV4[0].operations"],
    );
    rule(
        r#"{"action":"Accept","operations":[{}]}"#,
        &["spec.exportV4[0].operations[0]"],
    );
    rule(
        r#"{"action":"Accept","operations":[{"setPriority":{"value":0}}]}"#,
        &["spec.exportV4[0].operations[0].setPriority.value"],
    );
    rule(
        r#"{"action":"Accept","communities":{"values":["70000:1"]}}"#,
        &["spec.exportV4[0].communities.values[0]"],
    );
    rule(
        r#"{"action":"Accept","priority":2147483647}"#,
        &["spec.exportV4[0].priority"],
    );
}

#[test]
fn a_session_policy_says_what_a_session_can_have() {
    let check = |spec: &str, paths: &[&str]| check(Kind::BgpSessionPolicy, "p", spec, paths);
    check("{}", &[]);
    check(
        r#"{"nodeSelector":"rack == 'a'","bgpPeers":["tor"],"mesh":true,"strictImport":true,"maxPrefixes":10000,
            "maxPrefixesWarnPercent":80,"maxPrefixesRestart":"1m0s","holdTime":"9s","keepaliveTime":"3s","connectRetryTime":"5s",
            "sendHoldTime":"8m0s","gracefulRestart":true,"longLivedTime":"1h0m0s","damping":false,
            "bfd":{"minTx":"300ms","minRx":"10ms","multiplier":3,"multihop":true}}"#,
        &[],
    );
    check(r#"{"nodeSelector":"rack =="}"#, &["spec.nodeSelector"]);
    check(r#"{"maxPrefixes":0}"#, &["spec.maxPrefixes"]);
    check(
        r#"{"maxPrefixesWarnPercent":101}"#,
        &["spec.maxPrefixesWarnPercent"],
    );
    for time in ["1s", "2s", "-3s", "3.5s", "18h12m16s"] {
        check(&format!(r#"{{"holdTime":"{time}"}}"#), &["spec.holdTime"]);
    }
    check(r#"{"holdTime":"0s"}"#, &[]);
    check(r#"{"keepaliveTime":"0s"}"#, &["spec.keepaliveTime"]);
    check(r#"{"longLivedTime":"5000h0m0s"}"#, &["spec.longLivedTime"]);
    check(
        r#"{"bfd":{"minTx":"9ms","minRx":"61s","multiplier":0}}"#,
        &["spec.bfd.minTx", "spec.bfd.minRx", "spec.bfd.multiplier"],
    );
}

#[test]
fn a_kind_of_our_own_has_our_version() {
    let decode = |version: &str| {
        let json = format!(
            r#"{{"kind":"BGPSessionPolicy","apiVersion":"{version}","metadata":{{"name":"p"}},"spec":{{"holdTime":"9s"}}}}"#
        );
        AnyResource::decode(Kind::BgpSessionPolicy, json.as_bytes())
            .map(|any| String::from_utf8(any.encode()).unwrap())
    };
    let encoded = decode("twill.net/v1").unwrap();
    assert!(
        encoded.contains(r#""apiVersion":"twill.net/v1""#) && encoded.contains(r#""holdTime":"9s""#),
        "{encoded}"
    );
    assert!(decode("projectcalico.org/v3").is_err());
}
