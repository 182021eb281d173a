use super::*;
use bytes::Bytes;
use twill_bgp::config::NextHopMode;
use twill_model::update::Value;
use twill_model::{Key, Kind, Update};

/// A fabric made of objects as they lie in the store.
fn fabric(objects: &[(Kind, &str, &str)]) -> Fabric {
    let mut fabric = Fabric::default();
    for (kind, name, spec) in objects {
        let (name, labels) = name.split_once('|').unwrap_or((name, ""));
        let labels: Vec<String> = labels
            .split(',')
            .filter(|l| !l.is_empty())
            .map(|l| format!("\"{l}\":\"\""))
            .collect();
        let json = format!(
            r#"{{"kind":"{kind}","apiVersion":"{}","metadata":{{"name":"{name}","labels":{{{}}}}},"spec":{spec}}}"#,
            kind.api_version(),
            labels.join(",")
        );
        put(&mut fabric, Key::cluster(*kind, name), json);
    }
    fabric
}

fn put(fabric: &mut Fabric, key: Key, json: String) {
    let value = Value::decode(&key, &Bytes::from(json)).unwrap();
    fabric.apply(
        "n1",
        &Update {
            key,
            value: Some(value),
            revision: 1,
        },
    );
}

fn node(address: &str) -> String {
    format!(r#"{{"bgp":{{"ipv4Address":"{address}"}}}}"#)
}

fn three_nodes() -> Vec<(Kind, &'static str, String)> {
    vec![
        (Kind::Node, "n1|rack-a", node("172.31.0.10/24")),
        (Kind::Node, "n2|rack-a", node("172.31.0.9/24")),
        (Kind::Node, "n3|rack-b", node("172.31.0.30/24")),
    ]
}

fn derive(own: &str, fabric: &Fabric) -> Option<Derived> {
    bgp_config(own, fabric, &BTreeSet::new(), &Passwords::new())
}

/// The peers of n1, one line each: address, AS, port, and what is not the default.
fn peers(extra: &[(Kind, &str, &str)]) -> Vec<String> {
    let nodes = three_nodes();
    let mut objects: Vec<(Kind, &str, &str)> = nodes.iter().map(|(k, n, s)| (*k, *n, s.as_str())).collect();
    objects.extend(extra);
    lines(&derive("n1", &fabric(&objects)).unwrap())
}

/// The AS number of a peer, which a resource always says.
fn asn_of(peer: &PeerConfig) -> u32 {
    peer.known_asn(0).unwrap()
}

fn lines(derived: &Derived) -> Vec<String> {
    let line = |p: &PeerConfig| {
        let mut words = vec![p.address.to_string(), asn_of(p).to_string(), p.port.to_string()];
        words.push(match derived.sources[&p.address].kind {
            PeerType::Mesh => "mesh".into(),
            PeerType::Global => format!("global:{}", p.description),
            PeerType::Node => format!("node:{}", p.description),
        });
        words.extend(p.passive.then(|| "passive".to_owned()));
        words.extend((p.next_hop != NextHopMode::Auto).then(|| format!("{:?}", p.next_hop)));
        words.extend(p.route_reflector_client.then(|| "client".to_owned()));
        words.extend(p.shared_subnet.is_none().then(|| "far".to_owned()));
        words.extend(p.local_address.is_none().then(|| "anyaddr".to_owned()));
        words.join(" ")
    };
    derived
        .config
        .peers
        .iter()
        .map(line)
        .chain(derived.warnings.iter().map(|w| format!("! {w}")))
        .collect()
}

#[test]
fn the_mesh_is_every_other_node_and_the_greater_string_is_waited_for() {
    // "172.31.0.9" is the greater string, though the lesser address.
    assert_eq!(
        peers(&[]),
        [
            "172.31.0.9 64512 179 mesh passive",
            "172.31.0.30 64512 179 mesh passive"
        ]
    );
}

#[test]
fn exactly_one_side_of_each_pair_of_the_mesh_dials() {
    let nodes = three_nodes();
    let objects: Vec<(Kind, &str, &str)> = nodes.iter().map(|(k, n, s)| (*k, *n, s.as_str())).collect();
    let fabric = fabric(&objects);
    for (a, b) in [("n1", "n2"), ("n1", "n3"), ("n2", "n3")] {
        let address = |name: &str| addresses(&fabric.nodes[name])[0].addr();
        let passive = |own: &str, peer: &str| {
            let derived = derive(own, &fabric).unwrap();
            derived
                .config
                .peers
                .iter()
                .find(|p| p.address == address(peer))
                .unwrap()
                .passive
        };
        assert_ne!(passive(a, b), passive(b, a), "{a} {b}");
    }
}

#[test]
fn the_mesh_can_be_off_and_leaves_reflectors_out() {
    assert!(
        peers(&[(
            Kind::BgpConfiguration,
            "default",
            r#"{"nodeToNodeMeshEnabled":false}"#
        )])
        .is_empty()
    );
    let reflector = r#"{"bgp":{"ipv4Address":"172.31.0.9/24","routeReflectorClusterID":"244.0.0.1"}}"#;
    assert_eq!(
        peers(&[(Kind::Node, "n2", reflector)]),
        ["172.31.0.30 64512 179 mesh passive"]
    );
}

#[test]
fn numbers_and_ports_come_from_the_node_or_the_cluster() {
    let extra = [
        (
            Kind::BgpConfiguration,
            "default",
            r#"{"asNumber":64600,"listenPort":1790}"#,
        ),
        (Kind::BgpConfiguration, "node.n2", r#"{"listenPort":1179}"#),
        (
            Kind::Node,
            "n3",
            r#"{"bgp":{"ipv4Address":"172.31.0.30/24","asNumber":65003}}"#,
        ),
    ];
    assert_eq!(
        peers(&extra),
        [
            "172.31.0.9 64600 1179 mesh passive",
            "172.31.0.30 65003 1790 mesh passive"
        ]
    );
}

#[test]
fn a_global_peer_is_everybodys_and_a_node_is_not_its_own_peer() {
    let mesh = [
        "172.31.0.9 64512 179 mesh passive",
        "172.31.0.30 64512 179 mesh passive",
    ];
    let tor = (
        Kind::BgpPeer,
        "tor",
        r#"{"peerIP":"172.31.0.254","asNumber":64999}"#,
    );
    assert_eq!(peers(&[tor])[2..], ["172.31.0.254 64999 179 global:tor"]);
    let own = (
        Kind::BgpPeer,
        "own",
        r#"{"peerIP":"172.31.0.10","asNumber":64512}"#,
    );
    // To everybody else that is a peer; to us, the other end of it.
    assert_eq!(
        peers(&[own]),
        mesh.map(|line| line.replace("mesh passive", "global:own"))
    );
    let far = (
        Kind::BgpPeer,
        "far",
        r#"{"peerIP":"[2001:db8::1]:1179","asNumber":64999,"nextHopMode":"Self","sourceAddress":"None"}"#,
    );
    assert_eq!(
        peers(&[far])[2..],
        ["2001:db8::1 64999 1179 global:far SelfAddress far anyaddr"]
    );
}

#[test]
fn a_peer_may_be_for_one_node_or_for_selected_ones() {
    let check = |spec: &str, expected: &[&str]| {
        assert_eq!(peers(&[(Kind::BgpPeer, "p", spec)])[2..], *expected, "{spec}");
    };
    check(
        r#"{"node":"n1","peerIP":"172.31.0.254","asNumber":1}"#,
        &["172.31.0.254 1 179 node:p"],
    );
    check(r#"{"node":"n2","peerIP":"172.31.0.254","asNumber":1}"#, &[]);
    check(
        r#"{"nodeSelector":"has(rack-a)","peerIP":"172.31.0.254","asNumber":1}"#,
        &["172.31.0.254 1 179 node:p"],
    );
    check(
        r#"{"nodeSelector":"has(rack-b)","peerIP":"172.31.0.254","asNumber":1}"#,
        &[],
    );
}

#[test]
fn selected_peers_are_peers_from_both_ends_and_dial_both() {
    let off = (
        Kind::BgpConfiguration,
        "default",
        r#"{"nodeToNodeMeshEnabled":false}"#,
    );
    let check = |spec: &str, expected: &[&str]| {
        assert_eq!(peers(&[off, (Kind::BgpPeer, "p", spec)]), *expected, "{spec}");
    };
    check(
        r#"{"nodeSelector":"has(rack-a)","peerSelector":"has(rack-b)"}"#,
        &["172.31.0.30 64512 179 node:p"],
    );
    check(
        r#"{"nodeSelector":"has(rack-b)","peerSelector":"has(rack-a)"}"#,
        &["172.31.0.30 64512 179 node:p"],
    );
    check(
        r#"{"nodeSelector":"has(rack-b)","peerSelector":"has(rack-a)","reversePeering":"Manual"}"#,
        &[],
    );
    check(
        r#"{"nodeSelector":"has(rack-b)","peerIP":"172.31.0.10","asNumber":64512}"#,
        &["172.31.0.30 64512 179 node:p"],
    );
}

#[test]
fn a_reflector_has_clients_but_not_in_its_own_cluster() {
    let extra = [
        (
            Kind::Node,
            "n1",
            r#"{"bgp":{"ipv4Address":"172.31.0.10/24","routeReflectorClusterID":"244.0.0.1"}}"#,
        ),
        (
            Kind::Node,
            "n2|rr",
            r#"{"bgp":{"ipv4Address":"172.31.0.9/24","routeReflectorClusterID":"244.0.0.1"}}"#,
        ),
        (Kind::BgpPeer, "p", r#"{"peerSelector":"all()"}"#),
    ];
    assert_eq!(
        peers(&extra),
        [
            "172.31.0.9 64512 179 global:p",
            "172.31.0.30 64512 179 global:p client"
        ]
    );
}

#[test]
fn what_cannot_be_done_is_named_and_no_session_is_made_of_it() {
    for (spec, word) in [
        (
            r#"{"peerIP":"172.31.0.254","asNumber":1,"password":{"secretKeyRef":{"name":"s","key":"k"}}}"#,
            "password: entry \"k\" of secret \"s\" has not been read",
        ),
        (r#"{"peerIP":"tor","asNumber":1}"#, "peerIP"),
        (r#"{"peerIP":"172.31.0.254"}"#, "asNumber"),
        (
            r#"{"peerIP":"172.31.0.254","asNumber":1,"reachableBy":"fd00::1"}"#,
            "reachableBy",
        ),
        (
            r#"{"nodeSelector":"==","peerIP":"172.31.0.254","asNumber":1}"#,
            "nodeSelector",
        ),
    ] {
        let lines = peers(&[(Kind::BgpPeer, "p", spec)]);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[2].starts_with("! BGPPeer p is not used") && lines[2].contains(word),
            "{lines:?}"
        );
    }
}

/// The configuration of n1 among three nodes and these objects, with these keys read.
fn derived(extra: &[(Kind, &str, &str)], keys: &[(&str, &str, Result<&str, &str>)]) -> Derived {
    let nodes = three_nodes();
    let mut objects: Vec<(Kind, &str, &str)> = nodes.iter().map(|(k, n, s)| (*k, *n, s.as_str())).collect();
    objects.extend(extra);
    let selector = |name: &str, key: &str| twill_model::resources::bgppeer::SecretKeySelector {
        name: name.into(),
        key: key.into(),
        ..Default::default()
    };
    let passwords = keys
        .iter()
        .map(|(name, key, secret)| {
            let place = super::super::secrets::SecretRef::of(&selector(name, key));
            let secret = secret.map(|s| twill_bgp::config::Secret(s.into()));
            (place, secret.map_err(str::to_owned))
        })
        .collect();
    bgp_config("n1", &fabric(&objects), &BTreeSet::new(), &passwords).unwrap()
}

fn peer_of<'a>(derived: &'a Derived, address: &str) -> &'a PeerConfig {
    let address: IpAddr = address.parse().unwrap();
    derived
        .config
        .peers
        .iter()
        .find(|p| p.address == address)
        .unwrap()
}

#[test]
fn every_field_of_a_peer_reaches_its_session() {
    let spec = r#"{"peerIP":"192.0.2.1:1790","asNumber":65001,"keepOriginalNextHop":true,"ttlSecurity":2,
        "maxRestartTime":"90.6s","keepaliveTime":"7s","numAllowedLocalASNumbers":2,"sourceAddress":"None",
        "reachableBy":"172.31.0.1","password":{"secretKeyRef":{"name":"tor","key":"pw"}},"filters":["f"]}"#;
    let filter = r#"{"importV4":[{"action":"Reject"}],"exportV4":[{"action":"Reject"}]}"#;
    let derived = derived(
        &[(Kind::BgpPeer, "tor", spec), (Kind::BgpFilter, "f", filter)],
        &[("tor", "pw", Ok("key"))],
    );
    let peer = peer_of(&derived, "192.0.2.1");
    assert_eq!(
        (peer.port, asn_of(peer), peer.next_hop),
        (1790, 65001, NextHopMode::Keep)
    );
    assert_eq!((peer.ttl_security_hops, peer.own_as_allowed), (Some(2), 2));
    assert_eq!(peer.graceful_restart.restart_secs, 91);
    assert_eq!(peer.timers.keepalive, Some(std::time::Duration::from_secs(7)));
    assert_eq!(peer.local_address, None);
    assert_eq!(peer.password.as_ref().map(|s| s.0.as_str()), Some("key"));
    let named = |p: &twill_bgp::policy::Policy, name: &str| p.terms.iter().any(|t| t.name == name);
    assert!(
        named(&peer.import, "BGPFilter f importV4[0]"),
        "{:?}",
        peer.import
    );
    assert!(
        named(&peer.export, "BGPFilter f exportV4[0]"),
        "{:?}",
        peer.export
    );
    let gateways: Vec<_> = derived
        .gateways
        .iter()
        .map(|(n, g)| format!("{n} via {g}"))
        .collect();
    assert_eq!(gateways, ["192.0.2.1/32 via 172.31.0.1"]);
    derived.config.check().unwrap();
    assert_eq!(derived.warnings, Vec::<String>::new());
}

#[test]
fn a_local_as_number_is_the_only_one_that_its_peer_sees() {
    let check = |own: u32, theirs: u32| {
        let spec = format!(r#"{{"peerIP":"192.0.2.1","asNumber":{theirs},"localASNumber":{own}}}"#);
        let derived = derived(&[(Kind::BgpPeer, "tor", &spec)], &[]);
        derived.config.check().unwrap();
        peer_of(&derived, "192.0.2.1").local_as
    };
    let other = LocalAs {
        asn: 65010,
        prepend_received: false,
        replace: true,
    };
    assert_eq!(check(65010, 65001), Some(other));
    assert_eq!(check(65010, 65010), Some(other));
    assert_eq!(check(64512, 65001), None);
}

#[test]
fn a_filter_makes_its_own_policy_and_peers_without_one_share_theirs() {
    let filtered = r#"{"peerIP":"192.0.2.1","asNumber":1,"filters":["missing"]}"#;
    let derived = derived(&[(Kind::BgpPeer, "tor", filtered)], &[]);
    let (n2, n3) = (peer_of(&derived, "172.31.0.9"), peer_of(&derived, "172.31.0.30"));
    assert!(Arc::ptr_eq(&n2.export, &n3.export) && Arc::ptr_eq(&n2.import, &n3.import));
    assert_eq!(
        derived.warnings,
        ["BGPFilter missing is named by a BGPPeer and does not exist"]
    );
}

#[test]
fn a_key_that_is_missing_or_too_long_closes_the_session_unless_it_may_be_absent() {
    let spec = |optional: bool| {
        format!(
            r#"{{"peerIP":"192.0.2.1","asNumber":1,"password":{{"secretKeyRef":{{"name":"s","key":"k","optional":{optional}}}}}}}"#
        )
    };
    let check = |optional, secret: Result<&str, &str>, expected: Option<Option<&str>>| {
        let spec = spec(optional);
        let derived = derived(&[(Kind::BgpPeer, "p", &spec)], &[("s", "k", secret)]);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let found = derived.config.peers.iter().find(|p| p.address == address);
        let key = found.map(|p| p.password.as_ref().map(|s| s.0.as_str()));
        assert_eq!(key, expected, "{optional} {secret:?}");
    };
    check(false, Ok("k"), Some(Some("k")));
    check(false, Err("no such file"), None);
    check(true, Err("no such file"), Some(None));
    check(false, Ok(""), None);
    check(false, Ok(&"x".repeat(81)), None);
    let mesh =
        r#"{"nodeMeshPassword":{"secretKeyRef":{"name":"m","key":"k"}},"nodeMeshMaxRestartTime":"60s"}"#;
    let config = (Kind::BgpConfiguration, "default", mesh);
    let open = derived(&[config], &[("m", "k", Ok("mesh"))]);
    let n2 = peer_of(&open, "172.31.0.9");
    assert_eq!(n2.password.as_ref().map(|s| s.0.as_str()), Some("mesh"));
    assert_eq!(n2.graceful_restart.restart_secs, 60);
    let closed = derived(&[config], &[]);
    assert!(
        closed.config.peers.is_empty() && closed.warnings.len() == 1,
        "{:?}",
        closed.warnings
    );
}

#[test]
fn workloads_that_are_selected_may_dial_in() {
    let mut fabric = fabric(&[
        (Kind::Node, "n1", &node("172.31.0.10/24")),
        (
            Kind::BgpPeer,
            "w",
            r#"{"localWorkloadSelector":"has(router)","asNumber":65010}"#,
        ),
    ]);
    for (name, labels, address) in [
        ("n1-cni-r-eth0", r#"{"router":"1"}"#, "10.244.0.5/32"),
        ("n1-cni-p-eth0", "{}", "10.244.0.6/32"),
    ] {
        let json = format!(
            r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","namespace":"default","labels":{labels}}},"spec":{{"node":"n1","ipNetworks":["{address}"]}}}}"#
        );
        put(
            &mut fabric,
            Key::Resource(twill_model::ResourceKey::namespaced(
                Kind::WorkloadEndpoint,
                "default",
                name,
            )),
            json,
        );
    }
    let derived = derive("n1", &fabric).unwrap();
    assert_eq!(
        lines(&derived),
        ["10.244.0.5 65010 179 global:w passive far anyaddr"]
    );
}

#[test]
fn the_configuration_is_valid_and_there_is_none_without_an_address() {
    let objects = [(Kind::Node, "n1", node("172.31.0.10/24"))];
    let objects: Vec<_> = objects.iter().map(|(k, n, s)| (*k, *n, s.as_str())).collect();
    let derived = derive("n1", &fabric(&objects)).unwrap();
    derived.config.check().unwrap();
    assert_eq!(derived.config.listen, ["0.0.0.0:179".parse().unwrap()]);
    assert_eq!(derived.config.router_id, Ipv4Addr::new(172, 31, 0, 10));
    assert_eq!(derive("n1", &fabric(&[(Kind::Node, "n1", "{}")])), None);
    let bound = [
        objects[0],
        (
            Kind::BgpConfiguration,
            "default",
            r#"{"bindMode":"NodeIP","listenPort":1790}"#,
        ),
    ];
    assert_eq!(
        derive("n1", &fabric(&bound)).unwrap().config.listen,
        ["172.31.0.10:1790".parse().unwrap()]
    );
}

#[test]
fn a_node_that_is_annotated_so_drains() {
    let json = |annotations: &str| {
        format!(
            r#"{{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{{"name":"n1","annotations":{annotations}}},"spec":{}}}"#,
            node("172.31.0.10/24")
        )
    };
    for (annotations, drains) in [
        ("{}", false),
        (r#"{"twill.net/drain":"true"}"#, true),
        (r#"{"twill.net/drain":"false"}"#, false),
    ] {
        let mut fabric = Fabric::default();
        put(&mut fabric, Key::cluster(Kind::Node, "n1"), json(annotations));
        assert_eq!(
            derive("n1", &fabric).unwrap().config.graceful_shutdown,
            drains,
            "{annotations}"
        );
    }
}

#[test]
fn local_pref_is_calicos() {
    let v4: IpNet = "10.0.0.0/26".parse().unwrap();
    assert_eq!(local_pref(&Fabric::default(), &v4), 2_147_482_623);
    let fabric = fabric(&[(
        Kind::BgpConfiguration,
        "default",
        r#"{"ipv4NormalRoutePriority":512}"#,
    )]);
    assert_eq!(local_pref(&fabric, &v4), 2_147_483_135);
}

#[test]
fn a_session_policy_tunes_the_sessions_that_it_names_and_no_others() {
    let tor = (Kind::BgpPeer, "tor", r#"{"peerIP":"192.0.2.1","asNumber":65001}"#);
    let other = (
        Kind::BgpPeer,
        "other",
        r#"{"peerIP":"192.0.2.2","asNumber":65001,"keepaliveTime":"7s"}"#,
    );
    let racks = r#"{"bgpPeers":["tor","other"],"strictImport":true,"holdTime":"9s","keepaliveTime":"3s",
        "maxPrefixesWarnPercent":50,"maxPrefixesRestart":"30s","connectRetryTime":"2s","sendHoldTime":"500s",
        "gracefulRestart":false,"longLivedTime":"1h0m0s","damping":false,"bfd":{"minTx":"50ms","multiplier":5}}"#;
    let derived = derived(
        &[
            tor,
            other,
            (Kind::BgpSessionPolicy, "a", racks),
            (
                Kind::BgpSessionPolicy,
                "b",
                r#"{"bgpPeers":["other"],"holdTime":"30s","maxPrefixes":7}"#,
            ),
            (Kind::BgpSessionPolicy, "c", r#"{"mesh":true,"holdTime":"60s"}"#),
            (
                Kind::BgpSessionPolicy,
                "d",
                r#"{"nodeSelector":"nobody == 'here'","maxPrefixes":1}"#,
            ),
        ],
        &[],
    );
    assert_eq!(derived.warnings, [] as [&str; 0]);
    let secs = |s| Some(std::time::Duration::from_secs(s));
    let tor = peer_of(&derived, "192.0.2.1");
    assert_eq!(
        (tor.timers.hold_secs, tor.timers.keepalive, tor.timers.send_hold),
        (9, secs(3), secs(500))
    );
    assert_eq!(Some(tor.timers.connect_retry), secs(2));
    assert_eq!(
        (tor.prefixes_max, tor.prefixes_warn_percent, tor.prefixes_restart),
        (Some(10_000), 50, secs(30))
    );
    assert!(!tor.graceful_restart.enabled && !tor.idle_hold);
    assert_eq!(tor.graceful_restart.long_lived_secs, Some(3600));
    let bfd = tor.bfd.unwrap();
    assert_eq!(
        (bfd.min_tx, bfd.multiplier),
        (std::time::Duration::from_millis(50), 5)
    );
    let other = peer_of(&derived, "192.0.2.2");
    assert_eq!(
        (other.timers.hold_secs, other.timers.keepalive, other.prefixes_max),
        (9, secs(7), Some(7)),
        "the first by name decides, and Calico's own field before it"
    );
    let mesh = derived.config.peers.iter().find(|p| asn_of(p) == 64512).unwrap();
    assert_eq!((mesh.timers.hold_secs, mesh.prefixes_max), (60, None));
    assert_eq!(mesh.import.default, twill_bgp::policy::Verdict::Accept);
    assert_eq!(tor.import.default, twill_bgp::policy::Verdict::Reject);
}
