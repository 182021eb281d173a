use super::*;
use crate::config::{PeerAs, RemovePrivate, Secret, Timers};
use crate::policy::Policy;
use std::time::Duration;

const WHOLE: &str = r#"
asNumber: 65000
routerId: 10.99.0.1
listen: [{address: 10.99.0.1, port: 179}, {address: "fd00:99::1", port: 1179}]
routeReflector: {clusterId: 10.99.0.9}
fib: kernel
networks: [10.1.0.0/26, "fd00:1::/122"]
defaults: {holdTime: 30, connectRetry: 2, families: [ipv4-unicast]}
peers:
  - {address: 10.99.0.2, port: 1790, asNumber: 65001, passive: true, password: "s3cret", ttlSecurityHops: 1, maxPrefixes: 40000,
     routeReflectorClient: false, nextHopSelf: false, localAddress: 10.99.0.1, description: "tor" }
  - {range: 10.128.0.0/16, asNumber: 65000, passive: true, routeReflectorClient: true, families: [ipv4-unicast, ipv6-unicast]}
"#;

fn parse(text: &str) -> File {
    File::parse(text).unwrap()
}

fn refused(text: &str) -> String {
    File::parse(text).unwrap_err().to_string()
}

fn minimal(more: &str) -> String {
    format!("asNumber: 65000\nrouterId: 10.99.0.1\n{more}")
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let file = parse(WHOLE);
    let config = &file.config;
    assert_eq!(
        (config.asn, config.router_id.to_string()),
        (65000, "10.99.0.1".into())
    );
    assert_eq!(
        config.listen,
        ["10.99.0.1:179", "[fd00:99::1]:1179"].map(|a| a.parse().unwrap())
    );
    assert_eq!(config.cluster_id, Some(Ipv4Addr::new(10, 99, 0, 9)));
    assert_eq!(file.fib, FibKind::Kernel);
    let networks: Vec<String> = file.networks.keys().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.1.0.0/26", "fd00:1::/122"]);
    let peer = PeerConfig {
        port: 1790,
        description: "tor".into(),
        local_address: Some(Ipv4Addr::new(10, 99, 0, 1).into()),
        next_hop_v4: Some(Ipv4Addr::new(10, 99, 0, 1)),
        next_hop_v6: Some("fd00:99::1".parse().unwrap()),
        passive: true,
        timers: Timers {
            hold_secs: 30,
            connect_retry: Duration::from_secs(2),
            ..Timers::default()
        },
        prefixes_max: Some(40_000),
        idle_hold: false,
        password: Some(Secret("s3cret".into())),
        ttl_security_hops: Some(1),
        ..PeerConfig::new(Ipv4Addr::new(10, 99, 0, 2).into(), 65001)
    };
    assert_eq!(config.peers, [peer]);
    let [range] = &config.ranges[..] else {
        panic!("{:?}", config.ranges)
    };
    assert_eq!(
        (range.net.to_string(), range.peers_max),
        ("10.128.0.0/16".into(), RANGE_PEERS_MAX)
    );
    assert!(range.template.passive && range.template.route_reflector_client);
    assert_eq!(range.template.families, Families::BOTH);
}

#[test]
fn whose_number_is_not_known_is_external_or_internal() {
    let file = parse(&minimal(
        "groups: {racks: {asNumber: external}}\npeers:\n  - {interface: eth0, group: racks}\n  \
         - {address: 10.99.0.2, asNumber: internal}\n  - {range: 10.128.0.0/16, asNumber: external}\n  \
         - {interface: eth1, asNumber: 65001}",
    ));
    let peers: Vec<_> = file.config.peers.iter().map(|p| p.asn).collect();
    let number = PeerAs::Number(65001);
    assert_eq!(peers, [PeerAs::External, PeerAs::Internal, number]);
    assert_eq!(file.config.ranges[0].template.asn, PeerAs::External);
}

#[test]
fn what_is_not_said_is_as_for_a_daemon_under_an_operators_hand() {
    let file = parse(&minimal("peers: [{address: 10.99.0.2, asNumber: 65001}]"));
    let peer = &file.config.peers[0];
    assert_eq!(
        file.config.listen,
        ["0.0.0.0:179", "[::]:179"].map(|a| a.parse().unwrap())
    );
    assert_eq!((file.fib, file.networks.len()), (FibKind::None, 0));
    assert_eq!(
        (&peer.import, &peer.export),
        (&Policy::accept_all(), &Policy::accept_all())
    );
    assert_eq!(
        (peer.prefixes_max, peer.idle_hold, peer.passive),
        (None, false, false)
    );
    assert_eq!(
        (peer.timers.hold_secs, peer.timers.connect_retry),
        (90, Duration::from_secs(1))
    );
    assert_eq!((peer.port, peer.families), (179, Families::BOTH));
}

