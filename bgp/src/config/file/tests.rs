use super::*;
use crate::policy::Policy;

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
        &["peers[0].asNumber"],
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