#[test]
fn an_unknown_key_is_refused_by_line_column_and_name() {
    let check = |text: &str, words: &[&str]| {
        let error = refused(text);
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    check(&minimal("asNumbr: 1"), &["line 3", "column 1", "asNumbr"]);
    check(
        &minimal("peers:\n  - {address: 10.0.0.1, asNumber: 1, passwort: x}"),
        &["line 4", "column 38", "passwort"],
    );
    check(
        &minimal("defaults: {holdtime: 3}"),
        &["line 3", "column 12", "holdtime"],
    );
    check(
        &minimal("listen: [{address: 10.0.0.1, prot: 1}]"),
        &["line 3", "prot"],
    );
    check(
        &minimal("routeReflector: {clusterid: 1.2.3.4}"),
        &["line 3", "clusterid"],
    );
    check("asNumber: 65000\n", &["routerId"]);
    check(&minimal("asNumber: 65001"), &["line 3", "asNumber"]);
    check(&minimal("peers: ["), &["line"]);
}

#[test]
fn a_value_that_cannot_be_is_refused_by_its_key() {
    let check = |text: &str, words: &[&str]| {
        let error = refused(text);
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    check(&minimal("networks: [10.1.0.0/33]"), &["line 3", "networks[0]"]);
    check(
        &minimal("peers: [{address: 10.0.0.300, asNumber: 1}]"),
        &["line 3", "peers[0].address"],
    );
    check(
        &minimal("peers: [{address: 10.0.0.3, asNumber: x}]"),
        &["peers[0].asNumber", "external or internal"],
    );
    check(
        &minimal("peers: [{address: 10.0.0.3, asNumber: 4294967296}]"),
        &["peers[0].asNumber", "external or internal"],
    );
    check(
        &minimal("peers: [{interface: eth0, asNumber: external, routeReflectorClient: true}]"),
        &["only an internal peer"],
    );
    check(&minimal("peers: [{interface: eth0}]"), &["peers[0]", "asNumber"]);
    check(
        &minimal("limits: {pendingPerHost: 0}"),
        &["line 3", "limits.pendingPerHost"],
    );
    check(&minimal("fib: bird"), &["line 3", "fib"]);
    check(
        &minimal("defaults: {families: [vpnv4]}"),
        &["line 3", "defaults.families[0]"],
    );
    check(
        &minimal("peers: [{asNumber: 1}]"),
        &["peers[0]", "neither address nor range"],
    );
    check(
        &minimal("peers: [{address: 10.0.0.1, range: 10.0.0.0/8, asNumber: 1}]"),
        &["peers[0] (10.0.0.1)", "both"],
    );
    check(
        &minimal("peers: [{range: 10.0.0.0/8, asNumber: 1, passive: false}]"),
        &["passive"],
    );
    check(
        &minimal("peers: [{address: 10.0.0.1, asNumber: 1, maxPeers: 1}]"),
        &["maxPeers"],
    );
    check(
        &minimal("peers: [{address: 10.0.0.1, asNumber: 1, holdTime: 2}]"),
        &["10.0.0.1", "hold time"],
    );
    check(
        &minimal("peers: [{range: 10.0.0.0/8, asNumber: 0}]"),
        &["10.0.0.0", "reserved"],
    );
}

#[test]
fn no_error_shows_a_password() {
    let text = minimal("peers: [{address: 10.0.0.1, asNumber: 1, password: hunter2, passwort: hunter3}]");
    assert!(!refused(&text).contains("hunter"), "{}", refused(&text));
}

#[test]
fn every_feature_of_a_session_has_a_key() {
    let file = File::parse(
        r#"
asNumber: 65000
routerId: 10.99.0.1
gracefulShutdown: true
multipath: {maxPaths: 4, relaxAsPath: false}
policies:
  inward:
    default: reject
    terms:
      - name: ours
        match: {prefixes: [{prefix: 10.0.0.0/8, ge: 16, le: 24}, {prefix: 192.0.2.0/24}], from: [external],
                communities: ["65000:1", no-export], largeCommunities: ["1:2:3"], extendedCommunities: ["rt:1:2"],
                asPathPrefix: [65001], asPathOrigin: [65002], asPathLength: {le: 5}, nextHop: [10.99.0.0/24],
                med: {ge: 1, le: 2}, localPref: {ge: 100}, origin: [igp]}
        set: {localPref: 200, med: 7, origin: incomplete, addCommunities: ["65000:2"], largeCommunities: [],
              prepend: {asNumber: 65000, times: 2}, nextHop: self}
        then: accept
peers:
  - {address: 10.99.0.2, asNumber: 65001, import: inward, delayOpen: 5, longLivedTime: 3600, maxPrefixes: 10,
     maxPrefixesWarnPercent: 50, maxPrefixesRestart: 30, addPath: {receive: true, send: 4}, extendedMessages: false,
     extendedNextHop: false, localAs: {asNumber: 64999, replace: true}, asOverride: true, removePrivate: replace,
     gracefulShutdown: true, honourGracefulShutdown: false, shutdown: "at night"}
"#,
    )
    .unwrap();
    let config = &file.config;
    assert!(config.graceful_shutdown && !config.multipath_relaxed && config.paths_max == 4);
    let peer = &config.peers[0];
    let plain = PeerConfig::new(peer.address, 65001);
    for (what, changed) in [
        (
            "delayOpen",
            peer.timers.delay_open == Some(Duration::from_secs(5)),
        ),
        (
            "longLivedTime",
            peer.graceful_restart.long_lived_secs == Some(3600),
        ),
        ("warn", peer.prefixes_warn_percent == 50),
        ("restart", peer.prefixes_restart == Some(Duration::from_secs(30))),
        (
            "addPath",
            peer.add_path.send_max == 4 && peer.add_path.receive == Families::BOTH,
        ),
        ("extended", !peer.extended_messages && !peer.extended_next_hop),
        (
            "localAs",
            peer.local_as
                .is_some_and(|l| l.asn == 64999 && l.replace && !l.prepend_received),
        ),
        (
            "asOverride",
            peer.as_override && peer.remove_private == RemovePrivate::Replace,
        ),
        (
            "gracefulShutdown",
            peer.graceful_shutdown && !peer.honour_graceful_shutdown,
        ),
        ("shutdown", peer.shutdown.as_deref() == Some("at night")),
        (
            "export",
            peer.export == plain.export && peer.import != plain.import,
        ),
    ] {
        assert!(changed, "{what}: {peer:?}");
    }
    let term = &peer.import.terms[0];
    assert_eq!((term.when.len(), term.then.len()), (12, 7), "{term:?}");
}

#[test]
fn policies_that_cannot_be_are_named() {
    let parse = |policies: &str, import: &str| {
        let text = format!(
            "asNumber: 65000\nrouterId: 10.99.0.1\npolicies: {policies}\npeers: [{{address: 10.99.0.2, asNumber: 65001, import: {import}}}]"
        );
        File::parse(&text).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(parse("{a: {default: accept}}", "a"), Ok(()));
    let unknown = parse("{a: {default: accept}}", "b").unwrap_err();
    assert!(
        unknown.contains("peers[0] (10.99.0.2)") && unknown.contains("policies"),
        "{unknown}"
    );
    let wrong = parse(
        "{a: {default: accept, terms: [{match: {communities: [x]}}]}}",
        "a",
    )
    .unwrap_err();
    assert!(wrong.contains("policies.a") && wrong.contains("\"x\""), "{wrong}");
    assert!(parse("{a: {default: perhaps}}", "a").is_err());
    assert!(parse("{a: {default: accept, terms: [{unless: {}}]}}", "a").is_err());
}

#[test]
fn bfd_bmp_and_mrt_have_their_keys() {
    let file = parse(&minimal(
        "bmp: [{address: 192.0.2.9, port: 1790, routes: pre-policy, statisticsInterval: 5}, {address: 192.0.2.8}]
mrt: {table: /tmp/t, tableInterval: 7, updates: /tmp/u}
peers:
  - {address: 192.0.2.1, asNumber: 65001, bfd: true}
  - {address: 192.0.2.2, asNumber: 65001, bfd: {minTx: 50, minRx: 60, multiplier: 5, multihop: true}}
  - {address: 192.0.2.3, asNumber: 65001, bfd: false}
",
    ));
    let bfd: Vec<_> = file.config.peers.iter().map(|p| p.bfd).collect();
    let fast = crate::bfd::Params {
        min_tx: Duration::from_millis(50),
        min_rx: Duration::from_millis(60),
        multiplier: 5,
        multihop: true,
    };
    assert_eq!(bfd, [Some(crate::bfd::Params::default()), Some(fast), None]);
    let bmp: Vec<_> = file
        .config
        .bmp
        .iter()
        .map(|b| {
            (
                b.address.to_string(),
                b.pre_policy,
                b.post_policy,
                b.statistics.as_secs(),
            )
        })
        .collect();
    assert_eq!(
        bmp,
        [
            ("192.0.2.9:1790".into(), true, false, 5),
            ("192.0.2.8:11019".into(), true, true, 60)
        ]
    );
    assert_eq!(
        file.config.mrt.table,
        Some(("/tmp/t".into(), Duration::from_secs(7)))
    );
    assert_eq!(file.config.mrt.updates, Some("/tmp/u".into()));
    refused(&minimal("bmp: [{address: 192.0.2.9, speed: 1}]"));
    refused(&minimal("mrt: {tableInterval: 0, table: /tmp/t}"));
    refused(&minimal(
        "peers: [{address: 192.0.2.1, asNumber: 65001, bfd: {minTx: 1}}]",
    ));
    refused(&minimal(
        "peers: [{address: 192.0.2.1, asNumber: 65001, bfd: {min: 100}}]",
    ));
}

#[test]
fn a_peer_has_what_its_group_says_unless_it_says_otherwise() {
    let file = parse(&minimal(
        "defaults: {holdTime: 30}
groups:
  racks: {asNumber: 65001, holdTime: 9, passive: true, password: s3cret, maxPeers: 7, keepaliveTime: 3}
peers:
  - {address: 192.0.2.1, group: racks}
  - {address: 192.0.2.2, group: racks, asNumber: 65002, holdTime: 12, passive: false}
  - {range: 198.18.0.0/16, group: racks}
  - {address: 192.0.2.3, asNumber: 65003}
",
    ));
    let said = |p: &PeerConfig| {
        let key = p.password.is_some();
        (p.known_asn(0), p.timers.hold_secs, p.passive, key)
    };
    let peers: Vec<_> = file.config.peers.iter().map(said).collect();
    assert_eq!(
        peers,
        [
            (Some(65001), 9, true, true),
            (Some(65002), 12, false, true),
            (Some(65003), 30, false, false)
        ]
    );
    let keepalive = file.config.peers[0].timers.keepalive;
    assert_eq!(keepalive, Some(Duration::from_secs(3)));
    let range = &file.config.ranges[0];
    assert_eq!(
        (range.peers_max, said(&range.template)),
        (7, (Some(65001), 9, true, true))
    );
}

#[test]
fn a_group_that_is_none_is_refused_by_name() {
    let check = |text: &str, words: &[&str]| {
        let error = refused(&minimal(text));
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    check("groups: {racks: {holdTme: 9}}", &["line 3", "holdTme"]);
    check("groups: {racks: {address: 192.0.2.1}}", &["groups.racks"]);
    check("groups: {racks: {group: racks}}", &["groups.racks"]);
    check(
        "peers: [{address: 192.0.2.1, asNumber: 1, group: racks}]",
        &["peers[0] (192.0.2.1)", "groups"],
    );
    check(
        "groups: {racks: {holdTime: 9}}\npeers: [{address: 192.0.2.1, group: racks}]",
        &["peers[0]", "asNumber"],
    );
}

#[test]
fn bounds_over_all_peers_and_metrics_have_their_keys() {
    let file = parse(&minimal(
        "limits: {routes: 5, attributeOctets: 6, unknownAttributeOctets: 7, pendingNeighbours: 8, pendingPerHost: 9}
metrics: {address: 127.0.0.1}
",
    ));
    let limits = Limits {
        routes: 5,
        attribute_octets: 6,
        unknown_octets: 7,
        pending: 8,
        pending_per_host: 9,
    };
    assert_eq!(file.config.limits, limits);
    assert_eq!(file.metrics, Some("127.0.0.1:9091".parse().unwrap()));
    assert_eq!(parse(&minimal("")).config.limits, Limits::default());
    refused(&minimal("limits: {prefixes: 5}"));
    refused(&minimal("metrics: {port: 5}"));
}

#[test]
fn a_peer_may_be_an_interface_or_an_address_there() {
    let file = parse(&minimal(
        "peers:
  - {interface: eth0, asNumber: 65001}
  - {interface: eth1, asNumber: 65001}
  - {address: \"fe80::1%eth0\", asNumber: 65002}
  - {address: \"fe80::1\", interface: eth1, asNumber: 65003}
",
    ));
    let names: Vec<String> = file.config.peers.iter().map(PeerConfig::name).collect();
    assert_eq!(names, ["eth0", "eth1", "fe80::1%eth0", "fe80::1%eth1"]);
    assert_eq!(file.config.peers[0].families, Families::BOTH);
    let check = |peer: &str, words: &[&str]| {
        let error = refused(&minimal(&format!("peers: [{{{peer}, asNumber: 65001}}]")));
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    check("address: \"fe80::1\"", &["fe80::1", "interface"]);
    check(
        "address: 192.0.2.1, interface: eth0",
        &["192.0.2.1", "link-local"],
    );
    check(
        "address: \"fe80::1%eth0\", interface: eth1",
        &["fe80::1%eth0", "already"],
    );
    check("interface: a-name-that-is-too-long", &["15 octets"]);
    check("interface: eth0, password: s3cret", &["eth0", "key"]);
    check("interface: eth0, range: 10.0.0.0/8", &["both"]);
    let twice = "peers: [{interface: eth0, asNumber: 1}, {interface: eth0, asNumber: 1}]";
    assert!(refused(&minimal(twice)).contains("twice"));
}
